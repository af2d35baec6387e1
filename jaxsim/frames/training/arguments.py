"""The arguments of `fit`, checked and converted. All functions raise TypeError or ValueError that begins with the name
of the argument."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import jax
import numpy as np

from jaxsim.engine.base.fields import shown, whole_number
from jaxsim.engine.metrics.returns import sharpe_ratio
from jaxsim.engine.policy.given import RecordedTargets
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.policy.triggers import AtBars
from jaxsim.engine.training.gradient_ascent import Score
from jaxsim.engine.training.hyperparameters import called_for, names_taken
from jaxsim.engine.training.minibatches import AbstractBatch, PathBatch, WindowBatch, num_bars, num_paths
from jaxsim.frames.training.data import Data


def read_bars_per_year(ann_factor: Any, bars_per_year: Any) -> Any:
    if ann_factor is not None and bars_per_year is not None:
        raise ValueError("bars_per_year: it is another name of ann_factor=; give one of them")
    if bars_per_year is not None:
        _bars_per_year(bars_per_year, "bars_per_year")
    return bars_per_year if ann_factor is None else ann_factor


def read_score(objective: Any, ann_factor: Any, score: Any) -> Score:
    if score is not None:
        if objective is not None:
            raise ValueError("score: it takes the place of objective=; give one of them")
        if ann_factor is not None:
            raise ValueError("ann_factor: score= is a function of the simulation alone; use it there")
        if not callable(score):
            raise TypeError(f"score: expected a function of a Simulation, got {shown(score)}"[:200])
        return Score(score, of_simulation=True)
    objective = sharpe_ratio if objective is None else objective
    if not callable(objective):
        raise TypeError(f"objective: expected a metric such as js.metrics.sharpe_ratio, got {shown(objective)}"[:200])
    try:
        known = inspect.signature(objective).parameters
    except (TypeError, ValueError):
        return Score(objective, _bars_per_year(ann_factor))
    name = getattr(objective, "__name__", type(objective).__name__)
    needs = "ann_factor" in known and known["ann_factor"].default is inspect.Parameter.empty
    if needs and ann_factor is None:
        raise TypeError(f"ann_factor: {name} needs the number of bars per year, as bars_per_year=252")
    takes = "ann_factor" in known or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    if ann_factor is not None and not takes:
        raise TypeError(f"ann_factor: {name} takes none")
    return Score(objective, _bars_per_year(ann_factor))


def _bars_per_year(ann_factor: Any, argument: str = "ann_factor") -> np.ndarray | None:
    if ann_factor is None:
        return None
    array = np.asarray(ann_factor)
    if array.dtype.kind not in "iuf" or array.shape != () or not array > 0 or not np.isfinite(array):
        raise ValueError(f"{argument}: expected a finite number > 0, got {shown(ann_factor)}"[:200])
    return array.astype(np.float64)


@cache
def _default_optimizer() -> Any:
    """Always the same object, so that no program is compiled twice."""
    import optax

    return optax.adam(1e-2)


def read_hyperparameters(hyperparameters: Any, restarts: Any, optimizer: Any, anneal: Any) -> dict[str, np.ndarray]:
    """The hyper-parameters by name, float64 [restart]; {} without any."""
    if hyperparameters is None:
        return {}
    if not isinstance(hyperparameters, Mapping) or not hyperparameters:
        raise TypeError(
            f"hyperparameters: expected name -> a value for each restart, got {shown(hyperparameters)}"[:200]
        )
    makers = [x for x in (optimizer, anneal) if callable(x) and not is_transformation(x)]
    taken = {name for maker in makers for name in names_taken(maker, hyperparameters)}
    members: dict[str, np.ndarray] = {}
    for name, values in hyperparameters.items():
        if name not in taken:
            raise ValueError(
                f"hyperparameters: neither optimizer= nor anneal= is a function that takes {name!r}; write for "
                f"instance optimizer=lambda {name}: optax.adam({name})"
            )
        array = np.asarray(values)
        if array.dtype.kind not in "iuf" or array.ndim != 1 or not len(array) or not np.isfinite(array).all():
            raise ValueError(f"hyperparameters: {name} must be a list of finite numbers, got {shown(values)}"[:200])
        members[name] = array.astype(np.float64)
    lengths = {name: len(array) for name, array in members.items()}
    count = next(iter(lengths.values()))
    if len(set(lengths.values())) > 1:
        raise ValueError(f"hyperparameters: each needs as many values as there are restarts, got {lengths}")
    if restarts not in (1, count):
        raise ValueError(f"restarts: {restarts}, but hyperparameters= has values for {count}")
    return members


def is_transformation(optimizer: Any) -> bool:
    """Whether an optimizer is one of optax, rather than a function that makes one."""
    return callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))


def read_optimizer(optimizer: Any, members: dict[str, np.ndarray]) -> Any:
    if optimizer is None:
        return _default_optimizer()
    if members and callable(optimizer) and not is_transformation(optimizer):
        made = called_for({name: values[0] for name, values in members.items()}, optimizer)
        if not is_transformation(made):
            raise TypeError(f"optimizer: expected a function that makes one of optax, it made {shown(made)}"[:200])
        return optimizer
    if not is_transformation(optimizer):
        raise TypeError(f"optimizer: expected one of optax, such as optax.adam(1e-2), got {shown(optimizer)}"[:200])
    return optimizer


def check_anneal(anneal: Any, policy: Policy) -> None:
    if anneal is None:
        return
    if not callable(anneal):
        raise TypeError(f"anneal: expected a schedule, a function of the step, got {shown(anneal)}"[:200])
    if not hasattr(policy.gate, "temperature"):
        raise ValueError(f"anneal: the gate of the policy, {type(policy.gate).__name__}, has no temperature")


def check_restarts(restarts: int, init: Any, jitter: Any) -> None:
    if init is not None and not callable(init):
        raise TypeError(f"init: expected a function of a random key that makes a Policy, got {shown(init)}"[:200])
    if init is not None and restarts == 1:
        raise ValueError("init: the first restart begins with the policy; say restarts=2 or more")
    number = isinstance(jitter, int | float | np.number) and not isinstance(jitter, bool)
    if not number or not 0 <= jitter < np.inf:
        raise ValueError(f"jitter: expected a finite number >= 0, got {shown(jitter)}"[:200])


def read_first_bar(start: Any, policy: Policy, batch: Any, data: Data) -> int:
    """The first bar that scores count."""
    name = "min_history" if start is None else "start"
    first = int(policy.min_history) if start is None else whole_number(start, name, 0)
    lengths = {"market": data.num_training_bars}
    if isinstance(batch, WindowBatch):
        lengths["batch"] = batch.length
    if data.held_out is not None:
        lengths["validation"] = num_bars(data.held_out)
    for what, length in lengths.items():
        if first >= length:
            raise ValueError(f"{name}: {first} bars leave none of the {length} bars of {what}= to score")
    return first


def check_batch(batch: Any, policy: Policy, data: Data) -> None:
    if batch is None:
        return
    if not isinstance(batch, AbstractBatch):
        raise TypeError(f"batch: expected js.WindowBatch or js.PathBatch, got {shown(batch)}"[:200])
    if isinstance(batch, WindowBatch):
        if batch.length > data.num_training_bars:
            raise ValueError(f"batch: windows of {batch.length} bars, of {data.num_training_bars} to train on")
        numbered = AtBars | RecordedTargets
        if any(isinstance(x, numbered) for x in jax.tree.leaves(policy, is_leaf=lambda x: isinstance(x, numbered))):
            raise ValueError(
                "batch: the policy counts bars from the first of the market, which a window does not begin at"
            )
    paths = None if callable(data.training) else num_paths(data.training)
    if isinstance(batch, PathBatch) and paths is not None and batch.count > paths:
        raise ValueError(f"batch: {batch.count} paths at a time, but there are {paths}")
