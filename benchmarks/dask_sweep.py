"""The same sweep on one Dask worker, on two, and on two of which one is killed.

    python -m benchmarks.dask_sweep [--lanes 20000] [--bars 8767]

Workers are processes of one thread each on this machine. The script prints the seconds of each, without compilation,
the speed-up, and whether the tables are equal; after the kill, also the number of written chunks. Prices are random
walks.
"""

import argparse
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
from dask.distributed import Client, LocalCluster

import allocators as al
import jaxsim as js
from benchmarks.million_lanes import METRICS, prices


def sweep(client: Client, lanes: int, bars: int, **options) -> pd.DataFrame:
    open_, close = prices(bars, True)
    trigger = js.Threshold(js.grid(threshold=np.linspace(0.005, 0.2, lanes // 10)))
    fees = js.grid(fees=np.linspace(0.0, 0.009, 10))
    how = dict(open=open_, trigger=trigger, fees=fees, freq="1h", metrics=METRICS, engine=client)
    return js.sweep(close, al.EqualWeight(), **how, **options)


def timed(workers: int, options: argparse.Namespace) -> tuple[float, pd.DataFrame]:
    size = dict(n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    with LocalCluster(**size) as cluster, Client(cluster) as client:
        sweep(client, options.lanes, 8 * 64)  # starts the workers
        sweep(client, options.lanes, options.bars)  # compiles, in each of them
        begun = time.perf_counter()
        table = sweep(client, options.lanes, options.bars)
        return time.perf_counter() - begun, table


def with_a_kill(options: argparse.Namespace) -> tuple[pd.DataFrame, int]:
    """A sweep on two workers; one is killed as soon as a chunk is written."""
    size = dict(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    with tempfile.TemporaryDirectory() as folder, LocalCluster(**size) as cluster, Client(cluster) as client:
        place = Path(folder) / "run"
        (pid, *_) = client.run(os.getpid).values()

        def kill() -> None:
            while not list(place.glob("part-*")):
                time.sleep(0.05)
            os.kill(pid, signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        table = sweep(client, options.lanes, options.bars, checkpoint=place)
        return table, len(list(place.glob("part-*")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, default=20_000)
    parser.add_argument("--bars", type=int, default=8767)
    options = parser.parse_args()
    (one, table), (two, other) = timed(1, options), timed(2, options)
    same = table.equals(other)
    print(f"one worker {one:.1f} s, two {two:.1f} s: {one / two:.2f} times as fast; the same table: {same}", flush=True)
    killed, parts = with_a_kill(options)
    print(f"one of two killed: the same table: {killed.equals(table)}; {parts} parts written")


if __name__ == "__main__":
    main()
