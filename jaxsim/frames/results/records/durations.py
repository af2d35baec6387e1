"""How long things last: in calendar time where the bars have dates, and in bars (rules 8.5)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

#: What the title of a duration in bars ends with.
IN_BARS = " [bars]"


@dataclass(frozen=True, eq=False)
class Duration:
    """How long something lasts, by lane; NaN where there is nothing.

    bars: number of bars, [lane].       time: microseconds, [lane]; None for bars without dates.
    """

    bars: np.ndarray
    time: np.ndarray | None

    def shown(self, length: pd.Timedelta | None) -> pd.api.extensions.ExtensionArray | np.ndarray:
        """As durations; of bars without dates the bars times their length, and where it is unknown the bars."""
        if self.time is not None:
            known = ~np.isnan(self.time)
            whole = np.where(known, np.round(np.where(known, self.time, 0)), 0).astype(np.int64)
            return pd.Series(whole.astype("timedelta64[us]")).where(known).array
        if length is None:
            return self.bars
        fine = length.as_unit("us")  # in days or seconds a mean would be rounded
        return (pd.Series(self.bars) * (fine if fine == length else length)).array


def clock(index: pd.Index) -> np.ndarray | None:
    """The moment of each bar in microseconds, float64 [time]; None without dates."""
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if not isinstance(index, pd.DatetimeIndex):
        return None
    moments = index.as_unit("us").asi8
    return (moments - moments[0]).astype(np.float64)
