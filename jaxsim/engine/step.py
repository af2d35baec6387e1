"""One bar, in order: value, observe, decide, allocate, order, mark. This is the only place where that order stands;
every schedule runs these functions."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.account import Account, Holdings
from jaxsim.engine.arrays import Amount, Array, Step
from jaxsim.engine.costs import Costs
from jaxsim.engine.market import Market
from jaxsim.engine.numerics import ABS_TOL, any_lane, at_bar
from jaxsim.engine.observation import Observation
from jaxsim.engine.orders import Fills, trade_to
from jaxsim.engine.policy import Policy, allocator_name, as_state, ask, initial_state, watch
from jaxsim.engine.status import LaneFault, LaneStatus


class Lane(eqx.Module):
    """What one lane carries from bar to bar."""

    holdings: Holdings
    target: Float[Array, " asset"]  # weights asked for at the last rebalance; NaN before the first
    memory: Any  # the allocator's state
    status: LaneStatus

    @classmethod
    def start(cls, policy: Policy, account: Account, num_assets: int, dtype: Any) -> "Lane":
        memory = jax.tree.map(jnp.asarray, initial_state(policy.allocator, num_assets))
        holdings = Holdings.opened(account, num_assets, dtype)
        return cls(holdings, jnp.full(num_assets, jnp.nan, dtype), memory, LaneStatus.ok())


class Event(eqx.Module):
    """What one rebalance did.

    value: of the account before it, currency.
    """

    value: Amount
    target: Float[Array, " asset"]
    fills: Fills
    aux: dict


def observe(
    market: Market, lane: Lane, step: Int[Array, ""], val_price: Float[Array, " asset"], key: Any
) -> Observation:
    """Events 1 and 2: value the account at the bar's valuation price, and gather what the policy may see."""
    holdings = lane.holdings
    value = holdings.value(val_price)
    tradable = ~jnp.isnan(val_price)
    is_weighable = tradable & (value != 0)
    weights = jnp.where(is_weighable, holdings.units * jnp.where(tradable, val_price, 0.0), 0.0)
    return Observation(
        step=step,
        weights=weights / jnp.where(value != 0, value, 1.0),
        units=holdings.units,
        value=value,
        cash=holdings.cash,
        debt=jnp.zeros_like(holdings.units),
        free_cash=holdings.cash,
        val_price=val_price,
        target=lane.target,
        tradable=tradable,
        key=None if key is None else jax.random.fold_in(key, step),
        features=jax.tree.map(lambda x: at_bar_row(x, step), market.features),
        closes=market.close,
    )


def at_bar_row(x: Array, step: Step) -> Array:
    return lax.dynamic_index_in_dim(x, step, keepdims=False)


def decide(policy: Policy, lane: Lane, obs: Observation) -> Bool[Array, ""]:
    """Event 3: whether to rebalance at this bar."""
    wants = jnp.asarray(policy.trigger(obs), bool)
    if wants.shape != ():
        raise ValueError(f"trigger: expected one answer, yes or no, got shape {wants.shape}; jnp.any makes one of many")
    if policy.trades_when_flat:
        wants = wants | ~jnp.any(obs.units != 0)
    return wants & (obs.step >= policy.min_history) & lane.status.is_ok


def rebalance(policy: Policy, market: Market, costs: Costs, lane: Lane, obs: Observation) -> tuple[Lane, Event]:
    """Events 4 and 5: ask the allocator, remember its targets, and trade towards them."""
    allocation, memory = ask(policy.allocator, obs, lane.memory, market.dtype)
    assert allocation.skip is not None  # `ask` fills it in
    status = lane.status.first(weight_faults(allocation.weights, allocation.skip), obs.step)
    asked = jnp.where(allocation.weights < 0, 0.0, allocation.weights)
    weights = jnp.where(status.is_ok, asked, jnp.nan)  # a lane that has gone wrong trades no more
    holdings, fills = trade_to(
        lane.holdings,
        weights,
        obs.value,
        obs.val_price,
        at_bar_row(market.price, obs.step),
        jnp.broadcast_to(at_bar(costs.fees, obs.step), obs.units.shape),
    )
    memory = as_state(memory, lane.memory, allocator_name(policy.allocator))
    return Lane(holdings, asked, memory, status), Event(obs.value, asked, fills, dict(allocation.aux))


def weight_faults(weights: Float[Array, " asset"], skip: Bool[Array, " asset"]) -> Int[Array, " asset"]:
    """The LaneFault of each weight. Negative dust, as solvers leave it, passes for zero."""
    fault = jnp.where(
        jnp.isnan(weights),
        LaneFault.WEIGHT_NAN,
        jnp.where(
            jnp.isinf(weights),
            LaneFault.WEIGHT_INFINITE,
            jnp.where(weights < -ABS_TOL, LaneFault.WEIGHT_NEGATIVE, LaneFault.NONE),
        ),
    )
    return jnp.where(skip, LaneFault.NONE, fault).astype(jnp.int32)


def rebalance_if(
    trades: Bool[Array, ""],
    policy: Policy,
    market: Market,
    costs: Costs,
    lane: Lane,
    obs: Observation,
    axes: Sequence[str],
) -> tuple[Lane, Event]:
    """`rebalance` the lanes that trade. Where no lane of the mapped `axes` does, nothing is computed at all: the
    allocator costs nothing on such bars. The event of a lane that does not trade is meaningless."""
    blank = jax.eval_shape(lambda: rebalance(policy, market, costs, lane, obs)[1])

    def act():
        after, event = rebalance(policy, market, costs, lane, obs)
        kept = jax.tree.map(lambda new, old: jnp.where(trades, new, old), after, lane)
        return kept, event

    def keep():
        return lane, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), blank)

    return lax.cond(any_lane(trades, axes), act, keep)


def step(
    policy: Policy,
    market: Market,
    costs: Costs,
    lane: Lane,
    bar: Int[Array, ""],
    key: Any,
    axes: Sequence[str] = (),
) -> tuple[Lane, Bool[Array, ""], Event, dict]:
    """One bar of one lane: the lane after it, whether it traded, the event if so, and what `observe` recorded."""
    obs = observe(market, lane, bar, at_bar_row(market.val_price, bar), key)
    memory, aux = watch(policy.allocator, obs, lane.memory)
    memory = as_state(memory, lane.memory, allocator_name(policy.allocator))
    lane = Lane(lane.holdings, lane.target, memory, lane.status)
    trades = decide(policy, lane, obs)
    lane, event = rebalance_if(trades, policy, market, costs, lane, obs, axes)
    return lane, trades, event, aux
