"""When to trade: every trigger against its formula written out, alone and composed, on both engines."""

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.cases import assert_same_portfolio, make_batch
from tests.helpers.markets import BARS, INDEX, as_users_run_it, look, prices, with_holes
from tools.outside_data import OutsideDataError, prices_file

CLOSE, OPEN = prices(0)
WEIGHTS = np.array([0.5, 0.3, 0.2])
POLICY = al.FixedWeights(WEIGHTS)
SEEN: list = []


def noted(trigger):
    """The trigger, and what it saw and said at every bar that it was asked about."""

    def watch(obs):
        answer = bool(trigger(obs))
        SEEN.append((obs, answer))
        return answer

    return watch


def answers(trigger, **options) -> list:
    """(observation, answer) of every bar on which the reference engine asks the trigger."""
    SEEN.clear()
    close, open_ = with_holes(CLOSE, OPEN)
    js.backtest(close, POLICY, open=open_, trigger=noted(trigger), engine="reference", **options)
    assert {answer for _, answer in SEEN} == {True, False}
    return list(SEEN)


def drifts(obs) -> np.ndarray:
    return obs.units * obs.val_price / obs.value - obs.target


def known(x: np.ndarray) -> np.ndarray:
    return x[~np.isnan(x)]


def relative(obs, limit: float) -> bool:
    with np.errstate(divide="ignore", invalid="ignore"):
        return bool((np.abs(drifts(obs)) / np.abs(obs.target) >= limit).any())


def tracking_error(obs, limit: float, lookback: int) -> bool:
    returns = pd.DataFrame(obs.window(lookback).values).pct_change(fill_method=None)
    apart = np.nan_to_num(drifts(obs))
    variance = apart @ np.nan_to_num(returns.cov().to_numpy()) @ apart * 252
    return bool(np.sqrt(max(variance, 0.0)) >= limit)  # a covariance of pairs may be negative in some direction


FORMULAS = {
    "absolute": (js.Threshold(0.04), lambda obs: (np.abs(known(drifts(obs))) >= 0.04).any()),
    "relative": (js.Threshold(0.2, relative=True), lambda obs: relative(obs, 0.2)),
    "half L1": (js.HalfL1Drift(0.05), lambda obs: np.abs(known(drifts(obs))).sum() / 2 >= 0.05),
    "L2": (js.L2Drift(0.06), lambda obs: np.sqrt((known(drifts(obs)) ** 2).sum()) >= 0.06),
    "tracking error": (js.TrackingError(0.02, 20, ann_factor=252.0), lambda obs: tracking_error(obs, 0.02, 20)),
    "every n": (js.EveryBars(7, start=3), lambda obs: obs.step >= 3 and (obs.step - 3) % 7 == 0),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_trigger_is_its_formula(name):
    trigger, formula = FORMULAS[name]
    for obs, answer in answers(trigger):
        assert answer == formula(obs), obs.step


COMPOSED = {
    "and": (js.Threshold(0.02) & js.EveryBars(3), [js.Threshold(0.02), js.EveryBars(3)], all),
    "or": (js.Threshold(0.06) | js.EveryBars(9), [js.Threshold(0.06), js.EveryBars(9)], any),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_composition_is_and_and_or(name):
    trigger, parts, rule = COMPOSED[name]
    for obs, answer in answers(trigger):
        assert answer == rule(bool(part(obs)) for part in parts)


def every_third(obs):
    return obs.step % 3 == 0


def test_functions_stand_on_either_side():
    left, right = js.Threshold(0.02) & every_third, every_third & js.Threshold(0.02)
    either = every_third | js.Threshold(0.02) | every_third
    rest = dict(open=OPEN, engine="reference")
    runs = [js.backtest(CLOSE, POLICY, trigger=t, **rest) for t in (left, right, js.Threshold(0.02) & js.EveryBars(3))]
    for other in runs[1:]:
        np.testing.assert_array_equal(runs[0].rebalances, other.rebalances)
    assert js.backtest(CLOSE, POLICY, trigger=either, **rest).rebalances.iloc[::3].all()


@pytest.mark.parametrize(("held", "fires"), [(0.0, False), (1e-9, True), (-0.2, True)])
@pytest.mark.filterwarnings("ignore:threshold. .* is a fraction")
def test_a_target_of_zero(held, fires):
    """Relatively, any position is infinitely far from it, and none is not."""
    obs = look([0.5, held], target=[0.5, 0.0])
    assert bool(js.Threshold(1e6, relative=True)(obs)) is fires
    assert js.Threshold(0.1, relative=True).excess(obs)[1] == (np.inf if fires else -0.1)
    assert bool(js.Threshold(0.0, relative=True)(look([0.5, 0.0], target=[0.4, 0.0]))) is True


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.filterwarnings("ignore:threshold. .* is a fraction")
def test_an_account_that_is_worth_nothing_is_far_from_any_target(engine):
    """Short of 5 units that were sold at 10, of 100 in cash: at 30 nothing is left, and no order has a size; what is
    short is bought back at the bar after."""
    close = pd.DataFrame({"A": [10.0, 30.0, 30.0]}, INDEX[:3])
    bt = js.backtest(close, al.FixedWeights([-0.5]), open=close, trigger=js.Threshold(1e9), engine=engine)
    assert bt.value.tolist() == [100.0, 0.0, 0.0]
    assert bt.rebalances.tolist() == [True, True, False]
    assert bt.decisions["status"].tolist() == ["Filled", "Rejected", "Filled"]
    assert bt.decisions["reason"].iloc[-1] == "ruined"


ALL = {
    "numbers": (js.Threshold(js.grid(t=[0.1, 0.3]), relative=True) & js.EveryBars(js.grid(n=[2, 5])))
    | js.TrackingError(0.02, 20, ann_factor=252.0)
    | (js.HalfL1Drift(0.04) & js.L2Drift(0.05)),
    "dates": (js.Threshold(0.01) & js.Every(pd.Index(["W", "3D"], name="every"))) | js.On([INDEX[7], "2020-02-01"]),
}


@pytest.mark.filterwarnings("ignore:target weights sum to more than one")
@pytest.mark.parametrize("name", ALL)
def test_engines_agree(name):
    """Eight random cases each: decisions, orders, values, and by how much each asset was beyond its limit."""
    batch = make_batch(np.random.default_rng([31, list(ALL).index(name)]), [3] * 8, 60, "number")
    options = dict(open=batch.open, price=batch.price, fees=0.002, trigger=ALL[name])
    policy = al.FixedWeights(batch.weights)
    one, other = (js.backtest(batch.close, policy, engine=engine, **options) for engine in ("compiled", "reference"))
    assert_same_portfolio(one, other)
    for a, b in zip(one._paths.ledgers, other._paths.ledgers, strict=True):
        np.testing.assert_allclose(a.excess, b.excess, rtol=1e-9, atol=1e-12)


def test_swept_numbers_are_those_of_single_runs():
    swept = js.backtest(
        CLOSE, POLICY, open=OPEN, trigger=js.Threshold(js.grid(t=[0.02, 0.04])) & js.EveryBars(js.grid(n=[2, 5]))
    )
    assert swept.lanes.names == ["t", "n"]
    for t in (0.02, 0.04):
        for n in (2, 5):
            trigger = js.Threshold(t) & js.EveryBars(n)
            alone = js.backtest(CLOSE, POLICY, open=OPEN, trigger=trigger, engine="reference")
            np.testing.assert_array_equal(swept[t, n].rebalances, alone.rebalances)


def test_a_users_trigger_with_a_bounded_field_is_swept_like_ours():
    import equinox as eqx

    class Gap(js.AbstractTrigger):
        size: object = eqx.field()

        def __call__(self, obs):
            return abs(obs.units[0] * obs.val_price[0] / obs.value - obs.target[0]) >= self.size

    swept = js.backtest(CLOSE, POLICY, open=OPEN, trigger=Gap(js.grid(size=[0.02, 0.05])) & js.EveryBars(2))
    assert swept.lanes.names == ["size"] and swept.num_rebalances()[0.02] > swept.num_rebalances()[0.05] > 1


LOOKING = {
    "tracking error": js.TrackingError(0.01, 10, ann_factor=252.0),
    "half L1": js.HalfL1Drift(0.03),
    "L2, on Sundays": js.Every("W") & js.L2Drift(0.01),
    "relative": js.Threshold(0.15, relative=True),
}


@pytest.mark.parametrize(
    ("name", "engine"), [("tracking error", "compiled"), *((name, "reference") for name in LOOKING)]
)
def test_the_future_changes_nothing_in_the_past(name, engine):
    """And neither the order of the assets nor the unit of the currency matters."""
    options = dict(trigger=LOOKING[name], engine=engine)
    late, late_open = CLOSE.copy(), OPEN.copy()
    late.iloc[40:] *= np.array([1.5, 0.8, 1.1])
    late_open.iloc[41:] *= np.array([1.5, 0.8, 1.1])
    one = js.backtest(CLOSE, POLICY, open=OPEN, **options)
    other = js.backtest(late, POLICY, open=late_open, **options)
    np.testing.assert_array_equal(one.rebalances[:41], other.rebalances[:41])
    np.testing.assert_array_equal(one.value[:40], other.value[:40])
    assert 2 < one.num_rebalances() < BARS
    turned = js.backtest(
        CLOSE[["C", "A", "B"]], al.FixedWeights(WEIGHTS[[2, 0, 1]]), open=OPEN[["C", "A", "B"]], **options
    )
    dear = js.backtest(CLOSE * 1024, POLICY, open=OPEN * 1024, init_cash=102_400.0, **options)
    for same in (turned, dear):
        np.testing.assert_array_equal(same.rebalances, one.rebalances)


# --- dates


def test_bars_of_dates():
    index = pd.DatetimeIndex(
        ["2021-01-29 10:00", "2021-01-29 16:00", "2021-02-01 10:00", "2021-02-03 10:00", "2021-03-02 10:00"]
    )
    assert js.index_points(index, every="MS").tolist() == [2, 4]
    assert js.index_points(index, on=["2021-01-30", "2021-01-31", "2021-02-03", "2022-01-01"]).tolist() == [2, 3]
    assert js.index_points(index, on="2020-01-01").tolist() == [0]
    assert js.index_points(index, every="D", at_time="12:00").tolist() == [1, 2, 3, 4]
    assert js.index_points(index, every="MS", offset="1D").tolist() == [3, 4]
    assert js.index_points(index, every=2).tolist() == [0, 2, 4]
    local = index.tz_localize("America/New_York")
    assert js.index_points(local, on="2021-02-01 09:00").tolist() == [2]
    assert js.index_points(local, on=[pd.Timestamp("2021-02-01 15:30", tz="UTC")]).tolist() == [3]


def test_the_same_hours_are_other_days_in_another_time_zone():
    london = pd.date_range("2021-01-30 20:00", periods=60, freq="h", tz="UTC")  # a Saturday
    auckland = london.tz_convert("Pacific/Auckland")  # Sunday morning
    for _ in range(2):  # whichever is asked first
        assert js.index_points(london, every="W").tolist() == [24]
        assert js.index_points(auckland, every="W").tolist() == [0]
    assert js.index_points(london.tz_localize(None), every="W").tolist() == [24]


def test_a_day_on_which_the_clock_changes():
    index = pd.date_range("2021-03-13", periods=72, freq="h", tz="America/New_York")
    points = js.index_points(index, every="D", at_time="02:30")
    assert [index[p].strftime("%d %H") for p in points] == ["13 03", "14 03", "15 03"]


def test_a_time_that_occurs_twice_is_the_first():
    index = pd.date_range("2021-11-06", periods=72, freq="h", tz="America/New_York")
    points = js.index_points(index, every="D", at_time="01:00")
    assert [str(index[p]) for p in points] == [
        "2021-11-06 01:00:00-04:00",
        "2021-11-07 01:00:00-04:00",
        "2021-11-08 01:00:00-05:00",
    ]
    naive = js.index_points(index, on=["2021-11-07 01:30", "2021-11-07 02:00"])
    assert [str(index[p]) for p in naive] == ["2021-11-07 01:00:00-05:00", "2021-11-07 02:00:00-05:00"]


def test_months_of_a_trading_calendar():
    """A month begins on its first bar, whatever is closed; one without any bar begins with the next."""
    index = pd.bdate_range("2021-01-04", "2021-12-31")
    index = index[(index.month != 6) & (index.day != 1)]
    points = js.index_points(index, every="MS")
    months = pd.Series(np.arange(len(index)), index.month).groupby(level=0).first()
    assert points.tolist() == months[months.index > 1].tolist()
    offset = js.index_points(index, every="MS", offset="3D")
    assert [index[p].strftime("%m-%d") for p in offset[:4]] == ["02-04", "03-04", "04-05", "05-04"]


def test_dates_that_are_moved_to_before_the_first_bar_are_none():
    assert js.index_points(INDEX, every="D", offset="-2D").tolist() == list(range(BARS - 2))
    late = INDEX[:3] + pd.Timedelta("10h")
    assert js.index_points(late, every="D", at_time="09:00").tolist() == [1, 2]
    assert js.index_points(INDEX[:0], every="D").tolist() == []


def test_the_hourly_year():
    """Daily, weekly and monthly ranges of the tutorial's data: 365, 51 and 11 (rules 10.1)."""
    try:
        path = prices_file("close")
    except OutsideDataError as error:
        pytest.skip(str(error))
    index = pd.to_datetime(pd.read_csv(path, usecols=[0]).iloc[:, 0], utc=True)
    counts = {every: len(js.index_ranges(pd.DatetimeIndex(index), every=every)) for every in ("D", "W", "MS")}
    assert counts == {"D": 365, "W": 51, "MS": 11}


@pytest.mark.parametrize("every", ["D", "W", "MS", "8h", "W-FRI"])
def test_points_are_the_first_bar_at_or_after_each_date(every):
    rng = np.random.default_rng(3)
    index = pd.date_range("2020-01-03", periods=4000, freq="h")[np.sort(rng.choice(4000, 900, replace=False))]
    dates = pd.date_range(index[0], index[-1], freq=every)
    expected = sorted({int(np.argmax(index >= date)) for date in dates})
    assert js.index_points(index, every=every).tolist() == expected


def test_ranges_end_where_they_are_acted_upon():
    ranges = js.index_ranges(INDEX, every="W")
    assert (ranges["range_end"] == ranges["alloc_idx"]).all()
    assert (ranges["range_start"][1:].to_numpy() == ranges["range_end"][:-1].to_numpy()).all()
    by_bars = js.index_ranges(INDEX, every="W", lookback=10)
    assert (by_bars["range_end"] - by_bars["range_start"] == 10).all() and (by_bars["range_start"] >= 0).all()
    by_time = js.index_ranges(INDEX, every="W", lookback="10D")
    pd.testing.assert_frame_equal(by_bars, by_time)
    holes = INDEX.delete([9, 10, 11])
    ranges = js.index_ranges(holes, on=["2021-01-12", "2021-01-16"], lookback="4D")
    assert ranges.to_numpy().tolist() == [[4, 8, 8], [8, 9, 9]]  # what there is of four days
    assert js.index_ranges(INDEX, on=INDEX[[3, 30]], lookback=pd.Timedelta("5D")).to_numpy().tolist() == [[25, 30, 30]]
    assert js.index_ranges(INDEX, every=20).to_numpy().tolist() == [[0, 20, 20], [20, 40, 40]]
    assert (js.index_ranges(INDEX, every="W").dtypes == np.int64).all()


def test_every_trades_at_its_bars():
    bt = js.backtest(CLOSE, POLICY, open=OPEN, trigger=js.Every("W"), engine="reference")
    assert list(bt.rebalance_index) == [INDEX[0], *INDEX[js.index_points(INDEX, every="W")]]
    swept = js.backtest(CLOSE, POLICY, open=OPEN, trigger=js.Every(pd.Index(["W", "MS"], name="every")))
    np.testing.assert_array_equal(swept["W"].rebalances, bt.rebalances)
    assert len(CLOSE) == BARS


MISUSE = {
    "no dates in the core": (
        lambda: in_the_core(js.Every("W")),
        TypeError,
        "trigger: Every needs",
    ),
    "no frequency": (lambda: run(js.Every("often")), ValueError, "every: 'often' is no duration such as 'D'"),
    "no dates": (lambda: run(js.On(["soon"])), ValueError, "on: expected dates"),
    "not an index of dates": (lambda: js.index_points(pd.RangeIndex(5), every="D"), TypeError, "every: dates need"),
    "both": (lambda: js.index_points(INDEX, every="D", on="2021-01-05"), ValueError, "every: pass a frequency"),
    "neither": (lambda: js.index_points(INDEX), ValueError, "every: pass a frequency"),
    "a time zone too many": (
        lambda: js.index_points(INDEX, on=[pd.Timestamp("2021-01-05", tz="UTC")]),
        ValueError,
        "on: the dates",
    ),
    "half a bar": (lambda: run(js.EveryBars(1.5)), ValueError, "bars: expected a whole number >= 1"),
    "no bars": (lambda: run(js.EveryBars(0)), ValueError, "bars: "),
    "too few closes": (
        lambda: js.TrackingError(0.02, 2),
        ValueError,
        "lookback: expected a whole number >= 3",
    ),
    "swept closes": (
        lambda: js.TrackingError(0.02, js.grid(n=[5, 9])),
        ValueError,
        "lookback: expected a whole number",
    ),
    "a negative limit": (lambda: run(js.L2Drift(-0.1)), ValueError, "threshold: .*>= 0"),
    "one limit per asset": (
        lambda: run(js.HalfL1Drift(np.array([0.1, 0.2, 0.3]))),
        ValueError,
        "threshold: this trigger",
    ),
    "a class": (lambda: js.Threshold(0.1) & js.Always, TypeError, "trigger: expected a trigger"),
    "a number": (lambda: js.Threshold(0.1) | 3, TypeError, "trigger: expected a trigger"),
    "a negative lookback": (lambda: js.index_ranges(INDEX, every="D", lookback=-1), ValueError, "lookback: "),
    "a lookback that is no duration": (
        lambda: js.index_ranges(INDEX, every="D", lookback="soon"),
        ValueError,
        "lookback: 'soon' is no duration",
    ),
    "a duration of bars without dates": (
        lambda: js.index_ranges(pd.RangeIndex(9), every=2, lookback="2D"),
        TypeError,
        "lookback: a duration needs a DatetimeIndex",
    ),
    "no duration": (lambda: js.index_points(INDEX, every="D", offset=3), ValueError, "offset: expected a duration"),
    "every no bars": (lambda: js.index_points(INDEX, every=0), ValueError, "every: expected a positive number"),
    "bars at a time": (lambda: js.index_points(INDEX, every=2, at_time="09:00"), ValueError, "every: a number of bars"),
    "a missing date": (lambda: js.index_points(INDEX, on=[pd.NaT]), ValueError, "on: a date is missing"),
    "backwards": (lambda: js.index_points(INDEX[::-1], every="D"), ValueError, "index: expected"),
    "a swept trigger of nothing": (
        lambda: run(js.Every(pd.Index(["D", "often"], name="e"))),
        ValueError,
        "every: 'often'",
    ),
    "a time that is none": (lambda: js.index_points(INDEX, every="D", at_time="25:99"), ValueError, "at_time: "),
}


def in_the_core(trigger):
    return js.simulate(js.Market.from_frames(CLOSE, dtype="float32"), js.Policy(POLICY, trigger))


def run(trigger):
    return js.backtest(CLOSE, POLICY, trigger=trigger)


@pytest.mark.parametrize("case", MISUSE)
def test_misuse(case):
    call, error, message = MISUSE[case]
    with as_users_run_it(), pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_masks_are_for_all_bars(engine):
    close, _ = prices(0)
    for mask, kind, text in (
        ([3, 30], TypeError, "mask: expected booleans"),
        (
            np.arange(30) % 7 == 0,
            ValueError,
            r"trigger: js.AtBars needs one entry for each of 60 bars, got shape \(30,\)",
        ),
        (pd.Series(np.ones(60, bool)), ValueError, "labelled, but not by the bars of close"),
    ):
        with pytest.raises(kind, match=text):
            js.backtest(close, al.EqualWeight(), trigger=js.AtBars(mask), engine=engine)
    series = pd.Series(np.arange(60) % 7 == 0, close.index)
    one, other = (
        js.backtest(close, al.EqualWeight(), trigger=js.AtBars(x), engine=engine) for x in (series, series.to_numpy())
    )
    np.testing.assert_array_equal(one.rebalances, other.rebalances)
    # The first bar has no price before it: the allocator is asked, nothing fills, and it is asked again at the second.
    assert list(np.flatnonzero(one.rebalances)) == sorted({0, 1, *range(7, 60, 7)})


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        ("no", TypeError, "str 'no'"),
        (None, TypeError, "NoneType None"),
        (np.nan, TypeError, "float nan"),
        (0.03, TypeError, "float 0.03"),
        (1, TypeError, "int 1"),
        (np.float64(0.03), TypeError, r"float64 of shape \(\)"),
        (np.ones(2, bool), ValueError, r"booleans of shape \(2,\); .any"),
        (np.ones(1, bool), ValueError, r"booleans of shape \(1,\); .any"),
    ],
)
@pytest.mark.parametrize("in_pair", [False, True])
def test_answers_that_are_no_yes_or_no(answer, kind, text, engine, in_pair):
    """NaN and 0.03 would count as yes; on its own and beside another trigger."""
    close, _ = prices(0)
    trigger = js.Always() & (lambda obs: answer) if in_pair else lambda obs: answer
    with pytest.raises(kind, match=f"^trigger: expected one boolean, .*got {text}"):
        js.backtest(close, al.EqualWeight(), trigger=trigger, engine=engine)


def test_a_percentage_for_a_fraction_warns():
    for make in (js.Threshold, js.HalfL1Drift, js.L2Drift, js.TurnoverCap, js.StopLoss):
        with pytest.warns(UserWarning, match=r"5 is a fraction, 500 %; 5 % is 0.05"):
            make(5)
    with pytest.warns(UserWarning, match="^threshold: 15 is a fraction, 1500 %"):
        js.Threshold(js.grid(threshold=range(1, 16)))
    close, _ = prices(0)
    never, infinite = (
        js.backtest(close, al.EqualWeight(), trigger=x, freq="1D") for x in (js.Never(), js.Threshold(np.inf))
    )
    np.testing.assert_array_equal(never.value, infinite.value)


def test_masks_are_for_all_bars_in_the_core():
    close, _ = prices(0)
    market = js.Market.from_frames(close, dtype=np.float32)
    short = js.Policy(al.EqualWeight(), js.AtBars(np.ones(30, bool)) | js.Never())
    for call in (js.simulate, lambda *x: js.score(*x, ["total_return"])):
        with pytest.raises(ValueError, match=r"trigger: js.AtBars needs one entry for each of 60 bars"):
            call(market, short)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_drift_of_exactly_the_threshold_triggers(engine):
    """`>=`, not `>` (rules 5.1): weights of 0.625 and 0.375 are 0.125 off their targets, in binary too."""
    close = pd.DataFrame([[1.0, 1.0], [2.5, 1.5], [2.5, 1.5]], INDEX[:3], ["A", "B"])
    for threshold, bars in ((0.125, 2), (np.nextafter(0.125, 1), 1)):
        bt = js.backtest(close, al.EqualWeight(), open=close, trigger=js.Threshold(threshold), freq="1D", engine=engine)
        assert bt.num_rebalances() == bars
