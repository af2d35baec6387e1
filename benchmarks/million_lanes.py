"""A million lanes in one sweep: thresholds x fees on a year of hourly bars of five assets.

    python -m benchmarks.million_lanes [--lanes 1000000] [--few 10000] [--bars 8767] [--kill-after 0.3] [--no-kill]

1. The few lanes and the many, each in a fresh process: lanes per second without compilation, and peak memory
   (ru_maxrss).
2. The many lanes again with a checkpoint: a process is killed by SIGKILL when a share of the chunks is done, and a
   second process resumes. The script prints whether the table is the same, and how many chunks were computed twice.

Prices are from the data that `tools.outside_data` describes, or with --random a random walk.
"""

import argparse
import json
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd

import allocators as al
import jaxsim as js

METRICS = ["sharpe_ratio", "max_drawdown", "turnover", "num_rebalances"]


def prices(bars: int, is_random: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Open and close."""
    if not is_random:
        from tools.outside_data import load_binance

        open_, close = load_binance()
        return open_.iloc[:bars], close.iloc[:bars]
    close = 100 * np.exp(np.random.default_rng(0).normal(0, 0.008, (bars, 5)).cumsum(axis=0))
    index = pd.date_range("2020-01-01", periods=bars, freq="h")
    close = pd.DataFrame(close, index, list("ABCDE"))
    return close.shift(1).bfill(), close


def run(lanes: int, options: argparse.Namespace, checkpoint: str | None = None) -> pd.DataFrame:
    """Ten fees, and the number of thresholds that gives the number of lanes."""
    open_, close = prices(options.bars, options.random)
    return js.sweep(
        close,
        al.EqualWeight(),
        open=open_,
        trigger=js.Threshold(js.grid(threshold=np.linspace(0.005, 0.2, lanes // 10))),
        fees=js.grid(fees=np.linspace(0.0, 0.009, 10)),
        freq="1h",
        metrics=METRICS,
        max_memory=options.max_memory,
        checkpoint=checkpoint,
        progress=options.progress,
    )


def measure(lanes: int, options: argparse.Namespace) -> dict[str, float]:
    """A sweep in this process: seconds and lanes per second without compilation, and peak memory."""
    begun = time.perf_counter()
    run(min(lanes, 2 * 2048 * 2), options)  # compiles: its chunks have the same shape
    compiled = time.perf_counter()
    table = run(lanes, options)
    seconds = time.perf_counter() - compiled
    assert len(table) == lanes and (table["status"] == "").all() and table[METRICS].notna().to_numpy().all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"lanes": lanes, "first": compiled - begun, "seconds": seconds, "rate": lanes / seconds, "peak_gib": peak}


def elsewhere(task: str, options: argparse.Namespace, *extra: str) -> subprocess.Popen:
    """Run this file in a fresh process."""
    known = {"bars": options.bars, "lanes": options.lanes, "max-memory": options.max_memory}
    arguments = [f"--{name}={value}" for name, value in known.items() if value is not None]
    flags = [f"--{name}" for name in ("random", "progress") if getattr(options, name)]
    command = [sys.executable, "-m", "benchmarks.million_lanes", "--task", task, *arguments, *flags, *extra]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def measured(lanes: int, options: argparse.Namespace) -> dict[str, float]:
    process = elsewhere("measure", options, f"--lanes={lanes}")
    out = process.communicate()[0]
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def kill_and_resume(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "run"
        places = [f"--checkpoint={checkpoint}", f"--log={folder}/log"]
        first = elsewhere("resume", options, *places)
        while first.poll() is None:
            manifest = checkpoint / "manifest.json"
            if manifest.is_file():
                size = json.loads(manifest.read_text())["combinations_per_part"]
                written = len(list(checkpoint.glob("part-*.parquet")))
                if written >= options.kill_after * options.lanes / size:
                    break
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        print(f"killed with {written} of {-(-options.lanes // size)} chunks written", flush=True)
        begun = time.perf_counter()
        second = elsewhere("resume", options, *places)
        out = second.communicate()[0]
        assert second.returncode == 0
        chunks = [line for line in (Path(folder) / "log").read_text().splitlines() if line.startswith("chunk")]
        twice = len(chunks) - len(set(chunks))
        seconds = time.perf_counter() - begun
        print(f"resumed in {seconds:.0f} s; chunks finished twice: {twice}; digest of the table {out.split()[-1]}")


def digest(table: pd.DataFrame) -> str:
    return f"{pd.util.hash_pandas_object(table[METRICS]).sum():x}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--bars", type=int, default=8767)
    parser.add_argument("--max-memory")
    parser.add_argument("--kill-after", type=float, default=0.3, help="share of the chunks")
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--random", action="store_true", help="random prices instead of the data")
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--task", choices=["all", "measure", "resume"], default="all", help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    parser.add_argument("--log", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task == "measure":
        print(json.dumps(measure(options.lanes, options)))
        return
    if options.task == "resume":
        import logging

        logging.basicConfig(filename=options.log, level=logging.INFO, format="%(message)s")
        print(digest(run(options.lanes, options, options.checkpoint)))
        return
    print(f"{platform.processor() or platform.machine()}, jax {jax.__version__}, jaxsim {js.__version__}")
    for lanes in (options.few, options.lanes):
        m = measured(lanes, options)
        print(
            f"{lanes:>9,} lanes x {options.bars:,} bars x 5 assets: {m['seconds']:8.1f} s, {m['rate']:9,.0f} lanes/s, "
            f"peak {m['peak_gib']:.2f} GiB of memory",
            flush=True,
        )
    if not options.no_kill:
        kill_and_resume(options)
        print(f"never interrupted: digest of the table {digest(run(options.lanes, options))}")


if __name__ == "__main__":
    main()
