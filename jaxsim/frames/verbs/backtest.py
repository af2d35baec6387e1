"""`backtest`: simulate a policy or plain orders, and keep everything that happened."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable

import numpy as np

from jaxsim.engine.policy.destinations import AbstractDestination
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.schedules.schedule import AbstractSchedule
from jaxsim.engine.trading.cut import PRO_RATA
from jaxsim.frames.inputs.benchmark import Benchmark
from jaxsim.frames.inputs.delistings import STALE, Delistings, Stale
from jaxsim.frames.inputs.durations import Duration
from jaxsim.frames.inputs.groups import Groups
from jaxsim.frames.inputs.market import IGNORED
from jaxsim.frames.inputs.parameters import CodeParameter, LaneValue, Parameter
from jaxsim.frames.inputs.prices import Features, Table
from jaxsim.frames.inputs.random_keys import Key
from jaxsim.frames.inputs.sweep_axes import Swept
from jaxsim.frames.results.backtest import Backtest
from jaxsim.frames.results.ledger import Ledger
from jaxsim.frames.results.paths import Paths
from jaxsim.frames.runs.arguments import RunArguments, read_arguments
from jaxsim.frames.runs.departures import warn_of_departures
from jaxsim.frames.runs.execute import execute
from jaxsim.frames.runs.terms import Engine, Holding, LaneCode, Terms
from jaxsim.frames.system.memory import available, show_size
from jaxsim.frames.system.progress import progress_bar

#: Runs below this size, in bytes, are not compared with the free memory: asking for it takes longer than they do.
ALWAYS_FITS = 1 << 24


def backtest(
    close: Table,
    policy: Policy | Callable | None = None,
    *,
    size: Parameter | None = None,
    size_type: CodeParameter | None = None,
    direction: CodeParameter | None = None,
    call_seq: LaneCode | None = None,
    cut: str | None = None,
    open: Table | None = None,
    price: Parameter | None = None,
    ffill_val_price: LaneValue = True,
    stale: Stale = STALE,
    delistings: Delistings = None,
    drift_without_price: str = IGNORED,
    trigger: Callable | None = None,
    destination: AbstractDestination | None = None,
    fees: Parameter = 0.0,
    fixed_fees: Parameter = 0.0,
    slippage: Parameter = 0.0,
    min_size: Parameter = 0.0,
    max_size: Parameter = np.inf,
    size_granularity: Parameter = np.nan,
    reject_prob: Parameter = 0.0,
    lock_cash: Parameter = False,
    allow_partial: Parameter = True,
    raise_reject: Parameter = False,
    min_value: Parameter = 0.0,
    min_fee: Parameter = 0.0,
    max_fee: Parameter = np.inf,
    fee_per_unit: Parameter = 0.0,
    update_value: LaneValue = False,
    min_history: LaneValue = 0,
    start: LaneValue | None = None,
    init_cash: LaneValue = 100.0,
    init_units: Holding | None = None,
    init_target: Holding | str | None = None,
    init_average_cost: Holding | None = None,
    groups: Groups | None = None,
    by: Hashable = None,
    features: Features = None,
    benchmark: Benchmark | None = None,
    freq: Duration | None = None,
    year_freq: Duration | None = None,
    bars_per_year: float | None = None,
    key: Key | Swept = 0,
    engine: Engine = "compiled",
    schedule: AbstractSchedule | None = None,
    log: bool = False,
    progress: bool = False,
) -> Backtest:
    """Simulate a portfolio that is rebalanced when a trigger says so, or that is sent plain orders, for one or many
    parameters at once.

    close: prices [time, asset]; NaN where there is none. Columns may be a MultiIndex, whose last level names the
        assets and whose other levels name groups; each group has its own cash.
    policy: what to allocate: a function of an `Observation`, an allocator, or a whole `Policy`.
    size: plain orders instead of a policy; NaN: no order.
    size_type: the unit of sizes, a `SizeType` or its name; default "amount" (units) for `size`, "target_percent"
        (weights) for a policy.
    direction: "both", "long_only" or "short_only": which positions orders may lead to; default both.
    call_seq: "auto" (ascending order value, sales first; the default), "default" (as the columns stand) or "reversed".
    cut: which purchases are cut where the cash is short: "last", the last in the order of execution (the default), or
        "pro_rata", all by the same factor (rules 3.11); one for all lanes.
    open: prices that positions are valued and orders are sized at; without it, the previous close.
    price: prices that orders execute at: a frame, a number, +inf for the close (the default), -inf for the open.
    ffill_val_price: whether a valuation price outlives a bar without one.
    stale: how long an asset has no price before it has left the market and is closed at its last close: bars, a
        duration, both as by default (without dates the bars alone count), or None for never.
    delistings: when assets leave, by asset: a date, or (date, price paid per unit; 0 for a bankruptcy); the others go
        by `stale`. "hold": nothing ever leaves, and what has no price is held.
    drift_without_price: "ignored": the drift of an asset with neither an open of the bar nor a close of the bar before
        counts in no trigger; "counts": it counts at the last price there was.
    trigger: when to rebalance, as `js.Threshold(0.05)`; default `js.Never()`: bought once, then held.
    destination: how far to trade towards the targets, as `js.ToEdge()`; default `js.ToTarget()`, all the way.
    fees: fraction of the traded value, > -1.       fixed_fees: currency per order.     Negative: a rebate.
    slippage: fraction by which fills are worse than `price`, in [0, 1).
    min_size, max_size: units; a smaller fill is rejected, a larger order cut.
    size_granularity: units; fills are whole multiples of it; NaN: any size.
    min_value: currency; an order that trades less is not sent.
    min_fee: currency, the least commission of an order.     max_fee: the largest, as a fraction of the traded value.
    fee_per_unit: currency per unit, added to `fees` before `min_fee` and `max_fee` count (rules 3.12).
    reject_prob: probability of a random rejection, drawn from the lane's key as its own stream.
    lock_cash: whether short sales and purchases are limited by free cash.
    allow_partial: whether orders may fill in part.     raise_reject: whether a rejection ends the run with an error.
    update_value: whether a fill moves the valuation price and value that later orders of the bar are sized by.
    min_history: number of bars before the first trade.
    start: the first bar that metrics count, by number; default `min_history`, and 0 for plain orders (rules 7.17).
    init_cash: opening cash of each group, currency, > 0, or >= 0 beside `init_units`.
    init_units: what each group holds before the first bar, in units, negative if sold short: a Series by asset, a
        DataFrame by asset and group, or a mapping label -> Series to sweep. It is worth the valuation price of bar 0,
        or where there is none the mark of bar 0.
    init_target: weights that a trigger compares with until the first rebalance, in the same forms; default those of
        the opening account. "allocator": the first bar that may trade is a rebalance.
    init_average_cost: currency per unit that positions were entered at, for trades, stops and what shorts owe; default
        what they are worth at the opening.
    groups: asset -> group, as a mapping, a Series or a sequence.     by: column level that names the assets.
    benchmark: what metrics compare with: prices, a Series by time or a DataFrame by time and group, which may have more
        bars; the name of a column; or "equal", the default: equal amounts of the group's assets. It is bought at the
        close of the bar before `start`, without costs, and held (rules 6.5).
    features: the tables or arrays behind `obs.features`, one row per bar, known at its open.
    freq, year_freq, bars_per_year: length of a bar and of a year, or the bars in a year themselves, for annualised
        metrics; without them the index tells (rules 13.1).
    key: random key or int.
    engine: "compiled"; "reference": plain NumPy, one lane after the other, allocators called as ordinary Python;
        "processes": lanes on all cores of this machine; "dask" or a `dask.distributed.Client`: lanes on a cluster.
    schedule: how the compiled engine goes through the bars, `js.NextEvent()` or `js.Scan()`. It changes the time that
        the run takes, and no result. Default the faster one.
    log: whether to keep the account around every order, for `Backtest.logs`.
    progress: whether to show a progress bar.

    `size` to `fee_per_unit` and the trigger's numbers take one value, one per asset, per bar, per bar and asset, or a
    named index; `update_value` to `init_cash`, `key` and the allocator's own parameters one value or a named index.
    Several indexes make their product; see `js.grid` and `js.zipped`.

    Raises ValueError or TypeError naming the argument before anything is compiled; MemoryError if the paths of all
    lanes do not fit into memory (see `js.sweep`); AllocationError, AllocatorError, OrderError or RejectedOrderError
    naming lane, asset and bar for what goes wrong during the run.
    """
    terms = Terms(
        size=size, size_type=size_type, direction=direction, call_seq=call_seq, cut=cut, open=open, price=price,
        ffill_val_price=ffill_val_price, stale=stale, delistings=delistings,
        drift_without_price=drift_without_price, trigger=trigger, destination=destination, fees=fees,
        fixed_fees=fixed_fees, slippage=slippage, min_size=min_size, max_size=max_size,
        size_granularity=size_granularity, reject_prob=reject_prob, lock_cash=lock_cash, allow_partial=allow_partial,
        raise_reject=raise_reject,
        min_value=min_value, min_fee=min_fee, max_fee=max_fee, fee_per_unit=fee_per_unit,
        update_value=update_value, min_history=min_history, start=start, init_cash=init_cash, init_units=init_units,
        init_target=init_target, init_average_cost=init_average_cost, groups=groups,
        by=by, features=features, benchmark=benchmark, freq=freq, year_freq=year_freq, bars_per_year=bars_per_year,
        key=key, engine=engine,
        schedule=schedule, log=log, progress=progress,
    )  # fmt: skip
    return run_backtest(read_arguments(close, policy, terms))


def run_backtest(arguments: RunArguments) -> Backtest:
    """Simulate all lanes and keep everything that happened. Raises as `backtest`."""
    _refuse_too_many(arguments)
    with progress_bar(arguments.num_lanes, "lane", arguments.progress) as advance:
        ledgers = execute(arguments.job, arguments.engine, advance)
    _warn_of_leverage(ledgers, arguments.job.policy)
    prices, assets = arguments.prices, arguments.job.layout.assets
    warn_of_departures(prices.departures, assets, prices.index, ledgers, stacklevel=3)
    return Backtest(Paths(arguments.context(), ledgers), arguments.job.lanes.labels)


def _refuse_too_many(arguments: RunArguments) -> None:
    """Raises MemoryError where one path of each lane would not fit."""
    needed = 8 * arguments.num_lanes * arguments.num_bars
    if needed < ALWAYS_FITS:
        return
    free = available()
    if free is not None and needed > free:
        raise MemoryError(
            f"{arguments.num_lanes:,} lanes x {arguments.num_bars:,} bars: one path of each, as that of its value, "
            f"takes {show_size(needed)}, and {show_size(free)} are free; js.sweep keeps metrics alone, in bounded "
            "memory"
        )


def _warn_of_leverage(ledgers: list[Ledger], policy: Policy) -> None:
    of_weights = [x for x in ledgers if x.size_type is None]
    if any(np.nansum(x.target[x.decided], axis=1).max(initial=0.0) > 1 + 1e-6 for x in of_weights):
        cut = "all buys are scaled" if policy.cut == PRO_RATA else "the last buys are cut"
        warnings.warn(f"target weights sum to more than one; {cut} to the cash there is", stacklevel=4)
