"""Tables of statistics, one row per lane: `jaxsim.engine.metrics.stats` with dates, durations and labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.metrics import stats as tables
from jaxsim.frames.results.records.drawdowns import longest_drawdown
from jaxsim.frames.results.records.record_tables import lane_table


def portfolio_stats_table(
    value: pd.DataFrame,
    returns: pd.DataFrame,
    benchmark_returns: pd.DataFrame,
    gross_exposure: pd.DataFrame,
    total_fees: pd.Series,
    init_cash: pd.Series,
    period: pd.Timedelta | None,
    ann_factor: float,
    trades: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """The statistics of a portfolio, [lane, statistic] (rules 8.1).

    value: currency after each bar; returns, benchmark_returns, gross_exposure: fractions; all [time, lane]
    with the same index and columns.     total_fees, init_cash: currency, [lane].     period: duration of one bar,
    for bars without dates; None gives durations as numbers of bars.     ann_factor: bars per year.
    trades: the rows about trades (`trade_table.portfolio_rows`), [lane] each, which stand between the drawdowns and
    the ratios; without them, the statistics that need no trades.

    Titles with [%] are in percent. Raises ValueError if frames or series disagree on their labels.
    """
    _same_labels(value=value, returns=returns, benchmark_returns=benchmark_returns, gross_exposure=gross_exposure)
    _same_lanes(value, total_fees=total_fees, init_cash=init_cash)
    rows = tables.portfolio_stats(
        value.to_numpy(),
        returns.to_numpy(),
        benchmark_returns.to_numpy(),
        gross_exposure=gross_exposure.to_numpy(),
        total_fees=total_fees.to_numpy(),
        init_cash=init_cash.to_numpy(),
        ann_factor=ann_factor,
    )
    if trades is not None:
        titles = list(rows)
        after = titles.index("Sharpe Ratio")
        rows = {t: rows[t] for t in titles[:after]} | dict(trades) | {t: rows[t] for t in titles[after:]}
    return _table(rows, value, value.to_numpy(), period)


def returns_stats_table(
    returns: pd.DataFrame, benchmark_returns: pd.DataFrame, period: pd.Timedelta | None, ann_factor: float
) -> pd.DataFrame:
    """The statistics of a series of returns, [lane, statistic] (rules 8.3).

    returns, benchmark_returns: fractions, [time, lane] with the same index and columns.
    period: duration of one bar, for bars without dates; None gives durations as numbers of bars.
    ann_factor: bars per year.

    Titles with [%] are in percent. Raises ValueError if the frames disagree on their labels.
    """
    _same_labels(returns=returns, benchmark_returns=benchmark_returns)
    rows = tables.returns_stats(returns.to_numpy(), benchmark_returns.to_numpy(), ann_factor=ann_factor)
    return _table(rows, returns, np.cumprod(1 + returns.fillna(0).to_numpy(), axis=0), period)


def _table(rows: dict[str, Any], path: pd.DataFrame, value: np.ndarray, period: pd.Timedelta | None) -> pd.DataFrame:
    """value: that the drawdown is of, [time, lane]."""
    longest = longest_drawdown(value, rows["Max Drawdown Duration"], path.index)
    return lane_table(rows | {"Max Drawdown Duration": longest}, path.columns, path.index, period)


def _same_labels(**frames: pd.DataFrame) -> None:
    (first, reference), *rest = frames.items()
    for name, frame in rest:
        if not (frame.index.equals(reference.index) and frame.columns.equals(reference.columns)):
            raise ValueError(f"{name}: index and columns differ from those of {first}")


def _same_lanes(frame: pd.DataFrame, **series: pd.Series) -> None:
    for name, values in series.items():
        if not values.index.equals(frame.columns):
            raise ValueError(f"{name}: the lanes differ from those of value")
