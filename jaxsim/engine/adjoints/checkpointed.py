"""A simulation bar by bar, of which little is kept for derivatives and the rest computed again on the way back.

Values are the same under every adjoint, to the last bit; memory and time differ. See docs/gradients.md.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jaxsim.engine.adjoints.adjoint import AbstractAdjoint, check_count
from jaxsim.engine.bar.lane_state import LaneState, at_bar_row
from jaxsim.engine.bar.lanes import LaneInputs
from jaxsim.engine.bar.simulation import BarPaths, Save
from jaxsim.engine.bar.step import BarOutcome, Rebalance, trade_bar
from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.base.tracing import depending_on
from jaxsim.engine.policy.gates import AbstractGate, Hard

#: Longer series are cut into chunks unless the user says otherwise.
LONG = 4096


class Checkpointed(AbstractAdjoint):
    """Bar by bar. Between two checkpoints only what a lane carries from bar to bar is kept, and everything else is
    computed again (Griewank, Achieving Logarithmic Growth of Temporal and Spatial Complexity in Reverse Automatic
    Differentiation, 1992, with one level of chunks).

    chunks: number of checkpoints, > 0; None: one chunk up to 4,096 bars, else the square root of the number of bars,
        which keeps the least.
    """

    chunks: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_count(self.chunks, "chunks")

    def chunks_of(self, num_bars: int) -> int:
        if self.chunks is None:
            return 1 if num_bars <= LONG else math.isqrt(num_bars)
        return min(self.chunks, num_bars)

    def loop(self, inputs: LaneInputs, save: Save) -> BarPaths:
        market, gate = inputs.market, inputs.policy.gate

        def one_bar(lane: LaneState, bar: Array) -> tuple[LaneState, BarPaths]:
            outcome = trade_bar(inputs, lane, bar)
            held = outcome.lane.holdings
            paths = BarPaths(
                value=held.value(at_bar_row(market.mark, bar)),
                cash=held.cash,
                asked=outcome.event.is_decision,
                totals=outcome.totals,
                units=held.units if save.units else None,
                events=_event_if(outcome, gate) if save.events else None,
                recorded=outcome.recorded,
            )
            return outcome.lane, paths

        chunks = self.chunks_of(market.num_bars)
        end, paths = scan_in_chunks(one_bar, depending_on(LaneState.start(inputs), inputs), market.num_bars, chunks)
        return replace(paths, status=end.status)


def _event_if(outcome: BarOutcome, gate: AbstractGate) -> Rebalance:
    """The event of a lane that has traded, else zeros: beside lanes that trade, a lane that does not has an event too.
    Gates that are not hard have put the zeros there."""
    if not isinstance(gate, Hard):
        return outcome.event
    return jax.tree.map(lambda x: where(outcome.traded, x, jnp.zeros_like(x)), outcome.event)


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
