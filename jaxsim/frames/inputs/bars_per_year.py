"""How long a bar is, and how many make a year."""

import functools
from typing import Any

import numpy as np
import pandas as pd


def to_timedelta(freq: Any, argument: str) -> pd.Timedelta:
    """A fixed duration from "1h", "D", "252D", a Timedelta or an offset.

    Raises ValueError naming the argument if it is not a positive, fixed duration.
    """
    if isinstance(freq, int | float):
        raise ValueError(f"{argument}: expected a duration such as '1h' or '1D', got {freq!r}")
    try:
        duration = _parsed(freq) if isinstance(freq, str) else pd.Timedelta(freq)
    except (ValueError, TypeError):
        raise ValueError(f"{argument}: {freq!r} is not a fixed duration such as '1h' or '1D'") from None
    if pd.isna(duration) or duration <= pd.Timedelta(0):
        raise ValueError(f"{argument}: expected a positive duration, got {freq!r}")
    return duration  # type: ignore[return-value]


@functools.lru_cache
def _parsed(text: str) -> Any:
    return pd.Timedelta(text if text[:1].isdigit() else "1" + text)


def bar_length(index: pd.Index, freq: Any = None) -> pd.Timedelta | None:
    """The length of one bar: as given, else what a regular DatetimeIndex tells, else None."""
    if freq is not None:
        return to_timedelta(freq, "freq")
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if not isinstance(index, pd.DatetimeIndex) or len(index) < 3:
        return None
    steps = np.diff(index.asi8)
    return pd.Timedelta(index[1] - index[0]) if (steps == steps[0]).all() else None  # type: ignore[return-value]
