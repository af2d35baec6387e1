"""Covariance estimators against scikit-learn, pandas and NumPy; gaps and padding."""

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.covariance import LedoitWolf

import allocators as al
import jaxsim as js

BARS, ASSETS = 40, 5
ESTIMATORS = [al.SampleCovariance(), al.LedoitWolf(), al.ExponentialCovariance(10.0)]


def closes(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mix = np.eye(ASSETS) + rng.normal(0, 0.5, (ASSETS, ASSETS))
    return 100 * np.exp((0.02 * rng.normal(size=(BARS, ASSETS)) @ mix).cumsum(0))


def estimate(estimator, values) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(estimator(js.Window(jax.numpy.asarray(values))))


@pytest.mark.parametrize("seed", range(20))
def test_against_peers(seed):
    values = closes(seed)
    returns = values[1:] / values[:-1] - 1
    np.testing.assert_allclose(estimate(ESTIMATORS[0], values), np.cov(returns, rowvar=False), rtol=1e-10)
    shrunk = LedoitWolf().fit(returns).covariance_
    np.testing.assert_allclose(estimate(ESTIMATORS[1], values), shrunk, rtol=1e-10, atol=1e-16)
    last = pd.DataFrame(returns).ewm(halflife=10.0).cov().to_numpy()[-ASSETS:]
    np.testing.assert_allclose(estimate(ESTIMATORS[2], values), last, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("shape", [(4, ASSETS), (BARS, 1)])
def test_ledoit_wolf_with_few_bars_or_one_asset(shape):
    values = closes(3)[: shape[0], : shape[1]]
    expected = LedoitWolf().fit(values[1:] / values[:-1] - 1).covariance_
    np.testing.assert_allclose(estimate(al.LedoitWolf(), values), expected, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_padding_and_unlisted_assets_change_nothing(estimator):
    values = closes(1)
    expected = estimate(estimator, values)
    padded = np.concatenate([np.full((25, ASSETS), np.nan), values])
    np.testing.assert_allclose(estimate(estimator, padded), expected, rtol=1e-12, atol=1e-18)
    wide = np.concatenate([values, np.full((BARS, 1), np.nan)], axis=1)
    wide[-2:, -1] = 5.0  # one return is not enough
    found = estimate(estimator, wide)
    np.testing.assert_allclose(found[:-1, :-1], expected, rtol=1e-12, atol=1e-18)
    assert np.isnan(found[-1]).all()
    assert np.isnan(found[:, -1]).all()


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_gaps_leave_it_positive_semidefinite(estimator):
    """Where the pairwise-complete covariance is not: variances are those of the known returns."""
    rng = np.random.default_rng(0)
    indefinite = 0
    for seed in range(20):
        values = closes(seed)[:8]
        values[rng.random(values.shape) < 0.2] = np.nan
        known = ~np.isnan(values[1:] / values[:-1])
        if (known.sum(0) < 2).any():
            continue
        found = estimate(estimator, values)
        assert np.linalg.eigvalsh(found).min() > -1e-12
        pairwise = estimate(lambda window: window.covariance(), values)
        if isinstance(estimator, al.SampleCovariance):
            np.testing.assert_allclose(np.diag(found), np.diag(pairwise), rtol=1e-10)
        indefinite += np.isnan(pairwise).any() or np.linalg.eigvalsh(pairwise).min() < -1e-9
    assert indefinite > 3
