"""The cost of a fit beside searches without derivatives.

    python -m benchmarks.learning [--repeats 3]

Weights and threshold on the embedded stocks, 100 steps from a cold start in a fresh process; the same by Nelder-Mead
(SciPy) and by finite differences on vectorbt's `from_order_func`. Needs the [compare] and [peers] extras.
"""

import argparse
import resource
import subprocess
import sys
import time
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax

import allocators as al
import jaxsim as js

FEES, START = 0.005, np.array([0.0, 0.0, 0.0, 0.0, 0.05])
RATES = np.array([0.1, 0.1, 0.1, 0.1, 0.005])


def stocks():
    """Open and close of the embedded stocks that have prices since 2005."""
    data = js.datasets.stocks()
    return (frame.loc["2005":].drop(columns="FB") for frame in (data.open, data.close))


def parts(params):
    """For each trained leaf the part of the policy that it belongs to."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[0].name, params)


@cache
def optimizer_of_parts():
    """Learning rates: a threshold is smaller than a logit, and so are its steps. Made once, so that a second fit
    compiles nothing."""
    return optax.multi_transform({"allocator": optax.adam(RATES[0]), "trigger": optax.adam(RATES[-1])}, parts)


def by_gradient(steps: int = 100, restarts: int = 4) -> tuple[np.ndarray, float]:
    """Parameters (logits, threshold) and their Sharpe ratio."""
    open_, close = stocks()
    with jax.enable_x64(True):
        market = js.Market.from_frames(close, open=open_)
    policy = js.Policy(al.SoftmaxWeights(4), js.Threshold(START[-1]), gate=js.StraightThrough(temperature=0.01))
    fitted = js.fit(
        policy,
        market,
        costs=js.Costs(fees=FEES),
        ann_factor=252,
        optimizer=optimizer_of_parts(),
        steps=steps,
        restarts=restarts,
        jitter=0.7,
    )
    policy = fitted.policy
    return np.append(policy.allocator.logits, policy.trigger.threshold), fitted.score


def cold_start() -> tuple[float, float]:
    """Wall seconds and processor seconds of `by_gradient` in a fresh process, imports, data and compilation
    included."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", "from benchmarks.learning import by_gradient; by_gradient()"]
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, spent


class Peer:
    """The Sharpe ratio of parameters, simulated by vectorbt, several at once as lanes. It counts evaluations."""

    def __init__(self):
        from benchmarks.peers import vectorbt_threshold

        self.run, self.sharpe = vectorbt_threshold.run, vectorbt_threshold.sharpe_ratios
        self.open, self.close = stocks()
        self.evaluations = 0
        self.best, self.trace = -np.inf, []

    def __call__(self, points: np.ndarray) -> np.ndarray:
        points = np.atleast_2d(points)
        self.evaluations += len(points)
        logits = points[:, :-1] - points[:, :-1].max(axis=1, keepdims=True)
        weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        thresholds = [float(x) for x in np.maximum(points[:, -1], 0.0)]
        result = self.run(self.close, self.open, thresholds=thresholds, weights=weights, fees=FEES, freq="1D")
        scores = np.atleast_1d(np.asarray(result.pf.returns_acc(year_freq="252D", freq="1D").sharpe_ratio()))
        if scores.max() > self.best:
            self.best = float(scores.max())
        self.trace.append((time.perf_counter(), self.evaluations, self.best))
        return scores

    def until(self, target: float, start: float) -> str:
        """The first evaluation that reached a Sharpe ratio."""
        for moment, count, best in self.trace:
            if best >= target:
                return f"{moment - start:.1f} s, {count} evaluations"
        return "not reached"


def compare(repeats: int) -> None:
    from scipy.optimize import minimize

    median = sorted(cold_start() for _ in range(repeats))[repeats // 2]
    print(
        f"fit: 100 steps from a cold start, median of {repeats} fresh processes {median[0]:.1f} s by the clock, "
        f"{median[1]:.1f} s of processor time"
    )
    learned, score = by_gradient()
    start = time.perf_counter()
    by_gradient()
    warm = time.perf_counter() - start
    peer = Peer()
    check = float(peer(learned)[0])
    print(
        f"  gradient: Sharpe ratio {score:.6f} (vectorbt on the same parameters {check:.6f}), 4 starts x 100 gradients"
    )
    print(
        f"    once more in the same process {warm:.2f} s; threshold {learned[-1]:.4f}, logits {learned[:-1].round(3)}"
    )
    target = score - 1e-3
    simplex = np.vstack([START, START + np.diag([0.5, 0.5, 0.5, 0.5, 0.02])])  # the default one keeps a zero

    peer = Peer()
    start = time.perf_counter()
    options = {"initial_simplex": simplex, "maxfev": 1000, "xatol": 1e-4, "fatol": 1e-6}
    result = minimize(lambda x: -float(peer(x)[0]), START, method="Nelder-Mead", options=options)
    print(
        f"  Nelder-Mead on vectorbt: Sharpe ratio {-result.fun:.6f}, {peer.evaluations} evaluations, "
        f"{time.perf_counter() - start:.1f} s; to within 0.001 of the gradient's: {peer.until(target, start)}"
    )

    peer = Peer()
    start = time.perf_counter()
    finite_differences(peer, steps=100)
    print(
        f"  finite differences on vectorbt, 100 steps of Adam: Sharpe ratio {peer.best:.6f}, {peer.evaluations} "
        f"evaluations, {time.perf_counter() - start:.1f} s; to within 0.001: {peer.until(target, start)}"
    )


def finite_differences(peer: Peer, steps: int) -> np.ndarray:
    """Gradient ascent with the same steps as `by_gradient`, by central differences."""
    width = np.diag([0.05, 0.05, 0.05, 0.05, 0.005])
    optimizer = optax.scale_by_adam()
    point, memory = START.copy(), optimizer.init(jnp.zeros(5))
    for _ in range(steps):
        scores = peer(np.vstack([point + width, point - width, point]))
        slope = (scores[:5] - scores[5:10]) / (2 * width.diagonal())
        updates, memory = optimizer.update(jnp.asarray(slope), memory)
        point = point + RATES * np.asarray(updates)
        point[-1] = max(point[-1], 0.0)
    return point


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes")
    compare(parser.parse_args().repeats)


if __name__ == "__main__":
    main()
