"""The account: cash and positions of the investor."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxsim.engine.base.arrays import Array, namespace
from jaxsim.engine.base.fields import CASH, bounded
from jaxsim.engine.base.numerics import Number, dot


class Account(eqx.Module):
    """A new account.

    cash: opening cash, currency, > 0; a number.

    The simulation carries units and cash, not values or weights: between trades they do not change.
    """

    cash: Number = bounded("cash", CASH, default=100.0)


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
    def opened(cls, account: Account, num_assets: int, dtype) -> "Holdings":
        cash = jnp.asarray(account.cash, dtype)
        return cls(jnp.zeros(num_assets, dtype), cash, jnp.zeros(num_assets, dtype), cash)

    def value(self, prices: Float[Array, " asset"]) -> Float[Array, ""]:
        """cash + sum(units * price), left to right; an asset that is not held needs no price (rules 4.3c)."""
        return dot(self.cash, self.units, prices)


def is_flat(units: Float[Array, " asset"]) -> Bool[Array, ""]:
    """Whether no asset is held."""
    return namespace(units).asarray(~(units != 0).any())
