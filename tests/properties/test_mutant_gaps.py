"""Small promises that no other test would have noticed broken: each was found by `tools/mutants.py`."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.base.numerics import snap
from jaxsim.frames.inputs.prices import valuation_prices
from tools.mutants import MUTANTS

nan = np.nan
INDEX = pd.date_range("2021-01-04", periods=40, freq="D")
ASSETS = ["A", "B", "C"]
ENGINES = pytest.mark.parametrize("engine", ["compiled", "reference"])


@pytest.fixture
def close() -> pd.DataFrame:
    moves = np.random.default_rng(0).normal(0, 0.05, (40, 3)).cumsum(axis=0)
    return pd.DataFrame([10.0, 200.0, 3.0] * np.exp(moves), INDEX, ASSETS)


def test_dust_is_snapped():
    with jax.enable_x64(True):
        np.testing.assert_array_equal(snap(jnp.array([1e-12, -9e-13, 2e-12, 0.0])), [0.0, 0.0, 2e-12, 0.0])


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


def test_a_window_is_nan_before_the_first_bar(close):
    seen = []

    def allocate(obs):
        seen.append(obs.window(3).values)
        return np.full(3, 1 / 3)

    js.backtest(close, allocate, trigger=js.Threshold(0.0), engine="reference")
    padded = np.concatenate([np.full((3, 3), nan), close])
    for bar, window in enumerate(seen):
        np.testing.assert_array_equal(window, padded[bar : bar + 3])


@ENGINES
def test_a_replay_acts_at_the_recorded_bars_on_the_recorded_assets(close, engine):
    """Not before the first of them, though it is flat until then; and what was left alone is not sold."""

    def allocate(obs):
        leave = (jnp.arange(3) == 2) & (obs.step > 5)
        return js.Allocation(jnp.where(leave, jnp.nan, 0.3), skip=leave)

    once = js.backtest(close, allocate, trigger=js.Threshold(0.03), min_history=5, fees=0.001)
    again = js.replay(once.allocations, close, fees=0.001, engine=engine)
    assert once.rebalance_index[0] == INDEX[5] and once.num_rebalances() > 2
    pd.testing.assert_index_equal(again.rebalance_index, once.rebalance_index)
    pd.testing.assert_frame_equal(again.orders, once.orders, rtol=1e-9)
    assert (again.orders["asset"] == "C").sum() == 1


@ENGINES
def test_a_replay_that_holds_nothing_waits_for_the_next_date(close, engine):
    """Beside a trigger, too."""
    dates = INDEX[[5, 10, 20]]
    weights = pd.DataFrame([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]], dates, close.columns)
    plan = js.Allocations.from_weights(weights, INDEX)
    bt = js.replay(plan, close, trigger=js.Threshold(10.0), engine=engine)
    assert bt.rebalance_index.tolist() == dates.tolist()


def test_the_first_bar_is_the_first_height():
    """A loss on the first bar is no drawdown (rules 7.4)."""
    returns = np.array([-0.5, 0.2, -0.25, 0.1])
    np.testing.assert_allclose(js.metrics.drawdown(returns), [0.0, 0.0, -0.25, -0.175], atol=1e-15)
    assert js.metrics.max_drawdown([-0.5, 0.1]) == 0.0


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


def test_equal_weight_over_tradable_is_fully_invested(close):
    close.loc[: INDEX[9], "C"] = nan
    bt = js.backtest(close, al.EqualWeight("tradable"), open=close, trigger=js.Threshold(0.0))
    expected = np.where(np.arange(40)[:, None] < 10, [1 / 2, 1 / 2, 0], np.full(3, 1 / 3))
    np.testing.assert_allclose(bt.allocations.targets, expected, rtol=1e-12)


@ENGINES
def test_a_drift_of_exactly_the_threshold_triggers(engine):
    """`>=`, not `>` (rules 5.1): weights of 0.625 and 0.375 are 0.125 off their targets, in binary too."""
    close = pd.DataFrame([[1.0, 1.0], [2.5, 1.5], [2.5, 1.5]], INDEX[:3], ["A", "B"])
    for threshold, bars in ((0.125, 2), (np.nextafter(0.125, 1), 1)):
        bt = js.backtest(close, al.EqualWeight(), open=close, trigger=js.Threshold(threshold), freq="1D", engine=engine)
        assert bt.num_rebalances() == bars


@pytest.mark.slow  # not in the copies with a fault, where it would find it
def test_the_list_of_faults_is_not_stale():
    root = Path(js.__file__).parents[1]
    stale = [x.name for x in MUTANTS if (root / x.file).read_text().count(x.old) != 1]
    assert not stale, "the script would stop at these"


@pytest.mark.parametrize("schedule", [js.NextEvent(), js.Scan()])
def test_an_allocator_may_hand_out_an_array_of_nothing(close, schedule):
    def allocator(obs):
        return js.Allocation(jnp.full(3, 1 / 3), aux={"nothing": jnp.zeros(0)})

    bt = js.backtest(close, allocator, trigger=js.Threshold(0.02), schedule=schedule)
    assert bt.aux["nothing"].shape == (len(bt.allocations.bar), 0)
