"""Screening: at which bars of which lanes might a trigger fire?

Between two rebalances units do not change, so a whole block of bars can be screened before any of it is simulated. The
screening computes with scalars, one bar of one lane at a time, mapped over lanes and then over bars. The arrays are
[bar, lane], and vectorise along lanes. There is no axis of assets, no ordered sum and no division. The screening need
not be exact: it may say yes where the trigger says no, but never the reverse. Afterwards the trigger itself is asked at
the remaining bars.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.base.arrays import Amount, Array
from jaxsim.engine.base.numerics import UNROLL


class Screening(eqx.Module):
    """One bar of one lane before it trades. Units, prices and targets are as in `Observation`, by asset: tuples of
    scalars for few assets, arrays [asset] for many.

    value: of the account, currency, to within rounding.
    """

    step: Int[Array, ""]
    units: Any
    price: Any
    target: Any
    value: Float[Array, ""]

    def over_assets(self, start: Any, combine: Callable[[Any, Any], Any], of_asset: Callable, *others: Array) -> Any:
        """`of_asset(worth, target, *others)` for every asset, combined one after the other, beginning with `start`.

        worth: value of the position, currency; NaN without a price.       others: numbers, one for all or [asset].
        """
        count = len(self.units)

        def take(total: Any, units: Array, price: Array, target: Array, *others: Array) -> Any:
            return combine(total, of_asset(units * price, target, *others))

        if isinstance(self.units, tuple):
            rows = [x if x.ndim == 0 else jnp.broadcast_to(x, (count,)) for x in others]
            for n in range(count):
                of_this_asset = (x if x.ndim == 0 else x[n] for x in rows)
                start = take(start, self.units[n], self.price[n], self.target[n], *of_this_asset)
            return start
        columns = (self.units, self.price, self.target, *(jnp.broadcast_to(x, (count,)) for x in others))
        return lax.scan(lambda total, column: (take(total, *column), None), start, columns, unroll=8)[0]

    def any_asset(self, test: Callable, *others: Array) -> Bool[Array, ""]:
        """Whether `test(worth, target, *others)` holds for any asset."""
        return self.over_assets(jnp.asarray(False), jnp.logical_or, test, *others)

    def max_assets(self, term: Callable) -> Amount:
        """The largest `term(worth, target)` that is >= 0 and not NaN; 0 if there is none."""

        def larger(most: Array, term: Array) -> Array:
            return jnp.where(term > most, term, most)  # one instruction; `maximum` takes more, because of NaN

        return self.over_assets(jnp.zeros_like(self.value), larger, term)

    def sum_assets(self, term: Callable, *others: Array) -> Amount:
        """The sum of `term(worth, target, *others)`, NaN counted as zero."""

        def known(*arguments: Any) -> Array:
            x = term(*arguments)
            return jnp.where(jnp.isnan(x), 0.0, x)

        return self.over_assets(jnp.zeros_like(self.value), jnp.add, known, *others)

    def distance(self, worth: Amount, target: Amount) -> Amount:
        """The distance of an asset from its target, abs(weight - target) * abs(value), to within rounding."""
        return jnp.abs(worth - target * self.value)

    def at_most(self, width: Amount | Int[Array, ""]) -> Amount:
        """A little less than width * abs(value): the difference is far larger than rounding errors of a distance, and
        far smaller than any threshold in use."""
        slack = float(jnp.finfo(self.value.dtype).eps) ** 0.5
        return (width * (1 - slack) - slack) * jnp.abs(self.value)


def worth_of(cash: Amount, units: Any, price: Any) -> Amount:
    """cash + sum(units * price), to within rounding; prices are known numbers."""
    if isinstance(units, tuple):
        for n in range(len(units)):
            cash = cash + units[n] * price[n]
        return cash
    return lax.scan(lambda total, xy: (total + xy[0] * xy[1], None), cash, (units, price), unroll=8)[0]


def as_columns(x: Array) -> Any:
    """[..., asset] as a tuple of arrays, one per asset, which vectorise over the leading axes; unchanged for many
    assets."""
    return tuple(x[..., n] for n in range(x.shape[-1])) if x.shape[-1] <= UNROLL else x


def from_columns(columns: Any) -> Array:
    """The inverse of `as_columns`: [..., asset]."""
    return jnp.stack(columns, axis=-1) if isinstance(columns, tuple) else columns


def by_asset(x: Any) -> Any:
    """[..., asset] as a tuple of arrays, one per asset; for many assets as [asset, ...], in that order in memory. A
    tuple of `as_columns` stays as it is."""
    if isinstance(x, tuple):
        return x
    x = lax.optimization_barrier(jnp.moveaxis(x, -1, 0))
    return tuple(x[n] for n in range(x.shape[0])) if x.shape[0] <= UNROLL else x
