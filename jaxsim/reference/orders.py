"""How one order fills: rules 1 to 3 (docs/rules.md) in plain Python floats.

Two faults of vectorbt are not reproduced: a Percent order of size 0, and a cash-limited buy whose granular size is 0.
They are ignored as SIZE_ZERO; vectorbt fills them with a size of NaN or 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, isinf, isnan, nan, ulp

from jaxsim.engine.base.enums import Direction, OrderSide, SizeType
from jaxsim.engine.trading.status import REJECTIONS, Clip, LaneFault, OrderStatus, OrderStatusInfo
from jaxsim.errors import OrderError, RejectedOrderError


@dataclass(frozen=True)
class AccountState:
    """The account before or after an order: one asset's position and the cash of its group.

    cash, free_cash, debt, value (of the group), val_price: currency.    position: units.
    """

    cash: float
    position: float
    debt: float
    free_cash: float
    val_price: float
    value: float

    def snapped(self) -> "AccountState":
        """Rules 3.1: all numbers snapped (rules 1.4)."""
        return AccountState(*(snap(x) for x in vars(self).values()))


@dataclass(frozen=True)
class OrderRequest:
    """An order with all its terms. `fees`, `slippage` and `reject_prob` are fractions, `fixed_fees` and `price` are in
    currency, other sizes in units. `scale` is the part of a purchase that is left (rules 3.11)."""

    size: float = nan
    price: float = inf
    size_type: SizeType = SizeType.AMOUNT
    direction: Direction = Direction.BOTH
    fees: float = 0.0
    fixed_fees: float = 0.0
    slippage: float = 0.0
    min_size: float = 0.0
    max_size: float = inf
    size_granularity: float = nan
    reject_prob: float = 0.0
    lock_cash: bool = False
    allow_partial: bool = True
    raise_reject: bool = False
    min_value: float = 0.0
    min_fee: float = 0.0
    max_fee: float = inf
    fee_per_unit: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class OrderResult:
    """The result of an order.

    size: units, > 0.    price: with slippage.    fees: currency. Unless it was filled, they are NaN and side is None.
    clip: the limit that cut the fill below the requested size.
    """

    size: float
    price: float
    fees: float
    side: OrderSide | None
    status: OrderStatus
    info: OrderStatusInfo
    clip: Clip = Clip.NONE


#: Distance from one to the next number.
EPS = ulp(1.0)


class NotFilled(Exception):
    """Raised inside the order function with the reason why nothing is filled."""

    def __init__(self, info: OrderStatusInfo):
        self.info = info


# --- Rules 1: tolerances


def eq(a: float, b: float) -> bool:
    """Rules 1.1: equal to 1e-9 relative or 1e-12 absolute; NaN and infinity equal nothing."""
    return isfinite(a) and isfinite(b) and abs(a - b) <= max(1e-9 * max(abs(a), abs(b)), 1e-12)


def lt(a: float, b: float) -> bool:
    """Rules 1.2: less by more than rounding."""
    return a < b and not eq(a, b)


def le(a: float, b: float) -> bool:
    """Rules 1.2: less, or equal up to rounding."""
    return a < b or eq(a, b)


def add(a: float, b: float) -> float:
    """Rules 1.3: the sum; exactly 0 if the two cancel up to rounding."""
    if (a > 0) - (a < 0) != (b > 0) - (b < 0):
        return 0.0 if eq(abs(a), abs(b)) else a + b
    return 0.0 if abs(a + b) <= 1e-12 else a + b


def snap(x: float) -> float:
    """Rules 1.4: exactly 0 for at most 1e-12 in size."""
    return 0.0 if abs(x) <= 1e-12 else x


def granular(size: float, granularity: float, is_too_much: Callable[[float], bool]) -> float:
    """Rules 1.5: a whole number of lots; the next one where a hair is missing and that many are not too much."""
    if isnan(granularity):
        return size
    lots = size / granularity
    if isfinite(lots) and abs(lots - round(lots)) <= max(1e-9, 4 * ulp(lots)):
        nearest = round(lots) * granularity
        if nearest <= size or not is_too_much(nearest):
            return nearest
    return size // granularity * granularity


def passes(x: float, limit: float) -> bool:
    """Rules 1.5: above a limit by more than rounding."""
    return x > limit + 4 * EPS * abs(limit)


# --- Rules 3: one order


def process_order(
    state: AccountState, order: OrderRequest, *, draw: float = nan, update_value: bool = False
) -> tuple[AccountState, OrderResult]:
    """Execute one order on one account; returns the account after it and the result of the order.

    draw: the uniform [0, 1) number that decides on rejection if `reject_prob` > 0; the caller draws it.
    update_value: whether a fill moves the valuation price and the value for later orders of the bar (rules 3.10).

    Raises OrderError for an invalid order or account, RejectedOrderError for a rejected order with `raise_reject`.
    """
    before = state.snapped()
    try:
        after, result = _fill(before, order, draw)
    except NotFilled as reason:
        status = OrderStatus.REJECTED if reason.info in REJECTIONS else OrderStatus.IGNORED
        if order.raise_reject and status == OrderStatus.REJECTED:  # rules 3.8
            raise RejectedOrderError(f"{LaneFault.ORDER_REJECTED.text}: {reason.info.name}") from None
        kept = replace(before, val_price=state.val_price, value=state.value)
        return kept, OrderResult(nan, nan, nan, None, status, reason.info)
    except ZeroDivisionError as error:
        raise OrderError(f"{LaneFault.ORDER_DIVISION.text}: {order} on {state}") from error
    val_price, value = state.val_price, state.value
    if update_value:  # rules 3.10
        holding = state.position * state.val_price if state.position != 0 else 0.0
        change = after.position * result.price - holding
        val_price, value = result.price, state.value + (after.cash - state.cash) + change
    return replace(after, val_price=val_price, value=value), result


def _fill(state: AccountState, order: OrderRequest, draw: float) -> tuple[AccountState, OrderResult]:
    """Rules 3.2 to 3.7, on a snapped account."""
    _check(state, order)
    size, percent = requested_size(state, order)
    try:
        filled = _buy(state, order, size, percent) if size > 0 else _sell(state, order, -size, percent)
    except NotFilled:
        if order.reject_prob > 0 and draw < order.reject_prob:
            raise NotFilled(OrderStatusInfo.RANDOM_EVENT) from None
        raise
    if order.reject_prob > 0 and draw < order.reject_prob:  # rules 3.7
        raise NotFilled(OrderStatusInfo.RANDOM_EVENT)
    return filled


def _check(state: AccountState, order: OrderRequest) -> None:
    """Rules 3.2: validity, tested in this order."""
    if isnan(order.size):
        raise NotFilled(OrderStatusInfo.SIZE_NAN)
    if isnan(order.price):
        raise NotFilled(OrderStatusInfo.PRICE_NAN)
    demands = {
        "cash must not be NaN": not isnan(state.cash),
        "position must be finite": isfinite(state.position),
        "debt must be finite and >= 0": isfinite(state.debt) and state.debt >= 0,
        "free_cash must not be NaN": not isnan(state.free_cash),
        "price must be finite and > 0": isfinite(order.price) and order.price > 0,
        "size_type is unknown": order.size_type in tuple(SizeType),
        "direction is unknown": order.direction in tuple(Direction),
        "direction LONG_ONLY with a short position": not (
            order.direction == Direction.LONG_ONLY and state.position < 0
        ),
        "direction SHORT_ONLY with a long position": not (
            order.direction == Direction.SHORT_ONLY and state.position > 0
        ),
        "fees must be finite": isfinite(order.fees),
        "fixed_fees must be finite": isfinite(order.fixed_fees),
        "slippage must be finite and >= 0": isfinite(order.slippage) and order.slippage >= 0,
        "min_size must be finite and >= 0": isfinite(order.min_size) and order.min_size >= 0,
        "max_size must be > 0": order.max_size > 0,
        "size_granularity must be finite and > 0, or NaN": isnan(order.size_granularity)
        or (isfinite(order.size_granularity) and order.size_granularity > 0),
        "reject_prob must be in [0, 1]": 0 <= order.reject_prob <= 1,
    }
    for demand, is_met in demands.items():
        if not is_met:
            raise OrderError(f"{demand}: {order} on {state}")


def requested_size(state: AccountState, order: OrderRequest) -> tuple[float, float]:
    """Rules 3.3: the signed size in units, and NaN; for Percent an infinite size, and the fraction of it."""
    size, size_type = order.size, order.size_type
    if order.direction == Direction.SHORT_ONLY:
        size = -size
    if size_type == SizeType.TARGET_PERCENT:
        if isnan(state.value):
            raise NotFilled(OrderStatusInfo.VALUE_NAN)
        if state.value <= 0:
            raise NotFilled(OrderStatusInfo.VALUE_ZERO_NEG)
        size, size_type = size * state.value, SizeType.TARGET_VALUE
    if size_type in (SizeType.VALUE, SizeType.TARGET_VALUE):
        if isinf(state.val_price) or state.val_price <= 0:
            raise OrderError(f"val_price must be finite and > 0: {order} on {state}")
        if isnan(state.val_price):
            raise NotFilled(OrderStatusInfo.VAL_PRICE_NAN)
        size /= state.val_price
        size_type = SizeType.AMOUNT if size_type == SizeType.VALUE else SizeType.TARGET_AMOUNT
    if size_type == SizeType.TARGET_AMOUNT:
        size, size_type = size - state.position, SizeType.AMOUNT
    if size_type == SizeType.AMOUNT and order.direction != Direction.LONG_ONLY and size == -inf:
        size, size_type = -1.0, SizeType.PERCENT
    if size_type == SizeType.PERCENT:
        return (inf if size > 0 else -inf), abs(size)
    return size, nan


def _cash_limit(state: AccountState, order: OrderRequest, price: float, percent: float) -> float:
    """Rules 3.5a: the cash that a buy may spend."""
    limit = state.cash
    if order.lock_cash:
        position, debt, free_cash = state.position, state.debt, state.free_cash
        if position >= 0:
            limit = free_cash
        else:
            to_cover = abs(position) * price * (1 + order.fees) + order.fixed_fees
            rest = add(free_cash + 2 * debt, -to_cover)
            if rest > 0:
                limit = free_cash + 2 * debt
            elif rest < 0:
                size = (free_cash - order.fixed_fees) / (price * (1 + order.fees) - 2 * debt / abs(position))
                limit = size * price * (1 + order.fees) + order.fixed_fees
        limit = min(limit, state.cash)
    return limit if isnan(percent) else min(limit, percent * limit)


def _buy(state: AccountState, order: OrderRequest, wanted: float, percent: float) -> tuple[AccountState, OrderResult]:
    """Rules 3.5: a purchase."""
    price = order.price * (1 + order.slippage)
    limit = _cash_limit(state, order, price, percent)
    size = wanted
    if order.direction == Direction.SHORT_ONLY:
        if state.position == 0:
            raise NotFilled(OrderStatusInfo.NO_OPEN_POSITION)
        size = min(-state.position, size)
    else:
        if limit == 0 or state.cash < 0:
            raise NotFilled(OrderStatusInfo.NO_CASH_LONG)
        if isinf(wanted) and isinf(limit):
            raise OrderError(f"a buy of infinite size with infinite cash: {order} on {state}")
    if size == 0:
        raise NotFilled(OrderStatusInfo.SIZE_ZERO)
    if order.scale == 0:
        raise NotFilled(OrderStatusInfo.CANT_COVER_FEES)
    capped = _cap(size, order)
    clip = Clip.POSITION if size < wanted < inf else Clip.NONE
    clip = Clip.MAX_SIZE if capped < size else clip
    if order.scale < 1:  # rules 3.11
        capped, clip = capped * order.scale, Clip.CASH

    def is_too_much(lots: float) -> bool:
        bill = lots * price + fees_of(lots, price, order)
        turns = capped > -state.position  # a purchase of less than what is owed leaves no long position
        return passes(bill, limit) or (not turns and passes(lots, -state.position))

    size = granular(capped, order.size_granularity, is_too_much)

    cost = size * price
    fees = fees_of(size, price, order)
    total = cost + fees
    if le(total, limit):
        fill, paid = size, total
        clip = Clip.GRANULARITY if lt(fill, capped) and clip not in (Clip.MAX_SIZE, Clip.CASH) else clip
    else:  # rules 3.5f: as much as the cash can pay
        net = affordable(limit, price, order)
        if net <= 0:
            raise NotFilled(OrderStatusInfo.CANT_COVER_FEES)
        fill = granular(net / price, order.size_granularity, is_too_much)
        if isnan(order.size_granularity):
            fees, paid = limit - net, limit
        else:
            fees = fees_of(fill, price, order)
            paid = fill * price + fees
        clip = Clip.CASH if isfinite(capped) else clip
    if eq(size, 0):
        raise NotFilled(OrderStatusInfo.SIZE_ZERO)
    _check_fill(fill, price, wanted, order)
    if fill == 0:  # vectorbt fills it with a size of 0
        raise NotFilled(OrderStatusInfo.SIZE_ZERO)

    after = bought(state, fill, paid)
    return after, OrderResult(fill, price, fees, OrderSide.BUY, OrderStatus.FILLED, OrderStatusInfo.NONE, clip)


def _sell(state: AccountState, order: OrderRequest, wanted: float, percent: float) -> tuple[AccountState, OrderResult]:
    """Rules 3.6: a sale."""
    price = order.price * (1 - order.slippage)
    position = state.position
    most = None
    is_share = isnan(percent)  # whether the size includes the factor `percent` already
    if order.direction == Direction.LONG_ONLY:
        size = min(position, wanted)
    elif order.lock_cash or percent > 0:  # NaN: no Percent order
        most = _most_to_sell(state, order, price)
        if order.lock_cash:
            size = min(wanted if isnan(percent) else percent * most, most)
            is_share = True
        else:
            size = most
    else:
        size = wanted
    if percent == 0:
        size = 0.0  # vectorbt computes 0 * inf, a size of NaN
    elif not is_share:
        size *= percent
    capped = _cap(size, order)
    clip = Clip.MAX_SIZE if capped < size else Clip.NONE
    size = capped
    if order.direction == Direction.LONG_ONLY and position == 0:
        raise NotFilled(OrderStatusInfo.NO_OPEN_POSITION)
    if isinf(size):  # vectorbt accepts an infinite Percent of a long position; the account is then not finite
        raise OrderError(f"a sale of infinite size: {order} on {state}")
    bounds = [position] if capped <= position else []
    bounds += [max(most, capped)] if most is not None else []
    size = granular(size, order.size_granularity, lambda lots: any(passes(lots, bound) for bound in bounds))
    if clip == Clip.NONE and lt(size, capped):
        clip = Clip.GRANULARITY
    elif clip == Clip.NONE and capped < wanted < inf:
        clip = Clip.POSITION if order.direction == Direction.LONG_ONLY else Clip.CASH
    if eq(size, 0):
        raise NotFilled(OrderStatusInfo.SIZE_ZERO)
    _check_fill(size, price, wanted, order)

    acquired = size * price
    fees = fees_of(size, price, order)
    net = add(acquired, -fees)
    if net < 0:
        raise NotFilled(OrderStatusInfo.CANT_COVER_FEES)
    after = sold(state, size, net, price)
    return after, OrderResult(size, price, fees, OrderSide.SELL, OrderStatus.FILLED, OrderStatusInfo.NONE, clip)


def fees_of(size: float, price: float, order: OrderRequest) -> float:
    """Rules 3.12: the commission, between its least and its most, and the fixed fee."""
    amount = size * price
    fee = amount * order.fees + size * order.fee_per_unit if order.fee_per_unit else amount * order.fees
    if order.min_fee > 0:
        fee = max(fee, order.min_fee)
    return min(fee, amount * order.max_fee) + order.fixed_fees if isfinite(order.max_fee) else fee + order.fixed_fees


def affordable(limit: float, price: float, order: OrderRequest) -> float:
    """Rules 3.12: the money that is left for units where a purchase spends all of a limit."""
    rest = add(limit, -order.fixed_fees)
    money = rest / (1 + order.fees + order.fee_per_unit / price)
    if order.min_fee > 0:
        money = min(money, rest - order.min_fee)
    return max(money, rest / (1 + order.max_fee)) if isfinite(order.max_fee) else money


def bought(state: AccountState, size: float, paid: float) -> AccountState:
    """Rules 3.5h: the account after a purchase of `size` units for `paid`, fees included."""
    position, debt = state.position, state.debt
    new_position = add(position, size)
    released = 0.0
    if position < 0:
        covered = size if new_position < 0 else abs(position)
        released = covered * (debt / abs(position))
        debt = add(debt, -released)
    cash, free_cash = add(state.cash, -paid), add(state.free_cash + 2 * released, -paid)
    return replace(state, cash=cash, position=new_position, debt=debt, free_cash=free_cash)


def sold(state: AccountState, size: float, net: float, price: float) -> AccountState:
    """Rules 3.6g: the account after a sale of `size` units at `price`, for `net` after fees."""
    position, debt = state.position, state.debt
    new_position = add(position, -size)
    free_cash = state.free_cash + net
    if new_position < 0:
        shorted = (size if position < 0 else abs(new_position)) * price
        debt += shorted
        free_cash = add(state.free_cash, add(net, -2 * shorted))
    return replace(state, cash=state.cash + net, position=new_position, debt=debt, free_cash=free_cash)


def _most_to_sell(state: AccountState, order: OrderRequest, price: float) -> float:
    """Rules 3.6a: the largest possible sale: the long position, plus the short sale that the free cash then allows."""
    long = max(state.position, 0.0)
    total = add(state.free_cash, long * price * (1 - order.fees))
    if total <= 0:
        if state.position <= 0:
            raise NotFilled(OrderStatusInfo.NO_CASH_SHORT)
        return long
    most = add(long, add(total, -order.fixed_fees) / (price * (1 + order.fees)))
    if most <= 0:
        raise NotFilled(OrderStatusInfo.CANT_COVER_FEES)
    return most


def _cap(size: float, order: OrderRequest) -> float:
    """Rules 3.5d: `max_size`."""
    if size > order.max_size:
        if not order.allow_partial:
            raise NotFilled(OrderStatusInfo.MAX_SIZE_EXCEEDED)
        return order.max_size
    return size


def _check_fill(fill: float, price: float, wanted: float, order: OrderRequest) -> None:
    """Rules 3.5g: refuse a fill that is too small, or partial where that is not allowed."""
    if order.min_value > 0 and lt(fill * price, order.min_value):
        raise NotFilled(OrderStatusInfo.MIN_VALUE_NOT_REACHED)
    if lt(fill, order.min_size):
        raise NotFilled(OrderStatusInfo.MIN_SIZE_NOT_REACHED)
    if isfinite(wanted) and lt(fill, wanted) and not order.allow_partial:
        raise NotFilled(OrderStatusInfo.PARTIAL_FILL)


# --- Rules 5.2: the order in which a group's orders are executed


def approx_order_value(state: AccountState, size: float, size_type: SizeType, direction: Direction) -> float:
    """The approximate value of an order, in currency; > 0 buys. Orders are executed in ascending order of it."""
    holding = state.position * state.val_price
    if direction == Direction.SHORT_ONLY:
        size = -size
    if size_type == SizeType.AMOUNT:
        return size * state.val_price
    if size_type == SizeType.VALUE:
        return size
    if size_type == SizeType.PERCENT:
        if size >= 0:
            return size * state.cash
        if direction == Direction.LONG_ONLY:
            return size * holding
        return size * (2 * max(holding, 0.0) + max(state.free_cash, 0.0))
    if size_type == SizeType.TARGET_AMOUNT:
        return size * state.val_price - holding
    if size_type == SizeType.TARGET_VALUE:
        return size - holding
    return size * state.value - holding


def call_sequence(order_values: Sequence[float]) -> list[int]:
    """Asset numbers in the order of execution: ascending and stable; NaN last, from the last asset to the first."""
    known = [n for n, value in enumerate(order_values) if not isnan(value)]
    unknown = [n for n, value in enumerate(order_values) if isnan(value)]
    return sorted(known, key=lambda n: order_values[n]) + unknown[::-1]
