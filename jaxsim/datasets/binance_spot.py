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
_OPENED = np.datetime64("2017-07", "M")  # the exchange; nothing is asked for before
_RECENT = 3  # months, the current one included, that the archive may not have finished
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

    symbols: one pair or several, as `"BTCUSDT"`; `"BTC/USDT"`, `"btc-usdt"` and the like mean the same.
    interval: length of a bar: 1s, 1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h, 1d, 3d, 1w or 1mo (a month).
    start, end: the first and the last bar, both included, by the times at which bars open. Times without a zone are
        in UTC. A text without a time of day, and a `datetime.date`, is a whole day, month or year: `end="2020-12-31"`
        and `end="2020"` include the last bar of 2020. Without `end`: up to the last day that is archived.
    cache: folder to keep the files in; by default that of the environment variable `JAXSIM_CACHE`, else the system's
        place for caches.
    base_url: where the archive is; a mirror has the same files under the same paths.
    progress: whether to show a bar on the error stream; by default where that is a terminal.

    Returns frames [time, asset] in the quote currency (`volume` in the base asset), one row per bar at which any of
    the pairs has a candle, times in UTC. Bars are missing while the exchange was down; NaN stands where a pair has
    no candle: before it was listed, after it was delisted, in gaps of its own.

    Whole months come from monthly files. Months without one that lie between others, or are among the latest three,
    are put together from daily files (not for 3d, 1w and 1mo, which have none). A file that is complete and verified
    is never asked for again, nor is an older month that the archive did not have; to see later corrections by the
    exchange, delete the folder.

    Needs the extra `data`. Raises ImportError without it, ValueError and TypeError for bad arguments and for pairs
    without any bar, ConnectionError where the archive cannot be reached and the cache does not have the file, and
    OSError for a file that twice does not match its checksum; what was complete by then stays.
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
    """The files of each pair, in order of time."""
    today = _today()
    latest = _month(today)
    months = np.arange(_month(first), min(_month(last) + 1, latest))
    monthly = {name: {month: _path(name, interval, month, "monthly") for month in months} for name in names}
    found = archive.get_all((path for paths in monthly.values() for path in paths.values()), "months", progress)

    daily: dict[str, dict[np.datetime64, str]] = {name: {} for name in names}
    if interval not in _MONTHLY_ONLY:
        days = np.arange(first.astype("M8[D]"), min(last, today - 1).astype("M8[D]") + 1)  # today's comes tomorrow
        for name in names:
            have = [month for month, path in monthly[name].items() if found[path]]
            lacking = [day for day in days if _may_have_days(_month(day), have, latest)]
            daily[name] = {day: _path(name, interval, day, "daily") for day in lacking}
    found |= archive.get_all((path for paths in daily.values() for path in paths.values()), "days", progress)

    files = {}
    for name in names:
        parts = sorted([*monthly[name].items(), *daily[name].items()])
        files[name] = [file for _, path in parts if (file := found[path]) is not None]
        if files[name]:  # the pair exists, so that what it lacks in older months is no slip of the pen
            for part, path in parts:
                if found[path] is None and _month(part) <= latest - _RECENT:
                    archive.remember_absent(path)
    return files


def _may_have_days(month: np.datetime64, have: list[np.datetime64], latest: np.datetime64) -> bool:
    """Whether a month without a monthly file can have daily ones: a gap between others, or not finished yet."""
    if month in have:
        return False
    return bool(month > latest - _RECENT) or (len(have) > 0 and bool(have[0] < month < have[-1]))


def _path(name: str, interval: str, part: np.datetime64, kind: str) -> str:
    return f"data/spot/{kind}/klines/{name}/{interval}/{name}-{interval}-{part}.zip"


def _month(time: np.datetime64) -> np.datetime64:
    return time.astype("M8[M]")


def _today() -> np.datetime64:
    """The day that it is in UTC."""
    return np.datetime64(datetime.datetime.now(datetime.UTC).date())


def _read_symbols(symbols: Any) -> list[str]:
    if not isinstance(symbols, Iterable):
        raise TypeError(f"symbols: expected texts as 'BTCUSDT', got {symbols!r}")
    given = [symbols] if isinstance(symbols, str) else list(symbols)
    if not given:
        raise ValueError("symbols: expected at least one pair, as 'BTCUSDT'")
    names: list[str] = []
    for symbol in given:
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
    """Microseconds in UTC, moved to the ends of what can be archived."""
    if not isinstance(time, str | datetime.date | np.datetime64):  # numbers would be nanoseconds
        raise TypeError(f"{argument}: expected a time such as '2020-01-31', got {time!r}")
    try:
        if isinstance(time, str) and not re.match(r"\s*\d{4}", time):
            raise ValueError("without a year, 09:00 would be that of today")
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
