"""The embedded prices: what is in them, and that they are the pinned source."""

import gzip
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxsim.datasets import Prices, stocks

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "jaxsim" / "datasets" / "stocks.csv.gz"
FIELDS = ("open", "high", "low", "close", "volume")
LISTED = {
    "AAPL": "2000-03-01",
    "FB": "2012-05-18",
    "GOOG": "2004-08-19",
    "IBM": "2000-03-01",
    "MSFT": "2000-03-01",
}

# Rows of the source, read by eye: open, high, low, close, volume, adjusted close.
ROWS = {
    ("AAPL", "2000-03-01"): (118.56, 132.06, 118.5, 130.31, 9616100, 4.186662803811),
    ("AAPL", "2013-03-01"): (438.0, 438.1799, 429.98, 430.47, 19730300, 56.137353095488),
    ("FB", "2012-05-18"): (42.05, 45.0, 38.0, 38.2318, 573576400, 38.2318),
    ("GOOG", "2004-08-19"): (100.01, 104.06, 95.96, 100.335, 44659000, 50.32284179174976),
    ("IBM", "2005-08-03"): (83.31, 84.2, 83.11, 84.06, 4256200, 63.999566857141),
    ("MSFT", "2003-02-18"): (24.62, 24.99, 24.4, 24.96, 28707750, 16.61565282547),
}


@pytest.fixture(scope="module")
def data() -> Prices:
    return stocks()


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_a_labelled_float_panel(data, field):
    frame = getattr(data, field)
    assert frame.shape == (3270, 5)
    assert (frame.dtypes == np.float64).all()
    assert list(frame.columns) == sorted(LISTED)
    assert frame.columns.name == "symbol"
    assert isinstance(frame.index, pd.DatetimeIndex)
    assert frame.index.name == "date"
    assert frame.index.tz is None
    assert frame.index.is_unique
    assert frame.index.is_monotonic_increasing
    assert (frame.index[0], frame.index[-1]) == (pd.Timestamp("2000-03-01"), pd.Timestamp("2013-03-01"))


@pytest.mark.parametrize("key", ROWS, ids=" ".join)
def test_prices_are_the_source_scaled_to_its_adjusted_close(data, key):
    symbol, date = key
    open_, high, low, close, volume, adjusted = ROWS[key]
    cell = {field: getattr(data, field).at[pd.Timestamp(date), symbol] for field in FIELDS}
    assert cell["close"] == adjusted
    assert cell["volume"] == volume
    scaled = np.array([open_, high, low]) * adjusted / close
    np.testing.assert_allclose([cell["open"], cell["high"], cell["low"]], scaled, rtol=1e-14)


def test_a_split_is_no_loss(data):
    """Microsoft split two for one on 2003-02-18: 48.30 to 24.96 as quoted, a gain of 3.4 % held."""
    returns = data.close["MSFT"].pct_change()
    assert returns[pd.Timestamp("2003-02-18")] == pytest.approx(0.0335, abs=5e-5)


@pytest.mark.parametrize("field", FIELDS)
def test_nan_exactly_before_the_listing(data, field):
    listed = pd.Series(LISTED).astype("datetime64[ns]").to_numpy()
    expected = data.close.index.to_numpy()[:, None] < listed
    np.testing.assert_array_equal(getattr(data, field).isna(), expected)
    assert expected.sum() == 1122 + 3074


def test_prices_are_positive_and_ordered(data):
    listed = data.close.notna()
    slack = 1 + 1e-12
    for frame in (data.open, data.high, data.low, data.close, data.volume):
        assert frame.where(listed, 1.0).gt(0).all(axis=None)
        assert np.isfinite(frame.where(listed, 1.0)).all(axis=None)
    for frame in (data.open, data.close):
        assert (data.low <= frame * slack).where(listed, True).all(axis=None)
        assert (frame <= data.high * slack).where(listed, True).all(axis=None)


def test_every_call_gives_fresh_frames():
    first, second, pristine = stocks(), stocks(), stocks()
    for field in FIELDS:
        frame = getattr(first, field)
        frame.iloc[:, :] = -1.0
        frame.columns.name = frame.index.name = "changed"
    for field in FIELDS:
        pd.testing.assert_frame_equal(getattr(second, field), getattr(pristine, field))
        pd.testing.assert_frame_equal(getattr(stocks(), field), getattr(pristine, field))


def test_a_change_to_one_field_leaves_the_others():
    data = stocks()
    data.open.iloc[:, :] = -1.0
    data.open.columns.name = data.open.index.name = "changed"
    assert (data.close["AAPL"] > 0).all()
    assert data.close.columns.name == "symbol"
    assert data.close.index.name == "date"


def test_the_panel_itself_cannot_be_changed_and_prints_in_one_line(data):
    with pytest.raises(AttributeError):
        data.close = data.open
    assert repr(data) == "Prices(AAPL, FB, GOOG, IBM, MSFT: 2000-03-01 to 2013-03-01, 3270 bars)"


def test_the_embedded_file_is_small_and_is_the_pinned_source():
    spec = importlib.util.spec_from_file_location("build_stocks", ROOT / "scripts" / "build_stocks.py")
    assert spec and spec.loader
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    content = FILE.read_bytes()
    assert build.TARGET == FILE
    assert len(content) < 400_000
    assert hashlib.sha256(content).hexdigest() == build.MEMBER_SHA256
    assert hashlib.sha256(gzip.decompress(content)).hexdigest() == build.CSV_SHA256
    licence = (FILE.parent / "stocks.LICENSE.txt").read_text()
    assert "public domain" in licence
    assert build.MEMBER_SHA256 in licence
    assert build.CSV_SHA256 in licence


def test_importing_it_imports_nothing_optional():
    optional = {"plotly", "typer", "tqdm", "dask", "vectorbt", "pooch", "requests"}
    code = f"import sys, jaxsim.datasets; print(*{optional} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
