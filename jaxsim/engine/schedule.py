"""How the bars of many lanes are run forward, fast. A schedule changes when things are computed, never what.

Both schedules run the functions of `step.py` for one lane under `vmap` and hand out their results in pages of fixed
size, so that a simulation of any length compiles once and needs memory only for what happened:

- `LookAhead` uses that holdings do not change between two rebalances: it asks the trigger about a whole block of
  bars at once, jumps to the first one that fires, rebalances there, and looks again.
- `Scan` takes one bar after the other. It serves allocators that want to see every bar (`observe`).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.account import Account, Holdings
from jaxsim.engine.arrays import Array
from jaxsim.engine.costs import Costs
from jaxsim.engine.host import refuse_deadlock
from jaxsim.engine.market import Market
from jaxsim.engine.numerics import any_lane, cast_inexact
from jaxsim.engine.policy import Policy, observes
from jaxsim.engine.step import Event, Lane, at_bar_row, decide, observe, rebalance_if, step


class Run(eqx.Module):
    """All that one lane is simulated from; with lane axes on some of its leaves, all that many lanes are."""

    market: Market
    policy: Policy
    costs: Costs
    account: Account
    key: Any
    keep_log: bool = eqx.field(static=True, default=False)
    ticket: Any = None  # by which the host knows the lane


class Balances(eqx.Module):
    """The account after a bar's orders: units, and the currency beside them."""

    units: Float[Array, " asset"]
    cash: Float[Array, ""]
    free_cash: Float[Array, ""]

    @classmethod
    def of(cls, holdings: Holdings) -> "Balances":
        return cls(holdings.units, holdings.cash, holdings.free_cash)


class Row(eqx.Module):
    """What a lane did at one bar: meaningful where it traded.

    holdings: after the orders.       aux: what `observe` recorded, at every bar (`Scan` only).
    """

    bar: Int[Array, ""]
    traded: Bool[Array, ""]
    holdings: Balances
    event: Event
    aux: dict


class Scan(eqx.Module):
    """One bar after the other; a row for every bar.

    page: bars per page.
    """

    page: int = eqx.field(static=True, default=1024)

    def run(self, run: Run, lane: Lane, seen: Array, bar: Array, axes: tuple[str, ...]):
        num_bars = run.market.num_bars
        page = min(self.page, num_bars)

        def take(lane: Lane, bar: Array) -> tuple[Lane, Row]:
            lane, traded, event, aux = step(
                run.policy, run.market, run.costs, lane, bar, run.key, axes, run.keep_log, run.ticket
            )
            return lane, Row(bar, traded, Balances.of(lane.holdings), event, aux)

        blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: take(lane, bar)[1]))

        def take_if_there_is_one(lane: Lane, bar: Array) -> tuple[Lane, Row]:
            return lax.cond(bar < num_bars, take, lambda lane, bar: (lane, blank), lane, bar)

        lane, rows = lax.scan(take_if_there_is_one, lane, bar + jnp.arange(page, dtype=bar.dtype))
        return lane, seen, bar + page, rows, jnp.int32(page)


class LookAhead(eqx.Module):
    """Whole blocks of bars at once; a row for every bar on which some lane trades.

    block: bars looked at together.       page: rows per page.
    """

    block: int = eqx.field(static=True, default=64)
    page: int = eqx.field(static=True, default=256)

    def run(self, run: Run, lane: Lane, seen: Array, bar: Array, axes: tuple[str, ...]):
        market, policy = run.market, run.policy
        num_bars, block = market.num_bars, min(self.block, market.num_bars)

        def first_trade(lane: Lane, seen: Array, bar: Array) -> Array:
            """The first bar of the block, of those not yet seen, on which the lane trades; else num_bars."""
            start = jnp.minimum(bar, num_bars - block)
            bars = start + jnp.arange(block, dtype=bar.dtype)
            prices = lax.dynamic_slice_in_dim(market.val_price, start, block)

            def trades_at(at, val_price):
                return decide(policy, lane, observe(market, lane, at, val_price, run.key))

            trades = jax.vmap(trades_at)(bars, prices)
            return jnp.min(jnp.where(trades & (bars >= jnp.maximum(seen, bar)), bars, num_bars))

        def jump(lane: Lane, seen: Array, bar: Array) -> tuple[Lane, Row]:
            first = first_trade(lane, seen, bar)
            trades, at = first < num_bars, jnp.minimum(first, num_bars - 1)
            obs = observe(market, lane, at, at_bar_row(market.val_price, at), run.key)
            lane, event = rebalance_if(trades, policy, market, run.costs, lane, obs, axes, run.keep_log, run.ticket)
            return lane, Row(at, trades, Balances.of(lane.holdings), event, {})

        def advance(state):
            lane, seen, bar, rows, count = state
            lane, row = jump(lane, seen, bar)
            rows = jax.tree.map(lambda page, x: lax.dynamic_update_index_in_dim(page, x, count, 0), rows, row)
            some = any_lane(row.traded, axes)
            seen = jnp.where(row.traded, row.bar + 1, seen)
            return lane, seen, jnp.where(some, bar, bar + block), rows, count + some

        def is_unfinished(state):
            _, _, bar, _, count = state
            return (bar < num_bars) & (count < self.page)

        blank = jax.eval_shape(lambda: jump(lane, seen, bar)[1])
        rows = jax.tree.map(lambda x: jnp.zeros((self.page, *x.shape), x.dtype), blank)
        return lax.while_loop(is_unfinished, advance, (lane, seen, bar, rows, jnp.int32(0)))


def forward_schedule(policy: Policy) -> Scan | LookAhead:
    """The schedule that runs a policy fastest without derivatives."""
    return Scan() if observes(policy.allocator) else LookAhead()


class LaneAxis(eqx.Module):
    """One axis of lanes.

    name: of the axis, for collectives.     size: number of lanes along it.
    in_axes: pytree like `Run`, 0 where a leaf has this axis (after those of the axes outside it), else None.
    """

    name: str = eqx.field(static=True)
    size: int = eqx.field(static=True)
    in_axes: Run = eqx.field(static=True)


def over_lanes(function: Callable, axes: Sequence[LaneAxis], shared_in: Sequence, shared_out: Any) -> Callable:
    """`function(run, *arguments)` for one lane, mapped over all lane axes, the first outermost."""
    for axis in reversed(axes):
        function = jax.vmap(
            function,
            in_axes=(axis.in_axes, *shared_in),
            out_axes=shared_out,
            axis_name=axis.name,
            axis_size=axis.size,
        )
    return function


@eqx.filter_jit
def _start(run: Run, axes: tuple[LaneAxis, ...]) -> Lane:
    def one_lane(run):
        return Lane.start(run.market, run.policy, run.costs, run.account)

    return over_lanes(one_lane, axes, (), 0)(cast_inexact(run, run.market.dtype))


@eqx.filter_jit
def _page(run: Run, lane: Lane, seen: Array, bar: Array, axes: tuple[LaneAxis, ...], schedule: Scan | LookAhead):
    names = tuple(axis.name for axis in axes)

    def one_lane(run, lane, seen, bar):
        return schedule.run(run, lane, seen, bar, names)

    mapped = over_lanes(one_lane, axes, (0, 0, None), (0, 0, None, 0, None))
    return mapped(cast_inexact(run, run.market.dtype), lane, seen, bar)


def pages(run: Run, axes: tuple[LaneAxis, ...], schedule: Scan | LookAhead | None = None) -> Iterator[tuple[Row, Lane]]:
    """Run all lanes to the end of the market, a page at a time.

    Yields the rows of each page, arrays with leading axes [lane axes..., row], and the lanes after it. Rows of
    different lanes at one place are of different bars; those with `traded` false, or a bar beyond the market's
    last, are blank.
    """
    refuse_deadlock()
    schedule = schedule or forward_schedule(run.policy)
    lane = _start(run, axes)
    # NumPy's, since every operation on a jax.Array outside of a program is a program of its own.
    seen = np.zeros(tuple(axis.size for axis in axes), np.int32)
    bar = np.zeros((), np.int32)
    num_bars = run.market.close.shape[-2]
    while int(bar) < num_bars:
        lane, seen, bar, rows, count = _page(run, lane, seen, bar, axes, schedule)
        yield _filled(rows, len(axes), int(count)), lane


def _filled(rows: Row, num_axes: int, count: int) -> Row:
    """The first `count` rows, which come after the lane axes."""
    place = (slice(None),) * num_axes + (slice(0, count),)
    return jax.tree.map(lambda x: np.asarray(x)[place], rows)
