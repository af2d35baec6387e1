"""One reader of durations and frequencies, whatever the argument (rules 10.5)."""

import datetime

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.frames.inputs.durations import nominal_length, read_duration, read_span

OFFSETS = pd.offsets
MONTH = pd.Timedelta(days=365) / 12

#: What users write, and the nominal length.
READ = {
    "MS": MONTH,
    "ME": MONTH,
    "BMS": MONTH,
    "3MS": 3 * MONTH,
    "QE": 3 * MONTH,
    "QS-FEB": 3 * MONTH,
    "YE": "365D",
    "W": "7D",
    "2W": "14D",
    "W-FRI": "7D",
    "B": "1D",
    "D": "1D",
    "1d": "1D",
    "252D": "252D",
    "ms": "1ms",
    "h": "1h",
    "H": "1h",
    "5m": "5min",
    "1.5h": "90min",
    "1h30min": "90min",
    "2 days 3 hours": "51h",
    "01:30:00": "90min",
    "PT1H": "1h",
    pd.Timedelta("90min"): "90min",
    datetime.timedelta(days=2): "2D",
    np.timedelta64(36, "h"): "36h",
    np.timedelta64(3, "M"): 3 * MONTH,
    np.timedelta64(1, "Y"): "365D",
    OFFSETS.MonthBegin(3): 3 * MONTH,
    OFFSETS.BDay(5): "5D",
    OFFSETS.Hour(2): "2h",
    OFFSETS.Week(): "7D",
    pd.DateOffset(months=1, days=2): MONTH + pd.Timedelta("2D"),
    OFFSETS.FY5253Quarter(weekday=4, startingMonth=12): 3 * MONTH,
}


@pytest.mark.parametrize("given", READ, ids=str)
def test_read(given):
    assert nominal_length(read_duration(given, "freq")) == pd.Timedelta(READ[given])


@pytest.mark.parametrize(
    "given",
    [
        *("", " ", "252", "1e3", "M", "3M", "Q", "T", "month", "often", "NaT", "None", "-1D", "0D", "-3MS", b"1D"),
        *(5, 5.0, True, np.int64(3), np.nan, None, pd.NaT, [1], pd.Timestamp("2020"), np.timedelta64(5)),
        *(np.timedelta64("NaT"), pd.Timedelta(0), OFFSETS.BDay(-1), pd.DateOffset(month=3)),
    ],
    ids=str,
)
def test_refused(given):
    with pytest.raises(ValueError, match=r"^year_freq: .*'1h' or '1D'"):
        read_duration(given, "year_freq")


def test_a_shift_may_be_negative():
    assert read_span("-1D", "offset", signed=True) == pd.Timedelta("-1D")
    assert read_span("-2W", "offset", signed=True) == pd.Timedelta("-14D")
    assert read_span("-2B", "offset", signed=True) == OFFSETS.BDay(-2)


WEEKDAYS = pd.bdate_range("2023-01-02", "2023-12-29")
HOURS = pd.date_range("2023-01-01", "2023-12-31 23:00", freq="h", tz="Europe/Berlin")


@pytest.mark.parametrize(
    ("index", "on", "lookback", "begin"),
    [
        (WEEKDAYS, "2023-05-01", "3MS", "2023-02-01"),
        (WEEKDAYS, "2023-07-03", "3MS", "2023-04-03"),  # 1 July and 1 April are Saturdays
        (WEEKDAYS, "2023-07-03", OFFSETS.MonthBegin(3), "2023-04-03"),
        (WEEKDAYS, "2023-06-30", "ME", "2023-05-31"),
        (WEEKDAYS, "2023-11-15", "QE", "2023-06-30"),  # a whole quarter, and what has passed of this one
        (WEEKDAYS, "2023-05-31", pd.DateOffset(months=3), "2023-02-28"),
        (WEEKDAYS, "2023-05-31", np.timedelta64(3, "M"), "2023-02-28"),
        (WEEKDAYS, "2023-06-05", "5B", "2023-05-29"),
        (WEEKDAYS, "2023-06-07", "W-FRI", "2023-05-26"),
        (WEEKDAYS, "2023-06-07", "W", "2023-05-31"),
        (WEEKDAYS, "2023-06-07", "7D", "2023-05-31"),
        (HOURS, "2023-04-01", "3MS", "2023-01-01"),  # summer time begins in between
        (HOURS, "2023-04-01", "2160h", "2022-12-31 23:00"),
        (HOURS, "2023-04-01", "2159h", "2023-01-01"),
    ],
    ids=str,
)
def test_look_backs_of_the_calendar(index, on, lookback, begin):
    ranges = js.index_ranges(index, on=on, lookback=lookback)
    if pd.Timestamp(begin) < index[0].tz_localize(None):
        assert len(ranges) == 0
        return
    assert [str(index[bar].date()) for bar in ranges["range_start"]] == [begin]
    assert index[ranges["alloc_idx"]].tz_localize(None).tolist() == [pd.Timestamp(on)]


def test_a_plan_of_months_is_not_empty():
    close = pd.DataFrame({"A": 100.0 + np.arange(len(WEEKDAYS)) % 7, "B": 50.0}, WEEKDAYS)

    def equal(obs):
        return np.full(obs.num_assets, 1 / obs.num_assets)

    months = js.optimize(close, equal, every="MS", lookback="3MS", engine="reference")
    assert months.records["alloc_idx"].tolist() == [WEEKDAYS.searchsorted(f"2023-{m:02}-01") for m in range(5, 13)]
    with pytest.raises(ValueError, match=r"^lookback: no bar lies '3ms' or less before"):
        js.optimize(close, equal, every="MS", lookback="3ms", engine="reference")


CLOSE = pd.DataFrame({"A": [100.0, 101, 99, 103, 102, 104]}, WEEKDAYS[:6])
RUN = dict(engine="reference")

#: Every argument that takes a duration, of every verb and method.
ARGUMENTS = {
    "freq": [
        lambda x: js.backtest(CLOSE, al.EqualWeight(), freq=x, **RUN),
        lambda x: js.backtest(CLOSE, size=1.0, freq=x, **RUN),
        lambda x: js.sweep(CLOSE, al.EqualWeight(), freq=x, **RUN),
        lambda x: js.replay(js.backtest(CLOSE, al.EqualWeight(), **RUN).allocations, CLOSE, freq=x, **RUN),
        lambda x: js.from_records(js.backtest(CLOSE, al.EqualWeight(), **RUN).orders, CLOSE, freq=x),
        lambda x: js.backtest(CLOSE, al.EqualWeight(), **RUN).sharpe_ratio(freq=x),
        lambda x: js.backtest(CLOSE, al.EqualWeight(), **RUN).rolling_sharpe_ratio(window=3, freq=x),
        lambda x: js.backtest(CLOSE, al.EqualWeight(), **RUN).stats(freq=x),
        lambda x: js.backtest(CLOSE, al.EqualWeight(), **RUN).returns_stats(freq=x),
        lambda x: js.backtest(CLOSE, al.EqualWeight(), **RUN).trades.stats(freq=x),
        lambda x: js.backtest(CLOSE, al.EqualWeight(), **RUN).drawdowns.stats(freq=x),
    ],
    "year_freq": [
        lambda x: js.backtest(CLOSE, al.EqualWeight(), year_freq=x, **RUN),
        lambda x: js.backtest(CLOSE, al.EqualWeight(), **RUN).stats(year_freq=x),
        lambda x: js.backtest(CLOSE, al.EqualWeight(), **RUN).sharpe_ratio(year_freq=x),
    ],
    "every": [
        lambda x: js.index_points(CLOSE.index, every=x),
        lambda x: js.backtest(CLOSE, al.EqualWeight(), trigger=js.Every(x), **RUN),
    ],
    "lookback": [lambda x: js.index_ranges(CLOSE.index, on=CLOSE.index[[4]], lookback=x)],
    "offset": [lambda x: js.index_points(CLOSE.index, every="D", offset=x)],
    "stale": [lambda x: js.backtest(CLOSE, al.EqualWeight(), stale=x, **RUN)],
}


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_every_verb_reads_alike(argument):
    for call in ARGUMENTS[argument]:
        for given in ("", "252", "M", "often"):
            with pytest.raises(ValueError, match=rf"^{argument}: '{given}' is no duration such as '"):
                call(given)
        for given in (2.5, True):
            with pytest.raises((TypeError, ValueError), match=rf"^{argument}: .*(such as|as in)"):
                call(given)
        for given in ("B", "W-FRI", OFFSETS.BDay(2), datetime.timedelta(days=2), np.timedelta64(48, "h")):
            call(given)


def test_a_month_is_no_millisecond():
    """Sharpe ratios of the same months, with and without their length."""
    months = pd.date_range("2020-01-31", periods=40, freq="ME")
    close = pd.DataFrame({"A": 100 * np.cumprod(1 + np.random.default_rng(0).normal(0.01, 0.04, 40))}, months)
    bt = js.backtest(close, al.EqualWeight(), **RUN)
    told = js.backtest(close, al.EqualWeight(), freq="MS", **RUN)
    expected = js.metrics.sharpe_ratio(bt.returns, ann_factor=12)
    assert bt.sharpe_ratio() == told.sharpe_ratio() == bt.sharpe_ratio(freq="ME") == expected
    numbered = js.backtest(close.reset_index(drop=True), al.EqualWeight(), freq="MS", **RUN)
    assert numbered.sharpe_ratio() == pytest.approx(expected)
