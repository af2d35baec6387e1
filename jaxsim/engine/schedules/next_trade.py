"""Where lanes trade next, searched for in a whole block of bars: between two rebalances units do not change."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.bar.delisting import leaving_bars
from jaxsim.engine.bar.lane_state import LaneState, observation_of
from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs, over_lanes
from jaxsim.engine.bar.ruin import first_ruin, has_worthless_mark, may_be_ruined
from jaxsim.engine.bar.step import decide
from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.policy.screening import Screening, as_columns, by_asset, from_columns, worth_of
from jaxsim.engine.policy.triggers import dates_of, may_fire
from jaxsim.engine.schedules.lane_slots import AbstractLaneSlots
from jaxsim.engine.schedules.sinks import AbstractView, Block
from jaxsim.engine.trading.market import Market


class Standing(eqx.Module):
    """How lanes stand between two rebalances: what a search of many bars needs, laid out for that, [lane axes...].

    cash: currency.     units, target: as `screening.as_columns` lays them out.
    start: the first bar at which each lane may trade; the length of the market if it never may again.
    is_eager: whether it trades there whatever the trigger says.
    """

    cash: Float[Array, "*lanes"]
    units: Any
    target: Any
    start: Int[Array, "*lanes"]
    is_eager: Bool[Array, "*lanes"]

    @classmethod
    def of(
        cls, inputs: LaneInputs, axes: tuple[LaneAxis, ...], lane: LaneState, seen: Int[Array, "*lanes"]
    ) -> "Standing":
        """seen: the first bar that each lane has not decided on."""
        length = inputs.market.close.shape[-2]

        def may_start(inputs: LaneInputs, lane: LaneState, seen: Array) -> tuple[Array, Array]:
            policy = inputs.policy
            start = jnp.maximum(seen, jnp.ceil(jnp.asarray(policy.min_history)))
            if lane.first_bar is not None:
                start = jnp.maximum(start, lane.first_bar)
            is_eager = lane.is_on_its_way
            if lane.is_unasked is not None:
                is_eager |= lane.is_unasked
            if policy.trades_when_flat:
                is_eager |= lane.is_flat
            # A lane that has gone wrong or is ruined trades no more.
            start = where(lane.status.is_ok & ~lane.is_ruined, start, length)
            return jnp.minimum(start, length).astype(jnp.int32), is_eager

        start, is_eager = over_lanes(may_start, axes, (0, 0), 0)(inputs, lane, seen)
        held = lane.holdings
        return cls(held.cash, as_columns(held.units), as_columns(lane.target), start, is_eager)


class NextTrade(eqx.Module):
    """A search for the bars at which lanes trade next.

    num_bars: int [], the number of bars of the market; bars after them only fill up its shape.
    dates: int [lane axes..., time], the next date at or after each bar, for a trigger that does not look at the
        portfolio; else None.
    is_quick: whether the trigger has a quick answer (`AbstractTrigger.may_fire`).
    leaving: bool [those lane axes that prices have..., time], where any asset leaves the market: such bars are looked
        at whatever the trigger says. None: none can leave.
    has_worthless_mark: whether any asset is ever marked at nothing.
    """

    inputs: LaneInputs
    axes: tuple[LaneAxis, ...] = eqx.field(static=True)
    num_bars: Array
    dates: Int[Array, "..."] | None
    is_quick: bool = eqx.field(static=True)
    leaving: Bool[Array, "..."] | None
    has_worthless_mark: Bool[Array, ""]

    @classmethod
    def of(cls, inputs: LaneInputs, axes: tuple[LaneAxis, ...], lane: LaneState, num_bars: Any = None) -> "NextTrade":
        length = inputs.market.close.shape[-2]
        has_dates, is_quick = _kind(inputs, axes, lane)
        gone = inputs.market.gone

        def next_dates(inputs: LaneInputs) -> Array:
            fires, bars = dates_of(inputs.policy.trigger, length), jnp.arange(length, dtype=jnp.int32)
            assert fires is not None
            gone = inputs.market.gone
            fires = fires if gone is None else fires | leaving_bars(gone)
            return lax.cummin(where(fires, bars, length), reverse=True)

        num_bars = jnp.asarray(length if num_bars is None else num_bars, jnp.int32)
        dates = over_lanes(next_dates, axes, (), 0)(inputs) if has_dates else None
        leaving = None if gone is None else leaving_bars(gone)
        return cls(inputs, axes, num_bars, dates, is_quick, leaving, has_worthless_mark(inputs.market))

    @property
    def length(self) -> int:
        """Bars of the market, with those that only fill up its shape."""
        return self.inputs.market.close.shape[-2]

    def of_slots(self, slots: AbstractLaneSlots) -> "NextTrade":
        """The same search for the lanes in slots alone."""
        axes = (replace(self.axes[0], size=slots.number.shape[0]), *self.axes[1:])
        leaving = self.leaving
        if leaving is not None and self.axes[0].in_axes.market.gone is not None:
            leaving = slots.gather(leaving)
        inputs = slots.gather_inputs(self.inputs, self.axes[0])
        return replace(self, inputs=inputs, axes=axes, dates=None, leaving=leaving)

    def standing(self, lane: LaneState, seen: Int[Array, "*lanes"]) -> Standing:
        """How lanes stand that have decided on all bars before `seen`."""
        return Standing.of(self.inputs, self.axes, lane, seen)

    def next_trade(self, lane: LaneState, standing: Standing, block: Block) -> Int[Array, "*lanes"]:
        """The first bar from the block's beginning on at which each lane may trade; the length of the market if it has
        none, or none in this block."""
        length, start = self.length, jnp.maximum(standing.start, block.begin)
        if self.dates is not None:
            at = jnp.minimum(start, length - 1)
            later = jnp.take_along_axis(self.dates, at[..., None], axis=-1)[..., 0]
        else:
            fires = (
                may_fire_at(self.inputs, self.axes, standing, block)
                if self.is_quick
                else decide_at(self.inputs, self.axes, lane, block)
            )
            if self.leaving is not None:
                fires = fires | self._leaving_in(block)
            bars = block.bars.reshape(-1, *(1,) * start.ndim)
            later = jnp.min(where(fires & (bars >= start), bars, length), axis=0)
        later = where(standing.is_eager, start, where(start < length, later, length))
        return later if lane.ruined_at is None else self._or_ruin(lane, standing, block, start, later)

    def _or_ruin(
        self, lane: LaneState, standing: Standing, block: Block, start: Array, later: Array
    ) -> Int[Array, "*lanes"]:
        """`later`, or the bar before which an account was worth nothing, if that comes first."""
        length, bars = self.length, block.bars

        def in_block() -> Array:
            first = jnp.maximum(bars[0] - 1, 0)
            marked = Block(first + jnp.arange(len(bars), dtype=bars.dtype), block.begin)
            after = 1 + marked.bars.reshape(-1, *(1,) * start.ndim)
            is_ruined = (values_at(self.inputs, self.axes, standing, marked) <= 0) & (after >= start)
            return jnp.minimum(later, jnp.min(where(is_ruined, after, length), axis=0))

        def up_to_the_next() -> Array:
            return first_ruin(self.inputs, self.axes, lane, start, later)

        # A block of known dates may be the whole market, which must not be looked through at every turn.
        search = in_block if self.dates is None else up_to_the_next
        may_be = self.has_worthless_mark | over_lanes(
            lambda _, lane: may_be_ruined(lane.holdings) & ~lane.is_ruined, self.axes, (0,), 0
        )(self.inputs, lane)
        return lax.cond(may_be.any(), search, lambda: later)

    def _leaving_in(self, block: Block) -> Bool[Array, "bar *lanes"]:
        """At which bars of a block any asset leaves the market, to meet arrays [bar, lane axes...]."""
        assert self.leaving is not None
        rows = block.rows(self.leaving, self.leaving.ndim - 1)
        shape = [axis.size if axis.in_axes.market.gone == 0 else 1 for axis in self.axes]
        return jnp.moveaxis(rows.reshape(*shape, -1), -1, 0)


def _kind(inputs: LaneInputs, axes: tuple[LaneAxis, ...], lane: LaneState) -> tuple[bool, bool]:
    """Whether the bars at which lanes trade are dates, and whether the trigger has a quick answer. What closes
    positions between the dates, and fills that move valuation prices, have to be looked at exactly."""
    if inputs.policy.stops is not None or lane.last_fills is not None:
        return False, False
    kinds = []

    def ask(inputs: LaneInputs, lane: LaneState) -> Array:
        units, zero = by_asset(lane.holdings.units), jnp.zeros((), inputs.market.dtype)
        quick = may_fire(inputs.policy.trigger, Screening(jnp.int32(0), units, units, units, zero))
        kinds.extend((dates_of(inputs.policy.trigger, inputs.market.num_bars) is not None, quick is not None))
        return zero

    jax.eval_shape(lambda: over_lanes(ask, axes, (0,), 0)(inputs, lane))
    return kinds[0], kinds[1]


class _Rows(NamedTuple):
    """A block of a table of the market.

    rows: [those lane axes that it has..., bar, asset].        has: the names of these axes.
    """

    rows: Array
    has: frozenset[str]

    @classmethod
    def of(cls, search_axes: Sequence[LaneAxis], market: Market, name: str, block: Block) -> "_Rows":
        has = frozenset(axis.name for axis in search_axes if getattr(axis.in_axes.market, name) == 0)
        return cls(block.rows(getattr(market, name), len(has)), has)

    def with_axes(self, axes: Sequence[LaneAxis], has: frozenset[str]) -> Array:
        """The rows with axes of size one for those that they lack."""
        shape = [axis.size if axis.name in self.has else 1 for axis in axes if axis.name in has]
        return self.rows.reshape(*shape, *self.rows.shape[-2:])


def _columns(table: _Rows) -> tuple[Any, Any, Any]:
    """A block of prices by asset, the axis of bars in it, and its axes of lanes."""
    columns = by_asset(table.rows)
    shift = 0 if isinstance(columns, tuple) else 1
    return columns, len(table.has) + shift, lambda axis: shift if axis.name in table.has else None


def _prices_of_drift(axes: Sequence[LaneAxis], market: Market, price: _Rows, block: Block) -> _Rows:
    """Valuation prices without those that are carried from an earlier bar."""
    if market.carried is None:
        return price
    carried = _Rows.of(axes, market, "carried", block)
    has = price.has | carried.has
    rows = where(carried.with_axes(axes, has), jnp.nan, price.with_axes(axes, has))
    return _Rows(rows, has)


def may_fire_at(
    inputs: LaneInputs, axes: tuple[LaneAxis, ...], standing: Standing, block: Block
) -> Bool[Array, "bar *lanes"]:
    """Where the trigger may fire for each lane as it is now."""
    rows = _Rows.of(axes, inputs.market, "val_price", block)
    known, known_bar_axis, known_axes = _columns(rows)
    known = jax.tree.map(lambda x: where(jnp.isnan(x), 0.0, x), known)
    price, bar_axis, lane_axes = _columns(_prices_of_drift(axes, inputs.market, rows, block))
    units, target = by_asset(standing.units), by_asset(standing.target)
    by_lane = 0 if isinstance(units, tuple) else 1

    def one_bar_of_one_lane(
        inputs: LaneInputs, cash: Array, units: Any, target: Any, price: Any, known: Any, bar: Array
    ) -> Array:
        screening = Screening(bar, units, price, target, jnp.asarray(worth_of(cash, units, known)))
        fires = may_fire(inputs.policy.trigger, screening)
        assert fires is not None
        return jnp.asarray(fires)

    def one_bar(price: Any, known: Any, bar: Array) -> Array:
        mapped = over_lanes(one_bar_of_one_lane, axes, (0, by_lane, by_lane, lane_axes, known_axes, None), 0)
        return mapped(inputs, standing.cash, units, target, price, known, bar)

    return jax.vmap(one_bar, in_axes=(bar_axis, known_bar_axis, 0))(price, known, block.bars)


def decide_at(
    inputs: LaneInputs, axes: tuple[LaneAxis, ...], lane: LaneState, block: Block
) -> Bool[Array, "bar *lanes"]:
    """Where each lane, as it is now, trades."""

    def one_lane(inputs: LaneInputs, lane: LaneState) -> Array:
        market = inputs.market

        def trades(at: Array, val_price: Array) -> Array:
            return decide(inputs.policy, lane, observation_of(market, lane, at, val_price, inputs.key))

        return jax.vmap(trades)(block.bars, block.rows(market.val_price, 0))

    return jnp.moveaxis(over_lanes(one_lane, axes, (0,), 0)(inputs, lane), -1, 0)


def values_at(
    inputs: LaneInputs, axes: tuple[LaneAxis, ...], standing: Standing, block: Block
) -> Float[Array, "bar *lanes"]:
    """The value of each account as it is now, marked at each bar; what has no mark is not held."""
    mark, bar_axis, lane_axes = _columns(_Rows.of(axes, inputs.market, "mark", block))
    mark = jax.tree.map(lambda x: where(jnp.isnan(x), 0.0, x), mark)
    units = by_asset(standing.units)
    by_lane = 0 if isinstance(units, tuple) else 1

    def one_bar(mark: Any) -> Array:
        mapped = over_lanes(lambda inputs, *money: worth_of(*money), axes, (0, by_lane, lane_axes), 0)
        return mapped(inputs, standing.cash, units, mark)

    return jax.vmap(one_bar, in_axes=bar_axis)(mark)


class BlockView(AbstractView):
    """What lanes hold at the bars of a block if none of them trades there."""

    search: NextTrade
    standing: Standing
    block: Block

    @property
    def bars(self) -> Int[Array, " bar"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.block.bars

    def values(self) -> Float[Array, "bar *lanes"]:
        return values_at(self.search.inputs, self.search.axes, self.standing, self.block)

    def units(self) -> Float[Array, "*lanes_and_asset"]:
        return from_columns(self.standing.units)

    def cash(self) -> Float[Array, "*lanes"]:
        return self.standing.cash
