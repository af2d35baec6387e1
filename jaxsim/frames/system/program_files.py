"""Traced programs in files, one for each kind of call, so that the next process does not trace them again.

A file is a line of JSON, which tells the result of the program without its numbers, then the program as
`jax.export` writes it. Its name is a digest of all that the program follows from: the library's source, versions, the
call without its numbers, the types of its arrays, and JAX's options.
"""

import functools
import hashlib
import importlib
import importlib.util
import json
import logging
import platform
from collections.abc import Callable
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import equinox as eqx
import jax
import numpy as np

from jaxsim.engine.base.kept_programs import ARRAY, Call
from jaxsim.files import written_whole

#: Packages whose functions and classes a kept program may be made of. The first two count by their source.
SOURCES = ("jaxsim", "allocators")
PACKAGES = (*SOURCES, "jax", "jaxlib", "equinox", "optax", "numpy", "builtins", "functools")
VERSIONS = ("jax", "jaxlib", "equinox", "optax", "numpy")

log = logging.getLogger(__name__)


class NotKept(Exception):
    """A program that is made of more than the library."""


class ProgramFiles:
    """A folder of traced programs."""

    def __init__(self, folder: Path):
        self.folder = folder

    def program(self, call: Call) -> Callable[[list], Any] | None:
        """The program of a call, read or else traced and written; None for one that cannot be kept: a call with
        functions or classes of the user, with callbacks to the host, or on a platform without `jax.export`."""
        try:
            path = self.folder / f"{digest_of(call)}.traced"
            return (self._read(path) if path.is_file() else None) or self._write(path, call)
        except NotKept:
            return None

    def _read(self, path: Path) -> Callable[[list], Any] | None:
        """The program of a file; None for a damaged one."""
        try:
            line, _, rest = path.read_bytes().partition(b"\n")
            header = json.loads(line)
            if hashlib.sha256(rest).hexdigest() != header["sha256"]:
                raise ValueError("the checksum differs")
            return runnable(jax.export.deserialize(bytearray(rest)), header["result"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, NotKept) as error:
            log.warning("%s: a damaged program is traced anew: %s", path, error)
            return None

    def _write(self, path: Path, call: Call) -> Callable[[list], Any]:
        exported, result, blob = traced(call)
        header = {"result": result, "sha256": hashlib.sha256(blob).hexdigest()}
        try:
            with written_whole(path) as draft:
                draft.write_bytes(json.dumps(header).encode() + b"\n" + blob)
        except OSError as error:
            log.warning("%s: the program is not kept: %s", path, error)
        return runnable(exported, result)


def traced(call: Call) -> tuple[jax.export.Exported, Any, bytes]:
    """The program of a call, its result without numbers, and its bytes. Raises NotKept."""
    leaves, structure = jax.tree.flatten(call.arguments)
    result: Any = None

    def of_arrays(arrays: list) -> list:
        nonlocal result
        given = iter(arrays)
        args, kwargs = jax.tree.unflatten(structure, [next(given) if x is ARRAY else x for x in leaves])
        out, out_structure = jax.tree.flatten(call.function(*args, **kwargs))
        shape = jax.tree.unflatten(out_structure, [ARRAY if eqx.is_array(x) else x for x in out])
        result = told(shape)
        retold(result)
        return [x for x in out if eqx.is_array(x)]

    # The name of the function is part of the key under which JAX keeps compiled programs.
    of_arrays.__name__ = call.function.__name__
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in call.types]
    try:
        exported = jax.export.export(jax.jit(of_arrays))(shapes)
        return exported, result, bytes(exported.serialize())
    except NotKept:
        raise
    except (
        Exception
    ) as error:  # an error of the function itself is met again, and reported, where it is traced as usual
        log.debug("%s is not kept: %s", call.function.__name__, error)
        raise NotKept from error


def runnable(exported: jax.export.Exported, result: Any) -> Callable[[list], Any]:
    """A traced program as a function of its arrays. Compiled at the first call."""
    leaves, structure = jax.tree.flatten(retold(result))
    compiled = jax.jit(exported.call)

    def run(arrays: list) -> Any:
        made = iter(compiled(arrays))
        return jax.tree.unflatten(structure, [next(made) if x is ARRAY else x for x in leaves])

    return run


# --- Digests


def digest_of(call: Call) -> str:
    """SHA-256 of all that the program of a call follows from. Raises NotKept."""
    if any(x.weak_type for x in call.types):
        raise NotKept  # `jax.export` knows no weak types
    device = getattr(jax.config, "jax_default_device", None)
    where = [jax.default_backend() if device is None else getattr(device, "platform", str(device)), platform.machine()]
    types = [[list(x.shape), str(x.dtype)] for x in call.types]
    parts = [source_digest(), where, _name(call.function), told(call.arguments), types, [str(x) for x in call.options]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@functools.cache
def source_digest() -> str:
    """SHA-256 of the library's source and of the versions that it runs on."""
    total = hashlib.sha256(platform.python_version().encode())
    for package in VERSIONS:
        total.update(f"{package} {version(package)}\n".encode())
    for package in SOURCES:
        found = importlib.util.find_spec(package)
        for folder in found.submodule_search_locations or () if found else ():
            for path in sorted(Path(folder).rglob("*.py")):
                total.update(f"{package} {path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return total.hexdigest()


# --- Values without numbers, as JSON


def told(x: Any) -> Any:
    """A value as JSON, with classes and functions by name. Raises NotKept for what is not of the library."""
    if x is ARRAY or x is None or isinstance(x, bool | str):
        return {"array": 0} if x is ARRAY else x
    if isinstance(x, Enum):
        return {"enum": _name(type(x)), "of": x.name}
    if isinstance(x, int | float):
        return {type(x).__name__: repr(x)} if type(x) in (int, float) else _refuse(x)
    if isinstance(x, np.dtype):
        return {"dtype": x.str}
    if type(x) in (tuple, list):
        return {type(x).__name__: [told(part) for part in x]}
    if type(x) is dict:
        return {"dict": [[told(name), told(part)] for name, part in x.items()]}
    if isinstance(x, jax.tree_util.PyTreeDef):
        return {"structure": told(jax.tree.unflatten(x, [ARRAY] * x.num_leaves))}
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return {"named": _name(type(x)), "of": [told(part) for part in x]}
    if isinstance(x, functools.partial):
        return {"partial": told(x.func), "args": told(x.args), "kwargs": told(x.keywords)}
    if isinstance(x, MethodType):
        return {"method": x.__name__, "of": told(x.__self__)}
    if callable(x) and _is_named(x):
        return {"name": _name(x)}
    if isinstance(x, FunctionType):
        return _told_closure(x)
    if hasattr(x, "__dataclass_fields__"):
        return {"class": _name(type(x)), "of": {name: told(part) for name, part in sorted(vars(x).items())}}
    return _refuse(x)


def _told_closure(x: FunctionType) -> Any:
    """A function within a function: by its place in the source, and by what it closes over."""
    if x.__module__.split(".")[0] not in PACKAGES:
        _refuse(x)
    cells = [told(cell.cell_contents) for cell in x.__closure__ or ()]
    defaults = [told(x.__defaults__), told(x.__kwdefaults__)]
    return {"closure": [x.__module__, x.__qualname__, x.__code__.co_firstlineno], "of": cells, "defaults": defaults}


def retold(x: Any) -> Any:
    """The value that `told` has told. Raises NotKept for functions within functions, which have no name."""
    if not isinstance(x, dict):
        return x
    kind, what = next(iter(x.items()))
    of = x.get("of")
    match kind:
        case "array":
            return ARRAY
        case "enum":
            return _named(what, Enum)[of]
        case "int" | "float":
            return int(what) if kind == "int" else float(what)
        case "dtype":
            return np.dtype(what)
        case "tuple" | "list":
            parts = [retold(part) for part in what]
            return tuple(parts) if kind == "tuple" else parts
        case "dict":
            return {retold(name): retold(part) for name, part in what}
        case "structure":
            return jax.tree.structure(retold(what))
        case "named":
            return _named(what, tuple)(*map(retold, x["of"]))
        case "partial":
            return functools.partial(retold(what), *retold(x["args"]), **retold(x["kwargs"]))
        case "method":
            return getattr(retold(of), what)
        case "name":
            return _named(what)
        case "class":
            made = object.__new__(_named(what, object))
            for name, part in x["of"].items():
                object.__setattr__(made, name, retold(part))
            return made
    raise NotKept


def _is_named(x: Any) -> bool:
    try:
        return _named(_name(x)) is x
    except (NotKept, AttributeError, ImportError, ValueError):
        return False


def _name(x: Any) -> str:
    """The name of a class or function of the library."""
    module, name = getattr(x, "__module__", None), getattr(x, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module.split(".")[0] not in PACKAGES:
        _refuse(x)
    return f"{module}:{name}"


def _named(name: str, kind: type | None = None) -> Any:
    """What has a name. Raises NotKept for a name of another package, and for what is no class of this kind."""
    module, _, path = name.partition(":")
    if module.split(".")[0] not in PACKAGES:
        raise NotKept
    found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if kind is not None and not (isinstance(found, type) and issubclass(found, kind)):
        raise NotKept
    return found


def _refuse(x: Any) -> Any:
    raise NotKept(f"{type(x).__module__}.{type(x).__qualname__}")
