"""How the bars of many lanes are run forward, fast. A schedule changes when things are computed, never what.

Both schedules run the functions of `step.py` for one lane under `vmap` and hand out their results in pages of fixed
size, so that a simulation of any length compiles once and needs memory only for what happened:

- `NextEvent` uses that holdings do not change between two rebalances: it looks at a whole block of bars at once, and
  simulates those at which some lane may trade.
- A replay without any other trigger knows all of its trades beforehand (`recorded.py`).
- `Scan` takes one bar after the other. It serves allocators that want to see every bar (`observe`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsim.engine.bar.lanes import (
    Balances,
    LaneAxis,
    LaneInputs,
    Row,
    names_of,
    over_lanes,
    prepared,
    shape_of,
    start_of,
)
from jaxsim.engine.bar.step import LaneState, step
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.fields import shown
from jaxsim.engine.policy.host_callback import refuse_deadlock
from jaxsim.engine.policy.policy import Policy, allocator_name, observes
from jaxsim.engine.schedules.next_event import Cursor, NextEvent, count_of
from jaxsim.engine.schedules.recorded_dates import recorded_pages, trades_as_recorded


class Scan(eqx.Module):
    """One bar after the other; a row for every bar.

    page: bars per page.
    """

    page: int = count_of("page", 1024)

    def pages(self, run: LaneInputs, axes: tuple[LaneAxis, ...], cursor: Cursor) -> tuple[Cursor, Row, Any]:
        """A page of rows [lane axes..., bar], what `observe` recorded at each, and how far it has led."""
        num_bars = run.market.close.shape[-2]
        page = min(self.page, num_bars)
        number = jnp.arange(cursor.seen.size, dtype=jnp.int32).reshape(cursor.seen.shape)

        def one_lane(run: LaneInputs, lane: LaneState, number: Array):
            def take(lane: LaneState, bar: Array):
                lane, traded, event, aux = step(
                    run.policy, run.market, run.costs, lane, bar, run.key, names_of(axes), run.keep_log, run.ticket
                )
                return lane, (Row(number, bar, traded, Balances.of(lane.holdings), event), aux)

            blank = jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: take(lane, cursor.bar)[1])
            )

            def take_if_there_is_one(lane: LaneState, bar: Array):
                return lax.cond(bar < num_bars, take, lambda lane, bar: (lane, blank), lane, bar)

            return lax.scan(take_if_there_is_one, lane, cursor.bar + jnp.arange(page, dtype=jnp.int32))

        lane, (rows, aux) = over_lanes(one_lane, axes, (0, 0), 0)(run, cursor.lane, number)
        return Cursor(lane, cursor.seen, cursor.bar + page), rows, aux


_SCAN, _LOOK_AHEAD = Scan(), NextEvent()


def forward_schedule(policy: Policy) -> Scan | NextEvent:
    """The schedule that runs a policy fastest without derivatives."""
    return _SCAN if observes(policy.allocator) else _LOOK_AHEAD


def checked_schedule(schedule: Any, policy: Policy) -> Scan | NextEvent | None:
    """Raises TypeError or ValueError naming the argument for what is no schedule, or cannot be one here."""
    if schedule is None:
        return None
    if not isinstance(schedule, Scan | NextEvent):
        raise TypeError(f"schedule: expected js.NextEvent() or js.Scan(), got {shown(schedule)}"[:200])
    if isinstance(schedule, NextEvent) and observes(policy.allocator):
        raise ValueError(f"schedule: {allocator_name(policy.allocator)} observes every bar; it takes js.Scan()")
    return schedule


@eqx.filter_jit
def _start(run: LaneInputs, axes: tuple[LaneAxis, ...]) -> LaneState:
    return start_of(prepared(run), axes)


def _page(run: LaneInputs, cursor: Cursor, axes: tuple[LaneAxis, ...], schedule: Scan | NextEvent):
    if isinstance(schedule, Scan):
        return _next_page(run, cursor, axes, schedule)
    return schedule.run_by(lambda schedule: _next_page(run, cursor, axes, schedule))


@eqx.filter_jit
def _next_page(run: LaneInputs, cursor: Cursor, axes: tuple[LaneAxis, ...], schedule: Scan | NextEvent):
    run = prepared(run)
    if isinstance(schedule, Scan):
        cursor, rows, aux = schedule.pages(run, axes, cursor)
        return cursor, rows, aux, None
    if trades_as_recorded(run.policy):
        page = schedule.num_rows(run, math.prod(shape_of(axes)))
        cursor, pages = recorded_pages(run, axes, cursor, page, schedule.one_kernel)
    else:
        cursor, pages = schedule.pages(run, axes, cursor)
    return cursor, pages.rows, {}, pages.count


@dataclass(frozen=True)
class Page:
    """A stretch of a simulation, in NumPy arrays.

    rows: where lanes traded, [row, ...], lane by lane, those of one lane in the order of their bars.
    aux: what `observe` recorded, [lane axes..., bar, ...].
    lane: all lanes after it.
    """

    rows: Row
    aux: dict
    lane: LaneState


def pages(
    run: LaneInputs, axes: tuple[LaneAxis, ...], schedule: Scan | NextEvent | None = None, num_lanes: int | None = None
) -> Iterator[Page]:
    """Run all lanes to the end of the market, a page at a time.

    num_lanes: rows are those of the first so many lanes; None: of all.
    """
    refuse_deadlock()
    schedule = schedule or forward_schedule(run.policy)
    # NumPy's, since every operation on a jax.Array outside of a program is a program of its own.
    cursor = Cursor(_start(run, axes), np.zeros(shape_of(axes), np.int32), np.zeros((), np.int32))
    num_bars = run.market.close.shape[-2]
    while int(cursor.bar) < num_bars:
        cursor, rows, aux, count = _page(run, cursor, axes, schedule)
        begin = num_bars - int(cursor.bar)
        aux = jax.tree.map(np.asarray, aux)
        if begin < 0:  # the last page of a Scan
            aux = jax.tree.map(lambda x: x[(slice(None),) * len(axes) + (slice(0, begin),)], aux)  # noqa: B023
        yield Page(_traded(rows, count, num_lanes), aux, cursor.lane)


def _traded(rows: Row, count: Any, num_lanes: int | None) -> Row:
    """Those rows of a page where something was traded, lane by lane, [row, ...].

    count: of a LookAhead, how many rows are filled; None: of a Scan.       num_lanes: as in `pages`.
    """
    traded = np.asarray(rows.traded)[: None if count is None else int(count)]
    where = np.flatnonzero(traded)
    lane = np.asarray(rows.lane).ravel()[where]
    order = np.argsort(lane, kind="stable")
    where = where[order[: None if num_lanes is None else np.searchsorted(lane, num_lanes, sorter=order)]]
    flat = (math.prod(rows.traded.shape),)
    return jax.tree.map(lambda x: np.asarray(x).reshape(flat + x.shape[traded.ndim :]).take(where, axis=0), rows)
