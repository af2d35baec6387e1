"""The figures of a portfolio, paths, trades, drawdowns, metrics and tables, against those of vectorbt 1.2.0."""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

import jaxsim as js
from jaxsim import metrics
from jaxsim.engine.metrics import stats as tables
from jaxsim.frames.results.metric_names import ONE_PER_LANE
from jaxsim.frames.results.records.drawdowns import DrawdownTable, drawdowns
from jaxsim.frames.results.records.record_tables import LaneRecords
from jaxsim.frames.results.records.trades import TradeTable

#: Metrics of returns. Those stand aside that are none, need other lanes, are not in vectorbt, or mean something else
#: there (`tests/peers/differences.py`).
METRICS = sorted(
    ONE_PER_LANE
    - {"turnover", "turnover_two_way", "num_rebalances", "total_fees", "deflated_sharpe_ratio"}
    - {"log_growth", "expected_shortfall", "smooth_drawdown"}
    - {"up_capture", "down_capture"}
)
#: vectorbt compiles each rolling metric anew, some five seconds; the formulas are those of the metrics above.
ROLLING = ["rolling_sharpe_ratio", "rolling_max_drawdown"]
_WINDOW = inspect.signature(metrics.rolling_sharpe_ratio).parameters["window"].default
#: What vectorbt calls otherwise.
VECTORBT_NAMES = {"total_return": "total", "annualized_return": "annualized"}
TRADES = ("exit_trades", "entry_trades", "positions")
WHOLE = ("stats", "returns_stats")
#: Rows of `stats` that follow from the value after each bar.
OF_VALUE = (
    *("End Value", "Total Return [%]", "Max Gross Exposure [%]", "Max Drawdown [%]", "Max Drawdown Duration"),
    *("Sharpe Ratio", "Calmar Ratio", "Omega Ratio", "Sortino Ratio"),
)


def differing_figures(bt: js.Backtest, pf: Any) -> str | None:
    """The first figure of a lane in which it differs from a vectorbt Portfolio, of one group that shares its cash, by
    more than 1e-9; None if they agree.

    Left out, since the two mean different things there:
    - what follows from the value after each bar, if an asset is held before its first close: we mark it at its open,
      vectorbt at the close that is to come (rules 6.2);
    - the exit and the gain of what is open at the end, where the last close is missing: we take the last close that
      there is, vectorbt takes the missing one;
    - what is told from returns, if the account is worth nothing after any bar (rules 7.19).
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return next(differences(bt, pf), None)


def differences(bt: js.Backtest, pf: Any) -> Iterator[str]:
    """All of them."""
    looks_ahead = bool(((bt.units.to_numpy() != 0) & np.isnan(pf.close.ffill().to_numpy())).any())
    yield from _paths(bt, pf, looks_ahead)
    for kind in TRADES:
        yield from _trades(kind, getattr(bt, kind).records, getattr(pf, kind).values, pf)
    has_no_returns = looks_ahead or bool((bt.value.to_numpy() <= 0).any())
    if not looks_ahead:
        yield from _drawdowns(bt, pf)
    if not has_no_returns:
        yield from _metrics(bt, pf)
    yield from _tables(bt, pf, has_no_returns)


def _unlike(name: str, ours: Any, theirs: Any, floor: Any = 0.0, rtol: float = 1e-9) -> Iterator[str]:
    """Where two arrays differ by more than `rtol` and by more than `floor`."""
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    if a.shape != b.shape:
        yield f"{name}: shape {a.shape} against {b.shape}"
        return
    same = np.isclose(a, b, rtol=rtol, atol=0, equal_nan=True) | (np.abs(a - b) <= floor)
    if not same.all():
        at = tuple(int(i) for i in np.argwhere(~same)[0])
        yield f"{name}{list(at) if at else ''}: {a[at]!r} against {b[at]!r}"


def _sensitive(name: str, ours: Any, theirs: Any, of_theirs: Any, rtol: float) -> Iterator[str]:
    """Where two figures differ by more than 1e-9; or by more than `rtol` where they are that sensitive to the last
    digits of what they are made of, which shows in that our formula makes the same `of_theirs`, to 1e-9."""
    unlike = list(_unlike(name, ours, theirs, 1e-12))
    if unlike and not list(_unlike(name, of_theirs, theirs, 1e-12)):
        unlike = [] if rtol == np.inf else list(_unlike(name, ours, theirs, 1e-12, rtol))
    yield from unlike


# --- paths


def _paths(bt: js.Backtest, pf: Any, looks_ahead: bool) -> Iterator[str]:
    money = _money(bt, pf)
    yield from _unlike("cash", bt.cash, pf.cash(), 1e-9 * money)
    yield from _unlike("units", bt.units, pf.assets(), 1e-9 * _largest_orders(pf) + 1e-12)
    yield from _unlike("benchmark_value", bt.benchmark_value, pf.benchmark_value())
    if not looks_ahead:
        yield from _unlike("value", bt.value, pf.value(), 1e-9 * money)
    if not looks_ahead and not _loses_orders(pf):
        invested = np.abs(pf.asset_value(group_by=False).to_numpy()).sum(axis=1)
        slope = pf.gross_exposure().to_numpy() ** 2 / np.where(invested > 0, invested, np.inf)  # by free cash
        yield from _unlike("gross_exposure", bt.gross_exposure, pf.gross_exposure(), 1e-8 * money * slope + 1e-12)


def _money(bt: js.Backtest, pf: Any) -> float:
    """The largest amount there was: balances snap to 1e-9 of it (rules 1.3), here and there at other moments."""
    return np.nanmax(np.abs(pf.asset_value(group_by=False).to_numpy()), initial=bt._paths.context.init_cash[0])


def _loses_orders(pf: Any) -> bool:
    """Whether an order is below 1e-9 of the position that it meets: vectorbt's free cash does without it and its
    fees."""
    orders, held = pf.orders.values, np.zeros(pf.close.shape[1])
    for col, size, side in zip(orders["col"], orders["size"], orders["side"], strict=True):
        if size <= 1e-9 * abs(held[col]) or size <= 1e-12:
            return True
        held[col] += -size if side else size
    return False


# --- records


def _trades(kind: str, ours: np.ndarray, theirs: np.ndarray, pf: Any) -> Iterator[str]:
    largest = _largest_orders(pf)
    names = set(theirs.dtype.names)
    if _is_dust(ours, largest).any() or _is_dust(theirs, largest).any():
        ours, theirs = (x[~_is_dust(x, largest)] for x in (ours, theirs))
        names -= {"id", "parent_id"}
    if len(ours) != len(theirs):
        yield f"{kind}: {len(ours)} against {len(theirs)}"
        return
    size = np.maximum(theirs["size"], 1e-3 * largest[theirs["col"]])  # what is left of a sale is as exact as the sale
    turned = size * np.fmax(theirs["entry_price"], theirs["exit_price"])  # and a gain as what it is made of
    floor = {
        "size": 1e-9 * size,
        **{x: 1e-12 * turned + 1e-9 * np.abs(theirs[x]) * size / theirs["size"] for x in ("entry_fees", "exit_fees")},
        # vectorbt takes two sizes within 1e-12 for one: what it does not count as sold has no part in the price
        "exit_price": 1e-9 * theirs["exit_price"] + 2e-12 * theirs["exit_price"] / theirs["size"],
        "pnl": 1e-9 * turned,
        "return": 1e-9 * turned / (theirs["size"] * theirs["entry_price"]),
    }
    is_unmarked = _is_unmarked(theirs, pf)
    for name in theirs.dtype.names:
        a, b = ours[name], theirs[name]
        if name in ("exit_price", "pnl", "return"):
            a, b = np.where(is_unmarked, 0.0, a), np.where(is_unmarked, 0.0, b)
        if name in names:
            yield from _unlike(f"{kind}: {name}", a, b, floor.get(name, 0.0))


def _is_unmarked(trades: np.ndarray, pf: Any) -> np.ndarray:
    """Which trades are open while their last close is missing."""
    return (trades["status"] == 0) & np.isnan(pf.close.to_numpy()[-1, trades["col"]])


def _largest_orders(pf: Any) -> np.ndarray:
    """The size of the largest order of each column, units."""
    orders, largest = pf.orders.values, np.zeros(pf.close.shape[1])
    np.maximum.at(largest, orders["col"], orders["size"])
    return largest


def _is_dust(trades: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Trades of a size that is rounding of the column's orders: vectorbt makes one of the last digits that are left
    when a large position has been sold bit by bit, and so would we of others."""
    return trades["size"] <= np.maximum(1e-14 * largest[trades["col"]], 1e-11)


def _drawdowns(bt: js.Backtest, pf: Any) -> Iterator[str]:
    ours, theirs = bt.drawdowns.records, pf.drawdowns.values
    if not _same_bars(ours, theirs):
        # Where a value is all but equal to its peak, rounding decides whether it is back there: of one and the same
        # path, both must find the same.
        ours = drawdowns(pf.value().to_numpy()[:, None])
    if not _same_bars(ours, theirs):
        yield f"drawdowns: {len(ours)} against {len(theirs)}, or at other bars"
        return
    for name in theirs.dtype.names:
        floor = 1e-9 * _money(bt, pf) if name.endswith("_val") else 0.0
        yield from _unlike(f"drawdowns: {name}", ours[name], theirs[name], floor)


def _same_bars(ours: np.ndarray, theirs: np.ndarray) -> bool:
    names = [name for name in theirs.dtype.names if theirs.dtype[name].kind == "i"]
    return len(ours) == len(theirs) and all((ours[name] == theirs[name]).all() for name in names)


# --- metrics


def _metrics(bt: js.Backtest, pf: Any) -> Iterator[str]:
    accessor, returns = pf.get_returns_acc(), pf.returns()
    known = {"benchmark": pf.benchmark_returns().to_numpy(), "ann_factor": bt.ann_factor}
    for name in [*METRICS, *ROLLING]:
        source = returns if name in ("skew", "kurtosis") else accessor  # those of pandas, in vectorbt too
        theirs = getattr(source, VECTORBT_NAMES.get(name, name))()
        yield from _metric(name, getattr(bt, name)(), theirs, returns, known)
    fees = pf.orders.values["fees"]
    yield from _unlike("total_fees", bt.total_fees(), fees.sum(), 1e-12 * np.abs(fees).sum())


def _metric(name: str, ours: Any, theirs: Any, returns: pd.Series, known: dict) -> Iterator[str]:
    function = getattr(metrics, name)
    settings = {k: v for k, v in known.items() if k in inspect.signature(function).parameters}
    of_theirs = function(returns.to_numpy(), **settings)
    if name in ROLLING:
        # In a window of returns that are zero but for rounding, rounding is all that a ratio is made of.
        is_noise = returns.abs().rolling(_WINDOW, min_periods=1).max().between(0, 1e-12, inclusive="neither")
        ours = np.where(is_noise, of_theirs, ours)
    ours, theirs, of_theirs = _with_a_denominator(ours, theirs, of_theirs)
    # A quantile of all but zero is as good as nothing to divide by.
    rtol = 1e-3 if name in ("tail_ratio", "common_sense_ratio") and np.abs(theirs) > 1e6 else 1e-6
    yield from _sensitive(name, ours, theirs, of_theirs, rtol)


def _with_a_denominator(ours: Any, theirs: Any, of_theirs: Any) -> list[Any]:
    """Figures without those whose denominator is zero by rules 7: there our formula, of vectorbt's path too, is not
    finite, and vectorbt divides by what rounding has left."""
    is_void = ~np.isfinite(of_theirs) & ((ours == of_theirs) | (np.isnan(ours) & np.isnan(of_theirs)))
    return [np.where(is_void, 0.0, x) for x in (ours, theirs, of_theirs)]


# --- tables


def _tables(bt: js.Backtest, pf: Any, has_no_returns: bool) -> Iterator[str]:
    for table, of_theirs in _tables_of_theirs(bt, pf).items():
        if has_no_returns and table in ("returns_stats", "drawdowns"):
            continue
        ours, theirs = (getattr(x, table)() if table in WHOLE else getattr(x, table).stats() for x in (bt, pf))
        ours, of_theirs = _in_bars(ours.drop("Bars per Year", errors="ignore")), _in_bars(of_theirs)
        if list(ours.index) != list(theirs.index):
            yield f"{table}: rows {list(ours.index)} against {list(theirs.index)}"
            continue
        for title in theirs.index.difference(_skipped(table, pf, has_no_returns), sort=False):
            values = [_as_number(x.get(title, np.nan), bt) for x in (ours, theirs, of_theirs)]
            if title.endswith("Ratio"):
                values = _with_a_denominator(*values)
            is_of_ties = table == "returns_stats" and title.endswith("Duration")  # back at the peak, but for rounding
            rtol = np.inf if is_of_ties or _hangs_on_rounding(table, bt, pf) else 1e-4
            yield from _sensitive(f"{table}: {title}", *values, rtol)


def _in_bars(table: Mapping[str, Any]) -> pd.Series:
    """A table whose durations are numbers of bars, as theirs are but for the length of a bar."""
    ends = " [bars]"
    return pd.Series(
        {title: table.get(title + ends, x) for title, x in table.items() if not title.endswith(ends)}, dtype=object
    )


def _skipped(table: str, pf: Any, has_no_returns: bool) -> set[str]:
    """Titles of rows that mean two different things."""
    titles = {"Start", "End"}  # dates here, numbers there
    if has_no_returns:
        titles |= set(OF_VALUE)
    if _loses_orders(pf):
        titles.add("Max Gross Exposure [%]")
    if not np.isclose(pf.final_value(), pf.value().iloc[-1], rtol=1e-10, atol=0):
        titles |= {"End Value", "Total Return [%]"}  # theirs are not its last value: rules 1.3, by column
    kind = "exit_trades" if table == "stats" else table
    if kind in TRADES and _is_unmarked(getattr(pf, kind).values, pf).any():
        titles.add("Open Trade PnL")
    return titles


def _hangs_on_rounding(table: str, bt: js.Backtest, pf: Any) -> bool:
    """Whether rounding decides how many records a table is about (see `_is_dust` and `_drawdowns`), or at which prices
    they are closed (see `_trades`)."""
    of_trades = [kind for kind in TRADES if table == kind or (table == "stats" and kind == "exit_trades")]
    for kind in of_trades:
        both, largest = (getattr(bt, kind).records, getattr(pf, kind).values), _largest_orders(pf)
        if any(_is_dust(x, largest).any() or (x["size"] < 1e-8).any() for x in both):
            return True
    return table in ("stats", "drawdowns") and not _same_bars(bt.drawdowns.records, pf.drawdowns.values)


def _tables_of_theirs(bt: js.Backtest, pf: Any) -> dict[str, Mapping[str, Any]]:
    """Our tables, of their records and paths."""
    value, returns, benchmark = (x.to_numpy()[:, None] for x in (pf.value(), pf.returns(), pf.benchmark_returns()))
    cash, fees = (np.array([x]) for x in (pf.init_cash, pf.orders.values["fees"].sum()))
    known = dict(gross_exposure=pf.gross_exposure().to_numpy()[:, None], init_cash=cash, total_fees=fees)
    of_value = tables.portfolio_stats(value, returns, benchmark, **known, ann_factor=bt.ann_factor)
    of_returns = tables.returns_stats(returns, benchmark, ann_factor=bt.ann_factor)

    def source(records: np.ndarray) -> LaneRecords:
        return LaneRecords(records, np.zeros(len(records), int), None, bt.value.index, None)

    def of_trades(records: np.ndarray) -> pd.Series:
        return TradeTable(source(records), pd.Index(records["col"]), with_position=False).stats()

    trades = {kind: of_trades(getattr(pf, kind).values) for kind in TRADES}
    exits = trades["exit_trades"].rename({"Total Records": "Total Trades"})
    return {
        "stats": {title: x[0] for title, x in of_value.items()} | dict(exits),
        "returns_stats": {title: x[0] for title, x in of_returns.items()},
        "orders": {},
        "drawdowns": DrawdownTable(source(pf.drawdowns.values)).stats(),
        **trades,
    }


def _as_number(x: Any, bt: js.Backtest) -> float:
    """A statistic as a number: durations and moments by bars."""
    if pd.isna(x):
        return np.nan
    if isinstance(x, pd.Timestamp):
        return float(bt.value.index.get_loc(x))
    return x / pd.Timedelta("1h") if isinstance(x, pd.Timedelta) else float(x)
