"""Loops in one kernel. On CPUs, XLA calls a kernel for each fused operation, which takes some 50 ns: more than what
a loop over a few lanes has to compute, and such a loop has a hundred of them in each turn. Marked as a small call, a
function becomes one kernel, with all of its loops in it.

The mark is XLA's own: its pass `small_while_loop_hoisting_pass.cc` sets it, but only for loops over very few bytes. XLA
does not check a mark that comes from outside, and what cannot be emitted that way does not compile. So a loop is marked
only if all that it does is plain arithmetic, and only for versions of XLA with which that has been tested. Elsewhere
the mark means nothing. Results are the same to the last digit in most programs; some long sums are added in another
order, and some products rounded together with the sum that they go into, as with normal draws.
"""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxlib
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend import core
from jaxtyping import Bool

from jaxsim.engine.base.arrays import Array

#: Minor versions of jaxlib with which marked calls have been tested.
KNOWN_XLA = {(0, 10)}

_ARITHMETIC = """
    abs add and argmax argmin atan2 bitcast_convert_type broadcast_in_dim cbrt ceil clamp clz concatenate cond
    convert_element_type copy copy_p cos cosh cummax cummin cumprod cumsum custom_jvp_call div dynamic_slice
    dynamic_update_slice eq erf erf_inv exp exp2 expm1 floor gather ge gt integer_pow iota is_finite jit le lgamma
    log log1p logistic lt max min mul ne neg nextafter not optimization_barrier or pad pjit pmax population_count
    pow random_bits random_fold_in random_gamma random_seed random_split random_unwrap random_wrap reduce reduce_and
    reduce_max reduce_min reduce_or reduce_prod reduce_sum rem reshape rev round rsqrt scan select_n shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh slice split sqrt square squeeze stack stop_gradient sub
    tan tanh threefry2x32 transpose while xor
"""
#: What one kernel can do.
PLAIN = frozenset(_ARITHMETIC.split())

#: Reductions of as many numbers XLA leaves to a library.
LARGE = 4096


def run_while(goes_on: Callable, turn: Callable, given: Any, state: Any, one_kernel: bool = True) -> Any:
    """`lax.while_loop`, in one kernel where that is possible.

    goes_on: (given, state) -> bool.        turn: (given, state) -> state.
    given: what does not change, a pytree.      state: a pytree of arrays.
    """
    end = run_in_one_kernel(goes_on, turn, given, state) if one_kernel else None
    if end is not None:
        return end
    return lax.while_loop(lambda state: goes_on(given, state), lambda state: turn(given, state), state)


def run_in_one_kernel(goes_on: Callable, turn: Callable, given: Any, state: Any) -> Any | None:
    """`run_while` in one kernel; None where that is not possible."""
    if not is_known():
        return None
    arrays, rest = eqx.partition(given, eqx.is_array)

    def loop(arrays: Any, state: Any) -> Any:
        given, is_sound = eqx.combine(arrays, rest), _touch((arrays, state))
        return lax.while_loop(lambda state: goes_on(given, state) & is_sound, lambda state: turn(given, state), state)

    kernel = jax.jit(loop)
    if not is_plain(kernel.trace(arrays, state).jaxpr):
        return None
    # XLA would replace parameters that are constants, and then has parameters that nothing uses (see `_touch`).
    arrays, state = lax.optimization_barrier((arrays, state))
    # What is said of one of its results is said of the call; of all, since those that nobody uses are left out.
    return jax.tree.map(lambda x: x if _is_key(x) else _marked(x), kernel(arrays, state))


def _marked(x: Array) -> Any:
    return set_xla_metadata(x, xla_cpu_small_call="true", inlineable="false")


def is_known() -> bool:
    """Whether it is known what XLA makes of a mark."""
    return jax.default_backend() == "cpu" and jaxlib.version.__version_info__[:2] in KNOWN_XLA


def is_plain(program: Any) -> bool:
    """Whether a jaxpr does nothing but what one kernel can do."""
    return all(_is_plain(equation) for equation in _equations(program))


def _is_plain(equation: Any) -> bool:
    name, values = equation.primitive.name, [x.aval for x in equation.invars]
    if name.startswith("reduce_"):  # sums and the like, of one array
        values = [x for x in values if jnp.issubdtype(x.dtype, jnp.inexact)]
    elif not name.startswith(("cum", "arg")):
        values = []
    return name in PLAIN and all(x.size < LARGE for x in values)


def _equations(program: Any) -> Iterator[Any]:
    for equation in program.eqns:
        yield equation
        for part in jax.tree.leaves(equation.params, is_leaf=_is_program):
            if _is_program(part):
                yield from _equations(part)


def _is_program(x: Any) -> bool:
    return isinstance(x, core.Jaxpr | core.ClosedJaxpr)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.extended)


def _touch(tree: Any) -> Bool[Array, ""]:
    """True, though XLA cannot tell. If a parameter of a marked call were not used in the end, it would give up and end
    the process."""
    is_sound = jnp.asarray(True)
    for leaf in jax.tree.leaves(tree):
        numbers = jax.random.key_data(leaf) if _is_key(leaf) else leaf
        if numbers.size:
            first = numbers[(0,) * numbers.ndim].astype(jnp.result_type(float))
            is_sound &= (first == first) | (first != first)
    return is_sound
