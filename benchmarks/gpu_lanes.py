"""Throughput by the number of lanes on the device that JAX has, in float32 and float64; run it on a CPU and on a GPU to
find from how many lanes on the one is ahead of the other.

    python -m benchmarks.gpu_lanes [--lanes 1000 10000 100000 1000000] [--repeats 5] [--bars 8760] [--chunk 0]
    JAX_PLATFORMS=cpu python -m benchmarks.gpu_lanes --chunk 256

Prints lane-asset-bars per second, the best of the repetitions, and the compile time. Scores are streamed: no paths are
kept. All lanes are simulated at once unless --chunk says how many.
"""

import argparse
import time

import equinox as eqx
import jax
import numpy as np

import allocators as al
import jaxsim as js
from benchmarks.against_fused import prices
from jaxsim.engine.lanes import LaneAxis, Run
from jaxsim.engine.stream import stream_in_chunks

NUM_ASSETS = 5


def job(num_lanes: int, num_bars: int, dtype: type, seed: int) -> tuple[Run, tuple[LaneAxis, ...]]:
    open_, close = (x.astype(dtype) for x in prices(np.random.default_rng(seed), num_bars, NUM_ASSETS))
    policy = js.Policy(al.EqualWeight(), js.Threshold(np.linspace(0.01, 0.15, num_lanes, dtype=dtype)))
    costs, account = js.Costs(np.asarray(0.005, dtype)), js.Account(np.asarray(100, dtype))
    run = Run(js.Market(close, open_, close, close), policy, costs, account, jax.random.key(0))
    nowhere = jax.tree.map(lambda x: None, run)
    in_axes = eqx.tree_at(lambda r: r.policy.trigger.threshold, nowhere, 0, is_leaf=lambda x: x is None)
    return run, (LaneAxis("lane", num_lanes, in_axes),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bars", type=int, default=8760)
    parser.add_argument("--chunk", type=int, default=0, help="lanes at a time; 0: all")
    options = parser.parse_args()
    print(f"jax {jax.__version__}, devices {jax.devices()}")
    print(f"{'dtype':10}{'lanes':>10}{'first, s':>10}{'best, s':>10}{'lane-asset-bars / s':>22}")
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            for lanes in options.lanes:
                seconds = []
                for repeat in range(options.repeats + 1):
                    run, axes = job(lanes, options.bars, dtype, repeat)
                    start = time.perf_counter()
                    tally = stream_in_chunks(run, axes, ("sharpe_ratio",), options.chunk or lanes)
                    seconds.append(time.perf_counter() - start)
                assert tally.bars.dtype == dtype
                rate = lanes * NUM_ASSETS * options.bars / min(seconds[1:])
                print(
                    f"{dtype.__name__:10}{lanes:10,}{seconds[0]:10.2f}{min(seconds[1:]):10.3f}{rate:22.3e}", flush=True
                )


if __name__ == "__main__":
    main()
