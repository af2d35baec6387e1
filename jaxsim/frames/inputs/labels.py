"""Labels of lanes: made from the levels of a sweep and of groups, and used to select lanes."""

import datetime
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any
from warnings import warn

import numpy as np
import pandas as pd

from jaxsim.engine.base.arrays import refuse_masked

#: Up to this number of labels, Python sorts them faster than pandas does.
SORTED_IN_PYTHON = 64

#: The kinds of objects, as `pd.api.types.infer_dtype` calls them, of which a column of a file may be.
_KINDS_OF_FILES = frozenset(
    {"string", "empty", "integer", "floating", "boolean", "bytes", "decimal", "date", "datetime"}
)

#: What selects lanes: one label, a tuple of leading labels, several labels, or a boolean mask.
LaneKey = Hashable | list | np.ndarray | pd.Index | pd.Series | slice


@dataclass(frozen=True, eq=False)
class Level:
    """One level of the labels of lanes.

    labels: the values of the level.        places: which of them each lane has, int [lane].
    """

    labels: pd.Index
    places: np.ndarray

    @property
    def values(self) -> pd.Index:
        """The label of each lane."""
        return self.labels.take(self.places)

    @property
    def is_plain(self) -> bool:
        """Whether the labels are numbers or strings."""
        dtype = self.labels.dtype
        return isinstance(dtype, pd.StringDtype) or (isinstance(dtype, np.dtype) and dtype.kind in "iuf")


def lane_index(levels: dict[str, pd.Index]) -> pd.Index | None:
    """The labels of all lanes: None without levels, an Index for one level, a MultiIndex for several."""
    if not levels:
        return None
    if len(levels) == 1:
        ((name, labels),) = levels.items()
        return labels.rename(name)
    return pd.MultiIndex.from_arrays(list(levels.values()), names=list(levels))


def index_of_levels(levels: dict[str, Level]) -> pd.Index | None:
    """The same index as `lane_index` makes of the values of the levels.

    Where every label of every level occurs, its time depends on the number of labels and not on that of lanes.
    """
    if len(levels) > 1 and all(level.is_plain for level in levels.values()):
        codes, labels = zip(*(_factorized(level.labels) for level in levels.values()), strict=True)
        places = [code[level.places] for code, level in zip(codes, levels.values(), strict=True)]
        # A code below zero stands for NaN, which is no label.
        if all(np.bincount(x + 1, minlength=len(y) + 1)[1:].all() for x, y in zip(places, labels, strict=True)):
            return pd.MultiIndex(labels, places, names=list(levels), verify_integrity=False)  # pyright: ignore[reportArgumentType]
    return lane_index({name: level.values for name, level in levels.items()})


def _factorized(labels: pd.Index) -> tuple[np.ndarray, pd.Index]:
    """The result of `labels.factorize(sort=True)`, faster for a few numbers or strings."""
    values = labels.tolist()
    if len(values) > SORTED_IN_PYTHON or any(x != x or not isinstance(x, int | float | str) for x in values):
        return labels.factorize(sort=True)
    ranked = {x: i for i, x in enumerate(sorted(set(values)))}
    first = {x: i for i, x in reversed(list(enumerate(values)))}
    return np.array([ranked[x] for x in values]), labels.take([first[x] for x in ranked])


@dataclass(frozen=True)
class ByAsset:
    """Rows of numbers by asset name, as a field of an allocator or a trigger. Where prices have columns it becomes an
    array [row, asset], 0 for an asset that a row does not name. The pure core has no names, so that it takes none.

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
                    raise ValueError(f"{self.name}: there is no asset {asset!r} among {listed(assets.unique())}")
                row[is_asset] = number
        return array


def is_of_several_types(labels: pd.Index | pd.Series) -> bool:
    """Whether labels are such as no column of a file has: of several types, or of a type that only Python knows."""
    if not pd.api.types.is_object_dtype(labels.dtype):
        return False
    kind = pd.api.types.infer_dtype(labels, skipna=False)
    if kind == "time":
        return any(x.tzinfo is not None for x in labels)
    return kind not in _KINDS_OF_FILES


def labels_as_text(labels: pd.Index, argument: str, name: Hashable) -> pd.Index:
    """Labels of several types as their text, as they are written to a file, with a warning.

    Raises ValueError naming the argument where two of them have the same text.
    """
    texts = text_of(labels)
    if len(texts.unique()) < len(labels.unique()):
        twice = texts[labels.duplicated() ^ texts.duplicated()][0]
        raise ValueError(f"{argument}: two labels of {name!r} have the same text, {twice!r}, and a file has their text")
    warn(
        f"{argument}: the labels of {name!r} are of types that no column of a file has; it has their text", stacklevel=2
    )
    return texts


def text_of(labels: pd.Index) -> pd.Index:
    """The text of each label."""
    return pd.Index([_text(x) for x in labels], dtype=str, name=labels.name)


def _text(label: Any) -> str:
    text = str(getattr(label, "freqstr", label))
    return f"{text} {label.tzinfo}" if isinstance(label, datetime.time) and label.tzinfo is not None else text


def name_lane(lanes: pd.Index | None, lane: int) -> str:
    """The labels of one lane for messages, as in `threshold=0.05, group='tech'`."""
    if lanes is None:
        return ""
    labels = lanes[lane] if isinstance(lanes, pd.MultiIndex) else (lanes[lane],)
    plain = (v.item() if isinstance(v, np.generic) else v for v in labels)
    return ", ".join(f"{n}={v!r}" for n, v in zip(lanes.names, plain, strict=True))


def select(index: pd.Index | None, key: LaneKey) -> tuple[np.ndarray, pd.Index | None]:
    """Select lanes by label, as pandas selects the columns of a DataFrame.

    A scalar selects by the first level, a tuple by the leading levels; these levels are dropped. A list or a boolean
    mask selects several lanes and keeps the levels. A float matches exactly, or else the one label within 1e-9.

    Returns the numbers of the lanes and their labels; None where one unlabelled lane remains.
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
        chosen &= _equal(values, _match(values[chosen], label, index.names[level]))
    return np.flatnonzero(chosen), _drop_levels(index[chosen], len(labels))


def cross_section(index: pd.Index | None, label: Hashable, level: Hashable) -> tuple[np.ndarray, pd.Index | None]:
    """Select lanes by the label of one level, which is dropped. Raises KeyError as `select` does."""
    if index is None:
        raise KeyError(f"{label!r}: there is only one lane, without labels")
    if level not in index.names:
        if not isinstance(level, int) or not -index.nlevels <= level < index.nlevels:
            raise KeyError(f"no level {level!r}; the lanes have {list(index.names)}")
        level = index.names[level]
    values = index.get_level_values(level)  # pyright: ignore[reportArgumentType]
    chosen = _equal(values, _match(values, label, level))
    rest = index[chosen]
    rest = rest.droplevel(level) if isinstance(rest, pd.MultiIndex) else None
    return np.flatnonzero(chosen), rest


def _select_several(index: pd.Index, key: list | np.ndarray | pd.Index | pd.Series) -> tuple[np.ndarray, pd.Index]:
    if isinstance(key, pd.Series) and pd.api.types.is_bool_dtype(key.dtype):
        if len(key) != len(index) or not index.isin(key.index).all():
            raise KeyError("the boolean mask is labelled, but not by the lanes")
        key = key.reindex(index)
    refuse_masked(key, "lanes")
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


def _equal(values: pd.Index, label: Hashable) -> np.ndarray:
    """Which values equal a label; NaN equals NaN."""
    if not pd.api.types.is_scalar(label):
        return np.zeros(len(values), bool)
    return np.asarray(values.isna() if bool(pd.isna(label)) else values == label, bool)


def _match(values: pd.Index, label: Hashable, name: Hashable) -> Hashable:
    """The label among `values` that the user means by `label`. Raises KeyError naming the nearest one."""
    known = values.unique()
    if _equal(known, label).any():
        return label
    is_number = isinstance(label, int | float | np.number) and not isinstance(label, bool)
    if is_number and pd.api.types.is_numeric_dtype(known.dtype) and len(known):
        distance = np.abs(np.asarray(known, float) - float(label))  # pyright: ignore[reportArgumentType]
        near = known[distance <= 1e-9 * max(abs(float(label)), np.finfo(float).tiny)]  # pyright: ignore[reportArgumentType]
        if len(near) == 1:
            return near[0]
        nearest = listed(known[[int(np.argmin(distance))]])
        raise KeyError(f"no lane with {name} = {label!r}; the nearest is {nearest}")
    raise KeyError(f"no lane with {name} = {label!r}; there are {listed(known)}")


def listed(labels: Iterable) -> str:
    """At most ten labels, for messages."""
    plain = [x.item() if isinstance(x, np.generic) else x for x in labels]
    return ", ".join(repr(x) for x in plain[:10]) + (", ..." if len(plain) > 10 else "")


def first_misfit(labels: pd.Index, index: pd.Index, of: str = "close") -> str:
    """The first label that does not fit those of `index`, for the end of a message.      of: what those belong to."""
    try:
        missing, strange = ~index.isin(labels), ~labels.isin(index)
    except TypeError:
        return ""
    if missing.any():
        return f"; it lacks {index[missing][0]}"
    return f"; {of} lacks {labels[strange][0]}" if strange.any() else "; its labels are in another order"
