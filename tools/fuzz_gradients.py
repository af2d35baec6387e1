"""Gradients under the hard gate against central differences, on random pipelines in float64.

    python -m tools.fuzz_gradients [--seed 0] [--pipelines 200]

Of each pipeline (`tests.helpers.gradient_cases`: triggers, destinations, costs, short positions, holes) every weight,
fee, fixed fee, slippage, the threshold, the initial cash and six directions of open and close prices are moved by 1e-6
either way. An error is counted in parts of the largest component of the pipeline's gradient. Where the events
(rebalances, sides of fills, orders that cash or a limit cuts) are not the same at both ends and in between, there is no
derivative to compare with: such pairs are counted. Exits with 1 if an error exceeds 1e-6 or more than 5 % of pairs are
left out.
"""

import argparse
import sys
from collections import Counter

import jax
import numpy as np

import jaxsim as js
from tests.helpers.gradient_cases import STRUCTURES, compare, make_case

LIMIT, LEFT_OUT = 1e-6, 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pipelines", type=int, default=200)
    options = parser.parse_args()
    per_structure = -(-options.pipelines // len(STRUCTURES))
    infos: Counter = Counter()
    pairs = left_out = too_far = cuts = 0
    worst = 0.0
    print(f"{'structure':40}{'pairs':>7}{'left out':>10}{'largest error':>15}")
    with jax.enable_x64(True):
        for number, structure in enumerate(STRUCTURES):
            rng = np.random.default_rng([options.seed, number])
            result = compare(structure, [make_case(rng, structure) for _ in range(per_structure)])
            errors = result.errors()
            known = ~np.isnan(errors)
            too_far += int((errors[known] > LIMIT).sum()) + int(np.isnan(result.exact).sum())
            pairs, left_out = pairs + result.same.size, left_out + int((~result.same).sum())
            cuts += result.cuts
            worst = max(worst, errors[known].max())
            infos.update(js.OrderStatusInfo(int(x)).name for x in result.infos.ravel())
            print(f"{structure.name:40}{result.same.size:7}{(~result.same).sum():10}{errors[known].max():15.1e}")
    share = left_out / pairs
    print(
        f"seed {options.seed}: {per_structure * len(STRUCTURES)} pipelines, {pairs} pairs, {left_out} ({share:.2%}) "
        f"left out since their events differ; {too_far} errors above {LIMIT:g}, the largest {worst:.1e}"
    )
    print(f"partial fills: {cuts}; orders that did not fill: {dict(infos.most_common()[1:])}")
    return 1 if too_far or share > LEFT_OUT else 0


if __name__ == "__main__":
    sys.exit(main())
