"""A run of many lanes on other processes: each is sent some combinations, simulates them, and sends its ledgers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.frames.broadcast import Leaf, settle
from jaxsim.frames.engines import Job, run_compiled
from jaxsim.frames.ledger import Ledger
from jaxsim.frames.workers import run_everywhere, shares


@dataclass(frozen=True, eq=False)
class _Whole:
    """A job as it can be sent.

    job: without keys.     key_data, key_impl: what they are made of, since typed keys cannot be sent.
    """

    job: Job
    key_data: np.ndarray
    key_impl: str


def run_elsewhere(job: Job, advance: Callable[[int], object], engine: Any) -> list[Ledger]:
    """Consecutive combinations on each worker of `engine` (see `workers`), as compiled programs."""
    key_data, impl = np.asarray(jax.random.key_data(job.keys)), str(jax.random.key_impl(job.keys))
    settled = jax.tree.map(settle, _terms(job), is_leaf=lambda x: isinstance(x, Leaf))
    whole = _Whole(replace(job, keys=None, **settled), key_data, impl)
    parts = shares(job.num_combinations, engine)
    done: dict[int, list[Ledger]] = {}
    for at, ledgers in run_everywhere(_work, whole, parts, engine):
        done[at] = ledgers
        advance(len(parts[at]) * job.layout.num_groups)
    return [ledger for at in range(len(parts)) for ledger in done[at]]


def _terms(job: Job) -> dict[str, Any]:
    """What has leaves."""
    return {name: getattr(job, name) for name in ("quotes", "policy", "costs", "account")}


def _work(whole: _Whole, combinations: np.ndarray) -> list[Ledger]:
    """What a worker does."""

    def some(leaf: Leaf) -> Leaf:
        return replace(leaf, array=leaf.array[combinations]) if leaf.by_combination else leaf

    job = whole.job
    lanes = (combinations[:, None] * job.layout.num_groups + np.arange(job.layout.num_groups)).ravel()
    key_data = whole.key_data if len(whole.key_data) == 1 else whole.key_data[lanes]
    here = replace(
        job,
        num_combinations=len(combinations),
        keys=jax.random.wrap_key_data(jnp.asarray(key_data), impl=whole.key_impl),
        name_lane=lambda lane: job.name_lane(int(lanes[lane])),
        **jax.tree.map(some, _terms(job), is_leaf=lambda x: isinstance(x, Leaf)),
    )
    return [replace(x, lanes=lanes[x.lanes]) for x in run_compiled(here)]
