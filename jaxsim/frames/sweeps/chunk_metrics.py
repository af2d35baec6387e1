"""The lanes of a sweep, a chunk at a time: each chunk is simulated, scored and forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pandas as pd

from jaxsim import metrics
from jaxsim.engine.bar.lanes import LaneInputs, on_device, own_and_common
from jaxsim.engine.metrics import nan_statistics as nanstats
from jaxsim.engine.metrics.online import ONLINE_METRICS, PIECES, needs_ann_factor, needs_benchmark
from jaxsim.engine.metrics.returns import deflated
from jaxsim.engine.schedules.programs import compiled_once, lane_metrics
from jaxsim.errors import AllocationError, AllocatorError, OrderError
from jaxsim.frames.inputs.parameters import LaneParameter
from jaxsim.frames.results.backtest import Backtest
from jaxsim.frames.results.metric_names import ONE_PER_LANE
from jaxsim.frames.results.paths import Paths, benchmark_growth
from jaxsim.frames.runs.arguments import Reading
from jaxsim.frames.runs.execute import (
    Batch,
    Fault,
    Job,
    batch_of,
    failure_message,
    fault_message,
    faults_of,
    ledger_of,
    run_programs,
    run_reference,
)
from jaxsim.frames.sweeps.buckets import with_room

DEFLATED = "deflated_sharpe_ratio"


@dataclass(frozen=True, eq=False)
class ChunkMetrics:
    """The scores of a chunk.

    scores: [lane, column], NaN where a lane failed.     failures: why, by place of the lane in the chunk.
    """

    scores: np.ndarray
    failures: dict[int, str]


@dataclass(frozen=True, eq=False)
class SweepChunk:
    """A chunk that is ready to be simulated.

    number: of the chunk.     combinations: those in it, filled up with the last one.     job: their simulation.
    inputs: of each batch of groups what its program takes, and the returns of its benchmark; empty with paths.
    """

    number: int
    combinations: np.ndarray
    job: Job
    inputs: list[tuple[Batch, LaneInputs, Any]]


@dataclass(frozen=True, eq=False)
class Scoring:
    """What is to be scored, and in which chunks.

    reading: all lanes.     columns: what is worked out of each, see `columns_of`.
    ann_factor: bars per year, where a column needs it.
    size: combinations in a chunk. The last chunk is filled up to it, so that all are one shape and one program.
    """

    reading: Reading
    columns: tuple[str, ...]
    ann_factor: float | None
    size: int

    @property
    def num_chunks(self) -> int:
        return -(-len(self.reading.sweep) // self.size)

    def combinations(self, number: int) -> np.ndarray:
        """Those of a chunk."""
        return np.arange(number * self.size, min((number + 1) * self.size, len(self.reading.sweep)))

    def num_lanes(self, number: int) -> int:
        """Those of a chunk."""
        return len(self.combinations(number)) * self.reading.layout.num_groups

    def part(self, number: int, num_bars: int | None = None) -> ChunkMetrics:
        """Simulate and score a chunk; only its first `num_bars`, to see how long that takes."""
        if self.reading.engine == "reference":
            return self._one_by_one(self.combinations(number))
        return self.scored(self.chunk(number), num_bars)

    def chunk(self, number: int) -> SweepChunk:
        """A chunk made ready. That is Python's part of the work, which threads would only take turns at."""
        wanted = self.combinations(number)
        is_whole = len(wanted) == len(self.reading.sweep)
        padded = wanted if is_whole else np.concatenate([wanted, np.full(self.size - len(wanted), wanted[-1])])
        job = replace(self.reading.job(None if is_whole else padded), name_lane=_nameless)
        with jax.enable_x64(True):
            groups = job.layout.batches() if are_streamed(self.columns) else []
            return SweepChunk(number, padded, job, [self._inputs(job, some) for some in groups])

    def scored(self, chunk: SweepChunk, num_bars: int | None = None) -> ChunkMetrics:
        """A chunk simulated and scored; see `part`."""
        with jax.enable_x64(True):
            if are_streamed(self.columns):
                scores, failures = self._streamed(chunk, num_bars)
            else:
                scores, failures = self._from_paths(chunk.job, chunk.combinations)
        count = self.num_lanes(chunk.number)
        failures = {lane: why for lane, why in failures.items() if lane < count}
        scores[list(failures)] = np.nan
        return ChunkMetrics(scores[:count], failures)

    def _inputs(self, job: Job, groups: np.ndarray) -> tuple[Batch, LaneInputs, Any]:
        batch = batch_of(job, groups, goes_on=True)
        run = self._with_room(batch)
        return batch, run, self._benchmark(job, groups, run) if needs_benchmark(self.columns) else None

    def _streamed(self, chunk: SweepChunk, num_bars: int | None) -> tuple[np.ndarray, dict[int, str]]:
        job, bars = chunk.job, self.reading.num_bars
        bars = bars if num_bars is None else min(num_bars, bars)
        scores, failures = np.empty((_num_lanes(job), len(self.columns))), {}
        for batch, run, beside in chunk.inputs:

            def work(batch=batch, run=run, beside=beside) -> Any:
                done = lane_metrics(run, batch.axes, self.columns, self.ann_factor, beside, bars)
                return jax.block_until_ready(done)

            is_one_of_many = self.num_chunks > 1
            by_turns = (lambda run=run, work=work: compiled_once(run, work)) if is_one_of_many else work
            told, status = run_programs(job, batch, by_turns)
            told = batch.by_lane(told)
            scores[batch.lanes.ravel()] = np.stack([told[name] for name in self.columns], axis=1)
            failures |= _why(job, batch, faults_of(batch, status))
        return scores, failures

    def _with_room(self, batch: Batch) -> LaneInputs:
        """The run of a batch with room for a longer history. What all chunks have in common, prices above all, is made
        and handed to the device once."""
        num_bars = self.reading.num_bars
        outermost = batch.axes[0]
        if self.num_chunks == 1 or outermost.name != "combination":
            return with_room(batch.run, batch.axes, num_bars)
        place = (*batch.groups.tolist(), str(jax.config.jax_default_device))  # pyright: ignore[reportAttributeAccessIssue]
        own, common = own_and_common(batch.run, outermost)
        if place not in self._common:
            self._common[place] = on_device(with_room(common, batch.axes, num_bars))
        return eqx.combine(with_room(own, batch.axes, num_bars), self._common[place])

    @cached_property
    def _common(self) -> dict:
        """What chunks have in common, by the groups of their batch and the device."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """To be sent to other processes, which have devices of their own."""
        return {name: value for name, value in vars(self).items() if name != "_common"}

    def _benchmark(self, job: Job, groups: np.ndarray, run: Any) -> np.ndarray:
        """Returns of each group's benchmark, [time], or [group, time] for several."""
        growth = benchmark_growth(self.reading.prices.close)
        value = np.stack([growth[:, job.layout.members[g]].mean(axis=1) for g in groups], axis=1)
        returns = metrics.returns_from_value(value, 1.0).T
        returns = np.pad(returns, ((0, 0), (0, run.market.close.shape[-2] - returns.shape[1])))
        return returns if len(groups) > 1 else returns[0]

    def _from_paths(self, job: Job, combinations: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        ledgers, failures = [], {}
        for groups in job.layout.batches():
            batch = batch_of(job, groups, goes_on=True)
            ledger, faults = ledger_of(job, batch)
            ledgers.append(ledger)
            failures |= _why(job, batch, faults)
        return self._scores(Paths(self.reading.context(combinations), ledgers)), failures

    def _scores(self, paths: Paths) -> np.ndarray:
        bt = Backtest(paths, pd.RangeIndex(paths.num_lanes, name="lane"))
        return np.stack([_score(bt, name, self.ann_factor) for name in self.columns], axis=1)

    def _one_by_one(self, combinations: np.ndarray) -> ChunkMetrics:
        """By the reference engine, which raises at the first thing that goes wrong."""
        num_groups, rows, failures = self.reading.layout.num_groups, [], {}
        for combination in combinations:
            job = replace(self.reading.job(np.array([combination])), name_lane=_nameless)
            for group in range(num_groups):
                try:
                    here = _group_of(job, group)
                    context = replace(self.reading.context(np.array([combination])), layout=here.layout)
                    context = replace(context, init_cash=context.init_cash[:1])
                    rows.append(self._scores(Paths(context, run_reference(here)))[0])
                except (AllocationError, AllocatorError, OrderError, TypeError, ValueError) as error:
                    failures[len(rows)] = str(error)
                    rows.append(np.full(len(self.columns), np.nan))
        return ChunkMetrics(np.array(rows), failures)


def columns_of(names: Sequence[str]) -> tuple[str, ...]:
    """What has to be worked out of each lane for these metrics: themselves, and the pieces of those that compare all
    lanes."""
    pieces = PIECES if DEFLATED in names else ()
    return tuple(dict.fromkeys([*(name for name in names if name != DEFLATED), *pieces]))


def are_streamed(columns: Sequence[str]) -> bool:
    """Whether no paths are needed."""
    return all(name in ONLINE_METRICS for name in columns)


def finish(
    names: Sequence[str], columns: Sequence[str], scores: np.ndarray, trials: Any, ann_factor: Any
) -> np.ndarray:
    """The metrics [lane, metric] from the columns [lane, column] of some lanes.

    trials: all lanes that went well, for the metrics that compare them.
    """
    known = {name: scores[:, i] for i, name in enumerate(columns)}
    if DEFLATED in names:
        assert trials is not None
        with np.errstate(all="ignore"):
            pieces = (known[name] for name in PIECES)
            ratio = deflated(*pieces, ann_factor=ann_factor, var_sharpe=trials.variance, nb_trials=trials.count)
        known[DEFLATED] = ratio
    return np.stack([known[name] for name in names], axis=1)


class Trials:
    """What the lanes are as trials of one another: their number, and the variance of their Sharpe ratios, NaN where one
    of them has none."""

    def __init__(self, sharpe: np.ndarray):
        self.count = len(sharpe)
        fine = len(sharpe) > 1 and np.isfinite(sharpe).all()
        self.variance = nanstats.std(sharpe, np.isfinite(sharpe), 1) ** 2 if fine else np.nan


def _score(bt: Backtest, name: str, ann_factor: float | None) -> np.ndarray:
    if name in ONE_PER_LANE:
        options = {"ann_factor": ann_factor} if needs_ann_factor(name) else {}
        return np.asarray(getattr(bt, name)(**options), np.float64)
    returns = bt._paths.returns
    known = ~np.isnan(returns)
    if name == "num_returns":
        return known.sum(axis=0).astype(np.float64)
    return nanstats.standardized_moment(returns, known, {"skew_biased": 3, "kurtosis_biased": 4}[name])


def _num_lanes(job: Job) -> int:
    return job.num_combinations * job.layout.num_groups


def _nameless(lane: int) -> str:
    return ""  # the lane stands beside its status


def _why(job: Job, batch: Batch, faults: list[Fault]) -> dict[int, str]:
    """What went wrong in the lanes of a batch. Raises what a Python function raised that is no Exception."""
    why = {fault.lane: fault_message(job, fault) for fault in faults}
    for failure in batch.host.failures.values():
        if not isinstance(failure.error, Exception):
            raise failure.error
        lane = int(batch.lanes.ravel()[failure.lane])
        why[lane] = failure_message(job, lane, failure.bar, failure.error)
    return why


def _group_of(job: Job, group: int) -> Job:
    """One group of a job of one combination."""
    layout = job.layout
    levels = {name: labels[[group]] for name, labels in layout.levels.items()}
    parts = (job.quotes, job.policy, job.costs, job.account)

    def of_group(leaf: Any) -> Any:
        is_by_group = isinstance(leaf, LaneParameter) and leaf.by_group
        return replace(leaf, array=np.take(leaf.array, [group], int(leaf.by_combination))) if is_by_group else leaf

    quotes, policy, costs, account = jax.tree.map(of_group, parts, is_leaf=lambda x: isinstance(x, LaneParameter))
    here = replace(layout, members=[layout.members[group]], levels=levels)
    keys = job.keys.take(np.array([group]))
    return replace(job, layout=here, quotes=quotes, policy=policy, costs=costs, account=account, keys=keys)
