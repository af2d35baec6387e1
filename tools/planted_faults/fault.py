"""What a planted fault is, and the files and tests that many of them name."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """A fault: `old`, which occurs exactly once in `file`, becomes `new`; `tests` are tried in this order."""

    name: str
    fault: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def test(file: str, *names: str) -> tuple[str, ...]:
    (path,) = (path.relative_to(ROOT) for path in (ROOT / "tests").rglob(f"test_{file}.py"))
    return tuple(f"{path}::{name}" for name in names)


def parity(*numbers: int) -> tuple[str, ...]:
    return test("engine_parity", *(f"test_compiled_equals_reference[{number}]" for number in numbers))


GOLDEN = test("golden", "test_uniform_sharpe_compiled")
SCHEDULES = test("engine_parity", "test_schedules_do_the_same")
LOOKING = test("schedules", "test_looking_ahead_equals_the_scan")
EXACT_DRIFT = test("triggers", "test_a_drift_of_exactly_the_threshold_triggers")
PURE_CORE = test("engine_parity", "test_pure_core_equals_the_pandas_face")

NUMERICS = "jaxsim/engine/base/numerics.py"
ORDERS = "jaxsim/engine/trading/rebalance.py"
FILL = "jaxsim/engine/trading/order.py"
STEP = "jaxsim/engine/bar/step.py"
DESTINATIONS = "jaxsim/engine/policy/destinations.py"
SCHEDULE = "jaxsim/engine/schedules/programs.py"
LOOK_AHEAD = "jaxsim/engine/schedules/next_event.py"
PLACES = "jaxsim/engine/schedules/lane_slots.py"
GIVEN = "jaxsim/engine/policy/given.py"
METRICS = "jaxsim/engine/metrics/returns.py"
PRICES = "jaxsim/frames/inputs/prices.py"
LANES = "jaxsim/frames/inputs/labels.py"
SWEEP_AXES = "jaxsim/frames/inputs/sweep_axes.py"
BACKTEST = "jaxsim/frames/results/backtest.py"
BARS_PER_YEAR = "jaxsim/frames/inputs/bars_per_year.py"

NEAR_MISSES = test("gradients", "test_near_misses_side_by_side")
