"""Portfolios from orders that were filled elsewhere."""

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import INDEX, grouped, prices, run, with_holes

CLOSE, OPEN = prices(0)
RUN = dict(fees=0.003, freq="1D", engine="reference")
BOOK = pd.DataFrame(
    {
        "asset": ["A", "B", "A", "B"],
        "timestamp": INDEX[[0, 0, 3, 5]],
        "size": [0.5, 0.2, 0.25, 0.2],
        "price": [100.0, 100.0, 120.0, 90.0],
        "fees": [0.5, 0.0, 0.1, 0.2],
        "side": ["Buy", "Sell", "Sell", "Buy"],
    }
)


def assert_same(a: js.Backtest, b: js.Backtest) -> None:
    """The same paths, orders and statistics. A rebalance that filled nothing leaves no record."""
    for name in ("value", "cash", "units", "gross_exposure"):
        x, y = (getattr(bt, name) for bt in (a, b))
        np.testing.assert_allclose(np.asarray(x, float), np.asarray(y, float), rtol=1e-9, atol=1e-9, err_msg=name)
    pd.testing.assert_frame_equal(a.orders, b.orders)
    for name in ("turnover", "total_fees", "sharpe_ratio"):
        np.testing.assert_allclose(getattr(a, name)(), getattr(b, name)(), rtol=1e-9)
    x, y = (bt.stats().drop(["Start", "End", "Period"], axis=bt.stats().ndim - 1) for bt in (a, b))
    numbers = [np.asarray(table.to_numpy().ravel(), dtype=object) for table in (x, y)]
    for one, other in zip(*numbers, strict=True):
        if isinstance(one, float) or isinstance(other, float):
            assert float(one) == pytest.approx(float(other), rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("weights", [[0.5, 0.3, 0.2], [0.8, -0.5, 0.4]], ids=["long", "short"])
def test_the_orders_of_a_run_are_the_run(weights):
    bt = run(CLOSE, al.FixedWeights(weights), OPEN, js.grid(threshold=[0.02, 0.5]), **RUN)
    assert_same(js.from_records(bt.orders, CLOSE, open=OPEN, freq="1D"), bt)
    assert_same(js.from_records(bt[0.02].records, CLOSE, open=OPEN, freq="1D"), bt[0.02])
    plain = pd.DataFrame(bt.orders)
    again = js.from_records(plain, CLOSE, open=OPEN, lanes="threshold", freq="1D")
    assert list(again.lanes) == [0.02, 0.5]
    np.testing.assert_allclose(again.value, bt.value, rtol=1e-9)


def test_groups_of_different_sizes_and_holes():
    close, open_ = with_holes(*grouped(2))
    bt = run(close, al.EqualWeight(), open_, js.grid(threshold=[0.02, 0.04]), **RUN)
    again = js.from_records(bt.orders, close, open=open_, freq="1D")
    assert again.lanes.equals(bt.lanes)
    assert_same(again, bt)
    by_group = js.from_records(bt[0.02].orders, close, open=open_, freq="1D")
    np.testing.assert_allclose(by_group.value, bt[0.02].value, rtol=1e-9)


def test_a_hand_made_book():
    bt = js.from_records(BOOK, CLOSE, freq="1D")
    cash = 100 - (0.5 * 100 + 0.5) + 0.2 * 100 + (0.25 * 120 - 0.1) - (0.2 * 90 + 0.2)
    assert bt.cash.iloc[-1] == pytest.approx(cash)
    assert bt.units.iloc[-1].tolist() == [0.25, 0.0, 0.0]
    assert bt.value.iloc[-1] == pytest.approx(cash + 0.25 * CLOSE["A"].iloc[-1])
    assert list(bt.rebalance_index) == list(INDEX[[0, 3, 5]])
    assert bt.total_fees() == pytest.approx(0.8)
    trades = bt.trades
    assert trades.loc[trades["asset"] == "B", "pnl"].item() == pytest.approx(0.2 * 10 - 0.2)
    assert trades.loc[trades["asset"] == "B", "direction"].item() == "Short"


def test_signs_may_say_the_side_and_fees_may_be_missing():
    signed = BOOK.assign(size=[0.5, -0.2, -0.25, 0.2]).drop(columns=["side", "fees"])
    assert js.from_records(signed, CLOSE).cash.iloc[-1] == pytest.approx(100 - 50 + 20 + 30 - 18)


def test_several_orders_of_an_asset_at_one_bar():
    """Each is an order of its own; the bar is one rebalance."""
    twice = pd.concat([BOOK.iloc[[0]], BOOK.iloc[[0]].assign(price=110.0), BOOK.iloc[[1]]], ignore_index=True)
    bt = js.from_records(twice, CLOSE, init_cash=1000.0)
    assert len(bt.orders) == 3 and bt.num_rebalances() == 1
    assert bt.units["A"].iloc[0] == 1.0
    assert bt.cash.iloc[0] == pytest.approx(1000 - 50.5 - 55.5 + 20)
    assert list(bt.rebalance_index) == [INDEX[0]]


def test_cash_of_each_lane():
    labelled = pd.concat([BOOK.assign(broker="x"), BOOK.assign(broker="y")], ignore_index=True)
    bt = js.from_records(labelled, CLOSE, lanes=["broker"], init_cash=pd.Series({"y": 200.0, "x": 100.0}))
    assert (bt.value["y"] - bt.value["x"]).tolist() == pytest.approx([100.0] * len(CLOSE))


def test_no_orders_at_all():
    bt = js.from_records(BOOK.iloc[:0], CLOSE, freq="1D")
    assert (bt.value == 100.0).all() and len(bt.orders) == 0 and bt.stats()["Total Trades"] == 0


def test_records_of_vectorbt():
    vbt = pytest.importorskip("vectorbt")
    sizes = pd.DataFrame(np.random.default_rng(0).normal(0, 0.3, CLOSE.shape), INDEX, CLOSE.columns)
    pf = vbt.Portfolio.from_orders(
        CLOSE, size=sizes, fees=0.01, fixed_fees=0.05, cash_sharing=True, group_by=True, init_cash=1000.0, freq="1D"
    )
    for orders in (pf.orders.records_readable, pf.orders.records, pf.orders.values):
        bt = js.from_records(orders, CLOSE, init_cash=1000.0, freq="1D")
        np.testing.assert_allclose(bt.value, pf.value(), rtol=1e-9)
        assert bt.sharpe_ratio() == pytest.approx(pf.sharpe_ratio(), rel=1e-9)
        np.testing.assert_allclose(bt.gross_exposure, pf.gross_exposure(), rtol=1e-9)


def test_more_orders_than_cash_warn():
    with pytest.warns(UserWarning, match="cash falls to -"):
        js.from_records(BOOK.iloc[[0]].assign(size=50.0), CLOSE)


def test_nobody_knows_what_was_asked_for():
    bt = js.from_records(BOOK, CLOSE)
    with pytest.raises(ValueError, match=r"^allocations: .*filled orders"):
        _ = bt.allocations
    with pytest.raises(ValueError, match=r"^logs: "):
        _ = bt.logs
    assert (bt.decisions["status"] == "Filled").sum() == 4


BAD = {
    "no table": (BOOK.to_dict(), {}, TypeError, "^orders: expected a DataFrame"),
    "no price": (BOOK.drop(columns="price"), {}, ValueError, "^orders: there is no column 'price'"),
    "an unknown asset": (BOOK.assign(asset="Z"), {}, ValueError, "^orders: close has no column for 'Z'"),
    "an unknown time": (BOOK.assign(timestamp=pd.Timestamp("1999-01-01")), {}, ValueError, "^orders: 1999"),
    "a size of zero": (BOOK.assign(size=0.0), {}, ValueError, "^orders: sizes must be finite"),
    "a negative size with a side": (BOOK.assign(size=-1.0), {}, ValueError, "^orders: sizes .*there is a side"),
    "a size in words": (BOOK.assign(size="many"), {}, TypeError, "^orders: the column 'size' must hold numbers"),
    "a negative price": (BOOK.assign(price=-1.0), {}, ValueError, "^orders: prices must be finite and > 0; row 0"),
    "infinite fees": (BOOK.assign(fees=np.inf), {}, ValueError, "^orders: fees must be finite; row 0"),
    "a third side": (BOOK.assign(side="Hold"), {}, ValueError, "^orders: a side is 'Buy' or 'Sell', row 0 has 'Hold'"),
    "an unknown level": (BOOK, dict(lanes="broker"), ValueError, "^lanes: the orders have no column 'broker'"),
    "too many balances": (BOOK, dict(init_cash=[1.0, 2.0]), ValueError, "^init_cash: expected one number"),
    "a negative balance": (BOOK, dict(init_cash=-5.0), ValueError, "^init_cash: "),
    "a column out of range": (
        BOOK.drop(columns=["asset", "timestamp"]).assign(col=7, idx=0),
        {},
        ValueError,
        "^orders: col must be from 0 to 2",
    ),
    "a bar out of range": (
        BOOK.drop(columns=["asset", "timestamp"]).assign(col=0, idx=-1),
        {},
        ValueError,
        "^orders: idx must be from 0 to 59",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_misuse(case):
    orders, options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        js.from_records(orders, CLOSE, **options)
