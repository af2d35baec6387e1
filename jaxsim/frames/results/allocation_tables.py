"""Allocations out of tables of weights, and out of other allocations."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.enums import Direction, SizeType
from jaxsim.frames.inputs.labels import lane_index
from jaxsim.frames.results.allocations import Allocations


def from_weights(weights: Any, index: pd.Index) -> Allocations:
    """See `Allocations.from_weights`."""
    table = _numbers(weights)
    table = table[table.notna().any(axis=1)]
    rows = table.index
    times = rows.get_level_values(-1)
    bars = index.get_indexer(times)
    if (bars < 0).any():
        raise ValueError(f"weights: {times[np.argmax(bars < 0)]} is not in the time index")
    lane, lanes = _lanes_of(rows)
    order = np.lexsort([bars, lane])
    lane, bars = lane[order], bars[order]
    twice = (np.diff(lane) == 0) & (np.diff(bars) == 0)
    if twice.any():
        raise ValueError(f"weights: {rows[order][1:][twice][0]} occurs twice")
    targets = table.to_numpy(np.float64)[order]
    count = 1 if lanes is None else len(lanes)
    member = np.ones((count, targets.shape[1]), bool)
    return Allocations(index, lanes, lane, bars.astype(np.int64), targets, table.columns, member)


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
    """Lane number of each row, and the labels of the lanes in the order in which they occur."""
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
    assert labels is not None
    lane, lanes = pd.factorize(labels)
    if isinstance(lanes, pd.MultiIndex):
        lanes.names = list(levels)
    else:
        lanes = pd.Index(lanes, name=next(iter(levels)))
    return lane.astype(np.int64), lanes


def concat(parts: Any, name: str | None) -> Allocations:
    """See `Allocations.concat`."""
    if isinstance(parts, Mapping):
        if name is None:
            raise ValueError("name: a mapping of allocations needs a name for the level of its labels")
        return _side_by_side(list(parts), list(parts.values()), name)
    if name is not None:
        raise ValueError("name: goes with a mapping, label -> allocations")
    return _one_after_the_other(list(parts))


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
    return _joined(parts, lane, order, first.lanes, first.is_member, first.assets, first.num_group_levels)


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
    return _joined(parts, lane, np.arange(len(lane)), lane_index(levels), member, assets, first.num_group_levels)


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
