"""The table of logs."""

from enum import IntEnum

import numpy as np
import pandas as pd

from jaxsim.engine.base.enums import Direction, SizeType
from jaxsim.engine.trading.status import OrderStatus, OrderStatusInfo
from jaxsim.frames.results.logs import LOG_FIELDS
from jaxsim.frames.results.record_tables import LaneRecords, RecordTable


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
