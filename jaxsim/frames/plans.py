"""Plans: an allocator asked on all look-back ranges of all lanes at once, before anything is traded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxsim.engine.bounds import BARS, CASH
from jaxsim.engine.host import take_out
from jaxsim.engine.policy import allocator_name, keeps_state
from jaxsim.engine.ranges import History, Planned, Range, allocate
from jaxsim.engine.status import LaneFault
from jaxsim.errors import AllocationError, AllocatorError
from jaxsim.frames.allocations import Allocations
from jaxsim.frames.broadcast import Leaf, module, number, settle
from jaxsim.frames.groups import Layout, layout
from jaxsim.frames.inputs import read_prices
from jaxsim.frames.keys import lane_keys
from jaxsim.frames.lanes import Sweep, is_swept
from jaxsim.frames.prices import valuation_prices
from jaxsim.frames.progress import progress_bar
from jaxsim.frames.reading import as_allocator, lane_labels, name_lane
from jaxsim.frames.schedules import ranges_before
from jaxsim.frames.workers import check_engine, is_distributed, run_everywhere, shares

#: Numbers in the windows of one call: a few megabytes, which caches hold.
_CHUNK = 1 << 20
#: Few shapes, few programs: windows have this many rows times a power of four, which just holds a week or a month of
#: hours; and so many ranges are asked together, where there are no more than so many in all.
_SHORTEST = 48
_SIZES = {16: 16, 64: 64, 128: 2048, 1024: 1 << 62}
#: Combinations that share a range are asked together up to this number.
_TOGETHER = 8


def optimize(
    close: pd.DataFrame | pd.Series,
    allocator: Any,
    *,
    every: Any = None,
    on: Any = None,
    at_time: Any = None,
    lookback: Any = None,
    offset: Any = None,
    open: Any = None,
    features: Any = None,
    groups: Any = None,
    by: Any = None,
    init_cash: Any = 100.0,
    key: Any = 0,
    pad: bool = True,
    engine: str = "compiled",
    progress: bool = False,
) -> Allocations:
    """Ask an allocator on look-back ranges, all dates of all lanes in batches; `js.replay` trades the plan.

    close: prices [time, asset], as in `backtest`.
    allocator: pure function of an `Observation`, or an allocator without state; its parameters may be named indexes.
        It sees an untouched account at the bar of the allocation, and in `obs.window()` the closes of the range.
    every, on, at_time, offset, lookback: when allocations are due and what they look back on, as `js.index_ranges`;
        each may be a named index to sweep, or for `on` a mapping, label -> dates.
    open: only for `obs.val_price`, which without it is the close before.      features, groups, by: as in `backtest`.
    init_cash: of the untouched account, currency.
    key: random key or int; `obs.key` is folded from it by lane and bar.
    pad: whether ranges of about one length share a program, their windows beginning with NaN rows (which the statistics
        of a `Window` skip); False: windows are exactly the range, one program for each length.
    engine: "compiled"; "reference": an ordinary loop in Python with NumPy arrays, for any function; "processes": on all
        cores of this machine; "dask" or a `dask.distributed.Client`: on a cluster. Workers run what "compiled" does, or
        for `al.host` what "reference" does.
    progress: whether to show a progress bar.

    Returns `Allocations` with `ranges`. Their lanes: schedule levels (every, on, at_time, lookback, offset), those of
    the allocator, then groups.
    Raises TypeError or ValueError naming the argument; AllocationError naming lane, asset and bar for weights that
    cannot be traded; AllocatorError naming lane and bar, from what a function that runs in Python has raised.
    """
    prices = read_prices(close, open, None, features)
    arrangement, sweep = layout(prices.columns, groups, by), Sweep()
    schedule = _Schedule(
        prices.index, dict(every=every, on=on, at_time=at_time, lookback=lookback, offset=offset), sweep
    )
    allocator = as_allocator(allocator, "allocator")
    if keeps_state(allocator):
        name = allocator_name(allocator)
        raise TypeError(f"allocator: {name} keeps a state from bar to bar, which a plan has not; use js.backtest")
    tree = module(allocator, "allocator", prices.index, arrangement, sweep)
    cash = number(init_cash, "init_cash", Sweep(), CASH)
    seeds = number(key, "key", sweep, BARS) if is_swept(key) else None
    check_engine(engine, _ENGINES)
    if not isinstance(pad, bool):
        raise TypeError(f"pad: expected True or False, got {pad!r}")
    lanes = lane_labels(sweep, arrangement)
    with jax.enable_x64(True):
        per_lane = None if seeds is None else np.repeat(settle(seeds).array, arrangement.num_groups)
        keys = lane_keys(0 if seeds is not None else key, lanes, per_lane)
        job = _Job(
            prices.index, arrangement, prices.close, valuation_prices(prices.close, prices.open),
            allocator_name(allocator), (tree, prices.features), float(cash.array), keys.data, keys.impl,
            schedule.items(), lanes, pad,
        )  # fmt: skip
        run = _plan_elsewhere if is_distributed(engine) else _ENGINES[engine]
        with progress_bar(job.num_answers, "range", progress) as advance:
            answers = run(job, engine, advance)
        return _collect(job, answers)


@dataclass(frozen=True, eq=False)
class _Items:
    """What is asked: combination of parameters and bars [start, end) of each range, [item], by combination and bar."""

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

    def some(self, chosen: np.ndarray) -> "_Items":
        return _Items(self.combination[chosen], self.start[chosen], self.end[chosen])


class _Schedule:
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

    def items(self) -> _Items:
        """All that is asked, once all axes of the sweep are known."""
        labels = {name: self._sweep.values(place) for name, place in self._places.items()}
        ranges = [
            self._ranges({name: values[combination] for name, values in labels.items()})
            for combination in range(len(self._sweep))
        ]
        combination = np.repeat(np.arange(len(ranges)), [len(start) for start, _ in ranges])
        return _Items(combination, *(np.concatenate(bars) for bars in zip(*ranges, strict=True)))


@dataclass(frozen=True, eq=False)
class _Job:
    """A plan to be made.

    close, val_price: [time, column].     tree: the allocator and the features, with leaves.
    key_data, key_impl: the random keys of all lanes, uint32 [lane, ...], which workers can be sent; and their kind.
    """

    index: pd.Index
    layout: Layout
    close: np.ndarray
    val_price: np.ndarray
    name: str
    tree: Any
    cash: float
    key_data: np.ndarray
    key_impl: str
    items: _Items
    lanes: pd.Index | None
    pad: bool

    @property
    def keys(self) -> Any:
        return jax.random.wrap_key_data(jnp.asarray(self.key_data), impl=self.key_impl)

    @property
    def num_answers(self) -> int:
        return len(self.items) * self.layout.num_groups

    def where(self, item: int, group: int, asset: int | None = None) -> str:
        """A place in a plan, as people say it."""
        bar = int(self.items.end[item])
        parts = [name_lane(self.lanes, int(self.items.combination[item]) * self.layout.num_groups + group)]
        if asset is not None:
            parts.append(f"asset {self.layout.assets[self.layout.members[group][asset]]!r}")
        return ", ".join(filter(None, [*parts, f"bar {bar}", str(self.index[bar])]))


@dataclass(frozen=True, eq=False)
class _Answers:
    """The answers for groups of one size; arrays [item, group, ...]."""

    groups: np.ndarray
    planned: Planned


# --- in compiled batches


def _plan_compiled(job: _Job, engine: Any, advance: Callable) -> list[_Answers]:
    if take_out(job.tree)[1]:
        return _plan_reference(job, engine, advance)  # the host is asked directly: nothing is to be compiled
    return [_Answers(groups, _batch(job, groups, advance)) for groups in job.layout.batches()]


def _batch(job: _Job, groups: np.ndarray, advance: Any) -> Planned:
    members = np.stack([job.layout.members[g] for g in groups])
    close, val_price = (np.moveaxis(x[:, members], 0, 1) for x in (job.close, job.val_price))
    leaves, structure = jax.tree.flatten(job.tree, is_leaf=lambda x: isinstance(x, Leaf))
    arrays, has = zip(*(settle(leaf).of(groups, job.layout.members, True) for leaf in leaves), strict=True)
    item_axes, group_axes = (jax.tree.unflatten(structure, [0 if h[i] else None for h in has]) for i in (0, 1))
    lanes = job.items.combination[:, None] * job.layout.num_groups + groups

    def ask(chunk: np.ndarray, longest: int) -> Planned:
        per_item = [a[job.items.combination[chunk]] if h[0] else a for a, h in zip(arrays, has, strict=True)]
        given = jax.tree.unflatten(structure, per_item)
        start, end = (x[chunk[:, 0]].astype(np.int32) for x in (job.items.start, job.items.end))
        due = (start, end, job.key_data[lanes[chunk]])
        try:
            answers = _ask_all(
                given, item_axes, group_axes, (close, val_price), due, job.key_impl, np.float64(job.cash), longest
            )
        except Exception as error:
            where = job.where(int(chunk[0, 0]), int(groups[0]))
            error.add_note(
                f"while allocator {job.name} was compiled for all ranges at once, the first of them: {where}"
            )
            raise
        return jax.tree.map(np.asarray, answers)

    whole: Planned | None = None
    for chunk, part in _beside_each_other(ask, list(_chunks(job, members.size))):
        if whole is None:
            whole = jax.tree.map(lambda x: np.zeros((len(job.items), *x.shape[2:]), x.dtype), part)
        for out, values in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
            out[chunk] = values  # a chunk that is filled up repeats its first range
        advance(len(np.unique(chunk)) * len(groups))
    assert whole is not None
    return whole


def _beside_each_other(ask: Callable, chunks: list[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, Planned]]:
    """Each chunk and its answers, in turn. Two at a time are compiled and run, on threads."""
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]

    def one(chunk: np.ndarray, longest: int) -> tuple[np.ndarray, Planned]:
        with jax.enable_x64(True), jax.default_device(device):  # every thread has its own
            return chunk, ask(chunk, longest)

    if len(chunks) == 1:
        yield one(*chunks[0])
        return
    with ThreadPoolExecutor(2, thread_name_prefix="jaxsim-plan") as pool:
        futures = [pool.submit(one, *chunk) for chunk in chunks]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _chunks(job: _Job, width: int) -> Iterator[tuple[np.ndarray, int]]:
    """Numbers of the items that are asked together, [range, combination], and the length of their windows."""
    for block in job.items.shared():
        length = (job.items.end - job.items.start)[block[:, 0]]
        longest = _rounded_up(length, _SHORTEST) if job.pad else length
        for rows in np.unique(longest):
            together = block[longest == rows]
            most = max(2, 1 << int(np.log2(max(1, _CHUNK // (rows * width)))))
            size = min(_size(len(together)), most)
            for begin in range(0, len(together), size):
                yield _filled_up(together[begin : begin + size], size), int(rows)


def _filled_up(x: np.ndarray, size: int) -> np.ndarray:
    """With the first row repeated until there are `size`."""
    return np.concatenate([x, np.repeat(x[:1], size - len(x), axis=0)])


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


def _plan_reference(job: _Job, engine: Any, advance: Callable) -> list[_Answers]:
    leaves, structure = jax.tree.flatten(job.tree, is_leaf=lambda x: isinstance(x, Leaf))
    leaves = [settle(x) for x in leaves]
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
        answers.append(_Answers(groups, stacked))
    return answers


def _ask_here(job: _Job, given: Any, item: int, group: int) -> Planned:
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


def _one(leaf: Leaf, combination: int, group: int, layout: Layout) -> Any:
    array, (by_combination, _) = leaf.of(np.array([group]), layout.members, False)
    return array[combination] if by_combination else array


_ENGINES = {"compiled": _plan_compiled, "reference": _plan_reference}


# --- on other processes


def _plan_elsewhere(job: _Job, engine: Any, advance: Callable) -> list[_Answers]:
    """Consecutive items on each worker; the answers in their order."""
    parts = shares(len(job.items), engine)
    settled = replace(job, tree=jax.tree.map(settle, job.tree, is_leaf=lambda x: isinstance(x, Leaf)))
    done: dict[int, list[_Answers]] = {}
    for at, answers in run_everywhere(_work, settled, parts, engine):
        done[at] = answers
        advance(len(parts[at]) * job.layout.num_groups)
    whole = []
    for batch, groups in enumerate(job.layout.batches()):
        planned = [done[at][batch].planned for at in range(len(parts))]
        whole.append(_Answers(groups, jax.tree.map(lambda *x: np.concatenate(x), *planned)))
    return whole


def _work(job: _Job, items: np.ndarray) -> list[_Answers]:
    """What a worker does."""
    with jax.enable_x64(True):
        return _ENGINES["compiled"](replace(job, items=job.items.some(items)), None, lambda count: None)


# --- all together


def _collect(job: _Job, answers: list[_Answers]) -> Allocations:
    """The answers as Allocations, by lane and bar. Raises AllocationError for the first that cannot be traded."""
    layout, items = job.layout, job.items
    assets = layout.assets.unique()
    places = assets.get_indexer(layout.assets)
    num_groups, num_items = layout.num_groups, len(items)
    bad = [at for part in answers for at in _faults(part)]
    if bad:
        item, group, asset, kind = min(bad)
        raise AllocationError(f"allocator {job.name}: {LaneFault(kind).text} ({job.where(item, group, asset)})")
    member = np.zeros((num_groups, len(assets)), bool)
    for group, columns in enumerate(layout.members):
        member[group, places[columns]] = True

    def over_assets(parts: Sequence[Any]) -> np.ndarray:
        """[item, group, asset of the group], one for each group size, over all assets; NaN elsewhere."""
        out = np.full((num_items, num_groups, len(assets)), np.nan)
        for part, values in zip(answers, parts, strict=True):
            for at, group in enumerate(part.groups):
                if values is not None:
                    out[:, group, places[layout.members[group]]] = values[:, at]
        return out

    def of_name(name: str) -> np.ndarray | None:
        parts = [getattr(part.planned, name) for part in answers]
        return None if all(x is None for x in parts) else over_assets(parts)

    def handed_out(name: str) -> np.ndarray:
        parts = [part.planned.aux[name] for part in answers]
        if all(x.shape[2:] == x_of.planned.weights.shape[2:] for x, x_of in zip(parts, answers, strict=True)):
            return over_assets(parts)
        if len({x.shape[2:] for x in parts}) > 1:
            raise ValueError(f"aux: {name!r} has another shape in groups of another size")
        out = np.zeros((num_items, num_groups, *parts[0].shape[2:]), parts[0].dtype)
        for part, values in zip(answers, parts, strict=True):
            out[:, part.groups] = values
        return out

    combinations = len(job.key_data) // num_groups
    lane = (items.combination[:, None] * num_groups + np.arange(num_groups)).ravel()
    order = np.argsort(lane, kind="stable")  # items are by combination and bar already

    def rows(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(lane), *values.shape[2:])[order]

    codes = {name: of_name(name) for name in ("size_type", "direction", "sequence")}
    return Allocations(
        job.index,
        job.lanes,
        lane[order],
        np.repeat(items.end, num_groups)[order],
        rows(over_assets([part.planned.weights for part in answers])),
        assets,
        np.tile(member, (combinations, 1)),
        len(layout.levels),
        **{name: None if x is None else rows(x) for name, x in codes.items()},
        range_start=np.repeat(items.start, num_groups)[order],
        aux={name: rows(handed_out(name)) for name in answers[0].planned.aux},
    )


def _faults(part: _Answers) -> Iterator[tuple[int, int, int, int]]:
    for item, at, asset in np.argwhere(part.planned.fault != LaneFault.NONE).tolist():
        yield item, int(part.groups[at]), asset, int(part.planned.fault[item, at, asset])
