"""The compiled programs that run many lanes forward: one hands out pages of rebalances, one metrics.

Programs depend on shapes alone: neither numbers nor the number of bars compile one anew. Pages have a fixed size, so
that a simulation of any length compiles once, and needs memory only for what happened.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxsim.engine.bar.lane_state import LaneState, start_of
from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs, over_lanes, prepared, shape_of
from jaxsim.engine.base.fields import shown
from jaxsim.engine.base.kept_programs import kept_program
from jaxsim.engine.base.numerics import cast_inexact
from jaxsim.engine.metrics.online import RunningSums
from jaxsim.engine.policy.host_callback import refuse_deadlock
from jaxsim.engine.policy.policy import Policy, observes
from jaxsim.engine.schedules.bar_by_bar import Scan
from jaxsim.engine.schedules.next_event import NextEvent
from jaxsim.engine.schedules.schedule import AbstractSchedule, Cursor
from jaxsim.engine.schedules.sinks import MetricSink, RebalanceSink, Row
from jaxsim.engine.trading.account import opening_value
from jaxsim.engine.trading.status import Incident, LaneStatus

T = TypeVar("T")

_SCAN, _NEXT_EVENT = Scan(), NextEvent()


def forward_schedule(policy: Policy) -> AbstractSchedule:
    """The schedule that runs a policy fastest without derivatives."""
    return _SCAN if observes(policy.allocator) else _NEXT_EVENT


def checked_schedule(schedule: Any, policy: Policy) -> AbstractSchedule | None:
    """Raises TypeError or ValueError naming the argument for what is no schedule, or cannot run this policy."""
    if schedule is None:
        return None
    if not isinstance(schedule, AbstractSchedule):
        raise TypeError(f"schedule: expected js.NextEvent() or js.Scan(), got {shown(schedule)}"[:200])
    schedule.check(policy)
    return schedule


# --- Pages of rebalances


@dataclass(frozen=True)
class Page:
    """A part of a simulation, in NumPy arrays.

    rows: where lanes traded, [row, ...], lane by lane, the rows of one lane in the order of their bars.
    recorded: what `observe` recorded, [lane axes..., bar, ...]; empty for allocators without `observe`.
    lane: all lanes after it.
    """

    rows: Row
    recorded: dict
    lane: LaneState


class _Turned(NamedTuple):
    """A page as it leaves the program.        cursor: how far it has led."""

    cursor: Cursor
    page: RebalanceSink


def pages(
    inputs: LaneInputs,
    axes: tuple[LaneAxis, ...],
    schedule: AbstractSchedule | None = None,
    num_lanes: int | None = None,
) -> Iterator[Page]:
    """Run all lanes to the end of the market, a page at a time.

    schedule: default the fastest for the policy.
    num_lanes: rows are those of the first so many lanes; None: of all.
    """
    refuse_deadlock()
    schedule = schedule or forward_schedule(inputs.policy)
    # NumPy arrays, since every operation on a jax.Array outside of a program is a program of its own.
    cursor = Cursor(_start(inputs, axes), np.zeros(shape_of(axes), np.int32), np.zeros((), np.int32))
    while int(cursor.bar) < inputs.market.close.shape[-2]:
        cursor, page = schedule.compiled(lambda schedule: _next_page(inputs, cursor, axes, schedule))  # noqa: B023
        yield _page_of(page, cursor.lane, len(axes), num_lanes)


@kept_program
def _start(inputs: LaneInputs, axes: tuple[LaneAxis, ...]) -> LaneState:
    return start_of(prepared(inputs), axes)


@kept_program
def _next_page(inputs: LaneInputs, cursor: Cursor, axes: tuple[LaneAxis, ...], schedule: AbstractSchedule) -> _Turned:
    cursor, page = schedule.run(prepared(inputs), axes, cursor, RebalanceSink())
    assert isinstance(page, RebalanceSink)
    return _Turned(cursor, page)


def _page_of(page: RebalanceSink, lane: LaneState, num_axes: int, num_lanes: int | None) -> Page:
    """The rows at which something was traded, lane by lane, [row, ...]."""
    rows, count = page.rows, int(page.count)
    assert rows is not None
    recorded = jax.tree.map(lambda x: np.moveaxis(np.asarray(x)[:count], 0, num_axes), rows.recorded)
    traded = np.asarray(rows.traded)[:count]
    where = np.flatnonzero(traded)
    lanes = np.asarray(rows.lane).ravel()[where]
    order = np.argsort(lanes, kind="stable")
    where = where[order[: None if num_lanes is None else np.searchsorted(lanes, num_lanes, sorter=order)]]
    flat = (math.prod(rows.traded.shape),)

    def rows_at(x: Any) -> np.ndarray:
        return np.asarray(x).reshape(flat + x.shape[traded.ndim :]).take(where, axis=0)

    return Page(jax.tree.map(rows_at, rows), recorded, lane)


# --- Metrics


def running_sums(
    inputs: LaneInputs,
    axes: tuple[LaneAxis, ...],
    names: Iterable[str],
    benchmark: Float[Any, "*lanes time"] | None = None,
    num_bars: int | None = None,
    schedule: AbstractSchedule | None = None,
) -> tuple[RunningSums, LaneState]:
    """Run all lanes to the end of the market: the sums that their metrics are made of, and the lanes after it. The lane
    axes are in front. Bars before `LaneInputs.start` enter no sum.

    names: the metrics, of `ONLINE_METRICS`.
    benchmark: its simple returns, where a metric needs them, [time], or with the innermost lane axes in front, as
        [group, time].
    num_bars: number of bars of the market; bars after them only fill up its shape. Default all.
    schedule: default the fastest for the policy.
    """
    return _run(_sums, inputs, (benchmark,), axes, names, num_bars, schedule)


def lane_metrics(
    inputs: LaneInputs,
    axes: tuple[LaneAxis, ...],
    names: Iterable[str],
    ann_factor: float | None = None,
    benchmark: Float[Any, "*lanes time"] | None = None,
    num_bars: int | None = None,
    schedule: AbstractSchedule | None = None,
) -> tuple[dict[str, Float[Any, "..."]], LaneStatus, Int[Any, "..."]]:
    """The metrics of all lanes by name, how the lanes ended, and the set of `Incident` that befell each. Arguments as
    in `running_sums`.

    ann_factor: bars per year, where a metric needs it.
    """
    ann_factor = None if ann_factor is None else np.float64(ann_factor)
    return _run(_metrics, inputs, (benchmark, ann_factor), axes, names, num_bars, schedule)


def _run(
    program: Callable[..., T],
    inputs: LaneInputs,
    arrays: tuple,
    axes: tuple[LaneAxis, ...],
    names: Iterable[str],
    num_bars: int | None,
    schedule: AbstractSchedule | None,
) -> T:
    refuse_deadlock()
    schedule, names = schedule or forward_schedule(inputs.policy), tuple(dict.fromkeys(names))
    count = np.int32(inputs.market.close.shape[-2] if num_bars is None else num_bars)
    return schedule.compiled(lambda schedule: program(inputs, *arrays, count, axes, names, schedule))


@kept_program
def _metrics(
    inputs: LaneInputs,
    benchmark: Any,
    ann_factor: Any,
    num_bars: Any,
    axes: tuple[LaneAxis, ...],
    names: tuple[str, ...],
    schedule: AbstractSchedule,
) -> tuple[dict[str, Any], LaneStatus, Int[Any, "..."]]:
    sums, lane = _sums(inputs, benchmark, num_bars, axes, names, schedule)
    assert sums.ruin is not None
    incidents = jnp.int32(Incident.RUINED) * sums.ruin.is_ruined
    incidents = incidents if lane.incidents is None else incidents | lane.incidents
    return sums.finish(names, cast_inexact(ann_factor, inputs.market.dtype)), lane.status, incidents


@kept_program
def _sums(
    inputs: LaneInputs,
    benchmark: Any,
    num_bars: Any,
    axes: tuple[LaneAxis, ...],
    names: tuple[str, ...],
    schedule: AbstractSchedule,
) -> tuple[RunningSums, LaneState]:
    start = first_bars(inputs, axes)
    inputs, benchmark = prepared(inputs), cast_inexact(benchmark, inputs.market.dtype)
    opening = None
    if inputs.account.units is not None:
        opening = over_lanes(lambda inputs: opening_value(inputs.account, inputs.market), axes, (), 0)(inputs)
    sink = MetricSink(names, benchmark, start, opening)
    cursor, sink = schedule.run(inputs, axes, Cursor.start(inputs, axes), sink, num_bars)
    assert isinstance(sink, MetricSink) and sink.sums is not None
    return sink.sums, cursor.lane


def first_bars(inputs: LaneInputs, axes: tuple[LaneAxis, ...]) -> Any:
    """The first bar that the metrics of each lane count, int [lane axes...], of size one along axes whose lanes share
    it; None: all bars count."""
    if inputs.start is None:
        return None
    shape = tuple(1 if axis.in_axes.start is None else axis.size for axis in axes)
    return jnp.asarray(inputs.start).astype(jnp.int32).reshape(shape)


_compiling = threading.Lock()
_compiled: set = set()


def compiled_once(inputs: LaneInputs, work: Callable[[], T]) -> T:
    """`work()`, which runs a program for `inputs`. The first call of each shape compiles the program; threads that call
    meanwhile wait for it instead of compiling the same."""
    leaves, structure = jax.tree.flatten(inputs)
    shapes = tuple((x.shape, str(x.dtype)) if hasattr(x, "dtype") else x for x in leaves)
    try:
        kind = hash((structure, shapes, str(getattr(jax.config, "jax_default_device", None))))
    except TypeError:
        return work()
    if kind not in _compiled:
        with _compiling:
            done = work()
            _compiled.add(kind)
            return done
    return work()
