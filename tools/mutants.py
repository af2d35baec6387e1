"""Would the tests notice? Plants faults in a copy of the package, one at a time, and prints which test catches each.

    python -m tools.mutants [--only NAME ...] [--list] [--jobs 2] [--limit SECONDS] [--named] [--verbose]

A fault is one exact piece of text that is replaced by another; one that no longer occurs exactly once in its file stops
the script, so that the list cannot go stale unseen. The tests named by a fault run first, all quick ones if those
let it pass. Before any of it the named tests must pass on the copy as it is. Exit status 1 if a fault survives.

A fault that keeps the program running is caught too: tests that take several times what they take without it are
stopped, and the fault is listed as caught by "time". `--limit` sets another limit for the tests that a fault names;
`--named` runs no others.

Needs pytest and what the tests need, vectorbt aside, and the data that `tools.outside_data` describes.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools import outside_data
from tools.planted_faults import MUTANTS
from tools.planted_faults.fault import ROOT, Mutant

COPIED = ("jaxsim", "allocators", "tests", "tools", "benchmarks", "pyproject.toml")
TIMES, MARGIN = 5, 120  # a run of pytest may take five times what it takes without a fault, and two minutes

#: Tests of rounding. They need the optimisations that users have, with which XLA contracts products and sums.
AS_USERS_COMPILE = "tests/engine/base/test_numerics.py"

#: The copy must be what is tested, not the installed package; and a failing example need not be made small.
CONFTEST = """
import sys
from pathlib import Path
from hypothesis import Phase, settings

settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], database=None)
settings.load_profile("mutants")


def pytest_collection_finish():
    for name in ("jaxsim", "allocators"):
        if name in sys.modules:
            assert Path(sys.modules[name].__file__).is_relative_to(Path(__file__).parent), sys.modules[name]
"""


class Workshop:
    """Copies of the package in a folder, tests run in them, and one compilation cache for all."""

    def __init__(self, folder: Path, limit: float | None = None, only_named: bool = False):
        self.folder, self.clean, self.limit, self.only_named = folder, folder / "clean", limit, only_named
        self.seconds: dict[str, float] = {}  # of each named test without any fault
        self.quick_pass: bool | None = None  # without any fault; None until somebody asks
        self.quick_seconds = 0.0
        self._lock = threading.Lock()
        self.clean.mkdir()
        for entry in COPIED:
            if (ROOT / entry).is_dir():
                shutil.copytree(ROOT / entry, self.clean / entry, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / entry, self.clean / entry)
        (self.clean / "conftest.py").write_text(CONFTEST)

    def planted(self, mutant: Mutant) -> Path:
        """A copy with the fault in it."""
        copy = self.folder / mutant.name
        shutil.copytree(self.clean, copy, ignore=shutil.ignore_patterns("__pycache__"))
        path = copy / mutant.file
        before, after = path.read_text().split(mutant.old)
        path.write_text(before + mutant.new + after)
        return copy

    def failure(self, copy: Path, tests: Sequence[str], limit: float | None = None) -> str | None:
        """What pytest says of the first test that fails; None if all pass; "time" if they took longer than the limit.

        Fills in `seconds`. Raises RuntimeError if pytest could not run.
        """
        environment = {
            **os.environ,
            "COLUMNS": "200",
            "PYTHONPATH": str(copy),
            outside_data.VARIABLE: str(outside_data.outside_folder()),
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        if all(name.startswith(AS_USERS_COMPILE) for name in tests):
            environment["XLA_FLAGS"] = ""
        options = ["-x", "-q", "--tb=no", "-rfE", "--durations=0", "--durations-min=0.01"]
        options += ["-p", "no:cacheprovider", "-p", "no:xdist"]
        done = run_with_limit([sys.executable, "-m", "pytest", *options, *tests], copy, environment, limit)
        if done is None:
            return "time"
        if copy == self.clean:
            for seconds, name in re.findall(r"^([\d.]+)s \w+ +(tests/.*)$", done.stdout, re.MULTILINE):
                self.seconds[name] = self.seconds.get(name, 0.0) + float(seconds)
        if done.returncode == 0:
            return None
        if done.returncode < 0:
            return f"{tests[0]} - signal {-done.returncode} ended the process"
        failed = re.search(r"^(?:FAILED|ERROR) (tests/.*::.*)$", done.stdout, re.MULTILINE)
        if done.returncode != 1 or not failed:
            raise RuntimeError(f"pytest could not run in {copy}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return failed[1]

    def all_pass(self) -> bool:
        """Whether all quick tests pass without any fault; found out when first asked."""
        with self._lock:
            if self.quick_pass is None:
                start = time.perf_counter()
                self.quick_pass = self.failure(self.clean, QUICK) is None
                self.quick_seconds = time.perf_counter() - start
            return self.quick_pass

    def seconds_of(self, name: str) -> float:
        """Of a test without any fault, all its parameters together."""
        return sum(x for test, x in self.seconds.items() if test == name or test.startswith(f"{name}["))

    def try_mutant(self, mutant: Mutant) -> tuple[str | None, float]:
        """What catches it, and seconds."""
        start, copy = time.perf_counter(), self.planted(mutant)
        limit = self.limit or TIMES * sum(map(self.seconds_of, mutant.tests)) + MARGIN
        caught = self.failure(copy, mutant.tests, limit)
        if caught is None and not self.only_named and self.all_pass():
            caught = self.failure(copy, QUICK, TIMES * self.quick_seconds + MARGIN)
        shutil.rmtree(copy)
        return caught, time.perf_counter() - start


def run_with_limit(
    command: Sequence[str], folder: Path, environment: dict[str, str], limit: float | None
) -> subprocess.CompletedProcess[str] | None:
    """None if the process had to be ended after `limit` seconds, with all that it had started."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    return subprocess.CompletedProcess(command, process.returncode, out, err)


QUICK = ("tests", "-m", "not slow")


def check_texts(mutants: Sequence[Mutant]) -> None:
    """Exit naming the faults whose text does not occur exactly once in its file."""
    counts = {m.name: (ROOT / m.file).read_text().count(m.old) for m in mutants}
    stale = [f"{m.name}: {counts[m.name]} times in {m.file}: {m.old!r}" for m in mutants if counts[m.name] != 1]
    if stale:
        sys.exit("these faults no longer apply, their text must occur exactly once:\n" + "\n".join(stale))


def check_tests(workshop: Workshop, pool: ThreadPoolExecutor, jobs: int, mutants: Sequence[Mutant]) -> None:
    """Exit unless the tests that the faults name pass without them. Fills the compilation cache."""
    tests = sorted({name for mutant in mutants for name in mutant.tests})
    shares = [share for share in (tests[i::jobs] for i in range(jobs)) if share]
    for failure in pool.map(lambda share: workshop.failure(workshop.clean, share), shares):
        if failure is not None:
            sys.exit(f"the tests fail without any fault: {failure}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these faults")
    parser.add_argument("--list", action="store_true", help="print the faults and stop")
    parser.add_argument("--jobs", type=int, default=2, help="copies tested at a time")
    parser.add_argument("--limit", type=float, help="seconds for the tests that a fault names")
    parser.add_argument("--named", action="store_true", help="run only the tests that the faults name")
    parser.add_argument("--verbose", action="store_true", help="print how the test failed")
    options = parser.parse_args()
    names = [mutant.name for mutant in MUTANTS]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only: no fault {', '.join(sorted(unknown))}; see --list")
    mutants = [mutant for mutant in MUTANTS if not options.only or mutant.name in options.only]
    width = max(len(mutant.name) for mutant in mutants)
    check_texts(mutants)
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name:{width}}  {mutant.file:30}  {mutant.fault}")
        return 0

    start, survivors = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(options.jobs) as pool:
        workshop = Workshop(Path(folder), options.limit, options.named)
        check_tests(workshop, pool, options.jobs, mutants)
        print(f"the tests pass without a fault ({time.perf_counter() - start:.0f} s)\n", flush=True)
        print(f"{'fault':{width}} | caught by | seconds")
        for mutant, (caught, seconds) in zip(mutants, pool.map(workshop.try_mutant, mutants), strict=True):
            survivors += [mutant] if caught is None else []
            by, _, how = (caught or "NOTHING").partition(" - ")
            print(f"{mutant.name:{width}} | {by} | {seconds:.0f}", flush=True)
            if options.verbose:
                print(f"{'':{width}}   {how}")
    print(f"\ncaught {len(mutants) - len(survivors)} of {len(mutants)} in {time.perf_counter() - start:.0f} s")
    for mutant in survivors:
        print(f"SURVIVED {mutant.name}: {mutant.fault} ({mutant.file})")
    if workshop.quick_pass is False:
        print("the quick tests fail without any fault, so they could not be asked about these")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
