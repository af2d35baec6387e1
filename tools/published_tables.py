"""The tutorial's two tables of Sharpe ratios: published, computed from prices fetched now, and their difference.

    python -m tools.published_tables                  on prices of the exchange's public archive
    python -m tools.published_tables --data           on the prices that the tables were made of, if they are here

Equal weights, and random weights of one NumPy generator for all lanes, at thresholds of 0.01 to 0.15 with fees of 0.005
(docs/rules.md, section 9). The archive's history was corrected in December 2020, after the tables were made, so that it
gives nearly the same. `tools.outside_data` finds the published figures; without them the table has none.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import allocators as al
import jaxsim as js
from tools.outside_data import SYMBOLS, OutsideDataError, load_binance, published_sharpe

THRESHOLDS = pd.Index(np.arange(1, 16) / 100, name="threshold")
SEED = 42


def sharpe_of_uniform(open_: pd.DataFrame, close: pd.DataFrame) -> pd.Series:
    """Sharpe ratios of equal weights, by threshold."""
    return _backtest(open_, close, al.EqualWeight(), "compiled").sharpe_ratio()


def sharpe_of_random(open_: pd.DataFrame, close: pd.DataFrame) -> pd.Series:
    """Sharpe ratios of random weights, by threshold; lanes draw one after the other from one generator."""
    rng = np.random.RandomState(SEED)

    def allocate(obs: js.Observation) -> np.ndarray:
        draws = rng.uniform(0, 1, obs.num_assets)
        return draws / draws.sum()

    return _backtest(open_, close, allocate, "reference").sharpe_ratio()


def _backtest(open_: pd.DataFrame, close: pd.DataFrame, policy: object, engine: str) -> js.Backtest:
    trigger = js.Threshold(THRESHOLDS)
    return js.backtest(close, policy, open=open_, trigger=trigger, fees=0.005, freq="1h", engine=engine)


def fetched(start: str, end: str, cache: Path | None, base_url: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hourly opens and closes from the archive. Raises as `js.datasets.binance`."""
    options = {} if base_url is None else {"base_url": base_url}
    prices = js.datasets.binance(SYMBOLS, "1h", start, end, cache=cache, **options)
    return prices.open, prices.close


def compared(allocation: str, ours: pd.Series, source: str) -> pd.DataFrame:
    """The table of one way to allocate: published, ours, difference. NaN where no figure is published here."""
    try:
        published = published_sharpe(allocation).set_axis(THRESHOLDS)
    except OutsideDataError:
        published = pd.Series(np.nan, THRESHOLDS)
    ours = ours.round(6)  # as many digits as were published
    return pd.DataFrame({"published": published, source: ours, "difference": (ours - published).round(6) + 0.0})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="store_true", help="the prices of tools.outside_data instead of fetched ones")
    parser.add_argument("--start", default="2020-01-01", help="first bar that is fetched, in UTC")
    parser.add_argument("--end", default="2020-12-31", help="last bar that is fetched; a day means all of it")
    parser.add_argument("--cache", type=Path, help="where fetched files are kept; else $JAXSIM_CACHE")
    parser.add_argument("--base-url", help="the archive, or a mirror of it")
    options = parser.parse_args(arguments)
    try:
        if options.data:
            open_, close = load_binance()
        else:
            open_, close = fetched(options.start, options.end, options.cache, options.base_url)
    except (OSError, ImportError, ValueError) as error:  # no network, no data, no extra, a bad option
        print(error, file=sys.stderr)
        return 1
    source = "recomputed" if options.data else "fetched"
    print(f"{len(close):,} bars of {', '.join(close.columns)}, {close.index[0]} to {close.index[-1]}")
    jobs = ("uniform", sharpe_of_uniform, ""), ("random", sharpe_of_random, f" of numpy.random.RandomState({SEED})")
    for allocation, sharpe, origin in jobs:
        table = compared(allocation, sharpe(open_, close), source)
        print(f"\nSharpe ratio, {allocation} weights{origin}")
        print(table.to_string(float_format="%.6f", na_rep="-"))
        if table["published"].isna().all():
            print("The published figures are not here: see `tools/outside_data.py`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
