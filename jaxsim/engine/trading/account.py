"""The account: cash and positions of the investor."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Bool, Float

from jaxsim.engine.base.arrays import Array, namespace, where
from jaxsim.engine.base.fields import BALANCE, COST, NUMBERS, WEIGHT, bounded, shown
from jaxsim.engine.base.numerics import Number, as_number, dot, ordered_sum, product, quotient
from jaxsim.engine.trading.market import Market


class ByAllocator(eqx.Module):
    """In place of opening targets: the first bar that may trade is a rebalance."""


def as_target(value: Any) -> Any:
    """Opening targets as a field holds them. Raises ValueError for a text other than "allocator"."""
    if isinstance(value, str):
        if value != "allocator":
            raise ValueError(f"target: expected weights by asset or 'allocator', got {shown(value)}"[:200])
        return ByAllocator()
    return value if value is None or isinstance(value, ByAllocator) else as_number(value)


class Account(eqx.Module):
    """An account as it is opened, before the first bar (rules 4.2).

    cash: currency, >= 0, and > 0 where nothing is held.
    units: of each asset, [asset]; negative: sold short. None: nothing is held.
    target: weights [asset] that a trigger compares with until the first rebalance; NaN: the asset is left alone. None:
        those of the opening account. "allocator": the first bar that may trade is a rebalance.
    average_cost: currency per unit, [asset], that positions were bought or sold short at; NaN, or None for all: what
        they are worth at the opening.

    The simulation carries units and cash, not values or weights: between trades they do not change.
    """

    cash: Number = bounded("cash", BALANCE, default=100.0)
    units: Number | None = bounded("units", NUMBERS, by_asset=True, default=None)
    target: Any = eqx.field(
        converter=as_target, metadata={"kind": WEIGHT, "by_bar_and_asset": False, "by_asset": True}, default=None
    )
    average_cost: Number | None = bounded("average_cost", COST, by_asset=True, default=None)

    def check(self, market: Market) -> None:
        """What cannot be opened in a market, as far as values are concrete. Raises ValueError naming the field."""
        if self.units is None:
            for name in ("target", "average_cost"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: of what is held at the opening; it needs units")
            if not isinstance(self.cash, Tracer) and not np.asarray(self.cash) > 0:
                raise ValueError(
                    f"cash: expected a finite number > 0, as nothing is held, got {np.asarray(self.cash):g}"
                )
        elif not isinstance(self.units, Tracer):
            units = np.asarray(self.units)
            if not np.isfinite(units).all():
                raise ValueError(f"units: expected finite numbers, got {units[~np.isfinite(units)][0]:g}")
            price = market.opening_price
            if not isinstance(price, Tracer) and (lost := (units != 0) & np.isnan(np.asarray(price))).any():
                raise ValueError(f"units: asset {np.argmax(lost)} is held, and has no price at the first bar")


class OpeningBook(eqx.Module):
    """What an account with holdings is when it is opened.

    value: currency, at the valuation prices of the first bar, or where there is none at its mark.
    cost: currency per unit that positions were entered at, [asset].
    target: weights, [asset]; NaN where nothing at all is held.
    """

    value: Float[Array, ""]
    cost: Float[Array, " asset"]
    target: Float[Array, " asset"]

    @classmethod
    def of(cls, account: Account, market: Market) -> "OpeningBook":
        units, price = jnp.asarray(account.units, market.dtype), market.opening_price
        value = dot(jnp.asarray(account.cash, market.dtype), units, price)
        cost = price
        if account.average_cost is not None:
            said = jnp.asarray(account.average_cost, market.dtype)
            cost = where(jnp.isnan(said), price, said)
        if account.target is not None and not isinstance(account.target, ByAllocator):
            return cls(value, cost, jnp.asarray(account.target, market.dtype))
        weights = quotient(product(units, where(units != 0, price, 0.0)), where(value != 0, value, 1.0))
        return cls(value, cost, where(is_flat(units), jnp.nan, weights))


def opening_value(account: Account, market: Market) -> Float[Array, ""]:
    """The value of an account before the first bar, currency."""
    if account.units is None:
        return jnp.asarray(account.cash, market.dtype)
    return OpeningBook.of(account, market).value


class Holdings(eqx.Module):
    """The state of an account. All assets of the group share one cash balance.

    units: of each asset; negative where it is sold short.
    cash: currency, including the proceeds of short sales.
    debt: proceeds of each short position, currency.
    free_cash: currency that is neither owed nor pledged: cash - 2 * debt (rules 3.5h, 3.6g).
    """

    units: Float[Array, " asset"]
    cash: Float[Array, ""]
    debt: Float[Array, " asset"]
    free_cash: Float[Array, ""]

    @classmethod
    def opened(cls, account: Account, market: Market) -> "Holdings":
        cash, shape, dtype = jnp.asarray(account.cash, market.dtype), market.num_assets, market.dtype
        if account.units is None:
            return cls(jnp.zeros(shape, dtype), cash, jnp.zeros(shape, dtype), cash)
        units, cost = jnp.asarray(account.units, dtype), OpeningBook.of(account, market).cost
        is_short = units < 0
        debt = where(is_short, product(-units, where(is_short, cost, 0.0)), 0.0)
        return cls(units, cash, debt, cash - 2 * ordered_sum(debt))

    def value(self, prices: Float[Array, " asset"]) -> Float[Array, ""]:
        """cash + sum(units * price), left to right; an asset that is not held needs no price (rules 4.3c)."""
        return dot(self.cash, self.units, prices)


def is_flat(units: Float[Array, " asset"]) -> Bool[Array, ""]:
    """Whether no asset is held."""
    return namespace(units).asarray(~(units != 0).any())
