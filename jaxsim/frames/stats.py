"""Tables of statistics, one row per lane (SEMANTICS 8.1 and 8.3); titles and order are vectorbt's."""

import numpy as np
import pandas as pd

from jaxsim.engine import metrics


def portfolio_stats(
    value: pd.DataFrame,
    returns: pd.DataFrame,
    benchmark_returns: pd.DataFrame,
    gross_exposure: pd.DataFrame,
    total_fees: pd.Series,
    init_cash: pd.Series,
    period: pd.Timedelta | None,
    ann_factor: float,
) -> pd.DataFrame:
    """The statistics of a portfolio that need no trades, [lane, statistic] (SEMANTICS 8.1).

    value: currency after each bar; returns, benchmark_returns, gross_exposure: fractions; all [time, lane]
    with the same index and columns.     total_fees, init_cash: currency, [lane]. period: duration of one bar;
    None gives durations as numbers of bars.     ann_factor: bars per year.

    Titles with [%] are in percent. The drawdown is that of `value` after its first bar, positive, NaN if
    there is none. Raises ValueError if frames or series disagree on their labels.
    """
    _same_labels(value=value, returns=returns, benchmark_returns=benchmark_returns, gross_exposure=gross_exposure)
    _same_lanes(value, total_fees=total_fees, init_cash=init_cash)
    end_value = value.iloc[-1]
    rows = {
        **_span(value, period),
        "Start Value": init_cash,
        "End Value": end_value,
        "Total Return [%]": (end_value - init_cash) / init_cash * 100,
        "Benchmark Return [%]": metrics.total_return(benchmark_returns) * 100,
        "Max Gross Exposure [%]": gross_exposure.max() * 100,
        "Total Fees Paid": total_fees,
        **_deepest_drawdown(value.to_numpy(), period),
        **_ratios(returns, ann_factor),
    }
    return _table(rows, value.columns)


def returns_stats(
    returns: pd.DataFrame, benchmark_returns: pd.DataFrame, period: pd.Timedelta | None, ann_factor: float
) -> pd.DataFrame:
    """The statistics of a series of returns, [lane, statistic] (SEMANTICS 8.3).

    returns, benchmark_returns: fractions, [time, lane] with the same index and columns.
    period: duration of one bar; None gives durations as numbers of bars.     ann_factor: bars per year.

    Titles with [%] are in percent. The drawdown is that of prod(1 + returns) after its first bar, positive,
    NaN if there is none. Raises ValueError if the frames disagree on their labels.
    """
    _same_labels(returns=returns, benchmark_returns=benchmark_returns)
    wealth = (1 + returns.fillna(0)).cumprod().to_numpy()
    rows = {
        **_span(returns, period),
        "Total Return [%]": metrics.total_return(returns) * 100,
        "Benchmark Return [%]": metrics.total_return(benchmark_returns) * 100,
        "Annualized Return [%]": metrics.annualized_return(returns, ann_factor=ann_factor) * 100,
        "Annualized Volatility [%]": metrics.annualized_volatility(returns, ann_factor=ann_factor) * 100,
        **_deepest_drawdown(wealth, period),
        **_ratios(returns, ann_factor),
        "Skew": metrics.skew(returns),
        "Kurtosis": metrics.kurtosis(returns),
        "Tail Ratio": metrics.tail_ratio(returns),
        "Common Sense Ratio": metrics.common_sense_ratio(returns, ann_factor=ann_factor),
        "Value at Risk": metrics.value_at_risk(returns),
        "Alpha": metrics.alpha(returns, benchmark_returns, ann_factor=ann_factor),
        "Beta": metrics.beta(returns, benchmark_returns),
    }
    return _table(rows, returns.columns)


def _span(path: pd.DataFrame, period: pd.Timedelta | None) -> dict:
    bars = np.full(path.shape[1], len(path))
    return {"Start": path.index[0], "End": path.index[-1], "Period": _duration(bars, period)}


def _ratios(returns: pd.DataFrame, ann_factor: float) -> dict:
    return {
        "Sharpe Ratio": metrics.sharpe_ratio(returns, ann_factor=ann_factor),
        "Calmar Ratio": metrics.calmar_ratio(returns, ann_factor=ann_factor),
        "Omega Ratio": metrics.omega_ratio(returns, ann_factor=ann_factor),
        "Sortino Ratio": metrics.sortino_ratio(returns, ann_factor=ann_factor),
    }


def _deepest_drawdown(path: np.ndarray, period: pd.Timedelta | None) -> dict:
    """Depth of the deepest drawdown of [time, lane], and duration of the longest, which may be another.

    A drawdown lasts from the bar after its peak to the bar of recovery, that is for as many bars as lie below
    the peak; one that is still active when the path ends lasts to the end, which counts in full (SEMANTICS
    6.9, 8.1).
    """
    peak = np.maximum.accumulate(path, axis=0)
    below = path < peak
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(below, 1 - path / peak, -np.inf).max(axis=0)
    bars = np.arange(1, len(path) + 1)[:, None]
    longest = (bars - np.maximum.accumulate(np.where(below, 0, bars), axis=0)).max(axis=0)
    none = longest == 0
    return {
        "Max Drawdown [%]": np.where(none, np.nan, depth * 100),
        "Max Drawdown Duration": _duration(np.where(none, np.nan, longest), period),
    }


def _duration(bars: np.ndarray, period: pd.Timedelta | None) -> np.ndarray | pd.Series:
    return bars if period is None else pd.Series(bars) * period


def _table(rows: dict, lanes: pd.Index) -> pd.DataFrame:
    table = {title: row.to_numpy() if isinstance(row, pd.Series) else row for title, row in rows.items()}
    return pd.DataFrame(table, index=lanes)


def _same_labels(**frames: pd.DataFrame) -> None:
    (first, reference), *rest = frames.items()
    for name, frame in rest:
        if not (frame.index.equals(reference.index) and frame.columns.equals(reference.columns)):
            raise ValueError(f"{name}: index and columns differ from those of {first}")


def _same_lanes(frame: pd.DataFrame, **series: pd.Series) -> None:
    for name, values in series.items():
        if not values.index.equals(frame.columns):
            raise ValueError(f"{name}: the lanes differ from those of value")
