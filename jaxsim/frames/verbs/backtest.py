"""The two verbs: `backtest` a policy or plain orders, `replay` recorded targets."""

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import shown
from jaxsim.engine.policy.destinations import AbstractDestination, SpreadOver
from jaxsim.engine.policy.given import RecordedTargets, replay_policy
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.policy.stops import AbstractStop
from jaxsim.engine.schedules.programs import checked_schedule
from jaxsim.engine.schedules.schedule import AbstractSchedule
from jaxsim.frames.inputs.groups import Layout, layout
from jaxsim.frames.inputs.labels import Axis, Sweep
from jaxsim.frames.inputs.market import is_frame_of_prices
from jaxsim.frames.inputs.parameters import LaneParameter, Unresolved, module
from jaxsim.frames.inputs.prices import checked_prices
from jaxsim.frames.results.allocations import Allocations
from jaxsim.frames.results.backtest import Backtest
from jaxsim.frames.results.ledger import Ledger
from jaxsim.frames.results.paths import Paths
from jaxsim.frames.runs.arguments import Reading, read_backtest, read_terms, rules, terms_of
from jaxsim.frames.runs.distributed import run_elsewhere
from jaxsim.frames.runs.execute import ENGINES
from jaxsim.frames.runs.terms import read_meaning
from jaxsim.frames.system.memory import available, show_size
from jaxsim.frames.system.progress import progress_bar
from jaxsim.frames.system.workers import is_distributed

#: Bytes that are there without asking, which takes longer than to fill them.
LITTLE = 1 << 24


def backtest(
    close: pd.DataFrame | pd.Series,
    policy: Any = None,
    *,
    size: Any = None,
    size_type: Any = None,
    direction: Any = None,
    call_seq: Any = None,
    open: Any = None,
    price: Any = None,
    ffill_val_price: Any = True,
    trigger: Any = None,
    destination: Any = None,
    fees: Any = 0.0,
    fixed_fees: Any = 0.0,
    slippage: Any = 0.0,
    min_size: Any = 0.0,
    max_size: Any = np.inf,
    size_granularity: Any = np.nan,
    reject_prob: Any = 0.0,
    lock_cash: Any = False,
    allow_partial: Any = True,
    raise_reject: Any = False,
    update_value: Any = False,
    min_history: Any = 0,
    init_cash: Any = 100.0,
    groups: Any = None,
    by: Any = None,
    features: Any = None,
    freq: Any = None,
    year_freq: Any = "365D",
    key: Any = 0,
    engine: str = "compiled",
    schedule: Any = None,
    log: bool = False,
    progress: bool = False,
) -> Backtest:
    """Simulate a portfolio that is rebalanced when a trigger says so, or one that is sent given orders; under one or
    many parameters at once.

    close: prices [time, asset]; NaN where there is none. Columns may be a MultiIndex, whose last level names the
        assets and whose other levels name groups; each group has its own cash.
    policy: what to allocate: a function of an `Observation`, an allocator, or a whole `Policy`.
    size: plain orders instead of a policy; NaN: no order.
    size_type: what sizes count, a `SizeType` or its name; default "amount" (units) for `size`, "target_percent"
        (weights) for a policy.
    direction: "both", "long_only" or "short_only": which positions orders may lead to; default both.
    call_seq: "auto" (ascending order value, sales first; the default), "default" (as the columns stand) or "reversed".
    open: prices that positions are valued and orders are sized at; without it, the previous close.
    price: prices that orders execute at: a frame, a number, +inf for the close (the default), -inf for the open.
    ffill_val_price: whether a valuation price outlives a bar without one.
    trigger: when to rebalance, as `js.Threshold(0.05)`; default `js.Never()`: bought once, then held.
    destination: how far towards the targets to trade, as `js.ToEdge()`; default `js.ToTarget()`, all the way.
    fees: fraction of the traded value, > -1.       fixed_fees: currency per order.     Negative: a rebate.
    slippage: fraction by which fills are worse than `price`, in [0, 1).
    min_size, max_size: units; a smaller fill is rejected, a larger order cut.
    size_granularity: units; fills are whole multiples of it; NaN: any size.
    reject_prob: probability of a random rejection, drawn from the lane's key as its own stream.
    lock_cash: whether short sales and purchases are limited by free cash.
    allow_partial: whether orders may fill in part.     raise_reject: whether a rejection ends the run with an error.
    update_value: whether a fill moves the valuation price and value that later orders of the bar are sized by.
    min_history: number of bars before the first trade.
    init_cash: opening cash of each group, currency, > 0.
    groups: asset -> group, as a mapping, a Series or a sequence.     by: column level that names the assets.
    features: what the allocator sees as `obs.features`, one row per bar, known at its open.
    freq, year_freq: length of a bar and of a year, for annualised metrics.
    key: random key or int.
    engine: "compiled"; "reference": plain NumPy, one lane after the other, allocators called as ordinary Python;
        "processes": lanes on all cores of this machine; "dask" or a `dask.distributed.Client`: lanes on a cluster.
    schedule: how the compiled engine goes through the bars, `js.NextEvent()` or `js.Scan()`: it changes the time that
        this takes, nothing else. Default the faster one.
    log: whether to keep the account around every order, for `Backtest.logs`.
    progress: whether to show a progress bar.

    `size` to `raise_reject` and the trigger's numbers take one value, one per asset, per bar, per bar and asset, or a
    named index; `update_value` to `init_cash`, `key` and the allocator's own parameters one value or a named index.
    Several indexes make their product; see `js.grid` and `js.zipped`.

    Raises ValueError or TypeError naming the argument for what cannot be simulated, before anything is compiled;
    MemoryError for more lanes than paths can be kept of (see `js.sweep`); AllocationError, OrderError or
    RejectedOrderError naming lane, asset and bar for what goes wrong on the way.
    """
    reading = read_backtest(locals())
    if schedule is not None and engine == "reference":
        raise ValueError("schedule: the reference engine has one of its own, one bar after the other")
    return _run(reading, checked_schedule(schedule, reading.policy))


def replay(
    allocations: Allocations,
    close: pd.DataFrame | pd.Series,
    *,
    trigger: Any = None,
    destination: Any = None,
    stops: Any = (),
    call_seq: Any = None,
    open: Any = None,
    price: Any = None,
    ffill_val_price: Any = True,
    fees: Any = 0.0,
    fixed_fees: Any = 0.0,
    slippage: Any = 0.0,
    min_size: Any = 0.0,
    max_size: Any = np.inf,
    size_granularity: Any = np.nan,
    lock_cash: Any = False,
    allow_partial: Any = True,
    raise_reject: Any = False,
    update_value: Any = False,
    init_cash: Any = 100.0,
    groups: Any = None,
    by: Any = None,
    freq: Any = None,
    year_freq: Any = "365D",
    engine: str = "compiled",
    log: bool = False,
    progress: bool = False,
) -> Backtest:
    """Trade recorded targets at the recorded bars; the portfolio they came from must come out.

    allocations: from `Backtest.allocations`, a plan of `js.optimize`, or `Allocations.from_weights`. Their lanes are
        the outermost ones; an index to sweep that is named like one of their levels is aligned with it instead of
        making the product.
    trigger: when to go back to the last recorded targets between the recorded bars; without it, never.
    destination: how far towards the targets to trade, at recorded bars and at others; that of the portfolio which they
        come from is not recorded. The bands of `js.ToEdge` and `js.OnlyBreached` are those of the trigger here.
    stops: rules that close positions between the recorded bars: one, such as `js.StopLoss(0.1)`, or a list of them. A
        position that a rule has closed stays closed until the next recorded bar.
    The other arguments are those of `backtest`.

    An asset of `close` that the allocations do not know is left alone.

    Raises ValueError if a time, an asset or a group of the allocations is not in `close`.
    """
    if not isinstance(allocations, Allocations):
        raise TypeError(f"allocations: expected js.Allocations, got {type(allocations).__name__}")
    terms = terms_of(locals() | {"reject_prob": 0.0, "key": 0, "size_type": None, "direction": None})
    prices = checked_prices(close, open, price if is_frame_of_prices(price, close) else None)
    arrangement = layout(prices.columns, groups, by)
    recorded = _Recorded(allocations, arrangement, prices.index)
    sweep = Sweep(recorded.axis)
    when, how_far = rules(trigger, destination)
    rule = None if trigger is None else module(when, "trigger", prices.index, arrangement, sweep)
    way = module(how_far, "destination", prices.index, arrangement, sweep)
    closing = tuple(
        module(stop, "stops", prices.index, arrangement, sweep) for stop in _stops(stops, allocations, how_far)
    )
    meaning = read_meaning(terms, prices.index, arrangement, sweep)
    leaves = {"destination": way, "call_seq": meaning["call_seq"], "min_history": recorded.first_bar(sweep)}
    return _run(read_terms(prices, price, arrangement, sweep, recorded.policy(sweep, rule, closing), leaves, terms))


def _stops(stops: Any, allocations: Allocations, destination: AbstractDestination) -> list[AbstractStop]:
    """Raises TypeError or ValueError naming the argument for what is no stop rule, or cannot be one here."""
    as_list = [stops] if isinstance(stops, AbstractStop) else stops
    if not isinstance(as_list, list | tuple) or not all(isinstance(x, AbstractStop) for x in as_list):
        raise TypeError(f"stops: expected stops such as js.StopLoss(0.1), got {shown(stops)}"[:200])
    if as_list and allocations.size_type is not None:
        raise ValueError("stops: they close what target weights have opened; these allocations are other sizes")
    if as_list and isinstance(destination, SpreadOver):
        raise ValueError("stops: not beside SpreadOver, whose parts are on their way already")
    return list(as_list)


def _run(reading: Reading, schedule: AbstractSchedule | None = None) -> Backtest:
    """Simulate all lanes and keep what happened."""
    _refuse_too_many(reading)
    job, engine = replace(reading.job(), schedule=schedule), reading.engine
    run = partial(run_elsewhere, engine=engine) if is_distributed(engine) else ENGINES[engine]
    with progress_bar(reading.num_lanes, "lane", reading.progress) as advance:
        ledgers = run(job, advance)
    _warn_of_leverage(ledgers)
    return Backtest(Paths(reading.context(), ledgers), reading.lanes())


def _refuse_too_many(reading: Reading) -> None:
    """Raises MemoryError where one path of each lane alone would not fit."""
    needed = 8 * reading.num_lanes * reading.num_bars
    if needed < LITTLE:
        return
    free = available()
    if free is not None and needed > free:
        raise MemoryError(
            f"{reading.num_lanes:,} lanes x {reading.num_bars:,} bars: one path of each, as that of its value, takes "
            f"{show_size(needed)}, and {show_size(free)} are free; js.sweep keeps metrics alone, in bounded memory"
        )


def _warn_of_leverage(ledgers: list[Ledger]) -> None:
    plain = [x for x in ledgers if x.size_type is None]
    if any(np.nansum(x.target, axis=1).max(initial=0.0) > 1 + 1e-6 for x in plain):
        warnings.warn("target weights sum to more than one; the last buys are cut to the cash there is", stacklevel=4)


class _Recorded:
    """Recorded allocations as a policy: the axis of their lanes without the group levels, and leaves that have both
    a combination and a group axis."""

    def __init__(self, allocations: Allocations, arrangement: Layout, index: pd.Index):
        bars = _bars(allocations, index)
        places, self.axis = _recorded_axis(allocations, arrangement)
        longest = _rounded_up(np.bincount(allocations.lane, minlength=1))
        num, groups = places.shape
        size = max(len(m) for m in arrangement.members)
        self._num_bars = len(index)
        self._bars = np.full((num, groups, longest), len(index), np.int32)
        self._weights = np.full((num, groups, longest, size), np.nan)
        self._asked = {
            name: None if getattr(allocations, name) is None else np.zeros(self._weights.shape, dtype)
            for name, dtype in (("size_type", np.int32), ("direction", np.int32), ("sequence", np.float64))
        }
        which = np.full(len(allocations.is_member), -1)  # the combination of each recorded lane of a group
        for group in range(groups):
            which[:] = -1
            which[places[:, group]] = np.arange(num)
            here = np.flatnonzero(which[allocations.lane] >= 0)
            lane = allocations.lane[here]
            at = which[lane], group, here - np.searchsorted(allocations.lane, lane)
            columns = _asset_places(allocations, arrangement, group)
            _refuse_unknown(allocations, columns, here, [labels[group] for labels in arrangement.levels.values()])
            of_group = np.where(columns < 0, np.nan, allocations.targets[here][:, columns])
            self._bars[at] = bars[here]
            self._weights[(*at, slice(0, len(columns)))] = of_group
            for name, table in self._asked.items():
                if table is not None:
                    table[(*at, slice(0, len(columns)))] = getattr(allocations, name)[here][:, np.maximum(columns, 0)]

    def _leaf(self, sweep: Sweep, array: np.ndarray, pads_assets: bool = False) -> Any:
        pending = Unresolved(lambda some: array[sweep.recorded_places(some)])
        return LaneParameter(pending, by_combination=True, by_group=True, pads_assets=pads_assets)

    def first_bar(self, sweep: Sweep) -> Any:
        """Before it nothing trades, whatever a trigger says."""
        return self._leaf(sweep, self._bars[:, :, 0].astype(np.float64))

    def policy(self, sweep: Sweep, trigger: Any = None, stops: tuple[AbstractStop, ...] = ()) -> Policy:
        asked = {n: None if x is None else self._leaf(sweep, x, pads_assets=True) for n, x in self._asked.items()}
        weights = self._leaf(sweep, self._weights, pads_assets=True)
        targets = RecordedTargets(self._leaf(sweep, self._bars), weights, **asked)
        mask = None if trigger is None and not stops else self._leaf(sweep, self._mask())
        return replay_policy(mask, targets, trigger, stops)

    def _mask(self) -> np.ndarray:
        """The bars with an allocation, [combination, group, time]."""
        mask = np.zeros((*self._bars.shape[:2], self._num_bars + 1), bool)
        np.put_along_axis(mask, self._bars, True, axis=-1)
        return mask[..., :-1]


def _rounded_up(counts: np.ndarray) -> int:
    """How many allocations of each lane, of which so many are recorded, there is to be room for: a power of two; where
    that is little, 512. Few shapes, few programs."""
    least = 512 if np.count_nonzero(counts) <= 64 else 1
    return max(least, 1 << (max(1, int(counts.max())) - 1).bit_length())


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
    if not group_levels and arrangement.num_groups == 1 and lanes.is_unique:
        levels = {str(name): lanes.get_level_values(name) for name in rest}
        return np.arange(len(lanes))[:, None], Axis(len(lanes), levels, is_open=True)
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


def _refuse_unknown(allocations: Allocations, columns: np.ndarray, rows: np.ndarray, labels: list) -> None:
    """Raises ValueError where a weight is meant for an asset that the group of these labels has not."""
    is_unknown = np.ones(len(allocations.assets), bool)
    is_unknown[columns[columns >= 0]] = False
    unknown = np.flatnonzero(is_unknown)
    meant = ~np.isnan(allocations.targets[np.ix_(rows, unknown)]).all(axis=0)
    if meant.any():
        asset, group = allocations.assets[unknown[meant][0]], ", ".join(map(repr, labels))
        raise ValueError(f"allocations: close has no column for {asset!r} in group {group}")


def _asset_places(allocations: Allocations, arrangement: Layout, group: int) -> np.ndarray:
    """Where the weights of each asset of a group stand; -1 for an asset that was not planned for."""
    assets = arrangement.assets[arrangement.members[group]]
    if assets.equals(allocations.assets):
        return np.arange(len(assets))
    places = allocations.assets.get_indexer(assets)
    if (places < 0).all() or not allocations.assets.isin(arrangement.assets).all():
        missing = allocations.assets[~allocations.assets.isin(assets)]
        raise ValueError(f"allocations: close has no column for {missing[0]!r}")
    return places
