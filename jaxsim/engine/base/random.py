"""Random numbers of `jax.random`, bit for bit, and random keys. The rounds of Threefry are written out here: on a CPU,
JAX loops over them, which takes several times longer to compile and to run.

Threefry-2x32-20: Salmon, Moraes, Dror and Shaw, Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011).
"""

import math
from functools import partial
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int, UInt32

from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.fields import is_whole

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)


def threefry(key: tuple[Any, Any], counts: tuple[Any, Any]) -> tuple[Any, Any]:
    """Two random words for each pair of counts, uint32 arrays of NumPy or JAX that are broadcast."""
    keys = (*key, key[0] ^ key[1] ^ PARITY)
    x, y = counts[0] + keys[0], counts[1] + keys[1]
    for turn in range(5):
        for by in ROTATIONS[turn % 2]:
            x = x + y
            y = x ^ ((y << np.uint32(by)) | (y >> np.uint32(32 - by)))
        x, y = x + keys[(turn + 1) % 3], y + keys[(turn + 2) % 3] + np.uint32(turn + 1)
    return x, y


def is_threefry(impl: Any) -> bool:
    """Whether `jax.random` draws from keys of this kind by the same formula."""
    return str(impl) == "threefry2x32" and jax.config.jax_threefry_partitionable  # pyright: ignore[reportAttributeAccessIssue]


@jax.jit  # in a NumPy loop, every operation alone would be a program
def fold_in(key: Any, number: Int[Array, ""] | int) -> Any:
    """`jax.random.fold_in`: a key made of a key and a whole number."""
    if not is_threefry(jax.random.key_impl(key)):
        return jax.random.fold_in(key, number)
    first, second = jax.random.key_data(key)
    words = threefry((first, second), (jnp.uint32(0), jnp.asarray(number).astype(jnp.uint32)))
    return jax.random.wrap_key_data(jnp.stack(words), impl="threefry2x32")


@partial(jax.jit, static_argnames="shape")
def uniform(key: Any, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """`jax.random.uniform(key, shape, jnp.float32)`: uniform on [0, 1), the same in every dtype and any `vmap`."""
    size = math.prod(shape)
    if not is_threefry(jax.random.key_impl(key)) or size >= 2**32:
        return jax.random.uniform(key, shape, jnp.float32)
    first, second = jax.random.key_data(key)
    x, y = threefry((first, second), (jnp.uint32(0), lax.iota(jnp.uint32, size)))
    return _unit_interval(x ^ y).reshape(shape)


def _unit_interval(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """The float32 in [1, 2) with these bits as its mantissa, minus one."""
    return lax.bitcast_convert_type((bits >> np.uint32(9)) | np.uint32(0x3F800000), jnp.float32) - 1


# --- keys


def is_seed(key: Any) -> bool:
    """Whether this is an int, for a key to be made of. Raises ValueError for one out of range."""
    if not is_whole(key):
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
    """`as_key`; or for an int the words of the same key, uint32 [2], from which
    `jaxsim.engine.bar.lanes.prepared` makes a key. To make a key of an int is a program of its own."""
    if is_seed(key) and is_threefry(jax.config.jax_default_prng_impl):  # pyright: ignore[reportAttributeAccessIssue]
        return np.array([0, key], np.uint32)
    return as_key(key)


def is_typed(key: Any) -> TypeGuard[jax.Array]:
    """Whether this is a typed key, as `jax.random.key` returns it."""
    return isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


#: Folded into the key of a bar, it begins the stream of random rejections, which no allocator draws from (rules 14.3).
REJECT_STREAM = 0x72656A65


def reject_draws(bar_key: Any, num_assets: int) -> jax.Array:
    """The uniform [0, 1) float32 numbers, one per asset, that decide on random rejections at one bar."""
    return uniform(fold_in(bar_key, REJECT_STREAM), (num_assets,))
