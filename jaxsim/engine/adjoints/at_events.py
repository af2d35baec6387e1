"""A simulation by way of its rebalances alone. A first pass without derivatives finds them; a second pass visits no
other bar, and is differentiated."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.adjoints.adjoint import AbstractAdjoint, check_count
from jaxsim.engine.adjoints.agenda import Agenda, Held, constant, in_chunks, room_for
from jaxsim.engine.adjoints.near_misses import find_misses
from jaxsim.engine.bar.delisting import leaving_bars
from jaxsim.engine.bar.lane_state import LaneState, observation_of
from jaxsim.engine.bar.lanes import LaneInputs
from jaxsim.engine.bar.simulation import BarPaths, Save
from jaxsim.engine.bar.step import Rebalance, decide, is_decided, trade_bar
from jaxsim.engine.bar.totals import BarTotals
from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.base.numerics import any_lane, dot
from jaxsim.engine.policy.gates import Hard, StraightThrough
from jaxsim.engine.policy.policy import Policy, allocator_name, observes
from jaxsim.engine.trading.account import Holdings
from jaxsim.engine.trading.status import LaneFault

#: Rows of events that are taken or skipped together.
EVENT_CHUNK = 64


class AtEvents(AbstractAdjoint):
    """By way of the rebalances alone. A first pass without derivatives finds them, searching block by block. The
    differentiated pass visits no other bar, and the value in between is one expression of the units and cash that are
    held, `cash + sum(units * close)`.

    For the gates `Hard` and `StraightThrough(through_state=False)`, and allocators that do not observe every bar.
    Forward and reverse mode, first derivatives. Under `StraightThrough`, bars whose decision was near its limit are
    rebalanced on trial, all side by side; a lane has room for as many of them as for rebalances.

    capacity: number of rebalances there is room for, > 0. Lanes that are mapped together share rows, at most one for
        every bar on which some lane trades. None: one for every bar, which is always enough and costs memory. A lane
        that needs more has the fault EVENTS_OVERFLOW, and its values are NaN from the first bar on.
    block: number of bars that are searched together.
    """

    capacity: int | None = eqx.field(static=True, default=None)
    block: int = eqx.field(static=True, default=64)

    def __check_init__(self):
        check_count(self.capacity, "capacity")
        check_count(self.block, "block")

    def capacity_of(self, num_bars: int) -> int:
        return num_bars if self.capacity is None else min(self.capacity, num_bars)

    def check(self, policy: Policy) -> None:
        gate = policy.gate
        if not isinstance(gate, Hard) and (not isinstance(gate, StraightThrough) or gate.sees_state):
            raise ValueError(
                f"adjoint: AtEvents visits rebalances alone, one by one, but {gate!r} passes derivatives of the "
                "account at other bars; use js.Checkpointed()"
            )
        if observes(policy.allocator):
            raise ValueError(
                f"adjoint: AtEvents visits no bar without a rebalance, which allocator "
                f"{allocator_name(policy.allocator)} wants to observe; use js.Checkpointed()"
            )

    def loop(self, inputs: LaneInputs, axes: tuple[str, ...], save: Save) -> BarPaths:
        market, capacity = inputs.market, self.capacity_of(inputs.market.num_bars)
        start, keeps_lanes = LaneState.start(inputs), not isinstance(inputs.policy.gate, Hard)
        # The first pass decides, and `find_misses` differentiates decisions: no pass over the events needs the gate.
        hard = replace(inputs, policy=inputs.policy.hardened())
        agenda = find_events(hard, start, axes, min(self.block, market.num_bars), capacity, keeps_lanes)
        held = Held.of(agenda, market.num_bars)
        misses = find_misses(inputs, start, axes, agenda, held, capacity, save.events) if keeps_lanes else None
        end, rows = scan_events(hard, start, axes, agenda, save, None if misses is None else misses.before(agenda))
        units, cash = rows.units, rows.cash
        totals = jax.tree.map(held.events, rows.totals)
        overflows = agenda.num_rows > capacity
        events = jax.tree.map(held.events, rows.events)
        if misses is None:
            cash, units = held.path(start.holdings.cash, cash), held.path(start.holdings.units, units)
        else:
            overflows |= misses.count > capacity
            cash = misses.path(held, start.holdings.cash, cash, misses.holdings.cash)
            units = misses.path(held, start.holdings.units, units, misses.holdings.units)
            events = None if events is None else misses.added_to(events)
            totals = misses.with_totals(totals)
        cash = where(overflows, jnp.nan, cash)
        fault = jnp.full(market.num_assets, LaneFault.EVENTS_OVERFLOW, jnp.int32)
        return BarPaths(
            value=jax.vmap(dot)(cash, units, market.mark),
            cash=cash,
            asked=held.events(rows.asked),
            totals=totals,
            units=units if save.units else None,
            events=events,
            recorded={},
            status=end.status.first(where(overflows, fault, LaneFault.NONE), jnp.max(agenda.bar)),
        )


class _Search(eqx.Module):
    """The first pass on its way.

    seen: the first bar that the lane has not decided on.       bar: the first bar of the block that is searched.
    rows: the bars of the agenda.       acts, trades, lanes: as `Agenda` has them.      count: number of rows so far.
    """

    lane: LaneState
    seen: Int[Array, ""]
    bar: Int[Array, ""]
    rows: Int[Array, " row"]
    acts: Bool[Array, " row"]
    trades: Bool[Array, " row"]
    lanes: LaneState | None
    count: Int[Array, ""]


def find_events(
    inputs: LaneInputs, start: LaneState, axes: tuple[str, ...], block: int, capacity: int, keeps_lanes: bool
) -> Agenda:
    """The first pass: like the schedule `NextEvent`, but for one lane and for the bars alone."""
    inputs, start = constant((inputs, start))
    market, policy, num_bars = inputs.market, inputs.policy, inputs.market.num_bars
    room = room_for(capacity, EVENT_CHUNK)
    leaving = None if market.gone is None else leaving_bars(market.gone)

    def first_trade(lane: LaneState, seen: Array, bar: Array) -> Array:
        begin = jnp.minimum(bar, num_bars - block)
        bars = begin + jnp.arange(block, dtype=bar.dtype)
        prices = lax.dynamic_slice_in_dim(market.val_price, begin, block)
        trades = jax.vmap(lambda at, price: decide(policy, lane, observation_of(market, lane, at, price, inputs.key)))
        is_open, fires = bars >= jnp.maximum(seen, bar), trades(bars, prices)
        if leaving is not None:
            fires = fires | lax.dynamic_slice_in_dim(leaving, begin, block)
        return jnp.min(where(fires & is_open, bars, num_bars))

    def advance(state: _Search) -> _Search:
        first = first_trade(state.lane, state.seen, state.bar)
        is_due, at = first < num_bars, jnp.minimum(first, num_bars - 1)
        # At a bar at which assets leave, the search does not say whether there is a rebalance as well.
        outcome = trade_bar(inputs, state.lane, at, is_due, axes, decision=is_decided if leaving is None else decide)
        lane, acts = outcome.lane, outcome.traded
        rows, acts_of, trades, lanes = jax.tree.map(
            lambda path, now: path.at[state.count].set(now),
            (state.rows, state.acts, state.trades, state.lanes),
            (at, acts, outcome.trades, lane if keeps_lanes else None),
        )
        return _Search(
            lane,
            where(is_due, at + 1, state.seen),
            where(any_lane(is_due, axes), state.bar, state.bar + block),
            rows,
            acts_of,
            trades,
            lanes,
            state.count + any_lane(acts, axes),
        )

    zero = jnp.int32(0)
    # One row more than there is room for, to tell a full agenda from one that overflows.
    blank = jnp.zeros(room + 1, jnp.int32)
    lanes = jax.tree.map(lambda x: jnp.broadcast_to(x, (room + 1, *x.shape)), start) if keeps_lanes else None
    search = _Search(start, zero, zero, blank, blank.astype(bool), blank.astype(bool), lanes, zero)
    end = lax.while_loop(lambda state: (state.bar < num_bars) & (state.count <= capacity), advance, search)
    lanes = jax.tree.map(lambda x: x[:room], end.lanes)
    fits = jnp.arange(room) < capacity
    return Agenda(end.rows[:room], end.acts[:room] & fits, end.trades[:room] & fits, end.count, lanes)


class EventRows(eqx.Module):
    """What a lane holds after each row of an agenda, and what it did there; inside of the loop, of one row.

    asked: whether the allocator was asked.     totals: what its orders come to.
    events: None unless they are saved.
    """

    units: Float[Array, "*row asset"]
    cash: Float[Array, "*row"]
    asked: Bool[Array, "*row"]
    totals: BarTotals
    events: Rebalance | None


class _Row(eqx.Module):
    """A row of an agenda, or all of them.      added: as in `scan_events`."""

    bar: Int[Array, "*row"]
    acts: Bool[Array, "*row"]
    trades: Bool[Array, "*row"]
    added: Holdings | None


def scan_events(
    inputs: LaneInputs,
    start: LaneState,
    axes: tuple[str, ...],
    agenda: Agenda,
    save: Save,
    added: Holdings | None = None,
) -> tuple[LaneState, EventRows]:
    """The differentiated pass.

    added: what is added to the holdings that the rebalance of each row starts from.
    """

    def one(lane: LaneState, row: _Row) -> tuple[LaneState, EventRows]:
        if row.added is not None:
            lane = replace(lane, holdings=jax.tree.map(jnp.add, lane.holdings, row.added))
        outcome = trade_bar(inputs, lane, row.bar, row.acts, axes, decision=lambda *_: row.trades)
        held, event = outcome.lane.holdings, outcome.event
        kept = event if save.events else None
        return outcome.lane, EventRows(held.units, held.cash, event.is_decision, outcome.totals, kept)

    one = jax.checkpoint(one, prevent_cse=False)  # pyright: ignore[reportPrivateImportUsage]
    rows = _Row(agenda.bar, agenda.acts, agenda.trades, added)
    return in_chunks(lambda lane, rows: lax.scan(one, lane, rows), start, rows, agenda.num_rows, EVENT_CHUNK)
