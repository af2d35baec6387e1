"""Next-event time advance: whole blocks of bars at once.

Between two rebalances units do not change. So the bars of a block are searched together for the first one at which a
lane may trade. Only that bar is simulated, and only for the lanes that trade there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Int

from jaxsim.engine.bar.lane_state import LaneState
from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs, over_lanes, shape_of
from jaxsim.engine.bar.step import trade_bar
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.tracing import traced_once
from jaxsim.engine.policy.host_callback import calls_python
from jaxsim.engine.policy.policy import Policy, allocator_name, observes
from jaxsim.engine.schedules.lane_slots import can_gather
from jaxsim.engine.schedules.next_trade import BlockView, NextTrade, Standing
from jaxsim.engine.schedules.recorded_dates import run_recorded, trades_as_recorded
from jaxsim.engine.schedules.schedule import AbstractSchedule, Cursor, T, count_of
from jaxsim.engine.schedules.sinks import AbstractSink, Block, Room, Row
from jaxsim.engine.schedules.xla_kernel import (
    Layout,
    Loop,
    block_size,
    branch_apart,
    first_that_compiles,
    num_slots,
    run_loop,
)

#: Numbers in a page, for each of the dozen that a row holds of an asset.
LARGE_PAGE = 2**16


class State(eqx.Module):
    """A run on its way.

    lane, seen, bar: as in `Cursor`.        standing: how the lanes stand.
    first: int [lane axes...], where each lane trades next, as `NextTrade.next_trade` finds it in the present block.
    """

    lane: LaneState
    seen: Int[Array, "*lanes"]
    standing: Standing
    first: Int[Array, "*lanes"]
    bar: Int[Array, ""]
    sink: AbstractSink


class NextEvent(AbstractSchedule):
    """Whole blocks of bars at once; rows where some lane trades.

    block: bars searched together; default 64 for a few lanes, else 16.
    slots: lanes rebalanced together; default 1 for a few lanes, up to 32 for many.
    page: rows that leave a program at a time; default 64 to 1,024, fewer where a row holds much.
    one_kernel: whether CPUs shall run the loop as one kernel where that is possible.
    """

    block: int | None = count_of("block", None)
    slots: int | None = count_of("slots", None)
    page: int | None = count_of("page", None)
    one_kernel: bool = eqx.field(static=True, default=True)

    @property
    def sees_every_bar(self) -> bool:
        return False

    def compiled(self, program: "Any") -> "T":  # pyright: ignore[reportInvalidTypeVarUse]
        return first_that_compiles(program, self, replace(self, one_kernel=False))

    def check(self, policy: Policy) -> None:
        if observes(policy.allocator):
            raise ValueError(f"schedule: {allocator_name(policy.allocator)} observes every bar; it takes js.Scan()")

    def run(
        self, inputs: LaneInputs, axes: tuple[LaneAxis, ...], cursor: Cursor, sink: AbstractSink, num_bars: Any = None
    ) -> tuple[Cursor, AbstractSink]:
        if sink.keeps_rows_alone and trades_as_recorded(inputs.policy):
            page = self.num_rows(inputs, math.prod(shape_of(axes)))
            return run_recorded(inputs, axes, cursor, sink, page, self.one_kernel)
        search = NextTrade.of(inputs, axes, cursor.lane, num_bars)

        def build(is_one_kernel: bool) -> Loop:
            turn = _Turn(
                self._layout(search, is_one_kernel, sink.keeps_rows_alone),
                traced_once(_trade_at),
                traced_once(NextTrade.next_trade),
            )
            return Loop(_goes_on, turn, search, self._opened(turn, search, cursor, sink))

        end = run_loop(build, self.one_kernel)
        return Cursor(end.lane, end.seen, end.bar), end.sink

    def _layout(self, search: NextTrade, is_one_kernel: bool, keeps_rows_alone: bool) -> Layout:
        inputs, axes, length = search.inputs, search.axes, search.length
        # Known dates need no search: one block holds all of them.
        is_whole = keeps_rows_alone and search.dates is not None
        block = length if is_whole else self.block or block_size(is_one_kernel, math.prod(shape_of(axes)))
        slots = None
        # Copies of a lane that fill up a width must ask Python together, to be answered once.
        if axes and not calls_python(inputs.policy):
            slots = self.slots or num_slots(is_one_kernel, axes[0].size)
            slots = slots if axes[0].size > slots and can_gather(inputs, axes) else None
        return Layout(is_one_kernel, min(block, length), slots)

    def num_rows(self, inputs: LaneInputs, num_lanes: int) -> int:
        """Rows per page, each of so many lanes: so many that few calls are needed, as long as a page is small."""
        return self.page or min(max(LARGE_PAGE // (num_lanes * inputs.market.close.shape[-1]), 64), 1024)

    def _opened(self, turn: "_Turn", search: NextTrade, cursor: Cursor, sink: AbstractSink) -> State:
        """Before the first block: no lane is due, so that the first turn searches the block that the cursor is at."""
        some, lane, layout = search, cursor.lane, turn.layout
        if layout.slots is not None:
            slots = layout.slots_for(jnp.zeros(search.axes[0].size, bool))
            some, lane = search.of_slots(slots), slots.gather(lane)

        def row() -> Row:
            at = jnp.zeros(shape_of(some.axes), jnp.int32)
            return turn.trade_at(some, lane, at, at == 0, at).row

        page = self.num_rows(search.inputs, math.prod(shape_of(some.axes)))
        sink = sink.opened(cursor.lane, Room(layout.block, page, row))
        standing, first = search.standing(cursor.lane, cursor.seen), jnp.full_like(cursor.seen, search.length)
        return State(cursor.lane, cursor.seen, standing, first, cursor.bar - layout.block, sink)


class Traded(eqx.Module):
    """Lanes after one bar of each, and what they did there."""

    lane: LaneState
    row: Row


def _goes_on(search: NextTrade, state: State) -> Bool[Array, ""]:
    return (state.bar < search.num_bars) & state.sink.has_room(1)


def _trade_at(search: NextTrade, lane: LaneState, at: Array, is_due: Array, number: Array) -> Traded:
    """One bar of each lane that is due, each at a bar of its own.      number: of each lane among all."""

    def one_lane(inputs: LaneInputs, lane: LaneState, at: Array, is_due: Array, number: Array) -> Traded:
        outcome = trade_bar(inputs, lane, at, is_due)
        return Traded(outcome.lane, Row.of(number, at, outcome))

    return over_lanes(one_lane, search.axes, (0, 0, 0, 0), 0)(search.inputs, lane, at, is_due, number)


@dataclass(frozen=True)
class _Turn:
    """One turn of the loop: lanes that are due in this block trade, or else the next block is searched.

    trade_at, next_trade: `_trade_at` and `NextTrade.next_trade`, traced once.
    """

    layout: Layout
    trade_at: Callable[..., Traded]
    next_trade: Callable[..., Array]

    def __call__(self, search: NextTrade, state: State) -> State:
        size, length = self.layout.block, search.length
        block = Block.at(state.bar, size, length)
        end = jnp.minimum(state.bar + size, search.num_bars)
        is_due = state.first < end

        def trade(state: State) -> State:
            trade = self._trade_all if self.layout.slots is None else self._trade_some
            return trade(search, state, is_due, block)

        def next_block(state: State) -> State:
            sink, following = state.sink.finish(block, search.num_bars), Block.at(end, size, length)
            first = self.next_trade(search, state.lane, state.standing, following)
            sink = sink.begin(following).look(BlockView(search, state.standing, following), None, None)
            return replace(state, first=first, bar=end, sink=sink)

        return lax.cond(is_due.any(), trade, next_block, state)

    def _trade_all(self, search: NextTrade, state: State, is_due: Array, block: Block) -> State:
        """One bar of all lanes that are due; and where they trade next."""
        at, number = _due_bars(search, state.first)
        traded = self.trade_at(search, state.lane, at, is_due, number)
        lane, seen = traded.lane, jnp.where(is_due, at + 1, state.seen)
        standing = search.standing(lane, seen)
        sink = state.sink.record(traded.row, None)
        sink = sink.look(BlockView(search, standing, block), _is_new(block, seen), None)
        return State(lane, seen, standing, self.next_trade(search, lane, standing, block), state.bar, sink)

    def _trade_some(self, search: NextTrade, state: State, is_due: Array, block: Block) -> State:
        """One bar of as many lanes that are due as there are slots; and where they trade next."""
        slots = self.layout.slots_for(jnp.any(is_due.reshape(is_due.shape[0], -1), axis=1))
        some = search.of_slots(slots)
        lanes = slots.gather(_DueLanes(state.lane, state.seen, is_due, *_due_bars(search, state.first)))
        due = lanes.is_due & slots.is_used.reshape(-1, *(1,) * (is_due.ndim - 1))
        traded = self.trade_at(some, lanes.lane, lanes.at, due, lanes.number)
        some_seen = jnp.where(due, lanes.at + 1, lanes.seen)
        lane, seen = slots.put_back((traded.lane, some_seen), (state.lane, state.seen))
        some_standing, sink = some.standing(traded.lane, some_seen), state.sink.record(traded.row, slots)
        if self.layout.is_one_kernel:
            standing = slots.put_back(some_standing, state.standing)
            sink = sink.look(BlockView(some, some_standing, block), _is_new(block, some_seen), slots)
        else:
            standing = search.standing(lane, seen)
            sink = sink.look(BlockView(search, standing, block), _is_new(block, seen), None)
        if search.dates is not None:
            first = self.next_trade(search, lane, standing, block)
        else:
            # Apart: else XLA would search anew for each of the lanes that slots are put back into.
            some_first = branch_apart(
                search.num_bars > 0,
                lambda: self.next_trade(some, traded.lane, some_standing, block),
                some_standing.start,
            )
            first = slots.put_back(some_first, state.first)
        return State(lane, seen, standing, first, state.bar, sink)


class _DueLanes(eqx.Module):
    """What slots gather of lanes.

    at: the bar at which each lane is due, if it is.        number: of each lane among all.
    """

    lane: LaneState
    seen: Int[Array, "*lanes"]
    is_due: Bool[Array, "*lanes"]
    at: Int[Array, "*lanes"]
    number: Int[Array, "*lanes"]


def _due_bars(search: NextTrade, first: Array) -> tuple[Array, Array]:
    """The bar at which each lane is due, if it is, and its number among all lanes."""
    number = jnp.arange(first.size, dtype=jnp.int32).reshape(first.shape)
    return jnp.minimum(first, search.length - 1), number


def _is_new(block: Block, seen: Array) -> Array:
    """The bars from that of the last rebalance of each lane on, [bar, lane axes...]."""
    return block.by_bar(block.bars, seen.ndim) >= seen - 1
