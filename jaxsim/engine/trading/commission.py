"""What a broker takes for an order (rules 3.12)."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float

from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.base.numerics import add, product, quotient
from jaxsim.engine.trading.costs import Costs

Scalar = Float[Array, ""]


class Commission(eqx.Module):
    """The fees of one order: a commission between a least and a most, and a fixed fee. The fields are those of
    `Costs`; all but the first two are None where they are off."""

    fees: Scalar
    fixed: Scalar
    per_unit: Scalar | None
    least: Scalar | None
    most: Scalar | None

    @classmethod
    def of(cls, costs: Costs, fixed: Scalar) -> "Commission":
        return cls(costs.fees, fixed, costs.fee_per_unit, costs.min_fee, costs.max_fee)

    @property
    def is_proportional(self) -> bool:
        """Whether nothing but the traded value and the fixed fee counts."""
        return self.per_unit is None and self.least is None and self.most is None

    def bill(self, size: Scalar, price: Scalar) -> tuple[Scalar, Scalar]:
        """The traded value of an order, and its fees; currency."""
        amount = product(size, price)
        fee = product(amount, self.fees)
        if self.per_unit is not None:
            fee = fee + product(size, self.per_unit)
        if self.least is not None:
            fee = where(self.least > 0, jnp.maximum(fee, self.least), fee)
        if self.most is not None:
            most = where(jnp.isfinite(self.most), self.most, 0.0)
            fee = where(jnp.isfinite(self.most), jnp.minimum(fee, product(amount, most)), fee)
        return amount, fee + self.fixed

    def affordable(self, limit: Scalar, price: Scalar) -> Scalar:
        """The money that is left for units where a purchase spends all of a limit, currency: the bill rises with the
        units, and is the smaller of two rising ones, of which the first is the larger of two."""
        rest = add(limit, -self.fixed)
        if self.is_proportional:
            return quotient(rest, 1 + self.fees)
        rate = 1 + self.fees
        money = quotient(rest, rate if self.per_unit is None else rate + quotient(self.per_unit, price))
        if self.least is not None:
            money = where(self.least > 0, jnp.minimum(money, rest - self.least), money)
        if self.most is not None:
            most = where(jnp.isfinite(self.most), self.most, 0.0)
            money = where(jnp.isfinite(self.most), jnp.maximum(money, quotient(rest, 1 + most)), money)
        return money
