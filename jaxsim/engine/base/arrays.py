"""What an array is: JAX's in the compiled engine, NumPy's in the reference engine, where scalars are Python's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

Array = jax.Array | np.ndarray
Amount = Float[Array, ""] | float
Step = Int[Array, ""] | int
Answer = Bool[Array, ""] | bool | np.bool_


def namespace(x: Any) -> Any:
    """NumPy for NumPy arrays (the reference engine), jax.numpy for all else."""
    return np if isinstance(x, np.ndarray) else jnp
