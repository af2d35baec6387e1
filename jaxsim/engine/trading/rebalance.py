"""How a whole rebalance fills: the orders of a group, one after the other, out of one cash balance.

There are two ways. `trade` chooses one when a program is compiled, by the kinds of orders and costs that are possible:

- `trade_to_weights` for target weights under proportional costs, which only the cash can limit;
- `trade_in_general` for everything else, order by order through `fill`.
"""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.base.arrays import Amount, Array, where
from jaxsim.engine.base.enums import Direction, SizeType
from jaxsim.engine.base.numerics import ABS_TOL, add, coarse, in_sequence, le, product, quotient, snap
from jaxsim.engine.trading.account import Holdings
from jaxsim.engine.trading.call_sequence import CallOrder, call_key, order_value
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.cut import Purchases, purchases_of, with_unknown_sales
from jaxsim.engine.trading.order import Order, Outcome, Pool, debt_moves, fill
from jaxsim.engine.trading.status import OrderStatusInfo as Info


class Request(eqx.Module):
    """The orders of a group at one bar.

    size: in units of `size_type`, per asset; NaN leaves the asset alone.
    size_type: SizeType of each, None for target weights.       direction: Direction of each, None for Both.
    call_seq: CallSeq, None for by order value.     sequence: place of each asset in the order of execution, before
        `call_seq`; None, or -1 everywhere, where the allocator has not chosen it.
    has_ties: whether order values may be equal up to rounding, as where a destination moves several assets by the same
        weight; such ties are broken by column.
    closes: the assets that a stop closes, counted in units, so that the value of the account does not matter; None: no
        stop can.
    cuts_alike: whether purchases that the cash cannot pay for are cut alike (rules 3.11), and not the last one.
    """

    size: Float[Array, " asset"]
    size_type: Int[Array, " asset"] | None = None
    direction: Int[Array, " asset"] | None = None
    call_seq: Int[Array, ""] | None = None
    sequence: Int[Array, " asset"] | None = None
    has_ties: bool = eqx.field(static=True, default=False)
    closes: Bool[Array, " asset"] | None = None
    cuts_alike: bool = eqx.field(static=True, default=False)

    @property
    def is_plain(self) -> bool:
        """Whether these are target weights, in both directions, traded by order value."""
        return all(x is None for x in (self.size_type, self.direction, self.call_seq, self.sequence))


class BarPrices(eqx.Module):
    """The prices of a bar, for the sizes and the fills of its orders.

    value: of the account before the bar, currency.
    val_price, price: for valuation and for execution, currency per unit; NaN where unknown.
    """

    value: Amount
    val_price: Float[Array, " asset"]
    price: Float[Array, " asset"]


class OrderLog(eqx.Module):
    """Each order of a rebalance, per asset, and the account around it (rules 6.8).

    before, after: the shared pool.      order, outcome: with the position of the asset, before and after.
    """

    before: Pool
    after: Pool
    order: Order
    outcome: Outcome


class Fills(eqx.Module):
    """The results of the orders of one rebalance, one per asset.

    request: units of the order, > 0 to buy; infinite: as many as possible; NaN where the size is unknown.
    trade: units filled, > 0 bought, < 0 sold, 0 not filled.
    price: price of the fill, with slippage.       fees: currency paid.
    info: OrderStatusInfo, NONE where filled.
    rank: place in the order of execution; < 0 for orders that the policy has not sent: minus their OrderReason. They
        come first.
    fault: LaneFault of each order, if orders can be at fault.
    clip: Clip of each filled order; None: it can only be cash.
    val_price: after the rebalance, if fills change it.
    log: the orders with the account around them, if the run keeps a log.
    """

    request: Float[Array, " asset"]
    trade: Float[Array, " asset"]
    price: Float[Array, " asset"]
    fees: Float[Array, " asset"]
    info: Int[Array, " asset"]
    rank: Int[Array, " asset"]
    fault: Int[Array, " asset"] | None = None
    clip: Int[Array, " asset"] | None = None
    val_price: Float[Array, " asset"] | None = None
    log: OrderLog | None = None


def trade(
    holdings: Holdings, request: Request, quote: BarPrices, costs: Costs, draw: Any, keep_log: bool
) -> tuple[Holdings, Fills]:
    """Trade a request: the holdings afterwards, and the fills.

    costs: of this bar, per asset.      draw: uniform [0, 1) per asset, where orders may be rejected at random.
    """
    if request.is_plain and costs.are_proportional and not keep_log:
        return trade_to_weights(holdings, request, quote, costs)
    return trade_in_general(holdings, request, quote, costs, draw, keep_log)


# --- Any order


def trade_in_general(
    holdings: Holdings, request: Request, quote: BarPrices, costs: Costs, draw: Any, keep_log: bool = False
) -> tuple[Holdings, Fills]:
    """Order by order (rules 3 and 5.2)."""
    size_type = jnp.int32(SizeType.TARGET_PERCENT) if request.size_type is None else request.size_type
    size_types = request.size_type
    if request.closes is not None:
        size_type = size_types = where(request.closes, SizeType.TARGET_AMOUNT, size_type).astype(jnp.int32)
    direction = jnp.int32(Direction.BOTH) if request.direction is None else request.direction
    worth = order_value(
        request.size, size_type, direction, holdings.units, quote.val_price, holdings.cash, holdings.free_cash,
        jnp.asarray(quote.value),
    )  # fmt: skip
    worth = coarse(worth, jnp.asarray(quote.value)) if request.has_ties else worth
    by_asset = Order(
        request.size,
        size_types,
        request.direction,
        quote.price,
        holdings.units,
        holdings.debt,
        quote.val_price,
        costs,
        draw,
    )
    pool = Pool(holdings.cash, holdings.free_cash, jnp.asarray(quote.value, request.size.dtype))
    key, places = call_key(request.call_seq, worth), request.sequence
    purchases = None
    if request.cuts_alike:
        shape = request.size.shape
        kinds = jnp.broadcast_to(size_type, shape), jnp.broadcast_to(direction, shape)
        typed = replace(by_asset, size_type=kinds[0], direction=kinds[1])
        purchases = purchases_of(typed, pool.value, request.closes)
        key = purchases.after_sales(request.call_seq, key)
    if places is not None:
        chosen = places if purchases is None else purchases.after_others(places)
        key = where(places.min() < 0, key, chosen.astype(request.size.dtype))
    sequence = CallOrder(key)

    def one(before: Pool, order: Order) -> tuple[Pool, tuple]:
        if size_types is None:  # one constant, rather than an array to be sorted
            order = replace(order, size_type=size_type)
        if request.direction is None:
            order = replace(order, direction=direction)
        after, outcome = fill(before, order)
        return after, (outcome, before if keep_log else None, after if keep_log else None)

    if purchases is not None:
        others = replace(by_asset, size=where(purchases.are, jnp.nan, by_asset.size))
        sold, _ = in_sequence(one, pool, jax.tree.map(sequence.sort, others))
        by_asset = replace(by_asset, scale=purchases.scale(sold.cash, sold.free_cash))
    pool, results = in_sequence(one, pool, jax.tree.map(sequence.sort, by_asset))
    outcome, before_each, after_each = jax.tree.map(sequence.unsort, results)
    after = Holdings(outcome.units, snap(pool.cash), outcome.debt, snap(pool.free_cash))
    fills = Fills(
        request=outcome.request,
        trade=outcome.trade,
        price=outcome.price,
        fees=outcome.fees,
        info=outcome.info,
        rank=sequence.rank,
        fault=outcome.fault,
        clip=outcome.clip,
        val_price=outcome.val_price if costs.update_value is not None else None,
        log=OrderLog(before_each, after_each, by_asset, outcome) if keep_log else None,
    )
    return after, fills


# --- Target weights under proportional costs


class _Weighting(eqx.Module):
    """An order towards a target weight, ready to be executed, or a sequence of them. `scale` as in `Order`."""

    request: Float[Array, "*orders"]
    units: Float[Array, "*orders"]
    price: Float[Array, "*orders"]
    fees: Float[Array, "*orders"]
    info: Int[Array, "*orders"]
    scale: Float[Array, "*orders"] | None = None


def trade_to_weights(holdings: Holdings, request: Request, quote: BarPrices, costs: Costs) -> tuple[Holdings, Fills]:
    """Trade towards target weights: sized at the valuation price, filled at the execution price, sells before buys.
    Sizes reserve nothing for fees, so that buys may be cut to the cash that is left: the last ones, or all alike."""
    weights, closes, value = request.size, request.closes, quote.value
    can_size, can_fill = ~jnp.isnan(quote.val_price), ~jnp.isnan(quote.price)
    is_asked = ~jnp.isnan(weights)
    # Numbers in place of unknown values, so that no NaN reaches a gradient.
    safe_val_price, safe_weights = where(can_size, quote.val_price, 1.0), where(is_asked, weights, 0.0)
    safe_value = where(jnp.isnan(value), 0.0, value)
    asked = quotient(safe_weights * safe_value, safe_val_price) - holdings.units
    # The order of execution has no derivative. The weight of an asset without an order makes its value NaN.
    worth = lax.stop_gradient(product(weights, value) - product(holdings.units, safe_val_price))
    info = where(
        jnp.isnan(weights),
        Info.SIZE_NAN,
        where(
            ~can_fill,
            Info.PRICE_NAN,
            where(
                jnp.isnan(value),
                Info.VALUE_NAN,
                where(
                    snap(value) <= 0,
                    Info.VALUE_ZERO_NEG,
                    where(can_size, Info.NONE, Info.VAL_PRICE_NAN),
                ),
            ),
        ),
    ).astype(jnp.int32)

    asked = where(is_asked & can_size & (snap(value) > 0), asked, jnp.nan)
    if closes is not None:
        asked = where(closes, -holdings.units, asked)
        info = where(closes & can_fill, Info.NONE, info).astype(jnp.int32)
    price = where(can_fill, quote.price, 1.0)
    if costs.slippage is not None:
        price = product(price, where(asked > 0, 1 + costs.slippage, 1 - costs.slippage))
    worth = coarse(worth, safe_value) if request.has_ties else worth
    key = where(can_size & ~jnp.isnan(value), worth, jnp.nan)
    if request.cuts_alike and closes is not None:  # a stop's sale without a value comes before the purchases as well
        key = with_unknown_sales(key, closes & can_fill & (asked <= 0))
    sequence = CallOrder(key)
    possible = info == Info.NONE
    orders = _Weighting(where(possible, asked, 0.0), holdings.units, price, costs.fees, info)
    if request.cuts_alike:
        orders = replace(orders, scale=_scale(orders, closes, sequence, holdings.cash))
    # Only the cash goes from order to order; all other results are computed for all orders together.
    cash, before = in_sequence(
        lambda cash, order: (_execute(cash, order)[0], cash), holdings.cash, jax.tree.map(sequence.sort, orders)
    )
    _, (units, traded, paid, info) = jax.vmap(_execute)(sequence.unsort(before), orders)
    cash = snap(cash)
    debt = _debt_after(holdings, units, traded, price)
    after = Holdings(units, cash, debt, cash - 2 * debt.sum())
    return after, Fills(asked, traded, where(can_fill, price, jnp.nan), paid, info, sequence.rank)


def _scale(
    orders: _Weighting, closes: Bool[Array, " asset"] | None, sequence: CallOrder, cash: Float[Array, ""]
) -> Float[Array, " asset"]:
    """The part of each order that is left: of a purchase what the cash pays for when all else has been traded. Without
    fixed fees and locked cash, what `purchases_of` and `Purchases.scale` say."""
    is_posed, is_buy = orders.info == Info.NONE, orders.request > 0
    are = is_posed & is_buy if closes is None else is_posed & is_buy & ~closes
    amount = product(orders.request, orders.price)
    purchases = Purchases(are, is_posed & ~is_buy, amount + product(amount, orders.fees))
    others = replace(orders, info=where(are, Info.SIZE_NAN, orders.info).astype(orders.info.dtype))
    cash, _ = in_sequence(
        lambda cash, order: (_execute(cash, order)[0], None), cash, jax.tree.map(sequence.sort, others)
    )
    return purchases.scale(cash, cash)


def _execute(cash: Float[Array, ""], order: _Weighting) -> tuple[Float[Array, ""], tuple]:
    """One order with proportional fees against the cash there is (rules 3.5 and 3.6).

    Returns the cash after it and (units after, units traded, fees paid, OrderStatusInfo).
    """
    cash, units = snap(cash), snap(order.units)
    is_buy = order.request > 0
    size = jnp.abs(order.request)
    size = size if order.scale is None else product(size, order.scale)
    amount = product(size, order.price)

    bill = amount + product(amount, order.fees)
    affordable = quotient(cash, 1 + order.fees)
    fits = le(bill, cash)
    bought = where(fits, size, quotient(affordable, order.price))
    paid = where(fits, bill, cash)
    buy_fees = where(fits, product(amount, order.fees), cash - affordable)

    sell_fees = product(amount, order.fees)
    proceeds = add(amount, -sell_fees)

    obstacle = where(
        is_buy & (cash == 0),
        Info.NO_CASH_LONG,
        where(
            size <= ABS_TOL,
            Info.SIZE_ZERO,
            where(~is_buy & (proceeds < 0), Info.CANT_COVER_FEES, Info.NONE),
        ),
    ).astype(order.info.dtype)
    info = where(order.info == Info.NONE, obstacle, order.info)
    filled = info == Info.NONE

    trade = where(filled, where(is_buy, bought, -size), 0.0)
    fees = where(filled, where(is_buy, buy_fees, sell_fees), 0.0)
    cash_after = where(filled, where(is_buy, add(cash, -paid), cash + proceeds), cash)
    units_after = where(filled, add(units, trade), units)
    return cash_after, (units_after, trade, fees, info)


def _debt_after(holdings: Holdings, units: Array, traded: Array, price: Array) -> Array:
    """The debt of short positions after all orders. It limits no order here, so it is computed at the end."""
    borrowed, released = debt_moves(snap(holdings.units), units, holdings.debt, jnp.abs(traded), price, traded > 0)
    moves = where(traded < 0, borrowed, 0.0)
    return where(traded > 0, add(holdings.debt, -released), holdings.debt + moves)
