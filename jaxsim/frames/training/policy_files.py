"""Policies on disk, without pickle: a file holds numbers and names, and no code."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsim.engine.policy.policy import Policy
from jaxsim.frames.system.files import read_tree, structure_of, write_tree

KIND = "policy"


def save_policy(path: str | Path, policy: Policy) -> None:
    """Write the numbers of a policy to a file, with a description of what they belong to.

    Raises TypeError if `policy` is no `Policy`.
    """
    if not isinstance(policy, Policy):
        raise TypeError(f"policy: expected a Policy, got {type(policy).__name__}")
    policy = _with_numpy(policy)
    write_tree(Path(path), KIND, policy, structure=structure_of(policy))


def load_policy(path: str | Path, like: Policy) -> Policy:
    """The policy in a file.

    like: a policy built as the one that was saved, with any numbers: it says which classes and functions those in the
        file belong to. Of those only the names are in the file.

    Raises FileNotFoundError; ValueError that begins with `path` if the file is none of `save_policy`, or damaged;
    ValueError that begins with `like` if `like` is built otherwise; TypeError if it is no `Policy`.
    """
    if not isinstance(like, Policy):
        raise TypeError(f"like: expected a Policy, got {type(like).__name__}")
    header, policy = read_tree(Path(path), KIND, _with_numpy(like))
    structure = structure_of(like)
    if header["structure"] != structure:
        raise ValueError(f"like: built otherwise than the policy in {path}: {structure}, there {header['structure']}")
    return policy


def _with_numpy(policy: Policy) -> Policy:
    def plain(leaf: Any) -> Any:
        return np.asarray(leaf) if isinstance(leaf, jax.Array | np.generic) else leaf

    return jax.tree.map(plain, policy)
