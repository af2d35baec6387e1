"""The result of a run, labelled: values, weights, orders, allocations, metrics, pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine import metrics
from jaxsim.frames.allocations import Allocations
from jaxsim.frames.calendar import bar_length
from jaxsim.frames.groups import Layout
from jaxsim.frames.lanes import cross_section, select
from jaxsim.frames.ledger import Ledger
from jaxsim.frames.records import order_records, readable_orders
from jaxsim.frames.scores import Scores
from jaxsim.frames.stats import portfolio_stats, returns_stats


@dataclass(frozen=True, eq=False)
class Context:
    """What a result keeps of the inputs.

    index: time labels.     layout: groups and asset names.     close, mark: prices, [time, column].
    init_cash: opening cash of each lane, currency, [lane].
    freq: length of a bar, if known.        year_freq: length of a year.
    """

    index: pd.Index
    layout: Layout
    close: np.ndarray
    mark: np.ndarray
    init_cash: np.ndarray
    freq: pd.Timedelta | None
    year_freq: pd.Timedelta


class Backtest(Scores):
    """A simulated portfolio, or many of them side by side ("lanes").

    With one unlabelled lane, results over time are Series, results by asset DataFrames [time, asset], metrics floats.
    With labelled lanes they are DataFrames [time, lane], DataFrames with columns (lane levels..., asset), and Series
    over the lanes. Every metric of `jaxsim.metrics` is a method.

    Made by `js.backtest` and `js.replay`, not by hand.
    """

    def __init__(self, context: Context, lanes: pd.Index | None, ledgers: Sequence[Ledger]):
        self._context = context
        self._lanes = lanes
        self._ledgers = tuple(ledgers)

    def __repr__(self) -> str:
        bars, levels = (
            len(self._context.index),
            "" if self._lanes is None else f" by {list(self._lanes.names)}",
        )
        return f"Backtest({bars} bars, {self._num_lanes} lane{'s' if self._num_lanes != 1 else ''}{levels})"

    # --- lanes

    @property
    def lanes(self) -> pd.Index | None:
        """Labels of the lanes; None for one unlabelled lane."""
        return self._lanes

    @property
    def _num_lanes(self) -> int:
        return len(self._context.init_cash)

    def __getitem__(self, key: Any) -> "Backtest":
        """Lanes by label, as the columns of a DataFrame are selected.

        A scalar selects by the first level, a tuple by the leading ones, and their levels are dropped; a list or a
        boolean mask selects several lanes and keeps the levels. A float matches exactly, else the one label within
        1e-9 of it. Raises KeyError naming the nearest label.
        """
        return self._take(*select(self._lanes, key))

    def xs(self, label: Any, level: Any) -> "Backtest":
        """Lanes by the label of one level, which is dropped. Raises KeyError."""
        return self._take(*cross_section(self._lanes, label, level))

    def _take(self, chosen: np.ndarray, lanes: pd.Index | None) -> "Backtest":
        number = np.full(self._num_lanes, -1)
        number[chosen] = np.arange(len(chosen))
        ledgers = []
        for ledger in self._ledgers:
            wanted = np.flatnonzero(number[ledger.lanes] >= 0)
            if len(wanted):
                new = number[ledger.lanes[wanted]]
                wanted = wanted[np.argsort(new, kind="stable")]
                ledgers.append(ledger.take(wanted, np.sort(new)))
        context = replace(self._context, init_cash=self._context.init_cash[chosen])
        return Backtest(context, lanes, ledgers)

    # --- labels

    def _label(self, scores: np.ndarray, name: str) -> Any:
        if self._lanes is None:
            return scores[0].item()
        return pd.Series(scores, index=self._lanes, name=name)

    def _label_path(self, path: np.ndarray, name: str | None = None) -> pd.Series | pd.DataFrame:
        if self._lanes is None:
            return pd.Series(path[:, 0], index=self._context.index, name=name)
        return pd.DataFrame(path, index=self._context.index, columns=self._lanes, copy=False)

    def _label_assets(self, paths: list[np.ndarray]) -> pd.DataFrame:
        """Paths [lane of the ledger, asset, time], one array per ledger, in lane order."""
        out = np.empty((self._first_column[-1], len(self._context.index)))
        for ledger, path in zip(self._ledgers, paths, strict=True):
            places = self._first_column[ledger.lanes][:, None] + np.arange(ledger.columns.shape[1])
            out[places.ravel()] = path.reshape(-1, path.shape[-1])
        return pd.DataFrame(out.T, index=self._context.index, columns=self._asset_columns, copy=False)

    @cached_property
    def _lane_columns(self) -> list[np.ndarray]:
        """Price-frame columns of every lane."""
        columns: list = [None] * self._num_lanes
        for ledger in self._ledgers:
            for lane, members in zip(ledger.lanes, ledger.columns, strict=True):
                columns[lane] = members
        return columns

    @cached_property
    def _first_column(self) -> np.ndarray:
        """Where the assets of each lane begin among all (lane, asset) columns; the last entry is their number."""
        return np.concatenate([[0], np.cumsum([len(c) for c in self._lane_columns])])

    @cached_property
    def _asset_columns(self) -> pd.Index:
        layout = self._context.layout
        assets = layout.assets.take(np.concatenate(self._lane_columns))
        if self._lanes is None:
            return assets
        lane = np.repeat(np.arange(self._num_lanes), np.diff(self._first_column))
        levels = [self._lanes.get_level_values(i).take(lane) for i in range(self._lanes.nlevels)]
        return pd.MultiIndex.from_arrays([*levels, assets], names=[*self._lanes.names, layout.assets.name])

    # --- paths

    def _scatter(self, parts: list[np.ndarray]) -> np.ndarray:
        """Arrays [lane of the ledger, ...], one per ledger, as one array [lane, ...]."""
        if len(parts) == 1:
            return parts[0]
        out = np.empty((self._num_lanes, *parts[0].shape[1:]), parts[0].dtype)
        for ledger, part in zip(self._ledgers, parts, strict=True):
            out[ledger.lanes] = part
        return out

    @cached_property
    def _value(self) -> np.ndarray:
        c = self._context
        return self._scatter([x.value_path(c.init_cash[x.lanes], c.mark) for x in self._ledgers]).T

    @cached_property
    def _cash(self) -> np.ndarray:
        c = self._context
        return self._scatter([x.cash_path(c.init_cash[x.lanes], len(c.index)) for x in self._ledgers]).T

    @cached_property
    def _return_path(self) -> np.ndarray:
        return metrics.returns_from_value(self._value, self._context.init_cash)

    def _returns(self) -> np.ndarray:
        return self._return_path

    @cached_property
    def _units(self) -> list[np.ndarray]:
        return [x.units_path(len(self._context.index)) for x in self._ledgers]

    def _asset_values(self) -> list[np.ndarray]:
        prices = np.where(np.isnan(self._context.mark), 0.0, self._context.mark).T
        return [units * prices[x.columns] for units, x in zip(self._units, self._ledgers, strict=True)]

    @property
    def value(self) -> pd.Series | pd.DataFrame:
        """Value of the portfolio after each bar, marked at the close; currency."""
        return self._label_path(self._value, "value")

    @property
    def returns(self) -> pd.Series | pd.DataFrame:
        """Simple returns per bar; bar 0 against the initial cash, so that entry costs are in it."""
        return self._label_path(self._return_path, "returns")

    @property
    def cash(self) -> pd.Series | pd.DataFrame:
        """Cash after each bar; currency."""
        return self._label_path(self._cash, "cash")

    @property
    def units(self) -> pd.DataFrame:
        """Units held after each bar, by asset."""
        return self._label_assets(self._units)

    @property
    def asset_value(self) -> pd.DataFrame:
        """Value of each asset after each bar, marked at the close; currency."""
        return self._label_assets(self._asset_values())

    @property
    def weights(self) -> pd.DataFrame:
        """Realised weights: asset value / value after each bar; the rest to one is cash."""
        values = self._value.T
        return self._label_assets(
            [_ratio(a, values[x.lanes][:, None, :]) for a, x in zip(self._asset_values(), self._ledgers, strict=True)]
        )

    @property
    def gross_exposure(self) -> pd.Series | pd.DataFrame:
        """sum(abs(asset value)) / (that + cash) after each bar (SEMANTICS 6.6)."""
        invested = self._scatter([np.abs(a).sum(axis=1) for a in self._asset_values()]).T
        return self._label_path(_ratio(invested, invested + self._cash), "gross_exposure")

    @property
    def benchmark_value(self) -> pd.Series | pd.DataFrame:
        """What buying equal amounts of the group's assets at the first bar, without costs, would be worth (SEMANTICS
        6.5); an asset that is listed later counts as unchanged until then. Currency."""
        return self._label_path(self._benchmark_path, "benchmark_value")

    @cached_property
    def _benchmark_path(self) -> np.ndarray:
        mark = pd.DataFrame(self._context.close).ffill().bfill().to_numpy()
        growth = mark / mark[0]
        per_lane = [growth[:, columns].mean(axis=1) for columns in self._lane_columns]
        return np.stack(per_lane, axis=1) * self._context.init_cash

    def _benchmark(self, benchmark: Any) -> np.ndarray:
        if benchmark is None:
            return metrics.returns_from_value(self._benchmark_path, self._context.init_cash)
        values = np.asarray(benchmark, dtype=np.float64)
        if values.ndim not in (1, 2) or len(values) != len(self._context.index):
            raise ValueError(f"benchmark: expected returns [time] or [time, lane], got shape {values.shape}")
        return np.broadcast_to(values[:, None] if values.ndim == 1 else values, self._value.shape)

    # --- rebalances, orders, allocations

    @property
    def rebalances(self) -> pd.Series | pd.DataFrame:
        """The bars on which the allocator was asked, whether or not anything filled; bool."""
        out = np.zeros((len(self._context.index), self._num_lanes), bool)
        for ledger in self._ledgers:
            out[ledger.bar, ledger.lanes[ledger.lane_of_event]] = True
        return self._label_path(out, "rebalances")

    @property
    def rebalance_index(self) -> pd.Index:
        """The times at which one lane was rebalanced. Raises ValueError for several lanes."""
        if self._lanes is not None:
            raise ValueError(
                "rebalance_index is that of one lane: select it, as in bt[0.05]; for all see bt.rebalances"
            )
        return self._context.index.take(self._ledgers[0].bar)

    @cached_property
    def _orders(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return order_records(self._ledgers, self._first_column)

    @property
    def records(self) -> np.ndarray:
        """All orders as a structured array: id, col, idx, size, price, fees, side (SEMANTICS 6.1). `col` counts the
        columns of `asset_value`."""
        return self._orders[0].copy()

    @property
    def orders(self) -> pd.DataFrame:
        """All orders, by lane, bar and order of execution: id (within the lane), the lane levels, asset, timestamp,
        size (units, > 0), price, fees (currency), side ("Buy" or "Sell")."""
        return readable_orders(*self._orders, self._lanes, self._context.layout.assets, self._context.index)

    @cached_property
    def allocations(self) -> Allocations:
        """The target weights that were asked for: when, per lane. `js.replay` trades them."""
        layout = self._context.layout
        assets = layout.assets.unique()
        of_column = assets.get_indexer(layout.assets)
        lane = np.concatenate([x.lanes[x.lane_of_event] for x in self._ledgers])
        order = np.argsort(lane, kind="stable")
        targets = np.full((len(lane), len(assets)), np.nan)
        start = 0
        for x in self._ledgers:
            rows = np.arange(start, start + len(x.bar))
            targets[rows[:, None], of_column[x.columns[x.lane_of_event]]] = x.target
            start += len(x.bar)
        is_member = np.zeros((self._num_lanes, len(assets)), bool)
        for i, columns in enumerate(self._lane_columns):
            is_member[i, of_column[columns]] = True
        used = np.flatnonzero(is_member.any(axis=0))
        names = [] if self._lanes is None else [n for n in layout.levels if n in self._lanes.names]
        return Allocations(
            self._context.index,
            self._lanes,
            lane[order],
            np.concatenate([x.bar for x in self._ledgers])[order],
            targets[order][:, used],
            assets[used],
            is_member[:, used],
            len(names),
        )

    @property
    def aux(self) -> dict[str, Any]:
        """The arrays that the allocator handed out, by name: per rebalance indexed as `allocations.weights`, per bar
        (from `observe`) as [time, lane]. Arrays of several numbers have one column for each."""
        labels = self.allocations.row_labels
        lane = np.concatenate([x.lanes[x.lane_of_event] for x in self._ledgers])
        order = np.argsort(lane, kind="stable")
        out: dict[str, Any] = {}
        for name in self._ledgers[0].aux:
            values = _concatenated([x.aux[name] for x in self._ledgers], name)[order]
            flat = values.reshape(len(values), -1)
            out[name] = (
                pd.Series(values, index=labels, name=name)
                if values.ndim == 1
                else pd.DataFrame(flat, index=labels, columns=self._aux_columns(flat.shape[1]))
            )
        for name in self._ledgers[0].bar_aux:
            values = self._scatter([x.bar_aux[name] for x in self._ledgers])
            out[name] = self._label_bar_aux(values, name)
        return out

    def _aux_columns(self, width: int) -> pd.Index:
        assets = self.allocations.assets
        return assets if len(assets) == width and len(self._ledgers) == 1 else pd.RangeIndex(width)

    def _label_bar_aux(self, values: np.ndarray, name: str) -> pd.Series | pd.DataFrame:
        if values.ndim == 2:
            return self._label_path(values.T, name)
        flat = values.reshape(*values.shape[:2], -1)
        inner = self._aux_columns(flat.shape[2])
        if self._lanes is None:
            return pd.DataFrame(flat[0], index=self._context.index, columns=inner)
        parts = {label: pd.DataFrame(x, self._context.index, inner) for label, x in zip(self._lanes, flat, strict=True)}
        return pd.concat(parts, axis=1, names=list(self._lanes.names))

    # --- scores beyond returns

    @property
    def ann_factor(self) -> float:
        """Bars per year: year_freq / freq. Raises ValueError if the length of a bar is not known."""
        if self._context.freq is None:
            raise ValueError("freq: the index does not tell how long a bar is; pass freq=, as in freq='1h'")
        return self._context.year_freq / self._context.freq

    def annualized_with(self, *, freq: Any = None, year_freq: Any = None) -> "Backtest":
        """The same portfolios with another `freq` or `year_freq` for their metrics."""
        from jaxsim.frames.calendar import to_timedelta

        c = self._context
        new_freq = c.freq if freq is None else bar_length(c.index, freq)
        new_year = c.year_freq if year_freq is None else to_timedelta(year_freq, "year_freq")
        return Backtest(replace(c, freq=new_freq, year_freq=new_year), self._lanes, self._ledgers)

    def _per_lane(self, per_event: list[np.ndarray]) -> np.ndarray:
        out = np.zeros(self._num_lanes)
        for ledger, amounts in zip(self._ledgers, per_event, strict=True):
            out[ledger.lanes] = np.bincount(ledger.lane_of_event, amounts, minlength=len(ledger.lanes))
        return out

    def turnover(self) -> Any:
        """One-way turnover: sum over bars of sum(abs(traded value)) / (2 x value before); a fraction."""
        return self._label(self._turnover() / 2, "turnover")

    def turnover_two_way(self) -> Any:
        """Sum over bars of sum(abs(traded value)) / value before; a fraction, twice `turnover`."""
        return self._label(self._turnover(), "turnover_two_way")

    def _turnover(self) -> np.ndarray:
        traded = [np.where(x.filled, np.abs(x.trade) * x.price, 0.0).sum(axis=1) for x in self._ledgers]
        return self._per_lane([_ratio(t, x.value) for t, x in zip(traded, self._ledgers, strict=True)])

    def num_rebalances(self) -> Any:
        """Number of bars on which the allocator was asked."""
        counts = self._per_lane([np.ones(len(x.bar)) for x in self._ledgers]).astype(np.int64)
        return self._label(counts, "num_rebalances")

    def total_fees(self) -> Any:
        """Fees paid in all; currency."""
        return self._label(self._per_lane([x.fees.sum(axis=1) for x in self._ledgers]), "total_fees")

    def stats(self) -> pd.Series | pd.DataFrame:
        """The usual table (SEMANTICS 8.1): a Series for one lane, a DataFrame [lane, statistic] otherwise."""
        fees = self._per_lane([x.fees.sum(axis=1) for x in self._ledgers])
        labels = pd.RangeIndex(1) if self._lanes is None else self._lanes
        table = portfolio_stats(
            self._frame(self._value),
            self._frame(self._return_path),
            self._frame(self._benchmark(None)),
            self._frame(np.asarray(self.gross_exposure).reshape(self._value.shape)),
            pd.Series(fees, index=labels),
            pd.Series(self._context.init_cash, index=labels),
            self._context.freq,
            self._ann_factor_or_nan(),
        )
        return self._one_or_all(table)

    def returns_stats(self) -> pd.Series | pd.DataFrame:
        """The table of return statistics (SEMANTICS 8.3), as `stats`."""
        table = returns_stats(
            self._frame(self._return_path),
            self._frame(self._benchmark(None)),
            self._context.freq,
            self._ann_factor_or_nan(),
        )
        return self._one_or_all(table)

    def _ann_factor_or_nan(self) -> float:
        return self.ann_factor

    def _frame(self, path: np.ndarray) -> pd.DataFrame:
        labels = pd.RangeIndex(1) if self._lanes is None else self._lanes
        return pd.DataFrame(path, index=self._context.index, columns=labels)

    def _one_or_all(self, table: pd.DataFrame) -> pd.Series | pd.DataFrame:
        return table.iloc[0].rename(None) if self._lanes is None else table

    # --- pictures

    def _single(self, key: Any, what: str) -> "Backtest":
        one = self if key is None else self[key]
        if one._num_lanes > 1:
            raise ValueError(f"{what} draws one lane; name one, as in {what}(0.05)")
        return one if one._lanes is None else one._take(np.arange(1), None)

    def plot_allocations(self, key: Any = None, **kwargs: Any) -> Any:
        """Stacked realised weights of one lane (Plotly figure).

        key: label of the lane, as in `[]`; not needed for a single one.
        Raises ValueError if several lanes are left; ImportError naming the pip command without Plotly.
        """
        from jaxsim import views

        return views.stacked_weights(self._single(key, "plot_allocations").weights, **kwargs)

    def plot_value(self, **kwargs: Any) -> Any:
        """Value with drawdowns underneath, of all lanes (Plotly figure)."""
        from jaxsim import views

        return views.value_with_drawdown(self.value, **kwargs)

    def plot_metric(self, metric: str = "sharpe_ratio", **kwargs: Any) -> Any:
        """A metric against the swept parameters: a line for one, a heatmap for two (Plotly figure).

        metric: name of a metric method, as "sharpe_ratio". Raises ValueError for an unknown one or a single lane.
        """
        from jaxsim import views

        score = getattr(self, metric, None)
        if not callable(score):
            raise ValueError(f"metric: there is no metric {metric!r}")
        if self._lanes is None:
            raise ValueError("plot_metric draws a metric against swept parameters; this is a single lane")
        scores: Any = score()
        return views.metric_against(scores, **kwargs)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)


def _concatenated(parts: list[np.ndarray], name: str) -> np.ndarray:
    if len({p.shape[1:] for p in parts}) > 1:
        raise ValueError(f"aux: {name!r} has another shape in groups of another size; select one group first")
    return np.concatenate(parts)
