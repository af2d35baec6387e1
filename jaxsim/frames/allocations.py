"""The target weights that were asked for: when, by which lane, and what they were."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.frames.lanes import cross_section, select


@dataclass(frozen=True, eq=False)
class Allocations:
    """Recorded target weights of one or many lanes; `js.replay` trades them.

    index: time labels of the market's bars, [time].
    lanes: labels of the lanes; None for one unlabelled lane.
    lane, bar: lane number and bar number of each allocation, [allocation], by lane and bar.
    targets: weights, [allocation, asset]; NaN where an asset was left alone or is not in the lane's group.
    assets: asset names.      is_member: which assets belong to each lane's group, [lane, asset].
    num_group_levels: how many of the lanes' levels, the innermost ones, name the group.
    size_type, direction: codes of what the targets count, [allocation, asset]; None: weights, in both directions.
    sequence: place of each asset in the order of execution, [allocation, asset], NaN or None where it was not chosen.
    """

    index: pd.Index
    lanes: pd.Index | None
    lane: np.ndarray
    bar: np.ndarray
    targets: np.ndarray
    assets: pd.Index
    is_member: np.ndarray
    num_group_levels: int = 0
    size_type: np.ndarray | None = None
    direction: np.ndarray | None = None
    sequence: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of allocations."""
        return len(self.bar)

    def __repr__(self) -> str:
        return f"Allocations({len(self)} of {len(self.is_member)} lanes, {len(self.assets)} assets)"

    @property
    def records(self) -> pd.DataFrame:
        """One row per allocation: id within the lane, col (lane number), alloc_idx (bar number), int64."""
        first = np.searchsorted(self.lane, self.lane)
        return pd.DataFrame(
            {"id": np.arange(len(self)) - first, "col": self.lane, "alloc_idx": self.bar}, dtype=np.int64
        )

    @property
    def records_readable(self) -> pd.DataFrame:
        """`records` with lane labels and timestamps, and the weights beside them."""
        table = pd.DataFrame({"id": self.records["id"]})
        for level in [] if self.lanes is None else range(self.lanes.nlevels):
            assert self.lanes is not None
            table[self.lanes.names[level]] = self.lanes.get_level_values(level).take(self.lane)
        table["timestamp"] = self.index.take(self.bar)
        return pd.concat([table, pd.DataFrame(self.targets, columns=list(self.assets))], axis=1)

    @property
    def weights(self) -> pd.DataFrame:
        """Target weights, [allocation, asset], indexed by time (one lane) or by (lane levels, time)."""
        return pd.DataFrame(self.targets, index=self.row_labels, columns=self.assets)

    @property
    def row_labels(self) -> pd.Index:
        """The labels of the allocations: their times, with the lane levels before them if there are any."""
        times = self.index.take(self.bar)
        if self.lanes is None:
            return times
        levels = [self.lanes.get_level_values(i).take(self.lane) for i in range(self.lanes.nlevels)]
        return pd.MultiIndex.from_arrays([*levels, times], names=[*self.lanes.names, self.index.name])

    def __getitem__(self, key: Any) -> "Allocations":
        """Lanes by label, as columns of a DataFrame: see `Backtest.__getitem__`. Raises KeyError."""
        return self._take(*select(self.lanes, key))

    def xs(self, label: Any, level: Any) -> "Allocations":
        """Lanes by the label of one level, which is dropped. Raises KeyError."""
        return self._take(*cross_section(self.lanes, label, level))

    def _take(self, chosen: np.ndarray, lanes: pd.Index | None) -> "Allocations":
        first, last = (np.searchsorted(self.lane, chosen, side) for side in ("left", "right"))
        order = np.concatenate([np.arange(0), *(np.arange(a, b) for a, b in zip(first, last, strict=True))])
        member = self.is_member[chosen]
        kept = np.flatnonzero(member.any(axis=0))
        levels = [] if lanes is None else [name for name in self._group_levels if name in lanes.names]
        return Allocations(
            self.index,
            lanes,
            np.repeat(np.arange(len(chosen)), last - first),
            self.bar[order],
            self.targets[order][:, kept],
            self.assets[kept],
            member[:, kept],
            len(levels),
            None if self.size_type is None else self.size_type[order][:, kept],
            None if self.direction is None else self.direction[order][:, kept],
            None if self.sequence is None else self.sequence[order][:, kept],
        )

    @property
    def _group_levels(self) -> list:
        if self.lanes is None or self.num_group_levels == 0:
            return []
        return list(self.lanes.names)[-self.num_group_levels :]

    def describe(self, *args: Any, **kwargs: Any) -> pd.DataFrame:
        """`DataFrame.describe` of the weights: over all allocations of one lane, else by lane."""
        if self.lanes is None:
            return self.weights.describe(*args, **kwargs)
        by_lane = self.weights.groupby(level=list(range(self.lanes.nlevels)), sort=False)
        return by_lane.describe(*args, **kwargs)

    def plot(self, key: Any = None, **kwargs: Any) -> Any:
        """Stacked target weights of one lane with the dates of the allocations (Plotly figure).

        key: label of the lane, as in `[]`; not needed for a single one.
        Raises ValueError if several lanes are left; ImportError naming the pip command without Plotly.
        """
        from jaxsim import views

        one = self if key is None else self[key]
        if one.lanes is not None and len(one.lanes) > 1:
            raise ValueError("plot() draws one lane; name one, as in allocations.plot(0.05)")
        weights = pd.DataFrame(one.targets, index=self.index.take(one.bar), columns=one.assets)
        return views.stacked_targets(weights, end=self.index[-1], **kwargs)
