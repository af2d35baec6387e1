"""The two verbs: `backtest` a policy, `replay` recorded targets."""

import warnings
from types import FunctionType
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pandas as pd

from jaxsim.engine.account import Account
from jaxsim.engine.bounds import BARS, CASH, FEES
from jaxsim.engine.costs import Costs
from jaxsim.engine.policy import Policy, allocator_name, replay_policy
from jaxsim.engine.triggers import Never
from jaxsim.frames.allocations import Allocations
from jaxsim.frames.backtest import Backtest
from jaxsim.frames.broadcast import Leaf, Pending, module, number, settle, time_asset
from jaxsim.frames.calendar import bar_length, to_timedelta
from jaxsim.frames.engines import ENGINES, Job
from jaxsim.frames.groups import Layout, layout
from jaxsim.frames.inputs import Prices, read_prices
from jaxsim.frames.keys import lane_keys
from jaxsim.frames.lanes import Axis, Sweep, is_swept, lane_index
from jaxsim.frames.ledger import Ledger
from jaxsim.frames.paths import Context, Paths


def backtest(
    close: pd.DataFrame | pd.Series,
    policy: Any,
    *,
    open: Any = None,
    price: Any = None,
    trigger: Any = None,
    fees: Any = 0.0,
    min_history: Any = 0,
    init_cash: Any = 100.0,
    groups: Any = None,
    by: Any = None,
    features: Any = None,
    freq: Any = None,
    year_freq: Any = "365D",
    key: Any = 0,
    engine: str = "compiled",
) -> Backtest:
    """Simulate a portfolio that is rebalanced when a trigger says so, under one or many parameters at once.

    close: prices [time, asset]; NaN where there is none. Columns may be a MultiIndex, whose last level names the
        assets and whose other levels name groups; each group has its own cash.
    policy: what to allocate: a function of an `Observation`, an allocator, or a whole `Policy`.
    open: prices that positions are valued and orders are sized at; without it, the previous close.
    price: prices that orders execute at; without it, the close.
    trigger: when to rebalance, as `js.Threshold(0.05)`; default `js.Never()`: bought once, then held.
    fees: fraction of the traded value, > -1.
    min_history: number of bars before the first trade.
    init_cash: opening cash of each group, currency, > 0.
    groups: asset -> group, as a mapping, a Series or a sequence.     by: column level that names the assets.
    features: what the allocator sees as `obs.features`, one row per bar, known at its open.
    freq, year_freq: length of a bar and of a year, for annualised metrics.
    key: random key or int.
    engine: "compiled", or "reference": plain NumPy, one lane after the other, allocators called as ordinary Python.

    `fees` and the trigger's numbers take a number, one per asset, per bar, per bar and asset, or a named index;
    `min_history`, `init_cash`, `key` and the allocator's own parameters a number or a named index. Several indexes make
    their product; see `js.grid` and `js.zipped`.

    Raises ValueError or TypeError naming the argument for what cannot be simulated, before anything is compiled;
    AllocationError naming lane, asset and bar for weights that go wrong on the way.
    """
    prices = read_prices(close, open, price, features)
    arrangement = layout(prices.columns, groups, by)
    policy = _as_policy(policy, trigger, min_history)
    sweep = Sweep()
    allocator = module(policy.allocator, "policy", prices.index, arrangement, sweep)
    rule = module(policy.trigger, "trigger", prices.index, arrangement, sweep)
    fee_leaf = time_asset(fees, "fees", prices.index, arrangement, sweep, FEES)
    history = number(policy.min_history, "min_history", sweep, BARS)
    resolved = eqx.tree_at(lambda p: (p.allocator, p.trigger, p.min_history), policy, (allocator, rule, history))
    return _run(prices, arrangement, sweep, resolved, fee_leaf, init_cash, freq, year_freq, key, engine)


def replay(
    allocations: Allocations,
    close: pd.DataFrame | pd.Series,
    *,
    open: Any = None,
    price: Any = None,
    fees: Any = 0.0,
    init_cash: Any = 100.0,
    groups: Any = None,
    by: Any = None,
    freq: Any = None,
    year_freq: Any = "365D",
    engine: str = "compiled",
) -> Backtest:
    """Trade recorded targets, at the recorded bars and at no others; the portfolio they came from must come out.

    allocations: from `Backtest.allocations`. Their lanes are the outermost ones; an index to sweep that is named like
        one of their levels is aligned with it instead of making the product.
    The other arguments are those of `backtest`.

    An asset of `close` that the allocations do not know is left alone.

    Raises ValueError if a time, an asset or a group of the allocations is not in `close`.
    """
    if not isinstance(allocations, Allocations):
        raise TypeError(f"allocations: expected js.Allocations, got {type(allocations).__name__}")
    prices = read_prices(close, open, price)
    arrangement = layout(prices.columns, groups, by)
    recorded = _Recorded(allocations, arrangement, prices.index)
    sweep = Sweep(recorded.axis)
    policy = recorded.policy(sweep)
    fee_leaf = time_asset(fees, "fees", prices.index, arrangement, sweep, FEES)
    return _run(prices, arrangement, sweep, policy, fee_leaf, init_cash, freq, year_freq, 0, engine)


def _as_policy(policy: Any, trigger: Any, min_history: Any) -> Policy:
    if not isinstance(policy, Policy):
        if not callable(policy):
            raise TypeError(f"policy: expected an allocation function, an allocator or a Policy, got {policy!r}")
        if isinstance(policy, type):
            raise TypeError(f"policy: {policy.__name__} is a class; pass an instance, {policy.__name__}(...)")
        if trigger is not None and (isinstance(trigger, type) or not callable(trigger)):
            raise TypeError(f"trigger: expected a trigger such as js.Threshold(0.05), got {trigger!r}")
        return Policy(_opaque(policy), Never() if trigger is None else trigger, min_history=min_history)
    if trigger is not None:
        raise ValueError("trigger: the Policy has one already")
    if is_swept(min_history) or np.any(np.asarray(min_history) != 0):
        raise ValueError("min_history: the Policy has one already")
    return policy


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


def _opaque(allocator: Any) -> Any:
    is_transparent = isinstance(allocator, eqx.Module | FunctionType)
    return allocator if is_transparent else _Opaque(allocator)


def _run(
    prices: Prices,
    arrangement: Layout,
    sweep: Sweep,
    policy: Any,
    fees: Leaf,
    init_cash: Any,
    freq: Any,
    year_freq: Any,
    key: Any,
    engine: str,
) -> Backtest:
    cash = number(init_cash, "init_cash", sweep, CASH)
    seeds = number(key, "key", sweep, BARS) if is_swept(key) else None
    if engine not in ENGINES:
        raise ValueError(f"engine: expected one of {sorted(ENGINES)}, got {engine!r}")
    bar, year = bar_length(prices.index, freq), to_timedelta(year_freq, "year_freq")
    lanes = lane_labels(sweep, arrangement)
    num_lanes = len(sweep) * arrangement.num_groups
    per_combination = np.broadcast_to(settle(cash).array, (len(sweep),))

    with jax.enable_x64(True):
        per_lane_seeds = None if seeds is None else np.repeat(settle(seeds).array, arrangement.num_groups)
        keys = lane_keys(0 if seeds is not None else key, lanes, per_lane_seeds)
    job = Job(
        prices,
        arrangement,
        len(sweep),
        policy,
        Costs(fees),
        Account(cash),
        keys,
        lambda lane: name_lane(lanes, lane),
    )
    ledgers = ENGINES[engine](job)
    _warn_of_leverage(ledgers)
    opening = np.repeat(per_combination, arrangement.num_groups).astype(np.float64)
    assert len(opening) == num_lanes
    context = Context(prices.index, arrangement, prices.close, prices.mark, opening, bar, year)
    return Backtest(Paths(context, ledgers), lanes)


def lane_labels(sweep: Sweep, arrangement: Layout) -> pd.Index | None:
    """The labels of all lanes: combinations, then groups innermost. Raises ValueError where level names clash."""
    groups, combinations = arrangement.num_groups, len(sweep)
    levels = {name: labels.repeat(groups) for name, labels in sweep.levels().items()}
    for name, labels in arrangement.levels.items():
        if name in levels:
            raise ValueError(f"{name}: a swept parameter and a level of the columns have the same name")
        levels[name] = labels.take(np.tile(np.arange(groups), combinations))
    return lane_index(levels)


def name_lane(lanes: pd.Index | None, lane: int) -> str:
    """A lane's labels as people say them: `threshold=0.05, group='tech'`."""
    if lanes is None:
        return ""
    labels = lanes[lane] if isinstance(lanes, pd.MultiIndex) else (lanes[lane],)
    plain = (v.item() if isinstance(v, np.generic) else v for v in labels)
    return ", ".join(f"{n}={v!r}" for n, v in zip(lanes.names, plain, strict=True))


def _warn_of_leverage(ledgers: list[Ledger]) -> None:
    if any(np.nansum(x.target, axis=1).max(initial=0.0) > 1 + 1e-6 for x in ledgers):
        warnings.warn("target weights sum to more than one; the last buys are cut to the cash there is", stacklevel=4)


class _Recorded:
    """Recorded allocations as a policy: the axis of their lanes without the group levels, and leaves that have both
    a combination and a group axis."""

    def __init__(self, allocations: Allocations, arrangement: Layout, index: pd.Index):
        bars = _bars(allocations, index)
        places, self.axis = _recorded_axis(allocations, arrangement)
        longest = max(1, int(np.bincount(allocations.lane, minlength=1).max(initial=0)))
        longest = 1 << (longest - 1).bit_length()  # few shapes, few programs
        num, groups = places.shape
        size = max(len(m) for m in arrangement.members)
        self._mask = np.zeros((num, groups, len(index)), bool)
        self._bars = np.full((num, groups, longest), len(index), np.int32)
        self._weights = np.full((num, groups, longest, size), np.nan)
        columns = [_asset_places(allocations, arrangement, g) for g in range(groups)]
        for combination in range(num):
            for group in range(groups):
                rows = np.flatnonzero(allocations.lane == places[combination, group])
                self._mask[combination, group, bars[rows]] = True
                self._bars[combination, group, : len(rows)] = bars[rows]
                of_group = np.where(columns[group] < 0, np.nan, allocations.targets[rows][:, columns[group]])
                self._weights[combination, group, : len(rows), : of_group.shape[1]] = of_group

    def policy(self, sweep: Sweep) -> Policy:
        def leaf(array: np.ndarray, pads_assets: bool = False) -> Any:
            pending = Pending(lambda: array[sweep.recorded_places()])
            return Leaf(pending, by_combination=True, by_group=True, pads_assets=pads_assets)

        return replay_policy(leaf(self._mask), leaf(self._bars), leaf(self._weights, pads_assets=True))


def _bars(allocations: Allocations, index: pd.Index) -> np.ndarray:
    if allocations.index.equals(index):
        return allocations.bar
    bars = index.get_indexer(allocations.index.take(allocations.bar))
    if (bars < 0).any():
        missing = allocations.index[allocations.bar[np.argmax(bars < 0)]]
        raise ValueError(f"allocations: {missing} is not in the time index of close")
    return bars


def _recorded_axis(allocations: Allocations, arrangement: Layout) -> tuple[np.ndarray, Axis]:
    """Recorded lane of every (combination, group), and the axis of the combinations."""
    lanes, group_levels = allocations.lanes, list(arrangement.levels)
    if lanes is None:
        if arrangement.num_groups > 1:
            raise ValueError("allocations: they are of one group, close has several")
        return np.zeros((1, 1), int), Axis(1, {}, is_open=True)
    if not set(group_levels) <= set(lanes.names):
        raise ValueError(f"allocations: close has groups by {group_levels}, the allocations have {list(lanes.names)}")
    rest = [name for name in lanes.names if name not in group_levels]
    frame = lanes.to_frame(index=False)
    keys = list(map(tuple, frame[rest].to_numpy(dtype=object))) if rest else [()] * len(lanes)
    combinations = list(dict.fromkeys(keys))
    wanted = list(zip(*arrangement.levels.values(), strict=True)) if group_levels else [()]
    groups = list(map(tuple, frame[group_levels].to_numpy(dtype=object))) if group_levels else [()] * len(lanes)
    lane_of = {(k, tuple(g)): i for i, (k, g) in enumerate(zip(keys, groups, strict=True))}
    places = np.empty((len(combinations), len(wanted)), int)
    for i, combination in enumerate(combinations):
        for j, group in enumerate(wanted):
            if (combination, tuple(group)) not in lane_of:
                raise ValueError(f"allocations: there are none for the group {group} of close")
            places[i, j] = lane_of[combination, tuple(group)]
    first = [keys.index(c) for c in combinations]
    levels = {str(name): lanes.get_level_values(name).take(first) for name in rest}
    return places, Axis(len(combinations), levels, is_open=True)


def _asset_places(allocations: Allocations, arrangement: Layout, group: int) -> np.ndarray:
    """Where the weights of each asset of a group stand; -1 for an asset that was not planned for."""
    assets = arrangement.assets[arrangement.members[group]]
    places = allocations.assets.get_indexer(assets)
    if (places < 0).all() or not allocations.assets.isin(arrangement.assets).all():
        missing = allocations.assets[~allocations.assets.isin(assets)]
        raise ValueError(f"allocations: close has no column for {missing[0]!r}")
    return places
