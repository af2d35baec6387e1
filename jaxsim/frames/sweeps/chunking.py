"""How many lanes are worked on at a time."""

from typing import Any

import jax
import numpy as np

from jaxsim.frames.inputs.parameters import LaneParameter, resolve
from jaxsim.frames.runs.arguments import Reading
from jaxsim.frames.runs.execute import power_of_two_from
from jaxsim.frames.sweeps.chunk_metrics import are_streamed
from jaxsim.frames.system.memory import available, read_size

#: More lanes at a time fall out of the CPU's caches; fewer spend their time on looping.
MOST_STREAMED, MOST_WITH_PATHS = 128, 256
#: Memory that chunks take by default, at most.
MOST_MEMORY = 10**9
#: So little that it need not be known how much there is.
_LITTLE_MEMORY = 10**8
#: Chunks per thread that there should be, so that none waits long for the last.
PER_THREAD = 2
#: Combinations that are not split: another thread takes longer to wake up than to do its part of them.
_LEAST = 128


def chunk_size(reading: Reading, columns: tuple[str, ...], max_memory: Any, workers: int) -> int:
    """Combinations per chunk, a power of two: few shapes, few programs.

    Raises ValueError or TypeError naming max_memory.
    """
    budget = None if max_memory is None else read_size(max_memory, "max_memory")
    if reading.engine == "reference":
        return max(1, min(16, len(reading.sweep)))
    groups, each = reading.layout.num_groups, bytes_per_combination(reading, columns)
    most = max(1, (MOST_STREAMED if are_streamed(columns) else MOST_WITH_PATHS) // groups)
    share = -(-len(reading.sweep) // (PER_THREAD * workers)) if workers > 1 else len(reading.sweep)
    wanted = power_of_two_from(max(share, min(len(reading.sweep), _LEAST)))
    wanted = min(_power_of_two_to(most), wanted)
    if budget is None:
        if each * workers * wanted < _LITTLE_MEMORY:
            return wanted
        free = available()
        budget = min(MOST_MEMORY, MOST_MEMORY if free is None else free // 2)
    fitting = budget // (each * workers)
    if fitting < 1:
        raise ValueError(
            f"max_memory: {workers} threads work on one combination of parameters each, which takes about "
            f"{each:,} bytes; that is more than {budget:,}"
        )
    return min(_power_of_two_to(fitting), wanted)


def bytes_per_combination(reading: Reading, columns: tuple[str, ...]) -> int:
    """Roughly what one combination takes while it is worked on."""
    groups, assets = reading.layout.num_groups, max(len(m) for m in reading.layout.members)
    if are_streamed(columns):
        numbers = 64 * 6 + 60 * assets + 100
    else:
        numbers = reading.num_bars * (14 + 10 * assets)
    own = jax.tree.leaves((reading.quotes, reading.policy, reading.costs, reading.cash), is_leaf=_is_leaf)
    swept = sum(_size(resolve(x, np.zeros(1, int))) for x in own if isinstance(x, LaneParameter) and x.by_combination)
    return 8 * numbers * groups + 3 * swept


def bytes_in_all(reading: Reading, columns: tuple[str, ...], size: int, workers: int) -> int:
    """Roughly what a sweep takes: its chunks at a time, and its table."""
    labels = sum(len(axis.levels) for axis in reading.sweep.axes) + len(reading.layout.levels)
    table = reading.num_lanes * 8 * (2 * len(columns) + 2 + labels)
    return workers * size * bytes_per_combination(reading, columns) + table


def _is_leaf(x: Any) -> bool:
    return isinstance(x, LaneParameter)


def _size(leaf: LaneParameter) -> int:
    return np.asarray(leaf.array).nbytes


def _power_of_two_to(number: int) -> int:
    return 1 << (number.bit_length() - 1)
