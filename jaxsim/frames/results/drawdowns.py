"""Drawdowns: from every peak of a value down to its valley and up to its recovery (rules 6.9)."""

from enum import IntEnum

import numpy as np

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
