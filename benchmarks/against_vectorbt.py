"""Whole verbs against vectorbt, as a user calls them, from DataFrames to pandas.

    python -m benchmarks.against_vectorbt [--cases "sweep K=15" ...] [--repeats 9] [--first-repeats 1] [--seed 0]

- sweep: `js.sweep` to a table of Sharpe ratios; for vectorbt `Portfolio.from_order_func` alone is timed, without the
  tiling of its inputs and without metrics.
- backtest: `js.backtest` to values and orders in pandas; vectorbt to the same.
- replay: recorded targets traded again, to values and orders in pandas; `js.replay` and `Portfolio.from_orders`, by
  Numba and, if the package vectorbt-rust is installed, by its Rust engine.

All run in turn in one process, on a year of hourly bars of five coins, with new prices in every repetition. Each is
called once on other prices, untimed, right before it is timed, to warm the caches and to leave no garbage of the peer
before it; `--cold-caches` skips this call. The script asserts float64 and equal results. It also prints the time of the
first call, compilation included, and its peak memory minus the memory before it, each in a fresh process. Needs the
[compare] extra and the data that `tools.outside_data` finds.
"""

import argparse
import gc
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import vectorbt as vbt

import allocators as al
import jaxsim as js
from benchmarks.peers import vectorbt_threshold as peer
from benchmarks.tutorial_job import FEES, fresh_prices, momentum, timed
from tools.outside_data import load_binance

TERMS = dict(fees=FEES, freq="1h")
#: Verb and number of thresholds.
CASES = {
    "backtest K=15": ("backtest", 15),
    "replay K=15": ("replay", 15),
    "sweep K=15": ("sweep", 15),
    "sweep K=100": ("sweep", 100),
    "sweep K=1000": ("sweep", 1000),
}
#: Allocators timed beside EqualWeight.
OTHERS = {"momentum on window(24)": momentum, "RandomWeights": al.RandomWeights()}

Jobs = dict[str, Callable]


def thresholds(count: int) -> pd.Index:
    return pd.Index(np.arange(1, 16) / 100 if count == 15 else np.linspace(0.01, 0.15, count), name="threshold")


def values_and_orders(bt: js.Backtest) -> tuple[pd.DataFrame, pd.DataFrame]:
    return bt.value, bt.orders


def values_and_records(pf: vbt.Portfolio) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pf.value(), pf.orders.records_readable


def sweep_jobs(open_: pd.DataFrame, close: pd.DataFrame, limits: pd.Index) -> Jobs:
    def ours(allocator):
        return lambda: js.sweep(
            close, allocator, open=open_, trigger=js.Threshold(limits), metrics=["sharpe_ratio"], **TERMS
        )

    jobs = {"jaxsim": ours(al.EqualWeight())}
    jobs["vectorbt from_order_func"] = lambda: peer.run(
        close, open_, thresholds=list(limits), weights=np.full(5, 0.2), **TERMS
    )
    return jobs | {f"jaxsim, {name}": ours(allocator) for name, allocator in OTHERS.items()}


def backtest_jobs(open_: pd.DataFrame, close: pd.DataFrame, limits: pd.Index) -> Jobs:
    def ours(allocator):
        return lambda: values_and_orders(
            js.backtest(close, allocator, open=open_, trigger=js.Threshold(limits), **TERMS)
        )

    jobs = {"jaxsim": ours(al.EqualWeight())}
    jobs["vectorbt from_order_func"] = lambda: values_and_records(
        peer.run(close, open_, thresholds=list(limits), weights=np.full(5, 0.2), **TERMS).pf
    )
    return jobs | {f"jaxsim, {name}": ours(allocator) for name, allocator in OTHERS.items()}


def replay_jobs(open_: pd.DataFrame, close: pd.DataFrame, limits: pd.Index) -> Jobs:
    """Replays of recorded targets. They are recorded and laid out for vectorbt before the timed region."""
    recorded = js.backtest(close, al.EqualWeight(), open=open_, trigger=js.Threshold(limits), **TERMS).allocations
    count, (num_bars, num_assets) = len(limits), close.shape
    sizes = np.full((num_bars, count, num_assets), np.nan)
    sizes[recorded.bar, recorded.lane] = recorded.targets
    columns = pd.MultiIndex.from_product([range(count), close.columns], names=["lane", "symbol"])

    def tiled(values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, close.index, columns)

    wide_close, wide_open = (tiled(np.tile(frame.to_numpy(), (1, count))) for frame in (close, open_))
    wide_sizes = tiled(sizes.reshape(num_bars, -1))

    def theirs(engine: str):
        def job():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pf = vbt.Portfolio.from_orders(
                    wide_close,
                    wide_sizes,
                    size_type="targetpercent",
                    val_price=wide_open,
                    call_seq="auto",
                    cash_sharing=True,
                    group_by="lane",
                    min_size=0.0,
                    init_cash=100.0,
                    engine=engine,
                    **TERMS,
                )
                return values_and_records(pf)

        return job

    jobs = {"jaxsim": lambda: values_and_orders(js.replay(recorded, close, open=open_, **TERMS))}
    jobs["vectorbt from_orders, Numba"] = theirs("numba")
    if importlib.util.find_spec("vectorbt_rust"):
        jobs["vectorbt from_orders, Rust"] = theirs("rust")
    return jobs


MAKERS = {"sweep": sweep_jobs, "backtest": backtest_jobs, "replay": replay_jobs}


def check(results: dict) -> None:
    """Assert the same portfolios on both sides, in float64."""
    mine = results["jaxsim"]
    for name, theirs in results.items():
        if not name.startswith("vectorbt"):
            continue
        if isinstance(theirs, peer.Result):
            assert mine["sharpe_ratio"].dtype == np.float64 and (mine["status"] == "").all()
            np.testing.assert_allclose(mine["sharpe_ratio"], peer.sharpe_ratios(theirs), rtol=1e-8, atol=1e-10)
            continue
        (value, orders), (peer_value, peer_orders) = mine, theirs
        assert (value.dtypes == np.float64).all() and (peer_value.dtypes == np.float64).all()
        assert len(orders) == len(peer_orders)
        np.testing.assert_allclose(value.to_numpy(), peer_value.to_numpy(), rtol=1e-9)


def seconds_of(job: Callable, before: Callable | None = None) -> tuple[float, object]:
    """Seconds and result of a job. before: the same job on other prices, run untimed first."""
    gc.collect()
    if before is not None:
        before()
    took, result = timed(job)
    return (result.seconds if isinstance(result, peer.Result) else took), result


def first_call(case: str, job: str, seed: int) -> dict[str, float]:
    """The first call in this process: seconds, and the peak memory minus the memory before it, MiB."""
    verb, count = CASES[case]
    open_, close = fresh_prices(np.random.default_rng(seed), *load_binance())
    run = MAKERS[verb](open_, close, thresholds(count))[job]
    before = mebibytes("VmRSS")
    return {"seconds": seconds_of(run)[0], "mib": mebibytes("VmHWM") - before}


def mebibytes(field: str) -> float:
    """Memory of this process on Linux, MiB: VmRSS is the present, VmHWM the peak. NaN on other systems. (ru_maxrss
    would include the memory of the parent process.)"""
    status = Path("/proc/self/status")
    match = re.search(rf"{field}:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return int(match[1]) / 1024 if match else np.nan


def first_calls(case: str, job: str, repeats: int, seed: int) -> dict[str, float]:
    """Medians over fresh processes."""
    command = [sys.executable, "-m", "benchmarks.against_vectorbt", "--first", case, job, "--seed", str(seed)]
    outs = [subprocess.run(command, capture_output=True, check=True, text=True).stdout for _ in range(repeats)]
    return pd.DataFrame([json.loads(out.splitlines()[-1]) for out in outs]).median().to_dict()


def compare(case: str, repeats: int, first_repeats: int, seed: int, cold_caches: bool) -> None:
    verb, count = CASES[case]
    rng, prices = np.random.default_rng(seed), load_binance()
    seconds: dict[str, list[float]] = {}
    others: Jobs = {}
    for repeat in range(repeats + 1):
        open_, close = fresh_prices(rng, *prices)
        jobs, results = MAKERS[verb](open_, close, thresholds(count)), {}
        for name, job in jobs.items():
            took, results[name] = seconds_of(job, None if cold_caches else others.get(name))
            if repeat:  # the first compiles
                seconds.setdefault(name, []).append(took)
        if repeat in (0, repeats):  # not every time: vectorbt is slow at metrics of a thousand portfolios
            check(results)
        others = jobs
        del results, job
    print(f"\n{case}: {len(close):,} bars x {close.shape[1]} assets x {count:,} thresholds, {repeats} repetitions")
    print(f"{'':34}{'median, ms':>12}{'x jaxsim':>10}{'least':>8}{'most':>8}{'first, s':>10}{'peak, MiB':>11}")
    for name, values in seconds.items():
        first = first_calls(case, name, first_repeats, seed) if first_repeats else {"seconds": np.nan, "mib": np.nan}
        ratios = np.divide(values, seconds["jaxsim"])
        print(
            f"{name:34}{np.median(values) * 1e3:12.1f}{np.median(ratios):10.2f}{ratios.min():8.2f}{ratios.max():8.2f}"
            f"{first['seconds']:10.2f}{first['mib']:11,.0f}",
            flush=True,
        )
    print(f"load average: {', '.join(f'{x:.1f}' for x in os.getloadavg())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--first-repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cold-caches", action="store_true", help="time each straight after another has run")
    parser.add_argument("--first", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first:
        print(json.dumps(first_call(*options.first, options.seed)))
        return
    rust = version("vectorbt-rust") if importlib.util.find_spec("vectorbt_rust") else "absent"
    print(
        f"python {platform.python_version()}, jax {jax.__version__}, numpy {np.__version__}, pandas {pd.__version__}, "
        f"vectorbt {vbt.__version__} (Rust engine {rust}), numba {version('numba')}, {platform.machine()}, "
        f"{os.cpu_count()} CPUs, devices {jax.devices()}"
    )
    for case in options.cases:
        compare(case, options.repeats, options.first_repeats, options.seed, options.cold_caches)


if __name__ == "__main__":
    main()
