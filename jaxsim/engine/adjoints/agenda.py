"""The rebalances of a simulation as a table of rows, and loops over rows in chunks that are skipped when empty."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Bool, Int

from jaxsim.engine.bar.lane_state import LaneState
from jaxsim.engine.bar.totals import BarTotals
from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.base.tracing import traced_once


class Agenda(eqx.Module):
    """The rebalances that a first pass has found.

    bar: of every row, in whole chunks.
    acts: whether anything happens there: a rebalance, or the closing of assets that leave; other rows are blank.
    trades: whether there is a rebalance.        asked: whether the allocator was asked.
    num_rows: of all lanes together; more than the capacity if that was too small.
    lane: after every row.       totals: of its orders.
    events: what was traded there; None unless that is kept.
    lane_at_end: after the last row.
    """

    bar: Int[Array, " row"]
    acts: Bool[Array, " row"]
    trades: Bool[Array, " row"]
    asked: Bool[Array, " row"]
    num_rows: Int[Array, ""]
    lane: LaneState
    totals: BarTotals
    events: Any
    lane_at_end: LaneState


class Held(eqx.Module):
    """Which row of an agenda holds at each bar: the last one that is not blank at the bar or before; -1: none yet.

    is_new: whether the row is of this very bar.        trades: whether there is a rebalance at this bar.
    """

    row: Int[Array, " time"]
    is_new: Bool[Array, " time"]
    trades: Bool[Array, " time"]

    @classmethod
    def of(cls, agenda: Agenda, num_bars: int) -> "Held":
        place = where(agenda.acts, agenda.bar, num_bars)
        row = jnp.full(num_bars + 1, -1, jnp.int32).at[place].max(jnp.arange(place.shape[0], dtype=jnp.int32))
        row = row[:num_bars]
        return cls(lax.cummax(row), row >= 0, (row >= 0) & agenda.trades[row])

    def path(self, start: Any, rows: Any) -> Any:
        """[time, ...] from what there is before the first row, and after each row."""
        return jnp.concatenate([start[None], rows])[self.row + 1]

    def events(self, rows: Any) -> Any:
        """[time, ...] with zeros at bars without a row."""
        shape = (-1, *(1,) * (rows.ndim - 1))
        return where(self.is_new.reshape(shape), rows[jnp.maximum(self.row, 0)], jnp.zeros((), rows.dtype))


def constant(tree: Any) -> Any:
    """The same without derivatives."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


def with_derivatives_of(tree: Any, values: Any) -> Any:
    """`values`, whose floats have the derivatives of those of `tree`. Where nobody asks for derivatives, XLA leaves out
    all that only `tree` is worked out from."""
    floats, rest = eqx.partition(values, eqx.is_inexact_array)
    return eqx.combine(jax.tree.map(_values_of_p.bind, eqx.filter(tree, eqx.is_inexact_array), floats), rest)


#: A primitive, not a `jax.custom_jvp`: what a gradient keeps for the way back has derivatives of its own, and JAX
#: forgets custom ones there.
_values_of_p = core.Primitive("with_derivatives_of")
_values_of_p.def_impl(lambda tree, values: values)
_values_of_p.def_abstract_eval(lambda tree, values: values)
mlir.register_lowering(_values_of_p, lambda _, tree, values: [values])


def _derivative(primals: Any, tangents: Any) -> tuple[Any, Any]:
    return _values_of_p.bind(*primals), tangents[0]


def _by_lane(arrays: Any, axes: Any) -> tuple[Any, int]:
    size = next(x.shape[axis] for x, axis in zip(arrays, axes, strict=True) if axis is not None)
    front = (
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(arrays, axes, strict=True)
    )
    return _values_of_p.bind(*front), 0


ad.primitive_jvps[_values_of_p] = _derivative
batching.primitive_batchers[_values_of_p] = _by_lane


def room_for(capacity: int, size: int) -> int:
    """Rows in whole chunks of a size."""
    return -(-capacity // size) * size


def in_chunks(chunk: Callable, carry: Any, rows: Any, num_rows: Array, size: int) -> tuple[Any, Any]:
    """`lax.scan` of `chunk(carry, rows)` over `size` rows at a time; chunks after the last row are skipped. Returns the
    carry, and what the chunks hand out, [row, ...]. Between two chunks only the carry is kept for derivatives.

    num_rows: the same for all lanes.
    """
    room = jax.tree.leaves(rows)[0].shape[0]
    parts = jax.tree.map(lambda x: x.reshape(room // size, size, *x.shape[1:]), rows)
    chunk = traced_once(chunk)
    shape = jax.eval_shape(lambda: chunk(carry, jax.tree.map(lambda x: x[0], parts))[1])

    def skip(carry: Any, rows: Any) -> tuple[Any, Any]:
        return carry, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)

    @jax.checkpoint  # pyright: ignore[reportPrivateImportUsage]
    def take_or_skip(carry: Any, part: tuple[Array, Any]) -> tuple[Any, Any]:
        begin, rows = part
        return lax.cond(begin < num_rows, chunk, skip, carry, rows)

    carry, kept = lax.scan(take_or_skip, carry, (jnp.arange(0, room, size), parts))
    return carry, jax.tree.map(lambda x: x.reshape(room, *x.shape[2:]), kept)
