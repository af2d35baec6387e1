"""What `js.fit` learns by its defaults beside what it learned with purchases cut from the last one on.

    python -m benchmarks.fit_defaults [--problems PROBLEM ...]

The problems of three notebooks, each fitted with `cut="last", adjoint=js.Checkpointed()` and with the defaults. Prints
the scores of the fitted policies: in the fit itself, and in a backtest of the policy that was fitted, with its own cut,
on the bars that were learned from and on later ones.
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

import allocators as al
import jaxsim as js

FOUR = ["AAPL", "GOOG", "IBM", "MSFT"]
#: Of a fit, of a backtest on the bars learned from, of one on later bars.
Scores = dict[str, float]
#: What goes to `js.fit`, by the name of the way.
WAYS = {"last": {"adjoint": js.Checkpointed()}, "defaults": {}}


def stocks() -> tuple[pd.DataFrame, pd.DataFrame]:
    data = js.datasets.stocks()
    return data.open.loc["2005":, FOUR], data.close.loc["2005":, FOUR]


def with_cut(policy: js.Policy, way: str) -> js.Policy:
    return replace(policy, cut="last") if way == "last" else policy


def parts(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[0].name, params)


def sharpe_ratio(policy: js.Policy, bars: Any, fees: float, **terms: Any) -> float:
    open_, close = (frame.iloc[bars] for frame in stocks())
    return js.backtest(close, policy, open=open_, fees=fees, freq="1D", year_freq="252D", **terms).sharpe_ratio()


def weights_and_threshold(way: str) -> Scores:
    """Softmax weights and a threshold, on three years, traded in the next: the mean of five folds."""
    open_, close = stocks()
    start = js.Policy(al.SoftmaxWeights(4), js.Threshold(0.05), gate=js.StraightThrough(0.01))
    optimizer = optax.multi_transform({"allocator": optax.adam(0.1), "trigger": optax.adam(0.005)}, parts)
    rows = []
    for begin in range(0, len(close) - 756 - 252 + 1, 252):
        seen, later = slice(begin, begin + 756), slice(begin + 756, begin + 1008)
        with jax.enable_x64(True):
            market = js.Market.from_frames(close.iloc[seen], open=open_.iloc[seen])
        fitted = js.fit(
            with_cut(start, way), market, costs=js.Costs(fees=0.005), ann_factor=252, optimizer=optimizer,
            steps=60, restarts=3, jitter=0.5, **WAYS[way],
        )  # fmt: skip
        rows.append([fitted.score, sharpe_ratio(fitted.policy, seen, 0.005), sharpe_ratio(fitted.policy, later, 0.005)])
    return dict(zip(("fit", "learned from", "later"), np.mean(rows, axis=0), strict=True))


def network(way: str) -> Scores:
    """Weights by a network from momentum, reversal and risk, monthly, on 2005 to 2009."""
    open_, close = stocks()
    f, monthly = js.features, js.EveryBars(21)
    features = f.stack(
        momentum=f.cross_zscore(f.momentum(close, 120, skip=5)),
        reversal=f.cross_zscore(f.returns(close, 10)),
        risk=f.cross_zscore(f.volatility(close, 60)),
    )
    end = int((close.index.year < 2010).sum())
    seen, later = slice(0, end), slice(end, None)
    with jax.enable_x64(True):
        market = js.Market.from_frames(close.iloc[seen], open=open_.iloc[seen], features=features.iloc[seen])

    def policy(key: Any) -> js.Policy:
        return with_cut(js.Policy(al.MLP(3, width=8, key=key), monthly, min_history=126), way)

    fitted = js.fit(
        policy(0), market, costs=js.Costs(fees=0.001), ann_factor=252, trainable=lambda p: p.allocator,
        optimizer=optax.adam(0.01), steps=60, every=5, validation=0.2, restarts=4, init=policy, key=1, **WAYS[way],
    )  # fmt: skip
    scores = {"fit": fitted.score}
    for name, bars, learned in (
        ("learned from", seen, fitted.policy),
        ("later", later, replace(fitted.policy, min_history=0)),
    ):
        scores[name] = sharpe_ratio(learned, bars, 0.001, features=features.iloc[bars])
    return scores


class Half(eqx.Module):
    """Half of each."""

    weights: np.ndarray = eqx.field(default_factory=lambda: np.array([0.5, 0.5]))

    def __call__(self, obs: Any) -> Any:
        return self.weights


def band(way: str, fee: float = 0.005) -> Scores:
    """Half the width of a no-trade band on 64 random walks; growth per bar in millionths, on them and on 64 others."""
    volatility, bars, paths = 0.012, 8000, 64
    mean = np.expm1(0.5 * volatility**2)
    square = np.expm1(volatility**2) * (1 + mean) ** 2 + mean**2
    rng = np.random.default_rng(0)

    def walks() -> js.Market:
        risky = 100 * np.exp(rng.normal(0, volatility, (paths, bars)).cumsum(axis=1))
        with jax.enable_x64(True):
            close = jnp.stack([jnp.asarray(risky), jnp.full(risky.shape, 100.0)], axis=2)
            return js.Market(close, close, close, close)

    def growth(sim: Any) -> Any:
        price = (sim.value - sim.cash - sim.units[:, 1] * 100.0) / sim.units[:, 0]
        exposure = sim.units[:-1, 0] * price[:-1] / sim.value[:-1]
        moves = price[1:] / price[:-1] - 1
        chance = exposure * (moves - mean) - exposure**2 * (moves**2 - square) / 2
        return jnp.sum((jnp.log1p(sim.returns[1:]) - chance)[2000:])

    costs = js.Costs(fees=np.array([fee, 0.0]))
    seen, later = walks(), walks()
    start = with_cut(js.Policy(Half(), js.Threshold(0.08), destination=js.ToEdge()), way)
    fitted = js.fit(
        start, seen, costs=costs, score=growth, trainable=lambda p: p.trigger.threshold,
        optimizer=optax.adam(optax.exponential_decay(0.01, 1, 0.95)), batch=js.PathBatch(16), steps=60, **WAYS[way],
    )  # fmt: skip
    per_bar = 1e6 / (bars - 2001)
    with jax.enable_x64(True):
        mean_growth = jax.jit(jax.vmap(lambda path: growth(js.simulate(path, fitted.policy, costs=costs))))
        scores = [float(mean_growth(market).mean()) * per_bar for market in (seen, later)]
    return {"fit": fitted.score * per_bar, "learned from": scores[0], "later": scores[1]}


PROBLEMS: dict[str, Callable[[str], Scores]] = {
    "learn-weights-and-threshold": weights_and_threshold,
    "neural-allocator": network,
    "no-trade-band": band,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    warnings.simplefilter("ignore")
    for name in parser.parse_args().problems:
        table = pd.DataFrame({way: PROBLEMS[name](way) for way in WAYS}).T
        print(f"{name}\n{table.round(4).to_string()}", flush=True)


if __name__ == "__main__":
    main()
