"""Where data lies that the project itself does not contain: prices, published tables, a judge's script.

One folder holds all of it: `data/`, `golden/` and `reference/`. It is the one that the environment variable
JAXSIM_DATA names (or its `data/`), else `shared` beside the project. Nothing else in the project knows of it.

The published tables belong to the exchange's history as it was before a correction in December 2020. `jaxsim fetch`
gives the corrected history, which is nearly the same: docs/published-tables.md says how far its results are off.
"""

import os
from pathlib import Path

import pandas as pd

VARIABLE = "JAXSIM_DATA"
PROJECT = Path(__file__).resolve().parents[1]
PRICES = "binance-1h-2020"
SYMBOLS = ["ADAUSDT", "BNBUSDT", "BTCUSDT", "ETHUSDT", "XRPUSDT"]


class OutsideDataError(FileNotFoundError):
    """A file of the outside data is absent. The message says where it should be and why nothing replaces it."""

    def __init__(self, path: Path):
        super().__init__(
            f"there is no {path}; set {VARIABLE} to the folder that holds data/, golden/ and reference/. The published "
            "tables belong to the exchange's history as it was before a correction in December 2020, so that `jaxsim "
            "fetch` gives nearly, not exactly, these prices (docs/published-tables.md)"
        )


def outside_folder() -> Path:
    """The folder that holds `data/`, `golden/` and `reference/`, whether or not it exists."""
    folder = Path(os.environ.get(VARIABLE) or PROJECT.parent / "shared").resolve()
    return folder.parent if (folder / PRICES).is_dir() else folder


def prices_file(field: str) -> Path:
    """The hourly prices of 2020, by field: open, high, low, close or volume. Raises OutsideDataError."""
    return _present("data", PRICES, f"{field}.csv.gz")


def golden_file(name: str) -> Path:
    """One published table, as `uniform_sharpe.csv`. Raises OutsideDataError."""
    return _present("golden", name)


def reference_file(name: str) -> Path:
    """One of the scripts that judge, as `bonus1_numba.py`. Raises OutsideDataError."""
    return _present("reference", name)


def load_binance() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hourly (open, close) of 2020, 8767 x 5, UTC index, columns ADA BNB BTC ETH XRP. Raises OutsideDataError."""
    frames = []
    for field in ("open", "close"):
        frame = pd.read_csv(prices_file(field), index_col=0)
        frame.index = pd.to_datetime(frame.index, utc=True)
        frames.append(frame[SYMBOLS].astype("float64"))
    return frames[0], frames[1]


def published_sharpe(allocation: str) -> pd.Series:
    """The published Sharpe ratios of "uniform" or "random" weights, by threshold. Raises OutsideDataError."""
    return pd.read_csv(golden_file(f"{allocation}_sharpe.csv"), index_col=0)["sharpe_ratio"]


def _present(*parts: str) -> Path:
    path = outside_folder().joinpath(*parts)
    if not path.is_file():
        raise OutsideDataError(path)
    return path
