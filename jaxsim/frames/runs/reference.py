"""The reference engine: one lane after the other, in plain NumPy."""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from jaxsim.engine.trading.status import LaneFault
from jaxsim.errors import AllocatorError, OrderError
from jaxsim.frames.results.ledger import Ledger, ledger_from_runs
from jaxsim.frames.runs.faults import Fault, raise_failure, raise_fault
from jaxsim.frames.runs.job import Job, SingleLane
from jaxsim.frames.runs.opening import opening_of
from jaxsim.reference import run_lane


def run_reference(job: Job, advance: Callable[[int], object]) -> list[Ledger]:
    """One ledger for each group size. Raises the first thing that goes wrong.

    advance: is told how many lanes have been simulated.
    """
    with jax.enable_x64(True):
        runs = []
        for lane in job.each_lane():
            runs.append(_run(job, lane))
            advance(1)
    ledgers = []
    for groups in job.layout.batches():
        lanes = job.lanes.of(groups).ravel()
        columns = np.tile(job.layout.columns_of(groups), (job.num_combinations, 1))
        ledger = ledger_from_runs(
            [runs[lane] for lane in lanes],
            lanes,
            columns,
            keep_log=job.keep_log,
            are_orders=job.policy.size_type is not None,
        )
        ledgers.append(job.with_val_prices(replace(ledger, opening=opening_of(job, groups))))
    return ledgers


def _run(job: Job, lane: SingleLane):
    """A lane from its first bar to its last. Raises what goes wrong with its labels."""
    try:
        run = run_lane(lane.market, lane.policy, lane.costs, lane.account, lane.key)
    except OrderError as error:
        assert error.bar is not None and error.asset is not None
        column = int(lane.columns[error.asset])
        place = job.place(lane.number, column, error.bar)
        raise type(error)(f"{error} ({place})", error.bar, column) from error
    except AllocatorError as error:
        assert error.bar is not None
        raise_failure(job, lane.number, error.bar, error)
    if run.fault[0] != LaneFault.NONE:
        kind, bar, asset = run.fault
        raise_fault(job, Fault(lane.number, int(lane.columns[asset]), kind, bar))
    return run
