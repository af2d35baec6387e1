"""Labels on arrays: the bars, lanes and assets of a run, put on its paths, totals and recorded arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.frames.results.paths import Paths


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of a run.

    paths: the arrays of the run.     lanes: labels of the lanes; None for one unlabelled lane.
    """

    paths: Paths
    lanes: pd.Index | None

    @property
    def index(self) -> pd.Index:
        """Labels of the bars."""
        return self.paths.context.index

    def score(self, values: np.ndarray, name: str) -> Any:
        """[lane] as a Series over the lanes; a number for one unlabelled lane."""
        if self.lanes is None:
            return values[0].item()
        return pd.Series(values, index=self.lanes, name=name)

    def path(self, values: np.ndarray, name: str | None = None) -> pd.Series | pd.DataFrame:
        """[time, lane] as a DataFrame; a Series for one unlabelled lane."""
        if self.lanes is None:
            return pd.Series(values[:, 0], index=self.index, name=name)
        return pd.DataFrame(values, index=self.index, columns=self.lanes, copy=False)

    def frame(self, values: np.ndarray) -> pd.DataFrame:
        """[time, lane] as a DataFrame, also for one unlabelled lane."""
        return pd.DataFrame(values, index=self.index, columns=self.lane_numbers)

    @property
    def lane_numbers(self) -> pd.Index:
        """The labels of the lanes; 0 for one unlabelled lane."""
        return pd.RangeIndex(1) if self.lanes is None else self.lanes

    def one_or_all(self, table: pd.DataFrame) -> pd.Series | pd.DataFrame:
        """A table [lane, statistic]; its row for one unlabelled lane."""
        return table.iloc[0].rename(None) if self.lanes is None else table

    def by_asset(self, parts: Sequence[np.ndarray]) -> pd.DataFrame:
        """Arrays [lane of the ledger, asset, time], one per ledger, as a DataFrame [time, (lane levels..., asset)]."""
        return pd.DataFrame(self.paths.by_asset(parts), index=self.index, columns=self.asset_columns, copy=False)

    @cached_property
    def asset_columns(self) -> pd.Index:
        """(lane levels..., asset) of each column of a path by asset."""
        layout, first = self.paths.context.layout, self.paths.first_column
        assets = layout.assets.take(np.concatenate(self.paths.lane_columns))
        if self.lanes is None:
            return assets
        lane = np.repeat(np.arange(self.paths.num_lanes), np.diff(first))
        levels = [self.lanes.get_level_values(i).take(lane) for i in range(self.lanes.nlevels)]
        return pd.MultiIndex.from_arrays([*levels, assets], names=[*self.lanes.names, layout.assets.name])

    # --- arrays that the allocator has handed out

    def aux(self, rows: pd.Index) -> dict[str, pd.Series | pd.DataFrame]:
        """The recorded arrays by name. rows: labels of the rebalances, [rebalance].

        Raises ValueError for a name that is recorded per rebalance and per bar, or for an array that has another shape
        in groups of another size.
        """
        ledgers = self.paths.ledgers
        per_event = {name: self._per_event([x.aux[name] for x in ledgers], name, rows) for name in ledgers[0].aux}
        per_bar = {name: self._per_bar([x.bar_aux[name] for x in ledgers], name) for name in ledgers[0].bar_aux}
        both = sorted(set(per_event) & set(per_bar))
        if both:
            raise ValueError(f"aux: {both[0]!r} is recorded per rebalance and per bar; give one of them another name")
        return per_event | per_bar

    def _has_assets(self, parts: Sequence[np.ndarray], axis: int) -> bool:
        """Whether this axis of the arrays counts the assets of the lane."""
        sizes = [x.columns.shape[1] for x in self.paths.ledgers]
        return all(p.ndim == axis + 1 and p.shape[axis] == n for p, n in zip(parts, sizes, strict=True))

    def _per_event(self, parts: Sequence[np.ndarray], name: str, rows: pd.Index) -> pd.Series | pd.DataFrame:
        if self._has_assets(parts, 1):
            return pd.DataFrame(self.paths.events_by_asset(parts), index=rows, columns=self.paths.assets)
        values = self.paths.events(_of_one_shape(parts, name))
        if values.ndim == 1:
            return pd.Series(values, index=rows, name=name)
        return pd.DataFrame(values.reshape(len(values), math.prod(values.shape[1:])), index=rows)

    def _per_bar(self, parts: Sequence[np.ndarray], name: str) -> pd.Series | pd.DataFrame:
        if self._has_assets(parts, 2):
            return self.by_asset([np.swapaxes(p, 1, 2) for p in parts])
        values = self.paths.by_lane(_of_one_shape(parts, name))
        if values.ndim == 2:
            return self.path(values.T, name)
        frames = [pd.DataFrame(x.reshape(len(x), -1), self.index) for x in values]
        if self.lanes is None:
            return frames[0]
        return pd.concat(dict(zip(self.lanes, frames, strict=True)), axis=1, names=list(self.lanes.names))


def _of_one_shape(parts: Sequence[np.ndarray], name: str) -> Sequence[np.ndarray]:
    if len({p.shape[1:] for p in parts}) > 1:
        raise ValueError(f"aux: {name!r} has another shape in groups of another size; select one group first")
    return parts
