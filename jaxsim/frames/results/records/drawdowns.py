"""Drawdowns: from every peak of a value down to its valley and up to its recovery (rules 6.9)."""

from enum import IntEnum
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.frames.results.records.durations import Duration, clock
from jaxsim.frames.results.records.record_tables import LaneRecords, RecordTable, divide_floats

#: id (from 0, by lane), column (the lane), bars of the peak, of the start (the bar after it), of the valley and of the
#: end (recovery, or the last bar), values at peak, valley and end (currency), DrawdownStatus.
DRAWDOWN_DTYPE = np.dtype(
    [
        ("id", np.int64),
        ("col", np.int64),
        ("peak_idx", np.int64),
        ("start_idx", np.int64),
        ("valley_idx", np.int64),
        ("end_idx", np.int64),
        ("peak_val", np.float64),
        ("valley_val", np.float64),
        ("end_val", np.float64),
        ("status", np.int64),
    ]
)


class DrawdownStatus(IntEnum):
    """Whether the value has been back at its peak."""

    ACTIVE = 0
    RECOVERED = 1


def drawdowns(value: np.ndarray) -> np.ndarray:
    """All drawdowns, by lane and time.

    value: [time, lane], currency; bars without a value (NaN) are passed over. Returns DRAWDOWN_DTYPE.

    A peak is the last bar at the highest value so far; the first of equally low bars is the valley. The path begins
    at its first bar, so a loss against the initial cash is none.
    """
    # one long path, lane after lane; no lane is below its peak at its first bar, so no drawdown goes into the next
    path, peak = value.T.ravel(), np.fmax.accumulate(value.T, axis=1).ravel()
    bars = np.flatnonzero(~np.isnan(path))
    path, peak = path[bars], peak[bars]
    below = path < peak
    first = np.flatnonzero(below & ~np.append(False, below[:-1]))
    if not len(first):
        return np.empty(0, DRAWDOWN_DTYPE)
    last = np.flatnonzero(below & ~np.append(below[1:], False))
    valley = _lowest(path, np.flatnonzero(below), first)
    lane, bar = np.divmod(bars, len(value))
    is_over = np.append(lane, -1)[last + 1] == lane[last]
    end = last + is_over

    out = np.empty(len(first), DRAWDOWN_DTYPE)
    out["id"], out["col"] = np.arange(len(first)), lane[first]
    out["peak_idx"], out["start_idx"] = bar[first - 1], bar[first - 1] + 1
    out["valley_idx"], out["end_idx"] = bar[valley], bar[end]
    out["peak_val"], out["valley_val"], out["end_val"] = path[first - 1], path[valley], path[end]
    out["status"] = np.where(is_over, DrawdownStatus.RECOVERED, DrawdownStatus.ACTIVE)
    return out


def _lowest(path: np.ndarray, below: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The first lowest place of each drawdown. below: places in drawdowns.     first: the first place of each."""
    lowest = np.minimum.reduceat(path[below], np.searchsorted(below, first))
    at_lowest = below[path[below] == lowest[np.searchsorted(first, below, "right") - 1]]
    return at_lowest[np.searchsorted(at_lowest, first)]


def longest_drawdown(value: np.ndarray, bars: np.ndarray, index: pd.Index) -> Duration:
    """The longest drawdown of each lane, active ones among them.

    value: [time, lane], currency.      bars: how many bars it lasts, [lane].       index: labels of the bars.
    """
    moments = clock(index)
    if moments is None:
        return Duration(bars, None)
    records = drawdowns(value)
    time = np.full(value.shape[1], np.nan)
    np.fmax.at(time, records["col"], moments[records["end_idx"]] - moments[records["start_idx"]])
    return Duration(bars, time)


class DrawdownTable(RecordTable):
    """All drawdowns of the value, by lane and time: id (within the lane), the lane levels, peak_timestamp,
    start_timestamp (the bar after the peak), valley_timestamp, end_timestamp (recovery, or the last bar), peak_value,
    valley_value, end_value (currency), drawdown (a fraction, negative), status ("Active" or "Recovered")."""

    def __init__(self, source: LaneRecords):
        records = source.records
        columns = [(f"{x}_timestamp", source.index.take(records[f"{x}_idx"])) for x in _POINTS]
        columns += [(f"{x}_value", records[f"{x}_val"]) for x in _POINTS if x != "start"]
        columns.append(("drawdown", _depth(records, "valley")))
        columns.append(("status", np.array(["Active", "Recovered"], dtype=object)[records["status"]]))
        super().__init__(source, columns)

    def _statistics(self) -> dict[str, Any]:
        """Depths are positive here, and those titled "Max" or "Avg" leave an active drawdown out, as in vectorbt."""
        lanes, r = self._source, self._source.records
        over, active = r["status"] == DrawdownStatus.RECOVERED, r["status"] == DrawdownStatus.ACTIVE
        depth, bars = -_depth(r, "valley") * 100, r["end_idx"] - r["start_idx"] + active  # active: with the last bar
        rebound = divide_floats(r["end_val"] - r["valley_val"], r["valley_val"]) * 100
        recovered = divide_floats(r["end_val"] - r["valley_val"], r["peak_val"] - r["valley_val"]) * 100
        down, up = r["valley_idx"] - r["peak_idx"], r["end_idx"] - r["valley_idx"]
        whole, rise = (r["start_idx"], r["end_idx"]), (r["valley_idx"], r["end_idx"])
        covered = divide_floats(lanes.total(bars), lanes.num_bars) * 100
        return {
            "Coverage [%]": np.where(lanes.count() > 0, covered, np.nan),
            "Total Records": lanes.count(),
            "Total Recovered Drawdowns": lanes.count(over),
            "Total Active Drawdowns": lanes.count(active),
            "Active Drawdown [%]": lanes.mean(
                -_depth(r, "end") * 100, active
            ),  # at most one in a lane; as it stands now
            "Active Duration": lanes.mean_duration(*whole, active, active),
            "Active Recovery [%]": lanes.mean(recovered, active),
            "Active Recovery Return [%]": lanes.mean(rebound, active),
            "Active Recovery Duration": lanes.mean_duration(*rise, active),
            "Max Drawdown [%]": lanes.greatest(depth, over),
            "Avg Drawdown [%]": lanes.mean(depth, over),
            "Max Drawdown Duration": lanes.longest(*whole, over),
            "Avg Drawdown Duration": lanes.mean_duration(*whole, over),
            "Max Recovery Return [%]": lanes.greatest(rebound, over),
            "Avg Recovery Return [%]": lanes.mean(rebound, over),
            "Max Recovery Duration": lanes.longest(*rise, over),
            "Avg Recovery Duration": lanes.mean_duration(*rise, over),
            "Avg Recovery Duration Ratio": lanes.mean(divide_floats(up, down), over),
        }


_POINTS = ("peak", "start", "valley", "end")


def _depth(records: np.ndarray, at: str) -> np.ndarray:
    return divide_floats(records[f"{at}_val"] - records["peak_val"], records["peak_val"])
