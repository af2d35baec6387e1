"""The cost of a gradient of the Sharpe ratio with respect to weights and threshold: 8,767 bars x 5 coins x 15 lanes.

    python -m benchmarks.gradients [--repeats 9]        beside one vectorbt simulation of the same lanes,
                                                        `js.score`, and the scan one would write by hand, in turn
    python -m benchmarks.gradients --all                with the other adjoints
    python -m benchmarks.gradients --memory             peak memory of fresh processes, 8,767 and 525,600 bars

Memory is `ru_maxrss` of a process after one gradient, minus that after `import jaxsim`. Needs the [compare] extra and
the data that `tools.outside_data` finds; the memory runs need neither.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pandas as pd

import jaxsim as js
from benchmarks.naive_scan import naive_sharpe, naive_values
from tools.outside_data import load_binance

THRESHOLDS = np.arange(1, 16) / 100
FEES = 0.005


class Fixed(eqx.Module):
    weights: Any

    def __call__(self, obs):
        return self.weights


def score(leaves: tuple, market: js.Market, gate: Any, adjoint: Any) -> Any:
    """The Sharpe ratio of one lane. leaves: weights [asset] and threshold."""
    policy = js.Policy(Fixed(leaves[0]), js.Threshold(leaves[1]), gate)
    sim = js.simulate(market, policy, costs=js.Costs(FEES), save=js.Save(units=False), adjoint=adjoint)
    return js.metrics.sharpe_ratio(sim.returns, ann_factor=8760)


def reverse(gate: Any, adjoint: Any) -> Callable:
    one = jax.value_and_grad(lambda leaves, market: score(leaves, market, gate, adjoint))
    return jax.jit(jax.vmap(one, (0, None)))


def forward(gate: Any, adjoint: Any) -> Callable:
    """The gradient in forward mode, with six tangents at once."""

    def one(leaves, market):
        flat, unravel = jax.flatten_util.ravel_pytree(leaves)

        def along(tangent):
            return jax.jvp(lambda x: score(unravel(x), market, gate, adjoint), (flat,), (tangent,))

        return jax.vmap(along, out_axes=(None, 0))(jnp.eye(flat.size))

    return jax.jit(jax.vmap(one, (0, None)))


def value_alone(gate: Any) -> Callable:
    return jax.jit(jax.vmap(lambda x, market: score(x, market, gate, None), (0, None)))


def naive(leaves: tuple, market: js.Market) -> Any:
    value = naive_values(lambda step: leaves[0], leaves[1], market.val_price, market.price, FEES)
    return naive_sharpe(value, 8760)


def scored(leaves: tuple, market: js.Market) -> Any:
    policy = js.Policy(Fixed(leaves[0]), js.Threshold(leaves[1]))
    return js.score(market, policy, ["sharpe_ratio"], ann_factor=8760, costs=js.Costs(FEES))["sharpe_ratio"]


def learned(allocator: Any, market: js.Market, naive_allocate: Callable | None = None) -> Callable:
    """Value and gradient by the numbers of an allocator, at a threshold of 0.05; by the naive scan if it is told how
    that asks for weights."""

    def one(allocator: Any) -> Any:
        if naive_allocate is None:
            policy = js.Policy(allocator, js.Threshold(0.05))
            sim = js.simulate(market, policy, costs=js.Costs(FEES))
            return js.metrics.sharpe_ratio(sim.returns, ann_factor=8760)
        allocate = naive_allocate(allocator, market)
        return naive_sharpe(naive_values(allocate, 0.05, market.val_price, market.price, FEES), 8760)

    return jax.value_and_grad(one)


def softmax_of(logits: Any, market: js.Market) -> Callable:
    return lambda step: jax.nn.softmax(logits)


def mlp_of(parameters: Any, market: js.Market) -> Callable:
    return lambda step: _mlp(parameters, market.features[step])


def _mlp(parameters: Any, features: Any) -> Any:
    first, second = parameters
    return jax.nn.softmax(jnp.tanh(features @ first) @ second)


class Softmax(eqx.Module):
    logits: Any

    def __call__(self, obs):
        return jax.nn.softmax(self.logits)


class Network(eqx.Module):
    """The same small network as `mlp_of`."""

    parameters: Any

    def __call__(self, obs):
        return _mlp(self.parameters, obs.features)


def training_jobs(market: js.Market) -> dict[str, Callable]:
    """Gradients of what is learned, ours and naive."""
    rng = np.random.default_rng(0)
    seen = eqx.tree_at(
        lambda m: m.features, market, jnp.asarray(rng.normal(size=(market.num_bars, 8))), is_leaf=lambda x: x is None
    )
    network = jnp.asarray(rng.normal(size=(8, 16)) / 3), jnp.asarray(rng.normal(size=(16, 5)) / 4)
    logits = jnp.asarray(rng.normal(size=(64, 5)) / 4)
    ours, theirs = jax.jit(learned(None, seen)), jax.jit(learned(None, seen, mlp_of))
    many, many_naive = jax.jit(jax.vmap(learned(None, market))), jax.jit(jax.vmap(learned(None, market, softmax_of)))
    return {
        "MLP x 1": lambda: ours(Network(network)),
        "MLP x 1, naive": lambda: theirs(network),
        "softmax x 64": lambda: many(Softmax(logits)),
        "softmax x 64, naive": lambda: many_naive(logits),
    }


def in_turn(jobs: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Seconds of each job; the jobs take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(repeats + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            jax.block_until_ready(job())
            if repeat:  # the first compiles
                seconds[name].append(time.perf_counter() - start)
    return seconds


#: (what, in multiples of what, aim, most)
AIMS = [
    ("hard, default", "js.score", 3, 6),
    ("hard, default", "naive gradient", 0.3, 0.5),
    ("hard, default", "vectorbt, no gradient", 0.05, 0.1),
    ("straight-through, default", "vectorbt, no gradient", 0.15, 0.3),
    ("MLP x 1", "MLP x 1, naive", 0.15, 0.15),
    ("softmax x 64", "softmax x 64, naive", 0.5, 0.5),
]


def compare(repeats: int, everything: bool) -> None:
    from benchmarks.peers import vectorbt_threshold as peer

    open_, close = load_binance()
    market = js.Market.from_frames(close, open=open_)
    leaves = (jnp.full((15, 5), 0.2), jnp.asarray(THRESHOLDS))
    jobs: dict[str, Callable] = {
        "vectorbt, no gradient": lambda: peer.run(
            close, open_, thresholds=list(THRESHOLDS), weights=np.full(5, 0.2), fees=FEES
        )
    }
    programs = {
        "js.score": jax.jit(jax.vmap(scored, (0, None))),
        "naive gradient": jax.jit(jax.vmap(jax.value_and_grad(naive), (0, None))),
        "value alone": value_alone(js.Hard()),
        "hard, default": reverse(js.Hard(), None),
        "straight-through, default": reverse(js.StraightThrough(), None),
        "hard, forward, Checkpointed(1)": forward(js.Hard(), js.Checkpointed(1)),
    }
    if everything:
        programs |= {
            "hard, AtEvents(2048)": reverse(js.Hard(), js.AtEvents(2048)),
            "hard, Checkpointed(1)": reverse(js.Hard(), js.Checkpointed(1)),
            "hard, Checkpointed()": reverse(js.Hard(), js.Checkpointed()),
            "hard, forward, default": forward(js.Hard(), None),
            "straight-through, Checkpointed(1)": reverse(js.StraightThrough(), js.Checkpointed(1)),
            "straight-through, AtEvents(2048)": reverse(js.StraightThrough(), js.AtEvents(2048)),
            "straight-through, forward, Checkpointed": forward(js.StraightThrough(), js.Checkpointed(1)),
        }
    for name, program in programs.items():
        jobs[name] = lambda program=program: program(leaves, market)
    seconds = in_turn(jobs | training_jobs(market), repeats)
    base = seconds["vectorbt, no gradient"]
    print(f"{'median of ' + str(repeats):40}{'ms':>9}{'of vectorbt':>14}{'least ms':>10}")
    for name, values in seconds.items():
        ratio = statistics.median(np.divide(values, base))
        print(f"{name:40}{statistics.median(values) * 1e3:9.1f}{ratio:14.3f}{min(values) * 1e3:10.1f}")
    print(f"\n{'multiples':28}{'of':26}{'median':>8}{'aim':>7}{'most':>7}")
    for what, of, aim, most in AIMS:
        ratio = statistics.median(np.divide(seconds[what], seconds[of]))
        print(f"{what:28}{of:26}{ratio:8.3f}{aim:7}{most:7}{'' if ratio <= most else '   missed'}")
    print(f"load average: {', '.join(f'{x:.1f}' for x in os.getloadavg())}")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_memory_run(num_bars: int, lanes: int, how: str) -> None:
    """Print the megabytes and the seconds of one gradient in this process."""
    before = peak()
    adjoint = {"checkpointed": js.Checkpointed(), "one chunk": js.Checkpointed(1), "default": None}[how]
    steps = np.random.default_rng(0).normal(0, 0.01 / np.sqrt(60), (num_bars, 5))
    close = 100 * np.exp(np.cumsum(steps, axis=0))
    market = js.Market(close, np.concatenate([close[:1], close[:-1]]), close, close)
    market = jax.tree.map(jnp.asarray, market)
    leaves = (jnp.full((lanes, 5), 0.2), jnp.linspace(0.01, 0.15, lanes))
    start = time.perf_counter()
    value, slopes = jax.block_until_ready(reverse(js.Hard(), adjoint)(leaves, market))
    took = time.perf_counter() - start
    assert np.isfinite(value).all() and all(np.isfinite(x).all() for x in jax.tree.leaves(slopes))
    print(f"{num_bars:9} bars x 5 x {lanes:2} lanes, {how:13} {peak() - before:8.0f} MB {took:7.1f} s with compiling")


def memory() -> None:
    for num_bars, lanes in ((8767, 15), (525_600, 8)):
        for how in ("default", "one chunk", "checkpointed"):
            command = [sys.executable, "-m", "benchmarks.gradients", "--one", str(num_bars), str(lanes), how]
            print(subprocess.run(command, capture_output=True, check=True, text=True).stdout, end="", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with jax.enable_x64(True):
        if options.one:
            one_memory_run(int(options.one[0]), int(options.one[1]), options.one[2])
        elif options.memory:
            memory()
        else:
            print(f"jax {jax.__version__}, numpy {np.__version__}, pandas {pd.__version__}, {jax.devices()}")
            compare(options.repeats, options.all)


if __name__ == "__main__":
    main()
