"""From arguments to a `Reading`: everything is checked and resolved, and nothing has been simulated yet. `backtest`,
`sweep` and `replay` share it, and differ in what they keep of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from types import FunctionType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxsim.engine.base.enums import SizeType
from jaxsim.engine.base.fields import BARS, CASH, NUMBERS, shown
from jaxsim.engine.base.random import as_key, is_seed
from jaxsim.engine.policy.destinations import AbstractDestination, ToTarget, checked_destination
from jaxsim.engine.policy.given import given_orders_policy
from jaxsim.engine.policy.policy import Policy, allocator_name
from jaxsim.engine.policy.triggers import Never
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.frames.inputs.bars_per_year import bar_length, to_timedelta
from jaxsim.frames.inputs.groups import Layout, layout
from jaxsim.frames.inputs.labels import Level, Sweep, index_of_levels, is_swept
from jaxsim.frames.inputs.market import LanePrices, is_frame_of_prices, read_lane_prices
from jaxsim.frames.inputs.parameters import LaneParameter, module, module_from, module_of, number, resolve, time_asset
from jaxsim.frames.inputs.prices import PriceFrames, checked_prices
from jaxsim.frames.inputs.random_keys import lane_keys
from jaxsim.frames.results.paths import RunContext
from jaxsim.frames.runs.execute import ENGINES, Job
from jaxsim.frames.runs.terms import MEANING, is_given, read_costs, read_meaning
from jaxsim.frames.system.workers import check_engine


class _SentKey(NamedTuple):
    """A random key on its way."""

    data: np.ndarray
    impl: str


@dataclass(frozen=True, eq=False)
class Reading:
    """What is to be run: checked, with leaves that know their values for any of the combinations.

    prices, layout, sweep: of all lanes.     quotes, policy, costs, cash: pytrees whose leaves are `LaneParameter`.
    key: random key or int.     seeds: a seed by combination, where the key is swept.
    bar: length of a bar, if known.     year: length of a year.     engine, keep_log, progress: as the user said.
    """

    prices: PriceFrames
    layout: Layout
    sweep: Sweep
    quotes: LanePrices
    policy: Policy
    costs: Costs
    cash: LaneParameter
    key: Any
    seeds: LaneParameter | None
    bar: pd.Timedelta | None
    year: pd.Timedelta
    engine: Any
    keep_log: bool
    progress: bool

    def __getstate__(self) -> dict[str, Any]:
        """To be sent to other processes: typed random keys cannot be."""
        state = dict(vars(self))
        if isinstance(self.key, jax.Array) and jnp.issubdtype(self.key.dtype, jax.dtypes.prng_key):
            state["key"] = _SentKey(np.asarray(jax.random.key_data(self.key)), str(jax.random.key_impl(self.key)))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["key"], _SentKey):
            state["key"] = jax.random.wrap_key_data(jnp.asarray(state["key"].data), impl=state["key"].impl)
        for name, value in state.items():
            object.__setattr__(self, name, value)

    @property
    def num_lanes(self) -> int:
        return len(self.sweep) * self.layout.num_groups

    @property
    def num_bars(self) -> int:
        return len(self.prices.index)

    def lanes(self, some: np.ndarray | None = None) -> pd.Index | None:
        """The labels of the lanes of some combinations, or (None) of all; None for one unlabelled lane."""
        return self._all_lanes if some is None else lane_labels(self.sweep, self.layout, some)

    @cached_property
    def _all_lanes(self) -> pd.Index | None:
        return lane_labels(self.sweep, self.layout)

    def job(self, some: np.ndarray | None = None) -> Job:
        """The simulation of some combinations, by their numbers, or (None) of all."""
        lanes, groups = self.lanes(some), self.layout.num_groups
        parts = (self.quotes, self.policy, self.costs, module_from(Account, {"cash": self.cash}))
        if some is not None:
            parts = jax.tree.map(lambda x: resolve(x, some), parts, is_leaf=lambda x: isinstance(x, LaneParameter))
        quotes, policy, costs, account = parts
        with jax.enable_x64(True):
            seeds = None if self.seeds is None else np.repeat(resolve(self.seeds, some).array, groups)
            keys = lane_keys(0 if seeds is not None else self.key, lanes, seeds)
        return Job(
            self.prices.index,
            self.layout,
            len(self.sweep) if some is None else len(some),
            quotes,
            self.prices.features,
            policy,
            costs,
            account,
            keys,
            lambda lane: name_lane(lanes, lane),
            self.keep_log,
        )

    def opening(self, some: np.ndarray | None = None) -> np.ndarray:
        """Opening cash of each lane, currency, [lane]."""
        combinations = len(self.sweep) if some is None else len(some)
        cash = np.broadcast_to(resolve(self.cash, some).array, (combinations,))
        return np.repeat(cash, self.layout.num_groups).astype(np.float64)

    def context(self, some: np.ndarray | None = None) -> RunContext:
        """What paths of some combinations are worked out from."""
        prices = self.prices
        return RunContext(prices.index, self.layout, prices.close, prices.mark, self.opening(some), self.bar, self.year)


def read_backtest(arguments: Mapping[str, Any]) -> Reading:
    """The arguments of `backtest` (see there) by name, checked and resolved.

    Raises ValueError or TypeError naming the argument.
    """
    close, policy, trigger, destination, min_history, size, price = (
        arguments[name] for name in ("close", "policy", "trigger", "destination", "min_history", "size", "price")
    )
    terms = terms_of(arguments)
    framed = price if is_frame_of_prices(price, close) else None
    prices = checked_prices(close, arguments["open"], framed, arguments["features"])
    arrangement, sweep = layout(prices.columns, arguments["groups"], arguments["by"]), Sweep()
    if size is not None:
        _refuse_with_orders(policy, trigger, destination, min_history)
        book = time_asset(size, "size", prices.index, arrangement, sweep, NUMBERS)
        counts = SizeType.AMOUNT if terms["size_type"] is None else terms["size_type"]
        meaning = read_meaning(terms | {"size_type": counts}, prices.index, arrangement, sweep, are_orders=True)
        whole, leaves = given_orders_policy(book), meaning
    else:
        whole = _as_policy(policy, trigger, destination, min_history, terms)
        allocator = module(whole.allocator, "policy", prices.index, arrangement, sweep)
        rule = module(whole.trigger, "trigger", prices.index, arrangement, sweep)
        way = module(whole.destination, "destination", prices.index, arrangement, sweep)
        given = {name: getattr(whole, name) if terms[name] is None else terms[name] for name in MEANING}
        meaning = read_meaning(given, prices.index, arrangement, sweep)
        leaves = {"allocator": allocator, "trigger": rule, "destination": way, **meaning}
    return read_terms(prices, price, arrangement, sweep, whole, leaves, terms)


def read_terms(
    prices: PriceFrames,
    price: Any,
    arrangement: Layout,
    sweep: Sweep,
    policy: Policy,
    leaves: dict[str, Any],
    terms: Mapping[str, Any],
) -> Reading:
    """The rest of the arguments, for a policy whose fields in `leaves` have been resolved."""
    given_price = None if prices.price is not None else price
    moves_prices = is_given(terms["update_value"], False)
    engine, key = terms["engine"], terms["key"]
    quotes = read_lane_prices(prices, given_price, terms["ffill_val_price"], moves_prices, arrangement, sweep)
    costs = read_costs(terms, prices.index, arrangement, sweep)
    if "min_history" not in leaves:
        leaves["min_history"] = number(policy.min_history, "min_history", sweep, BARS)
    resolved: Any = module_of(policy, leaves)
    cash = number(terms["init_cash"], "init_cash", sweep, CASH)
    seeds = number(key, "key", sweep, BARS) if is_swept(key) else None
    check_engine(engine, ENGINES)
    log = terms.get("log", False)
    if not isinstance(log, bool | np.bool_):
        raise TypeError(f"log: expected True or False, got {shown(log)}"[:200])
    bar, year = bar_length(prices.index, terms["freq"]), to_timedelta(terms["year_freq"], "year_freq")
    check_levels(sweep, arrangement)
    if seeds is None and not is_seed(key):
        as_key(key)
    return Reading(
        prices,
        arrangement,
        sweep,
        quotes,
        resolved,
        costs,
        cash,
        key,
        seeds,
        bar,
        year,
        engine,
        bool(log),
        terms["progress"],
    )


def terms_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that `backtest`, `sweep` and `replay` hand on."""
    names = (*(field.name for field in fields(Costs)), *MEANING)
    others = ("ffill_val_price", "init_cash", "freq", "year_freq", "key", "engine", "log", "progress")
    return {name: arguments[name] for name in (*names, *others) if name in arguments}


def _refuse_with_orders(policy: Any, trigger: Any, destination: Any, min_history: Any) -> None:
    given = {"policy": policy, "trigger": trigger, "destination": destination, "min_history": min_history}
    for name, value in given.items():
        neutral = 0 if name == "min_history" else None
        if is_given(value, neutral):
            raise ValueError(f"{name}: plain orders (size=) are traded as they stand; they take no {name}")


_POLICY = Policy(lambda obs: obs.weights)


def _as_policy(policy: Any, trigger: Any, destination: Any, min_history: Any, terms: Mapping[str, Any]) -> Policy:
    if not isinstance(policy, Policy):
        if policy is None:
            raise TypeError(
                "policy: expected an allocator, as in js.backtest(close, al.EqualWeight()), or orders (size=)"
            )
        allocator = as_allocator(policy, "policy", " or a Policy")
        when, how_far = rules(trigger, destination)
        given = {"allocator": allocator, "trigger": when, "destination": how_far, "min_history": min_history}
        return module_of(_POLICY, given)  # checked already
    if trigger is not None:
        raise ValueError("trigger: the Policy has one already")
    if destination is not None:
        raise ValueError("destination: the Policy has one already")
    if is_given(min_history, 0):
        raise ValueError("min_history: the Policy has one already")
    for name in MEANING:
        if getattr(policy, name) is not None and terms[name] is not None:
            raise ValueError(f"{name}: the Policy has one already")
    return policy.hardened()  # gates are about derivatives


def rules(trigger: Any, destination: Any) -> tuple[Any, AbstractDestination]:
    """Trigger and destination, or what holds without them. Raises TypeError naming the argument."""
    if trigger is not None and (isinstance(trigger, type) or not callable(trigger)):
        raise TypeError(f"trigger: expected a trigger such as js.Threshold(0.05), got {trigger!r}")
    way = ToTarget() if destination is None else checked_destination(destination)
    return (Never() if trigger is None else trigger), way


class _Opaque:
    """A plain Python object as an allocator. What it holds may have changed since it was last compiled, and JAX would
    not know: a new wrapper at every call is compiled anew."""

    def __init__(self, allocator: Any):
        self.allocator = allocator
        self.__qualname__ = allocator_name(allocator)
        for name in ("init", "observe"):
            if hasattr(allocator, name):
                setattr(self, name, getattr(allocator, name))

    def __call__(self, *arguments: Any) -> Any:
        return self.allocator(*arguments)


def as_allocator(value: Any, argument: str, others: str = "") -> Any:
    """An allocator, in the form in which it can be compiled. Raises TypeError naming the argument for what is none.

    others: what else could have been given.
    """
    if not callable(value):
        raise TypeError(f"{argument}: expected an allocation function, an allocator{others}, got {value!r}")
    if isinstance(value, type):
        raise TypeError(f"{argument}: {value.__name__} is a class; pass an instance, {value.__name__}(...)")
    return value if isinstance(value, eqx.Module | FunctionType) else _Opaque(value)


def check_levels(sweep: Sweep, arrangement: Layout) -> None:
    """Raises ValueError where a swept parameter and a level of the columns have the same name."""
    for axis in sweep.axes:
        for name in axis.levels:
            if name in arrangement.levels:
                raise ValueError(f"{name}: a swept parameter and a level of the columns have the same name")


def lane_labels(sweep: Sweep, arrangement: Layout, some: np.ndarray | None = None) -> pd.Index | None:
    """The labels of the lanes of some combinations, or (None) of all: combinations, then groups innermost."""
    check_levels(sweep, arrangement)
    groups, combinations = arrangement.num_groups, len(sweep) if some is None else len(some)
    levels = {name: Level(level.labels, level.places.repeat(groups)) for name, level in sweep.levels(some).items()}
    for name, labels in arrangement.levels.items():
        levels[name] = Level(labels, np.tile(np.arange(groups), combinations))
    return index_of_levels(levels)


def name_lane(lanes: pd.Index | None, lane: int) -> str:
    """A lane's labels as people say them: `threshold=0.05, group='tech'`."""
    if lanes is None:
        return ""
    labels = lanes[lane] if isinstance(lanes, pd.MultiIndex) else (lanes[lane],)
    plain = (v.item() if isinstance(v, np.generic) else v for v in labels)
    return ", ".join(f"{n}={v!r}" for n, v in zip(lanes.names, plain, strict=True))
