"""Paths and totals of all lanes, computed from the ledgers of a run, as arrays without labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from jaxsim.engine.base.enums import Direction, SizeType
from jaxsim.engine.metrics import returns as metrics
from jaxsim.frames.inputs.bars_per_year import BarsPerYear
from jaxsim.frames.inputs.benchmark import BenchmarkGrowth, BenchmarkPrices
from jaxsim.frames.inputs.groups import GroupLayout
from jaxsim.frames.results.ledger import Ledger


@dataclass(frozen=True, eq=False)
class RunContext:
    """The inputs of a run that its result keeps.

    index: time labels.     layout: groups and asset names.     close, mark: prices, [time, column].
    init_cash: value of each lane before the first bar, currency, [lane]: of its cash and holdings.
    start: the first bar of each lane that metrics count, [lane] (rules 7.17).
    annual: how many bars make a year, from all bars of the run.
    is_of_orders: whether the portfolio was made of filled orders, whose targets are unknown.
    benchmark: the prices that each lane is compared with; None: equal amounts of its assets.
    benchmark_path: of a stretch of a run: the value of the benchmark before its first bar and after each, [1 + time,
        lane], currency; None: to be told from prices.
    """

    index: pd.Index
    layout: GroupLayout
    close: np.ndarray
    mark: np.ndarray
    init_cash: np.ndarray
    start: np.ndarray
    annual: BarsPerYear
    is_of_orders: bool = False
    benchmark: BenchmarkPrices | None = None
    benchmark_path: np.ndarray | None = None

    def take(self, lanes: np.ndarray) -> "RunContext":
        """That of some lanes, by number."""
        path = None if self.benchmark_path is None else self.benchmark_path[:, lanes]
        given = None if self.benchmark is None else self.benchmark.take(lanes)
        return replace(
            self, init_cash=self.init_cash[lanes], start=self.start[lanes], benchmark=given, benchmark_path=path
        )


@dataclass(frozen=True, eq=False)
class Paths:
    """All lanes of a result. Paths are [time, lane], totals [lane]; amounts are currency."""

    context: RunContext
    ledgers: Sequence[Ledger]

    @property
    def num_lanes(self) -> int:
        return len(self.context.init_cash)

    def take(self, chosen: np.ndarray) -> "Paths":
        """The lanes of these numbers, in this order."""
        ledgers = []
        for ledger in self.ledgers:
            place = np.full(self.num_lanes, -1)
            place[ledger.lanes] = np.arange(len(ledger.lanes))
            positions = np.flatnonzero(place[chosen] >= 0)
            if len(positions):
                ledgers.append(ledger.take(place[chosen[positions]], positions))
        return Paths(self.context.take(chosen), ledgers)

    def cut(self, begin: int, end: int) -> "Paths":
        """The bars from `begin` to `end` - 1. What was held before them is opened at its value then."""
        c = self.context
        before, benchmark = c.init_cash, self._benchmark_path
        if begin > 0:
            before = self.value[begin - 1]
        context = replace(
            c,
            index=c.index[begin:end],
            close=c.close[begin:end],
            mark=c.mark[begin:end],
            init_cash=before,
            start=np.maximum(c.start - begin, 0),
            benchmark_path=benchmark[begin : end + 1],
        )
        marks = c.mark[max(begin - 1, 0)]
        return Paths(context, [x.cut(begin, end, c.init_cash[x.lanes], marks) for x in self.ledgers])

    def from_start(self) -> "Iterator[tuple[np.ndarray, Paths]]":
        """The bars that metrics count: the numbers of the lanes that share a start, and these lanes from it on, so that
        they start at their bar 0; lanes without any such bar come whole."""
        for start in np.unique(self.context.start):
            lanes = np.flatnonzero(self.context.start == start)
            some = self if len(lanes) == self.num_lanes else self.take(lanes)
            is_whole = start == 0 or start >= len(self.context.index)
            yield lanes, some if is_whole else some.cut(int(start), len(self.context.index))

    # --- columns: every lane has its assets, one after the other

    @cached_property
    def lane_columns(self) -> list[np.ndarray]:
        """Price-frame columns of every lane."""
        columns: list = [None] * self.num_lanes
        for ledger in self.ledgers:
            for lane, members in zip(ledger.lanes, ledger.columns, strict=True):
                columns[lane] = members
        return columns

    @cached_property
    def first_column(self) -> np.ndarray:
        """Number of the first (lane, asset) column of each lane; the last entry is the number of all columns."""
        return np.concatenate([[0], np.cumsum([len(c) for c in self.lane_columns])])

    def by_asset(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Paths [lane of the ledger, asset, time], one array per ledger, as [time, (lane, asset)]."""
        out = np.empty((self.first_column[-1], len(self.context.index)))
        for ledger, path in zip(self.ledgers, parts, strict=True):
            places = self.first_column[ledger.lanes][:, None] + np.arange(ledger.columns.shape[1])
            out[places.ravel()] = path.reshape(-1, path.shape[-1])
        return out.T

    def by_lane(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Arrays [lane of the ledger, ...], one per ledger, as one array [lane, ...]."""
        if len(parts) == 1:
            return parts[0]
        out = np.empty((self.num_lanes, *parts[0].shape[1:]), parts[0].dtype)
        for ledger, part in zip(self.ledgers, parts, strict=True):
            out[ledger.lanes] = part
        return out

    @cached_property
    def assets(self) -> pd.Index:
        """The names of all assets in any lane."""
        columns = np.sort(np.unique(np.concatenate(self.lane_columns)))
        return self.context.layout.assets.take(columns).unique()

    @cached_property
    def _asset_of_column(self) -> np.ndarray:
        return self.assets.get_indexer(self.context.layout.assets)

    @cached_property
    def is_member(self) -> np.ndarray:
        """Whether each lane has each of `assets`, bool [lane, asset]."""
        out = np.zeros((self.num_lanes, len(self.assets)), bool)
        for lane, columns in enumerate(self.lane_columns):
            out[lane, self._asset_of_column[columns]] = True
        return out

    # --- paths

    @cached_property
    def value(self) -> np.ndarray:
        c = self.context
        return self.by_lane([x.value_path(c.init_cash[x.lanes], c.mark) for x in self.ledgers]).T

    @cached_property
    def cash(self) -> np.ndarray:
        c = self.context
        return self.by_lane([x.cash_path(c.init_cash[x.lanes], len(c.index)) for x in self.ledgers]).T

    @cached_property
    def returns(self) -> np.ndarray:
        return metrics.returns_from_value(self.value, self.context.init_cash)

    @property
    def opened(self) -> np.ndarray:
        """Value of each lane before the first bar that metrics count, [lane], currency."""
        before = np.minimum(self.context.start, len(self.value)) - 1
        value = self.value[np.maximum(before, 0), np.arange(self.num_lanes)]
        return np.where(before < 0, self.context.init_cash, value)

    @cached_property
    def ruined_at(self) -> np.ndarray:
        """The first bar after which the account of each lane was worth nothing, [lane]: -1 if it was before the first
        bar, the number of bars if it never was."""
        bars = np.where((self.value <= 0).any(axis=0), np.argmax(self.value <= 0, axis=0), len(self.value))
        return np.where(self.context.init_cash <= 0, -1, bars)

    @cached_property
    def units(self) -> list[np.ndarray]:
        """One array [lane of the ledger, asset, time] per ledger; all paths by asset have this form."""
        return [x.units_path(len(self.context.index)) for x in self.ledgers]

    @property
    def asset_value(self) -> list[np.ndarray]:
        prices = np.where(np.isnan(self.context.mark), 0.0, self.context.mark).T  # not held before its first price
        return [units * prices[x.columns] for units, x in zip(self.units, self.ledgers, strict=True)]

    @property
    def weights(self) -> list[np.ndarray]:
        values = self.value.T
        return [
            ratio_or_zero(a, values[x.lanes][:, None, :]) for a, x in zip(self.asset_value, self.ledgers, strict=True)
        ]

    @property
    def gross_exposure(self) -> np.ndarray:
        c = self.context
        invested = self.by_lane([np.abs(a).sum(axis=1) for a in self.asset_value]).T
        free = self.by_lane([x.free_cash_path(c.init_cash[x.lanes], len(c.index)) for x in self.ledgers]).T
        return ratio_or_zero(invested, invested + free)

    @cached_property
    def _benchmark_path(self) -> np.ndarray:
        """Value of the benchmark before the first bar and after each, [1 + time, lane]."""
        c = self.context
        if c.benchmark_path is not None:
            return c.benchmark_path
        given = c.benchmark
        growth = BenchmarkGrowth(c.close if given is None else given.prices)
        bought = self.lane_columns if given is None else given.series_of[:, None]
        path = np.empty((1 + len(c.index), self.num_lanes))
        path[0] = 1.0
        for lane, (columns, start) in enumerate(zip(bought, c.start, strict=True)):
            path[1:, lane] = growth.of(columns, int(start))
        return path * c.init_cash

    @property
    def benchmark_value(self) -> np.ndarray:
        return self._benchmark_path[1:]

    @property
    def benchmark_returns(self) -> np.ndarray:
        return metrics.returns_from_value(self.benchmark_value, self._benchmark_path[0])

    @property
    def rebalances(self) -> np.ndarray:
        out = np.zeros((len(self.context.index), self.num_lanes), bool)
        for ledger in self.ledgers:
            out[ledger.bar[ledger.decided], ledger.lanes[ledger.lane_of_event[ledger.decided]]] = True
        return out

    # --- totals

    def total(self, per_event: Sequence[np.ndarray]) -> np.ndarray:
        """Amounts [event], one array per ledger, summed by lane."""
        out = np.zeros(self.num_lanes)
        for ledger, amounts in zip(self.ledgers, per_event, strict=True):
            out[ledger.lanes] = np.bincount(ledger.lane_of_event, amounts, minlength=len(ledger.lanes))
        return out

    @property
    def turnover_two_way(self) -> np.ndarray:
        traded = [np.where(x.filled, np.abs(x.trade) * x.price, 0.0).sum(axis=1) for x in self.ledgers]
        return self._from_start([ratio_or_zero(t, np.abs(x.value)) for t, x in zip(traded, self.ledgers, strict=True)])

    @property
    def num_rebalances(self) -> np.ndarray:
        counts = np.arange(len(self.context.index))[:, None] >= self.context.start
        return (self.rebalances & counts).sum(axis=0)

    @property
    def total_fees(self) -> np.ndarray:
        return self._from_start([x.fees.sum(axis=1) for x in self.ledgers])

    def _from_start(self, per_event: Sequence[np.ndarray]) -> np.ndarray:
        """Amounts [event], one array per ledger, summed by lane over the bars that metrics count."""
        starts = [self.context.start[x.lanes][x.lane_of_event] for x in self.ledgers]
        parts = zip(per_event, starts, self.ledgers, strict=True)
        return self.total([np.where(x.bar >= start, amounts, 0.0) for amounts, start, x in parts])

    # --- events at which the allocator was asked

    def events(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Arrays [event, ...], one per ledger, as one, by lane and bar."""
        joined = np.concatenate([part[ledger.decided] for ledger, part in zip(self.ledgers, parts, strict=True)])
        return joined if len(self.ledgers) == 1 else joined[np.argsort(self._unsorted_lanes, kind="stable")]

    def events_by_asset(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Arrays [event, asset of the lane], one per ledger, as [event, asset] over all `assets`; NaN elsewhere."""
        spread = []
        for ledger, part in zip(self.ledgers, parts, strict=True):
            out = np.full((len(part), len(self.assets)), np.nan)
            places = self._asset_of_column[ledger.columns[ledger.lane_of_event]]
            out[np.arange(len(part))[:, None], places] = part
            spread.append(out)
        return self.events(spread)

    def codes_by_asset(self, name: str) -> np.ndarray | None:
        """`size_type` or `direction` of each event, [event, asset] over all `assets`; None: target weights, Both."""
        if all(getattr(x, name) is None for x in self.ledgers):
            return None
        neutral = {"size_type": SizeType.TARGET_PERCENT, "direction": Direction.BOTH}[name]
        parts = [x.target * 0 + neutral if getattr(x, name) is None else getattr(x, name) for x in self.ledgers]
        codes = self.events_by_asset(parts)
        return np.where(np.isnan(codes), neutral, codes).astype(np.int32)

    def sequences_by_asset(self) -> np.ndarray | None:
        """The place of each asset in the order of execution, [event, asset] over all `assets`; NaN where the allocator
        did not choose it; None if it never did."""
        if all(x.sequence is None for x in self.ledgers):
            return None
        return self.events_by_asset([x.target * np.nan if x.sequence is None else x.sequence for x in self.ledgers])

    @cached_property
    def _unsorted_lanes(self) -> np.ndarray:
        return np.concatenate([x.lanes[x.lane_of_event[x.decided]] for x in self.ledgers])

    @property
    def event_lane(self) -> np.ndarray:
        """The lane of each event."""
        return np.sort(self._unsorted_lanes, kind="stable")

    @property
    def event_bar(self) -> np.ndarray:
        """The bar of each event."""
        return self.events([x.bar for x in self.ledgers])


def ratio_or_zero(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)
