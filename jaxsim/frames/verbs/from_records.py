"""`from_records`: a table of orders that were filled elsewhere becomes a portfolio."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.engine.base.enums import OrderSide
from jaxsim.engine.base.fields import CASH, PRICE, SIZE
from jaxsim.engine.score import read_start
from jaxsim.engine.trading.status import OrderStatusInfo
from jaxsim.frames.inputs.bars_per_year import BarsPerYear
from jaxsim.frames.inputs.benchmark import Benchmark, read_benchmark
from jaxsim.frames.inputs.durations import Duration
from jaxsim.frames.inputs.groups import GroupLayout, Groups, layout
from jaxsim.frames.inputs.labels import lane_index
from jaxsim.frames.inputs.prices import Table, checked_prices, valuation_prices
from jaxsim.frames.results.backtest import Backtest
from jaxsim.frames.results.ledger import Ledger
from jaxsim.frames.results.paths import Paths, RunContext
from jaxsim.frames.results.records.orders import OrderTable
from jaxsim.reference import AccountState, bought, sold

#: A table of orders, or a structured array of records.
Orders = pd.DataFrame | np.ndarray


def from_records(
    orders: Orders,
    close: Table,
    *,
    open: Table | None = None,
    init_cash: float | Sequence[float] | np.ndarray | pd.Series = 100.0,
    groups: Groups | None = None,
    by: Hashable = None,
    lanes: str | Sequence[str] | None = None,
    start: int = 0,
    benchmark: Benchmark | None = None,
    freq: Duration | None = None,
    year_freq: Duration | None = None,
    bars_per_year: float | None = None,
) -> Backtest:
    """A portfolio from orders that were filled elsewhere: by an exchange, by vectorbt, or by an earlier run.

    orders: a DataFrame with the columns asset (or column, symbol), timestamp (or time, date), size in units, price,
        and where there are any fees (currency) and side ("Buy" or "Sell"; without it the sign of the size says which);
        as `Backtest.orders` and vectorbt's `records_readable` are. Or records, a structured array or DataFrame with the
        numbers `col` and `idx` instead of asset and timestamp. Orders of one bar were executed as they stand.
    close: prices [time, asset] that positions are marked at.       open: what they are valued at before a bar.
    init_cash: opening cash of each group, currency; a number, or one for each lane (a Series by its label).
    groups, by: as in `js.backtest`. Where columns have several levels, the table has them as columns too.
    lanes: names of columns that tell several portfolios apart; those of a `Backtest.orders` are known.
    start: the first bar that metrics count.
    benchmark, freq, year_freq, bars_per_year: as in `js.backtest`.

    The result has everything that a result of `js.backtest` has, except `allocations` and the targets in `decisions`:
    without a policy they are unknown. Cash may fall below zero, with a warning.

    Raises TypeError or ValueError naming what is wrong with the table.
    """
    prices = checked_prices(close, open)
    arrangement = layout(prices.columns, groups, by)
    table = _read_orders(orders, prices.index, arrangement, lanes)
    labels = _lane_labels(table.combinations, arrangement)
    num_lanes = len(table.combinations) * arrangement.num_groups
    opening = _opening_cash(init_cash, labels, num_lanes)
    val_price = valuation_prices(prices.close, prices.open)
    ledgers = [_ledger(table, arrangement, groups_, opening, val_price) for groups_ in arrangement.batches()]
    poorest = min((ledger.cash.min(initial=0.0) for ledger in ledgers), default=0.0)
    if poorest < -1e-9 * opening.max():
        warnings.warn(
            f"the orders cost more than the account had: cash falls to {poorest:g}; see init_cash", stacklevel=2
        )
    annual = BarsPerYear(prices.index).said(freq, year_freq, bars_per_year)
    given = read_benchmark(benchmark, prices.index, arrangement, prices.close)
    starts = np.full(num_lanes, read_start(start, len(prices.index)))
    context = RunContext(
        prices.index,
        arrangement,
        prices.close,
        prices.mark,
        opening,
        starts,
        annual,
        is_of_orders=True,
        benchmark=None if given is None else given.by_lane(len(table.combinations)),
    )
    return Backtest(Paths(context, ledgers), labels)


def _lane_labels(combinations: pd.DataFrame, arrangement: GroupLayout) -> pd.Index | None:
    groups = arrangement.num_groups
    levels = {str(name): pd.Index(combinations[name]).repeat(groups) for name in combinations.columns}
    for name, labels in arrangement.levels.items():
        levels[name] = labels.take(np.tile(np.arange(groups), len(combinations)))
    return lane_index(levels)


def _opening_cash(
    init_cash: float | Sequence[float] | np.ndarray | pd.Series, labels: pd.Index | None, num_lanes: int
) -> np.ndarray:
    if isinstance(init_cash, pd.Series):
        if labels is None or not labels.isin(init_cash.index).all():
            raise ValueError("init_cash: the labels of the Series are not those of the lanes")
        init_cash = init_cash.loc[labels].to_numpy()
    values = CASH.read(init_cash, "init_cash")
    if values.shape not in ((), (num_lanes,)):
        raise ValueError(f"init_cash: expected one number, or one for each of {num_lanes} lanes, got {values.shape}")
    return np.broadcast_to(values, (num_lanes,))


# --- the table of orders


#: The names that the columns of a table of orders may have, in upper or lower case.
_NAMES = {
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
class FilledOrders:
    """Filled orders as arrays, [order], in the order of their execution.

    combination, column, bar: numbers of the portfolio, of the price-frame column, and of the bar.
    size: units, > 0 for a purchase.    price, fees: currency.
    combinations: a row of labels for each portfolio, a column for each level; one row without columns if there are no
        labels.
    """

    combination: np.ndarray
    column: np.ndarray
    bar: np.ndarray
    size: np.ndarray
    price: np.ndarray
    fees: np.ndarray
    combinations: pd.DataFrame

    def take(self, rows: np.ndarray) -> "FilledOrders":
        arrays = {name: values[rows] for name, values in vars(self).items() if name != "combinations"}
        return FilledOrders(**arrays, combinations=self.combinations)

    def rounds(self, rows: np.ndarray) -> Iterable[tuple[int, list[int]]]:
        """The bar and the rows of each round of orders, among some rows. A second order for an asset begins a new round
        of the bar."""
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


def _read_orders(
    orders: Orders, index: pd.Index, arrangement: GroupLayout, lanes: str | Sequence[str] | None
) -> FilledOrders:
    """Raises TypeError or ValueError naming `orders` or `lanes` for what is wrong with the table."""
    known = orders._source.lanes if isinstance(orders, OrderTable) and lanes is None else None
    refuse_masked(orders, "orders")
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
    # A sale at a price of zero is the end of what has become worthless.
    sells = (side < 0) | ((side == 0) & (size < 0))
    is_bad = ~((price > 0) | ((price == 0) & sells)) | np.isinf(price)
    is_far = ~is_bad & (price != 0) & ((price <= PRICE.low) | (price > PRICE.high))
    for name, numbers, far in (("prices", price, is_far), ("sizes", size, np.abs(size) > SIZE.high)):
        if far.any():
            low = f"above {PRICE.low:g} and " if name == "prices" else ""
            row = int(np.argmax(far))
            raise ValueError(f"orders: {name} must be {low}up to {SIZE.high:g}; row {row} has {numbers[row]:g}")
    if is_bad.any():
        row = int(np.argmax(is_bad))
        raise ValueError(f"orders: prices must be finite and > 0; row {row} has {price[row]:g}")
    fees = _numbers(orders, names, "fees") if "fees" in names else np.zeros(len(orders))
    if not np.isfinite(fees).all():
        raise ValueError(
            f"orders: fees must be finite; row {np.argmin(np.isfinite(fees))} has {fees[~np.isfinite(fees)][0]:g}"
        )
    column, bar = _columns(orders, names, arrangement), _bars(orders, names, index)
    sequence = np.lexsort((bar, combination))
    signed = np.where(side == 0, size, side * size)
    return FilledOrders(combination, column, bar, signed, price, fees, combinations).take(sequence)


def _names(orders: pd.DataFrame) -> dict[str, Hashable]:
    """Which column of the table is which."""
    lower = {str(name).lower(): name for name in reversed(orders.columns)}
    names = {key: lower[alias] for key, aliases in _NAMES.items() for alias in reversed(aliases) if alias in lower}
    for one, other in (("asset", "col"), ("timestamp", "idx"), ("size", "size"), ("price", "price")):
        if one not in names and other not in names:
            raise ValueError(f"orders: there is no column {one!r}, only {[str(name) for name in orders.columns]}")
    return names


def _numbers(orders: pd.DataFrame, names: dict[str, Hashable], key: str) -> np.ndarray:
    values = _column(orders, names[key])
    if not pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
        raise TypeError(f"orders: the column {names[key]!r} must hold numbers, not {values.dtype}")
    return values.to_numpy(np.float64, na_value=np.nan)


def _whole_numbers(orders: pd.DataFrame, names: dict[str, Hashable], key: str) -> np.ndarray:
    numbers = _numbers(orders, names, key)
    bad = ~np.isfinite(numbers) | (numbers != np.round(numbers))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"orders: {key} must be whole numbers; row {row} has {numbers[row]:g}")
    return numbers.astype(np.int64)


def _column(orders: pd.DataFrame, name: Hashable) -> pd.Series:
    """One column. A lane level may have the same name: columns of orders come after it, so the last one counts."""
    return orders.iloc[:, int(np.flatnonzero(orders.columns == name)[-1])]


def _sides(orders: pd.DataFrame, names: dict[str, Hashable]) -> np.ndarray:
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


def _columns(orders: pd.DataFrame, names: dict[str, Hashable], arrangement: GroupLayout) -> np.ndarray:
    """The price-frame column of each order."""
    if "asset" not in names:
        column = _whole_numbers(orders, names, "col")
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


def _bars(orders: pd.DataFrame, names: dict[str, Hashable], index: pd.Index) -> np.ndarray:
    """The bar of each order."""
    if "timestamp" not in names:
        bar = _whole_numbers(orders, names, "idx")
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


# --- the ledger


def _ledger(
    table: FilledOrders, arrangement: GroupLayout, groups: np.ndarray, opening: np.ndarray, val_price: np.ndarray
) -> Ledger:
    """The fills of the groups of one size, as events. The orders of one bar are one event; if an asset was traded
    several times at that bar, there is one event for each round of orders."""
    size = len(arrangement.members[groups[0]])
    lanes = (np.arange(len(table.combinations))[:, None] * arrangement.num_groups + groups).ravel()
    columns = np.tile(np.stack([arrangement.members[g] for g in groups]), (len(table.combinations), 1))
    counts, events = [], []
    for lane, members in zip(lanes, columns, strict=True):
        asset_of = {int(column): n for n, column in enumerate(members)}
        is_of_lane = (table.combination == lane // arrangement.num_groups) & np.isin(table.column, members)
        of_lane = list(
            _events(table, np.flatnonzero(is_of_lane), asset_of, size, float(opening[lane]), val_price[:, members])
        )
        counts.append(len(of_lane))
        events += of_lane

    def stacked(name: str, shape: tuple[int, ...] = (), dtype: type = float) -> np.ndarray:
        return np.array([getattr(event, name) for event in events], dtype).reshape(-1, *shape)

    unknown = np.full((len(events), size), np.nan)
    info, trade = stacked("info", (size,), int), stacked("trade", (size,))
    return Ledger(
        lanes=lanes,
        columns=columns,
        counts=np.array(counts),
        bar=stacked("bar", (), int),
        excess=unknown,
        target=unknown,
        request=np.where(info == OrderStatusInfo.NONE, trade, np.nan),
        value=stacked("value"),
        cash=stacked("cash"),
        free_cash=stacked("free_cash"),
        units=stacked("units", (size,)),
        trade=trade,
        price=stacked("price", (size,)),
        fees=stacked("fees", (size,)),
        info=info,
        rank=stacked("rank", (size,), int),
        aux={},
        bar_aux={},
        val_price=stacked("val_price", (size,)),
    )


@dataclass(frozen=True)
class _Event:
    """The fields of a Ledger for one event."""

    bar: int
    value: float
    cash: float
    free_cash: float
    units: list[float]
    trade: list[float]
    price: list[float]
    fees: list[float]
    info: list[int]
    rank: list[int]
    val_price: np.ndarray


def _events(
    table: FilledOrders, rows: np.ndarray, asset_of: dict[int, int], num_assets: int, cash: float, val_price: np.ndarray
) -> Iterable[_Event]:
    free_cash, units, debt = cash, [0.0] * num_assets, [0.0] * num_assets
    for bar, orders in table.rounds(rows):
        prices = val_price[bar]
        value = cash + sum(u * p for u, p in zip(units, prices, strict=True) if u != 0)
        trade, price, fees = ([0.0] * num_assets for _ in range(3))
        info = [int(OrderStatusInfo.SIZE_NAN)] * num_assets
        place = {asset_of[int(table.column[row])]: rank for rank, row in enumerate(orders)}
        for row in orders:
            n = asset_of[int(table.column[row])]
            trade[n], price[n], fees[n] = (float(x[row]) for x in (table.size, table.price, table.fees))
            info[n] = int(OrderStatusInfo.NONE)
            state, amount = AccountState(cash, units[n], debt[n], free_cash, np.nan, np.nan), abs(trade[n]) * price[n]
            if trade[n] > 0:
                state = bought(state, trade[n], amount + fees[n])
            else:
                state = sold(state, -trade[n], amount - fees[n], price[n])
            cash, free_cash, units[n], debt[n] = state.cash, state.free_cash, state.position, state.debt
        rest = iter(range(len(place), num_assets))
        rank = [place[n] if n in place else next(rest) for n in range(num_assets)]
        yield _Event(bar, float(value), cash, free_cash, list(units), trade, price, fees, info, rank, prices)
