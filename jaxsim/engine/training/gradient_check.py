"""A derivative beside central differences, and signs of why the two may differ."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from jaxsim.engine.base.arrays import Array
from jaxsim.engine.training.sensitivity import event_codes

#: Differences are taken over these multiples of the step.
LEVELS = (0.1, 1.0, 10.0)


class Comparison(eqx.Module):
    """A derivative by some numbers, and scores beside it.

    score: at the point.        derivative: in reverse mode.
    up, down: scores with one number moved up and down, by the steps of each of `LEVELS`.
    moved: the first bar at which one of the moved runs decides otherwise than the unmoved one; -1 for none.
    other: the first bar at which its orders fill in another way; -1 for none.      tied: the first one at which they
        are executed in another order. None, all three, if the score tells nothing of its simulation.
    """

    score: Float[Array, ""]
    derivative: Float[Array, " number"]
    up: Float[Array, "level number"]
    down: Float[Array, "level number"]
    moved: Int[Array, "level number"] | None
    other: Int[Array, "level number"] | None
    tied: Int[Array, "level number"] | None


@eqx.filter_jit
def compare(
    score: Callable,
    trained: Any,
    fixed: Any,
    market: Any,
    places: Int[Array, " number"],
    steps: Float[Array, " number"],
) -> Comparison:
    """The derivative of `score(policy, market)` by chosen numbers of a policy, and scores a step to each side.

    trained: the floating-point leaves that are varied, `fixed` the rest of the policy.
    places: of the numbers in the flattened leaves.     steps: by how much each is moved at level 1.
    """
    flat, restore = ravel_pytree(trained)

    def at(numbers: Any) -> tuple[Any, Any]:
        answer = score(eqx.combine(restore(numbers), fixed), market)
        value, sim = answer if isinstance(answer, tuple) else (answer, None)
        if sim is None:
            return jnp.asarray(value), None
        codes = ranks = None
        if sim.events is not None:
            codes, ranks = event_codes(sim), jnp.where(sim.rebalanced[:, None], sim.events.fills.rank, 0)
        return jnp.asarray(value), (sim.rebalanced, codes, ranks)

    (value, _), slope = jax.value_and_grad(at, has_aux=True)(flat)
    # One program for the unmoved run and all others, so that equal numbers give equal events.
    moves = jnp.concatenate([jnp.asarray([sign * x for sign in (1, -1) for x in LEVELS]), jnp.zeros(1)])
    values, kept = jax.vmap(
        lambda move: jax.vmap(lambda place, step: at(flat.at[place].add(move * step)))(places, steps)
    )(moves)

    def first_difference(x: Array | None) -> Array | None:
        """The first bar at which anything differs from the unmoved run. x: [move, number, time, ...]."""
        if x is None:
            return None
        differs = (x != x[-1:]).reshape(*x.shape[:3], -1).any(axis=-1)[:-1]
        at_all = differs.reshape(2, len(LEVELS), *differs.shape[1:]).any(axis=0)
        return jnp.where(at_all.any(axis=-1), jnp.argmax(at_all, axis=-1), -1)

    moved, other, tied = (None, None, None) if kept is None else map(first_difference, kept)
    up, down = values[:-1].reshape(2, len(LEVELS), -1)
    return Comparison(value, slope[places], up, down, moved, other, tied)
