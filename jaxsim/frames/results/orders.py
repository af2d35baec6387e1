"""The table of orders."""

import numpy as np
import pandas as pd

from jaxsim.engine.base.enums import OrderSide
from jaxsim.frames.results.record_tables import LaneRecords, RecordTable

#: By OrderSide.
_SIDES = pd.Index(["Buy", "Sell"])


class OrderTable(RecordTable):
    """All filled orders, by lane, bar and order of execution: id (within the lane), the lane levels, asset, timestamp,
    size (units, > 0), price, fees (currency), side ("Buy" or "Sell")."""

    def __init__(self, source: LaneRecords, assets: pd.Index):
        """assets: of each record."""
        records = source.records
        columns = [("asset", assets), ("timestamp", source.index.take(records["idx"]))]
        columns += [(name, records[name]) for name in ("size", "price", "fees")]
        columns.append(("side", _SIDES.take(records["side"])))
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
