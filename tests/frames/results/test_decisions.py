"""Why each order did what it did: decisions, their picture, logs."""

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import INDEX, grouped, prices, run, with_holes

CLOSE, OPEN = prices(0)
WEIGHTS = [0.5, 0.3, 0.2]
ENGINES = ["compiled", "reference"]


@pytest.fixture(scope="module", params=ENGINES)
def clipped(request):
    """Two thresholds, granules, a largest size, and cash that runs out."""
    return run(
        CLOSE,
        al.FixedWeights(WEIGHTS),
        OPEN,
        js.grid(threshold=[0.03, 0.06]),
        fees=0.01,
        size_granularity=0.01,
        max_size=0.4,
        engine=request.param,
        log=True,
    )


def test_a_row_for_every_rebalance_and_asset_in_the_order_of_execution(clipped):
    table = clipped.decisions
    assert len(table) == 3 * clipped.num_rebalances().sum()
    assert list(table.columns[:4]) == ["rebalance", "threshold", "asset", "timestamp"]
    assert "size_type" not in table and "direction" not in table
    one = clipped[0.03].decisions
    assert list(one["timestamp"].unique()) == list(clipped[0.03].rebalance_index)
    filled = one[one["status"] == "Filled"]
    orders = clipped[0.03].orders
    assert list(filled["asset"]) == list(orders["asset"])
    np.testing.assert_array_equal(filled["filled"].abs(), orders["size"])
    np.testing.assert_array_equal(filled["fees"], orders["fees"])


def test_a_breach_is_where_the_drift_reaches_the_threshold(clipped):
    for threshold in (0.03, 0.06):
        one = clipped[threshold].decisions
        later = one[one["rebalance"] > 0]
        np.testing.assert_array_equal(later["breached"], later["drift"].abs() >= threshold)
        np.testing.assert_allclose(later["excess"], later["drift"].abs() - threshold, atol=1e-15)
        assert later.groupby("rebalance")["breached"].any().all()
        assert later["last_target"].isin(WEIGHTS).all()
        first = one[one["rebalance"] == 0]
        assert first["last_target"].isna().all() and (first["weight"] == 0).all() and not first["breached"].any()


def test_what_was_cut_says_by_what(clipped):
    table = clipped.decisions
    reasons = set(table["reason"])
    assert {"cut to max_size", "rounded down to size_granularity"} <= reasons
    cut = table[table["reason"] == "cut to max_size"]
    assert (cut["filled"].abs() == 0.4).all()
    np.testing.assert_allclose(cut["clipped"], cut["requested"].abs() - 0.4)
    rounded = table[table["reason"] == "rounded down to size_granularity"]
    assert ((rounded["clipped"] > 0) & (rounded["clipped"] < 0.01)).all()
    untouched = table[(table["status"] == "Filled") & (table["clipped"] == 0)]
    assert (untouched["reason"] == "").all()


def test_the_last_purchase_is_cut_to_the_cash_there_is():
    """All is bought at the open's sizes, and fees are not provided for: 1 % of 100 is missing at the end."""
    close = pd.DataFrame({"A": [10.0, 10.0], "B": [20.0, 20.0]}, INDEX[:2])
    table = js.backtest(close, al.EqualWeight(), open=close, fees=0.01).decisions
    assert list(table["asset"]) == ["A", "B"]
    assert list(table["requested"]) == [5.0, 2.5]
    assert table["filled"].tolist() == pytest.approx([5.0, 49.5 / 1.01 / 20])
    assert table["reason"].tolist() == ["", "cut to the cash there was"]
    assert table["clipped"].tolist() == pytest.approx([0.0, 2.5 - 49.5 / 1.01 / 20])


@pytest.mark.filterwarnings("ignore:target weights sum to more than one")
@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_rejected_or_ignored_says_why(engine):
    close, open_ = with_holes(CLOSE, OPEN)
    bt = run(close, al.FixedWeights([0.9, 0.6, 0.2]), open_, 0.02, fees=0.01, engine=engine)
    table = bt.decisions
    words = table.groupby("status_info")["reason"].agg(set)
    assert words["NoCashLong"] == {"no cash to buy with"}
    assert words["PriceNaN"] == {"no price to trade at"}
    assert set(table[table["status_info"] == "NoCashLong"]["status"]) == {"Rejected"}
    assert set(table[table["status_info"] == "PriceNaN"]["status"]) == {"Ignored"}
    assert (table[table["status"] != "Filled"]["filled"] == 0).all()


def mixed(obs):
    return js.Allocation(
        np.array([5.0, 0.3, -1.0]),
        size_type=["value", "target_percent", "amount"],
        direction=["both", "long_only", "both"],
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_mixed_size_types_are_named(engine):
    table = run(CLOSE, mixed, OPEN, 0.05, engine=engine).decisions
    assert set(table.loc[table["reason"] == "ruined", "size_type"]) == {"TargetPercent"}
    table = table[table["reason"] != "ruined"]
    by_asset = table.groupby("asset")[["size_type", "direction"]].agg(set)
    assert by_asset.loc["A", "size_type"] == {"Value"} and by_asset.loc["C", "size_type"] == {"Amount"}
    assert by_asset.loc["B", "direction"] == {"LongOnly"}


def test_engines_decide_alike_for_groups_of_different_size():
    close, open_ = grouped(3)
    options = dict(fees=0.003, max_size=0.5, lock_cash=True)
    one, other = (run(close, al.EqualWeight(), open_, 0.03, engine=engine, **options).decisions for engine in ENGINES)
    exact = ["rebalance", "sector", "asset", "timestamp", "breached", "status", "reason"]
    pd.testing.assert_frame_equal(one[exact], other[exact])
    for name in ("weight", "weight_after", "drift", "requested", "filled", "clipped"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_no_rebalance_at_all_is_an_empty_table():
    bt = js.backtest(CLOSE, al.EqualWeight(), min_history=len(CLOSE), log=True)
    assert len(bt.decisions) == 0 and "reason" in bt.decisions
    assert len(bt.logs) == 0 and bt.logs.counts() == 0


# --- the picture


def test_the_picture_shows_the_rebalance(clipped):
    pytest.importorskip("plotly")
    when = clipped[0.03].rebalance_index[2]
    by_time, by_number = (clipped.plot_rebalance(x, key=0.03) for x in (when, 2))
    assert by_time.to_json() == by_number.to_json()
    last = clipped.plot_rebalance(-1, key=0.03)
    assert str(clipped[0.03].rebalance_index[-1].date()) in last.layout.title.text
    rows = clipped[0.03].decisions.query("rebalance == 2")
    traces = {trace.name: trace for trace in by_time.data if trace.name}
    np.testing.assert_array_equal(traces["before"].x, rows["weight"])
    np.testing.assert_array_equal(traces["after"].x, rows["weight_after"])
    np.testing.assert_array_equal(traces["target"].x, rows["target"])
    assert list(by_time.layout.yaxis.ticktext) == list(rows["asset"])
    assert {a.text for a in by_time.layout.annotations} == set(rows["reason"]) - {""}
    bands = [trace for trace in by_time.data if trace.type == "bar"]
    assert all(np.allclose(np.asarray(band.x), 0.06) for band in bands)  # 0.03 to either side


def test_the_picture_is_of_one_rebalance_of_one_lane(clipped):
    pytest.importorskip("plotly")
    with pytest.raises(ValueError, match="plot_rebalance draws one lane"):
        clipped.plot_rebalance(0)
    with pytest.raises(KeyError, match="there was no rebalance 1000"):
        clipped.plot_rebalance(1000, key=0.03)
    with pytest.raises(KeyError, match="there was no rebalance"):
        clipped.plot_rebalance(pd.Timestamp("1999-01-01"), key=0.03)
    with pytest.raises(TypeError, match=r"^decisions: "):
        js.views.rebalance([1, 2])
    with pytest.raises(ValueError, match=r"^decisions: there is no column 'asset'"):
        js.views.rebalance(pd.DataFrame({"weight": [0.1]}))


# --- logs


def test_logs_are_a_chain_of_accounts(clipped):
    """What an order leaves is what the next one meets."""
    records = clipped.logs.records
    for lane in (0, 1):
        log = records[records["group"] == lane]
        np.testing.assert_array_equal(log["cash"][1:], log["new_cash"][:-1])
        np.testing.assert_array_equal(log["free_cash"][1:], log["new_free_cash"][:-1])
        assert log["cash"][0] == 100.0
        for column in np.unique(log["col"]):
            mine = log[log["col"] == column]
            np.testing.assert_array_equal(mine["position"][1:], mine["new_position"][:-1])


def test_logs_say_what_was_asked_and_what_came_of_it(clipped):
    table = clipped.logs
    assert list(table.columns[:4]) == ["id", "threshold", "asset", "timestamp"]
    assert set(table["req_size_type"]) == {"TargetPercent"} and set(table["req_direction"]) == {"Both"}
    assert (table["req_max_size"] == 0.4).all() and (table["req_size_granularity"] == 0.01).all()
    filled = table[table["res_status"] == "Filled"]
    orders = clipped.orders
    np.testing.assert_array_equal(filled["res_size"], orders["size"])
    assert list(filled["res_side"]) == list(orders["side"])
    np.testing.assert_array_equal(filled["order_id"], np.arange(len(orders)))
    assert (table[table["res_status"] != "Filled"]["order_id"] == -1).all()
    stats = table.stats()
    np.testing.assert_array_equal(stats["Status Counts: Filled"], clipped.orders.counts())
    np.testing.assert_array_equal(stats["Total Records"], table.counts())


def test_logs_are_kept_on_request_only():
    with pytest.raises(ValueError, match=r"^logs: .*log=True"):
        _ = run(CLOSE, al.EqualWeight(), OPEN).logs
    with pytest.raises(TypeError, match=r"^log: expected True or False"):
        run(CLOSE, al.EqualWeight(), OPEN, log="yes")


def test_keeping_logs_changes_nothing():
    with_log, without = (
        run(CLOSE, al.FixedWeights([0.7, -0.4, 0.5]), OPEN, 0.03, fees=0.01, log=x) for x in (True, False)
    )
    np.testing.assert_allclose(with_log.value, without.value, rtol=1e-12)
    np.testing.assert_array_equal(with_log.rebalances, without.rebalances)
