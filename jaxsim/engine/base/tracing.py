"""Functions that a program needs in several places, traced once. Tracing is Python's part of the time to a first
result, and no cache of programs saves it."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

R = TypeVar("R")


def traced_once(function: Callable[..., R]) -> Callable[..., R]:
    """`function`, whose Python runs once for each shape of its arguments. Each further call repeats the operations that
    the first has recorded. The program is the same as without.

    Make one for each trace of a program, as a local name: it may close over arrays of that trace. Arguments are pytrees
    by position, whose leaves other than `jax.Array` are compared by identity. Results are pytrees of arrays.
    """
    programs: dict[Any, Callable] = {}

    def call(*arguments: Any) -> R:
        leaves, structure = jax.tree.flatten(arguments)
        arrays = [x for x in leaves if eqx.is_array(x)]
        kind = structure, tuple(None if eqx.is_array(x) else id(x) for x in leaves)
        if kind not in programs:
            others = [None if eqx.is_array(x) else x for x in leaves]

            def program(arrays: list) -> Any:
                given = iter(arrays)
                return function(*jax.tree.unflatten(structure, [next(given) if x is None else x for x in others]))

            programs[kind] = jax.jit(program, inline=True)
        return programs[kind](arrays)

    return call


def depending_on(tree: R, inputs: Any) -> R:
    """`tree`, every float of which has a derivative by all floats of `inputs`: exactly 0 where it had none.

    JAX differentiates the body of a loop again and again until it knows which parts of the state have derivatives. With
    a start of which all have some, it knows at once. XLA leaves nothing of it in the program.
    """
    floats = [x for x in jax.tree.leaves(inputs) if eqx.is_inexact_array(x) and x.size]
    if not floats:
        return tree
    never = jnp.asarray(False)

    def joined(x: Any) -> Any:
        if not eqx.is_inexact_array(x):
            return x
        total = sum(one.ravel()[0].astype(x.dtype) for one in floats)
        return lax.select(jnp.broadcast_to(never, x.shape), jnp.broadcast_to(total, x.shape), x)

    return jax.tree.map(joined, tree)
