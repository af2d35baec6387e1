"""One lane, or many side by side: what they are simulated from, and functions of one mapped over all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsim.engine.bar.step import LaneState, Rebalance
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.numerics import cast_inexact
from jaxsim.engine.base.random import threefry
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.trading.account import Account, Holdings
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market


class LaneInputs(eqx.Module):
    """All that one lane is simulated from; with lane axes on some of its leaves, all that many lanes are."""

    market: Market
    policy: Policy
    costs: Costs
    account: Account
    key: Any  # typed, or outside of a program words: see `prepared`
    keep_log: bool = eqx.field(static=True, default=False)
    ticket: Any = None  # by which the host knows the lane


@dataclass(frozen=True)
class LaneAxis:
    """One axis of lanes. It is part of what a program is compiled for: equal axes are found equal fast.

    name: of the axis, for collectives.     size: number of lanes along it.
    places: of each leaf of a `LaneInputs`, where it has this axis (after those of the axes outside it): 0; None:
        nowhere.
    structure: of that `LaneInputs`.
    """

    name: str
    size: int
    places: tuple[int | None, ...]
    structure: Any

    @classmethod
    def of(cls, name: str, size: int, in_axes: LaneInputs) -> "LaneAxis":
        """in_axes: as that of `jax.vmap`, a pytree like `LaneInputs`."""
        places, structure = jax.tree.flatten(in_axes, is_leaf=_is_none)
        return cls(name, size, tuple(places), structure)

    @property
    def in_axes(self) -> Any:
        """For `jax.vmap`, a pytree like `LaneInputs`."""
        return jax.tree.unflatten(self.structure, self.places)


def _is_none(x: Any) -> bool:
    return x is None


class Balances(eqx.Module):
    """The account after a bar's orders: units, and the currency beside them."""

    units: Float[Array, " asset"]
    cash: Float[Array, ""]
    free_cash: Float[Array, ""]

    @classmethod
    def of(cls, holdings: Holdings) -> "Balances":
        return cls(holdings.units, holdings.cash, holdings.free_cash)


class Row(eqx.Module):
    """What a lane did at one bar: meaningful where it traded.

    lane: its number among all lanes.
    holdings: after the orders.
    """

    lane: Int[Array, ""]
    bar: Int[Array, ""]
    traded: Bool[Array, ""]
    holdings: Balances
    event: Rebalance


def over_lanes(function: Callable, axes: Sequence[LaneAxis], shared_in: Sequence, shared_out: Any) -> Callable:
    """`function(run, *arguments)` for one lane, mapped over all lane axes, the first outermost.

    shared_in: of each argument its axis of lanes, one number for all of them, or a function of a LaneAxis.
    """
    for axis in reversed(axes):
        others = (x(axis) if callable(x) else x for x in shared_in)
        function = jax.vmap(
            function,
            in_axes=(axis.in_axes, *others),
            out_axes=shared_out,
            axis_name=axis.name,
            axis_size=axis.size,
        )
    return function


def names_of(axes: Sequence[LaneAxis]) -> tuple[str, ...]:
    return tuple(axis.name for axis in axes)


def shape_of(axes: Sequence[LaneAxis]) -> tuple[int, ...]:
    return tuple(axis.size for axis in axes)


def start_of(run: LaneInputs, axes: Sequence[LaneAxis]) -> LaneState:
    """All lanes before the first bar."""

    def one_lane(run: LaneInputs) -> LaneState:
        return LaneState.start(run.market, run.policy, run.costs, run.account)

    return over_lanes(one_lane, axes, (), 0)(run)


def own_and_common(run: LaneInputs, axis: LaneAxis) -> tuple[LaneInputs, LaneInputs]:
    """The leaves that have an axis of lanes, and those that all its lanes share; None elsewhere.
    `eqx.combine` puts them together again."""
    has_axis = jax.tree.map(lambda place: place is not None, axis.in_axes, is_leaf=_is_none)
    return eqx.partition(run, has_axis)


def on_device(run: LaneInputs) -> LaneInputs:
    """With its arrays on the device; functions, and numbers that take on the dtype of what they meet, as they are."""
    return jax.tree.map(lambda x: jax.device_put(x) if isinstance(x, np.ndarray) else x, run)


def prepared(run: LaneInputs) -> LaneInputs:
    """As a program works on it: every number in the dtype of the market, and typed keys. Those may come as the words of
    Threefry's, and a third that is folded in: outside of a program that would take longer."""
    run = cast_inexact(run, run.market.dtype)
    if run.key.dtype != np.uint32:
        return run
    words = jnp.moveaxis(run.key, -1, 0)
    if len(words) == 3:
        words = jnp.stack(threefry((words[0], words[1]), (jnp.uint32(0), words[2])))
    return replace(run, key=jax.random.wrap_key_data(jnp.moveaxis(words, 0, -1), impl="threefry2x32"))


#: A lane with more numbers of its own than this (prices, say) is not gathered: it would be copied at every rebalance.
LARGEST_GATHERED = 2048


def can_gather(run: LaneInputs, axes: Sequence[LaneAxis], largest: int = LARGEST_GATHERED) -> bool:
    """Whether lanes of the outermost axis are cheap to gather: none has more numbers of its own than `largest`."""
    sizes = jax.tree.map(
        lambda place, leaves: 0 if place is None else sum(jnp.size(x) for x in jax.tree.leaves(leaves)),
        axes[0].in_axes,
        run,
        is_leaf=_is_none,
    )
    return sum(jax.tree.leaves(sizes)) <= largest * axes[0].size
