"""Allocators that solve a problem, each against an independent solution of it."""

import subprocess
import sys
from functools import partial

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from pypfopt import EfficientFrontier, HRPOpt
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.optimize import minimize
from scipy.spatial.distance import pdist

import allocators as al
import jaxsim as js
from tests.helpers.markets import AS_IT_STANDS, INDEX, as_users_run_it, compilations, prices, with_holes

PROBLEMS, BARS, ASSETS = 100, 40, 5
ENGINES = ["compiled", "reference"]
GROUPS = {"first": [0, 1, 2], "last": [3, 4]}


def histories(num_assets: int = ASSETS, num_problems: int = PROBLEMS, seed: int = 0) -> np.ndarray:
    """Closes [problem, time, asset] of correlated assets of very different risk, some of them falling."""
    rng = np.random.default_rng(seed)
    mix = np.eye(num_assets) + rng.normal(0, 0.5, (num_problems, num_assets, num_assets))
    risk = np.exp(rng.normal(0, 0.5, (num_problems, 1, num_assets)))
    drift = rng.normal(0.001, 0.002, (num_problems, 1, num_assets))
    moves = 0.01 * risk * (rng.normal(0, 1, (num_problems, BARS, num_assets)) @ mix) + drift
    return 100 * np.exp(moves.cumsum(1))


CLOSES = histories()
RETURNS = CLOSES[:, 1:] / CLOSES[:, :-1] - 1
MEANS, COVARIANCES = RETURNS.mean(1), np.array([np.cov(r, rowvar=False) for r in RETURNS])
WEIGHTS = np.random.default_rng(3).dirichlet(np.ones(ASSETS), PROBLEMS)


def observe(closes, weights=None, key=None) -> js.Observation:
    """What is seen after the last of `closes`, nothing held unless there are weights."""
    closes = jnp.asarray(closes)
    count, last, zero = closes.shape[1], closes[-1], jnp.zeros(())
    weights = jnp.zeros(count) if weights is None else jnp.asarray(weights)
    return js.Observation(
        step=jnp.int32(len(closes)),
        weights=weights,
        units=100 * weights,
        value=zero + 100,
        cash=zero,
        debt=jnp.zeros(count),
        free_cash=zero,
        val_price=last,
        target=weights,
        tradable=~jnp.isnan(closes).all(0),
        key=jax.random.key(0) if key is None else key,
        features=None,
        closes=closes,
    )


@partial(jax.jit, compiler_options=AS_IT_STANDS)
def _answers(allocator, closes, weights):
    return jax.vmap(lambda close, now: allocator(observe(close, now)).weights)(closes, weights)


def solve(allocator, closes=CLOSES, weights=None) -> np.ndarray:
    """The answers to all problems, [problem, asset], in one program for each kind of allocator."""
    with jax.enable_x64(True):
        weights = np.zeros((len(closes), closes.shape[2])) if weights is None else weights
        return np.asarray(_answers(allocator, closes, weights))


# --- quadratic programs against cvxpy with Clarabel


def peer(objective, limits=(lambda w, k: [w >= 0]), budget=1.0) -> np.ndarray:
    found = []
    for k in range(PROBLEMS):
        w = cp.Variable(ASSETS)
        problem = cp.Problem(cp.Minimize(objective(w, k)), [cp.sum(w) == budget, *limits(w, k)])
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        found.append(w.value)
    return np.array(found)


def risk(w, k):
    """Half the variance, in units of one."""
    return 0.5e4 * cp.sum_squares(np.linalg.cholesky(COVARIANCES[k]).T @ w)


def utility(w, k, aversion=5.0):
    return aversion * risk(w, k) - 1e4 * (MEANS[k] @ w)


UPPER = np.array([0.5, 0.3, 0.3, 0.6, 0.4])
LIMITS = {
    "long only": (al.Constraints(), lambda w, k: [w >= 0]),
    "box": (al.Constraints([-0.1, 0.05, 0, 0, 0.1], UPPER), lambda w, k: [w >= [-0.1, 0.05, 0, 0, 0.1], w <= UPPER]),
    "groups": (
        al.Constraints(groups=GROUPS, group_lower={"last": 0.4}, group_upper=[0.55, 0.7]),
        lambda w, k: [w >= 0, w[:3].sum() <= 0.55, w[3:].sum() >= 0.4, w[3:].sum() <= 0.7],
    ),
    "turnover": (
        al.Constraints(0.0, 0.6, max_turnover=0.3),
        lambda w, k: [w >= 0, w <= 0.6, cp.norm1(w - WEIGHTS[k]) <= 0.6],
    ),
    "fixed": (  # sets without an interior: one weight and one group have no choice
        al.Constraints([0.2, 0, 0, 0, 0], [0.2, 1, 1, 1, 1], groups=GROUPS, group_lower=[0.5, 0.0], group_upper=0.5),
        lambda w, k: [w >= 0, w[0] == 0.2, w[:3].sum() == 0.5],
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_minimum_variance(name):
    constraints, limits = LIMITS[name]
    found = solve(al.MinimumVariance(constraints, lookback=BARS), weights=WEIGHTS)
    budget = float(constraints.budget)
    expected = peer(risk, limits, budget)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    variance = np.einsum("ki,kij,kj->k", found, COVARIANCES, found)
    np.testing.assert_allclose(variance, np.einsum("ki,kij,kj->k", expected, COVARIANCES, expected), rtol=1e-6)
    np.testing.assert_allclose(found.sum(1), budget, atol=1e-6)


@pytest.mark.parametrize("name", ["long only", "turnover"])
def test_mean_variance(name):
    constraints, limits = LIMITS[name]
    found = solve(al.MeanVariance(5.0, constraints, lookback=BARS), weights=WEIGHTS)
    expected = peer(utility, limits, float(constraints.budget))
    np.testing.assert_allclose(found, expected, atol=1e-5)

    def value(w):
        return 2.5 * np.einsum("ki,kij,kj->k", w, COVARIANCES, w) - (MEANS * w).sum(1)

    np.testing.assert_allclose(value(found), value(expected), rtol=1e-6, atol=1e-10)


def sharpe(w, risk_free=0.0):
    return ((MEANS - risk_free) * w).sum(1) / np.sqrt(np.einsum("ki,kij,kj->k", w, COVARIANCES, w))


def highest_sharpe(limits, risk_free) -> np.ndarray:
    """By SLSQP from several starts, on the ratio itself; NaN where none is positive."""
    best = np.full(PROBLEMS, np.nan)
    for k in range(PROBLEMS):
        excess, covariance = MEANS[k] - risk_free, COVARIANCES[k]

        def loss(w, excess=excess, covariance=covariance):
            w = w / w.sum()
            marginal = covariance @ w
            sigma = np.sqrt(w @ marginal)
            ratio = excess @ w / sigma
            return -ratio, -(excess - ratio * marginal / sigma) / sigma

        def slope(w, loss=loss):
            return loss(w)[1] - loss(w)[1] @ w

        found = minimize(
            lambda w, loss=loss: loss(w)[0], WEIGHTS[k], jac=slope, bounds=limits["bounds"], method="SLSQP",
            constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(ASSETS)},
                         *limits["more"](k)],
            options={"ftol": 1e-15, "maxiter": 500},
        )  # fmt: skip
        best[k] = -found.fun
    return best


SHARPE_LIMITS = {
    "long only": (al.Constraints(), {"bounds": [(0, 1)] * ASSETS, "more": lambda k: []}),
    "groups": (
        al.Constraints(0.0, 0.5, groups=[[1, 1, 1, 0, 0]], group_lower=0.3, group_upper=0.6),
        {
            "bounds": [(0, 0.5)] * ASSETS,
            "more": lambda k: [
                {"type": "ineq", "fun": lambda w: w[:3].sum() - 0.3},
                {"type": "ineq", "fun": lambda w: 0.6 - w[:3].sum()},
            ],
        },
    ),
}


@pytest.mark.parametrize("name", SHARPE_LIMITS)
def test_maximum_sharpe(name):
    """Never worse than a local search on the ratio itself, and not better than what the limits allow."""
    constraints, limits = SHARPE_LIMITS[name]
    found = solve(al.MaximumSharpe(0.0001, constraints, lookback=BARS))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert (found >= 0).all()
    best, ours = highest_sharpe(limits, 0.0001), sharpe(found, 0.0001)
    known = best > 1e-3
    assert known.sum() > 80
    assert (ours[known] >= best[known] * (1 - 1e-6)).all()
    if name == "groups":
        assert (found <= 0.5).all()
        group = found[:, :3].sum(1)
        assert ((group > 0.3 - 1e-6) & (group < 0.6 + 1e-6)).all()


def test_maximum_sharpe_is_that_of_pyportfolioopt():
    found = solve(al.MaximumSharpe(lookback=BARS))
    checked = 0
    for k in np.flatnonzero(MEANS.max(1) > 2e-4)[:30]:
        frontier = EfficientFrontier(MEANS[k], COVARIANCES[k], solver="CLARABEL")
        frontier.max_sharpe(risk_free_rate=0.0)
        np.testing.assert_allclose(found[k], frontier.weights, atol=1e-4)
        checked += 1
    assert checked == 30


def test_maximum_sharpe_under_turnover():
    """It keeps to the cap, and no random portfolio within the cap is better."""
    found = solve(al.MaximumSharpe(0.0, al.Constraints(max_turnover=0.2), lookback=BARS), weights=WEIGHTS)
    assert (np.abs(found - WEIGHTS).sum(1) / 2 <= 0.2 + 1e-6).all()
    rng = np.random.default_rng(0)
    ours = sharpe(found)
    for near in (0.02, 0.1, 0.3):
        for _ in range(300):
            start = found if near == 0.02 else WEIGHTS
            other = start + near * (rng.dirichlet(np.ones(ASSETS), PROBLEMS) - start)
            allowed = (np.abs(other - WEIGHTS).sum(1) / 2 <= 0.2) & (ours > 1e-6)
            assert (sharpe(other)[allowed] <= ours[allowed] * (1 + 1e-6)).all()


def test_maximum_sharpe_without_a_gain_is_minimum_variance():
    calm = solve(al.MinimumVariance(lookback=BARS))
    np.testing.assert_allclose(solve(al.MaximumSharpe(1.0, lookback=BARS)), calm, atol=1e-6)
    # one asset has a gain, but it may not be held in such size that the portfolio has one
    closes = CLOSES.copy()
    closes[:, :, 0] = 100 * 1.0005 ** np.arange(BARS) * np.exp(0.001 * np.sin(np.arange(BARS)))
    closes[:, :, 1:] *= 0.98 ** np.arange(BARS)[:, None]
    limits = al.Constraints(0.0, [0.05, 1, 1, 1, 1])
    found = solve(al.MaximumSharpe(0.0, limits, lookback=BARS), closes)
    np.testing.assert_allclose(found, solve(al.MinimumVariance(limits, lookback=BARS), closes), atol=1e-6)


def test_no_weights_keep_to_the_limits():
    limits = al.Constraints(0.0, 0.1)
    for allocator in (al.MinimumVariance(limits, lookback=BARS), al.MaximumSharpe(0.0, limits, lookback=BARS)):
        assert np.isnan(solve(allocator)).all()
    close, open_ = prices(0)
    caps = js.grid(upper=[0.2, 0.5])
    with pytest.raises(js.AllocationError, match=r"upper=0\.2.*bar 20, 2021-01-24"):
        js.backtest(close, al.MinimumVariance(al.Constraints(0.0, caps), lookback=20), open=open_, min_history=20)


# --- risk parity


def test_risk_parity_has_equal_contributions():
    for count in (ASSETS, 30):
        closes = CLOSES if count == ASSETS else histories(count, 20)
        found = solve(al.RiskParity(lookback=BARS), closes)
        for k, weights in enumerate(found):
            covariance = np.cov(closes[k, 1:] / closes[k, :-1] - 1, rowvar=False)
            share = weights * (covariance @ weights)
            np.testing.assert_allclose(share / share.sum(), 1 / count, rtol=1e-9)
    assert (found > 0).all()
    with jax.enable_x64(True):
        np.testing.assert_allclose(al.risk_contributions(weights, covariance), share / share.sum(), rtol=1e-12)


def test_risk_parity_with_budgets_is_the_convex_problem():
    budgets = np.array([4.0, 1.0, 1.0, 2.0, 0.5])
    found = solve(al.RiskParity(budgets, lookback=BARS))
    for k in range(PROBLEMS):
        y = cp.Variable(ASSETS)
        problem = cp.Problem(cp.Minimize(risk(y, k) - (budgets / budgets.sum()) @ cp.log(y)))
        problem.solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(found[k], y.value / y.value.sum(), atol=1e-4)
        share = found[k] * (COVARIANCES[k] @ found[k])
        np.testing.assert_allclose(share / share.sum(), budgets / budgets.sum(), rtol=1e-9)


def test_inverse_volatility():
    volatility = RETURNS.std(1, ddof=1)
    expected = (1 / volatility) / (1 / volatility).sum(1, keepdims=True)
    np.testing.assert_allclose(solve(al.InverseVolatility(lookback=BARS)), expected, rtol=1e-12)


# --- hierarchical risk parity


@pytest.mark.parametrize("count", [ASSETS, pytest.param(12, marks=pytest.mark.slow)])
def test_hierarchical_risk_parity_is_that_of_pyportfolioopt(count):
    closes = CLOSES if count == ASSETS else histories(count, seed=1)
    found = solve(al.HierarchicalRiskParity("correlation", lookback=BARS), closes)
    names = [f"{n:02d}" for n in range(count)]
    for k in range(PROBLEMS):
        weights = HRPOpt(pd.DataFrame(closes[k, 1:] / closes[k, :-1] - 1, columns=names)).optimize()
        np.testing.assert_allclose(found[k], [weights[name] for name in names], rtol=1e-9)


def bisected(covariance: np.ndarray) -> np.ndarray:
    """The paper, with SciPy's tree: distances of the columns of distances."""
    sigma = np.sqrt(np.diag(covariance))
    distance = np.sqrt(np.clip((1 - covariance / np.outer(sigma, sigma)) / 2, 0, 1))
    order = list(leaves_list(linkage(pdist(distance), "single")))
    weights, parts = np.ones(len(sigma)), [order]

    def variance(part):
        inner = covariance[np.ix_(part, part)]
        w = 1 / np.diag(inner)
        return w @ inner @ w / w.sum() ** 2

    while parts:
        parts = [half for p in parts if len(p) > 1 for half in (p[: len(p) // 2], p[len(p) // 2 :])]
        for left, right in zip(parts[::2], parts[1::2], strict=True):
            share = 1 - variance(left) / (variance(left) + variance(right))
            weights[left] *= share
            weights[right] *= 1 - share
    return weights


def test_hierarchical_risk_parity_of_the_paper():
    found = solve(al.HierarchicalRiskParity(lookback=BARS))
    np.testing.assert_allclose(found, [bisected(c) for c in COVARIANCES], rtol=1e-9)


# --- random search


def searched(closes, num_tests, key, ann_factor=8760) -> np.ndarray:
    """The tutorial's function, given the documented draws."""
    returns = (closes[1:] - closes[:-1]) / closes[:-1]
    mean, covariance = returns.mean(0), np.cov(returns, rowvar=False)
    best, weights = -np.inf, np.full(closes.shape[1], np.nan)
    blocks = [
        jax.random.uniform(jax.random.fold_in(key, b), (32, len(mean)), jnp.float32) for b in range(-(-num_tests // 32))
    ]
    for u in np.concatenate(blocks).astype(np.float64)[:num_tests]:
        w = u / np.sum(u)
        ratio = np.sum(mean * w) * ann_factor / (np.sqrt(np.dot(w.T, np.dot(covariance, w))) * np.sqrt(ann_factor))
        if ratio > best:
            best, weights = ratio, w
    return weights


def test_random_search_is_the_tutorials_given_the_draws():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(1), PROBLEMS)
        tests = np.tile([1.0, 30.0, 50.0, 100.0], PROBLEMS // 4)
        allocators = jax.vmap(lambda n: al.RandomSearchSharpe(n, 8760.0, lookback=BARS))(tests)
        found = jax.jit(jax.vmap(lambda a, close, key: a(observe(close, key=key)).weights))(allocators, CLOSES, keys)
        for k in range(PROBLEMS):
            np.testing.assert_allclose(found[k], searched(CLOSES[k], int(tests[k]), keys[k]), rtol=1e-12)


@pytest.mark.parametrize("num_searches", [3, 9])
@pytest.mark.parametrize("share_a_window", [True, False])
def test_random_searches_of_any_lengths_within_a_vmap(share_a_window, num_searches):
    """A few in one window are made one after the other, all others side by side."""
    tests = np.resize([1.0, 33.0, 100.0], num_searches)
    windows = CLOSES[: 2 * num_searches].reshape(2, num_searches, *CLOSES.shape[1:])

    def weights(close, num_tests, key):
        return al.RandomSearchSharpe(num_tests, 8760.0, lookback=BARS)(observe(close, key=key)).weights

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(1), (2, num_searches))
        of_window = jax.vmap(weights, (None if share_a_window else 0, 0, 0))
        closes = windows[:, 0] if share_a_window else windows
        found = jax.jit(jax.vmap(of_window, (0, None, 0)))(closes, tests, keys)
        for i, k in np.ndindex(2, num_searches):
            close = closes[i] if share_a_window else closes[i, k]
            np.testing.assert_allclose(found[i, k], searched(close, int(tests[k]), keys[i, k]), rtol=1e-12)


@pytest.mark.parametrize("engine", [pytest.param("compiled", marks=pytest.mark.slow), "reference"])
def test_random_search_draws_the_same_beside_any_lanes(engine):
    close, open_ = prices(0)
    rest = dict(open=open_, trigger=js.Threshold(0.05), min_history=20, engine=engine, key=3)
    many = js.backtest(close, al.RandomSearchSharpe(js.grid(num_tests=[30, 50, 100]), lookback=20), **rest)
    alone = js.backtest(close, al.RandomSearchSharpe(js.grid(num_tests=[30]), lookback=20), **rest)
    np.testing.assert_allclose(many[30].value, alone[30].value, rtol=1e-12)
    np.testing.assert_array_equal(many[30].rebalances, alone[30].rebalances)
    other = js.backtest(close, al.RandomSearchSharpe(30, 252, lookback=20), **rest)  # another key: no label
    bar = int(other.allocations.bar[1])
    with jax.enable_x64(True):
        key = jax.random.fold_in(jax.random.key(3), bar)
        expected = searched(close.to_numpy()[bar - 20 : bar], 30, key)
    np.testing.assert_allclose(other.allocations.targets[1], expected, rtol=1e-12)


# --- momentum, exponentiated gradient


def test_momentum():
    total = CLOSES[:, -1] / CLOSES[:, 0] - 1
    found = solve(al.Momentum(top=2, lookback=BARS))
    expected = np.zeros_like(total)
    np.put_along_axis(expected, np.argsort(-total, 1)[:, :2], 0.5, 1)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(solve(al.Momentum(top=9, lookback=BARS)), 1 / ASSETS)
    part = np.exp(total / 0.1)
    found = solve(al.Momentum(temperature=0.1, lookback=BARS))
    np.testing.assert_allclose(found, part / part.sum(1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(solve(al.Momentum(temperature=1e-9, lookback=BARS)).max(1), 1.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_exponentiated_gradient_is_the_update_of_helmbold(engine):
    close, open_ = prices(0)
    bt = js.backtest(close, al.ExponentiatedGradient(js.grid(eta=[0.0, 0.3])), open=open_, trigger=js.Always(),
                     engine=engine)  # fmt: skip
    np.testing.assert_allclose(bt[0.0].allocations.targets, 1 / 3, rtol=1e-12)
    weights, expected = np.full(3, 1 / 3), [np.full(3, 1 / 3)]
    relatives = (open_ / open_.shift()).to_numpy()[1:]
    for x in relatives:
        weights = weights * np.exp(0.3 * x / (weights @ x))
        weights = weights / weights.sum()
        expected.append(weights)
    np.testing.assert_allclose(bt[0.3].allocations.targets, expected, rtol=1e-10)


# --- in the library


POLICIES = [
    al.MinimumVariance(al.Constraints(0.0, js.grid(upper=[0.5, 1.0]), max_turnover=0.2), lookback=20),
    al.MaximumSharpe(js.grid(risk_free=[0.0, 0.001]), al.Constraints(pd.Series([0.0, 0.1, 0.2], list("CBA"))),
                     lookback=20),
    al.RiskParity(covariance=al.ExponentialCovariance(js.grid(halflife=[5.0, 50.0])), lookback=20),
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_both_engines_and_swept_fields(policy):
    close, open_ = with_holes(*prices(0))
    rest = dict(open=open_, trigger=js.Threshold(0.1), min_history=22)
    bt, judge = (js.backtest(close, policy, engine=engine, **rest) for engine in ENGINES)
    np.testing.assert_array_equal(bt.rebalances, judge.rebalances)
    np.testing.assert_allclose(bt.allocations.targets, judge.allocations.targets, atol=1e-7)
    np.testing.assert_allclose(bt.value, judge.value, rtol=1e-6)
    if bt.value.ndim == 2:  # what is swept makes a difference
        assert (np.abs(bt.value.iloc[:, 0] / bt.value.iloc[:, 1] - 1).max()) > 1e-4
    if isinstance(policy, al.MaximumSharpe):  # the lower bounds went by label, not by position
        assert (bt.allocations.weights[["A", "B"]].iloc[1:] >= [0.2 - 1e-9, 0.1 - 1e-9]).all(axis=None)


def test_a_sweep_is_one_program():
    close, open_ = prices(0)

    def run(values):
        limits = al.Constraints(0.0, js.grid(upper=values))
        return js.backtest(close, al.MinimumVariance(limits, lookback=20), open=open_, min_history=20)

    run([0.5, 0.6])
    with compilations() as count:
        run([0.7, 0.8])
    assert count == [0]


# --- too little history


SHORT = [
    al.MinimumVariance(lookback=BARS),
    al.MaximumSharpe(lookback=BARS),
    al.RandomSearchSharpe(20, lookback=BARS),
    al.InverseVolatility(lookback=BARS),
    al.RiskParity(lookback=BARS),
    al.HierarchicalRiskParity(lookback=BARS),
    al.Momentum(top=2, lookback=BARS),
]
LISTED = [0, 2, 3]


@pytest.mark.parametrize("allocator", SHORT, ids=lambda a: type(a).__name__)
def test_assets_without_history(allocator):
    cases = np.stack([CLOSES[0]] * 7)
    cases[0][:, 1], cases[0][:, 4] = np.nan, 7.0  # never listed; never moved
    cases[1][:-2] = np.nan  # one return each
    cases[2][:] = 5.0  # nothing has moved
    cases[3][:] = np.nan
    cases[4][:, [0, 1, 2, 4]] = np.nan  # one asset alone
    cases[5][:30] = np.nan  # a padded range
    cases[6][:-2, 0] = np.nan  # one return of one asset
    found = solve(allocator, cases)
    within = found[0][LISTED]
    assert (found[0][[1, 4]] == 0).all()
    np.testing.assert_allclose(within.sum(), 1, atol=1e-6)
    np.testing.assert_allclose(found[1], 0.2)
    np.testing.assert_allclose(found[2], 0.2)
    assert (found[3] == 0).all()  # thrown away: left alone
    np.testing.assert_allclose(found[4], [0, 0, 0, 1, 0], atol=1e-7)
    assert found[6][0] == 0
    if isinstance(allocator, al.RandomSearchSharpe | al.MeanVariance | al.MaximumSharpe):
        return  # the first draws other portfolios of other assets, the others stand on what MinimumVariance does
    np.testing.assert_allclose(solve(_within(allocator, BARS), cases[:1][:, :, LISTED])[0], within, atol=1e-6)
    np.testing.assert_allclose(solve(_within(allocator, 10), cases[5:6, 30:])[0], found[5], atol=1e-9)


def _within(allocator, lookback):
    copy = jax.tree.map(lambda x: x, allocator)
    object.__setattr__(copy, "lookback", lookback)
    return copy


def test_nothing_tradable_is_left_alone():
    with jax.enable_x64(True):
        answer = al.MinimumVariance(lookback=10)(observe(np.full((10, 3), np.nan)))
    assert np.asarray(answer.skip).all()
    answer = al.ExponentiatedGradient()
    with jax.enable_x64(True):
        allocation, _ = answer(observe(np.full((10, 3), np.nan)), answer.init(3))
    assert np.asarray(allocation.skip).all()


# --- derivatives


GRADIENTS = {
    "MinimumVariance": lambda x: al.MinimumVariance(al.Constraints(0.0, x), lookback=BARS),
    "MaximumSharpe": lambda x: al.MaximumSharpe(0.001 * x, al.Constraints(0.0, 0.5), lookback=BARS),
    "RiskParity": lambda x: al.RiskParity(jnp.stack([x, 1, 1, 1, 1.0]), lookback=BARS),
    "HierarchicalRiskParity": lambda x: al.HierarchicalRiskParity(
        covariance=al.ExponentialCovariance(20 * x), lookback=BARS
    ),
    "Momentum": lambda x: al.Momentum(temperature=x, lookback=BARS),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_derivatives(name):
    """By a parameter against central differences, and finite by the prices, gaps among them."""
    parts = jnp.arange(1.0, ASSETS + 1)

    def score(x, close):
        return GRADIENTS[name](x)(observe(close)).weights @ parts

    step, count = 1e-4, 5
    with jax.enable_x64(True):
        cases = CLOSES[:count].copy()
        cases[0][:10, 1], cases[1][:, 2] = np.nan, np.nan
        x = 0.45 + step * np.repeat([0.0, 1.0, -1.0], count)
        derive = jax.vmap(jax.value_and_grad(score, argnums=(0, 1)))
        derive = jax.jit(derive, compiler_options=AS_IT_STANDS)
        value, (slopes, by_price) = derive(x, np.tile(cases, (3, 1, 1)))
    _, above, below = np.asarray(value).reshape(3, count)
    slope, expected = slopes[:count], (above - below) / (2 * step)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(slope).max() > 1e-4
    assert np.isfinite(by_price).all()


def test_a_random_search_has_no_derivative_but_lets_others_pass():
    close, open_ = prices(0)
    with jax.enable_x64(True):
        market = js.Market.from_frames(close, open=open_)
        policy = js.Policy(al.RandomSearchSharpe(30, lookback=20), min_history=20)

        def loss(fees):
            return js.simulate(market, policy, costs=js.Costs(fees=fees), key=1).value[-1]

        assert jax.grad(loss)(0.001) < 0


# --- bad inputs


BAD = [
    (lambda: al.RandomSearchSharpe(0), r"^num_tests: expected a whole number >= 1, got 0"),
    (lambda: al.RandomSearchSharpe(js.grid(num_tests=[2.5])), r"^num_tests: expected a whole number >= 1, got 2\.5"),
    (lambda: al.MeanVariance(0.0), r"^risk_aversion: expected a number > 0, got 0"),
    (lambda: al.MeanVariance([1.0, 2.0]), r"^risk_aversion: expected one number, got shape \(2,\)"),
    (lambda: al.MaximumSharpe(np.inf), r"^risk_free: expected a number, got inf"),
    (lambda: al.MinimumVariance(lookback=2), r"^lookback: expected a whole number of closes, at least 3"),
    (lambda: al.MinimumVariance(lookback=20.0), r"^lookback: "),
    (lambda: al.RiskParity([1.0, 0.0]), r"^budgets: expected a number > 0, got 0"),
    (lambda: al.HierarchicalRiskParity("l1"), r"^distance: expected 'euclidean' or 'correlation', got 'l1'"),
    (lambda: al.Momentum(), r"^top: give either"),
    (lambda: al.Momentum(top=1, temperature=1.0), r"^top: give either"),
    (lambda: al.ExponentiatedGradient(-1), r"^eta: expected a number >= 0, got -1"),
    (lambda: al.ExponentialCovariance(0), r"^halflife: expected a number > 0, got 0"),
    (lambda: al.Constraints(0.5, 0.4), r"^lower: 0\.5 is above upper, 0\.4"),
    (lambda: al.Constraints(np.nan), r"^lower: expected a number, got nan"),
    (lambda: al.Constraints(max_turnover=0), r"^max_turnover: expected a number > 0, got 0"),
    (lambda: al.Constraints(budget=-0.1), r"^budget: expected a number >= 0"),
    (lambda: al.Constraints(max_gross=0), r"^max_gross: expected a number > 0, got 0"),
    (lambda: al.Constraints(group_upper=1), r"^groups: group_lower and group_upper need groups"),
    (lambda: al.Constraints(groups=GROUPS), r"^groups: give group_lower, group_upper"),
    (lambda: al.Constraints(groups=[1, 0], group_upper=1), r"^groups: expected a mapping or a matrix"),
    (lambda: al.Constraints(groups=GROUPS, group_upper={"x": 1}), r"^group_upper: there is no group 'x'"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=lambda x: x if isinstance(x, str) else "")
def test_bad_inputs(make, message):
    with as_users_run_it(), pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (al.MinimumVariance(al.Constraints([0, 0]), lookback=20), r"lower: expected one number per asset, 3"),
        (al.RiskParity([1.0, 2.0], lookback=20), r"budgets: expected one number per asset, 3"),
        (al.MinimumVariance(al.Constraints(groups={"x": [7]}, group_upper=1), lookback=20), r"groups: .* asset 7"),
        (al.MinimumVariance(al.Constraints(groups=[[1, 0]], group_upper=1), lookback=20), r"groups: .* 3 assets"),
        (al.MinimumVariance(), r"^obs\.window\(length\): there is no look-back range here"),
        (al.RandomSearchSharpe(30), r"^obs\.window\(length\): there is no look-back range here"),
    ],
    ids=["lower", "budgets", "members", "matrix", "range", "search range"],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_bad_inputs_at_the_first_question(policy, message, engine):
    close, open_ = prices(0)
    with pytest.raises(ValueError, match=message):
        js.backtest(close, policy, open=open_, min_history=20, engine=engine)


def test_strings_are_no_numbers():
    with pytest.raises(TypeError, match=r"^lower: expected numbers, got str"):
        al.Constraints("0.1")
    with pytest.raises(TypeError, match=r"^groups: expected the names of assets, or their numbers"):
        al.Constraints(groups={"x": [0.5]}, group_upper=1)
    with pytest.raises(TypeError, match=r"^groups: expected the names of assets for 'x', as for others"):
        al.Constraints(groups={"x": [0, 1], "y": ["AAPL"]}, group_upper=1)


def test_without_qpax(monkeypatch):
    monkeypatch.setitem(sys.modules, "qpax", None)
    with pytest.raises(ImportError, match=r'pip install "jaxsim-portfolio\[optimizers\]"'):
        al.MinimumVariance(lookback=BARS)(observe(CLOSES[0] + 1))


def test_importing_qpax_changes_no_setting():
    script = (
        "import jax; before = dict(jax.config.values); import allocators, sys; assert 'qpax' not in sys.modules;"
        "import qpax; assert dict(jax.config.values) == before; assert not jax.config.jax_enable_x64"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_index_of_the_markets_is_that_of_the_messages():
    assert str(INDEX[20].date()) == "2021-01-24"
