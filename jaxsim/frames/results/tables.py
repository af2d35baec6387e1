"""The tables of a result: orders, trades, positions, drawdowns, statistics."""

import abc
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.frames.results import trades
from jaxsim.frames.results.decisions import decision_table, decisions_of
from jaxsim.frames.results.drawdown_table import DrawdownTable
from jaxsim.frames.results.drawdowns import drawdowns
from jaxsim.frames.results.log_table import LogTable
from jaxsim.frames.results.logs import log_records
from jaxsim.frames.results.order_records import order_records
from jaxsim.frames.results.orders import OrderTable
from jaxsim.frames.results.paths import Paths
from jaxsim.frames.results.record_tables import LaneRecords
from jaxsim.frames.results.stats import portfolio_stats_table, returns_stats_table
from jaxsim.frames.results.trade_table import TradeTable, portfolio_rows


class Tables(abc.ABC):
    """Records of a `Backtest` as tables to read, each with `.records`, `.counts()` and `.stats()`, and the tables of
    statistics."""

    _paths: Paths
    _lanes: pd.Index | None

    @abc.abstractmethod
    def _bar_length(self, freq: Any) -> pd.Timedelta | None:
        """The length of a bar, if known; None for what the result knows itself."""

    @abc.abstractmethod
    def _ann_factor(self, freq: Any, year_freq: Any) -> float:
        """Bars per year; None for what the result knows itself."""

    def _of_lanes(self, records: np.ndarray, lane: np.ndarray) -> LaneRecords:
        return LaneRecords(records, lane, self._lanes, self._paths.context.index, self._paths.context.freq)

    # --- orders

    @cached_property
    def _orders(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return order_records(self._paths.ledgers, self._paths.first_column)

    @property
    def records(self) -> np.ndarray:
        """All orders as a structured array: id, col, idx, size, price, fees, side (rules 6.1). `col` counts the
        columns of `asset_value`."""
        return self._orders[0].copy()

    @property
    def orders(self) -> OrderTable:
        """All orders, by lane, bar and order of execution: id (within the lane), the lane levels, asset, timestamp,
        size (units, > 0), price, fees (currency), side ("Buy" or "Sell")."""
        records, lane, column = self._orders
        return OrderTable(self._of_lanes(records, lane), self._paths.context.layout.assets.take(column))

    @property
    def logs(self) -> LogTable:
        """Every order of every rebalance, filled or not: the account before it, what it asked for, the account after it
        and what became of it (rules 6.8). Raises ValueError unless the run kept them (`log=True`)."""
        if any(ledger.log is None for ledger in self._paths.ledgers):
            raise ValueError("logs: none were kept; run it with log=True")
        records, lane, column = log_records(self._paths.ledgers, self._paths.first_column)
        return LogTable(self._of_lanes(records, lane), self._paths.context.layout.assets.take(column))

    @property
    def decisions(self) -> pd.DataFrame:
        """Why each order did what it did: one row for every rebalance and asset, in the order of execution.

        rebalance: number within the lane; then the lane levels, asset, timestamp.
        part: from 0, which part of it, where rebalances are spread over several bars.
        weight: at the valuation price, before the rebalance.       last_target: asked for at the last one.
        drift: weight less last target.     excess: drift beyond the threshold, >= 0 where it was `breached`; NaN for
        rules that are not about single assets.
        target: what the allocator answered; with `size_type` and `direction` unless all are plain target weights.
        requested, filled, clipped: units, < 0 sold; what was asked for (infinite: all that can be), what was traded,
        and the size of what a fill left out.
        weight_after: as `weight`, after it.        price, fees: of the fill, with slippage; currency.
        status: "Filled", "Ignored" or "Rejected".      status_info: why not, as vectorbt names it.
        reason: why it was not filled, or not in full, in words.
        """
        context = self._paths.context
        return decision_table(decisions_of(self._paths.ledgers), context.layout.assets, context.index, self._lanes)

    # --- trades

    @cached_property
    def _columns(self) -> np.ndarray:
        """The price-frame column of each column of the records."""
        return np.concatenate(self._paths.lane_columns)

    @cached_property
    def _exit_trades(self) -> LaneRecords:
        return self._trades(trades.exit_trades(self._orders[0], self._paths.context.mark, self._columns))

    def _trades(self, records: np.ndarray) -> LaneRecords:
        lane = np.searchsorted(self._paths.first_column, records["col"], side="right") - 1
        return self._of_lanes(records, lane)

    def _trade_table(self, lanes: LaneRecords, with_position: bool = True) -> TradeTable:
        assets = self._paths.context.layout.assets.take(self._columns[lanes.records["col"]])
        return TradeTable(lanes, assets, with_position=with_position)

    @cached_property
    def entry_trades(self) -> TradeTable:
        """One trade for every order that opens or increases a position, with the average exit of that position."""
        records = trades.entry_trades(self._orders[0], self._paths.context.mark, self._columns)
        return self._trade_table(self._trades(records))

    @cached_property
    def exit_trades(self) -> TradeTable:
        """One trade for every order that reduces a position, with the average entry of that position; what is still
        held at the end is an open trade, at the last close."""
        return self._trade_table(self._exit_trades)

    @property
    def trades(self) -> TradeTable:
        """The same as `exit_trades`, which statistics are about."""
        return self.exit_trades

    @cached_property
    def positions(self) -> TradeTable:
        """Positions, from the first entry until nothing is held: the trades of each as one."""
        return self._trade_table(self._trades(trades.positions(self._exit_trades.records)), with_position=False)

    # --- drawdowns

    @cached_property
    def drawdowns(self) -> DrawdownTable:
        """Drawdowns of the value after its first bar, from the peak through the valley to the recovery."""
        records = drawdowns(self._paths.value)
        return DrawdownTable(self._of_lanes(records, records["col"]))

    # --- statistics

    def stats(self, *, freq: Any = None, year_freq: Any = None) -> pd.Series | pd.DataFrame:
        """The usual table (rules 8.1): a Series for one lane, a DataFrame [lane, statistic] otherwise.

        freq, year_freq: length of a bar and of a year, if other than those of the run. Trades are exit trades, judged
        by those that are closed.

        Raises ValueError if the length of a bar is not known; so does `returns_stats`.
        """
        paths, labels = self._paths, self._frame_columns
        table = portfolio_stats_table(
            self._frame(paths.value),
            self._frame(paths.returns),
            self._frame(paths.benchmark_returns),
            self._frame(paths.gross_exposure),
            pd.Series(paths.total_fees, index=labels),
            pd.Series(paths.context.init_cash, index=labels),
            self._bar_length(freq),
            self._ann_factor(freq, year_freq),
            portfolio_rows(self._exit_trades),
        )
        return self._one_or_all(table)

    def returns_stats(self, *, freq: Any = None, year_freq: Any = None) -> pd.Series | pd.DataFrame:
        """The table of return statistics (rules 8.3), as `stats`."""
        paths = self._paths
        returns, benchmark = self._frame(paths.returns), self._frame(paths.benchmark_returns)
        return self._one_or_all(
            returns_stats_table(returns, benchmark, self._bar_length(freq), self._ann_factor(freq, year_freq))
        )

    @property
    def _frame_columns(self) -> pd.Index:
        return pd.RangeIndex(1) if self._lanes is None else self._lanes

    def _frame(self, path: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(path, index=self._paths.context.index, columns=self._frame_columns)

    def _one_or_all(self, table: pd.DataFrame) -> pd.Series | pd.DataFrame:
        return table.iloc[0].rename(None) if self._lanes is None else table
