"""How many bars make a year, by kind of index (rules 13.1)."""

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.frames.inputs.bars_per_year import BarsPerYear

WEEKDAYS = pd.bdate_range("2020-01-01", "2021-12-31")
HOLIDAYS = WEEKDAYS.delete([0, 14, 40, 100])
SESSIONS = pd.DatetimeIndex(
    [day + minute for day in WEEKDAYS[:12] for minute in pd.timedelta_range("9:30:00", "16:00:00", freq="30min")]
)
HOURS = pd.date_range("2020-01-01", "2020-12-31 23:00", freq="h")
WEEKDAY_HOURS = HOURS[HOURS.day_of_week < 5]
RANDOM = (
    pd.to_datetime("2020-01-01") + pd.to_timedelta(np.random.default_rng(0).permutation(700)[:60], "D").sort_values()
)

#: Bars per year by hand, of an index alone.
BY_KIND = {
    "hours of a market that never closes": (HOURS, 8760),
    "the same with holes, one percent of it": (HOURS.delete(np.r_[100:140, 5000:5044]), 8760),
    "hours in a zone with summer time": (HOURS.tz_localize("UTC").tz_convert("Europe/Berlin"), 8760),
    "days of a market that never closes": (pd.date_range("2020-01-01", periods=50, freq="D"), 365),
    "the same, with summer time": (pd.date_range("2020-01-01", periods=300, freq="D", tz="Europe/Berlin"), 365),
    "every third day": (pd.date_range("2020-01-01", periods=20, freq="3D"), 365 / 3),
    "weekdays": (WEEKDAYS, 252),
    "weekdays with holidays": (HOLIDAYS, 252),
    "in seconds": (HOLIDAYS.as_unit("s"), 252),
    "in New York": (HOLIDAYS.tz_localize("America/New_York"), 252),
    "as periods": (pd.period_range("2020-01-06", periods=5, freq="D"), 252),
    "half hours of a stock exchange, 14 a date": (SESSIONS, 252 * 14),
    "the same with a short date": (SESSIONS.delete(np.arange(30, 42)), 252 * 14),
    "hours of weekdays, around the clock": (WEEKDAY_HOURS, (len(WEEKDAY_HOURS) - 1) / (HOURS.size - 1) * 8760),
    "Fridays": (pd.date_range("2020-01-01", periods=20, freq="W-FRI"), 365 / 7),
    "Fridays, one a Thursday": (pd.to_datetime(["2024-03-15", "2024-03-22", "2024-03-28", "2024-04-05"]), 365 / 7),
    "Fridays, two weeks missing": (pd.date_range("2020-01-03", periods=20, freq="7D").delete([4, 11]), 365 / 7),
    "ends of months": (pd.date_range("2020-01-01", periods=20, freq="ME"), 12),
    "ends of months, some missing": (pd.date_range("2020-01-31", periods=9, freq="ME").delete([2, 5]), 12),
    "ends of months, ten years missing": (
        pd.date_range("2000-01-31", periods=9, freq="ME").union(pd.date_range("2010-01-31", periods=9, freq="ME")),
        12,
    ),
    "last weekdays of months": (pd.date_range("2020-01-01", periods=20, freq="BME"), 12),
    "months as periods": (pd.period_range("2020-01", periods=20, freq="M"), 12),
    "starts of quarters": (pd.date_range("2020-01-01", periods=9, freq="QS"), 4),
    "years": (pd.date_range("2000-01-01", periods=9, freq="YE"), 1),
    "every thirty days, which is no month": (pd.date_range("2020-01-01", periods=20, freq="30D"), 365 / 30),
    "sixty dates of no kind": (RANDOM, 59 * 365 / (RANDOM[-1] - RANDOM[0]).days),
    "weekdays and one Saturday": (WEEKDAYS.union([pd.Timestamp("2020-02-01")]), (523 + 1 - 1) * 365 / 730),
}  # fmt: skip

#: Their median step is a week, by chance.
LIKE_WEEKS = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.cumsum([1, 30, 7, 14, 2] * 7), "D")


def test_a_median_step_of_a_week_makes_no_weeks():
    assert np.median(np.diff(LIKE_WEEKS)) == np.timedelta64(7, "D")
    assert BarsPerYear(LIKE_WEEKS).needed() == pytest.approx(34 * 365 / (LIKE_WEEKS[-1] - LIKE_WEEKS[0]).days)
    assert BarsPerYear(LIKE_WEEKS).said("W", None, None).needed() == 365 / 7


@pytest.mark.parametrize("kind", BY_KIND)
def test_the_index_tells(kind):
    index, expected = BY_KIND[kind]
    assert BarsPerYear(index).needed() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "index", [RANDOM[:29], pd.date_range("2024-01-01", periods=5, freq="h"), HOURS[:1], pd.RangeIndex(50)]
)
def test_too_few_dates_of_no_kind_do_not_tell(index):
    alone = BarsPerYear(index)
    assert alone.known is None
    with pytest.raises(ValueError, match=r"^(bars_per_year|freq): .*, which alpha needs; pass .*bars_per_year="):
        alone.needed("alpha")
    assert alone.said("1h", None, None).needed() == 8760
    assert alone.said(None, None, 252).needed() == 252.0
    assert alone.said("1h", "252D", None).needed() == 252 * 24


def test_what_the_user_says_comes_first():
    days = BarsPerYear(WEEKDAYS)
    assert days.said("1D", None, None).needed() == 252  # a bar of a day says nothing of weekends
    assert days.said("B", None, None).needed() == 252
    assert days.said(None, "365D", None).needed() == 365 and days.said("1D", "365D", None).needed() == 365
    assert days.said(None, None, 260).needed() == 260
    assert days.said(None, None, 260).said("1D", None, None).needed() == 252  # the later word counts
    assert BarsPerYear(pd.RangeIndex(9)).said("1D", None, None).needed() == 365
    for text, number in {"MS": 12, "QE": 4, "YS": 1, "W-FRI": 365 / 7, "B": 252}.items():
        assert BarsPerYear(pd.RangeIndex(9)).said(text, None, None).needed() == number
    with pytest.raises(ValueError, match=r"^bars_per_year: .*one of the two"):
        days.said(None, "252D", 252)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_daily_stocks_have_252_bars_a_year(engine):
    """Two weeks of weekdays: the value doubles, so a year of 252 bars makes 2^(252/10) of it."""
    close = pd.DataFrame({"A": 100 * 2 ** (np.arange(1, 11) / 10)}, WEEKDAYS[:10])
    bt = js.backtest(close, al.EqualWeight(), open=close / 2**0.1, price=close / 2**0.1, freq="1D", engine=engine)
    assert bt.ann_factor == 252.0
    assert bt.stats()["Bars per Year"] == 252.0
    assert bt.annualized_return() == pytest.approx(2**25.2 - 1)
    assert bt.annualized_return(bars_per_year=10) == pytest.approx(1.0)
    assert js.replay(bt.allocations, close, bars_per_year=10, engine=engine).ann_factor == 10


def test_every_verb_takes_bars_per_year_and_asks_at_the_door_for_it():
    close = pd.DataFrame({"A": [100.0, 101, 99, 103, 102]}, pd.date_range("2024-01-01", periods=5, freq="h"))
    run = dict(engine="reference", fees=0.01)
    bt = js.backtest(close, al.EqualWeight(), **run)
    again = js.from_records(bt.orders, close)
    for result in (bt, js.replay(bt.allocations, close, **run), again):
        assert np.isfinite(result.total_return())
        with pytest.raises(ValueError, match=r"^bars_per_year: 5 bars .*, which sharpe_ratio needs"):
            result.sharpe_ratio()
        with pytest.raises(ValueError, match=r"^bars_per_year: 5 bars .*, which rolling_sharpe_ratio needs"):
            result.rolling_sharpe_ratio(window=3)
    expected = bt.sharpe_ratio(bars_per_year=100)
    assert js.from_records(bt.orders, close, bars_per_year=100).sharpe_ratio() == expected
    assert list(js.sweep(close, al.EqualWeight(), metrics=["total_return"], **run)["total_return"]) == [
        bt.total_return()
    ]
    splits = js.WalkForwardSplits(train=2, test=2)

    def learn(market):
        raise AssertionError("the refusal comes before")

    for verb in (
        lambda **more: js.sweep(close, al.EqualWeight(), metrics=["sharpe_ratio"], **run, **more),
        lambda **more: js.walk_forward(close, learn, splits, **run, **more),
        lambda **more: js.sensitivities(close, al.EqualWeight(), fees=0.01, **more),
    ):
        with pytest.raises(ValueError, match=r"^bars_per_year: 5 bars .*, which sharpe_ratio needs"):
            verb()
    table = js.sweep(close, al.EqualWeight(), metrics=["sharpe_ratio"], bars_per_year=100, **run)
    assert table["sharpe_ratio"].iloc[0] == pytest.approx(expected)


def test_what_is_cut_from_a_run_keeps_its_bars_per_year():
    """Folds of a few weekdays of a market that never closes would count 252 alone."""
    index = pd.date_range("2024-01-01", periods=12, freq="D")
    close = pd.DataFrame({"A": 100 + np.arange(12.0) % 5}, index)
    fold = js.walk_forward(
        close, {"hold": lambda market: al.EqualWeight()}, js.WalkForwardSplits(train=4, test=4), engine="reference"
    )
    assert fold.ann_factor == 365.0
    many = js.backtest(close, al.EqualWeight(), trigger=js.Threshold(js.grid(threshold=[0.1, 0.2])), engine="reference")
    assert many[0.1].ann_factor == 365.0
