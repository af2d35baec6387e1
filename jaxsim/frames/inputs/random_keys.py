"""Random keys of lanes. The key of a lane depends on its labels alone, not on the lanes beside it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxsim.engine.base.random import as_key, is_seed, is_threefry, is_typed, threefry

#: A random key as users give it: an int, what `jax.random.key` makes, or raw key data.
Key = int | jax.Array | np.ndarray


@dataclass(frozen=True, eq=False)
class RandomKey:
    """One random key as NumPy words, which other processes can be sent.

    words: uint32 [word].       impl: the kind of key.
    """

    words: np.ndarray
    impl: str

    @classmethod
    def of(cls, key: Key) -> "RandomKey":
        """Raises as `as_key`: ValueError for an int out of range, TypeError for values that are no key."""
        default = jax.config.jax_default_prng_impl  # pyright: ignore[reportAttributeAccessIssue]
        impl = str(jax.random.key_impl(key) if is_typed(key) else default)
        if is_seed(key) and is_threefry(impl):
            return cls(np.array([0, key], np.uint32), impl)  # the words that jax.random.key makes
        with jax.enable_x64(True):  # without it, an int would be cut to 32 bits with a sign
            return cls(np.asarray(jax.random.key_data(as_key(key))), impl)

    def typed(self) -> jax.Array:
        """The key as `jax.random` takes it."""
        return jax.random.wrap_key_data(jnp.asarray(self.words), impl=self.impl)


class LaneKeys:
    """One random key per lane, kept as NumPy arrays. JAX would compile every operation on typed keys anew for each
    number of lanes.

    words: uint32 [lane or 1, ...].      impl: the kind of key.
    hashes: the number that is folded into the key of each lane, uint32 [lane]; None: nothing. Only for Threefry keys.
    """

    def __init__(self, words: np.ndarray, impl: str, hashes: np.ndarray | None = None):
        self.words, self.impl, self.hashes = words, impl, hashes

    @cached_property
    def data(self) -> np.ndarray:
        """The words of the keys themselves, uint32 [lane, ...]."""
        if self.hashes is None:
            return self.words
        words = threefry((self.words[:, 0], self.words[:, 1]), (np.uint32(0), self.hashes))
        return np.stack(words, axis=1)

    def __len__(self) -> int:
        return len(self.words if self.hashes is None else self.hashes)

    def __getitem__(self, lanes: int | np.ndarray) -> jax.Array:
        """Typed keys by the numbers of their lanes, in the shape of these numbers."""
        return jax.random.wrap_key_data(jnp.asarray(self.data[lanes]), impl=self.impl)

    def of(self, lanes: np.ndarray) -> np.ndarray | jax.Array:
        """The keys as a program takes them, in the shape of the numbers of their lanes.

        Threefry keys are plain words, with a third word that the program folds in (see `bar.lanes.prepared`). Others
        are typed keys.
        """
        if not is_threefry(self.impl):
            return self[lanes]
        if self.hashes is None:
            return self.words[lanes]
        words = np.empty((*lanes.shape, 3), np.uint32)
        words[..., :2] = self.words[0] if len(self.words) == 1 else self.words[lanes]
        words[..., 2] = self.hashes[lanes]
        return words


def lane_keys(key: RandomKey, lanes: pd.Index | None, seeds: np.ndarray | None = None) -> LaneKeys:
    """One key per lane, [lane]; an unlabelled lane has the key itself.

    seeds: a seed for each lane, where the user sweeps the key.
    """
    if not is_threefry(key.impl):
        return _other_keys(key, lanes, seeds)
    words = key.words[None]
    if seeds is not None:
        words = np.stack([np.zeros_like(seeds), seeds], axis=1).astype(np.uint32)
    return LaneKeys(words, key.impl, None if lanes is None else _hashes(lanes))


def _hashes(lanes: pd.Index) -> np.ndarray:
    """The number of each lane: the first four bytes, big-endian, of the SHA-256 of its `level=repr(label)`, with levels
    sorted by name and joined by | (rules 14.1)."""
    levels = sorted(range(lanes.nlevels), key=lanes.names.__getitem__)
    rows = zip(*(_texts(lanes, level) for level in levels), strict=True)
    digests = (hashlib.sha256("|".join(row).encode()).digest() for row in rows)
    return np.array([int.from_bytes(digest[:4], "big") for digest in digests], np.uint32)


def _texts(lanes: pd.Index, level: int) -> list[str]:
    """The text of one level in each lane. Each label is written once, however many lanes have it."""
    name = lanes.names[level]
    if not isinstance(lanes, pd.MultiIndex) or (lanes.codes[level] < 0).any():  # below zero: NaN, which is no label
        return [_text(name, label) for label in lanes.get_level_values(level)]
    texts = [_text(name, label) for label in lanes.levels[level]]
    return [texts[code] for code in lanes.codes[level].tolist()]


def _text(name: Any, label: Any) -> str:
    return f"{name}={label.item() if isinstance(label, np.generic) else label!r}"


def _other_keys(key: RandomKey, lanes: pd.Index | None, seeds: np.ndarray | None) -> LaneKeys:
    """Keys of another kind than Threefry, made by `jax.random`."""
    with jax.enable_x64(True):
        keys = key.typed()[None] if seeds is None else jax.vmap(jax.random.key)(seeds.astype(np.int64))
        if lanes is not None:
            keys = jax.vmap(jax.random.fold_in)(jnp.broadcast_to(keys, len(lanes)), _hashes(lanes))
        return LaneKeys(np.asarray(jax.random.key_data(keys)), str(jax.random.key_impl(keys)))
