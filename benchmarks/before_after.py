"""This checkout against another one of this project, such as the commit before a change, in turn in one script.

    python -m benchmarks.before_after --before PATH [--pairs 20] [--seed 0] [--cases CASE ...]
    python -m benchmarks.before_after --before PATH --first-calls [--runs 9] [--cases CASE ...]

The first form times warm calls. One process per checkout runs for the whole script. In turn they run a case on the same
random walks, 8,767 hours of 5 assets, new for every pair; the two alternate in which goes first. The script prints
medians, and quartiles and extremes of the ratios after / before.

`--first-calls` times fresh processes from after `import jaxsim` to the result on 500 days of 3 assets: cold, without
compiled programs on disk, and warm, with those of an earlier process. `demo` is `jaxsim demo` from the start of Python
to its end.

Both check that the results agree, and exit with 1 if they do not. `--list` prints the cases. This checkout itself as
PATH shows what the machine alone makes of equal programs.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
JOBS = Path(__file__).with_name("before_after_jobs.py")
WARM = (
    "backtest K=15",
    "sweep K=15",
    "sweep K=100",
    "sweep K=1000",
    "replay K=15",
    "gradient Checkpointed",
    "gradient AtEvents",
)
FIRST = ("backtest", "sweep", "value_and_grad softmax", "value_and_grad MLP", "fit attention", "demo")
SAME = 1e-9  # relative difference of results that two compilations may have
DEMO = "import sys; sys.argv[0] = 'jaxsim'; from jaxsim.cli import main; main()"


def environment(checkout: Path, **more: str) -> dict[str, str]:
    """Variables of a process that imports `jaxsim` from a checkout and keeps no programs unless told."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMPILATION", "PROGRAMS"))}
    return kept | {"PYTHONPATH": str(checkout)} | more


class Worker:
    """A process that stays, with the package of one checkout."""

    def __init__(self, checkout: Path):
        command = [sys.executable, "-P", str(JOBS), "serve"]
        self.checkout = checkout
        self.process = subprocess.Popen(
            command,
            cwd=checkout,
            env=environment(checkout),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, case: str, seed: int) -> dict:
        """{"seconds", "figures"} of one call. Raises RuntimeError if the process has ended."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"case": case, "seed": seed}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{case}: the process of {self.checkout} has ended; its message stands above")
        return json.loads(line)

    def close(self) -> None:
        self.process.communicate()


def disagreement(one: list[float], other: list[float]) -> float:
    """The largest relative difference of two results."""
    x, y = np.asarray(one), np.asarray(other)
    if x.shape != y.shape or not np.array_equal(np.isnan(x), np.isnan(y)):
        return np.inf
    scale = np.maximum(np.maximum(np.abs(x), np.abs(y)), 1e-12)
    return float(np.nanmax(np.abs(x - y) / scale, initial=0.0))


class Table:
    """Rows of seconds before and after, printed as they come."""

    def __init__(self, title: str, unit: str):
        self.scale, self.unit, self.differs = (1e3 if unit == "ms" else 1.0), unit, False
        print(f"\n{title}")
        print(
            f"{'':26}{'before, ' + unit:>12}{'after, ' + unit:>12}{'ratio':>8}{'quartiles':>16}{'extremes':>16}"
            f"{'results differ by':>20}"
        )

    def add(self, name: str, before: list[dict], after: list[dict]) -> None:
        """The runs of one case, in pairs."""
        x, y = (np.array([run["seconds"] for run in runs]) for runs in (before, after))
        ratios = y / x
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        gap = max(disagreement(b["figures"], a["figures"]) for b, a in zip(before, after, strict=True))
        self.differs |= gap > SAME
        print(
            f"{name:26}{np.median(x) * self.scale:12.2f}{np.median(y) * self.scale:12.2f}{middle:8.3f}"
            f"{f'{low:.3f} to {high:.3f}':>16}{f'{ratios.min():.2f} to {ratios.max():.2f}':>16}{gap:20.1e}",
            flush=True,
        )


def warm_calls(before: Path, cases: list[str], pairs: int, seed: int) -> bool:
    """Whether the results agree."""
    workers = Worker(before), Worker(ROOT)
    table = Table(f"warm calls, {pairs} pairs, ratios after / before", "ms")
    for case in cases:
        runs: tuple[list[dict], list[dict]] = ([], [])
        for pair in range(pairs + 1):
            order = (0, 1) if pair % 2 else (1, 0)
            answers = {i: workers[i].run(case, 1000 * seed + pair) for i in order}
            if pair:  # the first compiles
                for i in (0, 1):
                    runs[i].append(answers[i])
        table.add(case, *runs)
    for worker in workers:
        worker.close()
    return not table.differs


def first_call(checkout: Path, case: str, programs: Path | None) -> dict:
    """{"seconds", "figures"} of a first call in a fresh process.

    programs: folder of compiled programs; None for none.
    """
    if case == "demo":
        return demo(checkout, programs)
    more = {} if programs is None else {"PROGRAMS": str(programs)}
    command = [sys.executable, "-P", str(JOBS), "first", case]
    run = subprocess.run(
        command, cwd=checkout, env=environment(checkout, **more), check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def demo(checkout: Path, programs: Path | None) -> dict:
    """Seconds of `jaxsim demo`, from the start of Python to its end."""
    kept = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    more = {} if programs is None else {"JAX_COMPILATION_CACHE_DIR": str(programs), **kept}
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-P", "-c", DEMO, "demo", "--out", out]
        start = time.perf_counter()
        subprocess.run(command, cwd=checkout, env=environment(checkout, **more), check=True, stdout=subprocess.DEVNULL)
        return {"seconds": time.perf_counter() - start, "figures": []}


def first_calls(before: Path, cases: list[str], runs: int) -> bool:
    """Whether the results agree."""
    checkouts = (before, ROOT)
    agrees = True
    for kind in ("cold", "warm"):
        table = Table(f"first calls in fresh processes, {kind}: {runs} pairs, ratios after / before", "s")
        for case in cases:
            results: tuple[list[dict], list[dict]] = ([], [])
            with tempfile.TemporaryDirectory() as scratch:
                folders = [None, None] if kind == "cold" else [Path(scratch) / name for name in ("before", "after")]
                for run in range(runs + (kind == "warm")):
                    order = (0, 1) if run % 2 else (1, 0)
                    answers = {i: first_call(checkouts[i], case, folders[i]) for i in order}
                    if kind == "cold" or run:  # the first one fills the folder
                        for i in (0, 1):
                            results[i].append(answers[i])
            table.add(case, *results)
        agrees &= not table.differs
    return agrees


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the other checkout")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-calls", action="store_true")
    parser.add_argument("--runs", type=int, default=9, help="pairs of fresh processes")
    parser.add_argument("--cases", nargs="+", metavar="CASE")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    options = parser.parse_args()
    known = FIRST if options.first_calls else WARM
    if options.list:
        print("\n".join(known))
        return 0
    if options.before is None or not (options.before / "jaxsim" / "__init__.py").is_file():
        parser.error("--before: expected the folder of a checkout of this project")
    if unknown := set(options.cases or ()) - set(known):
        parser.error(f"--cases: no case {', '.join(sorted(unknown))}; see --list")
    cases = options.cases or list(known)
    before = options.before.resolve()
    print(f"before: {before}\nafter:  {ROOT}")
    print(f"python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs")
    if options.first_calls:
        agrees = first_calls(before, cases, options.runs)
    else:
        agrees = warm_calls(before, cases, options.pairs, options.seed)
    print(f"load average: {', '.join(f'{x:.1f}' for x in os.getloadavg())}")
    if not agrees:
        print(f"RESULTS DIFFER by more than {SAME:g}")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
