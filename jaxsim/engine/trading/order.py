"""How one order fills: rules 3, for any size type, direction, cost and limit.

A purchase and a sale are both computed, and one of them is taken: under `vmap`, neighbouring lanes trade in different
directions. An order that does not fill has a reason (OrderStatusInfo); one that cannot exist has a fault (LaneFault).
The side that is not taken is computed from finite numbers, so that no NaN or infinity reaches a gradient.
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.base.enums import Direction, SizeType
from jaxsim.engine.base.numerics import add, eq, le, passes, product, quotient, rounded_to, snap, whole_lots
from jaxsim.engine.trading.commission import Commission
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.status import REJECTIONS, Clip, LaneFault
from jaxsim.engine.trading.status import OrderStatusInfo as Info

Scalar = Float[Array, ""]
Flag = Bool[Array, ""]
Code = Int[Array, ""]


class Order(eqx.Module):
    """One order and the position of its asset; with an axis of orders, a sequence of them.

    size: in units of `size_type`; NaN: no order.       price: of execution; NaN: none.
    units, debt, val_price: of the asset (`Holdings`).
    costs: of this order; None where off.       draw: uniform [0, 1), decides on a random rejection.
    scale: the part of a purchase that is left where the cash is short, in [0, 1] (rules 3.11); None: all of it.
    """

    size: Float[Array, "*orders"]
    size_type: Int[Array, "*orders"] | None
    direction: Int[Array, "*orders"] | None
    price: Float[Array, "*orders"]
    units: Float[Array, "*orders"]
    debt: Float[Array, "*orders"]
    val_price: Float[Array, "*orders"]
    costs: Costs
    draw: Float[Array, "*orders"] | None
    scale: Float[Array, "*orders"] | None = None


class Pool(eqx.Module):
    """The balances that all orders of a group share: cash, free cash, and the value for their sizes; currency."""

    cash: Scalar
    free_cash: Scalar
    value: Scalar


class Outcome(eqx.Module):
    """The result of an order.

    request: units of the order, > 0 to buy; infinite: as many as possible; NaN where the size is unknown.
    trade: units filled, > 0 bought.    price: of the fill, with slippage.      fees: currency.
    units, debt, val_price: of the asset, after it.
    info: OrderStatusInfo, NONE where filled.       fault: LaneFault.       clip: Clip, where filled.
    """

    request: Float[Array, "*orders"]
    trade: Float[Array, "*orders"]
    price: Float[Array, "*orders"]
    fees: Float[Array, "*orders"]
    units: Float[Array, "*orders"]
    debt: Float[Array, "*orders"]
    val_price: Float[Array, "*orders"]
    info: Int[Array, "*orders"]
    fault: Int[Array, "*orders"]
    clip: Int[Array, "*orders"]


class OrderTerms(eqx.Module):
    """The costs of one order, with neutral numbers where they are off."""

    fees: Scalar
    fixed: Scalar
    slippage: Scalar
    min_size: Scalar
    max_size: Scalar
    granularity: Scalar
    lock_cash: Flag
    allow_partial: Flag
    commission: Commission
    min_value: Scalar | None

    @classmethod
    def of(cls, costs: Costs, dtype) -> "OrderTerms":
        def number(x, neutral: float) -> Scalar:
            return jnp.asarray(neutral, dtype) if x is None else x

        def flag(x, neutral: bool) -> Flag:
            return jnp.asarray(neutral) if x is None else x

        fixed = number(costs.fixed_fees, 0.0)
        return cls(
            costs.fees,
            fixed,
            number(costs.slippage, 0.0),
            number(costs.min_size, 0.0),
            number(costs.max_size, jnp.inf),
            number(costs.size_granularity, jnp.nan),
            flag(costs.lock_cash, False),
            flag(costs.allow_partial, True),
            Commission.of(costs, fixed),
            costs.min_value,
        )

    def granular(self, size: Scalar, is_too_much: Callable[[Scalar], Flag]) -> Scalar:
        """A whole number of lots (rules 1.5). A size that is a hair below is rounded up, unless that is too much."""
        is_on = ~jnp.isnan(self.granularity)
        near, down = whole_lots(size, where(is_on, self.granularity, 1.0))
        rounded = where((near > size) & is_too_much(near), down, near)
        return where(is_on, rounded_to(size, rounded), size)


class Wish(eqx.Module):
    """The size of an order in units (rules 3.3).

    units: of the order, > 0 to buy; 0 where unbounded.        is_buy: whether it buys.
    is_unbounded: as much as possible.      is_share, share: whether only a fraction of that, and which.
    is_endless: the fraction is infinite; `share` is then 1.
    """

    units: Scalar
    is_buy: Flag
    is_unbounded: Flag
    is_share: Flag
    share: Scalar
    is_endless: Flag
    info: Code
    fault: Code

    @property
    def size(self) -> Scalar:
        return jnp.abs(self.units)


class _Attempt(eqx.Module):
    """One side of an order: units (> 0), price, fees, and the flow of cash, currency."""

    size: Scalar
    price: Scalar
    fees: Scalar
    flow: Scalar
    info: Code
    fault: Code
    clip: Code


def first_of(cases: Sequence[tuple[Array, int | Array]], otherwise: int) -> Array:
    """The code of the first case that holds."""
    return jnp.select([x for x, _ in cases], [jnp.asarray(code, jnp.int32) for _, code in cases], jnp.int32(otherwise))


def fill(pool: Pool, order: Order) -> tuple[Pool, Outcome]:
    """One order against one account."""
    terms = OrderTerms.of(order.costs, order.size.dtype)
    cash, free_cash = snap(pool.cash), snap(pool.free_cash)
    units, debt = snap(order.units), snap(order.debt)
    missing = first_of([(jnp.isnan(order.size), Info.SIZE_NAN), (jnp.isnan(order.price), Info.PRICE_NAN)], Info.NONE)
    faults = [
        (~(jnp.isfinite(units) & (debt >= 0) & jnp.isfinite(debt)), LaneFault.ORDER_ACCOUNT),
        (jnp.isnan(cash) | jnp.isnan(free_cash), LaneFault.ORDER_ACCOUNT),
        (~(jnp.isfinite(order.price) & (order.price > 0)), LaneFault.ORDER_PRICE),
        ((order.direction == Direction.LONG_ONLY) & (units < 0), LaneFault.ORDER_DIRECTION),
        ((order.direction == Direction.SHORT_ONLY) & (units > 0), LaneFault.ORDER_DIRECTION),
    ]
    fault = where(missing == Info.NONE, first_of(faults, LaneFault.NONE), LaneFault.NONE)
    is_sound = (missing == Info.NONE) & (fault == LaneFault.NONE)

    wish = resolve(order, units, snap(pool.value))
    price = where(is_sound, order.price, 1.0)
    buy = _buy(order, wish, terms, price, cash, free_cash, units, debt)
    sell = _sell(order, wish, terms, price, free_cash, units)
    one = _either(wish.is_buy, buy, sell)

    is_sized = ~jnp.isnan(order.size) & (wish.info == Info.NONE) & (wish.fault == LaneFault.NONE)
    is_posed = is_sound & is_sized
    fault = where(is_sound, where(is_posed, one.fault, wish.fault), fault)
    info = one.info
    if order.costs.reject_prob is not None:
        info = where(order.draw < order.costs.reject_prob, Info.RANDOM_EVENT, info)
    info = where(missing != Info.NONE, missing, where(wish.info != Info.NONE, wish.info, info))
    if order.costs.raise_reject is not None:
        is_rejected = jnp.isin(info, jnp.asarray(REJECTIONS)) & order.costs.raise_reject & (fault == LaneFault.NONE)
        fault = where(is_rejected, LaneFault.ORDER_REJECTED, fault)
    is_filled = (info == Info.NONE) & (fault == LaneFault.NONE)
    after = _settle(one, wish.is_buy, is_filled, cash, free_cash, units, debt)
    request = where(wish.is_unbounded, where(wish.is_buy, jnp.inf, -jnp.inf), wish.units)
    val_price, value = order.val_price, pool.value
    if order.costs.update_value is not None:  # rules 3.10
        moves = is_filled & order.costs.update_value
        moved = product(after.units, one.price) - product(order.units, val_price)
        value = where(moves, value + (after.cash - pool.cash) + moved, value)
        val_price = where(moves, one.price, val_price)
    outcome = Outcome(
        request=where(is_sized, request, jnp.nan),
        trade=where(is_filled, where(wish.is_buy, one.size, -one.size), 0.0),
        price=where(is_sound, one.price, jnp.nan),
        fees=where(is_filled, one.fees, 0.0),
        units=after.units,
        debt=after.debt,
        val_price=val_price,
        info=info.astype(jnp.int32),
        fault=fault.astype(jnp.int32),
        clip=where(is_filled, one.clip, Clip.NONE).astype(jnp.int32),
    )
    return Pool(after.cash, after.free_cash, value), outcome


def resolve(order: Order, units: Scalar, value: Scalar) -> Wish:
    """Rules 3.3: from a size of any type to units."""
    kind, is_both_or_short = order.size_type, order.direction != Direction.LONG_ONLY
    known_price = snap(order.val_price)
    size = where(order.direction == Direction.SHORT_ONLY, -order.size, order.size)
    is_infinite = jnp.isinf(size)
    finite = where(jnp.isfinite(size), size, 0.0)

    is_of_value = (kind == SizeType.TARGET_PERCENT) | (kind == SizeType.TARGET_VALUE) | (kind == SizeType.VALUE)
    price_is_known = jnp.isfinite(known_price) & (known_price > 0)
    val_price = where(is_of_value & price_is_known, known_price, 1.0)
    safe_value = where(jnp.isnan(value), 0.0, value)
    amount = where(kind == SizeType.TARGET_PERCENT, product(finite, safe_value), finite) / val_price
    is_target = (kind == SizeType.TARGET_PERCENT) | (kind == SizeType.TARGET_VALUE) | (kind == SizeType.TARGET_AMOUNT)
    amount = where(is_target, amount - units, amount)

    is_share = kind == SizeType.PERCENT
    sells_all = is_infinite & (size < 0) & is_both_or_short & ~is_share
    is_unbounded = is_share | is_infinite
    info = first_of(
        [
            ((kind == SizeType.TARGET_PERCENT) & jnp.isnan(value), Info.VALUE_NAN),
            ((kind == SizeType.TARGET_PERCENT) & (value <= 0), Info.VALUE_ZERO_NEG),
            (is_of_value & jnp.isnan(known_price), Info.VAL_PRICE_NAN),
        ],
        Info.NONE,
    )
    is_bad_price = is_of_value & ~price_is_known & (info == Info.NONE)
    return Wish(
        units=where(is_unbounded, 0.0, amount),
        is_buy=where(is_unbounded, size > 0, amount > 0),
        is_unbounded=is_unbounded,
        is_share=is_share | sells_all,
        share=where(is_share & ~is_infinite, jnp.abs(finite), 1.0),
        is_endless=is_share & is_infinite,
        info=info,
        fault=where(is_bad_price, LaneFault.ORDER_VAL_PRICE, LaneFault.NONE),
    )


def _cash_limit(
    order: Order,
    wish: Wish,
    terms: OrderTerms,
    price: Scalar,
    cash: Scalar,
    free_cash: Scalar,
    units: Scalar,
    debt: Scalar,
) -> tuple[Scalar, Flag]:
    """Rules 3.5a: what a buy may spend; and whether a division by zero makes it unknown."""
    limit, is_broken = cash, jnp.asarray(False)
    if order.costs.lock_cash is not None:
        is_short, short = units < 0, where(units < 0, -units, 1.0)
        unit_bill = product(price, 1 + terms.fees)
        released = free_cash + 2 * debt
        rest = add(released, -(product(product(short, price), 1 + terms.fees) + terms.fixed))
        denominator = unit_bill - quotient(2 * debt, short)
        is_broken = terms.lock_cash & is_short & (rest < 0) & (denominator == 0)
        covered = (free_cash - terms.fixed) / where(denominator == 0, 1.0, denominator)
        in_part = product(product(covered, price), 1 + terms.fees) + terms.fixed
        locked = where(rest > 0, released, where(rest < 0, in_part, cash))
        locked = jnp.minimum(where(is_short, locked, free_cash), cash)
        limit = where(terms.lock_cash, locked, limit)
    return where(wish.is_share, jnp.minimum(limit, wish.share * limit), limit), is_broken


def _buy(
    order: Order,
    wish: Wish,
    terms: OrderTerms,
    price: Scalar,
    cash: Scalar,
    free_cash: Scalar,
    units: Scalar,
    debt: Scalar,
) -> _Attempt:
    """Rules 3.5"""
    price = product(price, 1 + terms.slippage)
    limit, is_broken = _cash_limit(order, wish, terms, price, cash, free_cash, units, debt)
    is_short_only = order.direction == Direction.SHORT_ONLY
    cover = where(wish.is_unbounded, -units, jnp.minimum(-units, wish.units))
    size = where(is_short_only, cover, wish.units)
    has_no_end = wish.is_unbounded & ~is_short_only
    is_zero = ~has_no_end & (size == 0)
    is_over = has_no_end & jnp.isfinite(terms.max_size) | (size > terms.max_size)
    whole = where(is_over, terms.max_size, size)
    void, scaled = [], []
    if order.scale is not None:
        whole = product(whole, order.scale)
        void, scaled = [(order.scale == 0, Info.CANT_COVER_FEES)], [(order.scale < 1, Clip.CASH)]
    owed = where(whole <= -units, -units, jnp.inf)  # a purchase that does not turn a short position leaves it short

    def is_too_much(lots: Scalar) -> Flag:
        cost, fees = terms.commission.bill(lots, price)
        return passes(cost + fees, limit) | passes(lots, owed)

    size = terms.granular(whole, is_too_much)
    has_no_end = has_no_end & ~is_over

    cost, whole_fees = terms.commission.bill(size, price)
    fits = ~has_no_end & le(cost + whole_fees, limit)
    net = terms.commission.affordable(limit, price)
    part = terms.granular(quotient(net, price), is_too_much)
    part_cost, lot_fees = terms.commission.bill(part, price)
    is_granular = ~jnp.isnan(terms.granularity)
    part_fees = where(is_granular, lot_fees, limit - net)
    part_paid = where(is_granular, part_cost + part_fees, limit)
    bought = where(fits, size, part)

    info = first_of(
        [
            (~is_short_only & ((limit == 0) | (cash < 0)), Info.NO_CASH_LONG),
            (is_short_only & (units == 0), Info.NO_OPEN_POSITION),
            (is_zero, Info.SIZE_ZERO),
            *void,
            (is_over & ~terms.allow_partial, Info.MAX_SIZE_EXCEEDED),
            (~fits & (net <= 0), Info.CANT_COVER_FEES),
            (~has_no_end & eq(size, jnp.zeros_like(size)), Info.SIZE_ZERO),
            *_too_little(bought, price, wish, terms),
            (bought == 0, Info.SIZE_ZERO),  # a part that granularity rounds to zero
        ],
        Info.NONE,
    )
    return _Attempt(
        size=bought,
        price=price,
        fees=where(fits, whole_fees, part_fees),
        flow=-where(fits, cost + whole_fees, part_paid),
        info=info,
        # An infinite fraction of a limit below zero is infinite, except for a purchase that covers a short position.
        fault=first_of(
            [
                (is_broken, LaneFault.ORDER_DIVISION),
                (wish.is_endless & (limit < 0) & ~is_short_only, LaneFault.ORDER_INFINITE),
            ],
            LaneFault.NONE,
        ),
        clip=first_of(
            [
                (~fits & ~has_no_end, Clip.CASH),
                *scaled,
                (is_over, Clip.MAX_SIZE),
                (fits & (size < whole) & ~eq(size, whole), Clip.GRANULARITY),
                (is_short_only & ~wish.is_unbounded & (whole < wish.units), Clip.POSITION),
            ],
            Clip.NONE,
        ),
    )


def _sell(order: Order, wish: Wish, terms: OrderTerms, price: Scalar, free_cash: Scalar, units: Scalar) -> _Attempt:
    """Rules 3.6"""
    price = product(price, 1 - terms.slippage)
    is_long_only = order.direction == Direction.LONG_ONLY
    has_share = wish.is_share & (wish.share > 0)
    is_limited = ~is_long_only & (terms.lock_cash | has_share)
    long = jnp.maximum(units, 0.0)
    total = add(free_cash, product(product(long, price), 1 - terms.fees))
    most = add(long, quotient(add(total, -terms.fixed), product(price, 1 + terms.fees)))
    most = where(total <= 0, long, most)

    asked = wish.size  # 0 where unbounded
    from_long = where(wish.is_unbounded, units, jnp.minimum(units, asked))
    locked = where(
        wish.is_unbounded,
        where(wish.is_share, jnp.minimum(wish.share * most, most), most),
        jnp.minimum(asked, most),
    )
    size = where(is_long_only, from_long, where(is_limited, where(terms.lock_cash, locked, most), asked))
    takes_share = wish.is_share & ~(is_limited & terms.lock_cash)
    size = where(takes_share, product(size, wish.share), size)
    size = where(wish.is_share & (wish.share == 0), 0.0, size)
    is_endless = wish.is_endless & takes_share
    is_over = (size > terms.max_size) | (is_endless & (size > 0) & jnp.isfinite(terms.max_size))
    whole = where(is_over, terms.max_size, size)
    held = where(whole <= units, units, jnp.inf)  # a sale of what is held sells nothing short
    most_of_all = where(is_limited, jnp.maximum(most, whole), jnp.inf)
    size = terms.granular(whole, lambda lots: passes(lots, jnp.minimum(held, most_of_all)))

    amount, fees = terms.commission.bill(size, price)
    net = add(amount, -fees)
    info = first_of(
        [
            (is_limited & (total <= 0) & (units <= 0), Info.NO_CASH_SHORT),
            (is_limited & (total > 0) & (most <= 0), Info.CANT_COVER_FEES),
            (is_over & ~terms.allow_partial, Info.MAX_SIZE_EXCEEDED),
            (is_long_only & (units == 0), Info.NO_OPEN_POSITION),
            (eq(size, jnp.zeros_like(size)), Info.SIZE_ZERO),
            *_too_little(size, price, wish, terms),
            (net < 0, Info.CANT_COVER_FEES),
        ],
        Info.NONE,
    )
    is_stopped = (
        (info == Info.NO_CASH_SHORT) | (is_limited & (total > 0) & (most <= 0)) | (info == Info.NO_OPEN_POSITION)
    )
    fault = where(is_endless & ~is_over & ~is_stopped, LaneFault.ORDER_INFINITE, LaneFault.NONE)
    is_cut = ~wish.is_unbounded & (whole < asked)
    clip = first_of(
        [
            (is_over, Clip.MAX_SIZE),
            ((size < whole) & ~eq(size, whole), Clip.GRANULARITY),
            (is_cut, where(is_long_only, Clip.POSITION, Clip.CASH)),
        ],
        Clip.NONE,
    )
    return _Attempt(size, price, fees, net, info, fault, clip)


def _too_little(size: Scalar, price: Scalar, wish: Wish, terms: OrderTerms) -> list[tuple[Array, int]]:
    """Rules 3.5g: too small to trade, or in part where that is not allowed."""
    is_part = ~wish.is_unbounded & (size < wish.size) & ~eq(size, wish.size)
    worth = []
    if terms.min_value is not None:
        amount = product(size, price)
        worth = [((amount < terms.min_value) & ~eq(amount, terms.min_value), Info.MIN_VALUE_NOT_REACHED)]
    return [
        *worth,
        ((size < terms.min_size) & ~eq(size, terms.min_size), Info.MIN_SIZE_NOT_REACHED),
        (is_part & ~terms.allow_partial, Info.PARTIAL_FILL),
    ]


def _either(is_first: Flag, first: _Attempt, second: _Attempt) -> _Attempt:
    return _Attempt(
        *(
            where(is_first, getattr(first, name), getattr(second, name))
            for name in ("size", "price", "fees", "flow", "info", "fault", "clip")
        )
    )


class _After(eqx.Module):
    cash: Scalar
    free_cash: Scalar
    units: Scalar
    debt: Scalar


def _settle(
    one: _Attempt, is_buy: Flag, is_filled: Flag, cash: Scalar, free_cash: Scalar, units: Scalar, debt: Scalar
) -> _After:
    """Rules 3.5h and 3.6g: the account after a fill; a short position is owed what it was sold for, and pledges as
    much again."""
    trade = where(is_buy, one.size, -one.size)
    new_units = add(units, trade)
    borrowed, released = debt_moves(units, new_units, debt, one.size, one.price, is_buy)
    bought = add(free_cash + 2 * released, one.flow)
    sold = where(new_units < 0, add(free_cash, add(one.flow, -2 * borrowed)), free_cash + one.flow)
    new_debt = where(is_buy, add(debt, -released), debt + borrowed)
    new_cash = where(is_buy, add(cash, one.flow), cash + one.flow)
    return _After(
        where(is_filled, new_cash, cash),
        where(is_filled, where(is_buy, bought, sold), free_cash),
        where(is_filled, new_units, units),
        where(is_filled, new_debt, debt),
    )


def debt_moves(
    units: Float[Array, "*orders"],
    new_units: Float[Array, "*orders"],
    debt: Float[Array, "*orders"],
    size: Float[Array, "*orders"],
    price: Float[Array, "*orders"],
    is_buy: Bool[Array, "*orders"],
) -> tuple[Float[Array, "*orders"], Float[Array, "*orders"]]:
    """The debt that a fill adds by selling short, and the debt that it removes by buying back, currency, >= 0."""
    was_short, is_short = units < 0, new_units < 0
    short = where(was_short, -units, 1.0)
    covered = where(is_short, size, short)
    released = where(is_buy & was_short, product(covered, quotient(debt, short)), 0.0)
    sold = where(was_short, size, -new_units)
    borrowed = where(~is_buy & is_short, product(sold, price), 0.0)
    return borrowed, released
