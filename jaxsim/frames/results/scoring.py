"""Metrics of the bars that count: those from the start of each lane on (rules 7.17); and their arguments by label."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxsim import metrics
from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.engine.metrics.names import refuse_prices
from jaxsim.frames.inputs.benchmark import rows_of
from jaxsim.frames.inputs.labels import listed

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


def score_until_ruin(
    function: Callable[..., Any], score: np.ndarray, value: np.ndarray, opened: np.ndarray, ruined_at: np.ndarray
) -> np.ndarray:
    """A metric as `score_from_start` has it, of lanes some of which were worth nothing (rules 7.19).

    value: [time, lane], currency.      opened: value of each lane before the first bar that counts, [lane].
    ruined_at: as `Paths.ruined_at`.
    """
    num_bars, is_path = len(value), score.ndim > 1
    is_ruined = ruined_at < num_bars
    if not is_ruined.any():
        return score
    if function.__name__ == "total_return":
        score = np.where(is_ruined, value[-1] / np.where(opened > 0, opened, np.nan) - 1, score)
    whole = function.__name__.removeprefix("rolling_")
    if getattr(getattr(metrics, whole, None), "is_ratio", False) or whole in COMPARING:
        is_over = np.arange(num_bars)[:, None] >= ruined_at if is_path else is_ruined
        score = np.where(is_over, np.nan, score)
    return np.where(opened > 0, score, np.nan)


def _of_shared_start(function: Callable, returns: np.ndarray, start: int, options: Mapping[str, Any]) -> np.ndarray:
    if start == 0:
        return np.asarray(function(returns, **options))
    num_bars, num_lanes = returns.shape
    is_empty = start >= num_bars
    rows = slice(0, 1) if is_empty else slice(start, None)  # of one bar, for the shape of the result
    cut = {name: x[rows] if _is_by_bar(x, num_bars) else x for name, x in options.items()}
    score = np.asarray(function(returns[rows], **cut))
    if is_empty:
        score = np.full_like(score, np.nan, dtype=np.float64)
    if score.ndim == 1:
        return score
    out = np.full((num_bars, num_lanes), np.nan)
    out[num_bars if is_empty else start :] = score[:0] if is_empty else score
    return out


def _is_by_bar(option: Any, num_bars: int) -> bool:
    return np.ndim(option) == 2 and np.shape(option)[0] == num_bars


def _of_lanes(option: Any, lanes: np.ndarray, num_lanes: int) -> Any:
    is_by_lane = np.ndim(option) > 0 and np.shape(option)[-1] == num_lanes
    return np.asarray(option)[..., lanes] if is_by_lane else option


# --- arguments by label


def returns_of_benchmark(value: Any, index: pd.Index, lanes: pd.Index | None, shape: tuple[int, int]) -> np.ndarray:
    """Returns of the user's own benchmark, [time, lane], aligned by label: a Series by time, a DataFrame by time and
    lane, or an array without labels.

    Raises TypeError or ValueError naming `benchmark` and the first label that does not fit, or for prices.
    """
    if isinstance(value, str):
        raise TypeError(f"benchmark: expected returns, got {value!r}; a name goes to js.backtest(..., benchmark=)")
    if isinstance(value, pd.Series | pd.DataFrame):
        values = value.to_numpy(np.float64)[rows_of(value.index, index, "benchmark", of_returns=True)]
        if isinstance(value, pd.DataFrame):
            values = values[:, _places_of_lanes(value.columns, lanes, "benchmark")]
    else:
        refuse_masked(value, "benchmark")
        values = np.asarray(value, dtype=np.float64)
        if values.shape not in ((len(index),), (len(index), 1), shape):
            raise ValueError(f"benchmark: expected returns [time] or [time, lane], got shape {values.shape}")
    refuse_prices(
        values, "benchmark", "prices.pct_change(), or hand them to the run: js.backtest(..., benchmark=prices)"
    )
    return np.broadcast_to(values[:, None] if values.ndim == 1 else values, shape)


def setting_by_label(value: Any, name: str, index: pd.Index, lanes: pd.Index | None) -> Any:
    """A setting of a metric: a Series by lane as [lane], one by time as [time, 1], a DataFrame as [time, lane];
    anything else as it is.

    Raises ValueError naming the setting and the first label that does not fit.
    """
    if isinstance(value, pd.DataFrame):
        rows = rows_of(value.index, index, name, of_returns=True)
        return value.to_numpy(np.float64)[rows][:, _places_of_lanes(value.columns, lanes, name)]
    if not isinstance(value, pd.Series):
        return value
    if lanes is not None and value.index.isin(lanes).any():
        return value.to_numpy(np.float64)[_places_of_lanes(value.index, lanes, name)]
    return value.to_numpy(np.float64)[rows_of(value.index, index, name, of_returns=True)][:, None]


def _places_of_lanes(labels: pd.Index, lanes: pd.Index | None, argument: str) -> np.ndarray:
    """The place of each lane among labels. One label serves a run of one unlabelled lane."""
    if lanes is None:
        if len(labels) != 1:
            raise ValueError(f"{argument}: it has {len(labels)} columns, {listed(labels)}, and the run has one lane")
        return np.zeros(1, int)
    if labels.has_duplicates:
        raise ValueError(f"{argument}: it has {listed(labels[labels.duplicated()][:1])} twice")
    places = labels.get_indexer(lanes) if labels.nlevels == lanes.nlevels else np.full(len(lanes), -1)
    if (places < 0).any():
        raise ValueError(f"{argument}: it has no entry for the lane {listed(lanes[places < 0][:1])}")
    unknown = ~labels.isin(lanes)
    if unknown.any():
        raise ValueError(f"{argument}: it has an entry for {listed(labels[unknown][:1])}, which is no lane of the run")
    return places
