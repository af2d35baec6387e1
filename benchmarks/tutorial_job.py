"""The job of vectorbt's tutorial in both: 8,767 hourly bars x 5 coins x 15 thresholds, values and orders as pandas.

    python -m benchmarks.tutorial_job [--seed 0] [--repeats 15]

Both run in turn in one process. Every repetition has new prices, so no result can be reused. The timed region ends with
the values and the order table in pandas. First calls, compilation included, are timed in fresh processes. Needs the
[compare] extra and the data that `tools.outside_data` finds.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import allocators as al
import jaxsim as js
from tools.outside_data import load_binance

THRESHOLDS = pd.Index(np.arange(1, 16) / 100, name="threshold")
FEES = 0.005


def momentum(obs: js.Observation):
    """A user-written allocator: weights from the mean return of the last 24 closes; equal weight before that."""
    mean = jnp.nan_to_num(obs.window(24).mean_return())
    return jax.nn.softmax(10.0 * jnp.where(obs.step < 24, 0.0, mean))


def fresh_prices(rng: np.random.Generator, open_: pd.DataFrame, close: pd.DataFrame):
    """New prices: every cell changed by some hundredths of a percent."""
    return (frame * np.exp(rng.normal(0, 1e-4, frame.shape)) for frame in (open_, close))


def ours(open_, close, policy):
    bt = js.backtest(close, policy, open=open_, trigger=js.Threshold(THRESHOLDS), fees=FEES, freq="1h")
    return bt.value, bt.orders


def theirs(open_, close, **allocator):
    from benchmarks.peers import vectorbt_threshold as peer

    run = peer.run(close, open_, thresholds=list(THRESHOLDS), fees=FEES, freq="1h", **allocator)
    return run.pf.value(), run.pf.orders.records_readable


def timed(job, *arguments, **options):
    start = time.perf_counter()
    result = job(*arguments, **options)
    return time.perf_counter() - start, result


def first_call(which: str) -> float:
    """Seconds of the first call in this process, with compilation, without imports."""
    open_, close = load_binance()
    if which == "vectorbt":
        import benchmarks.peers.vectorbt_threshold  # noqa: F401

        return timed(theirs, open_, close, weights=np.full(5, 0.2))[0]
    return timed(ours, open_, close, al.EqualWeight())[0]


def first_calls(repeats: int) -> dict[str, list[float]]:
    """First calls in fresh processes, in turn."""
    seconds: dict[str, list[float]] = {"jaxsim": [], "vectorbt": []}
    for _ in range(repeats):
        for which, so_far in seconds.items():
            command = [sys.executable, "-m", "benchmarks.tutorial_job", "--first", which]
            so_far.append(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
    return seconds


def warm(seed: int, repeats: int) -> None:
    rng = np.random.default_rng(seed)
    open_, close = load_binance()
    weights = np.full(5, 0.2)
    equal, random = al.EqualWeight(), al.RandomWeights()
    jobs = {
        "jaxsim, EqualWeight": lambda o, c: ours(o, c, equal),
        "vectorbt, equal weights": lambda o, c: theirs(o, c, weights=weights),
        "jaxsim, momentum on window(24)": lambda o, c: ours(o, c, momentum),
        "jaxsim, RandomWeights": lambda o, c: ours(o, c, random),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(repeats + 1):
        o, c = fresh_prices(rng, open_, close)
        results = {}
        for name, job in jobs.items():
            took, results[name] = timed(job, o, c)
            if repeat:  # the first compiles
                seconds[name].append(took)
        (value, orders), (peer_value, peer_orders) = (results[n] for n in list(jobs)[:2])
        assert (value.dtypes == np.float64).all() and value.shape == (len(close), len(THRESHOLDS))
        assert len(orders) == len(peer_orders)
        np.testing.assert_allclose(value.to_numpy(), peer_value.to_numpy(), rtol=1e-9)
    base = statistics.median(seconds["jaxsim, EqualWeight"])
    print(f"{'warm, median of ' + str(repeats):36}{'ms':>9}{'x EqualWeight':>15}")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:36}{median * 1e3:9.2f}{median / base:15.2f}")
    ratios = np.divide(seconds["vectorbt, equal weights"], seconds["jaxsim, EqualWeight"])
    print(
        f"warm ratio vectorbt / jaxsim: median {np.median(ratios):.1f}, "
        f"least {ratios.min():.1f}, most {ratios.max():.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--first-repeats", type=int, default=3)
    parser.add_argument("--first", choices=["jaxsim", "vectorbt"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first:
        print(json.dumps(first_call(options.first)))
        return
    print(
        f"python {platform.python_version()}, jax {jax.__version__}, numpy {np.__version__}, pandas {pd.__version__}, "
        f"{platform.machine()}, devices {jax.devices()}"
    )
    warm(options.seed, options.repeats)
    first = {name: statistics.median(values) for name, values in first_calls(options.first_repeats).items()}
    print(
        f"first call, median of {options.first_repeats} fresh processes: jaxsim {first['jaxsim']:.2f} s, "
        f"vectorbt {first['vectorbt']:.2f} s"
    )
    print(f"first-call ratio vectorbt / jaxsim: {first['vectorbt'] / first['jaxsim']:.1f}")


if __name__ == "__main__":
    main()
