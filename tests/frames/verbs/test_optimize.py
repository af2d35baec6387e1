"""`js.optimize`: an allocator asked on look-back ranges; and what can be done with `js.Allocations`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js

BARS = 240
INDEX = pd.date_range("2021-01-01", periods=BARS, freq="6h", name="time")
PAIRS = [("x", "A"), ("x", "B"), ("y", "A"), ("y", "B"), ("y", "C")]
COLUMNS = pd.MultiIndex.from_tuples(PAIRS, names=["case", "asset"])
_RNG = np.random.default_rng(3)
_ASSETS = pd.Index(list("ABC"), name="asset")
CLOSE = pd.DataFrame(100 * np.exp(_RNG.normal(0, [0.01, 0.02, 0.03], (BARS, 3)).cumsum(axis=0)), INDEX, _ASSETS)
OPEN = CLOSE.shift(1).bfill() * np.exp(_RNG.normal(0, 0.003, (BARS, 3)))
GROUPED = pd.concat({"x": CLOSE[["A", "B"]] * 2, "y": CLOSE}, axis=1, names=["case"])
COSTS = dict(fees=0.003, freq="6h")


class Inverse(eqx.Module):
    """Weights by a power of volatility, moved a little at random."""

    power: object = 1.0

    def __call__(self, obs):
        weights = obs.window().volatility() ** -self.power
        noise = jax.random.uniform(obs.key, weights.shape, jnp.float32).astype(weights.dtype)
        weights = weights * (1 + 0.1 * noise)
        return js.Allocation(weights / weights.sum(), aux={"noise": noise, "mean": obs.window().mean_return().mean()})


def by_volatility(obs):
    weights = 1 / obs.window().volatility()
    return weights / weights.sum()


def by_reference(close, allocator=by_volatility, **options):
    """A plan to be looked at, that needs no compiled program."""
    return js.optimize(close, allocator, engine="reference", **options)


def swept(**options):
    return js.optimize(
        GROUPED,
        Inverse(js.grid(power=[0.5, 1.0, 2.0])),
        every=js.grid(every=["W", "4D"]),
        lookback=js.grid(lookback=["5D", "8D"]),
        key=3,
        **options,
    )


@pytest.fixture(scope="module")
def plan():
    return swept()


def test_lanes_and_ranges(plan):
    assert list(plan.lanes.names) == ["every", "lookback", "power", "case"]
    assert len(plan.lanes) == 2 * 2 * 3 * 2
    ranges = plan.ranges
    assert list(ranges.columns) == ["id", "col", "range_start", "range_end", "alloc_idx"]
    assert (ranges.dtypes == np.int64).all()
    assert (ranges["range_end"] == ranges["alloc_idx"]).all()
    lookback = plan.lanes.get_level_values("lookback").take(ranges["col"])
    bars = np.where(lookback == "5D", 20, 32)
    np.testing.assert_array_equal(ranges["range_end"] - ranges["range_start"], bars)
    one = js.index_ranges(INDEX, every="4D", lookback="8D")
    of_lane = ranges[ranges["col"] == list(plan.lanes).index(("4D", "8D", 1.0, "y"))]
    np.testing.assert_array_equal(of_lane[one.columns], one)


def test_a_weight_is_what_the_allocator_makes_of_the_range():
    plan = js.optimize(CLOSE, by_volatility, every="W")
    for number, (start, end) in enumerate(plan.ranges[["range_start", "range_end"]].to_numpy()):
        expected = 1 / CLOSE.iloc[start:end].pct_change().std()
        np.testing.assert_allclose(plan.targets[number], expected / expected.sum(), rtol=1e-12)


@pytest.mark.parametrize("other", [{"engine": "reference"}, {"pad": False}])
def test_engines_and_padding_agree(plan, other):
    same = swept(**other)
    np.testing.assert_allclose(same.targets, plan.targets, rtol=1e-12)
    pd.testing.assert_frame_equal(same.ranges, plan.ranges)
    np.testing.assert_array_equal(same.aux["noise"], plan.aux["noise"])
    np.testing.assert_allclose(same.aux["mean"], plan.aux["mean"], rtol=1e-9, atol=1e-18)


def test_a_lane_draws_alone_what_it_draws_among_others(plan):
    alone = js.optimize(
        GROUPED["y"].set_axis(pd.MultiIndex.from_product([["y"], list("ABC")], names=["case", "asset"]), axis=1),
        Inverse(js.grid(power=[2.0])),
        every=js.grid(every=["4D"]),
        lookback=js.grid(lookback=["8D"]),
        key=3,
    )
    np.testing.assert_allclose(alone.targets, plan["4D", "8D", 2.0, "y"].targets, rtol=1e-12)


def test_lanes_that_share_ranges_draw_each_its_own():
    many = js.optimize(CLOSE, Inverse(1.0), every="MS", key=js.grid(key=range(11)))
    for key in (0, 7, 8, 10):
        alone = js.optimize(CLOSE, Inverse(1.0), every="MS", key=js.grid(key=[key]))
        np.testing.assert_allclose(many[key].targets, alone.targets, rtol=1e-12)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_draws_are_those_of_jax(impl):
    keys = jax.random.wrap_key_data(jax.random.bits(jax.random.key(0), (3, 4 if impl == "rbg" else 2)), impl=impl)
    ours = jax.vmap(lambda key, n: js.random.uniform(js.random.fold_in(key, n), (5, 2)))
    theirs = jax.vmap(lambda key, n: jax.random.uniform(jax.random.fold_in(key, n), (5, 2), jnp.float32))
    np.testing.assert_array_equal(ours(keys, jnp.arange(3)), theirs(keys, jnp.arange(3)))


def test_the_future_changes_nothing():
    changed = GROUPED.copy()
    changed.iloc[140:] *= np.random.default_rng(0).uniform(0.5, 2, changed.iloc[140:].shape)
    options = dict(every="W", lookback=js.grid(lookback=[10, 30]), key=1)
    plan, other = (js.optimize(close, Inverse(1.0), **options) for close in (GROUPED, changed))
    before = plan.bar <= 140
    assert 0 < before.sum() < len(plan)
    np.testing.assert_array_equal(plan.targets[before], other.targets[before])
    assert not np.allclose(plan.targets[~before], other.targets[~before], equal_nan=True)


def test_the_account_is_untouched():
    seen = []

    def record(obs):
        seen.append(obs)
        return np.full(3, 1 / 3)

    features = pd.Series(np.arange(BARS), INDEX)
    js.optimize(CLOSE, record, on=INDEX[[50, 70]], open=OPEN, features=features, init_cash=7.0, engine="reference")
    (obs,) = seen
    assert (obs.step, obs.value, obs.cash, obs.free_cash, obs.features) == (70, 7.0, 7.0, 7.0, 70)
    assert not obs.units.any() and not obs.weights.any() and not obs.debt.any() and np.isnan(obs.target).all()
    np.testing.assert_array_equal(obs.val_price, OPEN.iloc[70])
    np.testing.assert_array_equal(obs.window().values, CLOSE.iloc[50:70])
    np.testing.assert_array_equal(obs.window(3).values, CLOSE.iloc[67:70])


def test_dates_by_label():
    plan = js.optimize(CLOSE, by_volatility, on={"late": INDEX[[200, 230]], "early": ["2021-01-10", "2021-01-20"]})
    assert list(plan.lanes) == ["late", "early"] and plan.lanes.name == "on"
    assert [plan["late"].bar.tolist(), plan["early"].bar.tolist()] == [[230], [76]]


def test_a_listing_in_the_range_and_one_after_it():
    close = CLOSE.copy()
    close.iloc[:100, 0] = np.nan

    def over_known(obs):
        known = ~jnp.isnan(obs.window().volatility())
        return known / known.sum()

    plan = js.optimize(close, over_known, every=40)
    held = plan.weights["A"] > 0
    np.testing.assert_array_equal(held, plan.bar > 100)


# --- trading a plan


@pytest.mark.parametrize("kind", ["threshold", "calendar", "fraction"])
def test_a_plan_with_a_trigger(kind):
    plan = by_reference(GROUPED, every=js.grid(every=["W", "8D"]))
    options = {
        "threshold": dict(trigger=js.Threshold(js.grid(threshold=[0.02, 0.05]))),
        "calendar": dict(trigger=js.Every("D") & js.Threshold(0.01)),
        "fraction": dict(trigger=js.Threshold(0.03), destination=js.Fraction(js.grid(fraction=[0.5, 1.0]))),
    }[kind]
    bt = js.replay(plan, GROUPED, **options, **COSTS)
    reference = js.replay(plan, GROUPED, engine="reference", **options, **COSTS)
    np.testing.assert_array_equal(bt.rebalances, reference.rebalances)
    np.testing.assert_allclose(bt.value, reference.value, rtol=1e-12)
    planned = js.replay(plan, GROUPED, engine="reference", **COSTS)
    counts = planned.num_rebalances().reindex(bt.num_rebalances().index.droplevel(-2) if kind != "calendar" else None)
    assert (bt.num_rebalances().to_numpy() > np.resize(counts, len(bt.num_rebalances()))).any()
    for (every, *_, case), of_lane in bt.rebalances.items():
        assert of_lane.iloc[plan[every, case].bar].all(), "it trades on all dates of the plan"


def test_nothing_trades_before_the_first_date():
    plan = js.Allocations.from_weights(pd.DataFrame(1 / 3, INDEX[[20, 60]], list("ABC")), INDEX)
    bt = js.replay(plan, CLOSE, trigger=js.Always(), **COSTS)
    np.testing.assert_array_equal(bt.rebalances, np.arange(BARS) >= 20)
    empty = js.replay(plan.filter(np.zeros(2, bool)), CLOSE, trigger=js.Always(), **COSTS)
    assert not empty.rebalances.to_numpy().any()


# --- tables, parts, files


def test_own_weights_trade_as_the_plan_they_are_from():
    plan = by_reference(CLOSE, every=js.grid(every=["W", "8D"]))
    own = js.Allocations.from_weights(plan.weights, INDEX)
    pd.testing.assert_frame_equal(own.weights, plan.weights)
    one, other = (js.replay(x, CLOSE, engine="reference", **COSTS) for x in (own, plan))
    np.testing.assert_array_equal(one.value, other.value)
    dense = plan["W"].weights.reindex(INDEX)
    np.testing.assert_array_equal(js.Allocations.from_weights(dense, INDEX).targets, plan["W"].targets)
    shuffled = js.Allocations.from_weights(plan.weights.sample(frac=1, random_state=0), INDEX)
    pd.testing.assert_frame_equal(shuffled["8D"].weights, plan["8D"].weights)


def test_parts_join_to_the_whole(plan):
    whole = js.Allocations.concat([plan.between("2021-02-01"), plan.between(None, "2021-01-31")])
    pd.testing.assert_frame_equal(whole.weights, plan.weights)
    pd.testing.assert_frame_equal(whole.ranges, plan.ranges)
    np.testing.assert_array_equal(whole.aux["mean"], plan.aux["mean"])


def test_lanes_side_by_side():
    one, other = (by_reference(CLOSE[list(x)], every="W") for x in ("AB", "BC"))
    both = js.Allocations.concat({"one": one, "other": other}, name="who")
    assert list(both.assets) == ["A", "B", "C"]
    for name, part in (("one", one), ("other", other)):
        pd.testing.assert_frame_equal(both[name].weights, part.weights)
        ours, theirs = (js.replay(x, CLOSE, engine="reference", **COSTS) for x in (both[name], part))
        np.testing.assert_array_equal(ours.value, theirs.value)


def test_some_of_the_allocations(plan):
    few = plan.filter(lambda weights: weights["A"] > 0.4)
    assert 0 < len(few) < len(plan)
    pd.testing.assert_frame_equal(few.weights, plan.weights[plan.weights["A"] > 0.4])
    assert few.lanes.equals(plan.lanes)


@pytest.mark.parametrize("which", ["swept", "one lane", "orders", "time zone"])
def test_files_bring_back_what_was_saved(plan, which, tmp_path):
    if which == "swept":
        before = plan
    elif which == "one lane":
        before = by_reference(CLOSE, every="W")
    elif which == "time zone":
        before = by_reference(CLOSE.tz_localize("Europe/Berlin"), every=js.grid(every=["W"]))
    else:
        size = pd.DataFrame(0.1, INDEX, CLOSE.columns).where(np.tile(np.arange(BARS)[:, None] % 50 == 0, 3))
        before = js.backtest(CLOSE, size=size, direction="long_only", size_type="value", engine="reference").allocations
    before.save(tmp_path / "plan.parquet")
    after = js.Allocations.load(tmp_path / "plan.parquet")
    pd.testing.assert_frame_equal(after.weights, before.weights)
    pd.testing.assert_frame_equal(after.records, before.records)
    assert after.index.equals(before.index) and after.num_group_levels == before.num_group_levels
    np.testing.assert_array_equal(after.is_member, before.is_member)
    for name in ("size_type", "direction", "sequence", "range_start"):
        one, other = getattr(before, name), getattr(after, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(other, one)
    assert {n: x.shape for n, x in after.aux.items()} == {n: x.shape for n, x in before.aux.items()}
    assert [x.name for x in tmp_path.iterdir()] == ["plan.parquet"]


# --- misuse


def nan_on_the_third(obs):
    return jnp.where(obs.step >= 80, jnp.nan, jnp.full(obs.num_assets, 1 / obs.num_assets))


def fails(obs):
    raise RuntimeError("no solution")


class Stateful:
    def init(self, num_assets):
        return 0

    def __call__(self, obs, state):
        return obs.weights, state


PLAN = js.Allocations.from_weights(pd.DataFrame(1 / 3, INDEX[[20, 60]], list("ABC")), INDEX)
TABLE = PLAN.weights
MISUSE = {
    "no schedule": (lambda: js.optimize(CLOSE, by_volatility), ValueError, "every: "),
    "two schedules": (lambda: js.optimize(CLOSE, by_volatility, every="W", on=INDEX[[3]]), ValueError, "every: "),
    "no allocator": (lambda: js.optimize(CLOSE, 3, every="W"), TypeError, "allocator: expected an allocation function"),
    "a class": (lambda: js.optimize(CLOSE, Inverse, every="W"), TypeError, "allocator: Inverse is a class"),
    "a state": (lambda: js.optimize(CLOSE, Stateful(), every="W"), TypeError, "allocator: Stateful keeps a state"),
    "an engine": (lambda: js.optimize(CLOSE, by_volatility, every="W", engine="gpu"), ValueError, "engine: "),
    "padding": (lambda: js.optimize(CLOSE, by_volatility, every="W", pad=1), TypeError, "pad: "),
    "progress": (lambda: js.optimize(CLOSE, by_volatility, every="W", progress="yes"), TypeError, "progress: "),
    "a lookback": (lambda: js.optimize(CLOSE, by_volatility, every="W", lookback=0), ValueError, "lookback: "),
    "a swept lookback": (
        lambda: js.optimize(CLOSE, by_volatility, every="W", lookback=js.grid(lookback=[5, -1])),
        ValueError,
        "lookback: ",
    ),
    "weights that are NaN": (
        lambda: js.optimize(GROUPED, nan_on_the_third, every=js.grid(every=[40])),
        js.AllocationError,
        "allocator nan_on_the_third: .*every=40, case='x', asset 'A', bar 80, 2021-01-21",
    ),
    "an exception": (
        lambda: js.optimize(CLOSE, fails, every=js.grid(every=[40]), engine="reference"),
        js.AllocatorError,
        r"allocator fails raised RuntimeError: no solution \(every=40, bar 40, 2021-01-11",
    ),
    "the wrong length": (
        lambda: js.optimize(CLOSE, lambda obs: jnp.ones(2), every=9),
        ValueError,
        "allocator .*shape",
    ),
    "a window": (
        lambda: js.backtest(CLOSE, by_volatility),
        ValueError,
        r"obs.window\(length\): there is no look-back range",
    ),
    "no ranges": (lambda: PLAN.ranges, ValueError, "ranges: "),
    "no table": (lambda: js.Allocations.from_weights(3, INDEX), TypeError, "weights: "),
    "a time": (
        lambda: js.Allocations.from_weights(TABLE.shift(9, "s"), INDEX),
        ValueError,
        "weights: .*not in",
    ),
    "twice": (lambda: js.Allocations.from_weights(pd.concat([TABLE, TABLE]), INDEX), ValueError, "weights: .*twice"),
    "infinite": (lambda: js.Allocations.from_weights(TABLE * np.inf, INDEX), ValueError, "weights: expected finite"),
    "text": (lambda: js.Allocations.from_weights(TABLE.astype(str), INDEX), TypeError, "weights: the column 'A'"),
    "overlap": (lambda: js.Allocations.concat([PLAN, PLAN]), ValueError, "parts: a lane has two"),
    "no parts": (lambda: js.Allocations.concat([]), TypeError, "parts: "),
    "no name": (lambda: js.Allocations.concat({"a": PLAN}), ValueError, "name: "),
    "a mask of numbers": (lambda: PLAN.filter(np.ones(2)), TypeError, "keep: "),
    "a short mask": (lambda: PLAN.filter(np.ones(1, bool)), ValueError, "keep: "),
    "a trigger": (lambda: js.replay(PLAN, CLOSE, trigger=0.05), TypeError, "trigger: "),
    "a destination": (lambda: js.replay(PLAN, CLOSE, destination=0.5), TypeError, "destination: "),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse(case):
    call, error, message = MISUSE[case]
    with pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize("run", [js.optimize, js.backtest])
def test_what_is_raised_while_compiling_says_so(run):
    options = dict(every=js.grid(every=[40])) if run is js.optimize else dict(fees=js.grid(fees=[0.1]))
    with pytest.raises(RuntimeError, match=r"^no solution") as info:
        run(CLOSE, fails, **options)
    note = info.value.__notes__[-1]  # JAX has one of its own
    first = "every=40, bar 40, 2021-01-11" if run is js.optimize else "fees=0.1"
    assert "allocator fails was compiled for all" in note and f"the first of them: {first}" in note


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "x.parquet"
    TABLE.to_parquet(path)
    with pytest.raises(ValueError, match="holds no allocations"):
        js.Allocations.load(path)


@pytest.mark.parametrize("allocator", [al.InverseVolatility(), al.RiskParity(), al.EqualWeight()])
def test_allocators_without_numbers(allocator):
    plan, judge = (js.optimize(GROUPED, allocator, every="W", lookback=20, engine=x) for x in ("compiled", "reference"))
    assert len(plan) == len(judge) > 10
    np.testing.assert_allclose(plan.targets, judge.targets, rtol=1e-9)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.parametrize("when", [dict(on=INDEX[[3]]), dict(every="MS", lookback=js.grid(lookback=[500, 600]))])
def test_a_plan_without_any_range_is_empty(when, engine):
    plan = js.optimize(GROUPED, by_volatility, engine=engine, **when)
    assert len(plan) == 0
    assert plan.weights.shape == (0, 3)
    assert (js.replay(plan, GROUPED, freq="6h", engine=engine).value == 100).all().all()


def test_durations_of_all_kinds_are_durations():
    for days in ("2D", pd.Timedelta("2D"), np.timedelta64(2, "D"), np.timedelta64(48 * 3600 * 10**9, "ns")):
        np.testing.assert_array_equal(js.index_points(INDEX, every=days), np.arange(0, BARS, 8))
        ranges = js.index_ranges(INDEX, every=8, lookback=days)
        np.testing.assert_array_equal(ranges["range_start"], np.arange(0, BARS - 8, 8))
    named = by_reference(CLOSE, every=16, lookback=js.grid(lookback=["2D", "4D"]))
    plain = by_reference(CLOSE, every=16, lookback=js.grid(lookback=pd.to_timedelta(["2D", "4D"])))
    np.testing.assert_array_equal(named.targets, plain.targets)


def test_files_keep_what_allocators_hand_out(tmp_path):
    def allocator(obs):
        aux = {"score": obs.value, "late": obs.step > 100, "few": jnp.int8(obs.step), "none": jnp.zeros((0, 2))}
        return js.Allocation(by_volatility(obs), aux=aux | {"single": obs.val_price.astype(jnp.float32)[:2]})

    plan = js.optimize(CLOSE, allocator, every="W")
    for some in (plan, plan.filter(np.zeros(len(plan), bool))):
        some.save(tmp_path / "plan.parquet")
        again = js.Allocations.load(tmp_path / "plan.parquet")
        for name, array in some.aux.items():
            np.testing.assert_array_equal(again.aux[name], array, strict=True)
    assert len(plan.filter(plan.aux["late"])) < len(plan)


@pytest.mark.parametrize("freq", [pd.offsets.CustomBusinessDay(holidays=["2021-01-06"]), pd.DateOffset(days=2)])
def test_files_of_frequencies_whose_names_do_not_say_all(freq, tmp_path):
    close = CLOSE.set_axis(pd.date_range("2021-01-04", periods=BARS, freq=freq, name="time"))
    by_reference(close, every=50).save(tmp_path / "plan.parquet")
    assert js.Allocations.load(tmp_path / "plan.parquet").index.equals(close.index)


def test_parts_of_other_kinds_and_assets_trade_side_by_side():
    units = pd.DataFrame([[0.2, 0.1]], INDEX[:1], columns=["A", "B"]).reindex(INDEX)
    options = dict(freq="6h", engine="reference")
    amounts = js.backtest(CLOSE[["A", "B"]], size=units, size_type="target_amount", **options).allocations
    weights = js.Allocations.from_weights(pd.DataFrame({"C": [0.5], "A": [0.2]}, INDEX[[3]]), INDEX)
    both = js.replay(js.Allocations.concat({"amounts": amounts, "weights": weights}, name="kind"), CLOSE, **options)
    for kind, alone in (("amounts", amounts), ("weights", weights)):
        np.testing.assert_array_equal(both[kind].value, js.replay(alone, CLOSE, **options).value)


def test_weights_for_an_asset_that_its_group_lacks():
    rows = pd.MultiIndex.from_tuples([("x", INDEX[2]), ("y", INDEX[2])], names=["case", "time"])
    weights = pd.DataFrame({"A": [0.2, 0.3], "C": [0.8, 0.7]}, rows)
    with pytest.raises(ValueError, match="close has no column for 'C' in group 'x'"):
        js.replay(js.Allocations.from_weights(weights, INDEX), GROUPED)
    weights.loc[("x", INDEX[2]), "C"] = np.nan
    own = js.Allocations.from_weights(weights, INDEX)
    assert len(js.replay(own, GROUPED, freq="6h", engine="reference").orders) == 3


def test_labels_that_cannot_be_lanes():
    rows = pd.MultiIndex.from_arrays([[np.nan, 1.0], INDEX[[3, 5]]], names=["k", "time"])
    with pytest.raises(ValueError, match="a label of level 'k' is missing"):
        js.Allocations.from_weights(pd.DataFrame({"A": [1.0, 0.5]}, rows), INDEX)
    rows = pd.MultiIndex.from_arrays([[0, 1], [0, 1], INDEX[[3, 5]]], names=["k", "k", "time"])
    with pytest.raises(ValueError, match="two levels of the rows are named 'k'"):
        js.Allocations.from_weights(pd.DataFrame({"A": [1.0, 0.5]}, rows), INDEX)
