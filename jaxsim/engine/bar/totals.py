"""What a bar's orders come to, all assets together."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.metrics.nan_statistics import divide
from jaxsim.engine.trading.rebalance import Fills
from jaxsim.engine.trading.status import OrderStatusInfo


class BarTotals(eqx.Module):
    """Sums over the assets of a group, at one bar or at many; zero where nothing was traded (rules 7.15).

    fees: paid, currency.       traded: sum of abs(units * price) of all fills, currency.
    turnover: one-way, traded / (2 * value of the account before the orders), a fraction.
    """

    fees: Float[Array, "*time"]
    traded: Float[Array, "*time"]
    turnover: Float[Array, "*time"]

    @classmethod
    def of(cls, fees: Float[Array, "*lanes asset"], traded: Float[Array, "*lanes"], value: Any) -> "BarTotals":
        """value: of the account before the orders, currency."""
        return cls(fees.sum(axis=-1), traded, turnover_of(traded, value))


def traded_value(fills: Fills) -> Float[Array, "*lanes"]:
    """The sum of abs(units * price) of all fills, currency."""
    is_filled = jnp.asarray(fills.info == OrderStatusInfo.NONE)
    return where(is_filled, jnp.abs(fills.trade) * where(is_filled, fills.price, 0), 0).sum(axis=-1)


def closed_value(units: Float[Array, " asset"], price: Float[Array, " asset"]) -> Float[Array, ""]:
    """The same of assets that are closed; the price of those of which nothing is held may be unknown."""
    is_closed: Bool[Array, " asset"] = units != 0
    return where(is_closed, jnp.abs(units) * where(is_closed, price, 0), 0).sum(axis=-1)


def turnover_of(traded: Float[Array, "*lanes"], value: Any) -> Float[Array, "*lanes"]:
    """One-way turnover, a fraction; 0 where the account is worth nothing."""
    return divide(traded, jnp.abs(jnp.asarray(value)), 0.0) / 2
