"""Quadratic programs over weights, solved by qpax."""

import importlib
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

#: Interior-point steps. qpax keeps slacks above the root of the machine epsilon, so its convergence test cannot reach
#: the accuracy of its iterates. So all problems take the same number of steps.
STEPS = 25
#: Complementarity at which qpax takes derivatives: they are those of a problem that is smoothed this much.
SMOOTHNESS = 1e-10
#: Small curvature that turns a linear objective into a quadratic one.
RIDGE = 1e-3


def require_qpax() -> Any:
    """The module `qpax`. Raises ImportError with the pip command if it is not installed."""
    try:
        return importlib.import_module("qpax")
    except ImportError as error:
        raise ImportError(
            'this allocator solves a quadratic program with qpax: pip install "jaxsim-portfolio[optimizers]"'
        ) from error


class Polytope(eqx.Module):
    """Weights w that sum to the budget and satisfy `G x <= h`. The variables are x = (free part of w, trades), and w is
    the free part plus the fixed part. Fixed weights do not enter the program, since its feasible set could then have no
    interior; their variables are zero.

    lower, upper: bounds of each weight.    is_fixed: whether the bounds fix a weight.      fixed: its value, else 0.
    budget: sum of the weights.             G, h: limits of the free variables, `G x <= h`.
    """

    lower: Float[Array, " asset"]
    upper: Float[Array, " asset"]
    is_fixed: Bool[Array, " asset"]
    fixed: Float[Array, " asset"]
    budget: Float[Array, ""]
    G: Float[Array, "row variable"]
    h: Float[Array, " row"]

    @classmethod
    def of(cls, lower, upper, is_fixed, fixed, budget, G, h, num_trades: int) -> "Polytope":
        """From limits of the whole weights. An infinite limit becomes the row 0 <= 1."""
        h = h - G[:, : len(fixed)] @ fixed
        is_free = jnp.concatenate([~is_fixed, jnp.ones(num_trades, bool)])
        G = jnp.where(jnp.isinf(h)[:, None] | ~is_free, 0.0, G)
        return cls(lower, upper, is_fixed, fixed, budget, G, jnp.where(jnp.isinf(h), 1.0, h))

    @property
    def tolerance(self) -> float:
        """Weights closer than this count as equal: 1.5e-7 in float64, where slacks are at least 1.5e-8."""
        return 10 * float(jnp.finfo(self.h.dtype).eps) ** 0.5

    def least(self, covariance: Float[Array, "asset asset"], slope: Float[Array, " asset"]) -> Float[Array, " asset"]:
        """The weights that minimise `w' C w / 2 + slope . w`, with C of about one; NaN if none satisfy the limits."""
        free = ~self.is_fixed
        pull = jnp.where(free, covariance @ self.fixed + slope, 0.0)
        A = self._padded(free.astype(self.h.dtype))[None, :]
        b = (self.budget - self.fixed.sum())[None]
        x = _solve(self._curvature(covariance), self._padded(pull), A, b, self.G, self.h)
        return self._checked(x)

    def steepest(self, covariance: Float[Array, "asset asset"], gain: Float[Array, " asset"]) -> Float[Array, " asset"]:
        """The weights that maximise `gain . w / sqrt(w' C w)`, if some have a positive gain.

        With y = k w, k > 0, scaled such that gain . y = 1: minimise y' C y / 2 subject to sum(y) = k budget and
        G y <= k h, where k is one more variable.
        """
        free, dtype = ~self.is_fixed, self.h.dtype
        cross = self._padded(jnp.where(free, covariance @ self.fixed, 0.0))
        corner = self.fixed @ covariance @ self.fixed
        P = jnp.block([[self._curvature(covariance), cross[:, None]], [cross[None, :], corner[None, None]]])
        sums = jnp.append(self._padded(free.astype(dtype)), self.fixed.sum() - self.budget)
        gains = jnp.append(self._padded(jnp.where(free, gain, 0.0)), gain @ self.fixed)
        G = jnp.concatenate([self.G, -self.h[:, None]], axis=1)
        positive = jnp.zeros((1, G.shape[1]), dtype).at[0, -1].set(-1.0)
        G = jnp.concatenate([G, positive])
        h = jnp.zeros(len(G), dtype)
        x = _solve(P, jnp.zeros(len(P), dtype), jnp.stack([sums, gains]), jnp.array([0.0, 1.0], dtype), G, h)
        return self._checked(x[:-1] / x[-1])

    def best_gain(self, gain: Float[Array, " asset"]) -> Float[Array, ""]:
        """The largest `gain . w`, for a gain of about one; NaN if no weights satisfy the limits. No derivative."""
        self, gain = lax.stop_gradient((self, gain))
        return gain @ self.least(RIDGE * jnp.eye(len(gain), dtype=gain.dtype), -gain)

    def _padded(self, row: Float[Array, " asset"]) -> Float[Array, " variable"]:
        """A row over the weights, extended to all variables."""
        return jnp.pad(row, (0, self.G.shape[1] - len(row)))

    def _curvature(self, covariance: Float[Array, "asset asset"]) -> Float[Array, "variable variable"]:
        """The quadratic form of the free variables; fixed ones get 1 on the diagonal, so their solution is zero."""
        free = ~self.is_fixed
        form = jnp.where(free[:, None] & free[None, :], covariance, 0.0) + jnp.diag(self.is_fixed.astype(self.h.dtype))
        more = self.G.shape[1] - len(free)
        return jnp.pad(form, ((0, more), (0, more)))

    def _checked(self, x: Float[Array, " variable"]) -> Float[Array, " asset"]:
        """Weights from the variables. A weight near a bound is set to it; all are NaN if a limit is broken."""
        count, tolerance = len(self.fixed), self.tolerance
        weights = jnp.where(self.is_fixed, self.fixed, x[:count])
        is_kept = jnp.all(self.G @ x <= self.h + 10 * tolerance)
        is_kept &= jnp.abs(weights.sum() - self.budget) <= 10 * tolerance
        weights = jnp.where(jnp.abs(weights - self.lower) <= tolerance, self.lower, weights)
        weights = jnp.where(jnp.abs(weights - self.upper) <= tolerance, self.upper, weights)
        return jnp.where(is_kept, weights, jnp.nan)


def _solve(P: Array, q: Array, A: Array, b: Array, G: Array, h: Array) -> Array:
    """The x that minimises `x' P x / 2 + q . x` subject to `A x = b`, `G x <= h`; arbitrary if no x is feasible. It
    has reverse-mode derivatives."""
    tolerance = 0.0  # never met: see STEPS
    return require_qpax().solve_qp_primal(
        P, q, A, b, G, h, solver_tol=tolerance, target_kappa=SMOOTHNESS, max_iter=STEPS
    )
