"""Accounts that hold something before the first bar (rules 4.2)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import allocators as al
import jaxsim as js
from jaxsim.engine.bar.lane_state import LaneState
from jaxsim.engine.simulate import inputs_of
from tests.helpers.markets import INDEX, grouped, prices, with_holes

CLOSE, OPEN = prices(0)
HOLED, HOLED_OPEN = with_holes(*prices(1))
ENGINES = pytest.mark.parametrize("engine", ["reference", "compiled"])
HELD = pd.Series({"A": 0.4, "C": -0.1})
OPTIONS: dict[str, Any] = dict(trigger=js.Threshold(0.05), fees=0.001)


def run(close=CLOSE, policy=None, **options) -> js.Backtest:
    policy = al.EqualWeight() if policy is None else policy
    return js.backtest(close, policy, **{"engine": "reference", **OPTIONS, **options})


def holdings(num: int = 24, seed: int = 3) -> dict[int, pd.Series]:
    """Random accounts: long, short, sparse, and one that is empty."""
    rng = np.random.default_rng(seed)
    units = rng.normal(0.3, 0.4, (num, 3)) * (rng.random((num, 3)) < 0.7)
    units[0] = 0.0
    return {k: pd.Series(x, list("ABC")) for k, x in enumerate(units)}


def assert_same(bt: js.Backtest, other: js.Backtest) -> None:
    pd.testing.assert_frame_equal(pd.DataFrame(other.value), pd.DataFrame(bt.value), rtol=1e-9)
    pd.testing.assert_frame_equal(other.orders, bt.orders, rtol=1e-9)
    pd.testing.assert_frame_equal(other.trades, bt.trades, rtol=1e-7)
    np.testing.assert_array_equal(other.rebalances, bt.rebalances)


@pytest.mark.filterwarnings("ignore:delistings")
@pytest.mark.parametrize("open_", [None, HOLED_OPEN.fillna({"C": 90.0}, limit=1)], ids=["closes", "opens"])
@pytest.mark.parametrize("target", [None, "allocator", pd.Series({"A": 0.5, "B": 0.3, "C": np.nan})])
def test_the_engines_the_schedules_and_a_sweep_agree(open_, target):
    close = HOLED.copy()
    close.iloc[0] = CLOSE.iloc[0]
    rng = np.random.default_rng(5)
    costs = {k: pd.Series(rng.uniform(60, 140, 3), list("ABC")).where(rng.random(3) < 0.7) for k in range(24)}
    options: dict[str, Any] = dict(
        open=open_, init_cash=60.0, init_units=holdings(), init_target=target, init_average_cost=costs
    )
    bt, judge = run(close, engine="compiled", **options), run(close, **options)
    assert_same(judge, bt)
    np.testing.assert_array_equal(run(close, engine="compiled", schedule=js.Scan(), **options).value, bt.value)
    names = ["total_return", "sharpe_ratio", "max_drawdown", "turnover"]
    table = js.sweep(close, al.EqualWeight(), metrics=names, **OPTIONS, **options)
    for name in names:
        np.testing.assert_allclose(table[name], getattr(bt, name)(), rtol=1e-9, atol=1e-12)
    is_held = np.array([(x != 0).any() for x in holdings().values()])
    assert bt.rebalances.to_numpy()[1:, is_held].any() and not is_held.all()
    assert bt.rebalances.to_numpy()[0, is_held].any() == (open_ is not None and target is not None)


@ENGINES
def test_by_hand(engine):
    """10 of A at an open of 90 and 4 of B without an open, marked at 50, beside 100 in cash: 1,200. At the closes of
    bar 0 they are worth 100 + 10 * 100 + 4 * 50, so that the first return is 1300 / 1200 - 1. B cannot be valued at bar
    0, so that nothing is decided there; at bar 1 the weights are (1100, 200) / 1400."""
    close = pd.DataFrame({"A": [100.0, 110, 110], "B": [50.0, 50, 50]}, INDEX[:3])
    opens = pd.DataFrame({"A": [90.0, 110, 110], "B": [np.nan, 50, 50]}, INDEX[:3])
    held = pd.Series({"A": 10.0, "B": 4.0})
    bt = run(close, open=opens, init_cash=100.0, init_units=held, engine=engine, trigger=js.Never(), fees=0.0)
    np.testing.assert_allclose(bt.value, [1300, 1400, 1400], rtol=1e-12)
    np.testing.assert_allclose(bt.returns, [1300 / 1200 - 1, 1400 / 1300 - 1, 0], rtol=1e-12)
    assert len(bt.orders) == 0 and bt.total_return() == pytest.approx(1400 / 1200 - 1)
    np.testing.assert_allclose(bt.trades["entry_price"], [90, 50])
    np.testing.assert_allclose(bt.trades["pnl"], [200, 0], atol=1e-9)
    cost = pd.Series({"A": 70.0})
    bought = run(
        close, open=opens, init_cash=100.0, init_units=held, engine=engine, init_average_cost=cost, fees=0.0,
        init_target="allocator",
    )  # fmt: skip
    assert list(bought.rebalance_index) == [INDEX[1]], "at bar 0 the account cannot be valued"
    assert bought.trades["entry_price"].iloc[0] == 70
    np.testing.assert_allclose(bought.trades["pnl"].iloc[0], (1100 - 700) / 110 * 40, rtol=0.2)
    np.testing.assert_allclose(bought.weights.iloc[1], [0.5, 0.5])


@ENGINES
def test_what_a_short_position_owes(engine):
    """2 of A sold short at 120 owe 240; of 500 in cash, 500 - 480 are free: 0.2 of B at 100 is all that `lock_cash`
    lets an order buy."""
    close = pd.DataFrame({"A": [100.0] * 3, "B": [100.0] * 3}, INDEX[:3])
    held, size = pd.Series({"A": -2.0}), pd.DataFrame({"A": np.nan, "B": [5.0, np.nan, np.nan]}, INDEX[:3])
    options: dict[str, Any] = dict(size=size, init_cash=500.0, init_units=held, lock_cash=True, engine=engine, log=True)
    bt = js.backtest(close, init_average_cost=pd.Series({"A": 120.0}), **options)
    assert bt.orders["size"].tolist() == [pytest.approx(0.2)], "plain orders trade at bar 0 too"
    assert bt.logs["free_cash"].iloc[0] == pytest.approx(20)
    assert js.backtest(close, **options).orders["size"].tolist() == [pytest.approx(1.0)], "at the mark they owe 200"


def test_what_a_threshold_compares_with():
    """By default the weights of the opening, whatever they are; else those that are said."""
    bt = run(open=OPEN, init_cash=1e-3, init_units=pd.Series({"A": 1.0}))
    assert len(bt.rebalance_index) == 0, "all in A drifts from nothing"
    bt = run(open=OPEN, init_cash=50.0, init_units=HELD, init_target=pd.Series({"A": 0.0}))
    assert bt.rebalance_index[0] == INDEX[0]
    assert bt.decisions["drift"].abs().max() > 0.05


@pytest.mark.parametrize("cut", [7, 23])
def test_a_run_goes_on_from_what_it_holds(cut):
    """With the units, cash and targets that another run had before a bar, the bars from it on are the same."""
    whole = run(open=OPEN)
    held, cash = whole.units.iloc[cut - 1], float(whole.cash.iloc[cut - 1])
    target = whole.allocations.weights[whole.rebalance_index < INDEX[cut]].iloc[-1]
    later = run(CLOSE[cut:], open=OPEN[cut:], init_cash=cash, init_units=held, init_target=target)
    np.testing.assert_allclose(later.value, whole.value[cut:], rtol=1e-12)
    assert later.rebalance_index.equals(whole.rebalance_index[whole.rebalance_index >= INDEX[cut]])
    assert len(later.rebalance_index) > 1


@ENGINES
def test_holding_nothing_is_cash_alone(engine):
    nothing = run(open=OPEN, init_units=pd.Series({"A": 0.0}), engine=engine)
    plain = run(open=OPEN, engine=engine)
    pd.testing.assert_frame_equal(nothing.orders, plain.orders)
    np.testing.assert_array_equal(nothing.value, plain.value)


@ENGINES
def test_groups_have_holdings_of_their_own(engine):
    close, opens = grouped(1)
    held = pd.DataFrame({"tech": {"A": 1.0, "B": 0.0}, "bank": {"B": 0.5}})
    bt = run(close, open=opens, init_units=held, engine=engine)
    np.testing.assert_allclose(bt.units.iloc[0].loc["tech"][["A", "B", "C"]], [1, 0, 0])
    np.testing.assert_allclose(bt.units.iloc[0].loc["bank"][["B", "D"]], [0.5, 0])
    both = run(close, open=opens, init_units=pd.Series({"B": 0.5}), engine=engine)
    assert both.units.iloc[0].loc["tech"]["B"] == both.units.iloc[0].loc["bank"]["B"] == 0.5


def test_cuts_replays_and_stops_begin_with_them():
    bt = run(open=OPEN, init_units=HELD, init_cash=50.0)
    cut = bt.between(INDEX[0], INDEX[30])
    np.testing.assert_allclose(cut.returns, bt.returns[:31])
    again = js.replay(bt.allocations, CLOSE, open=OPEN, fees=0.001, init_units=HELD, init_cash=50.0, engine="reference")
    pd.testing.assert_frame_equal(again.orders, bt.orders)
    compiled = js.replay(bt.allocations, CLOSE, open=OPEN, fees=0.001, init_units=HELD, init_cash=50.0)
    pd.testing.assert_frame_equal(compiled.orders, bt.orders, rtol=1e-9)
    plan = js.Allocations.from_weights(pd.DataFrame([[0.5, 0.5, 0.0]], INDEX[:1], CLOSE.columns), INDEX)
    options: dict[str, Any] = dict(
        open=OPEN, init_units=pd.Series({"A": 1.0}), init_average_cost=pd.Series({"A": 200.0})
    )
    for engine in ("reference", "compiled"):
        stopped = js.replay(plan, CLOSE, stops=js.StopLoss(0.2), engine=engine, **options)
        assert stopped.orders["timestamp"].iloc[0] == INDEX[0], "far below what it cost"
        assert stopped.trades["entry_price"].iloc[0] == 200


def test_the_core_and_its_derivatives():
    """Values, scores and derivatives by way of every bar and by way of events; the derivative by units is that of a
    central difference."""
    with jax.enable_x64(True):
        market = js.Market.from_frames(CLOSE, open=OPEN)
        policy = js.Policy(al.EqualWeight(), js.Threshold(0.05))

        def final(units, adjoint=None):
            account = js.Account(20.0, units=units)
            return js.simulate(market, policy, costs=js.Costs(0.001), account=account, adjoint=adjoint).value[-1]

        units = jnp.array([0.4, 0.3, 0.0])
        bt = run(open=OPEN, init_cash=20.0, init_units=pd.Series(units, list("ABC")))
        slope = jax.jit(jax.value_and_grad(final))(units)
        np.testing.assert_allclose(slope[0], bt.value.iloc[-1], rtol=1e-10)
        by_events = jax.jit(jax.grad(lambda x: final(x, js.AtEvents(capacity=60))))(units)
        np.testing.assert_allclose(by_events, slope[1], rtol=1e-9)
        step = jnp.array([1e-5, 0.0, 0.0])
        difference = (final(units + step) - final(units - step)) / 2e-5
        np.testing.assert_allclose(slope[1][0], difference, rtol=1e-6)
        account = js.Account(20.0, units=units, target="allocator")
        score = js.score(market, policy, ["total_return"], costs=js.Costs(0.001), account=account)
        told = run(open=OPEN, init_cash=20.0, init_units=pd.Series(units, list("ABC")), init_target="allocator")
        np.testing.assert_allclose(score["total_return"], told.total_return(), rtol=1e-9)


def test_cash_alone_has_no_fields_for_it():
    with jax.enable_x64(True):
        market = js.Market.from_frames(CLOSE)
        policy = js.Policy(al.EqualWeight(), js.Threshold(0.05))
        plain = LaneState.start(inputs_of(market, policy, None, None, None))
        assert plain.first_bar is None and plain.is_unasked is None
        held = LaneState.start(inputs_of(market, policy, None, js.Account(1.0, units=np.ones(3)), None))
        assert held.first_bar is not None and held.is_unasked is None


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 23), st.sampled_from([0.25, 2.0, 1024.0]), st.floats(0.0, 0.5))
def test_scaling_the_currency_scales_everything(number, scale, fixed):
    held = holdings()[number]
    cost = pd.Series({"A": 80.0})

    def at(k):
        return run(
            k * CLOSE, open=k * OPEN, init_cash=60.0 * k, init_units=held, init_average_cost=k * cost,
            fixed_fees=fixed * k,
        )  # fmt: skip

    one, scaled = at(1.0), at(scale)
    np.testing.assert_allclose(scaled.value, scale * one.value, rtol=1e-9)
    np.testing.assert_allclose(scaled.orders["size"], one.orders["size"], rtol=1e-9)
    np.testing.assert_allclose(scaled.trades["pnl"], scale * one.trades["pnl"], rtol=1e-6, atol=1e-9 * scale)


def test_walk_forward_holds_them_at_the_beginning_of_every_stretch():
    splits = js.WalkForwardSplits(train=20, test=15)
    policy = js.Policy(al.EqualWeight(), js.Never())
    options: dict[str, Any] = dict(
        open=OPEN, benchmarks={"hold": policy}, init_units=pd.Series({"A": 1.0}), init_cash=10.0
    )
    judged = js.walk_forward(CLOSE, lambda market: policy, splits, engine="reference", **options)
    held = 10 + CLOSE["A"]
    np.testing.assert_allclose(judged.returns["hold"], held.pct_change()[judged.returns.index], rtol=1e-9)
    options |= dict(engine="reference", init_target="allocator")
    asked = js.walk_forward(CLOSE, lambda market: policy, splits, **options)
    first = asked.returns["hold"].iloc[0]
    assert first != pytest.approx(held.pct_change()[asked.returns.index[1]])


MISUSE: dict[str, dict[str, Any]] = {
    "init_units: expected a Series by asset": dict(init_units={}.keys()),
    "init_units: close has no column for 'X'": dict(init_units=pd.Series({"X": 1.0})),
    "init_units: 'A' appears twice": dict(init_units=pd.Series([1.0, 2.0], ["A", "A"])),
    "init_units: 'A' is NaN": dict(init_units=pd.Series({"A": np.nan})),
    "init_units: expected finite numbers, got inf": dict(init_units=pd.Series({"A": np.inf})),
    "init_units: expected numbers, got ": dict(init_units=pd.Series({"A": "one"})),
    "init_units: a DataFrame is by asset and group": dict(init_units=pd.DataFrame({"x": {"A": 1.0}})),
    "init_units: 'C' is held, but has no price": dict(close=HOLED, init_units=pd.Series({"C": 1.0})),
    "init_units: with its cash the account is worth -": dict(init_units=pd.Series({"A": -9.0})),
    "init_units: with its cash the account is worth 0 ": dict(init_units=pd.Series({"A": 0.0}), init_cash=0.0),
    "init_units: the mapping is empty": dict(init_units={}),
    "init_cash: expected a finite number >= 0": dict(init_units=HELD, init_cash=-1.0),
    "init_cash: expected a finite number > 1e-12": dict(init_cash=0.0),
    "init_target: of what is held at the opening": dict(init_target="allocator"),
    "init_target: expected weights by asset or 'allocator'": dict(init_units=HELD, init_target="mine"),
    "init_average_cost: of what is held at the opening": dict(init_average_cost=pd.Series({"A": 1.0})),
    "init_average_cost: expected a finite number > 1e-12": dict(
        init_units=HELD, init_average_cost=pd.Series({"A": 0.0})
    ),
}


@pytest.mark.parametrize("message", MISUSE)
def test_misuse_is_told_in_a_sentence(message):
    with pytest.raises((ValueError, TypeError)) as caught:
        run(**{"init_cash": 100.0, **MISUSE[message]})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("message", "account"),
    [
        ("units: expected one number per asset", dict(units=np.ones(2))),
        ("units: expected finite", dict(units=np.array([1.0, np.nan, 0.0]))),
        ("units: asset 2 is held", dict(units=np.ones(3))),
        ("target: of what is held", dict(target="allocator")),
        ("target: expected weights", dict(units=np.ones(3), target="mine")),
        ("average_cost: of what is held", dict(average_cost=np.ones(3))),
        ("cash: expected a finite number > 0", dict(cash=0.0)),
        ("cash: expected a finite number >= 0", dict(cash=-1.0)),
    ],
)
def test_misuse_of_an_account(message, account):
    with jax.enable_x64(True), pytest.raises(ValueError, match=f"^{message}"):
        js.simulate(js.Market.from_frames(HOLED), js.Policy(al.EqualWeight()), account=js.Account(**account))
