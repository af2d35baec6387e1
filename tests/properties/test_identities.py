"""What must hold of a portfolio whatever it trades, through the public face; see also `test_accounting`, which looks at
every single order of random pipelines."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import allocators as al
import jaxsim as js
from tests.helpers.cases import assert_same_portfolio, random_prices

GROUPS, ASSETS, BARS = 4, 3, 50
INDEX = pd.date_range("2021-01-01", periods=BARS, freq="h")
COLUMNS = pd.MultiIndex.from_product([range(GROUPS), list("ABC")], names=["case", "asset"])
ENGINES = ["compiled", "reference"]
SEEDS = st.integers(0, 10**6)
few = settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

pytestmark = pytest.mark.filterwarnings("ignore:target weights sum to more than one")


def random_job(seed: int) -> dict:
    """Arguments of `backtest` of one shape: long and short weights, holes and listings, every cost and limit. Two lanes
    for each group."""
    rng = np.random.default_rng(seed)
    frames = [random_prices(rng, BARS, ASSETS) for _ in range(GROUPS)]
    close, open_ = (pd.DataFrame(np.hstack([f[i] for f in frames]), INDEX, COLUMNS) for i in range(2))
    num, level = len(COLUMNS), np.nanmedian(close, axis=0)
    share = rng.dirichlet(np.ones(ASSETS), GROUPS).ravel() * rng.choice([-1, 1, 1], num) * rng.uniform(0.5, 1.3)
    return dict(
        close=close,
        policy=al.FixedWeights(pd.Series(share, COLUMNS)),
        open=open_,
        trigger=js.Threshold(pd.Series(rng.uniform(0, 0.1, num), COLUMNS)),
        fees=pd.DataFrame(rng.uniform(-0.001, 0.01, close.shape), INDEX, COLUMNS),
        fixed_fees=rng.uniform(-0.01, 0.1, num),
        slippage=pd.Series(rng.choice([0.0, 0.01], BARS), INDEX),
        min_size=0.001 / level,
        max_size=rng.choice([np.inf, 60.0], num) / level,
        size_granularity=rng.choice([np.nan, 0.1], num) / level,
        lock_cash=rng.random(num) < 0.3,
        allow_partial=rng.random((BARS, 1)) < 0.8,
        update_value=js.grid(update_value=[False, True]),
        freq="1h",
    )


def free_cash_from(records: np.ndarray, init_cash: float) -> np.ndarray:
    """Cash less twice the debt, after each bar, from the orders alone: a short position is owed what it was sold for,
    and buying back pays off the same part of that as of the position."""
    units, debt, cash, out = np.zeros(ASSETS), np.zeros(ASSETS), init_cash, np.full(BARS, np.nan)
    for r in records:
        n, size, price = r["col"], r["size"], r["price"]
        if r["side"] == 1:
            debt[n] += max(size - max(units[n], 0.0), 0.0) * price
            units[n] -= size
            cash += size * price - r["fees"]
        else:
            if units[n] < 0:
                debt[n] *= max(1 - size / -units[n], 0.0)
            units[n] += size
            cash -= size * price + r["fees"]
        out[r["idx"]] = cash - 2 * debt.sum()
    out[0] = init_cash if np.isnan(out[0]) else out[0]
    return pd.Series(out).ffill().to_numpy()


@pytest.mark.parametrize("engine", ENGINES)
@few
@given(SEEDS)
def test_orders_alone_give_all_that_a_portfolio_is(engine, seed):
    """Rules 6.1 to 6.7: cash, free cash, holdings, value, exposure, profit, fees and gains."""
    bt = js.backtest(engine=engine, **random_job(seed))
    assert (bt.cash.to_numpy() >= -1e-9).all()
    mark = np.nan_to_num(bt._paths.context.mark)
    for number, label in enumerate(bt.lanes):
        one, marks = bt[label], mark[:, ASSETS * (number % GROUPS) :][:, :ASSETS]
        records = one.records
        traded = np.where(records["side"] == 0, 1.0, -1.0) * records["size"]
        flow, held = np.zeros(BARS), np.zeros((BARS, ASSETS))
        np.add.at(flow, records["idx"], -traded * records["price"] - records["fees"])
        np.add.at(held, (records["idx"], records["col"]), traded)
        cash, held = 100.0 + np.cumsum(flow), np.cumsum(held, axis=0)
        worth = held * marks
        money = 100.0 + np.abs(worth).max() + np.abs(traded * records["price"]).max(initial=0.0)
        exact = dict(rtol=1e-9, atol=1e-9 * money)
        np.testing.assert_allclose(one.cash, cash, **exact)
        np.testing.assert_allclose(one.asset_value, worth, **exact)
        np.testing.assert_allclose(one.value, cash + worth.sum(axis=1), **exact)
        before = np.concatenate([[100.0], one.value[:-1]])
        np.testing.assert_allclose(one.returns * np.abs(before), one.value - before, rtol=1e-9, atol=1e-12)
        free, invested = free_cash_from(records, 100.0), np.abs(one.asset_value).sum(axis=1)
        np.testing.assert_allclose(one.gross_exposure * (invested + free), invested, **exact)
        assert one.total_fees() == pytest.approx(records["fees"].sum(), rel=1e-9, abs=1e-12)
        profit = one.value.iloc[-1] - 100.0
        for trades in (one.entry_trades, one.exit_trades, one.positions):
            assert trades["pnl"].sum() == pytest.approx(profit, rel=1e-9, abs=1e-9 * money)
            fees = trades["entry_fees"].sum() + trades["exit_fees"].sum()
            assert fees == pytest.approx(one.total_fees(), rel=1e-9, abs=1e-9)


@few
@given(SEEDS)
def test_another_currency_is_another_scale(seed):
    """A power of two scales without rounding, so that not a bit may differ."""
    job, large = random_job(seed), random_job(seed)
    scaled = dict(close=4 * job["close"], open=4 * job["open"], fixed_fees=4 * job["fixed_fees"], init_cash=400.0)
    one, other = js.backtest(**job), js.backtest(**(large | scaled))
    np.testing.assert_array_equal(one.rebalances, other.rebalances)
    np.testing.assert_array_equal(4 * one.value, other.value)
    np.testing.assert_array_equal(one.units, other.units)
    np.testing.assert_array_equal(4 * one.records["fees"], other.records["fees"])
    np.testing.assert_array_equal(one.gross_exposure, other.gross_exposure)


def test_terms_that_say_nothing_say_nothing():
    """Neutral values, as lanes so that they stay in the compiled program, against no values at all."""
    job = random_job(3)
    plain = {name: job[name] for name in ("close", "policy", "open", "trigger", "fees", "freq")}
    neutral = dict(
        fixed_fees=0.0,
        slippage=0.0,
        min_size=0.0,
        max_size=np.inf,
        size_granularity=np.nan,
        reject_prob=0.0,
        lock_cash=False,
        allow_partial=True,
        raise_reject=False,
        update_value=False,
        size_type="target_percent",
        direction="both",
        call_seq="auto",
    )
    bt = js.backtest(**plain, engine="reference")
    swept = js.backtest(**plain, **{name: pd.Index([value], name=name) for name, value in neutral.items()})
    of_lane = js.Backtest(swept._paths, bt.lanes)
    assert_same_portfolio(of_lane, bt, rtol=1e-12)
    np.testing.assert_allclose(of_lane.gross_exposure, bt.gross_exposure, rtol=1e-9)


@pytest.mark.parametrize("kind", list(js.SizeType), ids=lambda kind: kind.name)
def test_the_order_of_the_columns_does_not_matter(kind):
    """Plain orders whose values differ: they trade by value, wherever their columns stand."""
    rng = np.random.default_rng(int(kind))
    close = pd.DataFrame(20 * np.exp(rng.normal(0, 0.03, (BARS, 4)).cumsum(axis=0)), INDEX, list("ABCD"))
    whole = {"AMOUNT": 5.0, "VALUE": 100.0, "PERCENT": 1.0}[kind.name.removeprefix("TARGET_")]
    size = pd.DataFrame(rng.uniform(-0.7, 0.7, close.shape) * whole, INDEX, close.columns)
    terms = dict(size_type=kind, fees=0.002, fixed_fees=0.01, lock_cash=True, engine="reference")
    open_ = close.shift(1).fillna(20.0)
    direction = pd.Series(["both", "long_only", "both", "both"], close.columns)
    shuffled = list("CADB")
    one = js.backtest(close, open=open_, size=size, direction=direction, **terms)
    other = js.backtest(close[shuffled], open=open_[shuffled], size=size[shuffled], direction=direction, **terms)
    assert len(one.orders) > 50
    columns = ["asset", "timestamp", "side"]
    pd.testing.assert_frame_equal(one.orders[columns], other.orders[columns])
    np.testing.assert_allclose(one.orders["size"], other.orders["size"], rtol=1e-9)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-9)
    as_they_stand = js.backtest(close, open=open_, size=size, direction=direction, call_seq="default", **terms)
    assert not np.allclose(as_they_stand.value, one.value), "the order of execution matters here"


def test_a_trade_that_breaks_even_is_no_gain():
    """Bought at 0.1 and 0.7, sold at 0.4: the average, but for its last bit. As in vectorbt, that is a gain of 0, and
    fees make it a loss."""
    close = pd.DataFrame({"A": [0.1, 0.7, 0.4]}, INDEX[:3])
    size = pd.DataFrame({"A": [1.0, 1.0, -2.0]}, INDEX[:3])
    bt = js.backtest(close, size=size, engine="reference")
    assert bt.exit_trades["pnl"].tolist() == bt.positions["pnl"].tolist() == [0.0]
    assert bt.trades.stats()["Win Rate [%]"] == 0.0
    paid = js.backtest(close, size=size, fixed_fees=0.001, engine="reference")
    np.testing.assert_allclose(paid.exit_trades["pnl"], [-0.003], rtol=1e-12)
