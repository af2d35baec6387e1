"""Other people's libraries as allocators, through plain Python functions."""

import numpy as np
import pytest

import allocators as al
from tests.engine.policy.test_host_callback import CLOSE, LANES, OPEN
from tests.helpers.cases import assert_same_portfolio
from tests.helpers.markets import run


def least_variance_scipy(obs):
    from scipy.optimize import minimize

    covariance = obs.window(20).covariance()
    n = obs.num_assets
    found = minimize(
        lambda w: 1e4 * w @ covariance @ w,
        np.full(n, 1 / n),
        jac=lambda w: 2e4 * covariance @ w,
        method="SLSQP",
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(n)},
        options={"ftol": 1e-12},
    )
    return found.x


def least_variance_cvxpy(obs):
    import cvxpy as cp

    w = cp.Variable(obs.num_assets)
    covariance = cp.psd_wrap(1e4 * obs.window(20).covariance())
    cp.Problem(cp.Minimize(cp.quad_form(w, covariance)), [w >= 0, cp.sum(w) == 1]).solve(solver=cp.CLARABEL)
    return w.value


def least_variance_skfolio(obs):
    from skfolio.optimization import MeanRisk

    return MeanRisk().fit(obs.window(20).returns()).weights_


def hierarchical_skfolio(obs):
    from skfolio.optimization import HierarchicalRiskParity

    return HierarchicalRiskParity().fit(obs.window(20).returns()).weights_


def least_variance_pypfopt(obs):
    from pypfopt import EfficientFrontier

    frontier = EfficientFrontier(None, 1e4 * obs.window(20).covariance())
    frontier.min_volatility()
    return frontier.weights


def shrunk_sklearn(obs):
    from sklearn.covariance import LedoitWolf

    covariance = LedoitWolf().fit(obs.window(20).returns()).covariance_
    weights = np.linalg.solve(covariance, np.ones(obs.num_assets))
    return np.clip(weights, 0, None) / np.clip(weights, 0, None).sum()


def forecast_sklearn(obs):
    from sklearn.linear_model import Ridge

    returns = obs.window(20).returns()
    forecast = Ridge(alpha=1e-3).fit(returns[:-1], returns[1:]).predict(returns[-1:])[0]
    return np.exp(5 * forecast) / np.exp(5 * forecast).sum()


LIBRARIES = [
    al.host(least_variance_scipy),
    al.host(hierarchical_skfolio),
    al.host(shrunk_sklearn),
    al.host(forecast_sklearn),
]


@pytest.mark.parametrize("allocator", LIBRARIES, ids=lambda host: host.function.__name__)
def test_libraries_in_both_engines(allocator):
    compiled, reference = (run(policy=allocator, engine=engine, **LANES) for engine in ("compiled", "reference"))
    assert_same_portfolio(compiled, reference, rtol=1e-6)


def test_libraries_agree():
    """The least variance of five assets, by four solvers."""
    functions = (least_variance_scipy, least_variance_cvxpy, least_variance_skfolio, least_variance_pypfopt)
    targets = [run(CLOSE, al.host(f), OPEN, 0.05, min_history=21).allocations.targets[0] for f in functions]
    assert targets[0].max() < 0.9
    for other in targets[1:]:
        np.testing.assert_allclose(other, targets[0], atol=1e-4)
