"""Bad input: one clear sentence that begins with the argument's name, before anything compiles."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import ASSETS, BARS, INDEX, THRESHOLDS, as_users_run_it, compilations, grouped, prices, run

CLOSE, OPEN = prices(0)
GROUPED, GROUPED_OPEN = grouped(1)
EQUAL = al.EqualWeight()
AT_5 = js.Threshold(0.05)


@pytest.fixture(autouse=True)
def messages_as_users_see_them():
    with as_users_run_it():
        yield


def changed(row: int, column: int, value: Any, frame: pd.DataFrame = CLOSE) -> pd.DataFrame:
    frame = frame.copy()
    frame.iloc[row, column] = value
    return frame


def grid(*values) -> pd.Index:
    return pd.Index(values, name="x")


class Static(eqx.Module):
    kind: Any = eqx.field(static=True)

    def __call__(self, obs):
        return jnp.full(obs.num_assets, 0.1)


#: case -> (keywords of backtest, error, pattern that the message begins with).
BAD: dict[str, tuple[dict, type[Exception], str]] = {
    # prices
    "empty frame": (dict(close=CLOSE.iloc[:0]), ValueError, "close: .*empty"),
    "no columns": (dict(close=CLOSE[[]]), ValueError, "close: .*empty"),
    "unsorted index": (dict(close=CLOSE.iloc[::-1]), ValueError, "close: .*sorted"),
    "repeated index": (dict(close=CLOSE.iloc[[0, 1, 1, 2]]), ValueError, "close: .*repeats .*2021-01-05"),
    "missing time": (
        dict(close=CLOSE.set_axis([pd.NaT, *INDEX[1:]], axis=0)),
        ValueError,
        "close: .*missing",
    ),
    "index of two levels": (
        dict(close=CLOSE.set_axis(pd.MultiIndex.from_product([[0], INDEX]))),
        ValueError,
        "close: .*levels",
    ),
    "repeated column": (dict(close=CLOSE[["A", "B", "A"]]), ValueError, "close: .*'A'.*twice"),
    "repeated asset in a group": (
        dict(close=GROUPED.iloc[:, [0, 1, 0]]),
        ValueError,
        "close: .*'A'.*twice",
    ),
    "no frame": (dict(close=CLOSE.to_numpy()), TypeError, "close: .*DataFrame.*ndarray"),
    "None": (dict(close=None), TypeError, "close: "),
    "text": (dict(close=CLOSE.assign(B="x")), TypeError, "close: .*'B'.*numeric"),
    "booleans": (dict(close=CLOSE > 100), TypeError, "close: .*'A'.*numeric"),
    "dates": (dict(close=CLOSE.assign(C=INDEX)), TypeError, "close: .*'C'.*numeric"),
    "infinite price": (dict(close=changed(7, 1, np.inf)), ValueError, "close: .*'B'.*2021-01-11"),
    "negative price": (dict(close=changed(7, 1, -3.0)), ValueError, "close: .*'B'.*2021-01-11.*-3"),
    "zero price": (dict(close=changed(7, 1, 0.0)), ValueError, "close: .*'B'"),
    "column without prices": (dict(close=CLOSE.assign(B=np.nan)), ValueError, "close: .*'B'.*no price"),
    "infinite open": (dict(open=changed(7, 1, np.inf)), ValueError, "open: .*'B'"),
    "zero price of execution": (dict(price=changed(7, 1, 0.0)), ValueError, "price: .*'B'"),
    "open of other times": (dict(open=OPEN.iloc[1:]), ValueError, "open: .*index"),
    "open of shifted times": (dict(open=OPEN.set_axis(INDEX + pd.Timedelta("1h"))), ValueError, "open: .*index"),
    "open of other columns": (dict(open=OPEN.rename(columns={"A": "X"})), ValueError, "open: .*columns"),
    "open of fewer columns": (dict(open=OPEN[["A", "B"]]), ValueError, "open: .*columns"),
    "open without labels": (dict(open=OPEN.to_numpy()), TypeError, "open: .*labels"),
    "open of one number": (dict(open=3.0), TypeError, "open: "),
    "price of other columns": (dict(price=CLOSE[["A", "B"]]), ValueError, "price: .*columns"),
    # policy
    "weights for a policy": (dict(policy=np.array([0.2, 0.3, 0.5])), TypeError, "policy: "),
    "number for a policy": (dict(policy=0.5), TypeError, "policy: "),
    "class for a policy": (dict(policy=al.EqualWeight), TypeError, "policy: EqualWeight is a class"),
    "class inside a policy": (dict(policy=lambda: js.Policy(al.EqualWeight)), TypeError, "allocator: .*class"),
    "number inside a policy": (dict(policy=lambda: js.Policy(EQUAL, 0.05)), TypeError, "trigger: "),
    "class of a trigger inside a policy": (
        dict(policy=lambda: js.Policy(EQUAL, js.Threshold)),
        TypeError,
        "trigger: .*class",
    ),
    "trigger beside a policy": (
        dict(policy=js.Policy(EQUAL, AT_5), trigger=AT_5),
        ValueError,
        "trigger: .*already",
    ),
    "min_history beside a policy": (
        dict(policy=js.Policy(EQUAL, AT_5), min_history=3),
        ValueError,
        "min_history: .*already",
    ),
    "swept min_history beside a policy": (
        dict(policy=js.Policy(EQUAL, AT_5), min_history=grid(0, 1)),
        ValueError,
        "min_history: .*already",
    ),
    "number for a trigger": (dict(trigger=0.05), TypeError, "trigger: .*Threshold"),
    "class for a trigger": (dict(trigger=js.Threshold), TypeError, "trigger: "),
    "static field swept": (dict(policy=Static(grid(1, 2))), TypeError, "policy: .*Static.kind"),
    # thresholds
    "negative threshold": (dict(trigger=js.Threshold(-0.1)), ValueError, "threshold: .*>= 0.*-0.1"),
    "NaN threshold": (dict(trigger=js.Threshold(np.nan)), ValueError, "threshold: .*nan"),
    "infinite threshold": (dict(trigger=js.Threshold(-np.inf)), ValueError, "threshold: .*inf"),
    "negative threshold in an index": (dict(trigger=js.Threshold(grid(0.1, -0.1))), ValueError, "threshold: .*-0.1"),
    "NaN threshold in an index": (dict(trigger=js.Threshold(grid(0.1, np.nan))), ValueError, "threshold: .*nan"),
    "text for a threshold": (dict(trigger=js.Threshold("0.05")), TypeError, "threshold: .*numbers"),
    "None for a threshold": (dict(trigger=js.Threshold(None)), TypeError, "threshold: "),
    "bool for a threshold": (dict(trigger=lambda: js.Threshold(True)), TypeError, "threshold: "),
    "threshold per bar as an array": (
        dict(trigger=js.Threshold(np.full(BARS, 0.1))),
        ValueError,
        "threshold: .*Series",
    ),
    "threshold of another shape": (dict(trigger=js.Threshold(np.ones((2, 3)))), ValueError, "threshold: .*broadcast"),
    "threshold Series of other labels": (
        dict(trigger=js.Threshold(pd.Series([0.1] * 3, list("XYZ")))),
        ValueError,
        "threshold: .*neither",
    ),
    "negative threshold in a Series": (
        dict(trigger=js.Threshold(pd.Series([0.1, -1, 0.1], ASSETS))),
        ValueError,
        "threshold: .*-1",
    ),
    # fees
    "fees of -1": (dict(fees=-1.0), ValueError, "fees: .*> -1"),
    "NaN fees": (dict(fees=np.nan), ValueError, "fees: .*nan"),
    "infinite fees": (dict(fees=np.inf), ValueError, "fees: .*inf"),
    "NaN fees of one asset": (dict(fees=np.array([0, np.nan, 0])), ValueError, "fees: .*nan"),
    "text for fees": (dict(fees="1%"), TypeError, "fees: "),
    "fees in an index": (dict(fees=grid(0.0, -2.0)), ValueError, "fees: .*-2"),
    "NaN fees in an index": (dict(fees=grid(0.0, np.nan)), ValueError, "fees: .*nan"),
    "two fees for three assets": (dict(fees=np.array([0.1, 0.2])), ValueError, "fees: .*2 .*3"),
    "fees Series of shifted times": (
        dict(fees=pd.Series(0.01, INDEX + pd.Timedelta("1D"))),
        ValueError,
        "fees: .*neither",
    ),
    "fees Series of fewer times": (dict(fees=pd.Series(0.01, INDEX[1:])), ValueError, "fees: "),
    "fees Series of fewer assets": (dict(fees=pd.Series(0.01, ASSETS[:2])), ValueError, "fees: .*neither"),
    "fees frame of other columns": (dict(fees=CLOSE.rename(columns={"A": "X"}) * 0), ValueError, "fees: .*columns"),
    "fees frame of other times": (dict(fees=CLOSE.iloc[1:] * 0), ValueError, "fees: .*index"),
    # numbers
    "min_history of 1.5": (dict(min_history=1.5), ValueError, "min_history: .*whole"),
    "negative min_history": (dict(min_history=-1), ValueError, "min_history: .*>= 0"),
    "text for min_history": (dict(min_history="3"), TypeError, "min_history: "),
    "None for min_history": (dict(min_history=None), TypeError, "min_history: "),
    "no cash": (dict(init_cash=0.0), ValueError, "init_cash: .*> 1e-12"),
    "NaN cash": (dict(init_cash=np.nan), ValueError, "init_cash: "),
    "infinite cash": (dict(init_cash=np.inf), ValueError, "init_cash: "),
    "cash per asset": (dict(init_cash=np.ones(3)), ValueError, "init_cash: "),
    "text for a key": (dict(key="x"), TypeError, "key: "),
    "a real key": (dict(key=1.5), TypeError, "key: "),
    "a bool for a key": (dict(key=True), TypeError, "key: "),
    "None for a key": (dict(key=None), TypeError, "key: "),
    "many keys": (dict(key=jax.random.split(jax.random.key(0), 3)), (TypeError, ValueError), "key: "),
    "an unknown engine": (dict(engine="numba"), ValueError, "engine: .*'numba'"),
    "a freq that is none": (dict(freq="fortnight"), ValueError, "freq: "),
    "digits for a freq": (dict(freq="252"), ValueError, "freq: '252' is no duration such as '1h' or '1D'"),
    "nothing for a freq": (dict(freq=""), ValueError, "freq: '' is no duration"),
    "both kinds of a year": (dict(year_freq="252D", bars_per_year=252), ValueError, "bars_per_year: .*one of the two"),
    "text for bars per year": (dict(bars_per_year="252D"), TypeError, "bars_per_year: .*252"),
    "no bars per year": (dict(bars_per_year=0), ValueError, "bars_per_year: .*> 0"),
    "unknown bars per year": (dict(bars_per_year=np.nan), ValueError, "bars_per_year: .*finite"),
    "a negative freq": (dict(freq=pd.Timedelta("-1D")), ValueError, "freq: .*positive"),
    "a number for a freq": (dict(freq=1), (TypeError, ValueError), "freq: "),
    "a year that is none": (dict(year_freq="x"), ValueError, "year_freq: "),
    # indexes
    "unnamed index": (dict(fees=pd.Index([0.0, 0.01])), ValueError, "fees: .*name"),
    "unnamed index in a trigger": (dict(trigger=js.Threshold(pd.Index([0.1]))), ValueError, "threshold: .*name"),
    "empty index": (dict(fees=pd.Index([], name="x", dtype=float)), ValueError, "fees: .*empty"),
    "repeated values": (dict(fees=grid(0.0, 0.0)), ValueError, "fees: .*repeated"),
    "text in an index": (dict(fees=grid("a", "b")), TypeError, "fees: .*numbers"),
    "booleans in an index": (dict(fees=grid(True, False)), TypeError, "fees: .*numbers"),
    "MultiIndex": (
        dict(fees=pd.MultiIndex.from_product([[0.1], [0.2]], names=["a", "b"])),
        ValueError,
        "fees: .*zipped",
    ),
    "clash of values": (dict(fees=grid(0.1), init_cash=grid(1.0)), ValueError, "init_cash: .*'x'"),
    # groups
    "groups beside levels": (dict(close=GROUPED, groups={"A": 1}), ValueError, "groups: "),
    "an asset without group": (dict(groups={"A": 1, "B": 1}), ValueError, "groups: .*'C'"),
    "two groups for three columns": (dict(groups=[1, 2]), ValueError, "groups: .*3.*2"),
    "a NaN group": (dict(groups=[1.0, np.nan, 1.0]), ValueError, "groups: "),
    "a level that is none": (dict(close=GROUPED, by="x"), ValueError, "by: .*'x'"),
    # features
    "features of other times": (dict(features=CLOSE.iloc[::-1]), ValueError, "features: .*index"),
    "features of fewer bars": (dict(features={"a": np.ones(3)}), ValueError, "features: .*60"),
    "features of text": (dict(features=np.array(["x"] * BARS)), TypeError, "features: "),
    "features of one number": (dict(features=3.0), ValueError, "features: "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named_before_anything_compiles(name):
    options, error, pattern = BAD[name]
    with compilations() as count, pytest.raises(error) as caught:
        made = {k: v() if getattr(v, "__name__", "") == "<lambda>" else v for k, v in options.items()}
        defaults = dict(close=CLOSE, policy=EQUAL)
        if not isinstance(made.get("policy"), js.Policy):
            defaults |= dict(trigger=AT_5)
        js.backtest(**(defaults | made))
    caught.match("^" + pattern)
    assert "\n" not in str(caught.value)
    assert count == [0], "nothing is compiled for it"


def test_unknown_arguments():
    with pytest.raises(TypeError, match="threshold"):
        js.backtest(CLOSE, EQUAL, threshold=0.05)
    with pytest.raises(TypeError):
        js.backtest(CLOSE, EQUAL, OPEN)


# --- inside the loop


class Faulty(eqx.Module):
    """Goes wrong in asset 1 at bar 9 and after, where `tilt` is above one."""

    tilt: Any
    kind: str = eqx.field(static=True)

    def __call__(self, obs):
        bad = {"nan": jnp.nan, "inf": jnp.inf, "-inf": -jnp.inf}[self.kind]
        wrong = (obs.step >= 9) & (self.tilt > 1) & (jnp.arange(obs.num_assets) == 1)
        return jnp.where(wrong, bad, 0.3)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.parametrize(("kind", "word"), [("nan", "NaN"), ("inf", "infinite"), ("-inf", "infinite")])
def test_weights_that_go_wrong_inside_are_reported_with_their_labels(kind, word, engine):
    policy = Faulty(js.grid(tilt=[0.5, 1.5]), kind)
    with pytest.raises(js.AllocationError) as caught:
        run(CLOSE, policy, OPEN, 0.0, fees=js.grid(fees=[0.25]), engine=engine)
    message = str(caught.value)
    for part in (word, "tilt=1.5", "fees=0.25", "'B'", "bar 9", "2021-01-13"):
        assert part in message
    assert "tilt=0.5" not in message


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_fault_of_one_lane_or_of_a_group(engine):
    with pytest.raises(js.AllocationError, match=r"NaN.*\(asset 'B', bar 9, 2021-01-13"):
        run(CLOSE, Faulty(1.5, "nan"), OPEN, 0.0, engine=engine)
    with pytest.raises(js.AllocationError, match=r"sector='bank', asset 'D', bar 3"):
        run(GROUPED, wrong_in_pairs, GROUPED_OPEN, 0.0, engine=engine, min_history=3)


def wrong_in_pairs(obs):
    return jnp.full(obs.num_assets, 0.2).at[-1].set(jnp.nan if obs.num_assets == 2 else 0.2)


def test_an_error_of_ours_is_a_value_error():
    assert issubclass(js.AllocationError, ValueError)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.2] * 4, [[0.1] * 3], 0.3], ids=str)
def test_the_wrong_number_of_weights(weights, engine):
    policy = al.FixedWeights(np.array(weights))
    with pytest.raises(ValueError, match=r"(?s)FixedWeights.*shape.*\(3,\)"):
        run(CLOSE, policy, OPEN, engine=engine)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_dust_below_zero_is_not_traded(engine):
    bt = run(CLOSE, al.FixedWeights([0.5, -1e-16, 0.5]), OPEN, engine=engine)
    assert "B" not in set(bt.orders["asset"])


def test_weights_of_a_series_that_miss_an_asset():
    with pytest.raises(ValueError, match=r"^policy: "):
        run(CLOSE, al.FixedWeights(pd.Series([0.5, 0.5], list("AB"))), OPEN)


def test_more_than_one_in_sum_warns_once():
    for engine in ("compiled", "reference"):
        with pytest.warns(UserWarning, match="more than one") as caught:
            bt = run(GROUPED, al.FixedWeights(pd.Series(0.6, GROUPED.columns)), GROUPED_OPEN, engine=engine)
        assert len(caught) == 1
        assert caught[0].filename == run.__code__.co_filename  # points at the caller
        assert (bt.cash >= 0).all().all()


# --- results


def test_bars_per_year_are_asked_for_only_where_they_are_needed():
    """Twenty dates of no kind do not tell; with a length of a bar they do."""
    few = INDEX[:20].delete(5).append(pd.DatetimeIndex(["2022-01-01"]))
    close = CLOSE[:20].set_axis(few)
    options = dict(threshold=js.grid(threshold=THRESHOLDS), engine="reference")
    bt = run(close, EQUAL, **options)
    assert bt.value.notna().all().all()
    assert bt.total_return().notna().all()
    assert bt.max_drawdown().notna().all()
    for metric in ("sharpe_ratio", "annualized_return", "alpha", "common_sense_ratio", "stats", "returns_stats"):
        with pytest.raises(ValueError, match=rf"^bars_per_year: .*, which {metric} needs; pass bars_per_year="):
            getattr(bt, metric)()
    told = run(close, EQUAL, freq="1D", **options)
    assert told.ann_factor == 365.0
    np.testing.assert_allclose(bt.sharpe_ratio(ann_factor=365.0), told.sharpe_ratio())
    np.testing.assert_allclose(bt.sharpe_ratio(bars_per_year=365), told.sharpe_ratio())
    assert bt.stats(bars_per_year=365)["Bars per Year"].tolist() == [365.0] * len(THRESHOLDS)
    np.testing.assert_allclose(bt.sharpe_ratio(freq="1D"), told.sharpe_ratio())


def test_plots_that_cannot_be_drawn():
    bt = run(CLOSE, EQUAL, OPEN, js.grid(threshold=THRESHOLDS), engine="reference")
    for draw in (bt.plot_allocations, bt.allocations.plot):
        with pytest.raises(ValueError, match="one lane"):
            draw()
        with pytest.raises(KeyError, match="nearest"):
            draw(0.06)
    for name in ("sharp_ratio", "value", "_turnover", "xs", "stats", "plot_value", "rolling_sharpe_ratio"):
        with pytest.raises(ValueError, match=r"^metric: "):
            bt.plot_metric(name)
    with pytest.raises(ValueError, match="single lane"):
        bt[0.05].plot_metric()


def test_benchmarks_of_the_wrong_length():
    bt = run(CLOSE, EQUAL, OPEN, js.grid(threshold=THRESHOLDS), engine="reference")
    with pytest.raises(ValueError, match=r"^benchmark: "):
        bt.beta(benchmark=np.zeros(3))
    with pytest.raises(TypeError, match="benchmark"):
        bt.sharpe_ratio(benchmark=np.zeros(BARS))


# --- the core


def test_market_dtypes():
    with pytest.warns(UserWarning, match=r"jax\.enable_x64") as caught:
        market = js.Market.from_frames(CLOSE, open=OPEN)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert market.dtype == jnp.float32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert js.Market.from_frames(CLOSE, dtype=np.float32).dtype == jnp.float32
        with jax.enable_x64(True):
            assert js.Market.from_frames(CLOSE).dtype == jnp.float64
            assert js.Market.from_frames(CLOSE, dtype=np.float64).dtype == jnp.float64
            assert js.Market.from_frames(CLOSE, dtype="float32").dtype == jnp.float32
    with pytest.raises(ValueError, match=r"^dtype: .*jax\.enable_x64"):
        js.Market.from_frames(CLOSE, dtype=np.float64)
    for dtype in (np.int32, np.float16, "complex64"):
        with pytest.raises(ValueError, match=r"^dtype: "):
            js.Market.from_frames(CLOSE, dtype=dtype)
    with pytest.raises((ValueError, TypeError), match=r"^dtype: "):
        js.Market.from_frames(CLOSE, dtype="prices")
    with pytest.raises(ValueError, match=r"^close: "):
        js.Market.from_frames(changed(3, 0, -1.0), dtype=np.float32)


MARKET = js.Market.from_frames(CLOSE, open=OPEN, dtype=np.float32)
POLICY = js.Policy(EQUAL, AT_5)


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (dict(market=CLOSE), "market: .*from_frames"),
        (dict(policy=EQUAL), "policy: .*Policy"),
        (dict(costs=0.005), "costs: "),
        (dict(account=100.0), "account: "),
        (dict(key="x"), "key: "),
        (dict(key=1.5), "key: "),
        (dict(save="units"), "save: "),
    ],
    ids=["market", "policy", "costs", "account", "text for a key", "a real key", "save"],
)
def test_simulate_names_arguments_of_the_wrong_kind(arguments, pattern):
    given = dict(market=MARKET, policy=POLICY) | arguments
    with compilations() as count, pytest.raises(TypeError, match=r"^" + pattern):
        js.simulate(given.pop("market"), given.pop("policy"), **given)
    assert count == [0]


def test_simulate_takes_ints_of_all_kinds_as_keys():
    policy = js.Policy(al.RandomWeights(), AT_5)
    values = [js.simulate(MARKET, policy, key=key).value for key in (3, np.int64(3), jax.random.key(3))]
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda: dict(policy=js.Policy(EQUAL, js.Threshold(-0.1))), "threshold: "),
        (lambda: dict(policy=js.Policy(EQUAL, js.Threshold(np.nan))), "threshold: "),
        (lambda: dict(costs=js.Costs(fees=-1.0)), "fees: "),
        (lambda: dict(costs=js.Costs(fees=np.nan)), "fees: "),
        (lambda: dict(account=js.Account(cash=-5.0)), "cash: "),
        (lambda: dict(account=js.Account(cash=np.nan)), "cash: "),
        (lambda: dict(policy=js.Policy(EQUAL, AT_5, min_history=-1)), "min_history: "),
    ],
    ids=["threshold", "NaN threshold", "fees", "NaN fees", "cash", "NaN cash", "min_history"],
)
def test_the_core_checks_values_where_they_are_concrete(make, pattern):
    """Values are checked only where concrete; and never a wrong number."""
    with pytest.raises(ValueError, match=r"^" + pattern):
        js.simulate(MARKET, **(dict(policy=POLICY) | make()))


def test_the_core_tells_of_faults_instead_of_raising():
    sim = js.simulate(MARKET, js.Policy(Faulty(1.5, "nan"), js.Threshold(0.0)))
    assert int(sim.status.fault) == js.LaneFault.WEIGHT_NAN
    assert (int(sim.status.bar), int(sim.status.asset)) == (9, 1)
    assert not bool(sim.status.is_ok)
    assert bool(js.simulate(MARKET, POLICY).status.is_ok)
