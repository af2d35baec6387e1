"""What a plan looks back on: the ranges of every combination of parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.frames.inputs.calendar import ranges_before
from jaxsim.frames.inputs.labels import Sweep, is_swept

#: Combinations that share a range are asked together up to this number.
_TOGETHER = 8


@dataclass(frozen=True, eq=False)
class LookBacks:
    """What is asked, an item for each range of each combination: its combination of parameters and its bars
    [start, end), [item], by combination and bar."""

    combination: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def shared(self) -> list[np.ndarray]:
        """Numbers of the items by range, [range, combination]: a table for each number of combinations that look back
        on the same range, for whom what depends on the range alone is worked out once."""
        order = np.lexsort((self.combination, self.end, self.start))
        start, end = self.start[order], self.end[order]
        first = np.flatnonzero(np.append(True, (start[1:] != start[:-1]) | (end[1:] != end[:-1])))
        count = np.diff(np.append(first, len(order)))
        tables: dict[int, list[np.ndarray]] = {}
        for sharers in np.unique(count).tolist():
            table = order[first[count == sharers, None] + np.arange(sharers)]
            for begin in range(0, sharers, _TOGETHER):
                part = table[:, begin : begin + _TOGETHER]
                tables.setdefault(part.shape[1], []).append(part)
        return [np.concatenate(parts) for parts in tables.values()]

    def some(self, chosen: np.ndarray) -> "LookBacks":
        return LookBacks(self.combination[chosen], self.start[chosen], self.end[chosen])


class Timetable:
    """The ranges of each combination."""

    def __init__(self, index: pd.Index, arguments: dict[str, Any], sweep: Sweep):
        self._index, self._sweep, self._fixed, self._places, self._dates = index, sweep, {}, {}, None
        for name, value in arguments.items():
            if name == "on" and isinstance(value, Mapping):
                self._dates, value = dict(value), pd.Index(list(value), name="on")
            elif name == "on" and isinstance(value, pd.DatetimeIndex):
                self._fixed[name] = value  # dates, whether or not their index has a name
                continue
            if is_swept(value):
                self._places[name] = sweep.add(value, name, numbers=False)
            else:
                self._fixed[name] = value
        self._known: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
        # Misuse shows before anything else is read.
        self._ranges({name: sweep.values(place, np.zeros(1, int))[0] for name, place in self._places.items()})

    def _ranges(self, chosen: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """First and end bar of each range, for the labels of one combination."""
        labels = tuple(chosen.values())
        if labels not in self._known:
            if self._dates is not None:
                chosen = chosen | {"on": self._dates[chosen["on"]]}
            self._known[labels] = ranges_before(self._index, **self._fixed, **chosen)
        return self._known[labels]

    def items(self) -> LookBacks:
        """All that is asked, once all axes of the sweep are known."""
        labels = {name: self._sweep.values(place) for name, place in self._places.items()}
        ranges = [
            self._ranges({name: values[combination] for name, values in labels.items()})
            for combination in range(len(self._sweep))
        ]
        combination = np.repeat(np.arange(len(ranges)), [len(start) for start, _ in ranges])
        return LookBacks(combination, *(np.concatenate(bars) for bars in zip(*ranges, strict=True)))
