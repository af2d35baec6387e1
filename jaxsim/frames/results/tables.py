"""The tables of a run: orders, logs, decisions, trades, positions, drawdowns and statistics."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from jaxsim.frames.results.labelled import Labels
from jaxsim.frames.results.paths import Paths
from jaxsim.frames.results.records import trades
from jaxsim.frames.results.records.decisions import decision_table, decisions_of
from jaxsim.frames.results.records.drawdowns import DrawdownTable, drawdowns
from jaxsim.frames.results.records.logs import LogTable, log_records
from jaxsim.frames.results.records.orders import OrderTable, order_records
from jaxsim.frames.results.records.record_tables import LaneRecords
from jaxsim.frames.results.records.trades import TradeTable, portfolio_rows
from jaxsim.frames.results.stats import portfolio_stats_table, returns_stats_table


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of a run, made when they are asked for; `Backtest` says what is in each.

    labels: of the run, with its paths.
    """

    labels: Labels

    @property
    def _paths(self) -> Paths:
        return self.labels.paths

    def _of_lanes(self, records: np.ndarray, lane: np.ndarray) -> LaneRecords:
        context = self._paths.context
        return LaneRecords(records, lane, self.labels.lanes, context.index, context.freq)

    def _assets(self, column: np.ndarray) -> pd.Index:
        """The name of the asset in each price-frame column."""
        return self._paths.context.layout.assets.take(column)

    @cached_property
    def order_records(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Records of the orders, the lane of each, and the price-frame column of each."""
        return order_records(self._paths.ledgers, self._paths.first_column)

    def orders(self) -> OrderTable:
        records, lane, column = self.order_records
        return OrderTable(self._of_lanes(records, lane), self._assets(column))

    def logs(self) -> LogTable:
        if any(ledger.log is None for ledger in self._paths.ledgers):
            raise ValueError("logs: none were kept; run it with log=True")
        records, lane, column = log_records(self._paths.ledgers, self._paths.first_column)
        return LogTable(self._of_lanes(records, lane), self._assets(column))

    def decisions(self) -> pd.DataFrame:
        context = self._paths.context
        return decision_table(
            decisions_of(self._paths.ledgers), context.layout.assets, context.index, self.labels.lanes
        )

    # --- trades

    @cached_property
    def _columns(self) -> np.ndarray:
        """The price-frame column of each column of the records."""
        return np.concatenate(self._paths.lane_columns)

    def _lanes_of_columns(self, records: np.ndarray) -> LaneRecords:
        lane = np.searchsorted(self._paths.first_column, records["col"], side="right") - 1
        return self._of_lanes(records, lane)

    def _trade_table(self, lanes: LaneRecords, with_position: bool = True) -> TradeTable:
        return TradeTable(lanes, self._assets(self._columns[lanes.records["col"]]), with_position=with_position)

    @cached_property
    def _exit_trades(self) -> LaneRecords:
        orders, _, _ = self.order_records
        return self._lanes_of_columns(trades.exit_trades(orders, self._paths.context.mark, self._columns))

    @cached_property
    def entry_trades(self) -> TradeTable:
        orders, _, _ = self.order_records
        records = trades.entry_trades(orders, self._paths.context.mark, self._columns)
        return self._trade_table(self._lanes_of_columns(records))

    @cached_property
    def exit_trades(self) -> TradeTable:
        return self._trade_table(self._exit_trades)

    @cached_property
    def positions(self) -> TradeTable:
        records = trades.positions(self._exit_trades.records)
        return self._trade_table(self._lanes_of_columns(records), with_position=False)

    @cached_property
    def drawdowns(self) -> DrawdownTable:
        records = drawdowns(self._paths.value)
        return DrawdownTable(self._of_lanes(records, records["col"]))

    # --- statistics

    def stats(self, bar_length: pd.Timedelta | None, ann_factor: float) -> pd.Series | pd.DataFrame:
        paths, labels = self._paths, self.labels
        table = portfolio_stats_table(
            labels.frame(paths.value),
            labels.frame(paths.returns),
            labels.frame(paths.benchmark_returns),
            labels.frame(paths.gross_exposure),
            pd.Series(paths.total_fees, index=labels.lane_numbers),
            pd.Series(paths.context.init_cash, index=labels.lane_numbers),
            bar_length,
            ann_factor,
            portfolio_rows(self._exit_trades),
        )
        return labels.one_or_all(table)

    def returns_stats(self, bar_length: pd.Timedelta | None, ann_factor: float) -> pd.Series | pd.DataFrame:
        paths, labels = self._paths, self.labels
        returns, benchmark = labels.frame(paths.returns), labels.frame(paths.benchmark_returns)
        return labels.one_or_all(returns_stats_table(returns, benchmark, bar_length, ann_factor))
