"""`sweep`: metrics of more lanes than paths can be kept of."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import whole_number
from jaxsim.engine.metrics.names import needs_ann_factor, read_metric_names
from jaxsim.engine.policy.destinations import AbstractDestination
from jaxsim.engine.policy.host_callback import calls_python
from jaxsim.engine.policy.policy import Policy
from jaxsim.frames.inputs.benchmark import Benchmark
from jaxsim.frames.inputs.delistings import STALE, Delistings, Stale
from jaxsim.frames.inputs.durations import Duration
from jaxsim.frames.inputs.groups import Groups
from jaxsim.frames.inputs.market import IGNORED
from jaxsim.frames.inputs.parameters import CodeParameter, LaneValue, Parameter
from jaxsim.frames.inputs.prices import Features, Table
from jaxsim.frames.inputs.random_keys import Key
from jaxsim.frames.inputs.sweep_axes import Swept
from jaxsim.frames.results.metric_names import ONE_PER_LANE
from jaxsim.frames.runs.arguments import RunArguments, read_arguments
from jaxsim.frames.runs.terms import Engine, Holding, LaneCode, Terms
from jaxsim.frames.sweeps.chunk_metrics import ChunkedSweep
from jaxsim.frames.sweeps.chunking import chunk_size
from jaxsim.frames.sweeps.columns import columns_of
from jaxsim.frames.sweeps.executor import compute_missing
from jaxsim.frames.sweeps.store import Store, as_path, parquet
from jaxsim.frames.sweeps.table import SweepTable, levels_of_text
from jaxsim.frames.system.workers import is_distributed, num_workers

#: The metrics of a sweep unless the user names others.
DEFAULT = ("total_return", "sharpe_ratio", "max_drawdown", "turnover", "num_rebalances", "total_fees")


def sweep(
    close: Table,
    policy: Policy | Callable | None = None,
    *,
    size: Parameter | None = None,
    size_type: CodeParameter | None = None,
    direction: CodeParameter | None = None,
    call_seq: LaneCode | None = None,
    cut: str | None = None,
    open: Table | None = None,
    price: Parameter | None = None,
    ffill_val_price: LaneValue = True,
    stale: Stale = STALE,
    delistings: Delistings = None,
    drift_without_price: str = IGNORED,
    trigger: Callable | None = None,
    destination: AbstractDestination | None = None,
    fees: Parameter = 0.0,
    fixed_fees: Parameter = 0.0,
    slippage: Parameter = 0.0,
    min_size: Parameter = 0.0,
    max_size: Parameter = np.inf,
    size_granularity: Parameter = np.nan,
    reject_prob: Parameter = 0.0,
    lock_cash: Parameter = False,
    allow_partial: Parameter = True,
    raise_reject: Parameter = False,
    min_value: Parameter = 0.0,
    min_fee: Parameter = 0.0,
    max_fee: Parameter = np.inf,
    fee_per_unit: Parameter = 0.0,
    update_value: LaneValue = False,
    min_history: LaneValue = 0,
    start: LaneValue | None = None,
    init_cash: LaneValue = 100.0,
    init_units: Holding | None = None,
    init_target: Holding | str | None = None,
    init_average_cost: Holding | None = None,
    groups: Groups | None = None,
    by: Hashable = None,
    features: Features = None,
    benchmark: Benchmark | None = None,
    freq: Duration | None = None,
    year_freq: Duration | None = None,
    bars_per_year: float | None = None,
    key: Key | Swept = 0,
    metrics: Sequence[str] = DEFAULT,
    max_memory: float | str | None = None,
    checkpoint: str | os.PathLike | None = None,
    out: str | os.PathLike | None = None,
    progress: bool = False,
    engine: Engine = "compiled",
    threads: int | None = None,
) -> pd.DataFrame | Path:
    """Metrics of any number of lanes, in bounded memory: a chunk of lanes at a time is simulated, and only its metrics
    are kept.

    The arguments of `js.backtest`, from `close` to `key`, mean what they mean there.

    metrics: names of metrics that are one number per lane. Those that need the order of all returns (value_at_risk,
        cond_value_at_risk, tail_ratio, common_sense_ratio) keep the paths of a chunk for a while, which is slower; all
        others keep no path at all.
    max_memory: memory for all chunks that are simulated at a time, in bytes or as "2GB"; default: half of the free
        memory, at most 1 GB. The table itself comes on top.
    checkpoint: a folder in which finished chunks are kept. A sweep that was interrupted or killed continues from there
        when it is called again with the same arguments.
    out: a folder, which must not exist yet, for the table as a Parquet data set, with the labels of the lanes as its
        first columns; for more lanes than a DataFrame should hold. Labels of several types, as of
        `js.grid(every=["W", 5])`, are text there, and a warning says so.
    progress: whether to print the size of the sweep and about how long it takes, and to show a progress bar.
    engine: "compiled"; "reference", plain NumPy, one lane after the other; "processes": chunks on all cores of this
        machine; "dask" or a `dask.distributed.Client`: chunks on a cluster. A worker that dies is replaced.
    threads: number of chunks that the compiled engine simulates at a time; default: the number of CPUs, or on
        accelerators one for each.

    Returns a DataFrame: index, the lanes as in `backtest` (RangeIndex for one unlabelled lane); columns, the metrics in
    the order of `metrics`, float64; `status`: empty, or the reason why the lane failed; and `incidents`: what befell
    its account, as "ruined, delisted" (in files int32, a set of `js.enums.Incident`). A lane that fails has NaN
    metrics, and the sweep continues. With `out`, its path is returned.

    Raises ValueError or TypeError naming the argument before anything is compiled, also for a checkpoint of another
    run; ImportError naming the pip command without pyarrow or tqdm where they are needed.
    """
    terms = Terms(
        size=size, size_type=size_type, direction=direction, call_seq=call_seq, cut=cut, open=open, price=price,
        ffill_val_price=ffill_val_price, stale=stale, delistings=delistings,
        drift_without_price=drift_without_price, trigger=trigger, destination=destination, fees=fees,
        fixed_fees=fixed_fees, slippage=slippage, min_size=min_size, max_size=max_size,
        size_granularity=size_granularity, reject_prob=reject_prob, lock_cash=lock_cash, allow_partial=allow_partial,
        raise_reject=raise_reject,
        min_value=min_value, min_fee=min_fee, max_fee=max_fee, fee_per_unit=fee_per_unit,
        update_value=update_value, min_history=min_history, start=start, init_cash=init_cash, init_units=init_units,
        init_target=init_target, init_average_cost=init_average_cost, groups=groups,
        by=by, features=features, benchmark=benchmark, freq=freq, year_freq=year_freq, bars_per_year=bars_per_year,
        key=key, engine=engine,
        progress=progress,
    )  # fmt: skip
    names = read_metric_names(metrics, ONE_PER_LANE, "is none that is one number per lane")
    arguments = _without_lane_names(read_arguments(close, policy, terms))
    ann_factor = _ann_factor(arguments, names)
    workers = _num_workers(arguments, threads)
    starts = arguments.job.starts()
    columns = columns_of(names, bool((starts == starts[0]).all()))
    chunked = ChunkedSweep(arguments, columns, ann_factor, chunk_size(arguments, columns, max_memory, workers))
    folder = None if out is None else _new_folder(out)
    texts = frozenset() if folder is None else levels_of_text(arguments.job.lanes)
    with Store(chunked, names, checkpoint, folder) as store:
        compute_missing(store.sweep, store.parts, workers, progress)
        table = SweepTable(store.sweep, names, store.parts, texts)
        return table.frame() if folder is None else table.write(folder)


def _without_lane_names(arguments: RunArguments) -> RunArguments:
    """Messages do not say the labels of a lane, as it stands beside its status."""
    return replace(arguments, job=replace(arguments.job, names_lanes=False))


def _ann_factor(arguments: RunArguments, names: Sequence[str]) -> float | None:
    """Bars per year; None if no metric needs it and it is unknown. Raises ValueError that says what to pass."""
    needed_by = next((name for name in names if needs_ann_factor(name)), None)
    return arguments.annual.known if needed_by is None else arguments.annual.needed(needed_by)


def _num_workers(arguments: RunArguments, threads: int | None) -> int:
    """How many chunks are simulated at a time."""
    if threads is not None:
        threads = whole_number(threads, "threads")
        if arguments.engine != "compiled":
            raise ValueError('threads: they are those of engine="compiled"')
        return threads
    if arguments.engine != "compiled":
        return num_workers(arguments.engine) if is_distributed(arguments.engine) else 1
    if calls_python(arguments.job.policy):
        return 1  # Python functions run one at a time anyway
    if jax.default_backend() != "cpu":
        return jax.local_device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _new_folder(out: str | os.PathLike) -> Path:
    parquet("out")
    folder = as_path(out, "out")
    if folder.exists():
        raise ValueError(f"out: {str(folder)!r} exists already; name another folder, or remove this one")
    return folder
