"""The simulation alone, arrays in and metrics out, against `fused_numba.py`: threshold kernels written by hand, which
show the limit of this CPU.

    python -m benchmarks.against_fused [--cases K=100 N=50 ...] [--repeats 7] [--threads 2]

jaxsim runs `js.score` under `jax.vmap` and `jax.jit`, with chunks of lanes on threads, as a user would call it. Each
repetition has new prices and runs the peers in turn in this process. Each peer runs once on other prices, untimed,
before it is timed, since the threads of the peer before it still spin for a while. Both end in NumPy: jaxsim in Sharpe
ratios, the peers in values and counts. The script asserts float64, equal Sharpe ratios and equal numbers of rebalances.
It prints wall time, the processor time of all threads (useful on a shared machine too), compile time, and the peak
memory of this process. Needs numba (the [compare] extra).
"""

import argparse
import platform
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import numba
import numpy as np

import allocators as al
import jaxsim as js
from benchmarks import fused_numba

FEES, ANN_FACTOR = 0.005, 8760.0
METRICS = ("sharpe_ratio", "num_rebalances")
#: Smallest number of lanes for a thread of its own, and the largest number that stays in the cache of a core.
FEWEST, MOST = 32, 128
#: Bars, assets, thresholds.
CASES = {
    "K=1": (8760, 5, 1),
    "K=15": (8760, 5, 15),
    "K=100": (8760, 5, 100),
    "K=1000": (8760, 5, 1000),
    "K=10000": (8760, 5, 10_000),
    "N=50": (8760, 50, 100),
    "N=500": (2520, 500, 10),
    "T=525600": (525_600, 5, 15),
}


def prices(rng: np.random.Generator, num_bars: int, num_assets: int) -> tuple[np.ndarray, np.ndarray]:
    """Open and close of random walks with the volatility of hourly coins."""
    moves = rng.normal(0, 0.008, (num_bars, num_assets)) + rng.normal(0, 0.006, (num_bars, 1))
    close = np.exp(np.cumsum(moves, axis=0))
    return np.concatenate([close[:1], close[:-1]]) * np.exp(rng.normal(0, 1e-4, close.shape)), close


def thresholds(count: int) -> np.ndarray:
    return np.array([0.05]) if count == 1 else np.linspace(0.01, 0.15, count)


def score(open_: jax.Array, close: jax.Array, limit: jax.Array) -> dict[str, jax.Array]:
    market, policy = js.Market(close, open_, close, close), js.Policy(al.EqualWeight(), js.Threshold(limit))
    return js.score(market, policy, METRICS, costs=js.Costs(FEES), ann_factor=ANN_FACTOR)


score_one, score_many = jax.jit(score), jax.jit(jax.vmap(score, (None, None, 0)))


def ours(open_: np.ndarray, close: np.ndarray, limits: np.ndarray, threads: int) -> dict[str, np.ndarray]:
    """Metrics computed on several threads. All chunks have one shape; the last one is padded."""
    count = len(limits)
    if count == 1:
        return {name: np.atleast_1d(x) for name, x in score_one(open_, close, limits[0]).items()}
    size = min(max(-(-count // threads), FEWEST), MOST, count)
    chunks = np.minimum(np.arange(-(-count // size) * size), count - 1).reshape(-1, size)
    left, done = iter(range(len(chunks))), {}

    def work() -> None:
        with jax.enable_x64(True):  # a setting of each thread
            for at in left:
                done[at] = {name: np.asarray(x) for name, x in score_many(open_, close, limits[chunks[at]]).items()}

    with ThreadPoolExecutor(max(threads - 1, 1)) as pool:
        others = [pool.submit(work) for _ in range(min(threads, len(chunks)) - 1)]
        work()
        for other in others:
            other.result()
    return {name: np.concatenate([done[at][name] for at in sorted(done)])[:count] for name in METRICS}


def sharpe(value: np.ndarray) -> np.ndarray:
    before = np.concatenate([np.full((1, value.shape[1]), 100.0), value[:-1]])
    returns = value / before - 1
    return returns.mean(axis=0) / returns.std(axis=0, ddof=1) * ANN_FACTOR**0.5


def peers(out: np.ndarray, weights: np.ndarray) -> dict[str, Callable]:
    def k(function: Callable) -> Callable:
        return lambda o, c, limits: function(o, c, limits, weights, FEES, 100.0, out)

    def blk(parallel: bool) -> Callable:
        return lambda o, c, limits: fused_numba.lean_blk(o, c, limits, weights, FEES, parallel=parallel, out=out)

    return {
        "lean_k": k(fused_numba.lean_k),
        "lean_k_par": k(fused_numba.lean_k_par),
        "lean_blk": blk(False),
        "lean_blk parallel": blk(True),
    }


def timed(job: Callable, *arguments) -> tuple[tuple[float, float], object]:
    """Wall seconds and processor seconds, and the result."""
    start = time.perf_counter(), time.process_time()
    result = job(*arguments)
    return (time.perf_counter() - start[0], time.process_time() - start[1]), result


def compare(name: str, repeats: int, threads: int) -> None:
    num_bars, num_assets, count = CASES[name]
    rng, limits = np.random.default_rng(0), thresholds(count)
    out = np.empty((num_bars, count))
    jobs = {"jaxsim": lambda o, c, limits: ours(o, c, limits, threads)}
    if threads > 1:
        jobs["jaxsim, one thread"] = lambda o, c, limits: ours(o, c, limits, 1)
    jobs |= peers(out, np.full(num_assets, 1 / num_assets))
    seconds: dict[str, list[tuple[float, float]]] = {job: [] for job in jobs}
    compiled = {}
    before = prices(rng, num_bars, num_assets)
    for repeat in range(repeats + 1):
        open_, close = prices(rng, num_bars, num_assets)
        for job, run in jobs.items():
            if repeat:
                run(*before, limits)
            took, result = timed(run, open_, close, limits)
            if repeat:
                seconds[job].append(took)
            else:
                compiled[job] = took[0]
            if job == "jaxsim":
                mine = result
                assert all(x.dtype == np.float64 for x in mine.values())
            elif job == "lean_k":
                np.testing.assert_array_equal(mine["num_rebalances"], result[2])
                np.testing.assert_allclose(mine["sharpe_ratio"], sharpe(result[0]), rtol=1e-8, atol=1e-10)
    each = 1e9 / (num_bars * num_assets * count)
    print(f"\n{name}: {num_bars:,} bars x {num_assets} assets x {count:,} thresholds, {repeats} repetitions")
    columns = (
        f"{'first, s':>10}{'median, ms':>12}{'ns each':>9}{'jaxsim / it':>13}{'on cores, ms':>14}{'jaxsim / it':>13}"
    )
    print(f"{'':22}{columns}")
    base = np.array(seconds["jaxsim"])
    alone = np.array(seconds["jaxsim, one thread" if threads > 1 else "jaxsim"])
    for job, values in seconds.items():
        took = np.array(values)
        clock, cores = np.median(took, axis=0)
        ours_on_cores = base if "par" in job else alone
        print(
            f"{job:22}{compiled[job]:10.2f}{clock * 1e3:12.2f}{clock * each:9.2f}"
            f"{np.median(base[:, 0] / took[:, 0]):13.2f}{cores * 1e3:14.2f}"
            f"{np.median(ours_on_cores[:, 1] / took[:, 1]):13.2f}",
            flush=True,
        )
    print(f"peak memory of the process so far: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    numba.set_num_threads(options.threads)
    print(
        f"python {platform.python_version()}, jax {jax.__version__}, numba {numba.__version__}, "
        f"numpy {np.__version__}, {platform.machine()}, {options.threads} threads"
    )
    with jax.enable_x64(True):
        for name in options.cases:
            compare(name, options.repeats, options.threads)


if __name__ == "__main__":
    main()
