"""Candles ("klines") in the format of the exchange's archive, and the panel made from them."""

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from jaxsim.datasets.prices import Prices

FIELDS = ("open", "high", "low", "close", "volume")
_CANDLE = np.dtype([("time", "i8"), *((field, "f8") for field in FIELDS)])
_MICROSECONDS_FROM = 10**14  # smaller times are milliseconds (10**14 ms is the year 5138)


def read_klines(path: Path) -> np.ndarray:
    """The candles of one zip file: records of `time`, microseconds since 1970 in UTC, and the five fields.

    The file holds a table with twelve columns; the first six are the opening time and the five fields. Some files have
    a header. Times are milliseconds, from 2025 on microseconds; the size of the number tells which.
    Raises OSError for a file with other content.
    """
    try:
        with zipfile.ZipFile(path) as file:
            (name,) = file.namelist()
            text = file.read(name).decode("utf-8-sig")
        has_header = not text[:1].isdigit()
        lines = text.splitlines()[has_header:]
        # Unlike the float parser of pandas 2, NumPy rounds each decimal to the nearest double.
        candles = np.loadtxt(lines, dtype=_CANDLE, delimiter=",", usecols=range(6), ndmin=1) if lines else _nothing()
    except (ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise OSError(f"base_url: {path} is no zip file with one table of candles: {error}") from None
    candles["time"] *= np.where(candles["time"] < _MICROSECONDS_FROM, 1000, 1)
    return candles


def read_series(paths: Iterable[Path], first: int, last: int) -> np.ndarray:
    """The candles of all files that open from `first` to `last` (microseconds, both included), sorted and without
    duplicates: of two candles with the same time, the candle of the earlier file stays."""
    candles = np.concatenate([_nothing(), *map(read_klines, paths)])
    _, rows = np.unique(candles["time"], return_index=True)
    candles = candles[rows]
    return candles[(first <= candles["time"]) & (candles["time"] <= last)]


def panel(series: Mapping[str, np.ndarray]) -> Prices:
    """One column per symbol, one row per time at which at least one symbol has a candle; NaN for a missing candle."""
    times = np.unique(np.concatenate([candles["time"] for candles in series.values()]))
    index = pd.DatetimeIndex(pd.to_datetime(times, unit="us", utc=True), name="time")
    columns = pd.Index(list(series), name="symbol")

    def frame(field: str) -> pd.DataFrame:
        values = np.full((len(times), len(series)), np.nan)
        for i, candles in enumerate(series.values()):
            values[np.searchsorted(times, candles["time"]), i] = candles[field]
        return pd.DataFrame(values, index=index.copy(), columns=columns.copy())

    return Prices(**{field: frame(field) for field in FIELDS})


def _nothing() -> np.ndarray:
    return np.empty(0, _CANDLE)
