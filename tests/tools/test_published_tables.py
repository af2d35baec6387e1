"""The command that compares the published tables with prices fetched now, against a server on this machine."""

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.archive_server import candles, serving
from tools.outside_data import SYMBOLS, VARIABLE
from tools.published_tables import THRESHOLDS, main, sharpe_of_random, sharpe_of_uniform

pytest.importorskip("pooch")


@pytest.fixture
def january():
    """A server of January 2020, and its prices by symbol."""
    moves = np.random.default_rng(0).normal(0, 0.01, (31 * 24, 5, 5)).cumsum(axis=0)
    with serving() as server:
        tables = {}
        for number, symbol in enumerate(SYMBOLS):
            table = candles("2020-01-01", "2020-01-31", 0)
            table.iloc[:] = np.exp(moves[:, number]).round(8)
            server.put(symbol, "2020-01", table)
            tables[symbol] = table
        yield server.url, tables


def frame(tables: dict[str, pd.DataFrame], field: str) -> pd.DataFrame:
    return pd.DataFrame({symbol: table[field] for symbol, table in tables.items()})


def figures(text: str) -> list[list[float]]:
    """The rows of numbers in a printed table."""
    rows = [line.split() for line in text.splitlines() if line.startswith("0.")]
    return [[np.nan if x == "-" else float(x) for x in row] for row in rows]


def run(url: str, tmp_path, *more: str) -> int:
    return main(["--end", "2020-01-31", "--cache", str(tmp_path), "--base-url", url, *more])


def test_fetched_beside_published(january, tmp_path, monkeypatch, capsys):
    url, tables = january
    golden = tmp_path / "outside" / "golden"
    golden.mkdir(parents=True)
    for number, name in enumerate(("uniform", "random")):
        table = pd.DataFrame({"threshold": THRESHOLDS, "sharpe_ratio": 1.25 + number})
        table.to_csv(golden / f"{name}_sharpe.csv", index=False)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "outside"))
    assert run(url, tmp_path) == 0
    printed = figures(capsys.readouterr().out)
    open_, close = frame(tables, "open"), frame(tables, "close")
    for number, sharpe in enumerate((sharpe_of_uniform, sharpe_of_random)):
        ours, rows = sharpe(open_, close).round(6), np.array(printed[15 * number :][:15])
        np.testing.assert_allclose(rows[:, 0], THRESHOLDS)
        assert (rows[:, 1] == 1.25 + number).all()
        np.testing.assert_allclose(rows[:, 2], ours, atol=1e-12)
        np.testing.assert_allclose(rows[:, 3], ours - 1.25 - number, atol=1e-9)
    one = js.backtest(close, al.EqualWeight(), open=open_, trigger=js.Threshold(0.05), fees=0.005, freq="1h")
    assert printed[4][2] == pytest.approx(one.sharpe_ratio(), abs=1e-6)


def test_without_the_published_figures(january, tmp_path, monkeypatch, capsys):
    url, _ = january
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    assert run(url, tmp_path) == 0
    told = capsys.readouterr().out
    assert told.count("The published figures are not here") == 2
    assert all(len(row) == 4 and np.isnan([row[1], row[3]]).all() for row in figures(told))


def test_without_network_or_data_it_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    assert run("http://nowhere.invalid", tmp_path) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert told.err.startswith("base_url: http://nowhere.invalid could not be reached")
    assert main(["--data"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and VARIABLE in told.err
