"""Tables of statistics against those of vectorbt 1.2.0."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxsim import metrics
from jaxsim.frames.results.records.record_tables import LaneRecords
from jaxsim.frames.results.records.trades import exit_trades, portfolio_rows
from jaxsim.frames.results.stats import portfolio_stats_table, returns_stats_table

DAY = pd.Timedelta("1D")
ANN_FACTOR = 252.0
TIMES = pd.date_range("2020-01-01", periods=60, freq="D")
ZERO_DENOMINATORS = ("Sharpe Ratio", "Omega Ratio", "Sortino Ratio", "Tail Ratio", "Common Sense Ratio")
LANES = pd.Index(["a", "b", "rises", "falls", "holes", "ruin", "flat"], name="lane")


def random_frame(seed: int, scale: float = 0.02) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).normal(0, scale, (60, 7)), index=TIMES, columns=LANES)


def without_bars(table: pd.DataFrame) -> list[str]:
    return [title for title in table.columns if not title.endswith(" [bars]")]


def assert_tables(ours: pd.DataFrame, theirs: pd.DataFrame):
    assert without_bars(ours) == [title for title in theirs.columns if title in ours.columns]
    assert ours.index.equals(theirs.index)
    for title in without_bars(ours):
        left, right = ours[title], theirs[title]
        if f"{title} [bars]" in ours:  # theirs are bars times freq
            right = pd.to_timedelta(pd.Series(list(right))) / DAY
            np.testing.assert_allclose(ours[f"{title} [bars]"].astype(float), right, atol=1e-9, err_msg=title)
        elif title in ("Start", "End"):
            assert [pd.isna(x) or x for x in left] == [pd.isna(x) or x for x in right], title
        else:
            right = right.astype(float)
            if title in ZERO_DENOMINATORS:  # vectorbt is infinite there, see tests.peers.differences
                right = right.mask(left.isna() & ~np.isfinite(right))
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12, err_msg=title)


@pytest.fixture(scope="module")
def vbt():
    return pytest.importorskip("vectorbt")


def test_returns_stats_as_vectorbt(vbt):
    returns, benchmark = random_frame(1), random_frame(2)
    returns["rises"], returns["falls"], returns["flat"] = returns["rises"].abs(), -returns["falls"].abs(), 0.0
    returns.loc[TIMES[[0, 7, 59]], "holes"] = np.nan
    returns.loc[TIMES[20], "ruin"] = -1.0
    accessor = returns.vbt.returns(benchmark_rets=benchmark, freq="D", year_freq="252D")
    theirs = pd.DataFrame({lane: accessor.stats(column=lane) for lane in LANES}).T.rename_axis("lane")
    ours = returns_stats_table(returns, benchmark, DAY, ANN_FACTOR)
    assert without_bars(ours) == list(theirs.columns)
    assert ours.loc["ruin", ["Sharpe Ratio", "Sortino Ratio", "Omega Ratio"]].isna().all()  # rules 7.19
    assert_tables(ours.drop(index="ruin"), theirs.drop(index="ruin"))


def test_portfolio_stats_as_vectorbt(vbt):
    close = 100 * (1 + random_frame(3)).cumprod()
    close["rises"], close["flat"] = np.linspace(100, 180, 60), 100.0
    sizes = np.random.default_rng(4).choice([np.nan, np.nan, 0.5, 1.0, 0.0, -0.5], (60, 7))
    sizes = pd.DataFrame(sizes, index=TIMES, columns=LANES)
    sizes[["rises", "falls"]] = np.nan
    sizes.loc[TIMES[0], ["rises", "falls"]] = 1.0
    folio = vbt.Portfolio.from_orders(close, sizes, size_type="targetpercent", fees=0.001, freq="D", init_cash=50.0)
    settings = dict(year_freq="252D")
    theirs = pd.DataFrame({lane: folio.stats(column=lane, settings=settings) for lane in LANES}).T
    trades = exit_trades(folio.orders.values, close.to_numpy())
    given = (
        folio.value(),
        folio.returns(),
        folio.benchmark_returns(),
        folio.gross_exposure(),
        folio.orders.fees.sum(),
        pd.Series(50.0, index=LANES),
        DAY,
        ANN_FACTOR,
    )
    ours = portfolio_stats_table(*given, portfolio_rows(LaneRecords(trades, trades["col"], LANES, TIMES, DAY)))
    assert without_bars(ours) == list(theirs.columns)
    assert_tables(ours, theirs.rename_axis("lane"))
    without = portfolio_stats_table(*given)
    assert without_bars(without) == [*theirs.columns[:11], *theirs.columns[-4:]]
    pd.testing.assert_frame_equal(without, ours[without.columns])


def drawdown_of(values: list[float], period: pd.Timedelta | None = None) -> tuple:
    path = pd.DataFrame({"a": np.array(values, dtype=float)})
    lanes = pd.Series([100.0], index=path.columns)
    table = portfolio_stats_table(path, path * 0, path * 0, path * 0, lanes, lanes, period, ANN_FACTOR)
    return table["Max Drawdown [%]"].iloc[0], table["Max Drawdown Duration"].iloc[0]


@pytest.mark.parametrize(
    ("values", "depth", "bars"),
    [
        ([100, 101, 101, 102], np.nan, np.nan),
        ([90, 95], np.nan, np.nan),  # a loss on the first bar is none: the path starts there
        ([100, 90, 100], 10.0, 1),  # recovered at the second bar after the peak
        ([100, 90, 100, 80], 20.0, 1),
        ([100, 100, 90, 95], 10.0, 2),  # active at the end, which counts in full
        ([100, 99, 98, 99, 101, 50.5, 101], 50.0, 3),  # the longest is not the deepest
    ],
)
def test_drawdowns(values, depth, bars):
    np.testing.assert_allclose(drawdown_of(values), (depth, bars), rtol=1e-12)
    duration = drawdown_of(values, pd.Timedelta("1h"))[1]
    assert pd.isna(duration) if np.isnan(bars) else duration == bars * pd.Timedelta("1h")


def test_periods_are_calendar_time_where_there_are_dates():
    """Sixty bars on weekdays, from Wednesday, 2020-01-01, to Tuesday, 2020-03-24: 83 days later."""
    weekdays = pd.bdate_range("2020-01-01", periods=60)
    frames = [random_frame(seed).set_axis(weekdays) for seed in (1, 2)]
    for length in (None, DAY):
        table = returns_stats_table(*frames, length, ANN_FACTOR)
        assert (table["Period"] == pd.Timedelta("83D")).all() and (table["Period [bars]"] == 60).all()
        assert table["Start"].iloc[0] == weekdays[0] and table["End"].iloc[0] == weekdays[-1]
    numbered = [frame.reset_index(drop=True) for frame in frames]
    assert (returns_stats_table(*numbered, None, ANN_FACTOR)["Period"] == 60).all()
    assert (returns_stats_table(*numbered, DAY, ANN_FACTOR)["Period"] == pd.Timedelta("60D")).all()


@pytest.mark.parametrize(
    ("values", "calendar", "bars"),
    [
        ([100, 90, 95, 101, 102], "4D", 2),  # from Friday, the bar after the peak, to its recovery on Tuesday
        ([100, 101, 95, 94, 96], "2D", 3),  # open: from Monday to the last bar, on Wednesday
        ([100, 101, 102, 103, 104], None, np.nan),
    ],
)
def test_a_drawdown_lasts_from_date_to_date(values, calendar, bars):
    path = pd.DataFrame(
        {"a": values}, pd.DatetimeIndex(["2024-01-04", "2024-01-05", "2024-01-08", "2024-01-09", "2024-01-10"])
    )
    path = path.astype(float)
    lanes = pd.Series([100.0], index=path.columns)
    row = portfolio_stats_table(path, path * 0, path * 0, path * 0, lanes, lanes, DAY, ANN_FACTOR).iloc[0]
    assert row["Period"] == pd.Timedelta("6D") and row["Period [bars]"] == 5
    np.testing.assert_equal(float(row["Max Drawdown Duration [bars]"]), bars)
    assert (
        row["Max Drawdown Duration"] is pd.NaT
        if calendar is None
        else row["Max Drawdown Duration"] == pd.Timedelta(calendar)
    )


def test_labels_must_agree():
    frame = random_frame(1)
    lanes = pd.Series(1.0, index=LANES)
    with pytest.raises(ValueError, match="benchmark_returns: index and columns"):
        returns_stats_table(frame, frame.rename(columns={"a": "z"}), DAY, ANN_FACTOR)
    with pytest.raises(ValueError, match="gross_exposure: index and columns"):
        portfolio_stats_table(frame, frame, frame, frame[1:], lanes, lanes, DAY, ANN_FACTOR)
    with pytest.raises(ValueError, match="init_cash: the lanes"):
        portfolio_stats_table(frame, frame, frame, frame, lanes, lanes[::-1], DAY, ANN_FACTOR)


def test_tables_are_pure_functions_of_arrays():
    """`jaxsim.metrics.portfolio_stats` and `returns_stats` under jit, vmap and grad give what NumPy gives."""
    rng = np.random.default_rng(4)
    returns, benchmark = rng.normal(0.001, 0.02, (2, 60, 3))
    value = 100 * np.cumprod(1 + returns, axis=0)
    given = {"gross_exposure": np.ones((60, 3)), "total_fees": np.ones(3), "init_cash": np.full(3, 100.0)}
    plain = metrics.portfolio_stats(value, returns, benchmark, **given, ann_factor=252)
    of_returns = metrics.returns_stats(returns, benchmark, ann_factor=252)
    with jax.enable_x64(True):
        traced = jax.jit(lambda v, r, b: metrics.portfolio_stats(v, r, b, **given, ann_factor=252))(
            *map(jnp.asarray, (value, returns, benchmark))
        )
        by_lane = jax.vmap(lambda r, b: metrics.returns_stats(r, b, ann_factor=252), (1, 1))(
            jnp.asarray(returns), jnp.asarray(benchmark)
        )
        slope = jax.grad(
            lambda r: metrics.returns_stats(r, jnp.asarray(benchmark[:, 0]), ann_factor=252)["Sharpe Ratio"]
        )(jnp.asarray(returns[:, 0]))
    for ours, theirs in ((traced, plain), (by_lane, of_returns)):
        assert set(ours) == set(theirs)
        for title in theirs:
            np.testing.assert_allclose(ours[title], theirs[title], rtol=1e-9, err_msg=title)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
