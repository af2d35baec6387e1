"""Dates become bars, and look-back ranges before them (rules 10)."""

import datetime
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import is_whole

#: A duration as users give it.
Offset = str | datetime.timedelta | np.timedelta64
#: A pandas frequency, or a number of bars.
Frequency = int | Offset | pd.offsets.BaseOffset
#: One date or several.
Dates = str | datetime.date | np.datetime64 | Sequence | np.ndarray | pd.Index | pd.Series
#: A time of day.
TimeOfDay = str | datetime.time


def index_points(
    index: pd.Index,
    *,
    every: Frequency | None = None,
    on: Dates | None = None,
    at_time: TimeOfDay | None = None,
    offset: Offset | None = None,
) -> np.ndarray:
    """The bars on which something is due: for each date the first bar at or after it; no bar twice.

    index: labels of the bars, ascending; a DatetimeIndex with or without time zone, irregular or with gaps.
    every: a pandas frequency ("D", "W", "W-FRI", "MS", "QS", "8h"), a Timedelta or an offset: its dates between the
        first and the last bar; or a number n of bars: bars 0, n, 2 n, ...
    on: dates, in the time zone of the index unless they have their own.       One of `every` and `on` is needed.
    at_time: time of day that dates are moved to, as "09:30".     offset: Timedelta by which they are moved, after that.

    Returns bar numbers, int64, ascending. Dates before the first bar fall on it only if they are in `on`; those after
    the last bar on none.
    Raises TypeError or ValueError naming the argument.
    """
    if (every is None) == (on is None):
        raise ValueError("every: pass a frequency (every=) or dates (on=), one of the two")
    if is_whole(every):
        if every < 1:
            raise ValueError(f"every: expected a positive number of bars, got {every}")
        if at_time is not None or offset is not None:
            raise ValueError("every: a number of bars has no at_time and no offset")
        return np.arange(0, len(index), every)
    if not isinstance(index, pd.DatetimeIndex):
        raise TypeError(f"every: dates need a DatetimeIndex, close has {type(index).__name__}")
    if not index.is_monotonic_increasing:
        raise ValueError("index: expected the labels of the bars in ascending order")
    if len(index) == 0:
        return np.zeros(0, np.int64)
    dates = _dates_on(on, index) if every is None else _dates_every(every, index)
    if at_time is not None:
        time = _time_of_day(at_time)
        since_midnight = pd.Timedelta(hours=time.hour, minutes=time.minute, seconds=time.second)
        naive = dates.tz_localize(None).normalize() + since_midnight
        dates = naive if dates.tz is None else _localized(naive, dates.tz)
    if offset is not None:
        dates = dates + _timedelta(offset, "offset")
    if every is not None and len(dates) > 0 and bool(dates[0] < index[0]):
        dates = dates[dates >= index[0]]  # moved to before the first bar
    bars = index.searchsorted(dates, side="left")
    return np.unique(bars[bars < len(index)]).astype(np.int64)


def index_ranges(
    index: pd.Index,
    *,
    every: Frequency | None = None,
    on: Dates | None = None,
    at_time: TimeOfDay | None = None,
    offset: Offset | None = None,
    lookback: int | Offset | None = None,
) -> pd.DataFrame:
    """Look-back ranges, and the bar on which each is acted upon. That bar is not part of the range.

    index, every, on, at_time, offset: as `index_points`.
    lookback: number of bars or Timedelta before each point; points without a full one are dropped. None: from each
        point to the next.

    Returns int64 columns range_start, range_end and alloc_idx: bars [range_start, range_end), range_end = alloc_idx.
    Raises as `index_points`; ValueError for a lookback that is not positive.
    """
    start, end = ranges_before(index, lookback, every=every, on=on, at_time=at_time, offset=offset)
    return pd.DataFrame({"range_start": start, "range_end": end, "alloc_idx": end})


def ranges_before(index: pd.Index, lookback: int | Offset | None = None, **when: Any) -> tuple[np.ndarray, np.ndarray]:
    """The first and the end bar of each of `index_ranges`, int64."""
    points = index_points(index, **when)
    if lookback is None:
        start, end = points[:-1], points[1:]
    elif is_whole(lookback):
        if lookback < 1:
            raise ValueError(f"lookback: expected a positive number of bars, got {lookback}")
        start, end = points - lookback, points
    else:
        length = _timedelta(lookback, "lookback")
        if length <= pd.Timedelta(0):
            raise ValueError(f"lookback: expected a positive duration, got {lookback!r}")
        if not isinstance(index, pd.DatetimeIndex):
            raise TypeError(f"lookback: a duration needs a DatetimeIndex, close has {type(index).__name__}")
        begin = index.take(points) - length
        start, end = index.searchsorted(begin, side="left"), points
        start = np.where(begin < index[0], -1, start)
    full = (start >= 0) & (start < end)
    return start[full].astype(np.int64), end[full].astype(np.int64)


def _dates_every(every: Frequency | None, index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    try:
        duration: Any = _timedelta(every, "every") if isinstance(every, np.timedelta64) else every
        step = pd.tseries.frequencies.to_offset(duration)
        goes_on = step is not None and step.n > 0
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"every: {every!r} is not a pandas frequency such as 'D', 'W' or 'MS'") from error
    if not goes_on:
        raise ValueError(f"every: expected a frequency that goes from date to later date, got {every!r}")
    return _date_range(step, index[0], index[-1], index.dtype)  # pyright: ignore[reportArgumentType]


@functools.lru_cache(maxsize=16)
def _date_range(
    step: pd.offsets.BaseOffset, first: pd.Timestamp, last: pd.Timestamp, dtype: np.dtype
) -> pd.DatetimeIndex:
    """The dates from `first` to `last`. They are cached, because pandas steps from date to date in Python, and searches
    ask for the same dates many times.

    dtype: of the time index; it tells moments apart that are equal but of different time zones.
    """
    is_of_hours = isinstance(step, pd.tseries.offsets.Tick) and not isinstance(step, pd.tseries.offsets.Day)
    if first.tz is None or is_of_hours:
        return pd.date_range(first, last, freq=step)
    # Dates of the wall calendar: in some time zones, a day has no midnight, or two.
    dates = _localized(pd.date_range(first.tz_localize(None), last.tz_localize(None), freq=step), first.tz)
    return dates[(dates >= first) & (dates <= last)]


def _dates_on(on: Dates | None, index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    if isinstance(on, pd.Series):
        on = pd.Index(on)
    if isinstance(on, str | datetime.date | np.datetime64) or not isinstance(on, Sequence | pd.Index | np.ndarray):
        on = [on]
    try:
        dates = pd.DatetimeIndex(on)
        if pd.api.types.is_numeric_dtype(pd.Index(on).dtype):
            raise TypeError("numbers, which pandas would take for nanoseconds since 1970")
    except (ValueError, TypeError) as error:
        raise ValueError(f"on: expected dates, got {on!r}"[:200]) from error
    if dates.hasnans:
        raise ValueError("on: a date is missing (NaT)")
    if dates.tz is None and index.tz is not None:
        dates = _localized(dates, index.tz)
    elif dates.tz is not None:
        if index.tz is None:
            raise ValueError("on: the dates have a time zone, the index of close has none")
        dates = dates.tz_convert(index.tz)
    return dates.sort_values()


def _time_of_day(at_time: TimeOfDay) -> datetime.time:
    if isinstance(at_time, datetime.time):
        return at_time
    try:
        moment = pd.Timestamp(f"2000-01-01 {at_time}")
    except (ValueError, TypeError):
        moment = pd.NaT
    if not isinstance(moment, pd.Timestamp):
        raise ValueError(f"at_time: expected a time of day such as '09:30', got {at_time!r}")
    return moment.time()


def _timedelta(value: int | Offset, argument: str) -> pd.Timedelta:
    try:
        duration = pd.Timedelta(value)
    except (ValueError, TypeError):
        duration = pd.NaT
    if pd.isna(duration) or isinstance(value, int | float):
        raise ValueError(f"{argument}: expected a duration such as '7D' or '90min', got {value!r}")
    return duration  # type: ignore[return-value]


def _localized(dates: pd.DatetimeIndex, tz: datetime.tzinfo) -> pd.DatetimeIndex:
    """Wall-clock times in a time zone. A time that occurs twice is the first one; a time that does not occur becomes
    the end of the gap."""
    return dates.tz_localize(tz, ambiguous=np.ones(len(dates), bool), nonexistent="shift_forward")
