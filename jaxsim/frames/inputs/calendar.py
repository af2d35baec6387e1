"""Dates become bars, and look-back ranges before them (rules 10)."""

import datetime
import functools
import warnings
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import is_whole, shown
from jaxsim.frames.inputs.durations import Duration, read_duration, read_span

#: A frequency, or a number of bars.
Frequency = int | Duration
#: One date or several.
Dates = str | datetime.date | np.datetime64 | Sequence | np.ndarray | pd.Index | pd.Series
#: A time of day.
TimeOfDay = str | datetime.time
#: Which bar a date that is none acts at.
Snap = Literal["after", "before"]

_MONDAY = pd.Timestamp("2001-01-01")
_NO_TIME = cast(pd.Timedelta, pd.Timedelta(0))


def index_points(
    index: pd.Index,
    *,
    every: Frequency | None = None,
    on: Dates | None = None,
    at_time: TimeOfDay | None = None,
    offset: Duration | None = None,
    snap: Snap = "after",
) -> np.ndarray:
    """The bars on which something is due: for each date the first bar at or after it, or the last bar not after it; no
    bar twice.

    index: labels of the bars, ascending; a DatetimeIndex with or without time zone, irregular or with gaps.
    every: a duration (rules 10.5) as "D", "W", "W-FRI", "MS", "QS", "8h", a Timedelta or an offset: its dates between
        the first and the last bar, at the time of day of the first bar; or a number n of bars: bars 0, n, 2 n, ...
    on: dates, in the time zone of the index unless they have their own.       One of `every` and `on` is needed.
    at_time: time of day that dates are moved to, as "09:30", "09:30 America/New_York" or a `datetime.time`; in the time
        zone of the index unless it has its own, which then also tells one date from the next.
    offset: duration by which they are moved, after that.
    snap: "after": the first bar at or after each date; "before": the last bar not after it, as in `every="ME"` for the
        last bar of each month. There, dates of whole days and dates at midnight mean their whole day, up to its last
        bar, unless `at_time` says otherwise; and a date that the bars have not reached yet is none.

    Returns bar numbers, int64, ascending. With "after", dates before the first bar fall on it only if they are in `on`,
    and those after the last bar on none.
    Raises TypeError or ValueError naming the argument.
    """
    if (every is None) == (on is None):
        raise ValueError("every: pass a frequency (every=) or dates (on=), one of the two")
    _check_snap(snap)
    if is_whole(every):
        if every < 1:
            raise ValueError(f"every: expected a positive number of bars, got {every}")
        if at_time is not None or offset is not None or snap != "after":
            raise ValueError("every: a number of bars has no at_time, no offset and no snap")
        return np.arange(0, len(index), every)
    if not isinstance(index, pd.DatetimeIndex):
        raise TypeError(f"every: dates need a DatetimeIndex, close has {type(index).__name__}")
    if not index.is_monotonic_increasing:
        raise ValueError("index: expected the labels of the bars in ascending order")
    if len(index) == 0:
        return np.zeros(0, np.int64)
    time = None if at_time is None else _time_of_day(at_time, index)
    zone = index.tz if time is None or time.tzinfo is None else time.tzinfo
    if every is None:
        dates = as_dates(on, index, "on")
        means_day = np.asarray(dates == dates.normalize())
    else:
        step = _step(every)
        is_of_days = _is_of_days(step)
        dates = _dates_every(step, index, zone, is_of_days and (time is not None or snap == "before"))
        means_day = np.full(len(dates), is_of_days)
    if time is not None:
        naive, means_day = dates.tz_localize(None).normalize() + _since_midnight(time), np.zeros(len(dates), bool)
        dates = naive if zone is None else _localized(naive, zone).tz_convert(index.tz)
    move = _NO_TIME if offset is None else read_span(offset, "offset", "'7D' or '90min'", signed=True)
    if snap == "before":
        bars = _last_bars(dates, means_day, index, move)
        return np.unique(bars[bars >= 0]).astype(np.int64)
    dates = moved(dates, move)
    if every is not None and len(dates) > 0 and bool(dates[0] < index[0]):
        dates = dates[dates >= index[0]]  # moved to before the first bar
    bars = places(index, dates, "left")
    return np.unique(bars[bars < len(index)]).astype(np.int64)


def snapped_bars(times: Any, index: pd.Index, snap: Snap, argument: str) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """The dates of a table, in the time zone of the index, and the bar of each, int64 [date], as `index_points` has it;
    a date that is a bar is that bar. -1 for none.

    Raises TypeError or ValueError naming `snap` or the argument.
    """
    _check_snap(snap)
    if not isinstance(index, pd.DatetimeIndex):
        raise TypeError(f"snap: dates need a DatetimeIndex, index is {type(index).__name__}")
    dates = as_dates(times, index, argument)
    bars = index.get_indexer(dates)
    if snap == "after":
        found = places(index, dates, "left")
        found = np.where(found < len(index), found, -1)
    else:
        found = _last_bars(dates, np.asarray(dates == dates.normalize()), index)
    return dates, np.where(bars >= 0, bars, found).astype(np.int64)


def index_ranges(
    index: pd.Index,
    *,
    every: Frequency | None = None,
    on: Dates | None = None,
    at_time: TimeOfDay | None = None,
    offset: Duration | None = None,
    snap: Snap = "after",
    lookback: int | Duration | None = None,
) -> pd.DataFrame:
    """Look-back ranges, and the bar on which each is acted upon. That bar is not part of the range.

    index, every, on, at_time, offset, snap: as `index_points`.
    lookback: number of bars, or duration, before each point; points without a full one are dropped. Calendar units,
        as "3MS", are whole ones of the calendar. None: from each point to the next.

    Returns int64 columns range_start, range_end and alloc_idx: bars [range_start, range_end), range_end = alloc_idx.
    Raises as `index_points`; ValueError for a lookback that is not positive, or in which no bar lies.
    """
    when = {"every": every, "on": on, "at_time": at_time, "offset": offset, "snap": snap}
    start, end = ranges_before(index, lookback, **when)
    return pd.DataFrame({"range_start": start, "range_end": end, "alloc_idx": end})


def ranges_before(
    index: pd.Index, lookback: int | Duration | None = None, **when: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The first and the end bar of each of `index_ranges`, int64."""
    points = index_points(index, **when)
    if lookback is None:
        start, end = points[:-1], points[1:]
    elif is_whole(lookback):
        if lookback < 1:
            raise ValueError(f"lookback: expected a positive number of bars, got {lookback}")
        start, end = points - lookback, points
    else:
        if not isinstance(index, pd.DatetimeIndex):
            raise TypeError(f"lookback: a duration needs a DatetimeIndex, close has {type(index).__name__}")
        begin = moments_before(
            index.take(points), read_span(lookback, "lookback", "'7D' or '3MS', or a number of bars")
        )
        start, end, known = places(index, begin, "left"), points, begin >= index[0]
        if known.any() and (start == end)[known].all():
            raise ValueError(f"lookback: no bar lies {shown(lookback)} or less before one of the dates"[:200])
        start = np.where(known, start, -1)
    full = (start >= 0) & (start < end)
    return start[full].astype(np.int64), end[full].astype(np.int64)


def _check_snap(snap: Any) -> None:
    if not isinstance(snap, str) or snap not in ("after", "before"):
        raise ValueError(f"snap: expected 'after' or 'before', got {snap!r}"[:200])


# --- dates


def _step(every: Any) -> pd.offsets.BaseOffset:
    duration = read_duration(every, "every", "'D', 'W' or 'MS', or a number of bars")
    return pd.tseries.frequencies.to_offset(duration)


def _is_of_days(step: pd.offsets.BaseOffset) -> bool:
    """Whether a frequency steps over whole days."""
    moment: Any = _MONDAY + step
    return bool(moment == moment.normalize())


def _dates_every(
    step: pd.offsets.BaseOffset, index: pd.DatetimeIndex, zone: datetime.tzinfo | None, as_days: bool
) -> pd.DatetimeIndex:
    """The dates of a frequency from the first to the last bar.

    zone: of the dates.     as_days: whether at midnight, without a time zone, whatever the time of the first bar.
    """
    first, last = cast(pd.Timestamp, index[0]), cast(pd.Timestamp, index[-1])
    if zone is not None:
        first, last = first.tz_convert(zone), last.tz_convert(zone)
    if not as_days:
        return _date_range(step, first, last, str(zone))
    return _date_range(step, first.tz_localize(None).normalize(), last.tz_localize(None), "")


@functools.lru_cache(maxsize=16)
def _date_range(
    step: pd.offsets.BaseOffset, first: pd.Timestamp, last: pd.Timestamp, zone_name: str
) -> pd.DatetimeIndex:
    """The dates from `first` to `last`. They are cached, because pandas steps from date to date in Python, and searches
    ask for the same dates many times.

    zone_name: it tells moments apart that are equal but of different time zones.
    """
    is_of_hours = isinstance(step, pd.tseries.offsets.Tick) and not isinstance(step, pd.tseries.offsets.Day)
    if first.tz is None or is_of_hours:
        return pd.date_range(first, last, freq=step)
    # Dates of the wall calendar: in some time zones, a day has no midnight, or two.
    dates = _localized(pd.date_range(first.tz_localize(None), last.tz_localize(None), freq=step), first.tz)
    return dates[(dates >= first) & (dates <= last)]


def as_dates(dates: Any, index: pd.DatetimeIndex, argument: str) -> pd.DatetimeIndex:
    """Dates as users give them, in the time zone of the index.

    Raises ValueError naming the argument for what is no date, and for dates with a time zone where the index has none.
    """
    if isinstance(dates, pd.Series):
        dates = pd.Index(dates)
    if isinstance(dates, str | datetime.date | np.datetime64) or not isinstance(
        dates, Sequence | pd.Index | np.ndarray
    ):
        dates = [dates]
    try:
        moments = pd.DatetimeIndex(dates)
        if pd.api.types.is_numeric_dtype(pd.Index(dates).dtype):
            raise TypeError("numbers, which pandas would take for nanoseconds since 1970")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{argument}: expected dates, got {dates!r}"[:200]) from error
    if moments.hasnans:
        raise ValueError(f"{argument}: a date is missing (NaT)")
    if moments.tz is None:
        return moments if index.tz is None else _localized(moments, index.tz)
    if index.tz is None:
        raise ValueError(f"{argument}: the dates have a time zone, the index of close has none")
    return moments.tz_convert(index.tz)


def _time_of_day(at_time: TimeOfDay, index: pd.DatetimeIndex) -> datetime.time:
    if isinstance(at_time, datetime.time):
        time = at_time
    else:
        clock, _, zone = str(at_time).rpartition(" ")
        moment = _moment(str(at_time)) or _moment(clock, zone)
        if moment is None:
            raise ValueError(f"at_time: expected a time of day such as '09:30', got {at_time!r}")
        time = moment.timetz()
    if time.tzinfo is not None and index.tz is None:
        raise ValueError(f"at_time: {at_time} has a time zone, the index of close has none")
    return time


def _moment(clock: str, zone: str | None = None) -> pd.Timestamp | None:
    """The moment at which a clock shows this on some day; None for what is no time of day."""
    try:
        shown = f"2000-01-01 {clock}"
        moment = pd.Timestamp(shown) if zone is None else pd.Timestamp(shown, tz=zone)
    except (ValueError, TypeError, LookupError):
        return None
    return moment if isinstance(moment, pd.Timestamp) and any(x.isdigit() for x in clock) else None


def _since_midnight(time: datetime.time) -> pd.Timedelta:
    since = datetime.timedelta(hours=time.hour, minutes=time.minute, seconds=time.second, microseconds=time.microsecond)
    return cast(pd.Timedelta, pd.Timedelta(since))


def places(index: pd.DatetimeIndex, dates: pd.DatetimeIndex, side: Literal["left", "right"]) -> np.ndarray:
    """`index.searchsorted`, also for dates that are finer than the unit of the index."""
    units: Any = ("s", "ms", "us", "ns")
    return index.as_unit(max(index.unit, dates.unit, key=units.index)).searchsorted(dates, side=side)


def _localized(dates: pd.DatetimeIndex, tz: datetime.tzinfo) -> pd.DatetimeIndex:
    """Wall-clock times in a time zone. A time that occurs twice is the first one; a time that does not occur becomes
    the end of the gap."""
    return dates.tz_localize(tz, ambiguous=np.ones(len(dates), bool), nonexistent="shift_forward")


def moved(moments: pd.DatetimeIndex, span: pd.Timedelta | pd.offsets.BaseOffset) -> pd.DatetimeIndex:
    """The moments a span later, calendar units on the calendar of the time zone."""
    if isinstance(span, pd.Timedelta):
        return moments + span
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.PerformanceWarning)  # of offsets that pandas adds one by one
        naive = pd.DatetimeIndex(moments.tz_localize(None) + span)
    return naive if moments.tz is None else _localized(naive, moments.tz)


def moments_before(moments: pd.DatetimeIndex, span: pd.Timedelta | pd.offsets.BaseOffset) -> pd.DatetimeIndex:
    """The moments a span earlier. Calendar units are whole ones: three months ("3MS") before 1 April, and before 3
    April, is 1 January."""
    if isinstance(span, pd.Timedelta) or type(span) is pd.DateOffset:
        return moved(moments, -span)
    last = moved(moments, -span.base)  # of a moment between two dates of the offset, the one before it
    starts: Any = moments.where(np.asarray(moved(last, span.base) == moments), last)
    return moved(starts, -span)


# --- the last bar not after a date


def _last_bars(
    dates: pd.DatetimeIndex, means_day: np.ndarray, index: pd.DatetimeIndex, move: Any = _NO_TIME
) -> np.ndarray:
    """The last bar not after each date, int [date]; -1 where there is none, and where the bars have not reached the
    date, so that a later one might lie before it.

    means_day: whether a date means its whole day.      move: a span by which they are moved.
    """
    if not isinstance(move, pd.Timedelta):
        dates, move = moved(dates, move), _NO_TIME
    ends = _end_of_day(dates, index.tz) + move
    moments = (dates if dates.tz is not None or index.tz is None else _localized(dates, index.tz)) + move
    bars = np.where(means_day, places(index, ends, "left"), places(index, moments, "right")) - 1
    is_reached = np.where(means_day, ends <= complete_until(index), moments <= index[-1])
    return np.where(is_reached, bars, -1)


def _end_of_day(dates: pd.DatetimeIndex, zone: datetime.tzinfo | None) -> pd.DatetimeIndex:
    """The midnight after each date, in a time zone."""
    ends = dates.tz_localize(None).normalize() + pd.Timedelta(days=1)
    return ends if zone is None else _localized(ends, zone)


def complete_until(index: pd.DatetimeIndex) -> pd.Timestamp:
    """The moment before which no further bar can come: the end of the last day, if the bars go on to where they end on
    other days; else the last bar."""
    wall = index.tz_localize(None)
    days = wall.normalize()
    times, is_earlier = wall - days, np.asarray(days < days[-1])
    is_over = days.is_unique or (bool(is_earlier.any()) and bool(times[-1] >= times[is_earlier].max()))
    return (_end_of_day(index[-1:], index.tz) if is_over else index[-1:])[0]  # pyright: ignore[reportReturnType]
