"""The target weights that were asked for: when, by which lane, and what they were."""

from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.frames.inputs.labels import cross_section, select


@dataclass(frozen=True, eq=False)
class Allocations:
    """Target weights of one or many lanes: recorded by a backtest, planned by `js.optimize`, or a user's own
    (`from_weights`). `js.replay` trades them.

    index: time labels of the market's bars, [time].
    lanes: labels of the lanes; None for one unlabelled lane.
    lane, bar: lane number and bar number of each allocation, [allocation], by lane and bar.
    targets: weights, [allocation, asset]; NaN where an asset was left alone or is not in the lane's group.
    assets: asset names.      is_member: which assets belong to each lane's group, [lane, asset].
    num_group_levels: how many of the lanes' levels, the innermost ones, name the group.
    size_type, direction: codes of what the targets count, [allocation, asset]; None: weights, in both directions.
    sequence: place of each asset in the order of execution, [allocation, asset], NaN or None where it was not chosen.
    range_start: of a plan: first bar of the range that each allocation looked back on, [allocation].
    aux: of a plan: what the allocator handed out, by name, [allocation, ...].
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
    range_start: np.ndarray | None = None
    aux: dict[str, np.ndarray] = field(default_factory=dict)

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
    def ranges(self) -> pd.DataFrame:
        """`records` with the look-back range of each allocation: bars [range_start, range_end), and range_end =
        alloc_idx. Raises ValueError for allocations that are no plan."""
        if self.range_start is None:
            raise ValueError("ranges: these allocations were not made from look-back ranges; js.optimize makes such")
        table = self.records
        table.insert(2, "range_start", self.range_start)
        table.insert(3, "range_end", self.bar)
        return table

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
        levels = [] if lanes is None else [name for name in self._group_levels if name in lanes.names]
        lane, rows = np.repeat(np.arange(len(chosen)), last - first), self._rows(order)
        taken = replace(rows, lanes=lanes, lane=lane, is_member=member, num_group_levels=len(levels))
        return taken._of_assets(np.flatnonzero(member.any(axis=0)))

    def _rows(self, rows: np.ndarray) -> "Allocations":
        """Some of the allocations, by number or mask."""
        chosen = {name: None if getattr(self, name) is None else getattr(self, name)[rows] for name in _PER_ALLOCATION}
        return replace(self, **chosen, aux={name: x[rows] for name, x in self.aux.items()})

    def _of_assets(self, kept: np.ndarray) -> "Allocations":
        chosen = {name: None if getattr(self, name) is None else getattr(self, name)[:, kept] for name in _PER_ASSET}
        return replace(self, assets=self.assets[kept], is_member=self.is_member[:, kept], **chosen)

    def filter(self, keep: Any) -> "Allocations":
        """Some of the allocations; lanes stay, if only as those without any.

        keep: bool [allocation], or a function of `weights` that returns such, as
            `lambda weights: weights.max(axis=1) < 0.5`.
        Raises ValueError or TypeError for anything else.
        """
        mask = np.asarray(keep(self.weights) if callable(keep) else keep)
        if mask.dtype != bool:
            raise TypeError(f"keep: expected booleans, one per allocation, got {mask.dtype}")
        if mask.shape != (len(self),):
            raise ValueError(f"keep: expected one boolean per allocation, ({len(self)},), got shape {mask.shape}")
        return self._rows(mask)

    def between(self, start: Any = None, end: Any = None) -> "Allocations":
        """The allocations from one time to another, both included, as `.loc[start:end]` of a Series would."""
        bars = np.arange(len(self.index))[self.index.slice_indexer(start, end)]
        return self._rows(np.isin(self.bar, bars))

    @staticmethod
    def from_weights(weights: Any, index: pd.Index) -> "Allocations":
        """A user's own table of target weights.

        weights: DataFrame [allocation, asset], indexed by time or by (lane levels, time); NaN leaves an asset alone.
            A DataFrame [time, asset] over all bars, all NaN where nothing is due, will do.
        index: time labels of the market, `close.index`.

        Raises TypeError or ValueError naming the argument for a time that is not in the index, one that occurs twice in
        a lane, or weights that are infinite or no numbers.
        """
        from jaxsim.frames.results.allocation_tables import from_weights

        return from_weights(weights, index)

    @staticmethod
    def concat(parts: "list[Allocations] | dict[Any, Allocations]", *, name: str | None = None) -> "Allocations":
        """Several into one: a list joins their times, lane by lane; a mapping, label -> allocations, puts their lanes
        side by side under a new outermost level `name`.

        Raises ValueError for other bars or lanes, or where a lane would have two allocations at one bar.
        """
        from jaxsim.frames.results.allocation_tables import concat

        return concat(parts, name)

    def save(self, path: str | PathLike) -> None:
        """Write a parquet file, all at once or not at all. Raises ImportError naming the pip command without
        pyarrow."""
        from jaxsim.frames.results.allocation_files import save

        save(self, path)

    @staticmethod
    def load(path: str | PathLike) -> "Allocations":
        """Read what `save` wrote. Raises ValueError for a parquet file that is something else."""
        from jaxsim.frames.results.allocation_files import load

        return load(path)

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


_PER_ASSET = ("targets", "size_type", "direction", "sequence")
_PER_ALLOCATION = (*_PER_ASSET, "lane", "bar", "range_start")
