"""`from_records`: a table of orders that were filled elsewhere becomes a portfolio."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.trading.status import OrderStatusInfo
from jaxsim.frames.inputs.bars_per_year import bar_length, to_timedelta
from jaxsim.frames.inputs.groups import Layout, layout
from jaxsim.frames.inputs.labels import lane_index
from jaxsim.frames.inputs.price_arrays import valuation_prices
from jaxsim.frames.inputs.prices import checked_prices
from jaxsim.frames.results.backtest import Backtest
from jaxsim.frames.results.ledger import Ledger
from jaxsim.frames.results.paths import Paths, RunContext
from jaxsim.frames.verbs.order_sheet import OrderSheet, read_orders
from jaxsim.reference import AccountState, bought, sold


def from_records(
    orders: Any,
    close: pd.DataFrame | pd.Series,
    *,
    open: Any = None,
    init_cash: Any = 100.0,
    groups: Any = None,
    by: Any = None,
    lanes: Any = None,
    freq: Any = None,
    year_freq: Any = "365D",
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
    freq, year_freq: as in `js.backtest`.

    The result has everything that `js.backtest` gives, but for what only a policy can say: `allocations`, and what was
    asked for in `decisions`. Cash may fall below zero, with a warning.

    Raises TypeError or ValueError naming what is wrong with the table.
    """
    prices = checked_prices(close, open)
    arrangement = layout(prices.columns, groups, by)
    table = read_orders(orders, prices.index, arrangement, lanes)
    labels = _lane_labels(table.combinations, arrangement)
    num_lanes = len(table.combinations) * arrangement.num_groups
    opening = _opening_cash(init_cash, labels, num_lanes)
    val_price = valuation_prices(prices.close, prices.open)
    ledgers = [_ledger(table, arrangement, groups_, opening, val_price) for groups_ in arrangement.batches()]
    poorest = min((ledger.cash.min(initial=0.0) for ledger in ledgers), default=0.0)
    if poorest < -1e-9 * opening.max():
        warnings.warn(f"the orders cost more than there was: cash falls to {poorest:g}; see init_cash", stacklevel=2)
    bar, year = bar_length(prices.index, freq), to_timedelta(year_freq, "year_freq")
    context = RunContext(prices.index, arrangement, prices.close, prices.mark, opening, bar, year, is_of_orders=True)
    return Backtest(Paths(context, ledgers), labels)


def _lane_labels(combinations: pd.DataFrame, arrangement: Layout) -> pd.Index | None:
    groups = arrangement.num_groups
    levels = {str(name): pd.Index(combinations[name]).repeat(groups) for name in combinations.columns}
    for name, labels in arrangement.levels.items():
        levels[name] = labels.take(np.tile(np.arange(groups), len(combinations)))
    return lane_index(levels)


def _opening_cash(init_cash: Any, labels: pd.Index | None, num_lanes: int) -> np.ndarray:
    if isinstance(init_cash, pd.Series):
        if labels is None or not labels.isin(init_cash.index).all():
            raise ValueError("init_cash: the labels of the Series are not those of the lanes")
        init_cash = init_cash.loc[labels].to_numpy()
    values = np.asarray(init_cash)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"init_cash: expected numbers, got {init_cash!r}")
    if values.shape not in ((), (num_lanes,)):
        raise ValueError(f"init_cash: expected one number, or one for each of {num_lanes} lanes, got {values.shape}")
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError("init_cash: expected finite numbers > 0")
    return np.broadcast_to(values, (num_lanes,)).astype(np.float64)


def _ledger(
    table: OrderSheet, arrangement: Layout, groups: np.ndarray, opening: np.ndarray, val_price: np.ndarray
) -> Ledger:
    """The fills of the groups of one size, as events: the orders of one bar, or if an asset was traded several times
    there, one event for each round of them."""
    size = len(arrangement.members[groups[0]])
    lanes = (np.arange(len(table.combinations))[:, None] * arrangement.num_groups + groups).ravel()
    columns = np.tile(np.stack([arrangement.members[g] for g in groups]), (len(table.combinations), 1))
    counts, events = [], []
    for lane, members in zip(lanes, columns, strict=True):
        asset_of = {int(column): n for n, column in enumerate(members)}
        mine = (table.combination == lane // arrangement.num_groups) & np.isin(table.column, members)
        of_lane = list(
            _events(table, np.flatnonzero(mine), asset_of, size, float(opening[lane]), val_price[:, members])
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
    table: OrderSheet, rows: np.ndarray, asset_of: dict[int, int], num_assets: int, cash: float, val_price: np.ndarray
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
