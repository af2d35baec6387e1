"""The verb for more lanes than paths can be kept of: `sweep` keeps their metrics alone."""

import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.bounds import shown
from jaxsim.engine.host import take_out
from jaxsim.frames import chunks
from jaxsim.frames.digest import digest
from jaxsim.frames.memory import show_size
from jaxsim.frames.parts import InFolder, InMemory, Parts, parquet, resumed, statuses, write_table
from jaxsim.frames.progress import progress_bar
from jaxsim.frames.reading import Reading, read_backtest
from jaxsim.frames.scores import ONE_PER_LANE
from jaxsim.frames.scoring import DEFLATED, Part, Scoring, Trials, columns_of, finish, needs_ann_factor
from jaxsim.frames.workers import is_distributed, num_workers, run_everywhere

_log = logging.getLogger("jaxsim")

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
    with _Store(scoring, names, checkpoint, folder) as store:
        _compute(store.scoring, store.parts, workers, progress)
        table = _Table(store.scoring, names, store.parts)
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
    return tuple(metrics)


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
    if take_out(reading.policy)[1]:
        return 1  # Python functions run one at a time anyway
    if jax.default_backend() != "cpu":
        return jax.local_device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_out(out: Any) -> Path:
    parquet("out")
    folder = _as_path(out, "out")
    if folder.exists():
        raise ValueError(f"out: {str(folder)!r} exists already; name another folder, or remove this one")
    return folder


def _as_path(value: Any, argument: str) -> Path:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{argument}: expected the path of a folder, got {shown(value)}"[:200])
    path = Path(value)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{argument}: {str(path)!r} is no folder")
    return path


class _Store:
    """Where the parts of a sweep are kept while it runs: in the checkpoint; else in memory, or, where there may be more
    of them than memory should hold, in a folder of its own that is removed in the end."""

    def __init__(self, scoring: Scoring, names: Sequence[str], checkpoint: Any, out: Path | None):
        self.scoring, self._own = scoring, None
        self.parts: Any = InMemory()
        if checkpoint is not None:
            parquet()
            folder = _as_path(checkpoint, "checkpoint")
            found = resumed(folder, {"run": _identity(scoring, names), "combinations_per_part": scoring.size})
            # Parts that are there already have been cut to this size.
            self.scoring = replace(scoring, size=found["combinations_per_part"])
            self.parts = InFolder(folder, scoring.columns)
        elif out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._own = tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent)
            self.parts = InFolder(Path(self._own), scoring.columns)

    def __enter__(self) -> "_Store":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)


def _identity(scoring: Scoring, names: Sequence[str]) -> dict[str, Any]:
    """What makes two sweeps the same, in pieces that can be named where they differ."""
    import jaxsim

    reading, prices = scoring.reading, scoring.reading.prices
    return {
        "jaxsim": jaxsim.__version__,
        "lanes": reading.num_lanes,
        "metrics": list(names),
        "prices": digest(prices),
        "groups": digest(reading.layout),
        "labels": digest([axis.levels for axis in reading.sweep.axes]),
        "policy": digest(reading.policy),
        "costs": digest((reading.quotes, reading.costs, reading.cash)),
        "key": digest((reading.key, reading.seeds)),
        "bars per year": scoring.ann_factor,
        "engine": "reference" if reading.engine == "reference" else "compiled",
    }


def _compute(scoring: Scoring, parts: Parts, workers: int, progress: bool) -> None:
    """Score the chunks that are not there yet."""
    pending = [number for number in range(scoring.num_chunks) if number not in parts]
    done = scoring.reading.num_lanes - sum(map(scoring.num_lanes, pending))
    with progress_bar(scoring.reading.num_lanes, "lane", progress, done) as advance:
        if progress:
            _announce(scoring, pending, workers)
        for number, part in _parts(scoring, pending, workers):
            if number not in parts:
                parts.put(number, part)
                _log.info("chunk %d of %d is done", number, scoring.num_chunks)
                advance(scoring.num_lanes(number))


def _parts(scoring: Scoring, pending: Sequence[int], workers: int) -> Iterator[tuple[int, Part]]:
    engine = scoring.reading.engine
    if is_distributed(engine):
        here = replace(scoring, reading=replace(scoring.reading, engine="compiled"))
        for at, part in run_everywhere(Scoring.part, here, pending, engine):
            yield pending[at], part
        return
    if workers == 1 or len(pending) < 2:
        for number in pending:
            yield number, scoring.part(number)
        return
    yield from _on_threads(scoring, pending, workers)


def _on_threads(scoring: Scoring, pending: Sequence[int], workers: int) -> Iterator[tuple[int, Part]]:
    """Chunks side by side; a program leaves Python to the others while it runs. Devices take turns."""
    devices, left = jax.local_devices(), list(reversed(pending))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="jaxsim-sweep")

    def work(number: int) -> Part:
        if len(devices) == 1:
            return scoring.part(number)
        with jax.default_device(devices[number % len(devices)]):
            return scoring.part(number)

    running = {}
    try:
        while left or running:
            while left and len(running) < 2 * workers:
                number = left.pop()
                running[pool.submit(work, number)] = number
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _announce(scoring: Scoring, pending: Sequence[int], workers: int) -> None:
    """Say what is to be done, before it is."""
    reading = scoring.reading
    memory = chunks.bytes_in_all(reading, scoring.columns, scoring.size, workers)
    text = (
        f"{reading.num_lanes:,} lanes x {reading.num_bars:,} bars x {len(reading.layout.columns)} columns, in "
        f"{scoring.num_chunks:,} chunks of {scoring.size * reading.layout.num_groups:,} lanes"
    )
    text += f", {scoring.num_chunks - len(pending):,} of them done before" if len(pending) < scoring.num_chunks else ""
    text += f"; about {show_size(memory)} of memory"
    if pending and reading.engine == "compiled" and chunks.are_streamed(scoring.columns):
        text += f", about {_show_time(_seconds(scoring, pending, workers))}"
    print(text, file=sys.stderr, flush=True)


def _seconds(scoring: Scoring, pending: Sequence[int], workers: int) -> float:
    """How long the pending chunks will take, from a few bars of the first one."""
    num_bars = scoring.reading.num_bars
    trial = min(num_bars, max(64, num_bars // 32))
    scoring.part(pending[0], trial)  # compiles
    begun = time.perf_counter()
    scoring.part(pending[0], trial)
    return (time.perf_counter() - begun) * num_bars / trial * -(-len(pending) // workers)


def _show_time(seconds: float) -> str:
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True, eq=False)
class _Table:
    """What comes out: the finished parts, with labels."""

    scoring: Scoring
    names: tuple[str, ...]
    parts: Parts

    def frame(self) -> pd.DataFrame:
        """In memory."""
        scoring = self.scoring
        parts = [self.parts.get(number) for number in range(scoring.num_chunks)]
        columns = np.concatenate([part.scores for part in parts])
        status = np.concatenate([statuses(part) for part in parts])
        scores = finish(self.names, scoring.columns, columns, self._trials(), scoring.ann_factor)
        lanes = scoring.reading.lanes()
        lanes = pd.RangeIndex(1) if lanes is None else lanes
        columns = dict(zip(self.names, scores.T, strict=True))
        return pd.DataFrame(columns | {"status": status}, lanes, copy=False)

    def write(self, folder: Path) -> Path:
        """As a Parquet data set, there as a whole or not at all."""
        scoring, trials = self.scoring, self._trials()
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for number in range(scoring.num_chunks):
                part = self.parts.get(number)
                scores = finish(self.names, scoring.columns, part.scores, trials, scoring.ann_factor)
                table: Mapping[str, Any] = dict(zip(self.names, scores.T, strict=True)) | {"status": statuses(part)}
                write_table(self._labels(number) | table, beside / f"part-{number:06d}.parquet")
            os.replace(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return folder

    def _labels(self, number: int) -> dict[str, Any]:
        lanes = self.scoring.reading.lanes(self.scoring.combinations(number))
        if lanes is None:
            return {}
        return {str(name): pd.array(lanes.get_level_values(i)) for i, name in enumerate(lanes.names)}

    def _trials(self) -> Trials | None:
        """Of all lanes, a part at a time; None where no metric compares them."""
        if DEFLATED not in self.names:
            return None
        at, sharpe = self.scoring.columns.index("sharpe_ratio"), []
        for number in range(self.scoring.num_chunks):
            part = self.parts.get(number)
            sharpe.append(np.delete(part.scores[:, at], list(part.failures)))
        return Trials(np.concatenate(sharpe))
