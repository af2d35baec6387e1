"""Allocations: target weights, the lanes and times they belong to, tables made of them and out of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import pandas as pd

from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.engine.base.enums import Direction, SizeType
from jaxsim.frames.inputs.calendar import Snap, snapped_bars
from jaxsim.frames.inputs.labels import cross_section, lane_index, select
from jaxsim.frames.results.allocation_files import read_allocations, write_allocations
from jaxsim.frames.results.paths import Paths


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
    start: of recorded allocations: the first bar of each lane that the metrics of their source count, [lane]; None:
        that of the first allocation of each lane.
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
    start: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of allocations."""
        return len(self.bar)

    def __repr__(self) -> str:
        return f"Allocations({len(self)} of {len(self.is_member)} lanes, {len(self.assets)} assets)"

    @property
    def starts(self) -> np.ndarray:
        """The first bar of each lane that the metrics of a replay count, int [lane]; 0 for a lane that never traded."""
        return self._first_bars(0) if self.start is None else self.start

    def _first_bars(self, without: int) -> np.ndarray:
        """The bar of the first allocation of each lane, int [lane].     without: for a lane that has none."""
        first = np.searchsorted(self.lane, np.arange(len(self.is_member)))
        has_some = np.bincount(self.lane, minlength=len(self.is_member)) > 0
        out = np.full(len(self.is_member), without, np.int64)
        out[has_some] = self.bar[first[has_some]]
        return out

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
        start = None if self.start is None else self.start[chosen]
        taken = replace(rows, lanes=lanes, lane=lane, is_member=member, num_group_levels=len(levels), start=start)
        return taken._of_assets(np.flatnonzero(member.any(axis=0)))

    def _some(self, mask: np.ndarray) -> "Allocations":
        """Some of the allocations, by mask. A lane whose first one is left out starts at the first one that is left."""
        some = self._rows(mask)
        if self.start is None:
            return some
        before, after = self._first_bars(-1), some._first_bars(-1)
        return replace(some, start=np.where((before == after) | (after < 0), self.start, after))

    def _rows(self, rows: np.ndarray) -> "Allocations":
        """Some of the allocations, by number or mask."""
        chosen = {name: None if getattr(self, name) is None else getattr(self, name)[rows] for name in _PER_ALLOCATION}
        return replace(self, **chosen, aux={name: x[rows] for name, x in self.aux.items()})

    def _of_assets(self, kept: np.ndarray) -> "Allocations":
        chosen = {name: None if getattr(self, name) is None else getattr(self, name)[:, kept] for name in _PER_ASSET}
        return replace(self, assets=self.assets[kept], is_member=self.is_member[:, kept], **chosen)

    def filter(self, keep: Any) -> "Allocations":
        """Some of the allocations; lanes stay, if only as those without any.

        keep: bool [allocation], in their order or a Series by their labels, or a function of `weights` that returns
            such, as
            `lambda weights: weights.max(axis=1) < 0.5`.
        Raises ValueError or TypeError for anything else.
        """
        chosen = keep(self.weights) if callable(keep) else keep
        refuse_masked(chosen, "keep")
        mask = np.asarray(_in_order(chosen, self.row_labels) if isinstance(chosen, pd.Series) else chosen)
        if mask.dtype != bool:
            raise TypeError(f"keep: expected booleans, one per allocation, got {mask.dtype}")
        if mask.shape != (len(self),):
            raise ValueError(f"keep: expected one boolean per allocation, ({len(self)},), got shape {mask.shape}")
        return self._some(mask)

    def between(self, start: Any = None, end: Any = None) -> "Allocations":
        """The allocations from one time to another, both included, as `.loc[start:end]` of a Series would."""
        bars = np.arange(len(self.index))[self.index.slice_indexer(start, end)]
        return self._some(np.isin(self.bar, bars))

    @staticmethod
    def from_weights(weights: Any, index: pd.Index, *, snap: Snap | None = None) -> "Allocations":
        """A user's own table of target weights.

        weights: DataFrame [allocation, asset], indexed by time or by (lane levels, time); NaN leaves an asset alone.
            A DataFrame [time, asset] over all bars, all NaN where nothing is due, will do. A lane whose rows are all
            NaN stays, and so does one that has no rows, if the row levels know its label, as those of `pd.concat` do.
        index: time labels of the market, `close.index`.
        snap: what a row acts at whose time is no bar, as one on a day without trading: "after", the first bar after it;
            "before", the last bar before it, for a time at midnight the last of its day, as in `js.index_points`. Rows
            that find no bar are left out: after the last bar, and with "before" also before the first. Of rows of a
            lane that act at one bar the latest counts, as a whole, and a warning names the first that does not. None:
            a time that is no bar is refused.

        Raises TypeError or ValueError naming the argument for a time that is not in the index, one that occurs twice in
        a lane, or weights that are infinite or no numbers.
        """
        table = _numbers(weights)
        lane, lanes = _lanes_of(table.index)
        due = table.notna().any(axis=1).to_numpy()
        table, lane = table[due], lane[due]
        rows = table.index
        times = rows.get_level_values(-1)
        if snap is None:
            bars = index.get_indexer(times)
            if (bars < 0).any():
                raise ValueError(f"weights: {times[np.argmax(bars < 0)]} is not in the time index")
        else:
            times, bars = snapped_bars(times, index, snap, "weights")
        order = np.lexsort([bars, lane] if snap is None else [times, bars, lane])
        lane, bars, times = lane[order], bars[order], times[order]
        is_same = (np.diff(lane) == 0) & (np.diff(bars) == 0)
        twice = is_same & (snap is None or np.asarray(times[1:] == times[:-1]))
        if twice.any():
            raise ValueError(f"weights: {rows[order][1:][twice][0]} occurs twice")
        kept = (bars >= 0) & np.append(~is_same, True)
        if snap is not None:
            _warn_of_rows(times, bars, is_same & (bars[1:] >= 0), index)
        lane, bars, order = lane[kept], bars[kept], order[kept]
        targets = table.to_numpy(np.float64)[order]
        count = 1 if lanes is None else len(lanes)
        member = np.ones((count, targets.shape[1]), bool)
        return Allocations(index, lanes, lane, bars.astype(np.int64), targets, table.columns, member)

    @staticmethod
    def concat(parts: "list[Allocations] | dict[Any, Allocations]", *, name: str | None = None) -> "Allocations":
        """Several into one: a list joins their times, lane by lane; a mapping, label -> allocations, puts their lanes
        side by side under a new outermost level `name`.

        Raises ValueError for other bars or lanes, or where a lane would have two allocations at one bar.
        """
        if isinstance(parts, Mapping):
            if name is None:
                raise ValueError("name: a mapping of allocations needs a name for the level of its labels")
            return _side_by_side(list(parts), list(parts.values()), name)
        if name is not None:
            raise ValueError("name: goes with a mapping, label -> allocations")
        return _one_after_the_other(list(parts))

    def save(self, path: str | PathLike) -> None:
        """Write a Parquet file with one row per allocation; a reader finds the old file or the new one, never half of
        one. Raises ImportError naming the pip command without pyarrow."""
        write_allocations(Path(path), vars(self))

    @staticmethod
    def load(path: str | PathLike) -> "Allocations":
        """The allocations in a file that `save` has written.

        Raises FileNotFoundError; ValueError for a Parquet file of another kind; ImportError without pyarrow.
        """
        return Allocations(**read_allocations(Path(path)))

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
        table = by_lane.describe(*args, **kwargs)
        if self.lanes.is_unique and len(table) < len(self.lanes):
            table = table.reindex(self.lanes)
            counts = [column for column in table.columns if column[-1] == "count"]
            table[counts] = table[counts].fillna(0.0)
        return table

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


def recorded_allocations(paths: Paths, lanes: pd.Index | None) -> Allocations:
    """The answers of the allocator in a run. lanes: labels of the lanes of the run.

    Raises ValueError for a portfolio that was made of filled orders.
    """
    if paths.context.is_of_orders:
        raise ValueError("allocations: this portfolio was made of filled orders; nobody knows what was asked for")
    group_levels = [] if lanes is None else [name for name in paths.context.layout.levels if name in lanes.names]
    return Allocations(
        paths.context.index,
        lanes,
        paths.event_lane,
        paths.event_bar,
        paths.events_by_asset([x.target for x in paths.ledgers]),
        paths.assets,
        paths.is_member,
        len(group_levels),
        size_type=paths.codes_by_asset("size_type"),
        direction=paths.codes_by_asset("direction"),
        sequence=paths.sequences_by_asset(),
        start=paths.context.start,
    )


def compared_allocations(asked: Allocations, paths: Paths) -> pd.DataFrame:
    """See `Backtest.compare_allocations`. asked: of the same run."""
    if asked.size_type is not None:
        raise ValueError("compare_allocations: sizes of other kinds than target weights were asked for")
    pairs = zip(paths.weights, paths.ledgers, strict=True)
    realised = paths.events_by_asset([weights[x.lane_of_event, :, x.bar] for weights, x in pairs])
    parts = {"target": asked.targets, "realised": realised, "difference": realised - asked.targets}
    frames = {name: pd.DataFrame(x, asked.row_labels, asked.assets) for name, x in parts.items()}
    columns = [(asset, name) for asset in asked.assets for name in frames]
    table = pd.concat([frames[name][asset] for asset, name in columns], axis=1)
    return table.set_axis(pd.MultiIndex.from_tuples(columns, names=[asked.assets.name, None]), axis=1)


def _in_order(keep: pd.Series, rows: pd.Index) -> np.ndarray:
    """A labelled mask in the order of the allocations. Raises ValueError naming the first label that does not fit."""
    if keep.index.equals(rows) or isinstance(keep.index, pd.RangeIndex):
        return keep.to_numpy()
    for labels, others, what in ((rows, keep.index, "no entry for"), (keep.index, rows, "an entry for no allocation,")):
        strange = ~labels.isin(others)
        if strange.any():
            raise ValueError(f"keep: it has {what} {labels[strange][0]!r}")
    if keep.index.has_duplicates:
        raise ValueError(f"keep: it has {keep.index[keep.index.duplicated()][0]!r} twice")
    return keep.reindex(rows).to_numpy()


# --- tables of weights, and several allocations in one


def _warn_of_rows(times: pd.DatetimeIndex, bars: np.ndarray, is_overruled: np.ndarray, index: pd.Index) -> None:
    """Say which rows do not count, by lane, bar and time."""
    if is_overruled.any():
        first = int(np.argmax(is_overruled))
        warn(
            f"weights: rows that act at the bar of a later row do not count ({int(is_overruled.sum())} of them); the "
            f"first is that of {times[first]}, before that of {times[first + 1]} at bar {index[bars[first]]}",
            stacklevel=3,
        )
    if len(bars) and (bars < 0).all():
        warn(f"weights: all rows are left out, as none finds a bar; the first is that of {times[0]}", stacklevel=3)


def _numbers(weights: Any) -> pd.DataFrame:
    if not isinstance(weights, pd.DataFrame):
        raise TypeError(f"weights: expected a DataFrame [allocation, asset], got {type(weights).__name__}")
    if weights.columns.has_duplicates or isinstance(weights.columns, pd.MultiIndex):
        raise ValueError("weights: expected one column per asset; lanes are levels of the rows")
    for column, dtype in weights.dtypes.items():
        if getattr(dtype, "kind", "O") not in "iuf":
            raise TypeError(f"weights: the column {column!r} is not numeric")
    if np.isinf(weights.to_numpy(np.float64)).any():
        raise ValueError("weights: expected finite numbers, or NaN for an asset that is left alone")
    return weights


def _lanes_of(rows: pd.Index) -> tuple[np.ndarray, pd.Index | None]:
    """Lane number of each row, and the labels of the lanes in the order in which they occur; labels that occur in no
    row, but that the levels know, are of lanes without allocations."""
    if rows.nlevels == 1:
        return np.zeros(len(rows), np.int64), None
    levels = {}
    for i, name in enumerate(rows.names[:-1]):
        if name is None:
            raise ValueError(f"weights: level {i} of the rows needs a name, as a lane level has")
        if str(name) in levels:
            raise ValueError(f"weights: two levels of the rows are named {name!r}")
        levels[str(name)] = rows.get_level_values(i)
        if levels[str(name)].hasnans:
            raise ValueError(f"weights: a label of level {name!r} is missing (NaN)")
    labels = lane_index(levels)
    assert labels is not None and isinstance(rows, pd.MultiIndex)
    known = [level.unique() for level in rows.levels[:-1]]
    if any(len(x) == 0 for x in known):
        raise ValueError("weights: there is no row, and so nothing that says which lanes there are")
    lanes = labels.unique()
    if isinstance(lanes, pd.MultiIndex):
        unused = [set(x) - set(level) for x, level in zip(known, levels.values(), strict=True)]
        missing = [x for x in product(*known) if any(a in b for a, b in zip(x, unused, strict=True))]
        if missing:
            lanes = lanes.append(pd.MultiIndex.from_tuples(missing))
        lanes.names = list(levels)
    else:
        (whole,) = known
        in_order = whole[whole.isin(lanes)].equals(lanes)
        lanes = whole if in_order else lanes.append(whole[~whole.isin(lanes)])
        lanes = lanes.rename(next(iter(levels)))
    return lanes.get_indexer(labels).astype(np.int64), lanes


def _one_after_the_other(parts: list[Allocations]) -> Allocations:
    first = _first(parts)
    for other in parts[1:]:
        same_lanes = (first.lanes is None) == (other.lanes is None) and (
            first.lanes is None or first.lanes.equals(other.lanes)
        )
        if not same_lanes or not first.assets.equals(other.assets):
            raise ValueError("parts: other lanes or assets; a mapping puts different lanes side by side")
    lane, bar = (np.concatenate([getattr(x, field) for x in parts]) for field in ("lane", "bar"))
    order = np.lexsort([bar, lane])
    if ((np.diff(lane[order]) == 0) & (np.diff(bar[order]) == 0)).any():
        raise ValueError("parts: a lane has two allocations at one bar")
    joined = _joined(parts, lane, order, first.lanes, first.is_member, first.assets, first.num_group_levels)
    if all(x.start is None for x in parts):
        return joined
    return replace(joined, start=np.min([_first_counted(x) for x in parts], axis=0) % len(first.index))


def _first_counted(part: Allocations) -> np.ndarray:
    """The start of each lane, [lane]; for a plan's lane without allocations the number of bars, as if it were never."""
    return part._first_bars(len(part.index)) if part.start is None else part.start


def _side_by_side(labels: list, parts: list[Allocations], name: str) -> Allocations:
    first = _first(parts)
    names = [] if first.lanes is None else list(first.lanes.names)
    if name in names:
        raise ValueError(f"name: the allocations have a level {name!r} already")
    if any(([] if x.lanes is None else list(x.lanes.names)) != names for x in parts):
        raise ValueError(f"parts: their lanes have different levels, the first has {names}")
    counts = [len(x.is_member) for x in parts]
    levels = {name: pd.Index(labels).repeat(counts)}
    for level in names:
        each = [x.lanes.get_level_values(level) for x in parts if x.lanes is not None]
        levels[level] = each[0].append(each[1:])
    assets = first.assets.append([x.assets for x in parts[1:]]).unique()
    member = np.zeros((sum(counts), len(assets)), bool)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    for start, part in zip(starts, parts, strict=True):
        member[start : start + len(part.is_member), assets.get_indexer(part.assets)] = part.is_member
    lane = np.concatenate([x.lane + start for x, start in zip(parts, starts, strict=True)])
    joined = _joined(parts, lane, np.arange(len(lane)), lane_index(levels), member, assets, first.num_group_levels)
    if all(x.start is None for x in parts):
        return joined
    return replace(joined, start=np.concatenate([x.starts for x in parts]))


def _first(parts: list[Allocations]) -> Allocations:
    if not parts or not all(isinstance(x, Allocations) for x in parts):
        raise TypeError("parts: expected a list of js.Allocations, or a mapping, label -> js.Allocations")
    if any(not x.index.equals(parts[0].index) for x in parts):
        raise ValueError("parts: they are of markets with other bars")
    return parts[0]


def _joined(
    parts: list[Allocations],
    lane: np.ndarray,
    order: np.ndarray,
    lanes: pd.Index | None,
    member: np.ndarray,
    assets: pd.Index,
    num_group_levels: int,
) -> Allocations:
    def by_asset(name: str, missing: float) -> np.ndarray | None:
        if all(getattr(x, name) is None for x in parts):
            return None
        out = np.full((len(lane), len(assets)), missing)
        begin = 0
        for part in parts:
            values = getattr(part, name)
            rows = slice(begin, begin + len(part))
            out[rows, assets.get_indexer(part.assets)] = missing if values is None else values
            begin += len(part)
        return out[order]

    targets = by_asset("targets", np.nan)
    assert targets is not None
    starts = [x.range_start for x in parts]
    plans = [x for x in starts if x is not None]
    shared = set.intersection(*(set(x.aux) for x in parts))
    return Allocations(
        parts[0].index,
        lanes,
        lane[order],
        np.concatenate([x.bar for x in parts])[order],
        targets,
        assets,
        member,
        num_group_levels,
        size_type=by_asset("size_type", SizeType.TARGET_PERCENT),
        direction=by_asset("direction", Direction.BOTH),
        sequence=by_asset("sequence", np.nan),
        range_start=np.concatenate(plans)[order] if len(plans) == len(parts) else None,
        aux={name: np.concatenate([x.aux[name] for x in parts])[order] for name in sorted(shared)},
    )
