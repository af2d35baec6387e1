"""Portfolios on the mean-variance frontier, under constraints."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from allocators.constraints import FAULTS, Constraints
from allocators.covariance import SampleCovariance
from allocators.history import AbstractLookback, Moments, Present
from allocators.numbers import number

#: An excess return below this fraction of the largest one counts as zero.
NO_GAIN = 1e-9


class MinimumVariance(AbstractLookback):
    """The weights of least variance: minimise `w' C w` subject to the constraints.

    constraints: by default long only and fully invested.
    covariance: estimator of C.     lookback: closes before the bar; None: the range of `js.optimize`.

    Source: H. Markowitz, Portfolio selection, Journal of Finance 7 (1952), 77-91. Solved by qpax (K. Tracy and
    Z. Manchester, On the differentiability of the primal-dual interior-point method, 2024, arXiv 2406.11749), an extra:
    `pip install "jaxsim-portfolio[optimizers]"`. Derivatives are reverse-mode only. Weights are accurate to about 1e-3
    in float32, and to 1e-7 in float64, the dtype of `js.backtest`. Without any limit except the budget the answer is a
    formula. If C is singular, several weights may have the least variance; the answer is the nearest to equal weights.
    """

    constraints: Constraints = eqx.field(default_factory=Constraints)
    covariance: Callable = eqx.field(default_factory=SampleCovariance, kw_only=True)

    faults: ClassVar = FAULTS

    def weigh(self, moments: Moments, present: Present) -> Float[Array, " asset"]:
        polytope = self.constraints.polytope(moments, present)
        return polytope.least(moments.covariance / _scale(moments), jnp.zeros_like(moments.mean))


class MeanVariance(AbstractLookback):
    """The weights of greatest utility: maximise `mean . w - risk_aversion / 2 w' C w` subject to the constraints, with
    mean and covariance C of the simple returns per bar in the window.

    risk_aversion: > 0, without unit; may be swept. C and the mean both grow in proportion to the length of a bar, so
        the same number fits hours and days.
    constraints: by default long only and fully invested.
    covariance: estimator of C.     lookback: closes before the bar; None: the range of `js.optimize`.

    Source and solver as `MinimumVariance`; the factor one half is that of R. Grinold and R. Kahn, Active Portfolio
    Management (2000), and of PyPortfolioOpt's `max_quadratic_utility`.
    """

    risk_aversion: Any = number("risk_aversion", low=0.0, is_open=True)
    constraints: Constraints = eqx.field(default_factory=Constraints)
    covariance: Callable = eqx.field(default_factory=SampleCovariance, kw_only=True)

    faults: ClassVar = FAULTS

    def weigh(self, moments: Moments, present: Present) -> Float[Array, " asset"]:
        aversion = jnp.asarray(self.risk_aversion, moments.mean.dtype)
        scale = aversion * _scale(moments) + jnp.abs(moments.mean).max()  # makes the larger term about one
        polytope = self.constraints.polytope(moments, present)
        return polytope.least(moments.covariance * (aversion / scale), -moments.mean / scale)


class MaximumSharpe(AbstractLookback):
    """The weights of the highest Sharpe ratio: maximise `(mean - risk_free) . w / sqrt(w' C w)` subject to the
    constraints, with mean and covariance C of the simple returns per bar in the window.

    risk_free: return of the riskless asset per bar, unlike that of the metrics, since an allocator knows no calendar:
        of 0.03 a year, 1.03 ** (1 / 252) - 1 a day; may be swept.
    constraints: by default long only and fully invested.
    covariance: estimator of C.     lookback: closes before the bar; None: the range of `js.optimize`.

    The ratio is not convex, but it does not change with the scale of w. With y = k w, k > 0, and k such that
    (mean - risk_free) . y = 1, it is the quadratic program `minimise y' C y` with the constraints on w times k
    (G. Cornuejols and R. Tutuncu, Optimization Methods in Finance, 2006, section 8.2, equation 8.11). This needs
    weights with a positive excess return, mean . w - b risk_free, where b is the budget. If there are none, the answer
    is the weights of least variance, since the best ratio would then have the greatest risk. If only ever larger
    weights approach the best ratio, k is zero and the problem is unbounded. With a budget of 0 the ratio does not
    depend on the size of the weights; the answer is the largest that the limits allow.

    Solver and derivatives as `MinimumVariance`. A first program finds the highest excess return.
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
    """The mean variance of the live assets; scaled by it, the program has numbers of about one."""
    live = moments.live
    return jnp.where(live, moments.variance, 0.0).sum() / live.sum()
