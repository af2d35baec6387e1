"""The jobs that `benchmarks.before_after` times. It starts this file as a process of its own for each checkout.

    python -P before_after_jobs.py serve          answers each line of JSON, {"case", "seed"}, by {"seconds", "figures"}
    python -P before_after_jobs.py first CASE     one first call in this process, with $PROGRAMS as folder of programs

`jaxsim` is the package that $PYTHONPATH points to. The script runs with checkouts of other ages, so it uses only names
that all of them have.
"""

import functools
import gc
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import allocators as al
import jaxsim as js

FEES = 0.005
#: A job returns what it computed; two checkouts must agree on it.
Job = Callable[[], Any]


def prices(seed: int, bars: int, assets: int, freq: str, volatility: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Open and close of random walks; each open is close to the last close."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(rng.normal(0, volatility, (bars, assets)).cumsum(axis=0))
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(rng.normal(0, volatility / 20, (bars, assets)))
    index = pd.date_range("2020-01-01", periods=bars, freq=freq)
    columns = list("ABCDEFGH"[:assets])
    return pd.DataFrame(open_, index, columns), pd.DataFrame(close, index, columns)


def thresholds(count: int) -> pd.Index:
    return pd.Index(np.linspace(0.01, 0.15, count), name="threshold")


def values_and_orders(bt: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    return bt.value, bt.orders


def figures(result: Any) -> list[float]:
    """A few numbers that say whether two results are the same."""
    numbers: list[float] = []
    for part in jax.tree.leaves(result):
        if isinstance(part, pd.DataFrame):
            numbers += [len(part), float(np.nansum(part.select_dtypes("number").to_numpy(float)))]
        else:
            numbers.append(float(np.asarray(part).sum()))
    return numbers


# --- warm calls on a year of hours


def backtest(open_: pd.DataFrame, close: pd.DataFrame, count: int) -> Job:
    trigger = js.Threshold(thresholds(count))
    return lambda: values_and_orders(
        js.backtest(close, al.EqualWeight(), open=open_, trigger=trigger, fees=FEES, freq="1h")
    )


def sweep(open_: pd.DataFrame, close: pd.DataFrame, count: int) -> Job:
    options = dict(open=open_, trigger=js.Threshold(thresholds(count)), fees=FEES, freq="1h")
    return lambda: (js.sweep(close, al.EqualWeight(), metrics=["sharpe_ratio"], **options),)


def replay(open_: pd.DataFrame, close: pd.DataFrame, count: int) -> Job:
    """The targets are recorded before the clock runs."""
    trigger = js.Threshold(thresholds(count))
    recorded = js.backtest(close, al.EqualWeight(), open=open_, trigger=trigger, fees=FEES, freq="1h").allocations
    return lambda: values_and_orders(js.replay(recorded, close, open=open_, fees=FEES, freq="1h"))


class Fixed(eqx.Module):
    weights: Any

    def __call__(self, obs: Any) -> Any:
        return self.weights


@functools.cache
def gradient_program(adjoint: str) -> Callable:
    """Sharpe ratios of lanes and their gradients by weights and threshold. Compiled once in a process."""

    def score(leaves: tuple, market: Any) -> Any:
        policy = js.Policy(Fixed(leaves[0]), js.Threshold(leaves[1]))
        how = dict(save=js.Save(units=False), adjoint=getattr(js, adjoint)())
        if "lane_axis" in inspect.signature(js.simulate).parameters:
            how["lane_axis"] = "lane"
        sim = js.simulate(market, policy, costs=js.Costs(FEES), **how)
        return js.metrics.sharpe_ratio(sim.returns, ann_factor=8760)

    return jax.jit(jax.vmap(jax.value_and_grad(score), (0, None), axis_name="lane"))


def gradient(open_: pd.DataFrame, close: pd.DataFrame, count: int, adjoint: str) -> Job:
    with jax.enable_x64(True):
        market = js.Market.from_frames(close, open=open_)
        leaves = jnp.full((count, 5), 0.2), jnp.asarray(thresholds(count).to_numpy())

    def job() -> Any:
        with jax.enable_x64(True):
            return jax.block_until_ready(gradient_program(adjoint)(leaves, market))

    return job


WARM = {
    "backtest K=15": functools.partial(backtest, count=15),
    "sweep K=15": functools.partial(sweep, count=15),
    "sweep K=100": functools.partial(sweep, count=100),
    "sweep K=1000": functools.partial(sweep, count=1000),
    "replay K=15": functools.partial(replay, count=15),
    "gradient Checkpointed": functools.partial(gradient, count=15, adjoint="Checkpointed"),
    "gradient AtEvents": functools.partial(gradient, count=15, adjoint="AtEvents"),
}


def timed(job: Job) -> tuple[float, Any]:
    start = time.perf_counter()
    result = job()
    return time.perf_counter() - start, result


def serve() -> None:
    """Time a case on prices of a seed, right after an untimed call on other prices, which warms the caches."""
    market_of = functools.partial(prices, bars=8767, assets=5, freq="h", volatility=0.008)
    for line in sys.stdin:
        request = json.loads(line)
        make = WARM[request["case"]]
        other, job = (make(*market_of(seed)) for seed in (request["seed"] + 1_000_000, request["seed"]))
        gc.collect()
        other()
        seconds, result = timed(job)
        print(json.dumps({"seconds": seconds, "figures": figures(result)}), flush=True)


# --- first calls on a few assets


def first_gradient(allocator: Any, open_: pd.DataFrame, close: pd.DataFrame, features: Any = None) -> Any:
    """Value and gradient of a Sharpe ratio by all that a policy has."""

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(policy: Any, market: Any) -> Any:
        sim = js.simulate(market, policy, costs=js.Costs(0.001))
        return -js.metrics.sharpe_ratio(sim.returns, ann_factor=252)

    with jax.enable_x64(True):
        market = js.Market.from_frames(close, open=open_, features=features)
        return jax.block_until_ready(loss(js.Policy(allocator, js.Threshold(0.05)), market))


def first_backtest(open_: pd.DataFrame, close: pd.DataFrame) -> Any:
    options = dict(open=open_, trigger=js.Threshold(0.05), fees=0.001, freq="1D")
    return values_and_orders(js.backtest(close, al.EqualWeight(), **options))


def first_sweep(open_: pd.DataFrame, close: pd.DataFrame) -> Any:
    options = dict(open=open_, trigger=js.Threshold(thresholds(15)), fees=0.001, freq="1D")
    return (js.sweep(close, al.EqualWeight(), metrics=["sharpe_ratio"], **options),)


def first_softmax(open_: pd.DataFrame, close: pd.DataFrame) -> Any:
    return first_gradient(al.SoftmaxWeights(close.shape[1]), open_, close)


def first_mlp(open_: pd.DataFrame, close: pd.DataFrame) -> Any:
    features = np.random.default_rng(1).normal(size=(*close.shape, 2))
    return first_gradient(al.MLP(2), open_, close, features)


def first_fit(open_: pd.DataFrame, close: pd.DataFrame) -> Any:
    features = np.random.default_rng(1).normal(size=(*close.shape, 2))
    with jax.enable_x64(True):
        market = js.Market.from_frames(close, open=open_, features=features)
        policy = js.Policy(al.Attention(2), js.Threshold(0.05))
        fitted = js.fit(policy, market, costs=js.Costs(0.001), ann_factor=252, steps=3)
    return (fitted.history.iloc[:, :2],)


FIRST = {
    "backtest": first_backtest,
    "sweep": first_sweep,
    "value_and_grad softmax": first_softmax,
    "value_and_grad MLP": first_mlp,
    "fit attention": first_fit,
}


def first(case: str) -> None:
    """The clock runs from after the imports to the result."""
    market = prices(0, 500, 3, "D", 0.02)
    start = time.perf_counter()
    if os.environ.get("PROGRAMS"):
        js.cache_programs(os.environ["PROGRAMS"])
    result = FIRST[case](*market)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "figures": figures(result)}))


if __name__ == "__main__":
    expected = Path(os.environ["PYTHONPATH"])
    assert Path(js.__file__).is_relative_to(expected), f"{js.__file__} is not in {expected}"
    if sys.argv[1] == "serve":
        serve()
    else:
        first(sys.argv[2])
