"""What one lane is simulated from, and what many lanes side by side are. A function of one lane is mapped over all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.engine.base.numerics import cast_inexact
from jaxsim.engine.base.random import threefry
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market


class LaneInputs(eqx.Module):
    """All that one lane is simulated from. Where lanes run side by side, leaves that differ by lane have axes of lanes
    in front, which `LaneAxis` describes.

    market: prices.     policy: when to trade, and what.     costs: of orders.     account: what is opened.
    key: a typed random key; for a compiled program of many lanes also its words, see `prepared`.
    keep_log: whether the account around each order is recorded.
    ticket: int32 [2], by which Python functions on the host know the lane; None without such functions.
    start: the first bar that the metrics of the lane count; None where no metrics are asked for, or all bars count.
    """

    market: Market
    policy: Policy
    costs: Costs
    account: Account
    key: Any
    keep_log: bool = eqx.field(static=True, default=False)
    ticket: Any = None
    start: Any = None


@dataclass(frozen=True)
class LaneAxis:
    """One axis of lanes. Programs are compiled for it, so that it can be hashed and compared fast.

    name: for collective operations over the axis.     size: number of lanes along it.
    places: for each leaf of a `LaneInputs` 0 if the leaf has this axis (behind those of the axes outside it), else
        None.
    structure: the tree structure of that `LaneInputs`.
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


#: The axes of lanes, the outermost first; () for a single lane.
LaneAxes = tuple[LaneAxis, ...]


def _is_none(x: Any) -> bool:
    return x is None


def over_lanes(function: Callable, axes: Sequence[LaneAxis], shared_in: Sequence, shared_out: Any) -> Callable:
    """`function(inputs, *arguments)` for one lane, mapped over all lane axes, the first outermost.

    shared_in: for each argument its axis of lanes, as one number for all lane axes or as a function of a LaneAxis.
    shared_out: the axis of lanes of all results.
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


def shape_of(axes: Sequence[LaneAxis]) -> tuple[int, ...]:
    return tuple(axis.size for axis in axes)


def own_and_common(inputs: LaneInputs, axis: LaneAxis) -> tuple[LaneInputs, LaneInputs]:
    """The leaves that have an axis of lanes, and the leaves that all its lanes share; None elsewhere. `eqx.combine`
    joins the two."""
    has_axis = jax.tree.map(lambda place: place is not None, axis.in_axes, is_leaf=_is_none)
    return eqx.partition(inputs, has_axis)


def on_device(inputs: LaneInputs) -> LaneInputs:
    """The inputs with their NumPy arrays copied to the device. Functions and Python numbers stay as they are."""
    return jax.tree.map(lambda x: jax.device_put(x) if isinstance(x, np.ndarray) else x, inputs)


def prepared(inputs: LaneInputs) -> LaneInputs:
    """The inputs as a program works on them: every number in the dtype of the market, and typed keys. A key may come as
    the two words of a Threefry key, and a third word that is still to be folded in: folding inside of the program
    takes less time."""
    inputs = cast_inexact(inputs, inputs.market.dtype)
    if inputs.key.dtype != np.uint32:
        return inputs
    words = jnp.moveaxis(inputs.key, -1, 0)
    if len(words) == 3:
        words = jnp.stack(threefry((words[0], words[1]), (jnp.uint32(0), words[2])))
    return replace(inputs, key=jax.random.wrap_key_data(jnp.moveaxis(words, 0, -1), impl="threefry2x32"))
