"""The types of arrays: those of JAX in the compiled engine, those of NumPy in the reference engine, where scalars are
Python's."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

Array = jax.Array | np.ndarray
Amount = Float[Array, ""] | float
Step = Int[Array, ""] | int
Answer = Bool[Array, ""] | bool | np.bool_


def namespace(*values: Any) -> ModuleType:
    """`jax.numpy` if any of the values is a JAX array or a tracer, else `numpy`: one formula serves both engines."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np


def refuse_masked(tree: Any, argument: str) -> None:
    """Raises ValueError naming the argument if an array among the leaves has masked entries: NumPy and JAX drop the
    mask, and what it hides would count."""
    for leaf in jax.tree.leaves(tree):
        if np.ma.is_masked(leaf):
            count, size = np.ma.count_masked(leaf), np.size(leaf)
            raise ValueError(f"{argument}: {count} of {size} entries are masked; say what they are: x.filled(value)")


def where(condition: Any, x: Any, y: Any) -> Any:
    """`jnp.where` as one operation. `jnp.where` itself is a call of a small program, which takes several times as
    long to trace and to differentiate. The compiled program is the same."""
    if _is_weak(x) and _is_weak(y):
        return jnp.where(condition, x, y)
    dtype, shape = jnp.result_type(x, y), np.broadcast_shapes(np.shape(condition), np.shape(x), np.shape(y))
    x, y = _spread(x, dtype, shape), _spread(y, dtype, shape)
    return lax.select(condition if np.ndim(condition) == 0 else _spread(condition, bool, shape), x, y)


def _is_weak(x: Any) -> bool:
    """Whether a number takes on the dtype of its neighbours."""
    return isinstance(x, int | float) or getattr(x, "weak_type", False)


def _spread(x: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    """An array of a dtype and a shape."""
    if not isinstance(x, jax.Array):
        x = np.asarray(x, dtype)
    elif x.dtype != dtype:
        x = lax.convert_element_type(x, dtype)
    if x.shape == shape:
        return x
    start = len(shape) - x.ndim
    if 1 in x.shape and any(size == 1 != shape[start + n] for n, size in enumerate(x.shape)):
        return jnp.broadcast_to(x, shape)
    return lax.broadcast_in_dim(x, shape, range(start, len(shape)))
