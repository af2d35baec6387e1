"""Market data for benchmarks and parity tests. The data is not part of the project."""

import os
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
SYMBOLS = ["ADAUSDT", "BNBUSDT", "BTCUSDT", "ETHUSDT", "XRPUSDT"]


def data_dir() -> Path:
    """The folder that holds `binance-1h-2020`: $JAXSIM_DATA, or ../shared/data beside the project."""
    return Path(os.environ.get("JAXSIM_DATA") or ROOT.parent / "shared" / "data")


def load_binance() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hourly Binance (open, close) of 2020, 8767 x 5, UTC index, columns ADA BNB BTC ETH XRP."""
    folder = data_dir() / "binance-1h-2020"
    frames = []
    for name in ("open", "close"):
        path = folder / f"{name}.csv.gz"
        if not path.is_file():
            raise FileNotFoundError(
                f"The benchmark data is absent: there is no file {path}. Set the environment variable "
                "JAXSIM_DATA to the folder that contains binance-1h-2020/."
            )
        frame = pd.read_csv(path, index_col=0)
        frame.index = pd.to_datetime(frame.index, utc=True)
        frames.append(frame[SYMBOLS].astype("float64"))
    return frames[0], frames[1]
