"""Metrics of the bars that count: those from the start of each lane on (rules 7.17)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

#: Metrics that compare lanes with one another: all count the bars from the latest start on.
COMPARING = ("deflated_sharpe_ratio",)


def score_from_start(
    function: Callable[..., Any], returns: np.ndarray, start: np.ndarray, options: Mapping[str, Any]
) -> np.ndarray:
    """A metric of returns [time, lane], of the bars from the start of each lane on: [lane], or for a metric with a
    number for each bar [time, lane], NaN before the start. A lane without any bar that counts is NaN.

    start: [lane].      options: of the metric; those with one entry for each lane as their last axis are cut like
    the returns.
    """
    if function.__name__ in COMPARING:
        start = np.full_like(start, start.max())
    starts = np.unique(start)
    if len(starts) == 1:
        return _of_shared_start(function, returns, int(starts[0]), options)
    parts = []
    for first in starts:
        lanes = np.flatnonzero(start == first)
        own = {name: _of_lanes(x, lanes, returns.shape[1]) for name, x in options.items()}
        parts.append((lanes, _of_shared_start(function, returns[:, lanes], int(first), own)))
    out = np.full((*parts[0][1].shape[:-1], returns.shape[1]), np.nan)
    for lanes, part in parts:
        out[..., lanes] = part
    return out


def _of_shared_start(function: Callable, returns: np.ndarray, start: int, options: Mapping[str, Any]) -> np.ndarray:
    if start == 0:
        return np.asarray(function(returns, **options))
    num_bars, num_lanes = returns.shape
    is_empty = start >= num_bars
    rows = slice(0, 1) if is_empty else slice(start, None)  # of one bar, for the shape of the result
    cut = {name: x[rows] if name == "benchmark" else x for name, x in options.items()}
    score = np.asarray(function(returns[rows], **cut))
    if is_empty:
        score = np.full_like(score, np.nan, dtype=np.float64)
    if score.ndim == 1:
        return score
    out = np.full((num_bars, num_lanes), np.nan)
    out[num_bars if is_empty else start :] = score[:0] if is_empty else score
    return out


def _of_lanes(option: Any, lanes: np.ndarray, num_lanes: int) -> Any:
    is_by_lane = np.ndim(option) > 0 and np.shape(option)[-1] == num_lanes
    return np.asarray(option)[..., lanes] if is_by_lane else option
