"""What the investor holds."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float

from jaxsim.engine.arrays import Array
from jaxsim.engine.bounds import CASH, bounded
from jaxsim.engine.numerics import Number, dot


class Account(eqx.Module):
    """What a new account is opened with.

    cash: currency, positive; a number.

    Units and cash, rather than currency holdings or weights, are what the simulation carries: between trades they
    do not change, so that nothing drifts.
    """

    cash: Number = bounded("cash", CASH, default=100.0)


class Holdings(eqx.Module):
    """An account while it runs: units of each asset and one cash balance that all assets of the group share."""

    units: Float[Array, " asset"]
    cash: Float[Array, ""]

    @classmethod
    def opened(cls, account: Account, num_assets: int, dtype) -> "Holdings":
        return cls(jnp.zeros(num_assets, dtype), jnp.asarray(account.cash, dtype))

    def value(self, prices: Float[Array, " asset"]) -> Float[Array, ""]:
        """cash + sum(units * price), left to right; an asset that is not held needs no price (SEMANTICS 4.3c)."""
        return dot(self.cash, self.units, prices)
