"""Decisions: for every rebalance and asset, the reason, the order, the fill, and why it was not filled in full."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.enums import Direction, SizeType
from jaxsim.engine.base.fields import is_whole
from jaxsim.engine.base.numerics import ABS_TOL, REL_TOL
from jaxsim.engine.trading.status import Clip, OrderReason, OrderStatusInfo
from jaxsim.frames.results.ledger import Ledger
from jaxsim.frames.results.records.logs import plain_name, status_of


@dataclass(frozen=True, eq=False)
class Decisions:
    """One row for every rebalance and asset, by lane, bar and order of execution.

    columns: the columns of the table, by name.     lane, column, bar: numbers of each row; `column` of the price frame.
    """

    columns: dict[str, np.ndarray]
    lane: np.ndarray
    column: np.ndarray
    bar: np.ndarray

    def take(self, order: np.ndarray) -> "Decisions":
        columns = {name: values[order] for name, values in self.columns.items()}
        return Decisions(columns, self.lane[order], self.column[order], self.bar[order])


def decisions_of(ledgers: Sequence[Ledger]) -> Decisions:
    """The decisions of all lanes."""
    parts = [_of_ledger(ledger) for ledger in ledgers]
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    lane, column, bar = (np.concatenate([getattr(p, name) for p in parts]) for name in ("lane", "column", "bar"))
    return Decisions(columns, lane, column, bar).take(np.argsort(lane, kind="stable"))


def _of_ledger(ledger: Ledger) -> Decisions:
    num_events, num_assets = ledger.target.shape
    sequence = np.argsort(ledger.rank, axis=1, kind="stable")
    event = np.repeat(np.arange(num_events), num_assets)
    asset = sequence.ravel()
    if (idle := ledger.is_idle).any():
        shown = ~idle[event, asset]
        event, asset = event[shown], asset[shown]

    def rows(table: np.ndarray) -> np.ndarray:
        return table[event, asset]

    lane_of_event = ledger.lane_of_event
    is_first = np.diff(lane_of_event, prepend=-1) != 0
    opening = ledger.opening
    units_first: Any = 0.0 if opening is None else opening.units[lane_of_event]
    target_first: Any = np.nan if opening is None else opening.target[lane_of_event]
    units_before = np.where(is_first[:, None], units_first, np.roll(ledger.units, 1, axis=0))
    target_before = np.where(is_first[:, None], target_first, np.roll(ledger.target_weights, 1, axis=0))
    weight, weight_after = (_weights(units, ledger) for units in (units_before, ledger.units))
    assert ledger.val_price is not None
    drift = np.where(np.isnan(ledger.val_price), np.nan, weight - target_before)  # without a price the drift is unknown
    requested, filled, info = rows(ledger.request), rows(ledger.trade), rows(ledger.info)
    is_filled = info == OrderStatusInfo.NONE
    short = np.abs(requested) - np.abs(filled)
    is_cut = is_filled & np.isfinite(requested) & (short > np.maximum(REL_TOL * np.abs(requested), ABS_TOL))
    clip = np.where(is_cut, Clip.CASH if ledger.clip is None else rows(ledger.clip), Clip.NONE)
    reason = np.where(is_filled, _texts(Clip)[clip], _texts(OrderStatusInfo)[info])
    closes = rows(ledger.reason)
    reason[closes > 0] = np.array([x.text for x in OrderReason], object)[closes[closes > 0]]
    reason[(info == OrderStatusInfo.SIZE_ZERO) & (np.abs(requested) > ABS_TOL)] = "less than one size_granularity"
    rebalance, part = _numbers(ledger)
    columns = {
        "rebalance": rebalance[event],
        "part": part[event],
        "weight": rows(weight),
        "last_target": rows(target_before),
        "drift": rows(drift),
        "excess": rows(ledger.excess),
        "breached": rows(ledger.excess) >= 0,
        "target": rows(ledger.target),
        "size_type": _codes(ledger.size_type, SizeType.TARGET_PERCENT, (num_events, num_assets))[event, asset],
        "direction": _codes(ledger.direction, Direction.BOTH, (num_events, num_assets))[event, asset],
        "requested": requested,
        "filled": filled,
        "clipped": np.where(is_cut, short, 0.0),
        "weight_after": rows(weight_after),
        "price": rows(ledger.price),
        "fees": rows(ledger.fees),
        "status": np.array(["Filled", "Ignored", "Rejected"], object)[status_of(info)],
        "status_info": np.array([x.label for x in sorted(OrderStatusInfo)], object)[info + 1],
        "reason": reason,
    }
    at = lane_of_event[event]
    return Decisions(columns, ledger.lanes[at], ledger.columns[at, asset], ledger.bar[event])


def _numbers(ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """The number of the rebalance that each event belongs to, within its lane, and which part of it the event is,
    [event]; both from 0."""
    first = np.searchsorted(ledger.lane_of_event, ledger.lane_of_event)
    begins = np.zeros(len(ledger.bar), int)
    begins[ledger.decided] = 1
    count = np.cumsum(begins)
    part = np.arange(len(count)) - np.searchsorted(count, count)
    is_closing = ledger.is_idle.any(axis=1) | (ledger.rank < 0).all(axis=1)
    if is_closing.any():  # assets that leave are no part of a rebalance
        before = np.cumsum(is_closing)
        part = np.where(is_closing, 0, part - (before - before[np.searchsorted(count, count)]))
    return count - count[first], part


def _weights(units: np.ndarray, ledger: Ledger) -> np.ndarray:
    """Weights of holdings at the valuation prices and the value of each event, [event, asset]."""
    assert ledger.val_price is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(units == 0, 0.0, units * ledger.val_price / ledger.value[:, None])


def _texts(codes: type[Clip] | type[OrderStatusInfo]) -> np.ndarray:
    """The text of each code, by code; -1 is the last."""
    return np.array([code.text for code in sorted(codes, key=lambda x: (x < 0, x))], object)


def _codes(codes: np.ndarray | None, neutral: SizeType | Direction, shape: tuple[int, int]) -> np.ndarray:
    """Names of codes."""
    names = {int(member): plain_name(member) for member in type(neutral)}
    values = np.full(shape, int(neutral)) if codes is None else codes
    return np.array([names.get(k, "") for k in range(max(names) + 1)], object)[values]


#: Columns that are shown only if one of their values differs from this one.
ONLY_IF_MIXED = {
    "part": 0,
    "size_type": plain_name(SizeType.TARGET_PERCENT),
    "direction": plain_name(Direction.BOTH),
}


def decision_table(decisions: Decisions, assets: pd.Index, index: pd.Index, lanes: pd.Index | None) -> pd.DataFrame:
    """The rows with labels: rebalance (number within the lane), lane levels, asset, timestamp, then the columns.

    assets: name of each price-frame column.     index: labels of the bars.     lanes: labels of the lanes.
    """
    lane = decisions.lane
    shown = {
        name: values
        for name, values in decisions.columns.items()
        if name not in ONLY_IF_MIXED or not (values == ONLY_IF_MIXED[name]).all()
    }
    labels: list[tuple] = [("rebalance", shown.pop("rebalance"))]
    for level in range(0 if lanes is None else lanes.nlevels):
        assert lanes is not None
        labels.append((lanes.names[level], lanes.get_level_values(level).take(lane)))
    labels += [("asset", assets.take(decisions.column)), ("timestamp", index.take(decisions.bar)), *shown.items()]
    table = pd.DataFrame(dict(enumerate(values for _, values in labels)))
    return table.set_axis([name for name, _ in labels], axis=1)  # a level and a column may both be named "price"


def rows_of_rebalance(table: pd.DataFrame, when: Any) -> pd.DataFrame:
    """The rows of one rebalance of one lane.

    table: of `decision_table`, of one lane.
    when: time of the rebalance, or its number (negative: from the last one); of a rebalance that is spread over several
        bars, the number selects the first part.
    Raises KeyError if there was no rebalance then.
    """
    number: Any = table["rebalance"]
    rows: Any
    if is_whole(when):
        count = int(number.max()) + 1 if len(table) else 0
        rows = table[number == (when + count if when < 0 else when)]
        rows = rows[rows["part"] == 0] if "part" in rows else rows
    else:
        rows = table[table["timestamp"] == when]
    if rows.empty:
        raise KeyError(f"when: there was no rebalance {when!r}; see Backtest.rebalance_index")
    return rows
