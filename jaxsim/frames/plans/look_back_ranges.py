"""The look-back ranges of a plan, for every combination of parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.frames.inputs.calendar import ranges_before
from jaxsim.frames.inputs.sweep_axes import Sweep, is_swept

#: Combinations that share a range are asked together, at most so many.
_MOST_TOGETHER = 8


@dataclass(frozen=True, eq=False)
class LookBacks:
    """The look-back ranges of all combinations, by combination and bar.

    combination: its number, int [item].        start, end: bars [start, end), int [item].
    """

    combination: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def by_range(self) -> list[np.ndarray]:
        """The numbers of the items, in tables [range, combination]: in each, every range has the same number of
        combinations. An allocator then does the work that depends on the range alone once for all combinations of a
        row."""
        order = np.lexsort((self.combination, self.end, self.start))
        start, end = self.start[order], self.end[order]
        first = np.flatnonzero(np.append(True, (start[1:] != start[:-1]) | (end[1:] != end[:-1])))
        count = np.diff(np.append(first, len(order)))
        tables: dict[int, list[np.ndarray]] = {}
        for sharers in np.unique(count).tolist():
            table = order[first[count == sharers, None] + np.arange(sharers)]
            for begin in range(0, sharers, _MOST_TOGETHER):
                part = table[:, begin : begin + _MOST_TOGETHER]
                tables.setdefault(part.shape[1], []).append(part)
        return [np.concatenate(parts) for parts in tables.values()]

    def take(self, items: np.ndarray) -> "LookBacks":
        return LookBacks(self.combination[items], self.start[items], self.end[items])


class LookBackRules:
    """The arguments `every`, `on`, `at_time`, `offset`, `snap` and `lookback` of a plan, some of them swept.

    Raises TypeError or ValueError naming the argument; for a swept one, its first value is looked at.
    """

    def __init__(self, index: pd.Index, arguments: Mapping[str, Any], sweep: Sweep):
        self._index, self._sweep = index, sweep
        self._fixed: dict[str, Any] = {}
        self._swept: dict[str, int] = {}  # numbers in the sweep
        self._dates: dict[Any, Any] | None = None  # of `on`, by label
        for name, value in arguments.items():
            if name == "on" and isinstance(value, Mapping):
                self._dates, value = dict(value), pd.Index(list(value), name="on")
            elif name == "on" and isinstance(value, pd.DatetimeIndex):
                self._fixed[name] = value  # dates, whether or not their index has a name
                continue
            if is_swept(value):
                self._swept[name] = sweep.add(value, name, numbers=False)
            else:
                self._fixed[name] = value
        self._known: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
        self._ranges({name: sweep.values(number, np.zeros(1, int))[0] for name, number in self._swept.items()})

    def _ranges(self, labels: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """First and end bar of each range, for the labels of one combination."""
        key = tuple(labels.values())
        if key not in self._known:
            if self._dates is not None:
                labels = labels | {"on": self._dates[labels["on"]]}
            self._known[key] = ranges_before(self._index, **self._fixed, **labels)
        return self._known[key]

    def look_backs(self) -> LookBacks:
        """The ranges of all combinations, once all axes of the sweep are known."""
        labels = {name: self._sweep.values(number) for name, number in self._swept.items()}
        ranges = [
            self._ranges({name: values[combination] for name, values in labels.items()})
            for combination in range(len(self._sweep))
        ]
        combination = np.repeat(np.arange(len(ranges)), [len(start) for start, _ in ranges])
        return LookBacks(combination, *(np.concatenate(bars) for bars in zip(*ranges, strict=True)))
