"""Tables of records: a DataFrame to read, with the records behind it and their statistics by lane."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from jaxsim.frames.inputs.durations import read_length
from jaxsim.frames.results.records.durations import IN_BARS, Duration, clock


@dataclass(frozen=True, eq=False)
class LaneRecords:
    """Records of any kind, and the lanes they belong to.

    records: structured array with a field `col`, [record].     lane: lane number of each record, ascending, [record].
    lanes: labels of all lanes, or None for one unlabelled lane.
    index: labels of the bars.      freq: length of a bar, if known.
    start: the first bar of each lane that its statistics count, [lane]; None: bar 0.

    The methods reduce values [record] to [lane], over the records in the mask `where`; a lane without any has NaN.
    """

    records: np.ndarray
    lane: np.ndarray
    lanes: pd.Index | None
    index: pd.Index
    freq: pd.Timedelta | None
    start: np.ndarray | None = None

    @property
    def num_bars(self) -> np.ndarray:
        """The number of bars of each lane that its statistics count, [lane]."""
        start = np.zeros(self.num_lanes, np.int64) if self.start is None else self.start
        return np.maximum(len(self.index) - start, 0)

    @property
    def num_lanes(self) -> int:
        return 1 if self.lanes is None else len(self.lanes)

    @property
    def number(self) -> np.ndarray:
        """Number of each record within its lane, [record]."""
        return np.arange(len(self.lane)) - np.searchsorted(self.lane, self.lane)

    def count(self, where: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(self.lane if where is None else self.lane[where], minlength=self.num_lanes)

    def total(self, values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """The sum; 0 for a lane without records."""
        return self._reduce(np.add, values, where, 0.0)

    def mean(self, values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        return divide_floats(self.total(values, where), self.count(where))

    def least(self, values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        return self._reduce(np.fmin, values, where, np.nan)

    def greatest(self, values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        return self._reduce(np.fmax, values, where, np.nan)

    def first(self, values: np.ndarray) -> np.ndarray:
        """Of the first record."""
        return self._of_record(values, np.diff(self.lane, prepend=-1) != 0)

    def last(self, values: np.ndarray) -> np.ndarray:
        """Of the last record."""
        return self._of_record(values, np.diff(self.lane, append=-1) != 0)

    def _of_record(self, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        out = np.full(self.num_lanes, np.nan)
        out[self.lane[chosen]] = values[chosen]
        return out

    @cached_property
    def _clock(self) -> np.ndarray | None:
        return clock(self.index)

    def mean_duration(
        self, begin: np.ndarray, end: np.ndarray, where: np.ndarray | None = None, more: Any = 0
    ) -> Duration:
        """From bar `begin` to bar `end` of each record, [record].      more: bars that count beside, [record]."""
        time = None if self._clock is None else self.mean(self._clock[end] - self._clock[begin], where)
        return Duration(self.mean(end - begin + more, where), time)

    def longest(self, begin: np.ndarray, end: np.ndarray, where: np.ndarray | None = None, more: Any = 0) -> Duration:
        """The longest one, as `mean_duration`."""
        time = None if self._clock is None else self.greatest(self._clock[end] - self._clock[begin], where)
        return Duration(self.greatest(end - begin + more, where), time)

    def deviation(self, values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """The standard deviation (ddof 1); NaN for fewer than two records."""
        squares = (values - self.mean(values, where)[self.lane]) ** 2
        return np.sqrt(divide_floats(self.total(squares, where), np.maximum(self.count(where) - 1, 0)))

    def _reduce(self, reduce: np.ufunc, values: np.ndarray, where: np.ndarray | None, empty: float) -> np.ndarray:
        out = np.full(self.num_lanes, empty)
        lane, values = (self.lane, values) if where is None else (self.lane[where], values[where])
        if len(lane):
            first = np.flatnonzero(np.diff(lane, prepend=-1))
            out[lane[first]] = reduce.reduceat(values.astype(np.float64), first)
        return out


class RecordTable(pd.DataFrame):
    """Records as a DataFrame, ordered by lane. Selections and results of arithmetic are plain DataFrames.

    Each kind of record is a subclass with its own statistics.
    """

    _metadata: ClassVar[list[str]] = ["_source"]
    _source: LaneRecords

    def __init__(self, source: LaneRecords, columns: Sequence[tuple[str, Any]]):
        """columns: name and values [record] of the columns that follow the id and the lane levels."""
        labels: list[tuple[Any, Any]] = []
        if source.lanes is not None:
            each = [source.lanes.get_level_values(i) for i in range(source.lanes.nlevels)]
            labels = [(level.name, level.take(source.lane)) for level in each]
        columns = [("id", source.number), *labels, *columns]
        super().__init__(dict(enumerate(values for _, values in columns)))
        self.columns = [name for name, _ in columns]  # a level and a column may both be named "fees"
        object.__setattr__(self, "_source", source)

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    @property
    def records(self) -> np.ndarray:
        """The structured array behind the table, [record], with codes and numbers of bars; read-only."""
        view = self._source.records.view()
        view.flags.writeable = False
        return view

    def counts(self) -> Any:
        """Number of records: an int for one unlabelled lane, a Series over the lanes otherwise."""
        return self._by_lane(self._source.count(), "count")

    def stats(self, *, freq: Any = None) -> pd.Series | pd.DataFrame:
        """The usual table: a Series for one unlabelled lane, a DataFrame [lane, statistic] otherwise.

        Durations are calendar time, from label to label (rules 8.5); in bars they stand in columns of their own.
        freq: for bars without dates, the length of a bar; default that of the run. If it is unknown, durations are
            numbers of bars.
        """
        source = self._source
        length = source.freq if freq is None else read_length(freq, "freq")
        lanes = pd.RangeIndex(1) if source.lanes is None else source.lanes
        table = lane_table(self._statistics(), lanes, source.index, length, source.num_bars)
        return table.iloc[0].rename(None) if source.lanes is None else table

    def _statistics(self) -> dict[str, Any]:
        """Statistics by title, [lane], in the order of the table; see `lane_table`."""
        raise NotImplementedError

    def _by_lane(self, values: np.ndarray, name: str) -> Any:
        if self._source.lanes is None:
            return values[0].item()
        return pd.Series(values, index=self._source.lanes, name=name)


def divide_floats(a: Any, b: Any) -> np.ndarray:
    """a / b in floating-point arithmetic: NaN or infinite where b is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(a, b)


def whole(values: np.ndarray) -> np.ndarray:
    """The values as integers, unless one is NaN."""
    return values if np.isnan(values).any() else values.astype(np.int64)


def lane_table(
    rows: Mapping[str, Any],
    lanes: pd.Index,
    index: pd.Index,
    length: pd.Timedelta | None,
    num_bars: np.ndarray | None = None,
) -> pd.DataFrame:
    """A table [lane, statistic] that begins with Start, End and Period, and ends with the durations in bars.

    num_bars: how many bars, the last ones, each lane counts, [lane]; None: all.

    rows: statistics by title, [lane], or a `Duration`; "... Trade Start" and "... Trade End" are bars and become their
    labels.     length: of a bar, for bars without dates.
    """
    bars = np.full(len(lanes), len(index)) if num_bars is None else num_bars
    first, moments = np.minimum(len(index) - bars, len(index) - 1), clock(index)
    shown: dict[str, Any] = {"Start": _moments(np.where(bars > 0, first, np.nan), index), "End": index[-1]}
    in_bars = {}
    period = Duration(bars, None if moments is None else moments[-1] - moments[first])
    for title, values in {"Period": period, **rows}.items():
        if isinstance(values, Duration):
            in_bars[title + IN_BARS] = values.bars
            values = values.shown(length)
        elif title.endswith(("Trade Start", "Trade End")):
            values = _moments(values, index)
        shown[title] = values
    return pd.DataFrame(shown | in_bars, index=lanes)


def _moments(bars: np.ndarray, index: pd.Index) -> Any:
    known = ~np.isnan(bars)
    labels = index.take(np.where(known, bars, 0).astype(np.int64))
    return labels if known.all() else pd.Series(labels).where(known).array
