"""Metrics by name, or as functions of the user's own, for those who score returns without a `Backtest`."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jaxsim import metrics
from jaxsim.engine.metrics.names import needs_ann_factor, required_arguments

Metric = str | Callable[..., Any]

#: The metrics that are one number per lane, those of orders (`turnover`, `total_fees`) among them.
ONE_PER_LANE = {name for name in metrics.__all__ if not name.startswith("rolling_")}
ONE_PER_LANE -= {"drawdown", "returns_from_value", "portfolio_stats", "returns_stats"}


def _is_of_returns(name: str) -> bool:
    function = getattr(metrics, name)
    first = next(iter(inspect.signature(function).parameters))
    return first == "returns" and required_arguments(function) <= {"ann_factor"}


#: The metrics that need returns alone, and the number of bars in a year.
OF_RETURNS = sorted(name for name in ONE_PER_LANE - {"deflated_sharpe_ratio"} if _is_of_returns(name))


def scorer(metric: Metric, ann_factor: float | None, argument: str = "metric") -> Callable[[Any], Any]:
    """The function of returns [time, ...] that a metric is: a name of `jaxsim.metrics`, or a function of returns, which
    gets `ann_factor` by keyword if it asks for it.

    Raises TypeError or ValueError naming the argument for what is none, or for one that needs more than returns.
    """
    function = _function(metric, argument)
    takes = inspect.signature(function).parameters
    if "ann_factor" not in takes:
        return function
    if ann_factor is None:
        if needs_ann_factor(function):
            raise ValueError(f"ann_factor: {metric_name(metric)} needs to know how many bars make a year")
        return function
    return _Annual(function, ann_factor)


@dataclass(frozen=True)
class _Annual:
    """A metric that knows how many bars make a year. Equal ones share their compiled programs."""

    function: Callable[..., Any]
    ann_factor: float

    def __call__(self, returns: Any) -> Any:
        return self.function(returns, ann_factor=self.ann_factor)


def metric_name(metric: Metric) -> str:
    """What a column with this metric is called."""
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)


def metric_list(metrics_or_one: Metric | Iterable[Metric]) -> list[Metric]:
    """One metric or several as a list. Raises as `scorer`, and ValueError for a name that comes twice or for none."""
    listed = [metrics_or_one] if isinstance(metrics_or_one, str) or callable(metrics_or_one) else list(metrics_or_one)
    if not listed:
        raise ValueError("metrics: expected at least one, as in metrics=['sharpe_ratio']")
    names = [metric_name(metric) for metric in listed]
    for metric in listed:
        _function(metric, "metrics")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"metrics: {twice[0]!r} comes twice")
    return listed


def _function(metric: Metric, argument: str) -> Callable:
    if isinstance(metric, str):
        if metric not in OF_RETURNS:
            raise ValueError(f"{argument}: there is no metric {metric!r} of returns alone; there are {OF_RETURNS}")
        return getattr(metrics, metric)
    if not callable(metric):
        raise TypeError(f"{argument}: expected the name of a metric or a function of returns, got {metric!r}")
    return metric
