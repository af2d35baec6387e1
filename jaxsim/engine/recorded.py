"""Replays of recorded allocations and nothing else: every trade is known beforehand, so that the lanes go from one of
their allocations to the next without looking at the bars between them."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Int

from jaxsim.engine.arrays import Array
from jaxsim.engine.destinations import SpreadOver
from jaxsim.engine.kernel import run_while
from jaxsim.engine.lanes import Balances, LaneAxis, Row, Run, names_of, over_lanes
from jaxsim.engine.look_ahead import Cursor, Pages
from jaxsim.engine.policy import AtRecorded, Policy, RecordedTargets
from jaxsim.engine.step import Lane, at_bar_row, may_trade, observe, rebalance_if


def trades_as_recorded(policy: Policy) -> bool:
    """Whether a policy trades at the recorded bars, and at no others."""
    is_recorded = isinstance(policy.allocator, RecordedTargets) and isinstance(policy.trigger, AtRecorded)
    return is_recorded and policy.guard is None and not isinstance(policy.destination, SpreadOver)


class Due(eqx.Module):
    """Which allocations are to be traded.

    number: int [lane axes...], of each lane.       begin, end: int [], the first of all lanes, and one after the last.
    """

    run: Run
    number: Int[Array, "*lanes"]
    begin: Int[Array, ""]
    end: Int[Array, ""]

    def goes_on(self, state: tuple[Lane, Pages]) -> Bool[Array, ""]:
        return self.begin + state[1].count < self.end


def recorded_pages(
    run: Run, axes: tuple[LaneAxis, ...], cursor: Cursor, page: int, one_kernel: bool = True
) -> tuple[Cursor, Pages]:
    """A page of rows, of which each has the next allocation of every lane that has one, and how far it has led."""
    num_bars = run.market.close.shape[-2]
    number = jnp.arange(cursor.seen.size, dtype=jnp.int32).reshape(cursor.seen.shape)

    def bars_left(run: Run, seen: Array) -> tuple[Array, Array]:
        bars = jnp.asarray(run.policy.allocator.bars, jnp.int32)
        return jnp.sum(bars < jnp.minimum(seen, num_bars), dtype=jnp.int32), jnp.sum(bars < num_bars, dtype=jnp.int32)

    done, count = over_lanes(bars_left, axes, (0,), 0)(run, cursor.seen)
    begin = jnp.max(done)  # the lanes keep pace, as far as they have allocations
    due = Due(run, number, begin, jnp.minimum(begin + page, jnp.max(count)))

    def one_lane(run: Run, lane: Lane, number: Array, which: Array) -> tuple[Lane, Row]:
        market, targets = run.market, run.policy.allocator
        due = lax.dynamic_index_in_dim(jnp.asarray(targets.bars, jnp.int32), which, keepdims=False)
        bar = jnp.minimum(due, num_bars - 1)
        obs = observe(market, lane, bar, at_bar_row(market.val_price, bar), run.key)
        trades = (due < num_bars) & may_trade(run.policy, lane, obs)
        policy = replace(run.policy, allocator=lambda obs: targets.at(which))
        lane, event = rebalance_if(
            trades, policy, market, run.costs, lane, obs, names_of(axes), run.keep_log, run.ticket
        )
        return lane, Row(number, bar, trades, Balances.of(lane.holdings), event)

    def one_row(due: Due, lane: Lane, which: Array) -> tuple[Lane, Row]:
        return over_lanes(one_lane, axes, (0, 0, None), 0)(due.run, lane, due.number, which)

    blank = jax.eval_shape(lambda: one_row(due, cursor.lane, begin)[1])
    rows = jax.tree.map(lambda x: jnp.zeros((page, *x.shape), x.dtype), blank)

    def next_row(due: Due, state: tuple[Lane, Pages]) -> tuple[Lane, Pages]:
        lane, row = one_row(due, state[0], due.begin + state[1].count)
        return lane, state[1].record(row, None)

    start = cursor.lane, Pages(rows, jnp.int32(0))
    lane, pages = run_while(Due.goes_on, next_row, due, start, one_kernel)
    seen = over_lanes(lambda run: jnp.asarray(run.policy.allocator.bars, jnp.int32)[due.end - 1] + 1, axes, (), 0)(run)
    return Cursor(lane, seen, jnp.where(due.end < jnp.max(count), 0, num_bars).astype(jnp.int32)), pages
