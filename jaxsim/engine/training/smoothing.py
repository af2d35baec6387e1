"""Smoothed scores: the mean of a score over random shifts of its parameters, and its derivative."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jaxsim.engine.base.fields import is_whole
from jaxsim.engine.base.numerics import Number
from jaxsim.engine.base.random import as_key


def thresholds(tree: Any) -> Any:
    """The leaves whose true derivative is zero: those in fields named `threshold`. A filter for `smoothed(where=)`."""

    def is_threshold(path: Any, leaf: Any) -> bool:
        return eqx.is_inexact_array(leaf) and any(getattr(key, "name", None) == "threshold" for key in path)

    return jax.tree_util.tree_map_with_path(is_threshold, tree)


def smoothed(
    score: Callable, *, key: Any, scale: Number, num_samples: int = 64, where: Callable = thresholds
) -> Callable:
    """The mean of a score over normal noise in chosen parameters, E[score(x + scale z)]. Its derivative exists also
    where the score itself jumps.

    score: function of (tree, *arguments), a policy for one, to a number.
    key: random key or int. The same key gives the same noise, so that values for different trees are comparable.
    scale: standard deviation of the noise, in units of the parameter; a number, or a pytree like the tree.
    num_samples: even, >= 2: pairs of opposite noise. They run side by side.
    where: function of a tree that returns a pytree of booleans: the parameters to shift; by default all fields named
        `threshold`.

    Returns a function with the signature of `score`, for `grad`, `jvp` and `jit`. Its derivative by the shifted
    parameters is the mean of (score(x + scale z) - score(x - scale z)) z / (2 scale), an unbiased estimate of that of
    the smoothed score (Salimans, Ho, Chen, Sidor and Sutskever, Evolution Strategies as a Scalable Alternative to
    Reinforcement Learning, 2017). By all other parameters it is the mean of the score's own derivatives. Its second
    derivatives are not those of the smoothed score.

    Raises ValueError for an odd number of samples, or if there is no parameter to shift.
    """
    if not is_whole(num_samples) or num_samples < 2 or num_samples % 2:
        raise ValueError(f"num_samples: expected an even number >= 2, got {num_samples!r}")
    key = as_key(key)

    def mean_score(tree: Any, *arguments: Any) -> Any:
        shaken, fixed = eqx.partition(tree, where(tree))
        leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, shaken))
        if not leaves:
            raise ValueError("where: there is nothing to shake; by default that is every field named threshold")
        scales = _scales(scale, shaken)
        keys = jax.random.split(key, len(leaves))
        # Drawn in float32 and cast, so that every precision has the same noise.
        half = num_samples // 2
        noise = [
            jax.random.normal(k, (half, *x.shape), jnp.float32).astype(x.dtype)
            for k, x in zip(keys, leaves, strict=True)
        ]

        def at(moves: list) -> Any:
            moved = [lax.stop_gradient(x + move) for x, move in zip(leaves, moves, strict=True)]
            return score(eqx.combine(jax.tree.unflatten(structure, moved), fixed), *arguments)

        moves = [jnp.concatenate([z, -z]) * s for z, s in zip(noise, scales, strict=True)]
        values = jax.vmap(at)(moves)
        slopes = lax.stop_gradient(values[:half] - values[half:]) / 2
        # This adds zero to the value, and the estimate to the derivative.
        lean = [
            jnp.tensordot(slopes, z, 1) / half * (x - lax.stop_gradient(x)) / s
            for x, z, s in zip(leaves, noise, scales, strict=True)
        ]
        return values.mean() + sum(part.sum() for part in lean)

    return mean_score


def _scales(scale: Number, shaken: Any) -> list:
    """One for each leaf."""
    leaves = jax.tree.leaves(shaken)
    if jax.tree.structure(scale) == jax.tree.structure(shaken):
        scales = jax.tree.leaves(scale)
    else:
        scales = [scale] * len(leaves)
    return [lax.stop_gradient(jnp.asarray(s, x.dtype)) for s, x in zip(scales, leaves, strict=True)]
