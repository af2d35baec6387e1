"""What every user of JAX would write by hand: thirty lines that drift, compare with a threshold, sell and then buy at
proportional fees. The yardstick of `benchmarks.gradients` and of first gradients: few features, no status, no holes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def naive_values(
    allocate: Callable[[Any], Float[Array, " asset"]],
    threshold: Any,
    opens: Float[Array, "time asset"],
    closes: Float[Array, "time asset"],
    fees: float,
    cash: float = 100.0,
) -> Float[Array, " time"]:
    """The value of a long-only account after each bar.

    allocate: function of the number of the bar to target weights.      threshold: largest drift that is left alone.
    opens: prices at which drift is measured.       closes: prices of orders and marks.
    """

    def bar(account: tuple, now: tuple) -> tuple:
        units, cash, target = account
        step, at_open, price = now
        value = cash + units @ at_open
        fires = (jnp.max(jnp.abs(units * at_open / value - target)) > threshold) | (step == 0)

        def rebalance() -> tuple:
            weights = allocate(step)
            order = weights * value / at_open - units
            sold, wanted = jnp.minimum(order, 0.0), jnp.maximum(order, 0.0)
            money = cash - sold @ price * (1 - fees)
            cost = wanted @ price * (1 + fees)
            bought = wanted * jnp.minimum(1.0, money / jnp.where(cost > 0, cost, 1.0))
            return units + sold + bought, money - bought @ price * (1 + fees), weights

        units, cash, target = lax.cond(fires, rebalance, lambda: account)
        return (units, cash, target), cash + units @ price

    start = jnp.zeros_like(opens[0]), jnp.asarray(cash, opens.dtype), jnp.zeros_like(opens[0])
    return lax.scan(jax.checkpoint(bar), start, (jnp.arange(len(opens)), opens, closes))[1]


def naive_sharpe(value: Float[Array, " time"], ann_factor: float, cash: float = 100.0) -> Float[Array, ""]:
    returns = value / jnp.concatenate([jnp.full(1, cash, value.dtype), value[:-1]]) - 1
    return returns.mean() / returns.std(ddof=1) * jnp.sqrt(ann_factor)
