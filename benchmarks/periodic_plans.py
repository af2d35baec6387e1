"""The tutorial's periodic optimisation, `every x num_tests x fees`, 27 combinations on hourly Binance prices of 2020.

    python -m benchmarks.periodic_plans [--seeds 200]    the published Sharpe ratios in our distribution over seeds, and
                                                         our medians beside those of the numba judge
    python -m benchmarks.periodic_plans --time           the 27 combinations: warm, and in fresh processes from the
                                                         start of Python to the table
    python -m benchmarks.periodic_plans --once ours|judge    one table in this process, as `--time` runs it

The judge is `bonus1_numba.py` in the folder of references ($JAXSIM_REFERENCE, or ../shared/reference beside the
project), whose functions are taken as they stand. Needs numba (the [compare] extra) and the data that `benchmarks.data`
describes.
"""

import argparse
import ast
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data import ROOT, load_binance

EVERY, NUM_TESTS, FEES = ["D", "W", "MS"], [30, 50, 100], [0.0, 0.005, 0.01]
CELLS = pd.MultiIndex.from_product([EVERY, NUM_TESTS, FEES], names=["every", "num_tests", "fees"])
ANN_FACTOR = 8760.0
#: Of the standard normal: the standard error of a median is this times that of a mean.
MEDIAN_ERROR = np.sqrt(np.pi / 2)


def ours(open_: pd.DataFrame, close: pd.DataFrame, key: Any) -> pd.Series:
    """Sharpe ratios of the 27 combinations, or of as many for each seed of a named index."""
    import allocators as al
    import jaxsim as js

    search = al.RandomSearchSharpe(js.grid(num_tests=NUM_TESTS), ann_factor=ANN_FACTOR)
    plan = js.optimize(close, search, every=js.grid(every=EVERY), key=key)
    return js.replay(plan, close, open=open_, fees=js.grid(fees=FEES), freq="1h").sharpe_ratio()


def judge() -> dict[str, Any]:
    """The names of the judge's script up to where it begins to run."""
    folder = Path(os.environ.get("JAXSIM_REFERENCE") or ROOT.parent / "shared" / "reference")
    path = folder / "bonus1_numba.py"
    if not path.is_file():
        raise FileNotFoundError(f"The judge is absent: there is no file {path}. Set JAXSIM_REFERENCE to its folder.")
    tree = ast.parse(path.read_text())
    begins = next(i for i, node in enumerate(tree.body) if isinstance(node, ast.Assign) and _name(node) == "S")
    tree.body = tree.body[:begins]
    names: dict[str, Any] = {}
    before = os.getcwd()
    try:
        os.chdir(folder)  # it reads its data from beside it
        exec(compile(tree, str(path), "exec"), names)
    finally:
        os.chdir(before)
    return names


def _name(node: ast.Assign) -> str:
    return getattr(node.targets[0], "id", "")


def theirs(names: dict[str, Any], open_: pd.DataFrame, close: pd.DataFrame, seed: int) -> np.ndarray:
    """The judge's Sharpe ratios of the 27 combinations."""
    prices = [np.ascontiguousarray(x.to_numpy()) for x in (close, open_)]
    out = []
    for every in EVERY:
        ranges = names["ranges"](every, "inner")
        for num_tests in NUM_TESTS:
            out += [names["sim"](*prices, ranges, num_tests, ANN_FACTOR, fees, seed) for fees in FEES]
    return np.array(out)


def compare_with_the_tutorial(seeds: int) -> bool:
    import jaxsim as js

    open_, close = load_binance()
    names = judge()
    published = np.array([names["PUB"][every][tests][FEES.index(fees)] for every, tests, fees in CELLS])
    parts = [
        ours(open_, close, js.grid(key=range(begin, min(begin + 20, seeds)))).unstack("key")
        for begin in range(0, seeds, 20)
    ]
    table = pd.concat(parts, axis=1).reindex(CELLS).to_numpy()
    other = np.stack([theirs(names, open_, close, seed) for seed in range(seeds)], axis=1)
    low, high = np.quantile(table, [0.005, 0.995], axis=1)
    median, judged = np.median(table, axis=1), np.median(other, axis=1)
    error = MEDIAN_ERROR * np.sqrt((table.var(axis=1, ddof=1) + other.var(axis=1, ddof=1)) / seeds)
    result = pd.DataFrame(
        {
            "published": published,
            "0.5 %": low,
            "median": median,
            "99.5 %": high,
            "inside": (low <= published) & (published <= high),
            "judge's median": judged,
            "apart, standard errors": np.abs(median - judged) / error,
        },
        index=CELLS,
    )
    print(result.round(3).to_string())
    inside, equal = int(result["inside"].sum()), int((result["apart, standard errors"] <= 3).sum())
    print(f"{inside} of 27 published figures lie in the central 99 % of {seeds} seeds")
    print(f"{equal} of 27 medians lie within 3 standard errors of the judge's")
    return inside >= 25 and equal == 27


def time_both(repeats: int) -> None:
    from benchmarks.tutorial_job import fresh_prices

    open_, close = load_binance()
    names, rng = judge(), np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"ours": [], "judge": []}
    run: dict[str, Callable] = {"ours": ours, "judge": lambda o, c, seed: theirs(names, o, c, seed)}
    for repeat in range(repeats + 2):
        prices = tuple(fresh_prices(rng, open_, close))
        for which in seconds:
            start = time.perf_counter()
            np.asarray(run[which](*prices, repeat))
            seconds[which].append(time.perf_counter() - start)
    for which, values in seconds.items():
        print(f"{which:6} warm, median {np.median(values[2:]) * 1e3:8.1f} ms")
    ratios = np.divide(seconds["judge"][2:], seconds["ours"][2:])
    print(f"judge / ours, warm: median {np.median(ratios):.2f}, least {ratios.min():.2f}, most {ratios.max():.2f}")
    cold: dict[str, list[float]] = {"ours": [], "judge": []}
    for _ in range(max(3, repeats // 4)):
        for which, values in cold.items():
            start = time.perf_counter()
            command = [sys.executable, "-m", "benchmarks.periodic_plans", "--once", which]
            subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
            values.append(time.perf_counter() - start)
    for which, values in cold.items():
        print(f"{which:6} cold process, median {np.median(values):6.2f} s")
    ratios = np.divide(cold["judge"], cold["ours"])
    print(f"judge / ours, cold: median {np.median(ratios):.2f}, least {ratios.min():.2f}, most {ratios.max():.2f}")


def once(which: str) -> None:
    open_, close = load_binance()
    if which == "ours":
        print(ours(open_, close, 0))
    else:
        print(pd.Series(theirs(judge(), open_, close, 0), CELLS))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--once", choices=["ours", "judge"])
    options = parser.parse_args()
    if options.once:
        once(options.once)
    elif options.time:
        time_both(options.repeats)
    else:
        return 0 if compare_with_the_tutorial(options.seeds) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
