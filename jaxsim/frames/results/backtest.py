"""The result of a run with labels: values, weights, orders, allocations, metrics and pictures."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from jaxsim import metrics
from jaxsim.frames.inputs.bars_per_year import BarsPerYear
from jaxsim.frames.inputs.labels import cross_section, select
from jaxsim.frames.results.allocations import Allocations, compared_allocations, recorded_allocations
from jaxsim.frames.results.labelled import Labels
from jaxsim.frames.results.metric_methods import metric_method
from jaxsim.frames.results.metric_names import ONE_PER_LANE
from jaxsim.frames.results.paths import Paths
from jaxsim.frames.results.records.decisions import rows_of_rebalance
from jaxsim.frames.results.records.drawdowns import DrawdownTable
from jaxsim.frames.results.records.logs import LogTable
from jaxsim.frames.results.records.orders import OrderTable
from jaxsim.frames.results.records.trades import TradeTable
from jaxsim.frames.results.scoring import (
    returns_of_benchmark,
    score_from_start,
    score_until_ruin,
    setting_by_label,
)
from jaxsim.frames.results.tables import Tables

#: pandas 3 copies shared data when it is written to.
COPIES_ON_WRITE = int(pd.__version__.split(".")[0]) >= 3


class Backtest:
    """A simulated portfolio, or many of them side by side ("lanes").

    With one unlabelled lane, results over time are Series, results by asset DataFrames [time, asset], metrics floats.
    With labelled lanes they are DataFrames [time, lane], DataFrames with columns (lane levels..., asset), and Series
    over the lanes. Every metric of `jaxsim.metrics` is a method.

    Made by `js.backtest` and `js.replay`, not by hand.
    """

    def __init__(self, paths: Paths, lanes: pd.Index | None):
        self._paths = paths
        self._labels = Labels(paths, lanes)
        self._tables = Tables(self._labels)
        self._labelled_paths: dict[str, Any] = {}

    def __repr__(self) -> str:
        by = "" if self.lanes is None else f" by {list(self.lanes.names)}"
        plural = "s" if self._num_lanes != 1 else ""
        return f"Backtest({len(self._index)} bars, {self._num_lanes} lane{plural}{by})"

    # --- lanes

    @property
    def lanes(self) -> pd.Index | None:
        """Labels of the lanes; None for one unlabelled lane."""
        return self._labels.lanes

    @property
    def _num_lanes(self) -> int:
        return self._paths.num_lanes

    @property
    def _index(self) -> pd.Index:
        return self._paths.context.index

    @property
    def start(self) -> Any:
        """Number of the first bar that metrics count (rules 7.17): an int, or a Series over the lanes."""
        return self._labels.score(self._paths.context.start, "start")

    def __getitem__(self, key: Any) -> "Backtest":
        """Lanes by label, as the columns of a DataFrame are selected.

        A scalar selects by the first level, a tuple by the leading ones, and their levels are dropped; a list or a
        boolean mask selects several lanes and keeps the levels. A float matches exactly, else the one label within
        1e-9 of it. Raises KeyError naming the nearest label.
        """
        chosen, lanes = select(self.lanes, key)
        return Backtest(self._paths.take(chosen), lanes)

    __iter__ = None  # `[]` selects lanes by label; there is nothing to iterate over

    def xs(self, label: Any, level: Any) -> "Backtest":
        """Lanes by the label of one level, which is dropped. Raises KeyError."""
        chosen, lanes = cross_section(self.lanes, label, level)
        return Backtest(self._paths.take(chosen), lanes)

    def between(self, start: Any = None, end: Any = None) -> "Backtest":
        """The bars from one time to another, both included, as `.loc[start:end]` of a Series: a result of its own, with
        the values, orders, metrics and pictures of this stretch.

        Its first return is against the value of the bar before. What was held is opened at its value then, without
        fees: trades and positions begin with it. Drawdowns start anew from the first bar. The length of a bar and of a
        year, and the benchmark, are those of the run. Lanes that start later start at the same bar.

        Raises TypeError or ValueError for labels that the index cannot compare with, or a stretch without any bar.
        """
        index = self._index
        try:
            begin, stop, _ = index.slice_indexer(start, end).indices(len(index))
        except (TypeError, ValueError, KeyError) as error:
            raise type(error)(f"start: expected labels like {index[0]!r}, got {start!r} and end={end!r}") from error
        if begin >= stop:
            raise ValueError(f"start: no bar lies from {start} to {end}; the run goes from {index[0]} to {index[-1]}")
        return Backtest(self._paths.cut(begin, stop), self.lanes)

    def _one_lane(self, key: Any, verb: str, example: str) -> "Backtest":
        """The lane to draw. Raises ValueError if several are left."""
        one = self if key is None else self[key]
        if one._num_lanes > 1:
            raise ValueError(f"{verb} draws one lane; name one, as in bt.{verb}({example})")
        return one

    # --- paths

    def _path(self, name: str) -> Any:
        """A path of the portfolio with labels. Values that a user writes into it do not change the result."""
        if name not in self._labelled_paths:
            self._labelled_paths[name] = self._labels.path(getattr(self._paths, name), name)
        return self._labelled_paths[name].copy(deep=not COPIES_ON_WRITE)

    @property
    def value(self) -> pd.Series | pd.DataFrame:
        """Value of the portfolio after each bar, marked at the close; currency."""
        return self._path("value")

    @property
    def returns(self) -> pd.Series | pd.DataFrame:
        """Simple returns per bar, a fraction. Bar 0 is measured against the initial cash, so that it includes the costs
        of entry.

        All bars are there; where metrics count from a later bar on, `attrs["start"]` is the text of its label, the
        latest one of all lanes, which `js.probability_of_overfitting` and `js.deflate_sharpe_ratio` go by.
        """
        returns, latest = self._path("returns"), int(self._paths.context.start.max())
        if 0 < latest < len(self._index):
            returns.attrs["start"] = str(self._index[latest])
        return returns

    @property
    def cash(self) -> pd.Series | pd.DataFrame:
        """Cash after each bar; currency."""
        return self._path("cash")

    @property
    def units(self) -> pd.DataFrame:
        """Units held after each bar, by asset."""
        return self._labels.by_asset(self._paths.units)

    @property
    def asset_value(self) -> pd.DataFrame:
        """Value of each asset after each bar, marked at the close; currency."""
        return self._labels.by_asset(self._paths.asset_value)

    @property
    def weights(self) -> pd.DataFrame:
        """Realised weights after each bar: asset value / value of the portfolio. Cash is the rest to one."""
        return self._labels.by_asset(self._paths.weights)

    @property
    def gross_exposure(self) -> pd.Series | pd.DataFrame:
        """sum(abs(asset value)) / (sum(abs(asset value)) + free cash) after each bar, a fraction (rules 6.6)."""
        return self._path("gross_exposure")

    @property
    def benchmark_value(self) -> pd.Series | pd.DataFrame:
        """Value of the benchmark of the run, by default equal amounts of the group's assets, which is bought at the
        close of the bar before `start`, without costs, and held (rules 6.5); currency. What is listed later counts as
        unchanged until then."""
        return self._path("benchmark_value")

    # --- rebalances and allocations

    @property
    def rebalances(self) -> pd.Series | pd.DataFrame:
        """The bars on which the allocator was asked, whether or not any order filled; bool."""
        return self._path("rebalances")

    @property
    def rebalance_index(self) -> pd.Index:
        """The times at which one lane was rebalanced. Raises ValueError for several lanes."""
        if self.lanes is not None:
            raise ValueError(
                "rebalance_index is that of one lane: select it, as in bt[0.05]; for all of them see bt.rebalances"
            )
        return self._index.take(np.unique(self._paths.event_bar))

    @cached_property
    def allocations(self) -> Allocations:
        """The target weights, or other sizes, that the allocator asked for: when, per lane. `js.replay` trades them.

        Raises ValueError for a portfolio that was made of filled orders.
        """
        return recorded_allocations(self._paths, self.lanes)

    def compare_allocations(self) -> pd.DataFrame:
        """Target weights of each rebalance beside the weights after the close of its bar, when fees have been paid and
        prices have moved on. Indexed as `allocations.weights`; columns (asset, one of "target", "realised",
        "difference"); fractions.

        Raises ValueError for sizes that are no weights.
        """
        return compared_allocations(self.allocations, self._paths)

    @property
    def aux(self) -> dict[str, Any]:
        """The arrays that the allocator handed out, by name: per rebalance indexed as `allocations.weights`, per bar
        (from `observe`) as [time, lane]. Arrays of several numbers have one column for each.

        Raises ValueError if an array has another shape in groups of another size.
        """
        has_rebalances = bool(self._paths.ledgers[0].aux)
        return self._labels.aux(self.allocations.row_labels if has_rebalances else pd.RangeIndex(0))

    # --- records

    @property
    def records(self) -> np.ndarray:
        """All orders as a structured array: id, col, idx, size, price, fees, side (rules 6.1). `col` counts the columns
        of `asset_value`."""
        records, _, _ = self._tables.order_records
        return records.copy()

    @property
    def orders(self) -> OrderTable:
        """All filled orders, by lane, bar and order of execution: id (within the lane), the lane levels, asset,
        timestamp, size (units, > 0), price, fees (currency), side ("Buy" or "Sell"). Where assets have left the market
        there is a column `reason` as well: "delisted" for the orders that closed them, empty for others."""
        return self._tables.orders()

    @property
    def incidents(self) -> pd.DataFrame:
        """What befell the account without being a fault, by lane and bar: the lane levels, timestamp, kind (as
        "delisted" or "ruined"; `js.enums.Incident`), asset (empty where it befell the whole account), amount (currency;
        what a delisted asset was paid out, what a ruined account was worth)."""
        return self._tables.incidents()

    @property
    def logs(self) -> LogTable:
        """Every order of every rebalance, filled or not: the account before it, the order, the account after it, and
        its status (rules 6.8). Raises ValueError unless the run kept them (`log=True`)."""
        return self._tables.logs()

    @property
    def decisions(self) -> pd.DataFrame:
        """Why each order did what it did: one row for every rebalance and asset, in the order of execution.

        rebalance: number within the lane; then the lane levels, asset, timestamp.
        part: number of the part, from 0, where rebalances are spread over several bars.
        weight: before the rebalance, at the valuation price.       last_target: target of the rebalance before.
        drift: weight - last_target.     excess: drift beyond the threshold, >= 0 where it was `breached`; NaN for
        triggers that do not look at single assets.
        target: the answer of the allocator; with `size_type` and `direction` unless all are plain target weights.
        requested, filled, clipped: units, < 0 sold; the order (infinite: as much as possible), the part that filled,
        and the size that a fill left out.
        weight_after: after the rebalance, at the same prices.        price, fees: of the fill, with slippage; currency.
        status: "Filled", "Ignored" or "Rejected".      status_info: the reason, as vectorbt names it.
        reason: in words, why the order was not filled, or not in full.
        """
        return self._tables.decisions()

    @property
    def entry_trades(self) -> TradeTable:
        """One trade for every order that opens or increases a position, with the average exit of that position."""
        return self._tables.entry_trades

    @property
    def exit_trades(self) -> TradeTable:
        """One trade for every order that reduces a position, with the average entry of that position. A position that
        is still held at the end is an open trade, valued at the last close."""
        return self._tables.exit_trades

    @property
    def trades(self) -> TradeTable:
        """The same as `exit_trades`; `stats` counts these."""
        return self._tables.exit_trades

    @property
    def positions(self) -> TradeTable:
        """Positions, from the first entry until nothing is held: the trades of each as one."""
        return self._tables.positions

    @property
    def drawdowns(self) -> DrawdownTable:
        """Drawdowns of the value after its first bar, from the peak through the valley to the recovery."""
        return self._tables.drawdowns

    # --- statistics

    @property
    def ann_factor(self) -> float:
        """Bars per year (rules 13.1). Raises ValueError if neither the arguments of the run nor its index tell."""
        return self._annual().needed()

    def _annual(self, freq: Any = None, year_freq: Any = None, bars_per_year: Any = None) -> BarsPerYear:
        return self._paths.context.annual.said(freq, year_freq, bars_per_year)

    def stats(
        self, *, freq: Any = None, year_freq: Any = None, bars_per_year: float | None = None
    ) -> pd.Series | pd.DataFrame:
        """The usual table (rules 8.1): a Series for one lane, a DataFrame [lane, statistic] otherwise.

        freq, year_freq, bars_per_year: as in `js.backtest`, if other than those of the run. Trades are exit trades;
        their ratios count closed trades only.

        Raises ValueError if it is not known how many bars make a year; so does `returns_stats`.
        """
        annual = self._annual(freq, year_freq, bars_per_year)
        return self._tables.stats(annual.bar, annual.needed("stats"))

    def returns_stats(
        self, *, freq: Any = None, year_freq: Any = None, bars_per_year: float | None = None
    ) -> pd.Series | pd.DataFrame:
        """The table of return statistics (rules 8.3), as `stats`."""
        annual = self._annual(freq, year_freq, bars_per_year)
        return self._tables.returns_stats(annual.bar, annual.needed("returns_stats"))

    def turnover(self) -> Any:
        """One-way turnover: sum over bars of sum(abs(traded value)) / (2 x value before); a fraction. It and the three
        below count the bars from `start` on."""
        return self._labels.score(self._paths.turnover_two_way / 2, "turnover")

    def turnover_two_way(self) -> Any:
        """Sum over bars of sum(abs(traded value)) / value before; a fraction, twice `turnover`."""
        return self._labels.score(self._paths.turnover_two_way, "turnover_two_way")

    def num_rebalances(self) -> Any:
        """Number of bars on which the allocator was asked."""
        return self._labels.score(self._paths.num_rebalances, "num_rebalances")

    def total_fees(self) -> Any:
        """Sum of all fees paid; currency."""
        return self._labels.score(self._paths.total_fees, "total_fees")

    # --- metrics of returns

    def _benchmark(self, benchmark: Any) -> np.ndarray:
        if benchmark is None:
            return self._paths.benchmark_returns
        return returns_of_benchmark(benchmark, self._index, self.lanes, self._paths.value.shape)

    def _score(self, function: Callable, name: str, options: dict[str, Any]) -> Any:
        options = {key: setting_by_label(value, key, self._index, self.lanes) for key, value in options.items()}
        if name.startswith("rolling_") and (
            by_bar := [x for x in options if x != "benchmark" and np.ndim(options[x]) > 1]
        ):
            raise ValueError(f"{by_bar[0]}: of a rolling metric one number, or one for each lane")
        paths = self._paths
        score = score_from_start(function, paths.returns, paths.context.start, options)
        score = score_until_ruin(function, score, paths.value, paths.opened, paths.ruined_at)
        return self._labels.score(score, name) if score.ndim == 1 else self._labels.path(score, name)

    total_return = metric_method(metrics.total_return)
    annualized_return = metric_method(metrics.annualized_return)
    annualized_volatility = metric_method(metrics.annualized_volatility)
    sharpe_ratio = metric_method(metrics.sharpe_ratio)
    sortino_ratio = metric_method(metrics.sortino_ratio)
    calmar_ratio = metric_method(metrics.calmar_ratio)
    omega_ratio = metric_method(metrics.omega_ratio)
    information_ratio = metric_method(metrics.information_ratio)
    drawdown = metric_method(metrics.drawdown)
    max_drawdown = metric_method(metrics.max_drawdown)
    downside_risk = metric_method(metrics.downside_risk)
    alpha = metric_method(metrics.alpha)
    beta = metric_method(metrics.beta)
    tail_ratio = metric_method(metrics.tail_ratio)
    common_sense_ratio = metric_method(metrics.common_sense_ratio)
    value_at_risk = metric_method(metrics.value_at_risk)
    cond_value_at_risk = metric_method(metrics.cond_value_at_risk)
    capture = metric_method(metrics.capture)
    up_capture = metric_method(metrics.up_capture)
    down_capture = metric_method(metrics.down_capture)
    skew = metric_method(metrics.skew)
    kurtosis = metric_method(metrics.kurtosis)
    ulcer_index = metric_method(metrics.ulcer_index)
    martin_ratio = metric_method(metrics.martin_ratio)
    log_growth = metric_method(metrics.log_growth)
    expected_shortfall = metric_method(metrics.expected_shortfall)
    smooth_drawdown = metric_method(metrics.smooth_drawdown)
    deflated_sharpe_ratio = metric_method(metrics.deflated_sharpe_ratio)

    rolling_total_return = metric_method(metrics.rolling_total_return)
    rolling_annualized_return = metric_method(metrics.rolling_annualized_return)
    rolling_annualized_volatility = metric_method(metrics.rolling_annualized_volatility)
    rolling_sharpe_ratio = metric_method(metrics.rolling_sharpe_ratio)
    rolling_sortino_ratio = metric_method(metrics.rolling_sortino_ratio)
    rolling_calmar_ratio = metric_method(metrics.rolling_calmar_ratio)
    rolling_omega_ratio = metric_method(metrics.rolling_omega_ratio)
    rolling_information_ratio = metric_method(metrics.rolling_information_ratio)
    rolling_max_drawdown = metric_method(metrics.rolling_max_drawdown)
    rolling_downside_risk = metric_method(metrics.rolling_downside_risk)
    rolling_alpha = metric_method(metrics.rolling_alpha)
    rolling_beta = metric_method(metrics.rolling_beta)
    rolling_tail_ratio = metric_method(metrics.rolling_tail_ratio)
    rolling_common_sense_ratio = metric_method(metrics.rolling_common_sense_ratio)
    rolling_value_at_risk = metric_method(metrics.rolling_value_at_risk)
    rolling_cond_value_at_risk = metric_method(metrics.rolling_cond_value_at_risk)
    rolling_capture = metric_method(metrics.rolling_capture)
    rolling_up_capture = metric_method(metrics.rolling_up_capture)
    rolling_down_capture = metric_method(metrics.rolling_down_capture)
    rolling_ulcer_index = metric_method(metrics.rolling_ulcer_index)
    rolling_martin_ratio = metric_method(metrics.rolling_martin_ratio)

    # --- pictures, as Plotly figures; all raise ImportError naming the pip command where Plotly is missing

    def plot_allocations(self, key: Any = None, **kwargs: Any) -> Any:
        """Stacked realised weights of one lane.

        key: label of the lane, as in `[]`; not needed for a single one. kwargs: as `js.views.stacked_weights`.
        Raises ValueError if several lanes are left.
        """
        from jaxsim import views

        one = self._one_lane(key, "plot_allocations", "0.05")
        weights: Any = one.weights
        if one.lanes is not None:
            weights = weights.droplevel(list(range(one.lanes.nlevels)), axis=1)
        return views.stacked_weights(weights, **kwargs)

    def plot_rebalance(self, when: Any, key: Any = None, **kwargs: Any) -> Any:
        """One rebalance of one lane: each asset's weight before and after, its target, and why an order did not reach
        it.

        when: its time, or its number among the lane's rebalances (negative: from the last). Of a rebalance that is
            spread over several bars, the number draws the first part, and each time one part.
        key: label of the lane, as in `[]`; not needed for a single one. kwargs: as `js.views.rebalance`.
        Raises ValueError if several lanes are left; KeyError if there was no rebalance then.
        """
        from jaxsim import views

        rows = rows_of_rebalance(self._one_lane(key, "plot_rebalance", "0, key=0.05").decisions, when)
        kwargs.setdefault("title", f"Rebalance of {rows['timestamp'].iloc[0]}")
        return views.rebalance(rows, **kwargs)

    def plot_value(self, **kwargs: Any) -> Any:
        """Value of all lanes, with drawdowns underneath; of one lane beside the benchmark that the run was given.

        kwargs: as `js.views.value_with_drawdown`.
        """
        from jaxsim import views

        if self._num_lanes == 1 and self._paths.context.benchmark is not None:
            benchmark: Any = self.benchmark_value
            kwargs.setdefault("benchmark", benchmark if self.lanes is None else benchmark.iloc[:, 0])
        return views.value_with_drawdown(self.value, **kwargs)

    def plot_metric(self, metric: str = "sharpe_ratio", **kwargs: Any) -> Any:
        """A metric against the swept parameters: a line for one, a heatmap for two.

        metric: name of a metric method, as "sharpe_ratio". kwargs: as `js.views.metric_against`.
        Raises ValueError for an unknown one or a single lane.
        """
        from jaxsim import views

        if metric not in ONE_PER_LANE:
            raise ValueError(f"metric: there is no metric {metric!r}; there are {sorted(ONE_PER_LANE)}")
        if self.lanes is None:
            raise ValueError("plot_metric draws a metric against swept parameters; this is a single lane")
        return views.metric_against(getattr(self, metric)(), **kwargs)
