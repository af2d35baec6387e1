"""Whole blocks of bars at once. Between two rebalances units do not change: the bars of a block are looked at together,
the first one at which a lane may trade is found, and only there, and only for the lanes that do, is a bar simulated."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.arrays import Array
from jaxsim.engine.glance import Glance, by_asset, worth_of
from jaxsim.engine.lanes import (
    Balances,
    LaneAxis,
    Places,
    Row,
    Run,
    can_gather,
    names_of,
    over_lanes,
    shape_of,
)
from jaxsim.engine.step import Lane, at_bar_row, decide, observe, rebalance_if
from jaxsim.engine.triggers import dates_of, may_fire


class Cursor(eqx.Module):
    """How far all lanes have come.

    seen: int [lane axes...], the first bar that each lane has not decided on.
    bar: int [], the first of the block that is looked at; those before it are done with.
    """

    lane: Lane
    seen: Int[Array, "*lanes"]
    bar: Int[Array, ""]


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


class Outlook(eqx.Module):
    """Where lanes trade next, worked out for a whole block.

    dates: int [lane axes..., time], the next date at or after each bar, for a trigger that does not look at the
        portfolio; else None.
    is_quick: whether the trigger has a quick answer (`AbstractTrigger.may_fire`).
    """

    run: Run
    axes: tuple[LaneAxis, ...] = eqx.field(static=True)
    dates: Int[Array, "..."] | None
    is_quick: bool = eqx.field(static=True)

    @classmethod
    def of(cls, run: Run, axes: tuple[LaneAxis, ...], lane: Lane) -> "Outlook":
        num_bars = run.market.close.shape[-2]
        has_dates, is_quick = _kind(run, axes, lane)

        def next_dates(run: Run) -> Array:
            fires, bars = dates_of(run.policy.trigger, num_bars), jnp.arange(num_bars, dtype=jnp.int32)
            return lax.cummin(jnp.where(fires, bars, num_bars), reverse=True)

        return cls(run, axes, over_lanes(next_dates, axes, (), 0)(run) if has_dates else None, is_quick)

    def next_trade(self, cursor: Cursor, block: Block) -> Int[Array, "*lanes"]:
        """The first bar from `cursor.seen` on at which each lane may trade; the number of bars if it has none, or none
        in this block."""
        num_bars = self.run.market.close.shape[-2]

        def begin(run: Run, lane: Lane, seen: Array) -> tuple[Array, Array]:
            policy = run.policy
            first = jnp.maximum(jnp.maximum(seen, block.begin), jnp.ceil(jnp.asarray(policy.min_history)))
            is_eager = lane.is_on_its_way
            if policy.trades_when_flat:
                is_eager |= ~jnp.any(lane.holdings.units != 0)
            first = jnp.where(lane.status.is_ok, first, num_bars)  # a lane that has gone wrong trades no more
            return jnp.minimum(first, num_bars).astype(jnp.int32), is_eager

        start, is_eager = over_lanes(begin, self.axes, (0, 0), 0)(self.run, cursor.lane, cursor.seen)
        if self.dates is not None:
            at = jnp.minimum(start, num_bars - 1)
            later = jnp.take_along_axis(self.dates, at[..., None], axis=-1)[..., 0]
        else:
            fires = self._quick(cursor.lane, block) if self.is_quick else self._exact(cursor.lane, block)
            bars = block.bars.reshape(-1, *(1,) * start.ndim)
            later = jnp.min(jnp.where(fires & (bars >= start), bars, num_bars), axis=0)
        return jnp.where(is_eager, start, jnp.where(start < num_bars, later, num_bars))

    def _quick(self, lane: Lane, block: Block) -> Bool[Array, "bar *lanes"]:
        return glance_at(self.run, self.axes, lane, block)

    def _exact(self, lane: Lane, block: Block) -> Bool[Array, "bar *lanes"]:
        """Where each lane, as it is now, trades."""

        def one_lane(run: Run, lane: Lane) -> Array:
            market = run.market

            def trades(at: Array, val_price: Array) -> Array:
                return decide(run.policy, lane, observe(market, lane, at, val_price, run.key))

            return jax.vmap(trades)(block.bars, block.rows(market.val_price, 0))

        fires = over_lanes(one_lane, self.axes, (0,), 0)(self.run, lane)
        return jnp.moveaxis(fires, -1, 0)

    def values(self, lane: Lane, block: Block) -> Float[Array, "bar *lanes"]:
        """Each lane's account, as it is now, marked at each bar."""
        return values_at(self.run, self.axes, lane, block)


def _kind(run: Run, axes: tuple[LaneAxis, ...], lane: Lane) -> tuple[bool, bool]:
    """Whether the bars at which lanes trade are dates, and whether the trigger has a quick answer. What closes
    positions between the dates, and fills that move valuation prices, have to be looked at exactly."""
    if run.policy.guard is not None or lane.last_fills is not None:
        return False, False
    found = []

    def ask(run: Run, lane: Lane) -> Array:
        units, zero = by_asset(lane.holdings.units), jnp.zeros((), run.market.dtype)
        quick = may_fire(run.policy.trigger, Glance(jnp.int32(0), units, units, units, zero))
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


def glance_at(run: Run, axes: tuple[LaneAxis, ...], lane: Lane, block: Block) -> Bool[Array, "bar *lanes"]:
    """Where the trigger may fire for each lane as it is now."""
    price, bar_axis, lane_axes = _columns(axes, run.market.val_price, block, lambda market: market.val_price)
    known = jax.tree.map(lambda x: jnp.where(jnp.isnan(x), 0.0, x), price)
    units, target = by_asset(lane.holdings.units), by_asset(lane.target)
    by_lane = 0 if isinstance(units, tuple) else 1

    def one_bar_of_one_lane(
        run: Run, cash: Array, units: Any, target: Any, price: Any, known: Any, bar: Array
    ) -> Array:
        glance = Glance(bar, units, price, target, worth_of(cash, units, known))
        fires = may_fire(run.policy.trigger, glance)
        assert fires is not None
        return fires

    def one_bar(price: Any, known: Any, bar: Array) -> Array:
        mapped = over_lanes(one_bar_of_one_lane, axes, (0, by_lane, by_lane, lane_axes, lane_axes, None), 0)
        return mapped(run, lane.holdings.cash, units, target, price, known, bar)

    return jax.vmap(one_bar, in_axes=(bar_axis, bar_axis, 0))(price, known, block.bars)


def values_at(run: Run, axes: tuple[LaneAxis, ...], lane: Lane, block: Block) -> Float[Array, "bar *lanes"]:
    """The value of each account as it is now, marked at each bar; what has no mark is not held."""
    mark, bar_axis, lane_axes = _columns(axes, run.market.mark, block, lambda market: market.mark)
    mark = jax.tree.map(lambda x: jnp.where(jnp.isnan(x), 0.0, x), mark)
    units = by_asset(lane.holdings.units)
    by_lane = 0 if isinstance(units, tuple) else 1

    def one_bar(mark: Any) -> Array:
        mapped = over_lanes(lambda run, *money: worth_of(*money), axes, (0, by_lane, lane_axes), 0)
        return mapped(run, lane.holdings.cash, units, mark)

    return jax.vmap(one_bar, in_axes=bar_axis)(mark)


def trade_at(
    run: Run, axes: tuple[LaneAxis, ...], lane: Lane, at: Array, is_due: Array, number: Array
) -> tuple[Lane, Row]:
    """One bar of each lane that is due, each at a bar of its own."""

    def one_lane(run: Run, lane: Lane, at: Array, is_due: Array, number: Array) -> tuple[Lane, Row]:
        market, policy = run.market, run.policy
        obs = observe(market, lane, at, at_bar_row(market.val_price, at), run.key)
        trades = is_due & decide(policy, lane, obs)
        lane, event = rebalance_if(
            trades, policy, market, run.costs, lane, obs, names_of(axes), run.keep_log, run.ticket
        )
        return lane, Row(number, at, trades, Balances.of(lane.holdings), event)

    return over_lanes(one_lane, axes, (0, 0, 0, 0), 0)(run, lane, at, is_due, number)


class Pages(eqx.Module):
    """Keeps what lanes did, until the page is full.

    rows: [row, slot...].       count: number of rows that are filled.
    """

    rows: Row
    count: Int[Array, ""]

    def values(self, outlook: Outlook, cursor: Cursor, block: Block) -> "Pages":
        return self

    def record(self, row: Row, places: Places | None) -> "Pages":
        rows = jax.tree.map(lambda page, x: lax.dynamic_update_index_in_dim(page, x, self.count, 0), self.rows, row)
        return Pages(rows, self.count + 1)

    def finish(self, block: Block) -> "Pages":
        return self


class LookAhead(eqx.Module):
    """Whole blocks of bars at once; rows where some lane trades.

    block: bars looked at together; None: by the number of lanes.
    slots: lanes rebalanced together.       page: rows per page, at least.
    """

    block: int | None = eqx.field(static=True, default=None)
    slots: int = eqx.field(static=True, default=16)
    page: int = eqx.field(static=True, default=256)

    def block_size(self, run: Run, axes: tuple[LaneAxis, ...]) -> int:
        num_lanes = 1
        for axis in axes:
            num_lanes *= axis.size
        return min(self.block or (64 if num_lanes > 4 else 256), run.market.close.shape[-2])

    def gathers(self, run: Run, axes: tuple[LaneAxis, ...]) -> bool:
        return bool(axes) and axes[0].size > self.slots and can_gather(run, axes)

    def trade(self, run: Run, axes: tuple[LaneAxis, ...], cursor: Cursor, first: Array, is_due: Array, sink: Any):
        """One bar of all lanes that are due."""
        number = jnp.arange(first.size, dtype=jnp.int32).reshape(first.shape)
        at = jnp.minimum(first, run.market.close.shape[-2] - 1)
        seen = jnp.where(is_due, first + 1, cursor.seen)
        if not self.gathers(run, axes):
            lane, row = trade_at(run, axes, cursor.lane, at, is_due, number)
            return Cursor(lane, seen, cursor.bar), sink.record(row, None)
        here = (replace(axes[0], size=self.slots), *axes[1:])

        def some(state):
            lane, wanted, sink = state
            places = Places.first_of(wanted, self.slots)
            is_used = places.is_used.reshape(-1, *(1,) * (is_due.ndim - 1))
            some_lanes, at_, is_due_, number_ = places.gather((lane, at, is_due, number))
            after, row = trade_at(places.gather_run(run, axes[0]), here, some_lanes, at_, is_due_ & is_used, number_)
            return places.put_back(after, lane), wanted & ~places.is_here, sink.record(row, places)

        wanted = is_due.reshape(is_due.shape[0], -1).any(axis=1)
        lane, _, sink = lax.while_loop(lambda state: state[1].any(), some, (cursor.lane, wanted, sink))
        return Cursor(lane, seen, cursor.bar), sink

    def advance(self, outlook: Outlook, cursor: Cursor, sink: Any, size: int):
        """Look at the block; trade where lanes are due, or else be done with it."""
        run, axes = outlook.run, outlook.axes
        num_bars = run.market.close.shape[-2]
        block = Block.at(cursor.bar, size, num_bars)
        first = outlook.next_trade(cursor, block)
        sink = sink.values(outlook, cursor, block)
        end = jnp.minimum(cursor.bar + size, num_bars)
        is_due = first < end

        def act(cursor: Cursor, sink: Any):
            return self.trade(run, axes, cursor, first, is_due, sink)

        def go_on(cursor: Cursor, sink: Any):
            return Cursor(cursor.lane, cursor.seen, end), sink.finish(block)

        return lax.cond(is_due.any(), act, go_on, cursor, sink)

    def pages(self, run: Run, axes: tuple[LaneAxis, ...], cursor: Cursor) -> tuple[Cursor, Pages]:
        """A page of rows, and how far it has led."""
        outlook = Outlook.of(run, axes, cursor.lane)
        num_bars = run.market.close.shape[-2]
        size = num_bars if outlook.dates is not None else self.block_size(run, axes)
        per_round, here = 1, axes
        if self.gathers(run, axes):
            per_round, here = -(-axes[0].size // self.slots), (replace(axes[0], size=self.slots), *axes[1:])

        def blank_row() -> Row:
            places = Places.first_of(jnp.zeros(axes[0].size, bool), self.slots) if here is not axes else None
            some = cursor.lane if places is None else places.gather(cursor.lane)
            of = run if places is None else places.gather_run(run, axes[0])
            at = jnp.zeros(shape_of(here), jnp.int32)
            return trade_at(of, here, some, at, at == 0, at)[1]

        page = max(self.page, per_round)
        blank = jax.eval_shape(blank_row)
        rows = jax.tree.map(lambda x: jnp.zeros((page, *x.shape), x.dtype), blank)

        def is_unfinished(state) -> Array:
            cursor, sink = state
            return (cursor.bar < num_bars) & (sink.count + per_round <= page)

        start = (cursor, Pages(rows, jnp.int32(0)))
        return lax.while_loop(is_unfinished, lambda state: self.advance(outlook, *state, size), start)
