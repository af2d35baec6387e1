"""The compiled engine: all lanes of a group size side by side in one program."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs
from jaxsim.engine.policy.host_callback import HostRun, interruptibly, take_out
from jaxsim.engine.policy.policy import allocator_name
from jaxsim.engine.schedules.programs import pages
from jaxsim.engine.trading.status import LaneFault, LaneStatus
from jaxsim.frames.inputs.market import market_of
from jaxsim.frames.inputs.parameters import LaneParameter, is_parameter, module_from, resolve
from jaxsim.frames.results.ledger import Ledger, ledger_from_pages
from jaxsim.frames.runs.faults import Fault, raise_failure, raise_fault
from jaxsim.frames.runs.job import Job
from jaxsim.frames.runs.opening import opening_of
from jaxsim.frames.runs.shapes import power_of_two_from

T = TypeVar("T")


def run_compiled(job: Job, advance: Callable[[int], object]) -> list[Ledger]:
    """One ledger for each group size. Raises the first fault by lane.

    advance: is told how many lanes have been simulated.
    """
    ledgers: list[Ledger] = []
    faults: list[Fault] = []
    with jax.enable_x64(True):
        for groups in job.layout.batches():
            ledger, faults_of_batch = run_batch(job, groups)
            ledgers.append(ledger)
            faults += faults_of_batch
            advance(len(ledger.lanes))
    if faults:
        raise_fault(job, min(faults, key=lambda fault: fault.lane))
    return ledgers


def run_batch(job: Job, groups: np.ndarray) -> tuple[Ledger, list[Fault]]:
    """Simulate groups of one size. Raises what a Python function of the policy raised."""
    batch = batch_of(job, groups)
    ledger, faults = ledger_of(job, batch)
    failure = batch.host.failure
    if failure is not None:
        raise_failure(job, int(batch.lanes.ravel()[failure.lane]), failure.bar, failure.error)
    return ledger, faults


class Batch(NamedTuple):
    """The groups of one size under all combinations, as a program takes them.

    run: pytree of arrays; those that differ by lane have the lane `axes`.
    groups: their numbers.      lanes: numbers of the lanes among those of the job, [combination, group].
    columns: price-frame columns of each lane's assets, [lane, asset].
    host: calls the Python functions of the policy, and notes what they raise.
    """

    run: LaneInputs
    axes: tuple[LaneAxis, ...]
    groups: np.ndarray
    lanes: np.ndarray
    columns: np.ndarray
    host: HostRun

    def by_lane(self, tree: T) -> T:
        """Arrays with the lane axes as NumPy arrays [lane, ...], without the lanes that only pad the shape."""
        sizes = tuple(axis.size for axis in self.axes)
        count = int(np.prod(sizes))
        return jax.tree.map(lambda x: np.asarray(x).reshape(count, *np.shape(x)[len(sizes) :])[: self.lanes.size], tree)

    def faults(self, status: LaneStatus) -> list[Fault]:
        """What went wrong in these lanes. status: with the lane axes."""
        if not np.asarray(status.fault).any():
            return []
        by_lane = self.by_lane(status)
        return [
            Fault(
                int(self.lanes.ravel()[lane]),
                int(self.columns[lane, by_lane.asset[lane]]),
                LaneFault(int(by_lane.fault[lane])),
                int(by_lane.bar[lane]),
                int(by_lane.reason[lane]),
            )
            for lane in np.flatnonzero(np.asarray(by_lane.fault) != LaneFault.NONE)
        ]


def batch_of(job: Job, groups: np.ndarray, goes_on: bool = False, for_metrics: bool = False) -> Batch:
    """The batch of some groups of one size.       goes_on: as in `HostRun`.

    for_metrics: whether the program is to give metrics, which count bars from a start on.
    """
    combinations, is_grouped, members = job.num_combinations, len(groups) > 1, job.layout.members
    # XLA drops an axis of size one and then rounds differently: a single lane runs beside a copy of itself. Widths are
    # powers of two, so that few of them are ever compiled.
    width = max(power_of_two_from(combinations), 1 if is_grouped else 2)
    has_combinations, filled_up = width > 1, np.minimum(np.arange(width), combinations - 1)
    lanes = job.lanes.of(groups)

    def fit(array: Any) -> Any:
        """[combination, ...] -> [width, ...], or without that axis if all lanes are groups."""
        return array[0] if not has_combinations else array if combinations == width else array[filled_up]

    policy, functions = take_out(job.policy)
    closes, (by_combination, by_group) = resolve(job.prices.close).of(groups, members, is_grouped)
    closes = closes if by_combination else closes[None]
    host = HostRun(closes if by_group else np.expand_dims(closes, 1), lanes.shape, functions, goes_on)
    keys, tickets = (x if is_grouped else x[:, 0] for x in (job.lanes.keys.of(lanes), host.tickets()))
    key, ticket = LaneParameter(None), LaneParameter(None)  # stand for what is no parameter of the job
    inputs = module_from(
        LaneInputs,
        {
            "market": market_of(job.prices, job.features),
            "policy": policy,
            "costs": job.costs,
            "account": job.account,
            "key": key,
            "keep_log": job.keep_log,
            "ticket": ticket,
            "start": (LaneParameter(np.zeros(())) if job.start is None else job.start) if for_metrics else None,
        },
    )
    leaves, structure = jax.tree.flatten(inputs, is_leaf=is_parameter)
    of_each_lane = {id(key): (keys, (True, is_grouped)), id(ticket): (tickets, (True, is_grouped))}
    arrays_and_axes = [
        of_each_lane[id(x)] if id(x) in of_each_lane else resolve(x).of(groups, members, is_grouped) for x in leaves
    ]
    arrays = [fit(array) if by_combination else array for array, (by_combination, _) in arrays_and_axes]

    def axis(name: str, size: int, number: int) -> LaneAxis:
        return LaneAxis(name, size, tuple(0 if has[number] else None for _, has in arrays_and_axes), structure)

    axes = (axis("combination", width, 0),) if has_combinations else ()
    axes += (axis("group", len(groups), 1),) if is_grouped else ()
    columns = np.tile(job.layout.columns_of(groups), (combinations, 1))
    return Batch(jax.tree.unflatten(structure, arrays), axes, groups, lanes, columns, host)


def run_programs(job: Job, batch: Batch, work: Callable[[], T]) -> T:
    """The result of `work()`, which runs the compiled programs of a batch."""
    with batch.host as host:
        try:
            return interruptibly(host, work) if host.functions else work()
        except Exception as error:
            name, lane = allocator_name(batch.run.policy.allocator), job.name_lane(int(batch.lanes.flat[0]))
            first = f", the first of them: {lane}" if lane else ""
            error.add_note(f"while a policy with allocator {name} was compiled for all bars and lanes at once{first}")
            raise


def ledger_of(job: Job, batch: Batch) -> tuple[Ledger, list[Fault]]:
    """Run a batch: everything that happened in it, and what went wrong in its lanes."""
    kept = run_programs(job, batch, lambda: list(pages(batch.run, batch.axes, job.schedule, batch.lanes.size)))
    ledger = ledger_from_pages(kept, batch.lanes.ravel(), batch.columns)
    ledger = replace(ledger, opening=opening_of(job, batch.groups))
    return job.with_val_prices(ledger), batch.faults(kept[-1].lane.status)
