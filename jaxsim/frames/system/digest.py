"""Digests of arguments: runs with equal digests have the same results."""

import hashlib
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object


def digest(value: Any) -> str:
    """SHA-256 of numbers, arrays, labels, modules and functions, by their contents and not by their addresses.

    A function counts by its code, its defaults and its closure; globals that it uses do not count.
    """
    total = hashlib.sha256()
    _add(value, total.update, set())
    return total.hexdigest()


def _add(value: Any, add: Callable[[bytes], None], above: set[int]) -> None:
    add(f"<{type(value).__module__}.{type(value).__qualname__}>".encode())
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        add(repr(value).encode())
    elif isinstance(value, type | ModuleType):
        add(f"{getattr(value, '__module__', '')}.{value.__name__}".encode())
    elif isinstance(value, pd.Index | pd.Series):
        names = list(value.names) if isinstance(value, pd.Index) else [value.name]
        add(repr((names, str(value.dtype))).encode())
        hashes: Any = hash_pandas_object  # its annotations are wrong
        add(hashes(value, index=isinstance(value, pd.Series)).to_numpy().tobytes())
    elif isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        add(str(jax.random.key_impl(value)).encode())
        _add(np.asarray(jax.random.key_data(value)), add, above)
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        add(repr((array.shape, str(array.dtype))).encode())
        add(np.ascontiguousarray(array).tobytes() if array.dtype != object else repr(array.tolist()).encode())
    elif id(value) in above:
        add(b"<itself>")
    else:
        for part in _parts(value):
            _add(part, add, above | {id(value)})


def _parts(value: Any) -> Any:
    """The parts of a composite value."""
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, value.co_varnames, value.co_consts
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return value.__module__, value.__qualname__, value.__code__, value.__defaults__, value.__kwdefaults__, cells
    if isinstance(value, Mapping):
        return [part for key in sorted(value, key=repr) for part in (key, value[key])]
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, eqx.Module) or hasattr(value, "__dict__"):
        return [part for name, part in sorted(vars(value).items()) for part in (name, part)]
    return (repr(value),)
