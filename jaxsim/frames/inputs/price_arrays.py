"""Prices in: checked frames become the arrays of a `Market`, with gaps filled the way rules 4.3 and 6.2 say."""

import numpy as np


def forward_fill(x: np.ndarray) -> np.ndarray:
    """Each NaN along the first axis becomes the last number before it."""
    if not np.isnan(x).any():
        return x
    rows = np.arange(len(x))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(x), 0, rows), axis=0)
    return np.take_along_axis(x, last, axis=0)


def valuation_prices(close: np.ndarray, open: np.ndarray | None, ffill: bool = True) -> np.ndarray:
    """The price that each asset is valued at when a bar begins: its open, else the last price known before.

    close, open: [time, asset].     ffill: whether a price outlives a bar without one; else it must be this bar's open,
        or without opens the close of the bar before.
    Returns [time, asset], NaN before the first price.
    """
    if not ffill:
        return previous(close) if open is None else open
    if open is not None and not np.isnan(open).any():
        return open
    if open is None and not np.isnan(close).any():
        return previous(close)
    return forward_fill(_half_bars(close, open))[0::2]


def priced_at(close: np.ndarray, open: np.ndarray | None, ffill: bool = True) -> np.ndarray:
    """When each valuation price was known, in half bars: 2t for the open of bar t, 2t + 1 for its close; int32."""
    half_bars = np.arange(2 * len(close), dtype=np.int32)[:, None]
    if not ffill:
        return np.broadcast_to(half_bars[0::2], close.shape).copy()
    known = np.where(np.isnan(_half_bars(close, open)), -1, half_bars)
    return np.maximum.accumulate(known, axis=0)[0::2]


def _half_bars(close: np.ndarray, open: np.ndarray | None) -> np.ndarray:
    """Opens and closes in the order in which they become known, [2 time, asset]."""
    known = np.empty((2 * len(close), close.shape[1]))
    known[0::2] = np.nan if open is None else open
    known[1::2] = close
    return known


def previous(close: np.ndarray) -> np.ndarray:
    """The close of the bar before; NaN at the first."""
    return np.concatenate([np.full((1, close.shape[1]), np.nan), close[:-1]])


def execution_prices(price: np.ndarray | None, close: np.ndarray, open: np.ndarray | None) -> np.ndarray:
    """The price that orders execute at: +inf means the close, -inf the open, or without opens the close of the bar
    before (rules 4.3d).

    price: broadcasts to [time, asset]; None: the close.
    """
    if price is None:
        return close
    price = np.where(price == np.inf, close, price)
    if (price == -np.inf).any():
        price = np.where(price == -np.inf, previous(close) if open is None else open, price)
    return price


def mark_prices(close: np.ndarray, open: np.ndarray | None) -> np.ndarray:
    """The price that each asset is marked at when a bar ends: the last close known. An asset that has had an open
    but no close yet is marked at that, not at a later close, so that no value looks ahead."""
    mark = forward_fill(close)
    if np.isnan(mark[0]).any():
        mark = np.where(np.isnan(mark), valuation_prices(close, open), mark)
    return mark
