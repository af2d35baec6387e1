"""Labels in files: those of several types, and moments whose unit Parquet does not have."""

import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import INDEX, prices

CLOSE, _ = prices(0)
CLOSE = CLOSE.loc[:, ["A", "B"]]
MIXED = js.grid(every=["W", 5])


def plan(close=CLOSE, **when):
    return js.optimize(close, al.EqualWeight(), engine="reference", **when)


def again(allocations, tmp_path):
    allocations.save(tmp_path / "plan.parquet")
    return js.Allocations.load(tmp_path / "plan.parquet")


def test_lanes_of_numbers_and_text_come_back(tmp_path):
    before = plan(every=MIXED, lookback=js.grid(lookback=[3, 2.5e9, "2D"][::2]))
    after = again(before, tmp_path)
    pd.testing.assert_frame_equal(after.weights, before.weights)
    assert [type(x) for x in after.lanes.get_level_values("every").unique()] == [str, int]
    ours, theirs = (js.replay(x, CLOSE, engine="reference").value for x in (after, before))
    pd.testing.assert_frame_equal(ours, theirs)


def test_assets_and_times_of_numbers_and_text_come_back(tmp_path):
    names = pd.Index([1, "B"], dtype=object, name="asset")
    before = plan(CLOSE.set_axis(names, axis=1), every="W")
    assert again(before, tmp_path).assets.equals(names)
    times = pd.Index([1, "x", 2.5], dtype=object)
    own = js.Allocations.from_weights(pd.DataFrame({"A": [0.5]}, times[1:2]), times)
    assert again(own, tmp_path).index.equals(times)


@pytest.mark.parametrize(
    ("when", "texts"),
    [
        ({"every": js.grid(every=[pd.offsets.MonthEnd(), pd.offsets.Week()])}, ["ME", "W"]),
        ({"every": "W", "at_time": js.grid(at_time=[datetime.time(9), "10:00"])}, ["09:00:00", "10:00"]),
    ],
)
def test_other_labels_are_text_with_a_warning(when, texts, tmp_path):
    before = plan(**when)
    with pytest.warns(UserWarning, match=r"^lanes: the labels of .* it has their text"):
        after = again(before, tmp_path)
    assert list(after.lanes) == texts
    np.testing.assert_array_equal(after.targets, before.targets)


def test_two_labels_of_one_text_are_refused(tmp_path):
    zones = [datetime.time(9), datetime.time(10), "09:00:00"]
    before = plan(every="W", at_time=js.grid(at_time=zones))
    with pytest.raises(ValueError, match=r"^lanes: two labels of 'at_time' have the same text, '09:00:00'"):
        again(before, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Asia/Tokyo"])
def test_moments_keep_their_unit(unit, zone, tmp_path):
    index = INDEX.tz_localize(zone).as_unit(unit)
    close = CLOSE.set_axis(index)
    dates = {index[40]: index[[20, 40]], index[50]: index[[30, 50]]}
    before = plan(close, on=dates)
    after = again(before, tmp_path)
    assert after.index.dtype == index.dtype and after.index.equals(index)
    pd.testing.assert_frame_equal(after.weights, before.weights)
    assert after.weights.index.dtypes.tolist() == before.weights.index.dtypes.tolist()
    bt = js.replay(after, close, engine="reference")
    for table in (bt.orders, bt.allocations.records_readable, bt.decisions):
        assert table["timestamp"].dtype == index.dtype
    assert bt.value.index.dtype == bt.returns.index.dtype == index.dtype
    assert {str(x.dtype) for name, x in bt.drawdowns.items() if "timestamp" in str(name)} == {str(index.dtype)}


def sweep(out, **how):
    return js.sweep(
        CLOSE, al.EqualWeight(), trigger=js.Every(MIXED), engine="reference", metrics=["turnover"], out=out, **how
    )


def test_the_table_of_a_sweep(tmp_path):
    with pytest.warns(UserWarning, match=r"^out: the labels of 'every' .* it has their text"):
        folder = sweep(tmp_path / "table", checkpoint=tmp_path / "parts")
    table = pd.read_parquet(folder)
    assert table["every"].tolist() == ["W", "5"]
    in_memory = sweep(None, checkpoint=tmp_path / "parts")
    assert in_memory.index.tolist() == ["W", 5]
    np.testing.assert_array_equal(table["turnover"], in_memory["turnover"])


def test_parts_of_a_table_have_one_type(tmp_path):
    """Also the part of a level of several types that has labels of one of them only."""
    every = ["W", *range(2, 18)]
    trigger = js.Every(js.grid(every=every))
    with pytest.warns(UserWarning, match=r"^out: "):
        folder = js.sweep(CLOSE, al.EqualWeight(), trigger=trigger, engine="reference", out=tmp_path / "table")
    parts = [pd.read_parquet(part)["every"].tolist() for part in sorted(folder.iterdir())]
    assert len(parts) == 2 and parts[0] + parts[1] == [str(x) for x in every]


def test_a_table_of_groups_of_several_types(tmp_path):
    close = pd.concat({1: CLOSE, "x": CLOSE}, axis=1, names=["case", "asset"])
    options = dict(engine="reference", metrics=["turnover"])
    with pytest.warns(UserWarning, match=r"^out: the labels of 'case' "):
        folder = js.sweep(close, al.EqualWeight(), out=tmp_path / "table", **options)
    assert pd.read_parquet(folder)["case"].tolist() == ["1", "x"]
    same = pd.concat({1: CLOSE, "1": CLOSE}, axis=1, names=["case", "asset"])
    with pytest.raises(ValueError, match=r"^out: two labels of 'case' have the same text, '1'"):
        js.sweep(same, al.EqualWeight(), out=tmp_path / "other", **options)
    assert not (tmp_path / "other").exists()


def test_times_of_day_of_several_time_zones(tmp_path):
    zones = js.grid(at_time=["09:30 America/New_York", "09:30 Asia/Tokyo"])
    close = CLOSE.tz_localize("UTC")
    both = plan(close, every="D", at_time=zones)
    for zone in ("America/New_York", "Asia/Tokyo"):
        one = plan(close, every="D", at_time=datetime.time(9, 30, tzinfo=ZoneInfo(zone)))
        pd.testing.assert_frame_equal(both[f"09:30 {zone}"].weights, one.weights)
    assert again(both, tmp_path).lanes.equals(both.lanes)
