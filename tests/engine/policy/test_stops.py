"""Stop-losses and take-profits between the dates of a plan."""

import numpy as np
import pandas as pd
import pytest

import jaxsim as js

INDEX = pd.date_range("2021-01-01", periods=8, freq="D")
#: A falls by a tenth on the third day, comes back, and falls again.
CLOSE = pd.DataFrame({"A": [10, 10, 9, 10, 10, 10, 8, 8], "B": [5, 5, 5, 5.5, 6, 6, 6, 6]}, INDEX, dtype=float)
PLAN = js.Allocations.from_weights(pd.DataFrame({"A": 0.5, "B": 0.5}, INDEX[[1, 5]]), INDEX)


def units(stops, **options):
    bt = js.replay(PLAN, CLOSE, open=CLOSE, stops=stops, engine="reference", freq="1D", **options)
    return bt.units.round(10).to_numpy().tolist()


def test_a_stop_closes_until_the_next_date():
    # 50 of 100 in each: 5 and 10 units. A stops at 9: 45 in cash. On day 5: 45 + 10 * 6 = 105, 52.5 in each.
    held = units(js.StopLoss(0.1))
    assert held == [[0, 0], [5, 10], [0, 10], [0, 10], [0, 10], [5.25, 8.75], [0, 8.75], [0, 8.75]]


def test_a_profit_is_taken():
    held = units([js.TakeProfit(0.1)])
    assert held[3] == [5, 0], "B has gained a tenth"
    assert held[5] == [5.25, 8.75], "50 + 55 of cash, halved"


def test_the_portfolio_as_a_whole():
    # 95 on day 2 is a loss of 5 %; after day 5, 100 / 5 = 20 units in all, A's fall by a fifth is one of 10 %.
    assert units(js.StopLoss(0.05, of="portfolio"))[2:5] == [[0, 0]] * 3
    assert units(js.StopLoss(0.051, of="portfolio"))[2] == [5, 10]
    assert units(js.StopLoss(0.051, of="portfolio"))[6] == [0, 0]


def test_what_is_out_stays_out_when_a_trigger_fires():
    held = units(js.StopLoss(0.1), trigger=js.Always())
    assert [row[0] for row in held] == [0, 5, 0, 0, 0, 5.25 * held[5][0] / 5.25, 0, 0]
    assert held[5][0] > 0
    assert held[3][1] < held[2][1], "B has risen, and goes back to half"


def test_the_entry_is_the_mean_price_of_purchases():
    close = pd.DataFrame({"A": [10.0, 20.0, 14.0, 13.5]}, INDEX[:4])
    size = pd.DataFrame({"A": [0.25, 0.6]}, INDEX[:2])
    plan = js.Allocations.from_weights(size, INDEX[:4])
    # 2.5 units at 10.1 leave 74.75; at 20 the value is 124.75, so 3.7425 units: 1.2425 more at 20.2, mean 13.453
    options = dict(open=close, engine="reference", slippage=0.01, init_cash=100.0)
    bt = js.replay(plan, close, stops=js.TakeProfit(0.04), **options)
    assert bt.orders["size"].round(9).tolist()[:2] == [2.5, 1.2425]
    assert bt.units["A"].tolist()[2] == 0, "14 is 4.065 % above it"
    bt = js.replay(plan, close, stops=js.TakeProfit(0.041), **options)
    assert bt.units["A"].tolist()[2] > 0, "and 5.1 % above the mean without slippage"


def test_short_positions_lose_when_prices_rise():
    plan = js.Allocations.from_weights(pd.DataFrame({"A": -0.5}, INDEX[[0]]), INDEX[:4])
    close = pd.DataFrame({"A": [10.0, 10.9, 11.0, 11.0]}, INDEX[:4])
    bt = js.replay(plan, close, open=close, stops=js.StopLoss(0.1), engine="reference", init_cash=100.0)
    assert bt.units["A"].round(9).tolist() == [-5, -5, 0, 0]


BARS = 160
TIMES = pd.date_range("2021-01-01", periods=BARS, freq="6h")


def _market(rng):
    close = 100 * np.exp(rng.normal(0, [0.01, 0.02, 0.03, 0.02] * 6, (BARS, 24)).cumsum(axis=0))
    columns = pd.MultiIndex.from_product([range(6), list("ABCD")], names=["case", "asset"])
    close = pd.DataFrame(close, TIMES, columns).mask(rng.random(close.shape) < 0.02)
    open_ = close.shift(1).bfill() * np.exp(rng.normal(0, 0.005, close.shape))
    return close, open_


SETS = {
    "stops": lambda: js.StopLoss(js.grid(loss=[0.01, 0.03, 0.1])),
    "both": lambda: [js.StopLoss(np.tile([0.02, 0.05, 0.04, 0.01], 6)), js.TakeProfit(js.grid(gain=[0.02, 0.05, 0.1]))],
    "portfolio": lambda: [js.StopLoss(0.02), js.TakeProfit(js.grid(gain=[0.01, 0.03, 0.1]), of="portfolio")],
}


@pytest.mark.parametrize("which", SETS)
def test_engines_agree(which):
    rng = np.random.default_rng(5)
    close, open_ = _market(rng)
    rows = pd.MultiIndex.from_product([range(6), TIMES[3:-9:24]])
    weights = pd.DataFrame(rng.dirichlet(np.ones(4), len(rows)) * rng.choice([1, 1, -1], (len(rows), 4)), rows)
    weights.columns, weights.index.names = list("ABCD"), ["case", None]
    plan = js.Allocations.from_weights(weights, TIMES)
    trigger = {"stops": None, "both": js.Threshold(0.05), "portfolio": js.Every("2D")}[which]
    options = dict(open=open_, fees=0.002, slippage=0.001, trigger=trigger, freq="6h", stops=SETS[which]())
    if which == "portfolio":
        options["destination"] = js.Fraction(0.5)
    one, other = js.replay(plan, close, **options), js.replay(plan, close, engine="reference", **options)
    np.testing.assert_array_equal(one.rebalances, other.rebalances)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-12)
    np.testing.assert_allclose(one.allocations.targets, other.allocations.targets, rtol=1e-12)
    plain = js.replay(plan, close, engine="reference", **{**options, "stops": ()})
    assert one.num_rebalances().sum() > plain.num_rebalances().sum() + 20, "stops close positions"
    changed = close.copy()
    changed.iloc[100:] *= 1.1
    later = js.replay(plan, changed, **options)
    pd.testing.assert_frame_equal(later.units.iloc[:100], one.units.iloc[:100])
    if which == "stops":
        again = js.replay(one.allocations, close, open=open_, fees=0.002, slippage=0.001)
        np.testing.assert_allclose(again.value, one.value, rtol=1e-12)


MISUSE = {
    "no stop": (dict(stops=0.1), TypeError, "stops: expected stops such as"),
    "a class": (dict(stops=[js.StopLoss]), TypeError, "stops: expected stops such as"),
    "a loss of nothing": (dict(stops=js.StopLoss(0.0)), ValueError, "loss: "),
    "a negative gain": (dict(stops=js.TakeProfit(js.grid(gain=[0.1, -1.0]))), ValueError, "gain: "),
    "a spread": (dict(stops=js.StopLoss(0.1), destination=js.SpreadOver(3)), ValueError, "stops: not beside"),
}


def test_of_what():
    with pytest.raises(ValueError, match=r"^of: expected 'asset' or 'portfolio'"):
        js.StopLoss(0.1, of="everything")


@pytest.mark.parametrize("case", MISUSE)
def test_misuse(case):
    options, error, message = MISUSE[case]
    with pytest.raises(error, match=f"^{message}"):
        js.replay(PLAN, CLOSE, **options)


def test_plain_orders_have_no_stops():
    orders = js.backtest(CLOSE, size=CLOSE.where(CLOSE > 1e9).fillna(0.1)).allocations
    with pytest.raises(ValueError, match=r"^stops: they close what target weights"):
        js.replay(orders, CLOSE, stops=js.StopLoss(0.1))
