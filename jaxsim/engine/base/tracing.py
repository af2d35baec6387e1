"""Functions that a program needs in several places, traced once. Tracing is Python's part of the time to a first
result, and no cache of programs saves it."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax

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
