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
from dataclasses import dataclass
from pathlib import Path

from tools import outside_data

ROOT = Path(__file__).resolve().parents[1]
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

MUTANTS = [
    # --- arithmetic
    Mutant(
        "add-no-snap",
        "balances that cancel are not snapped to zero",
        NUMERICS,
        "return where(cancels, 0.0, total)",
        "return total",
        test("numerics", "test_add_snaps_what_cancels"),
    ),
    Mutant(
        "dust-kept",
        "dust is not snapped to zero",
        NUMERICS,
        "return where(jnp.abs(x) <= ABS_TOL, 0.0, x)",
        "return x + 0.0",
        test("numerics", "test_dust_is_snapped"),
    ),
    Mutant(
        "product-contracted",
        "a product without its guard: XLA fuses it with the sum",
        NUMERICS,
        "return where(x == 0, x, where(y == y, x * y, y))",
        "return x * jnp.nan_to_num(y)",
        test("numerics", "test_product_is_not_contracted_into_what_it_is_added_to"),
    ),
    Mutant(
        "constant-contracted",
        "a product whose guard is known at compile time, where the weight is",
        NUMERICS,
        "return where(x == 0, x, where(y == y, x * y, y))",
        "return where(x == 0, x, x * y)",
        test("numerics", "test_constants_are_not_contracted_either"),
    ),
    Mutant(
        "quotient-plain",
        "a quotient that XLA may merge with the next",
        NUMERICS,
        "return where(is_zero, x, where(y == y, x / where(is_zero, 1.0, y), y))",
        "return x / y",
        test("numerics", "test_quotient_is_not_merged_with_another_division"),
    ),
    Mutant(
        "sum-from-the-right",
        "the account is summed from the last asset to the first",
        NUMERICS,
        "(x, y), unroll=unroll)[0]",
        "(x, y), unroll=unroll, reverse=True)[0]",
        test("numerics", "test_dot_sums_left_to_right_inside_a_loop"),
    ),
    Mutant(
        "parameter-of-next-bar",
        "thresholds and fees by bar are read one bar late",
        NUMERICS,
        "lax.dynamic_index_in_dim(x, step, keepdims=False)",
        "lax.dynamic_index_in_dim(x, step + 1, keepdims=False)",
        parity(3),
    ),
    Mutant(
        "any-lane-means-all",
        "a rebalance happens only where all lanes ask for one",
        NUMERICS,
        "lax.pmax(flag.astype(jnp.int32)",
        "lax.pmin(flag.astype(jnp.int32)",
        parity(0),
    ),
    # --- when to trade
    Mutant(
        "threshold-strict",
        "a drift of exactly the threshold does not trigger",
        "jaxsim/engine/policy/drift_triggers.py",
        "self._drift(obs) >= at_bar(",
        "self._drift(obs) > at_bar(",
        EXACT_DRIFT,
    ),
    Mutant(
        "nan-triggers",
        "an asset without a price or target triggers",
        "jaxsim/engine/policy/drift_triggers.py",
        "return (self._drift(obs) >= at_bar(self.threshold, obs.step)).any()",
        "return (~(self._drift(obs) < at_bar(self.threshold, obs.step))).any()",
        test("triggers", "test_a_trigger_is_its_formula"),
    ),
    Mutant(
        "history-off-by-one",
        "the first trade comes a bar after min_history",
        STEP,
        "(obs.step >= policy.min_history)",
        "(obs.step > policy.min_history)",
        parity(0),
    ),
    Mutant(
        "flat-only-once",
        "a flat portfolio is not asked again after its first allocation",
        STEP,
        "must = is_flat(obs.units) if",
        "must = jnp.all(jnp.isnan(obs.target)) if",
        parity(0, 1),
    ),
    Mutant(
        "present-weight-remembered",
        "the present weights are remembered as targets, not those asked for",
        STEP,
        "return LaneState(holdings, target, memory, status, last_fills, spread, entries), event",
        "return LaneState(holdings, obs.weights, memory, status, last_fills, spread, entries), event",
        parity(0),
    ),
    Mutant(
        "leverage-normalised",
        "weights that sum to more than one are scaled down",
        "jaxsim/engine/bar/request.py",
        "return Request(size, size_type,",
        "return Request(size / jnp.maximum(jnp.nansum(size), 1.0), size_type,",
        parity(1, 0),
    ),
    Mutant(
        "edge-is-reached",
        "a trade to the edge ends on the limit itself, which is a breach",
        DESTINATIONS,
        "inside = 1 - max(REL_TOL, 16 * float(xp.finfo(target.dtype).eps))",
        "inside = 1.0",
        test("destinations", "test_an_asset_at_its_edge_does_not_set_it_off_again"),
    ),
    Mutant(
        "edge-beside",
        "the shift that leads to the edge is looked for between the wrong points",
        DESTINATIONS,
        "(sums < total).sum(), 1,",
        "(sums < total).sum() + 1, 1,",
        test("destinations", "test_the_edge_is_the_nearest_point_of_the_band"),
    ),
    Mutant(
        "parts-too-small",
        "the parts of a spread rebalance are those of one with a part more",
        DESTINATIONS,
        "left.astype(end.dtype))",
        "(left + 1).astype(end.dtype))",
        test("destinations", "test_spread_rebalances_are_replayed", "test_numbers_are_swept"),
    ),
    Mutant(
        "asked-on-the-way",
        "a rebalance begins anew at each of its parts",
        STEP,
        "is_decision = ~lane.is_on_its_way",
        "is_decision = lane.is_on_its_way | True",
        test("destinations", "test_spread_rebalances_are_replayed", "test_numbers_are_swept"),
    ),
    Mutant(
        "parts-are-decisions",
        "every part of a spread rebalance is listed as an allocation",
        "jaxsim/frames/results/ledger.py",
        "np.flatnonzero(self.is_decision)",
        "np.arange(len(self.bar))",
        test("destinations", "test_equal_parts_by_hand"),
    ),
    Mutant(
        "idle-lanes-trade",
        "where one lane trades, its neighbours are rebalanced too",
        STEP,
        "where(trades, new, old)",
        "where(True, new, old)",
        test("schedules", "test_looking_ahead_equals_the_scan[drawn weights]"),
    ),
    # --- orders
    Mutant(
        "orders-by-column",
        "orders are executed column by column",
        ORDERS,
        "CallOrder(where(can_size & ~jnp.isnan(value), worth, jnp.nan))",
        "CallOrder(where(can_size & ~jnp.isnan(value), 0.0, jnp.nan))",
        parity(0),
    ),
    Mutant(
        "orders-descending",
        "buys come before sells",
        ORDERS,
        "CallOrder(where(can_size & ~jnp.isnan(value), worth, jnp.nan))",
        "CallOrder(where(can_size & ~jnp.isnan(value), -worth, jnp.nan))",
        parity(0),
    ),
    Mutant(
        "ties-last-first",
        "orders of equal value are executed from the last column",
        "jaxsim/engine/trading/call_sequence.py",
        "(other == mine) & earlier",
        "(other == mine) & later",
        test("numerics", "test_call_order_is_a_stable_sort_with_nan_last_and_reversed[2]"),
    ),
    Mutant(
        "sell-fee-dropped",
        "sells pay no fees",
        ORDERS,
        "    sell_fees = product(amount, order.fees)",
        "    sell_fees = jnp.zeros_like(amount)",
        parity(1),
    ),
    Mutant(
        "fee-not-in-bill",
        "whether a buy fits the cash is judged without its fees",
        ORDERS,
        "fits = le(bill, cash)",
        "fits = le(amount, cash)",
        parity(1),
    ),
    Mutant(
        "buy-not-cut",
        "a buy beyond the cash is filled in full",
        ORDERS,
        "bought = where(fits, size, quotient(affordable, order.price))",
        "bought = size",
        parity(1),
    ),
    Mutant(
        "cash-left-over",
        "a cut buy leaves its fees in the cash account",
        ORDERS,
        "paid = where(fits, bill, cash)",
        "paid = where(fits, bill, affordable)",
        parity(1),
    ),
    Mutant(
        "sized-at-fill-price",
        "orders are sized at the price they fill at",
        ORDERS,
        "request = quotient(safe_weights * safe_value, safe_val_price) - holdings.units",
        "request = quotient(safe_weights * safe_value, jnp.where(can_size, quote.price, 1.0)) - holdings.units",
        parity(0),
    ),
    # --- prices
    Mutant(
        "previous-close-for-open",
        "the account is valued at the previous close although there is an open",
        PRICES,
        "known[0::2] = np.nan if open is None else open",
        "known[0::2] = np.nan",
        test("orders", "test_sized_at_the_open_filled_at_the_close_by_hand"),
    ),
    Mutant(
        "close-for-open",
        "the account is valued at the close of the bar that is still to come",
        "jaxsim/frames/inputs/market.py",
        "lambda ffill: valuation_prices(close, open, bool(ffill))",
        "lambda ffill: prices.mark",
        test("properties", "test_a_bar_does_not_see_its_own_close"),
    ),
    Mutant(
        "nan-close-fills",
        "an order on a bar without a close fills at the last one",
        PRICES,
        "    if price is None:\n        return close\n",
        "    if price is None:\n        return mark_prices(close, open)\n",
        test("missing_prices", "test_without_a_close_nothing_fills"),
    ),
    Mutant(
        "open-not-filled",
        "where the open is missing an asset has no valuation price",
        PRICES,
        "return forward_fill(_half_bars(close, open))[0::2]",
        "return forward_fill(_half_bars(close, open))[0::2] if open is None else open",
        test("missing_prices", "test_without_an_open_the_last_price_values"),
    ),
    Mutant(
        "marked-at-open",
        "values are marked at the open",
        PRICES,
        "    mark = forward_fill(close)\n",
        "    mark = forward_fill(close if open is None else open)\n",
        GOLDEN,
    ),
    # --- what a policy sees
    Mutant(
        "window-sees-this-close",
        "the window includes the close of the present bar",
        "jaxsim/engine/policy/observation.py",
        "bars = self.step - length + xp.arange(length)",
        "bars = self.step - length + 1 + xp.arange(length)",
        test("reference", "test_observation"),
    ),
    Mutant(
        "window-repeats-first-bar",
        "the window repeats the first close before it, instead of NaN",
        "jaxsim/engine/policy/observation.py",
        "Window(xp.where((bars >= start)[:, None], rows, xp.nan))",
        "Window(rows)",
        test("allocators", "test_a_window_is_nan_before_the_first_bar"),
    ),
    Mutant(
        "key-of-every-bar-the-same",
        "obs.key does not depend on the bar",
        "jaxsim/engine/bar/lane_state.py",
        "key=None if key is None else fold_in(key, step)",
        "key=key",
        test("properties", "test_the_lane_key_is_the_documented_hash"),
    ),
    Mutant(
        "key-by-position",
        "a lane draws by its number, not by its labels",
        "jaxsim/frames/inputs/random_keys.py",
        'np.array([int.from_bytes(digest[:4], "big") for digest in digests], np.uint32)',
        "np.arange(len(list(digests)), dtype=np.uint32)",
        test("properties", "test_random_draws_depend_on_labels_not_on_position"),
    ),
    Mutant(
        "key-of-every-lane-the-same",
        "programs do not fold the labels of a lane into its key",
        "jaxsim/engine/bar/lanes.py",
        "(jnp.uint32(0), words[2])",
        "(jnp.uint32(0), 0 * words[2])",
        test("properties", "test_the_lane_key_is_the_documented_hash"),
    ),
    Mutant(
        "score-of-a-failed-lane",
        "js.score tells metrics of a lane that has failed",
        "jaxsim/engine/score.py",
        "jnp.where(status.fault == LaneFault.NONE, x, jnp.nan)",
        "x",
        test("score", "test_a_lane_that_fails_is_nan"),
    ),
    Mutant(
        "key-by-order-of-levels",
        "the key depends on the order of the levels",
        "jaxsim/frames/inputs/random_keys.py",
        "sorted(range(lanes.nlevels), key=lanes.names.__getitem__)",
        "range(lanes.nlevels)",
        test("properties", "test_several_levels_hash_sorted_by_name"),
    ),
    # --- schedules
    Mutant(
        "bar-after-event-skipped",
        "NextEvent does not look at the bar after a rebalance",
        LOOK_AHEAD,
        "some_seen = jnp.where(due, lanes.at + 1, lanes.seen)",
        "some_seen = jnp.where(due, lanes.at + 2, lanes.seen)",
        LOOKING,
    ),
    Mutant(
        "last-block-shifted",
        "NextEvent's last block sees the prices of other bars",
        "jaxsim/engine/schedules/sinks.py",
        "start = jnp.minimum(bar, num_bars - size)",
        "start = bar",
        LOOKING,
    ),
    Mutant(
        "screening-too-sure",
        "a look at many bars leaves out those at which the trigger fires by a hair",
        "jaxsim/engine/policy/screening.py",
        "return (width * (1 - slack) - slack) * jnp.abs(self.value)",
        "return width * (1 + slack) * jnp.abs(self.value)",
        test("schedules", "test_screening_misses_nothing"),
    ),
    Mutant(
        "slots-put-back-elsewhere",
        "a lane that was rebalanced in a slot gets another lane's holdings",
        PLACES,
        "((new, slot), (old, lane))",
        "((new, jnp.maximum(slot - 1, 0)), (old, lane))",
        LOOKING,
    ),
    Mutant(
        "slots-put-back-elsewhere-at-once",
        "the same where one kernel is not possible",
        PLACES,
        "jnp.take(new, self.slot, axis=axis",
        "jnp.take(new, jnp.maximum(self.slot - 1, 0), axis=axis",
        test("schedules", "test_looking_ahead_in_many_kernels_equals_the_scan"),
    ),
    Mutant(
        "screening-of-the-last-drift",
        "screening looks at the last asset's drift alone",
        "jaxsim/engine/policy/screening.py",
        "return jnp.where(term > most, term, most)",
        "return term",
        test("schedules", "test_screening_misses_nothing"),
    ),
    Mutant(
        "values-before-the-rebalance",
        "a value that metrics are made of has the units of before the rebalance of its bar",
        LOOK_AHEAD,
        "return block.by_bar(block.bars, seen.ndim) >= seen - 1",
        "return block.by_bar(block.bars, seen.ndim) >= seen",
        LOOKING,
    ),
    Mutant(
        "page-skips-a-bar",
        "Scan leaves out the bar between two blocks",
        "jaxsim/engine/schedules/bar_by_bar.py",
        "return Cursor(lane, cursor.seen, after), sink.finish(block, end)",
        "return Cursor(lane, cursor.seen, after + 1), sink.finish(block, end)",
        tuple(f"{name}[scan]" for name in SCHEDULES),
    ),
    Mutant(
        "full-page-loses-a-row",
        "the last row of every page is lost",
        SCHEDULE,
        "np.asarray(rows.traded)[:count]",
        "np.asarray(rows.traded)[: count - 1]",
        LOOKING,
    ),
    # --- lanes and their labels
    Mutant(
        "first-level-fastest",
        "the product has its first level fastest",
        SWEEP_AXES,
        "np.unravel_index(combinations, shape)[",
        'np.unravel_index(combinations, shape, order="F")[',
        test("lanes", "test_product_has_its_last_level_fastest"),
    ),
    Mutant(
        "labels-shuffled",
        "lanes run with the values of other labels",
        SWEEP_AXES,
        "return labels[self._places(axis, combinations)]",
        "return labels[::-1][self._places(axis, combinations)]",
        PURE_CORE,
    ),
    Mutant(
        "groups-labelled-outermost",
        "labels have the groups outermost, lanes innermost",
        "jaxsim/frames/inputs/lanes.py",
        "Level(labels, np.tile(np.arange(groups), combinations))",
        "Level(labels, np.repeat(np.arange(groups), combinations))",
        test("lanes", "test_a_group_is_what_it_is_alone"),
    ),
    Mutant(
        "neighbour-selected",
        "selecting a lane gives the one after it",
        LANES,
        "return np.flatnonzero(chosen), _drop_levels(",
        "return np.flatnonzero(np.roll(chosen, 1)), _drop_levels(",
        test(
            "lanes",
            "test_a_scalar_drops_the_first_level",
            "test_a_tuple_drops_the_leading_levels",
            "test_a_group_is_what_it_is_alone",
        ),
    ),
    Mutant(
        "fees-of-first-group",
        "every group gets the fees and thresholds of the first",
        "jaxsim/frames/inputs/parameters.py",
        "_columns(array, members[g], self.columns) for g in groups]",
        "_columns(array, members[groups[0]], self.columns) for g in groups]",
        parity(1),
    ),
    Mutant(
        "asset-columns-sorted",
        "asset tables are labelled in another order than they are filled",
        "jaxsim/frames/results/labelled.py",
        "layout.assets.take(np.concatenate(self.paths.lane_columns))",
        "layout.assets.take(np.sort(np.concatenate(self.paths.lane_columns)))",
        test("lanes", "test_only_existing_pairs_of_group_and_asset"),
    ),
    Mutant(
        "path-a-bar-late",
        "paths show a rebalance one bar after it happened",
        "jaxsim/frames/results/ledger.py",
        "begins[events] = bar\n",
        "begins[events] = np.minimum(bar + 1, num_bars - 1)\n",
        test("spans", "test_paths_are_those_of_a_loop_over_bars"),
    ),
    Mutant(
        "blocks-lose-a-lane",
        "metrics of many lanes leave out the last of each block",
        "jaxsim/engine/metrics/rolling.py",
        "x[:, begin : begin + lanes]",
        "x[:, begin : begin + max(1, lanes - 1)]",
        test("metrics", "test_lanes_in_blocks"),
    ),
    Mutant(
        "constants-in-a-kernel",
        "XLA may move constants into a marked call, and then aborts",
        "jaxsim/engine/schedules/xla_kernel.py",
        "arrays, state = lax.optimization_barrier((arrays, loop.state))",
        "arrays, state = arrays, loop.state",
        test("score", "test_programs_all_of_whose_numbers_are_constants"),
    ),
    Mutant(
        "order-ids-global",
        "orders are numbered across lanes",
        "jaxsim/frames/results/records/record_tables.py",
        "np.arange(len(self.lane)) - np.searchsorted(self.lane, self.lane)",
        "np.arange(len(self.lane))",
        test("lanes", "test_orders_of_many_lanes"),
    ),
    # --- replay
    Mutant(
        "replay-sells-what-was-skipped",
        "a replay sells assets that were left alone",
        GIVEN,
        "return Allocation(weights, skip=skip, size_type",
        "return Allocation(jnp.nan_to_num(weights), size_type",
        test("replay", "test_a_replay_acts_at_the_recorded_bars_on_the_recorded_assets"),
    ),
    Mutant(
        "replay-trades-when-flat",
        "a replay trades on every bar on which it holds nothing",
        GIVEN,
        "Policy(targets, when, trades_when_flat=False",
        "Policy(targets, when, trades_when_flat=True",
        test("replay", "test_a_replay_that_holds_nothing_waits_for_the_next_date"),
    ),
    # --- scores
    Mutant(
        "sharpe-ddof-0",
        "the Sharpe ratio divides by the biased standard deviation",
        METRICS,
        "per_bar = ratio(mean(excess, known), nanstats.std(excess, known, ddof))",
        "per_bar = ratio(mean(excess, known), nanstats.std(excess, known, 0))",
        GOLDEN,
    ),
    Mutant(
        "lot-beyond-the-cash",
        "a lot that a hair is missing for is bought with cash that is not there",
        "jaxsim/engine/base/numerics.py",
        "return x > limit + 4 * jnp.finfo(limit.dtype).eps * jnp.abs(limit)",
        "return x > limit + 1e-6 * jnp.abs(limit)",
        test("fill_rules", "test_a_clause_by_hand"),
    ),
    Mutant(
        "lots-have-no-derivative",
        "what is rounded to lots has no derivative",
        "jaxsim/engine/base/numerics.py",
        "return rounded_to(*primals), tangents[0]",
        "return rounded_to(*primals), tangents[1]",
        test("orders", "test_lots_have_the_derivative_of_the_size"),
    ),
    Mutant(
        "rounding-is-risk",
        "a ratio is divided by what rounding left",
        "jaxsim/engine/metrics/nan_statistics.py",
        "return xp.abs(x) < ULPS * xp.finfo(x.dtype).eps",
        "return x == 0",
        test("metrics", "test_an_idle_lane_has_no_ratio"),
    ),
    Mutant(
        "idle-lane-is-a-trial",
        "lanes without a Sharpe ratio count among the trials",
        "jaxsim/engine/metrics/deflated.py",
        "is_trial = xp.isfinite(annual)",
        "is_trial = xp.isfinite(annual) | True",
        test("metrics", "test_lanes_without_a_ratio_are_no_trials"),
    ),
    Mutant(
        "capture-annualised",
        "up and down capture compare sums of logarithms, not means per bar",
        "jaxsim/engine/metrics/returns.py",
        "return xp.where(worst > 0, xp.expm1(mean_log)",
        "return xp.where(worst > 0, xp.expm1(mean_log * 252)",
        test("metrics", "test_capture_is_per_bar"),
    ),
    Mutant(
        "first-return-dropped",
        "the first return is against the first value, not the opening cash",
        METRICS,
        "before = xp.concatenate([first, value[:-1]])",
        "before = xp.concatenate([value[:1], value[:-1]])",
        test("metrics", "test_returns_from_value"),
    ),
    Mutant(
        "year-of-rows",
        "annualised with the number of rows instead of bars per year",
        BACKTEST,
        "return self._annual().needed()",
        "return float(len(self._index))",
        test("bars_per_year", "test_daily_stocks_have_252_bars_a_year"),
    ),
    Mutant(
        "year-of-weekdays",
        "days without weekends are 365 a year",
        BARS_PER_YEAR,
        "        if abs(step - DAY) <= pd.Timedelta(hours=1) and not on_weekends:",
        "        if False:",
        test("bars_per_year", "test_the_index_tells"),
    ),
    Mutant(
        "year-of-any-month",
        "every thirty days is a month",
        BARS_PER_YEAR,
        "            return YEAR / step if is_of_one_length else number",
        "            return number",
        test("bars_per_year", "test_the_index_tells"),
    ),
    Mutant(
        "drawdown-from-the-opening",
        "a loss on the first bar counts as a drawdown",
        METRICS,
        "nanstats.running_max(wealth)",
        "nanstats.running_max(xp.maximum(wealth, 1))",
        test("metrics", "test_the_first_bar_is_the_first_height"),
    ),
    Mutant(
        "turnover-two-way",
        "turnover counts buys and sells",
        BACKTEST,
        'self._paths.turnover_two_way / 2, "turnover")',
        'self._paths.turnover_two_way, "turnover")',
        test("lanes", "test_turnover_fees_and_counts_by_hand"),
    ),
    Mutant(
        "benchmark-by-price",
        "the benchmark holds one unit of each asset, not equal amounts",
        "jaxsim/frames/inputs/benchmark.py",
        "growth = self._mark / self._mark[bought]",
        "growth = self._mark / self._mark[bought].mean()",
        test("missing_prices", "test_the_benchmark_buys_equal_amounts_of_the_group"),
    ),
    Mutant(
        "benchmark-a-bar-late",
        "the benchmark is bought at the close of the first bar that counts, not of the bar before",
        "jaxsim/frames/inputs/benchmark.py",
        "bought = min(max(start - 1, 0), len(self._mark) - 1)",
        "bought = min(max(start, 0), len(self._mark) - 1)",
        test("start", "test_metrics_count_from_the_first_bar_that_may_trade"),
    ),
    Mutant(
        "sums-before-the-start",
        "running sums count the bar before the start",
        "jaxsim/engine/schedules/sinks.py",
        "is_new &= block.by_bar(block.bars, returns.ndim - 1) >= self.start",
        "is_new &= block.by_bar(block.bars, returns.ndim - 1) >= self.start - 1",
        test("start", "test_lanes_of_other_starts_are_told_alike_from_paths_and_from_sums"),
    ),
    Mutant(
        "benchmark-by-position",
        "returns of a benchmark are taken by position",
        "jaxsim/frames/results/scoring.py",
        'values = value.to_numpy(np.float64)[rows_of(value.index, index, "benchmark", of_returns=True)]',
        "values = value.to_numpy(np.float64)",
        test("benchmark", "test_returns_are_aligned_by_label"),
    ),
    # --- allocators, and the judge itself
    Mutant(
        "tradable-over-all",
        "EqualWeight(over='tradable') leaves cash for what is not listed",
        "allocators/naive.py",
        "jnp.where(tradable, 1.0 / jnp.maximum(tradable.sum(), 1), 0.0)",
        "jnp.where(tradable, 1.0 / count, 0.0)",
        test("allocators", "test_equal_weight_over_tradable_is_fully_invested"),
    ),
    Mutant(
        "reference-threshold-strict",
        "the reference engine asks for more than the threshold",
        "jaxsim/reference/lane.py",
        "drift[n] >= threshold[n]",
        "drift[n] > threshold[n]",
        EXACT_DRIFT,
    ),
    # --- orders of every kind
    *(
        Mutant(name, fault, FILL, old, new, test("orders", "test_single_orders_as_vectorbt"))
        for name, fault, old, new in (
            (
                "fixed-fee-forgotten",
                "a whole purchase pays no fixed fee",
                "whole_fees = product(cost, terms.fees) + terms.fixed",
                "whole_fees = product(cost, terms.fees)",
            ),
            (
                "slippage-for-free",
                "sales fill at the price without slippage",
                "price = product(price, 1 - terms.slippage)",
                "price = product(price, 1 + 0 * terms.slippage)",
            ),
            (
                "granules-rounded",
                "granules are rounded to the nearest",
                "jnp.floor_divide(size, grain)",
                "jnp.round(size / grain)",
            ),
            (
                "short-only-unsigned",
                "short-only does not turn the sign",
                "size = where(order.direction == Direction.SHORT_ONLY, -order.size, order.size)",
                "size = order.size",
            ),
            (
                "target-adds",
                "a target amount is added to the position",
                "amount = where(is_target, amount - units, amount)",
                "amount = where(is_target, amount, amount)",
            ),
            (
                "percent-of-all",
                "a percent order buys with all the cash",
                "jnp.minimum(limit, wish.share * limit)",
                "limit",
            ),
            (
                "max-size-rejects",
                "what exceeds max_size is rejected though parts are allowed",
                "(is_over & ~terms.allow_partial, Info.MAX_SIZE_EXCEEDED),\n            (is_long_only",
                "(is_over, Info.MAX_SIZE_EXCEEDED),\n            (is_long_only",
            ),
            (
                "min-size-strict",
                "a fill of exactly min_size is rejected",
                "(size < terms.min_size) & ~eq(size, terms.min_size)",
                "size <= terms.min_size",
            ),
            (
                "locked-cash-free",
                "locked cash buys with all cash",
                "limit = where(terms.lock_cash, locked, limit)",
                "limit = where(terms.lock_cash, cash, limit)",
            ),
            (
                "debt-not-released",
                "buying back releases half of the debt",
                "product(covered, quotient(debt, short))",
                "product(covered / 2, quotient(debt, short))",
            ),
            (
                "zero-fill-kept",
                "a part that granules round to nothing is filled",
                "(bought == 0, Info.SIZE_ZERO),",
                "(bought < 0, Info.SIZE_ZERO),",
            ),
            (
                "value-unmoved",
                "a fill does not move the value",
                "value = where(moves, value + (after.cash - pool.cash) + moved, value)",
                "value = value + 0 * moved",
            ),
        )
    ),
    Mutant(
        "nan-orders-forward",
        "orders of unknown value are executed from the first column",
        "jaxsim/engine/trading/call_sequence.py",
        "~jnp.isnan(other) | later",
        "~jnp.isnan(other) | earlier",
        test("numerics", "test_call_order_is_a_stable_sort_with_nan_last_and_reversed[5]"),
    ),
    Mutant(
        "debt-forgotten",
        "the closed form keeps no account of debt",
        ORDERS,
        "    debt = _debt_after(holdings, units, traded, price)\n",
        "    debt = holdings.debt\n",
        test("orders", "test_the_short_way_as_order_by_order"),
    ),
    # --- rebalances and near misses side by side, replays, draws, chunks
    Mutant(
        "near-misses-add-up-forever",
        "near misses before a rebalance count after it once more",
        "jaxsim/engine/adjoints/near_misses.py",
        "continues = jnp.arange(1, room + 1) > number_before[bars] + 1",
        "continues = jnp.arange(1, room + 1) > 1",
        NEAR_MISSES,
    ),
    Mutant(
        "near-misses-end-with-the-rebalance",
        "a rebalance starts from what is held without the near misses before it",
        "jaxsim/engine/adjoints/near_misses.py",
        "row = where(agenda.trades & (bar >= 0), self.last[bar], -1)",
        "row = where(agenda.trades & (bar < 0), self.last[bar], -1)",
        NEAR_MISSES,
    ),
    Mutant(
        "near-misses-on-the-wrong-holdings",
        "what a near miss adds is added to what was held one rebalance earlier",
        "jaxsim/engine/adjoints/near_misses.py",
        "events[self.agenda_row + 1] + misses",
        "events[self.agenda_row] + misses",
        NEAR_MISSES,
    ),
    Mutant(
        "recorded-first-again",
        "a replay trades its first allocation again and again",
        "jaxsim/engine/schedules/recorded_dates.py",
        "allocator=RecordedAllocation(targets, which)",
        "allocator=RecordedAllocation(targets, 0 * which)",
        test("replay", "test_the_same_portfolio_comes_out"),
    ),
    Mutant(
        "cohort-put-back-elsewhere",
        "between two pages, the lanes of a cohort are forgotten",
        "jaxsim/engine/schedules/recorded_dates.py",
        "lax.dynamic_update_slice_in_dim(y, x, cohort * self.size, 0)",
        "lax.dynamic_update_slice_in_dim(y, x, 0, 0)",
        test("replay", "test_lanes_of_unequal_number_go_in_cohorts"),
    ),
    Mutant(
        "label-beside-nan",
        "a level keeps labels that no lane has, where another lane has none",
        "jaxsim/frames/inputs/labels.py",
        "np.bincount(x + 1, minlength=len(y) + 1)[1:].all()",
        "len(np.unique(x)) == len(y)",
        test("lanes", "test_labels_are_those_that_pandas_makes_of_them"),
    ),
    Mutant(
        "draws-other-rounds",
        "random numbers are those of another number of rounds",
        "jaxsim/engine/base/random.py",
        "for turn in range(5):",
        "for turn in range(4):",
        test("optimize", "test_draws_are_those_of_jax"),
    ),
    Mutant(
        "chunks-share-what-is-swept",
        "a chunk of one combination takes the parameters of the chunk before",
        "jaxsim/frames/sweeps/chunk_metrics.py",
        'if self.num_chunks == 1 or outermost.name != "combination":',
        "if self.num_chunks == 1:",
        test("sweep", "test_chunks_of_groups"),
    ),
]


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
