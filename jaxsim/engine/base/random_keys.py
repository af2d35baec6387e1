"""What may be given for a random key."""

from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.engine.base.random import fold_in, is_threefry, uniform


def is_seed(key: Any) -> bool:
    """Whether this is an int to make a key of. Raises ValueError for one out of range."""
    if not isinstance(key, int | np.integer) or isinstance(key, bool):
        return False
    if not 0 <= key < 2**32:  # beyond, JAX draws otherwise with x64 than without
        raise ValueError(f"key: expected an int from 0 to 2**32 - 1, got {key}")
    return True


def as_key(key: Any) -> Any:
    """One typed random key from an int, a typed key, or raw key data. Raises ValueError for an int
    out of range, TypeError for anything else."""
    if is_seed(key):
        return jax.random.key(int(key))
    if is_typed(key) and key.shape == ():
        return key
    if isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32 and key.shape == (2,):
        return jax.random.wrap_key_data(jnp.asarray(key))
    got = f"an array of shape {key.shape}" if isinstance(key, jax.Array | np.ndarray) else repr(key)
    raise TypeError(f"key: expected an int or one jax.random.key, got {got}")


def key_or_words(key: Any) -> Any:
    """`as_key`; or for an int the words of the same key, uint32 [2], of which `jaxsim.engine.bar.lanes.prepared` makes
    a key. To make a key of an int is a program of its own."""
    if is_seed(key) and is_threefry(jax.config.jax_default_prng_impl):  # pyright: ignore[reportAttributeAccessIssue]
        return np.array([0, key], np.uint32)
    return as_key(key)


def is_typed(key: Any) -> TypeGuard[jax.Array]:
    """Whether this is what `jax.random.key` makes."""
    return isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


#: Folded into the key of a bar, it begins the stream of random rejections, which no allocator draws from.
REJECT_STREAM = 0x72656A65


def reject_draws(bar_key: Any, num_assets: int) -> jax.Array:
    """The uniform [0, 1) float32 numbers, one per asset, that decide on random rejections at one bar."""
    return uniform(fold_in(bar_key, REJECT_STREAM), (num_assets,))
