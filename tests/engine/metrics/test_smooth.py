"""Metrics that are differentiable everywhere: values, bounds, and derivatives beside differences, at ties too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsim import metrics

SMOOTH = {
    "log_growth": {"ann_factor": 252.0},
    "expected_shortfall": {"cutoff": 0.2},
    "smooth_drawdown": {},
}
RANDOM = np.random.default_rng(0).normal(0.0005, 0.01, 40)
CASES = {
    "random": RANDOM,
    "two worst tie": np.where(np.isin(np.arange(40), np.argsort(RANDOM)[[0, 7, 8]]), RANDOM.min(), RANDOM),
    "two peaks tie": np.array([0.1, -0.05, 1 / 0.95 - 1, -0.05, 1 / 0.95 - 1, -0.02]),
    "all equal": np.full(12, 0.001),
    "idle": np.zeros(12),
    "all is lost": np.array([0.01, -1.0, 0.0, -1.3, 0.02, 0.0]),
    "holes": np.where(np.arange(40) % 7 == 3, np.nan, RANDOM),
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_everywhere(name, case):
    returns, score = CASES[case], lambda x: getattr(metrics, name)(x, **SMOOTH[name])
    slope = np.asarray(jax.grad(lambda x: score(x))(jnp.asarray(returns)))
    moves = 1e-7 * np.eye(len(returns))
    with np.errstate(invalid="ignore"):
        difference = (score((returns + moves).T) - score((returns - moves).T)) / 2e-7
    known = ~np.isnan(returns)
    np.testing.assert_allclose(slope[known], difference[known], rtol=1e-4, atol=1e-6 * np.abs(slope[known]).max())
    assert (slope[~known] == 0).all()
    np.testing.assert_allclose(score(jnp.asarray(returns)), score(returns), rtol=1e-12, atol=1e-15)


def test_values_and_bounds():
    known = RANDOM[~np.isnan(RANDOM)]
    assert metrics.log_growth(RANDOM, ann_factor=10) == pytest.approx(10 * np.log1p(known).mean(), rel=1e-12)
    entropy = -0.2 * np.log(0.2) - 0.8 * np.log(0.8)
    worst = np.sort(RANDOM)[:8].mean()  # a fifth of 40
    for smoothing in (1e-3, 1e-5):
        shortfall = metrics.expected_shortfall(RANDOM, cutoff=0.2, smoothing=smoothing)
        assert 0 <= shortfall - worst + 1e-15 <= smoothing * entropy / 0.2 + 1e-15
    assert metrics.expected_shortfall(CASES["all equal"]) == pytest.approx(0.001, rel=1e-9)
    assert metrics.expected_shortfall(CASES["idle"]) == pytest.approx(0, abs=1e-15)
    opened = np.concatenate([[0.0], RANDOM])  # the opening value is a peak as well
    deepest = np.log1p(metrics.max_drawdown(opened))
    for smoothing in (1e-3, 1e-5):
        depth = np.log1p(metrics.smooth_drawdown(RANDOM, smoothing=smoothing))
        assert 0 <= deepest - depth <= 2 * smoothing * np.log(41)
    lanes = np.stack([RANDOM, CASES["holes"], np.full(40, np.nan)], axis=1)
    shortfalls = metrics.expected_shortfall(lanes)
    assert shortfalls[0] == pytest.approx(metrics.expected_shortfall(RANDOM)) and np.isnan(shortfalls[2])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("expected_shortfall", {"cutoff": 1.0}, "cutoff: expected a finite number > 0 and < 1"),
        ("expected_shortfall", {"smoothing": 0.0}, "smoothing: expected a finite number > 0"),
        ("smooth_drawdown", {"smoothing": -1.0}, "smoothing: expected a finite number > 0"),
    ],
)
def test_settings_that_make_no_sense(name, settings, message):
    with pytest.raises(ValueError, match=rf"^{message}"):
        getattr(metrics, name)(RANDOM, **settings)
