"""Assets that leave the market, and prices that are missing (rules 12.5, 12.6)."""

import warnings
from collections import Counter

import jax
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers import shorter_runs

DAYS = pd.date_range("2021-01-01", periods=40, freq="D")
ENGINES = pytest.mark.parametrize("engine", ["reference", "compiled"])
quiet = pytest.mark.filterwarnings("ignore:delistings")


def two_assets(last: int = 9, back: int = 40) -> pd.DataFrame:
    """A rises by one a day; B costs 50 up to bar `last`, has no price after it, and is back at 80."""
    close = pd.DataFrame({"A": 100.0 + np.arange(40), "B": 50.0}, DAYS)
    close.iloc[last + 1 :, 1] = np.nan
    close.iloc[back:, 1] = 80.0
    return close


def run(close, engine="reference", policy=None, **options):
    options = {"trigger": js.Never(), **options}
    return js.backtest(close, al.FixedWeights([0.5, 0.5]) if policy is None else policy, engine=engine, **options)


@ENGINES
def test_what_has_no_price_for_ten_bars_is_closed_at_the_next_one(engine):
    """Sized at the close of bar 0, filled at that of bar 1: 0.5 of 100 is half a unit of A for 50.5, and what is left,
    49.5, buys 0.99 units of B. The last price of B is that of bar 9; bars 10 to 19 have none; bar 20 closes it."""
    with pytest.warns(UserWarning, match=r"^delistings: closed .*: 'B' on 2021-01-21; bt.incidents .* stale="):
        bt = run(two_assets(), engine)
    np.testing.assert_allclose(bt.units["B"], [0] + [0.99] * 19 + [0] * 20, rtol=1e-12)
    np.testing.assert_allclose(bt.cash, [100] + [0] * 19 + [49.5] * 20, atol=1e-9)
    np.testing.assert_allclose(bt.value.iloc[1:], 0.5 * (100 + np.arange(1, 40)) + 49.5, rtol=1e-12)
    assert list(bt.rebalance_index) == [DAYS[0], DAYS[1]], "asked while flat; a closing is no rebalance"
    last = bt.orders.iloc[-1]
    assert (last["asset"], last["timestamp"], last["side"], last["reason"]) == ("B", DAYS[20], "Sell", "delisted")
    np.testing.assert_allclose([last["size"], last["price"], last["fees"]], [0.99, 50, 0], rtol=1e-12)
    assert list(bt.orders["reason"][:2]) == ["", ""]
    incident = bt.incidents.iloc[0]
    assert list(bt.incidents.columns) == ["timestamp", "kind", "asset", "amount"]
    assert (incident["timestamp"], incident["kind"], incident["asset"]) == (DAYS[20], "delisted", "B")
    assert incident["amount"] == pytest.approx(49.5)
    shown = bt.decisions
    assert list(shown["reason"][-3:]) == ["", "cut to the cash there was", "delisted"] and len(shown) == 5
    again = js.from_records(bt.orders, two_assets())
    np.testing.assert_allclose(again.value, bt.value, rtol=1e-12)
    closed = bt.trades[bt.trades["asset"] == "B"].iloc[0]
    assert closed["status"] == "Closed" and closed["exit_timestamp"] == DAYS[20]


@ENGINES
@pytest.mark.parametrize(("payout", "cash"), [(None, 49.5), (20.0, 19.8), (0.0, 0.0)])
def test_a_date_closes_at_once_for_what_is_paid(engine, payout, cash):
    """Closed at the first bar at or after the date, also where the table has prices there; those belong to nobody."""
    close = two_assets(last=39)
    date = "2021-01-12 12:00"
    with pytest.warns(UserWarning, match="'B' on 2021-01-13"):
        bt = run(close, engine, delistings={"B": date if payout is None else (date, payout)})
    np.testing.assert_allclose(bt.cash, [100] + [0] * 11 + [cash] * 28, atol=1e-9)
    assert (bt.units["B"].iloc[12:] == 0).all()
    np.testing.assert_allclose(js.from_records(bt.orders, close).value, bt.value, rtol=1e-12)
    closed = bt.trades[bt.trades["asset"] == "B"].iloc[0]
    assert closed["exit_price"] == (50.0 if payout is None else payout)


@ENGINES
@quiet
def test_a_short_position_releases_its_debt(engine):
    """Half a unit of A short at 101 leaves a free cash of 100 + 50.5 - 2 * 50.5; closed at 111 it costs 55.5."""
    close = two_assets()[["B", "A"]]
    close.iloc[12:, 1] = np.nan
    bt = run(close, engine, al.FixedWeights([0.0, -0.5]), delistings={"B": DAYS[39]})
    assert bt.cash.iloc[1] == pytest.approx(150.5) and bt.cash.iloc[-1] == pytest.approx(150.5 - 0.5 * 111)
    assert bt.incidents["amount"].iloc[0] == pytest.approx(-55.5)
    assert bt.gross_exposure.iloc[-1] == 0


@ENGINES
def test_held_as_in_vectorbt(engine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bt = run(two_assets(), engine, delistings="hold")
    assert (bt.units["B"].iloc[1:] > 0).all() and len(bt.incidents) == 0 and "reason" not in bt.orders


@ENGINES
def test_a_price_on_the_bar_of_the_closing_cancels_it(engine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bt = run(two_assets(back=20), engine)
    assert (bt.units["B"].iloc[1:] > 0).all()


@ENGINES
@quiet
def test_what_returns_is_a_new_listing(engine):
    """Closed at bar 20, back at bar 25. No price outlives the closing: B is valued from bar 26 on, and its old target
    of a half is gone, so that nothing is bought until the rebalance of bar 30."""
    seen = []

    def equal(obs):
        seen.append((int(obs.step), bool(obs.tradable[1]), float(obs.target[1])) if engine == "reference" else None)
        return al.EqualWeight(over="tradable")(obs)

    mask = np.isin(np.arange(40), [15, 22, 30])
    policy = equal if engine == "reference" else al.EqualWeight(over="tradable")
    bt = run(two_assets(back=25), engine, policy, trigger=js.AtBars(mask))
    assert list(bt.rebalance_index) == list(DAYS[[0, 1, 15, 22, 30]])
    assert (bt.units["B"].iloc[20:30] == 0).all() and (bt.units["B"].iloc[30:] > 0).all()
    assert bt.cash.iloc[22] == pytest.approx(0, abs=1e-9), "all of it is in A"
    if engine == "reference":
        assert seen[-2:] == [(22, False, 0.0), (30, True, 0.0)]


@ENGINES
@quiet
def test_an_account_that_is_emptied_waits(engine):
    """Nothing is left to hold; without a rebalance of its own the account is cash, and asks nobody."""
    bt = run(two_assets()[["B"]], engine, al.FixedWeights([1.0]))
    assert bt.num_rebalances() == 2 and bt.cash.iloc[-1] == pytest.approx(100)


@ENGINES
def test_a_hole_starts_no_storm(engine):
    """Without a price of bars 10 to 14, B stays at 50 while A doubles, so that its drift at its old price would fire at
    each of these bars."""
    close = pd.DataFrame({"A": 100.0, "B": 50.0}, DAYS)
    close.iloc[10:15, 1] = np.nan
    close.iloc[12:, 0] = 200.0
    ignored = run(close, engine, trigger=js.Threshold([0.9, 0.1]))
    counts = run(close, engine, trigger=js.Threshold([0.9, 0.1]), drift_without_price="counts")
    assert list(ignored.rebalance_index) == list(DAYS[[0, 1, 16]])
    assert list(counts.rebalance_index) == list(DAYS[[0, 1, 13, 14, 15]])


def holes(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    close = pd.DataFrame(50 * np.exp(np.cumsum(rng.normal(0, 0.03, (90, 4)), 0)), pd.date_range("2021", periods=90))
    for column in range(1, 4):
        for _ in range(rng.integers(1, 4)):
            start = rng.integers(5, 85)
            close.iloc[start : start + rng.integers(1, 30), column] = np.nan
    close.columns = list("ABCD")
    return close


@quiet
@pytest.mark.parametrize("seed", range(8))
def test_a_shorter_run_is_the_beginning_of_a_longer_one(seed):
    close, rng = holes(seed), np.random.default_rng(100 + seed)
    open_ = (close.shift() * 1.01).where(close.notna()) if seed % 2 else None
    dates = {"D": (close.index[int(rng.integers(20, 90))], 3.0)} if seed % 3 else None
    stop = int(rng.integers(30, 89))
    options = {"trigger": js.Threshold(0.04), "fees": 0.001, "delistings": dates}

    def until(stop):
        return run(
            close.iloc[:stop], policy=al.EqualWeight(), open=None if open_ is None else open_.iloc[:stop], **options
        )

    whole, part = until(90), until(stop)
    for name in ("value", "cash", "units", "rebalances"):
        pd.testing.assert_frame_equal(
            pd.DataFrame(getattr(whole, name)).iloc[:stop], pd.DataFrame(getattr(part, name)), check_freq=False
        )


@pytest.mark.parametrize(
    ("policy", "seed"), [(policy, seed) for seed, policy in enumerate([*shorter_runs.POLICIES, "short", "short"])]
)
def test_a_shorter_run_of_a_random_market_is_the_beginning_of_a_longer_one(policy, seed):
    """Holes, late listings, assets that leave, at a date or not: values, units, orders, incidents, decisions."""
    rng = np.random.default_rng(seed)
    market = shorter_runs.make_markets(rng, 3, 70)
    stops = {"reference": market.stops(rng, 2)}
    if policy == "short" and seed < 8:
        stops["compiled"] = stops["reference"][:1]
    assert shorter_runs.differing_beginnings(market, policy, stops, Counter()) == []


@ENGINES
@quiet
def test_what_a_short_position_costs_beyond_the_cash_is_owed_until_a_sale(engine):
    """One unit of B sold short brings 50; 1.2 units of A leave 30 of 150. B leaves at 80: cash is -50, and value 70. At
    bar 7, 1.2 times that is wanted in A: the sale of 0.36 units leaves -14. vectorbt raises for cash below zero."""
    close = pd.DataFrame({"A": 100.0, "B": 50.0}, DAYS[:10])
    trigger, weights = js.AtBars(np.arange(10) == 7), al.FixedWeights([1.2, -0.5])
    bt = run(close, engine, weights, trigger=trigger, delistings={"B": (DAYS[4], 80.0)})
    np.testing.assert_allclose(bt.cash, [100.0] + [30.0] * 3 + [-50.0] * 3 + [-14.0] * 3)
    np.testing.assert_allclose(bt.units["A"], [0.0] + [1.2] * 6 + [0.84] * 3)


@quiet
@pytest.mark.parametrize("seed", [1, 2, 5])
def test_the_engines_and_the_schedules_do_the_same(seed):
    close = holes(seed)
    options = {"policy": al.EqualWeight(), "trigger": js.Threshold(0.04), "fees": 0.001, "log": True}
    judge = run(close, **options)
    assert "reason" in judge.orders
    runs = [run(close, "compiled", schedule=x, **options) for x in (None, js.Scan(), js.NextEvent(one_kernel=False))]
    for bt in runs:
        np.testing.assert_array_equal(bt.value, runs[0].value)
        np.testing.assert_allclose(bt.value, judge.value, rtol=1e-9)
        pd.testing.assert_frame_equal(bt.orders, judge.orders, rtol=1e-9)
        pd.testing.assert_frame_equal(bt.incidents, judge.incidents, rtol=1e-9)
        pd.testing.assert_frame_equal(bt.decisions, judge.decisions, rtol=1e-9, atol=1e-12)
        pd.testing.assert_frame_equal(bt.logs, judge.logs, rtol=1e-9, atol=1e-12)
    again = js.replay(runs[0].allocations, close, fees=0.001)
    np.testing.assert_allclose(again.value, judge.value, rtol=1e-9)
    pd.testing.assert_frame_equal(again.orders, judge.orders, rtol=1e-9)
    swept = js.sweep(close, **{k: v for k, v in options.items() if k != "log"}, metrics=["total_return", "turnover"])
    assert swept["total_return"].iloc[0] == pytest.approx(judge.total_return())
    assert swept["turnover"].iloc[0] == pytest.approx(judge.turnover())


@quiet
def test_the_core_and_its_derivatives():
    close = holes(2)
    with jax.enable_x64(True):
        market = js.Market.from_frames(close)

        def end(fee, adjoint, gate=None):
            gate = {} if gate is None else {"gate": gate}
            policy = js.Policy(al.EqualWeight(), js.Threshold(0.04), **gate)
            return js.simulate(market, policy, costs=js.Costs(fee), adjoint=adjoint).value[-1]

        judge = run(close, policy=al.EqualWeight(), trigger=js.Threshold(0.04), fees=0.001)
        for gate in (None, js.StraightThrough(0.01)):
            slopes = [jax.value_and_grad(end)(0.001, x, gate) for x in (js.Checkpointed(), js.AtEvents())]
            for value, slope in slopes:
                assert float(value) == pytest.approx(judge.value.iloc[-1], rel=1e-9)
                assert float(slope) == pytest.approx(float(slopes[0][1]), rel=1e-6) and np.isfinite(slope)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stale": (10, 7)}, "^stale: expected bars and a duration"),
        ({"stale": "soon"}, "^stale: 'soon' is no duration"),
        ({"stale": 0}, "^stale: "),
        ({"delistings": "never"}, "^delistings: expected asset -> date, or 'hold'"),
        ({"delistings": {"C": DAYS[3]}}, "^delistings: close has no asset 'C'"),
        ({"delistings": {"B": (DAYS[3], -1.0)}}, "^delistings: the price paid for 'B' must be a finite number >= 0"),
        ({"delistings": {"B": "some day"}}, "^delistings: 'B' has 'some day', which is no date"),
        ({"drift_without_price": True}, "^drift_without_price: expected 'ignored' or 'counts'"),
    ],
)
def test_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        run(two_assets(), **options)


def test_plain_orders_close_nothing():
    size = pd.DataFrame(np.nan, DAYS, ["A", "B"])
    size.iloc[1] = [0.5, 0.99]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bt = js.backtest(two_assets(), size=size)
    assert bt.units["B"].iloc[-1] == 0.99
    with pytest.raises(ValueError, match=r"^delistings: plain orders"):
        js.backtest(two_assets(), size=size, delistings={"B": DAYS[20]})
