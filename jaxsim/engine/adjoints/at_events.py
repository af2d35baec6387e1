"""A simulation by way of its rebalances alone: found in a first pass without derivatives, differentiated in a second
one that visits no other bar. See `adjoint.AtEvents`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Int

from jaxsim.engine.adjoints.checkpointed import AtEvents
from jaxsim.engine.bar.step import LaneState, at_bar_row, decide, observe, rebalance_if
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.numerics import any_lane
from jaxsim.engine.policy.gates import Hard
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.trading.account import Holdings
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market

#: Rows of events that are taken or skipped together.
EVENT_CHUNK = 64


class Agenda(eqx.Module):
    """The rebalances that the first pass has found.

    bar, trades: of every row, in whole chunks; a row without a trade is blank.
    num_rows: of all lanes together; more than the capacity if it has not sufficed.
    lane: after every row, without derivatives; None under the gate `Hard`, which asks for no bar in between.
    """

    bar: Int[Array, " row"]
    trades: Bool[Array, " row"]
    num_rows: Int[Array, ""]
    lane: LaneState | None


def constant(tree: Any) -> Any:
    """The same without derivatives."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


def room_for(capacity: int, size: int) -> int:
    """Rows in whole chunks of a size."""
    return -(-capacity // size) * size


def find_events(
    adjoint: AtEvents, policy: Policy, market: Market, costs: Costs, start: LaneState, key: Any, axes: tuple[str, ...]
) -> Agenda:
    """The first pass: like `schedule.LookAhead`, but for the bars alone."""
    policy, market, costs, start = constant((policy, market, costs, start))
    num_bars = market.num_bars
    block, capacity = min(adjoint.block, num_bars), adjoint.capacity_of(num_bars)
    room = room_for(capacity, EVENT_CHUNK)

    def first_trade(lane: LaneState, seen: Array, bar: Array) -> Array:
        begin = jnp.minimum(bar, num_bars - block)
        bars = begin + jnp.arange(block, dtype=bar.dtype)
        prices = lax.dynamic_slice_in_dim(market.val_price, begin, block)
        trades = jax.vmap(lambda at, price: decide(policy, lane, observe(market, lane, at, price, key)))(bars, prices)
        return jnp.min(jnp.where(trades & (bars >= jnp.maximum(seen, bar)), bars, num_bars))

    def advance(state):
        lane, seen, bar, rows, traded, lanes, count = state
        first = first_trade(lane, seen, bar)
        trades, at = first < num_bars, jnp.minimum(first, num_bars - 1)
        obs = observe(market, lane, at, at_bar_row(market.val_price, at), key)
        lane, _ = rebalance_if(trades, policy, market, costs, lane, obs, axes)
        rows, traded = rows.at[count].set(at), traded.at[count].set(trades)
        lanes = None if lanes is None else jax.tree.map(lambda path, now: path.at[count].set(now), lanes, lane)
        some = any_lane(trades, axes)
        return (
            lane,
            jnp.where(trades, at + 1, seen),
            jnp.where(some, bar, bar + block),
            rows,
            traded,
            lanes,
            count + some,
        )

    def is_unfinished(state):
        bar, count = state[2], state[-1]
        return (bar < num_bars) & (count <= capacity)

    zero = jnp.int32(0)
    # One row more than there is room for, to tell a full agenda from one that overflows.
    blank = jnp.zeros(room + 1, jnp.int32)
    lanes = jax.tree.map(lambda x: jnp.broadcast_to(x, (room + 1, *x.shape)), start)
    lanes = None if isinstance(policy.gate, Hard) else lanes
    state = (start, zero, zero, blank, blank.astype(bool), lanes, zero)
    _, _, _, rows, traded, lanes, count = lax.while_loop(is_unfinished, advance, state)
    lanes = jax.tree.map(lambda x: x[:room], lanes)
    return Agenda(rows[:room], traded[:room] & (jnp.arange(room) < capacity), count, lanes)


def scan_events(
    agenda: Agenda,
    policy: Policy,
    market: Market,
    costs: Costs,
    start: LaneState,
    key: Any,
    axes: tuple[str, ...],
    keep: Callable,
    more: Holdings | None = None,
) -> tuple[LaneState, Any]:
    """The differentiated pass.

    keep: of (lane, event, trades) after a row, what is handed out, [row, ...].
    more: what is added to the holdings that the rebalance of each row starts from.
    """

    def one(lane: LaneState, row: tuple) -> tuple[LaneState, Any]:
        at, trades, more = row
        if more is not None:
            lane = replace(lane, holdings=jax.tree.map(jnp.add, lane.holdings, more))
        obs = observe(market, lane, at, at_bar_row(market.val_price, at), key)
        lane, event = rebalance_if(trades, policy, market, costs, lane, obs, axes)
        return lane, keep(lane, event, trades)

    one = jax.checkpoint(one, prevent_cse=False)  # pyright: ignore[reportPrivateImportUsage]
    rows = (agenda.bar, agenda.trades, more)
    return in_chunks(lambda lane, rows: lax.scan(one, lane, rows), start, rows, agenda.num_rows, EVENT_CHUNK)


def in_chunks(chunk: Callable, carry: Any, rows: Any, num_rows: Array, size: int) -> tuple[Any, Any]:
    """`lax.scan` of `chunk(carry, rows)` over `size` rows at a time, as far as there are any; what it hands out,
    [row, ...]. Between two chunks, only what is carried is kept for derivatives.

    num_rows: the same for all lanes.
    """
    room = jax.tree.leaves(rows)[0].shape[0]
    parts = jax.tree.map(lambda x: x.reshape(room // size, size, *x.shape[1:]), rows)
    shape = jax.eval_shape(lambda: chunk(carry, jax.tree.map(lambda x: x[0], parts))[1])

    def skip(carry: Any, rows: Any) -> tuple[Any, Any]:
        return carry, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)

    @jax.checkpoint  # pyright: ignore[reportPrivateImportUsage]
    def take_or_skip(carry: Any, part: tuple[Array, Any]) -> tuple[Any, Any]:
        begin, rows = part
        return lax.cond(begin < num_rows, chunk, skip, carry, rows)

    carry, kept = lax.scan(take_or_skip, carry, (jnp.arange(0, room, size), parts))
    return carry, jax.tree.map(lambda x: x.reshape(room, *x.shape[2:]), kept)


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
