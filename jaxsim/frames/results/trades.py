"""Trades: filled orders matched into what was entered, what was exited, and what came of it (rules 6.7)."""

from enum import IntEnum

import numpy as np

from jaxsim.frames.results.lots import ABS_TOL, REL_TOL, match_lots

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
    """Whether units were held or owed. The codes are those of the order side that opens such a position."""

    LONG = 0
    SHORT = 1


class TradeStatus(IntEnum):
    """Whether anything of the trade is still held."""

    OPEN = 0
    CLOSED = 1


def exit_trades(orders: np.ndarray, close: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
    """One trade for every order that reduces a position, of the size that it reduces; what is left at the end is an
    open trade at the last close. Entry price and fees are the averages of the position at the time of the exit.

    orders: records with the fields of ORDER_DTYPE; those of one column in order of execution.
    close: [time, column]; the last close of a column is its last one that is not NaN.
    columns: the column of `close` that each column of the orders has its prices in, [col]; default the same.

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
    """One trade for every order that opens or increases a position, of the size that it adds. Exit price and fees are
    the averages of all exits of that position, of which an open remainder at the last close is one.

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
