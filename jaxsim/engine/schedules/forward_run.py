"""One lane run forward on a fast schedule, with its whole paths kept: `simulate` without derivatives."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float

from jaxsim.engine.bar.lanes import LaneInputs, Row
from jaxsim.engine.bar.simulation import Save, Simulation
from jaxsim.engine.bar.step import LaneState, Rebalance
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.numerics import dot
from jaxsim.engine.metrics.returns import returns_from_value
from jaxsim.engine.policy.screening import from_columns
from jaxsim.engine.schedules.lane_slots import AbstractLaneSlots
from jaxsim.engine.schedules.next_event import Cursor, NextEvent, trade_at
from jaxsim.engine.schedules.next_trade import Block, NextTrade, Standing


class ForwardPaths(eqx.Module):
    """Keeps what is held after each bar: of the block that is looked at, as far as it is known, and of all bars.

    asked: the bars on which the allocator was asked.
    events: of every bar, zero where nothing was traded; or None.
    """

    block_units: Float[Array, "bar asset"]
    block_cash: Float[Array, " bar"]
    units: Float[Array, "time asset"]
    cash: Float[Array, " time"]
    asked: Bool[Array, " time"]
    events: Rebalance | None

    def begin(self, outlook: NextTrade, standing: Standing, block: Block) -> "ForwardPaths":
        return self._held_where(jnp.ones_like(block.bars, bool), standing)

    def look(
        self, outlook: NextTrade, standing: Standing, seen: Array, block: Block, places: AbstractLaneSlots | None
    ) -> "ForwardPaths":
        """Holdings are new from the bar of the last rebalance on."""
        return self._held_where(block.bars >= seen - 1, standing)

    def _held_where(self, is_new: Bool[Array, " bar"], standing: Standing) -> "ForwardPaths":
        units = jnp.where(is_new[:, None], from_columns(standing.units), self.block_units)
        return replace(self, block_units=units, block_cash=jnp.where(is_new, standing.cash, self.block_cash))

    def record(self, row: Row, places: AbstractLaneSlots | None) -> "ForwardPaths":
        asked = row.traded if row.event.is_decision is None else row.traded & row.event.is_decision

        def put(path: Array, x: Array) -> Array:
            return lax.dynamic_update_index_in_dim(path, jnp.where(row.traded, x, path[row.bar]), row.bar, 0)

        events = None if self.events is None else jax.tree.map(put, self.events, row.event)
        return replace(self, asked=put(self.asked, asked), events=events)

    def finish(self, outlook: NextTrade, block: Block) -> "ForwardPaths":
        """The last block is as long as the others: what it shares with the one before is done with."""
        is_new = block.bars >= block.begin

        def put(path: Array, part: Array) -> Array:
            mask = is_new.reshape(-1, *(1,) * (part.ndim - 1))
            return lax.dynamic_update_slice_in_dim(
                path, jnp.where(mask, part, block.rows(path, 0)), block.bars[0], axis=0
            )

        return replace(self, units=put(self.units, self.block_units), cash=put(self.cash, self.block_cash))


def simulate_ahead(schedule: NextEvent, run: LaneInputs, start: LaneState, save: Save) -> Simulation:
    """What `simulate` returns, run forward by looking ahead. It has no derivative, and says so."""
    market, dtype = run.market, run.market.dtype
    num_bars, num_assets, size = market.num_bars, market.num_assets, schedule.block_size(run, ())
    cursor, outlook = Cursor(start, jnp.int32(0), jnp.int32(0)), NextTrade.of(run, (), start)
    events = None
    if save.events:
        shapes = jax.eval_shape(lambda: trade_at(run, (), start, cursor.bar, cursor.bar == 0, cursor.bar)[1].event)
        events = jax.tree.map(lambda x: jnp.zeros((num_bars, *x.shape), x.dtype), shapes)
    paths = ForwardPaths(
        jnp.zeros((size, num_assets), dtype),
        jnp.zeros(size, dtype),
        jnp.zeros((num_bars, num_assets), dtype),
        jnp.zeros(num_bars, dtype),
        jnp.zeros(num_bars, bool),
        events,
    )
    end = lax.while_loop(
        lambda state: state.bar < num_bars,
        lambda state: schedule.advance(outlook, state, size),
        schedule.opened(outlook, cursor, paths, size),
    )
    kept = end.sink
    value = jax.vmap(dot)(kept.cash, kept.units, market.mark)
    simulation = Simulation(
        value=value,
        returns=returns_from_value(value, start.holdings.cash),
        cash=kept.cash,
        rebalanced=kept.asked,
        status=end.lane.status,
        units=kept.units if save.units else None,
        events=kept.events,
        aux={},
    )
    return jax.tree.map(lambda x: _forward_only(x) if eqx.is_inexact_array(x) else x, simulation)


@jax.custom_jvp
def _forward_only(x: Any) -> Any:
    return x


@_forward_only.defjvp
def _refuse(primals, tangents):
    raise TypeError(
        "schedule: js.NextEvent() runs forward only and has no derivative; leave the schedule out, or take "
        "adjoint=js.AtEvents(), which looks ahead too"
    )
