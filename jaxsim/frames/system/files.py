"""A pytree of arrays in one file, without pickle: a line of JSON that describes it, then the arrays in the format of
NumPy (`equinox.tree_serialise_leaves`)."""

import json
import re
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from jaxsim.engine.training.trainable import leaf_names
from jaxsim.files import written_whole
from jaxsim.version import VERSION

#: Version of the format. A file of a newer one is refused.
FORMAT = 1


def write_tree(path: Path, kind: str, tree: Any, **header: Any) -> None:
    """Write a pytree, whole or not at all.

    kind: kind of the file.      header: further entries of the first line, as JSON.
    """
    tree = jax.device_get(tree)
    about = {"kind": kind, "version": FORMAT, "jaxsim": VERSION, "leaves": describe(tree), **header}
    with written_whole(path) as draft, draft.open("wb") as file:
        file.write(json.dumps(about).encode() + b"\n")
        eqx.tree_serialise_leaves(file, tree)


def read_header(path: Path, kind: str) -> dict[str, Any]:
    """The first line of a file. Raises ValueError that begins with `path` for a file of another kind."""
    with path.open("rb") as file:
        line = file.readline(1 << 24)
    try:
        header = json.loads(line)
        is_known = header["kind"] == kind
    except (ValueError, KeyError, TypeError):
        header, is_known = {}, False
    if not is_known:
        raise ValueError(f"path: {path} is not a {kind} of jaxsim")
    if header["version"] > FORMAT:
        raise ValueError(f"path: {path} was written by jaxsim {header['jaxsim']}, which is newer than this one")
    return header


def read_tree(path: Path, kind: str, like: Any, any_precision: bool = False) -> tuple[dict[str, Any], Any]:
    """The header, and the arrays in the structure of `like`, as NumPy arrays.

    any_precision: whether `like` may have other floating-point dtypes; those of the file come back.

    Raises ValueError that begins with `like`, naming the first leaf that differs, if it is not of that structure.
    """
    header, like = read_header(path, kind), jax.device_get(like)
    saved = header["leaves"]
    if any_precision:
        names, (leaves, structure) = leaf_names(like), jax.tree.flatten(like)
        pairs = zip(names, leaves, strict=True)
        like = jax.tree.unflatten(structure, [_in_precision_of(saved.get(name, ""), leaf) for name, leaf in pairs])
    expected = describe(like)
    for name in [*saved, *(name for name in expected if name not in saved)]:
        if saved.get(name) != expected.get(name):
            raise ValueError(
                f"like: {name} is {expected.get(name, 'absent')} in it, and {saved.get(name, 'absent')} in {path}"
            )
    with path.open("rb") as file:
        file.readline()
        try:
            return header, eqx.tree_deserialise_leaves(file, like)
        except (ValueError, EOFError, RuntimeError) as error:
            raise ValueError(f"path: {path} is damaged: {error}"[:300]) from error


def _in_precision_of(words: str, leaf: Any) -> Any:
    """A floating-point array in the floating-point dtype of a leaf in words; anything else as it is."""
    dtype = words.partition("[")[0]
    is_float = isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f" and dtype.startswith("float")
    return leaf.astype(dtype) if is_float else leaf


def describe(tree: Any) -> dict[str, str]:
    """Each leaf in words: the dtype and shape of an array, the name of a function."""
    return {name: _words(leaf) for name, leaf in zip(leaf_names(tree), jax.tree.leaves(tree), strict=True)}


def _words(leaf: Any) -> str:
    if isinstance(leaf, np.ndarray | np.generic | jax.Array):
        return f"{leaf.dtype}{list(leaf.shape)}"
    return getattr(leaf, "__qualname__", None) or type(leaf).__qualname__


def structure_of(tree: Any) -> str:
    """The classes and settings of a pytree, without addresses, which differ between processes."""
    return without_addresses(str(jax.tree.structure(tree)))


def without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+|0x[0-9a-f]{6,}", "", text)
