"""Assets that leave the market: when, at which price, and when they return (rules 12.5). It is worked out once, from
the whole table of prices; a bar depends on no later one."""

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import PRICE, is_whole, shown, whole_number
from jaxsim.frames.inputs.durations import Duration, read_length
from jaxsim.frames.inputs.prices import PriceFrames, forward_fill, mark_prices

#: How long an asset has no price before it is taken for delisted: bars, a duration, both of them, or None for never.
Stale = int | Duration | tuple[int, Duration] | None
#: When assets leave: by asset a date, or a date and the price that is paid out; or "hold" for never.
Delistings = Mapping[Any, Any] | pd.Series | str | None

#: The default of `stale=`: both of these.
STALE: tuple[int, str] = (10, "7D")
HOLD = "hold"


@dataclass(frozen=True, eq=False)
class Departures:
    """Which assets are out of the market at which bars.

    gone: bool [time, column], from the bar at which an asset is closed to that before its prices return.
    payouts: by column and bar of closing the price that is paid, where it is not the last close.
    is_announced: whether a run warns of assets that leave while they are held or wanted.
    """

    gone: np.ndarray
    payouts: Mapping[tuple[int, int], float] = field(default_factory=dict)
    is_announced: bool = True

    @cached_property
    def columns(self) -> np.ndarray:
        """The columns that are ever gone."""
        return np.flatnonzero(self.gone.any(axis=0)) if self.gone.any() else np.zeros(0, int)

    def closings(self) -> list[tuple[int, int]]:
        """Column and bar of each closing, by column."""
        begins = self.gone & ~np.vstack([self.gone[:1], self.gone[:-1]])
        return [(int(column), int(bar)) for column, bar in np.argwhere(begins.T)]

    def listings(self, column: int) -> list[tuple[int, int]]:
        """The stretches of bars [begin, end) at which a column is in the market."""
        edges = np.flatnonzero(np.diff(np.concatenate([[True], self.gone[:, column], [True]]).astype(np.int8)))
        return [(int(begin), int(end)) for begin, end in zip(edges[::2], edges[1::2], strict=True)]

    def by_listing(self, make: Callable, close: np.ndarray, open: np.ndarray | None, of_gone: float) -> np.ndarray:
        """`make(close, open)`, [time, column], where no price outlives the listing that it is of.

        of_gone: what stands at the bars at which an asset is gone.
        """
        table = make(close, open)
        if not len(self.columns):
            return table
        table = table.copy()
        for column in self.columns:
            table[self.gone[:, column], column] = of_gone
            for begin, end in self.listings(column):
                part = (slice(begin, end), slice(column, column + 1))
                table[part] = make(close[part], None if open is None else open[part])
        return table

    def until(self, stop: int) -> "Departures":
        """The same, but nothing leaves or returns from a bar on."""
        if stop >= len(self.gone):
            return replace(self, is_announced=False)
        gone = self.gone.copy()
        gone[stop:] = gone[stop - 1]
        return replace(self, gone=gone, is_announced=False)


def with_departures(prices: PriceFrames, assets: pd.Index, stale: Stale, delistings: Delistings) -> PriceFrames:
    """Prices without those of assets that have left the market, and the bars at which they are gone.

    assets: the name of each column.
    stale, delistings: as users say them; `delistings` may also be the `Departures` that have been worked out.

    Raises TypeError or ValueError that begins with `stale` or `delistings`.
    """
    if isinstance(delistings, Departures):
        return _without_gone(prices, delistings)
    least_bars, least_time = _read_stale(stale)
    if isinstance(delistings, str):
        if delistings != HOLD:
            raise ValueError(f"delistings: expected asset -> date, or 'hold' to hold what leaves, got {delistings!r}")
        return prices
    dated = _read_delistings(delistings, prices, assets)
    quoted = _quoted(prices)
    gone, payouts = np.zeros(prices.close.shape, bool), {}
    if not quoted.all() and (least_bars is not None or least_time is not None):
        gone = _stale_bars(quoted, prices.index, least_bars, least_time)
    for column, (bar, payout) in dated.items():
        gone[:bar, column] = False  # until its date an asset is known not to be delisted
        if bar < len(gone):
            listed_again = np.flatnonzero(quoted[bar:, column] & (np.cumsum(~quoted[bar:, column]) > 0))
            until = bar + listed_again[0] if len(listed_again) else len(gone)
            gone[bar:until, column] = True
            if payout is not None:
                payouts[column, bar] = payout
    return _without_gone(prices, Departures(gone, payouts))


def _without_gone(prices: PriceFrames, departures: Departures) -> PriceFrames:
    if not len(departures.columns):
        return replace(prices, departures=departures)
    gone = departures.gone

    def blank(table: np.ndarray | None) -> np.ndarray | None:
        return None if table is None else np.where(gone, np.nan, table)

    close, open = blank(prices.close), blank(prices.open)
    assert close is not None
    mark = departures.by_listing(mark_prices, close, open, np.nan)
    for column, bar in departures.closings():
        mark[bar, column] = departures.payouts.get((column, bar), mark[bar - 1, column])
    filled = forward_fill(mark)
    mark = np.where(gone, filled, mark)
    return replace(prices, close=close, open=open, price=blank(prices.price), mark=mark, departures=departures)


def prices_by_listing(prices: PriceFrames, make: Callable, of_gone: float) -> np.ndarray:
    """`make(close, open)`, [time, column], where no price outlives the listing that it is of; see `Departures`."""
    if prices.departures is None:
        return make(prices.close, prices.open)
    return prices.departures.by_listing(make, prices.close, prices.open, of_gone)


def carried_prices(close: np.ndarray, open: np.ndarray | None) -> np.ndarray:
    """Where a valuation price is older than the close of the bar before, bool [time, column]: there is neither an open
    of the bar nor that close."""
    lacks_close = np.vstack([np.ones((1, close.shape[1]), bool), np.isnan(close[:-1])])
    return lacks_close if open is None else lacks_close & np.isnan(open)


def closes_of_holder(prices: PriceFrames) -> np.ndarray:
    """The closes of somebody who buys once and holds, [time, column]: what has left stays at what was paid out."""
    departures = prices.departures
    if departures is None or not len(departures.columns):
        return prices.close
    close, closings = prices.close.copy(), departures.closings()
    for column, bar in reversed(closings):  # the first one of a column counts
        close[bar:, column] = prices.mark[bar, column]
    return close


def _quoted(prices: PriceFrames) -> np.ndarray:
    """Which assets have any price at which bars."""
    quoted = ~np.isnan(prices.close)
    for table in (prices.open, prices.price):
        if table is not None and not quoted.all():
            quoted |= np.isfinite(table)
    return quoted


def _stale_bars(
    quoted: np.ndarray, index: pd.Index, least_bars: int | None, least_time: pd.Timedelta | None
) -> np.ndarray:
    """The bars at which assets are gone since they have had no price for long enough: from the bar after that at which
    this is so to that before the next price."""
    bars = np.arange(len(quoted))[:, None]
    last = np.maximum.accumulate(np.where(quoted, bars, -1), axis=0)
    is_stale = last >= 0
    if least_bars is not None:
        is_stale &= bars - last >= least_bars
    times = _times(index)
    if least_time is not None and times is not None:
        is_stale &= times[:, None] - times[np.maximum(last, 0)] >= least_time.value
    elif least_bars is None:
        raise ValueError("stale: the index of close has no dates; say it in bars, as in stale=10")
    before = np.vstack([np.zeros((1, quoted.shape[1]), bool), is_stale[:-1]])
    return before & ~quoted


def _times(index: pd.Index) -> np.ndarray | None:
    """The time of each bar in nanoseconds; None without dates."""
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if not isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex):
        return None
    return index.as_unit("ns").asi8


def _read_stale(stale: Any) -> tuple[int | None, pd.Timedelta | None]:
    if stale is None:
        return None, None
    if isinstance(stale, tuple):
        if len(stale) != 2 or isinstance(stale[1], int | float):
            raise ValueError(f"stale: expected bars and a duration, as in stale=(10, '7D'), got {shown(stale)}"[:200])
        return whole_number(stale[0], "stale"), read_length(stale[1], "stale")
    kinds = int | np.integer | str | datetime.timedelta | np.timedelta64 | pd.offsets.BaseOffset
    if isinstance(stale, bool) or not isinstance(stale, kinds):
        raise TypeError(
            f"stale: expected bars, a duration, both as in stale=(10, '7D'), or None, got {shown(stale)}"[:200]
        )
    if is_whole(stale):
        return whole_number(stale, "stale"), None
    return None, read_length(stale, "stale")


def _read_delistings(value: Any, prices: PriceFrames, assets: pd.Index) -> dict[int, tuple[int, float | None]]:
    """By column the bar at which it is closed, the number of bars if that is later, and the payout if it was said."""
    if value is None:
        return {}
    if isinstance(value, pd.Series):
        value = value.to_dict()
    if not isinstance(value, Mapping):
        raise TypeError(f"delistings: expected asset -> date, as a dict, or 'hold', got {shown(value)}"[:200])
    dated: dict[int, tuple[int, float | None]] = {}
    for asset, entry in value.items():
        date, payout = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, None)
        if pd.api.types.is_scalar(date) and bool(pd.isna(date)):  # pyright: ignore[reportGeneralTypeIssues]
            continue
        if asset in prices.columns:
            columns = np.atleast_1d(np.arange(len(assets))[prices.columns.get_loc(asset)])
        else:
            columns = np.flatnonzero(assets == asset)
        if not len(columns):
            raise ValueError(f"delistings: close has no asset {asset!r}; it has {list(assets.unique()[:5])}")
        bar, number = _bar_of(date, prices.index, asset), _read_payout(payout, asset)
        if bar is not None:
            dated |= {int(column): (bar, number) for column in columns}
    return dated


def _bar_of(date: Any, index: pd.Index, asset: Any) -> int | None:
    """The first bar at or after a date; None before the first bar."""
    try:
        label: Any = date
        if isinstance(index, pd.PeriodIndex):
            index = index.to_timestamp()
        if isinstance(index, pd.DatetimeIndex):
            if isinstance(date, int | float):
                raise TypeError
            label = pd.Timestamp(date)
            if index.tz is not None and label.tz is None:
                label = label.tz_localize(index.tz)
        return None if label < index[0] else int(index.searchsorted(label, side="left"))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"delistings: {asset!r} has {shown(date)}, which is no date of the index of close; expected asset -> date "
            "or (date, price)"[:200]
        ) from error


def _read_payout(payout: Any, asset: Any) -> float | None:
    if payout is None:
        return None
    is_number = isinstance(payout, int | float | np.number) and not isinstance(payout, bool)
    if not is_number or not 0 <= float(payout) <= PRICE.high:
        raise ValueError(f"delistings: the price paid for {asset!r} must be a finite number >= 0, got {shown(payout)}")
    return float(payout)
