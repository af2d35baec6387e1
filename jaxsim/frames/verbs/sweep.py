"""The verb for more lanes than paths can be kept of: `sweep` keeps their metrics alone."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import shown
from jaxsim.engine.metrics.online import needs_ann_factor
from jaxsim.engine.policy.host_callback import calls_python
from jaxsim.frames.results.metric_names import ONE_PER_LANE
from jaxsim.frames.runs.arguments import Reading, read_backtest
from jaxsim.frames.sweeps import chunking as chunks
from jaxsim.frames.sweeps.chunk_metrics import Scoring, columns_of
from jaxsim.frames.sweeps.executor import compute
from jaxsim.frames.sweeps.store import Store, as_path
from jaxsim.frames.sweeps.store_parts import parquet
from jaxsim.frames.sweeps.table import Table
from jaxsim.frames.system.workers import is_distributed, num_workers

#: What a sweep tells when nobody says what it should.
DEFAULT = ("total_return", "sharpe_ratio", "max_drawdown", "turnover", "num_rebalances", "total_fees")


def sweep(
    close: pd.DataFrame | pd.Series,
    policy: Any = None,
    *,
    size: Any = None,
    size_type: Any = None,
    direction: Any = None,
    call_seq: Any = None,
    open: Any = None,
    price: Any = None,
    ffill_val_price: Any = True,
    trigger: Any = None,
    destination: Any = None,
    fees: Any = 0.0,
    fixed_fees: Any = 0.0,
    slippage: Any = 0.0,
    min_size: Any = 0.0,
    max_size: Any = np.inf,
    size_granularity: Any = np.nan,
    reject_prob: Any = 0.0,
    lock_cash: Any = False,
    allow_partial: Any = True,
    raise_reject: Any = False,
    update_value: Any = False,
    min_history: Any = 0,
    init_cash: Any = 100.0,
    groups: Any = None,
    by: Any = None,
    features: Any = None,
    freq: Any = None,
    year_freq: Any = "365D",
    key: Any = 0,
    metrics: Sequence[str] = DEFAULT,
    max_memory: Any = None,
    checkpoint: Any = None,
    out: Any = None,
    progress: bool = False,
    engine: Any = "compiled",
    threads: int | None = None,
) -> pd.DataFrame | Path:
    """Metrics of any number of lanes, in bounded memory: chunks of lanes are simulated, scored and forgotten.

    The arguments of `js.backtest`, from `close` to `key`, mean what they mean there.

    metrics: names of metrics that are one number per lane. Those that need the order of all returns (value_at_risk,
        cond_value_at_risk, tail_ratio, common_sense_ratio) keep the paths of a chunk while it is scored, which is
        slower; all others keep no path at all.
    max_memory: what the chunks that are worked on may take together, in bytes or as "2GB"; default: half of what is
        free, at most 1 GB. The table itself comes on top.
    checkpoint: a folder in which finished chunks are kept. Called again with the same arguments, a sweep that was
        interrupted or killed goes on from there.
    out: a folder, which must not exist yet, for the table as a Parquet data set, with the labels of the lanes as its
        first columns; for more lanes than a DataFrame should hold.
    progress: whether to say what is to be done and about how long it takes, and to show a progress bar.
    engine: "compiled"; "reference", plain NumPy, one lane after the other; "processes": chunks on all cores of this
        machine; "dask" or a `dask.distributed.Client`: chunks on a cluster. A worker that dies is replaced.
    threads: how many chunks are worked on at a time by the compiled engine; default: the number of CPUs, or on
        accelerators one for each.

    Returns a DataFrame: index, the lanes as in `backtest` (RangeIndex for one unlabelled lane); columns, the metrics as
    asked for, float64, and `status`. That is empty where all went well, else the reason why the lane has none: a lane
    that fails ends no sweep. With `out`, its path.

    Raises ValueError or TypeError naming the argument for what cannot be simulated, before anything is compiled, and
    for a checkpoint of another run; ImportError naming the pip command without pyarrow or tqdm where they are needed.
    """
    arguments = dict(locals())
    names = _read_names(metrics)
    reading = read_backtest(arguments)
    ann_factor = _ann_factor(reading, names)
    workers = _num_workers(reading, threads)
    columns = columns_of(names)
    size = chunks.chunk_size(reading, columns, max_memory, workers)
    scoring = Scoring(reading, columns, ann_factor, size)
    folder = None if out is None else _read_out(out)
    with Store(scoring, names, checkpoint, folder) as store:
        compute(store.scoring, store.parts, workers, progress)
        table = Table(store.scoring, names, store.parts)
        return table.frame() if folder is None else table.write(folder)


def _read_names(metrics: Any) -> tuple[str, ...]:
    if isinstance(metrics, str) or not isinstance(metrics, Sequence) or not all(isinstance(x, str) for x in metrics):
        raise TypeError(f"metrics: expected a list of names, as ['sharpe_ratio'], got {shown(metrics)}"[:200])
    if not metrics:
        raise ValueError("metrics: there is none")
    for name in metrics:
        if name not in ONE_PER_LANE:
            raise ValueError(f"metrics: {name!r} is none that is one number per lane; there are {sorted(ONE_PER_LANE)}")
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"metrics: one of them is named twice, {list(metrics)}")
    return tuple(str(name) for name in metrics)  # of NumPy's strings, too


def _ann_factor(reading: Reading, names: Sequence[str]) -> float | None:
    """Bars per year, as `Backtest.ann_factor`."""
    if reading.bar is not None:
        return reading.year / reading.bar
    needing = [name for name in names if needs_ann_factor(name)]
    if needing:
        raise ValueError(
            f"freq: the index does not tell how long a bar is, which {needing[0]} needs; pass freq=, as in freq='1h'"
        )
    return None


def _num_workers(reading: Reading, threads: Any) -> int:
    """How many chunks are worked on at a time."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int | np.integer)):
        raise TypeError(f"threads: expected a whole number, got {shown(threads)}"[:200])
    if threads is not None and threads < 1:
        raise ValueError(f"threads: expected at least one, got {threads}")
    if reading.engine != "compiled":
        if threads is not None:
            raise ValueError('threads: they are those of engine="compiled"')
        return num_workers(reading.engine) if is_distributed(reading.engine) else 1
    if threads is not None:
        return int(threads)
    if calls_python(reading.policy):
        return 1  # Python functions run one at a time anyway
    if jax.default_backend() != "cpu":
        return jax.local_device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_out(out: Any) -> Path:
    parquet("out")
    folder = as_path(out, "out")
    if folder.exists():
        raise ValueError(f"out: {str(folder)!r} exists already; name another folder, or remove this one")
    return folder
