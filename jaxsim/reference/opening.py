"""An account that holds something before the first bar, for one lane, one asset at a time (rules 4.2)."""

from math import isnan, nan
from typing import Any

from jaxsim.engine.policy.given import GivenOrders
from jaxsim.engine.trading.account import Account, ByAllocator


def open_account(lane: Any, account: Account) -> None:
    """Put what is held into the account: short positions owe what they were sold at, and the weights that a trigger
    compares with are those of the opening."""
    assert account.units is not None
    first = [lane.mark[0][n] if isnan(price) else price for n, price in enumerate(lane.val_price[0])]
    lane.units = [float(x) for x in account.units]
    costs = [nan] * lane.num_assets if account.average_cost is None else [float(x) for x in account.average_cost]
    costs = [first[n] if isnan(cost) else cost for n, cost in enumerate(costs)]
    owed = 0.0
    for n, units in enumerate(lane.units):
        if units < 0:
            lane.debt[n] = -units * costs[n]
            owed += lane.debt[n]
    lane.free_cash = lane.cash - 2 * owed
    value, is_held = lane.worth(first), [units != 0 for units in lane.units]
    if account.target is None or isinstance(account.target, ByAllocator):
        if any(is_held):
            divisor = value if value != 0 else 1.0
            lane.target = [u * first[n] / divisor if u != 0 else 0.0 for n, u in enumerate(lane.units)]
    else:
        lane.target = [float(x) for x in account.target]
    lane.is_unasked = isinstance(account.target, ByAllocator)
    if lane.positions is not None:
        lane.positions.price = [costs[n] if is_held[n] else nan for n in range(lane.num_assets)]
        lane.positions.value = value
    cannot_value = any(held and isnan(lane.val_price[0][n]) for n, held in enumerate(is_held))
    if cannot_value and not isinstance(lane.policy.allocator, GivenOrders):
        lane.min_history = max(lane.min_history, 1.0)
