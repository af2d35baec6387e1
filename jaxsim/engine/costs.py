"""What trading costs."""

import equinox as eqx

from jaxsim.engine.bounds import FEES, bounded
from jaxsim.engine.numerics import Number


class Costs(eqx.Module):
    """The costs of an order.

    fees: fraction of the traded value, > -1 (negative: a rebate); a number, one per asset [asset], or
        [time or 1, asset or 1].
    """

    fees: Number = bounded("fees", FEES, by_bar_and_asset=True, default=0.0)
