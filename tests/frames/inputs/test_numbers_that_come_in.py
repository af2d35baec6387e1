"""Masks, fractions where whole numbers are needed, and numbers at the ends of floating point: nothing is dropped, cut
or lost without a word."""

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import as_users_run_it, prices, run

CLOSE, OPEN = prices(0)
COUNT = len(CLOSE)
EQUAL = al.EqualWeight()
ENGINES = pytest.mark.parametrize("engine", ["compiled", "reference"])


@pytest.fixture(autouse=True)
def messages_as_users_see_them():
    with as_users_run_it():
        yield


def masked(value, shape=(3,), place=(1,)) -> np.ma.MaskedArray:
    mask = np.zeros(shape, bool)
    mask[place] = True
    return np.ma.array(np.full(shape, value), mask=mask)


def of_rows(value=1.0):
    return masked(value, (COUNT, 3), (4, 1))


def of_bars(value=0.01):
    return masked(value, (COUNT,), (4,))


# --- masked arrays: whatever a mask hides would count, so that no door takes one

TERMS = {
    **{name: masked(0.5) for name in ("fees", "fixed_fees", "slippage", "min_size", "max_size", "size_granularity")},
    **{name: masked(True) for name in ("lock_cash", "allow_partial", "raise_reject")},
    "reject_prob": of_rows(0.5),
    "price": of_rows(),
    "size": of_rows(),
    "size_type": masked(0),
    "direction": masked("both"),
    "init_cash": np.ma.masked,
    "features": {"x": of_bars()},
    "benchmark": of_bars(),
}


@ENGINES
@pytest.mark.parametrize("name", TERMS)
def test_terms(name, engine):
    policy = {} if name in ("size", "size_type", "direction") else {"policy": EQUAL}
    size = {} if policy or name == "size" else {"size": 1.0}
    with pytest.raises(ValueError, match=f"^{name}: 1 of [0-9]+ entries are masked"):
        js.backtest(CLOSE, engine=engine, **policy, **size, **{name: TERMS[name]})


POLICIES = {
    "threshold": lambda: dict(trigger=js.Threshold(masked(0.05))),
    "loss": lambda: dict(stops=js.StopLoss(masked(0.05))),
    "trigger": lambda: dict(trigger=lambda obs: masked(True, (), ())),
    "trigger, by bar": lambda: dict(trigger=js.AtBars(masked(True, (COUNT,)))),
    "policy": lambda: dict(policy=al.FixedWeights(masked(0.3))),
    "allocator <lambda>.*": lambda: dict(policy=lambda obs: masked(0.3)),
    "allocator <lambda>.*, skip": lambda: dict(policy=lambda obs: js.Allocation(np.ones(3), skip=masked(True))),
    "allocator <lambda>.*, host": lambda: dict(policy=al.host(lambda obs: masked(0.3))),
}


@ENGINES
@pytest.mark.parametrize("name", POLICIES)
def test_policies(name, engine):
    with pytest.raises((ValueError, js.AllocatorError), match=f"^{name.split(',')[0]}: 1 of [0-9]+ entries are masked"):
        js.backtest(CLOSE, engine=engine, **{"policy": EQUAL} | POLICIES[name]())


BT = run(CLOSE, EQUAL, OPEN, engine="reference")
OTHERS = {
    "returns": lambda: js.metrics.sharpe_ratio(of_bars(), ann_factor=252),
    "returns, rolling": lambda: js.metrics.rolling_sharpe_ratio(of_bars(), ann_factor=252),
    "returns, blocks": lambda: js.optimal_block_length(of_bars()),
    "value": lambda: js.metrics.returns_from_value(of_bars(), 1.0),
    "benchmark": lambda: BT.beta(benchmark=of_bars()),
    "trials": lambda: js.deflate_sharpe_ratio(BT.returns, masked(1.0), ann_factor=252),
    "close": lambda: js.features.momentum(of_rows(), 3),
    "market": lambda: js.simulate(js.Market(*[of_rows()] * 4), js.Policy(EQUAL, js.Never())),
    "cash": lambda: js.Account(np.ma.masked),
    "upper": lambda: al.Constraints(upper=masked(0.5)),
    "groups": lambda: al.Constraints(groups=masked(1.0, (2, 3), (0, 1)), group_upper=0.5),
    "fees": lambda: js.grid(fees=masked(0.1)),
    "weights": lambda: js.Window(CLOSE.to_numpy()).covariance(weights=masked(1.0, (COUNT - 1,))),
    "values": lambda: js.Window(of_rows()).covariance(),
    "keep": lambda: BT.allocations.filter(masked(True, (len(BT.allocations),), (0,))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_doors(name):
    with pytest.raises(ValueError, match=f"^{name.split(',')[0]}: .* entries are masked; say what they are"):
        OTHERS[name]()


def test_a_masked_array_without_masked_entries_is_an_array():
    fees = np.ma.array([0.01, 0.02, 0.03])
    one, other = (run(CLOSE, EQUAL, OPEN, fees=x, engine="reference") for x in (fees, fees.data))
    np.testing.assert_array_equal(one.value, other.value)


def test_pandas_takes_a_mask_for_missing():
    """A frame of a masked array has NaN there, and is a frame as any other."""
    closes = pd.DataFrame(np.ma.array(CLOSE.to_numpy(), mask=np.eye(COUNT, 3, -5)), CLOSE.index, CLOSE.columns)
    assert closes.isna().sum().sum() == 3
    plain = CLOSE.mask(np.eye(COUNT, 3, -5) > 0)
    one, other = (run(x, EQUAL, OPEN, engine="reference") for x in (closes, plain))
    np.testing.assert_array_equal(one.value, other.value)


# --- fractions where whole numbers are needed


@pytest.mark.parametrize(("name", "number"), [("col", 0.9), ("idx", 1.5), ("idx", np.nan), ("col", -0.5)])
def test_places_of_orders(name, number):
    orders = pd.DataFrame({"col": [0.0], "idx": [1.0], "size": [1.0], "price": [10.0]})
    assert js.from_records(orders, CLOSE).orders["asset"].tolist() == ["A"]
    with pytest.raises(ValueError, match=f"^orders: {name} must be whole numbers; row 0 has {number:g}"):
        js.from_records(orders.assign(**{name: [number]}), CLOSE)


@ENGINES
def test_a_call_sequence_of_fractions(engine):
    def allocate(obs):
        return js.Allocation(np.full(3, 0.3), call_seq=np.array([0.9, 1.9, 2.9]))

    with pytest.raises(TypeError, match=r"^allocator .*allocate returned call_seq as float64; .* integers"):
        js.backtest(CLOSE, allocate, engine=engine)


@pytest.mark.parametrize(("name", "number"), [("window", 2.5), ("minp", 1.5), ("window", 0)])
def test_windows(name, number):
    with pytest.raises(ValueError, match=f"^{name}: expected a whole number"):
        BT.rolling_sharpe_ratio(**{"window": 10, name: number})


# --- the ends of floating point

FAR = {
    "init_cash: expected a finite number > 1e-12": dict(init_cash=1e-15),
    "init_cash: .* got 1e-12": dict(init_cash=js.grid(cash=[100.0, 1e-12])),
    "init_cash: .*<= 1e.100, got 1e.300": dict(init_cash=1e300),
    "close: prices must be above 1e-12.*'B'.*1e-310": dict(close=CLOSE.assign(B=1e-310)),
    "close: prices must be above 1e-12.*1e.100.*'B'.*1e.300": dict(close=CLOSE.assign(B=1e300)),
    "open: prices must be above 1e-12": dict(open=OPEN * 1e-300),
    "price: expected a finite number > 1e-12": dict(price=1e-310),
    "benchmark: expected prices > 1e-12": dict(benchmark=CLOSE["A"] * 1e-310),
    "fixed_fees: ": dict(fixed_fees=1e300),
}


@ENGINES
@pytest.mark.parametrize("pattern", FAR)
def test_what_floating_point_cannot_trade(pattern, engine):
    with pytest.raises(ValueError, match=f"^{pattern}"):
        js.backtest(**{"close": CLOSE, "policy": EQUAL, "engine": engine} | FAR[pattern])


@pytest.mark.parametrize("size", [1e300, -1e300])
def test_sizes(size):
    with pytest.raises(ValueError, match=r"^size: "):
        js.backtest(CLOSE, size=size, engine="reference")
    orders = pd.DataFrame({"col": [0], "idx": [1], "size": [size], "price": [10.0]})
    with pytest.raises(ValueError, match=r"^orders: sizes must be up to 1e\+100; row 0 has"):
        js.from_records(orders, CLOSE)
    with pytest.raises(ValueError, match=r"^orders: prices must be above 1e-12 and up to 1e\+100; row 0 has 1e-310"):
        js.from_records(orders.assign(size=1.0, price=1e-310), CLOSE)


@ENGINES
@pytest.mark.parametrize(("cash", "scale"), [(1e-6, 1e-6), (1e100, 1.0), (1e-3, 1e-10), (100.0, 1e4)])
def test_what_it_can_trade(cash, scale, engine):
    """Up to the ends, an account in another currency is the same account."""
    far = run(CLOSE * scale, EQUAL, OPEN * scale, init_cash=cash, engine=engine)
    plain = run(CLOSE, EQUAL, OPEN, engine=engine)
    np.testing.assert_allclose(far.value / cash, plain.value / 100, rtol=1e-6)


@ENGINES
def test_what_is_close_to_nothing_warns(engine):
    with pytest.warns(UserWarning, match=r"^init_cash: 1e-11 is little"):
        js.backtest(CLOSE * 1e-9, EQUAL, init_cash=1e-11, engine=engine)
    with pytest.warns(UserWarning, match=r"^init_cash: 100 buys 5.*e-14 of 'C' at its highest price"):
        idle = js.backtest(CLOSE * 1e13, EQUAL, engine=engine)
    assert len(idle.orders) == 0


def test_float32():
    with pytest.raises(ValueError, match=r"^close: in float32 prices go up to 1e\+12, got 1"):
        js.Market.from_frames(CLOSE * 1e37, dtype=np.float32)
    market = js.Market.from_frames(CLOSE, dtype=np.float32)
    with pytest.raises(ValueError, match=r"^cash: in float32 expected at most 1e\+12, got 1e\+39"):
        js.simulate(market, js.Policy(EQUAL, js.Never()), account=js.Account(1e39))


def test_one_bar_names_what_it_lacks():
    with pytest.raises(TypeError, match=r"^inputs: expected js.LaneInputs, got None"):
        js.trade_bar(None, None, 0)
    with pytest.raises(TypeError, match=r"^inputs: expected js.LaneInputs, got None"):
        js.observe(None, None, 0)
