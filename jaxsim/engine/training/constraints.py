"""What a trained leaf of a policy must satisfy. After every step of the optimiser the leaf goes to the nearest point
(Euclidean) that does: projected gradient ascent."""

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
    """Entries from `low` to `high`.

    low, high: numbers, or arrays that broadcast to the leaf; infinite for no limit.
    """

    low: Number = bounded("low", _LIMIT)
    high: Number = bounded("high", _LIMIT)

    def __check_init__(self):
        _LIMIT.check(np.asarray(self.low), "low")
        _LIMIT.check(np.asarray(self.high), "high")
        if (np.asarray(self.low) > np.asarray(self.high)).any():
            raise ValueError(f"low: expected at most high, got {self.low} and {self.high}")

    def project(self, leaf: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        from optax.projections import projection_box

        return projection_box(leaf, self.low, self.high).astype(leaf.dtype)


class Positive(AbstractConstraint):
    """Entries of at least `least`.

    least: > 0.
    """

    least: Number = bounded("least", _POSITIVE, default=1e-6)

    def __check_init__(self):
        _POSITIVE.check(np.asarray(self.least), "least")

    def project(self, leaf: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return Box(self.least, np.inf).project(leaf)
