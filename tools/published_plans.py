"""The tutorial's periodic optimisation, `every x num_tests x fees`: 27 published Sharpe ratios, each from one seed.

    python -m tools.published_plans [--seeds 200]

Each published figure must lie in our distribution over seeds, and our medians must be those of the Numba judge. The
judge and the prices are those of `benchmarks.periodic_plans`. Exits with 1 if they do not agree.
"""

import argparse
import sys

import numpy as np
import pandas as pd

import jaxsim as js
from benchmarks.periodic_plans import CELLS, FEES, judge, load_binance, ours, theirs

#: Of the standard normal: the standard error of a median is this times that of a mean.
MEDIAN_ERROR = np.sqrt(np.pi / 2)


def compare(seeds: int) -> bool:
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    return 0 if compare(parser.parse_args().seeds) else 1


if __name__ == "__main__":
    sys.exit(main())
