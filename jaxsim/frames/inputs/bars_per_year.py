"""How long a bar is, and how many bars make a year (rules 13.1)."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import shown
from jaxsim.frames.inputs.durations import (
    DAY,
    HOUR,
    WEEK,
    YEAR,
    Duration,
    is_calendar,
    nominal_length,
    read_duration,
    read_length,
)

#: Fewer irregular bars than this do not tell how many make a year.
FEWEST = 30
#: Trading days of a year, of markets that are closed on weekends.
TRADING_DAYS = 252
#: The part of the stretch that bars fill where a market is always open.
_ALWAYS_OPEN = 0.98
#: Weeks, months, quarters and years by the lengths that they can have, in days; and how many a year has.
_CALENDAR = ((6.5, 7.5, YEAR / WEEK), (27, 32, 12.0), (88, 94, 4.0), (360, 370, 1.0))


@dataclass(frozen=True, eq=False)
class BarsPerYear:
    """What a run knows about how many of its bars make a year. Results that are cut from the run keep it.

    index: labels of all bars of the run.
    freq: length of a bar, as the user gave it.     year: length of a year.     given: bars per year. None: not given.
    """

    index: pd.Index
    freq: pd.Timedelta | pd.offsets.BaseOffset | None = None
    year: pd.Timedelta | None = None
    given: float | None = None

    def said(self, freq: Duration | None, year_freq: Duration | None, bars_per_year: Any) -> "BarsPerYear":
        """The same with other arguments, where they are given. Raises ValueError or TypeError naming the argument."""
        if freq is None and year_freq is None and bars_per_year is None:
            return self
        if year_freq is not None and bars_per_year is not None:
            raise ValueError("bars_per_year: it says what year_freq= and the length of a bar say; pass one of the two")
        return replace(
            self,
            freq=self.freq if freq is None else read_duration(freq, "freq"),
            year=self.year if year_freq is None else read_length(year_freq, "year_freq"),
            given=None if bars_per_year is None else read_bars_per_year(bars_per_year, "bars_per_year"),
        )

    @cached_property
    def bar(self) -> pd.Timedelta | None:
        """The length of every bar: as given, else the step of a regular index of dates; None where there is none."""
        if self.freq is not None:
            return nominal_length(self.freq)
        ticks = self._ticks
        return self._length(ticks[0]) if len(ticks) > 1 and (ticks == ticks[0]).all() else None

    @cached_property
    def known(self) -> float | None:
        """Bars per year; None where neither the arguments nor the index tell."""
        if self.given is not None:
            return self.given
        step = self._step
        if step is None:
            return None
        return self.year / step if self.year is not None else self._by_kind(step)

    def needed(self, by: str | None = None) -> float:
        """Bars per year. Raises ValueError that says what to pass, and what needs the number, if it is unknown."""
        if self.known is not None:
            return self.known
        reason = "" if by is None else f", which {by} needs"
        if self._times is None:
            raise ValueError(
                f"freq: the index does not tell how long a bar is{reason}; pass freq=, as in freq='1h', or "
                "bars_per_year="
            )
        raise ValueError(
            f"bars_per_year: {len(self.index)} bars at such times do not tell how many make a year{reason}; pass "
            "bars_per_year=, as in bars_per_year=252, or freq=, as in freq='1h'"
        )

    # --- what the index tells

    @cached_property
    def _times(self) -> pd.DatetimeIndex | None:
        index = self.index.to_timestamp() if isinstance(self.index, pd.PeriodIndex) else self.index
        return index if isinstance(index, pd.DatetimeIndex) else None

    @cached_property
    def _ticks(self) -> np.ndarray:
        """The steps from bar to bar, in units of the index."""
        return np.zeros(0, np.int64) if self._times is None else np.diff(self._times.asi8)

    def _length(self, ticks: Any) -> pd.Timedelta:
        return pd.Timedelta(np.timedelta64(int(ticks), self._times.unit))  # pyright: ignore

    def _count(self, days: float) -> float:
        """Days in units of the index."""
        return days * DAY / pd.Timedelta(np.timedelta64(1, self._times.unit))  # pyright: ignore

    @cached_property
    def _step(self) -> pd.Timedelta | None:
        """The length of a bar: as given, else the median step."""
        if self.freq is not None:
            return nominal_length(self.freq)
        if not len(self._ticks):
            return None
        middle = (len(self._ticks) - 1) // 2  # the lower one of two: a step that there is
        return self._length(np.partition(self._ticks, middle)[middle])

    def _by_kind(self, step: pd.Timedelta) -> float | None:
        """Bars per year by the kind of the index; None where there are too few bars of no kind."""
        times, ticks = self._times, self._ticks
        if times is None:
            return float(TRADING_DAYS) if self._is_of_business_days else YEAR / step
        on_weekends = bool((times.day_of_week >= 5).any())
        span = self._length(ticks.sum())
        if step < WEEK and on_weekends and len(ticks) * (step / DAY) >= _ALWAYS_OPEN * (span / DAY):
            return YEAR / step
        if abs(cast(pd.Timedelta, step - DAY)) <= HOUR and not on_weekends:  # an hour: clocks go forward and back
            return float(TRADING_DAYS)
        if step < DAY and not on_weekends and self._closes_overnight(step):
            return TRADING_DAYS * float(np.median(np.unique(self._dates, return_counts=True)[1]))
        for least, most, number in _CALENDAR:
            if least <= step / DAY <= most and self._is_the_rule(least, most):
                return YEAR / step if self._is_of_one_length else number
        if len(times) >= FEWEST:
            return len(ticks) * (YEAR / span)
        return None if self.freq is None else YEAR / step

    def _is_the_rule(self, least: float, most: float) -> bool:
        """Whether bars are so many days apart as a rule: the user says so, or half of the steps are, to within a day.
        The median step of dates of no kind may be of that length by chance."""
        ticks = self._ticks
        near = (ticks >= self._count(least - 1)) & (ticks <= self._count(most + 1))
        return self.freq is not None or bool(near.mean() >= 0.5)

    @property
    def _is_of_one_length(self) -> bool:
        """Whether bars are equally far apart, which calendar months and years are not."""
        ticks = self._ticks
        return not is_calendar(self.freq) and len(ticks) > 3 and bool((ticks == ticks[0]).all())

    @property
    def _is_of_business_days(self) -> bool:
        return isinstance(self.freq, pd.offsets.BusinessDay) and self.freq.n == 1

    @property
    def _dates(self) -> np.ndarray:
        """The date of each bar, in the time zone of the index, as a number."""
        return self._times.tz_localize(None).normalize().asi8  # pyright: ignore[reportOptionalMemberAccess]

    def _closes_overnight(self, step: pd.Timedelta) -> bool:
        """Whether the last bar of a date is, as a rule, well over one step before the first bar of the next date."""
        over_night = self._ticks[np.diff(self._dates) != 0]
        return len(over_night) > 0 and self._length(np.median(over_night)) > 1.5 * step


def read_bars_per_year(value: Any, argument: str) -> float:
    """Raises TypeError or ValueError naming the argument for what is no finite number > 0."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{argument}: expected a number of bars, as 252 or 8760, got {shown(value)}"[:200])
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{argument}: expected a finite number > 0, as 252 or 8760, got {value}")
    return float(value)
