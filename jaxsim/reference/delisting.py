"""Assets that leave the market, for one lane, one asset at a time."""

from dataclasses import replace
from math import isnan, nan
from typing import Any

from jaxsim.engine.base.enums import Direction, OrderSide, SizeType
from jaxsim.engine.trading.status import Incident, LaneFault, OrderReason, OrderStatus, OrderStatusInfo
from jaxsim.reference.orders import AccountState, OrderRequest, OrderResult, snap
from jaxsim.reference.records import LoggedOrder, Rebalance


def close_what_leaves(lane: Any, bar: int) -> dict[int, LoggedOrder]:
    """Close what is held of the assets that leave the market at this bar, at their marks (rules 12.5);
    returns the orders that do so, by asset."""
    closed: dict[int, LoggedOrder] = {}
    if lane.gone is None or bar == 0 or lane.fault[0] != LaneFault.NONE:
        return closed
    leaving = [n for n in range(lane.num_assets) if lane.gone[bar][n] and not lane.gone[bar - 1][n]]
    cash, free_cash, released = lane.cash, lane.free_cash, 0.0
    for n in leaving:
        if lane.units[n] != 0:
            payout = lane.units[n] * lane.mark[bar][n]
            cash, free_cash, released = cash + payout, free_cash + payout, released + lane.debt[n]
    cash, free_cash = snap(cash), snap(free_cash + 2 * released)
    for n in leaving:
        units = lane.units[n]
        if units != 0:
            before = AccountState(lane.cash, units, lane.debt[n], lane.free_cash, nan, nan)
            after = AccountState(cash, 0.0, 0.0, free_cash, nan, nan)
            order = OrderRequest(0.0, lane.mark[bar][n], SizeType.TARGET_AMOUNT)
            side = OrderSide.SELL if units > 0 else OrderSide.BUY
            result = OrderResult(abs(units), order.price, 0.0, side, OrderStatus.FILLED, OrderStatusInfo.NONE)
            closed[n] = LoggedOrder(before, order, after, result, -OrderReason.DELISTED, -units)
        if units != 0 or not isnan(lane.target[n]):
            lane.target = [0.0 if k == n else x for k, x in enumerate(lane.target)]
        lane.units[n], lane.debt[n] = 0.0, 0.0
        lane.last_fill[n] = (nan, 0)
        if lane.plan is not None:
            lane.plan = replace(lane.plan, end=[0.0 if k == n else x for k, x in enumerate(lane.plan.end)])
        if lane.positions is not None:
            lane.positions.price[n] = nan
    if closed:
        lane.cash, lane.free_cash = cash, free_cash
        lane.is_emptied = all(x == 0 for x in lane.units)
        lane.incidents |= Incident.DELISTED
    return closed


def closing_row(lane: Any, bar: int, value: float) -> Rebalance:
    """The record of a bar at which assets were closed, and nothing else was traded."""
    none = OrderResult(nan, nan, nan, None, OrderStatus.IGNORED, OrderStatusInfo.SIZE_NAN)
    log = []
    for n in range(lane.num_assets):
        account, order = lane.account_of(n, value), OrderRequest(nan, nan)
        log.append(lane.closed.get(n, LoggedOrder(account, order, account, none, n)))
    return Rebalance(
        bars=bar,
        value=value,
        excess=lane.excess(bar, value),
        target=list(lane.target),
        size_type=[int(SizeType.TARGET_PERCENT)] * lane.num_assets,
        direction=[int(Direction.BOTH)] * lane.num_assets,
        sequence=[nan] * lane.num_assets,
        is_decision=False,
        units=list(lane.units),
        cash=lane.cash,
        free_cash=lane.free_cash,
        aux=lane.aux,
        log=log,
    )
