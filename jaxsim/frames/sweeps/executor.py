"""The chunks of a sweep are computed side by side, on threads or by the workers of a cluster."""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import jax

from jaxsim.frames.sweeps.chunk_metrics import ChunkedSweep, ChunkMetrics, SweepChunk
from jaxsim.frames.sweeps.chunking import bytes_of_sweep
from jaxsim.frames.sweeps.columns import are_online
from jaxsim.frames.sweeps.store import Parts
from jaxsim.frames.system.memory import show_size
from jaxsim.frames.system.progress import progress_bar
from jaxsim.frames.system.workers import is_distributed, run_everywhere

_log = logging.getLogger("jaxsim")


def compute_missing(sweep: ChunkedSweep, parts: Parts, workers: int, progress: bool) -> None:
    """Compute the chunks that `parts` does not have yet.

    workers: chunks that are worked on at a time.       progress: whether to show a progress bar.
    """
    missing = [number for number in range(sweep.num_chunks) if number not in parts]
    finished = sweep.arguments.num_lanes - sum(map(sweep.num_lanes, missing))
    with progress_bar(sweep.arguments.num_lanes, "lane", progress, finished) as advance:
        if progress:
            _announce(sweep, missing, workers)
        for number, part in _computed(sweep, missing, workers):
            if number not in parts:
                parts.put(number, part)
                _log.info("chunk %d of %d is done", number, sweep.num_chunks)
                advance(sweep.num_lanes(number))


def _computed(sweep: ChunkedSweep, missing: Sequence[int], workers: int) -> Iterator[tuple[int, ChunkMetrics]]:
    """Chunks with their numbers, as they are finished."""
    engine = sweep.arguments.engine
    if is_distributed(engine):
        of_worker = replace(sweep, arguments=replace(sweep.arguments, engine="compiled"))
        for place, part in run_everywhere(ChunkedSweep.compute, of_worker, missing, engine):
            yield missing[place], part
        return
    if workers == 1 or len(missing) < 2:
        for number in missing:
            yield number, sweep.compute(number)
        return
    yield from _on_threads(sweep, missing, workers)


def _on_threads(sweep: ChunkedSweep, missing: Sequence[int], workers: int) -> Iterator[tuple[int, ChunkMetrics]]:
    """Chunks side by side: this thread makes them ready, others wait for their programs. Devices take turns."""
    devices, left = jax.local_devices(), list(reversed(missing))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="jaxsim-sweep")

    def on_device(number: int) -> AbstractContextManager:
        return jax.default_device(devices[number % len(devices)]) if len(devices) > 1 else nullcontext()

    def work(chunk: SweepChunk) -> ChunkMetrics:
        with on_device(chunk.number):
            return sweep.compute_chunk(chunk)

    running = {}
    try:
        while left or running:
            while left and len(running) < workers + 1:  # one is ready when another ends
                number = left.pop()
                with on_device(number):
                    running[pool.submit(work, sweep.chunk(number))] = number
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _announce(sweep: ChunkedSweep, missing: Sequence[int], workers: int) -> None:
    """Say what is to be done, and about how long it takes."""
    arguments = sweep.arguments
    layout, memory = arguments.job.layout, bytes_of_sweep(arguments, sweep.columns, sweep.size, workers)
    text = (
        f"{arguments.num_lanes:,} lanes x {arguments.num_bars:,} bars x {len(layout.columns)} columns, in "
        f"{sweep.num_chunks:,} chunks of {sweep.size * layout.num_groups:,} lanes"
    )
    text += f", {sweep.num_chunks - len(missing):,} of them done before" if len(missing) < sweep.num_chunks else ""
    text += f"; about {show_size(memory)} of memory"
    if missing and arguments.engine == "compiled" and are_online(sweep.columns):
        text += f", about {_show_time(_seconds(sweep, missing, workers))}"
    print(text, file=sys.stderr, flush=True)


def _seconds(sweep: ChunkedSweep, missing: Sequence[int], workers: int) -> float:
    """How long the missing chunks will take, judged by a few bars of the first one."""
    num_bars = sweep.arguments.num_bars
    trial = min(num_bars, max(64, num_bars // 32))
    sweep.compute(missing[0], trial)  # compiles
    begun = time.perf_counter()
    sweep.compute(missing[0], trial)
    return (time.perf_counter() - begun) * num_bars / trial * -(-len(missing) // workers)


def _show_time(seconds: float) -> str:
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
