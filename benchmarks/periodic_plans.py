"""The tutorial's periodic optimisation, `every x num_tests x fees`, 27 combinations on hourly Binance prices of 2020.

    python -m benchmarks.periodic_plans [--repeats 15]       warm, and in fresh processes from the start of Python to
                                                             the table; ours and the judge's in turn
    python -m benchmarks.periodic_plans --once ours|judge    one table in this process

The judge is the script `bonus1_numba.py`, whose functions are taken as they stand. Needs numba (the [compare]
extra), and the script and the prices, which `tools.outside_data` finds.
"""

import argparse
import ast
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from tools.outside_data import PROJECT, load_binance, reference_file

EVERY, NUM_TESTS, FEES = ["D", "W", "MS"], [30, 50, 100], [0.0, 0.005, 0.01]
CELLS = pd.MultiIndex.from_product([EVERY, NUM_TESTS, FEES], names=["every", "num_tests", "fees"])
ANN_FACTOR = 8760.0


def ours(open_: pd.DataFrame, close: pd.DataFrame, key: Any) -> pd.Series:
    """Sharpe ratios of the 27 combinations, or of as many for each seed of a named index."""
    import allocators as al
    import jaxsim as js

    search = al.RandomSearchSharpe(js.grid(num_tests=NUM_TESTS), ann_factor=ANN_FACTOR)
    plan = js.optimize(close, search, every=js.grid(every=EVERY), key=key)
    return js.replay(plan, close, open=open_, fees=js.grid(fees=FEES), freq="1h", start=0).sharpe_ratio()


def judge() -> dict[str, Any]:
    """The names of the judge's script up to where it begins to run."""
    path = reference_file("bonus1_numba.py")
    tree = ast.parse(path.read_text())
    begins = next(i for i, node in enumerate(tree.body) if isinstance(node, ast.Assign) and _name(node) == "S")
    tree.body = tree.body[:begins]
    names: dict[str, Any] = {}
    before = os.getcwd()
    try:
        os.chdir(path.parent)  # it reads its data from beside it
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
            subprocess.run(command, check=True, cwd=PROJECT, stdout=subprocess.DEVNULL)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--once", choices=["ours", "judge"])
    options = parser.parse_args()
    if options.once:
        once(options.once)
    else:
        time_both(options.repeats)


if __name__ == "__main__":
    main()
