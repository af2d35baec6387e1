"""Purchases that are cut alike: compiled engine = reference engine; = cut="last" where the cash suffices.

    python -m tools.fuzz_cut [--seed 0] [--pipelines 1000] [--structures 25] [--bars 90]

Half of the pipelines are random policies in the closed form of fills and beside other costs (`tests.helpers.policies`),
half are random orders of every size type, direction, cost and call sequence (`tests.helpers.pipelines`), which are
filled order by order. Each runs once with either cut. Up to the first bar at which "last" does not fill every purchase
as it was asked for, the two must be equal to the last bit. Prints what was compared, in how many pipelines purchases
were scaled, and every mismatch; exits with 1 if there is one.
"""

import argparse
import sys
import time
import warnings
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from jaxsim.engine.base.enums import SizeType
from jaxsim.engine.trading.cut import LAST, PRO_RATA
from jaxsim.engine.trading.status import OrderStatusInfo as Info
from tests.helpers import engines, policies
from tests.helpers.pipelines import AUTO, Pipelines, make_pipelines

#: What two runs have in common, to the last bit, while the cash suffices.
SAME = ("bar", "value", "cash", "free_cash", "units", "trade", "price", "fees", "info")
#: Reasons why a purchase may not fill that have nothing to do with cash.
OTHER_REASONS = (Info.SIZE_NAN, Info.PRICE_NAN, Info.VAL_PRICE_NAN, Info.VALUE_NAN, Info.VALUE_ZERO_NEG, Info.SIZE_ZERO)


def difference(last: Any, alike: Any) -> tuple[str | None, int, bool]:
    """Two ledgers of one case: where they differ though the cash suffices; the rebalances compared; whether any cash
    was short."""
    is_whole = (last.trade >= last.request) | np.isin(last.info, OTHER_REASONS)
    short = ~(is_whole | ~(last.request > 0)).all(axis=1)
    end = int(short.argmax()) if short.any() else len(short)
    for name in SAME:
        a, b = getattr(last, name)[:end], getattr(alike, name)[:end]
        if name == "price":
            a, b = (np.where(x.filled[:end], y, 0.0) for x, y in ((last, a), (alike, b)))
        if a.shape != b.shape:
            return f"{name}: {a.shape} against {b.shape}", end, bool(short.any())
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if not same.all():
            place = np.unravel_index(int(np.argmin(same)), same.shape)
            return f"bar {last.bar[place[0]]}: {name} {a[place]!r} against {b[place]!r}", end, bool(short.any())
    return None, end, bool(short.any())


def fuzz_policies(rng: np.random.Generator, number: int, size: int, bars: int, tally: Counter) -> list[str]:
    """The cases of one structure."""
    cases = policies.make_cases(rng, policies.make_structure(rng, number), size, bars)
    runs = {}
    for cut in (LAST, PRO_RATA):
        cases = replace(cases, policies=[replace(policy, cut=cut) for policy in cases.policies])
        runs[cut] = policies.run_compiled(cases)[:2]
    wrong = policies.compare(cases, tally)
    for case in range(size):
        if any(case in faults for _, faults in runs.values()):
            continue
        one = (np.array([case]), np.array([0]))
        text, same, is_short = difference(*(ledger.take(*one) for ledger, _ in runs.values()))
        tally.update({"same": same, "short": is_short})
        wrong += [] if text is None else [f"case {case}, last against pro_rata: {text}"]
    return wrong


def with_known_sizes(p: Pipelines) -> Pipelines:
    """The same pipelines without what purchases that are cut alike do not go with."""
    is_share = p.size_type == SizeType.PERCENT
    return replace(
        p,
        size=np.where(np.isinf(p.size), np.nan, p.size),
        size_type=np.where(is_share, int(SizeType.TARGET_PERCENT), p.size_type),
        allow_partial=np.ones_like(p.allow_partial),
        reject_prob=np.zeros_like(p.reject_prob),
        update_value=np.zeros_like(p.update_value),
    )


def fuzz_orders(rng: np.random.Generator, size: int, tally: Counter) -> list[str]:
    """Pipelines of one shape."""
    shape = size, int(rng.integers(50, 200)), int(rng.integers(2, 7))
    p = with_known_sizes(make_pipelines(rng, *shape))
    (last, broken, _), (bt, faults, keys) = (engines.run_compiled(p, cut) for cut in (LAST, PRO_RATA))
    logs, prices, wrong = engines.logs_by_case(bt), engines.markets(p), []
    for case in range(size):
        run, fault = engines.run_reference(p, case, prices[case], keys[case], PRO_RATA), faults.get(case)
        tally["compared"] += 1
        if isinstance(run, Exception) or fault is not None:
            tally["gone wrong in both"] += 1
            place = None if fault is None else (fault.bar, fault.column - shape[2] * case)
            if not isinstance(run, Exception) or place != (run.bar, run.asset):
                wrong.append(f"case {case} ({p.label[case]}): reference {run}, compiled {fault}"[:300])
            continue
        tally["events"] += len(run.bars)
        tally["orders"] += int((run.info == -1).sum())
        text = engines.differing_logs(logs[case], engines.reference_logs(run, shape[2]), p.init_cash[case])
        wrong += [] if text is None else [f"case {case} ({p.label[case]}): {text}"]
        if case in broken:
            continue
        one = (np.array([case]), np.array([0]))
        text, same, is_short = difference(*(x._paths.ledgers[0].take(*one) for x in (last, bt)))
        if p.call_seq[case] != AUTO or p.lock_cash[case].any():  # sales come first; other sums, and other limits
            continue
        tally.update({"same": same, "short": is_short})
        wrong += [] if text is None else [f"case {case} ({p.label[case]}), last against pro_rata: {text}"]
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pipelines", type=int, default=1000)
    parser.add_argument("--structures", type=int, default=25, help="compiled programs of each half")
    parser.add_argument("--bars", type=int, default=90)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    tally, mismatches, start = Counter(), 0, time.perf_counter()
    ends = np.linspace(0, options.pipelines // 2, options.structures + 1).astype(int)
    for number, size in enumerate(np.diff(ends)):
        of_policies = fuzz_policies(
            np.random.default_rng([options.seed, number]), number, int(size), options.bars, tally
        )
        of_orders = fuzz_orders(np.random.default_rng([options.seed, number, 1]), int(size), tally)
        for kind, wrong in (("policies", of_policies), ("orders", of_orders)):
            mismatches += len(wrong)
            for text in wrong:
                print(f"MISMATCH {kind} {number}: {text}", flush=True)
    print(f"seed {options.seed}, {time.perf_counter() - start:.0f} s")
    print(
        f"{tally['compared']} pipelines compared with the reference engine, {tally['gone wrong in both']} of them "
        f"ended early in both; {tally['events']} rebalances, {tally['orders']} orders filled"
    )
    print(
        f'cash was short in {tally["short"]}; {tally["same"]} rebalances before that compared with cut="last", to the '
        "last bit"
    )
    print(f"mismatches: {mismatches}")
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
