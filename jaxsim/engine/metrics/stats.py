"""The stats tables as pure functions: statistics by title, each an array over the lanes (rules 8.1 and 8.3).

Titles and order are vectorbt's; titles with [%] are in percent, durations are numbers of bars. NumPy in, NumPy out;
JAX in, JAX out, under `jit`, `vmap` and `grad`. `frames.stats` adds dates and labels.
"""

from typing import Any

import numpy as np

from jaxsim.engine.base.arrays import namespace
from jaxsim.engine.base.numerics import Number
from jaxsim.engine.metrics import returns as metrics
from jaxsim.engine.metrics.nan_statistics import as_float, divide, running_max


def portfolio_stats(
    value: Any,
    returns: Any,
    benchmark: Any,
    *,
    gross_exposure: Any,
    total_fees: Any,
    init_cash: Any,
    ann_factor: Number,
) -> dict[str, Any]:
    """The statistics of a portfolio that need no trades (rules 8.1).

    value: currency after each bar; returns, benchmark (its returns), gross_exposure: fractions; all [time, ...].
    total_fees, init_cash: currency, [...].     ann_factor: bars per year.

    The drawdown is that of `value` after its first bar, positive, NaN if there is none; its duration is that of the
    longest drawdown, which may be another.
    """
    xp = namespace(value, returns)
    value = as_float(value, xp)
    return {
        "Start Value": init_cash,
        "End Value": value[-1],
        "Total Return [%]": (value[-1] - init_cash) / init_cash * 100,
        "Benchmark Return [%]": metrics.total_return(benchmark) * 100,
        "Max Gross Exposure [%]": namespace(gross_exposure).asarray(gross_exposure).max(axis=0) * 100,
        "Total Fees Paid": total_fees,
        **_drawdowns(value),
        **_ratios(returns, ann_factor),
    }


def returns_stats(returns: Any, benchmark: Any, *, ann_factor: Number) -> dict[str, Any]:
    """The statistics of a series of returns (rules 8.3).

    returns, benchmark (its returns): fractions, [time, ...].     ann_factor: bars per year.

    The drawdown is that of prod(1 + returns), otherwise as in `portfolio_stats`.
    """
    xp = namespace(returns)
    returns = as_float(returns, xp)
    return {
        "Total Return [%]": metrics.total_return(returns) * 100,
        "Benchmark Return [%]": metrics.total_return(benchmark) * 100,
        "Annualized Return [%]": metrics.annualized_return(returns, ann_factor=ann_factor) * 100,
        "Annualized Volatility [%]": metrics.annualized_volatility(returns, ann_factor=ann_factor) * 100,
        **_drawdowns(xp.cumprod(1 + xp.where(xp.isnan(returns), 0, returns), axis=0)),
        **_ratios(returns, ann_factor),
        "Skew": metrics.skew(returns),
        "Kurtosis": metrics.kurtosis(returns),
        "Tail Ratio": metrics.tail_ratio(returns),
        "Common Sense Ratio": metrics.common_sense_ratio(returns, ann_factor=ann_factor),
        "Value at Risk": metrics.value_at_risk(returns),
        "Alpha": metrics.alpha(returns, benchmark, ann_factor=ann_factor),
        "Beta": metrics.beta(returns, benchmark),
    }


def _ratios(returns: Any, ann_factor: Number) -> dict[str, Any]:
    return {
        "Sharpe Ratio": metrics.sharpe_ratio(returns, ann_factor=ann_factor),
        "Calmar Ratio": metrics.calmar_ratio(returns, ann_factor=ann_factor),
        "Omega Ratio": metrics.omega_ratio(returns, ann_factor=ann_factor),
        "Sortino Ratio": metrics.sortino_ratio(returns, ann_factor=ann_factor),
    }


def _drawdowns(path: Any) -> dict[str, Any]:
    """A drawdown lasts from the bar after its peak to the bar of recovery, that is for as many bars as lie below the
    peak; one that is still active when the path ends lasts to the end, which counts in full (rules 6.9, 8.1)."""
    xp = namespace(path)
    peak = running_max(path)
    below = path < peak
    depth = xp.where(below, 1 - divide(path, peak, np.nan), 0).max(axis=0)
    bars = xp.arange(1, len(path) + 1).reshape(-1, *[1] * (path.ndim - 1))
    longest = (bars - running_max(xp.where(below, 0, bars))).max(axis=0)
    return {
        "Max Drawdown [%]": xp.where(longest == 0, np.nan, depth * 100),
        "Max Drawdown Duration": xp.where(longest == 0, np.nan, longest),
    }
