"""Parameters as users give them, numbers, arrays, labelled tables and named indexes, become arrays with lane axes.

A parameter may differ by combination (it is swept), by group (it has one value per column), by both (recorded
allocations) or by neither. `LaneParameter` says which, so that no array is repeated for every lane.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from itertools import product
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
import pandas as pd

from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.engine.base.fields import ANY, NUMBERS, Bounds, Kind
from jaxsim.engine.policy.triggers import AbstractCalendar, AtBars, Every, On
from jaxsim.frames.inputs.calendar import index_points
from jaxsim.frames.inputs.groups import GroupLayout
from jaxsim.frames.inputs.labels import ByAsset, first_misfit
from jaxsim.frames.inputs.sweep_axes import Sweep, Swept, ZippedIndex, is_swept, labels_of

#: One value for all lanes, or an index of values to sweep.
LaneValue = float | Swept
#: One value, one per asset, per bar, or per bar and asset; or an index of values to sweep.
Parameter = LaneValue | Sequence[float] | np.ndarray | jax.Array | pd.Series | pd.DataFrame
#: A code of an enum: its member, number or name; per bar and asset as a `Parameter`.
CodeParameter = str | Sequence[str] | Parameter

T = TypeVar("T")
M = TypeVar("M", bound=eqx.Module)


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
        """The array for groups of one size, and whether it has a combination and a group axis.

        is_grouped: whether to keep an axis of groups; without it there is one group.
        """
        array = self.array
        if self.columns is not None:
            parts, axis = [_columns(array, members[g], self.columns) for g in groups], int(self.by_combination)
            if is_grouped:  # a single group needs no copy
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

    def of_lane(self, combination: int, group: int, members: list[np.ndarray]) -> Any:
        """The value in one lane."""
        array, (by_combination, _) = self.of(np.array([group]), members, False)
        return array[combination] if by_combination else array

    def of_some_groups(self, groups: np.ndarray) -> "LaneParameter":
        """The parameter of these groups alone."""
        if not self.by_group:
            return self
        return replace(self, array=np.take(self.array, groups, axis=int(self.by_combination)))


def is_parameter(x: Any) -> bool:
    return isinstance(x, LaneParameter)


def map_parameters(function: Callable[[LaneParameter], Any], tree: T) -> T:
    """The tree with `function` of each of its `LaneParameter`; other leaves stay as they are."""
    return jax.tree.map(lambda x: function(x) if is_parameter(x) else x, tree, is_leaf=is_parameter)


@dataclass(frozen=True, eq=False)
class Unresolved:
    """Values by combination that are known once all axes of the sweep are.

    values: function of the numbers of combinations (None: of all) that gives [combination, ...].
    """

    values: Callable[[np.ndarray | None], np.ndarray]


def resolve(leaf: Any, combinations: np.ndarray | None = None) -> LaneParameter:
    """A leaf with the values of some combinations, by their numbers, or (None) of all of them."""
    if not isinstance(leaf, LaneParameter):
        return LaneParameter(leaf)
    if isinstance(leaf.array, Unresolved):
        return replace(leaf, array=leaf.array.values(combinations))
    return leaf if combinations is None or not leaf.by_combination else replace(leaf, array=leaf.array[combinations])


def with_fields(module: M, leaves: Mapping[str, Any]) -> M:
    """A copy of a module with other fields, which its constructor would refuse or check again."""
    return module_from(type(module), vars(module) | dict(leaves))


def module_from(kind: type[M], leaves: Mapping[str, Any]) -> M:
    """A module of a class with these fields, past its constructor; see `with_fields`."""
    new = object.__new__(kind)
    vars(new).update(leaves)
    return new


@dataclass(frozen=True, eq=False)
class ParameterReader:
    """Reads the parameters of one run.

    index: time labels.     layout: groups and assets.      sweep: gets an axis for each named index that is read.
    """

    index: pd.Index
    layout: GroupLayout
    sweep: Sweep

    def by_bar_and_asset(self, value: CodeParameter, argument: str, kind: Kind = ANY) -> LaneParameter:
        """A parameter that broadcasts to [time, asset]: one value, one per asset [asset], [time or 1, asset or 1], a
        Series on the time index or on the assets, a DataFrame [time, asset] by its labels, or a named index to sweep.

        Raises ValueError naming the argument for labels that do not match, shapes that do not broadcast, or values out
        of bounds; TypeError for values that are not of the kind.
        """
        if isinstance(value, Swept):
            return self._swept(value, argument, kind)
        if isinstance(value, pd.Series | pd.DataFrame):
            array = self._labelled(value, argument, kind)
        else:
            array = kind.read(value, argument)
        num_columns = len(self.layout.columns)
        if array.ndim == 0 or array.shape == (1,):
            return LaneParameter(array.reshape(()))
        if array.ndim == 1:
            if len(array) != num_columns:
                raise ValueError(
                    f"{argument}: an array of {len(array)} values for {num_columns} columns; one value per bar is a "
                    "Series on the time index, or has shape [time, 1]"
                )
            return LaneParameter(array, columns=0)
        if array.ndim == 2 and array.shape[0] in (1, len(self.index)) and array.shape[1] in (1, num_columns):
            return LaneParameter(array) if array.shape[1] == 1 else LaneParameter(array, columns=1)
        raise ValueError(
            f"{argument}: shape {array.shape} does not broadcast to [time, asset] = ({len(self.index)}, {num_columns})"
        )

    def per_lane(self, value: str | LaneValue, argument: str, kind: Kind = ANY) -> LaneParameter:
        """A parameter that is one value, or a named index to sweep. Raises as `by_bar_and_asset`."""
        if isinstance(value, Swept):
            return self._swept(value, argument, kind)
        array = kind.read(value, argument)
        if array.size != 1:
            raise ValueError(f"{argument}: expected one value or a named index to sweep, got shape {array.shape}")
        return LaneParameter(array.reshape(()))

    def module(self, tree: T, argument: str) -> T:
        """An allocator, a trigger or a destination with `LaneParameter` in place of its numbers.

        Named indexes are swept, Series, DataFrames and `ByAsset` are aligned by label, bounded fields of Modules are
        broadcast and checked, dates become bars. All other leaves stay as they are. Raises as `by_bar_and_asset`.
        """

        def read(leaf: Any) -> Any:
            if isinstance(leaf, AbstractCalendar):
                return AtBars(self._due_bars(leaf))  # pyright: ignore[reportArgumentType]
            if isinstance(leaf, AtBars):
                leaf.check(len(self.index))
                if isinstance(leaf.mask, pd.Series) and not leaf.mask.index.equals(self.index):
                    raise ValueError(f"{argument}: the mask of js.AtBars is labelled, but not by the bars of close")
                return AtBars(LaneParameter(np.asarray(leaf.mask, bool)))  # pyright: ignore[reportArgumentType]
            if isinstance(leaf, eqx.Module):
                return with_fields(leaf, {f.name: read_field(getattr(leaf, f.name), f) for f in _dynamic_fields(leaf)})
            if isinstance(leaf, Swept):
                return self._swept(leaf, argument, ANY)
            if isinstance(leaf, ByAsset):
                return LaneParameter(leaf.over(self.layout.assets), columns=1)
            if isinstance(leaf, pd.Series | pd.DataFrame):
                array = self._labelled(leaf, argument)
                if array.ndim == 2 and array.shape[0] == 1:
                    array = array[0]
                return LaneParameter(array, columns=array.ndim - 1) if array.shape[-1] != 1 else LaneParameter(array)
            return LaneParameter(leaf)

        def read_field(value: Any, field: Field) -> Any:
            if "kind" not in field.metadata or _is_off(value, field):
                return descend(value)
            if field.metadata["by_bar_and_asset"]:
                return self.by_bar_and_asset(value, field.name, field.metadata["kind"])
            return self.per_lane(value, field.name, field.metadata["kind"])

        def descend(value: Any) -> Any:
            return jax.tree.map(read, value, is_leaf=lambda x: isinstance(x, eqx.Module) or is_table(x))

        refuse_masked(tree, argument)
        _refuse_static_indexes(tree, argument)
        return descend(tree)

    def _due_bars(self, rule: AbstractCalendar) -> LaneParameter:
        """The bars on which a rule about dates is due, bool [time]."""

        def mask(**when: Any) -> np.ndarray:
            due = np.zeros(len(self.index), bool)
            due[index_points(self.index, **when)] = True
            return due

        if isinstance(rule, On):
            return LaneParameter(mask(on=rule.dates, snap=rule.snap))
        assert isinstance(rule, Every)
        when = {"every": rule.every, "at_time": rule.at_time, "offset": rule.offset, "snap": rule.snap}
        swept = {name: value for name, value in when.items() if is_swept(value)}
        if not swept:
            return LaneParameter(mask(**when))
        sweep = self.sweep
        numbers = [sweep.add(value, name, numbers=False) for name, value in swept.items()]
        go_together = len({id(x.partners if isinstance(x, ZippedIndex) else x) for x in swept.values()}) == 1
        each = [np.asarray(labels_of(value)) for value in swept.values()]
        pairs = zip(*each, strict=True) if go_together else product(*each)
        masks = {labels: mask(**when | dict(zip(swept, labels, strict=True))) for labels in pairs}

        def values(combinations: np.ndarray | None) -> np.ndarray:
            labels = zip(*(sweep.values(number, combinations) for number in numbers), strict=True)
            return np.stack([masks[x] for x in labels])

        return LaneParameter(Unresolved(values), by_combination=True)

    def _swept(self, value: Swept, argument: str, kind: Kind) -> LaneParameter:
        sweep, number = self.sweep, self.sweep.add(value, argument, numbers=isinstance(kind, Bounds))
        kind.read(np.asarray(labels_of(value)), argument)

        def values(combinations: np.ndarray | None) -> np.ndarray:
            labels = sweep.values(number, combinations)
            return labels if isinstance(kind, Bounds) else kind.read(labels, argument)

        return LaneParameter(Unresolved(values), by_combination=True)

    def _labelled(self, value: pd.Series | pd.DataFrame, argument: str, kind: Kind = NUMBERS) -> np.ndarray:
        """A Series or DataFrame as [time or 1, column or 1], by its labels."""
        if isinstance(value, pd.DataFrame):
            rows = _rows_of(self.index, value.index, argument)
            return kind.read(value.to_numpy()[rows][:, _places_of(self.layout, value.columns, argument)], argument)
        array = kind.read(value.to_numpy(), argument)
        is_by_bar = len(value.index) == len(self.index) and value.index.equals(self.index)
        try:
            by_asset = array[_places_of(self.layout, value.index, argument)][None, :]
            if is_by_bar:
                raise ValueError(
                    f"{argument}: bars and assets have the same labels; pass a DataFrame [time, asset] instead"
                )
            return by_asset
        except LookupError:
            if is_by_bar:
                return array[:, None]
            raise ValueError(
                f"{argument}: the labels of the Series are neither the time index nor the assets "
                f"{list(self.layout.assets)[:5]}"
            ) from None


def is_table(x: Any) -> bool:
    """Whether a leaf has labels that are to be read."""
    return is_swept(x) or isinstance(x, pd.Series | pd.DataFrame)


def _columns(array: np.ndarray, wanted: np.ndarray, axis: int) -> np.ndarray:
    """Some columns of a table. All columns in their order are the table itself, without a copy."""
    count = array.shape[axis]
    if len(wanted) == count and (wanted == np.arange(count)).all():
        return array
    return np.take(array, wanted, axis=axis)


def _is_off(value: Any, field: Field) -> bool:
    """Whether a feature is off: its value is None, and so is its default."""
    return value is None and field.default is None


def _dynamic_fields(module: eqx.Module) -> list[Field]:
    return [field for field in fields(module) if not field.metadata.get("static", False)]


class _NoSuchColumns(ValueError, LookupError):
    """Labels that are not those of the columns."""


def _places_of(layout: GroupLayout, labels: pd.Index, argument: str) -> np.ndarray:
    """The place in `labels` of each column of the frame; they are the column labels or, in any group, the assets."""
    for wanted in (layout.columns, layout.assets):
        if labels.nlevels == wanted.nlevels and not labels.has_duplicates and labels.isin(wanted.unique()).all():
            places = labels.get_indexer(wanted)
            if (places >= 0).all():
                return places
    raise _NoSuchColumns(
        f"{argument}: its columns {list(labels)[:5]} are not those of close, {list(layout.columns)[:5]}"
    )


def _rows_of(index: pd.Index, labels: pd.Index, argument: str) -> np.ndarray:
    """The place in `labels` of each bar."""
    if labels.equals(index):
        return np.arange(len(index))
    if len(labels) == len(index) and not labels.has_duplicates and not index.has_duplicates:
        places = labels.get_indexer(index)
        if (places >= 0).all():
            return places
    raise ValueError(f"{argument}: its time index is not that of close{first_misfit(labels, index)}")


def _refuse_static_indexes(tree: Any, argument: str) -> None:
    for node in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, eqx.Module)):
        if isinstance(node, eqx.Module) and not isinstance(node, AbstractCalendar):
            for name, value in vars(node).items():
                if type(node).__dataclass_fields__[name].metadata.get("static") and is_swept(value):
                    raise TypeError(
                        f"{argument}: {type(node).__name__}.{name} is static and cannot be swept as an index"
                    )
