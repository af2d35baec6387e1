"""Purchases that are cut alike where the cash is short: rules 3.11, one order after the other."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, isnan, nan

from jaxsim.engine.base.enums import Direction
from jaxsim.errors import OrderError
from jaxsim.reference.orders import (
    AccountState,
    NotFilled,
    OrderRequest,
    le,
    process_order,
    requested_size,
    snap,
)


def cut_alike(
    accounts: Sequence[AccountState],
    orders: Sequence[OrderRequest],
    sequence: list[int],
    closing: Sequence[bool],
    worths: Sequence[float] | None,
) -> tuple[list[OrderRequest], list[int]]:
    """The orders by asset, their purchases scaled; and the order of execution, with the sales first.

    accounts: before the rebalance, by asset.       closing: which assets a stop closes; these orders are not scaled.
    worths: the order values that made the sequence; None: something else did.
    """
    asked = [_asked(account, order) for account, order in zip(accounts, orders, strict=True)]
    bought = {
        n: size
        for n, (account, order) in enumerate(zip(accounts, orders, strict=True))
        if not closing[n] and (size := _purchase(account, order, asked[n])) > 0
    }
    if worths is not None:  # sales without a value stand at the end
        hidden = [n for n in sequence if isnan(worths[n]) and asked[n] <= 0]
        sales = [n for n in sequence if worths[n] < 0]
        sequence = sales + hidden + [n for n in sequence if n not in sales and n not in hidden]
    else:
        sequence = [n for n in sequence if n not in bought] + [n for n in sequence if n in bought]
    try:
        cash, free_cash = _after_others(accounts, orders, sequence, bought)
    except OrderError:  # it will be raised again where it is counted
        return list(orders), sequence
    part = _part(cash, free_cash, accounts, orders, bought)
    return [replace(order, scale=part if n in bought else 1.0) for n, order in enumerate(orders)], sequence


def _asked(account: AccountState, order: OrderRequest) -> float:
    """The units of an order, > 0 to buy; NaN for one that cannot be posed."""
    if isnan(order.size) or not isfinite(order.price) or order.price <= 0:
        return nan
    try:
        return requested_size(account.snapped(), order)[0]
    except (NotFilled, OrderError):
        return nan


def _purchase(account: AccountState, order: OrderRequest, asked: float) -> float:
    """The units that a purchase asks for; at most 0, or NaN, for another order."""
    if not asked > 0:
        return nan
    owed = -snap(account.position) if order.direction == Direction.SHORT_ONLY else asked
    return min(owed, asked, order.max_size)


def _after_others(
    accounts: Sequence[AccountState], orders: Sequence[OrderRequest], sequence: list[int], bought: dict[int, float]
) -> tuple[float, float]:
    """Cash and free cash after all orders but the purchases."""
    cash, free_cash = accounts[0].cash, accounts[0].free_cash
    for n in sequence:
        if n not in bought:
            after, _ = process_order(replace(accounts[n], cash=cash, free_cash=free_cash), orders[n])
            cash, free_cash = after.cash, after.free_cash
    return snap(cash), snap(free_cash)


def _part(
    cash: float,
    free_cash: float,
    accounts: Sequence[AccountState],
    orders: Sequence[OrderRequest],
    bought: dict[int, float],
) -> float:
    """The part that is left of every purchase."""
    bill = fixed = pledge = 0.0
    for n, size in bought.items():
        account, order = accounts[n].snapped(), orders[n]
        cost = size * (order.price * (1 + order.slippage))
        own = cost + cost * order.fees
        short = max(-account.position, 0.0)
        covered = size if size < short else short
        released = covered * (account.debt / short) if short else 0.0
        bill, fixed, pledge = bill + own, fixed + order.fixed_fees, pledge + (own - 2 * released)
    part = _fraction(cash, fixed, bill)
    is_locked = any(orders[n].lock_cash for n in bought)
    return min(part, _fraction(free_cash, fixed, pledge)) if is_locked else part


def _fraction(power: float, fixed: float, need: float) -> float:
    """min(1, max(0, power - fixed) / need); 1 where nothing is needed."""
    return 1.0 if need <= 0 or le(need + fixed, power) else max(power - fixed, 0.0) / need
