"""Whole blocks of bars at once. Between two rebalances units do not change: the bars of a block are looked at together,
the first one at which a lane may trade is found, and only there, and only for the lanes that do, is a bar simulated."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.bar.lanes import (
    Balances,
    LaneAxis,
    LaneInputs,
    Row,
    can_gather,
    names_of,
    over_lanes,
    shape_of,
    start_of,
)
from jaxsim.engine.bar.step import LaneState, at_bar_row, decide, observe, rebalance_if
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.fields import shown
from jaxsim.engine.metrics.online import RunningSums, returns_in_block
from jaxsim.engine.policy.host_callback import calls_python
from jaxsim.engine.schedules.lane_slots import AbstractLaneSlots, SlotsAtOnce, SlotsInTurn
from jaxsim.engine.schedules.next_trade import Block, NextTrade, Standing, values_at
from jaxsim.engine.schedules.xla_kernel import run_in_one_kernel, run_while


class Cursor(eqx.Module):
    """How far all lanes have come.

    seen: int [lane axes...], the first bar that each lane has not decided on.
    bar: int [], the first of the block that is looked at; those before it are done with.
    """

    lane: LaneState
    seen: Int[Array, "*lanes"]
    bar: Int[Array, ""]


def trade_at(
    run: LaneInputs, axes: tuple[LaneAxis, ...], lane: LaneState, at: Array, is_due: Array, number: Array
) -> tuple[LaneState, Row]:
    """One bar of each lane that is due, each at a bar of its own."""

    def one_lane(run: LaneInputs, lane: LaneState, at: Array, is_due: Array, number: Array) -> tuple[LaneState, Row]:
        market, policy = run.market, run.policy
        obs = observe(market, lane, at, at_bar_row(market.val_price, at), run.key)
        trades = is_due & decide(policy, lane, obs)
        lane, event = rebalance_if(
            trades, policy, market, run.costs, lane, obs, names_of(axes), run.keep_log, run.ticket
        )
        return lane, Row(number, at, trades, Balances.of(lane.holdings), event)

    return over_lanes(one_lane, axes, (0, 0, 0, 0), 0)(run, lane, at, is_due, number)


class RebalanceSink(eqx.Module):
    """Keeps what lanes did, until the page is full.

    rows: [row, slot...].       count: number of rows that are filled.
    """

    rows: Row
    count: Int[Array, ""]

    @property
    def room(self) -> int:
        """Number of rows in a page."""
        return self.rows.bar.shape[0]

    @property
    def has_room(self) -> Bool[Array, ""]:
        return self.count < self.room

    def begin(self, outlook: NextTrade, standing: Standing, block: Block) -> "RebalanceSink":
        return self

    def look(
        self, outlook: NextTrade, standing: Standing, seen: Array, block: Block, places: AbstractLaneSlots | None
    ) -> "RebalanceSink":
        return self

    def record(self, row: Row, places: AbstractLaneSlots | None) -> "RebalanceSink":
        rows = jax.tree.map(lambda page, x: lax.dynamic_update_index_in_dim(page, x, self.count, 0), self.rows, row)
        return RebalanceSink(rows, self.count + 1)

    def finish(self, outlook: NextTrade, block: Block) -> "RebalanceSink":
        return self


class MetricSink(eqx.Module):
    """Keeps no more than the metrics need.

    values: of each lane before the block, and after each of its bars, as far as that is known; currency,
        [1 + bar, lane axes...].
    benchmark: its returns, where a metric needs them, [time] or [group, time].
    """

    tally: RunningSums
    values: Float[Array, "rows *lanes"]
    benchmark: Any

    def begin(self, outlook: NextTrade, standing: Standing, block: Block) -> "MetricSink":
        """Bars that the block shares with the one before have the values that they had: units are those that were held
        at the end of it."""
        before, values = self.values[-1], values_at(outlook.run, outlook.axes, standing, block)
        # In place, row by row: XLA would copy number by number what is concatenated.
        rows = lax.dynamic_update_slice_in_dim(self.values, values, 1, axis=0)
        return replace(self, values=lax.dynamic_update_index_in_dim(rows, before, 0, axis=0))

    def look(
        self, outlook: NextTrade, standing: Standing, seen: Array, block: Block, places: AbstractLaneSlots | None
    ) -> "MetricSink":
        """Units are new from the bar of the last rebalance on."""
        old = self.values if places is None else places.gather(self.values, axis=1)
        is_new = _by_bar(block.bars, seen) >= seen - 1
        values = jnp.where(is_new, values_at(outlook.run, outlook.axes, standing, block), old[1:])
        values = lax.dynamic_update_slice_in_dim(old, values, 1, axis=0)
        return replace(self, values=values if places is None else places.put_back(values, self.values, axis=1))

    def record(self, row: Row, places: AbstractLaneSlots | None) -> "MetricSink":
        old = self.tally.trades
        if old is None:
            return self
        here = replace(self.tally, trades=old if places is None else places.gather(old))
        new = here.after(row.event, row.traded).trades
        return replace(self, tally=replace(self.tally, trades=new if places is None else places.put_back(new, old)))

    def finish(self, outlook: NextTrade, block: Block) -> "MetricSink":
        returns, benchmark = returns_in_block(self.values), self.benchmark
        is_new = _by_bar((block.bars >= block.begin) & (block.bars < outlook.num_bars), returns[0])
        if benchmark is not None:
            benchmark = jnp.moveaxis(block.rows(benchmark, benchmark.ndim - 1), -1, 0)
            shape = (len(benchmark), *(1,) * (returns.ndim - benchmark.ndim), *benchmark.shape[1:])
            benchmark = benchmark.reshape(shape)
        return replace(self, tally=self.tally.add(returns, is_new, benchmark))


def _by_bar(x: Array, lanes: Array) -> Array:
    """[bar] as [bar, 1...], to meet [lane axes...]."""
    return x.reshape(-1, *(1,) * lanes.ndim)


def _due_bars(outlook: NextTrade, first: Array) -> tuple[Array, Array]:
    """The bar at which each lane is due, if it is, and its number among all lanes."""
    number = jnp.arange(first.size, dtype=jnp.int32).reshape(first.shape)
    return jnp.minimum(first, outlook.run.market.close.shape[-2] - 1), number


class State(eqx.Module):
    """A run on its way.

    seen: as in `Cursor`.       first: int [lane axes...], where each lane trades next: `NextTrade.next_trade`.
    bar: as in `Cursor`.        sink: what keeps the results.
    """

    lane: LaneState
    seen: Int[Array, "*lanes"]
    standing: Standing
    first: Int[Array, "*lanes"]
    bar: Int[Array, ""]
    sink: Any


def _goes_on(outlook: NextTrade, state: State) -> Bool[Array, ""]:
    return state.bar < outlook.num_bars


#: Numbers in a page, for each of the dozen that a row holds of an asset.
LARGE_PAGE = 2**16


def count_of(name: str, default: int | None) -> Any:
    """A field of a schedule that says how many. Raises ValueError naming it for what is no number of things."""

    def check(value: Any) -> int | None:
        if value is None and default is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name}: expected a whole number >= 1, got {shown(value)}"[:200])
        return int(value)

    return eqx.field(static=True, default=default, converter=check)


class NextEvent(eqx.Module):
    """Whole blocks of bars at once; rows where some lane trades.

    block: bars looked at together; default 64 for a few lanes, else 16.
    slots: lanes rebalanced together; default 1 for a few lanes, up to 32 for many.
    page: rows that leave a program at a time; default 64 to 1,024, fewer where a row holds much.
    one_kernel: whether CPUs shall run the loop as one kernel where that is possible, see `xla_kernel`.
    """

    block: int | None = count_of("block", None)
    slots: int | None = count_of("slots", None)
    page: int | None = count_of("page", None)
    one_kernel: bool = eqx.field(static=True, default=True)

    def block_size(self, run: LaneInputs, axes: tuple[LaneAxis, ...]) -> int:
        count = math.prod(shape_of(axes))
        if self.one_kernel:
            size = 64 if count <= 4 else 32 if count <= 8 else 16
        else:
            size = 16 if 4 < count < 256 else 64
        return min(self.block or size, run.market.close.shape[-2])

    def num_slots(self, run: LaneInputs, axes: tuple[LaneAxis, ...]) -> int:
        """In one kernel a slot costs what it does; else all slots together cost a few calls of kernels."""
        count = axes[0].size
        if calls_python(run.policy):
            return count  # copies of a lane, which fill up a width, must ask together to be answered once
        if self.one_kernel:
            return self.slots or min(max(count // 16, 1), 32)
        return self.slots or next((slots for most, slots in ((4, 1), (32, 4), (255, 8)) if count <= most), 32)

    def num_rows(self, run: LaneInputs, num_lanes: int) -> int:
        """Rows per page, each of so many lanes: so many that few calls are needed, as long as a page is small."""
        return self.page or min(max(LARGE_PAGE // (num_lanes * run.market.close.shape[-1]), 64), 1024)

    def places(self, wanted: Bool[Array, " lane"], num_slots: int) -> AbstractLaneSlots:
        """The first lanes that are wanted."""
        return (SlotsInTurn if self.one_kernel else SlotsAtOnce).first_of(wanted, num_slots)

    def run_by(self, program: Callable[["NextEvent"], Any]) -> Any:
        """What `program(schedule)` returns, which compiles. If XLA cannot make one kernel of it after all, there are as
        many as usual."""
        try:
            return program(self)
        except jax.errors.JaxRuntimeError as error:
            if not (self.one_kernel and "UNIMPLEMENTED" in str(error)):
                raise
            return program(self.in_many_kernels())

    def gathers(self, run: LaneInputs, axes: tuple[LaneAxis, ...]) -> bool:
        return bool(axes) and axes[0].size > self.num_slots(run, axes) and can_gather(run, axes)

    def trade(self, outlook: NextTrade, state: "State", is_due: Array, block: Block) -> "State":
        """One bar of lanes that are due, of as many as there are slots; and where they trade next."""
        if self.gathers(outlook.run, outlook.axes):
            return self._trade_some(outlook, state, is_due, block)
        at, number = _due_bars(outlook, state.first)
        lane, row = trade_at(outlook.run, outlook.axes, state.lane, at, is_due, number)
        seen = jnp.where(is_due, at + 1, state.seen)
        standing = outlook.standing(lane, seen)
        sink = state.sink.record(row, None).look(outlook, standing, seen, block, None)
        return State(lane, seen, standing, outlook.next_trade(lane, standing, block), state.bar, sink)

    def _trade_some(self, outlook: NextTrade, state: "State", is_due: Array, block: Block) -> "State":
        axes = outlook.axes
        slots = self.num_slots(outlook.run, axes)
        places = self.places(jnp.any(is_due.reshape(is_due.shape[0], -1), axis=1), slots)
        here = (replace(axes[0], size=slots), *axes[1:])
        there = replace(outlook, run=places.gather_run(outlook.run, axes[0]), axes=here, dates=None)
        given = (state.lane, state.seen, is_due, *_due_bars(outlook, state.first))
        some, some_seen, due, at, number = places.gather(given)
        due = due & places.is_used.reshape(-1, *(1,) * (due.ndim - 1))
        some, row = trade_at(there.run, here, some, at, due, number)
        some_seen = jnp.where(due, at + 1, some_seen)
        lane, seen = places.put_back((some, some_seen), (state.lane, state.seen))
        sink, stands = state.sink.record(row, places), there.standing(some, some_seen)
        if self.one_kernel:
            standing = places.put_back(stands, state.standing)
            sink = sink.look(there, stands, some_seen, block, places)
        else:
            standing = outlook.standing(lane, seen)
            sink = sink.look(outlook, standing, seen, block, None)
        if outlook.dates is not None:
            first = outlook.next_trade(lane, standing, block)
        else:
            first = places.put_back(self._looked(there, some, stands, block), state.first)
        return State(lane, seen, standing, first, state.bar, sink)

    def _looked(self, there: NextTrade, lane: LaneState, standing: Standing, block: Block) -> Array:
        """Where some lanes trade next."""

        def look() -> Array:
            return there.next_trade(lane, standing, block)

        # A branch, always taken: else XLA would look anew for each of the lanes that slots are put back into.
        return lax.cond(there.num_bars > 0, look, lambda: standing.start)

    def advance(self, outlook: NextTrade, state: "State", size: int) -> "State":
        """Trade where lanes are due in this block, or else look at the next one."""
        length = outlook.run.market.close.shape[-2]
        block = Block.at(state.bar, size, length)
        end = jnp.minimum(state.bar + size, outlook.num_bars)
        is_due = state.first < end

        def act(state: State) -> State:
            return self.trade(outlook, state, is_due, block)

        def go_on(state: State) -> State:
            sink, following = state.sink.finish(outlook, block), Block.at(end, size, length)
            first = outlook.next_trade(state.lane, state.standing, following)
            sink = sink.begin(outlook, state.standing, following)
            return replace(state, first=first, bar=end, sink=sink)

        return lax.cond(is_due.any(), act, go_on, state)

    def loop(self, goes_on: Callable, outlook: NextTrade, state: "State", size: int) -> "State | None":
        """On and on while `goes_on(outlook, state)`. None if that was to be one kernel, cannot be, and is laid out in
        another way for many."""

        def turn(outlook: NextTrade, state: State) -> State:
            return self.advance(outlook, state, size)

        if self.one_kernel:
            end = run_in_one_kernel(goes_on, turn, outlook, state)
            given = (outlook.run, outlook.axes)
            if end is not None or self.gathers(*given) or self.in_many_kernels().gathers(*given):
                return end
        return run_while(goes_on, turn, outlook, state, one_kernel=False)

    def in_many_kernels(self) -> "NextEvent":
        """The same, laid out for as many kernels as XLA makes."""
        return replace(self, one_kernel=False)

    def _has_room(self, outlook: NextTrade, state: "State") -> Bool[Array, ""]:
        return _goes_on(outlook, state) & state.sink.has_room

    def opened(self, outlook: NextTrade, cursor: Cursor, sink: Any, size: int) -> "State":
        """Before anything is traded in a block."""
        block = Block.at(cursor.bar, size, outlook.run.market.close.shape[-2])
        standing = outlook.standing(cursor.lane, cursor.seen)
        first = outlook.next_trade(cursor.lane, standing, block)
        sink = sink.begin(outlook, standing, block)
        return State(cursor.lane, cursor.seen, standing, first, cursor.bar, sink)

    def pages(self, run: LaneInputs, axes: tuple[LaneAxis, ...], cursor: Cursor) -> tuple[Cursor, RebalanceSink]:
        """A page of rows, and how far it has led."""
        outlook = NextTrade.of(run, axes, cursor.lane)
        num_bars = run.market.close.shape[-2]
        size = num_bars if outlook.dates is not None else self.block_size(run, axes)
        here = (replace(axes[0], size=self.num_slots(run, axes)), *axes[1:]) if self.gathers(run, axes) else axes

        def blank_row() -> Row:
            places = self.places(jnp.zeros(axes[0].size, bool), here[0].size) if here is not axes else None
            some = cursor.lane if places is None else places.gather(cursor.lane)
            of = run if places is None else places.gather_run(run, axes[0])
            at = jnp.zeros(shape_of(here), jnp.int32)
            return trade_at(of, here, some, at, at == 0, at)[1]

        page = self.num_rows(run, math.prod(shape_of(here)))
        rows = jax.tree.map(lambda x: jnp.zeros((page, *x.shape), x.dtype), jax.eval_shape(blank_row))

        start = self.opened(outlook, cursor, RebalanceSink(rows, jnp.int32(0)), size)
        end = self.loop(self._has_room, outlook, start, size)
        if end is None:
            return self.in_many_kernels().pages(run, axes, cursor)
        return Cursor(end.lane, end.seen, end.bar), end.sink

    def scores(
        self, run: LaneInputs, axes: tuple[LaneAxis, ...], names: Sequence[str], benchmark: Any, num_bars: Array
    ) -> tuple[RunningSums, LaneState]:
        """What the metrics of these names are told from, and the lanes at the end.

        benchmark, num_bars: as in `stream`.
        """
        size, shape, dtype = self.block_size(run, axes), shape_of(axes), run.market.dtype
        cursor = Cursor(start_of(run, axes), jnp.zeros(shape, jnp.int32), jnp.int32(0))
        outlook = NextTrade.of(run, axes, cursor.lane, num_bars)
        cash = cursor.lane.holdings.cash
        values = jnp.broadcast_to(cash, (1 + size, *shape))
        sink = MetricSink(RunningSums.start(names, dtype, shape), values, benchmark)
        start = self.opened(outlook, cursor, sink, size)
        end = self.loop(_goes_on, outlook, start, size)
        if end is None:
            return self.in_many_kernels().scores(run, axes, names, benchmark, num_bars)
        return end.sink.tally, end.lane
