"""Durations and frequencies as users give them. Every argument that takes one is read here (rules 10.5)."""

import datetime
import functools
import re
import warnings
from typing import Any, cast

import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import shown

#: A duration as users give it: "1h", "3MS", a Timedelta or an offset.
Duration = str | datetime.timedelta | np.timedelta64 | pd.offsets.BaseOffset

DAY = cast(pd.Timedelta, pd.Timedelta(days=1))
HOUR = cast(pd.Timedelta, pd.Timedelta(hours=1))
WEEK = cast(pd.Timedelta, 7 * DAY)
YEAR = cast(pd.Timedelta, 365 * DAY)

_MONDAY = pd.Timestamp("2001-01-01")

#: Words that pandas reads as fixed durations, beside its offsets. Letters in capitals are offsets: "MS" is a month
#: start, "ms" a millisecond.
_FIXED = {
    "W",
    "D",
    "H",
    "S",
    "w",
    "d",
    "h",
    "m",
    "s",
    "day",
    "days",
    "hour",
    "hours",
    "hr",
    "min",
    "mins",
    "minute",
    "minutes",
    "sec",
    "secs",
    "second",
    "seconds",
    "ms",
    "milli",
    "millis",
    "millisecond",
    "milliseconds",
    "us",
    "micro",
    "micros",
    "microsecond",
    "microseconds",
    "ns",
    "nano",
    "nanos",
    "nanosecond",
    "nanoseconds",
}

#: The nominal length of one calendar unit, by the first letters of its name; the first that fits counts.
_NOMINAL = (
    (("SemiMonth",), YEAR / 24),
    (("WeekOfMonth", "LastWeekOfMonth"), YEAR / 12),
    (("Month", "BusinessMonth", "CustomBusinessMonth", "BMonth", "CBMonth"), YEAR / 12),
    (("FY5253Quarter", "Quarter", "BQuarter"), YEAR / 4),
    (("HalfYear", "BHalfYear"), YEAR / 2),
    (("Year", "BYear", "FY5253", "Easter"), YEAR),
    (("Week",), WEEK),
    (("BusinessHour", "CustomBusinessHour"), HOUR),
    (("BusinessDay", "CustomBusinessDay", "Day"), DAY),
)

#: The length of each part of a `DateOffset`.
_PARTS = {
    "years": YEAR,
    "months": YEAR / 12,
    "weeks": WEEK,
    "days": DAY,
    **{name: pd.Timedelta(1, unit=name) for name in ("hours", "minutes", "seconds", "milliseconds", "microseconds")},
    "nanoseconds": pd.Timedelta(1, unit="ns"),
}


def read_duration(
    value: Any, argument: str, example: str = "'1h' or '1D'", *, signed: bool = False
) -> pd.Timedelta | pd.offsets.BaseOffset:
    """A duration as a Timedelta, or as an offset where it is a number of calendar units (days among them).

    example: what the message proposes.     signed: whether it may be zero or negative, as a shift may.
    Raises ValueError naming the argument for a number, for what is no duration, and for one that is not positive.
    """
    is_number = isinstance(value, bool | np.bool_ | int | float | np.integer | np.floating)
    if is_number and not isinstance(value, np.timedelta64):  # NumPy counts these among the integers
        raise ValueError(f"{argument}: expected a duration such as {example}, got the number {shown(value)}")
    try:
        duration = _of_text(value) if isinstance(value, str) else _of_object(value)
        length = nominal_length(duration)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{argument}: {shown(value)} is no duration such as {example}"[:200]) from None
    if length <= pd.Timedelta(0) and not signed:
        raise ValueError(f"{argument}: expected a positive duration such as {example}, got {shown(value)}"[:200])
    return duration


def read_span(
    value: Any, argument: str, example: str = "'7D' or '3MS'", *, signed: bool = False
) -> pd.Timedelta | pd.offsets.BaseOffset:
    """A duration that is counted from a moment: a Timedelta, or an offset where its length depends on the moment. Weeks
    of no day, as "2W", are seven days each; pandas reads Sundays.

    Raises as `read_duration`.
    """
    duration = read_duration(value, argument, example, signed=signed)
    names_no_day = isinstance(value, str) and "-" not in value.lstrip("-")
    is_of_weeks = isinstance(duration, pd.offsets.Week) and (duration.weekday is None or names_no_day)
    return duration if is_calendar(duration) and not is_of_weeks else nominal_length(duration)


def read_length(value: Any, argument: str) -> pd.Timedelta:
    """A duration where a length is needed: of calendar units the nominal one, a month being 365/12 days.

    Raises as `read_duration`.
    """
    return nominal_length(read_duration(value, argument))


def is_calendar(duration: Any) -> bool:
    """Whether a duration is a number of calendar units, whose lengths differ: weeks, months, business days."""
    return isinstance(duration, pd.offsets.BaseOffset) and not isinstance(duration, _OF_ONE_LENGTH)


_OF_ONE_LENGTH = (pd.tseries.offsets.Tick, pd.offsets.Day)


def nominal_length(duration: pd.Timedelta | pd.offsets.BaseOffset) -> pd.Timedelta:
    """The length of a duration; of a calendar unit the nominal one."""
    if isinstance(duration, pd.Timedelta):
        return duration
    if isinstance(duration, pd.tseries.offsets.Tick) and not isinstance(duration, pd.offsets.Day):
        return cast(pd.Timedelta, pd.Timedelta(duration))  # pyright: ignore[reportArgumentType]
    name = type(duration).__name__
    for beginnings, length in _NOMINAL:
        if name.startswith(beginnings):
            return cast(pd.Timedelta, length * duration.n)
    if type(duration) is not pd.DateOffset:  # an offset of the user's own
        return cast(pd.Timedelta, (_MONDAY + duration) - _MONDAY)
    parts = duration.kwds or {"days": 1}
    one: Any = sum((_PARTS[name] * count for name, count in parts.items() if name in _PARTS), 0 * DAY)
    return one * duration.n


@functools.lru_cache(maxsize=256)
def _of_text(text: str) -> pd.Timedelta | pd.offsets.BaseOffset:
    words = re.findall(r"[A-Za-z]+", text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names of units that pandas gives up, such as "1d"
        if "m" not in words and "M" not in words:  # a minute or a month, depending on who reads it
            try:
                offset = pd.tseries.frequencies.to_offset(text)
                if words and offset is not None:
                    return offset
            except ValueError:
                pass
        is_of_words = bool(words) and all(word in _FIXED or word == "and" for word in words)
        if not (is_of_words or re.fullmatch(r"\d+:\d\d:\d\d(\.\d+)?", text.strip()) or re.match(r"P[\dT]", text)):
            raise ValueError(text)
        starts_with_word = words and text.strip() in _FIXED
        return _of_object(pd.Timedelta("1" + text.strip() if starts_with_word else text))


def _of_object(value: Any) -> pd.Timedelta | pd.offsets.BaseOffset:
    if isinstance(value, pd.offsets.BaseOffset):
        return value
    if isinstance(value, np.timedelta64) and not np.isnat(value):
        unit, count = np.datetime_data(value.dtype)
        if unit in ("M", "Y"):
            number = int(value.astype(np.int64)) * count
            return pd.DateOffset(months=number) if unit == "M" else pd.DateOffset(years=number)
        if unit == "generic":
            raise ValueError("a number without a unit")
    if not isinstance(value, datetime.timedelta | np.timedelta64):
        raise TypeError("no duration")
    duration = pd.Timedelta(value)
    if pd.isna(duration):
        raise ValueError("missing")
    return duration  # pyright: ignore[reportReturnType]
