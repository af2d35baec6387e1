"""All that rests on how XLA compiles a loop over lanes, and the choices that follow from it.

**One kernel.** On CPUs, XLA calls a kernel for each fused operation. Such a call takes some 50 ns, more than the
arithmetic of a few lanes, and a loop over lanes makes a hundred of them in each turn. A function that is marked as a
small call becomes one kernel, with all of its loops in it.

The mark is XLA's own: its pass `small_while_loop_hoisting_pass.cc` sets it, but only for loops over very few bytes. XLA
does not check a mark that a program brings along, and does not compile what it cannot emit in that way. So a loop is
marked only if it does nothing but plain arithmetic, and only for versions of XLA with which that has been tested. The
mark is lowered for CPUs alone: other platforms never see it. Results are the same to the last digit in most programs;
some long sums are added in another order, and some products are rounded together with the sum that they go into, as
with normal draws.

**Layout.** In one kernel the time of a turn is that of its arithmetic: few slots are best, each found and written in
turn. In many kernels the time is that of the calls: many slots are best, all found and written together. The choice
follows the platform that the process computes on. It changes how fast a program is, never what it computes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxlib
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend import core
from jax.interpreters import batching, mlir
from jaxtyping import Bool

from jaxsim.engine.base.arrays import Array
from jaxsim.engine.schedules.lane_slots import AbstractLaneSlots, SlotsAtOnce, SlotsInTurn

T = TypeVar("T")

#: Minor versions of jaxlib with which marked calls have been tested.
KNOWN_XLA = {(0, 10)}

# --- The loop


class Loop(NamedTuple):
    """A loop as data.

    goes_on: (constants, state) -> bool.        turn: (constants, state) -> state.
    constants: what no turn changes, a pytree.      state: a pytree of arrays.
    """

    goes_on: Callable
    turn: Callable
    constants: Any
    state: Any


def run_loop(build: "Callable[[bool], Loop]", one_kernel: bool = True) -> Any:
    """The state after the last turn of a loop, run in one kernel where that is possible.

    build: makes the loop, laid out for one kernel (True) or for many (False).
    one_kernel: whether one kernel is to be tried.
    """
    if one_kernel and is_known():
        end = _run_in_one_kernel(build(True))
        if end is not None:
            return end
    goes_on, turn, constants, state = build(False)
    return lax.while_loop(lambda state: goes_on(constants, state), lambda state: turn(constants, state), state)


def _run_in_one_kernel(loop: Loop) -> Any | None:
    """The state after the last turn; None where a turn is not plain arithmetic."""
    arrays, rest = eqx.partition(loop.constants, eqx.is_array)

    def run(arrays: Any, state: Any) -> Any:
        constants, is_sound = eqx.combine(arrays, rest), _touch((arrays, state))
        return lax.while_loop(
            lambda state: loop.goes_on(constants, state) & is_sound, lambda state: loop.turn(constants, state), state
        )

    kernel = jax.jit(run)
    if not is_plain(kernel.trace(arrays, loop.state).jaxpr):
        return None
    # XLA would replace constant parameters by their values, and give up at parameters that are left unused (`_touch`).
    arrays, state = lax.optimization_barrier((arrays, loop.state))
    # A mark on a result becomes one of the call. All results are marked, since XLA leaves out those that nobody uses.
    return jax.tree.map(lambda x: x if _is_key(x) else _mark_p.bind(x), kernel(arrays, state))


def is_known() -> bool:
    """Whether programs of this process are for CPUs, by an XLA with which marked calls have been tested."""
    device = getattr(jax.config, "jax_default_device", None)
    platform = jax.default_backend() if device is None else getattr(device, "platform", device)
    return platform == "cpu" and jaxlib.version.__version_info__[:2] in KNOWN_XLA


def first_that_compiles(program: Callable[[T], Any], first: T, other: T) -> Any:
    """`program(first)`, which compiles; `program(other)` where XLA cannot emit a marked call after all."""
    try:
        return program(first)
    except jax.errors.JaxRuntimeError as error:
        if first == other or "UNIMPLEMENTED" not in str(error):
            raise
        return program(other)


def branch_apart(is_true: Bool[Array, ""], work: Callable[[], T], like: T) -> T:
    """`work()`, as a branch that is always taken. XLA cannot tell, and so does not repeat the work for each use of it,
    as it does with plain arithmetic.

    is_true: a condition that always holds, though XLA cannot tell.     like: anything of the shape of the result.
    """
    return lax.cond(is_true, work, lambda: like)


# --- The layout


@dataclass(frozen=True)
class Layout:
    """How a loop over lanes is laid out.

    is_one_kernel: whether for one kernel.      block: bars that are searched together.
    slots: lanes of the outermost axis that are rebalanced together; None: all of them, without gathering any.
    """

    is_one_kernel: bool
    block: int
    slots: int | None

    def slots_for(self, wanted: Bool[Array, " lane"]) -> AbstractLaneSlots:
        """The first lanes that are wanted, as many as there are slots."""
        assert self.slots is not None
        return (SlotsInTurn if self.is_one_kernel else SlotsAtOnce).first_of(wanted, self.slots)


def block_size(is_one_kernel: bool, num_lanes: int) -> int:
    """Bars that are searched together."""
    if is_one_kernel:
        return 64 if num_lanes <= 4 else 32 if num_lanes <= 8 else 16
    return 16 if 4 < num_lanes < 256 else 64


def num_slots(is_one_kernel: bool, num_lanes: int) -> int:
    """Lanes that are rebalanced together.      num_lanes: along the outermost axis."""
    if is_one_kernel:
        return min(max(num_lanes // 16, 1), 32)
    return next((slots for most, slots in ((4, 1), (32, 4), (255, 8)) if num_lanes <= most), 32)


# --- The mark


def _mark(x: Array) -> Any:
    return set_xla_metadata(x, xla_cpu_small_call="true", inlineable="false")


#: Marks the call that has made an array, where that is lowered for a CPU.
_mark_p = core.Primitive("small_call_on_cpu")
_mark_p.def_impl(lambda x: x)
_mark_p.def_abstract_eval(lambda x: x)
batching.defvectorized(_mark_p)
mlir.register_lowering(_mark_p, lambda _, x: [x])
mlir.register_lowering(_mark_p, mlir.lower_fun(_mark, multiple_results=False), platform="cpu", cacheable=False)


# --- What one kernel can do

_ARITHMETIC = """
    abs add and argmax argmin atan2 bitcast_convert_type broadcast_in_dim cbrt ceil clamp clz concatenate cond
    convert_element_type copy copy_p cos cosh cummax cummin cumprod cumsum custom_jvp_call custom_vmap_call div
    dynamic_slice dynamic_update_slice eq erf erf_inv exp exp2 expm1 floor gather ge gt integer_pow iota is_finite jit
    le lgamma log log1p logistic lt max min mul ne neg nextafter not optimization_barrier or pad pjit population_count
    pow random_bits random_fold_in random_gamma random_seed random_split random_unwrap random_wrap reduce reduce_and
    reduce_max reduce_min reduce_or reduce_prod reduce_sum rem reshape rev round rsqrt scan select_n shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh slice split sqrt square squeeze stack stop_gradient sub
    tan tanh threefry2x32 transpose while xor
"""
#: Primitives that one kernel can do.
PLAIN = frozenset(_ARITHMETIC.split())

#: XLA leaves reductions of so many numbers, and of more, to a library.
LARGE = 4096


def is_plain(program: Any) -> bool:
    """Whether one kernel can do all of a jaxpr."""
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
    """True, though XLA cannot tell. XLA ends the process if a parameter of a marked call is not used in the end."""
    is_sound = jnp.asarray(True)
    for leaf in jax.tree.leaves(tree):
        numbers = jax.random.key_data(leaf) if _is_key(leaf) else leaf
        if numbers.size:
            first = numbers[(0,) * numbers.ndim].astype(jnp.result_type(float))
            is_sound &= (first == first) | (first != first)
    return is_sound
