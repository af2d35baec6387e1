"""Exact arithmetic: comparisons with a tolerance, balances without dust, rounded products, sums in order.

All results are those of plain NumPy, bit for bit (rules 1). This is necessary: a balance
that is *exactly* zero rejects the next order, so one unit in the last place can change the number of orders.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Bool, Float, Inexact, Int

from jaxsim.engine.base.arrays import Array, Step, where

REL_TOL = 1e-9
ABS_TOL = 1e-12

#: Sums over at most this many assets are written out; longer ones become a loop.
UNROLL = 16

#: The value of a numeric field: a number, an array, a tracer, or (in the pandas face) a named index.
Number = Any

#: An array, or in the reference engine a plain float.
Numbers = Inexact[Array, "..."] | float


def as_number(x: Number) -> Number:
    """Field converter: plain numbers become NumPy float64 arrays, other values stay as they are.

    NumPy, because a `jnp` constant made outside the x64 scope would already have lost its last digits, and because
    a Python float has no gradient and recompiles for every value.
    """
    if isinstance(x, int | float | list | tuple | np.number):
        return np.asarray(x, dtype=np.float64)
    if isinstance(x, np.ndarray) and not np.issubdtype(x.dtype, np.inexact) and x.dtype != object:
        return x.astype(np.float64)
    return x


def cast_inexact(tree: Any, dtype: Any) -> Any:
    """A pytree with all floating-point arrays in one dtype; integers, booleans, keys and functions stay."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if eqx.is_inexact_array(x) else x, tree)


def eq(a: Inexact[Array, "..."], b: Inexact[Array, "..."]) -> Bool[Array, "..."]:
    """Equal to 1e-9 relative or 1e-12 absolute; false where either is not finite (rules 1.1)."""
    near = jnp.abs(a - b) <= jnp.maximum(REL_TOL * jnp.maximum(jnp.abs(a), jnp.abs(b)), ABS_TOL)
    return near & jnp.isfinite(a) & jnp.isfinite(b)


def le(a: Inexact[Array, "..."], b: Inexact[Array, "..."]) -> Bool[Array, "..."]:
    """Less than, or equal within tolerance (rules 1.2)."""
    return (a < b) | eq(a, b)


@jax.custom_jvp
def add(a: Inexact[Array, "..."], b: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """a + b, exactly zero where the two cancel (rules 1.3). Gradients see a plain sum."""
    total = a + b
    cancels = where(jnp.sign(a) != jnp.sign(b), eq(jnp.abs(a), jnp.abs(b)), jnp.abs(total) <= ABS_TOL)
    return where(cancels, 0.0, total)


@add.defjvp
def _add_jvp(primals, tangents):
    out = add(*primals)
    return out, jnp.broadcast_to(tangents[0] + tangents[1], out.shape)


@jax.custom_jvp
def snap(x: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """x, and exactly zero where abs(x) <= 1e-12 (rules 1.4). Gradients see the identity."""
    return where(jnp.abs(x) <= ABS_TOL, 0.0, x)


@snap.defjvp
def _snap_jvp(primals, tangents):
    return snap(*primals), tangents[0]


def whole_lots(size: Inexact[Array, ""], lot: Inexact[Array, ""]) -> tuple[Array, Array]:
    """The size in whole lots (rules 1.5): the nearest number of them where the size is a hair from it, so that it may
    be above the size, and rounded down."""
    size, lot = lax.stop_gradient(size), lax.stop_gradient(lot)
    lots = quotient(size, lot)
    nearest = jnp.round(lots)
    ulp = jnp.nextafter(jnp.abs(lots), jnp.inf) - jnp.abs(lots)
    is_near = jnp.abs(lots - nearest) <= jnp.maximum(REL_TOL, 4 * ulp)
    down = product(jnp.floor_divide(size, lot), lot)
    return where(is_near, product(nearest, lot), down), down


@jax.custom_jvp
def rounded_to(size: Inexact[Array, ""], rounded: Inexact[Array, ""]) -> Inexact[Array, ""]:
    """The rounded size; derivatives are those of the size."""
    return rounded


@rounded_to.defjvp
def _rounded_to_jvp(primals, tangents):
    return rounded_to(*primals), tangents[0]


def passes(x: Inexact[Array, ""], limit: Inexact[Array, ""]) -> Bool[Array, ""]:
    """Whether x is above a limit by more than the rounding of a product and a sum."""
    return x > limit + 4 * jnp.finfo(limit.dtype).eps * jnp.abs(limit)


def product(x: Numbers, y: Numbers) -> Inexact[Array, "..."]:
    """x * y rounded to the nearest number before anything is added to it; 0 where x is 0, whatever y is.

    XLA on CPU turns `a * b + c` into one fused multiply-add, which rounds once where NumPy rounds twice. A select on
    the product prevents this (barriers and `reduce_precision` do not), if
    - its condition is unknown when the program is compiled; `x != 0` is known for constant weights, hence `y == y`;
    - its other arm is no constant: LLVM turns `c - select(p, a * b, 0)` into `select(p, c - a * b, c)`.
    The select on `x` allows an empty position without a price.
    """
    if _are_numpy(x, y):
        return np.where(x == 0, x, x * y)
    return _product(x, y)


@jax.custom_jvp
def _product(x, y):
    return where(x == 0, x, where(y == y, x * y, y))


@_product.defjvp
def _product_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    known = ~jnp.isnan(y)  # the NaN price of one asset must not reach the gradients of others
    return _product(x, y), where(known, dx * where(known, y, 0.0), 0.0) + where(known, x * dy, 0.0)


def quotient(x: Numbers, y: Numbers) -> Inexact[Array, "..."]:
    """x / y rounded to the nearest number; 0 where x is 0.

    XLA rewrites (a / b) / c as a / (b * c), and a division by a constant as a multiplication by its inverse. Both round
    in another way. Selects on the divisor and on the result (see `product`) prevent this, and keep 0 / 0 out of
    gradients.
    """
    if _are_numpy(x, y):
        return np.where(x == 0, x, x / np.where(x == 0, 1.0, y))
    return _quotient(x, y)


@jax.custom_jvp
def _quotient(x, y):
    is_zero = x == 0
    return where(is_zero, x, where(y == y, x / where(is_zero, 1.0, y), y))


@_quotient.defjvp
def _quotient_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    out = _quotient(x, y)
    divides = (y != 0) & ~jnp.isnan(y)
    return out, where(divides, dx - where(divides, out, 0.0) * dy, 0.0) / where(divides, y, 1.0)


def coarse(x: Numbers, unit: Numbers) -> Inexact[Array, "..."]:
    """x in whole billionths of `unit` (in float32, two millionths), so that rounding errors decide no comparison;
    x itself where the unit is not positive."""
    xp = np if _are_numpy(x, unit) else jnp
    x, unit = xp.asarray(x), xp.asarray(unit)
    grain = max(REL_TOL, 16 * float(xp.finfo(x.dtype).eps))
    is_sound = unit > 0
    return xp.where(is_sound, xp.round(quotient(x, xp.where(is_sound, unit, 1.0)) / grain), x)


def _are_numpy(*xs: Any) -> bool:
    """Whether these are numbers of the reference engine, which round as they should by themselves."""
    return all(isinstance(x, np.ndarray | np.generic | float | int) for x in xs)


def in_sequence(step: Callable, carry: Any, xs: Any) -> tuple[Any, Any]:
    """`lax.scan` whose steps are expensive and few. Written out, XLA would recompute the whole chain of steps inside
    every consumer of every result; the barriers keep the loop's inputs and outputs apart."""
    carry, xs = lax.optimization_barrier((carry, xs))
    return lax.optimization_barrier(lax.scan(step, carry, xs))


def dot(start: Float[Array, ""], x: Float[Array, " asset"], y: Float[Array, " asset"]) -> Float[Array, ""]:
    """start + x[0] * y[0] + x[1] * y[1] + ..., left to right: `jnp.sum` promises no order, and order decides."""
    unroll = x.shape[0] if x.shape[0] <= UNROLL else 8
    return lax.scan(lambda total, xy: (total + product(*xy), None), start, (x, y), unroll=unroll)[0]


def ordered_sum(x: Inexact[Array, "asset *rest"]) -> Inexact[Array, "*rest"]:
    """x[0] + x[1] + ..., left to right, for sums that decide."""
    if isinstance(x, np.ndarray):
        return np.asarray(sum(x[1:], start=x[0]))
    unroll = x.shape[0] if x.shape[0] <= UNROLL else 8
    return lax.scan(lambda total, one: (total + one, None), jnp.zeros_like(x[0]), x, unroll=unroll)[0]


def at_bar(x: Number, step: Step) -> Array:
    """The row of `x` for one bar: `x` is a number, one per asset [asset], or [time or 1, asset or 1]."""
    if isinstance(step, int) and not isinstance(x, jax.Array):
        x = np.asarray(x)
        return x if x.ndim < 2 else x[0 if x.shape[0] == 1 else step]
    x = jnp.asarray(x)
    if x.ndim < 2:
        return x
    return x[0] if x.shape[0] == 1 else lax.dynamic_index_in_dim(x, step, keepdims=False)


def any_lane(flag: Bool[Array, ""]) -> Bool[Array, ""]:
    """Is `flag` set in any of the lanes that `vmap` runs side by side, whoever called it? The answer is the same for
    all lanes, so that `lax.cond` on it stays a branch under `vmap` instead of becoming a select that does the work for
    every lane at every bar. Whoever branches on it still asks `flag` which lanes the work is for."""
    return _any_lane(flag)


def most_of_lanes(count: Int[Array, ""]) -> Int[Array, ""]:
    """The largest count of the lanes that `vmap` runs side by side, the same for all."""
    return _most_of_lanes(count)


@custom_vmap
def _any_lane(flag: Array) -> Array:
    return flag


@_any_lane.def_vmap
def _(size: int, is_mapped: Any, flag: Array) -> tuple[Array, bool]:
    return _any_lane(flag.any(0)), False


@custom_vmap
def _most_of_lanes(count: Array) -> Array:
    return count


@_most_of_lanes.def_vmap
def _(size: int, is_mapped: Any, count: Array) -> tuple[Array, bool]:
    return _most_of_lanes(count.max(0)), False
