"""Metrics count the bars from the start of each lane on (rules 7.17). Expected numbers are worked out by hand from two
assets: A goes 100, 110, 121, 121, 133.1 and B 50, 50, 50, 55, 55."""

import jax
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js

INDEX = pd.date_range("2024-01-01", periods=5, freq="D", name="time")
CLOSE = pd.DataFrame({"A": [100, 110, 121, 121, 133.1], "B": [50.0, 50, 50, 55, 55]}, INDEX)
RUN = dict(open=CLOSE, freq="1D", year_freq="252D")
ENGINES = pytest.mark.parametrize("engine", ["reference", "compiled"])

#: Bought at the close of bar 2: 50 of A and 50 of B. The benchmark is bought at the close of bar 1.
RETURNS = np.array([0.0, 0.05, 110 / 105 - 1])
BENCHMARK = np.array([0.05, 1.1 / 1.05 - 1, 1.155 / 1.1 - 1])

#: A random market of 40 bars for metrics that need more.
LONG = pd.DataFrame(
    100 * np.exp(np.random.default_rng(3).normal(0, 0.02, (40, 2)).cumsum(axis=0)),
    pd.date_range("2024-01-01", periods=40, freq="D"),
    ["A", "B"],
)
LONG_RUN = dict(trigger=js.Threshold(0.01), fees=0.002, freq="1D")
STARTS = js.grid(min_history=[0, 12])


@ENGINES
def test_metrics_count_from_the_first_bar_that_may_trade(engine):
    bt = js.backtest(CLOSE, al.EqualWeight(), min_history=2, engine=engine, **RUN)
    assert bt.start == 2
    np.testing.assert_allclose(bt.returns, [0, 0, *RETURNS], atol=1e-15)  # the path is whole
    np.testing.assert_allclose(bt.benchmark_value, [100, 100, 105, 110, 115.5], rtol=1e-14)
    np.testing.assert_allclose(bt.total_return(), 0.1, rtol=1e-12)
    np.testing.assert_allclose(bt.annualized_return(), 1.1 ** (252 / 3) - 1, rtol=1e-12)
    sharpe = RETURNS.mean() / RETURNS.std(ddof=1) * np.sqrt(252)
    np.testing.assert_allclose(bt.sharpe_ratio(), sharpe, rtol=1e-12)
    slope = ((RETURNS - RETURNS.mean()) * (BENCHMARK - BENCHMARK.mean())).mean() / BENCHMARK.var()
    np.testing.assert_allclose(bt.beta(), slope, rtol=1e-9)
    stats = bt.stats()
    assert stats["Start"] == INDEX[2] and stats["End"] == INDEX[4]
    np.testing.assert_allclose(stats["Benchmark Return [%]"], 15.5, rtol=1e-12)
    np.testing.assert_allclose(stats["Total Return [%]"], 10, rtol=1e-12)
    rolled = bt.rolling_total_return(window=2)
    np.testing.assert_allclose(rolled, [np.nan] * 3 + [0.05, 0.1], rtol=1e-12)


@ENGINES
def test_all_bars_count_where_start_says_so(engine):
    bt = js.backtest(CLOSE, al.EqualWeight(), min_history=2, start=0, engine=engine, **RUN)
    np.testing.assert_allclose(bt.annualized_return(), 1.1 ** (252 / 5) - 1, rtol=1e-12)
    np.testing.assert_allclose(bt.stats()["Benchmark Return [%]"], 21.55, rtol=1e-12)
    assert bt.start == 0 and bt.stats()["Start"] == INDEX[0] and bt.returns.attrs == {}


@ENGINES
def test_orders_before_the_start_are_no_costs_and_what_they_bought_is_opened_at_its_value(engine):
    size = pd.DataFrame({"A": [1.0, 0, 0, -0.5, 0], "B": [0.0, 0, 0, 0, 0]}, INDEX).replace(0, np.nan)
    bt = js.backtest(CLOSE, size=size, fees=0.01, init_cash=200, start=2, engine=engine, **RUN)
    values = np.array([199, 209, 220, 219.395, 225.445])  # 1 of A for 100 + 1; half of it for 60.5 - 0.605
    np.testing.assert_allclose(bt.value, values, rtol=1e-12)
    np.testing.assert_allclose(bt.total_return(), 225.445 / 209 - 1, rtol=1e-12)
    np.testing.assert_allclose(bt.total_fees(), 0.605, rtol=1e-12)
    np.testing.assert_allclose(bt.turnover_two_way(), 60.5 / 220, rtol=1e-12)
    assert bt.num_rebalances() == 1 and len(bt.orders) == 2
    stats = bt.stats()
    np.testing.assert_allclose([stats["Start Value"], stats["Total Fees Paid"]], [209, 0.605], rtol=1e-12)
    assert stats["Total Trades"] == 2
    np.testing.assert_allclose(stats["Expectancy"], 0.5 * (121 - 110) - 0.605, rtol=1e-12)


def test_drawdowns_begin_at_the_start():
    """The costs of entry, paid on the first bar that counts, are no drawdown: that bar is the first peak."""
    bt = js.backtest(CLOSE, al.EqualWeight(), min_history=2, fees=0.01, engine="reference", **RUN)
    assert len(bt.drawdowns) == 0 and bt.max_drawdown() == 0
    from_zero = js.backtest(CLOSE, al.EqualWeight(), min_history=2, fees=0.01, start=0, engine="reference", **RUN)
    assert len(from_zero.drawdowns) == 1 and from_zero.max_drawdown() < 0
    assert bt.drawdowns.stats()["Start"] == INDEX[2]


NAMES = [
    *("total_return", "sharpe_ratio", "max_drawdown", "alpha", "beta", "information_ratio", "skew", "ulcer_index"),
    *("turnover", "total_fees", "num_rebalances", "deflated_sharpe_ratio"),
]


def test_lanes_of_other_starts_are_told_alike_from_paths_and_from_sums():
    bt = js.backtest(LONG, al.EqualWeight(), min_history=STARTS, **LONG_RUN)
    table = js.sweep(LONG, al.EqualWeight(), min_history=STARTS, metrics=NAMES, **LONG_RUN)
    of_paths = js.sweep(LONG, al.EqualWeight(), min_history=STARTS, metrics=[*NAMES, "tail_ratio"], **LONG_RUN)
    slow = js.sweep(LONG, al.EqualWeight(), min_history=STARTS, metrics=NAMES, engine="reference", **LONG_RUN)
    for name in NAMES:
        for other in (table[name], of_paths[name], slow[name]):
            np.testing.assert_allclose(other, getattr(bt, name)(), rtol=1e-9, err_msg=name)
    returns = bt.returns.to_numpy()
    np.testing.assert_allclose(
        bt.sharpe_ratio(), [js.metrics.sharpe_ratio(returns[s:, i], ann_factor=365) for i, s in enumerate([0, 12])]
    )
    assert bt.start.to_dict() == {0: 0, 12: 12} and bt[12].start == 12
    assert bt.stats()["Start"].tolist() == [LONG.index[0], LONG.index[12]]
    assert bt.rolling_sharpe_ratio(window=3).notna().to_numpy().argmax(axis=0).tolist() == [2, 14]


def test_comparisons_count_the_bars_that_all_lanes_have():
    bt = js.backtest(LONG, al.EqualWeight(), min_history=STARTS, engine="reference", **LONG_RUN)
    late = bt.returns.iloc[12:]
    np.testing.assert_allclose(
        bt.deflated_sharpe_ratio(), js.metrics.deflated_sharpe_ratio(late.to_numpy(), ann_factor=365), rtol=1e-12
    )
    late = pd.DataFrame(late.to_numpy(), late.index, late.columns)
    expected = js.probability_of_overfitting(late, num_blocks=4)
    for returns in (bt, bt.returns, bt.returns.iloc[5:]):
        pd.testing.assert_frame_equal(js.probability_of_overfitting(returns, num_blocks=4).table, expected.table)
    ratio = js.deflate_sharpe_ratio(late[12], [0.1, 0.2], ann_factor=365)
    assert js.deflate_sharpe_ratio(bt[12], [0.1, 0.2], ann_factor=365) == ratio


@ENGINES
def test_allocations_carry_the_start_of_their_source(engine, tmp_path):
    bt = js.backtest(CLOSE, al.EqualWeight(), min_history=1, trigger=js.AtBars(np.arange(5) == 3), engine=engine, **RUN)
    recorded = bt.allocations
    pytest.importorskip("pyarrow")
    recorded.save(tmp_path / "recorded.parquet")
    for allocations in (recorded, js.Allocations.load(tmp_path / "recorded.parquet"), recorded.between(INDEX[1])):
        again = js.replay(allocations, CLOSE, engine=engine, **RUN)
        assert again.start == 1
        np.testing.assert_allclose(again.sharpe_ratio(), bt.sharpe_ratio(), rtol=1e-12)
    assert js.replay(recorded.between(INDEX[2]), CLOSE, engine=engine, **RUN).start == 3
    assert js.replay(recorded, CLOSE, start=0, engine=engine, **RUN).start == 0
    both = js.Allocations.concat({"recorded": recorded, "plan": recorded.between(INDEX[3])}, name="kind")
    assert js.replay(both, CLOSE, engine=engine, **RUN).start.tolist() == [1, 3]


@ENGINES
def test_a_plan_starts_at_its_first_row(engine):
    weights = pd.DataFrame({"A": [0.5], "B": [0.5]}, INDEX[[2]])
    plan = js.Allocations.from_weights(weights, CLOSE.index)
    bt = js.replay(plan, CLOSE, engine=engine, **RUN)
    assert bt.start == 2
    np.testing.assert_allclose(bt.stats()["Benchmark Return [%]"], 15.5, rtol=1e-12)
    made = js.optimize(CLOSE, al.EqualWeight(), on=INDEX[[3]], lookback=2, engine="reference")
    assert js.replay(made, CLOSE, engine=engine, **RUN).start == 3
    longer = pd.concat([CLOSE.set_axis(INDEX - pd.Timedelta("5D")), CLOSE])
    assert js.replay(bt.allocations, longer, open=longer, freq="1D", engine=engine).start == 7


def test_records_count_from_bar_zero_unless_said():
    bt = js.backtest(CLOSE, al.EqualWeight(), min_history=2, engine="reference", **RUN)
    assert js.from_records(bt.orders, CLOSE, freq="1D").start == 0
    again = js.from_records(bt.orders, CLOSE, start=2, freq="1D", year_freq="252D")
    np.testing.assert_allclose(again.sharpe_ratio(), bt.sharpe_ratio(), rtol=1e-12)


def test_a_lane_that_never_may_trade_has_no_metrics():
    lanes = js.grid(min_history=[0, 99])
    bt = js.backtest(CLOSE, al.EqualWeight(), min_history=lanes, engine="reference", **RUN)
    assert np.isnan(bt.total_return()[99]) and bt.num_rebalances()[99] == 0
    assert bt.rolling_total_return(window=1)[99].isna().all()
    stats = bt.stats()
    assert pd.isna(stats.loc[99, "Start"]) and np.isnan(stats.loc[99, "Sharpe Ratio"])
    table = js.sweep(LONG, al.EqualWeight(), min_history=lanes, metrics=NAMES[:-1], **LONG_RUN)
    assert table.loc[99, NAMES[:8]].isna().all() and table.loc[99, "total_fees"] == 0


@pytest.mark.filterwarnings("ignore:steps")  # one step need not be better than the start
def test_score_and_fit_count_from_min_history_on():
    with jax.enable_x64(True):
        market = js.Market.from_frames(LONG)
    policy = js.Policy(al.SoftmaxWeights(2), js.Threshold(0.01), min_history=12, cut="pro_rata")
    costs = js.Costs(fees=0.002)
    options = dict(costs=costs, ann_factor=365, steps=1, every=1)
    bt = js.backtest(LONG, policy, fees=0.002, freq="1D", engine="reference")
    with jax.enable_x64(True):
        told = js.score(market, policy, ["sharpe_ratio", "total_fees"], ann_factor=365.0, costs=costs)
        whole = js.score(market, policy, ["sharpe_ratio", "total_fees"], ann_factor=365.0, costs=costs, start=0)
    np.testing.assert_allclose(told["sharpe_ratio"], bt.sharpe_ratio(), rtol=1e-9)
    np.testing.assert_allclose(told["total_fees"], bt.total_fees(), rtol=1e-9)

    def weights(policy):
        return policy.allocator.logits

    all_bars = js.metrics.sharpe_ratio(bt.returns.to_numpy(), ann_factor=365)
    np.testing.assert_allclose(whole["sharpe_ratio"], all_bars, rtol=1e-9)
    fitted = js.fit(policy, market, trainable=weights, **options)
    np.testing.assert_allclose(fitted.history["hard"].iloc[0], bt.sharpe_ratio(), rtol=1e-9)
    assert js.fit(policy, market, trainable=weights, start=0, **options).score != fitted.score


def test_folds_count_from_min_history_on():
    policy = js.Policy(al.EqualWeight(), js.Threshold(0.01), min_history=12)
    splits = js.WalkForwardSplits(train=20, test=10)
    walked = js.walk_forward(
        LONG, lambda market: policy, splits, metrics=["total_return"], fees=0.002, freq="1D", engine="reference"
    )
    bt = js.backtest(LONG.iloc[:20], policy, fees=0.002, freq="1D", engine="reference")
    np.testing.assert_allclose(walked.table["total_return_in"].iloc[0], bt.total_return(), rtol=1e-9)
    late = js.walk_forward(
        LONG,
        lambda market: js.Policy(al.EqualWeight(), min_history=25),
        splits,
        metrics=["annualized_return"],
        freq="1D",
        engine="reference",
    )
    assert np.isnan(late.table["annualized_return_in"].iloc[0])
    assert late.returns["learned"].isna().sum() == 5
    kept = late.returns["learned"].dropna().to_numpy()
    expected = js.metrics.annualized_return(kept, ann_factor=365)
    np.testing.assert_allclose(late.summary["annualized_return_joined"].iloc[0], expected)


def test_folds_count_from_the_start_that_is_said():
    policy, splits = js.Policy(al.EqualWeight(), min_history=12), js.WalkForwardSplits(train=20, test=10)
    run = dict(metrics=["annualized_return"], freq="1D", engine="reference")
    walked = js.walk_forward(LONG, lambda market: policy, splits, start=0, **run)
    growth = 1 + js.backtest(LONG.iloc[:20], policy, freq="1D", engine="reference").total_return()
    np.testing.assert_allclose(walked.table["annualized_return_in"].iloc[0], growth ** (365 / 20) - 1)


def test_sensitivities_are_of_the_bars_that_count():
    run = dict(fees=0.002, min_history=12, freq="1D")
    bt = js.backtest(LONG, al.EqualWeight(), engine="reference", **run)
    table = js.sensitivities(LONG, al.EqualWeight(), wrt=["fees"], **run)
    np.testing.assert_allclose(table["value"], bt.sharpe_ratio(), rtol=1e-9)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (5, "start: expected a whole number >= 0 and <= 4"),
        (-1, "start: expected a whole number"),
        (1.5, "start: expected a whole number"),
        ("2024-01-03", "start: expected the number of a bar, got '2024-01-03'"),
        (INDEX[2], "start: expected the number of a bar"),
    ],
)
def test_a_start_is_the_number_of_a_bar(start, message):
    with pytest.raises((TypeError, ValueError), match=message):
        js.backtest(CLOSE, al.EqualWeight(), start=start, **RUN)


def test_misused_starts_elsewhere():
    with jax.enable_x64(True):
        market = js.Market.from_frames(CLOSE)
    policy = js.Policy(al.SoftmaxWeights(2))
    with pytest.raises(ValueError, match="start: there is no bar 5, only 5 from 0 on"):
        js.score(market, policy, ["total_return"], start=5)
    with pytest.raises(ValueError, match="start: 5 bars leave none of the 5 bars of market="):
        js.fit(policy, market, ann_factor=252, start=5)
    late = js.Policy(al.SoftmaxWeights(2), min_history=4)
    with pytest.raises(ValueError, match="min_history: 4 bars leave none of the 3 bars of batch="):
        js.fit(late, market, ann_factor=252, batch=js.WindowBatch(3, 1))
    with pytest.raises(ValueError, match="start: there is no bar 5"):
        js.from_records(pd.DataFrame({"asset": [], "timestamp": [], "size": [], "price": []}), CLOSE, start=5)
