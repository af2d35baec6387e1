"""A policy as a skfolio estimator, for the model selection of skfolio, which takes only its own estimators.

Needs skfolio; reached as `js.SkfolioEstimator`, which imports this file when it is first asked for.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.numerics import Number
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.trading.costs import Costs
from jaxsim.frames.estimators.scikit_learn import PortfolioEstimator

try:
    from skfolio import Portfolio
    from skfolio.optimization import BaseOptimization
except ImportError as error:
    raise ImportError('SkfolioEstimator needs skfolio: pip install "jaxsim-portfolio[sklearn]"') from error


class SkfolioEstimator(PortfolioEstimator, BaseOptimization):
    """`PortfolioEstimator` whose predictions are skfolio portfolios, for `skfolio.model_selection`.

    A `skfolio.Portfolio` has constant weights, and the simulated one has not: so what is predicted is a portfolio of
    one asset, whose returns are those of the simulated portfolio after costs.

    portfolio_params: arguments of `skfolio.Portfolio`. The other arguments are those of `PortfolioEstimator`, and so is
    `score`.
    """

    fallback = previous_weights = None  # what BaseOptimization asks for
    raise_on_failure = True

    def __init__(
        self,
        policy: Policy,
        *,
        features: Callable[[pd.DataFrame], Any] | None = None,
        history: int = 0,
        costs: Costs | None = None,
        objective: Callable | None = None,
        ann_factor: Number | None = None,
        optimizer: Any = None,
        steps: int = 300,
        trainable: Any = None,
        options: Mapping[str, Any] | None = None,
        key: Any = 0,
        portfolio_params: dict | None = None,
    ):
        PortfolioEstimator.__init__(
            self,
            policy,
            features=features,
            history=history,
            costs=costs,
            objective=objective,
            ann_factor=ann_factor,
            optimizer=optimizer,
            steps=steps,
            trainable=trainable,
            options=options,
            key=key,
        )
        self.portfolio_params = portfolio_params

    def fit(self, X: Any, y: Any = None) -> "SkfolioEstimator":
        """As `PortfolioEstimator.fit`."""
        PortfolioEstimator.fit(self, X, y)
        return self

    def predict(self, X: Any) -> Portfolio:
        """The simulated portfolio on X, after costs."""
        params = {"name": type(self).__name__, **(self.portfolio_params or {})}
        returns = self._returns(X)
        return Portfolio(X=pd.DataFrame({params["name"]: returns}), weights=np.ones(1), **params)
