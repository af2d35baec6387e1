"""Random keys of lanes: a lane draws by its labels alone, whoever its neighbours are."""

import hashlib
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxsim.engine.base.random import as_key, is_seed, is_threefry, is_typed, threefry


class LaneKeys:
    """One random key per lane, kept as NumPy arrays: whatever is done to typed keys is a program of its own, compiled
    for every number of lanes.

    words: uint32 [lane or 1, ...].      impl: the kind of key.
    hashes: what is folded into the key of each lane, uint32 [lane]; None: nothing. Only for Threefry's.
    """

    def __init__(self, words: np.ndarray, impl: str, hashes: np.ndarray | None = None):
        self.words, self.impl, self.hashes = words, impl, hashes

    @cached_property
    def data(self) -> np.ndarray:
        """Of the keys themselves, uint32 [lane, ...]."""
        if self.hashes is None:
            return self.words
        words = threefry((self.words[:, 0], self.words[:, 1]), (np.uint32(0), self.hashes))
        return np.stack(words, axis=1)

    def __len__(self) -> int:
        return len(self.words if self.hashes is None else self.hashes)

    def __getitem__(self, lanes: Any) -> Any:
        """Typed keys of some lanes, of the shape of their numbers; of one lane, by its number."""
        return jax.random.wrap_key_data(jnp.asarray(self.data[lanes]), impl=self.impl)

    def of(self, lanes: np.ndarray) -> Any:
        """As a program takes them, of the shape of the numbers of their lanes: plain words where they are Threefry's,
        with the one that is to be folded in (see `engine.lanes.prepared`), else typed keys."""
        if not is_threefry(self.impl):
            return self[lanes]
        if self.hashes is None:
            return self.words[lanes]
        words = np.empty((*lanes.shape, 3), np.uint32)
        words[..., :2] = self.words[0] if len(self.words) == 1 else self.words[lanes]
        words[..., 2] = self.hashes[lanes]
        return words

    def take(self, lanes: np.ndarray) -> "LaneKeys":
        """Those of some lanes; one key for all stays that."""
        return LaneKeys(self.data if len(self) == 1 else self.data[lanes], self.impl)


def lane_keys(key: Any, lanes: pd.Index | None, seeds: np.ndarray | None = None) -> LaneKeys:
    """One key per lane, [lane]; an unlabelled lane has the key itself.

    seeds: a seed for each lane, where the user sweeps the key.
    """
    impl = str(jax.random.key_impl(key) if is_typed(key) else jax.config.jax_default_prng_impl)  # pyright: ignore[reportAttributeAccessIssue]
    if not is_threefry(impl):
        return _of_another_kind(key, lanes, seeds)
    data = _data_of(key)[None] if seeds is None else np.stack([np.zeros_like(seeds), seeds], axis=1).astype(np.uint32)
    if lanes is None:
        return LaneKeys(data, impl)
    return LaneKeys(data, impl, _hashes(lanes))


def _data_of(key: Any) -> np.ndarray:
    """Raises as `as_key`."""
    if is_seed(key):
        return np.array([0, key], np.uint32)  # as jax.random.key has it
    return np.asarray(jax.random.key_data(as_key(key)))


def _hashes(lanes: pd.Index) -> np.ndarray:
    """Of each lane the first four bytes, big-endian, of the SHA-256 of `level=repr(label)`, levels sorted by name and
    joined by |."""
    levels = sorted(range(lanes.nlevels), key=lanes.names.__getitem__)
    rows = zip(*(_texts(lanes, level) for level in levels), strict=True)
    digests = (hashlib.sha256("|".join(row).encode()).digest() for row in rows)
    return np.array([int.from_bytes(digest[:4], "big") for digest in digests], np.uint32)


def _texts(lanes: pd.Index, level: int) -> list[str]:
    """What is said of one level in each lane. A label is written out once, however many lanes have it."""
    name = lanes.names[level]
    if not isinstance(lanes, pd.MultiIndex) or (lanes.codes[level] < 0).any():  # below zero: NaN, which is no label
        return [_text(name, label) for label in lanes.get_level_values(level)]
    texts = [_text(name, label) for label in lanes.levels[level]]
    return [texts[code] for code in lanes.codes[level].tolist()]


def _text(name: Any, label: Any) -> str:
    return f"{name}={label.item() if isinstance(label, np.generic) else label!r}"


def _of_another_kind(key: Any, lanes: pd.Index | None, seeds: np.ndarray | None) -> LaneKeys:
    """By `jax.random`, for keys that are not Threefry's."""
    keys = as_key(key)[None] if seeds is None else jax.vmap(jax.random.key)(seeds.astype(np.int64))
    if lanes is not None:
        keys = jax.vmap(jax.random.fold_in)(jnp.broadcast_to(keys, len(lanes)), _hashes(lanes))
    return LaneKeys(np.asarray(jax.random.key_data(keys)), str(jax.random.key_impl(keys)))
