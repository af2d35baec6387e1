"""Weights from risk alone: inverse volatility and risk parity."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from allocators.covariance import SampleCovariance
from allocators.history import AbstractLookback, Moments, Present
from allocators.numbers import number

#: Newton steps of `RiskParity`. Problems of 50 assets needed at most half as many.
STEPS = 30


class InverseVolatility(AbstractLookback):
    """Weights in proportion to 1 / volatility: `w_i = (1 / s_i) / sum_j (1 / s_j)`.

    covariance: estimator; its diagonal is s^2.     lookback: closes before the bar; None: the range of `js.optimize`.

    It equals risk parity if all correlations are equal: S. Maillard, T. Roncalli and J. Teiletche, The properties of
    equally weighted risk contribution portfolios, Journal of Portfolio Management 36 (2010), 60-70, section 2.
    """

    covariance: Callable = eqx.field(default_factory=SampleCovariance, kw_only=True)

    def weigh(self, moments: Moments, present: Present) -> Float[Array, " asset"]:
        calm = jnp.where(moments.live, 1.0 / jnp.sqrt(moments.variance), 0.0)
        return calm / calm.sum()


class RiskParity(AbstractLookback):
    """Every asset contributes its budget to the risk: `w_i (C w)_i / (w' C w) = b_i`, w >= 0, sum(w) = 1.

    budgets: [asset], > 0; those of the usable assets are scaled to sum to one; None: all the same.
    covariance: estimator of C.     lookback: closes before the bar; None: the range of `js.optimize`.

    The weights are y / sum(y), where y minimises the convex `y' C y / 2 - sum_i b_i log y_i` (F. Spinu, An algorithm
    for computing risk parity weights, 2013, SSRN 2297383, equation 4; formulated by Maillard, Roncalli and Teiletche,
    2010). It is solved in units of volatility, by Newton's method with step size 1 / (1 + max_i |dy_i / y_i|), which
    keeps y positive, always descends, and tends to one near the solution. The derivative is that of the last step,
    which at the solution equals the implicit derivative.
    """

    budgets: Any = number("budgets", low=0.0, is_open=True, per_asset=True, default=None)
    covariance: Callable = eqx.field(default_factory=SampleCovariance, kw_only=True)

    def weigh(self, moments: Moments, present: Present) -> Float[Array, " asset"]:
        live = moments.live
        volatility = jnp.sqrt(moments.variance)
        correlation = moments.covariance / (volatility[:, None] * volatility[None, :])
        budgets = jnp.ones_like(volatility) if self.budgets is None else jnp.asarray(self.budgets, volatility.dtype)
        if budgets.shape not in ((), volatility.shape):
            raise ValueError(f"budgets: expected one number per asset, {len(live)}, got shape {budgets.shape}")
        budgets = jnp.where(live, budgets, 0.0)
        budgets = jnp.where(live, budgets / budgets.sum(), 1.0)  # assets that are not live are solved separately

        def step(y: Array, _: Any, correlation: Array = correlation, budgets: Array = budgets) -> tuple[Array, None]:
            slope = correlation @ y - budgets / y
            change = -jnp.linalg.solve(correlation + jnp.diag(budgets / y**2), slope)
            return y + change / (1 + jnp.abs(change / y).max()), None

        fixed = lax.stop_gradient((correlation, budgets))
        start = jnp.sqrt(fixed[1])
        start = start / jnp.sqrt(jnp.maximum(start @ fixed[0] @ start / fixed[1].sum(), 1e-2))
        y, _ = lax.scan(lambda y, _: step(y, _, *fixed), start, length=STEPS)
        y, _ = step(lax.stop_gradient(y), None)
        weights = jnp.where(live, y / volatility, 0.0)
        return weights / weights.sum()


def risk_contributions(weights: Any, covariance: Any) -> Float[Array, " asset"]:
    """The share [asset] of each asset in the variance of a portfolio, `w_i (C w)_i / (w' C w)`; shares sum to one.

    weights: [asset].       covariance: [asset, asset]. Arrays of NumPy or JAX.
    """
    weights, covariance = jnp.asarray(weights), jnp.asarray(covariance)
    marginal = covariance @ weights
    return weights * marginal / (weights @ marginal)
