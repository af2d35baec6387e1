"""How long a bar is, and how many bars make a year."""

import datetime
import functools

import numpy as np
import pandas as pd

#: A fixed duration as users give it: "1h", "D", "252D", a Timedelta or an offset.
Duration = str | datetime.timedelta | np.timedelta64 | pd.offsets.BaseOffset


def to_timedelta(freq: Duration, argument: str) -> pd.Timedelta:
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
def _parsed(text: str) -> pd.Timedelta:
    return pd.Timedelta(text if text[:1].isdigit() else "1" + text)  # type: ignore[return-value]


def bar_length(index: pd.Index, freq: Duration | None = None) -> pd.Timedelta | None:
    """The length of one bar: `freq`, or else the step of a regular DatetimeIndex, or else None."""
    if freq is not None:
        return to_timedelta(freq, "freq")
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if not isinstance(index, pd.DatetimeIndex) or len(index) < 3:
        return None
    steps = np.diff(index.asi8)
    return pd.Timedelta(index[1] - index[0]) if (steps == steps[0]).all() else None  # type: ignore[return-value]


def bars_per_year(bar: pd.Timedelta | None, year: pd.Timedelta, needed_by: str | None = None) -> float:
    """The annualisation factor. Raises ValueError naming `freq`, and the metric that needs the factor, if the length
    of a bar is not known."""
    if bar is None:
        reason = "" if needed_by is None else f", which {needed_by} needs"
        raise ValueError(f"freq: the index does not tell how long a bar is{reason}; pass freq=, as in freq='1h'")
    return year / bar
