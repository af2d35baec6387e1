"""Random keys of lanes: a lane draws by its labels alone, whoever its neighbours are."""

import hashlib
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.keys import as_key


def lane_hash(labels: dict[str, Any]) -> int:
    """First four bytes, big-endian, of the SHA-256 of `level=repr(label)`, levels sorted by name and joined by |."""
    plain = {name: label.item() if isinstance(label, np.generic) else label for name, label in labels.items()}
    text = "|".join(f"{name}={plain[name]!r}" for name in sorted(plain))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def lane_keys(key: Any, lanes: pd.Index | None, seeds: np.ndarray | None = None) -> Any:
    """One key per lane, [lane]; an unlabelled lane has the key itself.

    seeds: a seed for each lane, where the user sweeps the key.
    """
    if lanes is None:
        return as_key(key)[None]
    names = list(lanes.names)
    rows = zip(*(lanes.get_level_values(i) for i in range(lanes.nlevels)), strict=True)
    hashes = np.array([lane_hash(dict(zip(names, row, strict=True))) for row in rows], np.uint32)
    if seeds is None:
        return _fold_in_all(as_key(key), hashes)
    return _fold_in_each(jax.vmap(jax.random.key)(seeds.astype(np.int64)), hashes)


_fold_in_all = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))
_fold_in_each = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(0, 0)))
