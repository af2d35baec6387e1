"""Throughput by the number of lanes on the device of JAX, in float32 and float64. Run it on a CPU and on a GPU to find
the number of lanes from which the GPU is faster.

    python -m benchmarks.gpu_lanes [--lanes 1000 10000 100000 1000000] [--repeats 5] [--bars 8760] [--chunk 0]
    JAX_PLATFORMS=cpu python -m benchmarks.gpu_lanes --chunk 256

Prints lane-asset-bars per second, the best of the repetitions, and the compile time. Metrics come from running sums: no
paths are kept. All lanes run at once, or --chunk lanes at a time.
"""

import argparse
import time

import jax
import numpy as np

import allocators as al
import jaxsim as js
from benchmarks.against_fused import prices

NUM_ASSETS = 5


def score(open_: jax.Array, close: jax.Array, limit: jax.Array) -> jax.Array:
    market, policy = js.Market(close, open_, close, close), js.Policy(al.EqualWeight(), js.Threshold(limit))
    costs, account = js.Costs(close.dtype.type(0.005)), js.Account(close.dtype.type(100))
    return js.score(market, policy, ["sharpe_ratio"], costs=costs, account=account, ann_factor=8760)["sharpe_ratio"]


score_many = jax.jit(jax.vmap(score, (None, None, 0)))


def ours(open_: np.ndarray, close: np.ndarray, limits: np.ndarray, chunk: int) -> np.ndarray:
    chunks = [limits[at : at + chunk] for at in range(0, len(limits), chunk)]
    return np.concatenate([np.asarray(score_many(open_, close, chunk)) for chunk in chunks])


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
                    rng, limits = np.random.default_rng(repeat), np.linspace(0.01, 0.15, lanes, dtype=dtype)
                    open_, close = (x.astype(dtype) for x in prices(rng, options.bars, NUM_ASSETS))
                    start = time.perf_counter()
                    result = ours(open_, close, limits, options.chunk or lanes)
                    seconds.append(time.perf_counter() - start)
                assert result.dtype == dtype
                rate = lanes * NUM_ASSETS * options.bars / min(seconds[1:])
                print(
                    f"{dtype.__name__:10}{lanes:10,}{seconds[0]:10.2f}{min(seconds[1:]):10.3f}{rate:22.3e}", flush=True
                )


if __name__ == "__main__":
    main()
