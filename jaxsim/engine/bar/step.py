"""One bar, in order: close what leaves, value, observe, decide, allocate, order. `trade_bar` is the only place where
that order stands: every schedule and every adjoint calls it. `rebalance` says what happens at a bar that trades.

Marking is left to whoever keeps results: units do not change until the next rebalance, so that many bars can be
marked together.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.bar.delisting import Closing, close_what_leaves, fills_with
from jaxsim.engine.bar.lane_state import LaneState, SpreadRebalance, at_bar_row, observation_of
from jaxsim.engine.bar.lanes import LaneInputs
from jaxsim.engine.bar.request import allocation_faults, facing, request_of
from jaxsim.engine.bar.ruin import note_ruin
from jaxsim.engine.bar.totals import BarTotals, closed_value, traded_value, turnover_of
from jaxsim.engine.base.arrays import Amount, Array, where
from jaxsim.engine.base.enums import Direction, SizeType
from jaxsim.engine.base.fields import shown
from jaxsim.engine.base.numerics import any_lane
from jaxsim.engine.base.random import reject_draws
from jaxsim.engine.base.tracing import traced_once
from jaxsim.engine.policy.destinations import SpreadOver, next_part
from jaxsim.engine.policy.gates import AbstractGate, Hard, Passage
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import Policy, allocator_name, as_state, ask, observes, watch
from jaxsim.engine.policy.stops import Entries
from jaxsim.engine.policy.triggers import as_answer, excess_of, margin_of
from jaxsim.engine.trading.account import is_flat
from jaxsim.engine.trading.rebalance import BarPrices, Fills, Request, trade
from jaxsim.engine.trading.status import LaneFault, OrderReason


class Rebalance(eqx.Module):
    """What one rebalance did, or the closing of assets that have left the market, or both at one bar.

    value: of the account before it, currency.
    excess: by how much each asset was beyond the trigger's limit, as `AbstractTrigger.excess`.
    target: what the allocator answered; at a bar without a rebalance what it answered last.
    size_type, direction: what it counts; None for target weights, both ways.
    sequence: place of each asset in the order of execution, if the allocator has chosen it.
    is_decision: whether the allocator was asked: false at a bar without a rebalance, where no more than a further
        part of the rebalance before was traded, and where no more than assets that have left were closed.
    """

    value: Amount
    excess: Float[Array, " asset"]
    target: Float[Array, " asset"]
    size_type: Int[Array, " asset"] | None
    direction: Int[Array, " asset"] | None
    sequence: Int[Array, " asset"] | None
    fills: Fills
    aux: dict
    is_decision: Bool[Array, ""]


class BarOutcome(eqx.Module):
    """What one bar made of a lane.

    lane: after the bar.        traded: whether there was a rebalance, or an asset that has left was closed.
    trades: whether there was a rebalance.
    event: what was traded; except for `event.is_decision` it means nothing where `traded` is false.
    recorded: arrays that the allocator's `observe` recorded, by name.
    passed: the totals with what a gate that is not hard passes of them; None under the gate `Hard`.
    """

    lane: LaneState
    traded: Bool[Array, ""]
    trades: Bool[Array, ""]
    event: Rebalance
    recorded: dict
    passed: BarTotals | None = None

    @property
    def totals(self) -> BarTotals:
        """What the orders of the bar come to; zero where there are none."""
        if self.passed is not None:
            return self.passed
        return jax.tree.map(lambda x: where(self.traded, x, 0.0), totals_of(self.event))


def totals_of(event: Rebalance) -> BarTotals:
    """What the fills of an event come to."""
    return BarTotals.of(event.fills.fees, traded_value(event.fills), event.value)


#: Whether a lane that is due trades at a bar.
Decision = Callable[[Policy, LaneState, Observation], Bool[Array, ""]]


def trade_bar(
    inputs: LaneInputs,
    lane: LaneState,
    bar: Int[Array, ""],
    is_due: Bool[Array, ""] | bool = True,
    *,
    decision: Decision | None = None,
) -> BarOutcome:
    """One bar of one lane: close what leaves the market, observe, decide, rebalance.

    lane: before the bar.       bar: its number.
    is_due: false leaves the lane as it is, beside others that trade at this bar.
    decision: says whether a lane that is due trades; default `decide`. A loop that knows what the trigger says passes
        `may_trade`. A loop that knows the decision itself passes `is_decided`.

    Raises TypeError naming the argument for what is of another kind.
    """
    _check_kinds(inputs, lane, bar)
    lane = note_ruin(inputs.market, lane, bar, is_due)
    lane, closing = close_what_leaves(inputs.market, lane, bar, is_due)
    obs = observation_of(inputs.market, lane, bar, at_bar_row(inputs.market.val_price, bar), inputs.key)
    recorded = {}
    if observes(inputs.policy.allocator):
        memory, recorded = watch(inputs.policy.allocator, obs, lane.memory)
        lane = replace(lane, memory=as_state(memory, lane.memory, allocator_name(inputs.policy.allocator)))
    trades = is_due & (decision or decide)(inputs.policy, lane, obs)
    passage = passage_of(inputs, lane, obs, trades)
    lane, event, passed = rebalance_if(inputs, trades, lane, obs, passage, closing)
    traded = trades if closing is None else trades | closing.happens.any()
    return BarOutcome(lane, traded, trades, event, recorded, passed)


def _check_kinds(inputs: Any, lane: Any, bar: Any) -> None:
    for name, value, kind in (("inputs", inputs, LaneInputs), ("lane", lane, LaneState)):
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected js.{kind.__name__}, got {shown(value)}"[:200])
    if np.ndim(bar) != 0 or not jnp.issubdtype(jnp.result_type(bar), jnp.integer):
        raise TypeError(f"bar: expected the number of a bar, got {shown(bar)}"[:200])


def observe(inputs: LaneInputs, lane: LaneState, bar: Int[Array, ""] | int) -> Observation:
    """What a policy sees of a lane at the open of a bar, after what has left the market is closed: `trade_bar` shows
    it the same.

    inputs: of `js.lane_inputs`.        lane: before the bar, of `LaneState.start(inputs)` or the bar before.
    bar: its number, 0 for the first; of a bar that does not exist, the nearest one is shown.

    Raises TypeError naming the argument for what is of another kind.
    """
    _check_kinds(inputs, lane, bar)
    bar = jnp.asarray(bar, jnp.int32)
    lane, _ = close_what_leaves(inputs.market, note_ruin(inputs.market, lane, bar), bar)
    return observation_of(inputs.market, lane, bar, at_bar_row(inputs.market.val_price, bar), inputs.key)


def decide(policy: Policy, lane: LaneState, obs: Observation) -> Bool[Array, ""]:
    """Whether to rebalance at this bar, or to go on with the rebalance before."""
    wants = jnp.asarray(as_answer(policy.trigger(obs)), bool)
    return (wants | must_trade(policy, lane, obs)) & may_trade(policy, lane, obs)


def must_trade(policy: Policy, lane: LaneState, obs: Observation) -> Bool[Array, ""]:
    """Whether anything but the trigger asks for orders."""
    must = lane.is_flat if policy.trades_when_flat else jnp.asarray(False)
    if lane.is_unasked is not None:
        must = must | lane.is_unasked
    must = must | lane.falls_at(obs.step)
    if lane.spread is not None:
        must = must | lane.is_on_its_way
    if policy.stops is not None:
        assert lane.entries is not None
        must = must | policy.stops.closes(obs, lane.entries).any()
    return must


def may_trade(policy: Policy, lane: LaneState, obs: Observation) -> Bool[Array, ""]:
    """Whether there may be orders at all."""
    may = (obs.step >= policy.min_history) & lane.status.is_ok
    if lane.first_bar is not None:
        may = may & (obs.step >= lane.first_bar)
    return may if lane.ruined_at is None else where(lane.is_ruined, lane.falls_at(obs.step), may)


def is_decided(policy: Policy, lane: LaneState, obs: Observation) -> Bool[Array, ""]:
    """Yes: the loop visits only bars at which the lane was found to trade."""
    return jnp.asarray(True)


def passage_of(inputs: LaneInputs, lane: LaneState, obs: Observation, trades: Bool[Array, ""]) -> Passage | None:
    """What the policy's gate makes of the decision `trades`; None if the gate is hard."""
    policy, market = inputs.policy, inputs.market
    if isinstance(policy.gate, Hard):
        return None
    if not policy.gate.sees_state:
        lane = lax.stop_gradient(lane)
        obs = observation_of(market, lane, jnp.asarray(obs.step), at_bar_row(market.val_price, obs.step), inputs.key)
    margin = where(must_trade(policy, lane, obs), jnp.inf, margin_of(policy.trigger, obs))
    return policy.gate.passage(trades, where(may_trade(policy, lane, obs), margin, -jnp.inf))


def rebalance(inputs: LaneInputs, lane: LaneState, obs: Observation) -> tuple[LaneState, Rebalance]:
    """Ask the allocator, remember its targets, and trade towards them."""
    market, policy, costs = inputs.market, inputs.policy, inputs.costs
    allocation, memory = ask(policy.allocator, obs, lane.memory, market.dtype)
    memory = as_state(memory, lane.memory, allocator_name(policy.allocator))
    entries, closing, target = lane.entries, None, allocation.weights
    if policy.stops is not None:
        assert entries is not None
        target, is_out, closing = policy.stops.sizes(obs, entries, target, policy.trigger(obs))
        allocation = replace(allocation, weights=target, skip=jnp.isnan(target))
        entries = Entries(entries.price, where(policy.stops.due(obs), obs.value, entries.value), is_out)
    request = request_of(policy, allocation, obs)
    if closing is not None:
        # Whatever the destination, and whatever the account is worth.
        request = replace(request, size=where(closing, 0.0, request.size), closes=closing)
    faults = allocation_faults(allocation, request)
    falls, spread = lane.falls_at(obs.step), lane.spread
    is_decision = ~(lane.is_on_its_way | falls)
    if spread is not None:
        assert isinstance(policy.destination, SpreadOver)
        new_spread = SpreadRebalance(request, policy.destination.num_parts(obs))
        spread = jax.tree.map(lambda new, old: where(is_decision, new, old), new_spread, spread)
    if spread is not None or lane.ruined_at is not None:
        memory, target, faults = jax.tree.map(
            lambda new, old: where(is_decision, new, old),
            (memory, target, faults),
            (lane.memory, lane.target, jnp.full_like(faults, LaneFault.NONE)),
        )
    if spread is not None:
        request, way = spread.request, spread.request.direction
        request = replace(request, size=facing(way, next_part(obs, facing(way, request.size), spread.left)))
    status = lane.status.first(faults, obs.step)
    # A lane that has gone wrong trades no more.
    closes = None if request.closes is None else request.closes & status.is_ok
    request = replace(request, size=where(status.is_ok, request.size, jnp.nan), closes=closes)
    if lane.ruined_at is not None:
        request = _closing_all(request, falls, lane.holdings.units)
    draw = None if costs.reject_prob is None else reject_draws(obs.key, obs.num_assets).astype(market.dtype)
    quote = BarPrices(obs.value, obs.val_price, at_bar_row(market.price, obs.step))
    holdings, fills = trade(lane.holdings, request, quote, costs.at(obs.step, obs.num_assets), draw, inputs.keep_log)
    if fills.fault is not None:
        # What cannot be closed is no fault.
        status = status.first(where(falls, LaneFault.NONE, fills.fault), obs.step, fills.rank, fills.info)
    if lane.ruined_at is not None:
        is_sent = falls & (lane.holdings.units != 0)
        fills = replace(fills, rank=where(is_sent, -OrderReason.RUINED, fills.rank).astype(fills.rank.dtype))
    last_fills = None if lane.last_fills is None else lane.last_fills.after(fills, obs.step)
    if spread is not None:
        spread = replace(spread, left=where(is_flat(holdings.units), 0, spread.left - 1))
    excess = excess_of(policy.trigger, obs)
    asked = (request.size_type, request.direction, request.sequence)
    if lane.ruined_at is not None:  # what is closed is no answer of the allocator
        asked = (
            _unless(falls, request.size_type, SizeType.TARGET_PERCENT),
            _unless(falls, request.direction, Direction.BOTH),
            _unless(falls, request.sequence, -1),
        )
    event = Rebalance(obs.value, excess, target, *asked, fills, dict(allocation.aux), is_decision)
    if policy.stops is not None:
        assert entries is not None
        entries = entries.after(lane.holdings, holdings, fills)
        # An asset that the stops have left alone keeps its target, with which a threshold goes on to compare.
        target = where(jnp.isnan(target) & ~policy.stops.due(obs), lane.target, target)
    is_emptied = None if lane.is_emptied is None else lane.is_emptied & is_flat(holdings.units)
    is_unasked = None if lane.is_unasked is None else jnp.zeros_like(lane.is_unasked)
    after = replace(
        lane,
        holdings=holdings,
        target=target,
        memory=memory,
        status=status,
        last_fills=last_fills,
        spread=spread,
        entries=entries,
        is_emptied=is_emptied,
        is_unasked=is_unasked,
    )
    return after, event


def _closing_all(request: Request, falls: Bool[Array, ""], units: Float[Array, " asset"]) -> Request:
    """The request, and where the account has fallen one that closes all that is held, counted in units."""
    closes = falls & (units != 0)
    others = False if request.closes is None else request.closes & ~falls
    return replace(
        request,
        size=where(closes, 0.0, where(falls, jnp.nan, request.size)),
        sequence=None if request.sequence is None else where(falls, -1, request.sequence),
        closes=closes | others,
    )


def rebalance_if(
    inputs: LaneInputs,
    trades: Bool[Array, ""],
    lane: LaneState,
    obs: Observation,
    passage: Passage | None = None,
    closing: Closing | None = None,
) -> tuple[LaneState, Rebalance, BarTotals | None]:
    """`rebalance` the lanes that trade. Where no lane that `vmap` runs beside it trades, nothing is computed: the
    allocator costs nothing at such bars. The event of a lane that does not trade means nothing, except for
    `is_decision`.

    passage: what the policy's gate has made of the decision; None: all or nothing.
    closing: what has left the market at this bar, to be recorded with the event; None: nothing can.

    Returns the lane, the event, and `BarOutcome.passed`.
    """
    acts = trades if passage is None else passage.acts
    obs = replace(obs, is_asked=acts & ~lane.falls_at(obs.step), ticket=inputs.ticket)
    if closing is not None:
        acts = acts | closing.happens.any()
    rebalance_once = traced_once(rebalance)
    blank = jax.eval_shape(lambda: rebalance_once(inputs, lane, obs)[1])

    def act():
        after, event = rebalance_once(inputs, lane, obs)
        event = replace(event, is_decision=event.is_decision & trades)
        passed = None
        if passage is None:
            after = jax.tree.map(lambda new, old: where(trades, new, old), after, lane)
        else:
            passed = _passed(inputs.policy.gate, passage, event, closing)
            after, event = _through(inputs.policy.gate, passage, after, lane, event)
        if closing is None:
            return after, event, passed
        shows = trades if passage is None or inputs.policy.gate.is_exact else passage.acts
        return after, _with_closing(event, closing, shows | ~closing.happens.any(), lane), passed

    def keep():
        nothing = jnp.zeros((), inputs.market.dtype)
        passed = None if passage is None else BarTotals(nothing, nothing, nothing)
        return lane, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), blank), passed

    return lax.cond(any_lane(acts), act, keep)


def _passed(gate: AbstractGate, passage: Passage, event: Rebalance, closing: Closing | None) -> BarTotals:
    """The totals of a bar through a gate: of the event before the gate, and of the assets that have left."""
    totals = jax.tree.map(lambda x: gate.money(passage, x, jnp.zeros_like(x)), totals_of(event))
    if closing is None:
        return totals
    closed = closed_value(closing.units, closing.price)
    turnover = totals.turnover + turnover_of(closed, event.value)
    return BarTotals(totals.fees, totals.traded + closed, turnover)


def _unless(flag: Bool[Array, ""], codes: Array | None, neutral: int) -> Array | None:
    """The codes of a rebalance, and the neutral one where nobody asked for it."""
    return None if codes is None else where(flag, neutral, codes).astype(codes.dtype)


def _with_closing(event: Rebalance, closing: Closing, trades: Bool[Array, ""], lane: LaneState) -> Rebalance:
    """The event of a bar at which assets may have left the market.

    trades: false where there was no rebalance, but assets left; the targets are then those of the lane after it.
    """

    return replace(
        event,
        target=where(trades, event.target, lane.target),
        size_type=_unless(~trades, event.size_type, SizeType.TARGET_PERCENT),
        direction=_unless(~trades, event.direction, Direction.BOTH),
        sequence=_unless(~trades, event.sequence, -1),
        fills=fills_with(closing, event.fills, trades),
    )


def _through(
    gate: AbstractGate, passage: Passage, after: LaneState, before: LaneState, event: Rebalance
) -> tuple[LaneState, Rebalance]:
    """How much of a rebalance passes a gate that is not hard: the lane after it, and the event with fills to match."""
    lane = gate.memory(passage, after, before)
    # A fault counts only where there is a rebalance, and not where the gate needs one for a derivative.
    counts = passage.trades if gate.is_exact else passage.acts
    status = jax.tree.map(lambda new, old: where(counts, new, old), after.status, before.status)
    last_fills = jax.tree.map(lambda new, old: where(passage.trades, new, old), after.last_fills, before.last_fills)
    holdings = gate.money(passage, after.holdings, before.holdings)
    traded, fees = (gate.money(passage, x, jnp.zeros_like(x)) for x in (event.fills.trade, event.fills.fees))
    event = jax.tree.map(lambda x: where(counts, x, jnp.zeros_like(x)), event)
    event = replace(event, fills=replace(event.fills, trade=traded, fees=fees))
    return replace(lane, holdings=holdings, status=status, last_fills=last_fills), event
