"""Trades, positions, drawdowns and the tables of records: against vectorbt 1.2.0, by hand, and as results."""

import pickle

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.frames.results.records.drawdowns import DRAWDOWN_DTYPE, DrawdownTable, drawdowns
from jaxsim.frames.results.records.orders import ORDER_DTYPE, OrderTable
from jaxsim.frames.results.records.record_tables import LaneRecords, RecordTable
from jaxsim.frames.results.records.trades import (
    TRADE_DTYPE,
    TradeDirection,
    TradeStatus,
    TradeTable,
    entry_trades,
    exit_trades,
    positions,
)
from tests.helpers.markets import BARS, INDEX, THRESHOLDS, grouped, prices, run

COLUMNS = 7
KINDS = ["orders", "entry_trades", "exit_trades", "positions", "drawdowns"]
TRADE_COLUMNS = [
    *("size", "entry_timestamp", "entry_price", "entry_fees", "exit_timestamp", "exit_price", "exit_fees"),
    *("pnl", "return", "direction", "status"),
]


@pytest.fixture(scope="module")
def vbt():
    return pytest.importorskip("vectorbt")


def random_portfolio(vbt, seed: int):
    """A vectorbt portfolio of random orders in up to three groups: long, short and reversing, with and without costs,
    with exact closes, a column that is never traded and one that is first traded at the last bar."""
    rng = np.random.default_rng(seed)
    shape = (BARS, COLUMNS)
    close = 100 * np.exp(rng.normal(0, 0.05, shape).cumsum(axis=0))
    size_type = ["amount", "targetamount", "targetpercent"][seed % 3]
    size = rng.normal(0, rng.choice([1e-6, 1, 3, 1e4]), shape)
    if size_type == "targetpercent":
        size = rng.choice([0, 0.1, 0.2, 0.3, -0.1, -0.2], shape)
    elif rng.random() < 0.7:
        size = np.round(size)
    if size_type == "targetamount":
        size[rng.random(shape) < 0.3] = 0
    size[rng.random(shape) < rng.choice([0.1, 0.5, 0.9])] = np.nan
    size[:, 2], size[:-1, 3] = np.nan, np.nan
    return vbt.Portfolio.from_orders(
        pd.DataFrame(close, INDEX),
        pd.DataFrame(size, INDEX),
        size_type=size_type,
        direction=rng.choice(["both", "longonly", "shortonly"], p=[0.6, 0.2, 0.2]),
        fees=rng.choice([0, 0.01, -0.001]),
        fixed_fees=rng.choice([0, 0.5]),
        slippage=rng.choice([0, 0.01]),
        init_cash=rng.choice([100, 1e4, 1e6]),
        call_seq=rng.choice(["default", "reversed", "auto"]),
        group_by=pd.Index(np.sort(rng.integers(0, 3, COLUMNS)), name="group"),
        cash_sharing=True,
        freq="D",
    )


def assert_records(ours: np.ndarray, theirs: np.ndarray, floor: float = 0.0) -> None:
    assert len(ours) == len(theirs)
    assert ours.dtype.names == theirs.dtype.names
    for name in ours.dtype.names:
        if ours.dtype[name].kind == "i":
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
        else:
            # a gain is the difference of two amounts, and no more exact than they are
            scale = {"pnl": theirs["size"] * theirs["entry_price"], "return": 1.0} if name in ("pnl", "return") else {}
            error = np.abs(ours[name] - theirs[name])
            assert (error <= 1e-9 * np.maximum(np.abs(theirs[name]), scale.get(name, 0)) + floor).all(), name


def group_tables(portfolio) -> dict[str, RecordTable]:
    """Our tables of a vectorbt portfolio's orders, one lane per group."""
    group = np.asarray(portfolio.wrapper.grouper.get_groups())
    lanes = pd.Index(portfolio.wrapper.get_columns(), name="group")
    close, orders = portfolio.close.to_numpy(), portfolio.orders.values

    def source(records: np.ndarray, lane: np.ndarray) -> LaneRecords:
        return LaneRecords(records, lane, lanes, portfolio.wrapper.index, portfolio.wrapper.freq)

    by_lane = orders[np.argsort(group[orders["col"]], kind="stable")]
    of_policy = np.zeros(len(by_lane), np.int64)
    tables = {"orders": OrderTable(source(by_lane, group[by_lane["col"]]), pd.Index(by_lane["col"]), of_policy)}
    exits = exit_trades(orders, close)
    for name, x in (
        ("entry_trades", entry_trades(orders, close)),
        ("exit_trades", exits),
        ("positions", positions(exits)),
    ):
        of_lane = source(x, group[x["col"]])
        tables[name] = TradeTable(of_lane, pd.Index(x["col"]), with_position=name != "positions")
    down = drawdowns(portfolio.value().to_numpy().reshape(BARS, -1))
    return tables | {"drawdowns": DrawdownTable(source(down, down["col"]))}


# --- against vectorbt


@pytest.mark.parametrize("seed", range(24))
def test_records_as_vectorbt(vbt, seed):
    theirs = random_portfolio(vbt, seed)
    orders, close = theirs.orders.values, theirs.close.to_numpy()
    exits, entries = exit_trades(orders, close), entry_trades(orders, close)
    assert_records(exits, theirs.exit_trades.values)
    assert_records(entries, theirs.entry_trades.values)
    assert_records(positions(exits), theirs.positions.values)
    assert_records(positions(entries), theirs.positions.values)
    assert_records(drawdowns(theirs.value().to_numpy().reshape(BARS, -1)), theirs.drawdowns.values)


@pytest.mark.parametrize("seed", range(6))
def test_stats_as_vectorbt(vbt, seed):
    """Every statistic of every group, as vectorbt gives it for that group alone; without a bar length too."""
    portfolio = random_portfolio(vbt, seed)
    if seed % 3 == 1:
        portfolio = portfolio.replace(wrapper=portfolio.wrapper.replace(freq=None))
    for name, table in group_tables(portfolio).items():
        ours, theirs = table.stats(), getattr(portfolio, name)
        for group in ours.index:
            row = theirs.stats(column=group) if len(ours) > 1 else theirs.stats()
            assert [title for title in ours.columns if not title.endswith(" [bars]")] == list(row.index)
            assert_rows(ours.loc[group], row, name)


def assert_rows(ours: pd.Series, theirs: pd.Series, what: str) -> None:
    for title, expected in theirs.items():
        value, where = ours[title], f"{what}: {title}"
        if f"{title} [bars]" in ours:  # theirs are bars times freq
            value = ours[f"{title} [bars]"]
            expected = expected / pd.Timedelta("1D") if isinstance(expected, pd.Timedelta) else expected
        if pd.isna(expected):
            assert pd.isna(value), where
        elif isinstance(expected, pd.Timestamp):
            assert value == expected, where
        else:
            assert float(value) == pytest.approx(float(expected), rel=1e-9, abs=1e-10), where


@pytest.mark.parametrize("seed", range(4))
def test_scores_as_vectorbt(vbt, seed):
    portfolio = random_portfolio(vbt, seed)
    for name in ("entry_trades", "exit_trades", "positions"):
        ours, theirs = group_tables(portfolio)[name], getattr(portfolio, name)
        for score in ("win_rate", "profit_factor", "expectancy", "sqn"):
            for mine, other in (
                (getattr(ours, score)(), getattr(theirs.closed, score)()),
                (getattr(ours, score)(incl_open=True), getattr(theirs, score)()),
            ):
                assert mine.name == score
                np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("exponent", [-13, -11, -10, -9, -8, -7])
def test_what_counts_as_closed_as_vectorbt(vbt, exponent):
    """Sales of a little more or less than is held, about where rules 1.3 says that they are the same."""
    rng = np.random.default_rng(-exponent)
    size = np.full((BARS, COLUMNS), np.nan)
    size[1::3] = rng.uniform(1, 9, size[1::3].shape)
    off = rng.choice([-1, 1], size[2::3].shape) * rng.uniform(0.5, 2, size[2::3].shape) * 10.0**exponent
    size[2::3] = -size[1::3] * (1 + off)
    close = np.full(size.shape, 10.0)
    theirs = vbt.Portfolio.from_orders(pd.DataFrame(close), pd.DataFrame(size), init_cash=1e6, min_size=0)
    # what is left of a sale that is a little off is exact to a rounding of the sale, not of itself
    exits = exit_trades(theirs.orders.values, close)
    assert_records(exits, theirs.exit_trades.values, floor=1e-14)
    assert_records(entry_trades(theirs.orders.values, close), theirs.entry_trades.values, floor=1e-14)
    assert (len(exits) == COLUMNS * BARS // 3) == (exponent < -9)


def test_drawdowns_pass_over_bars_without_a_value_as_vectorbt(vbt):
    rng = np.random.default_rng(1)
    value = rng.integers(4, 9, (14, 300)).astype(float)
    value[rng.random(value.shape) < 0.3] = np.nan
    value[:, 5] = np.nan
    assert_records(drawdowns(value), pd.DataFrame(value).vbt.drawdowns.values)


def test_stats_of_a_backtest_as_vectorbt(vbt, groups):
    """All rows of `stats()`, and of the tables, for the orders of a run of three thresholds and two groups."""
    bt, close = groups, grouped(1)[0]
    columns, records = bt.asset_value.columns, bt.records
    size, paid = np.full((BARS, len(columns)), np.nan), np.zeros((BARS, len(columns)))
    at = records["idx"], records["col"]
    size[at] = np.where(records["side"] == 0, records["size"], -records["size"])
    paid[at] = records["fees"]
    number, labels = pd.factorize(columns.droplevel("symbol"))
    theirs = vbt.Portfolio.from_orders(
        pd.DataFrame(close.to_numpy()[:, np.tile(range(5), 3)], INDEX, columns),
        pd.DataFrame(size, INDEX, columns),
        fixed_fees=paid,
        call_seq="auto",
        group_by=pd.Index(number),
        cash_sharing=True,
        freq="D",
    )
    assert list(labels) == list(bt.lanes)
    assert theirs.orders.count().sum() == len(records)
    for i, lane in enumerate(bt.lanes):
        assert_rows(bt.stats().loc[lane], theirs.stats(column=i, settings=dict(year_freq="365D")), "bt")
        for kind in KINDS:
            assert_rows(getattr(bt, kind).stats().loc[lane], getattr(theirs, kind).stats(column=i), kind)


def test_short_positions_of_a_backtest_as_vectorbt(vbt):
    close, _ = prices(0)
    size = pd.DataFrame(np.random.default_rng(0).integers(-3, 3, close.shape), INDEX, close.columns)
    costs = dict(fees=0.01, fixed_fees=0.1, init_cash=1e4)
    bt = js.backtest(close, size=size, size_type="amount", **costs, engine="reference")
    theirs = vbt.Portfolio.from_orders(close, size, **costs, cash_sharing=True, group_by=True)
    assert set(bt.trades["direction"]) == {"Long", "Short"}
    for kind in ("entry_trades", "exit_trades", "positions", "drawdowns"):
        assert_records(getattr(bt, kind).records, getattr(theirs, kind).values)
    assert bt.trades["pnl"].sum() == pytest.approx(bt.value.iloc[-1] - 1e4)


# --- by hand


def orders_of(*rows: tuple) -> np.ndarray:
    """(col, idx, signed size, price, fees) each."""
    out = np.zeros(len(rows), ORDER_DTYPE)
    for i, (col, idx, size, price, fees) in enumerate(rows):
        out[i] = (i, col, idx, abs(size), price, fees, size < 0)
    return out


def test_average_cost_and_a_reversal_by_hand():
    orders = orders_of(
        (0, 0, 2, 10, 0.30),
        (0, 1, 3, 11, 0.43),
        (0, 2, -1, 12, 0.22),
        (0, 3, -6, 13, 0.90),  # closes four, and opens two short: a third of the fees
        (0, 4, 1, 11, 0.20),
    )
    x = exit_trades(orders, np.array([[10.0], [11], [12], [13], [11], [12]]))
    np.testing.assert_array_equal(x["size"], [1, 4, 1, 1])
    np.testing.assert_allclose(x["entry_price"], [10.6, 10.6, 13, 13])  # 53 for five
    np.testing.assert_allclose(x["entry_fees"], [0.73 / 5, 0.73 * 4 / 5, 0.15, 0.15])
    np.testing.assert_array_equal(x["exit_price"], [12, 13, 11, 12])
    np.testing.assert_allclose(x["exit_fees"], [0.22, 0.60, 0.20, 0])
    np.testing.assert_allclose(x["pnl"], [1.4 - 0.366, 9.6 - 1.184, 2 - 0.35, 1 - 0.15])
    np.testing.assert_allclose(x["return"], x["pnl"] / (x["size"] * x["entry_price"]))
    np.testing.assert_array_equal(x["entry_idx"], [0, 0, 3, 3])
    np.testing.assert_array_equal(x["exit_idx"], [2, 3, 4, 5])
    np.testing.assert_array_equal(x["direction"], [TradeDirection.LONG] * 2 + [TradeDirection.SHORT] * 2)
    np.testing.assert_array_equal(x["status"], [TradeStatus.CLOSED] * 3 + [TradeStatus.OPEN])
    np.testing.assert_array_equal(x["parent_id"], [0, 0, 1, 1])
    whole = positions(x)
    np.testing.assert_allclose(whole["exit_price"], [(12 + 4 * 13) / 5, 11.5])
    np.testing.assert_array_equal(whole["status"], [TradeStatus.CLOSED, TradeStatus.OPEN])
    entries = entry_trades(orders, np.array([[10.0], [11], [12], [13], [11], [12]]))
    np.testing.assert_array_equal(entries["size"], [2, 3, 2])
    np.testing.assert_allclose(entries["entry_price"], [10, 11, 13])
    np.testing.assert_allclose(entries["exit_fees"], [0.82 * 2 / 5, 0.82 * 3 / 5, 0.20])
    np.testing.assert_allclose(entries["exit_price"], [12.8, 12.8, 11.5])
    np.testing.assert_array_equal(entries["exit_idx"], [3, 3, 5])


def test_several_orders_of_a_column_at_one_bar_keep_their_order():
    """Bought, sold and bought again within one bar; the same orders the other way round go short first."""
    close = np.full((2, 1), 5.0)
    for first in (1, -1):
        rows = [(0, 0, first * 2, 4, 0), (0, 0, -first * 2, 5, 0), (0, 0, first * 3, 5, 0)]
        x = exit_trades(orders_of(*rows), close)
        assert x["size"].tolist() == [2, 3] and x["status"].tolist() == [TradeStatus.CLOSED, TradeStatus.OPEN]
        assert x["pnl"].tolist() == [first * 2, 0] and x["parent_id"].tolist() == [0, 1]
        assert (x["direction"] == (TradeDirection.LONG if first == 1 else TradeDirection.SHORT)).all()


def test_an_open_trade_is_valued_at_the_last_close_there_is():
    """vectorbt takes a missing last close as it is; rules 6.2 fills it, and so does the value."""
    x = exit_trades(orders_of((0, 0, 1, 10, 0), (1, 0, 1, 10, 0)), np.array([[10.0, 10], [12, 11], [np.nan, 12]]))
    assert x["exit_price"].tolist() == [12, 12] and x["exit_idx"].tolist() == [2, 2]


def test_columns_of_the_orders_may_share_prices():
    close = np.array([[10.0, 20], [11, 22]])
    orders = orders_of((0, 0, 1, 10, 0), (1, 0, 1, 20, 0), (2, 0, 1, 20, 0))
    for build in (exit_trades, entry_trades):
        x = build(orders, close, np.array([0, 1, 1]))
        assert x["exit_price"].tolist() == [11, 22, 22] and x["col"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(10))
def test_gains_add_up(seed):
    """The pnl of all trades is what the orders paid in and what is left is worth; every unit is entered and exited."""
    rng = np.random.default_rng(seed)
    orders = np.zeros(400, ORDER_DTYPE)
    orders["idx"], orders["col"] = np.sort(rng.integers(0, BARS, 400)), rng.integers(0, COLUMNS, 400)
    orders["size"], orders["price"] = rng.integers(1, 6, 400), rng.uniform(5, 15, 400)
    orders["side"], orders["fees"] = rng.integers(0, 2, 400), rng.uniform(-0.1, 1, 400)
    close = rng.uniform(5, 15, (BARS, COLUMNS))
    signed = np.where(orders["side"] == 0, orders["size"], -orders["size"])
    paid = np.bincount(orders["col"], -signed * orders["price"] - orders["fees"])
    profit = paid + np.bincount(orders["col"], signed) * close[-1]
    exits, entries = exit_trades(orders, close), entry_trades(orders, close)
    for trades in (exits, entries, positions(exits)):
        np.testing.assert_allclose(np.bincount(trades["col"], trades["pnl"]), profit, rtol=1e-9)
        for name in ("entry_fees", "exit_fees"):
            np.testing.assert_allclose(trades[name].sum(), exits[name].sum(), rtol=1e-9)
        np.testing.assert_array_equal(trades["id"], np.arange(len(trades)))
        assert (trades["size"] > 0).all() and (np.diff(trades["col"]) >= 0).all()
        assert (trades["exit_idx"] >= trades["entry_idx"]).all()
    by_position = [np.bincount(x["parent_id"], x["size"]) for x in (exits, entries)]
    np.testing.assert_allclose(*by_position, rtol=1e-12)
    assert (np.bincount(exits["col"], exits["status"] == TradeStatus.OPEN) <= 1).all()


def test_no_orders_no_trades():
    close = np.ones((5, 3))
    for build in (exit_trades, entry_trades):
        x = build(np.zeros(0, ORDER_DTYPE), close)
        assert x.dtype == TRADE_DTYPE and len(x) == 0 and len(positions(x)) == 0
    assert drawdowns(close).dtype == DRAWDOWN_DTYPE and len(drawdowns(close)) == 0


def test_orders_must_fit_the_closes():
    for row, name in (((3, 0, 1, 1, 0), "col"), ((0, 5, 1, 1, 0), "idx"), ((-1, 0, 1, 1, 0), "col")):
        with pytest.raises(ValueError, match=f"orders: {name} must lie in"):
            exit_trades(orders_of(row), np.ones((5, 3)))


# --- as results


@pytest.fixture(scope="module")
def one():
    close, open_ = prices(0)
    return run(close, al.EqualWeight(), open_, 0.05, fees=0.01, engine="reference")


@pytest.fixture(scope="module")
def groups():
    close, open_ = grouped(1)
    return run(close, al.EqualWeight(), open_, js.grid(threshold=THRESHOLDS), fees=0.01, engine="reference")


@pytest.fixture(scope="module")
def nothing():
    close, open_ = grouped(1)
    options = dict(fees=0.01, min_history=1000, engine="reference")
    return run(close, al.EqualWeight(), open_, js.grid(threshold=THRESHOLDS), **options)


def test_columns(one, groups):
    for bt, levels in ((one, []), (groups, ["threshold", "sector"])):
        front = ["id", *levels, "asset"]
        for table in (bt.entry_trades, bt.exit_trades):
            assert list(table.columns) == [*front, *TRADE_COLUMNS, "position"]
        assert list(bt.positions.columns) == [*front, *TRADE_COLUMNS]
        ends = [f"{x}_timestamp" for x in ("peak", "start", "valley", "end")]
        values = ["peak_value", "valley_value", "end_value", "drawdown", "status"]
        assert list(bt.drawdowns.columns) == ["id", *levels, *ends, *values]
        for kind in KINDS:
            table = getattr(bt, kind)
            assert isinstance(table, RecordTable) and isinstance(table.index, pd.RangeIndex)
            assert len(table) == len(table.records) and table["id"].dtype == np.int64
            for name in table.filter(like="timestamp"):
                assert table[name].dtype == INDEX.dtype
    assert one.trades is one.exit_trades


def test_trades_are_what_their_records_say(groups):
    trades, records = groups.trades, groups.trades.records
    column = groups.asset_value.columns[records["col"]]
    for level, name in (("threshold", "threshold"), ("sector", "sector"), ("symbol", "asset")):
        np.testing.assert_array_equal(column.get_level_values(level), trades[name])
    np.testing.assert_array_equal(INDEX[records["entry_idx"]], trades["entry_timestamp"])
    np.testing.assert_array_equal(INDEX[records["exit_idx"]], trades["exit_timestamp"])
    for name in ("size", "entry_price", "exit_fees", "pnl", "return"):
        np.testing.assert_array_equal(records[name], trades[name])
    assert set(trades["direction"]) == {"Long"} and set(trades["status"]) == {"Open", "Closed"}
    np.testing.assert_array_equal(trades["status"] == "Closed", records["status"] == TradeStatus.CLOSED)
    for _, lane in trades.groupby(["threshold", "sector"], sort=False):
        np.testing.assert_array_equal(lane["id"], np.arange(len(lane)))
    parent = groups.positions.set_index(["threshold", "sector", "id"])
    of_trade = parent.loc[list(trades[["threshold", "sector", "position"]].itertuples(index=False, name=None))]
    np.testing.assert_array_equal(of_trade["asset"], trades["asset"])
    profit = trades.groupby(["threshold", "sector"], sort=False)["pnl"].sum()
    np.testing.assert_allclose(profit, groups.value.iloc[-1] - 100, rtol=1e-9)


def test_drawdowns_are_what_the_value_says(groups):
    for lane, table in groups.drawdowns.groupby(["threshold", "sector"], sort=False):
        value = groups.value[lane]
        for point in ("peak", "valley", "end"):
            np.testing.assert_array_equal(table[f"{point}_value"], value[table[f"{point}_timestamp"]])
        assert table["drawdown"].min() == pytest.approx((value / value.cummax() - 1).min(), rel=1e-12)
        assert (table["status"] == "Active").iloc[:-1].sum() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_lane_has_the_same_records_alone(groups, kind):
    every = getattr(groups, kind)
    for lane in groups.lanes:
        alone = getattr(groups[lane], kind)
        part = every[(every["threshold"] == lane[0]) & (every["sector"] == lane[1])]
        assert type(part) is pd.DataFrame
        expected = part.drop(columns=["threshold", "sector"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(pd.DataFrame(alone), expected)
        assert alone.counts() == every.counts()[lane] == len(part)
        pd.testing.assert_series_equal(
            alone.stats(), every.stats().loc[lane], check_names=False, check_dtype=False, rtol=1e-12
        )
    by_threshold = getattr(groups[0.05], kind)
    assert "threshold" not in by_threshold and list(by_threshold.stats().index) == ["tech", "bank"]


def test_one_lane_gives_numbers(one):
    assert type(one.trades.counts()) is int
    for score in ("win_rate", "profit_factor", "expectancy", "sqn"):
        assert type(getattr(one.trades, score)()) is float
    assert isinstance(one.trades.stats(), pd.Series) and one.trades.stats().name is None
    assert one.trades.stats()["Win Rate [%]"] == pytest.approx(100 * one.trades.win_rate())
    assert one.stats()["Total Trades"] == one.trades.counts() == len(one.trades)


def test_stats_say_durations_where_a_bar_has_a_length(one):
    """Where there are dates, from label to label, whatever the length of a bar."""
    stats, table = one.drawdowns.stats(), one.drawdowns
    recovered = table[table["status"] == "Recovered"]
    longest = (recovered["end_timestamp"] - recovered["start_timestamp"]).max()
    assert stats["Max Drawdown Duration"] == longest == one.drawdowns.stats(freq="2h")["Max Drawdown Duration"]
    assert stats["Max Drawdown Duration [bars]"] == longest / pd.Timedelta("1D")
    with pytest.raises(ValueError, match="freq: 'fortnight' is no duration"):
        one.drawdowns.stats(freq="fortnight")
    close, _ = prices(0)
    some = np.arange(BARS) != 3
    uneven = run(close[some], al.EqualWeight(), fees=0.01, engine="reference")
    stats = uneven.trades.stats()
    assert stats["Coverage [bars]"] == BARS - 2 and stats["Period [bars]"] == BARS - 1
    entry = uneven.trades["entry_timestamp"].min()
    assert stats["Coverage"] == INDEX[-1] - entry and stats["Period"] == INDEX[-1] - INDEX[0]
    closed = uneven.trades[uneven.trades["status"] == "Closed"]
    lasted = (closed["exit_timestamp"] - closed["entry_timestamp"])[closed["pnl"] > 0].mean()
    assert abs(uneven.trades.stats()["Avg Winning Trade Duration"] - lasted) <= pd.Timedelta("1us")
    numbered = run(close.reset_index(drop=True), al.EqualWeight(), fees=0.01, engine="reference")
    assert numbered.trades.stats()["Period"] == BARS
    assert numbered.trades.stats(freq="2h")["Period"] == BARS * pd.Timedelta("2h")


def test_tables_without_a_record(nothing):
    alone = nothing[0.05, "tech"]
    for kind in KINDS:
        table = getattr(nothing, kind)
        assert len(table) == 0 and list(table.columns) == list(getattr(nothing[[0.05]], kind).columns)
        assert (table.counts() == 0).all() and getattr(alone, kind).counts() == 0
        assert (table.stats()["Total Records"] == 0).all()
        assert getattr(alone, kind).stats()["Total Records"] == 0
    assert nothing.trades.win_rate().isna().all() and np.isnan(alone.trades.profit_factor())
    stats = nothing.stats()
    assert (stats["Total Trades"] == 0).all() and stats["Win Rate [%]"].isna().all()
    assert (stats["Open Trade PnL"] == 0).all() and stats["Avg Winning Trade Duration"].isna().all()


def test_a_lane_without_records_beside_one_that_has_some():
    close, _ = prices(0)
    close.loc[INDEX[:-1], ["A", "B"]] = np.nan  # a first price at the last bar: nothing to size an order at
    bt = js.backtest(close, al.EqualWeight(), groups={"A": "x", "B": "x", "C": "y"}, engine="reference")
    assert bt.trades.counts().to_dict() == {"x": 0, "y": 1}
    stats = bt.trades.stats()
    assert pd.isna(stats.loc["x", "First Trade Start"]) and stats.loc["y", "First Trade Start"] == INDEX[1]


def test_a_level_may_be_called_as_a_column():
    close, open_ = prices(0)
    bt = run(close, al.EqualWeight(), open_, fees=js.grid(size=[0.0, 0.01]), engine="reference")
    assert list(bt.trades.columns[:4]) == ["id", "size", "asset", "size"]
    assert set(bt.trades.iloc[:, 1]) == {0.0, 0.01}


def test_tables_are_dataframes(one):
    trades = one.trades
    for plain in (trades[trades["pnl"] > 0], trades[["pnl"]], trades.copy(), trades.head()):
        assert type(plain) is pd.DataFrame
    again = pickle.loads(pickle.dumps(trades))
    pd.testing.assert_frame_equal(again, trades)
    assert again.win_rate() == trades.win_rate()
    with pytest.raises(ValueError, match="read-only"):
        trades.records["pnl"] = 0
    assert (one.orders.records == one.records).all()
    with pytest.raises(AttributeError):
        one.orders.win_rate()
