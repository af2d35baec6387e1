"""The types of arrays: those of JAX in the compiled engine, those of NumPy in the reference engine, where scalars are
Python's."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

Array = jax.Array | np.ndarray
Amount = Float[Array, ""] | float
Step = Int[Array, ""] | int
Answer = Bool[Array, ""] | bool | np.bool_


def namespace(*values: Any) -> ModuleType:
    """`jax.numpy` if any of the values is a JAX array or a tracer, else `numpy`: one formula serves both engines."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np
