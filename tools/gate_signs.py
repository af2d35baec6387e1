"""How often a gate's derivative by the threshold has the sign of the slope of the score smoothed over thresholds.

    python -m tools.gate_signs [--bars 2000] [--markets 6]

The Sharpe ratio of equal weights, fees 0.5 %, on Binance's hourly prices of 2020 and on simulated geometric Brownian
motions of the same volatility; thresholds 0.01 to 0.15. The slope is that of the score smoothed by a normal kernel of
0.005, from a fine grid of thresholds. Each market and threshold counts once, unless one
kernel's deviation moves the smoothed score by less than FLAT: there is no sign to be right about.
"""

import argparse
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxsim as js
from benchmarks.gradients import FEES, Fixed, score
from tools.outside_data import load_binance

SCALE = 0.005
FLAT = 1e-4
AT = np.arange(1, 16) / 100
GATES = {
    "Hard()": js.Hard(),
    "StraightThrough(0.001)": js.StraightThrough(0.001),
    "StraightThrough(0.002)": js.StraightThrough(0.002),
    "StraightThrough(0.01)": js.StraightThrough(0.01),
    "StraightThrough(0.002, through_state=True)": js.StraightThrough(0.002, through_state=True),
    "Sigmoid(0.0005)": js.Sigmoid(0.0005),
    "Sigmoid(0.002)": js.Sigmoid(0.002),
    "Sigmoid(0.005)": js.Sigmoid(0.005),
    "Sigmoid(0.01)": js.Sigmoid(0.01),
}


def of_threshold(threshold: Any, market: js.Market, gate: Any) -> Any:
    return score((jnp.full(market.num_assets, 1 / market.num_assets), threshold), market, gate, None)


@jax.jit
def slopes(market: js.Market, gate: Any) -> Any:
    one = jax.grad(partial(of_threshold, market=market, gate=gate))
    return jax.vmap(one)(jnp.asarray(AT))


@jax.jit
def smooth_slopes(market: js.Market) -> Any:
    """Of the smoothed score, by weighing a fine grid four deviations wide; below zero every bar rebalances."""
    grid = jnp.linspace(-0.01, 0.17, 1441)
    scores = jax.vmap(partial(of_threshold, market=market, gate=js.Hard()))(grid)
    z = (grid[None, :] - jnp.asarray(AT)[:, None]) / SCALE
    weight = jnp.exp(-(z**2) / 2)
    weight = weight / weight.sum(1, keepdims=True)
    return ((weight * z) @ scores - (weight * z).sum(1) * (weight @ scores)) / SCALE


@partial(jax.jit, static_argnames="num_samples")
def estimates(market: js.Market, key: Any, num_samples: int) -> Any:
    """By `js.smoothed`, every threshold with noise of its own."""

    def hard(policy):
        sim = js.simulate(market, policy, costs=js.Costs(FEES), save=js.Save(units=False))
        return js.metrics.sharpe_ratio(sim.returns, ann_factor=8760)

    def one(threshold_and_key):
        threshold, key = threshold_and_key
        mean = js.smoothed(hard, key=key, scale=SCALE, num_samples=num_samples)
        policy = js.Policy(Fixed(jnp.full(market.num_assets, 1 / market.num_assets)), js.Threshold(threshold))
        return jax.grad(lambda x: mean(eqx.tree_at(lambda p: p.trigger.threshold, policy, x)))(threshold)

    return jax.lax.map(one, (jnp.asarray(AT), jax.random.split(key, AT.size)))


def markets(bars: int, count: int) -> dict[str, list[js.Market]]:
    open_, close = load_binance()
    starts = np.linspace(0, len(close) - bars, count).astype(int)
    real = [js.Market.from_frames(close.iloc[s : s + bars], open=open_.iloc[s : s + bars]) for s in starts]
    spread = float(np.log(close).diff().std().mean())
    simulated = []
    for seed in range(count):
        steps = np.random.default_rng(seed).normal(0.5 * 0.0001, spread / np.sqrt(2), (2 * bars, 5))
        path = 100 * np.exp(np.cumsum(steps, axis=0))
        simulated.append(js.Market(path[1::2], path[0::2], path[1::2], path[1::2]))
    return {"Binance": real, "simulated": simulated}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=int, default=2000)
    parser.add_argument("--markets", type=int, default=6)
    options = parser.parse_args()
    with jax.enable_x64(True):
        all_markets = markets(options.bars, options.markets)
        all_markets = {kind: [jax.tree.map(jnp.asarray, x) for x in some] for kind, some in all_markets.items()}
        true = {kind: np.concatenate([smooth_slopes(x) for x in some]) for kind, some in all_markets.items()}
        steep = {kind: np.abs(x) * SCALE >= FLAT for kind, x in true.items()}
        print(
            f"{'gate':46}"
            + "".join(f"{kind:>12}" for kind in (*all_markets, "both"))
            + f"{'median |d| / |slope|':>24}",
            flush=True,
        )
        runs = {name: lambda market, _, gate=gate: slopes(market, gate) for name, gate in GATES.items()}
        for count in (32, 128):
            runs[f"smoothed, {count} samples"] = partial(estimates, num_samples=count)
        for name, run in runs.items():
            got = {
                kind: np.concatenate([run(x, jax.random.key(i)) for i, x in enumerate(some)])
                for kind, some in all_markets.items()
            }
            right = [(np.sign(got[kind]) == np.sign(true[kind]))[steep[kind]] for kind in all_markets]
            shares = [float(x.mean()) for x in (*right, np.concatenate(right))]
            sizes = np.concatenate([np.abs(got[kind] / true[kind])[steep[kind]] for kind in all_markets])
            print(f"{name:46}" + "".join(f"{x:12.0%}" for x in shares) + f"{np.median(sizes):24.2f}", flush=True)
        counts = [int(x.sum()) for x in steep.values()]
        print(f"{'of':46}" + "".join(f"{x:12}" for x in (*counts, sum(counts))))


if __name__ == "__main__":
    main()
