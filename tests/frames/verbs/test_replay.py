"""`js.replay`: recorded targets traded again are the same portfolio, whatever shape they were recorded in."""

import warnings

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.schedules.next_event import NextEvent
from tests.helpers import markets
from tests.helpers.markets import ASSETS, BARS, INDEX, THRESHOLDS, grouped, prices, with_holes

CLOSE, OPEN = prices(0)
GROUPED, GROUPED_OPEN = grouped(1)
ENGINES = ["compiled", "reference"]


def run(*arguments, **options) -> js.Backtest:
    """What is to be replayed, by the reference engine: it compiles nothing."""
    return markets.run(*arguments, engine="reference", **options)


def drifting(obs):
    """Targets that differ from one rebalance to the next, and know no ties."""
    wave = 2 + jnp.sin(0.7 * obs.step + jnp.arange(obs.num_assets))
    return wave / wave.sum()


def skipping(obs):
    """Leaves the first asset alone at every odd bar."""
    weights = jnp.full(obs.num_assets, 1 / obs.num_assets)
    mask = (jnp.arange(obs.num_assets) == 0) & (obs.step % 2 == 1)
    return js.Allocation(jnp.where(mask, jnp.nan, weights), skip=mask)


def leveraged(obs):
    return jnp.full(obs.num_assets, 0.5)


def assert_same(bt: js.Backtest, again: js.Backtest) -> None:
    pd.testing.assert_frame_equal(pd.DataFrame(again.value), pd.DataFrame(bt.value), rtol=1e-12)
    pd.testing.assert_frame_equal(again.orders, bt.orders, rtol=1e-9)
    pd.testing.assert_frame_equal(again.allocations.weights, bt.allocations.weights)
    np.testing.assert_array_equal(again.rebalances, bt.rebalances)


CASES = {
    "one lane": dict(close=CLOSE, open_=OPEN, policy=drifting),
    "swept thresholds": dict(close=CLOSE, open_=OPEN, policy=drifting, threshold=js.grid(threshold=THRESHOLDS)),
    "groups of different sizes": dict(
        close=GROUPED, open_=GROUPED_OPEN, policy=drifting, threshold=js.grid(threshold=THRESHOLDS)
    ),
    "holes": dict(zip(("close", "open_"), with_holes(CLOSE, OPEN), strict=True)) | dict(policy=drifting),
    "skipped assets": dict(close=CLOSE, open_=OPEN, policy=skipping, threshold=js.grid(threshold=THRESHOLDS)),
    "no open, a late start": dict(close=CLOSE, open_=None, policy=drifting, min_history=7),
    "no rebalance at all": dict(close=CLOSE, open_=OPEN, policy=drifting, min_history=1000),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_the_same_portfolio_comes_out(name, engine):
    case = CASES[name]
    bt = run(**case, fees=0.005)
    again = js.replay(bt.allocations, case["close"], open=case["open_"], fees=0.005, engine=engine)
    assert (bt.lanes is None) == (again.lanes is None)
    if bt.lanes is not None:
        pd.testing.assert_index_equal(again.lanes, bt.lanes)
    assert_same(bt, again)


@pytest.mark.filterwarnings("ignore:allocations.*the first row")  # random plans begin at the first bar, too
def test_more_allocations_than_a_page_holds():
    """In lanes of unequal number; the programs of a replay hand out 256 rows at a time."""
    bars, rng = pd.RangeIndex(700, name="time"), np.random.default_rng(0)
    close = pd.DataFrame(100 * np.exp(rng.normal(0, 0.02, (700, 2)).cumsum(axis=0)), bars, ["A", "B"])
    rows = [("many", bar) for bar in range(3, 640)] + [("few", bar) for bar in (0, 5, 699)] + [("some", 698)]
    weights = pd.DataFrame(
        rng.uniform(0, 0.5, (len(rows), 2)), pd.MultiIndex.from_tuples(rows, names=["lane", "time"]), ["A", "B"]
    )
    plan = js.Allocations.from_weights(weights, bars)
    one, other = (js.replay(plan, close, fees=0.003, engine=engine) for engine in ENGINES)
    assert one.num_rebalances().to_dict() == {"many": 637, "few": 3, "some": 1}
    assert_same(other, one)


COHORTS = {
    "lanes": dict(lanes=20, groups=["g"], fees=js.grid(fees=[0.0, 0.01])),
    "lanes of three groups": dict(lanes=9, groups=["x", "y", "z"], fees=0.005),
}


@pytest.mark.filterwarnings("ignore:allocations.*the first row")  # random plans begin at the first bar, too
@pytest.mark.parametrize("page", [2, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", COHORTS)
def test_lanes_of_unequal_number_go_in_cohorts(name, page, monkeypatch):
    """In any order, over several pages as over one: each lane is the one that it is alone, to the last bit."""
    if page is not None:
        monkeypatch.setattr(NextEvent, "num_rows", lambda *_: page)
    case, rng = COHORTS[name], np.random.default_rng(1)
    num_bars = 53 if page is None else 54  # programs of their own
    bars = pd.RangeIndex(num_bars, name="time")
    columns = pd.MultiIndex.from_product([case["groups"], ["A", "B"]], names=["group", "asset"])
    shape = num_bars, len(columns)
    close = pd.DataFrame(100 * np.exp(rng.normal(0, 0.02, shape).cumsum(axis=0)), bars, columns)
    counts = rng.permutation([0, 1, 2, num_bars, *rng.integers(0, num_bars, case["lanes"] * len(case["groups"]) - 4)])
    lanes = [(lane, group) for lane in range(case["lanes"]) for group in case["groups"]]
    rows = [
        (*lane, bar)
        for lane, count in zip(lanes, counts, strict=True)
        for bar in np.sort(rng.choice(num_bars, max(count, 1), replace=False))
    ]
    names = ["lane", "group", "time"]
    weights = rng.uniform(0, 0.5, (len(rows), 2))
    weights = pd.DataFrame(weights, pd.MultiIndex.from_tuples(rows, names=names), ["A", "B"])
    plan = js.Allocations.from_weights(weights, bars)
    bt = js.replay(plan, close, fees=case["fees"])
    for lane in range(case["lanes"]):
        alone = js.replay(plan[[(lane, group) for group in case["groups"]]], close, fees=case["fees"])
        np.testing.assert_array_equal(alone.value, bt.value[[lane]])
        np.testing.assert_array_equal(alone.total_fees(), bt.total_fees()[[lane]])
    judge = js.replay(
        plan[[(lane, group) for lane in (0, 7) for group in case["groups"]]],
        close,
        fees=case["fees"],
        engine="reference",
    )
    np.testing.assert_allclose(judge.value, bt.value[[0, 7]], rtol=1e-9)
    assert bt.num_rebalances().groupby(["lane", "group"]).first().to_list() == [max(x, 1) for x in counts]


def test_skipped_assets_are_nan_and_not_traded():
    bt = run(**CASES["skipped assets"])[0.02]
    odd = bt.allocations.weights[bt.allocations.bar % 2 == 1]
    assert len(odd)
    assert odd["A"].isna().all()
    traded = bt.orders.query("asset == 'A'")["timestamp"]
    assert not traded.isin(odd.index).any()


def test_leveraged_targets_are_replayed_with_one_warning():
    with pytest.warns(UserWarning, match="sum to more than one") as caught:
        bt = run(CLOSE, leveraged, OPEN, js.grid(threshold=THRESHOLDS), fees=0.005)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="sum to more than one") as caught:
        again = js.replay(bt.allocations, CLOSE, open=OPEN, fees=0.005)
    assert len(caught) == 1
    assert_same(bt, again)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_selected_subset(engine):
    bt = run(CLOSE, drifting, OPEN, js.grid(threshold=THRESHOLDS))
    assert_same(bt[0.05], js.replay(bt.allocations[0.05], CLOSE, open=OPEN, engine=engine))
    assert_same(bt[[0.1, 0.02]], js.replay(bt.allocations[[0.1, 0.02]], CLOSE, open=OPEN, engine=engine))


def test_a_selected_group():
    bt = run(**CASES["groups of different sizes"])
    again = js.replay(bt.allocations.xs("bank", level="sector"), GROUPED["bank"], open=GROUPED_OPEN["bank"])
    assert_same(bt.xs("bank", level="sector"), again)
    both = js.replay(bt.allocations[0.05], GROUPED, open=GROUPED_OPEN)
    assert_same(bt[0.05], both)
    bank = bt.allocations[[(0.05, "bank")]]
    with pytest.raises(ValueError, match=r"^allocations: .*tech"):
        js.replay(bank, GROUPED, open=GROUPED_OPEN)


def test_swept_parameters_come_after_the_recorded_levels():
    bt = run(**CASES["groups of different sizes"])
    cash, fees = js.grid(init_cash=[100.0, 50.0]), js.grid(fees=[0.0, 0.01])
    again = js.replay(bt.allocations, GROUPED, open=GROUPED_OPEN, fees=fees, init_cash=cash)
    values = [THRESHOLDS, [0.0, 0.01], [100.0, 50.0], ["tech", "bank"]]
    expected = pd.MultiIndex.from_product(values, names=["threshold", "fees", "init_cash", "sector"])
    pd.testing.assert_index_equal(again.lanes, expected)
    for threshold in THRESHOLDS[1:2]:  # each number of allocations is another program
        lane = again[threshold, 0.0, 100.0]
        assert_same(bt[threshold], lane)
        one = js.replay(bt.allocations[threshold, "tech"], GROUPED["tech"], open=GROUPED_OPEN["tech"], fees=0.01)
        np.testing.assert_allclose(again[threshold, 0.01, 50.0, "tech"].value, one.value / 2, rtol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_index_named_like_a_recorded_level_is_aligned(engine):
    fees = js.grid(fees=[0.0, 0.01])
    bt = run(CLOSE, drifting, OPEN, js.grid(threshold=THRESHOLDS), fees=fees)
    for index in (fees, fees[::-1], js.grid(fees=[0.005, 0.01, 0.0])):
        again = js.replay(bt.allocations, CLOSE, open=OPEN, fees=index, engine=engine)
        pd.testing.assert_index_equal(again.lanes, bt.lanes)
        np.testing.assert_allclose(again.value, bt.value, rtol=1e-12)
        np.testing.assert_allclose(again.records["fees"], bt.records["fees"], rtol=1e-9)
    with pytest.raises(ValueError, match=r"^fees: .*0\.01"):
        js.replay(bt.allocations, CLOSE, open=OPEN, fees=js.grid(fees=[0.0, 0.02]), engine=engine)


def test_a_market_with_more_rows_and_shuffled_columns():
    part = slice(10, 40)
    bt = run(CLOSE.iloc[part], drifting, OPEN.iloc[part])
    shuffled = ["C", "A", "B"]
    again = js.replay(bt.allocations, CLOSE[shuffled], open=OPEN)
    pd.testing.assert_index_equal(again.rebalance_index, bt.rebalance_index)
    assert (again.value.iloc[:10] == 100.0).all()
    pd.testing.assert_series_equal(again.value.iloc[part], bt.value, rtol=1e-9, check_freq=False)
    pd.testing.assert_frame_equal(again.units.iloc[part][list("ABC")], bt.units, rtol=1e-9, check_freq=False)
    key = ["timestamp", "asset"]
    ours, theirs = (x.orders.sort_values(key, ignore_index=True).drop(columns="id") for x in (again, bt))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-9)


def test_a_market_with_more_assets_than_were_planned_for():
    """As is usual: optimise on three columns, replay on the whole frame; the rest is not held."""
    bt = run(CLOSE[["A", "B"]], drifting, OPEN[["A", "B"]])
    again = js.replay(bt.allocations, CLOSE, open=OPEN)
    np.testing.assert_allclose(again.value, bt.value, rtol=1e-9)
    assert set(again.orders["asset"]) == {"A", "B"}


def test_replay_refuses_what_does_not_fit():
    bt = run(CLOSE, drifting, OPEN)
    allocations = bt.allocations
    with pytest.raises(ValueError, match=r"^allocations: .*2021-01-04"):
        js.replay(allocations, CLOSE.iloc[1:])
    shifted = CLOSE.set_axis(INDEX + pd.Timedelta("1h"))
    with pytest.raises(ValueError, match=r"^allocations: "):
        js.replay(allocations, shifted)
    with pytest.raises(ValueError, match=r"^allocations: "):
        js.replay(allocations, CLOSE.reset_index(drop=True))
    with pytest.raises(ValueError, match=r"^allocations: .*'B'"):
        js.replay(allocations, CLOSE.rename(columns={"B": "X"}))
    with pytest.raises(ValueError, match=r"^allocations: "):
        js.replay(allocations, GROUPED)
    with pytest.raises(ValueError, match=r"^allocations: "):
        js.replay(run(GROUPED, drifting).allocations, GROUPED.rename(columns={"bank": "oil"}))
    for bad in (bt, allocations.weights, None):
        with pytest.raises(TypeError, match=r"^allocations: "):
            js.replay(bad, CLOSE)


def test_replayed_at_recorded_bars_alone():
    """Flat or not, drifted or not: nothing but the recorded bars is traded, and each counts as a rebalance."""
    bt = run(CLOSE, drifting, OPEN, threshold=np.inf, min_history=20)
    assert bt.num_rebalances() == 1
    again = js.replay(bt.allocations, CLOSE, open=OPEN)
    assert list(again.rebalance_index) == [INDEX[20]]
    cash_only = run(CLOSE, zero, OPEN, threshold=np.inf)  # flat, so asked at every bar
    assert cash_only.num_rebalances() == BARS
    few = js.Allocations(
        INDEX, None, np.zeros(2, int), np.array([3, 9]), np.zeros((2, 3)), ASSETS, np.ones((1, 3), bool)
    )
    again = js.replay(few, CLOSE, open=OPEN)
    assert list(again.rebalance_index) == [INDEX[3], INDEX[9]]
    assert len(again.orders) == 0


def zero(obs):
    return jnp.zeros(obs.num_assets)


def test_random_weights_replay_without_the_key():
    bt = run(CLOSE, al.RandomWeights(), OPEN, js.grid(threshold=THRESHOLDS))
    assert_same(bt, js.replay(bt.allocations, CLOSE, open=OPEN))


def test_replay_of_a_replay():
    bt = run(CLOSE, drifting, OPEN, js.grid(threshold=THRESHOLDS))
    once = js.replay(bt.allocations, CLOSE, open=OPEN)
    assert_same(once, js.replay(once.allocations, CLOSE, open=OPEN))


def test_no_warning_without_reason():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(CLOSE, al.FixedWeights([0.1] * 3), OPEN)
        run(CLOSE, al.FixedWeights([1 / 3 + 1e-8] * 3), OPEN)  # within 1e-6 of one


@pytest.mark.parametrize("engine", [pytest.param("compiled", marks=pytest.mark.slow), "reference"])
def test_a_call_order_that_was_chosen_on_one_date_only(engine):
    """Elsewhere sales go first, as if nobody had chosen."""

    def sometimes(obs):
        weights = jnp.where(obs.step % 2, jnp.array([0.9, 0.05, 0.05]), jnp.array([0.05, 0.05, 0.9]))
        return js.Allocation(weights, call_seq=jnp.where(obs.step == 5, jnp.arange(3), -1))

    common = dict(open=OPEN, fees=0.001)
    bt = js.backtest(CLOSE, sometimes, trigger=js.Always(), engine=engine, **common)
    assert list(np.flatnonzero(~np.isnan(bt.allocations.sequence).all(axis=1))) == [5]
    for other in ENGINES:
        assert_same(bt, js.replay(bt.allocations, CLOSE, engine=other, **common))
    never = js.backtest(CLOSE, lambda obs: sometimes(obs).weights, trigger=js.Always(), engine=engine, **common)
    np.testing.assert_array_equal(never.value[:5], bt.value[:5])
    assert never.value.iloc[5] != bt.value.iloc[5]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_replay_acts_at_the_recorded_bars_on_the_recorded_assets(engine):
    """Not before the first of them, though it is flat until then; and what was left alone is not sold."""

    def allocate(obs):
        leave = (jnp.arange(3) == 2) & (obs.step > 5)
        return js.Allocation(jnp.where(leave, jnp.nan, 0.3), skip=leave)

    once = js.backtest(CLOSE, allocate, engine="reference", trigger=js.Threshold(0.03), min_history=5, fees=0.001)
    again = js.replay(once.allocations, CLOSE, fees=0.001, engine=engine)
    assert once.rebalance_index[0] == INDEX[5] and once.num_rebalances() > 2
    pd.testing.assert_index_equal(again.rebalance_index, once.rebalance_index)
    pd.testing.assert_frame_equal(again.orders, once.orders, rtol=1e-9)
    assert (again.orders["asset"] == "C").sum() == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_replay_that_holds_nothing_waits_for_the_next_date(engine):
    """Beside a trigger, too."""
    dates = INDEX[[5, 10, 20]]
    weights = pd.DataFrame([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]], dates, ASSETS)
    plan = js.Allocations.from_weights(weights, INDEX)
    bt = js.replay(plan, CLOSE, trigger=js.Threshold(np.inf), engine=engine)
    assert bt.rebalance_index.tolist() == dates.tolist()


# --- plans that trade nothing, in some lanes or in all

DAYS = pd.date_range("2024-01-01", periods=6, freq="D")
TWO = pd.DataFrame({"A": [1.0, 2, 3, 2, 3, 4], "B": [5.0, 5, 6, 5, 5, 5]}, DAYS)
ROW = pd.DataFrame({"A": [0.5], "B": [0.5]}, DAYS[[2]])
#: 50 of A at 3, 50 of B at 6.
WORTH = 50 / 3 * 4 + 50 / 6 * 5
PLANS = {
    "an empty table beside another": (pd.concat({"x": ROW, "y": ROW.iloc[:0]}, names=["lane"]), [WORTH, 100]),
    "an empty table before another": (pd.concat({"y": ROW.iloc[:0], "x": ROW}, names=["lane"]), [100, WORTH]),
    "rows of NaN": (pd.concat({"x": ROW * np.nan, "y": ROW}, names=["lane"]), [100, WORTH]),
    "all empty": (pd.concat({"x": ROW.iloc[:0], "y": ROW.iloc[:0]}, names=["lane"]), [100, 100]),
    "all NaN": (pd.concat({"x": ROW, "y": ROW}, names=["lane"]) * np.nan, [100, 100]),
    "one lane of several levels": (
        pd.concat({("x", 1): ROW, ("x", 2): ROW, ("y", 2): ROW.iloc[:0]}, names=["lane", "n"]),
        [WORTH, WORTH, 100, 100],
    ),
}


@pytest.mark.parametrize("engine", ["reference", "compiled"])
@pytest.mark.parametrize("case", PLANS)
def test_lanes_that_trade_nothing_stay_flat(case, engine):
    table, worth = PLANS[case]
    plan = js.Allocations.from_weights(table, DAYS)
    bt = js.replay(plan, TWO, open=TWO, freq="1D", engine=engine)
    assert len(plan.describe()) == len(worth)
    np.testing.assert_allclose(bt.value.iloc[-1], worth, rtol=1e-12)
    assert bt.num_rebalances().tolist() == [int(x > 100) for x in worth]
    assert bt.total_return()[bt.value.iloc[-1] == 100].eq(0).all()
    assert list(bt.stats()["End Value"]) == list(bt.value.iloc[-1])


@pytest.mark.parametrize("engine", ["reference", "compiled"])
def test_groups_that_trade_nothing_stay_flat(engine):
    rows = pd.concat({"a": ROW[["A"]] * 2, "b": ROW[["B"]] * np.nan}, names=["group"])
    for table, worth in ((rows, 400 / 3), (rows * np.nan, 100)):
        plan = js.Allocations.from_weights(table, DAYS)
        bt = js.replay(plan, TWO, open=TWO, groups={"A": "a", "B": "b"}, freq="1D", engine=engine)
        np.testing.assert_allclose(bt.value.iloc[-1], [worth, 100])


def test_a_table_without_rows_has_no_lanes_unless_its_levels_know_them():
    nothing = ROW.iloc[:0].set_index(pd.MultiIndex.from_arrays([[], DAYS[:0]], names=["lane", "time"]))
    with pytest.raises(ValueError, match="weights: there is no row"):
        js.Allocations.from_weights(nothing, DAYS)


def test_a_plan_whose_first_row_cannot_be_sized_warns():
    first = js.Allocations.from_weights(ROW.set_axis(DAYS[[0]]), DAYS)
    with pytest.warns(UserWarning, match="allocations: the first row, of 2024-01-01 00:00:00, cannot .* pass open="):
        bt = js.replay(first, TWO, freq="1D", engine="reference")
    assert len(bt.orders) == 0
    assert len(js.replay(first, TWO, open=TWO, freq="1D", engine="reference").orders) == 2
    unlisted = TWO.copy()
    unlisted.iloc[:4] = np.nan
    with pytest.warns(UserWarning, match="of 2024-01-03 .* as none of its assets has a price yet"):
        js.replay(js.Allocations.from_weights(ROW, DAYS), unlisted, freq="1D", engine="reference")
    bt = js.backtest(TWO, al.EqualWeight(), freq="1D", engine="reference")
    js.replay(bt.allocations, TWO, freq="1D", engine="reference")  # asked at the first bar, and again at the second
