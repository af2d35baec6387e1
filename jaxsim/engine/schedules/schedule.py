"""How the bars of many lanes are run forward. A schedule changes when things are computed, never which."""

import abc
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Int

from jaxsim.engine.bar.lane_state import LaneState, start_of
from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs, shape_of
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.fields import whole_number
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.schedules.sinks import AbstractSink

T = TypeVar("T")


class Cursor(eqx.Module):
    """How far all lanes have come.

    lane: their states.
    seen: int [lane axes...], the first bar that each lane has not decided on.
    bar: int [], the first bar that is not done with; for `NextEvent` the first bar of the block that it searches.
    """

    lane: LaneState
    seen: Int[Array, "*lanes"]
    bar: Int[Array, ""]

    @classmethod
    def start(cls, inputs: LaneInputs, axes: tuple[LaneAxis, ...]) -> "Cursor":
        """Before the first bar."""
        return cls(start_of(inputs, axes), jnp.zeros(shape_of(axes), jnp.int32), jnp.int32(0))


class AbstractSchedule(eqx.Module):
    """A way to run the bars of many lanes forward."""

    @abc.abstractmethod
    def run(
        self, inputs: LaneInputs, axes: tuple[LaneAxis, ...], cursor: Cursor, sink: AbstractSink, num_bars: Any = None
    ) -> tuple[Cursor, AbstractSink]:
        """Run all lanes from a cursor on, until the sink has no room left or the market ends.

        sink: one that is not open yet.
        num_bars: int [], the number of bars of the market; bars after them only fill up its shape. Default all.
        """

    @property
    @abc.abstractmethod
    def sees_every_bar(self) -> bool:
        """Whether the policy is shown every bar, rather than only the bars that it trades at."""

    def compiled(self, program: "Callable[[AbstractSchedule], T]") -> T:
        """`program(schedule)`, which compiles."""
        return program(self)

    def check(self, policy: Policy) -> None:
        """Raises ValueError for a policy that cannot be run so."""
        return


def count_of(name: str, default: int | None) -> Any:
    """A field of a schedule for a whole number >= 1. Other values are a ValueError that names the field."""

    def check(value: Any) -> int | None:
        if value is None and default is None:
            return None
        return whole_number(value, name)

    return eqx.field(static=True, default=default, converter=check)
