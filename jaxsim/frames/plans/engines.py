"""An allocator asked on all ranges of a plan: in compiled batches, one after the other, or on other processes."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import numpy as np

from jaxsim.engine.bar.look_back import History, Planned, Range, allocate
from jaxsim.engine.policy.host_callback import take_out
from jaxsim.errors import AllocatorError
from jaxsim.frames.inputs.groups import Layout
from jaxsim.frames.inputs.parameters import LaneParameter, resolve
from jaxsim.frames.plans.job import Answers, PlanJob
from jaxsim.frames.system.workers import run_everywhere, shares

#: Numbers in the windows of one call: a few megabytes, which caches hold.
_CHUNK = 1 << 20
#: Few shapes, few programs: windows have this many rows times a power of four, which just holds a week or a month of
#: hours; and so many ranges are asked together, where there are no more than so many in all. A year has 365 days.
_SHORTEST = 48
_SIZES = {16: 16, 64: 64, 128: 256, 384: 2048, 1024: 1 << 62}


# --- in compiled batches


@dataclass(frozen=True, eq=False)
class RangeChunk:
    """Items that are asked together.

    items: their numbers, [range, combination].     longest: rows of their windows.
    size: ranges of the program that is asked, which may be more.
    """

    items: np.ndarray
    longest: int
    size: int

    @property
    def filled_up(self) -> np.ndarray:
        """The items, with those of the first range repeated until there are `size`."""
        missing = self.size - len(self.items)
        return np.concatenate([self.items, np.repeat(self.items[:1], missing, axis=0)]) if missing else self.items


def _plan_compiled(job: PlanJob, engine: Any, advance: Callable) -> list[Answers]:
    if take_out(job.tree)[1]:
        return _plan_reference(job, engine, advance)  # the host is asked directly: nothing is to be compiled
    return [Answers(groups, _batch(job, groups, advance)) for groups in job.layout.batches()]


def _batch(job: PlanJob, groups: np.ndarray, advance: Any) -> Planned:
    members = job.layout.members
    # On the device once and for all, [group, time, asset].
    prices = jax.device_put(
        tuple(LaneParameter(x, columns=1).of(groups, members, True)[0] for x in (job.close, job.val_price))
    )
    leaves, structure = jax.tree.flatten(job.tree, is_leaf=lambda x: isinstance(x, LaneParameter))
    found = [resolve(leaf).of(groups, members, True) for leaf in leaves]
    arrays, has = [array for array, _ in found], [axes for _, axes in found]
    item_axes, group_axes = (jax.tree.unflatten(structure, [0 if h[i] else None for h in has]) for i in (0, 1))
    lanes = job.items.combination[:, None] * job.layout.num_groups + groups

    def ask(chunk: RangeChunk) -> Planned:
        some, longest = chunk.filled_up, chunk.longest
        per_item = [a[job.items.combination[some]] if h[0] else a for a, h in zip(arrays, has, strict=True)]
        given = jax.tree.unflatten(structure, per_item)
        start, end = (x[some[:, 0]].astype(np.int32) for x in (job.items.start, job.items.end))
        due = (start, end, job.key_data[lanes[some]])
        try:
            answers = _ask_all(given, item_axes, group_axes, prices, due, job.key_impl, np.float64(job.cash), longest)
        except Exception as error:
            where = job.where(int(some[0, 0]), int(groups[0]))
            error.add_note(
                f"while allocator {job.name} was compiled for all ranges at once, the first of them: {where}"
            )
            raise
        return jax.tree.map(np.asarray, answers)

    whole: Planned | None = None
    for chunk, part in _beside_each_other(ask, list(_chunks(job, len(groups) * len(members[groups[0]])))):
        if whole is None:
            whole = jax.tree.map(lambda x: np.zeros((len(job.items), *x.shape[2:]), x.dtype), part)
        for out, values in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
            out[chunk.items] = values[: len(chunk.items)]
        advance(chunk.items.size * len(groups))
    assert whole is not None
    return whole


def _beside_each_other(ask: Callable, chunks: list[RangeChunk]) -> Iterator[tuple[RangeChunk, Planned]]:
    """Each chunk and its answers. Two at a time are compiled and run, here and on another thread."""
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    left, done = deque(chunks), deque()

    def ask_next() -> tuple[RangeChunk, Planned] | None:
        try:
            chunk = left.popleft()
        except IndexError:
            return None
        return chunk, ask(chunk)

    def work() -> None:
        try:
            with jax.enable_x64(True), jax.default_device(device):  # every thread has its own
                done.extend(iter(ask_next, None))
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
                while done:
                    yield done.popleft()
            other.result()
            yield from done
        finally:
            left.clear()


def _chunks(job: PlanJob, width: int) -> Iterator[RangeChunk]:
    for block in job.items.shared():
        length = (job.items.end - job.items.start)[block[:, 0]]
        longest = _rounded_up(length, _SHORTEST) if job.pad else length
        for rows in np.unique(longest):
            together = block[longest == rows]
            most = max(2, 1 << int(np.log2(max(1, _CHUNK // (rows * width)))))
            size = min(_size(len(together)), most)
            for begin in range(0, len(together), size):
                yield RangeChunk(together[begin : begin + size], int(rows), size)


def _size(count: int) -> int:
    """How many ranges are asked together: few sizes, of which many ranges fill several."""
    return next((size for size, up_to in _SIZES.items() if count <= up_to), max(_SIZES))


def _rounded_up(number: np.ndarray, least: int) -> np.ndarray:
    """To `least` times a power of four."""
    powers = least * 4 ** np.arange(16)
    return powers[np.searchsorted(powers, number)]


@eqx.filter_jit
def _ask_all(
    given: Any, item_axes: Any, group_axes: Any, prices: tuple, due: tuple, impl: str, cash: Any, longest: int
) -> Planned:
    """Answers [range, combination, group, ...].

    given: allocator and features, whose axes are `item_axes` (range and combination) and `group_axes`.
    prices: close and val_price, [group, time, asset].
    due: start and end, [range], and what lane keys are made of, [range, combination, group, ...]; `impl` is their kind.
    """

    def one(given, close, val_price, start, end, key):
        allocator, features = given
        return allocate(allocator, History(close, val_price, features), Range(start, end, key), cash, longest)

    each_group = jax.vmap(one, in_axes=(group_axes, 0, 0, None, None, 0))
    each_combination = jax.vmap(each_group, in_axes=(item_axes, None, None, None, None, 0))
    each_range = jax.vmap(each_combination, in_axes=(item_axes, None, None, 0, 0, 0))
    start, end, key_data = due
    close, val_price = prices
    return each_range(given, close, val_price, start, end, jax.random.wrap_key_data(key_data, impl=impl))


# --- one after the other


def _plan_reference(job: PlanJob, engine: Any, advance: Callable) -> list[Answers]:
    leaves, structure = jax.tree.flatten(job.tree, is_leaf=lambda x: isinstance(x, LaneParameter))
    leaves = [resolve(x) for x in leaves]
    answers = []
    for groups in job.layout.batches():
        rows = []
        for item in range(len(job.items)):
            for group in groups.tolist():
                here = [_one(x, int(job.items.combination[item]), group, job.layout) for x in leaves]
                rows.append(_ask_here(job, jax.tree.unflatten(structure, here), item, group))
                advance(1)
        shape = (len(job.items), len(groups))
        stacked = jax.tree.map(lambda *x: np.stack(x).reshape(*shape, *np.shape(x[0])), *rows)  # noqa: B023
        answers.append(Answers(groups, stacked))
    return answers


def _ask_here(job: PlanJob, given: Any, item: int, group: int) -> Planned:
    members = job.layout.members[group]
    allocator, features = given
    history = History(job.close[:, members], job.val_price[:, members], features)
    start, end = int(job.items.start[item]), int(job.items.end[item])
    lane = int(job.items.combination[item]) * job.layout.num_groups + group
    try:
        answer = allocate(allocator, history, Range(start, end, job.keys[lane]), job.cash, end - start)
    except AllocatorError as error:
        raise AllocatorError(f"{error} ({job.where(item, group)})", end) from error.__cause__
    except Exception as error:
        if str(error).startswith("allocator "):  # it has answered, but not with weights
            raise type(error)(f"{error} ({job.where(item, group)})") from error
        message = f"allocator {job.name} raised {type(error).__name__}: {error}"
        raise AllocatorError(f"{message} ({job.where(item, group)})", end) from error
    return jax.tree.map(np.asarray, answer)


def _one(leaf: LaneParameter, combination: int, group: int, layout: Layout) -> Any:
    array, (by_combination, _) = leaf.of(np.array([group]), layout.members, False)
    return array[combination] if by_combination else array


ENGINES = {"compiled": _plan_compiled, "reference": _plan_reference}


# --- on other processes


def plan_elsewhere(job: PlanJob, engine: Any, advance: Callable) -> list[Answers]:
    """Consecutive items on each worker; the answers in their order."""
    parts = shares(len(job.items), engine)
    settled = replace(job, tree=jax.tree.map(resolve, job.tree, is_leaf=lambda x: isinstance(x, LaneParameter)))
    done: dict[int, list[Answers]] = {}
    for at, answers in run_everywhere(_work, settled, parts, engine):
        done[at] = answers
        advance(len(parts[at]) * job.layout.num_groups)
    whole = []
    for batch, groups in enumerate(job.layout.batches()):
        planned = [done[at][batch].planned for at in range(len(parts))]
        whole.append(Answers(groups, jax.tree.map(lambda *x: np.concatenate(x), *planned)))
    return whole


def _work(job: PlanJob, items: np.ndarray) -> list[Answers]:
    """What a worker does."""
    with jax.enable_x64(True):
        return ENGINES["compiled"](replace(job, items=job.items.some(items)), None, lambda count: None)
