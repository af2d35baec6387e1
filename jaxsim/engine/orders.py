"""How an order fills, and how a whole rebalance fills (SEMANTICS sections 3 and 5.2)."""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.account import Holdings
from jaxsim.engine.arrays import Amount, Array
from jaxsim.engine.numerics import ABS_TOL, add, in_sequence, le, product, quotient, snap
from jaxsim.engine.status import OrderStatusInfo as Info

#: Up to this many assets the call order is found by comparing all pairs, which vectorises over lanes; sorting does not.
PAIRWISE_ASSETS = 16


class Fills(eqx.Module):
    """What became of the orders of one rebalance, one per asset.

    request: units asked for, > 0 to buy; NaN where the size could not be worked out.
    trade: units filled, > 0 bought, < 0 sold, 0 not filled.
    price: price of the fill.       fees: currency paid.
    info: OrderStatusInfo, NONE where filled.
    rank: place in the order of execution.
    """

    request: Float[Array, " asset"]
    trade: Float[Array, " asset"]
    price: Float[Array, " asset"]
    fees: Float[Array, " asset"]
    info: Int[Array, " asset"]
    rank: Int[Array, " asset"]


class CallOrder(eqx.Module):
    """The order of execution: ascending order value, ties by column, NaN last, so that sells come before buys."""

    rank: Int[Array, " asset"]  # of each asset
    _place: Bool[Array, "rank asset"] | None  # one-hot, when there are few assets
    _sequence: Int[Array, " rank"] | None  # the asset at each rank, when there are many

    def __init__(self, order_value: Float[Array, " asset"]):
        count = order_value.shape[0]
        if count > PAIRWISE_ASSETS:
            self._sequence, self._place = jnp.argsort(order_value, stable=True), None
            self.rank = jnp.argsort(self._sequence, stable=True).astype(jnp.int32)
            return
        # The barrier makes both sides of the comparison one number: computed twice, they might round differently.
        key = lax.optimization_barrier(jnp.where(jnp.isnan(order_value), jnp.inf, order_value))
        earlier = jnp.arange(count)[None, :] < jnp.arange(count)[:, None]
        before = (key[None, :] < key[:, None]) | ((key[None, :] == key[:, None]) & earlier)
        self.rank = jnp.sum(before, axis=1, dtype=jnp.int32)
        self._place, self._sequence = self.rank[None, :] == jnp.arange(count)[:, None], None

    def sort(self, x: Array) -> Array:
        """[asset] -> [rank]"""
        if self._place is None:
            return x[self._sequence]
        return _select(self._place, x[None, :])

    def unsort(self, x: Array) -> Array:
        """[rank] -> [asset]"""
        if self._place is None:
            return x[self.rank]
        return _select(self._place.T, x[None, :])


def _select(one_hot: Array, x: Array) -> Array:
    if x.dtype == bool:
        return jnp.any(one_hot & x, axis=1)
    return jnp.sum(jnp.where(one_hot, x, jnp.zeros_like(x)), axis=1, dtype=x.dtype)


class Order(eqx.Module):
    """An order ready to be executed, or a sequence of them."""

    request: Float[Array, "*orders"]
    units: Float[Array, "*orders"]
    price: Float[Array, "*orders"]
    fees: Float[Array, "*orders"]
    info: Int[Array, "*orders"]


def execute(cash: Float[Array, ""], order: Order) -> tuple[Float[Array, ""], tuple]:
    """One long-only order with proportional fees against the cash there is (SEMANTICS 3.5 and 3.6).

    Returns the cash after it and (units after, units traded, fees paid, OrderStatusInfo).
    """
    cash, units = snap(cash), snap(order.units)
    is_buy = order.request > 0
    size = jnp.abs(order.request)
    amount = product(size, order.price)

    bill = amount + product(amount, order.fees)
    affordable = quotient(cash, 1 + order.fees)
    fits = le(bill, cash)
    bought = jnp.where(fits, size, quotient(affordable, order.price))
    paid = jnp.where(fits, bill, cash)
    buy_fees = jnp.where(fits, product(amount, order.fees), cash - affordable)

    sell_fees = product(amount, order.fees)
    proceeds = add(amount, -sell_fees)

    obstacle = jnp.where(
        is_buy & (cash == 0),
        Info.NO_CASH_LONG,
        jnp.where(
            size <= ABS_TOL,
            Info.SIZE_ZERO,
            jnp.where(~is_buy & (proceeds < 0), Info.CANT_COVER_FEES, Info.NONE),
        ),
    ).astype(order.info.dtype)
    info = jnp.where(order.info == Info.NONE, obstacle, order.info)
    filled = info == Info.NONE

    trade = jnp.where(filled, jnp.where(is_buy, bought, -size), 0.0)
    fees = jnp.where(filled, jnp.where(is_buy, buy_fees, sell_fees), 0.0)
    cash_after = jnp.where(filled, jnp.where(is_buy, add(cash, -paid), cash + proceeds), cash)
    units_after = jnp.where(filled, add(units, trade), units)
    return cash_after, (units_after, trade, fees, info)


def trade_to(
    holdings: Holdings,
    weights: Float[Array, " asset"],
    value: Amount,
    val_price: Float[Array, " asset"],
    price: Float[Array, " asset"],
    fees: Float[Array, " asset"],
) -> tuple[Holdings, Fills]:
    """Trade towards target weights: sized at the valuation price, filled at the execution price, sells before buys;
    since sizes reserve nothing for fees, the last buys may be cut to the cash that is left.

    weights: >= 0; NaN leaves the asset alone.    value: of the account before the bar, currency.
    val_price, price: currency per unit, NaN where unknown.    fees: fraction of the traded value.
    """
    can_size, can_fill = ~jnp.isnan(val_price), ~jnp.isnan(price)
    safe_val_price = jnp.where(can_size, val_price, 1.0)
    request = weights * value / safe_val_price - holdings.units
    order_value = product(weights, value) - product(holdings.units, safe_val_price)
    info = jnp.where(
        jnp.isnan(weights),
        Info.SIZE_NAN,
        jnp.where(
            ~can_fill,
            Info.PRICE_NAN,
            jnp.where(
                jnp.isnan(value),
                Info.VALUE_NAN,
                jnp.where(
                    snap(value) <= 0,
                    Info.VALUE_ZERO_NEG,
                    jnp.where(can_size, Info.NONE, Info.VAL_PRICE_NAN),
                ),
            ),
        ),
    ).astype(jnp.int32)

    request = jnp.where(can_size, request, jnp.nan)
    sequence = CallOrder(jnp.where(can_size, order_value, jnp.nan))
    possible = info == Info.NONE
    orders = Order(
        sequence.sort(jnp.where(possible, request, 0.0)),
        sequence.sort(holdings.units),
        sequence.sort(jnp.where(can_fill, price, 1.0)),
        sequence.sort(fees),
        sequence.sort(info),
    )
    cash, (units, trade, paid, info) = in_sequence(execute, holdings.cash, orders)
    after = Holdings(sequence.unsort(units), snap(cash))
    fills = Fills(request, sequence.unsort(trade), price, sequence.unsort(paid), sequence.unsort(info), sequence.rank)
    return after, fills
