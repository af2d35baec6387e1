"""Values of series at each bar, out of that bar and the bars before it. One code for NumPy and JAX; the first axis is
time."""

from typing import Any

import numpy as np

from jaxsim.engine.base.arrays import namespace
from jaxsim.engine.metrics import nan_statistics as nanstats
from jaxsim.engine.metrics.nan_statistics import divide, root
from jaxsim.engine.metrics.rolling import over_time, rolling


def carried(x: Any) -> Any:
    """x with NaN replaced by the last known value; NaN before the first one."""
    xp = namespace(x)
    place = xp.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1))
    last = nanstats.running_max(xp.where(xp.isnan(x), -1, place))
    return xp.where(last < 0, np.nan, xp.take_along_axis(x, xp.maximum(last, 0), axis=0))


def lagged(x: Any, bars: int) -> Any:
    """The values of `bars` bars ago; NaN at the first bars."""
    xp = namespace(x)
    blank = xp.full((min(bars, len(x)), *x.shape[1:]), np.nan, x.dtype)
    return xp.concatenate([blank, x[: len(x) - len(blank)]])


def relative_change(a: Any, b: Any) -> Any:
    """a / b - 1; NaN where a or b is NaN, or b is zero."""
    return divide(a, b, np.nan) - 1


def change(x: Any, bars: int) -> Any:
    """Simple return over the last `bars` bars."""
    return relative_change(x, lagged(x, bars))


@over_time
def _mean(x: Any) -> Any:
    return nanstats.mean(x, ~namespace(x).isnan(x))


@over_time
def _std(x: Any) -> Any:
    return nanstats.std(x, ~namespace(x).isnan(x), ddof=1)


@over_time
def _max(x: Any) -> Any:
    return namespace(x).max(x, axis=0)


#: Mean, standard deviation (ddof 1) and maximum of the last `window` bars; NaN where one of them is NaN.
trailing_mean, trailing_std, trailing_max = rolling(_mean), rolling(_std), rolling(_max)


def running_moments(x: Any) -> tuple[Any, Any, Any]:
    """Mean, standard deviation (ddof 1) and number of the values known so far, NaN skipped.

    Sums of distances from the first known value: what comes later must not enter, not even by rounding, and of a
    constant series the deviation is exactly zero.
    """
    xp = namespace(x)
    known = ~xp.isnan(x)
    first = xp.take_along_axis(x, xp.argmax(known, axis=0)[None], axis=0)
    distance = xp.where(known, x - first, 0)
    count = xp.cumsum(known, axis=0).astype(x.dtype)
    mean = divide(xp.cumsum(distance, axis=0), count, np.nan)
    squares = xp.cumsum(distance**2, axis=0) - count * xp.where(count > 0, mean, 0) ** 2
    free = xp.where(count > 1, count - 1, np.nan)
    return first + mean, root(divide(xp.maximum(squares, 0), free, np.nan)), count


def standardized(x: Any, mean: Any, std: Any) -> Any:
    """(x - mean) / std; 0 where nothing has ever varied; NaN where anything is."""
    xp = namespace(x)
    return xp.where(xp.isnan(x), np.nan, divide(x - mean, std, 0.0))


def across_assets(x: Any) -> tuple[Any, Any]:
    """Mean and standard deviation (ddof 1) over the last axis, NaN skipped; [..., 1]."""
    turned = namespace(x).moveaxis(x, -1, 0)
    known = ~namespace(x).isnan(turned)
    return nanstats.mean(turned, known)[..., None], nanstats.std(turned, known, ddof=1)[..., None]
