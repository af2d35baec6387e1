"""Incidents: what befell the accounts without being a fault of theirs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxsim.engine.trading.status import Incident, OrderReason
from jaxsim.frames.results.ledger import Ledger


def incident_table(
    ledgers: Sequence[Ledger], assets: pd.Index, index: pd.Index, lanes: pd.Index | None
) -> pd.DataFrame:
    """One row for each incident, by lane and bar: the lane levels, then timestamp, kind, asset, and amount (currency).

    assets: name of each price-frame column.     index: labels of the bars.     lanes: labels of the lanes.
    """
    lane, bar, column, amount = (np.concatenate(x) for x in zip(*map(_closings, ledgers), strict=True))
    order = np.lexsort((bar, lane))
    lane, bar, column, amount = lane[order], bar[order], column[order], amount[order]
    levels = range(0 if lanes is None else lanes.nlevels)
    labels = [] if lanes is None else [(lanes.names[i], lanes.get_level_values(i).take(lane)) for i in levels]
    kind = np.full(len(lane), Incident.DELISTED.text, object)
    shown = [("timestamp", index.take(bar)), ("kind", kind), ("asset", assets.take(column)), ("amount", amount)]
    table = pd.DataFrame(dict(enumerate(values for _, values in [*labels, *shown])))
    return table.set_axis([name for name, _ in [*labels, *shown]], axis=1)


def _closings(ledger: Ledger) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lane, bar, column and proceeds of each asset that was closed since it left the market."""
    event, asset = np.nonzero(ledger.reason == OrderReason.DELISTED)
    at = ledger.lane_of_event[event]
    proceeds = -ledger.trade[event, asset] * ledger.price[event, asset]
    return ledger.lanes[at], ledger.bar[event], ledger.columns[at, asset], proceeds
