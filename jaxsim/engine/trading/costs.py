"""The costs of trading, and the limits on orders."""

import equinox as eqx
import jax.numpy as jnp

from jaxsim.engine.base.arrays import Step
from jaxsim.engine.base.fields import (
    AMOUNT,
    FEE,
    FEES,
    FLAG,
    GRANULARITY,
    MAX_FEE,
    MAX_SIZE,
    MIN_SIZE,
    PROBABILITY,
    SLIPPAGE,
    bounded,
)
from jaxsim.engine.base.numerics import Number, at_bar


class Costs(eqx.Module):
    """The costs of an order and its limits (rules 2.6 and 3). Each is a number, one per asset [asset], or
    [time or 1, asset or 1]. None: off; programs are then compiled without it.

    fees: fraction of the traded value, > -1 (negative: a rebate), <= 100.
    fixed_fees: currency per order (negative: a rebate).
    slippage: fraction by which buys fill above the execution price and sells below it, in [0, 1).
    min_size: units; a smaller fill is rejected.     max_size: units; a larger order is cut, or rejected.
    size_granularity: units; fills are whole multiples of it, rounded down; NaN: any size.
    reject_prob: probability of a random rejection. The draws are a stream of their own, from the key of the lane.
    lock_cash: whether buys may spend only free cash, without the debt of short positions, and free cash limits shorts.
    allow_partial: whether an order may fill in part; default True.
    raise_reject: whether a rejected order ends the lane with a fault.
    min_value: currency; an order that trades less is not sent.
    min_fee: currency, the least commission of an order.     max_fee: the largest, as a fraction of the traded value.
    fee_per_unit: currency per unit, added to `fees` before the least and the largest count (rules 3.12).
    update_value: one bool for all assets and bars: whether a fill changes the valuation price of its asset, and so the
        value for the sizes of later orders of the bar.

    Raises ValueError or TypeError that begins with the name of the field.
    """

    fees: Number = bounded("fees", FEES, by_bar_and_asset=True, default=0.0)
    fixed_fees: Number | None = bounded("fixed_fees", AMOUNT, by_bar_and_asset=True, default=None)
    slippage: Number | None = bounded("slippage", SLIPPAGE, by_bar_and_asset=True, default=None)
    min_size: Number | None = bounded("min_size", MIN_SIZE, by_bar_and_asset=True, default=None)
    max_size: Number | None = bounded("max_size", MAX_SIZE, by_bar_and_asset=True, default=None)
    size_granularity: Number | None = bounded("size_granularity", GRANULARITY, by_bar_and_asset=True, default=None)
    reject_prob: Number | None = bounded("reject_prob", PROBABILITY, by_bar_and_asset=True, default=None)
    lock_cash: Number | None = bounded("lock_cash", FLAG, by_bar_and_asset=True, default=None)
    allow_partial: Number | None = bounded("allow_partial", FLAG, by_bar_and_asset=True, default=None)
    raise_reject: Number | None = bounded("raise_reject", FLAG, by_bar_and_asset=True, default=None)
    min_value: Number | None = bounded("min_value", FEE, by_bar_and_asset=True, default=None)
    min_fee: Number | None = bounded("min_fee", FEE, by_bar_and_asset=True, default=None)
    max_fee: Number | None = bounded("max_fee", MAX_FEE, by_bar_and_asset=True, default=None)
    fee_per_unit: Number | None = bounded("fee_per_unit", FEE, by_bar_and_asset=True, default=None)
    update_value: Number | None = bounded("update_value", FLAG, default=None)

    @property
    def are_proportional(self) -> bool:
        """Whether costs are proportional to the traded value, and only cash limits a fill."""
        others = (self.fixed_fees, self.min_size, self.max_size, self.size_granularity, self.reject_prob)
        others += (self.min_value, self.min_fee, self.max_fee, self.fee_per_unit)
        return all(
            x is None for x in (*others, self.lock_cash, self.allow_partial, self.raise_reject, self.update_value)
        )

    def at(self, step: Step, num_assets: int) -> "Costs":
        """The costs of one bar, each [asset] or None."""
        row = {
            name: None if value is None else jnp.broadcast_to(at_bar(value, step), (num_assets,))
            for name, value in vars(self).items()
        }
        return Costs(**row)

    def check(self) -> None:
        """Raises ValueError naming the field for costs that do not go together."""
        for name in ("min_fee", "max_fee", "fee_per_unit"):
            if getattr(self, name) is not None and self.lock_cash is not None:
                raise ValueError(f"{name}: not beside lock_cash, whose limits know proportional fees alone")


#: The value of each field of `Costs` that means off. A parameter with this value is left out of the program.
NEUTRAL = {
    "fixed_fees": 0.0,
    "slippage": 0.0,
    "min_size": 0.0,
    "max_size": float("inf"),
    "size_granularity": float("nan"),
    "reject_prob": 0.0,
    "lock_cash": False,
    "allow_partial": True,
    "raise_reject": False,
    "min_value": 0.0,
    "min_fee": 0.0,
    "max_fee": float("inf"),
    "fee_per_unit": 0.0,
    "update_value": False,
}
