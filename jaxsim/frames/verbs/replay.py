"""`replay`: trade recorded allocations again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from jaxsim.engine.base.fields import shown
from jaxsim.engine.policy.destinations import AbstractDestination, SpreadOver
from jaxsim.engine.policy.stops import AbstractStop
from jaxsim.frames.inputs.benchmark import Benchmark
from jaxsim.frames.inputs.delistings import STALE, Delistings, Stale, with_departures
from jaxsim.frames.inputs.durations import Duration
from jaxsim.frames.inputs.groups import Groups, layout
from jaxsim.frames.inputs.market import IGNORED
from jaxsim.frames.inputs.parameters import LaneValue, Parameter, ParameterReader
from jaxsim.frames.inputs.prices import Table, checked_prices, is_price_table, valuation_prices
from jaxsim.frames.inputs.sweep_axes import Sweep
from jaxsim.frames.results.allocations import Allocations
from jaxsim.frames.results.backtest import Backtest
from jaxsim.frames.runs.arguments import arguments_of, rules
from jaxsim.frames.runs.recorded import RecordedPolicy
from jaxsim.frames.runs.terms import Engine, Holding, LaneCode, Meaning, Terms, read_meaning
from jaxsim.frames.verbs.backtest import run_backtest


def replay(
    allocations: Allocations,
    close: Table,
    *,
    trigger: Callable | None = None,
    destination: AbstractDestination | None = None,
    stops: AbstractStop | Sequence[AbstractStop] = (),
    call_seq: LaneCode | None = None,
    cut: str | None = None,
    open: Table | None = None,
    price: Parameter | None = None,
    ffill_val_price: LaneValue = True,
    stale: Stale = STALE,
    delistings: Delistings = None,
    drift_without_price: str = IGNORED,
    fees: Parameter = 0.0,
    fixed_fees: Parameter = 0.0,
    slippage: Parameter = 0.0,
    min_size: Parameter = 0.0,
    max_size: Parameter = np.inf,
    size_granularity: Parameter = np.nan,
    lock_cash: Parameter = False,
    allow_partial: Parameter = True,
    raise_reject: Parameter = False,
    min_value: Parameter = 0.0,
    min_fee: Parameter = 0.0,
    max_fee: Parameter = np.inf,
    fee_per_unit: Parameter = 0.0,
    update_value: LaneValue = False,
    start: LaneValue | None = None,
    init_cash: LaneValue = 100.0,
    init_units: Holding | None = None,
    init_target: Holding | str | None = None,
    init_average_cost: Holding | None = None,
    groups: Groups | None = None,
    by: Hashable = None,
    benchmark: Benchmark | None = None,
    freq: Duration | None = None,
    year_freq: Duration | None = None,
    bars_per_year: float | None = None,
    engine: Engine = "compiled",
    log: bool = False,
    progress: bool = False,
) -> Backtest:
    """Trade recorded targets at the recorded bars. With the same prices and costs, the result is the portfolio that
    they were recorded from.

    allocations: from `Backtest.allocations`, a plan of `js.optimize`, or `Allocations.from_weights`. Their lanes are
        outermost. An index to sweep with the name of one of their levels is aligned with that level, and makes no
        product.
    trigger: when to go back to the last recorded targets between the recorded bars; without it, never.
    destination: how far to trade towards the targets, at recorded bars and at others. Allocations do not record it. The
        bands of `js.ToEdge` and `js.OnlyBreached` are those of `trigger`.
    stops: rules that close positions between the recorded bars: one, such as `js.StopLoss(0.1)`, or a list of them. A
        position that a rule has closed stays closed until the next recorded bar.
    start: the first bar that metrics count; default that of the run that the allocations were recorded from, and for a
        plan the bar of the first allocation of each lane (rules 7.17).
    The other arguments are those of `backtest`.

    An asset of `close` that the allocations do not know is left alone. A lane without allocations stays, in cash.

    Warns of a plan whose first row cannot be sized: at the first bar, without `open=`, nothing has a price before.
    Raises ValueError if a time, an asset or a group of the allocations is not in `close`.
    """
    if not isinstance(allocations, Allocations):
        raise TypeError(f"allocations: expected js.Allocations, got {type(allocations).__name__}")
    terms = Terms(
        trigger=trigger, destination=destination, call_seq=call_seq, cut=cut, open=open, price=price,
        ffill_val_price=ffill_val_price, stale=stale, delistings=delistings,
        drift_without_price=drift_without_price, fees=fees, fixed_fees=fixed_fees, slippage=slippage, min_size=min_size,
        max_size=max_size, size_granularity=size_granularity, lock_cash=lock_cash, allow_partial=allow_partial,
        raise_reject=raise_reject,
        min_value=min_value, min_fee=min_fee, max_fee=max_fee, fee_per_unit=fee_per_unit,
        update_value=update_value, start=start, init_cash=init_cash, init_units=init_units,
        init_target=init_target, init_average_cost=init_average_cost, groups=groups, by=by,
        benchmark=benchmark, freq=freq, year_freq=year_freq, bars_per_year=bars_per_year,
        engine=engine, log=log, progress=progress,
    )  # fmt: skip
    prices = checked_prices(close, open, price if is_price_table(price, close) else None)
    arrangement = layout(prices.columns, groups, by)
    prices = with_departures(prices, arrangement.assets, stale, delistings)
    recorded = RecordedPolicy(allocations, arrangement, prices.index)
    recorded.warn_of_unsized(valuation_prices(prices.close, prices.open), prices.index)
    reader = ParameterReader(prices.index, arrangement, Sweep(recorded.axis))
    trigger_or_never, destination = rules(trigger, destination)
    trigger_parts = None if trigger is None else reader.module(trigger_or_never, "trigger")
    destination_parts = reader.module(destination, "destination")
    stop_parts = tuple(reader.module(stop, "stops") for stop in _stops(stops, allocations, destination))
    policy_fields = {
        "destination": destination_parts,
        "call_seq": read_meaning(Meaning(call_seq=call_seq), reader)["call_seq"],
        "min_history": recorded.first_bar(reader.sweep),
    }
    policy = recorded.policy(reader.sweep, trigger_parts, stop_parts)
    return run_backtest(arguments_of(prices, terms, policy, policy_fields, reader, recorded.start(reader.sweep)))


def _stops(
    stops: AbstractStop | Sequence[AbstractStop], allocations: Allocations, destination: AbstractDestination
) -> list[AbstractStop]:
    """Raises TypeError or ValueError naming the argument for a value that is no stop rule, or that cannot be used
    with these allocations or beside this destination."""
    several = [stops] if isinstance(stops, AbstractStop) else stops
    if not isinstance(several, list | tuple) or not all(isinstance(x, AbstractStop) for x in several):
        raise TypeError(f"stops: expected stops such as js.StopLoss(0.1), got {shown(stops)}"[:200])
    if several and allocations.size_type is not None:
        raise ValueError("stops: they close what target weights have opened; these allocations are other sizes")
    if several and isinstance(destination, SpreadOver):
        raise ValueError("stops: not beside SpreadOver, whose parts are on their way already")
    return list(several)
