"""Programs that another process need not trace again. `kept_program` compiles a function of the library; a keeper, if
one is in place, is asked for the program of each new kind of arguments."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
from jax.core import Tracer

R = TypeVar("R")

#: Options of JAX that programs are traced under.
OPTIONS = (
    "jax_enable_x64",
    "jax_default_device",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
)
#: Options under which people look into a program, which is then traced as usual.
DEBUGGING = ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs", "jax_check_tracer_leaks")


class Call(NamedTuple):
    """A call of a function, without the numbers.

    function: what is called.       arguments: (positional, by name), with `ARRAY` in place of each array.
    types: of the arrays, in the order of the leaves.       options: values of `OPTIONS`.
    """

    function: Callable
    arguments: tuple[tuple, dict]
    types: tuple[Any, ...]
    options: tuple[Any, ...]


#: The program of a call, as a function of the list of its arrays; None if it cannot be kept.
Keeper = Callable[[Call], Callable[[list], Any] | None]


class _Array:
    """Stands for an array, in a pytree that is told without numbers."""

    def __repr__(self) -> str:
        return "ARRAY"


ARRAY = _Array()

_keeper: Keeper | None = None
_programs: dict[Hashable, Callable[[list], Any] | None] = {}


def keep_programs_with(keeper: Keeper | None) -> None:
    """Ask this keeper from now on; None: no keeper."""
    global _keeper
    _keeper = keeper
    _programs.clear()


def kept_program(function: Callable[..., R]) -> Callable[..., R]:
    """`equinox.filter_jit(function)`. Its programs are kept by the keeper, if there is one.

    function: of a module, and a function of its arguments alone.
    """
    jitted = eqx.filter_jit(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> R:
        keeper = None if any(getattr(jax.config, name, False) for name in DEBUGGING) else _keeper
        program = None if keeper is None else _program_of(keeper, function, (args, kwargs))
        return jitted(*args, **kwargs) if program is None else program()

    return call


def _program_of(keeper: Keeper, function: Callable, arguments: tuple[tuple, dict]) -> Callable[[], Any] | None:
    """The kept program of a call, with its arrays; None if there is none."""
    leaves, structure = jax.tree.flatten(arguments)
    arrays = [x for x in leaves if eqx.is_array(x)]
    if not all(map(_is_on_one_device, arrays)):
        return None
    rest = tuple(ARRAY if eqx.is_array(x) else x for x in leaves)
    types, options = tuple(map(jax.typeof, arrays)), tuple(getattr(jax.config, name, None) for name in OPTIONS)
    kind = function, structure, rest, types, options
    try:
        is_known = kind in _programs
    except TypeError:  # an argument that cannot be hashed
        return None
    if not is_known:
        _programs[kind] = keeper(Call(function, jax.tree.unflatten(structure, rest), types, options))
    program = _programs[kind]
    return None if program is None else functools.partial(program, arrays)


def _is_on_one_device(x: Any) -> bool:
    """Whether an array has numbers, and all of them in one place."""
    if isinstance(x, Tracer):
        return False
    return not isinstance(x, jax.Array) or len(x.devices()) == 1
