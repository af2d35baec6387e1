"""Market data: embedded prices for the examples, prices fetched from a public archive, and made-up ones.

`stocks()` is the OHLCV panel of the PyPI package `bokeh-sampledata` 2026.1. Its source is Quandl's WIKI Prices, which
their publisher declared public domain and free to copy and redistribute. The values are those of that source, without
any guarantee of accuracy. `stocks.LICENSE.txt` beside this file has the details; `scripts/build_stocks.py` rebuilds the
data from the pinned package.
"""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd

from jaxsim.datasets.binance_spot import binance
from jaxsim.datasets.made_up import made_up as made_up
from jaxsim.datasets.prices import Prices

__all__ = ["Prices", "binance", "made_up", "stocks"]

_STOCKS = Path(__file__).with_name("stocks.csv.gz")
_DTYPE = [
    ("symbol", "U4"),
    ("date", "U10"),
    ("open", "f8"),
    ("high", "f8"),
    ("low", "f8"),
    ("close", "f8"),
    ("volume", "f8"),
    ("adj_close", "f8"),
]


def stocks() -> Prices:
    """Daily prices in US dollars of AAPL, FB, GOOG, IBM and MSFT, 2000-03-01 to 2013-03-01 (3,270 bars).

    Open, high, low and close are **total-return adjusted**: each is scaled by the day's ratio of adjusted to raw close,
    so that prices include splits and dividends, and `close` is the source's adjusted close. The source adjusted after
    the end of the data (Apple's seven-for-one split of 2014 is included), so even the last prices differ from the
    quotes of the time. `volume` is the unadjusted number of shares traded on the day.

    GOOG is listed from 2004-08-19 and FB from 2012-05-18; before that all their fields are NaN. These five companies
    are known today to have done well (survivorship bias): use them to learn the tool, not to judge a strategy.

    Each call reads the file and returns new frames.
    """
    with gzip.open(_STOCKS, "rt", encoding="ascii") as file:
        # Unlike the float parser of pandas 2, NumPy rounds each decimal to the nearest double.
        rows = np.loadtxt(file, dtype=_DTYPE, delimiter=",", skiprows=1)
    symbols, column = np.unique(rows["symbol"], return_inverse=True)
    dates, bar = np.unique(rows["date"], return_inverse=True)
    index = pd.DatetimeIndex(pd.to_datetime(dates), name="date")
    columns = pd.Index(symbols.tolist(), name="symbol")

    def frame(values: np.ndarray) -> pd.DataFrame:
        panel = np.full((len(dates), len(symbols)), np.nan)
        panel[bar, column] = values
        return pd.DataFrame(panel, index=index.copy(), columns=columns.copy())

    adjustment = rows["adj_close"] / rows["close"]
    return Prices(
        open=frame(rows["open"] * adjustment),
        high=frame(rows["high"] * adjustment),
        low=frame(rows["low"] * adjustment),
        close=frame(rows["adj_close"]),
        volume=frame(rows["volume"]),
    )
