"""The published tables, by simulating."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tools.outside_data import OutsideDataError, golden_file, load_binance, published_sharpe

try:
    OPEN, CLOSE = load_binance()
    UNIFORM, RANDOM = published_sharpe("uniform"), published_sharpe("random")
except OutsideDataError as error:
    pytest.skip(str(error), allow_module_level=True)

THRESHOLDS = pd.Index(np.arange(1, 16) / 100, name="threshold")
SETTINGS = {"open": OPEN, "fees": 0.005, "freq": "1h"}


@pytest.fixture(scope="module")
def uniform():
    return js.backtest(CLOSE, al.EqualWeight(), trigger=js.Threshold(THRESHOLDS), **SETTINGS)


@pytest.fixture(scope="module")
def random():
    """One generator shared by all lanes, lane after lane, as ordinary Python in the reference engine."""
    rng = np.random.RandomState(42)

    def allocate(obs):
        draws = rng.uniform(0, 1, obs.num_assets)
        return draws / draws.sum()

    return js.backtest(CLOSE, allocate, trigger=js.Threshold(THRESHOLDS), engine="reference", **SETTINGS)


def assert_published(sharpe: pd.Series, expected: pd.Series) -> None:
    np.testing.assert_allclose(sharpe.index, expected.index)
    assert (sharpe.round(6).to_numpy() == expected.to_numpy()).all()


def test_uniform_sharpe_compiled(uniform):
    assert_published(uniform.sharpe_ratio(), UNIFORM)


def test_uniform_sharpe_reference():
    bt = js.backtest(CLOSE, al.EqualWeight(), trigger=js.Threshold(THRESHOLDS), engine="reference", **SETTINGS)
    assert_published(bt.sharpe_ratio(), UNIFORM)


def test_uniform_sharpe_of_the_pure_metric(uniform):
    with jax.enable_x64(True):
        sharpe = js.metrics.sharpe_ratio(jnp.asarray(uniform.returns.to_numpy()), ann_factor=8760)
    np.testing.assert_allclose(sharpe, UNIFORM, rtol=0, atol=5.1e-7)  # as many digits as published


def test_uniform_rebalances(uniform):
    expected = pd.DatetimeIndex(pd.read_csv(golden_file("uniform_rebalances_0.05.csv"))["timestamp"])
    assert list(uniform[0.05].rebalance_index) == list(expected)


def test_random_sharpe_and_allocations(random):
    assert_published(random.sharpe_ratio(), RANDOM)
    expected = pd.read_csv(golden_file("random_allocations_0.10_describe.csv"), index_col=0)
    described = random.allocations[0.1].weights.describe()
    np.testing.assert_array_equal(described.round(6).to_numpy(), expected.to_numpy())


def test_random_replayed_on_the_compiled_engine(random):
    again = js.replay(random.allocations, CLOSE, **SETTINGS)
    assert_published(again.sharpe_ratio(), RANDOM)
    pd.testing.assert_frame_equal(again.orders, random.orders, rtol=1e-9)
