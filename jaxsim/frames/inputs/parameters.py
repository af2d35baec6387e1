"""Parameters in: numbers, arrays, labelled tables and named indexes become array leaves with lane axes.

A parameter may differ by combination (it is swept), by group (it has one value per column), by both (recorded
allocations) or by neither. `LaneParameter` keeps which, so that nothing is ever tiled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import ANY, NUMBERS, Bounds, Kind
from jaxsim.engine.policy.triggers import AbstractCalendar, AtBars, Every, On
from jaxsim.frames.inputs.calendar import index_points
from jaxsim.frames.inputs.groups import Layout
from jaxsim.frames.inputs.labels import ByAsset, Sweep, is_swept


@dataclass(frozen=True, eq=False)
class LaneParameter:
    """One parameter of all lanes.

    array: [combination (if by_combination), group (if by_group), ...], or an `Unresolved` until the sweep is complete.
    columns: position of an axis that runs over all columns of the frame and is still to be split into groups.
    pads_assets: the last axis runs over the assets of a group, padded to the largest group.
    """

    array: Any
    by_combination: bool = False
    by_group: bool = False
    columns: int | None = None
    pads_assets: bool = False

    def of(self, groups: np.ndarray, members: list[np.ndarray], is_grouped: bool) -> tuple[Any, tuple[bool, bool]]:
        """The array for a batch of groups of one size, and whether it has a combination and a group axis."""
        array = self.array
        if self.columns is not None:
            parts, axis = [_columns(array, members[g], self.columns) for g in groups], int(self.by_combination)
            if is_grouped:  # one alone needs no copy
                array = np.stack(parts, axis) if len(parts) > 1 else np.expand_dims(parts[0], axis)
            else:
                array = parts[0]
            return array, (self.by_combination, is_grouped)
        if self.by_group:
            axis = int(self.by_combination)
            array = np.take(array, groups, axis=axis)
            array = array if is_grouped else np.take(array, 0, axis=axis)
            array = array[..., : len(members[groups[0]])] if self.pads_assets else array
            return array, (self.by_combination, is_grouped)
        return array, (self.by_combination, False)


def _columns(array: np.ndarray, wanted: np.ndarray, axis: int) -> np.ndarray:
    """Some columns of a table; of all in their order, the table itself."""
    count = array.shape[axis]
    if len(wanted) == count and (wanted == np.arange(count)).all():
        return array
    return np.take(array, wanted, axis=axis)


def time_asset(
    value: Any, argument: str, index: pd.Index, layout: Layout, sweep: Sweep, kind: Kind = ANY
) -> LaneParameter:
    """A parameter that broadcasts to [time, asset]: one value, one per asset [asset], [time or 1, asset or 1], a
    Series on the time index or on the assets, a DataFrame [time, asset] by its labels, or a named index to sweep.

    Raises ValueError naming the argument for labels that do not match, shapes that do not broadcast, or values out
    of bounds; TypeError for what is not of its kind.
    """
    if is_swept(value):
        return _swept(value, argument, sweep, kind)
    if isinstance(value, pd.Series | pd.DataFrame):
        array = _labelled(value, argument, index, layout, kind)
    else:
        array = kind.read(value, argument)
    num_columns = len(layout.columns)
    if array.ndim == 0 or array.shape == (1,):
        return LaneParameter(array.reshape(()))
    if array.ndim == 1:
        if len(array) != num_columns:
            raise ValueError(
                f"{argument}: an array of {len(array)} values for {num_columns} columns; one value per bar is a "
                "Series on the time index, or has shape [time, 1]"
            )
        return LaneParameter(array, columns=0)
    if array.ndim == 2 and array.shape[0] in (1, len(index)) and array.shape[1] in (1, num_columns):
        return LaneParameter(array) if array.shape[1] == 1 else LaneParameter(array, columns=1)
    raise ValueError(
        f"{argument}: shape {array.shape} does not broadcast to [time, asset] = ({len(index)}, {num_columns})"
    )


def number(value: Any, argument: str, sweep: Sweep, kind: Kind = ANY) -> LaneParameter:
    """A parameter that is one value, or a named index to sweep. Raises as `time_asset`."""
    if is_swept(value):
        return _swept(value, argument, sweep, kind)
    array = kind.read(value, argument)
    if array.size != 1:
        raise ValueError(f"{argument}: expected one value or a named index to sweep, got shape {array.shape}")
    return LaneParameter(array.reshape(()))


def module(tree: Any, argument: str, index: pd.Index, layout: Layout, sweep: Sweep) -> Any:
    """The leaves of an allocator or a trigger: named indexes are swept, Series, DataFrames and `ByAsset` are aligned by
    label, the bounded fields of Modules are broadcast and checked, dates become bars, all else stays as it is."""

    def read(leaf: Any) -> Any:
        if isinstance(leaf, AbstractCalendar):
            return AtBars(_due_bars(leaf, index, sweep))
        if isinstance(leaf, AtBars):
            leaf.check(len(index))
            if isinstance(leaf.mask, pd.Series) and not leaf.mask.index.equals(index):
                raise ValueError(f"{argument}: the mask of js.AtBars is labelled, but not by the bars of close")
            return AtBars(LaneParameter(np.asarray(leaf.mask, bool)))
        if isinstance(leaf, eqx.Module):
            return module_of(leaf, {f.name: _field(getattr(leaf, f.name), f) for f in fields(leaf) if _is_leaf(f)})
        if is_swept(leaf):
            return _swept(leaf, argument, sweep, ANY)
        if isinstance(leaf, ByAsset):
            return LaneParameter(leaf.over(layout.assets), columns=1)
        if isinstance(leaf, pd.Series | pd.DataFrame):
            array = _labelled(leaf, argument, index, layout)
            if array.ndim == 2 and array.shape[0] == 1:
                array = array[0]
            return LaneParameter(array, columns=array.ndim - 1) if array.shape[-1] != 1 else LaneParameter(array)
        return LaneParameter(leaf)

    def _field(value: Any, field: Any) -> Any:
        if "kind" not in field.metadata or (value is None and field.default is None):
            return descend(value)
        if field.metadata["by_bar_and_asset"]:
            return time_asset(value, field.name, index, layout, sweep, field.metadata["kind"])
        return number(value, field.name, sweep, field.metadata["kind"])

    def descend(value: Any) -> Any:
        return jax.tree.map(read, value, is_leaf=lambda x: isinstance(x, eqx.Module) or is_table(x))

    _refuse_static_indexes(tree, argument)
    return descend(tree)


def _is_leaf(field: Any) -> bool:
    return not field.metadata.get("static", False)


M = TypeVar("M", bound=eqx.Module)


def module_of(module: M, leaves: Mapping[str, Any]) -> M:
    """A copy with other fields, which the constructor would not take, or would check again."""
    return module_from(type(module), vars(module) | dict(leaves))


def module_from(kind: type[M], fields: Mapping[str, Any]) -> M:
    """A module with these fields; see `module_of`."""
    new = object.__new__(kind)
    vars(new).update(fields)
    return new


def _due_bars(rule: AbstractCalendar, index: pd.Index, sweep: Sweep) -> LaneParameter:
    """The bars on which a rule about dates is due, bool [time]."""

    def mask(**when: Any) -> np.ndarray:
        due = np.zeros(len(index), bool)
        due[index_points(index, **when)] = True
        return due

    if isinstance(rule, On):
        return LaneParameter(mask(on=rule.dates))
    assert isinstance(rule, Every)
    moved = {"at_time": rule.at_time, "offset": rule.offset}
    if not is_swept(rule.every):
        return LaneParameter(mask(every=rule.every, **moved))
    place = sweep.add(rule.every, "every", numbers=False)
    known = {label: mask(every=label, **moved) for label in getattr(rule.every, "index", rule.every)}
    return LaneParameter(
        Unresolved(lambda some: np.stack([known[x] for x in sweep.values(place, some)])), by_combination=True
    )


def is_table(x: Any) -> bool:
    return is_swept(x) or isinstance(x, pd.Series | pd.DataFrame)


def _swept(value: Any, argument: str, sweep: Sweep, kind: Kind) -> LaneParameter:
    place = sweep.add(value, argument, numbers=isinstance(kind, Bounds))
    kind.read(np.asarray(getattr(value, "index", value)), argument)

    def values(some: np.ndarray | None) -> np.ndarray:
        labels = sweep.values(place, some)
        return labels if isinstance(kind, Bounds) else kind.read(labels, argument)

    return LaneParameter(Unresolved(values), by_combination=True)


@dataclass(frozen=True, eq=False)
class Unresolved:
    """Values by combination, known once all axes of the sweep are: those of some combinations, by their numbers, or
    (None) of all."""

    values: Callable[[np.ndarray | None], np.ndarray]


def resolve(leaf: Any, some: np.ndarray | None = None) -> LaneParameter:
    """A leaf with its values filled in, those of some combinations or (None) of all."""
    if not isinstance(leaf, LaneParameter):
        return LaneParameter(leaf)
    if isinstance(leaf.array, Unresolved):
        return replace(leaf, array=leaf.array.values(some))
    return leaf if some is None or not leaf.by_combination else replace(leaf, array=leaf.array[some])


def _labelled(value: Any, argument: str, index: pd.Index, layout: Layout, kind: Kind = NUMBERS) -> np.ndarray:
    """A Series or DataFrame as [time or 1, column or 1], by its labels."""
    if isinstance(value, pd.DataFrame):
        rows = _reindex(value.index, index, argument)
        return kind.read(value.to_numpy()[rows][:, _columns_of(value.columns, layout, argument)], argument)
    array = kind.read(value.to_numpy(), argument)
    is_by_bar = len(value.index) == len(index) and value.index.equals(index)
    try:
        by_asset = array[_columns_of(value.index, layout, argument)][None, :]
        if is_by_bar:
            raise ValueError(
                f"{argument}: bars and assets have the same labels; pass a DataFrame [time, asset] instead"
            )
        return by_asset
    except LookupError:
        if is_by_bar:
            return array[:, None]
        raise ValueError(
            f"{argument}: the labels of the Series are neither the time index nor the assets {list(layout.assets)[:5]}"
        ) from None


class _NoSuchColumns(ValueError, LookupError):
    """Labels that are not those of the columns."""


def _columns_of(labels: pd.Index, layout: Layout, argument: str) -> np.ndarray:
    """Where each column of the frame stands in `labels`, which are the columns or, in any group, the asset names."""
    for wanted in (layout.columns, layout.assets):
        if labels.nlevels == wanted.nlevels and not labels.has_duplicates and labels.isin(wanted.unique()).all():
            places = labels.get_indexer(wanted)
            if (places >= 0).all():
                return places
    raise _NoSuchColumns(
        f"{argument}: its columns {list(labels)[:5]} are not those of close, {list(layout.columns)[:5]}"
    )


def _reindex(labels: pd.Index, index: pd.Index, argument: str) -> np.ndarray:
    if labels.equals(index):
        return np.arange(len(index))
    if len(labels) == len(index) and not labels.has_duplicates and not index.has_duplicates:
        places = labels.get_indexer(index)
        if (places >= 0).all():
            return places
    raise ValueError(f"{argument}: its time index is not that of close")


def _refuse_static_indexes(tree: Any, argument: str) -> None:
    for node in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, eqx.Module)):
        if isinstance(node, eqx.Module) and not isinstance(node, AbstractCalendar):
            for name, value in vars(node).items():
                if type(node).__dataclass_fields__[name].metadata.get("static") and is_swept(value):
                    raise TypeError(
                        f"{argument}: {type(node).__name__}.{name} is static and cannot be swept as an index"
                    )
