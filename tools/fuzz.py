"""Random long-only cases: compiled engine = reference engine, and = vectorbt 1.2.0.

    python -m tools.fuzz [--seed 0] [--batches 16] [--vectorbt 5]

A batch is twenty cases of one shape (`tests.helpers.cases`). Prints what was generated and compared, how often each
reason for not filling occurred, and every mismatch; exits with 1 if there is one.
"""

import argparse
import sys
import warnings
from collections import Counter

import numpy as np

import jaxsim as js
from tests.helpers.cases import FORMS, assert_same_portfolio, make_batch
from tests.peers.test_engine_parity import compare_with_vectorbt

#: Sizes of the groups of a batch; eight shapes, so that programs are compiled once and values vary.
SIZES = [[2] * 20, [3] * 20, [5] * 20, [8] * 20, [4] * 20, [6] * 20, [2, 5, 3, 5] * 5, [7] * 20]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--vectorbt", type=int, default=5, help="batches that are also run by vectorbt")
    parser.add_argument("--bars", type=int, default=120)
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    reasons: Counter = Counter()
    cases = orders = with_vectorbt = mismatches = 0
    for number in range(options.batches):
        rng = np.random.default_rng([options.seed, number])
        sizes = SIZES[number % len(SIZES)]
        batch = make_batch(rng, sizes, options.bars, FORMS[number % len(FORMS)])
        compiled, reference = batch.run(), batch.run("reference")
        cases += len(sizes)
        orders += len(compiled.orders)
        for ledger in compiled._paths.ledgers:
            reasons.update(js.OrderStatusInfo(int(info)).name for info in ledger.info.ravel())
        try:
            assert_same_portfolio(compiled, reference)
            if number < options.vectorbt:
                compare_with_vectorbt(batch, compiled)
                with_vectorbt += len(sizes)
        except AssertionError as error:
            mismatches += 1
            print(f"batch {number} ({batch.form}, {len(sizes)} cases): {error}")
    print(
        f"seed {options.seed}: {cases} cases generated and compared with the reference engine, {orders} orders filled"
    )
    print(f"{with_vectorbt} of them compared with vectorbt, none skipped; {mismatches} batches with a mismatch")
    print("orders by outcome: " + ", ".join(f"{name} {count}" for name, count in reasons.most_common()))
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
