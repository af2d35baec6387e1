"""The cost of orders of every kind, on the job of vectorbt's tutorial: at a commit with target weights only, now on the
short path, now order by order, and in vectorbt.

    python -m benchmarks.generality [--before COMMIT] [--seed 0] [--repeats 15]

Each worker is a process. They run in turn on the same prices, new for every repetition; the timed region ends with
values and orders as pandas. `--before` is checked out beside this tree: by default the last commit with target weights
only. Needs the [compare] extra and the data that `tools.outside_data` finds.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BEFORE = "bdace99"
ROOT = Path(__file__).resolve().parents[1]


def work(which: str, seed: int) -> None:
    """A worker: for each line that it reads, it prints one timing."""
    import jax

    import allocators as al
    import jaxsim as js
    from benchmarks.tutorial_job import FEES, THRESHOLDS, fresh_prices, load_binance, ours, theirs

    open_, close = load_binance()
    rng = np.random.default_rng(seed)
    policy = al.EqualWeight()
    for _ in sys.stdin:
        o, c = fresh_prices(rng, open_, close)
        start = time.perf_counter()
        if which == "vectorbt":
            value, orders = theirs(o, c, weights=np.full(5, 0.2))
        elif which == "general":
            # a limit that never binds, but that needs the path order by order
            bt = js.backtest(c, policy, open=o, trigger=js.Threshold(THRESHOLDS), fees=FEES, freq="1h", max_size=1e15)
            value, orders = bt.value, bt.orders
        else:
            value, orders = ours(o, c, policy)
        seconds = time.perf_counter() - start
        assert jax.config.read("jax_enable_x64") in (True, False)
        print(seconds, len(orders), repr(float(value.to_numpy()[-1].sum())), flush=True)


class Worker:
    def __init__(self, which: str, tree: Path, seed: int):
        from tools.outside_data import VARIABLE, outside_folder  # here, as a tree of `--before` has no such file

        self.which = which
        environment = os.environ | {"PYTHONPATH": str(tree), VARIABLE: str(outside_folder() / "data")}
        command = [sys.executable, str(ROOT / "benchmarks" / "generality.py"), "--work", which, "--seed", str(seed)]
        self.process = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.seconds: list[float] = []

    def run(self) -> tuple[int, float]:
        """Run one repetition; returns the number of orders and the sum of final values."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker {self.which} has stopped")
        seconds, orders, total = line.split()
        self.seconds.append(float(seconds))
        return int(orders), float(total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default=BEFORE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        # beside this tree, so that the data is found from it as from here
        before = ROOT.parent / f".jaxsim-{Path(folder).name}"
        subprocess.run(
            ["git", "-C", str(ROOT), "worktree", "add", "-q", "--detach", str(before), options.before], check=True
        )
        try:
            compare(before, options)
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(before)], check=True)


def compare(before: Path, options: argparse.Namespace) -> None:
    workers = {
        "before": Worker("before", before, options.seed),
        "closed": Worker("closed", ROOT, options.seed),
        "general": Worker("general", ROOT, options.seed),
        "vectorbt": Worker("vectorbt", ROOT, options.seed),
    }
    turns = random.Random(options.seed)
    for _ in range(options.repeats + 2):
        # Change the order, so that no worker always runs after the same one, with its caches and heat.
        answers = {name: workers[name].run() for name in turns.sample(list(workers), len(workers))}
        assert len({orders for orders, _ in answers.values()}) == 1, answers
        np.testing.assert_allclose([total for _, total in answers.values()], answers["closed"][1], rtol=1e-9)
    seconds = {name: worker.seconds[2:] for name, worker in workers.items()}  # the first two compile
    for name, values in seconds.items():
        first, warm = workers[name].seconds[0], statistics.median(values) * 1e3
        print(f"{name:10} first {first:6.2f} s   warm, median {warm:7.2f} ms")

    def ratio(a: str, b: str) -> str:
        pairs = np.divide(seconds[a], seconds[b])
        return f"median {np.median(pairs):.2f}, least {pairs.min():.2f}, most {pairs.max():.2f}"

    print(f"closed form now / before:   {ratio('closed', 'before')}")
    print(f"order by order / closed:    {ratio('general', 'closed')}")
    print(f"vectorbt / order by order:  {ratio('vectorbt', 'general')}")


if __name__ == "__main__":
    main()
