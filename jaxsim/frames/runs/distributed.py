"""A run of many lanes on other processes: each is sent some combinations, simulates them, and sends its ledgers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxsim.frames.inputs.parameters import LaneParameter, resolve
from jaxsim.frames.results.ledger import Ledger
from jaxsim.frames.runs.execute import Job, run_compiled
from jaxsim.frames.system.workers import run_everywhere, shares


def run_elsewhere(job: Job, advance: Callable[[int], object], engine: Any) -> list[Ledger]:
    """Consecutive combinations on each worker of `engine` (see `workers`), as compiled programs."""
    settled = jax.tree.map(resolve, _terms(job), is_leaf=lambda x: isinstance(x, LaneParameter))
    whole = replace(job, **settled)
    parts = shares(job.num_combinations, engine)
    done: dict[int, list[Ledger]] = {}
    for at, ledgers in run_everywhere(_work, whole, parts, engine):
        done[at] = ledgers
        advance(len(parts[at]) * job.layout.num_groups)
    return [ledger for at in range(len(parts)) for ledger in done[at]]


def _terms(job: Job) -> dict[str, Any]:
    """What has leaves."""
    return {name: getattr(job, name) for name in ("quotes", "policy", "costs", "account")}


def _work(job: Job, combinations: np.ndarray) -> list[Ledger]:
    """What a worker does."""

    def some(leaf: LaneParameter) -> LaneParameter:
        return replace(leaf, array=leaf.array[combinations]) if leaf.by_combination else leaf

    lanes = (combinations[:, None] * job.layout.num_groups + np.arange(job.layout.num_groups)).ravel()
    here = replace(
        job,
        num_combinations=len(combinations),
        keys=job.keys.take(lanes),
        name_lane=lambda lane: job.name_lane(int(lanes[lane])),
        **jax.tree.map(some, _terms(job), is_leaf=lambda x: isinstance(x, LaneParameter)),
    )
    return [replace(x, lanes=lanes[x.lanes]) for x in run_compiled(here)]
