"""The result of a run, labelled: values, weights, orders, allocations, metrics, pictures."""

import math
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.frames.inputs.bars_per_year import bar_length, to_timedelta
from jaxsim.frames.inputs.labels import cross_section, select
from jaxsim.frames.results.allocations import Allocations
from jaxsim.frames.results.metric_methods import MetricMethods
from jaxsim.frames.results.paths import Paths
from jaxsim.frames.results.plots import Plots
from jaxsim.frames.results.tables import Tables

#: pandas 3 copies what is shared when it is written to.
COPIES_ON_WRITE = int(pd.__version__.split(".")[0]) >= 3


class Backtest(MetricMethods, Tables, Plots):
    """A simulated portfolio, or many of them side by side ("lanes").

    With one unlabelled lane, results over time are Series, results by asset DataFrames [time, asset], metrics floats.
    With labelled lanes they are DataFrames [time, lane], DataFrames with columns (lane levels..., asset), and Series
    over the lanes. Every metric of `jaxsim.metrics` is a method.

    Made by `js.backtest` and `js.replay`, not by hand.
    """

    def __init__(self, paths: Paths, lanes: pd.Index | None):
        self._paths = paths
        self._lanes = lanes

    def __repr__(self) -> str:
        by = "" if self._lanes is None else f" by {list(self._lanes.names)}"
        plural = "s" if self._num_lanes != 1 else ""
        return f"Backtest({len(self._index)} bars, {self._num_lanes} lane{plural}{by})"

    # --- lanes

    @property
    def lanes(self) -> pd.Index | None:
        """Labels of the lanes; None for one unlabelled lane."""
        return self._lanes

    @property
    def _num_lanes(self) -> int:
        return self._paths.num_lanes

    @property
    def _index(self) -> pd.Index:
        return self._paths.context.index

    def __getitem__(self, key: Any) -> "Backtest":
        """Lanes by label, as the columns of a DataFrame are selected.

        A scalar selects by the first level, a tuple by the leading ones, and their levels are dropped; a list or a
        boolean mask selects several lanes and keeps the levels. A float matches exactly, else the one label within
        1e-9 of it. Raises KeyError naming the nearest label.
        """
        chosen, lanes = select(self._lanes, key)
        return Backtest(self._paths.take(chosen), lanes)

    __iter__ = None  # `[]` selects lanes by label; there is nothing to iterate over

    def xs(self, label: Any, level: Any) -> "Backtest":
        """Lanes by the label of one level, which is dropped. Raises KeyError."""
        chosen, lanes = cross_section(self._lanes, label, level)
        return Backtest(self._paths.take(chosen), lanes)

    # --- labels

    def _label(self, scores: np.ndarray, name: str) -> Any:
        if self._lanes is None:
            return scores[0].item()
        return pd.Series(scores, index=self._lanes, name=name)

    def _label_path(self, path: np.ndarray, name: str | None = None) -> pd.Series | pd.DataFrame:
        if self._lanes is None:
            return pd.Series(path[:, 0], index=self._index, name=name)
        return pd.DataFrame(path, index=self._index, columns=self._lanes, copy=False)

    def _path(self, name: str) -> Any:
        """A path of the portfolio with labels. What a user writes into it stays with the user."""
        if name not in self._known_paths:
            self._known_paths[name] = self._label_path(getattr(self._paths, name), name)
        return self._known_paths[name].copy(deep=not COPIES_ON_WRITE)

    @cached_property
    def _known_paths(self) -> dict[str, Any]:
        return {}

    def _label_assets(self, parts: list[np.ndarray]) -> pd.DataFrame:
        paths = self._paths.by_asset(parts)
        return pd.DataFrame(paths, index=self._index, columns=self._asset_columns, copy=False)

    @cached_property
    def _asset_columns(self) -> pd.Index:
        layout, first = self._paths.context.layout, self._paths.first_column
        assets = layout.assets.take(np.concatenate(self._paths.lane_columns))
        if self._lanes is None:
            return assets
        lane = np.repeat(np.arange(self._num_lanes), np.diff(first))
        levels = [self._lanes.get_level_values(i).take(lane) for i in range(self._lanes.nlevels)]
        return pd.MultiIndex.from_arrays([*levels, assets], names=[*self._lanes.names, layout.assets.name])

    # --- paths

    @property
    def value(self) -> pd.Series | pd.DataFrame:
        """Value of the portfolio after each bar, marked at the close; currency."""
        return self._path("value")

    @property
    def returns(self) -> pd.Series | pd.DataFrame:
        """Simple returns per bar; bar 0 against the initial cash, so that entry costs are in it."""
        return self._path("returns")

    @property
    def cash(self) -> pd.Series | pd.DataFrame:
        """Cash after each bar; currency."""
        return self._path("cash")

    @property
    def units(self) -> pd.DataFrame:
        """Units held after each bar, by asset."""
        return self._label_assets(self._paths.units)

    @property
    def asset_value(self) -> pd.DataFrame:
        """Value of each asset after each bar, marked at the close; currency."""
        return self._label_assets(self._paths.asset_value)

    @property
    def weights(self) -> pd.DataFrame:
        """Realised weights: asset value / value after each bar; the rest to one is cash."""
        return self._label_assets(self._paths.weights)

    @property
    def gross_exposure(self) -> pd.Series | pd.DataFrame:
        """sum(abs(asset value)) / (that + free cash) after each bar (rules 6.6)."""
        return self._path("gross_exposure")

    @property
    def benchmark_value(self) -> pd.Series | pd.DataFrame:
        """What buying equal amounts of the group's assets at the first bar, without costs, would be worth
        (rules 6.5); an asset that is listed later counts as unchanged until then. Currency."""
        return self._path("benchmark_value")

    # --- rebalances, allocations

    @property
    def rebalances(self) -> pd.Series | pd.DataFrame:
        """The bars on which the allocator was asked, whether or not anything filled; bool."""
        return self._path("rebalances")

    @property
    def rebalance_index(self) -> pd.Index:
        """The times at which one lane was rebalanced. Raises ValueError for several lanes."""
        if self._lanes is not None:
            raise ValueError(
                "rebalance_index is that of one lane: select it, as in bt[0.05]; for all of them see bt.rebalances"
            )
        return self._index.take(np.unique(self._paths.event_bar))

    @cached_property
    def allocations(self) -> Allocations:
        """What was asked for, target weights or other sizes: when, per lane. `js.replay` trades it."""
        paths = self._paths
        if paths.context.is_of_orders:
            raise ValueError("allocations: this portfolio was made of filled orders; nobody knows what was asked for")
        in_lanes = [] if self._lanes is None else [n for n in paths.context.layout.levels if n in self._lanes.names]
        targets = paths.events_by_asset([x.target for x in paths.ledgers])
        lane, bar = paths.event_lane, paths.event_bar
        asked = {name: paths.codes_by_asset(name) for name in ("size_type", "direction")}
        return Allocations(
            self._index,
            self._lanes,
            lane,
            bar,
            targets,
            paths.assets,
            paths.is_member,
            len(in_lanes),
            size_type=asked["size_type"],
            direction=asked["direction"],
            sequence=paths.sequences_by_asset(),
        )

    def compare_allocations(self) -> pd.DataFrame:
        """What was asked for at each rebalance beside what came of it: the weights after the close of its bar, when
        fees have been paid and prices have moved on. Indexed as `allocations.weights`; columns (asset, one of "target",
        "realised", "difference").

        Raises ValueError for sizes that are no weights.
        """
        asked = self.allocations
        if asked.size_type is not None:
            raise ValueError("compare_allocations: sizes of other kinds than target weights were asked for")
        paths = self._paths
        pairs = zip(paths.weights, paths.ledgers, strict=True)
        realised = paths.events_by_asset([weights[x.lane_of_event, :, x.bar] for weights, x in pairs])
        parts = {"target": asked.targets, "realised": realised, "difference": realised - asked.targets}
        frames = {name: pd.DataFrame(x, asked.row_labels, asked.assets) for name, x in parts.items()}
        columns = [(asset, name) for asset in asked.assets for name in frames]
        table = pd.concat([frames[name][asset] for asset, name in columns], axis=1)
        return table.set_axis(pd.MultiIndex.from_tuples(columns, names=[asked.assets.name, None]), axis=1)

    @property
    def aux(self) -> dict[str, Any]:
        """The arrays that the allocator handed out, by name: per rebalance indexed as `allocations.weights`, per bar
        (from `observe`) as [time, lane]. Arrays of several numbers have one column for each.

        Raises ValueError if an array has another shape in groups of another size.
        """
        ledgers = self._paths.ledgers
        per_event = {name: self._label_aux([x.aux[name] for x in ledgers], name) for name in ledgers[0].aux}
        per_bar = {name: self._label_bar_aux([x.bar_aux[name] for x in ledgers], name) for name in ledgers[0].bar_aux}
        both = sorted(set(per_event) & set(per_bar))
        if both:
            raise ValueError(f"aux: {both[0]!r} is recorded per rebalance and per bar; give one of them another name")
        return per_event | per_bar

    def _is_by_asset(self, parts: list[np.ndarray], axis: int) -> bool:
        sizes = [x.columns.shape[1] for x in self._paths.ledgers]
        return all(p.ndim == axis + 1 and p.shape[axis] == n for p, n in zip(parts, sizes, strict=True))

    def _label_aux(self, parts: list[np.ndarray], name: str) -> pd.Series | pd.DataFrame:
        rows = self.allocations.row_labels
        if self._is_by_asset(parts, 1):
            return pd.DataFrame(self._paths.events_by_asset(parts), index=rows, columns=self._paths.assets)
        values = self._paths.events(_alike(parts, name))
        if values.ndim == 1:
            return pd.Series(values, index=rows, name=name)
        return pd.DataFrame(values.reshape(len(values), math.prod(values.shape[1:])), index=rows)

    def _label_bar_aux(self, parts: list[np.ndarray], name: str) -> pd.Series | pd.DataFrame:
        if self._is_by_asset(parts, 2):
            return self._label_assets([np.swapaxes(p, 1, 2) for p in parts])
        values = self._paths.by_lane(_alike(parts, name))
        if values.ndim == 2:
            return self._label_path(values.T, name)
        frames = [pd.DataFrame(x.reshape(len(x), -1), self._index) for x in values]
        if self._lanes is None:
            return frames[0]
        return pd.concat(dict(zip(self._lanes, frames, strict=True)), axis=1, names=list(self._lanes.names))

    # --- scores

    @property
    def ann_factor(self) -> float:
        """Bars per year: year_freq / freq. Raises ValueError if the length of a bar is not known."""
        return self._ann_factor(None, None)

    def _ann_factor(self, freq: Any, year_freq: Any) -> float:
        bar = self._bar_length(freq)
        if bar is None:
            raise ValueError("freq: the index does not tell how long a bar is; pass freq=, as in freq='1h'")
        year = self._paths.context.year_freq if year_freq is None else to_timedelta(year_freq, "year_freq")
        return year / bar

    def _bar_length(self, freq: Any) -> pd.Timedelta | None:
        return self._paths.context.freq if freq is None else bar_length(self._index, freq)

    def _returns(self) -> np.ndarray:
        return self._paths.returns

    def _benchmark(self, benchmark: Any) -> np.ndarray:
        if benchmark is None:
            return self._paths.benchmark_returns
        values = np.asarray(benchmark, dtype=np.float64)
        if values.ndim not in (1, 2) or len(values) != len(self._index):
            raise ValueError(f"benchmark: expected returns [time] or [time, lane], got shape {values.shape}")
        return np.broadcast_to(values[:, None] if values.ndim == 1 else values, self._paths.value.shape)

    def turnover(self) -> Any:
        """One-way turnover: sum over bars of sum(abs(traded value)) / (2 x value before); a fraction."""
        return self._label(self._paths.turnover_two_way / 2, "turnover")

    def turnover_two_way(self) -> Any:
        """Sum over bars of sum(abs(traded value)) / value before; a fraction, twice `turnover`."""
        return self._label(self._paths.turnover_two_way, "turnover_two_way")

    def num_rebalances(self) -> Any:
        """Number of bars on which the allocator was asked."""
        return self._label(self._paths.num_rebalances, "num_rebalances")

    def total_fees(self) -> Any:
        """Fees paid in all; currency."""
        return self._label(self._paths.total_fees, "total_fees")


def _alike(parts: list[np.ndarray], name: str) -> list[np.ndarray]:
    if len({p.shape[1:] for p in parts}) > 1:
        raise ValueError(f"aux: {name!r} has another shape in groups of another size; select one group first")
    return parts
