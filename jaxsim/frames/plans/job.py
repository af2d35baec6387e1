"""A plan to be made, and the Allocations that the answers make."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxsim.engine.bar.look_back import Planned
from jaxsim.engine.policy.policy import fault_text
from jaxsim.engine.trading.status import LaneFault
from jaxsim.errors import AllocationError
from jaxsim.frames.inputs.groups import Layout
from jaxsim.frames.plans.look_back_ranges import LookBacks
from jaxsim.frames.results.allocations import Allocations
from jaxsim.frames.runs.arguments import name_lane


@dataclass(frozen=True, eq=False)
class PlanJob:
    """A plan to be made.

    close, val_price: [time, column].     tree: the allocator and the features, with leaves.
    key_data, key_impl: the random keys of all lanes, uint32 [lane, ...], which workers can be sent; and their kind.
    """

    index: pd.Index
    layout: Layout
    close: np.ndarray
    val_price: np.ndarray
    name: str
    tree: Any
    cash: float
    key_data: np.ndarray
    key_impl: str
    items: LookBacks
    lanes: pd.Index | None
    pad: bool

    @property
    def keys(self) -> Any:
        return jax.random.wrap_key_data(jnp.asarray(self.key_data), impl=self.key_impl)

    @property
    def num_answers(self) -> int:
        return len(self.items) * self.layout.num_groups

    def where(self, item: int, group: int, asset: int | None = None) -> str:
        """A place in a plan, as people say it."""
        bar = int(self.items.end[item])
        parts = [name_lane(self.lanes, int(self.items.combination[item]) * self.layout.num_groups + group)]
        if asset is not None:
            parts.append(f"asset {self.layout.assets[self.layout.members[group][asset]]!r}")
        return ", ".join(filter(None, [*parts, f"bar {bar}", str(self.index[bar])]))


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers for groups of one size; arrays [item, group, ...]."""

    groups: np.ndarray
    planned: Planned


def unasked(job: PlanJob) -> list[Answers]:
    """The answers to no question: of a plan without any range."""

    def of_groups(groups: np.ndarray) -> Answers:
        num_assets = len(job.layout.members[groups[0]])
        weights, skip, fault = (np.zeros(num_assets, dtype) for dtype in (np.float64, bool, np.int32))
        one = Planned(weights, skip, None, None, None, fault, {})
        return Answers(groups, jax.tree.map(lambda x: np.zeros((0, len(groups), *x.shape), x.dtype), one))

    return [of_groups(groups) for groups in job.layout.batches()]


def collect(job: PlanJob, answers: list[Answers]) -> Allocations:
    """The answers as Allocations, by lane and bar. Raises AllocationError for the first that cannot be traded."""
    layout, items = job.layout, job.items
    assets = layout.assets.unique()
    places = assets.get_indexer(layout.assets)
    num_groups, num_items = layout.num_groups, len(items)
    bad = [at for part in answers for at in _faults(part)]
    if bad:
        item, group, asset, kind = min(bad)
        raise AllocationError(
            f"allocator {job.name}: {fault_text(LaneFault(kind), job.tree[0])} ({job.where(item, group, asset)})"
        )
    member = np.zeros((num_groups, len(assets)), bool)
    for group, columns in enumerate(layout.members):
        member[group, places[columns]] = True

    def over_assets(parts: Sequence[Any]) -> np.ndarray:
        """[item, group, asset of the group], one for each group size, over all assets; NaN elsewhere."""
        out = np.full((num_items, num_groups, len(assets)), np.nan)
        for part, values in zip(answers, parts, strict=True):
            for at, group in enumerate(part.groups):
                if values is not None:
                    out[:, group, places[layout.members[group]]] = values[:, at]
        return out

    def of_name(name: str) -> np.ndarray | None:
        parts = [getattr(part.planned, name) for part in answers]
        return None if all(x is None for x in parts) else over_assets(parts)

    def handed_out(name: str) -> np.ndarray:
        parts = [part.planned.aux[name] for part in answers]
        if all(x.shape[2:] == x_of.planned.weights.shape[2:] for x, x_of in zip(parts, answers, strict=True)):
            return over_assets(parts)
        if len({x.shape[2:] for x in parts}) > 1:
            raise ValueError(f"aux: {name!r} has another shape in groups of another size")
        out = np.zeros((num_items, num_groups, *parts[0].shape[2:]), parts[0].dtype)
        for part, values in zip(answers, parts, strict=True):
            out[:, part.groups] = values
        return out

    combinations = len(job.key_data) // num_groups
    lane = (items.combination[:, None] * num_groups + np.arange(num_groups)).ravel()
    order = np.argsort(lane, kind="stable")  # items are by combination and bar already

    def rows(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(lane), *values.shape[2:])[order]

    codes = {name: of_name(name) for name in ("size_type", "direction", "sequence")}
    return Allocations(
        job.index,
        job.lanes,
        lane[order],
        np.repeat(items.end, num_groups)[order],
        rows(over_assets([part.planned.weights for part in answers])),
        assets,
        np.tile(member, (combinations, 1)),
        len(layout.levels),
        **{name: None if x is None else rows(x) for name, x in codes.items()},
        range_start=np.repeat(items.start, num_groups)[order],
        aux={name: rows(handed_out(name)) for name in answers[0].planned.aux},
    )


def _faults(part: Answers) -> Iterator[tuple[int, int, int, int]]:
    for item, at, asset in np.argwhere(part.planned.fault != LaneFault.NONE).tolist():
        yield item, int(part.groups[at]), asset, int(part.planned.fault[item, at, asset])
