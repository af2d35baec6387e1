"""Where lanes trade next, found for a whole block of bars: between two rebalances units do not change."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs, over_lanes
from jaxsim.engine.bar.step import LaneState, decide, observe
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.policy.screening import Screening, as_columns, by_asset, worth_of
from jaxsim.engine.policy.triggers import dates_of, may_fire


class Block(eqx.Module):
    """The bars that are looked at.

    bars: their numbers, of which those before `begin` are done with: the last block is as long as the others.
    """

    bars: Int[Array, " bar"]
    begin: Int[Array, ""]

    @classmethod
    def at(cls, bar: Int[Array, ""], size: int, num_bars: int) -> "Block":
        start = jnp.minimum(bar, num_bars - size)
        return cls(start + jnp.arange(size, dtype=bar.dtype), bar)

    def rows(self, x: Array, axis: int) -> Array:
        """The block's rows of [..., time, ...]."""
        return lax.dynamic_slice_in_dim(x, self.bars[0], self.bars.shape[0], axis)


class Standing(eqx.Module):
    """How lanes stand between two rebalances: what it takes to look at many bars, laid out for that, [lane axes...].

    cash: currency.     units, target: as `glance.as_columns` has them.
    start: the first bar at which each lane may trade; the length of the market if it never may again.
    is_eager: whether it trades there whatever the trigger says.
    """

    cash: Float[Array, "*lanes"]
    units: Any
    target: Any
    start: Int[Array, "*lanes"]
    is_eager: Bool[Array, "*lanes"]

    @classmethod
    def of(cls, run: LaneInputs, axes: tuple[LaneAxis, ...], lane: LaneState, seen: Int[Array, "*lanes"]) -> "Standing":
        """seen: the first bar that each lane has not decided on."""
        length = run.market.close.shape[-2]

        def may_start(run: LaneInputs, lane: LaneState, seen: Array) -> tuple[Array, Array]:
            policy = run.policy
            start = jnp.maximum(seen, jnp.ceil(jnp.asarray(policy.min_history)))
            is_eager = lane.is_on_its_way
            if policy.trades_when_flat:
                is_eager |= ~jnp.any(lane.holdings.units != 0)
            start = jnp.where(lane.status.is_ok, start, length)  # a lane that has gone wrong trades no more
            return jnp.minimum(start, length).astype(jnp.int32), is_eager

        start, is_eager = over_lanes(may_start, axes, (0, 0), 0)(run, lane, seen)
        held = lane.holdings
        return cls(held.cash, as_columns(held.units), as_columns(lane.target), start, is_eager)


class NextTrade(eqx.Module):
    """Where lanes trade next, worked out for a whole block.

    num_bars: int [], how many bars of the market there are; those after them only fill up its shape.
    dates: int [lane axes..., time], the next date at or after each bar, for a trigger that does not look at the
        portfolio; else None.
    is_quick: whether the trigger has a quick answer (`AbstractTrigger.may_fire`).
    """

    run: LaneInputs
    axes: tuple[LaneAxis, ...] = eqx.field(static=True)
    num_bars: Array
    dates: Int[Array, "..."] | None
    is_quick: bool = eqx.field(static=True)

    @classmethod
    def of(cls, run: LaneInputs, axes: tuple[LaneAxis, ...], lane: LaneState, num_bars: Any = None) -> "NextTrade":
        length = run.market.close.shape[-2]
        has_dates, is_quick = _kind(run, axes, lane)

        def next_dates(run: LaneInputs) -> Array:
            fires, bars = dates_of(run.policy.trigger, length), jnp.arange(length, dtype=jnp.int32)
            assert fires is not None
            return lax.cummin(jnp.where(fires, bars, length), reverse=True)

        num_bars = jnp.asarray(length if num_bars is None else num_bars, jnp.int32)
        return cls(run, axes, num_bars, over_lanes(next_dates, axes, (), 0)(run) if has_dates else None, is_quick)

    def standing(self, lane: LaneState, seen: Int[Array, "*lanes"]) -> Standing:
        """How lanes stand that have decided on all bars before `seen`."""
        return Standing.of(self.run, self.axes, lane, seen)

    def next_trade(self, lane: LaneState, standing: Standing, block: Block) -> Int[Array, "*lanes"]:
        """The first bar from the block's beginning on at which each lane may trade; the length of the market if it has
        none, or none in this block."""
        length = self.run.market.close.shape[-2]
        start = jnp.maximum(standing.start, block.begin)
        if self.dates is not None:
            at = jnp.minimum(start, length - 1)
            later = jnp.take_along_axis(self.dates, at[..., None], axis=-1)[..., 0]
        else:
            fires = (
                glance_at(self.run, self.axes, standing, block)
                if self.is_quick
                else decide_at(self.run, self.axes, lane, block)
            )
            bars = block.bars.reshape(-1, *(1,) * start.ndim)
            later = jnp.min(jnp.where(fires & (bars >= start), bars, length), axis=0)
        return jnp.where(standing.is_eager, start, jnp.where(start < length, later, length))


def _kind(run: LaneInputs, axes: tuple[LaneAxis, ...], lane: LaneState) -> tuple[bool, bool]:
    """Whether the bars at which lanes trade are dates, and whether the trigger has a quick answer. What closes
    positions between the dates, and fills that move valuation prices, have to be looked at exactly."""
    if run.policy.stops is not None or lane.last_fills is not None:
        return False, False
    found = []

    def ask(run: LaneInputs, lane: LaneState) -> Array:
        units, zero = by_asset(lane.holdings.units), jnp.zeros((), run.market.dtype)
        quick = may_fire(run.policy.trigger, Screening(jnp.int32(0), units, units, units, zero))
        found.extend((dates_of(run.policy.trigger, run.market.num_bars) is not None, quick is not None))
        return zero

    jax.eval_shape(lambda: over_lanes(ask, axes, (0,), 0)(run, lane))
    return found[0], found[1]


def _columns(axes: Sequence[LaneAxis], prices: Array, block: Block, of: Any) -> tuple[Any, Any, Any]:
    """A block of prices by asset, the axis of bars in it, and its axes of lanes."""
    num_axes = sum(of(axis.in_axes.market) == 0 for axis in axes)
    columns = by_asset(block.rows(prices, num_axes))
    shift = 0 if isinstance(columns, tuple) else 1
    return columns, num_axes + shift, lambda axis: None if of(axis.in_axes.market) is None else shift


def glance_at(
    run: LaneInputs, axes: tuple[LaneAxis, ...], standing: Standing, block: Block
) -> Bool[Array, "bar *lanes"]:
    """Where the trigger may fire for each lane as it is now."""
    price, bar_axis, lane_axes = _columns(axes, run.market.val_price, block, lambda market: market.val_price)
    known = jax.tree.map(lambda x: jnp.where(jnp.isnan(x), 0.0, x), price)
    units, target = by_asset(standing.units), by_asset(standing.target)
    by_lane = 0 if isinstance(units, tuple) else 1

    def one_bar_of_one_lane(
        run: LaneInputs, cash: Array, units: Any, target: Any, price: Any, known: Any, bar: Array
    ) -> Array:
        glance = Screening(bar, units, price, target, jnp.asarray(worth_of(cash, units, known)))
        fires = may_fire(run.policy.trigger, glance)
        assert fires is not None
        return jnp.asarray(fires)

    def one_bar(price: Any, known: Any, bar: Array) -> Array:
        mapped = over_lanes(one_bar_of_one_lane, axes, (0, by_lane, by_lane, lane_axes, lane_axes, None), 0)
        return mapped(run, standing.cash, units, target, price, known, bar)

    return jax.vmap(one_bar, in_axes=(bar_axis, bar_axis, 0))(price, known, block.bars)


def decide_at(run: LaneInputs, axes: tuple[LaneAxis, ...], lane: LaneState, block: Block) -> Bool[Array, "bar *lanes"]:
    """Where each lane, as it is now, trades."""

    def one_lane(run: LaneInputs, lane: LaneState) -> Array:
        market = run.market

        def trades(at: Array, val_price: Array) -> Array:
            return decide(run.policy, lane, observe(market, lane, at, val_price, run.key))

        return jax.vmap(trades)(block.bars, block.rows(market.val_price, 0))

    return jnp.moveaxis(over_lanes(one_lane, axes, (0,), 0)(run, lane), -1, 0)


def values_at(
    run: LaneInputs, axes: tuple[LaneAxis, ...], standing: Standing, block: Block
) -> Float[Array, "bar *lanes"]:
    """The value of each account as it is now, marked at each bar; what has no mark is not held."""
    mark, bar_axis, lane_axes = _columns(axes, run.market.mark, block, lambda market: market.mark)
    mark = jax.tree.map(lambda x: jnp.where(jnp.isnan(x), 0.0, x), mark)
    units = by_asset(standing.units)
    by_lane = 0 if isinstance(units, tuple) else 1

    def one_bar(mark: Any) -> Array:
        mapped = over_lanes(lambda run, *money: worth_of(*money), axes, (0, by_lane, lane_axes), 0)
        return mapped(run, standing.cash, units, mark)

    return jax.vmap(one_bar, in_axes=bar_axis)(mark)
