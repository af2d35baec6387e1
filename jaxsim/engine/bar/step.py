"""One bar, in order: value, observe, decide, allocate, order, mark. This is the only place where that order stands;
every schedule runs these functions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.base.arrays import Amount, Array, Step
from jaxsim.engine.base.enums import CallSeq, Direction, SizeType
from jaxsim.engine.base.numerics import any_lane, at_bar, quotient
from jaxsim.engine.base.random import fold_in
from jaxsim.engine.base.random_keys import reject_draws
from jaxsim.engine.policy.allocation import Allocation
from jaxsim.engine.policy.destinations import SpreadOver, ToTarget, next_part
from jaxsim.engine.policy.gates import AbstractGate, Hard, Passage
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import Policy, allocator_name, as_state, ask, initial_state, watch
from jaxsim.engine.policy.stops import Entries
from jaxsim.engine.policy.triggers import as_answer, excess_of, margin_of
from jaxsim.engine.trading.account import Account, Holdings
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market
from jaxsim.engine.trading.order import first_of
from jaxsim.engine.trading.rebalance import BarPrices, Fills, Request, trade
from jaxsim.engine.trading.status import LaneFault, LaneStatus


class LastFills(eqx.Module):
    """Where fills move valuation prices: the price of each asset's last fill, which holds until the market has a newer
    one.

    price: NaN before the first fill.    bar: of that fill.
    """

    price: Float[Array, " asset"]
    bar: Int[Array, " asset"]

    def over(self, val_price: Float[Array, " asset"], priced_at: Int[Array, " asset"]) -> Float[Array, " asset"]:
        is_newer = ~jnp.isnan(self.price) & (2 * self.bar >= priced_at)
        return jnp.where(is_newer, self.price, val_price)

    def after(self, fills: Fills, step: Step) -> "LastFills":
        assert fills.val_price is not None
        is_filled = fills.trade != 0
        return LastFills(
            jnp.where(is_filled, fills.val_price, self.price), jnp.where(is_filled, jnp.int32(step), self.bar)
        )


class SpreadRebalance(eqx.Module):
    """What is left of a rebalance that is spread over several bars.

    request: where it leads, as weights.      left: number of parts still to be traded, int; 0: none.
    """

    request: Request
    left: Int[Array, ""]

    @classmethod
    def blank(cls, market: Market, policy: Policy, lane: "LaneState") -> "SpreadRebalance | None":
        """Nothing left to do; None if the policy spreads nothing."""
        if not isinstance(policy.destination, SpreadOver):
            return None

        def request() -> Request:
            obs = observe(market, lane, jnp.int32(0), at_bar_row(market.val_price, 0), jax.random.key(0))
            return request_of(policy, ask(policy.allocator, obs, lane.memory, market.dtype)[0], obs)

        shapes = jax.eval_shape(request)
        if shapes.size_type is not None:
            return None
        return cls(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), jnp.int32(0))


class LaneState(eqx.Module):
    """What one lane carries from bar to bar."""

    holdings: Holdings
    target: Float[Array, " asset"]  # weights asked for at the last rebalance; NaN before the first
    memory: Any  # the allocator's state
    status: LaneStatus
    last_fills: LastFills | None  # only if they can be newer than the market's prices
    plan: SpreadRebalance | None = None  # only if rebalances are spread over several bars
    entries: Entries | None = None  # only if there are stop rules

    @classmethod
    def start(cls, market: Market, policy: Policy, costs: Costs, account: Account) -> "LaneState":
        num_assets, dtype = market.num_assets, market.dtype
        memory = jax.tree.map(jnp.asarray, initial_state(policy.allocator, num_assets))
        holdings, unknown = Holdings.opened(account, num_assets, dtype), jnp.full(num_assets, jnp.nan, dtype)
        moves_prices = costs.update_value is not None and market.priced_at is not None
        last_fills = LastFills(unknown, jnp.zeros(num_assets, jnp.int32)) if moves_prices else None
        lane = cls(holdings, unknown, memory, LaneStatus.ok(), last_fills)
        entries = None if policy.stops is None else Entries.none(num_assets, dtype)
        return replace(lane, plan=SpreadRebalance.blank(market, policy, lane), entries=entries)

    @property
    def is_on_its_way(self) -> Bool[Array, ""]:
        """Whether parts of the last rebalance are still to be traded."""
        return jnp.asarray(False) if self.plan is None else self.plan.left > 0


class Rebalance(eqx.Module):
    """What one rebalance did.

    value: of the account before it, currency.
    excess: by how much each asset was beyond the trigger's limit, as `AbstractTrigger.excess`.
    target: what the allocator answered.    size_type, direction: what it counts; None for target weights, both ways.
    sequence: place of each asset in the order of execution, if the allocator has chosen it.
    is_decision: whether the allocator was asked; False for a further part of the rebalance before; None: always.
    """

    value: Amount
    excess: Float[Array, " asset"]
    target: Float[Array, " asset"]
    size_type: Int[Array, " asset"] | None
    direction: Int[Array, " asset"] | None
    sequence: Int[Array, " asset"] | None
    fills: Fills
    aux: dict
    is_decision: Bool[Array, ""] | None = None


def observe(market: Market, lane: LaneState, step: Step, val_price: Float[Array, " asset"], key: Any) -> Observation:
    """Events 1 and 2: value the account at the bar's valuation price, and gather what the policy may see."""
    holdings = lane.holdings
    if lane.last_fills is not None:
        assert market.priced_at is not None
        val_price = lane.last_fills.over(val_price, at_bar_row(market.priced_at, step))
    value = holdings.value(val_price)
    tradable = ~jnp.isnan(val_price)
    is_weighable = tradable & (value != 0)
    weights = jnp.where(is_weighable, holdings.units * jnp.where(tradable, val_price, 0.0), 0.0)
    return Observation(
        step=step,
        weights=quotient(weights, jnp.where(value != 0, value, 1.0)),
        units=holdings.units,
        value=value,
        cash=holdings.cash,
        debt=holdings.debt,
        free_cash=holdings.free_cash,
        val_price=val_price,
        target=lane.target,
        tradable=tradable,
        key=None if key is None else fold_in(key, step),
        features=jax.tree.map(lambda x: at_bar_row(x, step), market.features),
        closes=market.close,
    )


def at_bar_row(x: Array, step: Step) -> Array:
    return lax.dynamic_index_in_dim(x, step, keepdims=False)


def decide(policy: Policy, lane: LaneState, obs: Observation) -> Bool[Array, ""]:
    """Event 3: whether to rebalance at this bar, or to go on with the rebalance before."""
    wants = jnp.asarray(as_answer(policy.trigger(obs)), bool)
    return (wants | must_trade(policy, lane, obs)) & may_trade(policy, lane, obs)


def must_trade(policy: Policy, lane: LaneState, obs: Observation) -> Bool[Array, ""]:
    """Whether something else than the trigger asks for orders."""
    must = ~jnp.any(obs.units != 0) if policy.trades_when_flat else jnp.asarray(False)
    if lane.plan is not None:
        must = must | lane.is_on_its_way
    if policy.stops is not None:
        assert lane.entries is not None
        must = must | policy.stops.closes(obs, lane.entries).any()
    return must


def may_trade(policy: Policy, lane: LaneState, obs: Observation) -> Bool[Array, ""]:
    """Whether there may be orders at all."""
    return (obs.step >= policy.min_history) & lane.status.is_ok


def passage_of(
    policy: Policy, market: Market, lane: LaneState, obs: Observation, trades: Bool[Array, ""], key: Any
) -> Passage | None:
    """What the policy's gate makes of the decision; None if it is hard."""
    if isinstance(policy.gate, Hard):
        return None
    if not policy.gate.sees_state:
        lane = lax.stop_gradient(lane)
        obs = observe(market, lane, jnp.asarray(obs.step), at_bar_row(market.val_price, obs.step), key)
    margin = jnp.where(must_trade(policy, lane, obs), jnp.inf, margin_of(policy.trigger, obs))
    return policy.gate.passage(trades, jnp.where(may_trade(policy, lane, obs), margin, -jnp.inf))


def rebalance(
    policy: Policy, market: Market, costs: Costs, lane: LaneState, obs: Observation, keep_log: bool = False
) -> tuple[LaneState, Rebalance]:
    """Events 4 and 5: ask the allocator, remember its targets, and trade towards them."""
    allocation, memory = ask(policy.allocator, obs, lane.memory, market.dtype)
    memory = as_state(memory, lane.memory, allocator_name(policy.allocator))
    entries, closing, target = lane.entries, None, allocation.weights
    if policy.stops is not None:
        assert entries is not None
        target, is_out, closing = policy.stops.sizes(obs, entries, target, policy.trigger(obs))
        allocation = replace(allocation, weights=target, skip=jnp.isnan(target))
        entries = Entries(entries.price, jnp.where(policy.stops.due(obs), obs.value, entries.value), is_out)
    request = request_of(policy, allocation, obs)
    if closing is not None:
        request = replace(request, size=jnp.where(closing, 0.0, request.size))  # however far the others go
    faults = allocation_faults(allocation, request)
    plan, is_decision = lane.plan, None
    if plan is not None:
        assert isinstance(policy.destination, SpreadOver)
        is_decision = ~lane.is_on_its_way
        plan, memory, target, faults = jax.tree.map(
            lambda new, old: jnp.where(is_decision, new, old),
            (SpreadRebalance(request, policy.destination.num_parts(obs)), memory, target, faults),
            (plan, lane.memory, lane.target, jnp.full_like(faults, LaneFault.NONE)),
        )
        request, way = plan.request, plan.request.direction
        request = replace(request, size=facing(way, next_part(obs, facing(way, request.size), plan.left)))
    status = lane.status.first(faults, obs.step)
    # A lane that has gone wrong trades no more.
    request = replace(request, size=jnp.where(status.is_ok, request.size, jnp.nan))
    draw = None if costs.reject_prob is None else reject_draws(obs.key, obs.num_assets).astype(market.dtype)
    quote = BarPrices(obs.value, obs.val_price, at_bar_row(market.price, obs.step))
    holdings, fills = trade(lane.holdings, request, quote, costs.at(obs.step, obs.num_assets), draw, keep_log)
    if fills.fault is not None:
        status = status.first(fills.fault, obs.step, fills.rank, fills.info)
    last_fills = None if lane.last_fills is None else lane.last_fills.after(fills, obs.step)
    if plan is not None:
        plan = replace(plan, left=jnp.where((holdings.units != 0).any(), plan.left - 1, 0))
    excess = excess_of(policy.trigger, obs)
    asked = (request.size_type, request.direction, request.sequence)
    event = Rebalance(obs.value, excess, target, *asked, fills, dict(allocation.aux), is_decision)
    if policy.stops is not None:
        assert entries is not None
        entries = entries.after(lane.holdings, holdings, fills)
        # What a stop rule has left alone keeps its target, which a threshold goes on to compare with.
        target = jnp.where(jnp.isnan(target) & ~policy.stops.due(obs), lane.target, target)
    return LaneState(holdings, target, memory, status, last_fills, plan, entries), event


def request_of(policy: Policy, allocation: Allocation, obs: Observation) -> Request:
    """What an allocation asks to be traded; what it leaves open, the policy says. Weights are traded as far as the
    policy's destination goes, other sizes as they are."""

    def chosen(own: Any, default: Any) -> Any:
        if own is None and default is not None:
            return jnp.broadcast_to(at_bar(default, obs.step), obs.units.shape)
        return own

    order, sequence = allocation.call_seq, None
    if order is not None and order.ndim:
        sequence = jnp.where((order == -1).all(), -1, jnp.argsort(order, stable=True)).astype(jnp.int32)
    if order is None or order.ndim:
        order = policy.call_seq
    size, size_type = allocation.weights, chosen(allocation.size_type, policy.size_type)
    direction = chosen(allocation.direction, policy.direction)
    if size_type is None and not isinstance(policy.destination, ToTarget):
        size = facing(direction, policy.destination(obs, facing(direction, size), policy.trigger))
    return Request(size, size_type, direction, order, sequence, not isinstance(policy.destination, ToTarget))


def facing(direction: Int[Array, " asset"] | None, weights: Float[Array, " asset"]) -> Float[Array, " asset"]:
    """Weights as sizes, or sizes as weights: where only short positions are allowed, one is the other's negative."""
    return weights if direction is None else jnp.where(direction == Direction.SHORT_ONLY, -weights, weights)


def allocation_faults(allocation: Allocation, request: Request) -> Int[Array, " asset"]:
    """The LaneFault of each answer. Sizes that are no weights may be infinite: all that can be traded."""
    weights = allocation.weights
    cases = [(jnp.isnan(weights), LaneFault.WEIGHT_NAN)]
    if request.size_type is None:
        cases.append((jnp.isinf(weights), LaneFault.WEIGHT_INFINITE))
    fault = jnp.where(allocation.skip, LaneFault.NONE, first_of(cases, LaneFault.NONE))
    for codes, kind in ((request.size_type, SizeType), (request.direction, Direction), (request.call_seq, CallSeq)):
        if codes is not None:
            is_known = jnp.isin(codes, jnp.array([int(member) for member in kind]))
            fault = jnp.where(is_known | (fault != LaneFault.NONE), fault, LaneFault.CODE)
    if request.sequence is not None:
        order = allocation.call_seq
        is_order = (jnp.sort(order) == jnp.arange(weights.shape[0])).all() | (order == -1).all()
        fault = jnp.where(is_order | (fault != LaneFault.NONE), fault, LaneFault.CALL_SEQ)
    return fault.astype(jnp.int32)


def rebalance_if(
    trades: Bool[Array, ""],
    policy: Policy,
    market: Market,
    costs: Costs,
    lane: LaneState,
    obs: Observation,
    axes: Sequence[str],
    keep_log: bool = False,
    ticket: Any = None,
    passage: Passage | None = None,
) -> tuple[LaneState, Rebalance]:
    """`rebalance` the lanes that trade. Where no lane of the mapped `axes` does, nothing is computed at all: the
    allocator costs nothing on such bars. The event of a lane that does not trade is meaningless.

    ticket: as `Observation.ticket`.
    passage: what the policy's gate has made of the decision; None: all or nothing.
    """
    acts = trades if passage is None else passage.acts
    obs = replace(obs, is_asked=acts, ticket=ticket)
    blank = jax.eval_shape(lambda: rebalance(policy, market, costs, lane, obs, keep_log)[1])

    def act():
        after, event = rebalance(policy, market, costs, lane, obs, keep_log)
        if passage is not None:
            return _through(policy.gate, passage, after, lane, event)
        kept = jax.tree.map(lambda new, old: jnp.where(trades, new, old), after, lane)
        return kept, event

    def keep():
        return lane, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), blank)

    return lax.cond(any_lane(acts, axes), act, keep)


def _through(
    gate: AbstractGate, passage: Passage, after: LaneState, before: LaneState, event: Rebalance
) -> tuple[LaneState, Rebalance]:
    """What passes a gate that is not hard: the lane after it, and the event with fills to match."""
    lane = gate.memory(passage, after, before)
    # A fault in a rebalance that is only imagined is none.
    counts = passage.trades if gate.is_exact else passage.acts
    status = jax.tree.map(lambda new, old: jnp.where(counts, new, old), after.status, before.status)
    last_fills = jax.tree.map(lambda new, old: jnp.where(passage.trades, new, old), after.last_fills, before.last_fills)
    holdings = gate.money(passage, after.holdings, before.holdings)
    traded, fees = (gate.money(passage, x, jnp.zeros_like(x)) for x in (event.fills.trade, event.fills.fees))
    event = jax.tree.map(lambda x: jnp.where(counts, x, jnp.zeros_like(x)), event)
    event = replace(event, fills=replace(event.fills, trade=traded, fees=fees))
    return replace(lane, holdings=holdings, status=status, last_fills=last_fills), event


def step(
    policy: Policy,
    market: Market,
    costs: Costs,
    lane: LaneState,
    bar: Int[Array, ""],
    key: Any,
    axes: Sequence[str] = (),
    keep_log: bool = False,
    ticket: Any = None,
) -> tuple[LaneState, Bool[Array, ""], Rebalance, dict]:
    """One bar of one lane: the lane after it, whether it traded, the event if so, and what `observe` recorded."""
    obs = observe(market, lane, bar, at_bar_row(market.val_price, bar), key)
    memory, aux = watch(policy.allocator, obs, lane.memory)
    memory = as_state(memory, lane.memory, allocator_name(policy.allocator))
    lane = replace(lane, memory=memory)
    trades = decide(policy, lane, obs)
    passage = passage_of(policy, market, lane, obs, trades, key)
    lane, event = rebalance_if(trades, policy, market, costs, lane, obs, axes, keep_log, ticket, passage)
    return lane, trades, event, aux
