"""`sensitivities`: what each score would gain or lose by a little more of each cost, threshold and weight."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Unpack

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import Bounds, shown
from jaxsim.engine.metrics.names import needs_ann_factor
from jaxsim.engine.policy.policy import fault_text
from jaxsim.engine.trading.account import opening_value
from jaxsim.engine.trading.status import LaneFault
from jaxsim.engine.training.sensitivity import COSTS, default_steps, has_threshold, slopes
from jaxsim.errors import AllocationError
from jaxsim.frames.results.metric_names import Metric, metric_list, metric_name, scorer
from jaxsim.frames.runs.arguments import read_arguments
from jaxsim.frames.runs.job import SingleLane
from jaxsim.frames.runs.terms import TermsKeywords, terms_of
from jaxsim.frames.system.progress import progress_bar

PARAMETERS = (*COSTS, "threshold", "weights")


def sensitivities(
    close: pd.DataFrame | pd.Series,
    policy: Any,
    *,
    metrics: Metric | Iterable[Metric] = "sharpe_ratio",
    wrt: Sequence[str] | None = None,
    gate: Any = None,
    step: float = 1e-6,
    **terms: Unpack[TermsKeywords],
) -> pd.DataFrame:
    """The derivative of every metric with respect to costs, threshold and target weights, lane by lane, beside the
    finite difference that it should equal.

    close, policy, terms: as in `js.backtest`, lanes and groups among them.
    metrics: names of metrics of returns, or functions `f(returns)` or `f(returns, *, ann_factor)` of JAX arrays.
    wrt: which of "fees", "fixed_fees", "slippage", "threshold" and "weights"; default those that there are.
    gate: what the derivative of the decision to trade means in the column `surrogate`, as `js.StraightThrough(0.01)`;
        without it there is no such column. That of the `Policy` plays no part.
    step: by how much each parameter is moved up and down for the differences; of what is in currency, this fraction of
        the account.

    Returns a DataFrame with a row for each (lane levels..., metric, parameter), and the columns

    - `value`: of the metric;
    - `derivative`: its exact one, in forward mode. A cost or a threshold is moved by the same amount for all assets and
      bars; `weights[A]` is what the allocator asks for of asset A at every rebalance, the others unmoved, so that the
      rest goes to or comes from cash;
    - `difference`: (metric(+step) - metric(-step)) / (2 step);
    - `relative_error`: of the two, in parts of the larger one;
    - `events_differ`: whether other orders were filled a step to one side: then the metric has a kink or a jump there,
      and the derivative is that of one side;
    - `surrogate`: the derivative under `gate`; `surrogate_value`: the metric under it, which a smooth gate changes.

    When to trade is a step function of the threshold, which has derivative zero almost everywhere and jumps in between:
    `derivative` says 0 of it, and is right. How a metric changes with the threshold on the whole only a gate estimates.
    Weights from Python functions (`al.host`) are constants.

    Raises TypeError or ValueError naming the argument for what is wrong; AllocationError naming the lane for an
    allocator's answer that cannot be traded.
    """
    scored = metric_list(metrics)
    if Bounds(0.0, is_open=True).read(step, "step").ndim > 0:
        raise ValueError(f"step: expected one number, got {shown(step)}")
    if terms.get("size") is not None:
        raise TypeError("size: plain orders have no weights and no threshold; js.sensitivities is about policies")
    arguments = read_arguments(close, policy, terms_of(terms))
    job, lanes = arguments.job, arguments.job.lanes
    needing = next((metric_name(metric) for metric in scored if needs_ann_factor(metric)), None)
    ann_factor = arguments.annual.known if needing is None else arguments.annual.needed(needing)
    scores = tuple(scorer(metric, ann_factor, "metrics") for metric in scored)
    frames = []
    with jax.enable_x64(True), progress_bar(len(lanes), "lane", arguments.progress) as advance:
        for lane in job.each_lane():
            names = _parameters(lane, wrt)
            frames.append(_table(lane, names, scores, gate, step, job.name_lane(lane.number)))
            advance(1)
    names = [metric_name(metric) for metric in scored]
    labelled = []
    for number, frame in enumerate(frames):
        frame = frame.rename(index=dict(enumerate(names)), level="metric")
        if lanes.labels is not None:
            label = lanes.labels[number] if lanes.labels.nlevels > 1 else (lanes.labels[number],)
            frame = pd.concat({tuple(label) if len(label) > 1 else label[0]: frame}, names=list(lanes.labels.names))
        labelled.append(frame)
    return pd.concat(labelled)


def _parameters(lane: SingleLane, wrt: Sequence[str] | None) -> tuple[str, ...]:
    """The parameters of a lane, one "weights" for each asset, last. Raises ValueError for those that it has not got."""
    there = {"threshold": has_threshold(lane.policy.trigger), "weights": lane.policy.size_type is None}
    if wrt is None:
        wrt = [name for name in PARAMETERS if there.get(name, True)]
    chosen = [wrt] if isinstance(wrt, str) else list(wrt)
    for name in chosen:
        if name not in PARAMETERS:
            raise ValueError(f"wrt: expected some of {list(PARAMETERS)}, got {name!r}")
        if not there.get(name, True):
            why = "the trigger has no threshold" if name == "threshold" else "the allocator's numbers are no weights"
            raise ValueError(f"wrt: there is no {name} to vary: {why}")
    wanted = [name for name in PARAMETERS if name in chosen]
    return tuple(name for name in wanted for _ in range(len(lane.assets) if name == "weights" else 1))


def _table(lane: SingleLane, names: tuple[str, ...], scores: tuple, gate: Any, step: float, label: str) -> pd.DataFrame:
    steps = default_steps(names, float(opening_value(lane.account, lane.market)), float(step))
    off = {name: np.zeros(()) for name in COSTS if name in names and getattr(lane.costs, name) is None}
    if lane.start >= lane.market.num_bars:
        raise ValueError(f"min_history: {lane.start} bars leave none of {lane.market.num_bars} to score")
    around = (replace(lane.costs, **off), lane.account, lane.key, names, scores, steps, lane.start)
    result = slopes(lane.market, lane.policy.hardened(), *around)
    if int(result.fault) != LaneFault.NONE:
        where = f"{label}, " if label else ""
        text = fault_text(LaneFault(int(result.fault)), lane.policy.allocator)
        raise AllocationError(f"{text} ({where}bar {int(result.fault_bar)})")
    assets = iter(lane.assets)
    rows = pd.Index([f"weights[{next(assets)}]" if name == "weights" else name for name in names], name="parameter")
    derivative, difference = np.asarray(result.derivative), np.asarray(result.difference)
    larger = np.maximum(np.abs(derivative), np.abs(difference))
    error = np.where(larger > 0, np.abs(derivative - difference) / np.where(larger > 0, larger, 1.0), 0.0)
    columns = {
        "value": np.broadcast_to(np.asarray(result.score)[:, None], derivative.shape),
        "derivative": derivative,
        "difference": difference,
        "relative_error": np.where(np.isnan(derivative - difference), np.nan, error),
        "events_differ": np.broadcast_to(np.asarray(result.events_differ), derivative.shape),
    }
    if gate is not None:
        gated = slopes(lane.market, replace(lane.policy, gate=gate), *around)
        columns["surrogate"] = np.asarray(gated.derivative)
        columns["surrogate_value"] = np.broadcast_to(np.asarray(gated.score)[:, None], derivative.shape)
    index = pd.MultiIndex.from_product([range(len(derivative)), rows], names=["metric", "parameter"])
    return pd.DataFrame({name: x.ravel() for name, x in columns.items()}, index)
