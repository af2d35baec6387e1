"""`PlanJob`: an allocator and the look-back ranges that it is asked about, and `Allocations` from its answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.bar.look_back import Planned
from jaxsim.engine.policy.policy import fault_text
from jaxsim.engine.trading.status import LaneFault
from jaxsim.errors import AllocationError
from jaxsim.frames.inputs.groups import GroupLayout
from jaxsim.frames.inputs.lanes import Lanes
from jaxsim.frames.plans.look_back_ranges import LookBacks
from jaxsim.frames.results.allocations import Allocations


@dataclass(frozen=True, eq=False)
class PlanJob:
    """An allocator and the look-back ranges that it is to be asked about.

    index: time labels.     lanes: labels and random keys.
    close, val_price: [time, column].
    name: of the allocator, for messages.       tree: the allocator and the features, with `LaneParameter` leaves.
    cash: of the untouched account, currency.       items: the ranges of all combinations.
    pad: whether ranges of about one length share a program.
    """

    index: pd.Index
    lanes: Lanes
    close: np.ndarray
    val_price: np.ndarray
    name: str
    tree: tuple[Any, Any]
    cash: float
    items: LookBacks
    pad: bool

    @property
    def layout(self) -> GroupLayout:
        return self.lanes.layout

    @property
    def num_answers(self) -> int:
        return len(self.items) * self.layout.num_groups

    def place(self, item: int, group: int, asset: int | None = None) -> str:
        """A place in a plan for messages: the lane, the asset, the bar and its time."""
        bar = int(self.items.end[item])
        parts = [self.lanes.name(int(self.items.combination[item]) * self.layout.num_groups + group)]
        if asset is not None:
            parts.append(f"asset {self.layout.assets[self.layout.members[group][asset]]!r}")
        return ", ".join(filter(None, [*parts, f"bar {bar}", str(self.index[bar])]))


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers for groups of one size.

    groups: their numbers.      planned: arrays [item, group, ...].
    """

    groups: np.ndarray
    planned: Planned


def no_answers(job: PlanJob) -> list[Answers]:
    """The answers of a plan without any range."""

    def of_groups(groups: np.ndarray) -> Answers:
        num_assets = len(job.layout.members[groups[0]])
        weights, skip, fault = (np.zeros(num_assets, dtype) for dtype in (np.float64, bool, np.int32))
        one = Planned(weights, skip, None, None, None, fault, {})
        return Answers(groups, jax.tree.map(lambda x: np.zeros((0, len(groups), *x.shape), x.dtype), one))

    return [of_groups(groups) for groups in job.layout.batches()]


def allocations_from(job: PlanJob, answers: list[Answers]) -> Allocations:
    """The answers as Allocations, by lane and bar. Raises AllocationError for the first one that cannot be traded."""
    layout, items = job.layout, job.items
    assets = layout.assets.unique()
    places = assets.get_indexer(layout.assets)
    num_groups, num_items = layout.num_groups, len(items)
    faults = [fault for part in answers for fault in _faults(part)]
    if faults:
        item, group, asset, kind = min(faults)
        text = fault_text(LaneFault(kind), job.tree[0])
        raise AllocationError(f"allocator {job.name}: {text} ({job.place(item, group, asset)})")
    member = np.zeros((num_groups, len(assets)), bool)
    for group, columns in enumerate(layout.members):
        member[group, places[columns]] = True

    def over_assets(parts: Sequence[Any]) -> np.ndarray:
        """Arrays [item, group, asset of the group], one for each group size, as one over all assets; NaN elsewhere."""
        out = np.full((num_items, num_groups, len(assets)), np.nan)
        for part, values in zip(answers, parts, strict=True):
            for number, group in enumerate(part.groups):
                if values is not None:
                    out[:, group, places[layout.members[group]]] = values[:, number]
        return out

    def codes_of(name: str) -> np.ndarray | None:
        parts = [getattr(part.planned, name) for part in answers]
        return None if all(x is None for x in parts) else over_assets(parts)

    def aux_of(name: str) -> np.ndarray:
        parts = [part.planned.aux[name] for part in answers]
        if all(x.shape[2:] == y.planned.weights.shape[2:] for x, y in zip(parts, answers, strict=True)):
            return over_assets(parts)
        if len({x.shape[2:] for x in parts}) > 1:
            raise ValueError(f"aux: {name!r} has another shape in groups of another size")
        out = np.zeros((num_items, num_groups, *parts[0].shape[2:]), parts[0].dtype)
        for part, values in zip(answers, parts, strict=True):
            out[:, part.groups] = values
        return out

    combinations = job.lanes.num_combinations
    lane = (items.combination[:, None] * num_groups + np.arange(num_groups)).ravel()
    order = np.argsort(lane, kind="stable")  # items are by combination and bar already

    def rows(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(lane), *values.shape[2:])[order]

    codes = {name: codes_of(name) for name in ("size_type", "direction", "sequence")}
    return Allocations(
        job.index,
        job.lanes.labels,
        lane[order],
        np.repeat(items.end, num_groups)[order],
        rows(over_assets([part.planned.weights for part in answers])),
        assets,
        np.tile(member, (combinations, 1)),
        len(layout.levels),
        **{name: None if x is None else rows(x) for name, x in codes.items()},
        range_start=np.repeat(items.start, num_groups)[order],
        aux={name: rows(aux_of(name)) for name in answers[0].planned.aux},
    )


def _faults(part: Answers) -> Iterator[tuple[int, int, int, int]]:
    """Item, group, asset and code of each fault."""
    for item, number, asset in np.argwhere(part.planned.fault != LaneFault.NONE).tolist():
        yield item, int(part.groups[number]), asset, int(part.planned.fault[item, number, asset])
