"""The table of trades, and what trades are judged by."""

from typing import Any

import numpy as np
import pandas as pd

from jaxsim.frames.results.record_tables import LaneRecords, RecordTable, divide_floats, whole
from jaxsim.frames.results.trades import TradeDirection, TradeStatus


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

    def _statistics(self) -> dict[str, np.ndarray]:
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


def portfolio_rows(lanes: LaneRecords) -> dict[str, np.ndarray]:
    """The rows about trades in the table of a portfolio (rules 8.1), [lane]; durations are numbers of bars."""
    records = lanes.records
    closed = records["status"] == TradeStatus.CLOSED
    wins, losses = closed & (records["pnl"] > 0), closed & (records["pnl"] < 0)
    percent, bars = records["return"] * 100, records["exit_idx"] - records["entry_idx"]
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
        "Avg Winning Trade Duration": lanes.mean(bars, wins),
        "Avg Losing Trade Duration": lanes.mean(bars, losses),
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


def _coverage(lanes: LaneRecords) -> tuple[np.ndarray, np.ndarray]:
    """The bars on which a trade was on, and those on which several were, [lane]; NaN for a lane without trades.

    A trade is on from its entry up to its exit; on the bar of the exit only if it is open.
    """
    records, length = lanes.records, len(lanes.index) + 1
    begin = lanes.lane * length + records["entry_idx"]
    end = lanes.lane * length + records["exit_idx"] + (records["status"] == TradeStatus.OPEN)
    place = np.concatenate([begin, end])
    order = np.argsort(place, kind="stable")
    place, change = place[order], np.repeat([1, -1], len(begin))[order]
    running, bars = np.cumsum(change)[:-1], np.diff(place)
    lane = place[:-1] // length
    out = [np.bincount(lane, bars * (running >= least), minlength=lanes.num_lanes) for least in (1, 2)]
    covered, overlapping = (np.where(lanes.count() > 0, x, np.nan) for x in out)
    return covered, overlapping
