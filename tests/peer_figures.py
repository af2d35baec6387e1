"""The figures of a portfolio, paths, trades, drawdowns, metrics and tables, against those of vectorbt 1.2.0."""

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

import jaxsim as js
from jaxsim import metrics
from jaxsim.frames.drawdowns import drawdowns
from jaxsim.frames.scores import ONE_PER_LANE

#: Metrics of returns; those that are none, or need other lanes, stand aside.
METRICS = sorted(
    ONE_PER_LANE - {"turnover", "turnover_two_way", "num_rebalances", "total_fees", "deflated_sharpe_ratio"}
)
#: vectorbt compiles each rolling metric anew, some five seconds; the formulas are those of the metrics above.
ROLLING = ["rolling_sharpe_ratio", "rolling_max_drawdown"]
#: What vectorbt calls otherwise.
VECTORBT_NAMES = {"total_return": "total", "annualized_return": "annualized"}
TRADES = ("exit_trades", "entry_trades", "positions")
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
      vectorbt at the close that is to come (SEMANTICS 6.2);
    - the exit and the gain of what is open at the end, where the last close is missing: we take the last close that
      there is, vectorbt takes the missing one.
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
    if not looks_ahead:
        yield from _drawdowns(bt, pf)
        yield from _metrics(bt, pf)
    yield from _tables(bt, pf, looks_ahead)


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


# --- paths


def _paths(bt: js.Backtest, pf: Any, looks_ahead: bool) -> Iterator[str]:
    held, worth = pf.assets().to_numpy(), np.abs(pf.asset_value(group_by=False).to_numpy())
    money = np.nanmax(worth, initial=bt._paths.context.init_cash[0])  # balances are as exact as what flowed through
    yield from _unlike("cash", bt.cash, pf.cash(), 1e-12 * money)
    yield from _unlike("units", bt.units, held, 1e-12 * np.abs(held).max(axis=0))
    yield from _unlike("benchmark_value", bt.benchmark_value, pf.benchmark_value())
    if not looks_ahead:
        yield from _unlike("value", bt.value, pf.value(), 1e-12 * money)
        yield from _unlike("gross_exposure", bt.gross_exposure, pf.gross_exposure(), 1e-12)


# --- records


def _trades(kind: str, ours: np.ndarray, theirs: np.ndarray, pf: Any) -> Iterator[str]:
    largest = _largest_orders(pf)
    names = set(theirs.dtype.names)
    if _has_dust(ours, largest) or _has_dust(theirs, largest):
        ours, theirs = (x[~_is_dust(x, largest)] for x in (ours, theirs))
        names -= {"id", "parent_id"}
    if len(ours) != len(theirs):
        yield f"{kind}: {len(ours)} against {len(theirs)}"
        return
    entered, exited = (theirs["size"] * theirs[f"{end}_price"] for end in ("entry", "exit"))
    turned = np.fmax(entered, exited)  # a gain is no more exact than what it is made of
    floor = {
        "size": 1e-12 * largest[theirs["col"]],  # what is left of a sale is as exact as the sale
        "entry_fees": 1e-12 * turned,
        "exit_fees": 1e-12 * turned,
        "pnl": 1e-9 * turned,
        "return": 1e-9 * turned / entered,
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
    return trades["size"] <= 1e-14 * largest[trades["col"]]


def _has_dust(trades: np.ndarray, largest: np.ndarray) -> bool:
    return bool(_is_dust(trades, largest).any())


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
        yield from _unlike(f"drawdowns: {name}", ours[name], theirs[name])


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
    """A metric to 1e-9; or to 1e-6 where it is that sensitive to the last digits of the returns, which shows in that
    the same returns give the same to 1e-9."""
    function = getattr(metrics, name)
    settings = {k: v for k, v in known.items() if k in inspect.signature(function).parameters}
    unlike = list(_unlike(name, ours, theirs))
    if unlike and not list(_unlike(name, function(returns.to_numpy(), **settings), theirs)):
        unlike = list(_unlike(name, ours, theirs, rtol=1e-6))
    yield from unlike


# --- tables


def _tables(bt: js.Backtest, pf: Any, looks_ahead: bool) -> Iterator[str]:
    largest = _largest_orders(pf)
    for table in ("stats", "returns_stats", "orders", "drawdowns", *TRADES):
        if looks_ahead and table in ("returns_stats", "drawdowns"):
            continue
        is_whole = table.endswith("stats")
        ours, theirs = (getattr(x, table)() if is_whole else getattr(x, table).stats() for x in (bt, pf))
        if list(ours.index) != list(theirs.index):
            yield f"{table}: rows {list(ours.index)} against {list(theirs.index)}"
            continue
        skipped = {"Start", "End"}  # theirs are numbers
        skipped |= set(OF_VALUE) if looks_ahead else set()
        for title in theirs.index.difference(skipped, sort=False):
            mine, other = (_as_number(x[title], bt.value.index) for x in (ours, theirs))
            yield from _unlike(f"{table}: {title}", mine, other)


def _as_number(x: Any, index: pd.Index) -> float:
    """A statistic as a number: durations in microseconds, which is as exact as they are; moments by bar."""
    if pd.isna(x):
        return np.nan
    if isinstance(x, pd.Timestamp):
        return float(index.get_loc(x))
    return float(round(x / pd.Timedelta("1us"))) if isinstance(x, pd.Timedelta) else float(x)
