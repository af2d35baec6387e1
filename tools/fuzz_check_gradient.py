"""`js.check_gradient` on random policies and markets, with holes and ties among them.

    python -m tools.fuzz_check_gradient [--seed 0] [--policies 300]

Derivatives are exact, so that every difference must have a reason that lies in the score: another event, another order,
a kink, a jump. Prints the verdicts by structure. Exits with 1 if there is one without a reason.
"""

import argparse
import sys
from collections import Counter

import jax
import numpy as np
import pandas as pd

import jaxsim as js
from tests.helpers.gradient_cases import ASSETS, BARS, STRUCTURES, Structure

INDEX = pd.date_range("2022-01-03", periods=BARS, freq="D")
COSTS = dict(slippage=0.002, fixed_fees=0.02, lock_cash=True, min_size=1e-3, max_size=50.0)


def score_of(structure: Structure):
    """A score under the costs of a structure. One object, so that one program serves all its policies."""
    costs = js.Costs(fees=0.003, **{name: COSTS[name] for name in structure.costs if name in COSTS})

    def score(policy: js.Policy, market: js.Market):
        save = js.Save(events=True)
        sim = js.simulate(market, policy, costs=costs, save=save)
        return js.metrics.sharpe_ratio(sim.returns, ann_factor=252) + js.metrics.total_return(sim.returns), sim

    return score


def random_market(rng: np.random.Generator) -> js.Market:
    close = 10 ** rng.uniform(0, 2) * np.exp(rng.normal(0, 0.03, (BARS, ASSETS)).cumsum(axis=0))
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(rng.normal(0, 0.005, close.shape))
    close[rng.random(close.shape) < rng.choice([0.0, 0.05])] = np.nan
    frames = [pd.DataFrame(x, INDEX, list("ABCD")) for x in (close, open_)]
    return js.Market.from_frames(frames[0], open=frames[1], dtype=np.float64)


def random_policy(rng: np.random.Generator, structure: Structure) -> js.Policy:
    """Half of the policies begin with equal weights, whose first orders tie."""
    weights = np.full(ASSETS, 1 / ASSETS) if rng.random() < 0.5 else rng.dirichlet(np.ones(ASSETS)) * 0.9
    if structure.short:
        weights = weights * np.where(np.arange(ASSETS) == rng.integers(ASSETS), -0.5, 1.0)
    threshold = np.asarray(rng.uniform(0.01, 0.08))
    destination = structure.destination(0.6 * threshold)
    return js.Policy(
        structure.allocator(weights), structure.trigger(threshold), destination=destination, **structure.terms
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policies", type=int, default=300)
    options = parser.parse_args()
    per_structure = -(-options.policies // len(STRUCTURES))
    total: Counter = Counter()
    for number, structure in enumerate(STRUCTURES):
        rng, score, verdicts = np.random.default_rng([options.seed, number]), score_of(structure), Counter()
        for case in range(per_structure):
            with jax.enable_x64(True):
                policy, market = random_policy(rng, structure), random_market(rng)
            check = js.check_gradient(score, policy, market)
            verdicts.update(check.table["verdict"])
            if not check.is_right:
                print(f"{structure.name}, case {case}:\n{check}\n{check.table}")
        total += verdicts
        print(f"{structure.name:40}{dict(verdicts)}", flush=True)
    wrong = sum(total[verdict] for verdict in ("cut off", "not finite", "differs"))
    print(f"seed {options.seed}: {per_structure * len(STRUCTURES)} policies, {dict(total)}; without a reason: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
