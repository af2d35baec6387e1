"""`RecordedPolicy`: recorded allocations as a policy that replays them."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.policy.given import RecordedTargets, replay_policy
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.policy.stops import AbstractStop
from jaxsim.frames.inputs.groups import GroupLayout
from jaxsim.frames.inputs.parameters import LaneParameter, Unresolved
from jaxsim.frames.inputs.sweep_axes import Axis, Sweep
from jaxsim.frames.results.allocations import Allocations
from jaxsim.frames.runs.shapes import power_of_two_from

#: Up to this number of lanes, each has room for at least `LEAST_ROOM` allocations: few shapes, few programs.
FEW_LANES, LEAST_ROOM = 64, 512


class RecordedPolicy:
    """Recorded allocations as tables [combination, group, allocation, asset], where an asset axis is padded to the
    largest group.

    axis: of the recorded lanes, without the group levels.

    Raises ValueError for a time, an asset or a group of the allocations that is not in the layout or the index.
    """

    def __init__(self, allocations: Allocations, layout: GroupLayout, index: pd.Index):
        bars = _bars(allocations, index)
        places, self.axis = _recorded_axis(allocations, layout)
        longest = _room(np.bincount(allocations.lane, minlength=1))
        num, groups = places.shape
        size = max(len(m) for m in layout.members)
        self._num_bars, self._members = len(index), layout.members
        self._is_plan = allocations.start is None and allocations.size_type is None
        self._starts = _starts(allocations, index)[places]
        self._bars = np.full((num, groups, longest), len(index), np.int32)
        self._weights = np.full((num, groups, longest, size), np.nan)
        self._codes = {
            name: None if getattr(allocations, name) is None else np.zeros(self._weights.shape, dtype)
            for name, dtype in (("size_type", np.int32), ("direction", np.int32), ("sequence", np.float64))
        }
        combination_of = np.empty(len(allocations.is_member), int)  # of each recorded lane, for one group
        for group in range(groups):
            combination_of[:] = -1
            combination_of[places[:, group]] = np.arange(num)
            rows = np.flatnonzero(combination_of[allocations.lane] >= 0)
            lane = allocations.lane[rows]
            cells = combination_of[lane], group, rows - np.searchsorted(allocations.lane, lane)
            columns = _asset_places(allocations, layout, group)
            _refuse_unknown(allocations, columns, rows, [labels[group] for labels in layout.levels.values()])
            of_group = np.where(columns < 0, np.nan, allocations.targets[rows][:, columns])
            self._bars[cells] = bars[rows]
            self._weights[(*cells, slice(0, len(columns)))] = of_group
            for name, table in self._codes.items():
                if table is not None:
                    codes = getattr(allocations, name)[rows][:, np.maximum(columns, 0)]
                    table[(*cells, slice(0, len(columns)))] = codes

    def first_bar(self, sweep: Sweep) -> LaneParameter:
        """The bar of the first allocation of each lane: nothing trades before it, whatever a trigger says."""
        return _parameter(sweep, self._bars[:, :, 0].astype(np.float64))

    def warn_of_unsized(self, val_price: np.ndarray, index: pd.Index) -> None:
        """Warn of a plan whose first row cannot be sized, as none of its assets has a price then.

        val_price: the prices that orders are sized at, [time, column].
        """
        if not self._is_plan:
            return
        for group, columns in enumerate(self._members):
            bars, weights = self._bars[:, group, 0], self._weights[:, group, 0, : len(columns)]
            lanes = np.flatnonzero(bars < len(index))
            wanted = np.nan_to_num(weights[lanes]) != 0
            sized = wanted & ~np.isnan(val_price[bars[lanes]][:, columns])
            lost = lanes[wanted.any(axis=1) & ~sized.any(axis=1)]
            if len(lost):
                first = int(bars[lost[0]])
                why = "the bar before has no close" if first == 0 else "none of its assets has a price yet"
                warnings.warn(
                    f"allocations: the first row, of {index[first]}, cannot be sized and is not traded, as {why}; pass "
                    "open=, the prices that orders are sized at, or begin a bar later",
                    stacklevel=3,
                )
                return

    def start(self, sweep: Sweep) -> LaneParameter:
        """The first bar of each lane that metrics count."""
        return _parameter(sweep, self._starts.astype(np.float64))

    def policy(self, sweep: Sweep, trigger: Callable | None, stops: tuple[AbstractStop, ...]) -> Policy:
        """The policy that replays the allocations.

        trigger: when to go back to the last targets in between; None: never.       stops: rules that close positions.
        """
        codes: Any = {
            name: None if table is None else _parameter(sweep, table, pads_assets=True)
            for name, table in self._codes.items()
        }
        weights: Any = _parameter(sweep, self._weights, pads_assets=True)
        bars: Any = _parameter(sweep, self._bars)
        mask: Any = None if trigger is None and not stops else _parameter(sweep, self._mask())
        return replay_policy(mask, RecordedTargets(bars, weights, **codes), trigger, stops)

    def _mask(self) -> np.ndarray:
        """The bars with an allocation, bool [combination, group, time]."""
        mask = np.zeros((*self._bars.shape[:2], self._num_bars + 1), bool)
        np.put_along_axis(mask, self._bars, True, axis=-1)
        return mask[..., :-1]


def _parameter(sweep: Sweep, array: np.ndarray, pads_assets: bool = False) -> LaneParameter:
    values = Unresolved(lambda combinations: array[sweep.recorded_places(combinations)])
    return LaneParameter(values, by_combination=True, by_group=True, pads_assets=pads_assets)


def _room(counts: np.ndarray) -> int:
    """The length of the allocation axis, a power of two.      counts: recorded allocations of each lane."""
    least = LEAST_ROOM if np.count_nonzero(counts) <= FEW_LANES else 1
    return max(least, power_of_two_from(max(1, int(counts.max()))))


def _bars(allocations: Allocations, index: pd.Index) -> np.ndarray:
    """The bar of each allocation in another time index."""
    if allocations.index.equals(index):
        return allocations.bar
    bars = index.get_indexer(allocations.index.take(allocations.bar))
    if (bars < 0).any():
        missing = allocations.index[allocations.bar[np.argmax(bars < 0)]]
        raise ValueError(f"allocations: {missing} is not in the time index of close")
    return bars


def _starts(allocations: Allocations, index: pd.Index) -> np.ndarray:
    """The first bar of each recorded lane that metrics count, in another time index, [lane]: the first one at or after
    the time of the recorded one, where the index goes from time to later time."""
    starts = allocations.starts
    if allocations.index.equals(index):
        return starts
    times = allocations.index.take(np.minimum(starts, len(allocations.index) - 1))
    bars = index.get_indexer(times)
    if (bars < 0).any() and index.is_monotonic_increasing:
        bars = np.where(bars < 0, index.searchsorted(times), bars)
    return np.where(bars < 0, 0, bars)


def _recorded_axis(allocations: Allocations, layout: GroupLayout) -> tuple[np.ndarray, Axis]:
    """The recorded lane of every [combination, group], and the axis of the combinations."""
    lanes, group_levels = allocations.lanes, list(layout.levels)
    if lanes is None:
        if layout.num_groups > 1:
            raise ValueError("allocations: they are of one group, close has several")
        return np.zeros((1, 1), int), Axis(1, {}, is_open=True)
    if not set(group_levels) <= set(lanes.names):
        raise ValueError(f"allocations: close has groups by {group_levels}, the allocations have {list(lanes.names)}")
    rest = [name for name in lanes.names if name not in group_levels]
    if not group_levels and layout.num_groups == 1 and lanes.is_unique:
        levels = {str(name): lanes.get_level_values(name) for name in rest}
        return np.arange(len(lanes))[:, None], Axis(len(lanes), levels, is_open=True)
    frame = lanes.to_frame(index=False)
    keys = list(map(tuple, frame[rest].to_numpy(dtype=object))) if rest else [()] * len(lanes)
    combinations = list(dict.fromkeys(keys))
    wanted = list(zip(*layout.levels.values(), strict=True)) if group_levels else [()]
    groups = list(map(tuple, frame[group_levels].to_numpy(dtype=object))) if group_levels else [()] * len(lanes)
    lane_of = {(k, tuple(g)): i for i, (k, g) in enumerate(zip(keys, groups, strict=True))}
    places = np.empty((len(combinations), len(wanted)), int)
    for i, combination in enumerate(combinations):
        for j, group in enumerate(wanted):
            if (combination, tuple(group)) not in lane_of:
                raise ValueError(f"allocations: there are none for the group {group} of close")
            places[i, j] = lane_of[combination, tuple(group)]
    first = [keys.index(c) for c in combinations]
    levels = {str(name): lanes.get_level_values(name).take(first) for name in rest}
    return places, Axis(len(combinations), levels, is_open=True)


def _refuse_unknown(allocations: Allocations, columns: np.ndarray, rows: np.ndarray, labels: list) -> None:
    """Raises ValueError where a weight is meant for an asset that the group of these labels does not have."""
    is_unknown = np.ones(len(allocations.assets), bool)
    is_unknown[columns[columns >= 0]] = False
    unknown = np.flatnonzero(is_unknown)
    meant = ~np.isnan(allocations.targets[np.ix_(rows, unknown)]).all(axis=0)
    if meant.any():
        asset, group = allocations.assets[unknown[meant][0]], ", ".join(map(repr, labels))
        raise ValueError(f"allocations: close has no column for {asset!r} in group {group}")


def _asset_places(allocations: Allocations, layout: GroupLayout, group: int) -> np.ndarray:
    """The place of each asset of a group among the recorded assets; -1 for an asset without allocations."""
    assets = layout.assets[layout.members[group]]
    if assets.equals(allocations.assets):
        return np.arange(len(assets))
    places = allocations.assets.get_indexer(assets)
    if (places < 0).all() or not allocations.assets.isin(layout.assets).all():
        missing = allocations.assets[~allocations.assets.isin(assets)]
        raise ValueError(f"allocations: close has no column for {missing[0]!r}")
    return places
