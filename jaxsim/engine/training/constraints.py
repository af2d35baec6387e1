"""Constraints on the trained leaves of a policy. After every step of the optimiser a leaf moves to the nearest point
(Euclidean) that satisfies its constraint: projected gradient ascent."""

import abc

import equinox as eqx
import numpy as np
from jaxtyping import Inexact

from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.fields import Bounds, bounded
from jaxsim.engine.base.numerics import Number

_POSITIVE = Bounds(0.0, is_open=True)
_LIMIT = Bounds(allows=(np.inf, -np.inf))


class AbstractConstraint(eqx.Module):
    """A closed convex set of values."""

    @abc.abstractmethod
    def project(self, leaf: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        """The point of the set nearest to `leaf`, in its dtype."""


class Simplex(AbstractConstraint):
    """Entries >= 0 whose sum is `total`, over the whole leaf.

    total: > 0.
    """

    total: Number = bounded("total", _POSITIVE, default=1.0)

    def __check_init__(self):
        _POSITIVE.check(np.asarray(self.total), "total")

    def project(self, leaf: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        from optax.projections import projection_simplex

        return projection_simplex(leaf.ravel(), self.total).reshape(leaf.shape).astype(leaf.dtype)


class Box(AbstractConstraint):
    """Entries from `lower` to `upper`: `js.Box(lower=0)` for entries that must not become negative.

    lower, upper: numbers, or arrays that broadcast to the leaf, in the unit of the leaf; infinite for no limit, which
        is the default.

    Raises ValueError that begins with the argument for NaN, or for a lower limit above the upper one; TypeError for
    text.
    """

    lower: Number = bounded("lower", _LIMIT, default=-np.inf)
    upper: Number = bounded("upper", _LIMIT, default=np.inf)

    def __check_init__(self):
        for name in ("lower", "upper"):
            if np.asarray(getattr(self, name)).dtype.kind not in "biuf":
                raise TypeError(f"{name}: expected numbers, got {getattr(self, name)!r}"[:200])
            _LIMIT.check(np.asarray(getattr(self, name)), name)
        if (np.asarray(self.lower) > np.asarray(self.upper)).any():
            raise ValueError(f"lower: expected at most upper, got {self.lower} and {self.upper}")

    def project(self, leaf: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        from optax.projections import projection_box

        return projection_box(leaf, self.lower, self.upper).astype(leaf.dtype)
