"""Portfolios on the frontier where a covariance is singular, a limit is missing, or none can be kept: against cvxpy."""

from functools import partial

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import AS_IT_STANDS, grouped, prices
from tests.helpers.marks import some_slow

ENGINES = ["compiled", "reference"]
INF = np.inf
BARS, ASSETS, PROBLEMS = 30, 5, 8


def closes(kind: str, seed: int = 0) -> np.ndarray:
    """[problem, time, asset]; "copies": two pairs of equal assets, "short": fewer bars than assets."""
    rng = np.random.default_rng(seed)
    bars = 4 if kind == "short" else BARS
    mix = np.eye(ASSETS) + 0.5 * rng.normal(size=(PROBLEMS, ASSETS, ASSETS))
    risk = 0.01 * np.exp(0.5 * rng.normal(size=(PROBLEMS, 1, ASSETS)))
    moves = risk * (rng.normal(size=(PROBLEMS, bars, ASSETS)) @ mix) + rng.normal(0.001, 0.002, (PROBLEMS, 1, ASSETS))
    if kind == "copies":
        moves[:, :, [1, 3]] = moves[:, :, [0, 2]]
    values = 100 * np.exp(moves.cumsum(1))
    return np.concatenate([np.full((PROBLEMS, BARS - bars, ASSETS), np.nan), values], axis=1)


def moments(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance in units of the mean variance."""
    returns = (values[1:] / values[:-1] - 1)[~np.isnan(values[:-1]).any(1)]
    mean, covariance = returns.mean(0), np.cov(returns, rowvar=False)
    if kind == "copies":
        mean[[1, 3]] = mean[[0, 2]]
    scale = np.trace(covariance) / ASSETS
    return mean / scale, covariance / scale


def observe(values, weights) -> js.Observation:
    zero = jnp.zeros(())
    return js.Observation(
        step=jnp.int32(len(values)), weights=weights, units=100 * weights, value=zero + 100, cash=zero,
        debt=jnp.zeros(ASSETS), free_cash=zero, val_price=values[-1], target=weights,
        tradable=~jnp.isnan(values).all(0), key=jax.random.key(0), features=None, closes=values,
    )  # fmt: skip


WEIGHTS = np.random.default_rng(3).dirichlet(np.ones(ASSETS), PROBLEMS)


@partial(jax.jit, compiler_options=AS_IT_STANDS)
def _answers(allocator, values, weights):
    return jax.vmap(lambda close, now: allocator(observe(close, now)).weights)(values, weights)


def solve(allocator, values, weights=WEIGHTS) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(_answers(allocator, jnp.asarray(values), jnp.asarray(weights)))


LIMITS = {
    "none": (al.Constraints(-INF, INF), lambda w, now: []),
    "long only": (al.Constraints(), lambda w, now: [w >= 0]),
    "half open": (al.Constraints(-0.2, INF), lambda w, now: [w >= -0.2]),
    "gross": (al.Constraints(-INF, INF, max_gross=1.6), lambda w, now: [cp.norm1(w) <= 1.6]),
    "no budget": (
        al.Constraints(-0.5, 0.5, budget=0.0, max_gross=1.6, groups={"a": [0, 1]}, group_lower=0.2),
        lambda w, now: [w >= -0.5, w <= 0.5, cp.norm1(w) <= 1.6, w[0] + w[1] >= 0.2],
    ),
    "turnover": (al.Constraints(-INF, INF, max_turnover=0.1), lambda w, now: [cp.norm1(w - now) <= 0.2]),
}
TIGHT = dict(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)


def peer(mean, covariance, limits, budget):
    """The value of the least `w' C w / 2 - mean . w`, and of such weights the nearest to equal ones; or the status."""
    value, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.where(value > 1e-12, value, 0))).T
    w = cp.Variable(ASSETS)
    program = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(root @ w) - mean @ w), [cp.sum(w) == budget, *limits(w)])
    program.solve(**TIGHT)
    if program.status not in ("optimal", "optimal_inaccurate"):
        return program.status, None
    best, near = w.value, cp.Variable(ASSETS)
    same = [root[value > 1e-12] @ (near - best) == 0] + ([mean @ (near - best) == 0] if mean.any() else [])
    nearest = cp.Problem(
        cp.Minimize(cp.sum_squares(near - budget / ASSETS)), [cp.sum(near) == budget, *limits(near), *same]
    )
    nearest.solve(solver=cp.CLARABEL)
    return program.value, best if near.value is None else near.value


@pytest.mark.parametrize("kind", some_slow(["full", "copies", "short"], ["full"]))
@pytest.mark.parametrize("name", LIMITS)
def test_the_best_weights_nearest_to_equal_ones(name, kind):
    constraints, limits = LIMITS[name]
    values = closes(kind)
    for aversion in (None, 5.0):
        allocator = al.MinimumVariance if aversion is None else partial(al.MeanVariance, aversion)
        found = solve(allocator(constraints, lookback=BARS), values)
        for k in range(PROBLEMS):
            mean, covariance = moments(values[k], kind)
            mean = 0 * mean if aversion is None else mean / aversion
            best, nearest = peer(mean, covariance, lambda w, k=k: limits(w, WEIGHTS[k]), float(constraints.budget))
            if best == "unbounded":
                assert (found[k] == INF).all()
                continue
            reached = found[k] @ covariance @ found[k] / 2 - mean @ found[k]
            assert abs(reached - best) < 1e-5
            # Where the objective does not tell, the peer itself is good to the root of its tolerance.
            np.testing.assert_allclose(found[k], nearest, atol=5e-3 if kind == "short" else 2e-6)


def test_copies_share_their_weight():
    values = closes("copies")
    for allocator in (al.MinimumVariance, partial(al.MeanVariance, 5.0), partial(al.MaximumSharpe, 0.0)):
        for limits in (al.Constraints(-5.0, 5.0), al.Constraints(-INF, INF), al.Constraints()):
            found = solve(allocator(limits, lookback=BARS), values)
            found = found[np.isfinite(found).all(1)]
            assert len(found) >= 4
            np.testing.assert_allclose(found[:, [1, 3]], found[:, [0, 2]], atol=1e-6)


def highest(mean, covariance, limits, budget) -> float:
    """The highest ratio by cvxpy, in y = k w; limits are those of y and k."""
    y, k = cp.Variable(ASSETS), cp.Variable()
    root, unit = np.linalg.cholesky(covariance + 1e-14 * np.eye(ASSETS)).T, mean / np.abs(mean).max()
    cons = [unit @ y == 1, cp.sum(y) == k * budget, k >= 0, *limits(y, k)]
    program = cp.Problem(cp.Minimize(cp.sum_squares(root @ y)), cons)
    program.solve(**TIGHT)
    return np.abs(mean).max() / np.sqrt(program.value), float(k.value)


RATIOS = {
    "none": (al.Constraints(-INF, INF), lambda y, k: []),
    "half open": (al.Constraints(-1.0, INF), lambda y, k: [y >= -k]),
    "gross": (al.Constraints(-INF, INF, max_gross=1.6), lambda y, k: [cp.norm1(y) <= 1.6 * k]),
    "no budget": (al.Constraints(-INF, INF, budget=0.0, max_gross=2.0), lambda y, k: [cp.norm1(y) <= 2 * k]),
}


@pytest.mark.parametrize("name", RATIOS)
def test_the_highest_ratio(name):
    constraints, limits = RATIOS[name]
    values, checked = closes("full", 1), 0
    found = solve(al.MaximumSharpe(0.0, constraints, lookback=BARS), values)
    for k, weights in enumerate(found):
        mean, covariance = moments(values[k], "full")
        best, size = highest(mean, covariance, limits, float(constraints.budget))
        if size < 1e-6:  # larger weights have always a higher ratio
            assert (weights == INF).all()
            continue
        assert mean @ weights / np.sqrt(weights @ covariance @ weights) == pytest.approx(best, rel=1e-5)
        checked += 1
        if name == "no budget":  # its ratio does not depend on its size: the largest
            assert np.abs(weights).sum() == pytest.approx(2.0, abs=1e-5)
    assert checked >= 3


REFUSED = [
    (al.MinimumVariance(al.Constraints(0.0, 0.1), lookback=20), "no weights keep to all limits"),
    (al.MinimumVariance(al.Constraints(-1.0, 1.0, max_gross=0.5), lookback=20), "no weights keep to all limits"),
    (al.MaximumSharpe(0.0, al.Constraints(-INF, INF, budget=0.0), lookback=20), "the problem is unbounded"),
    (al.MeanVariance(1.0, al.Constraints(-INF, INF), lookback=3), "the problem is unbounded"),
]


@pytest.mark.parametrize("engine", some_slow(ENGINES, ["compiled"]))
@pytest.mark.parametrize(("allocator", "message"), REFUSED)
def test_what_has_no_answer_is_refused_by_name(allocator, message, engine):
    close, open_ = prices(0)
    with pytest.raises(js.AllocationError, match=rf"^{message}.*bar 20, 2021-01-24"):
        js.backtest(close, allocator, open=open_, min_history=20, engine=engine)


def test_refused_in_a_plan_and_beside_lanes_that_are_not():
    close, open_ = prices(0)
    with pytest.raises(js.AllocationError, match=r"^allocator MinimumVariance: no weights keep to all limits"):
        js.optimize(close, al.MinimumVariance(al.Constraints(0.0, 0.1)), every="10D", lookback=20)
    limits = al.Constraints(-INF, INF, max_gross=js.grid(gross=[0.9, 1.5, 9.0]))
    with pytest.raises(js.AllocationError, match=r"^no weights keep to all limits.*gross=0\.9"):
        js.backtest(close, al.MinimumVariance(limits, lookback=20), open=open_, min_history=20)


def test_groups_by_asset_name():
    close, open_ = prices(0)
    rest = dict(open=open_, trigger=js.Every("20D"), min_history=20)

    def weights(groups, **more):
        limits = al.Constraints(groups=groups, group_upper={"x": 0.3})
        return js.backtest(close, al.MinimumVariance(limits, lookback=20), **rest, **more).allocations.weights

    by_number = weights({"x": [0, 2]})
    np.testing.assert_allclose(by_number[["A", "C"]].sum(axis=1), 0.3, atol=1e-6)
    forms = [
        {"x": ["A", "C"]},
        {"A": "x", "C": "x"},
        pd.Series({"C": "x", "A": "x"}),
        {"x": pd.Series({"C": 1.0, "A": 1})},
        pd.DataFrame([[1, 1, 0]], ["x"], ["C", "A", "B"]),
    ]
    for groups in forms:
        pd.testing.assert_frame_equal(weights(groups), by_number)
    np.testing.assert_allclose(weights(forms[0], engine="reference"), by_number, atol=1e-7)
    with pytest.raises(ValueError, match=r"^groups: there is no asset 'Z' among 'A', 'B', 'C'"):
        weights({"x": ["A", "Z"]})
    with pytest.raises(ValueError, match=r"^groups: names of assets are found among the columns"):
        limits = al.Constraints(groups=forms[0], group_upper=0.3)
        al.MinimumVariance(limits, lookback=BARS)(observe(jnp.asarray(closes("full")[0]), jnp.zeros(ASSETS)))


@pytest.mark.slow
def test_groups_by_asset_name_in_groups_that_share_cash():
    """Each finds its own assets: "bank" has no A."""
    close, open_ = grouped(1)
    limits = al.Constraints(groups={"x": ["A", "D"]}, group_upper=0.3)
    bt = js.backtest(close, al.MinimumVariance(limits, lookback=20), open=open_, min_history=20)
    weights = bt.allocations.weights
    assert weights.loc["tech"]["A"].max() <= 0.3 + 1e-6
    assert weights.loc["bank"]["D"].max() <= 0.3 + 1e-6


def test_a_flat_account_has_no_cap_on_its_trades():
    """Weights of 300 times the account, which the first purchase may reach, and later ones not."""
    values = closes("full")
    limits = al.Constraints(-INF, INF, groups=[[1, 0, 0, 0, 0]], group_lower=300.0, max_turnover=0.2)
    free = al.Constraints(-INF, INF, groups=[[1, 0, 0, 0, 0]], group_lower=300.0)
    flat = solve(al.MinimumVariance(limits, lookback=BARS), values, 0 * WEIGHTS)
    assert (flat[:, 0] > 299.99).all()
    np.testing.assert_allclose(flat, solve(al.MinimumVariance(free, lookback=BARS), values), rtol=1e-6)
    assert np.isnan(solve(al.MinimumVariance(limits, lookback=BARS), values)).all()


@pytest.mark.parametrize("kind", some_slow(["copies", "short"], ["short"]))
def test_derivatives_on_singular_covariances_are_finite(kind):
    values = closes(kind)[:3]
    parts = jnp.arange(1.0, ASSETS + 1)
    for limits in (al.Constraints(-INF, INF), al.Constraints(max_gross=1.5)):
        with jax.enable_x64(True):
            score = lambda close, now: al.MinimumVariance(limits, lookback=BARS)(observe(close, now)).weights @ parts  # noqa: B023, E731
            slopes = jax.jit(jax.vmap(jax.grad(score)), compiler_options=AS_IT_STANDS)(values, WEIGHTS[:3])
        assert np.isfinite(slopes).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_exponentiated_gradient_at_any_rate(engine):
    """The weight of an asset that is listed late or falls behind is no number any more, but a logarithm."""
    close, open_ = prices(0)
    close.iloc[:20, 2], open_.iloc[:20, 2] = np.nan, np.nan
    etas = [0.3, 1e3, 1e5]
    policy = al.ExponentiatedGradient(js.grid(eta=etas))
    bt = js.backtest(close, policy, open=open_, trigger=js.Always(), engine=engine)
    relative = (open_ / open_.shift()).fillna(1.0).to_numpy()
    tradable = open_.ffill().notna().to_numpy()
    for eta in etas:
        logs, targets = np.zeros(3), bt[eta].allocations.weights.to_numpy()
        for x, is_listed, target in zip(relative, tradable, targets, strict=True):
            share = np.exp(logs - logs.max())
            logs = logs + eta * x / (share / share.sum() @ x)
            part = np.where(is_listed, np.exp(np.minimum(logs - logs[is_listed].max(), 0.0)), 0.0)
            np.testing.assert_allclose(target, part / part.sum(), rtol=1e-7, atol=1e-12)
