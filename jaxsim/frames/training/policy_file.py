"""`Policy.save` and `Policy.load`: policies on disk, without pickle. A file holds numbers and names, and no code.

The engine writes no files, so the two methods live here and are attached to `Policy`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsim.engine.policy.policy import Policy
from jaxsim.frames.system.files import read_tree, structure_of, write_tree

KIND = "policy"


def save(policy: Policy, path: str | Path) -> None:
    """Write the numbers of the policy to a file, in the dtypes they have, with a description of the classes and
    functions they belong to.

    path: of the file. A file that exists is replaced whole: a reader finds the old policy or the new one.

    Raises TypeError if `path` is none; OSError if the file cannot be written.
    """
    policy = _with_numpy(policy)
    write_tree(_as_path(path), KIND, policy, structure=structure_of(replace(policy, cut=None)), cut=policy.cut)


def load(path: str | Path, like: Policy) -> Policy:
    """The policy in a file that `Policy.save` has written. Its arrays are NumPy arrays, bit for bit those that were
    saved, in their dtypes: what was trained on a float32 market comes back in float32. In a simulation every number
    takes the dtype of the market.

    like: a policy built in the same way as the saved one, with any numbers, of any floating-point dtype: the untrained
        policy will do. Its classes and functions are used; the file holds only their names. Where `like`
        does not say its `cut`, the policy has that of the file.

    Raises FileNotFoundError; ValueError that begins with `path` for a file that `Policy.save` has not written, or a
    damaged one; ValueError that begins with `like` if `like` is built in another way; TypeError if `like` is no
    `Policy`.
    """
    if not isinstance(like, Policy):
        raise TypeError(f"like: expected a Policy, got {type(like).__name__}")
    header, policy = read_tree(_as_path(path), KIND, _with_numpy(like), any_precision=True)
    structure, cut = structure_of(replace(like, cut=None)), header.get("cut")
    if header["structure"] != structure:
        raise ValueError(f"like: built otherwise than the policy in {path}: {structure}, there {header['structure']}")
    if like.cut not in (None, cut):
        raise ValueError(f"like: its cut is {like.cut!r}, that of the policy in {path} is {cut!r}")
    return replace(policy, cut=cut)


def _as_path(path: str | Path) -> Path:
    if not isinstance(path, str | Path):
        raise TypeError(f"path: expected the path of a file, got {path!r}"[:200])
    return Path(path)


def _with_numpy(policy: Policy) -> Policy:
    def plain(leaf: Any) -> Any:
        return np.asarray(leaf) if isinstance(leaf, jax.Array | np.generic) else leaf

    return jax.tree.map(plain, policy)


Policy.save = save
Policy.load = staticmethod(load)
