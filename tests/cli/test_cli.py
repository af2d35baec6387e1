"""The command line: what it prints, what it writes, and one sentence for what cannot be done."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js

pytest.importorskip("typer")
pytest.importorskip("tqdm")
pytest.importorskip("plotly")
pytest.importorskip("pyarrow")

from typer.testing import CliRunner

from jaxsim import cli
from jaxsim.cli import outcome, prices, ranges
from jaxsim.cli.app import app
from jaxsim.cli.complaint import Complaint

FILES = {
    "settings.json",
    "metrics.parquet",
    "values.parquet",
    "weights.parquet",
    "targets.parquet",
    "metrics.csv",
    "rebalances.csv",
    "orders.csv",
    "report.html",
}
SWEEP = ("--threshold", "0.01:0.04:0.01", "--fees", "0.005", "--freq", "1h")


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def ran(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


def refused(*arguments: object) -> str:
    """The one line on the error stream."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    line = result.stderr.strip()
    assert line.startswith("Error: ") and "\n" not in line, line
    return line.removeprefix("Error: ")


def rows(text: str) -> list[list[str]]:
    """The rows of the printed table: those that begin with a number and have all metrics."""
    return [line.split() for line in text.splitlines() if re.match(r" *0[.0-9]* +[-0-9]", line)]


def assert_stands_alone(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    own = re.sub(r"<script>/\*\*.*?</script>", "", page, count=1, flags=re.DOTALL)  # less Plotly's own source
    assert len(own) < len(page) / 2
    assert not re.search(r"(src|href)\s*=|@import|url\(|https?://", own)


@pytest.fixture(scope="module")
def market() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Close and open: 60 hours of three assets."""
    rng = np.random.default_rng(3)
    index = pd.date_range("2024-03-01", periods=60, freq="h", name="time")
    columns = pd.Index(["IBM", "AAPL", "MSFT"], name="symbol")
    close = pd.DataFrame(50 * np.exp(rng.normal(0, 0.05, (60, 3)).cumsum(axis=0)), index, columns)
    return close, close.shift().fillna(50.0) * 1.001


@pytest.fixture(scope="module")
def expected(market) -> js.Backtest:
    close, opens = market
    trigger = js.Threshold(js.grid(threshold=np.arange(1, 5) / 100))
    return js.backtest(close, al.EqualWeight(), open=opens, trigger=trigger, fees=0.005, freq="1h")


@pytest.fixture(scope="module")
def wide(market, tmp_path_factory) -> Path:
    """A folder with the market in wide and long files."""
    folder = tmp_path_factory.mktemp("prices")
    close, opens = market
    close.to_csv(folder / "close.csv")
    opens.to_csv(folder / "open.csv")
    close.to_csv(folder / "close.csv.gz")
    close.to_parquet(folder / "close.parquet")
    opens.reset_index().to_parquet(folder / "open.parquet")
    long = pd.concat([close.stack().rename("Close"), opens.stack().rename("open")], axis=1).reset_index()
    long = long.rename(columns={"time": "Timestamp", "symbol": "ticker"})
    long.to_csv(folder / "long.csv", index=False)
    long.drop(columns="open").to_csv(folder / "long_close.csv", index=False)
    long.to_parquet(folder / "long.parquet")
    return folder


# --- the commands


def test_demo(tmp_path):
    text = ran("demo", "--out", tmp_path / "a" / "b")
    folder = tmp_path / "a" / "b"
    table = rows(text)
    assert [float(row[0]) for row in table] == [i / 100 for i in range(1, 16)]
    best = [row for row in table if row[-1] == "best"]
    assert len(best) == 1 and float(best[0][4]) == max(float(row[4]) for row in table)
    assert {p.name for p in folder.iterdir()} == FILES
    assert_stands_alone(folder / "report.html")

    data = js.datasets.stocks()
    bt = js.backtest(
        data.close,
        al.EqualWeight(over="tradable"),
        open=data.open,
        trigger=js.Threshold(js.grid(threshold=np.arange(1, 16) / 100)),
        fees=0.005,
        freq="1D",
        year_freq="252D",
    )
    saved = outcome.load(folder)
    assert list(saved.metrics) == list(pd.read_csv(folder / "metrics.csv", index_col=0))
    for name in saved.metrics:
        pd.testing.assert_series_equal(saved.metrics[name], getattr(bt, name)())
    pd.testing.assert_frame_equal(saved.values, bt.value, check_freq=False)
    one = bt[saved.best]
    pd.testing.assert_frame_equal(saved.weights, one.weights, check_freq=False)
    pd.testing.assert_frame_equal(saved.targets, one.allocations.weights)
    assert len(pd.read_csv(folder / "orders.csv")) == len(one.orders)
    dates = [str(date.date()) for date in one.rebalance_index]
    assert f"{len(dates)} rebalances: {', '.join(dates[:3])}, ..., {', '.join(dates[-3:])}" in text
    assert "FB from 2012-05-18, GOOG from 2004-08-19" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        ("close.csv", "--open", "open.csv"),
        ("close.csv.gz", "--open", "open.parquet"),
        ("close.parquet", "--open", "open.csv"),
        ("long.csv",),
        ("long.parquet", "--long"),
        ("long_close.csv", "--open", "long.csv"),
        ("close.csv", "--open", "open.csv", "--wide", "--engine", "reference"),
    ],
    ids=" ".join,
)
def test_sweep_reads_every_layout(arguments, wide, expected, tmp_path):
    paths = [wide / a if "." in a else a for a in arguments]
    text = ran("sweep", *paths, *SWEEP, "--out", tmp_path)
    assert [row[0] for row in rows(text)] == ["0.01", "0.02", "0.03", "0.04"]
    assert {p.name for p in tmp_path.iterdir()} == FILES
    saved = outcome.load(tmp_path)
    np.testing.assert_allclose(saved.values.to_numpy(), expected.value.to_numpy(), rtol=1e-12)
    pd.testing.assert_index_equal(saved.values.columns, expected.value.columns)
    assert list(saved.weights.columns) == ["IBM", "AAPL", "MSFT"]
    assert saved.best == expected.sharpe_ratio().idxmax()


def test_thresholds_and_fees_make_their_product(market, wide, tmp_path):
    thresholds, fees = [0.02, 0.05], [0.0, 0.001]
    text = ran(
        *("sweep", wide / "close.csv", "--threshold", "0.02,0.05", "--fees", "0:0.001:0.001"),
        *("--out", tmp_path, "--year-freq", "252D", "--init-cash", "1000", "--min-history", "3"),
    )
    bt = js.backtest(
        market[0],
        al.EqualWeight(),
        trigger=js.Threshold(js.grid(threshold=thresholds)),
        fees=js.grid(fees=fees),
        year_freq="252D",
        init_cash=1000,
        min_history=3,
    )
    assert [row[:2] for row in rows(text)] == [[f"{t:g}", f"{f:g}"] for t in thresholds for f in fees]
    saved = outcome.load(tmp_path)
    assert saved.metrics.index.names == ["threshold", "fees"]
    pd.testing.assert_series_equal(saved.metrics["sharpe_ratio"], bt.sharpe_ratio())
    pd.testing.assert_frame_equal(saved.values, bt.value, check_freq=False)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Sharpe ratio against threshold and fees" in page and "heatmap" in page


def test_a_sweep_begins_with_holdings(market, wide, tmp_path):
    held = tmp_path / "held.csv"
    held.write_text("asset,units,note\nAAPL,0.5,old\ncash,20,\n", encoding="utf-8")
    arguments = ("sweep", wide / "close.csv", "--threshold", "0.02", "--year-freq", "252D", "--out", tmp_path)
    ran(*arguments, "--units", held)
    bt = js.backtest(
        market[0], al.EqualWeight(), trigger=js.Threshold(0.02), init_cash=20.0, init_units=pd.Series({"AAPL": 0.5})
    )
    saved = outcome.load(tmp_path)
    np.testing.assert_allclose(saved.values.to_numpy().ravel(), bt.value, rtol=1e-9)
    assert "20 and units AAPL 0.5" in (tmp_path / "report.html").read_text(encoding="utf-8")
    for text, told in {
        "asset,units\nXYZ,1\n": "--units: close has no column for 'XYZ'",
        "asset,shares\nAAPL,1\n": "--units: held.csv has no column 'units'",
        "asset,units\nAAPL,many\n": "--units: row 1 of held.csv",
        "asset,units\nAAPL,1\nAAPL,1\n": "--units: 'AAPL' is in held.csv twice",
    }.items():
        held.write_text(text, encoding="utf-8")
        result = run(*arguments, "--units", held)
        assert result.exit_code != 0 and told in " ".join(result.output.split())


def test_one_lane_needs_no_metric_picture(wide, tmp_path):
    text = ran("sweep", wide / "close.csv", "--threshold", "0.05", "--out", tmp_path)
    assert len(rows(text)) == 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Sharpe ratio against" not in page and "Realised weights, threshold 0.05" in page


def test_a_run_without_any_trade_is_a_run(wide, tmp_path):
    text = ran("sweep", wide / "close.csv", *SWEEP, "--min-history", "60", "--engine", "reference", "--out", tmp_path)
    assert "0 rebalances" in text and len(rows(text)) == 4
    assert "Target weights and their dates" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "0 rebalances" in ran("report", tmp_path) + (tmp_path / "report.html").read_text(encoding="utf-8")


def test_fixed_weights_go_by_name(market, wide, tmp_path):
    ran("sweep", wide / "close.csv", *SWEEP, "--weights", "AAPL=0.6, IBM=0.3", "--out", tmp_path)
    targets = outcome.load(tmp_path).targets
    assert (targets["AAPL"] == 0.6).all() and (targets["IBM"] == 0.3).all() and (targets["MSFT"] == 0).all()
    assert "fixed weights IBM 0.3, AAPL 0.6, MSFT 0" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_weights_above_one_are_a_warning(wide, tmp_path):
    result = run("sweep", wide / "close.csv", *SWEEP, "--weights", "AAPL=0.7,IBM=0.5", "--out", tmp_path)
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: target weights sum to more than one")


def test_report_draws_the_same_page_again(wide, tmp_path):
    ran("sweep", wide / "close.csv", *SWEEP, "--out", tmp_path)
    page = (tmp_path / "report.html").read_bytes()
    (tmp_path / "report.html").unlink()
    assert str(tmp_path / "report.html") in ran("report", tmp_path)
    assert (tmp_path / "report.html").read_bytes() == page


def test_whole_number_times_stay_bars(market, wide, tmp_path):
    close = market[0].reset_index(drop=True).rename_axis("bar")
    close.to_csv(tmp_path / "bars.csv")
    assert refused("sweep", tmp_path / "bars.csv").startswith("--bars-per-year: ")
    text = ran("sweep", tmp_path / "bars.csv", *SWEEP, "--out", tmp_path / "out")
    assert "60 bars, 0 to 59" in text
    assert outcome.load(tmp_path / "out").values.index.tolist() == list(range(60))


def test_version():
    assert ran("--version") == f"jaxsim {js.__version__}\n"


def test_main_without_the_extra_says_what_to_install(monkeypatch, capsys):
    find = cli.importlib.util.find_spec
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None if name == "typer" else find(name))
    with pytest.raises(SystemExit) as exit:
        cli.main()
    assert exit.value.code == 1
    assert capsys.readouterr().err == "The command line needs typer: pip install 'jaxsim-portfolio[cli]'\n"


def test_importing_the_command_line_imports_none_of_its_extra():
    code = "import sys, jaxsim.cli; print(*({'typer', 'tqdm', 'plotly', 'pyarrow'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    # pandas itself imports pyarrow where it is installed
    assert set(re.findall(r"\w+", found)) <= {"pyarrow"}


# --- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--threshold", "0.1:0.01:0.01"), "--threshold: '0.1:0.01:0.01' stops before it starts"),
        (("--threshold", "0.01:0.1:-0.01"), "--threshold: the step of '0.01:0.1:-0.01' is not positive"),
        (("--threshold", "0.01:0.1:0"), "--threshold: the step of '0.01:0.1:0' is not positive"),
        (("--threshold", "0.01:0.1"), "--threshold: '0.01:0.1' is not of the form start:stop:step"),
        (("--threshold", "five"), "--threshold: 'five' is not a number"),
        (("--threshold", "0.01,"), "--threshold: '' is not a number"),
        (("--threshold", "nan"), "--threshold: 'nan' is not a finite number"),
        (("--threshold", "0.01,0.01"), "--threshold: 0.01 is given twice"),
        (("--threshold", "0:1:1e-9"), "--threshold: '0:1:1e-9' has more than 10,000 values"),
        (
            ("--threshold", "0:1:0.001", "--fees", "0:0.1:0.001"),
            "--threshold: 101,101 combinations with --fees",
        ),
        (("--threshold", "-0.01"), "--threshold: expected a finite number >= 0 or inf, got -0.01"),
        (("--fees", "-1"), "--fees: expected a finite number > -1 and <= 100, got -1"),
        (("--fees", "x"), "--fees: 'x' is not a number"),
        (("--freq", "1 moon"), "--freq: '1 moon' is no duration"),
        (("--freq", "252"), "--freq: '252' is no duration such as '1h' or '1D'"),
        (("--year-freq", "1M"), "--year-freq: '1M' is no duration"),
        (("--bars-per-year", "0"), "--bars-per-year: expected a finite number > 0"),
        (("--bars-per-year", "252", "--year-freq", "252D"), "--bars-per-year: it says what"),
        (("--init-cash", "0"), "--init-cash: expected a finite number > 1e-12 and <= 1e+100, got 0"),
        (("--min-history", "-1"), "--min-history: expected a whole number >= 0, got -1"),
        (("--start", "-1"), "--start: expected a whole number >= 0 and <= 59, got -1"),
        (("--weights", "AAPL"), "--weights: 'AAPL' is not of the form NAME=WEIGHT"),
        (("--weights", "AAPL=a"), "--weights: 'a' is not a number"),
        (("--weights", "ORCL=0.5"), "--weights: there is no asset 'ORCL'; there are IBM, AAPL, MSFT"),
        (("--weights", "IBM=0.5,IBM=0.2"), "--weights: 'IBM' is given twice"),
        (("--weights", "IBM=0.5", "--over", "tradable"), "--over: it chooses the assets of equal weight"),
        (("--open", "none.csv"), "--open: there is no file 'none.csv'"),
        (("--long",), "FILE: a long table needs a column for an asset, called symbol or asset or ticker"),
    ],
    ids=lambda x: x if isinstance(x, str) else None,
)
def test_bad_options(options, message, wide, tmp_path):
    assert refused("sweep", wide / "close.csv", *options, "--out", tmp_path / "out").startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("time,A\n", "has no rows"),
        ("time;A\n2024-01-01;5\n", "has one column only"),
        ("A,B\n1.5,2\n1.6,2\n", "FILE: the first column must be times, as 2020-12-31; 'A' holds 1.5"),
        ("time,A\n09:00,5\n", "FILE: the column 'time' holds '09:00', which is not a time"),
        ("time,A\nyesterday,5\n", "FILE: the column 'time' holds 'yesterday', which is not a time"),
        ("time,A\n2024-01-01,5\nbad,6\n", "FILE: the column 'time' holds 'bad', which is not a time"),
        (
            "time,A\n03/04/2024,5\n",
            "FILE: '03/04/2024' may be day or month first; write times as in 2020-12-31",
        ),
        ("time,A\n2024-01-01,5\n2024-01-02,n/b\n", "FILE: the column 'A' holds 'n/b' at 2024-01-02"),
        ("time,A,A\n2024-01-01,5,6\n", "has two columns 'A'"),
        ("time,A\n2024-01-01,5,6\n", "cannot be read"),
        ("time,A\n2024-01-02,5\n2024-01-01,6\n", "FILE: the time index is not sorted"),
        ("time,A\n2024-01-01,5\n2024-01-01,6\n", "FILE: the time index repeats"),
        (
            "time,A\n2024-01-01,5\n2024-01-02,-6\n",
            "FILE: prices must be positive and finite; 'A' at 2024-01-02",
        ),
        (
            "time,A\n2024-01-01,5\n2024-01-02,inf\n",
            "FILE: prices must be positive and finite; 'A' at 2024-01-02",
        ),
        ("time,A,B\n2024-01-01,5,\n2024-01-02,6,\n", "FILE: the column 'B' has no price at all"),
        ("time,A\n2024-01-01,5\n2024-01-05,6\n2024-01-17,6\n", "--bars-per-year: the times do not tell"),
        ("time,A\n2024-01-01,5\n,6\n", "FILE: the time index has missing labels"),
        ("date,symbol,close\n2024-01-01,A,5\n2024-01-01,A,6\n", "FILE: 'A' has two rows at 2024-01-01"),
        ("date,symbol,close\n2024-01-01,A,5\n2024-01-02,,6\n", "FILE: row 2 lacks a time or an asset"),
        ("date,symbol,close\n2024-01-01,A,5\n2024-01-02,A,six\n", "FILE: the column 'close' holds 'six' at"),
        ("date,time,symbol,close\n2024-01-01,09:00,A,5\n", "FILE: both 'date' and 'time' could be the time"),
    ],
    ids=lambda x: x,
)
def test_bad_files(text, message, tmp_path):
    (tmp_path / "p.csv").write_text(text)
    line = refused("sweep", tmp_path / "p.csv", "--out", tmp_path / "out")
    assert line.startswith("FILE: " if not message.startswith("--") else message) and message in line


def test_unreadable_files(tmp_path, wide, market):
    assert refused("sweep", tmp_path / "p.csv") == f"FILE: there is no file {str(tmp_path / 'p.csv')!r}"
    assert "is neither .csv, .csv.gz nor .parquet" in refused("sweep", tmp_path / "p.xlsx")
    for name in ("p.parquet", "p.csv.gz"):
        (tmp_path / name).write_bytes(b"\x00\xff\x00 no such format")
        assert "cannot be read" in refused("sweep", tmp_path / name)
    market[1].iloc[1:].to_csv(tmp_path / "open.csv")
    line = refused("sweep", wide / "close.csv", "--open", tmp_path / "open.csv", "--out", tmp_path / "out")
    assert line == "--open: its time index is not that of close; it lacks 2024-03-01 00:00:00"
    (tmp_path / "taken").write_text("")
    assert refused("sweep", wide / "close.csv", "--out", tmp_path / "taken").startswith("--out: the folder ")


def test_report_of_no_run(tmp_path):
    assert refused("report", tmp_path).startswith("DIR: ")
    (tmp_path / "settings.json").write_text(json.dumps({"best": 0}))
    assert "cannot be read" in refused("report", tmp_path)


# --- numbers and times


def test_ranges_have_clean_labels():
    labels = ranges.numbers("0.01:0.15:0.01", "--threshold")
    assert labels == (np.arange(1, 16) / 100).tolist()
    assert [repr(x) for x in labels[:3]] == ["0.01", "0.02", "0.03"]
    assert ranges.numbers("1:2:0.3", "--threshold") == [1.0, 1.3, 1.6, 1.9]
    assert ranges.numbers("0.1:0.3:0.1", "--threshold") == [0.1, 0.2, 0.3]
    assert ranges.numbers("0.5:0.5:1", "--threshold") == [0.5]
    assert ranges.numbers("-0.001:0.001:1e-3", "--fees") == [-0.001, 0.0, 0.001]
    assert ranges.numbers(" 0.05 , 0.1:0.2:0.1", "--threshold") == [0.05, 0.1, 0.2]
    for text in ("2:1:0.1", "1:2:-0.1", "1:2:0:1", ":1:0.1", "0:inf:1"):
        with pytest.raises(Complaint, match=r"^--fees: "):
            ranges.numbers(text, "--fees")


def read_index(tmp_path: Path, *times: str) -> pd.Index:
    (tmp_path / "t.csv").write_text("time,A\n" + "".join(f"{t},1\n" for t in times))
    return prices.read_closes(tmp_path / "t.csv", None)[0].index


def test_times_keep_their_offset(tmp_path):
    index = read_index(tmp_path, "2024-01-01 00:00:00+02:00", "2024-01-01 01:00:00+02:00")
    assert index[0].utcoffset() == pd.Timedelta("2h") and index.name == "time"
    assert index[0] == pd.Timestamp("2023-12-31 22:00", tz="UTC")
    change = read_index(tmp_path, "2024-03-31 01:00:00+01:00", "2024-03-31 03:00:00+02:00")
    assert str(change.tz) == "UTC" and change[1] - change[0] == pd.Timedelta("1h")
    assert read_index(tmp_path, "2024-01-01", "2024-01-02 12:00").tz is None
    assert read_index(tmp_path, "1 March 2024", "2 March 2024")[0] == pd.Timestamp("2024-03-01")


def test_tickers_are_names(tmp_path):
    (tmp_path / "t.csv").write_text("date,Ticker,close\n2024-01-01,000002,5\n2024-01-01,000001,6\n")
    assert prices.read_closes(tmp_path / "t.csv", None)[0].columns.tolist() == ["000002", "000001"]


def test_prices_are_the_nearest_doubles(tmp_path):
    texts = ["0.1", "123.45678901234567", "1e-7", "9007199254740.993"]
    (tmp_path / "t.csv").write_text("\ufeffdate,A\n" + "".join(f"2024-01-0{i + 1},{x}\n" for i, x in enumerate(texts)))
    close, opens = prices.read_closes(tmp_path / "t.csv", None)
    assert close["A"].tolist() == [float(x) for x in texts] and opens is None and close.index.name == "date"
