"""Splits of time into bars for training and bars for testing: walk-forward, purged and combinatorial.

A splitter yields pairs of bar numbers, (train, test), as those of scikit-learn do, and can take their place, for
example as `cv=` of `GridSearchCV`. `labels(index)` returns labels instead of numbers, `table(index)` the role of every
bar.
"""

import abc
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import is_whole, whole_number

Split = tuple[np.ndarray, np.ndarray]


class AbstractSplits(abc.ABC):
    """A rule that splits bars into training bars and test bars."""

    @abc.abstractmethod
    def pairs(self, num_bars: int) -> list[Split]:
        """The bar numbers of each split, ascending. Raises ValueError where there are too few bars."""

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Split]:
        """(train, test) bar numbers, split by split.

        X: data with one row per bar, or the number of bars.     y, groups: not used; scikit-learn passes them.
        """
        yield from self.pairs(_num_bars(X))

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of splits. Where it depends on the number of bars, raises ValueError without `X`."""
        if X is None:
            raise ValueError("X: the number of these splits depends on how many bars there are; pass the data")
        return len(self.pairs(_num_bars(X)))

    def labels(self, index: pd.Index) -> list[tuple[pd.Index, pd.Index]]:
        """(train, test) labels, split by split."""
        return [(index.take(train), index.take(test)) for train, test in self.pairs(len(index))]

    def table(self, index: pd.Index) -> pd.DataFrame:
        """The role of each bar in each split, [time, split]: "train", "test", or empty where it is left out."""
        pairs = self.pairs(len(index))
        roles = np.full((len(index), len(pairs)), "", object)
        for number, (train, test) in enumerate(pairs):
            roles[train, number], roles[test, number] = "train", "test"
        return pd.DataFrame(roles, index, pd.RangeIndex(len(pairs), name="split"))

    def plot(self, index: pd.Index, **kwargs: Any) -> Any:
        """A Plotly figure of `table`. Raises ImportError naming the pip command where Plotly is missing."""
        from jaxsim import views

        return views.splits(self.table(index), **kwargs)


@dataclass(frozen=True)
class WalkForwardSplits(AbstractSplits):
    """Train on the past, test on the bars after it, move on.

    train: number of bars of the first training period.     test: number of bars of each test period.
    gap: number of bars between the two that are left out: at least the number of later bars that a label rests on.
    window: "expanding", all bars from the first on; or "rolling", the last `train` bars.
    """

    train: int
    test: int
    gap: int = 0
    window: str = "expanding"

    def __post_init__(self):
        _check_whole(self, least={"train": 1, "test": 1, "gap": 0})
        if self.window not in ("expanding", "rolling"):
            raise ValueError(f"window: expected 'expanding' or 'rolling', got {self.window!r}")

    def pairs(self, num_bars: int) -> list[Split]:
        first = self.train + self.gap
        if num_bars < first + self.test:
            raise ValueError(
                f"train: {self.train} + {self.gap} (gap) + {self.test} (test) bars are more than all {num_bars}"
            )
        splits = []
        for start in range(first, num_bars - self.test + 1, self.test):
            end = start - self.gap
            begin = 0 if self.window == "expanding" else end - self.train
            splits.append((np.arange(begin, end), np.arange(start, start + self.test)))
        return splits


@dataclass(frozen=True)
class PurgedSplits(AbstractSplits):
    """K-fold cross-validation for bars whose labels overlap (López de Prado, Advances in Financial Machine Learning,
    2018, chapter 7): each fold is the test once; bars of the other folds whose labels overlap with those of the test
    are left out.

    num_folds: number of folds, of equal length to within a bar, >= 2.
    horizon: number of later bars that a label rests on: that of bar t uses the prices of bars t to t + horizon. This
        number of bars is left out before and after each test.
    embargo: number of further bars after each test that are left out, because their features look back on it.
    """

    num_folds: int
    horizon: int = 0
    embargo: int = 0

    def __post_init__(self):
        _check_whole(self, least={"num_folds": 2, "horizon": 0, "embargo": 0})

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return self.num_folds

    def pairs(self, num_bars: int) -> list[Split]:
        folds = _folds(num_bars, self.num_folds)
        return [_purged(folds, [number], self.horizon, self.embargo) for number in range(self.num_folds)]


@dataclass(frozen=True)
class CombinatorialSplits(AbstractSplits):
    """Combinatorial purged cross-validation (López de Prado 2018, chapter 12): every choice of `num_test_folds` folds
    is the test once. This gives several whole histories of out-of-sample scores instead of one.

    num_folds, horizon, embargo: as in `PurgedSplits`, on both sides of every test fold.
    num_test_folds: folds that are the test of a split, from 1 to num_folds - 1.
    """

    num_folds: int
    num_test_folds: int = 2
    horizon: int = 0
    embargo: int = 0

    def __post_init__(self):
        _check_whole(self, least={"num_folds": 2, "num_test_folds": 1, "horizon": 0, "embargo": 0})
        if self.num_test_folds >= self.num_folds:
            raise ValueError(
                f"num_test_folds: expected fewer than the {self.num_folds} folds, got {self.num_test_folds}"
            )

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return math.comb(self.num_folds, self.num_test_folds)

    @property
    def num_paths(self) -> int:
        """Number of whole histories in the tests: C(num_folds, num_test_folds) * num_test_folds / num_folds."""
        return math.comb(self.num_folds - 1, self.num_test_folds - 1)

    @property
    def paths(self) -> np.ndarray:
        """The number of the split that tests each fold in each history, [path, fold]: the p-th split that tests it."""
        tested_in = [[] for _ in range(self.num_folds)]
        for number, chosen in enumerate(self._choices()):
            for fold in chosen:
                tested_in[fold].append(number)
        return np.array(tested_in).T

    def pairs(self, num_bars: int) -> list[Split]:
        folds = _folds(num_bars, self.num_folds)
        return [_purged(folds, list(chosen), self.horizon, self.embargo) for chosen in self._choices()]

    def test_folds(self, num_bars: int) -> list[np.ndarray]:
        """The bar numbers of each fold."""
        return _folds(num_bars, self.num_folds)

    def _choices(self) -> list[tuple[int, ...]]:
        return list(combinations(range(self.num_folds), self.num_test_folds))


def _purged(folds: list[np.ndarray], chosen: list[int], horizon: int, embargo: int) -> Split:
    """The chosen folds as the test, and the bars far enough from it as the training bars.

    The label of bar t uses the prices of bars t to t + horizon, both included. Two labels share no price if their bars
    are more than `horizon` apart.
    """
    distance = horizon + 1
    bars = np.arange(folds[-1][-1] + 1)
    is_kept = np.ones(len(bars), bool)
    for fold in (folds[number] for number in chosen):
        is_kept &= (bars <= fold[0] - distance) | (bars >= fold[-1] + distance + embargo)
    train, test = bars[is_kept], np.concatenate([folds[number] for number in chosen])
    if not len(train):
        raise ValueError(f"horizon: with an embargo of {embargo}, {horizon} bars leave none to learn on")
    return train, test


def _folds(num_bars: int, num_folds: int) -> list[np.ndarray]:
    if num_bars < num_folds:
        raise ValueError(f"num_folds: {num_bars} bars do not make {num_folds} folds")
    return np.array_split(np.arange(num_bars), num_folds)


def _num_bars(X: Any) -> int:
    return int(X) if is_whole(X) else len(X)


def _check_whole(splits: Any, least: dict[str, int]) -> None:
    """Raises ValueError naming the first field that is no whole number, or too small."""
    for field in fields(splits):
        value = getattr(splits, field.name)
        if field.name not in least:
            continue
        whole_number(value, field.name, least[field.name])
