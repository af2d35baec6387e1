"""The cost of a gradient of the Sharpe ratio with respect to weights and threshold: 8,767 bars x 5 coins x 15 lanes.

    python -m benchmarks.gradients [--repeats 9]        beside one vectorbt simulation of the same lanes, in turn
    python -m benchmarks.gradients --memory             peak memory of fresh processes, 8,767 and 525,600 bars

Memory is `ru_maxrss` of a process after one gradient, minus that after `import jaxsim`. Needs the [compare] extra and
the data that `tools.outside_data` finds; the memory runs need neither.
"""

import argparse
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


def compare(repeats: int) -> None:
    from benchmarks.peers import vectorbt_threshold as peer

    open_, close = load_binance()
    market = js.Market.from_frames(close, open=open_)
    leaves = (jnp.full((15, 5), 0.2), jnp.asarray(THRESHOLDS))
    jobs = {
        "vectorbt, no gradient": lambda: peer.run(
            close, open_, thresholds=list(THRESHOLDS), weights=np.full(5, 0.2), fees=FEES
        )
    }
    programs = {
        "value alone": value_alone(js.Hard()),
        "hard, AtEvents()": reverse(js.Hard(), js.AtEvents()),
        "hard, AtEvents(2048)": reverse(js.Hard(), js.AtEvents(2048)),
        "hard, Checkpointed(1)": reverse(js.Hard(), js.Checkpointed(1)),
        "hard, Checkpointed()": reverse(js.Hard(), js.Checkpointed()),
        "hard, forward, Checkpointed(1)": forward(js.Hard(), js.Checkpointed(1)),
        "hard, forward, AtEvents()": forward(js.Hard(), js.AtEvents()),
        "straight-through, Checkpointed(1)": reverse(js.StraightThrough(), js.Checkpointed(1)),
        "straight-through, AtEvents()": reverse(js.StraightThrough(), js.AtEvents()),
        "straight-through, AtEvents(2048)": reverse(js.StraightThrough(), js.AtEvents(2048)),
        "straight-through, forward, Checkpointed": forward(js.StraightThrough(), js.Checkpointed(1)),
        "straight-through, forward, AtEvents": forward(js.StraightThrough(), js.AtEvents()),
    }
    for name, program in programs.items():
        jobs[name] = lambda program=program: jax.block_until_ready(program(leaves, market))
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(repeats + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if repeat:  # the first compiles
                seconds[name].append(time.perf_counter() - start)
    base = seconds["vectorbt, no gradient"]
    print(f"{'median of ' + str(repeats):40}{'ms':>9}{'of vectorbt':>14}{'least ms':>10}")
    for name, values in seconds.items():
        ratio = statistics.median(np.divide(values, base))
        print(f"{name:40}{statistics.median(values) * 1e3:9.1f}{ratio:14.2f}{min(values) * 1e3:10.1f}")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_memory_run(num_bars: int, lanes: int, how: str) -> None:
    """Print the megabytes and the seconds of one gradient in this process."""
    before = peak()
    adjoint = {"checkpointed": js.Checkpointed(), "one chunk": js.Checkpointed(1), "at events": js.AtEvents(16384)}[how]
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
        for how in ("one chunk", "checkpointed", "at events"):
            command = [sys.executable, "-m", "benchmarks.gradients", "--one", str(num_bars), str(lanes), how]
            print(subprocess.run(command, capture_output=True, check=True, text=True).stdout, end="", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
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
            compare(options.repeats)


if __name__ == "__main__":
    main()
