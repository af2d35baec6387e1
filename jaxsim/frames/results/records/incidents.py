"""Incidents: what befell the accounts without being a fault of theirs."""

import numpy as np
import pandas as pd

from jaxsim.engine.trading.status import Incident, OrderReason
from jaxsim.frames.results.ledger import Ledger
from jaxsim.frames.results.paths import Paths


def incident_table(paths: Paths, lanes: pd.Index | None) -> pd.DataFrame:
    """One row for each incident, by lane and bar: the lane levels, then timestamp, kind, asset (empty where it befell
    the whole account), and amount (currency).

    lanes: labels of the lanes.
    """
    context = paths.context
    closings = [_closings(ledger) for ledger in paths.ledgers]
    lane, bar, column, amount = (np.concatenate(x) for x in zip(*closings, _ruins(paths), strict=True))
    order = np.lexsort((column < 0, bar, lane))
    lane, bar, column, amount = lane[order], bar[order], column[order], amount[order]
    levels = range(0 if lanes is None else lanes.nlevels)
    labels = [] if lanes is None else [(lanes.names[i], lanes.get_level_values(i).take(lane)) for i in levels]
    names = np.append(context.layout.assets.to_numpy(object), "")  # the last one stands for the whole account
    kind = np.where(column < 0, Incident.RUINED.text, Incident.DELISTED.text).astype(object)
    shown = [("timestamp", context.index.take(bar)), ("kind", kind), ("asset", names[column]), ("amount", amount)]
    table = pd.DataFrame(dict(enumerate(values for _, values in [*labels, *shown])))
    return table.set_axis([name for name, _ in [*labels, *shown]], axis=1)


def incident_bits(paths: Paths) -> np.ndarray:
    """The set of `Incident` that befell each lane, int32 [lane]."""
    bits = np.where(paths.ruined_at < len(paths.context.index), int(Incident.RUINED), 0).astype(np.int32)
    for ledger in paths.ledgers:
        bits[_closings(ledger)[0]] |= Incident.DELISTED
    return bits


def _ruins(paths: Paths) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lane, bar, -1 and value of each account that was worth nothing."""
    bar = paths.ruined_at
    lane = np.flatnonzero((bar >= 0) & (bar < len(paths.context.index)))
    return lane, bar[lane], np.full(len(lane), -1), paths.value[bar[lane], lane]


def _closings(ledger: Ledger) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lane, bar, column and proceeds of each asset that was closed since it left the market."""
    event, asset = np.nonzero(ledger.reason == OrderReason.DELISTED)
    at = ledger.lane_of_event[event]
    proceeds = -ledger.trade[event, asset] * ledger.price[event, asset]
    return ledger.lanes[at], ledger.bar[event], ledger.columns[at, asset], proceeds
