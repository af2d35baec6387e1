"""Logs: the account before and after every order, and all that the order asked for (rules 6.8)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsim.engine.base.enums import Direction, OrderSide, SizeType
from jaxsim.engine.trading.costs import NEUTRAL
from jaxsim.engine.trading.rebalance import OrderLog
from jaxsim.engine.trading.status import REJECTIONS, OrderStatus, OrderStatusInfo

_ACCOUNT = ("cash", "position", "debt", "free_cash", "val_price", "value")
_TERMS = ("fees", "fixed_fees", "slippage", "min_size", "max_size", "size_granularity", "reject_prob")
_FLAGS = ("lock_cash", "allow_partial", "raise_reject")

#: What a ledger keeps of each order, [event, asset]: the account before it, the order, the account after it.
LOG_FIELDS = (
    *_ACCOUNT,
    *("req_size", "req_price", "req_size_type", "req_direction"),
    *(f"req_{name}" for name in (*_TERMS, *_FLAGS)),
    *(f"new_{name}" for name in _ACCOUNT),
)


def _dtype(name: str) -> type:
    if name in ("req_size_type", "req_direction", "res_side", "res_status", "res_status_info", "order_id"):
        return np.int64
    return np.bool_ if name.removeprefix("req_") in (*_FLAGS, "log") else np.float64


_RESULT = ("res_size", "res_price", "res_fees", "res_side", "res_status", "res_status_info", "order_id")
_REQUEST_END = LOG_FIELDS.index("new_cash")
#: Rules 6.8; `col` is the number of the (lane, asset) column, `group` that of the lane.
LOG_DTYPE = np.dtype(
    [(name, np.int64) for name in ("id", "group", "col", "idx")]
    + [(name, _dtype(name)) for name in (*LOG_FIELDS[:_REQUEST_END], "req_log", *LOG_FIELDS[_REQUEST_END:], *_RESULT)]
)


def log_of_orders(log: OrderLog) -> dict[str, np.ndarray]:
    """The fields of a compiled run's log, [event, asset]."""
    order, outcome, shape = log.order, log.outcome, log.order.size.shape

    def filled(x: Any, otherwise: Any) -> np.ndarray:
        return np.full(shape, otherwise) if x is None else np.broadcast_to(x, shape)

    columns = {
        "cash": log.before.cash,
        "position": order.units,
        "debt": order.debt,
        "free_cash": log.before.free_cash,
        "val_price": order.val_price,
        "value": log.before.value,
        "req_size": order.size,
        "req_price": order.price,
        "req_size_type": filled(order.size_type, int(SizeType.TARGET_PERCENT)),
        "req_direction": filled(order.direction, int(Direction.BOTH)),
        "req_fees": order.costs.fees,
        **{f"req_{name}": filled(getattr(order.costs, name), NEUTRAL[name]) for name in (*_TERMS[1:], *_FLAGS)},
        "new_cash": log.after.cash,
        "new_position": outcome.units,
        "new_debt": outcome.debt,
        "new_free_cash": log.after.free_cash,
        "new_val_price": outcome.val_price,
        "new_value": log.after.value,
    }
    return {name: np.asarray(columns[name], _dtype(name)) for name in LOG_FIELDS}


def log_of_runs(runs: Sequence[Any], num_assets: int) -> dict[str, np.ndarray]:
    """The fields of the reference engine's logs, [event, asset]."""
    logged = [order for run in runs for event in run.log for order in event]

    def values(name: str) -> list:
        if name.startswith("req_"):
            return [getattr(x.order, name.removeprefix("req_")) for x in logged]
        if name.startswith("new_"):
            return [getattr(x.after, name.removeprefix("new_")) for x in logged]
        return [getattr(x.before, name) for x in logged]

    return {name: np.array(values(name), _dtype(name)).reshape(-1, num_assets) for name in LOG_FIELDS}


def log_records(ledgers: Sequence[Any], first_column: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One record for every order of every rebalance, filled or not, by lane, bar and order of execution.

    first_column: number of the first (lane, asset) column of each lane, [lane].
    Returns the records, the lane of each and the price-frame column of each.
    """
    parts, lanes, columns = [], [], []
    for ledger in ledgers:
        sequence = np.argsort(ledger.rank, axis=1, kind="stable")
        event = np.repeat(np.arange(len(sequence)), sequence.shape[1])
        asset = sequence.ravel()
        at = ledger.lane_of_event[event]
        part = np.zeros(len(event), LOG_DTYPE)
        for name in LOG_FIELDS:
            part[name] = ledger.log[name][event, asset]
        info, trade = ledger.info[event, asset], ledger.trade[event, asset]
        is_filled = info == OrderStatusInfo.NONE
        part["group"], part["col"] = ledger.lanes[at], first_column[ledger.lanes[at]] + asset
        part["idx"], part["req_log"] = ledger.bar[event], True
        part["res_size"] = np.where(is_filled, np.abs(trade), np.nan)
        part["res_price"] = np.where(is_filled, ledger.price[event, asset], np.nan)
        part["res_fees"] = np.where(is_filled, ledger.fees[event, asset], np.nan)
        part["res_side"] = np.where(is_filled, np.where(trade < 0, OrderSide.SELL, OrderSide.BUY), -1)
        part["res_status"], part["res_status_info"] = status_of(info), info
        parts.append(part)
        lanes.append(ledger.lanes[at])
        columns.append(ledger.columns[at, asset])
    records, lane, column = (np.concatenate(x) for x in (parts, lanes, columns))
    if len(ledgers) > 1:
        order = np.argsort(lane, kind="stable")
        records, lane, column = records[order], lane[order], column[order]
    is_filled = records["res_status"] == OrderStatus.FILLED
    records["id"] = np.arange(len(records))
    records["order_id"] = np.where(is_filled, np.cumsum(is_filled) - 1, -1)
    return records, lane, column


def status_of(info: np.ndarray) -> np.ndarray:
    """The OrderStatus that belongs to each OrderStatusInfo."""
    unfilled = np.where(np.isin(info, REJECTIONS), OrderStatus.REJECTED, OrderStatus.IGNORED)
    return np.where(info == OrderStatusInfo.NONE, OrderStatus.FILLED, unfilled)
