"""Quadratic programs over weights: in closed form without limits, else by qpax."""

import importlib
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from allocators.spectral import floor, in_any_lane, null_projector, pseudo_inverse

#: Interior-point steps. qpax keeps slacks above the root of the machine epsilon, so its convergence test cannot reach
#: the accuracy of its iterates. So all problems take the same number of steps.
STEPS = 25
#: Complementarity at which qpax takes derivatives: they are those of a problem that is smoothed this much.
SMOOTHNESS = 1e-10
#: Small curvature that turns a linear objective into a quadratic one.
RIDGE = 1e-3
#: Curvature that keeps qpax from drifting in directions in which the objective is flat; it is of the size of slacks.
DRIFT = 1e-8
#: Weight of the distance to equal weights, relative to the objective, which decides between equally good weights.
FIRST = 1e8
#: Weights of this size mean that the highest ratio is at infinity.
ENDLESS = 1e6
#: Least part of the steepest descent that counts as an unbounded descent, and how well limits are kept on the way.
DESCENT, SLACK = 1e-3, 1e-5
#: Curvature of the inverse scale; it selects the largest scale if the ratio does not depend on the scale.
LARGEST = 1e-6


def require_qpax() -> Any:
    """The module `qpax`. Raises ImportError with the pip command if it is not installed."""
    try:
        return importlib.import_module("qpax")
    except ImportError as error:
        raise ImportError(
            'this allocator solves a quadratic program with qpax: pip install "jaxsim-portfolio[optimizers]"'
        ) from error


class Polytope(eqx.Module):
    """Weights w that sum to the budget and satisfy `G x <= h`. The variables are x = (free part of w, more variables),
    and w is the free part plus the fixed part. Fixed weights do not enter the program, since its feasible set could
    then have no interior; their variables are zero.

    lower, upper: bounds of each weight.    is_fixed: whether the bounds fix a weight.      fixed: its value, else 0.
    budget: sum of the weights.             G, h: limits of the free variables, `G x <= h`.
    is_limited: whether `G x <= h` has a row that limits something.

    If several weights are equally good, the answer is the nearest to equal weights of the free assets (Euclidean
    norm). Weights are NaN if none satisfy the limits, and infinite if the objective is unbounded.
    """

    lower: Float[Array, " asset"]
    upper: Float[Array, " asset"]
    is_fixed: Bool[Array, " variable"]
    fixed: Float[Array, " asset"]
    budget: Float[Array, ""]
    G: Float[Array, "row variable"]
    h: Float[Array, " row"]
    is_limited: Bool[Array, ""]

    @classmethod
    def of(cls, lower, upper, is_fixed, fixed, budget, G, h) -> "Polytope":
        """From limits of the whole weights. An infinite limit becomes the row 0 <= 1."""
        h = h - G[:, : len(fixed)] @ fixed
        G = jnp.where(jnp.isinf(h)[:, None] | is_fixed, 0.0, G)
        is_limited = jnp.any(h < jnp.inf)
        return cls(lower, upper, is_fixed, fixed, budget, G, jnp.where(h == jnp.inf, 1.0, h), is_limited)

    @property
    def tolerance(self) -> float:
        """Weights closer than this count as equal: 1.5e-7 in float64, where slacks are at least 1.5e-8."""
        return 10 * float(jnp.finfo(self.h.dtype).eps) ** 0.5

    @property
    def free(self) -> Float[Array, " asset"]:
        """1 for the assets whose weight is free, else 0."""
        return (~self.is_fixed[: len(self.fixed)]).astype(self.h.dtype)

    @property
    def equal(self) -> Float[Array, " asset"]:
        """Equal weights of the free assets, 0 elsewhere."""
        return self.free * (self.budget - self.fixed.sum()) / jnp.maximum(self.free.sum(), 1)

    def least(self, covariance: Float[Array, "asset asset"], slope: Float[Array, " asset"]) -> Float[Array, " asset"]:
        """The weights that minimise `w' C w / 2 + slope . w`, for C of about one."""
        pull = self.free * (covariance @ self.fixed + slope)
        flat = self._flat(covariance + _along(slope))
        is_endless = self._is_endless(covariance, pull)
        identity = jnp.eye(len(pull), dtype=pull.dtype)
        safe, safe_pull = jnp.where(is_endless, identity, covariance), jnp.where(is_endless, 0.0, pull)
        weights = lax.cond(
            in_any_lane(self.is_limited), lambda: self._least_within(safe, safe_pull, flat), lambda: self._none()
        )
        weights = jnp.where(is_endless & jnp.isfinite(weights), jnp.inf, self._nearest(weights, flat))
        return jnp.where(self.is_limited, weights, self._least_anywhere(covariance, pull))

    def steepest(
        self, covariance: Float[Array, "asset asset"], gain: Float[Array, " asset"], is_gain: Bool[Array, ""]
    ) -> Float[Array, " asset"]:
        """The weights that maximise `gain . w / sqrt(w' C w)`, if some have a positive gain; else those that minimise
        `w' C w`.

        With y = k w, k > 0, scaled such that gain . y = 1: minimise y' C y / 2 subject to sum(y) = k budget and
        G y <= k h, where k is one more variable. Without a positive gain k is one.
        """
        free, dtype = self.free, self.h.dtype
        cross, corner = free * (covariance @ self.fixed), self.fixed @ covariance @ self.fixed
        sums = jnp.append(free, self.fixed.sum() - self.budget)
        gains = jnp.where(is_gain, jnp.append(free * gain, gain @ self.fixed), jnp.zeros_like(sums).at[-1].set(1.0))
        flat = self._flat(covariance + _along(jnp.where(is_gain, gain, 0.0)))

        def within() -> Array:
            # In directions in which the objective is flat, the distance from equal weights: |flat (y - k equal)|^2.
            tilt = flat @ self.equal
            form = self._curvature(covariance) + self._padded_square(DRIFT * flat)
            side = self._padded(cross - DRIFT * tilt)
            end = corner + DRIFT * self.equal @ tilt + jnp.where((self.budget == 0) & is_gain, LARGEST, 0.0)
            P = jnp.block([[form, side[:, None]], [side[None, :], end[None, None]]])
            G = jnp.concatenate([self.G, -self.h[:, None]], axis=1)
            G = jnp.concatenate([G, jnp.zeros((1, G.shape[1]), dtype).at[0, -1].set(-1.0)])
            count = len(free)
            A = jnp.stack([jnp.insert(self._padded(row[:count]), self.G.shape[1], row[count]) for row in (sums, gains)])
            x = _solve(P, jnp.zeros(len(P), dtype), A, jnp.array([0.0, 1.0], dtype), G, jnp.zeros(len(G), dtype))
            size = jnp.where(self.is_limited, x[-1], 1.0)
            return jnp.where(jnp.abs(x[:-1]).max() > ENDLESS * size, jnp.inf, self._checked(x[:-1] / size))

        weights = lax.cond(in_any_lane(self.is_limited), within, lambda: self._none())
        weights = self._nearest(weights, flat)
        form = jnp.block([[self._inner(covariance), cross[:, None]], [cross[None, :], corner[None, None]]])
        return jnp.where(self.is_limited, weights, self._steepest_anywhere(form, sums, gains, is_gain))

    def best_gain(self, gain: Float[Array, " asset"]) -> Float[Array, ""]:
        """The gain of the weights that maximise `gain . w - RIDGE / 2 |w|^2`, for a gain of about one. It is positive
        if and only if some weights have a positive gain, up to an error of about RIDGE; NaN if no weights satisfy the
        limits. No derivative."""
        self, gain = lax.stop_gradient((self, gain))
        ridge = RIDGE * jnp.eye(len(gain), dtype=gain.dtype)
        pull = self.free * (RIDGE * self.fixed - gain)
        weights = lax.cond(
            in_any_lane(self.is_limited),
            lambda: self._least_within(ridge, pull, jnp.zeros_like(ridge)),
            lambda: self._none(),
        )
        return gain @ jnp.where(self.is_limited, weights, self._least_anywhere(ridge, pull))

    # --- without limits

    def _least_anywhere(self, covariance: Array, pull: Array) -> Float[Array, " asset"]:
        """`least` with only the budget as a constraint."""
        within, tolerance = self._budget_kept(), floor(self._inner(covariance))
        change = pseudo_inverse(within @ covariance @ within, tolerance) @ (within @ (pull + covariance @ self.equal))
        downhill = jnp.abs(self._flat(covariance) @ pull).max() > self.tolerance * jnp.abs(pull).max()
        weights = jnp.where(self.free > 0, self.equal - change, self.fixed)
        is_met = (self.free.sum() > 0) | (jnp.abs(self.fixed.sum() - self.budget) <= self.tolerance)
        return jnp.where(is_met, jnp.where(downhill, jnp.inf, weights), jnp.nan)

    def _steepest_anywhere(self, form: Array, sums: Array, gains: Array, is_gain: Array) -> Float[Array, " asset"]:
        """`steepest` with only the budget as a constraint, in the same variables (y, k). The solutions are a point plus
        the directions in which neither variance nor gain changes. All points on a ray have the same ratio; the weights
        are the point with k = 1."""
        count, eps = len(self.fixed), jnp.finfo(form.dtype).eps
        inside = jnp.diag(jnp.append(self.free, 1.0))
        inside = inside - _along(sums)
        steep = inside @ gains
        length = (steep**2).sum()
        point = steep / jnp.where(length > 0, length, 1.0)
        inside = inside - _along(steep)
        inner, tolerance = inside @ form @ inside, floor(form)
        other = jnp.eye(count + 1, dtype=form.dtype) - inside  # these directions get variance 1
        level = null_projector(inner + jnp.trace(form) * other, tolerance)
        point = point - pseudo_inverse(inner, tolerance) @ (inside @ (form @ point))
        plane = level + _along(point)
        to_one = plane[:, -1]
        reach = to_one[-1]
        is_reached = reach > eps
        safe = jnp.where(is_reached, reach, 1.0)
        target = jnp.append(self.equal, 1.0)
        place = to_one / safe + plane @ target - to_one * ((to_one @ target) / safe)
        size = point @ place
        variance, scale = point @ form @ point, jnp.abs(form).max() * (point @ point)
        is_found = is_reached & (size > self.tolerance * jnp.sqrt((point @ point) * (place @ place)))
        is_found &= ~is_gain | (variance > len(form) * self.tolerance**2 * scale)
        weights = jnp.where(self.free > 0, place[:count], self.fixed)
        is_met = (self.free.sum() > 0) | (jnp.abs(self.fixed.sum() - self.budget) <= self.tolerance)
        return jnp.where(is_met, jnp.where(is_found, weights, jnp.inf), jnp.nan)

    def _budget_kept(self) -> Float[Array, "asset asset"]:
        """The projection on changes of the free weights that sum to zero."""
        return jnp.diag(self.free) - _along(self.free)

    def _flat(self, covariance: Array) -> Float[Array, "asset asset"]:
        """The projection on changes of the free weights that keep the budget and have no variance."""
        within = self._budget_kept()
        other = jnp.eye(len(within), dtype=within.dtype) - within  # these directions get variance 1
        size = jnp.trace(self._inner(covariance))
        form = within @ covariance @ within + jnp.where(size > 0, size, 1.0) * other
        return null_projector(form, floor(self._inner(covariance) + jnp.where(size > 0, 0.0, other)))

    # --- within limits, by qpax

    def _none(self) -> Float[Array, " asset"]:
        return jnp.zeros_like(self.fixed)

    def _least_within(self, covariance: Array, pull: Array, flat: Array) -> Float[Array, " asset"]:
        """`least` subject to all limits; one of the solutions, if there are several."""
        A, b = self._padded(self.free)[None, :], (self.budget - self.fixed.sum())[None]
        P = self._curvature(covariance) + self._padded_square(DRIFT * flat)
        return self._checked(_solve(P, self._padded(pull - DRIFT * flat @ self.equal), A, b, self.G, self.h))

    def _is_endless(self, covariance: Array, pull: Array) -> Bool[Array, ""]:
        """Whether the limits leave a direction without end in which there is no variance and the objective falls: of
        the directions that keep to `G d <= 0`, one along which `pull . d` is negative. Without a derivative."""
        self, covariance, pull = lax.stop_gradient((self, covariance, pull))
        count = len(pull)
        flat = self._flat(covariance)
        descent = flat @ pull
        steepest = jnp.abs(descent).max()
        is_boxed = jnp.all((self.free == 0) | (jnp.isfinite(self.lower) & jnp.isfinite(self.upper)))
        is_open = self.is_limited & ~is_boxed & (steepest > self.tolerance * jnp.abs(pull).max())

        def falls() -> Bool[Array, ""]:
            unit = descent / jnp.where(steepest > 0, steepest, 1.0)
            form = jnp.eye(count, dtype=pull.dtype) + FIRST * (jnp.eye(count, dtype=pull.dtype) - flat)
            A, b = self._padded(self.free)[None, :], jnp.zeros(1, pull.dtype)
            h = jnp.where(jnp.any(self.G != 0, axis=1), SLACK, 1.0)
            way = _solve(self._curvature(form), self._padded(unit), A, b, self.G, h)[:count]
            return unit @ way < -DESCENT

        return is_open & lax.cond(in_any_lane(is_open), falls, lambda: jnp.zeros((), bool))

    def _nearest(self, weights: Float[Array, " asset"], flat: Array) -> Float[Array, " asset"]:
        """The nearest weights to equal weights among those that differ from `weights` only in flat directions."""
        is_needed = self.is_limited & (jnp.trace(flat) > 0.5) & jnp.isfinite(weights).all()

        def go(weights: Array, flat: Array) -> Array:
            safe = jnp.where(is_needed, weights, self.equal)
            firm = jnp.eye(len(flat), dtype=flat.dtype) - flat
            form = self._curvature(flat / FIRST + firm)
            pull = -self.free * (flat @ self.equal / FIRST + firm @ (self.free * safe))
            A, b = self._padded(self.free)[None, :], (self.budget - self.fixed.sum())[None]
            nearest = self._checked(_solve(form * FIRST, self._padded(pull * FIRST), A, b, self.G, self.h))
            return jnp.where(is_needed & jnp.isfinite(nearest).all(), nearest, weights)

        return lax.cond(in_any_lane(is_needed), go, lambda weights, _: weights, weights, flat)

    def _padded(self, row: Float[Array, " asset"]) -> Float[Array, " variable"]:
        """A row over the weights, extended to all variables."""
        return jnp.pad(row, (0, self.G.shape[1] - len(row)))

    def _padded_square(self, form: Float[Array, "asset asset"]) -> Float[Array, "variable variable"]:
        more = self.G.shape[1] - len(form)
        return jnp.pad(form, ((0, more), (0, more)))

    def _inner(self, covariance: Float[Array, "asset asset"]) -> Float[Array, "asset asset"]:
        """The quadratic form of the free weights, 0 elsewhere."""
        return covariance * self.free[:, None] * self.free[None, :]

    def _curvature(self, covariance: Float[Array, "asset asset"]) -> Float[Array, "variable variable"]:
        """The quadratic form of the free variables. Fixed variables get 1 on the diagonal, so their solution is zero.
        Without limits all variables get 1, since the closed form is used."""
        form = self._padded_square(self._inner(covariance)) + jnp.diag(self.is_fixed.astype(self.h.dtype))
        return jnp.where(self.is_limited, form, jnp.eye(len(form), dtype=form.dtype))

    def _checked(self, x: Float[Array, " variable"]) -> Float[Array, " asset"]:
        """Weights from the variables. A weight near a bound is set to it; all are NaN if a limit is broken."""
        count, tolerance = len(self.fixed), self.tolerance
        weights = jnp.where(self.is_fixed[:count], self.fixed, x[:count])
        size = jnp.maximum(jnp.abs(x).max(), 1.0)
        is_kept = jnp.all(self.G @ x <= self.h + 10 * tolerance * size)
        is_kept &= jnp.abs(weights.sum() - self.budget) <= 10 * tolerance * size
        weights = jnp.where(jnp.abs(weights - self.lower) <= tolerance, self.lower, weights)
        weights = jnp.where(jnp.abs(weights - self.upper) <= tolerance, self.upper, weights)
        return jnp.where(is_kept, weights, jnp.nan)


def _along(row: Float[Array, " n"]) -> Float[Array, "n n"]:
    """The projection on a vector; zero for the zero vector."""
    length = (row**2).sum()
    return row[:, None] * row[None, :] / jnp.where(length > 0, length, 1.0)


def _solve(P: Array, q: Array, A: Array, b: Array, G: Array, h: Array) -> Array:
    """The x that minimises `x' P x / 2 + q . x` subject to `A x = b`, `G x <= h`; arbitrary if no x is feasible. It
    has reverse-mode derivatives."""
    tolerance = 0.0  # never met: see STEPS
    return require_qpax().solve_qp_primal(
        P, q, A, b, G, h, solver_tol=tolerance, target_kappa=SMOOTHNESS, max_iter=STEPS
    )
