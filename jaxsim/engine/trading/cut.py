"""Which purchases are cut where the cash is short: the last in the order of execution, or all alike (rules 3.11).

Purchases that are cut alike share the cash that is there once everything has been sold. Who comes first then does not
matter, and a weight that passes another one moves no fill by a jump.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Bool, Float, Int

from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.base.enums import CallSeq, Direction, SizeType
from jaxsim.engine.base.fields import shown
from jaxsim.engine.base.numerics import le, ordered_sum, product, quotient, snap
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.order import Order, OrderTerms, debt_moves, resolve
from jaxsim.engine.trading.status import LaneFault
from jaxsim.engine.trading.status import OrderStatusInfo as Info

LAST, PRO_RATA = "last", "pro_rata"


def checked_cut(value: Any) -> str | None:
    """Raises TypeError or ValueError naming the argument for what is no cut."""
    if value is None or (isinstance(value, str) and value in (LAST, PRO_RATA)):
        return value
    kind = ValueError if isinstance(value, str) else TypeError
    raise kind(f'cut: expected "{LAST}" or "{PRO_RATA}", one for all lanes, got {shown(value)}'[:200])


def refusal(costs: Costs, size_type: Any = None, size: Any = None) -> str | None:
    """Why purchases cannot be cut alike, as a sentence that begins with `cut`; None where they can.

    costs, size_type: as in `Costs` and `Policy`.       size: of plain orders, if there are any.
    """
    reasons = {
        "allow_partial=False fills an order whole or not at all": _has_other(costs.allow_partial, True),
        "update_value sizes an order by the fills before it": _has_other(costs.update_value, False),
        "reject_prob leaves open which purchases there are": _has_other(costs.reject_prob, 0.0),
        "min_fee, max_fee and fee_per_unit are not proportional to what is traded": _has_other(costs.min_fee, 0.0)
        or _has_other(costs.max_fee, float("inf"))
        or _has_other(costs.fee_per_unit, 0.0),
        "a size in percent is a share of the cash already": _has(size_type, lambda x: x == SizeType.PERCENT),
        "an infinite size takes all of the cash already": _has(size, np.isinf),
    }
    reason = next((text for text, holds in reasons.items() if holds), None)
    return None if reason is None else f'cut: "{PRO_RATA}" scales purchases of known sizes; {reason}'


def _has_other(value: Any, neutral: float | bool) -> bool:
    return _has(value, lambda x: x != neutral)


def _has(value: Any, what: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether `what` holds anywhere; also where a value inside of a program is not known."""
    return value is not None and (isinstance(value, Tracer) or bool(np.any(what(np.asarray(value)))))


class Purchases(eqx.Module):
    """The purchases of a rebalance that are cut alike, as they are asked for, per asset. Covers of stops are not.

    are: which orders are such purchases.       sales: which orders sell.
    bill: currency, with proportional fees, without fixed ones.     fixed: fees, currency; None: off.
    pledge: what each takes of the free cash, currency, without fixed fees; None where nothing is locked.
    is_locked: whether free cash limits any of them.
    """

    are: Bool[Array, " asset"]
    sales: Bool[Array, " asset"]
    bill: Float[Array, " asset"]
    fixed: Float[Array, " asset"] | None = None
    pledge: Float[Array, " asset"] | None = None
    is_locked: Bool[Array, ""] | None = None

    def scale(self, cash: Float[Array, ""], free_cash: Float[Array, ""]) -> Float[Array, " asset"]:
        """The part of each order that is left, in [0, 1].

        cash, free_cash: of the account after all other orders.
        """
        fixed = None if self.fixed is None else ordered_sum(where(self.are, self.fixed, 0.0))
        part = _part(cash, fixed, ordered_sum(where(self.are, self.bill, 0.0)))
        if self.pledge is not None:
            of_free_cash = _part(free_cash, fixed, ordered_sum(where(self.are, self.pledge, 0.0)))
            part = jnp.minimum(part, where(self.is_locked, of_free_cash, 1.0))
        return where(self.are, part, 1.0)

    def after_sales(self, call_seq: Int[Array, ""] | None, key: Float[Array, " asset"]) -> Float[Array, " asset"]:
        """The key of the order of execution, with all sales before these purchases. By value they are before them, but
        where the value of a sale is unknown.

        call_seq: CallSeq; None for by order value.     key: as `call_key` has it.
        """
        by_value = with_unknown_sales(key, self.sales)
        if call_seq is None:
            return by_value
        return where(call_seq == CallSeq.AUTO, by_value, self.after_others(key))

    def after_others(self, place: Float[Array, " asset"]) -> Float[Array, " asset"]:
        """The key of an order of execution that is given by places, with all other orders before these purchases."""
        return where(self.are, place, place - place.shape[0])


def with_unknown_sales(key: Float[Array, " asset"], sales: Bool[Array, " asset"]) -> Float[Array, " asset"]:
    """The key of an order of execution by value, with sales of unknown value after the other sales and before the
    purchases. Among themselves they keep their sequence, from the last column on."""
    just_below_zero = -jnp.finfo(key.dtype).tiny * (1 + jnp.arange(key.shape[0], dtype=key.dtype))
    return where(sales & jnp.isnan(key), just_below_zero, key)


def _part(power: Float[Array, ""], fixed: Float[Array, ""] | None, need: Float[Array, ""]) -> Float[Array, ""]:
    """min(1, max(0, power - fixed) / need); 1 where nothing is needed."""
    power = snap(power)
    left, whole = (power, need) if fixed is None else (power - fixed, need + fixed)
    return where((need <= 0) | le(whole, power), 1.0, quotient(jnp.maximum(left, 0.0), need))


def purchases_of(orders: Order, value: Float[Array, ""], closes: Bool[Array, " asset"] | None) -> Purchases:
    """The purchases among the orders of a rebalance, one order for each asset.

    orders: with a size type and a direction each.      value: of the account, for sizes, currency.
    closes: what stops close.
    """
    is_buy, sales, bill, pledge = jax.vmap(lambda order: _asked(order, value))(orders)
    are, locks = is_buy if closes is None else is_buy & ~closes, orders.costs.lock_cash
    if locks is None:
        return Purchases(are, sales, bill, orders.costs.fixed_fees)
    return Purchases(are, sales, bill, orders.costs.fixed_fees, pledge, (are & locks).any())


def _asked(order: Order, value: Float[Array, ""]) -> tuple[Array, Array, Array, Array]:
    """Whether an order is a purchase, and whether it sells; its bill and its pledge, as in `Purchases`."""
    assert order.size_type is not None and order.direction is not None
    terms, units = OrderTerms.of(order.costs, order.size.dtype), snap(order.units)
    wish = resolve(order, units, snap(value))
    is_known = ~jnp.isnan(order.size) & (wish.info == Info.NONE) & (wish.fault == LaneFault.NONE)
    is_posed = is_known & jnp.isfinite(order.price) & (order.price > 0)
    owed = where(order.direction == Direction.SHORT_ONLY, -units, jnp.inf)
    size = jnp.minimum(jnp.minimum(owed, wish.units), terms.max_size)
    is_buy = is_posed & wish.is_buy & (size > 0)
    size, price = where(is_buy, size, 0.0), product(where(is_buy, order.price, 1.0), 1 + terms.slippage)
    bill = product(size, price)
    bill = bill + product(bill, terms.fees)
    _, released = debt_moves(units, units + size, snap(order.debt), size, price, is_buy)
    return is_buy, is_posed & ~wish.is_buy, bill, bill - 2 * released
