"""The tables of a run: orders, logs, decisions, trades, positions, drawdowns and statistics."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from jaxsim.frames.results.labelled import Labels
from jaxsim.frames.results.paths import Paths
from jaxsim.frames.results.records import trades
from jaxsim.frames.results.records.decisions import decision_table, decisions_of
from jaxsim.frames.results.records.drawdowns import DrawdownTable, drawdowns
from jaxsim.frames.results.records.incidents import incident_table
from jaxsim.frames.results.records.logs import LogTable, log_records
from jaxsim.frames.results.records.orders import OrderTable, opening_records, order_reasons, order_records
from jaxsim.frames.results.records.record_tables import LaneRecords
from jaxsim.frames.results.records.trades import TradeTable, portfolio_rows
from jaxsim.frames.results.stats import portfolio_stats_table, returns_stats_table

#: The statistics of a lane none of whose bars counts.
_SUMS = (
    *("End", "Start Value", "End Value", "Total Fees Paid", "Bars per Year"),
    *("Total Trades", "Total Closed Trades", "Total Open Trades", "Open Trade PnL"),
)


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
        return LaneRecords(records, lane, self.labels.lanes, context.index, context.annual.bar)

    def _assets(self, column: np.ndarray) -> pd.Index:
        """The name of the asset in each price-frame column."""
        return self._paths.context.layout.assets.take(column)

    @cached_property
    def order_records(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Records of the orders, the lane of each, and the price-frame column of each."""
        return order_records(self._paths.ledgers, self._paths.first_column)

    def orders(self) -> OrderTable:
        records, lane, column = self.order_records
        return OrderTable(self._of_lanes(records, lane), self._assets(column), order_reasons(self._paths.ledgers))

    def logs(self) -> LogTable:
        if any(ledger.log is None for ledger in self._paths.ledgers):
            raise ValueError("logs: none were kept; run it with log=True")
        records, lane, column = log_records(self._paths.ledgers, self._paths.first_column)
        return LogTable(self._of_lanes(records, lane), self._assets(column))

    def incidents(self) -> pd.DataFrame:
        return incident_table(self._paths, self.labels.lanes)

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

    @property
    def _orders_and_openings(self) -> np.ndarray:
        """The orders, and before them of a stretch what was held before it, as if it were bought at its value then."""
        orders, _, _ = self.order_records
        opened = opening_records(self._paths.ledgers, self._paths.first_column)
        return np.concatenate([opened, orders]) if len(opened) else orders

    def _lanes_of_columns(self, records: np.ndarray) -> LaneRecords:
        lane = np.searchsorted(self._paths.first_column, records["col"], side="right") - 1
        return self._of_lanes(records, lane)

    def _trade_table(self, lanes: LaneRecords, with_position: bool = True) -> TradeTable:
        return TradeTable(lanes, self._assets(self._columns[lanes.records["col"]]), with_position=with_position)

    @cached_property
    def _exit_trades(self) -> LaneRecords:
        orders = self._orders_and_openings
        return self._lanes_of_columns(trades.exit_trades(orders, self._paths.context.mark, self._columns))

    @cached_property
    def entry_trades(self) -> TradeTable:
        orders = self._orders_and_openings
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
        value, start = self._paths.value, self._paths.context.start
        if start.any():
            value = np.where(np.arange(len(value))[:, None] >= start, value, np.nan)
        records = drawdowns(value)
        return DrawdownTable(replace(self._of_lanes(records, records["col"]), start=start))

    # --- statistics

    def stats(self, bar_length: pd.Timedelta | None, ann_factor: float) -> pd.Series | pd.DataFrame:
        return self._from_start(lambda tables: tables._portfolio_stats(bar_length, ann_factor))

    def _portfolio_stats(self, bar_length: pd.Timedelta | None, ann_factor: float) -> pd.DataFrame:
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
        table.insert(list(table).index("Sharpe Ratio"), "Bars per Year", ann_factor)
        return table

    def returns_stats(self, bar_length: pd.Timedelta | None, ann_factor: float) -> pd.Series | pd.DataFrame:
        return self._from_start(lambda tables: tables._returns_stats(bar_length, ann_factor))

    def _returns_stats(self, bar_length: pd.Timedelta | None, ann_factor: float) -> pd.DataFrame:
        paths, labels = self._paths, self.labels
        returns, benchmark = labels.frame(paths.returns), labels.frame(paths.benchmark_returns)
        table = returns_stats_table(returns, benchmark, bar_length, ann_factor)
        is_ruined = paths.ruined_at < len(paths.value)
        if is_ruined.any():
            table.loc[is_ruined, "Total Return [%]"] = 100 * (paths.value[-1] / paths.opened - 1)[is_ruined]
        return table

    def _from_start(self, table: Callable[["Tables"], pd.DataFrame]) -> pd.Series | pd.DataFrame:
        """A table [lane, statistic] of the bars that metrics count; of a lane without any, only sums are known."""
        labels, numbers, parts = self.labels, [], []
        for lanes, paths in self._paths.from_start():
            own = labels.lanes if labels.lanes is None else labels.lanes.take(lanes)
            part = table(self if paths is self._paths else Tables(Labels(paths, own)))
            if (paths.context.start > 0).any():
                part[[title for title in part if title not in _SUMS]] = np.nan
            parts.append(part)
            numbers.append(lanes)
        if len(parts) == 1:
            return labels.one_or_all(parts[0])
        joined = pd.concat(parts).iloc[np.argsort(np.concatenate(numbers))]
        return joined.set_axis(labels.lane_numbers)
