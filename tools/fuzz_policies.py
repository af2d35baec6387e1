"""Random policies, that is triggers, destinations and allocators of every kind: compiled engine = reference engine.

    python -m tools.fuzz_policies [--seed 0] [--pipelines 2000] [--structures 25] [--bars 90] [--shorter 0]

Pipelines of one structure run as lanes of one compiled program (`tests.helpers.policies`). Compared are all rebalances:
when, what was asked, by how much each asset was beyond its limit, every order, and the account after it. Prints what
was generated and compared, how often each kind of trigger and destination occurred, and every mismatch; exits with 1 if
there is one.

With `--shorter N`, runs on the first bars of N random markets, where assets come late, lack prices, leave and return,
are compared with the first bars of the runs on all (`tests.helpers.shorter_runs`): by the reference engine, each eighth
of them by the compiled engine too.
"""

import argparse
import sys
import time
import warnings
from collections import Counter

import numpy as np

from tests.helpers import shorter_runs
from tests.helpers.policies import compare, make_cases, make_structure


def compare_shorter_runs(seed: int, num_markets: int) -> list[str]:
    """Every market under one policy: where a shorter run differs."""
    tally, wrong, policies = Counter(), [], list(shorter_runs.POLICIES)
    for number in range(num_markets):
        rng = np.random.default_rng([seed, 2, number])
        market = shorter_runs.make_markets(rng, 4, 90)
        stops = {"reference": market.stops(rng, 3)}
        if number % 8 == 0:
            stops["compiled"] = stops["reference"][:1]
        policy = policies[(number + number // 8) % len(policies)]
        wrong += [f"market {number}: {x}" for x in shorter_runs.differing_beginnings(market, policy, stops, tally)]
    print(
        f"shorter runs: {tally['compared']} accounts compared, of {num_markets} markets; {tally['orders']} orders, "
        f"{tally['delisted']} of them closed what had left"
    )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pipelines", type=int, default=2000)
    parser.add_argument("--structures", type=int, default=25, help="compiled programs")
    parser.add_argument("--bars", type=int, default=90)
    parser.add_argument("--shorter", type=int, default=0, help="markets on which shorter runs are compared")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    tally, triggers, destinations, joints = Counter(), Counter(), Counter(), Counter()
    mismatches, start = 0, time.perf_counter()
    sizes = np.diff(np.linspace(0, options.pipelines, options.structures + 1).astype(int))
    for number, size in enumerate(sizes):
        rng = np.random.default_rng([options.seed, number])
        structure = make_structure(rng, number)
        cases = make_cases(rng, structure, int(size), options.bars)
        tally["generated"] += int(size)
        for counter, names in (
            (triggers, structure.triggers),
            (destinations, structure.destinations),
            (joints, structure.joints),
        ):
            counter.update(dict.fromkeys(names, int(size)))
        wrong = compare(cases, tally)
        mismatches += len(wrong)
        for text in wrong:
            print(f"MISMATCH structure {number} ({structure}): {text}", flush=True)
    for text in compare_shorter_runs(options.seed, options.shorter) if options.shorter else []:
        mismatches += 1
        print(f"MISMATCH {text}", flush=True)
    print(f"seed {options.seed}, {time.perf_counter() - start:.0f} s")
    print(
        f"{tally['generated']} pipelines generated, {tally['compared']} compared with the reference engine, "
        f"{tally['gone wrong in both']} of them ended early in both; {tally['events']} rebalances and parts of them, "
        f"{tally['orders']} orders filled"
    )
    for title, counter in (("triggers", triggers), ("joined by", joints), ("destinations", destinations)):
        print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in sorted(counter.items())))
    print(f"mismatches: {mismatches}")
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
