"""How a simulation is differentiated: what is kept on the way forward, and what is computed again on the way back.

Values are the same for all of these, to the last bit; memory and time are not. See docs/gradients.md.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Int

from jaxsim.engine.arrays import Array
from jaxsim.engine.costs import Costs
from jaxsim.engine.gates import Hard
from jaxsim.engine.market import Market
from jaxsim.engine.numerics import any_lane
from jaxsim.engine.policy import Policy, allocator_name, observes
from jaxsim.engine.step import Lane, at_bar_row, decide, observe, rebalance_if

#: Longer series are cut into chunks unless the user says otherwise.
LONG = 4096

#: Rows of events that are taken or skipped together.
EVENT_CHUNK = 64


class AbstractAdjoint(eqx.Module):
    """A way to differentiate a simulation."""


class Checkpointed(AbstractAdjoint):
    """Bar by bar; between two checkpoints, only what a lane carries from bar to bar is kept, and everything else is
    computed again (Griewank, Achieving Logarithmic Growth of Temporal and Spatial Complexity in Reverse Automatic
    Differentiation, 1992, with one level of chunks).

    chunks: number of checkpoints, > 0; None: one chunk up to 4,096 bars, else the square root of the number of bars,
        which keeps the least.
    """

    chunks: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        _check_count(self.chunks, "chunks")

    def chunks_of(self, num_bars: int) -> int:
        if self.chunks is None:
            return 1 if num_bars <= LONG else math.isqrt(num_bars)
        return min(self.chunks, num_bars)


class AtEvents(AbstractAdjoint):
    """By way of the rebalances alone: a first pass without derivatives finds them, looking ahead block by block; the
    differentiated pass visits no other bar, and the value in between is one expression of the units and cash that are
    held, `cash + sum(units * close)`.

    For the gate `Hard`, and allocators that do not observe every bar. Forward and reverse mode.

    capacity: number of rebalances there is room for, > 0. Lanes that are mapped together share rows, at most one for
        every bar on which some lane trades. None: one for every bar, which is always enough and costs memory. A lane
        that needs more has the fault EVENTS_OVERFLOW, and its values are NaN from the first bar on.
    block: number of bars that are looked at together.
    """

    capacity: int | None = eqx.field(static=True, default=None)
    block: int = eqx.field(static=True, default=64)

    def __check_init__(self):
        _check_count(self.capacity, "capacity")
        _check_count(self.block, "block")

    def capacity_of(self, num_bars: int) -> int:
        return num_bars if self.capacity is None else min(self.capacity, num_bars)

    def check(self, policy: Policy) -> None:
        """Raises ValueError for a policy that cannot be differentiated so."""
        if not isinstance(policy.gate, Hard):
            raise ValueError(
                f"adjoint: AtEvents visits no bar without a rebalance, which the gate {type(policy.gate).__name__} "
                "differentiates too; use js.Checkpointed()"
            )
        if observes(policy.allocator):
            raise ValueError(
                f"adjoint: AtEvents visits no bar without a rebalance, which allocator "
                f"{allocator_name(policy.allocator)} wants to observe; use js.Checkpointed()"
            )


def _check_count(value: Any, name: str) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{name}: expected a whole number > 0 or None, got {value!r}")


def checked_adjoint(adjoint: Any) -> AbstractAdjoint:
    if adjoint is None:
        return Checkpointed()
    if not isinstance(adjoint, AbstractAdjoint):
        raise TypeError(f"adjoint: expected js.Checkpointed() or js.AtEvents(), got {adjoint!r}")
    return adjoint


def scan_in_chunks(step: Callable, carry: Any, num_bars: int, chunks: int) -> tuple[Any, Any]:
    """`lax.scan` of `step(carry, bar)` over all bars; with more than one chunk, checkpointed at the start of each."""
    step = jax.checkpoint(step, prevent_cse=False)  # pyright: ignore[reportPrivateImportUsage]
    if chunks == 1:
        return lax.scan(step, carry, jnp.arange(num_bars))
    length = num_bars // chunks

    @jax.checkpoint  # pyright: ignore[reportPrivateImportUsage]
    def chunk(carry: Any, start: Array) -> tuple[Any, Any]:
        return lax.scan(step, carry, start + jnp.arange(length))

    carry, paths = lax.scan(chunk, carry, jnp.arange(chunks) * length)
    paths = jax.tree.map(lambda x: x.reshape(chunks * length, *x.shape[2:]), paths)
    if num_bars % length or chunks * length < num_bars:
        carry, rest = lax.scan(step, carry, jnp.arange(chunks * length, num_bars))
        paths = jax.tree.map(lambda one, other: jnp.concatenate([one, other]), paths, rest)
    return carry, paths


class Agenda(eqx.Module):
    """The rebalances that the first pass has found.

    bar, trades: of every row, in whole chunks; a row without a trade is blank.
    num_rows: of all lanes together; more than the capacity if it has not sufficed.
    """

    bar: Int[Array, " row"]
    trades: Bool[Array, " row"]
    num_rows: Int[Array, ""]


def find_events(
    adjoint: AtEvents, policy: Policy, market: Market, costs: Costs, start: Lane, key: Any, axes: tuple[str, ...]
) -> Agenda:
    """The first pass: like `schedule.LookAhead`, but for the bars alone."""
    fixed = jax.tree.map(
        lambda x: lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, (policy, market, costs, start)
    )
    policy, market, costs, start = fixed
    num_bars = market.num_bars
    block, capacity = min(adjoint.block, num_bars), adjoint.capacity_of(num_bars)
    room = -(-capacity // EVENT_CHUNK) * EVENT_CHUNK

    def first_trade(lane: Lane, seen: Array, bar: Array) -> Array:
        begin = jnp.minimum(bar, num_bars - block)
        bars = begin + jnp.arange(block, dtype=bar.dtype)
        prices = lax.dynamic_slice_in_dim(market.val_price, begin, block)
        trades = jax.vmap(lambda at, price: decide(policy, lane, observe(market, lane, at, price, key)))(bars, prices)
        return jnp.min(jnp.where(trades & (bars >= jnp.maximum(seen, bar)), bars, num_bars))

    def advance(state):
        lane, seen, bar, rows, traded, count = state
        first = first_trade(lane, seen, bar)
        trades, at = first < num_bars, jnp.minimum(first, num_bars - 1)
        obs = observe(market, lane, at, at_bar_row(market.val_price, at), key)
        lane, _ = rebalance_if(trades, policy, market, costs, lane, obs, axes)
        rows, traded = rows.at[count].set(at), traded.at[count].set(trades)
        some = any_lane(trades, axes)
        return lane, jnp.where(trades, at + 1, seen), jnp.where(some, bar, bar + block), rows, traded, count + some

    def is_unfinished(state):
        _, _, bar, _, _, count = state
        return (bar < num_bars) & (count <= capacity)

    zero = jnp.int32(0)
    # One row more than there is room for, to tell a full agenda from one that overflows.
    blank = jnp.zeros(room + 1, jnp.int32)
    state = (start, zero, zero, blank, blank.astype(bool), zero)
    _, _, _, rows, traded, count = lax.while_loop(is_unfinished, advance, state)
    return Agenda(rows[:room], traded[:room] & (jnp.arange(room) < capacity), count)


def scan_events(
    agenda: Agenda,
    policy: Policy,
    market: Market,
    costs: Costs,
    start: Lane,
    key: Any,
    axes: tuple[str, ...],
    keep: Callable,
) -> tuple[Lane, Any]:
    """The differentiated pass. keep: of (lane, event, trades) after a row, what is handed out, [row, ...]."""

    def one(lane: Lane, row: Array) -> tuple[Lane, Any]:
        at, trades = agenda.bar[row], agenda.trades[row]
        obs = observe(market, lane, at, at_bar_row(market.val_price, at), key)
        lane, event = rebalance_if(trades, policy, market, costs, lane, obs, axes)
        return lane, keep(lane, event, trades)

    room = agenda.bar.shape[0]
    one = jax.checkpoint(one, prevent_cse=False)  # pyright: ignore[reportPrivateImportUsage]
    shape = jax.eval_shape(lambda: one(start, jnp.int32(0))[1])

    @jax.checkpoint  # pyright: ignore[reportPrivateImportUsage]
    def chunk(lane: Lane, begin: Array) -> tuple[Lane, Any]:
        def take(lane: Lane) -> tuple[Lane, Any]:
            return lax.scan(one, lane, begin + jnp.arange(EVENT_CHUNK))

        def skip(lane: Lane) -> tuple[Lane, Any]:
            return lane, jax.tree.map(lambda x: jnp.zeros((EVENT_CHUNK, *x.shape), x.dtype), shape)

        return lax.cond(begin < agenda.num_rows, take, skip, lane)

    lane, kept = lax.scan(chunk, start, jnp.arange(room // EVENT_CHUNK) * EVENT_CHUNK)
    return lane, jax.tree.map(lambda x: x.reshape(room, *x.shape[2:]), kept)


class Held(eqx.Module):
    """Which row of an agenda holds at each bar: the last one that traded at it or before; -1: none yet.

    is_new: whether it is of this very bar.
    """

    row: Int[Array, " time"]
    is_new: Bool[Array, " time"]

    @classmethod
    def of(cls, agenda: Agenda, num_bars: int) -> "Held":
        place = jnp.where(agenda.trades, agenda.bar, num_bars)
        row = jnp.full(num_bars + 1, -1, jnp.int32).at[place].max(jnp.arange(place.shape[0], dtype=jnp.int32))
        return cls(lax.cummax(row[:num_bars]), row[:num_bars] >= 0)

    def path(self, start: Any, rows: Any) -> Any:
        """[time, ...] from what there is before the first row, and after each."""
        return jnp.concatenate([start[None], rows])[self.row + 1]

    def events(self, rows: Any) -> Any:
        """[time, ...] with zeros at bars without one."""
        shape = (-1, *(1,) * (rows.ndim - 1))
        return jnp.where(self.is_new.reshape(shape), rows[jnp.maximum(self.row, 0)], jnp.zeros((), rows.dtype))
