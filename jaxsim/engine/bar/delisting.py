"""Assets that leave the market: what is held of them is closed before the bar's policy sees anything (rules 12.5)."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float

from jaxsim.engine.bar.lane_state import LaneState, at_bar_row
from jaxsim.engine.base.arrays import Array, Step, where
from jaxsim.engine.base.enums import Direction, SizeType
from jaxsim.engine.base.numerics import UNROLL, any_lane, dot, ordered_sum, snap
from jaxsim.engine.trading.account import Holdings, is_flat
from jaxsim.engine.trading.costs import NEUTRAL, Costs
from jaxsim.engine.trading.market import Market
from jaxsim.engine.trading.order import Order, Pool
from jaxsim.engine.trading.rebalance import Fills, OrderLog
from jaxsim.engine.trading.status import Clip, Incident, LaneFault, OrderReason, OrderStatusInfo


class Closing(eqx.Module):
    """What has left the market at a bar.

    units: of each asset that was closed, 0 elsewhere.       price: at which it was, currency.
    before: the account before.
    """

    units: Float[Array, " asset"]
    price: Float[Array, " asset"]
    before: Holdings

    @property
    def happens(self) -> Bool[Array, " asset"]:
        return self.units != 0


def leaves_at(market: Market, bar: Step) -> Bool[Array, " asset"]:
    """Which assets leave the market at a bar. None leaves at the first one."""
    assert market.gone is not None
    before = at_bar_row(market.gone, jnp.maximum(bar - 1, 0))
    return jnp.asarray(at_bar_row(market.gone, bar) & ~before)


def leaving_bars(gone: Bool[Array, "*lanes time asset"]) -> Bool[Array, "*lanes time"]:
    """At which bars any asset leaves the market."""
    return jnp.any(gone & ~jnp.concatenate([gone[..., :1, :], gone[..., :-1, :]], axis=-2), axis=-1)


def close_what_leaves(
    market: Market, lane: LaneState, bar: Step, is_due: Bool[Array, ""] | bool = True
) -> tuple[LaneState, Closing | None]:
    """The lane after its assets that leave the market at a bar have been closed at their marks; and what was. A lane
    that has gone wrong keeps all it has.

    is_due: as in `trade_bar`. Where no lane that `vmap` runs beside it loses anything, nothing is computed.
    """
    if market.gone is None:
        return lane, None
    leaves = leaves_at(market, bar) & is_due & lane.status.is_ok
    none = jnp.zeros_like(lane.holdings.units)

    def act() -> tuple[LaneState, Closing]:
        closing = Closing(where(leaves, lane.holdings.units, 0.0), at_bar_row(market.mark, bar), lane.holdings)
        return _without(lane, leaves, closing), closing

    def keep() -> tuple[LaneState, Closing]:
        return lane, Closing(none, none, lane.holdings)

    # The arithmetic of few assets takes less time than a branch, which copies all that it hands out.
    return act() if none.shape[0] <= UNROLL else lax.cond(any_lane(jnp.any(leaves)), act, keep)


def _without(lane: LaneState, leaves: Bool[Array, " asset"], closing: Closing) -> LaneState:
    held = lane.holdings
    after = _paid_out(held, closing)
    target = where(closing.happens | (leaves & ~jnp.isnan(lane.target)), 0.0, lane.target)
    last_fills, spread, entries = lane.last_fills, lane.spread, lane.entries
    if last_fills is not None:
        last_fills = replace(last_fills, price=where(leaves, jnp.nan, last_fills.price))
    if spread is not None:
        size = where(leaves, 0.0, spread.request.size)
        spread = replace(spread, request=replace(spread.request, size=size))
    if entries is not None:
        entries = replace(entries, price=where(leaves, jnp.nan, entries.price))
    assert lane.is_emptied is not None and lane.incidents is not None
    is_closed = closing.happens.any()
    return replace(
        lane,
        holdings=after,
        target=target,
        last_fills=last_fills,
        spread=spread,
        entries=entries,
        is_emptied=where(is_closed, is_flat(after.units), lane.is_emptied),
        incidents=lane.incidents | where(is_closed, jnp.int32(Incident.DELISTED), jnp.int32(0)),
    )


def _paid_out(held: Holdings, closing: Closing) -> Holdings:
    """The account after a payout: cash grows by units * price, and debt of short positions is released, so that free
    cash grows by twice the debt besides."""
    happens = closing.happens
    released = 2 * ordered_sum(where(happens, held.debt, 0.0))
    return Holdings(
        where(happens, 0.0, held.units),
        snap(dot(held.cash, closing.units, closing.price)),
        where(happens, 0.0, held.debt),
        snap(dot(held.free_cash, closing.units, closing.price) + released),
    )


def fills_with(closing: Closing, fills: Fills, trades: Bool[Array, ""]) -> Fills:
    """The fills of a bar with the closed assets in their places. They stand before the others.

    trades: whether there was a rebalance as well; otherwise `fills` mean nothing.
    """
    happens, number = closing.happens, jnp.arange(closing.units.shape[0], dtype=fills.rank.dtype)

    def put(x: Array, of_closed: Array | float | int, left_alone: Array | float | int) -> Array:
        return where(happens, of_closed, where(trades, x, left_alone)).astype(x.dtype)

    after = _paid_out(closing.before, closing)
    return Fills(
        request=put(fills.request, -closing.units, jnp.nan),
        trade=put(fills.trade, -closing.units, 0.0),
        price=put(fills.price, closing.price, jnp.nan),
        fees=put(fills.fees, 0.0, 0.0),
        info=put(fills.info, OrderStatusInfo.NONE, OrderStatusInfo.SIZE_NAN),
        rank=put(fills.rank, -OrderReason.DELISTED, number),
        fault=None if fills.fault is None else put(fills.fault, LaneFault.NONE, LaneFault.NONE),
        clip=None if fills.clip is None else put(fills.clip, Clip.NONE, Clip.NONE),
        val_price=fills.val_price,
        log=None if fills.log is None else _log_with(closing, fills.log, after, trades),
    )


def _log_with(closing: Closing, log: OrderLog, after: Holdings, trades: Bool[Array, ""]) -> OrderLog:
    """The log of a bar with the orders that close assets: to no units, at the payout, without costs."""
    held, happens = closing.before, closing.happens

    def like(x: Array, y: Any) -> Array:
        return jnp.broadcast_to(jnp.asarray(y, x.dtype), x.shape)

    def pool(held: Holdings) -> Pool:
        return Pool(held.cash, held.free_cash, jnp.full_like(held.cash, jnp.nan))

    order, outcome = log.order, log.outcome
    costs = {n: None if x is None else like(x, NEUTRAL.get(n, 0.0)) for n, x in vars(order.costs).items()}
    close = Order(
        jnp.zeros_like(order.size),
        None if order.size_type is None else like(order.size_type, SizeType.TARGET_AMOUNT),
        None if order.direction is None else like(order.direction, Direction.BOTH),
        closing.price,
        held.units,
        held.debt,
        jnp.full_like(order.val_price, jnp.nan),
        Costs(**costs),
        order.draw,
    )
    closed = replace(outcome, units=after.units, debt=after.debt, val_price=jnp.full_like(order.val_price, jnp.nan))
    of_closing = OrderLog(pool(held), pool(after), close, closed)
    idle = replace(order, size=jnp.full_like(order.size, jnp.nan))
    left_alone = OrderLog(pool(after), pool(after), idle, closed)

    def put(x: Array, of_closed: Array, left_alone: Array) -> Array:
        return where(happens, of_closed, where(trades, x, left_alone))

    return jax.tree.map(put, log, of_closing, left_alone)
