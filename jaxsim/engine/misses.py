"""Near misses: bars without a rebalance, but with a derivative of the decision, since it was near its limit.

A gate that keeps the hard values and does not look at derivatives of the account makes of each of them something to be
added to the holdings whose value is zero: only its derivative is not. So none depends on another, and once it is known
when lanes trade, all are worked out side by side, each from the account that is held at its bar.
"""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.account import Holdings
from jaxsim.engine.adjoint import AtEvents
from jaxsim.engine.agenda import Agenda, Held, constant, in_chunks, room_for
from jaxsim.engine.arrays import Array
from jaxsim.engine.costs import Costs
from jaxsim.engine.gates import Passage
from jaxsim.engine.market import Market
from jaxsim.engine.policy import Policy
from jaxsim.engine.step import Event, Lane, at_bar_row, observe, passage_of, rebalance

#: Bars that are searched together.
BLOCK = 1024


class Misses(eqx.Module):
    """What near misses add, all of it zero in value.

    holdings: to what is held after each, the sum of those since the last rebalance; row 0 is of none.
    trade, fees: to the fills at its bar.
    last: the row that holds at each bar.       is_new: whether it is of this very bar.
    count: number of misses.
    """

    holdings: Holdings
    trade: Float[Array, "row asset"]
    fees: Float[Array, "row asset"]
    last: Int[Array, " time"]
    is_new: Bool[Array, " time"]
    count: Int[Array, ""]

    def before(self, agenda: Agenda) -> Holdings:
        """What is added to the holdings before each rebalance, [row, ...]."""
        bar = agenda.bar - 1
        row = jnp.where(agenda.trades & (bar >= 0), self.last[bar], 0)
        return jax.tree.map(lambda x: x[row], self.holdings)

    def path(self, rows: Array) -> Array:
        """[time, ...] what is added to a path of holdings."""
        return rows[self.last]

    def added_to(self, events: Event) -> Event:
        """Events [time, ...] with what is added to their fills."""
        row, fills = jnp.where(self.is_new, self.last, 0), events.fills
        fills = replace(fills, trade=fills.trade + self.trade[row], fees=fills.fees + self.fees[row])
        return replace(events, fills=fills)


def find_misses(
    adjoint: AtEvents,
    agenda: Agenda,
    held: Held,
    policy: Policy,
    market: Market,
    costs: Costs,
    start: Lane,
    key: Any,
    axes: tuple[str, ...],
) -> Misses:
    """All near misses, differentiated."""
    num_bars = market.num_bars
    fixed_policy, fixed_market, fixed_costs, start = constant((policy, market, costs, start))

    def lane_at(bar: Array) -> Lane:
        row = held.row[bar]
        return jax.tree.map(lambda first, rows: jnp.where(row < 0, first, rows[row]), start, agenda.lane)

    def passage_at(policy: Policy, market: Market, bar: Array, is_miss: Array) -> Passage:
        lane = lane_at(bar)
        obs = observe(market, lane, bar, at_bar_row(market.val_price, bar), key)
        passage = passage_of(policy, market, lane, obs, jnp.asarray(False), key)
        assert passage is not None
        return Passage(passage.trades, jnp.where(is_miss, passage.share, 0.0), passage.acts & is_miss)

    def is_near(bar: Array) -> Array:
        return passage_at(fixed_policy, fixed_market, bar, ~held.is_new[bar]).acts

    near = lax.map(is_near, jnp.arange(num_bars), batch_size=min(BLOCK, num_bars))
    number = jnp.cumsum(near)  # of the last miss at or before each bar, from 1
    room = room_for(adjoint.capacity_of(num_bars))
    place = jnp.where(near, jnp.minimum(number - 1, room), room)
    bars = jnp.full(room + 1, num_bars, jnp.int32).at[place].set(jnp.arange(num_bars, dtype=jnp.int32))[:room]
    is_miss, bars = bars < num_bars, jnp.minimum(bars, num_bars - 1)
    stretch = held.row[bars]
    goes_on = stretch == jnp.concatenate([stretch[:1] - 1, stretch[:-1]])

    num_rows = lax.pmax(number[-1], axes) if axes else number[-1]

    def on_trial(bar: Array) -> tuple:
        """What is held and filled with a rebalance and without it."""
        lane = lane_at(bar)
        obs = observe(fixed_market, lane, bar, at_bar_row(fixed_market.val_price, bar), key)
        after, event = rebalance(fixed_policy, fixed_market, fixed_costs, lane, obs)
        fills = (event.fills.trade, event.fills.fees)
        return (after.holdings, *fills), (lane.holdings, *jax.tree.map(jnp.zeros_like, fills))

    def added(row: tuple) -> tuple:
        bar, is_miss, new, old = row
        return jax.tree.map(jnp.subtract, policy.gate.money(passage_at(policy, market, bar, is_miss), new, old), old)

    def chunk(total: Holdings, rows: tuple) -> tuple[Holdings, tuple]:
        *rows, goes_on = rows
        holdings, *fills = jax.vmap(added)(tuple(rows))

        def add(total: Holdings, row: tuple[Holdings, Array]) -> tuple[Holdings, Holdings]:
            more, goes_on = row
            total = jax.tree.map(lambda x, y: jnp.where(goes_on, x, 0.0) + y, total, more)
            return total, total

        total, sums = lax.scan(add, total, (holdings, goes_on))
        return total, (sums, *fills)

    _, (after, before) = in_chunks(lambda _, bars: (None, jax.vmap(on_trial)(bars)), None, bars, num_rows)
    zero = jax.tree.map(jnp.zeros_like, start.holdings)
    _, kept = in_chunks(chunk, zero, (bars, is_miss, after, before, goes_on), num_rows)
    holdings, trade, fees = jax.tree.map(lambda x: jnp.concatenate([jnp.zeros_like(x[:1]), x]), kept)
    is_of_stretch = (number > 0) & (stretch[jnp.clip(number - 1, 0, room - 1)] == held.row)
    last = jnp.where(is_of_stretch, jnp.minimum(number, room), 0)
    return Misses(holdings, trade, fees, last, near, number[-1])
