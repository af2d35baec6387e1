"""Time of `import jaxsim` against the import of its dependencies, in alternating fresh processes.

    python -m benchmarks.import_time [--runs 11]

Also fails if the import pulls in Plotly, typer or Dask.
"""

import argparse
import statistics
import subprocess
import sys

BASE = "import jax, equinox, optax, pandas"
TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
LOADED = "import sys, jaxsim; print([m for m in ('plotly', 'typer', 'dask', 'vectorbt', 'tqdm') if m in sys.modules])"


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11)
    options = parser.parse_args()
    ratios, base, ours = [], [], []
    for _ in range(options.runs):
        base.append(float(run(TIMED.format(BASE))))
        ours.append(float(run(TIMED.format("import jaxsim"))))
        ratios.append(ours[-1] / base[-1])
    print(f"{BASE}: {statistics.median(base):.2f} s; import jaxsim: {statistics.median(ours):.2f} s")
    print(f"ratio of medians {statistics.median(ours) / statistics.median(base):.3f}")
    print(f"median ratio of pairs {statistics.median(ratios):.3f}")
    loaded = run(LOADED)
    print(f"optional packages imported: {loaded}")
    return int(loaded != "[]")


if __name__ == "__main__":
    sys.exit(main())
