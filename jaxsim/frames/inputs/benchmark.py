"""What a run is compared with: the prices that users give, aligned by label, and what money becomes that buys them."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.engine.base.fields import PRICE, shown
from jaxsim.frames.inputs.groups import GroupLayout
from jaxsim.frames.inputs.labels import listed

#: Prices [time], or [time, group]; the name of a column; "equal": equal amounts of the assets of each group.
Benchmark = pd.Series | pd.DataFrame | np.ndarray | Hashable

EQUAL = "equal"


@dataclass(frozen=True, eq=False)
class BenchmarkPrices:
    """The prices that lanes are compared with.

    prices: [time, series], NaN where there is none.     series_of: number of the series of each group, [group], or of
    each lane, [lane].
    """

    prices: np.ndarray
    series_of: np.ndarray

    def take(self, chosen: np.ndarray) -> "BenchmarkPrices":
        """Those of some groups or lanes, by number."""
        return replace(self, series_of=self.series_of[chosen])

    def by_lane(self, num_combinations: int) -> "BenchmarkPrices":
        """Of groups, those of all lanes, groups innermost."""
        return replace(self, series_of=np.tile(self.series_of, num_combinations))


class BenchmarkGrowth:
    """What becomes of one unit of money that buys equal amounts of some columns and holds them (rules 6.5).

    prices: [time, column].
    """

    def __init__(self, prices: np.ndarray):
        self._mark = pd.DataFrame(prices).ffill().bfill().to_numpy()
        self._by_start: dict[int, np.ndarray] = {}
        self._known: dict[tuple, np.ndarray] = {}

    def of(self, columns: np.ndarray, start: int) -> np.ndarray:
        """Its value after each bar, [time], bought at the close of the bar before `start`, or of bar 0; 1 before."""
        key = (start, *columns.tolist())
        if key not in self._known:
            self._known[key] = self._by_column(start)[:, columns].mean(axis=1)
        return self._known[key]

    def _by_column(self, start: int) -> np.ndarray:
        if start not in self._by_start:
            bought = min(max(start - 1, 0), len(self._mark) - 1)
            growth = self._mark / self._mark[bought]
            growth[:bought] = 1.0
            self._by_start[start] = growth
        return self._by_start[start]


def read_benchmark(
    value: Benchmark | None, index: pd.Index, layout: GroupLayout, close: np.ndarray
) -> BenchmarkPrices | None:
    """The prices of the benchmark of each group; None: equal amounts of its assets.

    close: [time, column].
    Raises TypeError or ValueError naming `benchmark` for what is no price, or has no price at a bar.
    """
    if value is None or (isinstance(value, str) and value == EQUAL):
        return None
    refuse_masked(value, "benchmark")
    groups = layout.num_groups
    if isinstance(value, pd.DataFrame):
        return _by_group(value, index, layout)
    if isinstance(value, pd.Series | np.ndarray | list):
        prices = value.to_numpy() if isinstance(value, pd.Series) else np.asarray(value)
        if isinstance(value, pd.Series):
            prices = prices[rows_of(value.index, index, "benchmark")]
        elif prices.shape != (len(index),):
            raise ValueError(f"benchmark: expected one price for each of {len(index)} bars, got shape {prices.shape}")
        return BenchmarkPrices(_positive(prices[:, None]), np.zeros(groups, int))
    return BenchmarkPrices(close, _columns(value, layout))


def _columns(name: Any, layout: GroupLayout) -> np.ndarray:
    """The number of the column of this name for each group: its own asset, or the only column that is called so."""
    try:
        whole = [number for number, column in enumerate(layout.columns) if column == name]
        named = [number for number, asset in enumerate(layout.assets) if asset == name]
    except (TypeError, ValueError):
        whole, named = [], []
    if len(whole) == 1:
        return np.full(layout.num_groups, whole[0])
    own = [[number for number in named if number in members] for members in layout.members]
    if named and all(len(x) == 1 for x in own):
        return np.array([x[0] for x in own])
    if len(named) == 1:
        return np.full(layout.num_groups, named[0])
    if named:
        group = next(i for i, x in enumerate(own) if not x)
        labels = ", ".join(repr(x[group]) for x in layout.levels.values())
        raise ValueError(f"benchmark: the group {labels} has no column {name!r}; pass its prices, a Series")
    raise ValueError(
        f"benchmark: expected prices (a Series), the name of a column or 'equal', got {shown(name)}; the columns are "
        f"{listed(layout.columns)}"[:300]
    )


def _by_group(table: pd.DataFrame, index: pd.Index, layout: GroupLayout) -> BenchmarkPrices:
    """One series of prices for each group, by its label."""
    prices = _positive(table.to_numpy()[rows_of(table.index, index, "benchmark")])
    if table.columns.has_duplicates:
        raise ValueError(f"benchmark: the column {table.columns[table.columns.duplicated()][0]!r} is there twice")
    if not layout.levels:
        if table.shape[1] != 1:
            raise ValueError(
                f"benchmark: a frame is by group, and close has no groups; pass one of its columns, "
                f"{listed(table.columns)}"
            )
        return BenchmarkPrices(prices, np.zeros(1, int))
    labels = list(layout.levels.values())
    groups = labels[0] if len(labels) == 1 else pd.MultiIndex.from_arrays(labels)
    places = table.columns.get_indexer(groups) if table.columns.nlevels == groups.nlevels else np.array([-1])
    if (places < 0).any():
        raise ValueError(
            f"benchmark: there is no column for the group {groups[int(np.argmin(places))]!r}, only "
            f"{listed(table.columns)}"
        )
    return BenchmarkPrices(prices, places)


def _positive(prices: np.ndarray) -> np.ndarray:
    """Prices [time, series] as float64. Raises TypeError or ValueError for what is none."""
    if prices.dtype.kind not in "iuf":
        try:
            prices = np.asarray(prices, np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"benchmark: expected prices, which are numbers, got {prices.dtype}") from None
    prices = prices.astype(np.float64)
    bad = (prices <= 0) | np.isinf(prices)
    if not bad.any() and (is_far := (prices <= PRICE.low) | (prices > PRICE.high)).any():
        raise ValueError(f"benchmark: expected prices > {PRICE.low:g} and <= {PRICE.high:g}, got {prices[is_far][0]:g}")
    if bad.any():
        raise ValueError(f"benchmark: expected prices > 0, got {prices[bad][0]:g}; of returns r pass (1 + r).cumprod()")
    if np.isnan(prices).all(axis=0).any():
        raise ValueError("benchmark: it has no price at any bar of close")
    return prices


# --- labels


def rows_of(labels: pd.Index, index: pd.Index, argument: str, of_returns: bool = False) -> np.ndarray:
    """The row of each bar of `index` among `labels`. Further labels are left out.

    of_returns: whether rows are returns: then a label between two bars is refused, as the return after it is that of a
    part of the bar.
    Raises ValueError naming the argument and the first label that does not fit.
    """
    if labels.equals(index):
        return np.arange(len(index))
    if labels.has_duplicates:
        raise ValueError(f"{argument}: it has {labels[labels.duplicated()][0]} twice")
    try:
        places = labels.get_indexer(index)
    except TypeError:
        places = np.full(len(index), -1)
    if (places < 0).any():
        raise ValueError(
            f"{argument}: it has no entry for {index[int(np.argmax(places < 0))]}, which is a bar of the run"
        )
    if of_returns:
        between = (labels > index[0]) & (labels < index[-1]) & ~labels.isin(index)
        if between.any():
            raise ValueError(
                f"{argument}: it has an entry for {labels[between][0]}, which is no bar of the run; returns of other "
                "bars do not fit"
            )
    return places
