"""Lanes: named indexes become a product of parameter combinations, and labels come back out.

A *sweep* is the product of all named indexes that the user passed, the last one fastest. Each index is an axis;
indexes zipped together, or of the same name and values, share one.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


def grid(**values: Any) -> pd.Index:
    """A parameter to sweep: `grid(threshold=v)` is `pd.Index(v, name="threshold")`.

    Raises TypeError unless exactly one keyword is given.
    """
    if len(values) != 1:
        raise TypeError(f"grid() takes exactly one keyword, the name of the level; got {sorted(values)}")
    ((name, labels),) = values.items()
    return pd.Index(labels, name=name)


@dataclass(frozen=True, eq=False)
class ZippedIndex:
    """One of several named indexes that advance together."""

    index: pd.Index
    partners: "Zipped"


class Zipped:
    """Named indexes of equal length that advance together; each is an attribute."""

    def __init__(self, **values: Any):
        if len(values) < 2:
            raise TypeError("zipped() takes two or more keywords, the levels that advance together")
        self._levels = {name: pd.Index(labels, name=name) for name, labels in values.items()}
        lengths = {name: len(labels) for name, labels in self._levels.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"zipped(): all levels need one length, got {lengths}")

    def __getattr__(self, name: str) -> ZippedIndex:
        levels = self.__dict__.get("_levels", {})
        if name not in levels:
            raise AttributeError(f"zipped() has no level {name!r}; it has {sorted(levels)}")
        return ZippedIndex(levels[name], self)


def zipped(**values: Any) -> Zipped:
    """Parameters that advance together instead of making their product.

    `z = zipped(threshold=[0.05, 0.1], fees=[0.001, 0.002])`; pass `z.threshold` and `z.fees`: two lanes, two levels.
    Raises TypeError for fewer than two keywords, ValueError for unequal lengths.
    """
    return Zipped(**values)


def is_swept(value: Any) -> bool:
    """Is this parameter an index to sweep?"""
    return isinstance(value, pd.Index | ZippedIndex)


@dataclass(frozen=True)
class ByAsset:
    """Rows of numbers by asset name, as a field of an allocator or a trigger. Where prices have columns it becomes an
    array [row, asset], 0 for an asset that a row does not name; the pure core, which knows no names, has no use for it.

    name: of the argument, for messages.    rows: pairs of asset name and number.
    """

    name: str
    rows: tuple[tuple[tuple[Any, float], ...], ...]

    def over(self, assets: pd.Index) -> np.ndarray:
        """The rows over the assets of all columns, [row, column]. Raises ValueError for an asset that has no column."""
        array = np.zeros((len(self.rows), len(assets)))
        for row, pairs in zip(array, self.rows, strict=True):
            for asset, number in pairs:
                is_asset = np.asarray(assets == asset)
                if not is_asset.any():
                    raise ValueError(f"{self.name}: there is no asset {asset!r} among {_few(assets.unique())}")
                row[is_asset] = number
        return array


@dataclass(eq=False)
class Axis:
    """One axis of the product: one or more levels of the same length."""

    size: int
    levels: dict[str, pd.Index]
    zipped: Zipped | None = None
    is_open: bool = False  # of a replay: indexes of its level names align with it instead of having to equal it

    def align(self, labels: pd.Index, argument: str) -> np.ndarray:
        """The values of `labels` at each place of this (open) axis."""
        level = self.levels[str(labels.name)]
        if pd.api.types.is_numeric_dtype(labels.dtype):
            known = np.asarray(labels, float)
            missing = [x for x in level.unique() if not np.isclose(known, x, rtol=1e-9, atol=0.0).any()]
        else:
            missing = [x for x in level.unique() if x not in labels]
        if missing:
            raise ValueError(
                f"{argument}: the allocations have a level {labels.name!r}; the index lacks its {_few(missing)}"
            )
        return np.asarray(level)


class Sweep:
    """The product of all named indexes, in the order in which they were added."""

    def __init__(self, recorded: Axis | None = None):
        self._axes: list[Axis] = [] if recorded is None else [recorded]
        self._values: list[tuple[Axis, np.ndarray]] = []

    def add(self, value: pd.Index | ZippedIndex, argument: str, *, numbers: bool = True) -> int:
        """Register one swept parameter; returns its number, for `values`.

        numbers: whether its labels must be numbers.
        Raises ValueError for an index without a name, without or with repeated labels, or that clashes with
        another of its name; TypeError for labels that are not numbers.
        """
        index, partners = (value.index, value.partners) if isinstance(value, ZippedIndex) else (value, None)
        _check_index(index, argument, unique=partners is None, numbers=numbers)
        axis = self._axis_of(index, partners, argument)
        labels = axis.align(index, argument) if axis.is_open else np.asarray(index)
        self._values.append((axis, labels))
        return len(self._values) - 1

    def _axis_of(self, index: pd.Index, partners: Zipped | None, argument: str) -> Axis:
        name = str(index.name)
        for axis in self._axes:
            if name in axis.levels:
                if not axis.is_open and not axis.levels[name].equals(index):
                    raise ValueError(f"{argument}: another parameter sweeps {name!r} over other values")
                if partners is not None and axis.zipped is not partners:
                    raise ValueError(f"{argument}: {name!r} is zipped here, but stands alone elsewhere")
                return axis
            if partners is not None and axis.zipped is partners:
                axis.levels[name] = index
                return axis
        self._axes.append(Axis(len(index), {name: index}, partners))
        return self._axes[-1]

    def __len__(self) -> int:
        """Number of combinations."""
        return math.prod(axis.size for axis in self._axes)

    def _places(self, axis: Axis, some: np.ndarray | None) -> np.ndarray:
        """The place along an axis of some combinations; None: of all."""
        shape = [a.size for a in self._axes]
        some = np.arange(len(self)) if some is None else some
        return np.unravel_index(some, shape)[next(i for i, a in enumerate(self._axes) if a is axis)]

    def values(self, number: int, some: np.ndarray | None = None) -> np.ndarray:
        """The value of a swept parameter in some combinations; None: in all."""
        axis, labels = self._values[number]
        return labels[self._places(axis, some)]

    def recorded_places(self, some: np.ndarray | None = None) -> np.ndarray:
        """Which recorded lanes some combinations replay."""
        return self._places(self._axes[0], some)

    def levels(self, some: np.ndarray | None = None) -> dict[str, "Level"]:
        """The labels of some combinations, by level."""
        levels = {}
        for axis in self._axes:
            places = self._places(axis, some)
            levels |= {name: Level(labels, places) for name, labels in axis.levels.items()}
        return levels

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Outermost first."""
        return tuple(self._axes)


def _check_index(index: pd.Index, argument: str, *, unique: bool, numbers: bool) -> None:
    if isinstance(index, pd.MultiIndex):
        raise ValueError(f"{argument}: a MultiIndex cannot be swept; use js.zipped(...) for levels that go together")
    if index.name is None:
        raise ValueError(
            f"{argument}: the index to sweep needs a name: pd.Index(values, name=...) or js.grid(name=values)"
        )
    if len(index) == 0:
        raise ValueError(f"{argument}: the index {index.name!r} is empty")
    if unique and index.has_duplicates:
        raise ValueError(f"{argument}: the index {index.name!r} has repeated values: {_few(index[index.duplicated()])}")
    is_numeric = pd.api.types.is_numeric_dtype(index.dtype) and not pd.api.types.is_bool_dtype(index.dtype)
    if numbers and not is_numeric:
        raise TypeError(f"{argument}: the index {index.name!r} must hold numbers, not {index.dtype}")


#: Labels that Python sorts faster than pandas does.
FEW = 64


@dataclass(frozen=True, eq=False)
class Level:
    """One level of the labels of lanes: that of each lane is the one of `labels` at its place."""

    labels: pd.Index
    places: np.ndarray

    @property
    def values(self) -> pd.Index:
        return self.labels.take(self.places)

    @property
    def is_plain(self) -> bool:
        dtype = self.labels.dtype
        return isinstance(dtype, pd.StringDtype) or (isinstance(dtype, np.dtype) and dtype.kind in "iuf")


def lane_index(levels: dict[str, pd.Index]) -> pd.Index | None:
    """The labels of all lanes: None without levels, an Index for one, a MultiIndex for several."""
    if not levels:
        return None
    if len(levels) == 1:
        ((name, labels),) = levels.items()
        return labels.rename(name)
    return pd.MultiIndex.from_arrays(list(levels.values()), names=list(levels))


def index_of_levels(levels: dict[str, Level]) -> pd.Index | None:
    """`lane_index` of what the levels hold; where all of their labels occur, only those are looked at, however many
    lanes there are."""
    if len(levels) > 1 and all(level.is_plain for level in levels.values()):
        codes, labels = zip(*(_factorized(level.labels) for level in levels.values()), strict=True)
        places = [code[level.places] for code, level in zip(codes, levels.values(), strict=True)]
        # A place below zero is that of NaN, which is no label.
        if all(np.bincount(x + 1, minlength=len(y) + 1)[1:].all() for x, y in zip(places, labels, strict=True)):
            return pd.MultiIndex(labels, places, names=list(levels), verify_integrity=False)  # pyright: ignore[reportArgumentType]
    return lane_index({name: level.values for name, level in levels.items()})


def _factorized(labels: pd.Index) -> tuple[np.ndarray, pd.Index]:
    """`labels.factorize(sort=True)` of numbers or strings, for which pandas takes long where they are few."""
    values = labels.tolist()
    if len(values) > FEW or any(x != x or not isinstance(x, int | float | str) for x in values):
        return labels.factorize(sort=True)
    ranked = {x: i for i, x in enumerate(sorted(set(values)))}
    first = {x: i for i, x in reversed(list(enumerate(values)))}
    return np.array([ranked[x] for x in values]), labels.take([first[x] for x in ranked])


def select(index: pd.Index | None, key: Any) -> tuple[np.ndarray, pd.Index | None]:
    """Select lanes by label as the columns of a DataFrame are selected.

    A scalar selects by the first level, a tuple by the leading ones (their levels are dropped); a list or a boolean
    mask selects several (levels kept). Floats match exactly, else the one label within 1e-9.
    Returns lane numbers and the labels left; None where one unlabelled lane remains.
    Raises KeyError naming the nearest label.
    """
    if index is None:
        raise KeyError(f"{key!r}: there is only one lane, without labels")
    if isinstance(key, list | np.ndarray | pd.Index | pd.Series):
        return _select_several(index, key)
    if isinstance(key, slice):
        if key != slice(None):
            raise KeyError("select lanes by a label, a tuple, a list of labels or a boolean mask, not by a slice")
        return np.arange(len(index)), index
    labels = key if isinstance(key, tuple) else (key,)
    if len(labels) > index.nlevels:
        raise KeyError(f"{key!r}: the lanes have {index.nlevels} levels, {list(index.names)}")
    chosen = np.ones(len(index), bool)
    for level, label in enumerate(labels):
        values = index.get_level_values(level)
        chosen &= _are(values, _match(values[chosen], label, index.names[level]))
    return np.flatnonzero(chosen), _drop_levels(index[chosen], len(labels))


def cross_section(index: pd.Index | None, label: Any, level: Any) -> tuple[np.ndarray, pd.Index | None]:
    """Select lanes by one level, which is dropped. Raises KeyError as `select`."""
    if index is None:
        raise KeyError(f"{label!r}: there is only one lane, without labels")
    if level not in index.names:
        if not isinstance(level, int) or not -index.nlevels <= level < index.nlevels:
            raise KeyError(f"no level {level!r}; the lanes have {list(index.names)}")
        level = index.names[level]
    values = index.get_level_values(level)
    chosen = _are(values, _match(values, label, level))
    left = index[chosen]
    left = left.droplevel(level) if isinstance(left, pd.MultiIndex) else None
    return np.flatnonzero(chosen), left


def _select_several(index: pd.Index, key: Any) -> tuple[np.ndarray, pd.Index]:
    if isinstance(key, pd.Series) and pd.api.types.is_bool_dtype(key.dtype):
        if len(key) != len(index) or not index.isin(key.index).all():
            raise KeyError("the boolean mask is labelled, but not by the lanes")
        key = key.reindex(index)
    array = np.asarray(key, dtype=object)
    if len(array) and all(isinstance(x, bool | np.bool_) for x in array):
        if len(array) != len(index):
            raise KeyError(f"the boolean mask has {len(array)} entries for {len(index)} lanes")
        chosen = np.flatnonzero(array.astype(bool))
    else:
        chosen = np.concatenate([np.arange(0), *(select(index, label)[0] for label in key)])
    if len(chosen) == 0:
        raise KeyError("no lane is selected")
    return chosen, index[chosen]


def _drop_levels(index: pd.Index, count: int) -> pd.Index | None:
    if count == index.nlevels:
        return None if len(index) == 1 else index
    return index.droplevel(list(range(count)))


def _are(values: pd.Index, label: Any) -> np.ndarray:
    """Which of the values are this label; NaN is NaN."""
    if not pd.api.types.is_scalar(label):
        return np.zeros(len(values), bool)
    return np.asarray(values.isna() if pd.isna(label) else values == label, bool)


def _match(values: pd.Index, label: Any, name: Any) -> Any:
    """The label of `values` that is meant by `label`."""
    known = values.unique()
    if _are(known, label).any():
        return label
    is_number = isinstance(label, int | float | np.number) and not isinstance(label, bool)
    if is_number and pd.api.types.is_numeric_dtype(known.dtype) and len(known):
        distance = np.abs(np.asarray(known, float) - float(label))
        near = known[distance <= 1e-9 * max(abs(float(label)), np.finfo(float).tiny)]
        if len(near) == 1:
            return near[0]
        raise KeyError(f"no lane with {name} = {label!r}; the nearest is {_few(known[[int(np.argmin(distance))]])}")
    raise KeyError(f"no lane with {name} = {label!r}; there are {_few(known)}")


def _few(labels: Iterable) -> str:
    labels = [x.item() if isinstance(x, np.generic) else x for x in labels]
    return ", ".join(repr(x) for x in labels[:10]) + (", ..." if len(labels) > 10 else "")
