"""`optimize`: plans. An allocator is asked about all look-back ranges of all lanes at once, before anything is
traded."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import jax
import numpy as np

from jaxsim.engine.base.fields import CASH
from jaxsim.engine.policy.policy import allocator_name, keeps_state
from jaxsim.frames.inputs.calendar import Dates, Frequency, Snap, TimeOfDay
from jaxsim.frames.inputs.delistings import STALE, Delistings, Stale, prices_by_listing, with_departures
from jaxsim.frames.inputs.durations import Duration
from jaxsim.frames.inputs.groups import Groups, layout
from jaxsim.frames.inputs.lanes import read_lanes
from jaxsim.frames.inputs.parameters import ParameterReader
from jaxsim.frames.inputs.prices import Features, Table, checked_prices, valuation_prices
from jaxsim.frames.inputs.random_keys import Key
from jaxsim.frames.inputs.sweep_axes import Sweep, Swept
from jaxsim.frames.plans.engines import ENGINES, plan
from jaxsim.frames.plans.job import PlanJob, allocations_from, no_answers
from jaxsim.frames.plans.look_back_ranges import LookBackRules
from jaxsim.frames.results.allocations import Allocations
from jaxsim.frames.runs.arguments import as_allocator
from jaxsim.frames.runs.terms import Engine
from jaxsim.frames.system.progress import progress_bar
from jaxsim.frames.system.workers import check_engine


def optimize(
    close: Table,
    allocator: Callable,
    *,
    every: Frequency | Swept | None = None,
    on: Dates | Mapping[Hashable, Dates] | None = None,
    at_time: TimeOfDay | Swept | None = None,
    lookback: int | Duration | Swept | None = None,
    offset: Duration | Swept | None = None,
    snap: Snap | Swept = "after",
    open: Table | None = None,
    features: Features = None,
    groups: Groups | None = None,
    by: Hashable = None,
    init_cash: float = 100.0,
    stale: Stale = STALE,
    delistings: Delistings = None,
    key: Key | Swept = 0,
    pad: bool = True,
    engine: Engine = "compiled",
    progress: bool = False,
) -> Allocations:
    """Ask an allocator on look-back ranges, all dates of all lanes in batches; `js.replay` trades the plan.

    close: prices [time, asset], as in `backtest`.
    allocator: pure function of an `Observation`, or an allocator without state; its parameters may be named indexes.
        It sees an untouched account at the bar of the allocation, and in `obs.window()` the closes of the range.
    every, on, at_time, offset, snap, lookback: when allocations are due, and their look-back ranges, as in
        `js.index_ranges`; each may be a named index to sweep, or for `on` a mapping, label -> dates.
    open: only for `obs.val_price`, which without it is the close before.      features, groups, by: as in `backtest`.
    init_cash: of the untouched account, currency.       stale, delistings: as in `backtest`.
    key: random key or int; `obs.key` is folded from it by lane and bar.
    pad: whether ranges of about one length share a program, their windows beginning with NaN rows (which the statistics
        of a `Window` skip); False: windows are exactly the range, one program for each length.
    engine: "compiled"; "reference": an ordinary loop in Python with NumPy arrays, for any function; "processes": on all
        cores of this machine; "dask" or a `dask.distributed.Client`: on a cluster. Workers run as "compiled" does, or
        for `al.host` as "reference" does.
    progress: whether to show a progress bar.

    Returns `Allocations` with `ranges`; if no range is a full one, they are empty, without arrays in `aux`. Their
    lanes: calendar levels (every, on, at_time, lookback, offset, snap), those of the allocator, then groups.
    Raises TypeError or ValueError naming the argument; AllocationError naming lane, asset and bar for weights that
    cannot be traded; AllocatorError naming lane and bar, from the error that a Python function raised.
    """
    prices = checked_prices(close, open, None, features)
    arrangement = layout(prices.columns, groups, by)
    prices = with_departures(prices, arrangement.assets, stale, delistings)
    reader = ParameterReader(prices.index, arrangement, Sweep())
    when = {"every": every, "on": on, "at_time": at_time, "lookback": lookback, "offset": offset, "snap": snap}
    look_back_rules = LookBackRules(prices.index, when, reader.sweep)
    allocator = as_allocator(allocator, "allocator")
    if keeps_state(allocator):
        name = allocator_name(allocator)
        raise TypeError(f"allocator: {name} keeps a state from bar to bar, which a plan has not; use js.backtest")
    tree = reader.module(allocator, "allocator")
    cash = CASH.read(init_cash, "init_cash")
    if cash.size != 1:
        raise ValueError(f"init_cash: expected one number, got shape {cash.shape}")
    lanes = read_lanes(key, reader)
    check_engine(engine, ENGINES)
    if not isinstance(pad, bool):
        raise TypeError(f"pad: expected True or False, got {pad!r}")
    with jax.enable_x64(True):
        job = PlanJob(
            index=prices.index,
            lanes=lanes,
            close=prices.close,
            val_price=prices_by_listing(prices, valuation_prices, np.nan),
            name=allocator_name(allocator),
            tree=(tree, prices.features),
            cash=float(cash.item()),
            items=look_back_rules.look_backs(),
            pad=pad,
        )
        with progress_bar(job.num_answers, "range", progress) as advance:
            answers = plan(job, engine, advance) if job.num_answers else no_answers(job)
        return allocations_from(job, answers)
