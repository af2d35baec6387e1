"""A run on other processes. Each worker is sent some combinations, simulates them, and sends back its ledgers."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from jaxsim.frames.results.ledger import Ledger
from jaxsim.frames.runs.compiled import run_compiled
from jaxsim.frames.runs.job import Job
from jaxsim.frames.runs.terms import Engine
from jaxsim.frames.system.workers import run_everywhere, shares


def run_elsewhere(job: Job, advance: Callable[[int], object], engine: Engine) -> list[Ledger]:
    """Consecutive combinations on each worker of `engine` (see `workers`), as compiled programs."""
    parts = shares(job.num_combinations, engine)
    ledgers: dict[int, list[Ledger]] = {}
    for number, ledgers_of_part in run_everywhere(_work, job, parts, engine):
        ledgers[number] = ledgers_of_part
        advance(len(parts[number]) * job.layout.num_groups)
    return [ledger for number in range(len(parts)) for ledger in ledgers[number]]


def _work(job: Job, combinations: np.ndarray) -> list[Ledger]:
    """The ledgers of some combinations, with the lane numbers of the whole job."""
    groups = job.layout.num_groups
    lanes = (combinations[:, None] * groups + np.arange(groups)).ravel()
    ledgers = run_compiled(job.take(combinations), lambda count: None)
    return [replace(ledger, lanes=lanes[ledger.lanes]) for ledger in ledgers]
