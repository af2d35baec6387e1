"""The order in which the assets of a group trade (rules 2.5 and 5.2)."""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.base.enums import CallSeq, Direction, SizeType
from jaxsim.engine.base.numerics import product

#: Up to this many assets all pairs are compared, which vectorises over lanes; sorting does not.
PAIRWISE_ASSETS = 16


class CallOrder(eqx.Module):
    """The order of execution: ascending by a key, ties by column, NaN last and those from the last column on (rules
    5.2)."""

    rank: Int[Array, " asset"]  # of each asset
    _place: Bool[Array, "rank asset"] | None  # one-hot, when there are few assets
    _sequence: Int[Array, " rank"] | None  # the asset at each rank, when there are many

    def __init__(self, key: Float[Array, " asset"]):
        count = key.shape[0]
        number = jnp.arange(count)
        if count > PAIRWISE_ASSETS:
            self._sequence, self._place = jnp.lexsort((where(jnp.isnan(key), -number, number), key)), None
            self.rank = jnp.argsort(self._sequence, stable=True).astype(jnp.int32)
            return
        # Without the barrier XLA might compute the key twice, and round it in two ways.
        key = lax.optimization_barrier(key)
        mine, other = key[:, None], key[None, :]
        earlier, later = number[None, :] < number[:, None], number[None, :] > number[:, None]
        before = (other < mine) | ((other == mine) & earlier)
        before = where(jnp.isnan(mine), ~jnp.isnan(other) | later, before)
        self.rank = jnp.sum(before, axis=1, dtype=jnp.int32)
        self._place, self._sequence = self.rank[None, :] == number[:, None], None

    def sort(self, x: Array) -> Array:
        """[asset] -> [rank]"""
        if self._place is None:
            return x[self._sequence]
        return _select(self._place, x[None, :])

    def unsort(self, x: Array) -> Array:
        """[rank] -> [asset]"""
        if self._place is None:
            return x[self.rank]
        return _select(self._place.T, x[None, :])


def _select(one_hot: Array, x: Array) -> Array:
    if x.dtype == bool:
        return jnp.any(one_hot & x, axis=1)
    return jnp.sum(where(one_hot, x, jnp.zeros_like(x)), axis=1, dtype=x.dtype)


def order_value(
    size: Float[Array, " asset"],
    size_type: Int[Array, "*_"],
    direction: Int[Array, "*_"],
    units: Float[Array, " asset"],
    val_price: Float[Array, " asset"],
    cash: Float[Array, ""],
    free_cash: Float[Array, ""],
    value: Float[Array, ""],
) -> Float[Array, " asset"]:
    """The value that each order is going to trade, currency, > 0 to buy (rules 5.2). NaN where it is unknown.

    size_type, direction: one code for all assets, or one for each.
    """
    size = where(direction == Direction.SHORT_ONLY, -size, size)
    holding = units * val_price  # NaN without a price, also where nothing is held
    per_unit = size * val_price
    may_sell = where(
        direction == Direction.LONG_ONLY, holding, 2 * jnp.maximum(holding, 0.0) + jnp.maximum(free_cash, 0.0)
    )
    by_type = {
        SizeType.AMOUNT: per_unit,
        SizeType.VALUE: size,
        SizeType.PERCENT: size * where(size >= 0, cash, may_sell),
        SizeType.TARGET_AMOUNT: product(size, val_price) - product(units, val_price),
        SizeType.TARGET_VALUE: size - product(units, val_price),
        SizeType.TARGET_PERCENT: product(size, value) - product(units, val_price),
    }
    chosen = jnp.select([size_type == kind for kind in by_type], list(by_type.values()), jnp.nan)
    # `product` is 0 where one factor is 0, even if the other is NaN.
    lacks_price = jnp.isnan(val_price) & (size_type >= SizeType.TARGET_AMOUNT)
    lacks_value = jnp.isnan(value) & (size_type == SizeType.TARGET_PERCENT)
    return where(lacks_price | lacks_value, jnp.nan, chosen)


def call_key(call_seq: Int[Array, ""] | None, value: Float[Array, " asset"]) -> Float[Array, " asset"]:
    """The key of a `CallOrder`: the order values, or, by CallSeq code, the numbers of the columns."""
    if call_seq is None:
        return value
    number = jnp.arange(value.shape[0], dtype=value.dtype)
    return where(call_seq == CallSeq.AUTO, value, where(call_seq == CallSeq.REVERSED, -number, number))
