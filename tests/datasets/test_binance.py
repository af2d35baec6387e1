"""Prices from the exchange's archive, against a server on this machine that serves its layout."""

from __future__ import annotations

import hashlib
import logging
import sys
import zipfile
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxsim as js
from jaxsim.datasets import binance_spot, klines
from tests.helpers.archive_server import FIELDS, HEADER, candles, serving

pytest.importorskip("pooch")

TODAY = np.datetime64("2025-03-11")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(binance_spot, "_today", lambda: TODAY)
    with serving() as server:
        yield server


@pytest.fixture
def fetch(server, tmp_path):
    def fetch(symbols="AUSDT", interval="1h", start="2020-01-01", end="2020-03", **options):
        return js.datasets.binance(
            symbols, interval, start, end, **{"cache": tmp_path / "cache", "base_url": server.url} | options
        )

    return fetch


@pytest.fixture
def quarter(server) -> pd.DataFrame:
    """AUSDT from January to March 2020; the second of the three files has a header."""
    table = candles("2020-01-01", "2020-03-31", 0)
    for month in ("2020-01", "2020-02", "2020-03"):
        server.put("AUSDT", month, table.loc[month], header=month == "2020-02")
    return table


def assert_holds(data: js.datasets.Prices, tables: dict[str, pd.DataFrame]) -> None:
    """Every value to the last bit, NaN elsewhere, the same labels in all fields."""
    for field in FIELDS:
        expected = pd.concat({symbol: table[field] for symbol, table in tables.items()}, axis=1, sort=True)
        frame = getattr(data, field)
        assert list(frame.columns) == list(tables) and frame.columns.name == "symbol"
        assert str(frame.index.tz) == "UTC" and frame.index.name == "time"
        assert (frame.index == expected.index).all() and (frame.dtypes == np.float64).all()
        np.testing.assert_array_equal(frame.to_numpy(), expected.to_numpy())


# --- what comes


def test_months_are_put_together_and_fetched_once(server, fetch, quarter, tmp_path):
    data = fetch()
    assert isinstance(data, js.datasets.Prices)
    assert_holds(data, {"AUSDT": quarter})
    assert server.count() == 6  # three files, each with its checksum
    assert_holds(fetch(), {"AUSDT": quarter})
    assert server.count() == 0
    assert_holds(fetch(base_url="http://nowhere.invalid"), {"AUSDT": quarter})
    server.put("AUSDT", "2020-04", candles("2020-04-01", "2020-04-30", 1))
    fetch(end="2020-04")
    assert sorted(server.asked) == ["GET AUSDT-1h-2020-04.zip", "GET AUSDT-1h-2020-04.zip.CHECKSUM"]
    files = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert files == {f"AUSDT-1h-2020-0{i}.zip{end}" for i in range(1, 5) for end in ("", ".CHECKSUM")}


def test_milliseconds_until_2024_microseconds_after(server, fetch):
    table = candles("2024-12-01", "2025-01-31", 0)
    server.put("AUSDT", "2024-12", table.loc["2024-12"])
    server.put("AUSDT", "2025-01", table.loc["2025-01"], unit="us", header=True)
    data = fetch(start="2024-12-01", end="2025-01-31")
    assert_holds(data, {"AUSDT": table})
    assert data.close.index[-1] == pd.Timestamp("2025-01-31 23:00", tz="UTC")


def test_listed_late_outages_and_duplicates(server, fetch, quarter):
    """B is listed in mid-February; both miss an outage; B misses two hours of its own; a row comes twice."""
    outage = slice(200, 210)
    a = quarter.drop(quarter.index[outage])
    b = candles("2020-02-14", "2020-03-31", 1)
    b = b.drop(b.index[[40, 41]])
    late = b.loc["2020-03"]
    server.put("AUSDT", "2020-01", a.loc["2020-01"])
    server.put("BUSDT", "2020-02", b.loc["2020-02"])
    server.put("BUSDT", "2020-03", pd.concat([late, late.iloc[:3], b.loc["2020-02"].iloc[-2:]]))
    data = fetch(["BUSDT", "AUSDT"])
    assert_holds(data, {"BUSDT": b, "AUSDT": a})
    assert data.close["BUSDT"].first_valid_index() == pd.Timestamp("2020-02-14", tz="UTC")
    assert data.close["BUSDT"].isna().sum() == (31 + 13) * 24 - 10 + 2
    server.count()
    assert_holds(fetch(["BUSDT", "AUSDT"]), {"BUSDT": b, "AUSDT": a})
    assert server.count() == 0  # that January is absent is known
    fetch("BUSDT", base_url=server.url + "/")
    assert server.count() == 0
    with pytest.raises(ConnectionError):  # what one archive lacks, another may have
        fetch("BUSDT", base_url="http://nowhere.invalid")


def test_days_stand_in_for_months_to_come_and_for_gaps(server, fetch):
    """Today is 2025-03-11. February is not archived as a month yet, a gap in 2024 has daily files, one of them lost."""
    table = candles("2024-08-01", "2025-03-10", 0)
    lost = table.index.strftime("%Y-%m-%d") == "2024-09-05"
    for month in ("2024-08", "2024-10", "2024-11", "2024-12", "2025-01"):
        server.put("AUSDT", month, table.loc[month], unit="ms" if month < "2025" else "us")
    for day in pd.date_range("2024-09-01", "2024-09-30").append(pd.date_range("2025-02-01", "2025-03-10")):
        text = str(day.date())
        if text != "2024-09-05":
            server.put("AUSDT", text, table.loc[text], unit="ms" if text < "2025" else "us")
    expected = {"AUSDT": table[~lost]}
    assert_holds(fetch(start="2024-05-20", end=None), expected)
    asked = [name.removeprefix("GET AUSDT-1h-").removesuffix(".zip.CHECKSUM") for name in server.asked]
    assert "2025-03" not in asked and "2025-03-11" not in asked  # cannot exist yet
    assert not any(name.startswith("2024-07-") for name in asked)  # before it was listed
    server.count()
    assert_holds(fetch(start="2024-05-20", end="2030"), expected)
    assert set(server.asked) == {"GET AUSDT-1h-2025-02.zip.CHECKSUM", "HEAD AUSDT-1h-2025-02.zip"}
    one = fetch(start="2025-03-10", end="2025-03-10 05:00")  # no monthly file at all
    assert_holds(one, {"AUSDT": table.loc["2025-03-10"].iloc[:6]})


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [
        ("2020-01-10", "2020-02-20", "2020-01-10 00:00", "2020-02-20 23:00"),
        ("2020-01-10 03:30", "2020-02-20 00:00", "2020-01-10 04:00", "2020-02-20 00:00"),
        ("2020-01-10 03:00+02:00", "2020-02-20T01:00-05:00", "2020-01-10 01:00", "2020-02-20 06:00"),
        (date(2020, 1, 10), date(2020, 2, 20), "2020-01-10 00:00", "2020-02-20 23:00"),
        (pd.Timestamp("2020-01-10"), np.datetime64("2020-02-20"), "2020-01-10 00:00", "2020-02-20 00:00"),
        (pd.Timestamp("2020-01-31 23:00", tz="America/New_York"), "2020-02", "2020-02-01 04:00", "2020-02-29 23:00"),
        ("1066-10-14", "2020", "2020-01-01 00:00", "2020-03-31 23:00"),
    ],
)
def test_both_ends_are_included(start, end, first, last, fetch, quarter):
    index = fetch(start=start, end=end).close.index
    assert index[0] == pd.Timestamp(first, tz="UTC") and index[-1] == pd.Timestamp(last, tz="UTC")
    assert len(index) == (index[-1] - index[0]) / pd.Timedelta("1h") + 1


@pytest.mark.parametrize("symbol", ["AUSDT", "a/usdt", "A-USDT", "a_usdt", " ausdt "])
def test_spellings_of_a_pair(symbol, fetch, quarter):
    assert list(fetch([symbol], end="2020-01").close.columns) == ["AUSDT"]


def test_the_cache_is_where_the_variable_points(server, fetch, quarter, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSIM_CACHE", str(tmp_path / "elsewhere"))
    fetch(end="2020-01", cache=None)
    assert (tmp_path / "elsewhere/binance/data/spot/monthly/klines/AUSDT/1h/AUSDT-1h-2020-01.zip").is_file()
    fetch(end="2020-01")
    assert server.count() == 4
    monkeypatch.delenv("JAXSIM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "system"))
    if sys.platform == "linux":
        fetch(end="2020-01", cache=None)
        assert (tmp_path / "system/jaxsim-portfolio/binance").is_dir()


def test_a_bar_on_request_only_and_no_other_talk(server, fetch, quarter, capfd):
    level = logging.getLogger("pooch").level
    fetch()
    assert capfd.readouterr() == ("", "")
    fetch(progress=True)
    assert "months:" in capfd.readouterr().err
    assert logging.getLogger("pooch").level == level


# --- what goes wrong


def test_a_broken_transfer_is_resumed_by_the_next_call(server, fetch, quarter, tmp_path):
    path = "data/spot/monthly/klines/AUSDT/1h/AUSDT-1h-2020-02.zip"
    server.breaks[path] = 2
    with (
        pytest.warns(UserWarning, match="broke off .*; it is fetched again"),
        pytest.raises(
            ConnectionError, match=r"^base_url: http://\S+ broke off when asked for .*AUSDT-1h-2020-02.zip; "
        ),
    ):
        fetch()
    whole = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert all("2020-02" not in name and name.startswith("AUSDT-1h-") for name in whole)
    server.count()
    assert_holds(fetch(), {"AUSDT": quarter})
    assert server.count() == 6 - len(whole)

    server.put("AUSDT", "2020-04", candles("2020-04-01", "2020-04-30", 1))
    server.breaks[path.replace("-02.", "-04.")] = 1
    with pytest.warns(UserWarning, match="fetched again"):
        assert len(fetch(end="2020-04").close) == 121 * 24


def test_a_wrong_checksum(server, fetch, quarter, tmp_path):
    path = "data/spot/monthly/klines/AUSDT/1h/AUSDT-1h-2020-01.zip"
    server.spoils[path] = 2
    message = "^base_url: .*AUSDT-1h-2020-01.zip from http://.* does not match its checksum and was deleted"
    with pytest.warns(UserWarning, match=message), pytest.raises(OSError, match=message):
        fetch(end="2020-01")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert server.asked == ["GET AUSDT-1h-2020-01.zip.CHECKSUM", "GET AUSDT-1h-2020-01.zip"] * 2
    server.spoils[path] = 1
    with pytest.warns(UserWarning, match=message):
        assert_holds(fetch(end="2020-01"), {"AUSDT": quarter.loc["2020-01"]})


def test_a_file_spoilt_on_disk_is_fetched_again(server, fetch, quarter, tmp_path):
    fetch(end="2020-01")
    (file,) = tmp_path.rglob("*.zip")
    file.write_bytes(file.read_bytes()[:-1])
    server.count()
    assert_holds(fetch(end="2020-01"), {"AUSDT": quarter.loc["2020-01"]})
    assert server.count() == 2
    Path(f"{file}.CHECKSUM").unlink()  # as after a stop between the two: the file itself need not come again
    fetch(end="2020-01")
    assert server.asked == ["GET AUSDT-1h-2020-01.zip.CHECKSUM"]


def test_no_network(fetch, tmp_path):
    with pytest.raises(ConnectionError) as error:
        fetch(end="2020-01", base_url="http://nowhere.invalid")
    assert str(error.value) == (
        "base_url: http://nowhere.invalid could not be reached when asked for data/spot/monthly/klines/AUSDT/1h/"
        f"AUSDT-1h-2020-01.zip; files that are complete in {tmp_path / 'cache' / 'binance'} are used without network, "
        "and base_url= may name a mirror"
    )
    assert error.value.__cause__ is None and error.value.__suppress_context__


def test_strange_servers(server, fetch, quarter, monkeypatch):
    path = "data/spot/monthly/klines/AUSDT/1h/AUSDT-1h-2020-01.zip"
    server.status[f"{path}.CHECKSUM"] = 503
    with pytest.raises(ConnectionError, match="answered 503 Service Unavailable when asked for"):
        fetch()
    server.status.clear()
    server.files[f"{path}.CHECKSUM"] = b"<html>Please log in</html>"
    with pytest.raises(OSError, match=r"^base_url: .*CHECKSUM holds no SHA-256 but '<html>please log in</html>'"):
        fetch()
    del server.files[f"{path}.CHECKSUM"]
    with pytest.raises(OSError, match=r"^base_url: .* without its checksum; it cannot be verified"):
        fetch()
    server.files[path] = b"no zip"
    server.files[f"{path}.CHECKSUM"] = hashlib.sha256(b"no zip").hexdigest().encode()
    with pytest.raises(OSError, match=r"AUSDT-1h-2020-01.zip is no zip file with one table of candles: "):
        fetch()


def test_pairs_without_a_bar_are_named(server, fetch, quarter, tmp_path):
    with pytest.raises(ValueError, match=r"^symbols: the archive has no bar of BUSDT, CUSDT at 1h from 2020-01-01"):
        fetch(["BUSDT", "AUSDT", "CUSDT"])
    assert not any("BUSDT" in path.name for path in tmp_path.rglob("*.ABSENT"))  # a slip is not remembered
    late = candles("2020-02-20", "2020-02-29", 1)
    server.put("BUSDT", "2020-02", late)
    with pytest.raises(ValueError, match=r"^symbols: the archive has no bar of BUSDT "):
        fetch(["BUSDT", "AUSDT"], end="2020-02-10")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"symbols": []}, "symbols: expected at least one pair"),
        ({"symbols": 5}, "symbols: expected texts as 'BTCUSDT', got 5"),
        ({"symbols": ["AUSDT", None]}, "symbols: expected texts as 'BTCUSDT', got None"),
        ({"symbols": "AUSDT,BUSDT"}, "symbols: 'AUSDT,BUSDT' is not a pair such as"),
        ({"symbols": "../AUSDT"}, "symbols: '../AUSDT' is not a pair such as"),
        ({"symbols": ""}, "symbols: '' is not a pair such as"),
        ({"symbols": ["A/USDT", "ausdt"]}, "symbols: 'AUSDT' is given twice"),
        ({"interval": "1M"}, "interval: '1M' is none of 1s, 1m, "),
        ({"interval": 60}, "interval: 60 is none of 1s, 1m, "),
        ({"start": "soon"}, "start: 'soon' is not a time such as"),
        ({"start": "09:00"}, "start: '09:00' is not a time such as"),
        ({"start": 2020}, "start: expected a time such as '2020-01-31', got 2020"),
        ({"start": pd.NaT}, "start: expected a time, got NaT"),
        ({"end": "2020-13"}, "end: '2020-13' is not a time such as"),
        ({"end": "2019-12-31"}, "end: '2019-12-31' is before start, '2020-01-01'"),
        ({"start": "2025-03-11", "end": None}, "start: '2025-03-11' is not archived yet"),
        ({"base_url": "data.binance.vision"}, "base_url: expected an address such as 'https://data.binance.vision'"),
        ({"base_url": None}, "base_url: expected an address such as"),
        ({"cache": 5}, "cache: expected a folder, got 5"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_misuse(arguments, message, server, fetch):
    with pytest.raises((ValueError, TypeError)) as error:
        fetch(**arguments)
    assert str(error.value).startswith(message)
    assert server.count() == 0


def test_a_cache_that_cannot_be_written(fetch, quarter, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match=r"^cache: the folder '.*' cannot be made: "):
        fetch(cache=tmp_path / "taken")


@pytest.mark.parametrize("name", ["pooch", "requests", "tqdm"])
def test_without_the_extra_it_says_what_to_install(name, fetch, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"needs {name}, .*: pip install 'jaxsim-portfolio\[data\]'"):
        fetch()


def test_candles_are_the_nearest_doubles_and_an_empty_table_is_one(tmp_path):
    def write(text: str) -> Path:
        with zipfile.ZipFile(tmp_path / "k.zip", "w") as file:
            file.writestr("k.csv", text)
        return tmp_path / "k.zip"

    rest = ",0" * 6
    (row,) = klines.read_klines(write(f"1577836800000,0.1,9007199254740.993,1e-7,123.45678901234567,0{rest}\r\n"))
    assert row.tolist() == (1577836800000000, 0.1, 9007199254740.993, 1e-7, 123.45678901234567, 0.0)
    assert len(klines.read_klines(write(""))) == len(klines.read_klines(write("\ufeff" + HEADER + "\n"))) == 0
    with pytest.raises(OSError, match=r"no zip file with one table of candles"):
        klines.read_klines(write("1577836800000,1\n"))


# --- the command


@pytest.fixture
def command(server, tmp_path):
    pytest.importorskip("typer")
    pytest.importorskip("pyarrow")
    pytest.importorskip("plotly")
    from typer.testing import CliRunner

    from jaxsim.cli.app import app

    def command(*arguments: object, url: str = server.url):
        options = ("--cache", tmp_path / "cache", "--base-url", url) if arguments[0] == "fetch" else ()
        return CliRunner().invoke(app, [str(a) for a in (*arguments, *options)])

    return command


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_fetch_writes_what_sweep_reads(form, command, server, fetch, quarter, tmp_path):
    from jaxsim.cli.prices import read_closes, read_opens

    server.put("BUSDT", "2020-01", candles("2020-01-01", "2020-01-31", 1))
    out = tmp_path / "prices"
    span = ("--interval", "1h", "--start", "2020-01-01", "--end", "2020-01-02")
    done = command("fetch", "AUSDT", "b/usdt", *span, "--format", form, "--out", out)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "Prices(AUSDT, BUSDT: 2020-01-01 00:00:00+00:00 to 2020-01-02 23:00:00+00:00, 48 bars)"
    assert lines[2] == f"Next: jaxsim sweep {out / 'close'}.{form} --open {out / 'open'}.{form} --freq 1h"
    assert {path.name for path in out.iterdir()} == {f"{field}.{form}" for field in FIELDS}
    data = fetch(["AUSDT", "BUSDT"], end="2020-01-02")
    close, opens = read_closes(out / f"close.{form}", None)[0], read_opens(out / f"open.{form}", None)
    options = {"check_freq": False, "check_names": form == "parquet", "check_exact": True}
    pd.testing.assert_frame_equal(close, data.close, **options)
    pd.testing.assert_frame_equal(opens, data.open, **options)


def test_fetch_then_sweep(command, quarter, tmp_path):
    done = command("fetch", "AUSDT", "--start", "2020-01-01", "--end", "2020-01-01", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    words = done.stdout.splitlines()[-1].removeprefix("Next: jaxsim ").split()
    done = command(*words, "--threshold", "0.1", "--engine", "reference", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "1 assets, 24 bars" in done.stdout


def test_the_command_complains_in_one_line(command, server, quarter, tmp_path):
    def refused(*arguments: object, **options: str) -> str:
        done = command("fetch", *arguments, "--out", tmp_path / "out", **options)
        assert done.exit_code == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.output
        assert not (tmp_path / "out").exists()
        return done.stderr.removeprefix("Error: ")

    start = ("--start", "2020-01-01", "--end", "2020-01-31")
    assert refused("A USDT", *start).startswith("SYMBOL: 'A USDT' is not a pair")
    assert refused("AUSDT", *start, "--interval", "1M").startswith("--interval: '1M' is none of 1s")
    assert refused("AUSDT", "--start", "soon").startswith("--start: 'soon' is not a time")
    assert refused("XUSDT", *start).startswith("SYMBOL: the archive has no bar of XUSDT at 1h")
    line = refused("AUSDT", *start, url="http://nowhere.invalid")
    assert line.startswith("--base-url: http://nowhere.invalid could not be reached when asked for data/spot/monthly/")
