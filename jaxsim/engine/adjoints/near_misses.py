"""Near decisions: bars at which a gate that keeps the hard values has a derivative of the decision to trade.

The gate adds an amount to the holdings at each such bar. Its value is zero, its derivative is not. So no near decision
depends on another: once it is known when lanes trade, all are worked out side by side, each from the account that is
held at its bar.
"""

from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.adjoints.agenda import Agenda, Held, constant, in_chunks, room_for
from jaxsim.engine.bar.delisting import close_what_leaves
from jaxsim.engine.bar.lane_state import LaneState, at_bar_row, observation_of
from jaxsim.engine.bar.lanes import LaneInputs
from jaxsim.engine.bar.ruin import note_ruin
from jaxsim.engine.bar.step import Rebalance, passage_of, rebalance, totals_of
from jaxsim.engine.bar.totals import BarTotals
from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.base.numerics import most_of_lanes
from jaxsim.engine.policy.gates import Passage
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.trading.account import Holdings

#: Bars that are searched together.
BLOCK = 1024

#: Near decisions that are worked out together, or skipped.
CHUNK = 256


class Misses(eqx.Module):
    """What near decisions add, all of it zero in value; a row for each.

    holdings: added to what is held after each, the sum of all since the last rebalance.
    fills: added to the units traded and the fees paid at its bar; empty if that is not asked for.
    totals: added to the totals of its bar.
    last: the row that holds at each bar; -1: none.       is_new: whether the row is of this very bar.
    agenda_row: the row of the agenda that holds at each near decision.      count: number of near decisions.
    """

    holdings: Holdings
    fills: tuple[Float[Array, "row asset"], ...]
    totals: BarTotals
    last: Int[Array, " time"]
    is_new: Bool[Array, " time"]
    agenda_row: Int[Array, " row"]
    count: Int[Array, ""]

    def before(self, agenda: Agenda) -> Holdings:
        """What is added to the holdings before each rebalance, [row, ...]."""
        bar = agenda.bar - 1
        row = where(agenda.acts & (bar >= 0), self.last[bar], -1)
        return jax.tree.map(partial(self.at, row), self.holdings)

    def at(self, row: Array, x: Array) -> Array:
        """The rows of x, 0 for none."""
        return where((row >= 0).reshape(-1, *(1,) * (x.ndim - 1)), x[row], 0.0)

    def path(self, held: Held, start: Array, events: Array, misses: Array) -> Array:
        """`Held.path` with what is added to it.

        events, misses: a part of the holdings, after each rebalance and of `self.holdings`.
        """
        events = jnp.concatenate([start[None], events])
        # One table, looked up once: every further look at all bars costs more than that.
        table = jnp.concatenate([events, events[self.agenda_row + 1] + misses])
        return table[where(self.last >= 0, events.shape[0] + self.last, held.row + 1)]

    def added_to(self, events: Rebalance) -> Rebalance:
        """Events [time, ...] with what is added to their fills."""
        row, fills = where(self.is_new, self.last, -1), events.fills
        trade, fees = (self.at(row, x) for x in self.fills)
        now = (fills.trade + trade, fills.fees + fees)
        return eqx.tree_at(lambda events: (events.fills.trade, events.fills.fees), events, now)

    def with_totals(self, totals: BarTotals) -> BarTotals:
        """Totals [time] with what is added to them."""
        row = where(self.is_new, self.last, -1)
        return jax.tree.map(lambda x, more: x + self.at(row, more), totals, self.totals)


class _MissRow(eqx.Module):
    """A near decision, or all of them.

    exists: false for rows that only fill up a chunk.       continues: whether no rebalance lies between it and the one
        before.
    """

    bar: Int[Array, "*row"]
    exists: Bool[Array, "*row"]
    continues: Bool[Array, "*row"]


class _Added(eqx.Module):
    """What one near decision adds; of many, the sums since the last rebalance, as in `Misses`."""

    holdings: Holdings
    fills: tuple[Float[Array, "*row asset"], ...]
    totals: BarTotals


def find_misses(
    inputs: LaneInputs,
    start: LaneState,
    agenda: Agenda,
    held: Held,
    capacity: int,
    keeps_fills: bool,
) -> Misses:
    """All near decisions, differentiated. A near decision needs an observation and a rebalance, but no decision, for it
    is known whether the lane traded there. So it shares `observe`, `passage_of` and `rebalance` with `trade_bar`.

    capacity: number of near decisions that there is room for.
    """
    num_bars = inputs.market.num_bars
    fixed, start = constant((inputs, start))

    def seen_at(bar: Array) -> tuple[LaneState, Observation]:
        """The lane before a bar, and its observation."""
        row = held.row[bar] - held.is_new[bar]
        lane = jax.tree.map(lambda first, rows: where(row < 0, first, rows[row]), start, agenda.lane)
        lane, _ = close_what_leaves(fixed.market, note_ruin(fixed.market, lane, bar), bar)
        return lane, observation_of(fixed.market, lane, bar, at_bar_row(fixed.market.val_price, bar), inputs.key)

    def passage_at(inputs: LaneInputs, bar: Array, lane: LaneState, obs: Observation) -> Passage:
        passage = passage_of(inputs, lane, obs, held.trades[bar])
        assert passage is not None and passage.is_near is not None
        return passage

    def is_near(bar: Array) -> Array:
        return passage_at(fixed, bar, *seen_at(bar)).is_near

    near = lax.map(is_near, jnp.arange(num_bars), batch_size=min(BLOCK, num_bars))
    number = jnp.cumsum(near)  # of the last one at or before each bar, from 1
    first_bar = agenda.bar[held.row]  # of what is held
    number_before = where((held.row >= 0) & (first_bar > 0), number[first_bar - 1], 0)

    def added(bar: Array, exists: Array) -> _Added:
        lane, obs = seen_at(bar)
        after, event = rebalance(fixed, lane, obs)
        passage = passage_at(inputs, bar, lane, obs)
        passage = replace(passage, share=where(exists, passage.share, 0.0))

        def money(new: Array, old: Array) -> Array:
            return inputs.policy.gate.money(passage, new, old) - where(passage.trades, new, old)

        fills = (event.fills.trade, event.fills.fees) if keeps_fills else ()
        holdings = jax.tree.map(money, after.holdings, lane.holdings)
        fills, totals = jax.tree.map(lambda x: money(x, 0 * x), (fills, totals_of(event)))
        return _Added(holdings, fills, totals)

    def chunk(total: Holdings, rows: _MissRow) -> tuple[Holdings, _Added]:
        each = jax.vmap(added)(rows.bar, rows.exists)

        def add(total: Holdings, row: tuple[Holdings, Array]) -> tuple[Holdings, Holdings]:
            more, continues = row
            total = jax.tree.map(lambda x, y: where(continues, x, 0.0) + y, total, more)
            return total, total

        total, sums = lax.scan(add, total, (each.holdings, rows.continues), unroll=16)
        return total, _Added(sums, each.fills, each.totals)

    room = room_for(capacity, CHUNK)
    place = where(near, jnp.minimum(number - 1, room), room)
    bars = jnp.full(room + 1, num_bars).at[place].set(jnp.arange(num_bars))[:room]
    exists, bars = bars < num_bars, jnp.minimum(bars, num_bars - 1)
    continues = jnp.arange(1, room + 1) > number_before[bars] + 1
    num_rows = most_of_lanes(number[-1])
    zero = jax.tree.map(jnp.zeros_like, start.holdings)
    _, sums = in_chunks(chunk, zero, _MissRow(bars, exists, continues), num_rows, CHUNK)
    last = where(number > number_before, jnp.minimum(number, room), 0) - 1
    return Misses(sums.holdings, sums.fills, sums.totals, last, near, held.row[bars], number[-1])
