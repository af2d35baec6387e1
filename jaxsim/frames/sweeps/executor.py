"""The chunks of a sweep are worked on: side by side on threads, or by the workers of a cluster."""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import jax

from jaxsim.frames.sweeps import chunking as chunks
from jaxsim.frames.sweeps.chunk_metrics import ChunkMetrics, Scoring, SweepChunk
from jaxsim.frames.sweeps.store_parts import Parts
from jaxsim.frames.system.memory import show_size
from jaxsim.frames.system.progress import progress_bar
from jaxsim.frames.system.workers import is_distributed, run_everywhere

_log = logging.getLogger("jaxsim")


def compute(scoring: Scoring, parts: Parts, workers: int, progress: bool) -> None:
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


def _parts(scoring: Scoring, pending: Sequence[int], workers: int) -> Iterator[tuple[int, ChunkMetrics]]:
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


def _on_threads(scoring: Scoring, pending: Sequence[int], workers: int) -> Iterator[tuple[int, ChunkMetrics]]:
    """Chunks side by side: this thread makes them ready, others wait for their programs. Devices take turns."""
    devices, left = jax.local_devices(), list(reversed(pending))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="jaxsim-sweep")

    def on_device(number: int) -> AbstractContextManager:
        return jax.default_device(devices[number % len(devices)]) if len(devices) > 1 else nullcontext()

    def work(chunk: SweepChunk) -> ChunkMetrics:
        with on_device(chunk.number):
            return scoring.scored(chunk)

    running = {}
    try:
        while left or running:
            while left and len(running) < workers + 1:  # one is ready when another ends
                number = left.pop()
                with on_device(number):
                    running[pool.submit(work, scoring.chunk(number))] = number
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
