"""The chunks of a sweep: how many lanes are simulated at a time, and shapes that many chunks share."""

from dataclasses import fields
from typing import Any

import jax
import numpy as np

from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs
from jaxsim.engine.trading.costs import Costs
from jaxsim.frames.inputs.parameters import LaneParameter, is_parameter, resolve, with_fields
from jaxsim.frames.runs.arguments import RunArguments
from jaxsim.frames.runs.shapes import power_of_two_from, power_of_two_to, roomy
from jaxsim.frames.sweeps.columns import are_online
from jaxsim.frames.system.memory import available, read_size

#: Lanes in a chunk, at most. More do not fit into the CPU's caches; fewer spend their time on looping.
MOST_ONLINE, MOST_WITH_PATHS = 128, 256
#: Bytes that all chunks together take by default, at most.
MOST_MEMORY = 10**9
#: Bytes below which the free memory is not asked for.
_LITTLE_MEMORY = 10**8
#: Chunks for each thread, so that no thread waits long for the last chunk.
PER_THREAD = 2
#: Combinations that are not split: waking another thread takes longer than half of them.
_LEAST = 128


def chunk_size(arguments: RunArguments, columns: tuple[str, ...], max_memory: float | str | None, workers: int) -> int:
    """Combinations per chunk, a power of two: few shapes, few programs.

    Raises ValueError or TypeError naming max_memory.
    """
    budget = None if max_memory is None else read_size(max_memory, "max_memory")
    combinations = arguments.job.num_combinations
    if arguments.engine == "reference":
        return max(1, min(16, combinations))
    groups, each = arguments.job.layout.num_groups, bytes_per_combination(arguments, columns)
    most = max(1, (MOST_ONLINE if are_online(columns) else MOST_WITH_PATHS) // groups)
    share = -(-combinations // (PER_THREAD * workers)) if workers > 1 else combinations
    wanted = power_of_two_from(max(share, min(combinations, _LEAST)))
    wanted = min(power_of_two_to(most), wanted)
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
    return min(power_of_two_to(fitting), wanted)


def bytes_per_combination(arguments: RunArguments, columns: tuple[str, ...]) -> int:
    """Roughly the memory of one combination while it is simulated."""
    layout = arguments.job.layout
    assets = max(len(m) for m in layout.members)
    if are_online(columns):
        numbers = 64 * 6 + 60 * assets + 100
    else:
        numbers = arguments.num_bars * (14 + 10 * assets)
    parameters = jax.tree.leaves(arguments.job.parameters, is_leaf=is_parameter)
    swept = [x for x in parameters if isinstance(x, LaneParameter) and x.by_combination]
    bytes_of_swept = sum(np.asarray(resolve(x, np.zeros(1, int)).array).nbytes for x in swept)
    return 8 * numbers * layout.num_groups + 3 * bytes_of_swept


def bytes_of_sweep(arguments: RunArguments, columns: tuple[str, ...], size: int, workers: int) -> int:
    """Roughly the memory of a sweep: the chunks that are worked on at a time, and the table."""
    lanes = arguments.job.lanes
    labels = sum(len(axis.levels) for axis in lanes.sweep.axes) + len(lanes.layout.levels)
    table = arguments.num_lanes * 8 * (2 * len(columns) + 2 + labels)
    return workers * size * bytes_per_combination(arguments, columns) + table


def with_room(run: LaneInputs, axes: tuple[LaneAxis, ...], num_bars: int) -> LaneInputs:
    """The inputs of lanes, or a part of them with None elsewhere, with room for more bars than `num_bars`.

    Histories of about one length so have one shape, and share a program. The added bars repeat the last one; the caller
    stops the run before them. Arrays with one row per bar that are neither prices, features nor costs keep their
    length: no bar without a row is ever looked up.
    """
    market = run.market
    room = roomy(num_bars) - num_bars
    if room == 0:
        return run
    longer_arrays: dict[tuple[int, int], np.ndarray] = {}  # one array is often close, mark and execution price

    def longer(x: Any, axis: int) -> np.ndarray:
        if (id(x), axis) not in longer_arrays:
            array = np.asarray(x)
            last = np.repeat(np.take(array, [-1], axis), room, axis)
            longer_arrays[id(x), axis] = np.concatenate([array, last], axis)
        return longer_arrays[id(x), axis]

    def longer_table(x: Any) -> np.ndarray | None:
        return None if x is None else longer(x, x.ndim - 2)

    def longer_cost(name: str) -> Any:
        x = getattr(run.costs, name)
        if np.ndim(x) < 2:
            return x
        lanes = sum(getattr(axis.in_axes.costs, name) == 0 for axis in axes)
        is_by_bar = np.ndim(x) == lanes + 2 and np.shape(x)[lanes] == num_bars and num_bars > 1
        return longer_table(x) if is_by_bar else x

    prices = {
        name: longer_table(getattr(market, name))
        for name in ("close", "val_price", "price", "mark", "priced_at", "gone", "carried")
    }
    features = jax.tree.map(lambda x: longer(x, 0), market.features)
    costs = with_fields(run.costs, {field.name: longer_cost(field.name) for field in fields(Costs)})
    return with_fields(run, {"market": with_fields(market, prices | {"features": features}), "costs": costs})
