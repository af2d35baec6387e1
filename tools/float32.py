"""How far float32 drifts from float64: values, decisions and orders.

    python -m tools.float32 [--minutes 525600]

The tutorial's job (a year of hourly bars, fifteen thresholds, fees 0.005), and a year of minute bars of five random
walks at three thresholds. Needs the data that `tools.outside_data` describes.
"""

import argparse
import warnings

import numpy as np
import pandas as pd

import allocators as al
import jaxsim as js
from tools.outside_data import load_binance


def minutes(bars: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Open and close of five random walks."""
    steps = np.random.default_rng(0).normal(0, 0.0012, (bars, 5))
    index = pd.date_range("2020-01-01", periods=bars, freq="min")
    close = pd.DataFrame(100 * np.exp(steps.cumsum(axis=0)), index, list("ABCDE"))
    return close.shift(1).bfill(), close


def show(name: str, open_: pd.DataFrame, close: pd.DataFrame, thresholds: np.ndarray, fees: float) -> None:
    trigger = js.Threshold(js.grid(threshold=thresholds))
    for policy in (al.EqualWeight(), al.RandomWeights()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            table = js.check_float32(close, policy, open=open_, trigger=trigger, fees=fees)
        print(
            f"{name}, {type(policy).__name__}: {table['decisions'].sum()} decisions in {len(table)} lanes, "
            f"{table['differing'].sum()} differ; values drift by up to {table['drift'].max():.1e} "
            f"(at the end {table['end'].max():.1e}); {table['orders'].sum()} orders, "
            f"{table['more_orders'].sum():+d} in float32",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=525_600)
    options = parser.parse_args()
    show("8,767 hours", *load_binance(), np.arange(1, 16) / 100, 0.005)
    show(f"{options.minutes:,} minutes", *minutes(options.minutes), np.array([0.01, 0.03, 0.1]), 0.001)


if __name__ == "__main__":
    main()
