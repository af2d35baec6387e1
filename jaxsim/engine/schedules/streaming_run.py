"""Many lanes forward without paths: every bar is added to the tallies of its lane and forgotten."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs, prepared
from jaxsim.engine.bar.step import LaneState, at_bar_row, step
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.numerics import cast_inexact
from jaxsim.engine.metrics.online import RunningSums
from jaxsim.engine.metrics.returns import returns_from_value
from jaxsim.engine.policy.host_callback import refuse_deadlock
from jaxsim.engine.schedules.next_event import NextEvent
from jaxsim.engine.schedules.schedule import Scan, forward_schedule
from jaxsim.engine.trading.status import LaneStatus

T = TypeVar("T")
#: Bars whose values are kept until they are added to a tally together.
BLOCK = 64


def stream(
    run: LaneInputs,
    axes: tuple[LaneAxis, ...],
    names: Iterable[str],
    benchmark: Float[Array, "*lanes time"] | None = None,
    num_bars: int | None = None,
    schedule: Scan | NextEvent | None = None,
) -> tuple[RunningSums, LaneState]:
    """Run all lanes to the end of the market: what their metrics are told from, and the lanes after it.

    names: the metrics, of `streaming.STREAMED`.
    benchmark: its simple returns, where a metric needs them, [time], or [group, time] where groups are an axis.
    num_bars: how many bars of the market there are; those after them only fill up its shape. Default all.
    schedule: default the fastest for the policy.

    The program depends on shapes alone: neither numbers nor `num_bars` compile it anew. `RunningSums` and `LaneState`
    have the lane axes in front.
    """
    return _run(_tallies, run, (benchmark,), axes, names, num_bars, schedule)


def scored(
    run: LaneInputs,
    axes: tuple[LaneAxis, ...],
    names: Iterable[str],
    ann_factor: Any = None,
    benchmark: Float[Array, "*lanes time"] | None = None,
    num_bars: int | None = None,
    schedule: Scan | NextEvent | None = None,
) -> tuple[dict[str, Float[Array, "..."]], LaneStatus]:
    """The metrics of all lanes by name, and how the lanes ended; all but `ann_factor` as in `stream`.

    ann_factor: bars per year, where a metric needs it.
    """
    ann_factor = None if ann_factor is None else np.float64(ann_factor)
    return _run(_scores, run, (benchmark, ann_factor), axes, names, num_bars, schedule)


def _run(
    program: Callable[..., T], run: LaneInputs, given: tuple, axes: Any, names: Any, num_bars: Any, schedule: Any
) -> T:
    refuse_deadlock()
    schedule, names = schedule or forward_schedule(run.policy), tuple(dict.fromkeys(names))
    count = np.int32(run.market.close.shape[-2] if num_bars is None else num_bars)
    if isinstance(schedule, Scan):
        return program(run, *given, count, axes, names, schedule)
    return schedule.run_by(lambda schedule: program(run, *given, count, axes, names, schedule))


_compiling = threading.Lock()
_compiled: set = set()


def compiled_once(run: Any, work: Callable[[], Any]) -> Any:
    """`work()`, which runs a program for `run`. The first of its shape compiles it; threads that come meanwhile wait
    for that instead of doing the same."""
    leaves, structure = jax.tree.flatten(run)
    shapes = tuple((x.shape, str(x.dtype)) if hasattr(x, "dtype") else x for x in leaves)
    try:
        seen = hash((structure, shapes, str(getattr(jax.config, "jax_default_device", None))))
    except TypeError:
        return work()
    if seen not in _compiled:
        with _compiling:
            done = work()
            _compiled.add(seen)
            return done
    return work()


@eqx.filter_jit
def _scores(
    run: LaneInputs,
    benchmark: Any,
    ann_factor: Any,
    num_bars: Any,
    axes: tuple[LaneAxis, ...],
    names: tuple[str, ...],
    schedule: Scan | NextEvent,
) -> tuple[dict[str, Any], LaneStatus]:
    tally, lane = _tallies(run, benchmark, num_bars, axes, names, schedule)
    return tally.finish(names, cast_inexact(ann_factor, run.market.dtype)), lane.status


@eqx.filter_jit
def _tallies(
    run: LaneInputs,
    benchmark: Any,
    num_bars: Any,
    axes: tuple[LaneAxis, ...],
    names: tuple[str, ...],
    schedule: Scan | NextEvent,
) -> tuple[RunningSums, LaneState]:
    run, benchmark = prepared(run), cast_inexact(benchmark, run.market.dtype)
    if isinstance(schedule, NextEvent):
        return schedule.scores(run, axes, names, benchmark, num_bars)
    axis_names = tuple(axis.name for axis in axes)

    def one_lane(run: LaneInputs, benchmark: Any) -> tuple[RunningSums, LaneState]:
        return _one_lane(run, benchmark, num_bars, axis_names, names)

    for axis in reversed(axes):
        by_group = 0 if axis.name == "group" and benchmark is not None else None
        one_lane = jax.vmap(one_lane, (axis.in_axes, by_group), 0, axis_name=axis.name, axis_size=axis.size)
    return one_lane(run, benchmark)


def _one_lane(run: LaneInputs, benchmark: Any, num_bars: Any, axes: tuple[str, ...], names: tuple[str, ...]):
    market, policy, costs = run.market, run.policy, run.costs
    block = min(BLOCK, market.num_bars)
    start = LaneState.start(market, policy, costs, run.account)
    tally = RunningSums.start(names, market.dtype)

    def one_bar(state: tuple, bar: Any) -> tuple[tuple, Any]:
        lane, tally = state
        lane, traded, event, _ = step(policy, market, costs, lane, bar, run.key, axes, False, run.ticket)
        return (lane, tally.after(event, traded)), lane.holdings.value(at_bar_row(market.mark, bar))

    def one_block(state: tuple, first: Any) -> tuple[tuple, None]:
        lane, tally, before = state
        bars = first + jnp.arange(block, dtype=jnp.int32)

        def take(state: tuple, bar: Any) -> tuple[tuple, Any]:
            skip = lambda state, bar: (state, jnp.zeros((), market.dtype))  # noqa: E731
            return lax.cond(bar < num_bars, one_bar, skip, state, bar)

        (lane, tally), value = lax.scan(take, (lane, tally), bars)
        rows = jnp.minimum(bars, market.num_bars - 1)
        beside = None if benchmark is None else benchmark[rows]
        tally = tally.add(returns_from_value(value, before), bars < num_bars, beside)
        return (lane, tally, value[-1]), None

    firsts = jnp.arange(0, market.num_bars, block, dtype=jnp.int32)
    (lane, tally, _), _ = lax.scan(one_block, (start, tally, start.holdings.cash), firsts)
    return tally, lane
