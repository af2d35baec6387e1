"""The engines of a plan. They ask an allocator about all look-back ranges: in compiled batches, one range after the
other, or on other processes."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.engine.bar.look_back import History, Planned, Range, allocate
from jaxsim.engine.base.kept_programs import kept_program
from jaxsim.engine.policy.host_callback import take_out
from jaxsim.errors import AllocatorError
from jaxsim.frames.inputs.parameters import LaneParameter, is_parameter, map_parameters, resolve
from jaxsim.frames.plans.job import Answers, PlanJob
from jaxsim.frames.runs.terms import Engine
from jaxsim.frames.system.workers import is_distributed, run_everywhere, shares

#: Numbers in the windows of one call: a few megabytes, which caches hold.
_NUMBERS_AT_A_TIME = 1 << 20
#: Few shapes, few programs: windows have this many rows times a power of four. This just holds a week or a month of
#: hours.
_SHORTEST = 48
#: Ranges that are asked about together, and the number of ranges up to which that holds. A year has 365 days.
_RANGES_AT_A_TIME = {16: 16, 64: 64, 128: 256, 384: 2048, 1024: 1 << 62}

#: Is told how many answers have been given.
Advance = Callable[[int], object]


# --- in compiled batches


@dataclass(frozen=True, eq=False)
class RangeChunk:
    """Ranges that are asked about together.

    items: their numbers, [range, combination].     longest: rows of their windows.
    size: ranges of the program; at least as many.
    """

    items: np.ndarray
    longest: int
    size: int

    @property
    def filled_up(self) -> np.ndarray:
        """The items, with those of the first range repeated until there are `size`."""
        missing = self.size - len(self.items)
        return np.concatenate([self.items, np.repeat(self.items[:1], missing, axis=0)]) if missing else self.items


def plan_compiled(job: PlanJob, advance: Advance) -> list[Answers]:
    """The answers from compiled programs; those of a Python function from that function itself."""
    if take_out(job.tree)[1]:
        return plan_reference(job, advance)
    return [Answers(groups, _plan_batch(job, groups, advance)) for groups in job.layout.batches()]


def _plan_batch(job: PlanJob, groups: np.ndarray, advance: Advance) -> Planned:
    """The answers for groups of one size, [item, group, ...]."""
    members = job.layout.members
    # On the device once and for all, [group, time, asset].
    prices = jax.device_put(
        tuple(LaneParameter(x, columns=1).of(groups, members, True)[0] for x in (job.close, job.val_price))
    )
    leaves, structure = jax.tree.flatten(job.tree, is_leaf=is_parameter)
    arrays_and_axes = [resolve(leaf).of(groups, members, True) for leaf in leaves]
    item_axes, group_axes = (
        jax.tree.unflatten(structure, [0 if has[i] else None for _, has in arrays_and_axes]) for i in (0, 1)
    )
    lanes, keys = job.items.combination[:, None] * job.layout.num_groups + groups, job.lanes.keys

    def ask(chunk: RangeChunk) -> Planned:
        items, longest = chunk.filled_up, chunk.longest
        per_item = [array[job.items.combination[items]] if has[0] else array for array, has in arrays_and_axes]
        tree = jax.tree.unflatten(structure, per_item)
        start, end = (x[items[:, 0]].astype(np.int32) for x in (job.items.start, job.items.end))
        due = (start, end, keys.data[lanes[items]])
        try:
            answers = _ask_all(tree, item_axes, group_axes, prices, due, keys.impl, np.float64(job.cash), longest)
        except Exception as error:
            place = job.place(int(items[0, 0]), int(groups[0]))
            error.add_note(
                f"while allocator {job.name} was compiled for all ranges at once, the first of them: {place}"
            )
            raise
        return jax.tree.map(np.asarray, answers)

    planned: Planned | None = None
    for chunk, part in _side_by_side(ask, list(_chunks(job, len(groups) * len(members[groups[0]])))):
        if planned is None:
            planned = jax.tree.map(lambda x: np.zeros((len(job.items), *x.shape[2:]), x.dtype), part)
        for out, values in zip(jax.tree.leaves(planned), jax.tree.leaves(part), strict=True):
            out[chunk.items] = values[: len(chunk.items)]
        advance(chunk.items.size * len(groups))
    assert planned is not None
    return planned


def _side_by_side(
    ask: Callable[[RangeChunk], Planned], chunks: list[RangeChunk]
) -> Iterator[tuple[RangeChunk, Planned]]:
    """Each chunk and its answers. Two at a time are compiled and run, on this thread and on another one."""
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    left, answered = deque(chunks), deque()

    def ask_next() -> tuple[RangeChunk, Planned] | None:
        try:
            chunk = left.popleft()
        except IndexError:
            return None
        return chunk, ask(chunk)

    def work() -> None:
        try:
            with jax.enable_x64(True), jax.default_device(device):  # every thread has its own
                answered.extend(iter(ask_next, None))
        finally:
            left.clear()  # after an error nobody needs the rest

    if len(chunks) == 1:
        yield from iter(ask_next, None)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="jaxsim-plan") as pool:
        other = pool.submit(work)
        try:
            for answer in iter(ask_next, None):
                yield answer
                while answered:
                    yield answered.popleft()
            other.result()
            yield from answered
        finally:
            left.clear()


def _chunks(job: PlanJob, width: int) -> Iterator[RangeChunk]:
    """All ranges in chunks.        width: numbers in a row of the windows of one range."""
    for block in job.items.by_range():
        length = (job.items.end - job.items.start)[block[:, 0]]
        longest = _rounded_up(length, _SHORTEST) if job.pad else length
        for rows in np.unique(longest):
            together = block[longest == rows]
            most = max(2, 1 << int(np.log2(max(1, _NUMBERS_AT_A_TIME // (rows * width)))))
            size = min(_size(len(together)), most)
            for begin in range(0, len(together), size):
                yield RangeChunk(together[begin : begin + size], int(rows), size)


def _size(count: int) -> int:
    """How many of `count` ranges are asked about together."""
    return next((size for size, up_to in _RANGES_AT_A_TIME.items() if count <= up_to), max(_RANGES_AT_A_TIME))


def _rounded_up(number: np.ndarray, least: int) -> np.ndarray:
    """The next number that is `least` times a power of four."""
    powers = least * 4 ** np.arange(16)
    return powers[np.searchsorted(powers, number)]


@kept_program
def _ask_all(
    tree: tuple[Any, Any],
    item_axes: Any,
    group_axes: Any,
    prices: tuple[jax.Array, jax.Array],
    due: tuple[np.ndarray, np.ndarray, np.ndarray],
    impl: str,
    cash: Any,
    longest: int,
) -> Planned:
    """Answers [range, combination, group, ...].

    tree: allocator and features, whose axes are `item_axes` (range and combination) and `group_axes`.
    prices: close and val_price, [group, time, asset].
    due: start and end, [range], and the words of lane keys, [range, combination, group, ...]; `impl` is their kind.
    """

    def one(tree: Any, close: Any, val_price: Any, start: Any, end: Any, key: Any) -> Planned:
        allocator, features = tree
        return allocate(allocator, History(close, val_price, features), Range(start, end, key), cash, longest)

    each_group = jax.vmap(one, in_axes=(group_axes, 0, 0, None, None, 0))
    each_combination = jax.vmap(each_group, in_axes=(item_axes, None, None, None, None, 0))
    each_range = jax.vmap(each_combination, in_axes=(item_axes, None, None, 0, 0, 0))
    start, end, key_words = due
    close, val_price = prices
    return each_range(tree, close, val_price, start, end, jax.random.wrap_key_data(jnp.asarray(key_words), impl=impl))


# --- one after the other


def plan_reference(job: PlanJob, advance: Advance) -> list[Answers]:
    """The answers from an ordinary loop in Python."""
    leaves, structure = jax.tree.flatten(job.tree, is_leaf=is_parameter)
    leaves = [resolve(x) for x in leaves]
    answers = []
    for groups in job.layout.batches():
        rows = []
        for item in range(len(job.items)):
            for group in groups.tolist():
                arrays = [x.of_lane(int(job.items.combination[item]), group, job.layout.members) for x in leaves]
                rows.append(_ask_one(job, jax.tree.unflatten(structure, arrays), item, group))
                advance(1)
        shape = (len(job.items), len(groups))
        stacked = jax.tree.map(lambda *x: np.stack(x).reshape(*shape, *np.shape(x[0])), *rows)  # noqa: B023
        answers.append(Answers(groups, stacked))
    return answers


def _ask_one(job: PlanJob, tree: tuple[Any, Any], item: int, group: int) -> Planned:
    """The answer for one range of one lane."""
    members = job.layout.members[group]
    allocator, features = tree
    history = History(job.close[:, members], job.val_price[:, members], features)
    start, end = int(job.items.start[item]), int(job.items.end[item])
    lane = int(job.items.combination[item]) * job.layout.num_groups + group
    try:
        answer = allocate(allocator, history, Range(start, end, job.lanes.keys[lane]), job.cash, end - start)
    except AllocatorError as error:
        raise AllocatorError(f"{error} ({job.place(item, group)})", end) from error.__cause__
    except Exception as error:
        if str(error).startswith("allocator "):  # it has answered, but not with weights
            raise type(error)(f"{error} ({job.place(item, group)})") from error
        message = f"allocator {job.name} raised {type(error).__name__}: {error}"
        raise AllocatorError(f"{message} ({job.place(item, group)})", end) from error
    return jax.tree.map(np.asarray, answer)


# --- on other processes


def plan_elsewhere(job: PlanJob, advance: Advance, engine: Engine) -> list[Answers]:
    """The answers of consecutive ranges on each worker of `engine` (see `workers`), in their order."""
    parts = shares(len(job.items), engine)
    resolved = replace(job, tree=map_parameters(resolve, job.tree))
    answers: dict[int, list[Answers]] = {}
    for number, answers_of_part in run_everywhere(_work, resolved, parts, engine):
        answers[number] = answers_of_part
        advance(len(parts[number]) * job.layout.num_groups)
    joined = []
    for batch, groups in enumerate(job.layout.batches()):
        planned = [answers[number][batch].planned for number in range(len(parts))]
        joined.append(Answers(groups, jax.tree.map(lambda *x: np.concatenate(x), *planned)))
    return joined


def _work(job: PlanJob, items: np.ndarray) -> list[Answers]:
    """The answers for some of the ranges."""
    with jax.enable_x64(True):
        return plan_compiled(replace(job, items=job.items.take(items)), lambda count: None)


# --- by name

#: The engines of this process. Others are those of `jaxsim.frames.system.workers`.
ENGINES = {"compiled": plan_compiled, "reference": plan_reference}


def plan(job: PlanJob, engine: Engine, advance: Advance) -> list[Answers]:
    """The answers by the engine of this name, or on a Dask cluster."""
    if isinstance(engine, str) and engine in ENGINES:
        return ENGINES[engine](job, advance)
    assert is_distributed(engine)
    return plan_elsewhere(job, advance, engine)
