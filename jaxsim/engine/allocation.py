"""What a policy answers when it is asked for target weights."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from jaxsim.engine.numerics import Number


class Allocation(eqx.Module):
    """Target weights, and what else an allocator has to say.

    weights: [asset], fractions of the portfolio value; what they leave to one stays cash. Above one in sum
        is legal: the last buys are then cut to the cash there is.
    skip: bool [asset], assets to be left alone in this rebalance; their weights may be NaN.
    aux: extra arrays to be recorded, by name.
    """

    weights: Number
    skip: Any = None
    aux: Mapping[str, Any] = eqx.field(default_factory=dict)


def refuse_labels(weights: Any, name: str) -> None:
    """Raises TypeError for a Series or DataFrame: its labels would be ignored, its positions believed."""
    if hasattr(weights, "index") and hasattr(weights, "to_numpy"):
        raise TypeError(f"allocator {name} returned labelled weights; return an array in the order of the columns")


def as_allocation(answer: Any, num_assets: int, dtype: Any, name: str) -> Allocation:
    """An allocator's answer, bare weights or `Allocation`, with shapes checked.

    Raises ValueError naming the allocator if the weights (or the mask) are not one number per asset.
    """
    allocation = answer if isinstance(answer, Allocation) else Allocation(answer)
    refuse_labels(allocation.weights, name)
    try:
        weights = jnp.asarray(allocation.weights, dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"allocator {name} returned {type(answer).__name__}, not weights: one number per asset"
        ) from error
    skip = jnp.zeros(num_assets, bool) if allocation.skip is None else jnp.asarray(allocation.skip, bool)
    for field, array in (("weights", weights), ("skip", skip)):
        if array.shape != (num_assets,):
            raise ValueError(
                f"allocator {name} returned {field} of shape {array.shape}; expected one per asset, ({num_assets},)"
            )
    return Allocation(jnp.where(skip, jnp.nan, weights), skip, dict(allocation.aux))
