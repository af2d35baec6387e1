"""The metrics of a sweep, a chunk of lanes at a time: each chunk is simulated, its metrics are computed, and its paths
are forgotten."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pandas as pd

from jaxsim import metrics
from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs, on_device, own_and_common
from jaxsim.engine.metrics import nan_statistics
from jaxsim.engine.metrics.names import needs_ann_factor
from jaxsim.engine.metrics.online import needs_benchmark
from jaxsim.engine.schedules.programs import compiled_once, lane_metrics
from jaxsim.errors import AllocationError, AllocatorError, OrderError
from jaxsim.frames.inputs.benchmark import BenchmarkGrowth
from jaxsim.frames.inputs.delistings import closes_of_holder
from jaxsim.frames.results.backtest import Backtest
from jaxsim.frames.results.metric_names import ONE_PER_LANE
from jaxsim.frames.results.paths import Paths, RunContext
from jaxsim.frames.results.records.incidents import incident_bits
from jaxsim.frames.results.scoring import score_from_start
from jaxsim.frames.runs.arguments import RunArguments
from jaxsim.frames.runs.compiled import Batch, batch_of, ledger_of, run_programs
from jaxsim.frames.runs.faults import Fault, failure_message, fault_message
from jaxsim.frames.runs.job import Job
from jaxsim.frames.runs.reference import run_reference
from jaxsim.frames.sweeps.chunking import with_room
from jaxsim.frames.sweeps.columns import are_online, counts_from_latest, number_of


@dataclass(frozen=True, eq=False)
class ChunkMetrics:
    """The columns of a chunk.

    values: [lane, column], NaN where a lane failed.     failures: why, by place of the lane in the chunk.
    incidents: the set of `js.enums.Incident` that befell each lane, int32 [lane].
    """

    values: np.ndarray
    failures: dict[int, str]
    incidents: np.ndarray


@dataclass(frozen=True, eq=False)
class BatchInputs:
    """A batch of groups that is ready to be simulated.

    run: the inputs of its program, with room for more bars.
    benchmark: returns of each lane's benchmark, [time], [group, time] or [combination, ..., time], with axes only where
        they differ; None if no column needs it.
    """

    batch: Batch
    run: LaneInputs
    benchmark: np.ndarray | None


@dataclass(frozen=True, eq=False)
class SweepChunk:
    """A chunk that is ready to be simulated.

    number: of the chunk.     arguments: of its combinations, filled up with the last one.
    batches: its groups, by size; empty where paths are kept.
    """

    number: int
    arguments: RunArguments
    batches: list[BatchInputs]


@dataclass(frozen=True, eq=False)
class ChunkedSweep:
    """A sweep, and the chunks that it is cut into.

    arguments: of all lanes.     columns: what is computed of each lane; see `columns_of`.
    ann_factor: bars per year, where a column needs it.
    size: combinations in a chunk. The last chunk is filled up to it, so that all chunks share one program.
    """

    arguments: RunArguments
    columns: tuple[str, ...]
    ann_factor: float | None
    size: int

    @property
    def num_chunks(self) -> int:
        return -(-self.arguments.job.num_combinations // self.size)

    def combinations(self, number: int) -> np.ndarray:
        """The numbers of the combinations in a chunk."""
        return np.arange(number * self.size, min((number + 1) * self.size, self.arguments.job.num_combinations))

    def num_lanes(self, number: int) -> int:
        """The number of lanes in a chunk."""
        return len(self.combinations(number)) * self.arguments.job.layout.num_groups

    def compute(self, number: int, num_bars: int | None = None) -> ChunkMetrics:
        """Simulate a chunk and compute its columns.

        num_bars: stop after this many bars, to see how long they take.
        """
        if self.arguments.engine == "reference":
            return self._one_by_one(self.combinations(number))
        return self.compute_chunk(self.chunk(number), num_bars)

    def chunk(self, number: int) -> SweepChunk:
        """A chunk made ready. This is the part of the work in Python, at which threads would only take turns."""
        combinations = self.combinations(number)
        missing = self.size - len(combinations)
        is_whole = len(combinations) == self.arguments.job.num_combinations
        filled_up = np.concatenate([combinations, np.full(max(missing, 0), combinations[-1])])
        arguments = self.arguments.take(None if is_whole else filled_up)
        with jax.enable_x64(True):
            batches = arguments.job.layout.batches() if are_online(self.columns) else []
            return SweepChunk(number, arguments, [self._inputs(arguments.job, groups) for groups in batches])

    def compute_chunk(self, chunk: SweepChunk, num_bars: int | None = None) -> ChunkMetrics:
        """Simulate a chunk that is ready; see `compute`."""
        with jax.enable_x64(True):
            if are_online(self.columns):
                values, failures, incidents = self._online(chunk, num_bars)
            else:
                values, failures, incidents = self._from_paths(chunk.arguments)
        count = self.num_lanes(chunk.number)
        failures = {lane: why for lane, why in failures.items() if lane < count}
        values[list(failures)] = np.nan
        return ChunkMetrics(values[:count], failures, incidents[:count])

    def _inputs(self, job: Job, groups: np.ndarray) -> BatchInputs:
        batch = batch_of(job, groups, goes_on=True, for_metrics=True)
        run = self._with_room(batch)
        benchmark = (
            self._benchmark(job, groups, run, batch.axes) if needs_benchmark(map(number_of, self.columns)) else None
        )
        return BatchInputs(batch, run, benchmark)

    def _online(self, chunk: SweepChunk, num_bars: int | None) -> tuple[np.ndarray, dict[int, str], np.ndarray]:
        """Columns from running sums, without paths."""
        job, bars = chunk.arguments.job, self.arguments.num_bars
        bars = bars if num_bars is None else min(num_bars, bars)
        values, failures = np.empty((len(job.lanes), len(self.columns))), {}
        incidents = np.zeros(len(job.lanes), np.int32)
        for inputs in chunk.batches:
            batch = inputs.batch
            numbers, status, befell = run_programs(job, batch, self._program(inputs, bars))
            of_latest = {}
            if any(map(counts_from_latest, self.columns)):
                latest = replace(inputs.run, start=np.full_like(inputs.run.start, self._latest_start))
                of_latest, _, _ = run_programs(job, batch, self._program(replace(inputs, run=latest), bars))
            numbers, of_latest = batch.by_lane(numbers), batch.by_lane(of_latest)
            columns = [(of_latest if counts_from_latest(name) else numbers)[number_of(name)] for name in self.columns]
            values[batch.lanes.ravel()] = np.stack(columns, axis=1)
            incidents[batch.lanes.ravel()] = batch.by_lane(befell)
            failures |= _failures(job, batch, batch.faults(status))
        return values, failures, incidents

    def _program(self, inputs: BatchInputs, bars: int) -> Callable[[], Any]:
        """The function that runs the program of a batch. Chunks on other threads wait until one has compiled it."""

        def work() -> Any:
            names = map(number_of, self.columns)
            result = lane_metrics(inputs.run, inputs.batch.axes, names, self.ann_factor, inputs.benchmark, bars)
            return jax.block_until_ready(result)

        return (lambda: compiled_once(inputs.run, work)) if self.num_chunks > 1 else work

    def _with_room(self, batch: Batch) -> LaneInputs:
        """The inputs of a batch with room for more bars. Arrays that all chunks share, prices above all, are made and
        sent to the device once."""
        num_bars = self.arguments.num_bars
        outermost = batch.axes[0]
        if self.num_chunks == 1 or outermost.name != "combination":
            return with_room(batch.run, batch.axes, num_bars)
        place = (*batch.groups.tolist(), str(jax.config.jax_default_device))  # pyright: ignore[reportAttributeAccessIssue]
        own, common = own_and_common(batch.run, outermost)
        if place not in self._common:
            self._common[place] = on_device(with_room(common, batch.axes, num_bars))
        return eqx.combine(with_room(own, batch.axes, num_bars), self._common[place])

    @cached_property
    def _common(self) -> dict[tuple, LaneInputs]:
        """The inputs that chunks share, by the groups of their batch and the device."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Without `_common`: other processes have devices of their own."""
        return {name: value for name, value in vars(self).items() if name != "_common"}

    def _benchmark(self, job: Job, groups: np.ndarray, run: LaneInputs, axes: tuple[LaneAxis, ...]) -> np.ndarray:
        """Returns of each lane's benchmark; see `BatchInputs`."""
        given = self.arguments.benchmark
        growth = BenchmarkGrowth(closes_of_holder(self.arguments.prices) if given is None else given.prices)
        bought = job.layout.members if given is None else given.series_of[:, None]
        starts = job.starts().reshape(job.num_combinations, -1)[:, groups]
        starts = starts[:1] if (starts == starts[:1]).all() else starts
        value = np.stack([growth.of(bought[g], int(s)) for row in starts for g, s in zip(groups, row, strict=True)])
        returns = metrics.returns_from_value(value.T, 1.0).T
        returns = np.pad(returns, ((0, 0), (0, run.market.close.shape[-2] - returns.shape[1])))
        returns = returns.reshape(*starts.shape, -1)
        returns = returns if len(groups) > 1 else returns[:, 0]
        width = axes[0].size
        return returns[0] if len(starts) == 1 else returns[np.minimum(np.arange(width), len(starts) - 1)]

    def _from_paths(self, arguments: RunArguments) -> tuple[np.ndarray, dict[int, str], np.ndarray]:
        """Columns from the paths of all lanes of a chunk."""
        job, ledgers, failures = arguments.job, [], {}
        for groups in job.layout.batches():
            batch = batch_of(job, groups, goes_on=True)
            ledger, faults = ledger_of(job, batch)
            ledgers.append(ledger)
            failures |= _failures(job, batch, faults)
        paths = Paths(arguments.context(), ledgers)
        return self._columns(paths), failures, incident_bits(paths)

    def _columns(self, paths: Paths) -> np.ndarray:
        bt = Backtest(paths, pd.RangeIndex(paths.num_lanes, name="lane"))
        late = Backtest(replace(paths, context=self._from_latest(paths.context)), bt.lanes)
        by_column = [(late if counts_from_latest(name) else bt, number_of(name)) for name in self.columns]
        return np.stack([_column(which, name, self.ann_factor) for which, name in by_column], axis=1)

    def _from_latest(self, context: RunContext) -> RunContext:
        return replace(context, start=np.full_like(context.start, self._latest_start))

    @cached_property
    def _latest_start(self) -> int:
        """The latest first bar that metrics of any lane count."""
        return int(self.arguments.job.starts().max())

    def _one_by_one(self, combinations: np.ndarray) -> ChunkMetrics:
        """Columns by the reference engine, which raises at the first thing that goes wrong."""
        rows, failures, incidents = [], {}, []
        for combination in combinations:
            for group in range(self.arguments.job.layout.num_groups):
                lane = self.arguments.take(np.array([combination]), np.array([group]))
                try:
                    ledgers = run_reference(lane.job, lambda count: None)
                    paths = Paths(lane.context(), ledgers)
                    rows.append(self._columns(paths)[0])
                    incidents.append(incident_bits(paths)[0])
                except (AllocationError, AllocatorError, OrderError, TypeError, ValueError) as error:
                    failures[len(rows)] = str(error)
                    rows.append(np.full(len(self.columns), np.nan))
                    incidents.append(0)
        return ChunkMetrics(np.array(rows), failures, np.array(incidents, np.int32))


def _column(bt: Backtest, name: str, ann_factor: float | None) -> np.ndarray:
    if name in ONE_PER_LANE:
        options = {"ann_factor": ann_factor} if needs_ann_factor(name) else {}
        return np.asarray(getattr(bt, name)(**options), np.float64)
    return score_from_start(_PIECES[name], bt._paths.returns, bt._paths.context.start, {})


def _num_returns(returns: np.ndarray) -> np.ndarray:
    return (~np.isnan(returns)).sum(axis=0).astype(np.float64)


def _skew_biased(returns: np.ndarray) -> np.ndarray:
    return nan_statistics.standardized_moment(returns, ~np.isnan(returns), 3)


def _kurtosis_biased(returns: np.ndarray) -> np.ndarray:
    return nan_statistics.standardized_moment(returns, ~np.isnan(returns), 4)


_PIECES = {"num_returns": _num_returns, "skew_biased": _skew_biased, "kurtosis_biased": _kurtosis_biased}


def _failures(job: Job, batch: Batch, faults: list[Fault]) -> dict[int, str]:
    """Why lanes of a batch failed, by lane. Raises errors of Python functions that are no Exception."""
    why = {fault.lane: fault_message(job, fault) for fault in faults}
    for failure in batch.host.failures.values():
        if not isinstance(failure.error, Exception):
            raise failure.error
        lane = int(batch.lanes.ravel()[failure.lane])
        why[lane] = failure_message(job, lane, failure.bar, failure.error)
    return why
