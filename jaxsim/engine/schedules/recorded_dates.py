"""Replays of recorded allocations and nothing else: every trade is known beforehand, so that the lanes go from one of
their allocations to the next without looking at the bars between them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Int

from jaxsim.engine.bar.lanes import (
    Balances,
    LaneAxis,
    LaneInputs,
    Row,
    can_gather,
    names_of,
    over_lanes,
    own_and_common,
    shape_of,
)
from jaxsim.engine.bar.step import LaneState, at_bar_row, may_trade, observe, rebalance_if
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.policy.destinations import SpreadOver
from jaxsim.engine.policy.policy import AtRecorded, Policy, RecordedTargets
from jaxsim.engine.schedules.next_event import Cursor, RebalanceSink
from jaxsim.engine.schedules.xla_kernel import run_in_one_kernel, run_while

#: Lanes of a cohort, where there are several.
COHORT = 8
#: Numbers of its own that a lane may have for each of its allocations, to be copied into its cohort.
LARGEST_COPIED = 256


def trades_as_recorded(policy: Policy) -> bool:
    """Whether a policy trades at the recorded bars, and at no others."""
    is_recorded = isinstance(policy.allocator, RecordedTargets) and isinstance(policy.trigger, AtRecorded)
    return is_recorded and policy.stops is None and not isinstance(policy.destination, SpreadOver)


class Cohorts(eqx.Module):
    """Neighbours of the outermost axis of lanes, which go through their allocations together. The cohorts go one
    after the other, so that lanes with few allocations need not wait for those with many: recorded lanes are the
    outermost ones, and those that differ in nothing but fees are neighbours.

    size: lanes of each.        end: int [cohort], the most allocations that one of its lanes has.
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
        """`take`, back where it was."""
        return jax.tree.map(lambda x, y: lax.dynamic_update_slice_in_dim(y, x, cohort * self.size, 0), new, old)


class Due(eqx.Module):
    """What the lanes trade.

    number: int [lane axes...], of each lane among all.
    """

    run: LaneInputs
    axes: tuple[LaneAxis, ...] = eqx.field(static=True)
    number: Int[Array, "*lanes"]
    cohorts: Cohorts

    def goes_on(self, state: "Progress") -> Bool[Array, ""]:
        return state.pages.has_room & jnp.any(state.done < self.cohorts.end)

    def next_cohort(self, state: "Progress") -> "Progress":
        """The first cohort that is not done yet, as far as there is room."""
        cohort = jnp.argmax(state.done < self.cohorts.end)
        end = self.cohorts.end[cohort]

        def goes_on(here: tuple[LaneState, Array, RebalanceSink]) -> Bool[Array, ""]:
            _, which, pages = here
            return pages.has_room & (which < end)

        def next_row(here: tuple[LaneState, Array, RebalanceSink]) -> tuple[LaneState, Array, RebalanceSink]:
            lane, which, pages = here
            lane, row = trade(run, axes, lane, number, which)
            return lane, which + 1, pages.record(row, None)

        run, axes, number, lane = self.run, self.axes, self.number, state.lane
        if self.cohorts.are_many:
            own, common = own_and_common(run, axes[0])
            own, number, lane = self.cohorts.take((own, number, lane), cohort)
            run, axes = eqx.combine(own, common), (replace(axes[0], size=self.cohorts.size), *axes[1:])
        lane, done, pages = lax.while_loop(goes_on, next_row, (lane, state.done[cohort], state.pages))
        if self.cohorts.are_many:
            lane = self.cohorts.put_back(lane, state.lane, cohort)
        return Progress(lane, lax.dynamic_update_index_in_dim(state.done, done, cohort, 0), pages)


class Progress(eqx.Module):
    """How far the lanes have come.

    done: int [cohort], with how many allocations.
    """

    lane: LaneState
    done: Int[Array, " cohort"]
    pages: RebalanceSink


def trade(
    run: LaneInputs, axes: tuple[LaneAxis, ...], lane: LaneState, number: Array, which: Array
) -> tuple[LaneState, Row]:
    """The allocation `which` of each lane that has so many."""

    def one_lane(run: LaneInputs, lane: LaneState, number: Array) -> tuple[LaneState, Row]:
        market, targets = run.market, run.policy.allocator
        due = lax.dynamic_index_in_dim(jnp.asarray(targets.bars, jnp.int32), which, keepdims=False)
        bar = jnp.minimum(due, market.num_bars - 1)
        obs = observe(market, lane, bar, at_bar_row(market.val_price, bar), run.key)
        trades = (due < market.num_bars) & may_trade(run.policy, lane, obs)
        policy = replace(run.policy, allocator=lambda obs: targets.at(which))
        lane, event = rebalance_if(
            trades, policy, market, run.costs, lane, obs, names_of(axes), run.keep_log, run.ticket
        )
        return lane, Row(number, bar, trades, Balances.of(lane.holdings), event)

    return over_lanes(one_lane, axes, (0, 0), 0)(run, lane, number)


def cohort_size(run: LaneInputs, axes: Sequence[LaneAxis]) -> int:
    """Lanes of the outermost axis that go together where each cohort costs what it does: enough of them to fill a
    vector, few enough to have about as many allocations."""
    if not axes:
        return 1
    size = max(1, COHORT // math.prod(shape_of(axes[1:])))
    room = jnp.shape(run.policy.allocator.bars)[-1]
    fits = axes[0].size % size == 0 and can_gather(run, axes, LARGEST_COPIED * room)
    return size if fits else axes[0].size


def recorded_pages(
    run: LaneInputs, axes: tuple[LaneAxis, ...], cursor: Cursor, page: int, one_kernel: bool = True
) -> tuple[Cursor, RebalanceSink]:
    """A page of rows, and how far it has led.

    page: rows of all lanes that there is to be room for; where lanes go in cohorts, of more rows of fewer lanes.
    """
    num_bars, shape = run.market.close.shape[-2], shape_of(axes)

    def bars_left(run: LaneInputs, seen: Array) -> tuple[Array, Array]:
        bars = jnp.asarray(run.policy.allocator.bars, jnp.int32)
        return jnp.sum(bars < jnp.minimum(seen, num_bars), dtype=jnp.int32), jnp.sum(bars < num_bars, dtype=jnp.int32)

    done, count = over_lanes(bars_left, axes, (0,), 0)(run, cursor.seen)
    size = cohort_size(run, axes) if one_kernel else math.prod(shape[:1])
    cohorts = Cohorts.of(count, size)
    number = jnp.arange(cursor.seen.size, dtype=jnp.int32).reshape(shape)
    due, done = Due(run, axes, number, cohorts), Cohorts.of(done, size).end

    def blank_row() -> Row:
        return trade(run, axes, cursor.lane, number, jnp.int32(0))[1]

    def blank_page(x: Any) -> Array:
        room = page * cohorts.end.size
        return jnp.zeros((room, *((size, *x.shape[1:]) if axes else x.shape)), x.dtype)

    pages = RebalanceSink(jax.tree.map(blank_page, jax.eval_shape(blank_row)), jnp.int32(0))
    loop = Due.goes_on, Due.next_cohort, due, Progress(cursor.lane, done, pages)
    end = run_in_one_kernel(*loop) if one_kernel else run_while(*loop, one_kernel=False)
    if end is None:
        return recorded_pages(run, axes, cursor, page, one_kernel=False)
    after = jnp.repeat(end.done, size).reshape(shape[:1] + (1,) * len(shape[1:]))

    def seen_of(run: LaneInputs, done: Array) -> Array:
        bars = jnp.asarray(run.policy.allocator.bars, jnp.int32)
        return jnp.where(done > 0, bars[done - 1] + 1, 0)

    seen = over_lanes(seen_of, axes, (0,), 0)(run, jnp.broadcast_to(after, shape))
    bar = jnp.where(jnp.any(end.done < cohorts.end), 0, num_bars)
    return Cursor(end.lane, seen, bar.astype(jnp.int32)), end.pages
