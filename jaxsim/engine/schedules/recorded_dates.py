"""Replays of recorded allocations and nothing else. Every trade is known beforehand, so that the lanes go from one of
their allocations to the next and skip the bars between them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Int

from jaxsim.engine.bar.delisting import leaving_bars
from jaxsim.engine.bar.lane_state import LaneState
from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs, over_lanes, own_and_common, shape_of
from jaxsim.engine.bar.ruin import first_ruin, has_worthless_mark, may_be_ruined
from jaxsim.engine.bar.step import may_trade, trade_bar
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.policy.allocation import Allocation
from jaxsim.engine.policy.destinations import SpreadOver
from jaxsim.engine.policy.given import AtRecorded, RecordedTargets
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.schedules.lane_slots import can_gather
from jaxsim.engine.schedules.schedule import Cursor
from jaxsim.engine.schedules.sinks import AbstractSink, Room, Row
from jaxsim.engine.schedules.xla_kernel import Loop, run_loop

#: Lanes of a cohort, where there are several.
COHORT = 8
#: Numbers of its own that a lane may have for each of its allocations, to be copied into its cohort.
LARGEST_COPIED = 256


def trades_as_recorded(policy: Policy) -> bool:
    """Whether a policy trades at the recorded bars, and at no others."""
    is_recorded = isinstance(policy.allocator, RecordedTargets) and isinstance(policy.trigger, AtRecorded)
    return is_recorded and policy.stops is None and not isinstance(policy.destination, SpreadOver)


class RecordedAllocation(eqx.Module):
    """An allocator that hands out one of the recorded allocations, by its number."""

    targets: RecordedTargets
    number: Int[Array, ""]

    def __call__(self, obs: Observation) -> Allocation:
        return self.targets.at(self.number)


class Cohorts(eqx.Module):
    """Neighbours of the outermost axis of lanes, which go through their allocations together. The cohorts go one
    after the other, so that lanes with few allocations need not wait for lanes with many. Recorded lanes are the
    outermost ones, and lanes that differ in nothing but fees are neighbours.

    size: lanes of each cohort.        end: int [cohort], the most allocations that a lane of the cohort has.
    """

    size: int = eqx.field(static=True)
    end: Int[Array, " cohort"]

    @classmethod
    def of(cls, count: Int[Array, "*lanes"], size: int) -> "Cohorts":
        """count: allocations of each lane."""
        return cls(size, jnp.max(count.reshape(-1, size * math.prod(count.shape[1:])), axis=1))

    @property
    def are_many(self) -> bool:
        return len(self.end) > 1

    def take(self, tree: Any, cohort: Array) -> Any:
        """[lane, ...] of one cohort."""
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, cohort * self.size, self.size), tree)

    def put_back(self, new: Any, old: Any, cohort: Array) -> Any:
        """`old` [lane, ...] with one cohort from `new`."""
        return jax.tree.map(lambda x, y: lax.dynamic_update_slice_in_dim(y, x, cohort * self.size, 0), new, old)


class Progress(eqx.Module):
    """How far the lanes have come.

    seen: int [lane axes...], the first bar that each lane has not decided on.
    done: int [cohort], the number of allocations that each cohort has traded; or int [], of one cohort alone.
    """

    lane: LaneState
    seen: Int[Array, "*lanes"]
    done: Int[Array, "*cohort"]
    sink: AbstractSink


class Replay(eqx.Module):
    """What the lanes trade.

    number: int [lane axes...], of each lane among all.
    leaving: int [those lane axes that prices have..., time], the next bar at or after each one at which any asset
        leaves the market, the number of bars if there is none. None: none can leave.
    has_worthless_mark: whether any asset is ever marked at nothing.
    """

    inputs: LaneInputs
    axes: tuple[LaneAxis, ...] = eqx.field(static=True)
    number: Int[Array, "*lanes"]
    leaving: Int[Array, "*some_lanes time"] | None
    has_worthless_mark: Bool[Array, ""]
    cohorts: Cohorts

    def goes_on(self, state: Progress) -> Bool[Array, ""]:
        return state.sink.has_room(1) & jnp.any(state.done < self.cohorts.end)

    def next_cohort(self, state: Progress) -> Progress:
        """The first cohort that is not done yet trades, as far as there is room."""
        cohort = jnp.argmax(state.done < self.cohorts.end)
        end, some = self.cohorts.end[cohort], self.of_cohort(cohort)

        def goes_on(state: Progress) -> Bool[Array, ""]:
            return state.sink.has_room(1) & (state.done < end)

        def next_row(state: Progress) -> Progress:
            lane, seen, is_done, row = some.trade(state.lane, state.seen, state.done)
            return Progress(lane, seen, state.done + is_done, state.sink.record(row, None))

        all_lanes = (state.lane, state.seen)
        lane, seen = self.cohorts.take(all_lanes, cohort) if self.cohorts.are_many else all_lanes
        after = lax.while_loop(goes_on, next_row, Progress(lane, seen, state.done[cohort], state.sink))
        lane, seen = after.lane, after.seen
        if self.cohorts.are_many:
            lane, seen = self.cohorts.put_back((lane, seen), all_lanes, cohort)
        return Progress(lane, seen, lax.dynamic_update_index_in_dim(state.done, after.done, cohort, 0), after.sink)

    def of_cohort(self, cohort: Array) -> "Replay":
        """What one cohort trades."""
        if not self.cohorts.are_many:
            return self
        own, common = own_and_common(self.inputs, self.axes[0])
        own, number = self.cohorts.take((own, self.number), cohort)
        leaving = self.leaving
        if leaving is not None and _has_own_prices(self.axes[0]):
            leaving = self.cohorts.take(leaving, cohort)
        axes = (replace(self.axes[0], size=self.cohorts.size), *self.axes[1:])
        return Replay(eqx.combine(own, common), axes, number, leaving, self.has_worthless_mark, self.cohorts)

    def trade(self, lane: LaneState, seen: Array, which: Array) -> tuple[LaneState, Array, Array, Row]:
        """Allocation number `which` of each lane that has so many; or, where assets leave the market before it, their
        closing. Returns the lanes, the first bar that each has not decided on, whether the allocation is done, and the
        row."""
        length, axes = self.inputs.market.close.shape[-2], self.axes

        def due_of(inputs: LaneInputs) -> Array:
            bars = jnp.asarray(inputs.policy.allocator.bars, jnp.int32)
            due = lax.dynamic_index_in_dim(bars, which, keepdims=False)
            return jnp.where(which < bars.shape[0], due, length)

        bar = over_lanes(due_of, axes, (), 0)(self.inputs)
        acts = bar < length
        before = length
        if self.leaving is not None:
            of_prices = (lambda axis: 0 if _has_own_prices(axis) else None, 0)
            next_one = over_lanes(lambda _, table, seen: table[jnp.minimum(seen, length - 1)], axes, of_prices, 0)
            before = next_one(self.inputs, self.leaving, seen)
        before = self._or_ruin(lane, seen, jnp.minimum(before, bar))
        is_behind = (before < bar) & (seen < length)
        is_done = ~is_behind.any()
        acts, bar = jnp.where(is_done, acts, is_behind), jnp.where(is_done, bar, before)
        bar = jnp.minimum(bar, length - 1)

        def one_lane(
            inputs: LaneInputs, lane: LaneState, bar: Array, acts: Array, number: Array
        ) -> tuple[LaneState, Row]:
            targets: Any = inputs.policy.allocator
            policy = replace(inputs.policy, allocator=RecordedAllocation(targets, which))

            def decision(policy: Policy, lane: LaneState, obs: Observation) -> Array:
                return may_trade(policy, lane, obs) & (is_done | lane.is_ruined)

            outcome = trade_bar(replace(inputs, policy=policy), lane, bar, acts, decision=decision)
            return outcome.lane, Row.of(number, bar, outcome)

        lane, row = over_lanes(one_lane, axes, (0, 0, 0, 0), 0)(self.inputs, lane, bar, acts, self.number)
        return lane, jnp.where(acts, bar + 1, seen), is_done, row

    def _or_ruin(self, lane: LaneState, seen: Array, end: Array) -> Array:
        """The first bar before `end` at which the account of each lane is found to be worth nothing, else `end`."""
        may_be = self.has_worthless_mark | over_lanes(
            lambda _, lane: may_be_ruined(lane.holdings) & ~lane.is_ruined, self.axes, (0,), 0
        )(self.inputs, lane)
        search = lambda: first_ruin(self.inputs, self.axes, lane, seen, end)  # noqa: E731
        return lax.cond(may_be.any(), search, lambda: end)


def cohort_size(inputs: LaneInputs, axes: Sequence[LaneAxis], is_one_kernel: bool) -> int:
    """Lanes of the outermost axis that go together. In one kernel a cohort takes the time of its arithmetic: it has
    enough lanes to fill a vector, and few enough to have about as many allocations. In many kernels all lanes go
    together."""
    if not axes or not is_one_kernel:
        return math.prod(shape_of(axes[:1]))
    size = max(1, COHORT // math.prod(shape_of(axes[1:])))
    room = jnp.shape(inputs.policy.allocator.bars)[-1]
    fits = axes[0].size % size == 0 and can_gather(inputs, axes, LARGEST_COPIED * room)
    return size if fits else axes[0].size


def run_recorded(
    inputs: LaneInputs,
    axes: tuple[LaneAxis, ...],
    cursor: Cursor,
    sink: AbstractSink,
    page: int,
    one_kernel: bool = True,
) -> tuple[Cursor, AbstractSink]:
    """Run all lanes from a cursor on, until the sink has no room left or no allocation is left.

    page: rows of all lanes that there is room for; where lanes go in cohorts, more rows of fewer lanes.
    """
    num_bars, shape = inputs.market.close.shape[-2], shape_of(axes)

    def bars_left(inputs: LaneInputs, seen: Array) -> tuple[Array, Array]:
        bars = jnp.asarray(inputs.policy.allocator.bars, jnp.int32)
        return jnp.sum(bars < jnp.minimum(seen, num_bars), dtype=jnp.int32), jnp.sum(bars < num_bars, dtype=jnp.int32)

    done, count = over_lanes(bars_left, axes, (0,), 0)(inputs, cursor.seen)
    number = jnp.arange(cursor.seen.size, dtype=jnp.int32).reshape(shape)
    # One turn more, before the end of the market: the closings after the last allocation.
    leaving, count = None, count + 1
    if inputs.market.gone is not None:
        leaves = leaving_bars(inputs.market.gone)
        bars = jnp.where(leaves, jnp.arange(num_bars, dtype=jnp.int32), num_bars)
        leaving = lax.cummin(bars, axis=bars.ndim - 1, reverse=True)
    worthless = has_worthless_mark(inputs.market)

    def build(is_one_kernel: bool) -> Loop:
        size = cohort_size(inputs, axes, is_one_kernel)
        replay = Replay(inputs, axes, number, leaving, worthless, Cohorts.of(count, size))
        some = jnp.int32(0)

        def row() -> Row:
            lanes = (cursor.lane, cursor.seen)
            lane, seen = replay.cohorts.take(lanes, some) if replay.cohorts.are_many else lanes
            return replay.of_cohort(some).trade(lane, seen, jnp.int32(0))[-1]

        opened = sink.opened(cursor.lane, Room(1, page * replay.cohorts.end.size, row))
        progress = Progress(cursor.lane, cursor.seen, Cohorts.of(done, size).end, opened)
        return Loop(Replay.goes_on, Replay.next_cohort, replay, progress)

    end = run_loop(build, one_kernel)
    is_done = jnp.all(end.done >= Cohorts.of(count, math.prod(shape[:1]) // end.done.size).end)
    return Cursor(end.lane, end.seen, jnp.where(is_done, num_bars, 0).astype(jnp.int32)), end.sink


def _has_own_prices(axis: LaneAxis) -> bool:
    """Whether the lanes along an axis have prices of their own."""
    return axis.in_axes.market.gone == 0
