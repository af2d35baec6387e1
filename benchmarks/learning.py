"""Learning: known optima recovered, and the price of a fit beside that of a search without derivatives.

    python -m benchmarks.learning [--only kelly band fit] [--seed 0]

kelly: constant weights in simulated geometric Brownian motions, against the closed form.
band: the width of a no-trade band in simulated geometric Brownian motions, against the cube-root law in the fee.
fit: weights and threshold on the embedded stocks, 100 steps from a cold start in a fresh process; the same by
Nelder-Mead (SciPy) and by finite differences on vectorbt's `from_order_func`. Needs the [compare] and [peers] extras.
"""

import argparse
import resource
import subprocess
import sys
import time
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import allocators as al
import jaxsim as js


class Weights(eqx.Module):
    """Constant weights, free to be trained; the rest to one is cash."""

    weights: np.ndarray

    def __call__(self, obs: js.Observation):
        return self.weights


def growth(returns):
    """Log return over the whole path: the utility of a log investor."""
    return jnp.sum(jnp.log1p(returns))


def market_of(close) -> js.Market:
    """A market that is valued and trades at its closes."""
    close = jnp.asarray(close)
    return js.Market(close, close, close, close)


# --- the growth-optimal weights


def kelly(seed: int, years: int = 40, pairs: int = 32) -> None:
    """The weights that maximise expected log growth of assets with covariance C and drift m (per year, arithmetic, no
    interest) are C^-1 m (Kelly 1956; Merton, Lifetime Portfolio Selection, 1969; Thorp 1971). Paths come in antithetic
    pairs. The standard error is that of an M-estimator, H^-1 Var(g) H^-1 / pairs, with the slope g of each pair."""
    bars, rng = 252, np.random.default_rng(seed)
    optimum, volatility = np.array([0.3, 0.25, 0.2]), np.array([0.2, 0.25, 0.3])
    covariance = np.outer(volatility, volatility) * (0.3 + 0.7 * np.eye(3))
    drift = covariance @ optimum
    noise = rng.normal(size=(pairs, years * bars, 3)) @ np.linalg.cholesky(covariance / bars).T
    noise = np.stack([noise, -noise], axis=1).reshape(2 * pairs, -1, 3)
    moves = (drift - np.diag(covariance) / 2) / bars + noise
    close = 100 * np.exp(np.concatenate([np.zeros((2 * pairs, 1, 3)), moves.cumsum(axis=1)], axis=1))
    start = time.perf_counter()
    with jax.enable_x64(True):
        market = market_of(close)
    policy = js.Policy(Weights(np.array([0.2, 0.2, 0.2])), js.Always())
    fitted = js.fit(policy, market, objective=growth, optimizer=optax.lbfgs(), steps=12, every=3)
    seconds = time.perf_counter() - start
    learned, returns = fitted.policy.allocator.weights, np.expm1(moves)
    sample = optimum.copy()
    for _ in range(20):  # Newton's method on the same sample
        sample = sample - np.linalg.solve(*_curvature(returns, sample))
    slopes = (returns / (1 + returns @ optimum)[..., None]).mean(axis=1).reshape(pairs, 2, 3).mean(axis=1)
    inverse = np.linalg.inv(_curvature(returns, optimum)[0])
    error = np.sqrt(np.diag(inverse @ np.cov(slopes.T) @ inverse) / pairs)
    print(f"kelly: {2 * pairs} paths of {years} years, {seconds:.1f} s")
    print(f"  closed form {optimum}, learned {learned.round(5)}, sample optimum {sample.round(5)}")
    print(f"  learned - closed form {(learned - optimum).round(5)}, standard error {error.round(5)}")
    print(f"  in standard errors {((learned - optimum) / error).round(2)}; learned - sample {learned - sample}")


def _curvature(returns: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Second and first derivative of the mean log return with respect to the weights."""
    parts = (returns / (1 + returns @ weights)[..., None]).reshape(-1, len(weights))
    return -parts.T @ parts / len(parts), parts.mean(axis=0)


# --- the width of the no-trade band


def band_width(fee, weight: float, risk_aversion: float = 1.0):
    """Half the width of the optimal no-trade band around the Merton weight, to leading order in the fee:
    (3 / (2 gamma) * weight^2 (1 - weight)^2 * fee)^(1/3), the fee paid on purchases and on sales (Constantinides 1986;
    Rogers 2004; Janecek and Shreve 2004; Gerhold, Guasoni, Muhle-Karbe and Schachermayer 2014).

    Why: within the band the weight x moves like a Brownian motion of volatility s x (1 - x), s that of the asset.
    Reflected at a distance h from the middle it is spread evenly, which costs gamma s^2 / 2 * h^2 / 3 of growth, and it
    is pushed back by s^2 x^2 (1 - x)^2 / (2 h) per unit of time, which costs the fee times that. The sum is least where
    gamma s^2 h / 3 = fee s^2 x^2 (1 - x)^2 / (2 h^2).
    """
    return (1.5 / risk_aversion * weight**2 * (1 - weight) ** 2 * fee) ** (1 / 3)


def band(seed: int, bars: int = 8000, paths: int = 128, weight: float = 0.5, volatility: float = 0.012) -> None:
    """One risky asset beside a constant one, a log investor: trade to the edge of a band around the Merton weight
    drift / volatility^2, the width of the band learned for each fee.

    Under `ToEdge` the trade begins at zero where the limit is crossed, so that the score is continuous in the width and
    its derivative under the hard gate is the derivative: no surrogate is needed.
    """
    rng = np.random.default_rng(seed)
    moves = (weight - 0.5) * volatility**2 + rng.normal(0, volatility, (paths, bars))
    risky = 100 * np.exp(moves.cumsum(axis=1))
    with jax.enable_x64(True):
        market = market_of(np.stack([risky, np.full_like(risky, 100.0)], axis=2))
    allocator = Weights(np.array([weight, 1 - weight]))
    optimizer = optax.adam(optax.exponential_decay(0.01, 1, 0.95))
    mean = np.expm1(weight * volatility**2)
    square = np.expm1(volatility**2) * (1 + mean) ** 2 + mean**2
    utility = ExpectedGrowth(np.asarray(mean), np.asarray(square), np.asarray(100.0))
    fees, widths, start = np.array([0.001, 0.002, 0.005, 0.01]), [], time.perf_counter()
    print(f"band: {paths} paths of {bars} bars, volatility {volatility} per bar, weight {weight}")
    for fee in fees:
        policy = js.Policy(allocator, js.Threshold(0.08), destination=js.ToEdge())
        fitted = js.fit(
            policy,
            market,
            costs=js.Costs(fees=np.array([fee, 0.0])),
            score=utility,
            optimizer=optimizer,
            batch=js.PathBatch(16),
            steps=60,
            trainable=only_threshold,
        )
        widths.append(float(fitted.policy.trigger.threshold))
        print(
            f"  fee {fee}: learned {widths[-1]:.4f}, cube-root law {band_width(fee, weight):.4f}, "
            f"{time.perf_counter() - start:.1f} s"
        )
    exponent = np.polyfit(np.log(fees), np.log(widths), 1)[0]
    ratio = np.mean(widths / band_width(fees, weight))
    print(f"  exponent {exponent:.4f} (law: 0.3333), widths {ratio:.3f} of the law's on average")


class ExpectedGrowth(eqx.Module):
    """Log return over the path, less what is chance whatever the policy: exposure times (return - its mean), and to
    the second order exposure^2 times (return^2 - its mean) / 2. Both have the mean zero, and are nearly all of the
    noise, of the score and of its derivative. The first bars, which remember the start at the target, do not count.

    mean, square: what is expected of the return per bar, and of its square.     bond: price of what does not move.
    """

    mean: np.ndarray
    square: np.ndarray
    bond: np.ndarray
    skip: int = eqx.field(static=True, default=2000)

    def __call__(self, sim: js.Simulation):
        price = (sim.value - sim.cash - sim.units[:, 1] * self.bond) / sim.units[:, 0]
        exposure = sim.units[:-1, 0] * price[:-1] / sim.value[:-1]
        moves = price[1:] / price[:-1] - 1
        chance = exposure * (moves - self.mean) - exposure**2 * (moves**2 - self.square) / 2
        return jnp.sum((jnp.log1p(sim.returns[1:]) - chance)[self.skip :])


def only_threshold(policy: js.Policy):
    return policy.trigger.threshold


# --- the price of a fit

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
    """A threshold is smaller than a logit, and so are its steps. One object, so that a second fit compiles nothing."""
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
    found = fitted.policy
    return np.append(found.allocator.logits, found.trigger.threshold), fitted.score


def cold_start() -> tuple[float, float]:
    """Seconds of `by_gradient` in a fresh process, imports, data and compilation included: by the clock, and of
    processor time."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", "from benchmarks.learning import by_gradient; by_gradient()"]
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, spent


class Peer:
    """The Sharpe ratio of parameters, simulated by vectorbt; several at once as lanes. Counts what it is asked for."""

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
        """When a score was reached first."""
        for moment, count, best in self.trace:
            if best >= target:
                return f"{moment - start:.1f} s, {count} evaluations"
        return "not reached"


def fit(seed: int, repeats: int = 3) -> None:
    from scipy.optimize import minimize

    median = sorted(cold_start() for _ in range(repeats))[repeats // 2]
    print(
        f"fit: 100 steps from a cold start, median of {repeats} fresh processes {median[0]:.1f} s by the clock, "
        f"{median[1]:.1f} s of processor time"
    )
    found, score = by_gradient()
    start = time.perf_counter()
    by_gradient()
    warm = time.perf_counter() - start
    peer = Peer()
    check = float(peer(found)[0])
    print(
        f"  gradient: Sharpe ratio {score:.6f} (vectorbt on the same parameters {check:.6f}), 4 starts x 100 gradients"
    )
    print(f"    once more in the same process {warm:.2f} s; threshold {found[-1]:.4f}, logits {found[:-1].round(3)}")
    target = score - 1e-3
    simplex = np.vstack([START, START + np.diag([0.5, 0.5, 0.5, 0.5, 0.02])])  # its default would not move a zero

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
    jobs = {"kelly": kelly, "band": band, "fit": fit}
    parser.add_argument("--only", nargs="+", choices=jobs, default=list(jobs))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.only:
        jobs[name](options.seed)


if __name__ == "__main__":
    main()
