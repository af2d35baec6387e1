"""Orders: all filled orders as a structured array, and the table that shows them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxsim.engine.base.enums import OrderSide
from jaxsim.engine.trading.status import OrderReason
from jaxsim.frames.results.ledger import Ledger
from jaxsim.frames.results.records.record_tables import LaneRecords, RecordTable

#: Rules 6.1: id (global, simulation order), column, bar, size (> 0), price, fees (currency), side (OrderSide).
ORDER_DTYPE = np.dtype(
    [
        ("id", np.int64),
        ("col", np.int64),
        ("idx", np.int64),
        ("size", np.float64),
        ("price", np.float64),
        ("fees", np.float64),
        ("side", np.int64),
    ]
)


def order_records(ledgers: Sequence[Ledger], first_column: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All filled orders, by lane, bar and order of execution.

    first_column: number of the first (lane, asset) column of each lane, [lane].
    Returns the records, the lane of each and the price-frame column of each.
    """
    parts, lanes, columns = [], [], []
    for ledger in ledgers:
        sequence = np.argsort(ledger.rank, axis=1, kind="stable")
        event, place = np.nonzero(np.take_along_axis(ledger.filled, sequence, axis=1))
        asset = sequence[event, place]
        at = ledger.lane_of_event[event]
        part = np.empty(len(event), ORDER_DTYPE)
        trade = ledger.trade[event, asset]
        part["col"] = first_column[ledger.lanes[at]] + asset
        part["idx"] = ledger.bar[event]
        part["size"] = np.abs(trade)
        part["price"] = ledger.price[event, asset]
        part["fees"] = ledger.fees[event, asset]
        part["side"] = trade < 0
        parts.append(part)
        lanes.append(ledger.lanes[at])
        columns.append(ledger.columns[at, asset])
    records, lane, column = (np.concatenate(x) for x in (parts, lanes, columns))
    if len(ledgers) > 1:
        order = np.argsort(lane, kind="stable")
        records, lane, column = records[order], lane[order], column[order]
    records["id"] = np.arange(len(records))
    return records, lane, column


def opening_records(ledgers: Sequence[Ledger], first_column: np.ndarray) -> np.ndarray:
    """What lanes of a stretch hold before it, as orders of its first bar at what it is worth, without fees."""
    parts = [np.empty(0, ORDER_DTYPE)]
    for ledger in ledgers:
        if ledger.opening is None:
            continue
        units = ledger.opening.units
        lane, asset = np.nonzero(units)
        part = np.zeros(len(lane), ORDER_DTYPE)
        part["col"] = first_column[ledger.lanes[lane]] + asset
        part["size"], part["side"] = np.abs(units[lane, asset]), units[lane, asset] < 0
        part["price"] = ledger.opening.price[lane, asset]
        parts.append(part)
    return np.concatenate(parts)


def order_reasons(ledgers: Sequence[Ledger]) -> np.ndarray:
    """The OrderReason of each record of `order_records`, int [record]."""
    parts, lanes = [], []
    for ledger in ledgers:
        sequence = np.argsort(ledger.rank, axis=1, kind="stable")
        event, place = np.nonzero(np.take_along_axis(ledger.filled, sequence, axis=1))
        parts.append(ledger.reason[event, sequence[event, place]])
        lanes.append(ledger.lanes[ledger.lane_of_event[event]])
    reasons, lane = np.concatenate(parts), np.concatenate(lanes)
    return reasons[np.argsort(lane, kind="stable")] if len(ledgers) > 1 else reasons


#: By OrderReason.
_REASONS = np.array([reason.text for reason in OrderReason], object)

#: By OrderSide.
_SIDES = pd.Index(["Buy", "Sell"])


class OrderTable(RecordTable):
    """All filled orders, by lane, bar and order of execution: id (within the lane), the lane levels, asset, timestamp,
    size (units, > 0), price, fees (currency), side ("Buy" or "Sell"); and, where some order is not of the policy, the
    reason of each, as "delisted"."""

    def __init__(self, source: LaneRecords, assets: pd.Index, reasons: np.ndarray):
        """assets, reasons: of each record. Reasons are shown where there is any."""
        records = source.records
        columns = [("asset", assets), ("timestamp", source.index.take(records["idx"]))]
        columns += [(name, records[name]) for name in ("size", "price", "fees")]
        columns.append(("side", _SIDES.take(records["side"])))
        if reasons.any():
            columns.append(("reason", _REASONS[reasons]))
        super().__init__(source, columns)

    def _statistics(self) -> dict[str, np.ndarray]:
        """Rules 8.4."""
        lanes, records = self._source, self._source.records
        buys, sells = records["side"] == OrderSide.BUY, records["side"] == OrderSide.SELL
        size, price, fees = records["size"], records["price"], records["fees"]
        return {
            "Total Records": lanes.count(),
            "Total Buy Orders": lanes.count(buys),
            "Total Sell Orders": lanes.count(sells),
            "Min Size": lanes.least(size),
            "Max Size": lanes.greatest(size),
            "Avg Size": lanes.mean(size),
            "Avg Buy Size": lanes.mean(size, buys),
            "Avg Sell Size": lanes.mean(size, sells),
            "Avg Buy Price": lanes.mean(price, buys),
            "Avg Sell Price": lanes.mean(price, sells),
            "Total Fees": lanes.total(fees),
            "Min Fees": lanes.least(fees),
            "Max Fees": lanes.greatest(fees),
            "Avg Fees": lanes.mean(fees),
            "Avg Buy Fees": lanes.mean(fees, buys),
            "Avg Sell Fees": lanes.mean(fees, sells),
        }
