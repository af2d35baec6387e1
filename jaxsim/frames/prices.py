"""Prices in: checked frames become the arrays of a `Market`, with gaps filled the way SEMANTICS 4.3 and 6.2 say."""

import numpy as np


def forward_fill(x: np.ndarray) -> np.ndarray:
    """Each NaN along the first axis becomes the last number before it."""
    if not np.isnan(x).any():
        return x
    rows = np.arange(len(x))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(x), 0, rows), axis=0)
    return np.take_along_axis(x, last, axis=0)


def valuation_prices(close: np.ndarray, open: np.ndarray | None) -> np.ndarray:
    """The price that each asset is valued at when a bar begins: its open, else the last price known before.

    close, open: [time, asset]. Returns [time, asset], NaN before the first price.
    """
    known = np.empty((2 * len(close), close.shape[1]))
    known[0::2] = np.nan if open is None else open
    known[1::2] = close
    return forward_fill(known)[0::2]


def mark_prices(close: np.ndarray, open: np.ndarray | None) -> np.ndarray:
    """The price that each asset is marked at when a bar ends: the last close known. An asset that has had an open
    but no close yet is marked at that, not at a later close, so that no value looks ahead."""
    mark = forward_fill(close)
    if np.isnan(mark).any():
        mark = np.where(np.isnan(mark), valuation_prices(close, open), mark)
    return mark
