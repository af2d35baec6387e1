"""Plans: an allocator asked on all look-back ranges of all lanes at once, before anything is traded."""

from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import BARS, CASH
from jaxsim.engine.policy.policy import allocator_name, keeps_state
from jaxsim.frames.inputs.groups import layout
from jaxsim.frames.inputs.labels import Sweep, is_swept
from jaxsim.frames.inputs.parameters import module, number, resolve
from jaxsim.frames.inputs.price_arrays import valuation_prices
from jaxsim.frames.inputs.prices import checked_prices
from jaxsim.frames.inputs.random_keys import lane_keys
from jaxsim.frames.plans.engines import ENGINES, plan_elsewhere
from jaxsim.frames.plans.job import PlanJob, collect, unasked
from jaxsim.frames.plans.look_back_ranges import Timetable
from jaxsim.frames.results.allocations import Allocations
from jaxsim.frames.runs.arguments import as_allocator, lane_labels
from jaxsim.frames.system.progress import progress_bar
from jaxsim.frames.system.workers import check_engine, is_distributed


def optimize(
    close: pd.DataFrame | pd.Series,
    allocator: Any,
    *,
    every: Any = None,
    on: Any = None,
    at_time: Any = None,
    lookback: Any = None,
    offset: Any = None,
    open: Any = None,
    features: Any = None,
    groups: Any = None,
    by: Any = None,
    init_cash: Any = 100.0,
    key: Any = 0,
    pad: bool = True,
    engine: str = "compiled",
    progress: bool = False,
) -> Allocations:
    """Ask an allocator on look-back ranges, all dates of all lanes in batches; `js.replay` trades the plan.

    close: prices [time, asset], as in `backtest`.
    allocator: pure function of an `Observation`, or an allocator without state; its parameters may be named indexes.
        It sees an untouched account at the bar of the allocation, and in `obs.window()` the closes of the range.
    every, on, at_time, offset, lookback: when allocations are due and what they look back on, as `js.index_ranges`;
        each may be a named index to sweep, or for `on` a mapping, label -> dates.
    open: only for `obs.val_price`, which without it is the close before.      features, groups, by: as in `backtest`.
    init_cash: of the untouched account, currency.
    key: random key or int; `obs.key` is folded from it by lane and bar.
    pad: whether ranges of about one length share a program, their windows beginning with NaN rows (which the statistics
        of a `Window` skip); False: windows are exactly the range, one program for each length.
    engine: "compiled"; "reference": an ordinary loop in Python with NumPy arrays, for any function; "processes": on all
        cores of this machine; "dask" or a `dask.distributed.Client`: on a cluster. Workers run what "compiled" does, or
        for `al.host` what "reference" does.
    progress: whether to show a progress bar.

    Returns `Allocations` with `ranges`; where no range is a full one, without any, and without arrays in `aux`. Their
    lanes: schedule levels (every, on, at_time, lookback, offset), those of the allocator, then groups.
    Raises TypeError or ValueError naming the argument; AllocationError naming lane, asset and bar for weights that
    cannot be traded; AllocatorError naming lane and bar, from what a function that runs in Python has raised.
    """
    prices = checked_prices(close, open, None, features)
    arrangement, sweep = layout(prices.columns, groups, by), Sweep()
    schedule = Timetable(
        prices.index, dict(every=every, on=on, at_time=at_time, lookback=lookback, offset=offset), sweep
    )
    allocator = as_allocator(allocator, "allocator")
    if keeps_state(allocator):
        name = allocator_name(allocator)
        raise TypeError(f"allocator: {name} keeps a state from bar to bar, which a plan has not; use js.backtest")
    tree = module(allocator, "allocator", prices.index, arrangement, sweep)
    cash = number(init_cash, "init_cash", Sweep(), CASH)
    seeds = number(key, "key", sweep, BARS) if is_swept(key) else None
    check_engine(engine, ENGINES)
    if not isinstance(pad, bool):
        raise TypeError(f"pad: expected True or False, got {pad!r}")
    lanes = lane_labels(sweep, arrangement)
    with jax.enable_x64(True):
        per_lane = None if seeds is None else np.repeat(resolve(seeds).array, arrangement.num_groups)
        keys = lane_keys(0 if seeds is not None else key, lanes, per_lane)
        job = PlanJob(
            prices.index, arrangement, prices.close, valuation_prices(prices.close, prices.open),
            allocator_name(allocator), (tree, prices.features), float(cash.array), keys.data, keys.impl,
            schedule.items(), lanes, pad,
        )  # fmt: skip
        run = plan_elsewhere if is_distributed(engine) else ENGINES[engine]
        with progress_bar(job.num_answers, "range", progress) as advance:
            answers = run(job, engine, advance) if job.num_answers else unasked(job)
        return collect(job, answers)
