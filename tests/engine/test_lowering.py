"""Programs lower for accelerators on a machine that has none, and marks that only CPUs understand stay out of them."""

from functools import cache

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import allocators as al
import jaxsim as js

MARK = "xla_cpu_small_call"
THRESHOLDS = np.linspace(0.02, 0.1, 4, dtype=np.float32)
CLOSE = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.02, (12, 2)), axis=0)).astype(np.float32)


def simulated(weights, threshold, adjoint=None, schedule=None, gate=None):
    market = js.Market(*[jnp.asarray(CLOSE)] * 4)
    policy = js.Policy(al.FixedWeights(weights), js.Threshold(threshold), gate or js.Hard())
    how = dict(adjoint=adjoint, schedule=schedule, save=js.Save(units=False))
    return js.simulate(market, policy, costs=js.Costs(0.002), **how).value


def slope(weights, threshold, adjoint, gate=None):
    return jax.grad(lambda weights: simulated(weights, threshold, adjoint, gate=gate)[-1])(weights)


def scores(thresholds):
    market = js.Market(*[jnp.asarray(CLOSE)] * 4)

    def one(threshold):
        policy = js.Policy(al.EqualWeight(), js.Threshold(threshold))
        return js.score(market, policy, ["total_return", "turnover"], costs=js.Costs(0.002))

    return jax.vmap(one)(thresholds)


#: By name, the program of weights and thresholds, and whether a CPU runs its loop as one kernel.
PROGRAMS = {
    "simulate": (lambda w, x: simulated(w, x[0]), False),
    "simulate, next event": (lambda w, x: simulated(w, x[0], schedule=js.NextEvent()), True),
    "gradient, checkpointed": (lambda w, x: slope(w, x[0], js.Checkpointed()), False),
    "gradient, at events": (lambda w, x: slope(w, x[0], js.AtEvents(capacity=8), js.StraightThrough(0.01)), False),
    "score": (lambda w, x: scores(x), True),
}


@cache
def lowered(name):
    """The text of a program by platform; it is traced once."""
    traced = jax.jit(PROGRAMS[name][0]).trace(np.float32([0.5, 0.5]), THRESHOLDS)
    return {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda", "tpu")}


@pytest.mark.parametrize("name", PROGRAMS)
def test_marks_for_cpus_are_lowered_for_cpus_alone(name):
    text, is_marked = lowered(name), PROGRAMS[name][1]
    assert (MARK in text["cpu"]) == is_marked
    assert MARK not in text["cuda"] and MARK not in text["tpu"]


def test_a_program_is_exported_for_another_platform():
    exported = jax.export.export(jax.jit(PROGRAMS["score"][0]), platforms=["cuda", "tpu"])
    program = exported(np.float32([0.5, 0.5]), THRESHOLDS)
    assert program.platforms == ("cuda", "tpu") and MARK not in program.mlir_module()
