"""Metrics of a policy inside of the caller's own programs. No path is kept, and under `jax.vmap` all lanes run
together, as in a sweep."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.custom_batching import custom_vmap
from jaxtyping import Float

from jaxsim.engine.adjoints.forward_only import refuse_derivatives
from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.fields import shown, whole_number
from jaxsim.engine.base.kept_programs import kept_program
from jaxsim.engine.metrics.names import needs_ann_factor, read_metric_names, refuse_prices
from jaxsim.engine.metrics.online import NAMES, needs_benchmark
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.schedules.programs import checked_schedule, forward_schedule, lane_metrics
from jaxsim.engine.schedules.schedule import AbstractSchedule
from jaxsim.engine.simulate import exact, inputs_of
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market
from jaxsim.engine.trading.status import LaneFault


def score(
    market: Market,
    policy: Policy,
    metrics: Sequence[str] = ("sharpe_ratio",),
    *,
    ann_factor: float | None = None,
    benchmark: Float[Array, " time"] | None = None,
    costs: Costs | None = None,
    account: Account | None = None,
    key: Any = None,
    start: int | None = None,
    schedule: AbstractSchedule | None = None,
) -> dict[str, Float[Array, ""]]:
    """Metrics of one policy in one market, without its path; pure, so that it goes under `jit` and `vmap`. Lanes side
    by side are a `vmap`: over the numbers of a policy, over prices, over both. They run forward only; `js.simulate` has
    derivatives.

    market, policy, costs, account, key: as `js.simulate`.
    metrics: names of metrics of `js.metrics` that are told from running sums, as "sharpe_ratio", "max_drawdown" or
        "turnover": all but those that need the order of all returns (value_at_risk, cond_value_at_risk, tail_ratio,
        common_sense_ratio, deflated_sharpe_ratio).
    ann_factor: bars per year, 252 or 8760, say; only for metrics that need it.
    benchmark: its simple returns, one for all lanes; only for metrics that need it.
    start: the first bar that the metrics count; default the `min_history` of the policy (rules 7.17).
    schedule: default the fastest for the policy.

    Returns the metrics by name, with their options as they are by default, in the dtype of the market. They are NaN
    where something went wrong inside (a NaN weight, say): `Simulation.status` tells what.
    Raises TypeError or ValueError naming the argument.
    """
    names = read_metric_names(metrics, NAMES, "cannot be told from running sums")
    inputs = inputs_of(market, policy, costs, account, key)
    first = policy.min_history if start is None else np.asarray(read_start(start, market.num_bars), np.int32)
    inputs = replace(inputs, start=first)
    ann_factor = _read_ann_factor(ann_factor, names)
    if needs_benchmark(names) == (benchmark is None):
        raise ValueError("benchmark: " + ("none of the metrics needs one" if benchmark is not None else _NEEDED))
    if benchmark is not None and np.shape(benchmark) != (market.num_bars,):
        raise ValueError(f"benchmark: expected {market.num_bars} returns, got shape {np.shape(benchmark)}")
    if benchmark is not None and not isinstance(benchmark, Tracer):
        refuse_prices(benchmark, "benchmark", "js.metrics.returns_from_value(prices, prices[0])")
    inputs = eqx.tree_at(lambda inputs: inputs.policy, inputs, exact(policy))
    schedule = checked_schedule(schedule, policy) or forward_schedule(policy)
    try:
        return schedule.compiled(lambda schedule: _score(inputs, benchmark, names, ann_factor, schedule))
    except AssertionError as error:
        if not (error.args and isinstance(error.args[0], list)):
            raise
        # `custom_vmap` says no more of a closure than which of its arrays are batched.
        raise ValueError(
            "policy: its functions close over arrays that differ by lane, which js.score does not see; make these "
            "arrays fields of an eqx.Module"
        ) from error


def read_start(start: Any, num_bars: int) -> int:
    """The first bar that metrics count. Raises ValueError naming the argument for what is no bar of the market."""
    number = whole_number(start, "start", 0)
    if number >= num_bars:
        raise ValueError(f"start: there is no bar {number}, only {num_bars} from 0 on")
    return number


_NEEDED = "some of the metrics need its returns, [time]"


def _read_ann_factor(value: Any, names: Sequence[str]) -> float | None:
    if value is None:
        needing = [name for name in names if needs_ann_factor(name)]
        if needing:
            raise ValueError(f"ann_factor: {needing[0]} needs the number of bars in a year, as 252 or 8760")
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
        raise ValueError(f"ann_factor: expected a plain number > 0, got {shown(value)}"[:200])
    return float(value)


@kept_program
def _score(
    inputs: LaneInputs, benchmark: Any, names: tuple[str, ...], ann_factor: float | None, schedule: AbstractSchedule
) -> dict[str, Array]:
    arrays, rest = eqx.partition(inputs, eqx.is_array)

    def over(axes: tuple[LaneAxis, ...]) -> Any:
        """The metrics of lanes with these axes. `vmap` adds another axis, outside of them."""

        @custom_vmap
        def scores(arrays: Any, benchmark: Any) -> dict[str, Array]:
            inputs = eqx.combine(arrays, rest)
            metrics, status, _ = lane_metrics(inputs, axes, names, ann_factor, benchmark, schedule=schedule)
            return {name: jnp.where(status.fault == LaneFault.NONE, x, jnp.nan) for name, x in metrics.items()}

        @scores.def_vmap
        def _(size: int, is_by_lane: Any, arrays: Any, benchmark: Any) -> tuple[dict, dict]:
            by_lane, benchmark_by_lane = is_by_lane
            if benchmark_by_lane:
                raise ValueError("benchmark: one for all lanes, not one for each; pass it beside the vmap")
            in_axes = jax.tree.map(lambda is_own: 0 if is_own else None, by_lane)
            axis = LaneAxis.of(f"lanes {len(axes)}", size, in_axes)
            out = over((axis, *axes))(arrays, benchmark)
            return out, {name: True for name in out}

        return scores

    message = "js.score runs forward only; take derivatives of js.simulate and a function of js.metrics"
    return over(())(refuse_derivatives(arrays, message), benchmark)
