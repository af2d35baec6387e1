"""Near decisions: bars at which a gate that keeps the hard values has a derivative of the decision to trade.

What it makes of each of them is added to the holdings, and has the value zero: only its derivative has not. So none of
them depends on another, and once it is known when lanes trade, all are worked out side by side, each from the account
that is held at its bar.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.adjoints.at_events import Agenda, Held, constant, in_chunks, room_for
from jaxsim.engine.adjoints.checkpointed import AtEvents
from jaxsim.engine.bar.step import LaneState, Rebalance, at_bar_row, observe, passage_of, rebalance
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.policy.gates import Passage
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.trading.account import Holdings
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market

#: Bars that are searched together.
BLOCK = 1024

#: Near decisions that are worked out together, or skipped.
CHUNK = 256


class Misses(eqx.Module):
    """What near misses add, all of it zero in value.

    holdings: to what is held after each, the sum of those since the last rebalance.
    fills: to the units traded and the fees paid at its bar; empty if that is not asked for.
    last: the row that holds at each bar; -1: none.       is_new: whether it is of this very bar.
    stretch: the row of the agenda that holds at each of them.      count: their number.
    """

    holdings: Holdings
    fills: tuple[Float[Array, "row asset"], ...]
    last: Int[Array, " time"]
    is_new: Bool[Array, " time"]
    stretch: Int[Array, " row"]
    count: Int[Array, ""]

    def before(self, agenda: Agenda) -> Holdings:
        """What is added to the holdings before each rebalance, [row, ...]."""
        bar = agenda.bar - 1
        row = jnp.where(agenda.trades & (bar >= 0), self.last[bar], -1)
        return jax.tree.map(partial(self.at, row), self.holdings)

    def at(self, row: Array, x: Array) -> Array:
        """The rows of x, 0 for none."""
        return jnp.where((row >= 0).reshape(-1, *(1,) * (x.ndim - 1)), x[row], 0.0)

    def path(self, held: Held, start: Array, events: Array, misses: Array) -> Array:
        """`Held.path` with what is added to it.

        events, misses: a part of the holdings, after each rebalance and of `self.holdings`.
        """
        events = jnp.concatenate([start[None], events])
        # One table, looked up once: every further look at all bars costs more than that.
        table = jnp.concatenate([events, events[self.stretch + 1] + misses])
        return table[jnp.where(self.last >= 0, events.shape[0] + self.last, held.row + 1)]

    def added_to(self, events: Rebalance) -> Rebalance:
        """Events [time, ...] with what is added to their fills."""
        row, fills = jnp.where(self.is_new, self.last, -1), events.fills
        trade, fees = (self.at(row, x) for x in self.fills)
        now = (fills.trade + trade, fills.fees + fees)
        return eqx.tree_at(lambda events: (events.fills.trade, events.fills.fees), events, now)


def find_misses(
    adjoint: AtEvents,
    agenda: Agenda,
    held: Held,
    policy: Policy,
    market: Market,
    costs: Costs,
    start: LaneState,
    key: Any,
    axes: tuple[str, ...],
    keeps_fills: bool,
) -> Misses:
    """All near decisions, differentiated."""
    num_bars = market.num_bars
    fixed_policy, fixed_market, fixed_costs, start = constant((policy, market, costs, start))

    def seen_at(bar: Array) -> tuple[LaneState, Observation]:
        """The lane before a bar, and what it sees there."""
        row = held.row[bar] - held.is_new[bar]
        lane = jax.tree.map(lambda first, rows: jnp.where(row < 0, first, rows[row]), start, agenda.lane)
        return lane, observe(fixed_market, lane, bar, at_bar_row(fixed_market.val_price, bar), key)

    def passage_at(policy: Policy, market: Market, bar: Array, lane: LaneState, obs: Observation) -> Passage:
        passage = passage_of(policy, market, lane, obs, held.is_new[bar], key)
        assert passage is not None and passage.is_near is not None
        return passage

    def is_near(bar: Array) -> Array:
        return passage_at(fixed_policy, fixed_market, bar, *seen_at(bar)).is_near

    near = lax.map(is_near, jnp.arange(num_bars), batch_size=min(BLOCK, num_bars))
    number = jnp.cumsum(near)  # of the last one at or before each bar, from 1
    first_bar = agenda.bar[held.row]  # of what is held
    number_before = jnp.where((held.row >= 0) & (first_bar > 0), number[first_bar - 1], 0)

    def added(bar: Array, exists: Array) -> tuple[Holdings, tuple]:
        lane, obs = seen_at(bar)
        after, event = rebalance(fixed_policy, fixed_market, fixed_costs, lane, obs)
        passage = passage_at(policy, market, bar, lane, obs)
        passage = replace(passage, share=jnp.where(exists, passage.share, 0.0))

        def money(new: Array, old: Array) -> Array:
            return policy.gate.money(passage, new, old) - jnp.where(passage.trades, new, old)

        fills = (event.fills.trade, event.fills.fees) if keeps_fills else ()
        return jax.tree.map(money, after.holdings, lane.holdings), jax.tree.map(lambda x: money(x, 0 * x), fills)

    def chunk(total: Holdings, rows: tuple) -> tuple[Holdings, tuple]:
        bars, exists, goes_on = rows
        holdings, fills = jax.vmap(added)(bars, exists)

        def add(total: Holdings, row: tuple[Holdings, Array]) -> tuple[Holdings, Holdings]:
            more, goes_on = row
            total = jax.tree.map(lambda x, y: jnp.where(goes_on, x, 0.0) + y, total, more)
            return total, total

        total, sums = lax.scan(add, total, (holdings, goes_on), unroll=16)
        return total, (sums, fills)

    room = room_for(adjoint.capacity_of(num_bars), CHUNK)
    place = jnp.where(near, jnp.minimum(number - 1, room), room)
    bars = jnp.full(room + 1, num_bars).at[place].set(jnp.arange(num_bars))[:room]
    exists, bars = bars < num_bars, jnp.minimum(bars, num_bars - 1)
    goes_on = jnp.arange(1, room + 1) > number_before[bars] + 1
    num_rows = lax.pmax(number[-1], axes) if axes else number[-1]
    zero = jax.tree.map(jnp.zeros_like, start.holdings)
    _, (holdings, fills) = in_chunks(chunk, zero, (bars, exists, goes_on), num_rows, CHUNK)
    last = jnp.where(number > number_before, jnp.minimum(number, room), 0) - 1
    return Misses(holdings, fills, last, near, held.row[bars], number[-1])
