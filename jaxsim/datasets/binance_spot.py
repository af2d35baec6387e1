"""Spot prices of Binance from its public archive, described at https://github.com/binance/binance-public-data."""

import datetime
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.datasets.archive import Archive, cache_folder, require_pooch
from jaxsim.datasets.klines import panel, read_series
from jaxsim.datasets.prices import Prices

BASE_URL = "https://data.binance.vision"
INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1mo")
_MONTHLY_ONLY = ("3d", "1w", "1mo")
_OPENED = np.datetime64("2017-07", "M")  # first month of the exchange
_RECENT = 3  # months, the current one included, whose monthly files may still be missing
_DAY_MONTH_OR_YEAR = re.compile(r"\d{4}(-\d{2}){0,2}")


def binance(
    symbols: str | Sequence[str],
    interval: str,
    start: Any,
    end: Any = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    base_url: str = BASE_URL,
    progress: bool | None = None,
) -> Prices:
    """Spot prices of Binance, fetched from its public archive, verified by checksum and kept on disk.

    symbols: one pair or several, such as `"BTCUSDT"`; `"BTC/USDT"` and `"btc-usdt"` mean the same.
    interval: length of a bar: 1s, 1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h, 1d, 3d, 1w or 1mo (a month).
    start, end: opening times of the first and the last bar, both included. Times without a zone are in UTC. A text
        without a time of day, or a `datetime.date`, is a whole day, month or year: `end="2020-12-31"` and `end="2020"`
        include the last bar of 2020. Without `end`: up to the last archived day.
    cache: folder of the fetched files; by default the environment variable `JAXSIM_CACHE`, else the cache folder of
        the system.
    base_url: address of the archive, or of a mirror with the same files under the same paths.
    progress: whether to show a bar on the error stream; by default if that is a terminal.

    Returns frames [time, asset] in the quote currency (`volume` in the base asset), with times in UTC and one row per
    bar at which at least one pair has a candle. Bars are missing while the exchange was down. NaN means that a pair has
    no candle: before it was listed, after it was delisted, or in a gap.

    Whole months come from monthly files. Months without a monthly file are put together from daily files if they are
    between other months or among the latest three (not for 3d, 1w and 1mo, which have no daily files). A verified file
    is never fetched again, and an older month that the archive lacks is not asked for again. To get later corrections
    of the exchange, delete the folder.

    Needs the extra `data`. Raises ImportError without it, ValueError and TypeError for bad arguments and for pairs
    without any bar, ConnectionError if the archive cannot be reached and a file is not in the cache, and OSError for a
    file that twice does not match its checksum; verified files stay in the cache.
    """
    names = _read_symbols(symbols)
    if interval not in INTERVALS:
        raise ValueError(f"interval: {interval!r} is none of {', '.join(INTERVALS)} (1m is a minute, 1mo a month)")
    first, last = _read_time(start, "start"), _read_end(end)
    if first >= _today():
        raise ValueError(f"start: {start!r} is not archived yet; a day is on the day after")
    if last < first:
        raise ValueError(f"end: {end!r} is before start, {start!r}")
    require_pooch()
    archive = Archive(_read_url(base_url), cache_folder(cache) / "binance")
    files = _fetch(archive, names, interval, first, last, progress)
    series = {name: read_series(files[name], first.astype(int), last.astype(int)) for name in names}
    empty = [name for name in names if len(series[name]) == 0]
    if empty:
        raise ValueError(
            f"symbols: the archive has no bar of {', '.join(empty)} at {interval} from {first} to {last}; "
            "the name may be wrong, or the pair was not listed then"
        )
    return panel(series)


def _fetch(
    archive: Archive,
    names: list[str],
    interval: str,
    first: np.datetime64,
    last: np.datetime64,
    progress: bool | None,
) -> dict[str, list[Path]]:
    """The files of each pair, ascending in time."""
    today = _today()
    latest = _month(today)
    months = np.arange(_month(first), min(_month(last) + 1, latest))
    monthly = {name: {month: _path(name, interval, month, "monthly") for month in months} for name in names}
    file_of = archive.get_all((path for paths in monthly.values() for path in paths.values()), "months", progress)

    daily: dict[str, dict[np.datetime64, str]] = {name: {} for name in names}
    if interval not in _MONTHLY_ONLY:
        days = np.arange(first.astype("M8[D]"), min(last, today - 1).astype("M8[D]") + 1)  # a day is archived later
        for name in names:
            have = [month for month, path in monthly[name].items() if file_of[path]]
            lacking = [day for day in days if _may_have_days(_month(day), have, latest)]
            daily[name] = {day: _path(name, interval, day, "daily") for day in lacking}
    file_of |= archive.get_all((path for paths in daily.values() for path in paths.values()), "days", progress)

    files = {}
    for name in names:
        parts = sorted([*monthly[name].items(), *daily[name].items()])
        files[name] = [file for _, path in parts if (file := file_of[path]) is not None]
        if files[name]:  # the pair exists, so a missing older month does not come from a wrong name
            for part, path in parts:
                if file_of[path] is None and _month(part) <= latest - _RECENT:
                    archive.remember_absent(path)
    return files


def _may_have_days(month: np.datetime64, have: list[np.datetime64], latest: np.datetime64) -> bool:
    """Whether a month without a monthly file can have daily files: it is between other months, or recent."""
    if month in have:
        return False
    return bool(month > latest - _RECENT) or (len(have) > 0 and bool(have[0] < month < have[-1]))


def _path(name: str, interval: str, part: np.datetime64, kind: str) -> str:
    return f"data/spot/{kind}/klines/{name}/{interval}/{name}-{interval}-{part}.zip"


def _month(time: np.datetime64) -> np.datetime64:
    return time.astype("M8[M]")


def _today() -> np.datetime64:
    """The current day in UTC."""
    return np.datetime64(datetime.datetime.now(datetime.UTC).date())


def _read_symbols(symbols: Any) -> list[str]:
    if not isinstance(symbols, Iterable):
        raise TypeError(f"symbols: expected texts as 'BTCUSDT', got {symbols!r}")
    pairs = [symbols] if isinstance(symbols, str) else list(symbols)
    if not pairs:
        raise ValueError("symbols: expected at least one pair, as 'BTCUSDT'")
    names: list[str] = []
    for symbol in pairs:
        if not isinstance(symbol, str):
            raise TypeError(f"symbols: expected texts as 'BTCUSDT', got {symbol!r}")
        name = re.sub(r"^(\w+)[/_-](\w+)$", r"\1\2", symbol.strip()).upper()
        if not name.isalnum():
            raise ValueError(f"symbols: {symbol!r} is not a pair such as 'BTCUSDT' or 'BTC/USDT'")
        if name in names:
            raise ValueError(f"symbols: {name!r} is given twice")
        names.append(name)
    return names


def _read_time(time: Any, argument: str) -> np.datetime64:
    """A time in UTC, in microseconds, clipped to the range of the archive."""
    if not isinstance(time, str | datetime.date | np.datetime64):  # pandas would read numbers as nanoseconds
        raise TypeError(f"{argument}: expected a time such as '2020-01-31', got {time!r}")
    try:
        if isinstance(time, str) and not re.match(r"\s*\d{4}", time):
            raise ValueError("without a year, pandas takes 09:00 as a time of today")
        stamp: Any = pd.Timestamp(time)
    except (ValueError, TypeError):
        raise ValueError(f"{argument}: {time!r} is not a time such as '2020-01-31' or '2020-01-31 12:00'") from None
    if pd.isna(stamp):
        raise ValueError(f"{argument}: expected a time, got {time!r}")
    moment = (stamp if stamp.tz is None else stamp.tz_convert(None)).to_numpy().astype("M8[us]")
    return min(max(moment, _OPENED.astype("M8[us]")), _today().astype("M8[us]"))


def _read_end(end: Any) -> np.datetime64:
    if end is None:
        return _today().astype("M8[us]")
    time, unit = _read_time(end, "end"), "us"
    if isinstance(end, str) and _DAY_MONTH_OR_YEAR.fullmatch(end.strip()):
        unit = {4: "Y", 7: "M", 10: "D"}[len(end.strip())]
    elif isinstance(end, datetime.date) and not isinstance(end, datetime.datetime):
        unit = "D"
    return (time.astype(f"M8[{unit}]") + 1).astype("M8[us]") - 1  # the last moment of that unit


def _read_url(base_url: Any) -> str:
    if not isinstance(base_url, str) or not re.match(r"https?://\w", base_url):
        raise ValueError(f"base_url: expected an address such as {BASE_URL!r}, got {base_url!r}")
    return base_url.rstrip("/")
