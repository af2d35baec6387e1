"""What it means that a price is missing: for fills, for values, for the mark and for the benchmark."""

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.frames.inputs.prices import valuation_prices

nan = np.nan
INDEX = pd.date_range("2021-01-04", periods=40, freq="D")
ASSETS = ["A", "B", "C"]
ENGINES = pytest.mark.parametrize("engine", ["compiled", "reference"])


@pytest.fixture
def close() -> pd.DataFrame:
    moves = np.random.default_rng(0).normal(0, 0.05, (40, 3)).cumsum(axis=0)
    return pd.DataFrame([10.0, 200.0, 3.0] * np.exp(moves), INDEX, ASSETS)


@ENGINES
def test_without_a_close_nothing_fills(close, engine):
    """The order is ignored, although the asset has an open and is marked at its last close (rules 4.3)."""
    open_ = close.copy()
    close.loc[INDEX[0], "B"] = close.loc[INDEX[7], "A"] = nan
    bt = js.backtest(close, al.EqualWeight(), open=open_, trigger=js.Threshold(0.0), engine=engine)
    orders = bt.orders.set_index(["timestamp", "asset"]).index
    assert bt.rebalances.all()
    assert (INDEX[0], "A") in orders and (INDEX[0], "B") not in orders
    assert (INDEX[8], "A") in orders and (INDEX[7], "A") not in orders
    assert bt.orders["price"].notna().all()


def test_without_an_open_the_last_price_values():
    close = np.array([[1.0, 10.0], [nan, 20.0], [3.0, 30.0], [4.0, 40.0]])
    open_ = np.array([[1.5, nan], [1.6, nan], [nan, 25.0], [nan, nan]])
    expected = [[1.5, nan], [1.6, 10.0], [1.6, 25.0], [3.0, 30.0]]
    np.testing.assert_array_equal(valuation_prices(close, open_), expected)
    expected = [[nan, nan], [1.0, 10.0], [1.0, 20.0], [3.0, 30.0]]
    np.testing.assert_array_equal(valuation_prices(close, None), expected)


def test_the_benchmark_buys_equal_amounts_of_the_group(close):
    """At the first bar, without costs, of each group's own assets (rules 6.5)."""
    bt = js.backtest(close, al.EqualWeight(), groups=["x", "y", "x"], init_cash=50.0, fees=0.1)
    growth = close / close.iloc[0]
    np.testing.assert_allclose(bt.benchmark_value["x"], 25 * (growth["A"] + growth["C"]), rtol=1e-12)
    np.testing.assert_allclose(bt.benchmark_value["y"], 50 * growth["B"], rtol=1e-12)


def test_the_benchmark_counts_a_later_listing_as_unchanged(close):
    """Missing closes are filled forward, then backward (rules 6.5)."""
    close.loc[: INDEX[4], "B"] = close.loc[INDEX[8], "B"] = nan
    bt = js.backtest(close, al.EqualWeight(), init_cash=90.0, engine="reference")
    filled = close.copy()
    filled.loc[: INDEX[4], "B"], filled.loc[INDEX[8], "B"] = close["B"].iloc[5], close["B"].iloc[7]
    np.testing.assert_allclose(bt.benchmark_value, 30 * (filled / filled.iloc[0]).sum(axis=1), rtol=1e-12)


@ENGINES
def test_the_mark_is_the_last_close_or_before_any_the_last_open(engine):
    """Ten units, bought at 10 before there is a close; at the end there is none either (rules 4.3e)."""
    close = pd.DataFrame({"A": [nan, nan, 12.0, nan]}, INDEX[:4])
    open_ = pd.DataFrame({"A": [10.0, 11.0, 13.0, 20.0]}, INDEX[:4])
    bt = js.backtest(close, al.EqualWeight(), open=open_, price=10.0, engine=engine)
    assert bt.value.tolist() == [100.0, 110.0, 120.0, 120.0]
