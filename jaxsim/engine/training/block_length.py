"""How long the blocks of a bootstrap should be."""

from typing import Any

import numpy as np


def optimal_block_length(returns: Any) -> np.ndarray:
    """The mean block length of the stationary bootstrap that estimates the variance of a mean best (Politis and White,
    Automatic Block-Length Selection for the Dependent Bootstrap, 2004, section 3.2, with the correction of Patton,
    Politis and White, 2009, equation 5): (2 G**2 / D)**(1/3) * T**(1/3).

    returns: [time] or [time, series], without NaN; at least 10 bars.

    Returns one length, in bars, for each series, float64, 0-d or [series]; at least 1, at most min(3 sqrt(T), T / 3)
    rounded up. A market of several assets needs one length: take the mean or the largest. What is hardly correlated in
    time has a length near 1; squared returns, whose clusters matter to volatility, have far longer ones.

    Raises ValueError naming the argument for too few or unknown returns, or a series that never changes.
    """
    values = np.asarray(returns, np.float64)
    if values.ndim not in (1, 2) or len(values) < 10:
        raise ValueError(f"returns: expected [time] or [time, series] with at least 10 bars, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("returns: expected finite numbers; drop bars without a return first")
    columns = values.reshape(len(values), -1)
    if (np.ptp(columns, axis=0) == 0).any():
        raise ValueError("returns: a series that never changes has no block length")
    return np.array([_length(column) for column in columns.T]).reshape(values.shape[1:])


def _length(x: np.ndarray) -> float:
    count = len(x)
    in_a_row = max(5, int(np.ceil(np.sqrt(np.log10(count)))))
    most_lags = min(int(np.ceil(np.sqrt(count))) + in_a_row, count - 1)
    spread = x - x.mean()
    covariance = np.array([spread[lag:] @ spread[: count - lag] for lag in range(most_lags + 1)]) / count
    # The last lag after which so many in a row are insignificant.
    bound = 2 * np.sqrt(np.log10(count) / count)
    is_small = np.abs(covariance[1:] / covariance[0]) < bound
    runs = np.lib.stride_tricks.sliding_window_view(is_small, min(in_a_row, len(is_small))).all(axis=1)
    if runs.any():
        last = int(np.argmax(runs))
    else:  # none: the last that is significant at all
        significant = np.flatnonzero(~is_small)
        last = int(significant[-1]) + 1
    bandwidth = min(2 * max(last, 1), most_lags)
    lags = np.arange(1, bandwidth + 1)
    flat_top = np.clip(2 * (1 - lags / bandwidth), 0, 1)  # 1 up to half of the bandwidth, then down to 0
    weighted = flat_top * covariance[1 : bandwidth + 1]
    g = 2 * (lags * weighted).sum()
    d = 2 * (covariance[0] + 2 * weighted.sum()) ** 2
    most = np.ceil(min(3 * np.sqrt(count), count / 3))
    length = (2 * g**2 / d) ** (1 / 3) * count ** (1 / 3) if d > 0 else most
    return float(np.clip(length, 1, most))
