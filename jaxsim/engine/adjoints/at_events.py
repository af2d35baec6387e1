"""A simulation by way of its rebalances alone. A first pass without derivatives finds them, and has the values; a
second pass visits no other bar, and has the derivatives. Without derivatives nothing is left of the second pass."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.adjoints.adjoint import AbstractAdjoint, check_count
from jaxsim.engine.adjoints.agenda import Agenda, Held, constant, in_chunks, room_for, with_derivatives_of
from jaxsim.engine.adjoints.near_misses import find_misses
from jaxsim.engine.bar.delisting import leaving_bars
from jaxsim.engine.bar.lane_state import LaneState, observation_of
from jaxsim.engine.bar.lanes import LaneInputs
from jaxsim.engine.bar.ruin import has_worthless_mark, is_ruined_before, may_be_ruined
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
    Forward and reverse mode. Under `StraightThrough`, bars whose decision was near its limit are rebalanced on trial,
    all side by side; a lane has room for as many of them as for rebalances.

    capacity: number of rebalances there is room for, > 0. Lanes that are mapped together share rows, at most one for
        every bar on which some lane trades. None: one for every bar, which is always enough. With a capacity, a lane
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

    def objection(self, policy: Policy) -> str | None:
        """Why a policy cannot be differentiated so; None: it can."""
        gate = policy.gate
        if not isinstance(gate, Hard) and (not isinstance(gate, StraightThrough) or gate.sees_state):
            return (
                f"AtEvents visits rebalances alone, one by one, but {gate!r} passes derivatives of the account at "
                "other bars"
            )
        if observes(policy.allocator):
            name = allocator_name(policy.allocator)
            return f"AtEvents visits no bar without a rebalance, which allocator {name} wants to observe"
        return None

    def check(self, policy: Policy) -> None:
        if objection := self.objection(policy):
            raise ValueError(f"adjoint: {objection}; use js.Checkpointed()")

    def loop(self, inputs: LaneInputs, save: Save) -> BarPaths:
        market, capacity = inputs.market, self.capacity_of(inputs.market.num_bars)
        start = LaneState.start(inputs)
        # The first pass decides, and `find_misses` differentiates decisions: no pass over the events needs the gate.
        hard = replace(inputs, policy=inputs.policy.hardened())
        agenda = find_events(hard, start, min(self.block, market.num_bars), capacity, save.events)
        held = Held.of(agenda, market.num_bars)
        cash = held.path(constant(start.holdings.cash), agenda.lane.holdings.cash)
        units = held.path(constant(start.holdings.units), agenda.lane.holdings.units)
        totals, events = jax.tree.map(held.events, (agenda.totals, agenda.events))
        paths, num_misses = self._differentiated(inputs, hard, start, agenda, held, capacity, save.events)
        cash, units, totals, events = with_derivatives_of(paths, (cash, units, totals, events))
        status = agenda.lane_at_end.status
        if capacity < market.num_bars:
            overflows = jnp.maximum(agenda.num_rows, num_misses) > capacity
            cash = where(overflows, jnp.nan, cash)
            fault = jnp.full(market.num_assets, LaneFault.EVENTS_OVERFLOW, jnp.int32)
            status = status.first(where(overflows, fault, LaneFault.NONE), jnp.max(agenda.bar))
        return BarPaths(
            value=_values(cash, units, market.mark),
            cash=cash,
            asked=held.events(agenda.asked),
            totals=totals,
            units=units if save.units else None,
            events=events,
            recorded={},
            status=status,
        )

    def _differentiated(
        self,
        inputs: LaneInputs,
        hard: LaneInputs,
        start: LaneState,
        agenda: Agenda,
        held: Held,
        capacity: int,
        keeps_events: bool,
    ) -> tuple[tuple[Array, Array, BarTotals, Rebalance | None], Array | int]:
        """Cash, units, totals and events at every bar, for their derivatives; and the number of near decisions."""
        is_hard = isinstance(inputs.policy.gate, Hard)
        misses = None if is_hard else find_misses(inputs, start, agenda, held, capacity, keeps_events)
        rows = scan_events(hard, start, agenda, keeps_events, None if misses is None else misses.before(agenda))
        opened, totals, events = start.holdings, *jax.tree.map(held.events, (rows.totals, rows.events))
        if misses is None:
            return (held.path(opened.cash, rows.cash), held.path(opened.units, rows.units), totals, events), 0
        cash = misses.path(held, opened.cash, rows.cash, misses.holdings.cash)
        units = misses.path(held, opened.units, rows.units, misses.holdings.units)
        events = None if events is None else misses.added_to(events)
        return (cash, units, misses.with_totals(totals), events), misses.count


def _values(cash: Float[Array, " time"], units: Float[Array, "time asset"], mark: Float[Array, "time asset"]) -> Array:
    """The value of an account at many bars. Its sums decide nothing, so that derivatives need no order of addition:
    those of an ordered sum take twice as long."""
    exact = jax.vmap(dot)(*constant((cash, units, mark)))
    return with_derivatives_of(cash + (units * where(jnp.isnan(mark), 0.0, mark)).sum(axis=-1), exact)


class _Row(eqx.Module):
    """What the first pass keeps of a row: as `Agenda` has it.      lane: after the row."""

    bar: Int[Array, "*row"]
    acts: Bool[Array, "*row"]
    trades: Bool[Array, "*row"]
    asked: Bool[Array, "*row"]
    lane: LaneState
    totals: BarTotals
    event: Rebalance | None


class _Search(eqx.Module):
    """The first pass on its way.

    seen: the first bar that the lane has not decided on.       bar: the first bar of the block that is searched.
    count: number of rows so far.
    """

    lane: LaneState
    seen: Int[Array, ""]
    bar: Int[Array, ""]
    rows: _Row
    count: Int[Array, ""]


def find_events(inputs: LaneInputs, start: LaneState, block: int, capacity: int, keeps_events: bool) -> Agenda:
    """The first pass: like the schedule `NextEvent`, but for one lane, with room for so many rows.

    keeps_events: whether it keeps what was traded.
    """
    inputs, start = constant((inputs, start))
    market, policy, num_bars = inputs.market, inputs.policy, inputs.market.num_bars
    room = room_for(capacity, EVENT_CHUNK)
    leaving = None if market.gone is None else leaving_bars(market.gone)
    decides = is_decided if leaving is None and start.ruined_at is None else decide
    worthless = has_worthless_mark(market)

    def first_trade(lane: LaneState, seen: Array, bar: Array) -> Array:
        begin = jnp.minimum(bar, num_bars - block)
        bars = begin + jnp.arange(block, dtype=bar.dtype)
        prices = lax.dynamic_slice_in_dim(market.val_price, begin, block)
        trades = jax.vmap(lambda at, price: decide(policy, lane, observation_of(market, lane, at, price, inputs.key)))
        is_open, fires = bars >= jnp.maximum(seen, bar), trades(bars, prices)
        if leaving is not None:
            fires = fires | lax.dynamic_slice_in_dim(leaving, begin, block)
        if lane.ruined_at is not None:
            ruins = jax.vmap(lambda at: is_ruined_before(market, lane, at))
            may_be = any_lane(worthless | may_be_ruined(lane.holdings))
            fires = fires | lax.cond(may_be, lambda: ruins(bars), lambda: jnp.zeros(block, bool))
        return jnp.min(where(fires & is_open, bars, num_bars))

    def row_at(lane: LaneState, at: Array, is_due: Array) -> _Row:
        # Where assets leave or the account is ruined, the search does not say whether there is a rebalance.
        outcome = trade_bar(inputs, lane, at, is_due, decision=decides)
        event = outcome.event if keeps_events else None
        return _Row(at, outcome.traded, outcome.trades, outcome.event.is_decision, outcome.lane, outcome.totals, event)

    def advance(state: _Search) -> _Search:
        first = first_trade(state.lane, state.seen, state.bar)
        is_due, at = first < num_bars, jnp.minimum(first, num_bars - 1)
        row = row_at(state.lane, at, is_due)
        return _Search(
            row.lane,
            where(is_due, at + 1, state.seen),
            where(any_lane(is_due), state.bar, state.bar + block),
            jax.tree.map(lambda rows, x: lax.dynamic_update_index_in_dim(rows, x, state.count, 0), state.rows, row),
            state.count + any_lane(row.acts),
        )

    zero = jnp.int32(0)
    shapes = jax.eval_shape(row_at, start, zero, jnp.asarray(True))
    # One row more than there is room for, to tell a full agenda from one that overflows.
    blank = jax.tree.map(lambda x: jnp.zeros((room + 1, *x.shape), x.dtype), shapes)
    search = _Search(start, zero, zero, blank, zero)
    end = lax.while_loop(lambda state: (state.bar < num_bars) & (state.count <= capacity), advance, search)
    rows = jax.tree.map(lambda x: x[:room], end.rows)
    exists = jnp.arange(room) < jnp.minimum(end.count, capacity)
    return Agenda(
        rows.bar,
        rows.acts & exists,
        rows.trades & exists,
        rows.asked & exists,
        end.count,
        rows.lane,
        rows.totals,
        rows.event,
        end.lane,
    )


class EventRows(eqx.Module):
    """What a lane holds after each row of an agenda, and what it did there; inside of the loop, of one row.

    totals: what its orders come to.       events: None unless they are asked for.
    """

    units: Float[Array, "*row asset"]
    cash: Float[Array, "*row"]
    totals: BarTotals
    events: Rebalance | None


class _Visit(eqx.Module):
    """A row that the second pass visits, or all of them.

    before: the lane, as the first pass knows it.       added: as in `scan_events`.
    """

    bar: Int[Array, "*row"]
    acts: Bool[Array, "*row"]
    trades: Bool[Array, "*row"]
    before: LaneState
    added: Holdings | None


def scan_events(
    inputs: LaneInputs, start: LaneState, agenda: Agenda, keeps_events: bool, added: Holdings | None = None
) -> EventRows:
    """The second pass, for derivatives alone: each row begins with the values that the first pass has found, so that
    the way back needs nothing that a row hands on to the next but derivatives.

    added: what is added to the holdings that the rebalance of each row starts from.
    """

    def one(lane: LaneState, row: _Visit) -> tuple[LaneState, EventRows]:
        if row.added is not None:
            lane = replace(lane, holdings=jax.tree.map(jnp.add, lane.holdings, row.added))
        lane = with_derivatives_of(lane, row.before)
        outcome = trade_bar(inputs, lane, row.bar, row.acts, decision=lambda *_: row.trades)
        held = outcome.lane.holdings
        return outcome.lane, EventRows(held.units, held.cash, outcome.totals, outcome.event if keeps_events else None)

    one = jax.checkpoint(one, prevent_cse=False)  # pyright: ignore[reportPrivateImportUsage]
    before = jax.tree.map(lambda first, rows: jnp.concatenate([first[None], rows[:-1]]), constant(start), agenda.lane)
    rows = _Visit(agenda.bar, agenda.acts, agenda.trades, before, added)
    return in_chunks(lambda lane, rows: lax.scan(one, lane, rows), start, rows, agenda.num_rows, EVENT_CHUNK)[1]
