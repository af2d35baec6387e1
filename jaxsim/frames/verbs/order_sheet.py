"""Tables of orders as users have them, read into arrays."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.enums import OrderSide
from jaxsim.frames.inputs.groups import Layout
from jaxsim.frames.results.records.orders import OrderTable

#: What the columns of a table of orders may be called; upper and lower case are the same.
NAMES = {
    "asset": ("asset", "column", "symbol"),
    "timestamp": ("timestamp", "time", "date", "datetime"),
    "size": ("size", "units", "quantity"),
    "price": ("price",),
    "fees": ("fees", "fee", "commission"),
    "side": ("side",),
    "col": ("col",),
    "idx": ("idx",),
}


@dataclass(frozen=True, eq=False)
class OrderSheet:
    """Orders as arrays, [order], in the order of their execution.

    combination, column, bar: numbers of the portfolio, of the price-frame column, and of the bar.
    size: units, > 0 bought.    price, fees: currency.
    combinations: labels of all portfolios, by level; one without a level if they are not labelled.
    """

    combination: np.ndarray
    column: np.ndarray
    bar: np.ndarray
    size: np.ndarray
    price: np.ndarray
    fees: np.ndarray
    combinations: pd.DataFrame

    def take(self, rows: np.ndarray) -> "OrderSheet":
        arrays = {name: values[rows] for name, values in vars(self).items() if name != "combinations"}
        return OrderSheet(**arrays, combinations=self.combinations)

    def rounds(self, rows: np.ndarray) -> Iterable[tuple[int, list[int]]]:
        """Bars with orders among these rows, and the rows of each; a new round where an asset is traded again."""
        bar, orders, seen = -1, [], set()
        for row in rows.tolist():
            if orders and (self.bar[row] != bar or self.column[row] in seen):
                yield bar, orders
                orders, seen = [], set()
            bar = int(self.bar[row])
            orders.append(row)
            seen.add(self.column[row])
        if orders:
            yield bar, orders


def read_orders(orders: Any, index: pd.Index, arrangement: Layout, lanes: Any) -> OrderSheet:
    known = orders._source.lanes if isinstance(orders, OrderTable) and lanes is None else None
    if isinstance(orders, np.ndarray) and orders.dtype.names:
        orders = pd.DataFrame({name: orders[name] for name in orders.dtype.names})
    if not isinstance(orders, pd.DataFrame):
        raise TypeError(f"orders: expected a DataFrame or a structured array of orders, got {type(orders).__name__}")
    names = _names(orders)
    levels = [] if lanes is None else [lanes] if isinstance(lanes, str) else list(lanes)
    if known is not None:
        levels = [name for name in known.names if name not in arrangement.levels]
    missing = [name for name in levels if name not in orders.columns]
    if missing:
        raise ValueError(f"lanes: the orders have no column {missing[0]!r}, only {list(orders.columns)}")
    combination, combinations = _combinations(orders, levels, known)
    size = _numbers(orders, names, "size")
    side = _sides(orders, names)
    bad = ~np.isfinite(size) | (size == 0) | ((size < 0) & (side != 0))
    if bad.any():
        expected = "> 0, since there is a side" if side.any() else "other than 0"
        raise ValueError(f"orders: sizes must be finite and {expected}; row {np.argmax(bad)} has {size[bad][0]:g}")
    price = _numbers(orders, names, "price")
    if (~(price > 0) | np.isinf(price)).any():
        row = int(np.argmax(~(price > 0) | np.isinf(price)))
        raise ValueError(f"orders: prices must be finite and > 0; row {row} has {price[row]:g}")
    fees = _numbers(orders, names, "fees") if "fees" in names else np.zeros(len(orders))
    if not np.isfinite(fees).all():
        raise ValueError(
            f"orders: fees must be finite; row {np.argmin(np.isfinite(fees))} has {fees[~np.isfinite(fees)][0]:g}"
        )
    column, bar = _columns(orders, names, arrangement), _bars(orders, names, index)
    sequence = np.lexsort((bar, combination))
    signed = np.where(side == 0, size, side * size)
    sheet = OrderSheet(combination, column, bar, signed, price, fees, combinations)
    return sheet.take(sequence)


def _names(orders: pd.DataFrame) -> dict[str, Any]:
    """Which column of the table is which."""
    lower = {str(name).lower(): name for name in reversed(orders.columns)}
    names = {key: lower[alias] for key, aliases in NAMES.items() for alias in reversed(aliases) if alias in lower}
    for one, other in (("asset", "col"), ("timestamp", "idx"), ("size", "size"), ("price", "price")):
        if one not in names and other not in names:
            raise ValueError(f"orders: there is no column {one!r}, only {[str(name) for name in orders.columns]}")
    return names


def _numbers(orders: pd.DataFrame, names: dict[str, Any], key: str) -> np.ndarray:
    values = _column(orders, names[key])
    if not pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
        raise TypeError(f"orders: the column {names[key]!r} must hold numbers, not {values.dtype}")
    return values.to_numpy(np.float64, na_value=np.nan)


def _column(orders: pd.DataFrame, name: Any) -> pd.Series:
    """One column; the last of those with this name, as a lane level may be called like a column of ours."""
    return orders.iloc[:, int(np.flatnonzero(orders.columns == name)[-1])]


def _sides(orders: pd.DataFrame, names: dict[str, Any]) -> np.ndarray:
    """1 for a purchase, -1 for a sale; 0 throughout if there is no such column."""
    if "side" not in names:
        return np.zeros(len(orders))
    meanings = {"buy": 1, "sell": -1, str(int(OrderSide.BUY)): 1, str(int(OrderSide.SELL)): -1}
    sides = [meanings.get(str(x).lower(), 0) for x in _column(orders, names["side"])]
    if 0 in sides:
        wrong = _column(orders, names["side"]).iloc[sides.index(0)]
        raise ValueError(f"orders: a side is 'Buy' or 'Sell', row {sides.index(0)} has {wrong!r}")
    return np.array(sides, float)


def _combinations(orders: pd.DataFrame, levels: list, known: pd.Index | None) -> tuple[np.ndarray, pd.DataFrame]:
    """The portfolio of each order, and the labels of all of them."""
    if not levels:
        return np.zeros(len(orders), int), pd.DataFrame(index=range(1))
    given = pd.DataFrame({name: orders.iloc[:, int(np.flatnonzero(orders.columns == name)[0])] for name in levels})
    every = given if known is None else pd.DataFrame({name: known.get_level_values(name) for name in levels})
    labels = every.drop_duplicates(ignore_index=True)
    place = pd.MultiIndex.from_frame(labels).get_indexer(pd.MultiIndex.from_frame(given))
    return place, labels


def _columns(orders: pd.DataFrame, names: dict[str, Any], arrangement: Layout) -> np.ndarray:
    """The price-frame column of each order."""
    if "asset" not in names:
        column = _column(orders, names["col"]).to_numpy(np.int64)
        if len(column) and not (column.min() >= 0 and column.max() < len(arrangement.columns)):
            raise ValueError(f"orders: col must be from 0 to {len(arrangement.columns) - 1}, the columns of close")
        return column
    assets = _column(orders, names["asset"])
    wanted = pd.Index(assets) if len(assets) else arrangement.columns[:0]
    if arrangement.levels and all(name in orders.columns for name in arrangement.levels):
        keys = [orders.iloc[:, int(np.flatnonzero(orders.columns == name)[0])] for name in arrangement.levels]
        wanted = pd.MultiIndex.from_arrays([*keys, assets])
        group = np.empty(len(arrangement.columns), int)
        for number, members in enumerate(arrangement.members):
            group[members] = number
        there = [labels.take(group) for labels in arrangement.levels.values()]
        have = pd.MultiIndex.from_arrays([*there, arrangement.assets])
    else:
        have = arrangement.columns if wanted.nlevels == arrangement.columns.nlevels else arrangement.assets
        if have.has_duplicates:
            raise ValueError(f"orders: an asset may be in several groups; the table needs {list(arrangement.levels)}")
    places = have.get_indexer(wanted)
    if (places < 0).any():
        raise ValueError(f"orders: close has no column for {wanted[int(np.argmax(places < 0))]!r}")
    return places


def _bars(orders: pd.DataFrame, names: dict[str, Any], index: pd.Index) -> np.ndarray:
    """The bar of each order."""
    if "timestamp" not in names:
        bar = _column(orders, names["idx"]).to_numpy(np.int64)
        if len(bar) and not (bar.min() >= 0 and bar.max() < len(index)):
            raise ValueError(f"orders: idx must be from 0 to {len(index) - 1}, the bars of close")
        return bar
    times = pd.Index(_column(orders, names["timestamp"]))
    if len(times) == 0:
        return np.zeros(0, int)
    if isinstance(index, pd.DatetimeIndex) and not isinstance(times, pd.DatetimeIndex):
        times = pd.DatetimeIndex(times)
    places = index.get_indexer(times)
    if (places < 0).any():
        raise ValueError(f"orders: {times[int(np.argmax(places < 0))]} is not in the time index of close")
    return places
