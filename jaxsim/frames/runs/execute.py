"""From resolved parameters to a ledger: the compiled engine, and the reference engine lane by lane."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs
from jaxsim.engine.policy.host_callback import HostRun, interruptibly, take_out
from jaxsim.engine.policy.policy import allocator_name, fault_text
from jaxsim.engine.schedules.programs import pages
from jaxsim.engine.schedules.schedule import AbstractSchedule
from jaxsim.engine.trading.status import LaneFault, LaneStatus, OrderStatusInfo
from jaxsim.errors import AllocationError, AllocatorError, OrderError, RejectedOrderError
from jaxsim.frames.inputs.groups import Layout
from jaxsim.frames.inputs.market import LanePrices, market_tree
from jaxsim.frames.inputs.parameters import LaneParameter, module_from, resolve
from jaxsim.frames.results.ledger import Ledger, ledger_from_pages, ledger_from_runs
from jaxsim.reference import run_lane


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a run of many lanes is made from. Lanes are combinations x groups, groups innermost.

    quotes, policy, costs, account: pytrees whose leaves are `LaneParameter`.
    features: as `Market.features`; leaves may be `LaneParameter`.
    keep_log: whether to record the account around every order.     schedule: default the faster one.
    keys: [lane].       name_lane: the label of a lane, for messages.
    """

    index: pd.Index
    layout: Layout
    num_combinations: int
    quotes: LanePrices
    features: Any
    policy: Any
    costs: Any
    account: Any
    keys: Any
    name_lane: Callable[[int], str]
    keep_log: bool = False
    schedule: AbstractSchedule | None = None

    def lanes_of(self, groups: np.ndarray) -> np.ndarray:
        """Lane numbers of a batch of groups, [combination, group]."""
        return np.arange(self.num_combinations)[:, None] * self.layout.num_groups + groups[None, :]


def _ignore(count: int) -> None:
    pass


def run_compiled(job: Job, advance: Callable[[int], object] = _ignore) -> list[Ledger]:
    """All lanes side by side in compiled programs, one for each group size.

    advance: told of how many lanes have been simulated.
    """
    batches = []
    with jax.enable_x64(True):
        for groups in job.layout.batches():
            batches.append(_run_batch(job, groups))
            advance(len(batches[-1][0].lanes))
    faults = [fault for _, faults in batches for fault in faults]
    if faults:
        raise_fault(job, min(faults, key=lambda fault: fault.lane))
    return [ledger for ledger, _ in batches]


class Fault(NamedTuple):
    """What went wrong in a lane: at a bar, with one of its assets (a price-frame column); and why, if an order was
    rejected."""

    lane: int
    column: int
    kind: LaneFault
    bar: int
    reason: int = OrderStatusInfo.NONE


def power_of_two_from(number: int) -> int:
    """The least power of two that is not below a number >= 1."""
    return 1 << (number - 1).bit_length()


class Batch(NamedTuple):
    """The groups of one size under all combinations, as a program takes them.

    run: pytree of arrays; those that differ by lane have the lane `axes`.
    groups: their numbers.      lanes: numbers of the lanes among those of the job, [combination, group].
    columns: price-frame columns of each lane's assets, [lane, asset].
    host: where its Python functions are called, and what goes wrong in them is noted.
    """

    run: LaneInputs
    axes: tuple[LaneAxis, ...]
    groups: np.ndarray
    lanes: np.ndarray
    columns: np.ndarray
    host: HostRun

    def by_lane(self, tree: Any) -> Any:
        """Arrays with the lane axes as NumPy arrays [lane, ...], without the lanes that only pad the shape."""
        sizes = tuple(axis.size for axis in self.axes)
        count = int(np.prod(sizes))
        return jax.tree.map(lambda x: np.asarray(x).reshape(count, *np.shape(x)[len(sizes) :])[: self.lanes.size], tree)


def batch_of(job: Job, groups: np.ndarray, goes_on: bool = False) -> Batch:
    """What the lanes of some groups of one size are simulated from.    goes_on: as in `HostRun`."""
    combinations, is_grouped = job.num_combinations, len(groups) > 1
    # XLA drops an axis of size one and then rounds differently: a single lane runs beside a copy of itself. Widths are
    # powers of two, so that few of them are ever compiled.
    width = max(power_of_two_from(combinations), 1 if is_grouped else 2)
    has_combinations, filled_up = width > 1, np.minimum(np.arange(width), combinations - 1)
    lanes = job.lanes_of(groups)

    def fit(array: Any) -> Any:
        """[combination, ...] -> [width, ...], or without that axis if all lanes are groups."""
        return array[0] if not has_combinations else array if combinations == width else array[filled_up]

    bare, functions = take_out(job.policy)
    closes, (by_combination, by_group) = resolve(job.quotes.close).of(groups, job.layout.members, is_grouped)
    closes = closes if by_combination else closes[None]
    host = HostRun(closes if by_group else np.expand_dims(closes, 1), lanes.shape, functions, goes_on)
    keys, tickets = (x if is_grouped else x[:, 0] for x in (job.keys.of(lanes), host.tickets()))
    market, at_end = market_tree(job.quotes, job.features), LaneParameter(None)
    parts = {"market": market, "policy": bare, "costs": job.costs, "account": job.account}
    whole = module_from(LaneInputs, parts | {"key": at_end, "keep_log": job.keep_log, "ticket": at_end})
    leaves, structure = jax.tree.flatten(whole, is_leaf=lambda x: isinstance(x, LaneParameter))
    found = [resolve(x).of(groups, job.layout.members, is_grouped) for x in leaves if x is not at_end]
    arrays, has = zip(*found, *((x, (True, is_grouped)) for x in (keys, tickets)), strict=True)
    arrays = [fit(array) if by_combination else array for array, (by_combination, _) in zip(arrays, has, strict=True)]

    def axis(name: str, size: int, which: int) -> LaneAxis:
        return LaneAxis(name, size, tuple(0 if h[which] else None for h in has), structure)

    axes = (axis("combination", width, 0),) if has_combinations else ()
    axes += (axis("group", len(groups), 1),) if is_grouped else ()
    columns = np.stack([job.layout.members[g] for g in groups])[np.tile(np.arange(len(groups)), combinations)]
    return Batch(jax.tree.unflatten(structure, arrays), axes, groups, lanes, columns, host)


def run_programs(job: Job, batch: Batch, work: Callable[[], Any]) -> Any:
    """What `work()` returns, which runs the compiled programs of a batch."""
    with batch.host as host:
        try:
            return interruptibly(host, work) if host.functions else work()
        except Exception as error:
            name, lane = allocator_name(batch.run.policy.allocator), job.name_lane(int(batch.lanes.flat[0]))
            first = f", the first of them: {lane}" if lane else ""
            error.add_note(f"while a policy with allocator {name} was compiled for all bars and lanes at once{first}")
            raise


def faults_of(batch: Batch, status: LaneStatus) -> list[Fault]:
    """What went wrong inside of the lanes of a batch, by their status with the lane axes."""
    faults: list[Fault] = []
    if not np.asarray(status.fault).any():
        return faults
    status = batch.by_lane(status)
    for at in np.flatnonzero(status.fault != LaneFault.NONE):
        column = int(batch.columns[at, status.asset[at]])
        kind, bar, reason = (int(x[at]) for x in (status.fault, status.bar, status.reason))
        faults.append(Fault(int(batch.lanes.ravel()[at]), column, LaneFault(kind), bar, reason))
    return faults


def _run_batch(job: Job, groups: np.ndarray) -> tuple[Ledger, list[Fault]]:
    batch = batch_of(job, groups)
    ledger, faults = ledger_of(job, batch)
    if batch.host.failure is not None:
        failure = batch.host.failure
        raise_failure(job, int(batch.lanes.ravel()[failure.lane]), failure.bar, failure.error)
    return ledger, faults


def ledger_of(job: Job, batch: Batch) -> tuple[Ledger, list[Fault]]:
    """Run a batch and keep what happened, and what went wrong inside of its lanes."""
    done = run_programs(job, batch, lambda: list(pages(batch.run, batch.axes, job.schedule, batch.lanes.size)))
    ledger = ledger_from_pages(done, batch.lanes.ravel(), batch.columns)
    return with_val_prices(ledger, job), faults_of(batch, done[-1].lane.status)


def with_val_prices(ledger: Ledger, job: Job) -> Ledger:
    """A ledger with the prices that its events were sized at."""
    prices = resolve(job.quotes.val_price)
    if prices.columns is None:  # one table per group, as tests make them
        return ledger
    at = ledger.lane_of_event
    bar, columns = ledger.bar[:, None], ledger.columns[at]
    if prices.by_combination:
        combination = ledger.lanes[at] // job.layout.num_groups
        return replace(ledger, val_price=prices.array[combination[:, None], bar, columns])
    return replace(ledger, val_price=prices.array[bar, columns])


def run_reference(job: Job, advance: Callable[[int], object] = _ignore) -> list[Ledger]:
    """One lane after the other in lane order, in plain NumPy."""
    batches = job.layout.batches()
    batch_of = {int(g): b for b, groups in enumerate(batches) for g in groups}
    parts = (job.quotes, job.features, job.policy, job.costs, job.account)
    leaves, structure = jax.tree.flatten(parts, is_leaf=lambda x: isinstance(x, LaneParameter))
    leaves = [resolve(x) for x in leaves]
    runs: list[list] = [[] for _ in batches]
    with jax.enable_x64(True):
        for combination in range(job.num_combinations):
            for group in range(job.layout.num_groups):
                here = [_one(x, combination, group, job.layout) for x in leaves]
                quotes, features, policy, costs, account = jax.tree.unflatten(structure, here)
                lane, members = combination * job.layout.num_groups + group, job.layout.members[group]
                market = market_tree(quotes, features)
                try:
                    run = run_lane(market, policy, costs, account, job.keys[lane])
                except OrderError as error:
                    column = int(members[error.asset])
                    where = _where(job, lane, column, error.bar)
                    raise type(error)(f"{error} ({where})", error.bar, column) from error
                except AllocatorError as error:
                    assert error.bar is not None
                    raise_failure(job, lane, error.bar, error)
                if run.fault[0] != LaneFault.NONE:
                    kind, bar, asset = run.fault
                    raise_fault(job, Fault(lane, int(members[asset]), kind, bar))
                runs[batch_of[group]].append(run)
                advance(1)
    ledger_of = partial(ledger_from_runs, keep_log=job.keep_log, are_orders=job.policy.size_type is not None)
    ledgers = []
    for batch, groups in enumerate(batches):
        lanes = job.lanes_of(groups).ravel()
        columns = np.stack([job.layout.members[g] for g in groups])[np.arange(len(lanes)) % len(groups)]
        ledgers.append(with_val_prices(ledger_of(runs[batch], lanes, columns), job))
    return ledgers


def _one(leaf: LaneParameter, combination: int, group: int, layout: Layout) -> Any:
    array, (by_combination, _) = leaf.of(np.array([group]), layout.members, False)
    return array[combination] if by_combination else array


def fault_message(job: Job, fault: Fault) -> str:
    """What went wrong inside a lane, with its labels."""
    text = fault_text(fault.kind, job.policy.allocator)
    if fault.kind == LaneFault.ORDER_REJECTED:
        text += f": {OrderStatusInfo(fault.reason).name}"
    return f"{text} ({_where(job, fault.lane, fault.column, fault.bar)})"


def raise_fault(job: Job, fault: Fault) -> NoReturn:
    """Raise what went wrong inside a lane, with its labels."""
    message = fault_message(job, fault)
    if fault.kind == LaneFault.ORDER_REJECTED:
        raise RejectedOrderError(message, fault.bar, fault.column)
    if fault.kind.is_of_order:
        raise OrderError(message, fault.bar, fault.column)
    raise AllocationError(message)


def failure_message(job: Job, lane: int, bar: int, error: BaseException) -> str:
    """What a Python function that was asked for weights raised, with the labels of its lane."""
    return f"{error} ({_where(job, lane, None, bar)})"


def raise_failure(job: Job, lane: int, bar: int, error: BaseException) -> NoReturn:
    """Raise what a Python function that was asked for weights raised, with the labels of its lane. What the user raised
    is the cause; what is no Exception, such as a KeyboardInterrupt, is raised as it is."""
    if not isinstance(error, Exception):
        raise error
    message = failure_message(job, lane, bar, error)
    if isinstance(error, AllocatorError):
        raise AllocatorError(message, bar) from error.__cause__
    if type(error) in (TypeError, ValueError):
        raise type(error)(message) from error
    raise AllocatorError(message, bar) from error


def _where(job: Job, lane: int, column: int | None, bar: int | None) -> str:
    """A place in a run, as people say it."""
    assert bar is not None
    asset = "" if column is None else f"asset {job.layout.assets[column]!r}"
    return ", ".join(part for part in (job.name_lane(lane), asset, f"bar {bar}", str(job.index[bar])) if part)


ENGINES = {"compiled": run_compiled, "reference": run_reference}
