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

from jaxsim.engine.base.arrays import Array
from jaxsim.engine.policy.gates import Hard, StraightThrough
from jaxsim.engine.policy.policy import Policy, allocator_name, observes

#: Longer series are cut into chunks unless the user says otherwise.
LONG = 4096


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

    For the gates `Hard` and `StraightThrough(through_state=False)`, and allocators that do not observe every bar.
    Forward and reverse mode, first derivatives. Under `StraightThrough`, bars whose decision was near its limit are
    rebalanced on trial, all side by side; a lane has room for as many of them as for rebalances.

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
        gate = policy.gate
        if not isinstance(gate, Hard) and (not isinstance(gate, StraightThrough) or gate.sees_state):
            raise ValueError(
                f"adjoint: AtEvents visits rebalances alone, one by one, but {gate!r} passes derivatives of the "
                "account at other bars; use js.Checkpointed()"
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
