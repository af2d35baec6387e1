"""Trades: filled orders, matched into entries and exits (rules 6.7)."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.numerics import ABS_TOL, REL_TOL
from jaxsim.frames.results.paths import ratio_or_zero
from jaxsim.frames.results.records.durations import Duration, clock
from jaxsim.frames.results.records.record_tables import LaneRecords, RecordTable, divide_floats, whole

#: id (from 0, by column), column, size (units, > 0), bar, average price and fees (currency) of the entry and of the
#: exit, pnl (currency, after fees), return (pnl / entered value, a fraction), TradeDirection, TradeStatus, id of the
#: position. An open trade is valued at the last close.
TRADE_DTYPE = np.dtype(
    [
        ("id", np.int64),
        ("col", np.int64),
        ("size", np.float64),
        ("entry_idx", np.int64),
        ("entry_price", np.float64),
        ("entry_fees", np.float64),
        ("exit_idx", np.int64),
        ("exit_price", np.float64),
        ("exit_fees", np.float64),
        ("pnl", np.float64),
        ("return", np.float64),
        ("direction", np.int64),
        ("status", np.int64),
        ("parent_id", np.int64),
    ]
)


class TradeDirection(IntEnum):
    """Whether the trade is a long or a short one. The codes are those of the order side that opens it."""

    LONG = 0
    SHORT = 1


class TradeStatus(IntEnum):
    """Whether the trade is still open."""

    OPEN = 0
    CLOSED = 1


def exit_trades(orders: np.ndarray, close: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
    """One trade for every order that reduces a position, with the size of the reduction. A position that is left at the
    end is an open trade, valued at the last close. Entry price and fees are averages of the position at the exit.

    orders: records with the fields of ORDER_DTYPE; those of one column in order of execution.
    close: [time, column]; the last close of a column is its last one that is not NaN.
    columns: the column of `close` with the prices of each column of the orders, [col]; default the same number.

    Returns TRADE_DTYPE, by column and exit. An order that crosses zero is split, its fees pro rata.
    Raises ValueError for orders that do not fit the closes.
    """
    match = match_lots(orders, close, columns, by_volume=False)
    o, rest = match.orders, match.rest
    left = np.flatnonzero(rest.size > 0)
    exits = np.flatnonzero(match.closed > 0)
    col = np.concatenate([o["col"][exits], left])
    order = np.argsort(col, kind="stable")  # what is left comes after the exits of its column
    lot = match.before.take(exits).extended(rest.take(left)).take(order)
    size = np.concatenate([match.closed[exits], rest.size[left]])[order]
    part = size / lot.size

    def at_exit(of_orders: np.ndarray, at_end: np.ndarray | float) -> np.ndarray:
        return np.concatenate([of_orders[exits], np.broadcast_to(at_end, left.shape)])[order]

    out = np.empty(len(order), TRADE_DTYPE)
    out["col"], out["size"], out["direction"] = col[order], size, lot.direction
    out["entry_idx"], out["entry_price"], out["entry_fees"] = lot.begin, lot.value / lot.size, lot.fees * part
    out["exit_idx"] = at_exit(o["idx"], len(close) - 1)
    out["exit_price"] = at_exit(o["price"], match.last_close[left])
    out["exit_fees"] = at_exit(match.exit_fees, 0.0)
    out["status"] = at_exit(np.full(len(o), TradeStatus.CLOSED), TradeStatus.OPEN)
    out["parent_id"] = match.first_position[out["col"]] + lot.position
    return _finished(out)


def entry_trades(orders: np.ndarray, close: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
    """One trade for every order that opens or increases a position, with the size that it adds. Exit price and fees are
    averages over all exits of the position; a remainder that is still open counts as an exit at the last close.

    Otherwise as `exit_trades`; by column and entry.
    """
    match = match_lots(orders, close, columns, by_volume=True)
    o, rest = match.orders, match.rest
    left, exits = np.flatnonzero(rest.size > 0), np.flatnonzero(match.closed > 0)
    of_rest = match.first_position[left] + rest.position[left]
    of_exit = (match.first_position[o["col"]] + match.before.position)[exits]
    count = int(match.num_positions.sum())

    def exited(amount: np.ndarray, at_end: np.ndarray) -> np.ndarray:
        """Summed by position."""
        total = np.zeros(count)
        np.add.at(total, of_exit, amount[exits])
        total[of_rest] += at_end
        return total

    size = exited(match.closed, rest.size[left])
    value = exited(match.closed * o["price"], rest.size[left] * match.last_close[left])
    fees = exited(match.exit_fees, np.zeros(len(left)))
    end, is_open = np.zeros(count, np.int64), np.zeros(count, bool)
    np.maximum.at(end, of_exit, o["idx"][exits])
    end[of_rest], is_open[of_rest] = len(close) - 1, True

    entries = np.flatnonzero(match.opened > 0)
    out = np.empty(len(entries), TRADE_DTYPE)
    out["col"], out["size"], out["direction"] = o["col"][entries], match.opened[entries], o["side"][entries]
    parent = match.first_position[out["col"]] + match.position_after[entries]
    out["entry_idx"], out["entry_price"] = o["idx"][entries], o["price"][entries]
    out["entry_fees"] = match.entry_fees[entries]
    entered = np.zeros(count)
    np.add.at(entered, parent, out["size"])
    out["exit_idx"], out["exit_price"] = end[parent], (value / size)[parent]
    out["exit_fees"] = fees[parent] * out["size"] / entered[parent]
    out["status"] = np.where(is_open[parent], TradeStatus.OPEN, TradeStatus.CLOSED)
    out["parent_id"] = parent
    return _finished(out)


def positions(trades: np.ndarray) -> np.ndarray:
    """The trades of each position as one: sizes and fees summed, prices averaged by size.

    trades: TRADE_DTYPE, as `exit_trades` or `entry_trades` gives them. Returns TRADE_DTYPE, id = parent_id.
    """
    if not len(trades):
        return trades.copy()
    first = np.flatnonzero(np.diff(trades["parent_id"], prepend=-1))
    last = np.append(first[1:], len(trades)) - 1

    def total(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, first)

    out = trades[first]
    out["size"] = total(trades["size"])
    for side in ("entry", "exit"):
        price = f"{side}_price"
        out[price] = total(trades["size"] * trades[price]) / out["size"]
        out[f"{side}_fees"] = total(trades[f"{side}_fees"])
    out["exit_idx"], out["status"] = trades["exit_idx"][last], trades["status"][last]
    return _finished(out)


def _finished(out: np.ndarray) -> np.ndarray:
    entered, exited = out["size"] * out["entry_price"], out["size"] * out["exit_price"]
    gain = np.where(out["direction"] == TradeDirection.LONG, exited - entered, entered - exited)
    # Flows that cancel to within the tolerance are no gain and no loss (rules 1.3).
    with np.errstate(invalid="ignore"):
        is_even = np.abs(gain) <= np.maximum(REL_TOL * np.maximum(np.abs(entered), np.abs(exited)), ABS_TOL)
    gain = np.where(is_even & np.isfinite(entered) & np.isfinite(exited), 0.0, gain)
    out["pnl"] = gain - out["entry_fees"] - out["exit_fees"]
    out["return"] = out["pnl"] / entered
    out["id"] = np.arange(len(out))
    return out


# --- lots: orders matched, one after the other, with the average-cost position that they meet


@dataclass(frozen=True, eq=False)
class Lots:
    """Positions at average cost, one per order or per column.

    size: units held, > 0; 0 while flat.     entered: units entered since the position was flat.
    value: cost of the units held, currency.             fees: fees of their entry, currency.
    begin: bar of the first entry.      direction: TradeDirection.      position: its number in the column.
    """

    size: np.ndarray
    entered: np.ndarray
    value: np.ndarray
    fees: np.ndarray
    begin: np.ndarray
    direction: np.ndarray
    position: np.ndarray

    @classmethod
    def flat(cls, count: int) -> "Lots":
        amounts, codes = np.zeros((4, count)), np.zeros((3, count), np.int64)
        codes[2] = -1  # no position yet
        return cls(*amounts, *codes)

    def fields(self) -> Iterator[np.ndarray]:
        return iter((self.size, self.entered, self.value, self.fees, self.begin, self.direction, self.position))

    def take(self, places: np.ndarray | slice) -> "Lots":
        return Lots(*(x[places] for x in self.fields()))

    def put(self, places: np.ndarray | slice, lots: "Lots") -> None:
        for mine, theirs in zip(self.fields(), lots.fields(), strict=True):
            mine[places] = theirs

    def extended(self, lots: "Lots") -> "Lots":
        return Lots(*map(np.concatenate, zip(self.fields(), lots.fields(), strict=True)))


@dataclass(frozen=True, eq=False)
class Match:
    """The position that every order met, and its effect on it.

    orders: by column, [order].     closed, opened: units by which the order reduced and increased a position, [order].
    before: the position before the order, [order].   position_after: number of the position after it, in its column.
    rest: the position at the end, [col].      num_positions, first_position: of each column, [col].     last_close:
    [col].
    """

    orders: np.ndarray
    closed: np.ndarray
    opened: np.ndarray
    before: Lots
    position_after: np.ndarray
    rest: Lots
    last_close: np.ndarray

    @property
    def exit_fees(self) -> np.ndarray:
        """The share of the exit in the fees of each order, [order], currency; the entry has the rest."""
        return self.orders["fees"] * ratio_or_zero(self.closed, self.closed + self.opened)

    @property
    def entry_fees(self) -> np.ndarray:
        return self.orders["fees"] * ratio_or_zero(self.opened, self.closed + self.opened)

    @property
    def num_positions(self) -> np.ndarray:
        return self.rest.position + 1

    @property
    def first_position(self) -> np.ndarray:
        return np.cumsum(self.num_positions) - self.num_positions


def match_lots(orders: np.ndarray, close: np.ndarray, columns: np.ndarray | None, by_volume: bool) -> Match:
    """Match orders with the positions they meet, the k-th orders of all columns at once: the number of Python steps
    does not grow with the number of columns.

    orders, close, columns: as in `trades.exit_trades`.
    by_volume: an order closes what it matches to 1e-9 of all that was entered since the position was flat; else to
        1e-9 of what is held (rules 1.1). Entry trades and exit trades differ in this in vectorbt.
    """
    last_close = _last_close(close) if columns is None else _last_close(close)[columns]
    _check(orders, len(close), len(last_close))
    orders = orders[np.argsort(orders["col"], kind="stable")]
    counts = np.bincount(orders["col"], minlength=len(last_close))
    wide = np.argsort(-counts, kind="stable")  # columns with most orders first: those still active stand in front
    nth = np.arange(len(orders)) - (np.cumsum(counts) - counts)[orders["col"]]
    at = np.lexsort((np.argsort(wide)[orders["col"]], nth))
    active = np.searchsorted(-counts[wide], -np.arange(counts.max(initial=0)))  # columns that have a k-th order

    o = orders[at]
    side, idx, size, price, fees = (np.ascontiguousarray(o[x]) for x in ("side", "idx", "size", "price", "fees"))
    closed, opened = np.zeros((2, len(o)))
    after, before, lots = np.empty(len(o), np.int64), Lots.flat(len(o)), Lots.flat(len(counts))
    for a, b in pairwise(np.concatenate([[0], np.cumsum(active)]).tolist()):
        k, held = slice(a, b), lots.take(slice(b - a))
        before.put(k, held)
        closed[k], opened[k] = _split(held, side[k], size[k], by_volume)
        lots.put(slice(b - a), _after(held, closed[k], opened[k], side[k], idx[k], price[k], fees[k]))
        after[k] = lots.position[: b - a]
    back, home = np.argsort(at), np.argsort(wide)
    return Match(orders, closed[back], opened[back], before.take(back), after[back], lots.take(home), last_close)


def _split(held: Lots, side: np.ndarray, size: np.ndarray, by_volume: bool) -> tuple[np.ndarray, np.ndarray]:
    """By how much orders reduce and increase what is held."""
    against = (held.size > 0) & (held.direction != side)
    larger = np.maximum(size, held.size) + by_volume * (held.entered - held.size)
    is_all = np.abs(size - held.size) <= np.maximum(REL_TOL * larger, ABS_TOL)
    closed = np.where(against, np.where(is_all, held.size, np.minimum(size, held.size)), 0.0)
    return closed, np.where(against, np.where(is_all, 0.0, size - closed), size)


def _after(
    held: Lots,
    closed: np.ndarray,
    opened: np.ndarray,
    side: np.ndarray,
    idx: np.ndarray,
    price: np.ndarray,
    fees: np.ndarray,
) -> Lots:
    kept = held.size - closed
    is_new = (kept == 0) & (opened > 0)
    part = ratio_or_zero(kept, held.size)
    return Lots(
        size=kept + opened,
        entered=np.where(kept == 0, 0.0, held.entered) + opened,
        value=held.value * part + opened * price,
        fees=held.fees * part + fees * ratio_or_zero(opened, closed + opened),
        begin=np.where(is_new, idx, held.begin),
        direction=np.where(is_new, side, held.direction),
        position=held.position + is_new,
    )


def _last_close(close: np.ndarray) -> np.ndarray:
    """The last number of each column; NaN where there is none."""
    known = ~np.isnan(close)
    last = len(close) - 1 - np.argmax(known[::-1], axis=0)
    return close[last, np.arange(close.shape[1])]


def _check(orders: np.ndarray, num_bars: int, num_columns: int) -> None:
    for name, limit in (("col", num_columns), ("idx", num_bars)):
        if len(orders) and not (orders[name].min() >= 0 and orders[name].max() < limit):
            raise ValueError(f"orders: {name} must lie in [0, {limit}), the shape of close")


# --- the table


class TradeTable(RecordTable):
    """Trades or positions, by lane, asset and time: id (within the lane), the lane levels, asset, size (units),
    entry_timestamp, entry_price, entry_fees (currency), the same of the exit, pnl (currency, after fees), return (pnl /
    entered value, a fraction), direction ("Long" or "Short"), status ("Open" or "Closed"; what is open is valued at
    the last close), and for trades position (number of the position within the lane)."""

    def __init__(self, source: LaneRecords, assets: pd.Index, *, with_position: bool):
        """assets: of each record.      with_position: whether to show which position a trade belongs to."""
        records, index = source.records, source.index
        columns: list[tuple[str, Any]] = [("asset", assets), ("size", records["size"])]
        for end in ("entry", "exit"):
            columns.append((f"{end}_timestamp", index.take(records[f"{end}_idx"])))
            columns += [(f"{end}_{x}", records[f"{end}_{x}"]) for x in ("price", "fees")]
        columns += [("pnl", records["pnl"]), ("return", records["return"])]
        columns.append(("direction", np.array(["Long", "Short"], dtype=object)[records["direction"]]))
        columns.append(("status", np.array(["Open", "Closed"], dtype=object)[records["status"]]))
        if with_position:
            parent = records["parent_id"]  # ascending, so that the first of a lane has the lane's least
            columns.append(("position", parent - parent[np.searchsorted(source.lane, source.lane)]))
        super().__init__(source, columns)

    def win_rate(self, *, incl_open: bool = False) -> Any:
        """Fraction of trades with pnl > 0; NaN without trades.

        incl_open: whether open trades count, at their value at the last close. So for the other scores.
        """
        return self._score("win_rate", incl_open)

    def profit_factor(self, *, incl_open: bool = False) -> Any:
        """Sum of gains / sum of losses; infinite without losses."""
        return self._score("profit_factor", incl_open)

    def expectancy(self, *, incl_open: bool = False) -> Any:
        """Win rate x mean gain - loss rate x mean loss; currency per trade."""
        return self._score("expectancy", incl_open)

    def sqn(self, *, incl_open: bool = False) -> Any:
        """System quality number: sqrt(number of trades) x mean pnl / standard deviation of pnl (ddof 1)."""
        return self._score("sqn", incl_open)

    def _score(self, name: str, incl_open: bool) -> Any:
        closed = self._source.records["status"] == TradeStatus.CLOSED
        return self._by_lane(scores(self._source, closed | incl_open)[name], name)

    def _statistics(self) -> dict[str, Any]:
        """As in vectorbt, scores are those of closed trades, the first trade is the first of the lane's first asset to
        have one, and the last one that of its last."""
        lanes, records = self._source, self._source.records
        rows = portfolio_rows(lanes)
        in_portfolio = list(rows)
        streaks = _longest_streaks(lanes)
        covered, overlapping = _coverage(lanes)
        return {
            "First Trade Start": lanes.first(records["entry_idx"]),
            "Last Trade End": lanes.last(records["exit_idx"]),
            "Coverage": covered,
            "Overlap Coverage": overlapping,
            "Total Records": lanes.count(),
            "Total Long Trades": lanes.count(records["direction"] == TradeDirection.LONG),
            "Total Short Trades": lanes.count(records["direction"] == TradeDirection.SHORT),
            **{title: rows[title] for title in in_portfolio[1:5]},
            "Max Win Streak": streaks[0],
            "Max Loss Streak": streaks[1],
            **{title: rows[title] for title in in_portfolio[5:]},
            "SQN": scores(lanes, records["status"] == TradeStatus.CLOSED)["sqn"],
        }


def scores(lanes: LaneRecords, where: np.ndarray) -> dict[str, np.ndarray]:
    """What `TradeTable` has methods for, of the trades in `where`, by name, [lane] (rules 8.2)."""
    pnl, count = lanes.records["pnl"], lanes.count(where)
    wins, losses = where & (pnl > 0), where & (pnl < 0)
    gain, loss = lanes.total(pnl, wins), abs(lanes.total(pnl, losses))
    return {
        "win_rate": divide_floats(lanes.count(wins), count),
        "profit_factor": divide_floats(gain, loss),
        "expectancy": divide_floats(gain - loss, count),
        "sqn": np.sqrt(count) * divide_floats(lanes.mean(pnl, where), lanes.deviation(pnl, where)),
    }


def portfolio_rows(lanes: LaneRecords) -> dict[str, Any]:
    """The rows about trades in the table of a portfolio (rules 8.1), [lane]."""
    records = lanes.records
    closed = records["status"] == TradeStatus.CLOSED
    wins, losses = closed & (records["pnl"] > 0), closed & (records["pnl"] < 0)
    percent, span = records["return"] * 100, (records["entry_idx"], records["exit_idx"])
    score = scores(lanes, closed)
    return {
        "Total Trades": lanes.count(),
        "Total Closed Trades": lanes.count(closed),
        "Total Open Trades": lanes.count(~closed),
        "Open Trade PnL": lanes.total(records["pnl"], ~closed),
        "Win Rate [%]": score["win_rate"] * 100,
        "Best Trade [%]": lanes.greatest(percent, closed),
        "Worst Trade [%]": lanes.least(percent, closed),
        "Avg Winning Trade [%]": lanes.mean(percent, wins),
        "Avg Losing Trade [%]": lanes.mean(percent, losses),
        "Avg Winning Trade Duration": lanes.mean_duration(*span, wins),
        "Avg Losing Trade Duration": lanes.mean_duration(*span, losses),
        "Profit Factor": score["profit_factor"],
        "Expectancy": score["expectancy"],
    }


def _longest_streaks(lanes: LaneRecords) -> tuple[np.ndarray, np.ndarray]:
    """The most closed trades of one asset in a row that won, and that lost, [lane]."""
    closed = np.flatnonzero(lanes.records["status"] == TradeStatus.CLOSED)
    records, place = lanes.records[closed], np.arange(len(closed))
    is_first = np.diff(records["col"], prepend=-1) != 0
    longest = []
    for good in (records["pnl"] > 0, records["pnl"] < 0):
        # a streak begins after the last trade that broke it, or with the first trade of its asset
        broken = np.maximum.accumulate(np.where(good, np.where(is_first, place - 1, -1), place))
        streak = np.zeros(len(lanes.records))
        streak[closed] = place - broken
        longest.append(whole(lanes.greatest(streak, closed)))
    return longest[0], longest[1]


def _coverage(lanes: LaneRecords) -> tuple[Duration, Duration]:
    """How long a trade was on, and how long several were, [lane]; NaN for a lane without trades.

    A trade is on from its entry up to its exit; on the bar of the exit only if it is open.
    """
    records, length = lanes.records, len(lanes.index) + 1
    begin = lanes.lane * length + records["entry_idx"]
    end = lanes.lane * length + records["exit_idx"] + (records["status"] == TradeStatus.OPEN)
    place = np.concatenate([begin, end])
    order = np.argsort(place, kind="stable")
    place, change = place[order], np.repeat([1, -1], len(begin))[order]
    running, lane = np.cumsum(change)[:-1], place[:-1] // length
    moments = clock(lanes.index)

    def lasts(spans: np.ndarray, least: int) -> np.ndarray:
        total = np.bincount(lane, spans * (running >= least), minlength=lanes.num_lanes)
        return np.where(lanes.count() > 0, total, np.nan)

    bar = np.minimum(place % length, len(lanes.index) - 1)  # an open trade lasts to the last bar
    times = None if moments is None else np.diff(moments[bar])
    covered, overlapping = (
        Duration(lasts(np.diff(place), least), None if times is None else lasts(times, least)) for least in (1, 2)
    )
    return covered, overlapping
