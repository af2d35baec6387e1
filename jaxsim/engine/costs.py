"""What trading costs."""

import equinox as eqx

from jaxsim.engine.numerics import Number, as_number


class Costs(eqx.Module):
    """The costs of an order.

    fees: fraction of the traded value, > -1 (negative: a rebate); a number, one per asset [asset], or
        [time or 1, asset or 1].
    """

    fees: Number = eqx.field(converter=as_number, default=0.0)
