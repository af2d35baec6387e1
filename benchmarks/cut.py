"""A sweep whose purchases are cut alike (`cut="pro_rata"`) beside the same one with `cut="last"`.

    python -m benchmarks.cut [--repeats 25] [--lanes 100] [--seed 0]

8,767 hours of five assets, thresholds as lanes, weights as targets, in the closed form of fills and, with fixed fees,
order by order. Both sweeps alternate in one process, each pair on prices of its own, right after an untimed call.
Prints medians, and quartiles of the ratios pair by pair.
"""

import argparse
import time

import numpy as np
import pandas as pd

import allocators as al
import jaxsim as js
from benchmarks.before_after_jobs import FEES, prices

TERMS = {"proportional fees": {}, "with fixed fees, order by order": {"fixed_fees": 0.01}}


def sweep_seconds(seed: int, cut: str, lanes: int, terms: dict) -> tuple[float, pd.DataFrame]:
    """Wall seconds of a warm sweep, and its table."""
    thresholds = pd.Index(np.linspace(0.01, 0.15, lanes), name="threshold")
    options = dict(trigger=js.Threshold(thresholds), fees=FEES, freq="1h", metrics=["sharpe_ratio"], cut=cut, **terms)
    for number in (10_000 + seed, seed):
        open_, close = prices(number, 8767, 5, "h", 0.008)
        start = time.perf_counter()
        table = js.sweep(close, al.EqualWeight(), open=open_, **options)
        seconds = time.perf_counter() - start
    return seconds, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--lanes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name, terms in TERMS.items():
        seconds: dict[str, list[float]] = {"last": [], "pro_rata": []}
        for pair in range(-1, options.repeats):  # the first pair compiles
            for cut in sorted(seconds, reverse=bool(pair % 2)):
                taken, _ = sweep_seconds(options.seed + pair + 1, cut, options.lanes, terms)
                if pair >= 0:
                    seconds[cut].append(taken)
        last, alike = (np.array(seconds[cut]) for cut in ("last", "pro_rata"))
        low, middle, high = np.quantile(alike / last, (0.25, 0.5, 0.75))
        print(
            f'{name}: "last" {1e3 * np.median(last):.2f} ms, "pro_rata" {1e3 * np.median(alike):.2f} ms, medians of '
            f"{options.repeats}; ratio {middle:.2f}, quartiles {low:.2f} and {high:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
