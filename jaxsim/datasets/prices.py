"""A panel of prices, the result of a data set."""

from dataclasses import dataclass
from typing import final

import pandas as pd


@final
@dataclass(frozen=True, eq=False, repr=False)
class Prices:
    """Open, high, low, close and volume, each a float64 DataFrame [time, asset] with the same labels.

    NaN means that an asset had no price, for example before it was listed. The caller may change the frames.
    """

    open: pd.DataFrame
    """First traded price of the bar, in units of currency."""
    high: pd.DataFrame
    """Highest traded price of the bar, in units of currency."""
    low: pd.DataFrame
    """Lowest traded price of the bar, in units of currency."""
    close: pd.DataFrame
    """Last traded price of the bar, in units of currency."""
    volume: pd.DataFrame
    """Units traded during the bar."""

    def __repr__(self) -> str:
        assets = ", ".join(map(str, self.close.columns))
        ends = " to ".join(self.close.index[[0, -1]].astype(str))
        return f"Prices({assets}: {ends}, {len(self.close)} bars)"
