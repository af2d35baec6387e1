"""The axes of a sweep: named indexes make a product of parameter combinations.

Each named index that the user passes is an axis, the last one fastest. Indexes that are zipped together share one axis,
and so do indexes of the same name and values.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.frames.inputs.labels import Level, listed


def grid(**values: Iterable) -> pd.Index:
    """A parameter to sweep: `grid(threshold=v)` is `pd.Index(v, name="threshold")`.

    Raises TypeError unless exactly one keyword is given.
    """
    if len(values) != 1:
        raise TypeError(f"grid() takes exactly one keyword, the name of the level; got {sorted(values)}")
    ((name, labels),) = values.items()
    refuse_masked(labels, name)
    return pd.Index(labels, name=name)  # pyright: ignore[reportArgumentType, reportCallIssue]


@dataclass(frozen=True, eq=False)
class ZippedIndex:
    """One of several named indexes that advance together."""

    index: pd.Index
    partners: "Zipped"


class Zipped:
    """Named indexes of equal length that advance together; each is an attribute."""

    def __init__(self, **values: Iterable):
        if len(values) < 2:
            raise TypeError("zipped() takes two or more keywords, the levels that advance together")
        self._levels = {name: grid(**{name: labels}) for name, labels in values.items()}
        lengths = {name: len(labels) for name, labels in self._levels.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"zipped(): all levels need one length, got {lengths}")

    def __getattr__(self, name: str) -> ZippedIndex:
        levels = self.__dict__.get("_levels", {})
        if name not in levels:
            raise AttributeError(f"zipped() has no level {name!r}; it has {sorted(levels)}")
        return ZippedIndex(levels[name], self)


def zipped(**values: Iterable) -> Zipped:
    """Parameters that advance together instead of making their product.

    `z = zipped(threshold=[0.05, 0.1], fees=[0.001, 0.002])`; pass `z.threshold` and `z.fees`: two lanes, two levels.
    Raises TypeError for fewer than two keywords, ValueError for unequal lengths.
    """
    return Zipped(**values)


#: An index of values to sweep.
Swept = pd.Index | ZippedIndex


def is_swept(value: Any) -> bool:
    """Whether a parameter is an index of values to sweep."""
    return isinstance(value, Swept)


def labels_of(value: Swept) -> pd.Index:
    """The values of an index to sweep."""
    return value.index if isinstance(value, ZippedIndex) else value


@dataclass(eq=False)
class Axis:
    """One axis of the product: one or more levels of the same length.

    is_open: of a replay. An index with the name of one of its levels is aligned with it and need not equal it.
    """

    size: int
    levels: dict[str, pd.Index]
    zipped: Zipped | None = None
    is_open: bool = False

    def align(self, labels: pd.Index, argument: str) -> np.ndarray:
        """The value at each place of this open axis. Raises ValueError where `labels` lacks one of them."""
        level = self.levels[str(labels.name)]
        if pd.api.types.is_numeric_dtype(labels.dtype):
            known = np.asarray(labels, float)
            missing = [x for x in level.unique() if not np.isclose(known, x, rtol=1e-9, atol=0.0).any()]
        else:
            missing = [x for x in level.unique() if x not in labels]
        if missing:
            raise ValueError(
                f"{argument}: the allocations have a level {labels.name!r}; the index lacks its {listed(missing)}"
            )
        return np.asarray(level)


class Sweep:
    """The product of all named indexes, in the order in which they were added.

    A combination is known by its number. Methods take the numbers of combinations; None means all of them.
    """

    def __init__(self, recorded: Axis | None = None):
        self._axes: list[Axis] = [] if recorded is None else [recorded]
        self._values: list[tuple[Axis, np.ndarray]] = []

    def add(self, value: Swept, argument: str, *, numbers: bool = True) -> int:
        """Register one swept parameter. Returns its number, for `values`.

        numbers: whether its labels must be numbers.
        Raises ValueError for an index without a name, without labels, with repeated labels, or with the name of
        another one that has other values; TypeError for labels that are not numbers.
        """
        index, partners = labels_of(value), value.partners if isinstance(value, ZippedIndex) else None
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

    def _places(self, axis: Axis, combinations: np.ndarray | None) -> np.ndarray:
        """The place of combinations along an axis."""
        shape = [a.size for a in self._axes]
        combinations = np.arange(len(self)) if combinations is None else combinations
        return np.unravel_index(combinations, shape)[next(i for i, a in enumerate(self._axes) if a is axis)]

    def values(self, number: int, combinations: np.ndarray | None = None) -> np.ndarray:
        """The value of a swept parameter in each combination."""
        axis, labels = self._values[number]
        return labels[self._places(axis, combinations)]

    def recorded_places(self, combinations: np.ndarray | None = None) -> np.ndarray:
        """The recorded lane that each combination replays."""
        return self._places(self._axes[0], combinations)

    def levels(self, combinations: np.ndarray | None = None) -> dict[str, Level]:
        """The labels of combinations, by level."""
        levels = {}
        for axis in self._axes:
            places = self._places(axis, combinations)
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
        repeated = listed(index[index.duplicated()])
        raise ValueError(f"{argument}: the index {index.name!r} has repeated values: {repeated}")
    is_numeric = pd.api.types.is_numeric_dtype(index.dtype) and not pd.api.types.is_bool_dtype(index.dtype)
    if numbers and not is_numeric:
        raise TypeError(f"{argument}: the index {index.name!r} must hold numbers, not {index.dtype}")
