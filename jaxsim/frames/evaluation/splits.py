"""Splits of time into bars for training and bars for testing: walk-forward, purged and combinatorial.

A splitter yields pairs of bar numbers, (train, test), as those of scikit-learn do, and can take their place, for
example as `cv=` of `GridSearchCV`. `labels(index)` returns labels instead of numbers, `table(index)` the role of every
bar.
"""

import abc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import is_whole, whole_number
from jaxsim.frames.inputs.calendar import complete_until, moments_before, moved, places
from jaxsim.frames.inputs.durations import Duration, read_span

Split = tuple[np.ndarray, np.ndarray]


class AbstractSplits(abc.ABC):
    """A rule that splits bars into training bars and test bars."""

    @abc.abstractmethod
    def pairs(self, bars: int | pd.Index) -> list[Split]:
        """The bar numbers of each split, ascending.

        bars: how many there are, or their labels.
        Raises ValueError where there are too few bars.
        """

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Split]:
        """(train, test) bar numbers, split by split.

        X: data with one row per bar, or the number of bars.     y, groups: not used; scikit-learn passes them.
        """
        yield from self.pairs(_bars(X))

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of splits. Where it depends on the number of bars, raises ValueError without `X`."""
        if X is None:
            raise ValueError("X: the number of these splits depends on how many bars there are; pass the data")
        return len(self.pairs(_bars(X)))

    def labels(self, index: pd.Index) -> list[tuple[pd.Index, pd.Index]]:
        """(train, test) labels, split by split."""
        return [(index.take(train), index.take(test)) for train, test in self.pairs(index)]

    def table(self, index: pd.Index) -> pd.DataFrame:
        """The role of each bar in each split, [time, split]: "train", "test", or empty where it is left out."""
        pairs = self.pairs(index)
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

    train: length of the first training period.     test: length of each test period.
    gap: length of what is left out between the two: at least the number of later bars that a label rests on.
    window: "expanding", all bars from the first on; or "rolling", the last `train`.

    Each length is a number of bars, or a duration (rules 10.5) as "365D", "3YS" or "6MS". Durations need the labels of
    the bars. Calendar units begin where those of the calendar do: with train="3YS" and test="YS", bars from 3 January
    2012 on are tested in the calendar years from 2015 on, and the gap is the end of the training period. A test period
    that the bars have not reached the end of is left out.
    """

    train: int | Duration
    test: int | Duration
    gap: int | Duration = 0
    window: str = "expanding"

    def __post_init__(self):
        for name, least in {"train": 1, "test": 1, "gap": 0}.items():
            span = _read_span(getattr(self, name), name)
            if isinstance(span, int):
                whole_number(span, name, least)
        if self.window not in ("expanding", "rolling"):
            raise ValueError(f"window: expected 'expanding' or 'rolling', got {self.window!r}")

    def pairs(self, bars: int | pd.Index) -> list[Split]:
        timeline, spans = _Timeline(bars), [_read_span(getattr(self, name), name) for name in ("train", "test", "gap")]
        train, test, gap = spans
        timeline.check(self, spans)
        is_calendar = isinstance(train, pd.offsets.BaseOffset)
        splits, start = [], timeline.after(timeline.place(0), train)
        if not is_calendar:
            start = timeline.after(start, gap)
        while start is not None and (end := timeline.after(start, test)) is not None:
            cut = timeline.before(start, gap)
            begin = 0 if self.window == "expanding" else timeline.before(start if is_calendar else cut, train).bar
            if begin < cut.bar and start.bar < end.bar:  # a period of dates may have no bars
                splits.append((np.arange(begin, cut.bar), np.arange(start.bar, end.bar)))
            start = end
        if not splits:
            raise ValueError(
                f"train: {self.train} + {self.gap} (gap) + {self.test} (test) are more than the "
                f"{timeline.num_bars} bars"
            )
        return splits


#: A number of bars, or a duration.
_Span = int | pd.Timedelta | pd.offsets.BaseOffset


def _read_span(value: Any, name: str) -> _Span:
    return int(value) if is_whole(value) else read_span(value, name, "'365D' or '3YS', or a number of bars")


@dataclass(frozen=True)
class _Place:
    """A place between bars: the first bar at or after it, and its date; None where bars have none, and at their end."""

    bar: int
    date: pd.Timestamp | None


@dataclass(frozen=True)
class _Timeline:
    """Bars, by number or by date, along which periods are counted."""

    bars: int | pd.Index

    @property
    def num_bars(self) -> int:
        return _num_bars(self.bars)

    def check(self, splits: WalkForwardSplits, spans: Sequence[_Span]) -> None:
        """Raises TypeError or ValueError for durations, if the bars have no dates in ascending order."""
        name = next(
            (x for x, span in zip(("train", "test", "gap"), spans, strict=True) if not isinstance(span, int)), None
        )
        if name is None:
            return
        if not isinstance(self.bars, pd.DatetimeIndex):
            labels = "only their number is known" if is_whole(self.bars) else f"they have {type(self.bars).__name__}"
            raise TypeError(f"{name}: {getattr(splits, name)!r} needs bars with a DatetimeIndex; {labels}")
        if not self.bars.is_monotonic_increasing:
            raise ValueError(f"{name}: {getattr(splits, name)!r} needs dates in ascending order")

    def place(self, bar: int) -> _Place:
        """The place of a bar."""
        has_date = isinstance(self.bars, pd.DatetimeIndex) and bar < self.num_bars
        return _Place(bar, self.bars[bar] if has_date else None)  # pyright: ignore

    def after(self, place: _Place | None, span: _Span) -> _Place | None:
        """The place a span later; None where the bars do not reach it."""
        if place is None:
            return None
        if isinstance(span, int):
            return self.place(place.bar + span) if place.bar + span <= self.num_bars else None
        if place.date is None:
            return None
        assert isinstance(self.bars, pd.DatetimeIndex)
        date = moved(_moments(place.date, span), span)
        is_reached = pd.Timestamp(date[0]) <= complete_until(self.bars)  # pyright: ignore[reportArgumentType]
        return self._at(date) if is_reached else None

    def before(self, place: _Place, span: _Span) -> _Place:
        """The place a span earlier, at the earliest the first bar."""
        if isinstance(span, int):
            return self.place(max(place.bar - span, 0))
        return self._at(moments_before(_moments(place.date, span), span))

    def _at(self, date: pd.DatetimeIndex) -> _Place:
        assert isinstance(self.bars, pd.DatetimeIndex)
        return _Place(int(places(self.bars, date, "left")[0]), date[0])  # pyright: ignore


def _moments(date: pd.Timestamp | None, span: _Span) -> pd.DatetimeIndex:
    """A date as calendar units are counted from: without its time of day."""
    assert date is not None
    return pd.DatetimeIndex([date if isinstance(span, pd.Timedelta) else date.normalize()])


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

    def pairs(self, bars: int | pd.Index) -> list[Split]:
        folds = _folds(_num_bars(bars), self.num_folds)
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

    def pairs(self, bars: int | pd.Index) -> list[Split]:
        folds = _folds(_num_bars(bars), self.num_folds)
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


def _bars(X: Any) -> int | pd.Index:
    """The labels of the bars of some data, or their number."""
    return X if isinstance(X, pd.Index) else X.index if isinstance(X, pd.DataFrame | pd.Series) else _num_bars(X)


def _check_whole(splits: Any, least: dict[str, int]) -> None:
    """Raises ValueError naming the first field that is no whole number, or too small."""
    for field in fields(splits):
        value = getattr(splits, field.name)
        if field.name not in least:
            continue
        whole_number(value, field.name, least[field.name])
