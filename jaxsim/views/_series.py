"""Data of a plot: checks, a drawable axis, and thinning."""

from __future__ import annotations

import numpy as np
import pandas as pd

MAX_POINTS = 4_000  # per trace: more than there are pixels
MAX_TOTAL = 60_000  # per figure, so that a hundred lanes still load


def checked_frame(data: object, name: str) -> pd.DataFrame:
    """`data` as a float64 DataFrame.

    name: the argument's name, for messages. Raises TypeError if it is not a DataFrame, ValueError if it is empty, not
    numeric, or has several index levels.
    """
    if not isinstance(data, pd.DataFrame):
        raise TypeError(f"{name} must be a pandas DataFrame, got {type(data).__name__}.")
    if data.empty:
        raise ValueError(f"{name} is empty (shape {data.shape}): there is nothing to draw.")
    if isinstance(data.index, pd.MultiIndex):
        levels = ", ".join(map(str, data.index.names))
        raise ValueError(f"{name} has several index levels ({levels}): select one lane first, for example with .xs.")
    index = data.index.to_timestamp() if isinstance(data.index, pd.PeriodIndex) else data.index
    return pd.DataFrame(as_float(data, name), index=index, columns=data.columns)


def as_float(data: pd.Series | pd.DataFrame, name: str) -> np.ndarray:
    """The values in float64, with infinities as NaN, since they cannot be drawn. Raises ValueError if not numeric."""
    try:
        values = data.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numeric, got dtype {data.to_numpy().dtype}.") from None
    return np.where(np.isfinite(values), values, np.nan)


def drawable(index: pd.Index) -> np.ndarray:
    """The index as an array for an axis; dates are in the coarsest exact unit, which keeps the file small.

    Plotly has no time zones. Local time is drawn if it always increases, else (when clocks are put back) UTC;
    `axis_name` says which.
    """
    if not isinstance(index, pd.DatetimeIndex):
        return index.to_numpy()
    stamps = _wall(index).to_numpy()
    for unit in ("D", "h", "m", "s", "ms"):
        coarse = stamps.astype(f"datetime64[{unit}]")
        if (coarse == stamps).all():
            return coarse
    return stamps


def axis_name(index: pd.Index) -> str | None:
    """The axis title: the index name and the time zone that `drawable` uses; `bar` for unnamed integers."""
    name = str(index.name) if index.name is not None else None
    if isinstance(index, pd.DatetimeIndex):
        if index.tz is None:
            return name
        zone = str(index.tz) if _moves_forward(index) else "UTC"
        return f"{name} ({zone})" if name else zone
    return name or ("bar" if pd.api.types.is_integer_dtype(index) else None)


def _moves_forward(index: pd.DatetimeIndex) -> bool:
    """Whether the local times of the bars are unique and increasing."""
    wall = index.tz_localize(None)
    return wall.is_monotonic_increasing and wall.is_unique


def _wall(index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    if index.tz is None:
        return index
    return index.tz_localize(None) if _moves_forward(index) else index.tz_convert("UTC").tz_localize(None)


def point_budget(traces: int) -> int:
    """The largest number of points per trace: 4,000, fewer from 16 traces on, never under 300."""
    return int(np.clip(MAX_TOTAL // max(traces, 1), 300, MAX_POINTS))


def envelope(values: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` row numbers, ascending, that keep the outline of a line `values` [time].

    They are the lowest and the highest point of each of limit/2 - 1 equal intervals, and both ends. NaN is chosen only
    if an interval has no number. So every peak and trough is kept.
    """
    count = len(values)
    if count <= limit:
        return np.arange(count)
    edges = np.linspace(0, count, limit // 2, dtype=int)  # one interval less: two rows are for the ends
    lengths = np.diff(edges)
    low = np.minimum.reduceat(np.where(np.isnan(values), np.inf, values), edges[:-1])
    high = np.maximum.reduceat(np.where(np.isnan(values), -np.inf, values), edges[:-1])
    interval = np.repeat(np.arange(len(lengths)), lengths)
    rows = np.arange(count)

    def first(extreme: np.ndarray) -> np.ndarray:
        hits = np.where(values == extreme[interval], rows, count)
        lowest = np.minimum.reduceat(hits, edges[:-1])
        return np.where(lowest < count, lowest, edges[:-1])  # all NaN: keep one, which breaks the line

    return np.unique(np.concatenate([[0, count - 1], first(low), first(high)]))


def jump_rows(values: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` row numbers, ascending, that keep the jumps of `values` [time, asset].

    Half are evenly spaced, with both ends. Half are the rows before and after the largest changes (largest in any
    asset), so that a rebalance stays a vertical step. All columns share the rows, which stacked areas need.
    """
    count = len(values)
    if count <= limit:
        return np.arange(count)
    change = np.abs(np.diff(np.nan_to_num(values), axis=0)).max(axis=1)
    after = 1 + np.argpartition(change, -(limit // 4))[-(limit // 4) :]
    stride = np.linspace(0, count - 1, limit // 2, dtype=int)
    return np.unique(np.concatenate([stride, after - 1, after]))
