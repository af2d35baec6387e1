"""Metrics by name: the names that a user asks for are read, and what a metric needs beside returns."""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from jaxsim.engine.base.fields import shown
from jaxsim.engine.metrics import deflated, returns, smooth


def read_metric_names(names: Any, known: Collection[str], refusal: str) -> tuple[str, ...]:
    """The names of metrics as a tuple of distinct names.

    known: the metrics that there are.      refusal: what the message says of another name, as "is not one of them".
    Raises TypeError for a value that is no list of names; ValueError for no name, an unknown one, or one twice.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"metrics: expected a list of names, as ['sharpe_ratio'], got {shown(names)}"[:200])
    names = tuple(names)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"metrics: expected a list of names, as ['sharpe_ratio'], got {shown(names)}"[:200])
    if not names:
        raise ValueError("metrics: there is none")
    for name in names:
        if name not in known:
            raise ValueError(f"metrics: {name!r} {refusal}; there are {sorted(known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"metrics: one of them is named twice, {list(names)}")
    return tuple(str(name) for name in names)  # plain strings, also of NumPy's


def required_arguments(metric: Callable) -> set[str]:
    """The names of the arguments beside returns that a metric must be given."""
    parameters = list(inspect.signature(metric).parameters.values())[1:]
    return {p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def needs_ann_factor(metric: str | Callable) -> bool:
    """Whether a metric, by name or as a function, must be given the number of bars in a year."""
    return _named_needs_ann_factor(metric) if isinstance(metric, str) else "ann_factor" in required_arguments(metric)


@functools.cache
def _named_needs_ann_factor(name: str) -> bool:
    module = next(module for module in (returns, smooth, deflated) if hasattr(module, name))
    metric = getattr(module, name)
    return "ann_factor" in required_arguments(metric)


def refuse_prices(returns: Any, argument: str, instead: str) -> None:
    """Raises ValueError naming the argument for numbers that are no returns: all above 0, with a mean above 0.01.

    instead: what to pass of prices.
    """
    known = np.asarray(returns, np.float64)
    known = known[~np.isnan(known)]
    if len(known) and known.min() > 0 and known.mean() > 0.01:
        raise ValueError(
            f"{argument}: expected simple returns, but all are above 0 and their mean is {known.mean():.4g}; of prices "
            f"pass {instead}"
        )
