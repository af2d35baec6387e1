"""Random orders of every kind: compiled engine = reference engine = vectorbt 1.2.0.

    python -m tools.fuzz_orders [--seed 0] [--bars 3000] [--vectorbt 1000] [--reference 5000] [--shapes 50]

Single bars (one order on a random account, nonsense among them), then whole pipelines (`tests.helpers.pipelines`): 2 to
6 assets, 50 to 400 bars. Compared are the log records: the account before and after every order, and what became of it.
The figures of pipelines also run by vectorbt are compared with `--metrics`: trades, positions, drawdowns and metrics
(`tests.helpers.peer_figures`). Exits with 1 if there is a mismatch, or more than 1 % are skipped.
"""

import argparse
import sys
import time
import warnings
from collections import Counter

import numpy as np

from jaxsim.engine.trading.status import LaneFault, OrderStatusInfo
from tests.helpers.engines import (
    before_a_hair,
    differing_logs,
    is_rejection,
    logs_by_case,
    markets,
    reference_logs,
    run_compiled,
    run_reference,
)
from tests.helpers.pipelines import Pipelines, make_pipelines


class Tally:
    """What has been generated and compared so far."""

    def __init__(self):
        self.counts: Counter = Counter()
        self.infos: Counter = Counter()
        self.skips: list[str] = []
        self.mismatches: list[str] = []

    def differ(self, text: str) -> None:
        self.mismatches.append(text)
        print("MISMATCH", text[:600], flush=True)


def compare_with_reference(p: Pipelines, tally: Tally, name: str) -> None:
    """Every case of a batch: the reference engine against the compiled one."""
    bt, faults, keys = run_compiled(p)
    logs, prices = logs_by_case(bt), markets(p)
    for case in range(p.shape[0]):
        where = f"{name} case {case} ({p.label[case]})"
        run = run_reference(p, case, prices[case], keys[case])
        tally.counts["reference"] += 1
        fault = faults.get(case)
        if isinstance(run, Exception):
            tally.counts["raised in both"] += 1
            first = p.shape[2] * case
            same = fault is not None and (fault.bar, fault.column - first) == (run.bar, run.asset)
            if not same or (fault.kind == LaneFault.ORDER_REJECTED) != is_rejection(run):
                tally.differ(f"{where}: reference raised {run} at {run.bar}, {run.asset}; compiled: {fault}")
        elif fault is not None:
            tally.differ(f"{where}: compiled has {fault}, reference none")
        else:
            wrong = differing_logs(logs[case], reference_logs(run, p.shape[2]), p.init_cash[case])
            if wrong:
                tally.differ(f"{where}: {wrong}")


def compare_with_vectorbt(p: Pipelines, tally: Tally, name: str, with_figures: bool = False) -> None:
    """Every case of a batch: vectorbt against the compiled engine. Where both raise, they must raise at one bar."""
    from benchmarks.peers.vectorbt_orders import run
    from tests.helpers.peer_figures import differing_figures

    bt, faults, _ = run_compiled(p)
    logs = logs_by_case(bt)
    for case in range(p.shape[0]):
        where = f"{name} case {case} ({p.label[case]})"
        tally.counts["generated"] += 1
        peer, fault = run(p, case), faults.get(case)
        if peer.raised or fault is not None:
            if not (peer.raised and fault):
                tally.differ(f"{where}: vectorbt raised {peer.raised}; compiled: {fault}")
                continue
            tally.counts["raised in both"] += 1
            before = run(p.until(fault.bar), case) if fault.bar else None
            if (before is not None and before.raised) or not run(p.until(fault.bar + 1), case).raised:
                tally.differ(f"{where}: compiled raised at bar {fault.bar}, vectorbt elsewhere: {peer.raised}")
            if before is None or before.raised:
                continue
            ours, peer = logs[case][logs[case]["idx"] < fault.bar], before
        else:
            ours = logs[case]
        if peer.skip:
            tally.skips.append(f"{where}: {peer.skip}")
            continue
        tally.counts["vectorbt"] += 1
        tally.counts["orders"] += len(peer.orders)
        tally.infos.update(peer.logs["res_status_info"].tolist())
        ours, theirs = before_a_hair(ours, peer.logs)
        is_whole = len(theirs) == len(peer.logs)
        tally.counts["whole"] += is_whole
        wrong = differing_logs(ours, theirs, p.init_cash[case])
        if wrong is None and with_figures and fault is None and is_whole:
            tally.counts["figures"] += 1
            wrong = differing_figures(bt[case], peer.pf)
        if wrong:
            tally.differ(f"{where}: {wrong}")


def compare_single_bars(num: int, seed: int, tally: Tally) -> None:
    """One order on one account, in the compiled engine and in vectorbt."""
    from tests.helpers.single_orders import differing_orders

    compared, infos, raised, skips, wrong = differing_orders(num, seed)
    tally.counts["bars"] += num
    tally.counts["bars compared"] += compared
    tally.counts["bars raised in both"] += raised
    tally.infos.update(infos)
    tally.skips += skips
    for text in wrong:
        tally.differ(text)


def shapes(seed: int, count: int, total: int) -> list[tuple[int, int, int]]:
    """`count` shapes (cases, bars, assets) of `total` cases together."""
    rng = np.random.default_rng([seed, 99])
    sizes = np.diff(np.linspace(0, total, count + 1).astype(int))
    return [(int(n), int(rng.integers(50, 401)), int(rng.integers(2, 7))) for n in sizes if n]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bars", type=int, default=3000, help="single bars")
    parser.add_argument("--vectorbt", type=int, default=1000, help="pipelines compared with vectorbt")
    parser.add_argument("--reference", type=int, default=5000, help="pipelines compared with the reference engine")
    parser.add_argument("--shapes", type=int, default=50, help="compiled shapes for each of the two")
    parser.add_argument("--figures", type=int, default=200, help="pipelines of which trades and metrics are compared")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    tally, start = Tally(), time.perf_counter()
    compare_single_bars(options.bars, options.seed, tally)
    for number, shape in enumerate(shapes(options.seed, options.shapes, options.vectorbt)):
        p = make_pipelines(np.random.default_rng([options.seed, number]), *shape)
        compare_with_vectorbt(p, tally, f"batch {number} {shape}", tally.counts["figures"] < options.figures)
    infos, skips = dict(tally.infos), len(tally.skips)
    for number, shape in enumerate(shapes(options.seed, options.shapes, options.reference)):
        p = make_pipelines(np.random.default_rng([options.seed, 1, number]), *shape)
        compare_with_reference(p, tally, f"batch {number} {shape}")
    c = tally.counts
    print(f"seed {options.seed}, {time.perf_counter() - start:.0f} s")
    print(
        f"single bars: {c['bars']} generated, {c['bars compared']} compared with vectorbt, "
        f"{c['bars raised in both']} of them raised in both"
    )
    print(
        f"pipelines: {c['generated']} generated, {c['vectorbt']} compared with vectorbt ({c['orders']} orders filled), "
        f"trades and metrics of {c['figures']}; {c['reference']} compared with the reference engine; "
        f"{c['raised in both']} raised in both"
    )
    print(f"skipped: {skips}", *tally.skips, sep="\n  ")
    names = {int(info): info.name for info in OrderStatusInfo}
    print("status infos against vectorbt: " + ", ".join(f"{names[k]} {infos.get(k, 0)}" for k in names))
    print(f"mismatches: {len(tally.mismatches)}")
    return 1 if tally.mismatches or skips > 0.01 * (c["generated"] + c["bars"]) else 0


if __name__ == "__main__":
    sys.exit(main())
