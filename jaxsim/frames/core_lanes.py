"""The lanes of a backtest one by one, as arguments of `js.simulate`."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.account import Account
from jaxsim.engine.bounds import BARS, CASH
from jaxsim.engine.policy import Policy
from jaxsim.engine.triggers import Never
from jaxsim.frames.backtest import Backtest
from jaxsim.frames.broadcast import Leaf, module, module_of, number, settle
from jaxsim.frames.calendar import bar_length, to_timedelta
from jaxsim.frames.groups import Layout, layout
from jaxsim.frames.inputs import read_prices
from jaxsim.frames.keys import lane_keys
from jaxsim.frames.lanes import Sweep, is_swept
from jaxsim.frames.quotes import is_frame_of_prices, market_tree, read_quotes
from jaxsim.frames.reading import lane_labels
from jaxsim.frames.terms import MEANING, is_given, read_costs, read_meaning


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
        leaves, structure = jax.tree.flatten(self._leaves, is_leaf=lambda x: isinstance(x, Leaf))
        leaves = [settle(leaf) for leaf in leaves]
        for combination in range(self.num_combinations):
            for group, members in enumerate(self.layout.members):
                here = [_one(leaf, combination, group, self.layout) for leaf in leaves]
                quotes, policy, costs, account = jax.tree.unflatten(structure, here)
                key = self._keys[combination * self.layout.num_groups + group]
                market = market_tree(quotes, self._features)
                yield CoreLane(market, policy, costs, account, key, self.layout.assets.take(members))


def _one(leaf: Leaf, combination: int, group: int, layout: Layout) -> Any:
    array, (by_combination, _) = leaf.of(np.array([group]), layout.members, False)
    return array[combination] if by_combination else array


def core_lanes(backtest: Callable[..., Backtest], close: Any, policy: Any, given: Mapping[str, Any]) -> CoreLanes:
    """Read the arguments of `backtest`: a policy, and `given` by name. Raises as it does for those that are wrong."""
    bound = inspect.signature(backtest).bind(close, policy, **given)
    bound.apply_defaults()
    terms = bound.arguments
    price = terms["price"]
    framed = price if is_frame_of_prices(price, close) else None
    prices = read_prices(close, terms["open"], framed, terms["features"])
    arrangement, sweep = layout(prices.columns, terms["groups"], terms["by"]), Sweep()
    policy = _as_policy(policy, terms)
    parts = {"allocator": "policy", "trigger": "trigger", "destination": "destination"}
    leaves = {n: module(getattr(policy, n), a, prices.index, arrangement, sweep) for n, a in parts.items()}
    asked = {name: getattr(policy, name) if terms[name] is None else terms[name] for name in MEANING}
    leaves |= read_meaning(asked, prices.index, arrangement, sweep)
    moves_prices = is_given(terms["update_value"], False)
    rest = None if framed is not None else price
    quotes = read_quotes(prices, rest, terms["ffill_val_price"], moves_prices, arrangement, sweep)
    costs = read_costs(terms, prices.index, arrangement, sweep)
    leaves["min_history"] = number(policy.min_history, "min_history", sweep, BARS)
    cash, key = number(terms["init_cash"], "init_cash", sweep, CASH), terms["key"]
    seeds = number(key, "key", sweep, BARS) if is_swept(key) else None
    labels = lane_labels(sweep, arrangement)
    with jax.enable_x64(True):
        by_lane = None if seeds is None else np.repeat(settle(seeds).array, arrangement.num_groups)
        keys = lane_keys(0 if seeds is not None else key, labels, by_lane)
    bar, year = bar_length(prices.index, terms["freq"]), to_timedelta(terms["year_freq"], "year_freq")
    tree = (quotes, module_of(policy, leaves), costs, Account(cash))
    return CoreLanes(labels, None if bar is None else year / bar, arrangement, len(sweep), tree, prices.features, keys)


def _as_policy(policy: Any, terms: Mapping[str, Any]) -> Policy:
    """The policy, or one of an allocator and the rules beside it. Raises TypeError or ValueError by argument."""
    beside = {"trigger": None, "destination": None, "min_history": 0}
    if isinstance(policy, Policy):
        for name, neutral in beside.items():
            if is_given(terms[name], neutral):
                raise ValueError(f"{name}: the Policy has one already")
        return policy
    if not callable(policy) or isinstance(policy, type):
        raise TypeError(f"policy: expected an allocation function, an allocator or a Policy, got {policy!r}")
    way = {} if terms["destination"] is None else {"destination": terms["destination"]}
    trigger = Never() if terms["trigger"] is None else terms["trigger"]
    return Policy(policy, trigger, min_history=terms["min_history"], **way)
