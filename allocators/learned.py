"""Allocators with parameters to be trained."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

import jaxsim as js


class SoftmaxWeights(eqx.Module):
    """Constant weights softmax(logits), free to be trained: always positive, always summing to one.

    logits: [asset]; zero at the start, which is equal weight.
    """

    logits: Any

    def __init__(self, num_assets: int):
        """num_assets: number of assets, positive. Raises ValueError otherwise."""
        if num_assets < 1:
            raise ValueError(f"num_assets: expected a positive number, got {num_assets}")
        self.logits = np.zeros(num_assets)

    def __call__(self, obs: js.Observation) -> Float[Array, " asset"]:
        return jax.nn.softmax(self.logits)
