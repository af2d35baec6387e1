"""From what was so after each event to what was so after each bar: holdings stay what they are between two events."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Numbers of one path that are worked on together: what is made of them on the way stays in the cache.
BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class Spans:
    """How long each state of each lane lasts. States stand lane by lane, the one at the opening first.

    openings: where those of each lane begin, [lane].       events: where that after each event stands, [event].
    lasts: for how many bars each state lasts, [state].
    """

    openings: np.ndarray
    events: np.ndarray
    lasts: np.ndarray
    num_bars: int

    @classmethod
    def between(cls, counts: np.ndarray, bar: np.ndarray, num_bars: int) -> "Spans":
        """Spans between the events of each lane.

        counts: number of its events, [lane].       bar: at which each happens, ascending within a lane, [event].
        """
        lanes = np.arange(len(counts))
        openings = np.concatenate([[0], np.cumsum(counts)[:-1]]) + lanes
        events = np.arange(len(bar)) + np.repeat(lanes, counts) + 1
        begins = np.zeros(len(openings) + len(events), np.int64)
        begins[events] = bar
        ends = np.append(begins[1:], num_bars)
        ends[np.append(openings[1:] - 1, len(begins) - 1)] = num_bars
        return cls(openings, events, ends - begins, num_bars)

    def states(self, opening: Any, after: np.ndarray) -> np.ndarray:
        """What is so at the opening, [lane] or the same for all, and after each event, [event], in their order."""
        states = np.empty(len(self.lasts), np.float64)
        states[self.openings], states[self.events] = opening, after
        return states

    def path(self, states: np.ndarray, lanes: slice = slice(None)) -> np.ndarray:
        """What is so after each bar, [lane, time]."""
        begins = np.append(self.openings, len(states))
        begin, end = begins[:-1][lanes], begins[1:][lanes]
        here = slice(begin[0], end[-1])
        return np.repeat(states[here], self.lasts[here]).reshape(len(begin), self.num_bars)

    def blocks(self) -> Iterator[slice]:
        """All lanes, some at a time."""
        size = max(1, BLOCK // self.num_bars)
        yield from (slice(begin, begin + size) for begin in range(0, len(self.openings), size))
