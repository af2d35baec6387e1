"""Lanes: named indexes, their product and order, selection, labels of everything that comes back (rules 11)."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import allocators as al
import jaxsim as js
from jaxsim.frames.inputs.labels import Level, index_of_levels, lane_index
from tests.helpers import markets
from tests.helpers.markets import ASSETS, BARS, INDEX, THRESHOLDS, grouped, prices

nan = np.nan
CLOSE, OPEN = prices(0)
GROUPED, GROUPED_OPEN = grouped(1)
FEES = [0.0, 0.01]
EQUAL = al.EqualWeight()


def run(*arguments, engine: str = "reference", **options) -> js.Backtest:
    """By the reference engine, which compiles nothing, beside what the fixtures have from the compiled one."""
    return markets.run(*arguments, engine=engine, **options)


class Tilted(eqx.Module):
    """The first asset is given `tilt`, the others share the rest."""

    tilt: Any

    def __call__(self, obs):
        rest = (1 - self.tilt) / (obs.num_assets - 1)
        return jnp.where(jnp.arange(obs.num_assets) == 0, self.tilt, rest)


@pytest.fixture(scope="module")
def one():
    return markets.run(CLOSE, EQUAL, OPEN, 0.05, fees=0.01)


@pytest.fixture(scope="module")
def many():
    return markets.run(CLOSE, EQUAL, OPEN, js.grid(threshold=THRESHOLDS), fees=js.grid(fees=FEES))


@pytest.fixture(scope="module")
def swept():
    return markets.run(CLOSE, EQUAL, OPEN, js.grid(threshold=THRESHOLDS), fees=0.01)


@pytest.fixture(scope="module")
def groups():
    return markets.run(GROUPED, EQUAL, GROUPED_OPEN, js.grid(threshold=THRESHOLDS))


def same(a: js.Backtest, b: js.Backtest) -> None:
    """The same portfolio, whatever the lanes are called."""
    np.testing.assert_array_equal(a.rebalances, b.rebalances)
    np.testing.assert_allclose(a.value, b.value, rtol=1e-12)
    assert len(a.records) == len(b.records)
    for name in ("idx", "side"):
        np.testing.assert_array_equal(a.records[name], b.records[name])
    np.testing.assert_allclose(a.records["size"], b.records["size"], rtol=1e-9)


# --- parameters in


def test_grid_is_a_named_index():
    pd.testing.assert_index_equal(js.grid(threshold=[0.1, 0.2]), pd.Index([0.1, 0.2], name="threshold"))
    for bad in ({}, {"a": [1], "b": [2]}):
        with pytest.raises(TypeError, match="grid"):
            js.grid(**bad)


def test_product_has_its_last_level_fastest(many):
    expected = pd.MultiIndex.from_product([THRESHOLDS, FEES], names=["threshold", "fees"])
    pd.testing.assert_index_equal(many.lanes, expected)
    for label in expected:
        same(many[label], run(CLOSE, EQUAL, OPEN, label[0], fees=label[1]))


def test_levels_stand_in_the_order_of_the_design():
    bt = run(
        GROUPED,
        Tilted(js.grid(tilt=[0.2, 0.6])),
        engine="compiled",
        threshold=js.grid(threshold=[0.05, 0.1]),
        key=js.grid(key=[0, 1]),
        init_cash=js.grid(init_cash=[100.0, 50.0]),
        min_history=js.grid(min_history=[0, 3]),
        fees=js.grid(fees=FEES),
    )
    names = ["tilt", "threshold", "fees", "min_history", "init_cash", "key", "sector"]
    values = [[0.2, 0.6], [0.05, 0.1], FEES, [0, 3], [100.0, 50.0], [0, 1], ["tech", "bank"]]
    pd.testing.assert_index_equal(bt.lanes, pd.MultiIndex.from_product(values, names=names))
    lane = bt[0.6, 0.1, 0.01, 3, 50.0, 1, "bank"]
    alone = run(GROUPED["bank"], Tilted(0.6), threshold=0.1, fees=0.01, min_history=3, init_cash=50.0)
    same(lane, alone)
    assert lane.rebalance_index[0] == INDEX[3]
    assert lane.value.iloc[0] == 50.0


def test_zipped_levels_share_one_axis():
    z = js.zipped(threshold=[0.02, 0.1], fees=[0.01, 0.0])
    bt = run(CLOSE, EQUAL, OPEN, z.threshold, fees=z.fees)
    expected = pd.MultiIndex.from_arrays([[0.02, 0.1], [0.01, 0.0]], names=["threshold", "fees"])
    pd.testing.assert_index_equal(bt.lanes, expected)
    same(bt[0.02, 0.01], run(CLOSE, EQUAL, OPEN, 0.02, fees=0.01))
    same(bt[0.1, 0.0], run(CLOSE, EQUAL, OPEN, 0.1, fees=0.0))


def test_zipped_levels_and_a_third():
    z = js.zipped(threshold=[0.02, 0.1], fees=[0.01, 0.0])
    bt = run(CLOSE, EQUAL, OPEN, z.threshold, fees=z.fees, init_cash=js.grid(init_cash=[50.0, 100.0, 200.0]))
    tuples = [(t, f, c) for t, f in ((0.02, 0.01), (0.1, 0.0)) for c in (50.0, 100.0, 200.0)]
    names = ["threshold", "fees", "init_cash"]
    pd.testing.assert_index_equal(bt.lanes, pd.MultiIndex.from_tuples(tuples, names=names))
    same(bt[0.1, 0.0, 200.0], run(CLOSE, EQUAL, OPEN, 0.1, fees=0.0, init_cash=200.0))


def test_zipped_levels_may_repeat_values():
    z = js.zipped(threshold=[0.02, 0.02], fees=[0.01, 0.0])
    bt = run(CLOSE, EQUAL, OPEN, z.threshold, fees=z.fees)
    assert list(bt.lanes) == [(0.02, 0.01), (0.02, 0.0)]
    assert list(bt[0.02].lanes) == [0.01, 0.0]


def test_zipped_refuses():
    with pytest.raises(ValueError, match="one length"):
        js.zipped(a=[1, 2], b=[1])
    with pytest.raises(TypeError, match="two or more"):
        js.zipped(a=[1, 2])
    with pytest.raises(AttributeError, match="no level 'c'"):
        _ = js.zipped(a=[1], b=[2]).c


def test_equal_values_under_one_name_are_one_level():
    bt = run(CLOSE, EQUAL, OPEN, js.grid(x=[0.02, 0.05]), fees=js.grid(x=[0.02, 0.05]))
    pd.testing.assert_index_equal(bt.lanes, pd.Index([0.02, 0.05], name="x"))
    same(bt[0.05], run(CLOSE, EQUAL, OPEN, 0.05, fees=0.05))


def test_other_values_under_one_name_are_refused():
    with pytest.raises(ValueError, match=r"fees: .*'x'"):
        run(CLOSE, EQUAL, OPEN, js.grid(x=[0.02, 0.05]), fees=js.grid(x=[0.02, 0.06]))
    with pytest.raises(ValueError, match="sector"):
        run(GROUPED, EQUAL, threshold=js.grid(sector=[0.02, 0.05]))


def test_duplicates_are_refused():
    with pytest.raises(ValueError, match=r"threshold: .*repeated.*0\.02"):
        run(CLOSE, EQUAL, OPEN, js.grid(threshold=[0.02, 0.05, 0.02]))


def test_labels_are_the_users_own():
    label = 0.1 + 0.2  # not 0.3
    bt = run(CLOSE, EQUAL, OPEN, pd.Index([label, 0.05], name="threshold"))
    assert list(bt.lanes) == [label, 0.05]
    whole = run(CLOSE, EQUAL, OPEN, pd.Index([0, 1], name="threshold"))
    assert whole.lanes.dtype == np.int64
    assert list(whole.value.columns) == [0, 1]
    single = pd.Index(np.array([0.02, 0.05], np.float32), name="threshold")
    assert run(CLOSE, EQUAL, OPEN, single).lanes.dtype == np.float32


def test_index_labels_are_numbers_that_are_used_exactly():
    """Integers sweep as integers are meant, and init_cash of int dtype is money."""
    bt = run(CLOSE, EQUAL, OPEN, init_cash=js.grid(init_cash=[100, 250]))
    np.testing.assert_allclose(bt[250].value, 2.5 * bt[100].value, rtol=1e-9)


def test_a_policy_may_hold_indexes():
    whole = js.Policy(EQUAL, js.Threshold(js.grid(threshold=[0.05, 0.1])), min_history=js.grid(min_history=[0, 2]))
    bt = js.backtest(CLOSE, whole, open=OPEN)
    assert bt.lanes.names == ["threshold", "min_history"]
    same(bt[0.1, 2], run(CLOSE, EQUAL, OPEN, 0.1, min_history=2))


# --- one lane, and lanes of one


def test_one_lane_is_series_and_floats(one):
    for path in (one.value, one.returns, one.cash, one.rebalances, one.gross_exposure, one.benchmark_value):
        assert isinstance(path, pd.Series)
        pd.testing.assert_index_equal(path.index, INDEX)
    assert one.rebalances.dtype == bool
    for table in (one.weights, one.asset_value, one.units):
        assert isinstance(table, pd.DataFrame)
        pd.testing.assert_index_equal(table.columns, ASSETS)
    assert type(one.sharpe_ratio()) is float
    assert type(one.total_fees()) is float
    assert type(one.turnover()) is float
    assert type(one.num_rebalances()) is int
    assert isinstance(one.stats(), pd.Series)
    assert isinstance(one.returns_stats(), pd.Series)
    assert one.lanes is None


def test_an_index_of_one_element_keeps_its_labels(one):
    bt = run(CLOSE, EQUAL, OPEN, js.grid(threshold=[0.05]), fees=0.01)
    pd.testing.assert_index_equal(bt.value.columns, pd.Index([0.05], name="threshold"))
    score = bt.sharpe_ratio()
    assert isinstance(score, pd.Series)
    assert score.name == "sharpe_ratio"
    assert score[0.05] == pytest.approx(one.sharpe_ratio(), rel=1e-9)
    assert isinstance(bt.stats(), pd.DataFrame)
    assert bt.asset_value.columns.names == ["threshold", "symbol"]


def test_metrics_of_many_lanes_are_named_series(many):
    names = [
        *("total_return", "annualized_return", "annualized_volatility", "sharpe_ratio", "sortino_ratio"),
        *("calmar_ratio", "omega_ratio", "information_ratio", "max_drawdown", "downside_risk", "alpha", "beta"),
        *("tail_ratio", "common_sense_ratio", "value_at_risk", "cond_value_at_risk", "capture", "up_capture"),
        *("down_capture", "skew", "kurtosis", "ulcer_index", "martin_ratio", "turnover", "turnover_two_way"),
        *("num_rebalances", "total_fees"),
    ]
    for name in names:
        score = getattr(many, name)()
        assert isinstance(score, pd.Series), name
        assert score.name == name
        pd.testing.assert_index_equal(score.index, many.lanes)
        if not name.startswith(("turnover", "num_", "total_fees")):
            assert hasattr(js.metrics, name)


def test_metrics_are_those_of_the_arrays(many):
    expected = js.metrics.sharpe_ratio(many.returns.to_numpy(), ann_factor=365.0)
    np.testing.assert_allclose(many.sharpe_ratio(), expected, rtol=1e-12)
    assert many.ann_factor == 365.0
    daily = many.sharpe_ratio(year_freq="252D") / many.sharpe_ratio()
    np.testing.assert_allclose(daily, np.sqrt(252 / 365))
    assert many.stats(year_freq="252D")["Sharpe Ratio"].iloc[0] == many.sharpe_ratio(year_freq="252D").iloc[0]
    np.testing.assert_array_equal(many.turnover_two_way(), 2 * many.turnover())


def test_turnover_fees_and_counts_by_hand(many):
    lane = many[0.02, 0.01]
    orders = lane.orders
    assert lane.total_fees() == pytest.approx(orders["fees"].sum())
    assert lane.num_rebalances() == lane.rebalances.sum()
    np.testing.assert_allclose(orders["fees"], orders["size"] * orders["price"] * 0.01, rtol=1e-9)
    before = lane.cash.shift(1, fill_value=100.0) + (lane.units.shift(1, fill_value=0.0) * OPEN).sum(axis=1)
    traded = (orders["size"] * orders["price"]).groupby(orders["timestamp"]).sum()
    assert lane.turnover() == pytest.approx((traded / before[traded.index]).sum() / 2, rel=1e-9)


def test_rolling_metrics_have_time_and_lanes(many, one):
    rolling = many.rolling_sharpe_ratio(window=10)
    pd.testing.assert_index_equal(rolling.columns, many.lanes)
    pd.testing.assert_index_equal(rolling.index, INDEX)
    assert isinstance(one.rolling_sharpe_ratio(window=10), pd.Series)


def test_stats_has_a_row_per_lane(many):
    table = many.stats()
    pd.testing.assert_index_equal(table.index, many.lanes)
    assert list(table.columns[:6]) == [*("Start", "End", "Period", "Start Value", "End Value", "Total Return [%]")]
    row = many[0.05, 0.01].stats()
    assert row["End Value"] == pytest.approx(table.loc[(0.05, 0.01), "End Value"])
    assert row["Total Fees Paid"] == pytest.approx(many.total_fees()[0.05, 0.01])
    assert row["Start"] == INDEX[0]
    assert row["Period"] == INDEX[-1] - INDEX[0] and row["Period [bars]"] == BARS


# --- selection


def test_a_scalar_drops_the_first_level(many):
    bt = many[0.05]
    pd.testing.assert_index_equal(bt.lanes, pd.Index(FEES, name="fees"))
    pd.testing.assert_frame_equal(bt.value, many.value[0.05])
    pd.testing.assert_frame_equal(bt.asset_value, many.asset_value[0.05])


def test_a_tuple_drops_the_leading_levels(many, one):
    bt = many[0.05, 0.01]
    assert bt.lanes is None
    assert isinstance(bt.value, pd.Series)
    assert type(bt.sharpe_ratio()) is float
    np.testing.assert_allclose(bt.value, one.value, rtol=1e-12)
    pd.testing.assert_index_equal(bt.weights.columns, ASSETS)
    pd.testing.assert_index_equal(bt.rebalance_index, one.rebalance_index)
    assert list(bt.orders.columns) == list(one.orders.columns)
    pd.testing.assert_frame_equal(many[(0.05,)].value, many[0.05].value)


def test_lists_keep_levels_and_their_own_order(many):
    bt = many[[0.1, 0.02]]
    expected = pd.MultiIndex.from_product([[0.1, 0.02], FEES], names=["threshold", "fees"])
    pd.testing.assert_index_equal(bt.lanes, expected)
    for label in expected:
        np.testing.assert_array_equal(bt[label].value, many[label].value)
        pd.testing.assert_frame_equal(bt[label].orders, many[label].orders)
    pairs = many[[(0.1, 0.01), (0.05, 0.0)]]
    assert list(pairs.lanes) == [(0.1, 0.01), (0.05, 0.0)]
    np.testing.assert_array_equal(pairs.value.to_numpy(), many.value[[(0.1, 0.01), (0.05, 0.0)]])
    assert list(many[[0.05]].lanes) == [(0.05, 0.0), (0.05, 0.01)]
    pd.testing.assert_frame_equal(many[pd.Index([0.05])].value, many[[0.05]].value)
    pd.testing.assert_frame_equal(many[np.array([0.05])].value, many[[0.05]].value)


def test_a_label_twice_is_two_lanes_or_an_error(swept):
    """As columns of a DataFrame: never a lane without its orders."""
    try:
        bt = swept[[0.05, 0.05]]
    except KeyError:
        return
    assert len(bt.lanes) == 2
    expected = swept.value[[0.05, 0.05]]
    pd.testing.assert_frame_equal(bt.value, expected)


def test_boolean_masks(many):
    mask = np.array([True, False, False, True, False, False])
    for key in (mask, list(mask), pd.Series(mask, many.lanes), pd.Series(mask, many.lanes, dtype="boolean")):
        bt = many[key]
        pd.testing.assert_index_equal(bt.lanes, many.lanes[mask])
        pd.testing.assert_frame_equal(bt.value, many.value.loc[:, mask])
    with pytest.raises(KeyError, match="mask"):
        _ = many[[True, False]]


def test_a_labelled_mask_is_aligned_by_its_labels(many):
    """As `DataFrame.loc[:, mask]`: scores that were sorted before select the same lanes."""
    scores = many.total_return()
    wanted = scores > scores.median()
    shuffled = wanted.sample(frac=1.0, random_state=3)
    assert not shuffled.index.equals(wanted.index)
    pd.testing.assert_index_equal(many[shuffled].lanes, many[wanted].lanes)


def test_nothing_selected_is_empty_or_an_error(many):
    for key in ([], np.zeros(6, bool)):
        try:
            bt = many[key]
        except KeyError:
            continue
        assert bt.value.shape == (BARS, 0)
        assert len(bt.orders) == 0
        assert len(bt.sharpe_ratio()) == 0


def test_floats_match_within_1e_9():
    labels = np.arange(1, 8) / 10
    bt = run(CLOSE, EQUAL, OPEN, pd.Index(labels, name="threshold"))
    near = 0.1 + 0.2
    assert near not in labels
    np.testing.assert_array_equal(bt[near].value, bt[0.3].value)
    np.testing.assert_array_equal(bt.allocations[near].weights, bt.allocations[0.3].weights)
    with pytest.raises(KeyError, match="nearest"):
        _ = bt[0.3 * (1 + 1e-8)]


def test_exact_match_wins_over_a_near_one():
    close_by = np.nextafter(0.05, 1)
    bt = run(CLOSE, EQUAL, OPEN, pd.Index([0.05, close_by], name="threshold"))
    np.testing.assert_array_equal(bt[close_by].value, bt.value.iloc[:, 1])
    assert bt[0.05].lanes is None
    with pytest.raises(KeyError):  # two labels are as near
        _ = bt[np.nextafter(close_by, 1)]


def test_the_nearest_label_is_named(swept, many):
    with pytest.raises(KeyError, match=r"threshold = 0\.06; the nearest is 0\.05"):
        _ = swept[0.06]
    with pytest.raises(KeyError, match=r"fees = 0\.02; the nearest is 0\.01"):
        _ = many[0.05, 0.02]
    with pytest.raises(KeyError, match=r"the nearest is 0\.05"):
        _ = swept.allocations[0.06]
    with pytest.raises(KeyError, match=r"the nearest is 0\.05"):
        _ = swept[[0.02, 0.06]]


def test_selections_that_do_not_exist(many, swept, one, groups):
    for bt, key in (
        *((many, "tech"), (many, (0.05, 0.01, 3)), (many, None), (swept, True), (one, 0.05)),
        *((groups, (0.05, "oil")), (groups, float("nan")), (swept, slice(0.02, 0.05))),
    ):
        with pytest.raises(KeyError):
            _ = bt[key]
    with pytest.raises(KeyError, match="'tech', 'bank'"):
        _ = groups[0.05, "oil"]
    with pytest.raises(KeyError, match="no level 'slippage'"):
        many.xs(0.05, level="slippage")
    with pytest.raises(KeyError, match="nearest"):
        many.xs(0.02, level="fees")
    with pytest.raises(KeyError):
        one.xs(0.05, level="threshold")


def test_xs_by_level(many, swept, groups):
    bt = many.xs(0.01, level="fees")
    pd.testing.assert_index_equal(bt.lanes, pd.Index(THRESHOLDS, name="threshold"))
    np.testing.assert_array_equal(bt.value, many.value.xs(0.01, axis=1, level="fees"))
    one = swept.xs(0.05, level="threshold")
    assert isinstance(one.value, pd.Series)
    tech = groups.xs("tech", level="sector")
    pd.testing.assert_index_equal(tech.lanes, pd.Index(THRESHOLDS, name="threshold"))
    assert list(tech.asset_value[0.02].columns) == list("ABC")


def test_selecting_again_and_again(many):
    twice = many[[0.1, 0.05]][0.05][[0.01]]
    pd.testing.assert_index_equal(twice.lanes, pd.Index([0.01], name="fees"))
    pd.testing.assert_frame_equal(twice[0.01].orders, many[0.05, 0.01].orders)


# --- labels out


def test_asset_tables_have_lane_levels_and_the_users_name(many):
    expected = pd.MultiIndex.from_product([THRESHOLDS, FEES, ASSETS], names=["threshold", "fees", "symbol"])
    for table in (many.asset_value, many.weights, many.units):
        pd.testing.assert_index_equal(table.columns, expected)
        pd.testing.assert_index_equal(table.index, INDEX)
    closes = CLOSE.to_numpy()
    lane = many[0.1, 0.0]
    np.testing.assert_allclose(many.asset_value[0.1, 0.0], many.units[0.1, 0.0] * closes, rtol=1e-12)
    np.testing.assert_allclose(lane.weights, lane.asset_value.div(lane.value, axis=0), rtol=1e-12)
    np.testing.assert_allclose(lane.value, lane.cash + lane.asset_value.sum(axis=1), rtol=1e-12)


def test_orders_of_one_lane(one):
    orders = one.orders
    assert list(orders.columns) == ["id", "asset", "timestamp", "size", "price", "fees", "side"]
    assert isinstance(orders.index, pd.RangeIndex)
    np.testing.assert_array_equal(orders["id"], np.arange(len(orders)))
    assert orders["id"].dtype == np.int64
    for name in ("size", "price", "fees"):
        assert orders[name].dtype == np.float64
        assert (orders[name] > 0).all()
    assert orders["timestamp"].dtype == INDEX.dtype
    assert orders["asset"].dtype == ASSETS.dtype
    assert set(orders["side"]) == {"Buy", "Sell"}
    for stamp, part in orders.groupby("timestamp"):
        assert stamp in one.rebalance_index
        assert list(part["side"]) == sorted(part["side"], reverse=True), "sells come first"
    assert orders["timestamp"].is_monotonic_increasing
    np.testing.assert_array_equal(
        orders["price"], CLOSE.stack().loc[list(zip(orders["timestamp"], orders["asset"], strict=True))]
    )


def test_orders_of_many_lanes(groups):
    orders = groups.orders
    assert list(orders.columns) == [
        *("id", "threshold", "sector", "asset", "timestamp", "size", "price", "fees", "side")
    ]
    assert isinstance(orders.index, pd.RangeIndex)
    lanes = pd.MultiIndex.from_frame(orders[["threshold", "sector"]])
    assert list(lanes.unique()) == list(groups.lanes)
    numbers = groups.lanes.get_indexer(lanes)
    assert (np.diff(numbers) >= 0).all()
    for lane in groups.lanes:
        part = orders[(orders["threshold"] == lane[0]) & (orders["sector"] == lane[1])]
        np.testing.assert_array_equal(part["id"], np.arange(len(part)))
        alone = pd.DataFrame(groups[lane].orders)
        pd.testing.assert_frame_equal(part[alone.columns].reset_index(drop=True), alone)


def test_orders_keep_a_level_that_is_named_like_a_column(many):
    """`fees=` swept under its own name: the label of the lane and the fees of the order are both in the table."""
    orders = many.orders
    assert list(orders.columns) == [*("id", "threshold", "fees", "asset", "timestamp", "size", "price", "fees", "side")]
    assert set(orders.iloc[:, 2]) == set(FEES)
    np.testing.assert_allclose(orders.iloc[:, 7], many.records["fees"])


def test_records_are_structured(groups):
    records = groups.records
    assert records.dtype.names == ("id", "col", "idx", "size", "price", "fees", "side")
    assert all(records.dtype[n] == np.int64 for n in ("id", "col", "idx", "side"))
    assert all(records.dtype[n] == np.float64 for n in ("size", "price", "fees"))
    np.testing.assert_array_equal(records["id"], np.arange(len(records)))
    orders = groups.orders
    np.testing.assert_array_equal(INDEX[records["idx"]], orders["timestamp"])
    np.testing.assert_array_equal(np.where(records["side"] == 1, "Sell", "Buy"), orders["side"])
    named = groups.asset_value.columns[records["col"]]
    np.testing.assert_array_equal(named.get_level_values("symbol"), orders["asset"])
    np.testing.assert_array_equal(named.get_level_values("sector"), orders["sector"])
    records["size"] = 0  # a copy
    assert (groups.records["size"] > 0).all()


def test_allocation_records(groups, one):
    records = groups.allocations.records
    assert list(records.columns) == ["id", "col", "alloc_idx"]
    assert (records.dtypes == np.int64).all()
    assert (records["col"].diff().dropna() >= 0).all()
    for col in range(len(groups.lanes)):
        part = records[records["col"] == col]
        np.testing.assert_array_equal(part["id"], np.arange(len(part)))
        np.testing.assert_array_equal(part["alloc_idx"], np.flatnonzero(groups.rebalances.iloc[:, col]))
    assert (one.allocations.records["col"] == 0).all()
    assert len(one.allocations) == one.num_rebalances()


def test_allocation_weights(groups, one):
    weights = one.allocations.weights
    pd.testing.assert_index_equal(weights.index, one.rebalance_index)
    pd.testing.assert_index_equal(weights.columns, ASSETS)
    np.testing.assert_allclose(weights, 1 / 3)
    assert weights.describe().loc["count"].eq(len(weights)).all()
    table = groups.allocations.weights
    assert table.index.names == ["threshold", "sector", "time"]
    assert list(table.columns) == list("ABCD")
    assert table.columns.name == "symbol"
    tech, bank = (table.xs(s, level="sector") for s in ("tech", "bank"))
    np.testing.assert_allclose(tech[["A", "B", "C"]], 1 / 3)
    np.testing.assert_allclose(bank[["B", "D"]], 1 / 2)
    assert tech["D"].isna().all()
    assert bank[["A", "C"]].isna().all().all()
    selected = groups.allocations[0.05, "bank"].weights
    assert list(selected.columns) == ["B", "D"]
    pd.testing.assert_index_equal(selected.index, groups[0.05, "bank"].rebalance_index)
    by_group = groups.allocations.xs("tech", level="sector").weights
    assert by_group.index.names == ["threshold", "time"]


def test_allocation_weights_are_a_copy(one):
    weights = one.allocations.weights
    weights.iloc[:] = 9.0
    np.testing.assert_allclose(one.allocations.weights, 1 / 3)


def test_rebalance_index_is_of_one_lane(many, one):
    with pytest.raises(ValueError, match="select"):
        _ = many.rebalance_index
    pd.testing.assert_index_equal(one.rebalance_index, INDEX[one.rebalances.to_numpy()])
    assert one.rebalance_index[0] == INDEX[0]
    rebalances = many.rebalances
    assert rebalances.shape == (BARS, 6)
    assert all(dtype == np.bool_ for dtype in rebalances.dtypes)
    pd.testing.assert_index_equal(rebalances.columns, many.lanes)


def test_results_cannot_be_spoiled_from_outside(one):
    """Writing into what came back changes no later answer."""
    sharpe, value = one.sharpe_ratio(), one.value.copy()
    for table in (one.value, one.returns, one.cash, one.weights, one.units):
        try:
            table.iloc[:] = 0.0
        except ValueError:
            continue  # read-only is fine
    pd.testing.assert_series_equal(one.value, value)
    assert one.sharpe_ratio() == sharpe


# --- groups


def test_only_existing_pairs_of_group_and_asset(groups):
    pairs = [("tech", "A"), ("tech", "B"), ("tech", "C"), ("bank", "B"), ("bank", "D")]
    tuples = [(t, *p) for t in THRESHOLDS for p in pairs]
    expected = pd.MultiIndex.from_tuples(tuples, names=["threshold", "sector", "symbol"])
    pd.testing.assert_index_equal(groups.asset_value.columns, expected)
    np.testing.assert_allclose(groups.asset_value, groups.units.to_numpy() * np.tile(GROUPED.to_numpy(), 3), rtol=1e-12)


def test_a_group_is_what_it_is_alone(groups):
    for threshold, sector in groups.lanes:
        alone = run(GROUPED[sector], EQUAL, GROUPED_OPEN[sector], threshold)
        same(groups[threshold, sector], alone)
        pd.testing.assert_frame_equal(groups[threshold, sector].orders, alone.orders)


def test_groups_alone_are_lanes():
    bt = run(GROUPED, EQUAL, GROUPED_OPEN)
    pd.testing.assert_index_equal(bt.lanes, pd.Index(["tech", "bank"], name="sector"))
    assert bt.sharpe_ratio().name == "sharpe_ratio"
    assert bt["bank"].lanes is None
    assert list(bt.orders.columns[:3]) == ["id", "sector", "asset"]


@pytest.mark.parametrize("kind", ["mapping", "series", "shuffled series", "list", "index", "array"])
def test_groups_argument(kind):
    mapping = {"A": "x", "B": "y", "C": "x"}
    series = pd.Series(mapping)
    groups = {
        "mapping": mapping,
        "series": series,
        "shuffled series": series[["C", "A", "B"]],
        "list": ["x", "y", "x"],
        "index": pd.Index(["x", "y", "x"]),
        "array": np.array(["x", "y", "x"]),
    }[kind]
    bt = run(CLOSE, EQUAL, OPEN, groups=groups)
    pd.testing.assert_index_equal(bt.lanes, pd.Index(["x", "y"], name="group"))
    same(bt["x"], run(CLOSE[["A", "C"]], EQUAL, OPEN[["A", "C"]]))
    same(bt["y"], run(CLOSE[["B"]], EQUAL, OPEN[["B"]]))
    assert bt.asset_value.columns.names == ["group", "symbol"]


def test_the_symbol_level_need_not_be_last(groups):
    swapped, swapped_open = GROUPED.swaplevel(axis=1), GROUPED_OPEN.swaplevel(axis=1)
    order = [3, 0, 4, 1, 2]  # groups interleaved
    bt = run(swapped.iloc[:, order], EQUAL, swapped_open.iloc[:, order], js.grid(threshold=THRESHOLDS), by="symbol")
    assert bt.lanes.names == ["threshold", "sector"]
    assert list(bt.lanes[:2]) == [(0.02, "bank"), (0.02, "tech")]
    for lane in groups.lanes:
        same(bt[lane], groups[lane])
    assert bt.asset_value.columns.names == ["threshold", "sector", "symbol"]
    by_number = run(swapped, EQUAL, swapped_open, js.grid(threshold=THRESHOLDS), engine="compiled", by=0)
    np.testing.assert_array_equal(by_number[0.05, "bank"].value, groups[0.05, "bank"].value)


def test_three_column_levels_name_groups_by_two():
    columns = pd.MultiIndex.from_tuples(
        [("eu", "x", "A"), ("eu", "x", "B"), ("eu", "y", "A"), ("us", "x", "A")], names=["area", "kind", "name"]
    )
    close, open_ = prices(4, columns)
    bt = run(close, EQUAL, open_)
    expected = pd.MultiIndex.from_tuples([("eu", "x"), ("eu", "y"), ("us", "x")], names=["area", "kind"])
    pd.testing.assert_index_equal(bt.lanes, expected)
    assert list(bt["eu"].lanes) == ["x", "y"]
    assert bt["eu", "x"].weights.columns.name == "name"


def test_parameters_by_asset_reach_the_right_group():
    """A Series by (group, asset), or by asset name for all groups; an array in column order."""
    fees = pd.Series([0.0, 0.01, 0.02, 0.03, 0.04], GROUPED.columns)
    by_pair = run(GROUPED, EQUAL, GROUPED_OPEN, fees=fees.sample(frac=1, random_state=0))
    by_position = run(GROUPED, EQUAL, GROUPED_OPEN, fees=fees.to_numpy())
    orders = by_pair.orders
    rate = (orders["fees"] / (orders["size"] * orders["price"])).groupby([orders["sector"], orders["asset"]]).mean()
    for pair, fee in fees.items():
        assert rate[pair] == pytest.approx(fee, abs=1e-12)
    np.testing.assert_array_equal(by_pair.value, by_position.value)
    by_name = run(GROUPED, EQUAL, GROUPED_OPEN, fees=pd.Series([0.0, 0.01, 0.02, 0.04], list("ABCD")))
    orders = by_name.orders
    rate = (orders["fees"] / (orders["size"] * orders["price"])).groupby(orders["asset"]).mean()
    np.testing.assert_allclose(rate, [0.0, 0.01, 0.02, 0.04], atol=1e-12)


LABELS = st.one_of(
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.lists(st.sampled_from([-0.0, 0.5, 1.0, nan]), min_size=1, max_size=4),
    st.lists(st.sampled_from("dabc"), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=4),
    st.lists(st.sampled_from([1, "a", 2.5]), min_size=1, max_size=4),
    st.lists(st.sampled_from(INDEX[:3].to_list()), min_size=1, max_size=4),
    st.lists(st.sampled_from("yx"), min_size=1, max_size=4).map(pd.CategoricalIndex),
)


@settings(max_examples=150)
@given(st.lists(LABELS, max_size=3), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_labels_are_those_that_pandas_makes_of_them(labels, num_lanes, seed):
    """Down to the order of the levels, which says how a MultiIndex sorts and prints."""
    rng = np.random.default_rng(seed)
    levels = {f"level{i}": Level(pd.Index(x), rng.integers(0, len(x), num_lanes)) for i, x in enumerate(labels)}
    ours = index_of_levels(levels)
    theirs = lane_index({name: level.values for name, level in levels.items()})
    if not labels:
        assert ours is None and theirs is None
        return
    pd.testing.assert_index_equal(ours, theirs, exact=True)
    for one, other in zip(getattr(ours, "levels", []), getattr(theirs, "levels", []), strict=True):
        pd.testing.assert_index_equal(one, other, exact=True)


def test_frames_are_aligned_by_label_not_by_position():
    shuffled = ["C", "A", "B"]
    bt = run(CLOSE, EQUAL, OPEN[shuffled], fees=pd.Series([0.03, 0.01, 0.02], shuffled))
    alone = run(CLOSE, EQUAL, OPEN, fees=np.array([0.01, 0.02, 0.03]))
    np.testing.assert_array_equal(bt.value, alone.value)
    by_bar = pd.Series(np.linspace(0, 0.02, BARS), INDEX)
    frame = pd.DataFrame({a: by_bar for a in shuffled}).iloc[::-1]
    np.testing.assert_array_equal(run(CLOSE, EQUAL, OPEN, fees=by_bar).value, run(CLOSE, EQUAL, OPEN, fees=frame).value)
    np.testing.assert_array_equal(
        run(CLOSE, EQUAL, OPEN, fees=by_bar).value, run(CLOSE, EQUAL, OPEN, fees=by_bar.to_numpy()[:, None]).value
    )


def test_the_reference_engine_has_the_same_lanes(groups):
    other = run(GROUPED, EQUAL, GROUPED_OPEN, js.grid(threshold=THRESHOLDS), engine="reference")
    pd.testing.assert_index_equal(other.lanes, groups.lanes)
    pd.testing.assert_frame_equal(other.value, groups.value, rtol=1e-9)
    pd.testing.assert_frame_equal(other.orders, groups.orders, rtol=1e-9)
    pd.testing.assert_frame_equal(other.allocations.weights, groups.allocations.weights, rtol=1e-9)
    pd.testing.assert_frame_equal(other.allocations.records, groups.allocations.records)


def test_a_lane_labelled_nan_is_found():
    bt = run(CLOSE, EQUAL, OPEN, size_granularity=js.grid(g=[nan, 0.5]), fees=0.01)
    np.testing.assert_array_equal(bt[nan].value, bt.value.iloc[:, 0])
    assert len(bt[[nan, 0.5]].lanes) == 2
    assert len(bt.allocations[nan].weights) == len(bt[nan].allocations.weights) > 0


def test_a_part_of_a_date_is_no_label():
    groups = {"A": pd.Timestamp("2020-01-05"), "B": pd.Timestamp("2020-01-05"), "C": pd.Timestamp("2020-02-03")}
    bt = run(CLOSE, EQUAL, OPEN, groups=groups)
    with pytest.raises(KeyError, match="no lane with group = '2020-01'"):
        bt["2020-01"]
    np.testing.assert_array_equal(bt[pd.Timestamp("2020-01-05")].value, bt.value.iloc[:, 0])
