"""Does `js.fit` find optima that are known in closed form?

    python -m tools.known_optima [--only kelly band] [--seed 0]

kelly: constant weights in simulated geometric Brownian motions, against the closed form.
band: the width of a no-trade band in simulated geometric Brownian motions, against the cube-root law in the fee.
"""

import argparse
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = {"kelly": kelly, "band": band}
    parser.add_argument("--only", nargs="+", choices=jobs, default=list(jobs))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.only:
        jobs[name](options.seed)


if __name__ == "__main__":
    main()
