"""Which bars dates become: at or after a date, or the last one not after it; times of day in other time zones."""

import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js

NEW_YORK = ZoneInfo("America/New_York")
WEEKDAYS = pd.bdate_range("2021-01-04", "2021-12-15", name="date")
HOLIDAYS = pd.to_datetime(["2021-04-02", "2021-05-31", "2021-11-25"])
STOCK_DAYS = WEEKDAYS.difference(HOLIDAYS).rename("date")
HOURS = pd.date_range("2021-01-01", "2021-12-31 23:00", freq="h")
IN_SESSION = HOURS[np.isin(HOURS.normalize(), STOCK_DAYS) & (HOURS.hour >= 9) & (HOURS.hour < 16)]
CLOSE = pd.DataFrame(
    np.exp(np.cumsum(np.random.default_rng(5).normal(0, 0.02, (len(STOCK_DAYS), 2)), axis=0)), STOCK_DAYS, ["A", "B"]
)


def labels(index, **when):
    return index[js.index_points(index, **when)]


def localized(index, zone):
    """In a time zone, without the hours that its changes of clocks make doubtful."""
    return index.tz_localize(zone, ambiguous="NaT", nonexistent="NaT").dropna()


def last_of_each(index, period, complete):
    """The last bar of each period; without the last period, unless it is complete."""
    last = pd.Series(index, index=index).groupby(index.tz_localize(None).to_period(period)).last()
    return pd.DatetimeIndex(last if complete else last.iloc[:-1], tz=index.tz)


# --- the last bar not after a date


@pytest.mark.parametrize("zone", [None, "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize(
    ("index", "complete"), [(STOCK_DAYS, False), (IN_SESSION, False), (HOURS, True)], ids=["days", "session", "hours"]
)
@pytest.mark.parametrize(("every", "period"), [("ME", "M"), ("QE", "Q"), ("W-FRI", "W-FRI"), ("D", "D")])
def test_the_last_bar_of_each_period(index, complete, every, period, zone):
    index = localized(index, zone)
    over = every == "D" or (complete and every != "W-FRI")  # the year 2021 ends on a Friday
    expected = last_of_each(index, period, over or (index[-1].strftime("%a") == "Fri" and every == "W-FRI"))
    np.testing.assert_array_equal(labels(index, every=every, snap="before"), expected)


def test_a_period_is_over_once_the_bars_have_reached_its_end():
    january = STOCK_DAYS[STOCK_DAYS < "2021-02-01"]  # the 29th is a Friday
    assert len(js.index_points(january, every="ME", snap="before")) == 0
    assert labels(january.append(STOCK_DAYS[[len(january)]]), every="ME", snap="before")[0] == january[-1]
    assert labels(january, every="BME", snap="before")[0] == january[-1]
    assert len(js.index_points(january[:-1], every="BME", snap="before")) == 0
    for last, count in (("2021-01-31 22:00", 0), ("2021-01-31 23:00", 1)):
        assert len(js.index_points(HOURS[last >= HOURS], every="ME", snap="before")) == count
    minutes = pd.date_range("2021-01-04", periods=2 * 1440, freq="min")
    assert js.index_points(minutes, every="D", snap="before").tolist() == [1439, 2879]
    assert js.index_points(minutes[:-1], every="D", snap="before").tolist() == [1439]
    assert js.index_points(minutes[:90], every="D", snap="before").tolist() == []


def test_a_holiday_friday_is_thursday():
    days = labels(STOCK_DAYS, every="W-FRI", snap="before")
    assert {"2021-04-01"} <= set(days.strftime("%Y-%m-%d")) and "2021-04-05" not in days
    assert (days.day_name().isin(["Friday", "Thursday"])).all() and len(days) == 49


@pytest.mark.parametrize("every", ["D", "W", "ME", "BME", "3ME", "QE", "8h", "36h"])
@pytest.mark.parametrize("options", [{}, {"at_time": "10:30"}, {"offset": "-1D"}, {"offset": "90min"}])
def test_a_shorter_run_acts_where_the_whole_one_does(every, options):
    """With the dates of the whole calendar in all; by itself it leaves out what may still change."""
    rng = np.random.default_rng(7)
    index = localized(HOURS[np.sort(rng.choice(len(HOURS), 1500, replace=False))], NEW_YORK)
    whole = js.index_points(index, every=every, snap="before", **options)
    for stop in [1, *rng.integers(2, len(index), 12)]:
        known = whole[whole < stop]
        np.testing.assert_array_equal(js.index_points(index[:stop], on=index[whole]), known)
        alone = js.index_points(index[:stop], every=every, snap="before", **options)
        np.testing.assert_array_equal(alone[alone < stop - 1], known[: (alone < stop - 1).sum()])
        assert set(alone) <= set(known) and len(known) - len(alone) <= 5


def test_dates_and_moments():
    """A date at midnight means its day; a time of day makes it a moment."""
    on = ["2020-12-31", "2021-01-31", "2021-02-26", "2021-03-05 11:30", "2021-12-15", "2021-12-16", "2022-01-01"]
    assert labels(IN_SESSION, on=on, snap="before").strftime("%m-%d %H").tolist() == [
        "01-29 15",
        "02-26 15",
        "03-05 11",
        "12-15 15",
    ]
    assert labels(IN_SESSION, on="2021-02-26", at_time="10:30", snap="before").hour.tolist() == [10]
    assert labels(IN_SESSION, on="2021-02-26", at_time="00:00", snap="before").day.tolist() == [25]
    assert labels(HOURS, every="8h", snap="before").equals(HOURS[::8])
    third = labels(STOCK_DAYS, every="ME", offset="-2D", snap="before")
    assert third.strftime("%m-%d").tolist()[:4] == ["01-29", "02-26", "03-29", "04-28"]


def test_dates_finer_than_the_index():
    index = HOURS[:50].as_unit("s")
    assert js.index_points(index, on="2021-01-01 10:00:00.5").tolist() == [11]
    assert js.index_points(index, on="2021-01-01 10:00:00.5", snap="before").tolist() == [10]
    assert js.index_points(index, every="D", at_time=datetime.time(10, 0, 0, 1)).tolist() == [11, 35]


# --- a time of day with a time zone


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("snap", ["after", "before"])
def test_a_time_of_day_in_another_time_zone(zone, snap):
    """Over a change of clocks: 09:30 in New York is 14:30 in UTC, then 13:30."""
    index = pd.date_range("2021-03-08", "2021-03-20", freq="10min", tz="UTC").tz_convert(zone)
    days = pd.date_range("2021-03-08", "2021-03-19")
    opens = (days + pd.Timedelta("9h30min")).tz_localize(NEW_YORK)
    at_time = datetime.time(9, 30, tzinfo=NEW_YORK)
    found = labels(index, every="D", at_time=at_time, snap=snap)
    assert found.equals(opens.tz_convert(zone))
    assert found[0] != labels(index, every="D", at_time="09:30")[0] or zone == "America/New_York"
    assert labels(index, every="W-FRI", at_time=at_time, snap=snap).equals(opens[[4, 11]].tz_convert(zone))
    assert labels(index, on="2021-03-15", at_time=at_time, snap=snap)[0] == opens[7]
    fixed = labels(index, on="2021-03-15", at_time="09:30-04:00", snap=snap)
    assert fixed[0] == opens[7]


def test_a_time_zone_where_the_index_has_none():
    for at_time in (datetime.time(9, 30, tzinfo=NEW_YORK), "09:30Z", "09:30+01:00"):
        with pytest.raises(ValueError, match=r"^at_time: .* has a time zone, the index of close has none"):
            js.index_points(HOURS, every="D", at_time=at_time)
        with pytest.raises(ValueError, match=r"^at_time: "):
            js.backtest(CLOSE, al.EqualWeight(), trigger=js.Every("D", at_time=at_time))


# --- every door


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_the_last_trading_day_of_the_month(engine):
    last = last_of_each(STOCK_DAYS, "M", complete=False)
    trigger = js.Every(js.grid(every=["ME", "QE"]), snap=js.grid(snap=["before", "after"]))
    bt = js.backtest(CLOSE, al.EqualWeight(), open=CLOSE, trigger=trigger, engine=engine)
    monthly = bt["ME", "before"]
    assert list(monthly.rebalance_index) == [STOCK_DAYS[0], *last]
    assert list(bt["ME", "after"].rebalance_index)[1:3] == list(pd.to_datetime(["2021-02-01", "2021-03-01"]))
    # Half of each on the last day of every month, at its close, valued at its open (here the same).
    value, units = 100.0, np.zeros(2)
    for bar, price in enumerate(CLOSE.to_numpy()):
        value = units @ price if bar else value
        if bar == 0 or STOCK_DAYS[bar] in last:
            units = value / 2 / price
    np.testing.assert_allclose(monthly.value.iloc[-1], value, rtol=1e-12)


def test_plans_act_on_the_last_bar():
    plan = js.optimize(CLOSE, al.EqualWeight(), every="ME", snap=js.grid(snap=["after", "before"]), engine="reference")
    last = last_of_each(STOCK_DAYS, "M", complete=False)
    assert plan["before"].weights.index.equals(pd.DatetimeIndex(last[1:], name="date"))
    assert plan["after"].weights.index[0] == pd.Timestamp("2021-03-01")
    ranges = js.index_ranges(STOCK_DAYS, every="ME", snap="before", lookback=15)
    np.testing.assert_array_equal(STOCK_DAYS[ranges["alloc_idx"]], last)


def test_zipped_calendars():
    zipped = js.zipped(every=[5, "ME"], snap=["after", "before"])
    trigger = js.Every(zipped.every, snap=zipped.snap)
    bt = js.backtest(CLOSE, al.EqualWeight(), open=CLOSE, trigger=trigger, engine="reference")
    assert bt.num_rebalances().tolist() == [len(STOCK_DAYS[::5]), 12]


# --- tables of weights


def test_weights_of_closed_days_act_at_the_next_bar():
    firsts = pd.date_range("2021-01-01", "2021-12-31", freq="MS")
    table = pd.DataFrame({"A": np.linspace(0.1, 0.9, 12), "B": 0.1}, firsts)
    with pytest.raises(ValueError, match=r"^weights: 2021-01-01 .* is not in the time index"):
        js.Allocations.from_weights(table, STOCK_DAYS)
    own = js.Allocations.from_weights(table, STOCK_DAYS, snap="after")
    first = pd.Series(STOCK_DAYS, STOCK_DAYS).groupby(STOCK_DAYS.to_period("M")).first()
    expected = table.set_axis(pd.DatetimeIndex(first, name="date"))
    pd.testing.assert_frame_equal(own.weights, expected, check_freq=False)
    by_hand = js.Allocations.from_weights(expected, STOCK_DAYS)
    for engine in ("compiled", "reference"):
        ours, theirs = (js.replay(x, CLOSE, open=CLOSE, engine=engine) for x in (own, by_hand))
        np.testing.assert_array_equal(ours.value, theirs.value)


def test_weights_of_month_ends_act_at_the_last_bar():
    table = pd.DataFrame({"A": 0.5}, pd.date_range("2020-12-31", "2021-12-31", freq="ME"))
    own = js.Allocations.from_weights(table, STOCK_DAYS.tz_localize("Asia/Tokyo"), snap="before")
    np.testing.assert_array_equal(
        own.weights.index.tz_localize(None), last_of_each(STOCK_DAYS, "M", complete=False)
    )  # neither December: one has no bar, the other has not ended
    dense = pd.DataFrame(0.5, HOURS[:40], ["A"])
    assert js.Allocations.from_weights(dense, HOURS, snap="before").weights.index.equals(HOURS[:40])


def test_the_later_of_two_rows_counts():
    weekend = pd.to_datetime(["2021-01-10", "2021-01-09", "2021-01-12"])
    table = pd.DataFrame({"A": [0.2, 0.1, 0.3], "B": [np.nan, 0.1, 0.1]}, weekend)
    lanes = pd.concat({"two": table, "one": table.iloc[[1]]}, names=["lane", "time"])
    with pytest.warns(UserWarning, match=r"^weights: rows .* \(1 of them\); the first is that of 2021-01-09 00:00:00"):
        own = js.Allocations.from_weights(lanes, STOCK_DAYS, snap="after")
    assert own["two"].weights.index.strftime("%m-%d").tolist() == ["01-11", "01-12"]
    np.testing.assert_array_equal(own["two"].targets[0], [0.2, np.nan])
    np.testing.assert_array_equal(own["one"].targets, [[0.1, 0.1]])
    with pytest.raises(ValueError, match=r"^weights: 2021-01-09 .* twice"):
        js.Allocations.from_weights(pd.concat([table, table.iloc[[1]]]), STOCK_DAYS, snap="after")


def test_weights_after_the_last_bar_wait():
    dates = pd.to_datetime(["2021-12-11", "2021-12-18"])
    own = js.Allocations.from_weights(pd.DataFrame({"A": [0.2, 0.3]}, dates), STOCK_DAYS, snap="after")
    assert own.weights.index.strftime("%m-%d").tolist() == ["12-13"]
    with pytest.warns(UserWarning, match="^weights: all rows are left out"):
        late = js.Allocations.from_weights(pd.DataFrame({"A": [0.3]}, dates[1:]), STOCK_DAYS, snap="after")
    assert len(late) == 0


MISUSE = {
    "another word": (lambda: js.index_points(HOURS, every="D", snap="nearest"), ValueError, "snap: expected 'after'"),
    "no word": (lambda: js.index_points(HOURS, every="D", snap=True), ValueError, "snap: expected 'after'"),
    "a number of bars": (lambda: js.index_points(HOURS, every=3, snap="before"), ValueError, "every: a number of bars"),
    "of a trigger": (
        lambda: js.backtest(CLOSE, al.EqualWeight(), trigger=js.On("2021-02-01", snap="at")),
        ValueError,
        "snap: expected 'after'",
    ),
    "of a plan": (lambda: js.optimize(CLOSE, al.EqualWeight(), every="ME", snap=3), ValueError, "snap: expected"),
    "of weights": (
        lambda: js.Allocations.from_weights(CLOSE, STOCK_DAYS, snap="nearest"),
        ValueError,
        "snap: expected 'after'",
    ),
    "weights without dates": (
        lambda: js.Allocations.from_weights(CLOSE.reset_index(drop=True), pd.RangeIndex(300), snap="after"),
        TypeError,
        "snap: dates need a DatetimeIndex",
    ),
    "weights by number": (
        lambda: js.Allocations.from_weights(CLOSE.reset_index(drop=True), STOCK_DAYS, snap="after"),
        ValueError,
        "weights: expected dates",
    ),
    "weights with a time zone": (
        lambda: js.Allocations.from_weights(CLOSE.tz_localize("UTC"), STOCK_DAYS, snap="after"),
        ValueError,
        "weights: the dates have a time zone",
    ),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse(case):
    call, error, message = MISUSE[case]
    with pytest.raises(error, match=f"^{message}"):
        call()
