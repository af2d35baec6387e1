"""The lanes of a backtest one by one, as arguments of `js.simulate`."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxsim.frames.inputs.groups import Layout
from jaxsim.frames.inputs.market import market_tree
from jaxsim.frames.inputs.parameters import LaneParameter, resolve
from jaxsim.frames.results.backtest import Backtest
from jaxsim.frames.runs.arguments import read_backtest


@dataclass(frozen=True, eq=False)
class CoreLane:
    """One lane: what `js.simulate` takes.

    assets: names of its assets.
    """

    market: Any
    policy: Any
    costs: Any
    account: Any
    key: Any
    assets: pd.Index


@dataclass(frozen=True, eq=False)
class CoreLanes:
    """All lanes of a backtest.

    labels: None for one unlabelled lane.       ann_factor: bars per year, if the length of a bar is known.
    """

    labels: pd.Index | None
    ann_factor: float | None
    layout: Layout
    num_combinations: int
    _leaves: Any
    _features: Any
    _keys: Any

    def __len__(self) -> int:
        return self.num_combinations * self.layout.num_groups

    def __iter__(self) -> Iterator[CoreLane]:
        """Within x64, as their arrays are float64."""
        leaves, structure = jax.tree.flatten(
            (self._leaves, self._features), is_leaf=lambda x: isinstance(x, LaneParameter)
        )
        leaves = [resolve(leaf) if isinstance(leaf, LaneParameter) else leaf for leaf in leaves]
        for combination in range(self.num_combinations):
            for group, members in enumerate(self.layout.members):
                here = [_one(leaf, combination, group, self.layout) for leaf in leaves]
                (quotes, policy, costs, account), features = jax.tree.unflatten(structure, here)
                key = self._keys[combination * self.layout.num_groups + group]
                market = market_tree(quotes, features)
                yield CoreLane(market, policy, costs, account, key, self.layout.assets.take(members))


def _one(leaf: Any, combination: int, group: int, layout: Layout) -> Any:
    if not isinstance(leaf, LaneParameter):  # features that are the same for all
        return leaf
    array, (by_combination, _) = leaf.of(np.array([group]), layout.members, False)
    return array[combination] if by_combination else array


def core_lanes(backtest: Callable[..., Backtest], close: Any, policy: Any, given: Mapping[str, Any]) -> CoreLanes:
    """Read the arguments of `backtest`: a policy, and `given` by name. Raises as it does for those that are wrong."""
    bound = inspect.signature(backtest).bind(close, policy, **given)
    bound.apply_defaults()
    reading = read_backtest(bound.arguments)
    job = reading.job()
    tree = (job.quotes, job.policy, job.costs, job.account)
    ann_factor = None if reading.bar is None else reading.year / reading.bar
    return CoreLanes(reading.lanes(), ann_factor, job.layout, job.num_combinations, tree, job.features, job.keys)
