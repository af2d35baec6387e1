"""Portfolios on Markowitz's frontier, under constraints."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from allocators.constraints import FAULTS, Constraints
from allocators.covariance import SampleCovariance
from allocators.history import AbstractLookback, Moments, Present
from allocators.numbers import number

#: Gains below this part of the largest excess return count as none.
NO_GAIN = 1e-9


class MinimumVariance(AbstractLookback):
    """The weights of least variance: minimise `w' C w` subject to the constraints.

    constraints: by default long only and fully invested.
    covariance: how C is estimated.     lookback: closes before the bar; None: the range of `js.optimize`.

    Source: H. Markowitz, Portfolio selection, Journal of Finance 7 (1952), 77-91. Solved by qpax (K. Tracy and
    Z. Manchester, On the differentiability of the primal-dual interior-point method, 2024, arXiv 2406.11749), an extra:
    `pip install "jaxsim-portfolio[optimizers]"`. Derivatives are reverse-mode only. In float32 weights are good to
    about 1e-3, in float64, which `js.backtest` computes in, to 1e-7. Without any limit but the budget the answer is a
    formula. Of several weights of least variance, as a singular C has them, the answer is the nearest to equal weights.
    """

    constraints: Constraints = eqx.field(default_factory=Constraints)
    covariance: Callable = eqx.field(default_factory=SampleCovariance, kw_only=True)

    faults: ClassVar = FAULTS

    def weigh(self, moments: Moments, present: Present) -> Float[Array, " asset"]:
        polytope = self.constraints.polytope(moments, present)
        return polytope.least(moments.covariance / _scale(moments), jnp.zeros_like(moments.mean))


class MeanVariance(AbstractLookback):
    """The weights of greatest utility: maximise `mean . w - risk_aversion / 2 w' C w` subject to the constraints, mean
    and C of the simple returns per bar in the window.

    risk_aversion: > 0; may be swept. It is a pure number: as C and the mean grow alike with the length of a bar, the
        same figure serves hours and days.
    constraints: by default long only and fully invested.
    covariance: how C is estimated.     lookback: closes before the bar; None: the range of `js.optimize`.

    Source and solver as `MinimumVariance`; the form with one half is that of R. Grinold and R. Kahn, Active Portfolio
    Management (2000), and of PyPortfolioOpt's `max_quadratic_utility`.
    """

    risk_aversion: Any = number("risk_aversion", low=0.0, is_open=True)
    constraints: Constraints = eqx.field(default_factory=Constraints)
    covariance: Callable = eqx.field(default_factory=SampleCovariance, kw_only=True)

    faults: ClassVar = FAULTS

    def weigh(self, moments: Moments, present: Present) -> Float[Array, " asset"]:
        aversion = jnp.asarray(self.risk_aversion, moments.mean.dtype)
        scale = aversion * _scale(moments) + jnp.abs(moments.mean).max()  # the larger of the two terms is about one
        polytope = self.constraints.polytope(moments, present)
        return polytope.least(moments.covariance * (aversion / scale), -moments.mean / scale)


class MaximumSharpe(AbstractLookback):
    """The weights of the highest Sharpe ratio: maximise `(mean - risk_free) . w / sqrt(w' C w)` subject to the
    constraints, mean and C of the simple returns per bar in the window.

    risk_free: return of the riskless asset per bar; may be swept.
    constraints: by default long only and fully invested.
    covariance: how C is estimated.     lookback: closes before the bar; None: the range of `js.optimize`.

    A ratio is not convex, but it does not change with the scale of w: with y = k w, k > 0, and k such that
    (mean - risk_free) . y = 1, it is the quadratic program `minimise y' C y` whose constraints are those on w times k
    (G. Cornuejols and R. Tutuncu, Optimization Methods in Finance, 2006, section 8.2, equation 8.11). That needs some
    weights with a positive excess return (where sum(w) is the budget b, the excess is mean . w - b risk_free). If there
    are none, the best ratio would be had by the greatest risk; the answer is then the weights of least variance.
    Where only ever larger weights approach the best ratio, k is zero and the problem is unbounded. With a budget of 0
    the ratio does not depend on the size of the weights; the answer is the largest that the limits allow.

    Solver and derivatives as `MinimumVariance`. A first program finds out the highest excess return there is.
    """

    risk_free: Any = number("risk_free", default=0.0)
    constraints: Constraints = eqx.field(default_factory=Constraints)
    covariance: Callable = eqx.field(default_factory=SampleCovariance, kw_only=True)

    faults: ClassVar = FAULTS

    def weigh(self, moments: Moments, present: Present) -> Float[Array, " asset"]:
        polytope = self.constraints.polytope(moments, present)
        excess = jnp.where(moments.live, moments.mean - jnp.asarray(self.risk_free, moments.mean.dtype), 0.0)
        largest = jnp.abs(excess).max()
        excess = excess / jnp.where(largest > 0, largest, 1.0)
        best = polytope.best_gain(excess)
        is_gain = best > NO_GAIN
        gain = excess / jnp.where(is_gain, best, 1.0)
        weights = polytope.steepest(moments.covariance / _scale(moments), gain, is_gain)
        # Where there are weights, but none of the highest ratio, larger ones have always a higher one.
        has_none = jnp.isnan(best) | jnp.isnan(moments.covariance).any()
        return jnp.where(has_none, jnp.nan, jnp.where(jnp.isnan(weights), jnp.inf, weights))


def _scale(moments: Moments) -> Float[Array, ""]:
    """The mean variance of the live assets: solvers like numbers of the size of one."""
    live = moments.live
    return jnp.where(live, moments.variance, 0.0).sum() / live.sum()
