"""What one lane carries from bar to bar, and what its policy sees of it at the open of a bar."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs, over_lanes
from jaxsim.engine.bar.request import request_of
from jaxsim.engine.base.arrays import Array, Step, where
from jaxsim.engine.base.numerics import quotient
from jaxsim.engine.base.random import fold_in
from jaxsim.engine.policy.destinations import SpreadOver
from jaxsim.engine.policy.given import GivenOrders
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import ask, initial_state
from jaxsim.engine.policy.stops import Entries
from jaxsim.engine.trading.account import ByAllocator, Holdings, OpeningBook, is_flat
from jaxsim.engine.trading.market import Market
from jaxsim.engine.trading.rebalance import Fills, Request
from jaxsim.engine.trading.status import LaneStatus


class LastFills(eqx.Module):
    """The price of each asset's last fill, for markets in which fills move valuation prices. It holds until the market
    has a newer price.

    price: currency per unit, NaN before the first fill.    bar: number of the bar of that fill.
    """

    price: Float[Array, " asset"]
    bar: Int[Array, " asset"]

    def over(self, val_price: Float[Array, " asset"], priced_at: Int[Array, " asset"]) -> Float[Array, " asset"]:
        """The newer of the two prices of each asset."""
        is_newer = ~jnp.isnan(self.price) & (2 * self.bar >= priced_at)
        return where(is_newer, self.price, val_price)

    def after(self, fills: Fills, step: Step) -> "LastFills":
        assert fills.val_price is not None
        is_filled = fills.trade != 0
        return LastFills(where(is_filled, fills.val_price, self.price), where(is_filled, jnp.int32(step), self.bar))


class SpreadRebalance(eqx.Module):
    """A rebalance that is spread over several bars, and how much of it is left.

    request: where it leads, as weights.      left: number of parts still to be traded, int; 0 when it is done.
    """

    request: Request
    left: Int[Array, ""]

    @classmethod
    def blank(cls, inputs: LaneInputs, lane: "LaneState") -> "SpreadRebalance | None":
        """One of which nothing is left; None if the policy spreads nothing."""
        policy, market = inputs.policy, inputs.market
        if not isinstance(policy.destination, SpreadOver):
            return None

        def request() -> Request:
            obs = observation_of(market, lane, jnp.int32(0), at_bar_row(market.val_price, 0), jax.random.key(0))
            return request_of(policy, ask(policy.allocator, obs, lane.memory, market.dtype)[0], obs)

        shapes = jax.eval_shape(request)
        if shapes.size_type is not None:
            return None
        return cls(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), jnp.int32(0))


class LaneState(eqx.Module):
    """What one lane carries from bar to bar.

    holdings: the account.      target: weights asked for at the last rebalance; NaN before the first.
    memory: the allocator's state.      status: the first thing that went wrong.
    last_fills: None unless a fill can be newer than the market's prices.
    spread: None unless rebalances are spread over several bars.
    entries: None unless the policy has stops.
    ruined_at: the first bar after the account was worth nothing, int, -1 if it never was; None for plain orders, which
        go on.
    is_emptied: whether nothing is held because all that was held has left the market; None unless assets can leave.
        Such an account is not flat: it waits for its next rebalance.
    incidents: the set of `Incident` that have befallen the account; None where none can.
    first_bar: the first bar at which the account can be valued, and so may trade; None unless it is opened with
        holdings, which a market without opens cannot value at bar 0.
    is_unasked: whether the allocator is still to be asked for the first time, whatever the trigger says; None unless
        the account is opened that way.
    """

    holdings: Holdings
    target: Float[Array, " asset"]
    memory: Any
    status: LaneStatus
    last_fills: LastFills | None
    spread: SpreadRebalance | None = None
    entries: Entries | None = None
    is_emptied: Bool[Array, ""] | None = None
    incidents: Int[Array, ""] | None = None
    first_bar: Int[Array, ""] | None = None
    is_unasked: Bool[Array, ""] | None = None
    ruined_at: Int[Array, ""] | None = None

    @classmethod
    def start(cls, inputs: LaneInputs) -> "LaneState":
        """The lane before the first bar: a new account, no targets, the allocator's first state.

        inputs: of `js.lane_inputs`.
        """
        market, policy, costs = inputs.market, inputs.policy, inputs.costs
        num_assets, dtype = market.num_assets, market.dtype
        memory = jax.tree.map(jnp.asarray, initial_state(policy.allocator, num_assets))
        holdings = Holdings.opened(inputs.account, market)
        unknown = jnp.full(num_assets, jnp.nan, dtype)
        moves_prices = costs.update_value is not None and market.priced_at is not None
        last_fills = LastFills(unknown, jnp.zeros(num_assets, jnp.int32)) if moves_prices else None
        is_emptied = None if market.gone is None else jnp.asarray(False)
        ruined_at = None if isinstance(policy.allocator, GivenOrders) else jnp.int32(-1)
        incidents = None if is_emptied is None and ruined_at is None else jnp.int32(0)
        lane = cls(
            holdings,
            unknown,
            memory,
            LaneStatus.ok(),
            last_fills,
            is_emptied=is_emptied,
            incidents=incidents,
            ruined_at=ruined_at,
        )
        entries = None if policy.stops is None else Entries.none(num_assets, dtype)
        lane = replace(lane, spread=SpreadRebalance.blank(inputs, lane), entries=entries)
        return lane if inputs.account.units is None else lane._opened(inputs)

    def _opened(self, inputs: LaneInputs) -> "LaneState":
        """With what an account that holds something remembers before the first bar."""
        market, account, entries, first_bar = inputs.market, inputs.account, self.entries, None
        opening, is_held = OpeningBook.of(account, market), self.holdings.units != 0
        if not isinstance(inputs.policy.allocator, GivenOrders):
            first_bar = (is_held & jnp.isnan(market.val_price[0])).any().astype(jnp.int32)
        if entries is not None:
            entries = replace(entries, price=where(is_held, opening.cost, jnp.nan), value=opening.value)
        is_unasked = jnp.asarray(True) if isinstance(account.target, ByAllocator) else None
        target = opening.target
        return replace(self, target=target, entries=entries, first_bar=first_bar, is_unasked=is_unasked)

    @property
    def is_on_its_way(self) -> Bool[Array, ""]:
        """Whether parts of the last rebalance are still to be traded."""
        return jnp.asarray(False) if self.spread is None else self.spread.left > 0

    @property
    def is_ruined(self) -> Bool[Array, ""]:
        """Whether the account has been worth nothing after a close before this bar."""
        return jnp.asarray(False) if self.ruined_at is None else self.ruined_at >= 0

    def falls_at(self, bar: Step) -> Bool[Array, ""]:
        """Whether all that is held is closed at a bar, since the account was worth nothing after the bar before."""
        if self.ruined_at is None:
            return jnp.asarray(False)
        return (self.ruined_at == bar) & ~is_flat(self.holdings.units)

    @property
    def is_flat(self) -> Bool[Array, ""]:
        """Whether nothing is held, and not because all of it has left the market."""
        flat = is_flat(self.holdings.units)
        return flat if self.is_emptied is None else flat & ~self.is_emptied


def start_of(inputs: LaneInputs, axes: tuple[LaneAxis, ...]) -> LaneState:
    """All lanes before the first bar."""
    return over_lanes(LaneState.start, axes, (), 0)(inputs)


def observation_of(
    market: Market, lane: LaneState, step: Step, val_price: Float[Array, " asset"], key: Any
) -> Observation:
    """Value the account at the bar's valuation price, and gather what the policy may see.

    val_price: row `step` of the market's; whoever observes many bars at once has it at hand.     key: of the lane.
    """
    holdings = lane.holdings
    if lane.last_fills is not None:
        assert market.priced_at is not None
        val_price = lane.last_fills.over(val_price, at_bar_row(market.priced_at, step))
    value = holdings.value(val_price)
    tradable = ~jnp.isnan(val_price)
    is_weighable = tradable & (value != 0)
    weights = where(is_weighable, holdings.units * where(tradable, val_price, 0.0), 0.0)
    return Observation(
        step=step,
        weights=quotient(weights, where(value != 0, value, 1.0)),
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
        carried=None if market.carried is None else at_bar_row(market.carried, step),
        is_emptied=False if lane.is_emptied is None else lane.is_emptied,
    )


def at_bar_row(x: Array, step: Step) -> Array:
    """The row of one bar of [time, ...]."""
    return lax.dynamic_index_in_dim(x, step, keepdims=False)
