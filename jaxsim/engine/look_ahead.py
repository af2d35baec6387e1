"""Whole blocks of bars at once. Between two rebalances units do not change: the bars of a block are looked at together,
the first one at which a lane may trade is found, and only there, and only for the lanes that do, is a bar simulated."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.arrays import Array
from jaxsim.engine.glance import Glance, by_asset, worth_of
from jaxsim.engine.host import calls_python
from jaxsim.engine.kernel import run_while
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
    start_of,
)
from jaxsim.engine.metrics import returns_from_value
from jaxsim.engine.step import Lane, at_bar_row, decide, observe, rebalance_if
from jaxsim.engine.streaming import Tally
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

    num_bars: int [], how many bars of the market there are; those after them only fill up its shape.
    dates: int [lane axes..., time], the next date at or after each bar, for a trigger that does not look at the
        portfolio; else None.
    is_quick: whether the trigger has a quick answer (`AbstractTrigger.may_fire`).
    """

    run: Run
    axes: tuple[LaneAxis, ...] = eqx.field(static=True)
    num_bars: Array
    dates: Int[Array, "..."] | None
    is_quick: bool = eqx.field(static=True)

    @classmethod
    def of(cls, run: Run, axes: tuple[LaneAxis, ...], lane: Lane, num_bars: Any = None) -> "Outlook":
        length = run.market.close.shape[-2]
        has_dates, is_quick = _kind(run, axes, lane)

        def next_dates(run: Run) -> Array:
            fires, bars = dates_of(run.policy.trigger, length), jnp.arange(length, dtype=jnp.int32)
            assert fires is not None
            return lax.cummin(jnp.where(fires, bars, length), reverse=True)

        num_bars = jnp.asarray(length if num_bars is None else num_bars, jnp.int32)
        return cls(run, axes, num_bars, over_lanes(next_dates, axes, (), 0)(run) if has_dates else None, is_quick)

    def next_trade(self, lane: Lane, seen: Array, block: Block) -> Int[Array, "*lanes"]:
        """The first bar from `seen` on at which each lane may trade; the length of the market if it has none, or none
        in this block."""
        length = self.run.market.close.shape[-2]

        def begin(run: Run, lane: Lane, seen: Array) -> tuple[Array, Array]:
            policy = run.policy
            first = jnp.maximum(jnp.maximum(seen, block.begin), jnp.ceil(jnp.asarray(policy.min_history)))
            is_eager = lane.is_on_its_way
            if policy.trades_when_flat:
                is_eager |= ~jnp.any(lane.holdings.units != 0)
            first = jnp.where(lane.status.is_ok, first, length)  # a lane that has gone wrong trades no more
            return jnp.minimum(first, length).astype(jnp.int32), is_eager

        start, is_eager = over_lanes(begin, self.axes, (0, 0), 0)(self.run, lane, seen)
        if self.dates is not None:
            at = jnp.minimum(start, length - 1)
            later = jnp.take_along_axis(self.dates, at[..., None], axis=-1)[..., 0]
        else:
            look = glance_at if self.is_quick else decide_at
            fires = look(self.run, self.axes, lane, block)
            bars = block.bars.reshape(-1, *(1,) * start.ndim)
            later = jnp.min(jnp.where(fires & (bars >= start), bars, length), axis=0)
        return jnp.where(is_eager, start, jnp.where(start < length, later, length))


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
        glance = Glance(bar, units, price, target, jnp.asarray(worth_of(cash, units, known)))
        fires = may_fire(run.policy.trigger, glance)
        assert fires is not None
        return jnp.asarray(fires)

    def one_bar(price: Any, known: Any, bar: Array) -> Array:
        mapped = over_lanes(one_bar_of_one_lane, axes, (0, by_lane, by_lane, lane_axes, lane_axes, None), 0)
        return mapped(run, lane.holdings.cash, units, target, price, known, bar)

    return jax.vmap(one_bar, in_axes=(bar_axis, bar_axis, 0))(price, known, block.bars)


def decide_at(run: Run, axes: tuple[LaneAxis, ...], lane: Lane, block: Block) -> Bool[Array, "bar *lanes"]:
    """Where each lane, as it is now, trades."""

    def one_lane(run: Run, lane: Lane) -> Array:
        market = run.market

        def trades(at: Array, val_price: Array) -> Array:
            return decide(run.policy, lane, observe(market, lane, at, val_price, run.key))

        return jax.vmap(trades)(block.bars, block.rows(market.val_price, 0))

    return jnp.moveaxis(over_lanes(one_lane, axes, (0,), 0)(run, lane), -1, 0)


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

    def look(self, outlook: Outlook, state: "State", block: Block) -> "Pages":
        return self

    def record(self, row: Row, places: Places | None) -> "Pages":
        rows = jax.tree.map(lambda page, x: lax.dynamic_update_index_in_dim(page, x, self.count, 0), self.rows, row)
        return Pages(rows, self.count + 1)

    def finish(self, outlook: Outlook, block: Block) -> "Pages":
        return self


class Scores(eqx.Module):
    """Keeps no more than the metrics need.

    before: value of each lane before the block, currency, [lane axes...].
    value: after each of its bars, as far as that is known, [bar, lane axes...].
    benchmark: its returns, where a metric needs them, [time] or [group, time].
    """

    tally: Tally
    before: Float[Array, "*lanes"]
    value: Float[Array, "bar *lanes"]
    benchmark: Any

    def look(self, outlook: Outlook, state: "State", block: Block) -> "Scores":
        """Units are new from the bar of the last rebalance on."""
        bars = block.bars.reshape(-1, *(1,) * state.seen.ndim)
        value = values_at(outlook.run, outlook.axes, state.lane, block)
        return replace(self, value=jnp.where(bars >= state.seen - 1, value, self.value))

    def record(self, row: Row, places: Places | None) -> "Scores":
        old = self.tally.trades
        if old is None:
            return self
        here = replace(self.tally, trades=old if places is None else places.gather(old))
        new = here.after(row.event, row.traded).trades
        return replace(self, tally=replace(self.tally, trades=new if places is None else places.put_back(new, old)))

    def finish(self, outlook: Outlook, block: Block) -> "Scores":
        bars = block.bars.reshape(-1, *(1,) * self.before.ndim)
        is_new = (bars >= block.begin) & (bars < outlook.num_bars)
        value = jnp.where(bars < block.begin, self.before, self.value)
        returns, benchmark = returns_from_value(value, self.before), self.benchmark
        if benchmark is not None:
            benchmark = jnp.moveaxis(block.rows(benchmark, benchmark.ndim - 1), -1, 0)
            benchmark = benchmark.reshape(len(bars), *(1,) * (bars.ndim - benchmark.ndim), *benchmark.shape[1:])
        return replace(
            self, tally=self.tally.add(returns, jnp.broadcast_to(is_new, returns.shape), benchmark), before=value[-1]
        )


class State(eqx.Module):
    """A run on its way.

    seen: as in `Cursor`.       first: int [lane axes...], where each lane trades next: `Outlook.next_trade`.
    bar: as in `Cursor`.        sink: what keeps the results.
    """

    lane: Lane
    seen: Int[Array, "*lanes"]
    first: Int[Array, "*lanes"]
    bar: Int[Array, ""]
    sink: Any


def _goes_on(outlook: Outlook, state: State) -> Bool[Array, ""]:
    return state.bar < outlook.num_bars


class LookAhead(eqx.Module):
    """Whole blocks of bars at once; rows where some lane trades.

    block: bars looked at together; default 64 for a few lanes, else 16.
    slots: lanes rebalanced together; default 1 for a few lanes, up to 32 for many.
    page: rows per page.
    one_kernel: whether CPUs shall run the loop as one kernel where that is possible, see `jaxsim.engine.kernel`.
    """

    block: int | None = eqx.field(static=True, default=None)
    slots: int | None = eqx.field(static=True, default=None)
    page: int = eqx.field(static=True, default=256)
    one_kernel: bool = eqx.field(static=True, default=True)

    def block_size(self, run: Run, axes: tuple[LaneAxis, ...]) -> int:
        count = math.prod(shape_of(axes))
        return min(self.block or (16 if 4 < count < 256 else 64), run.market.close.shape[-2])

    def num_slots(self, run: Run, axes: tuple[LaneAxis, ...]) -> int:
        count = axes[0].size
        if calls_python(run.policy):
            return count  # copies of a lane, which fill up a width, must ask together to be answered once
        return self.slots or next((slots for most, slots in ((4, 1), (32, 4), (255, 8)) if count <= most), 32)

    def run_by(self, program: Callable[["LookAhead"], Any]) -> Any:
        """What `program(schedule)` returns, which compiles. If XLA cannot make one kernel of it after all, there are as
        many as usual."""
        try:
            return program(self)
        except jax.errors.JaxRuntimeError as error:
            if not (self.one_kernel and "UNIMPLEMENTED" in str(error)):
                raise
            return program(replace(self, one_kernel=False))

    def gathers(self, run: Run, axes: tuple[LaneAxis, ...]) -> bool:
        return bool(axes) and axes[0].size > self.num_slots(run, axes) and can_gather(run, axes)

    def trade(self, outlook: Outlook, state: "State", is_due: Array, block: Block) -> "State":
        """One bar of lanes that are due, of as many as there are slots; and where they trade next."""
        run, axes, lane, seen, first = outlook.run, outlook.axes, state.lane, state.seen, state.first
        number = jnp.arange(first.size, dtype=jnp.int32).reshape(first.shape)
        at = jnp.minimum(first, run.market.close.shape[-2] - 1)
        if not self.gathers(run, axes):
            lane, row = trade_at(run, axes, lane, at, is_due, number)
            seen = jnp.where(is_due, first + 1, seen)
            return State(lane, seen, outlook.next_trade(lane, seen, block), state.bar, state.sink.record(row, None))
        slots = self.num_slots(run, axes)
        places = Places.first_of(jnp.any(is_due.reshape(is_due.shape[0], -1), axis=1), slots)
        here = (replace(axes[0], size=slots), *axes[1:])
        there = replace(outlook, run=places.gather_run(run, axes[0]), axes=here, dates=None)
        some, at, due, number, new = places.gather((lane, at, is_due, number, seen))
        due = due & places.is_used.reshape(-1, *(1,) * (due.ndim - 1))
        after, row = trade_at(there.run, here, some, at, due, number)
        new = jnp.where(due, at + 1, new)
        lane, seen = places.put_back((after, new), (lane, seen))
        if outlook.dates is not None:
            first = outlook.next_trade(lane, seen, block)
        else:
            first = places.put_back(there.next_trade(after, new, block), first)
        return State(lane, seen, first, state.bar, state.sink.record(row, places))

    def advance(self, outlook: Outlook, state: "State", size: int) -> "State":
        """Trade where lanes are due in this block, or else look at the next one."""
        length = outlook.run.market.close.shape[-2]
        block = Block.at(state.bar, size, length)
        end = jnp.minimum(state.bar + size, outlook.num_bars)
        is_due = state.first < end

        def act(state: State) -> State:
            state = self.trade(outlook, state, is_due, block)
            return replace(state, sink=state.sink.look(outlook, state, block))

        def go_on(state: State) -> State:
            sink, following = state.sink.finish(outlook, block), Block.at(end, size, length)
            first = outlook.next_trade(state.lane, state.seen, following)
            state = State(state.lane, state.seen, first, end, sink)
            return replace(state, sink=sink.look(outlook, state, following))

        return lax.cond(is_due.any(), act, go_on, state)

    def loop(self, goes_on: Callable, outlook: Outlook, state: "State", size: int) -> "State":
        """On and on while `goes_on(outlook, state)`."""
        return run_while(
            goes_on, lambda outlook, state: self.advance(outlook, state, size), outlook, state, self.one_kernel
        )

    def _has_room(self, outlook: Outlook, state: "State") -> Bool[Array, ""]:
        return _goes_on(outlook, state) & (state.sink.count < self.page)

    def opened(self, outlook: Outlook, cursor: Cursor, sink: Any, size: int) -> "State":
        """Before anything is traded in a block."""
        block = Block.at(cursor.bar, size, outlook.run.market.close.shape[-2])
        first = outlook.next_trade(cursor.lane, cursor.seen, block)
        state = State(cursor.lane, cursor.seen, first, cursor.bar, sink)
        return replace(state, sink=sink.look(outlook, state, block))

    def pages(self, run: Run, axes: tuple[LaneAxis, ...], cursor: Cursor) -> tuple[Cursor, Pages]:
        """A page of rows, and how far it has led."""
        outlook = Outlook.of(run, axes, cursor.lane)
        num_bars = run.market.close.shape[-2]
        size = num_bars if outlook.dates is not None else self.block_size(run, axes)
        here = (replace(axes[0], size=self.num_slots(run, axes)), *axes[1:]) if self.gathers(run, axes) else axes

        def blank_row() -> Row:
            places = Places.first_of(jnp.zeros(axes[0].size, bool), here[0].size) if here is not axes else None
            some = cursor.lane if places is None else places.gather(cursor.lane)
            of = run if places is None else places.gather_run(run, axes[0])
            at = jnp.zeros(shape_of(here), jnp.int32)
            return trade_at(of, here, some, at, at == 0, at)[1]

        rows = jax.tree.map(lambda x: jnp.zeros((self.page, *x.shape), x.dtype), jax.eval_shape(blank_row))

        start = self.opened(outlook, cursor, Pages(rows, jnp.int32(0)), size)
        end = self.loop(self._has_room, outlook, start, size)
        return Cursor(end.lane, end.seen, end.bar), end.sink

    def scores(
        self, run: Run, axes: tuple[LaneAxis, ...], names: Sequence[str], benchmark: Any, num_bars: Array
    ) -> tuple[Tally, Lane]:
        """What the metrics of these names are told from, and the lanes at the end.

        benchmark, num_bars: as in `stream`.
        """
        size, shape, dtype = self.block_size(run, axes), shape_of(axes), run.market.dtype
        cursor = Cursor(start_of(run, axes), jnp.zeros(shape, jnp.int32), jnp.int32(0))
        outlook = Outlook.of(run, axes, cursor.lane, num_bars)
        cash = cursor.lane.holdings.cash
        sink = Scores(Tally.start(names, dtype, shape), cash, jnp.zeros((size, *shape), dtype), benchmark)
        start = self.opened(outlook, cursor, sink, size)
        end = self.loop(_goes_on, outlook, start, size)
        return end.sink.tally, end.lane
