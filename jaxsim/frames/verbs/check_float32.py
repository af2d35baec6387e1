"""`check_float32`: whether single precision decides as double precision does."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Unpack

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import whole_number
from jaxsim.engine.policy.host_callback import take_out
from jaxsim.engine.policy.policy import Policy
from jaxsim.frames.inputs.prices import Table
from jaxsim.frames.results.ledger import Ledger
from jaxsim.frames.results.paths import Paths
from jaxsim.frames.runs.arguments import RunArguments, read_arguments
from jaxsim.frames.runs.compiled import batch_of, ledger_of
from jaxsim.frames.runs.faults import raise_fault
from jaxsim.frames.runs.terms import TermsKeywords, terms_of


def check_float32(
    close: Table, policy: Policy | Callable | None = None, *, sample: int = 16, **terms: Unpack[TermsKeywords]
) -> pd.DataFrame:
    """Run some lanes in float32 and in float64 and compare them; warn where they decide differently.

    `js.backtest` and all other functions of DataFrames compute in float64. `js.simulate` computes in the dtype of its
    market, which is float32 by default. This check says whether that matters.

    close, policy, terms: as in `js.backtest`.       sample: combinations of parameters, evenly spaced, >= 1.

    Returns a DataFrame, one row per lane: `decisions`, bars on which the allocator was asked in float64; `differing`,
    bars on which it was asked in one and not in the other; `first`, the time of the first of them, NaT or None if there
    is none; `orders`, filled in float64, and `more_orders`, how many more in float32, where amounts that should cancel
    do not; `drift`, the largest relative difference of the values; `end`, that of the last value.
    Raises as `js.backtest`, and ValueError for a policy that calls Python functions, which compute in float64.
    """
    sample = whole_number(sample, "sample")
    arguments = read_arguments(close, policy, terms_of(terms))
    if take_out(arguments.job.policy)[1]:
        raise ValueError("policy: it calls Python functions, which compute in float64 in any case")
    count = arguments.job.num_combinations
    combinations = np.unique(np.linspace(0, count - 1, min(sample, count)).round().astype(int))
    arguments = arguments.take(combinations)
    double, single = (_paths(arguments, is_double) for is_double in (True, False))
    table = _compared(double, single, arguments.prices.index)
    lanes = arguments.job.lanes.labels
    table.index = pd.RangeIndex(1) if lanes is None else lanes
    differing = table[table["differing"] > 0]
    if len(differing):
        warnings.warn(
            f"float32 decides differently from float64 in {len(differing)} of {len(table)} lanes, the first time at "
            f"{differing['first'].min()}; their values drift apart by up to {table['drift'].max():.1e}",
            stacklevel=2,
        )
    return table


def _paths(arguments: RunArguments, is_double: bool) -> Paths:
    ledgers: list[Ledger] = []
    with jax.enable_x64(is_double):
        job = replace(arguments.job, keep_log=False)
        for groups in job.layout.batches():
            ledger, faults = ledger_of(job, batch_of(job, groups))
            if faults:
                raise_fault(job, faults[0])
            ledgers.append(ledger)
    return Paths(arguments.context(), ledgers)


def _compared(double: Paths, single: Paths, index: pd.Index) -> pd.DataFrame:
    asked = double.rebalances
    differs = asked != single.rebalances
    drift = np.abs(single.value - double.value) / np.abs(double.value)
    orders = _orders(double)
    first = [index[bars.argmax()] if bars.any() else None for bars in differs.T]
    return pd.DataFrame(
        {
            "decisions": asked.sum(axis=0),
            "differing": differs.sum(axis=0),
            "first": pd.Series(first, dtype=index.dtype if isinstance(index, pd.DatetimeIndex) else object),
            "orders": orders,
            "more_orders": _orders(single) - orders,
            "drift": drift.max(axis=0),
            "end": drift[-1],
        }
    )


def _orders(paths: Paths) -> np.ndarray:
    """Orders filled, [lane]."""
    return paths.total([x.filled.sum(axis=1) for x in paths.ledgers]).astype(int)
