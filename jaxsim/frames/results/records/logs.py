"""Logs: the account before and after every order, and all that the order asked for (rules 6.8)."""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import pandas as pd

from jaxsim.engine.base.enums import Direction, OrderSide, SizeType
from jaxsim.engine.trading.status import REJECTIONS, OrderStatus, OrderStatusInfo
from jaxsim.frames.results.ledger import LOG_FIELDS, Ledger, log_dtype
from jaxsim.frames.results.records.record_tables import LaneRecords, RecordTable

_RESULT = ("res_size", "res_price", "res_fees", "res_side", "res_status", "res_status_info", "order_id")
_REQUEST_END = LOG_FIELDS.index("new_cash")
#: Rules 6.8; `col` is the number of the (lane, asset) column, `group` that of the lane.
LOG_DTYPE = np.dtype(
    [(name, np.int64) for name in ("id", "group", "col", "idx")]
    + [
        (name, log_dtype(name))
        for name in (*LOG_FIELDS[:_REQUEST_END], "req_log", *LOG_FIELDS[_REQUEST_END:], *_RESULT)
    ]
)


def log_records(ledgers: Sequence[Ledger], first_column: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One record for every order of every rebalance, filled or not, by lane, bar and order of execution.

    first_column: number of the first (lane, asset) column of each lane, [lane].
    Returns the records, the lane of each and the price-frame column of each.
    """
    parts, lanes, columns = [], [], []
    for ledger in ledgers:
        sequence = np.argsort(ledger.rank, axis=1, kind="stable")
        event = np.repeat(np.arange(len(sequence)), sequence.shape[1])
        asset = sequence.ravel()
        if (idle := ledger.is_idle).any():
            shown = ~idle[event, asset]
            event, asset = event[shown], asset[shown]
        at = ledger.lane_of_event[event]
        part = np.zeros(len(event), LOG_DTYPE)
        assert ledger.log is not None
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


class LogTable(RecordTable):
    """Every order of every rebalance, filled or not, by lane, bar and order of execution: the account before it, what
    it asked for, the account after it, and what became of it (rules 6.8)."""

    def __init__(self, source: LaneRecords, assets: pd.Index):
        """assets: of each record."""
        records = source.records
        columns = [("asset", assets), ("timestamp", source.index.take(records["idx"]))]
        columns += [(name, _shown(name, records[name])) for name in LOG_FIELDS]
        columns += [(name, records[name]) for name in ("res_size", "res_price", "res_fees")]
        columns.append(("res_side", np.array(["", "Buy", "Sell"], object)[records["res_side"] + 1]))
        columns.append(("res_status", _labels(OrderStatus)[records["res_status"]]))
        columns.append(("res_status_info", _INFO_LABELS[records["res_status_info"] + 1]))
        columns.append(("order_id", records["order_id"]))
        super().__init__(source, columns)

    def _statistics(self) -> dict[str, np.ndarray]:
        lanes, records = self._source, self._source.records
        rows = {"Total Records": lanes.count()}
        for status in OrderStatus:
            rows[f"Status Counts: {status.name.title()}"] = lanes.count(records["res_status"] == status)
        for info in OrderStatusInfo:
            is_met = records["res_status_info"] == info
            if info != OrderStatusInfo.NONE and is_met.any():
                rows[f"Status Info Counts: {info.label}"] = lanes.count(is_met)
        return rows


def _shown(name: str, values: np.ndarray) -> np.ndarray:
    enums = {"req_size_type": SizeType, "req_direction": Direction}
    return _labels(enums[name])[values] if name in enums else values


def _labels(codes: type[IntEnum]) -> np.ndarray:
    """Names as vectorbt writes them, TargetPercent for TARGET_PERCENT, by code."""
    return np.array([plain_name(member) for member in codes], object)


def plain_name(member: IntEnum) -> str:
    """The name of a member as vectorbt writes it: TargetPercent."""
    return member.name.title().replace("_", "")


_INFO_LABELS = np.array([info.label for info in sorted(OrderStatusInfo)], object)
