"""What an array is: JAX's in the compiled engine, NumPy's in the reference engine, where scalars are Python's."""

import jax
import numpy as np
from jaxtyping import Float, Int

Array = jax.Array | np.ndarray
Amount = Float[Array, ""] | float
Step = Int[Array, ""] | int
