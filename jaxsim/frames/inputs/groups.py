"""Groups: which columns of a frame share cash, and what they are called."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

#: Asset -> group, by label or in the order of the columns.
Groups = Mapping | pd.Series | pd.Index | np.ndarray | Sequence


@dataclass(frozen=True, eq=False)
class GroupLayout:
    """How the columns of a price frame fall into groups.

    columns: the user's column labels.      assets: the asset name of each column.
    members: column numbers of each group, in the user's order.
    levels: group labels by level name, one entry per group; empty without groups.
    """

    columns: pd.Index
    assets: pd.Index
    members: list[np.ndarray]
    levels: dict[str, pd.Index]

    @property
    def num_groups(self) -> int:
        return len(self.members)

    def batches(self) -> list[np.ndarray]:
        """The numbers of the groups of each size. Groups of one size are simulated together, so that an allocator sees
        exactly the assets of its group."""
        sizes = np.array([len(m) for m in self.members])
        return [np.flatnonzero(sizes == size) for size in dict.fromkeys(sizes.tolist())]

    def columns_of(self, groups: np.ndarray) -> np.ndarray:
        """The numbers of the columns of groups of one size, [group, asset]."""
        return np.stack([self.members[group] for group in groups])

    def take(self, groups: np.ndarray) -> "GroupLayout":
        """The layout of some groups, by their numbers. The columns stay those of the frame."""
        levels = {name: labels.take(groups) for name, labels in self.levels.items()}
        return GroupLayout(self.columns, self.assets, [self.members[group] for group in groups], levels)


def layout(columns: pd.Index, groups: Groups | None = None, by: Hashable = None) -> GroupLayout:
    """The groups of a frame's columns.

    groups: mapping, Series or sequence, asset -> group label; the level is named `group`.
    by: name or number of the column level that names the assets; the other levels name the groups. Default the last.

    Raises ValueError for a level that does not exist, columns without a group, or an asset twice in one group.
    """
    if groups is not None:
        if by is not None or isinstance(columns, pd.MultiIndex):
            raise ValueError("groups: the columns have several levels, which name the groups already")
        labels = _group_labels(columns, groups)
        levels, assets = {"group": labels}, columns
    elif isinstance(columns, pd.MultiIndex):
        level = _level_number(columns, -1 if by is None else by)
        assets = columns.get_level_values(level)
        others = [i for i in range(columns.nlevels) if i != level]
        levels = {
            str(f"group_{i}" if columns.names[i] is None else columns.names[i]): columns.get_level_values(i)
            for i in others
        }
    else:
        if by is not None:
            _level_number(columns, by)
        levels, assets = {}, columns
    for name, labels in levels.items():
        if labels.hasnans:
            raise ValueError(f"groups: the level {name!r} has missing labels")
    members, firsts = _members(levels, len(columns))
    for group in members if not assets.is_unique else ():
        repeated = assets[group][assets[group].duplicated()]
        if len(repeated):
            raise ValueError(f"close: the column {repeated[0]!r} appears twice" + (" in one group" if levels else ""))
    return GroupLayout(columns, assets, members, {name: labels.take(firsts) for name, labels in levels.items()})


def _group_labels(columns: pd.Index, groups: Groups) -> pd.Index:
    if isinstance(groups, pd.Series):
        groups = groups if set(columns) <= set(groups.index) else dict(groups)
        if isinstance(groups, pd.Series):
            return pd.Index(groups.loc[columns])
    if isinstance(groups, Mapping):
        missing = [c for c in columns if c not in groups]
        if missing:
            raise ValueError(f"groups: no group for {missing[:5]}")
        return pd.Index([groups[c] for c in columns])
    if not isinstance(groups, Iterable) or isinstance(groups, str):
        raise TypeError(f"groups: expected a mapping, a Series or a sequence, asset -> group, got {groups!r}")
    labels = pd.Index(groups)
    if len(labels) != len(columns):
        raise ValueError(f"groups: expected one label per column, {len(columns)}, got {len(labels)}")
    return labels


def _level_number(columns: pd.Index, by: Hashable) -> int:
    try:
        return columns._get_level_number(by) % columns.nlevels
    except (KeyError, IndexError):
        raise ValueError(f"by: the columns have no level {by!r}, only {list(columns.names)}") from None


def _members(levels: dict[str, pd.Index], num_columns: int) -> tuple[list[np.ndarray], np.ndarray]:
    if not levels:
        return [np.arange(num_columns)], np.zeros(1, int)
    keys = list(zip(*levels.values(), strict=True))
    first: dict[tuple, int] = {}
    for position, key in enumerate(keys):
        first.setdefault(key, position)
    members = [np.array([i for i, k in enumerate(keys) if k == key]) for key in first]
    return members, np.array(list(first.values()))
