"""Features of prices for a policy to look at, each known at the open of its bar.

Features of closes are lagged by one bar: row t depends on the closes up to bar t - 1 and on none later, so that the
table can be passed as `features=`. A missing close counts as the last one known. Rows without enough history are NaN.

DataFrames and Series give the same with their labels, computed in float64. NumPy and JAX arrays [time, ...] give
arrays in their dtype, so that features of resampled prices can be computed under `jax.jit` and `jax.vmap`.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.arrays import namespace, refuse_masked
from jaxsim.engine.base.fields import shown, whole_number
from jaxsim.engine.metrics import trailing
from jaxsim.engine.metrics.nan_statistics import as_float, divide
from jaxsim.engine.metrics.trailing import carried, change, lagged, relative_change
from jaxsim.frames.inputs.prices import FEATURE, align, as_frame, check_index

__all__ = [
    "average_crossover", "cross_zscore", "drawdown_from_high", "gap", "lag", "momentum", "moving_average",
    "price_to_average", "returns", "rsi", "stack", "volatility", "zscore",
]  # fmt: skip


def _by_bar(*names: str) -> Callable:
    """Decorates a formula on arrays, so that its arguments of these names may be tables, and its result is then one.

    A second series is aligned with the first by label. All other arguments must be whole numbers, as they are shapes.
    """

    def decorate(formula: Callable) -> Callable:
        signature = inspect.signature(formula)

        @functools.wraps(formula)
        def feature(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            for name, value in bound.arguments.items():
                if name not in names and not (value is None and signature.parameters[name].default is None):
                    bound.arguments[name] = whole_number(value, name, 0 if name in ("skip", "bars") else 1)
            series = [bound.arguments[name] for name in names]
            first = series[0]
            if not isinstance(first, pd.DataFrame | pd.Series):
                bound.arguments.update(zip(names, _arrays(series, names), strict=True))
                with np.errstate(all="ignore"):
                    return formula(*bound.args, **bound.kwargs)
            tables = [_table(x, first, name) for x, name in zip(series, names, strict=True)]
            bound.arguments.update({name: x.to_numpy() for name, x in zip(names, tables, strict=True)})
            with np.errstate(all="ignore"):
                out = formula(*bound.args, **bound.kwargs)
            if isinstance(first, pd.Series):
                return pd.Series(out[:, 0], first.index, name=first.name)
            return pd.DataFrame(out, first.index, first.columns)

        return feature

    return decorate


def _table(value: Any, first: pd.DataFrame | pd.Series, name: str) -> pd.DataFrame:
    """A checked float64 DataFrame with the labels of the first one. Raises TypeError or ValueError naming it."""
    frame = as_frame(value, name)
    check_index(frame.index, name)
    for column, dtype in frame.dtypes.items():
        if getattr(dtype, "kind", "O") not in "biuf":
            raise TypeError(f"{name}: the column {column!r} is not numeric")
    return align(frame.astype(np.float64), as_frame(first, name), name)


def _arrays(values: list[Any], names: tuple[str, ...]) -> list[Any]:
    """The values as arrays of floats, all of one shape. Raises TypeError or ValueError naming the first other one."""
    xp, arrays = namespace(*values), []
    for value, name in zip(values, names, strict=True):
        if isinstance(value, pd.DataFrame | pd.Series) or not hasattr(value, "dtype"):
            raise TypeError(f"{name}: expected a DataFrame, a Series or an array [time, ...], got {shown(value)}"[:200])
        refuse_masked(value, name)
        array = as_float(value, xp)
        if array.ndim == 0 or len(array) == 0 or array.shape != np.shape(values[0]):
            raise ValueError(f"{name}: expected [time, ...], at least one bar and all alike, got shape {array.shape}")
        arrays.append(array)
    return arrays


# --- of prices, lagged by one bar


@_by_bar("close")
def returns(close: Any, window: int = 1) -> Any:
    """Simple return over the last `window` bars: close[t-1] / close[t-1-window] - 1."""
    return lagged(change(carried(close), window), 1)


@_by_bar("close")
def momentum(close: Any, window: int, skip: int = 0) -> Any:
    """Simple return over `window` bars that ended `skip` bars before the last close; skipping the latest month is the
    custom of N. Jegadeesh and S. Titman, Journal of Finance 48 (1993), 65-91."""
    return lagged(change(carried(close), window), 1 + skip)


@_by_bar("close")
def volatility(close: Any, window: int) -> Any:
    """Standard deviation (ddof 1) of the last `window` simple returns per bar, `window` >= 2; not annualised."""
    if window < 2:
        raise ValueError(f"window: expected at least 2 returns for a standard deviation, got {window}")
    return lagged(trailing.trailing_std(change(carried(close), 1), window=window), 1)


@_by_bar("close")
def moving_average(close: Any, window: int) -> Any:
    """Mean of the last `window` closes; currency."""
    return lagged(trailing.trailing_mean(carried(close), window=window), 1)


@_by_bar("close")
def price_to_average(close: Any, window: int) -> Any:
    """Last close / mean of the last `window` closes - 1. Of volumes: how busy the last bar was."""
    prices = carried(close)
    return lagged(relative_change(prices, trailing.trailing_mean(prices, window=window)), 1)


@_by_bar("close")
def average_crossover(close: Any, fast: int, slow: int) -> Any:
    """Mean of the last `fast` closes / mean of the last `slow` closes - 1."""
    prices = carried(close)
    averages = (trailing.trailing_mean(prices, window=window) for window in (fast, slow))
    return lagged(relative_change(*averages), 1)


@_by_bar("close")
def rsi(close: Any, window: int = 14) -> Any:
    """Relative strength index as a fraction, 0 to 1: sum of rises / (rises + falls) of the last `window` closes; 0.5
    where the price has not moved.

    Source: J. W. Wilder, New concepts in technical trading systems (1978), in D. M. Cutler's variant: plain sums, so
    that it does not depend on where the series begins, where Wilder smooths exponentially.
    """
    prices = carried(close)
    moves, xp = prices - lagged(prices, 1), namespace(prices)
    rises = trailing.trailing_mean(xp.where(xp.isnan(moves), np.nan, xp.maximum(moves, 0)), window=window)
    paths = trailing.trailing_mean(xp.abs(moves), window=window)
    return lagged(divide(rises, paths, 0.5), 1)


@_by_bar("close")
def drawdown_from_high(close: Any, window: int) -> Any:
    """Last close / highest of the last `window` closes - 1; negative or zero."""
    prices = carried(close)
    return lagged(relative_change(prices, trailing.trailing_max(prices, window=window)), 1)


@_by_bar("open", "close")
def gap(open: Any, close: Any) -> Any:
    """Open of the bar / the last close before it - 1. The open is that of bar t itself: it is known by then."""
    return relative_change(open, lagged(carried(close), 1))


# --- of features, not lagged again


@_by_bar("feature")
def lag(feature: Any, bars: int = 1) -> Any:
    """The row of `bars` bars ago. It makes a feature of your own data that are known at the close of their bar only."""
    return lagged(feature, bars)


@_by_bar("feature")
def zscore(feature: Any, window: int | None = None, min_periods: int = 20) -> Any:
    """(feature - mean) / standard deviation (ddof 1) of the rows up to and including row t: of the last `window` rows,
    none of which may be missing; or, without a window, of all rows, at least `min_periods` (>= 2) of them known.

    0 where nothing has varied yet. The result is not lagged: give it a feature, not closes.
    """
    if window is not None:
        if window < 2:
            raise ValueError(f"window: expected at least 2 rows for a standard deviation, got {window}")
        moments = trailing.trailing_mean(feature, window=window), trailing.trailing_std(feature, window=window)
        return trailing.standardized(feature, *moments)
    if min_periods < 2:
        raise ValueError(f"min_periods: expected at least 2 rows for a standard deviation, got {min_periods}")
    mean, std, count = trailing.running_moments(feature)
    xp = namespace(feature)
    return xp.where(count >= min_periods, trailing.standardized(feature, mean, std), np.nan)


@_by_bar("feature")
def cross_zscore(feature: Any) -> Any:
    """(feature - mean) / standard deviation (ddof 1) over the assets at the same bar, without missing ones: it compares
    the assets with each other. 0 where all have the same value, or where there is one asset."""
    mean, std = trailing.across_assets(feature)
    xp = namespace(feature)
    return trailing.standardized(feature, mean, xp.where(xp.isnan(std), 0, std))


def stack(features: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """Several features side by side, by name, for `features=` and learned allocators.

    DataFrames [time, asset] with the same labels become one with the columns (feature, asset). A Series among them is a
    feature of the whole market and is repeated for every asset. `obs.features` is then [asset, feature], with the
    assets of the group in the order of `close`. Arrays [time, asset] become [time, asset, feature] without names.

    Raises ValueError naming the feature for other labels or shapes, TypeError for a value that is neither table nor
    array.
    """
    named = {**(features or {}), **more}
    if not named or not all(isinstance(name, str) for name in named):
        raise ValueError("features: expected one or more features by name, as in stack(momentum=..., volatility=...)")
    tables = {name: x for name, x in named.items() if isinstance(x, pd.DataFrame)}
    if not tables:
        arrays = _arrays(list(named.values()), tuple(named))
        return namespace(*arrays).stack(arrays, axis=-1)
    first = next(iter(tables.values()))
    if FEATURE in first.columns.names:
        raise ValueError(f"features: the columns have a level {FEATURE!r} already")
    parts = {name: _asset_table(x, first, name) for name, x in named.items()}
    return pd.concat(parts, axis=1, names=[FEATURE, *first.columns.names])


def _asset_table(value: Any, first: pd.DataFrame, name: str) -> pd.DataFrame:
    if isinstance(value, pd.Series):
        check_index(value.index, name)
        value = pd.DataFrame({i: value for i in range(first.shape[1])}).set_axis(first.columns, axis=1)
    if not isinstance(value, pd.DataFrame):
        raise TypeError(f"{name}: expected a DataFrame or a Series beside the other tables, got {type(value).__name__}")
    return _table(value, first, name)
