"""A stretch of a run (rules 6.10): what is in it is what the run has there, and what was held before it is opened at
its value."""

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js

DAYS = pd.date_range("2020-01-01", periods=60, freq="D", name="time")
CLOSE = pd.DataFrame(
    100 * np.exp(np.random.default_rng(8).normal(0, 0.03, (60, 3)).cumsum(axis=0)), DAYS, ["A", "B", "C"]
)
RUN = dict(open=CLOSE, trigger=js.Threshold(0.02), fees=0.002, freq="1D", year_freq="252D")
ENGINES = pytest.mark.parametrize("engine", ["reference", "compiled"])
FROM, TO = DAYS[20], DAYS[44]


def run(engine: str, **options) -> js.Backtest:
    return js.backtest(CLOSE, al.EqualWeight(), engine=engine, **RUN | options)


@ENGINES
def test_paths_orders_and_metrics_are_those_of_the_stretch(engine):
    bt = run(engine)
    cut = bt.between(FROM, TO)
    for name in ("value", "returns", "cash", "units", "weights", "gross_exposure", "benchmark_value", "rebalances"):
        whole, part = getattr(bt, name).loc[FROM:TO], getattr(cut, name)
        assert part.index.equals(DAYS[20:45])
        np.testing.assert_array_equal(part, whole, err_msg=name)
    returns = bt.returns.loc[FROM:TO].to_numpy()
    np.testing.assert_allclose(cut.total_return(), bt.value[TO] / bt.value[DAYS[19]] - 1, rtol=1e-12)
    np.testing.assert_allclose(cut.sharpe_ratio(), js.metrics.sharpe_ratio(returns, ann_factor=252), rtol=1e-12)
    assert cut.max_drawdown() == js.metrics.max_drawdown(returns)
    theirs = bt.benchmark_value.pct_change().loc[FROM:TO].to_numpy()
    np.testing.assert_allclose(cut.beta(), js.metrics.beta(returns, theirs), rtol=1e-9)
    orders = bt.orders[(bt.orders["timestamp"] >= FROM) & (bt.orders["timestamp"] <= TO)]
    assert 0 < len(orders) < len(bt.orders)
    pd.testing.assert_frame_equal(
        pd.DataFrame(cut.orders.drop(columns="id")), orders.drop(columns="id").reset_index(drop=True)
    )
    np.testing.assert_allclose(cut.total_fees(), orders["fees"].sum())
    assert cut.num_rebalances() == bt.rebalances.loc[FROM:TO].sum()
    assert cut.ann_factor == bt.ann_factor == 252


@ENGINES
def test_what_was_held_is_opened_at_its_value_then(engine):
    """So the gains of all trades, open ones at the last close among them, are the gain of the stretch."""
    bt = run(engine)
    cut = bt.between(FROM, TO)
    gain = bt.value[TO] - bt.value[DAYS[19]]
    for trades in (cut.exit_trades, cut.entry_trades, cut.positions):
        np.testing.assert_allclose(trades["pnl"].sum(), gain, rtol=1e-9)
        assert (trades["entry_timestamp"] >= FROM).all()
    first = cut.positions
    np.testing.assert_allclose(first["pnl"].sum(), gain, rtol=1e-9)
    assert (first["entry_timestamp"] == FROM).all() and len(first) == 3
    stats = cut.stats()
    assert stats["Start"] == FROM and stats["End"] == TO
    np.testing.assert_allclose(stats["Start Value"], bt.value[DAYS[19]])
    np.testing.assert_allclose(stats["Total Return [%]"], 100 * cut.total_return())


@ENGINES
def test_decisions_remember_what_was_before(engine):
    bt = run(engine)
    whole = bt.decisions[bt.decisions["timestamp"].between(FROM, TO)].reset_index(drop=True)
    part = bt.between(FROM, TO).decisions
    pd.testing.assert_frame_equal(part.drop(columns="rebalance"), whole.drop(columns="rebalance"), rtol=1e-12)


def test_drawdowns_start_anew():
    """Hand-made: 100, 80, 90, 70, 95; from the third bar on the peak is 90."""
    index = pd.date_range("2024-01-01", periods=5)
    close = pd.DataFrame({"A": [100.0, 80, 90, 70, 95]}, index)
    size = pd.DataFrame({"A": [1.0] + 4 * [np.nan]}, index)
    cut = js.backtest(close, size=size, engine="reference", freq="1D").between(index[2])
    np.testing.assert_allclose(cut.max_drawdown(), 70 / 90 - 1)
    assert cut.drawdowns["peak_value"].tolist() == [90] and len(cut.drawdowns) == 1
    np.testing.assert_allclose(cut.returns, [10 / 80, -20 / 90, 25 / 70])
    trade = cut.trades.iloc[0]
    assert (trade["entry_price"], trade["exit_price"], trade["pnl"], trade["status"]) == (80, 95, 15, "Open")


def test_labels_are_those_of_loc():
    bt = run("reference")
    assert bt.between("2020-02").value.index.equals(bt.value.loc["2020-02":].index)
    assert bt.between("2020-01-05", "2020-02").value.equals(bt.value.loc["2020-01-05":"2020-02"])
    assert bt.between(end="2020-01-15").value.equals(bt.value.loc[:"2020-01-15"])
    assert bt.between().value.equals(bt.value)
    assert bt.between("2019", "2020-01-03 12:00").value.index.equals(DAYS[:3])
    np.testing.assert_array_equal(bt.between(DAYS[5]).between(FROM, TO).value, bt.between(FROM, TO).value)
    nested = bt.between(DAYS[5]).between(FROM, TO)
    assert nested.stats().equals(bt.between(FROM, TO).stats()) and nested.benchmark_value.index[0] == FROM
    numbered = js.backtest(CLOSE.reset_index(drop=True), al.EqualWeight(), engine="reference", freq="1D")
    assert numbered.between(10, 12).value.index.tolist() == [10, 11, 12]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("2021", None), "start: no bar lies from 2021 to None; the run goes from 2020-01-01"),
        (("2020-02", "2020-01"), "start: no bar lies from 2020-02 to 2020-01"),
        ((5, 10), "start: expected labels like Timestamp"),
        (("spring", None), "start: expected labels like Timestamp"),
    ],
)
def test_no_stretch(labels, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        run("reference").between(*labels)
    assert str(caught.value).startswith(message)


@ENGINES
def test_lanes_groups_and_starts_are_cut_alike(engine):
    fees, groups = js.grid(fees=[0.0, 0.01]), {"A": "x", "B": "x", "C": "y"}
    bt = run(engine, fees=fees, groups=groups, min_history=30)
    cut = bt.between(FROM, TO)
    assert cut.start.tolist() == [10] * 4 and cut.lanes.equals(bt.lanes)
    np.testing.assert_array_equal(cut.value, bt.value.loc[FROM:TO])
    late = bt.returns.loc[DAYS[30] : TO].to_numpy()
    np.testing.assert_allclose(cut.sharpe_ratio(), js.metrics.sharpe_ratio(late, ann_factor=252), rtol=1e-12)
    np.testing.assert_allclose(cut[0.01, "x"].beta(), cut.beta()[0.01, "x"], rtol=1e-12)
    after = bt.between(DAYS[35])
    assert after.start.tolist() == [0] * 4
    np.testing.assert_array_equal(after[0.01].value, bt[0.01].value.loc[DAYS[35] :])
    pd.testing.assert_frame_equal(after.allocations.weights, bt.allocations.between(DAYS[35]).weights)
    records = js.from_records(bt.orders, CLOSE, groups=groups, freq="1D").between(FROM, TO)
    np.testing.assert_allclose(records.value, cut.value, rtol=1e-9)
