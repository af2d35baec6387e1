"""Weights that do not depend on prices: equal, fixed, random."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jaxsim as js


class EqualWeight(eqx.Module):
    """Equal weights, 1/N.

    over: "all": N is the number of columns of the group, and the share of an unlisted asset stays cash, as in
        vectorbt's tutorial. "tradable": N counts only assets that have had a price by now. Raises ValueError otherwise.
    """

    over: str = eqx.field(static=True, default="all")

    def __check_init__(self):
        if self.over not in ("all", "tradable"):
            raise ValueError(f"over: expected 'all' or 'tradable', got {self.over!r}")

    def __call__(self, obs: js.Observation) -> Float[Array, " asset"]:
        count = obs.num_assets
        if self.over == "all":
            return jnp.full(count, 1.0 / count, obs.units.dtype)
        tradable = jnp.asarray(obs.tradable)
        return jnp.where(tradable, 1.0 / jnp.maximum(tradable.sum(), 1), 0.0).astype(obs.units.dtype)


class FixedWeights(eqx.Module):
    """The same weights at every rebalance.

    weights: fractions, one per asset, < 0 to sell short; an array, or in `js.backtest` a Series by asset name.
    """

    weights: Any

    def __init__(self, weights: Any):
        self.weights = np.asarray(weights, np.float64) if isinstance(weights, list | tuple) else weights

    def __call__(self, obs: js.Observation) -> Float[Array, " asset"]:
        return jnp.asarray(self.weights)


class RandomWeights(eqx.Module):
    """New random weights at every rebalance: u / sum(u), with u uniform on [0, 1) per asset.

    They are drawn from `obs.key` in float32, so that they are the same in every dtype and beside any other lanes.
    """

    def __call__(self, obs: js.Observation) -> Float[Array, " asset"]:
        draws = js.random.uniform(obs.key, (obs.num_assets,)).astype(obs.units.dtype)
        return draws / draws.sum()
