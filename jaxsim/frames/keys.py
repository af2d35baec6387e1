"""Random keys of lanes: a lane draws by its labels alone, whoever its neighbours are."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxsim.engine.keys import as_key, is_seed


def lane_hash(labels: dict[str, Any]) -> int:
    """First four bytes, big-endian, of the SHA-256 of `level=repr(label)`, levels sorted by name and joined by |."""
    plain = {name: label.item() if isinstance(label, np.generic) else label for name, label in labels.items()}
    text = "|".join(f"{name}={plain[name]!r}" for name in sorted(plain))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class LaneKeys:
    """One random key per lane, kept as NumPy arrays: whatever is done to typed keys is a program of its own, compiled
    for every number of lanes.

    data: uint32 [lane, ...].      impl: the kind of key.
    """

    def __init__(self, data: np.ndarray, impl: str):
        self.data, self.impl = data, impl

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, lanes: Any) -> Any:
        """Typed keys of some lanes, of the shape of their numbers; of one lane, by its number."""
        return jax.random.wrap_key_data(jnp.asarray(self.data[lanes]), impl=self.impl)

    def take(self, lanes: np.ndarray) -> "LaneKeys":
        """Those of some lanes; one key for all stays that."""
        return LaneKeys(self.data if len(self) == 1 else self.data[lanes], self.impl)


def lane_keys(key: Any, lanes: pd.Index | None, seeds: np.ndarray | None = None) -> LaneKeys:
    """One key per lane, [lane]; an unlabelled lane has the key itself.

    seeds: a seed for each lane, where the user sweeps the key.
    """
    if lanes is None:
        return _as_arrays(as_key(key)[None], 1)
    names = list(lanes.names)
    rows = zip(*(lanes.get_level_values(i) for i in range(lanes.nlevels)), strict=True)
    hashes = np.array([lane_hash(dict(zip(names, row, strict=True))) for row in rows], np.uint32)
    room = (1 << (len(lanes) - 1).bit_length()) - len(lanes)  # few shapes, few programs
    hashes = np.pad(hashes, (0, room))
    if seeds is None and not is_seed(key):
        return _as_arrays(_fold_in_all(as_key(key), hashes), len(lanes))
    of_lanes = np.full(len(lanes), key) if seeds is None else seeds
    return _as_arrays(_of_seeds(np.pad(of_lanes.astype(np.int64), (0, room)), hashes), len(lanes))


def _as_arrays(keys: Any, count: int) -> LaneKeys:
    return LaneKeys(np.asarray(jax.random.key_data(keys))[:count], str(jax.random.key_impl(keys)))


_fold_in_all = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))
_of_seeds = jax.jit(jax.vmap(lambda seed, hash_: jax.random.fold_in(jax.random.key(seed), hash_)))
