"""Whether single precision decides as double precision does."""

import inspect
import warnings
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import shown
from jaxsim.engine.policy.host_callback import take_out
from jaxsim.frames.results.ledger import Ledger
from jaxsim.frames.results.paths import Paths
from jaxsim.frames.runs.arguments import Reading, read_backtest
from jaxsim.frames.runs.execute import batch_of, ledger_of, raise_fault
from jaxsim.frames.verbs.backtest import backtest


def check_float32(close: Any, policy: Any = None, *, sample: int = 16, **options: Any) -> pd.DataFrame:
    """Run some lanes in float32 and in float64 and compare them; warn where they decide differently.

    The pandas face always computes in float64. `js.simulate` computes in the dtype of its market, which is float32
    unless told otherwise: this says whether that matters.

    close, policy, options: as in `js.backtest`.       sample: combinations of parameters, evenly spaced, >= 1.

    Returns a DataFrame, one row per lane: `decisions`, bars on which the allocator was asked in float64; `differing`,
    bars on which it was asked in one and not in the other; `first`, the time of the first of them, NaT or None if there
    is none; `orders`, filled in float64, and `more_orders`, how many more in float32, where amounts that should cancel
    do not; `drift`, the largest relative difference of the values; `end`, that of the last value.
    Raises as `js.backtest`, and ValueError for a policy that calls Python functions, which compute in float64.
    """
    if isinstance(sample, bool) or not isinstance(sample, int | np.integer) or sample < 1:
        raise ValueError(f"sample: expected a whole number >= 1, got {shown(sample)}"[:200])
    arguments = inspect.signature(backtest).bind(close, policy, **options)
    arguments.apply_defaults()
    reading = read_backtest(arguments.arguments)
    if take_out(reading.policy)[1]:
        raise ValueError("policy: it calls Python functions, which compute in float64 in any case")
    count = len(reading.sweep)
    some = np.unique(np.linspace(0, count - 1, min(sample, count)).round().astype(int))
    double, single = (_paths(reading, some, is_double) for is_double in (True, False))
    table = _compared(double, single, reading.prices.index)
    lanes = reading.lanes(some)
    table.index = pd.RangeIndex(1) if lanes is None else lanes
    differing = table[table["differing"] > 0]
    if len(differing):
        warnings.warn(
            f"float32 decides differently from float64 in {len(differing)} of {len(table)} lanes, the first time at "
            f"{differing['first'].min()}; their values drift apart by up to {table['drift'].max():.1e}",
            stacklevel=2,
        )
    return table


def _paths(reading: Reading, some: np.ndarray, is_double: bool) -> Paths:
    ledgers: list[Ledger] = []
    with jax.enable_x64(is_double):
        job = replace(reading.job(some), keep_log=False)
        for groups in job.layout.batches():
            ledger, faults = ledger_of(job, batch_of(job, groups))
            if faults:
                raise_fault(job, faults[0])
            ledgers.append(ledger)
    return Paths(reading.context(some), ledgers)


def _compared(double: Paths, single: Paths, index: pd.Index) -> pd.DataFrame:
    asked = double.rebalances
    differs = asked != single.rebalances
    apart = np.abs(single.value - double.value) / np.abs(double.value)
    orders = _orders(double)
    first = [index[bars.argmax()] if bars.any() else None for bars in differs.T]
    return pd.DataFrame(
        {
            "decisions": asked.sum(axis=0),
            "differing": differs.sum(axis=0),
            "first": pd.Series(first, dtype=index.dtype if isinstance(index, pd.DatetimeIndex) else object),
            "orders": orders,
            "more_orders": _orders(single) - orders,
            "drift": apart.max(axis=0),
            "end": apart[-1],
        }
    )


def _orders(paths: Paths) -> np.ndarray:
    """Orders filled, [lane]."""
    return paths.total([x.filled.sum(axis=1) for x in paths.ledgers]).astype(int)
