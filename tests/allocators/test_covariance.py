"""Covariance estimators against scikit-learn, pandas, NumPy and exact fractions; gaps and padding."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.covariance import LedoitWolf

import allocators as al
import jaxsim as js
from allocators.spectral import excess, floor, null_projector, pseudo_inverse
from tests.helpers.markets import prices

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


# --- pairs of assets on the bars that both have


def exact(returns: np.ndarray) -> np.ndarray:
    """The pairwise covariance of these returns in fractions."""
    count = returns.shape[1]
    out = np.full((count, count), np.nan)
    for i, j in np.ndindex(count, count):
        common = ~np.isnan(returns[:, [i, j]]).any(1)
        if common.sum() < 2:
            continue
        a, b = ([Fraction(float(x)) for x in returns[common, k]] for k in (i, j))
        a, b = ([x - sum(y) / len(y) for x in y] for y in (a, b))
        out[i, j] = float(sum(x * y for x, y in zip(a, b, strict=True)) / (len(a) - 1))
    return out


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("seed", range(6))
def test_tiny_deviations_from_a_large_mean(kind, seed):
    """Means of 1e-2 with a deviation of 1e-9; where the seed is odd, another mean in the half that one asset lacks."""
    rng = np.random.default_rng(seed)
    returns = 1e-2 + 1e-9 * rng.normal(size=(BARS, ASSETS)) @ (np.eye(ASSETS) + 0.5 * rng.normal(size=(ASSETS, ASSETS)))
    if seed % 2:
        returns[: BARS // 2] -= 2e-2
    values = np.concatenate([np.ones((1, ASSETS)), 1 + returns]).cumprod(0)
    values[: BARS // 2 + 1, 0] = np.nan
    values[rng.random(values.shape) < 0.05] = np.nan
    expected = exact(values[1:] / values[:-1] - 1)
    with jax.enable_x64(True):
        found = np.asarray(js.Window(kind(values)).covariance())
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(found / np.outer(scale, scale), expected / np.outer(scale, scale), rtol=0, atol=1e-7)
    constant = js.Window(np.cumprod(np.full((30, 2), 1.5), 0)).covariance()
    np.testing.assert_array_equal(constant, 0.0)


def test_an_asset_listed_inside_the_window():
    """Its correlation is that of the bars that both have: 0.95 and not half as much."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(200, 1))
    moves = 0.01 * (common + 0.2 * rng.normal(size=(200, 2)))
    values = np.exp(moves.cumsum(0))
    values[:150, 1] = np.nan
    returns = pd.DataFrame(values).pct_change(fill_method=None).iloc[1:]
    sample = estimate(al.SampleCovariance(), values)
    np.testing.assert_allclose(sample, returns.cov(), rtol=1e-12)
    correlation = sample[0, 1] / np.sqrt(sample[0, 0] * sample[1, 1])
    assert correlation == pytest.approx(returns.iloc[150:].cov().iloc[0, 1] / np.sqrt(np.prod(returns.var())))
    assert correlation > 0.9
    last = returns.ewm(halflife=50.0).cov().to_numpy()[-2:]
    np.testing.assert_allclose(estimate(al.ExponentialCovariance(50.0), values), last, rtol=1e-10)
    shrunk = estimate(al.LedoitWolf(), values)
    count = np.array([[199, 49], [49, 49]])
    known = np.asarray(returns.cov()) * (count - 1) / count  # pandas takes no ddof where there are gaps
    target = np.trace(known) / 2
    intensity = 1 - shrunk[0, 1] / known[0, 1]
    np.testing.assert_allclose(shrunk, (1 - intensity) * known + intensity * target * np.eye(2), rtol=1e-10)
    assert 0 < intensity < 0.2


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("seed", range(5))
def test_windows_with_gaps_are_those_of_pandas(kind, seed):
    rng = np.random.default_rng(seed)
    values = closes(seed)[:20]
    values[rng.random(values.shape) < 0.25] = np.nan
    returns = pd.DataFrame(values).pct_change(fill_method=None).iloc[1:]
    weights = 0.5 ** (np.arange(19)[::-1] / 7.0)
    with jax.enable_x64(True):
        window = js.Window(kind(values))
        np.testing.assert_allclose(window.covariance(), returns.cov(min_periods=2), rtol=1e-10, atol=1e-18)
        found = np.asarray(window.covariance(weights=kind(weights)))
    expected = returns.ewm(halflife=7.0).cov().to_numpy()[-ASSETS:]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_a_pair_without_common_bars_has_no_covariance(estimator):
    values = closes(2)
    values[20:, 0], values[:20, 1] = np.nan, np.nan
    found = estimate(estimator, values)
    assert np.isfinite(found).all()
    assert np.linalg.eigvalsh(found).min() > -1e-15
    assert abs(found[0, 1]) < 0.2 * np.sqrt(found[0, 0] * found[1, 1])


# --- derivatives


def slope_along(function, matrix, change, weights, step=1e-5):
    with jax.enable_x64(True):
        score = lambda x: (weights * function(x)).sum()  # noqa: E731
        ends = [float(score(jnp.asarray(matrix + sign * step * change))) for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * step), float((jax.grad(score)(jnp.asarray(matrix)) * change).sum())


@pytest.mark.parametrize("seed", range(3))
def test_derivatives_at_equal_eigenvalues(seed):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    change, weights = rng.normal(size=(2, 5, 5))
    expected, found = slope_along(excess, basis @ np.diag([-1, -1, 2, 2, 2.0]) @ basis.T, change + change.T, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    root, move = basis[:, 2:] * np.sqrt(2.0), rng.normal(size=(5, 3))  # of rank 3, before and after
    for function in (null_projector, pseudo_inverse):
        of_root = lambda x, function=function: function(x @ x.T, floor(x @ x.T))  # noqa: E731
        expected, found = slope_along(of_root, root, move, weights)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_derivatives_by_prices_with_gaps(estimator):
    """Projected, in lanes beside one that is not; the second asset is a copy of the first."""
    rng = np.random.default_rng(1)
    values = np.stack([closes(seed)[:9] for seed in range(3)])
    values[:, :, 1] = values[:, :, 0]
    values[1][rng.random(values[1].shape) < 0.2] = np.nan
    values[2][:5, 1] = np.nan
    weights = rng.normal(size=(ASSETS, ASSETS))
    with jax.enable_x64(True):
        score = lambda x: 1e4 * jnp.nansum(weights * estimator(js.Window(x)))  # noqa: E731
        slopes = jax.jit(jax.vmap(jax.grad(score)))(values)
        assert np.isfinite(slopes).all()
        many = jax.jit(jax.vmap(score))
        for bar, asset in ((8, 2), (7, 4), (5, 3)):
            moved = np.zeros_like(values)
            moved[:, bar, asset] = 1e-4
            expected = (many(values + moved) - many(values - moved)) / 2e-4
            np.testing.assert_allclose(slopes[:, bar, asset], expected, rtol=1e-4, atol=1e-6)


def test_both_engines_with_an_asset_listed_inside_the_window():
    close, open_ = prices(0)
    close.iloc[:30, 1], open_.iloc[:30, 1] = np.nan, np.nan
    rest = dict(open=open_, trigger=js.Every("5D"), min_history=20)
    for estimator in ESTIMATORS:
        policy = al.RiskParity(covariance=estimator, lookback=20)
        bt, judge = (js.backtest(close, policy, engine=engine, **rest) for engine in ("compiled", "reference"))
        np.testing.assert_allclose(bt.allocations.weights, judge.allocations.weights, rtol=1e-9)
        np.testing.assert_allclose(bt.value, judge.value, rtol=1e-9)
