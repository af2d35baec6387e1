"""What a schedule keeps of a run: rows of rebalances, sums for metrics, or whole paths.

A schedule tells its sink four things: a block of bars begins; what lanes hold from some bar on (`look`); what lanes
did at a bar (`record`); the block is done. Each kind of sink keeps what it needs of that.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.bar.lane_state import LaneState
from jaxsim.engine.bar.step import BarOutcome, Rebalance, totals_of
from jaxsim.engine.bar.totals import BarTotals, traded_value
from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.metrics.online import Ruin, RunningSums, returns_in_block
from jaxsim.engine.schedules.lane_slots import AbstractLaneSlots
from jaxsim.engine.trading.account import Holdings


class Block(eqx.Module):
    """Bars that are run or searched together.

    bars: their numbers. All blocks are equally long: the last one overlaps the one before. Before the first block of a
        run there may be one of negative numbers, which are no bars.
    begin: the first bar that was not in the block before.
    """

    bars: Int[Array, " bar"]
    begin: Int[Array, ""]

    @classmethod
    def at(cls, bar: Int[Array, ""], size: int, num_bars: int) -> "Block":
        """The block that begins at a bar of a market with so many bars."""
        start = jnp.minimum(bar, num_bars - size)
        return cls(start + jnp.arange(size, dtype=bar.dtype), bar)

    def rows(self, x: Array, axis: int) -> Array:
        """The block's rows of [..., time, ...]."""
        return lax.dynamic_slice_in_dim(x, self.bars[0], self.bars.shape[0], axis)

    def by_bar(self, mask: Array, num_axes: int) -> Array:
        """[bar] as [bar, 1...], to meet arrays [bar, lane axes...]."""
        return mask.reshape(-1, *(1,) * num_axes)


class AbstractView(eqx.Module):
    """What lanes hold after some bars, as far as is known."""

    @property
    @abc.abstractmethod
    def bars(self) -> Int[Array, " bar"]:
        """The numbers of the bars, which follow one another."""

    @abc.abstractmethod
    def values(self) -> Float[Array, "bar *lanes"]:
        """The value of each account, marked at each bar, currency."""

    @abc.abstractmethod
    def units(self) -> Float[Array, "*lanes_and_asset"]:
        """Units held, the same at all of the bars."""

    @abc.abstractmethod
    def cash(self) -> Float[Array, "*lanes"]:
        """Currency, the same at all of the bars."""


class Balances(eqx.Module):
    """The account after a bar's orders: units, and the currency beside them."""

    units: Float[Array, " asset"]
    cash: Float[Array, ""]
    free_cash: Float[Array, ""]

    @classmethod
    def of(cls, holdings: Holdings) -> "Balances":
        return cls(holdings.units, holdings.cash, holdings.free_cash)


class Row(eqx.Module):
    """What a lane did at one bar; `holdings` and `event` mean something where it traded.

    lane: its number among all lanes.       holdings: after the orders.
    recorded: as in `BarOutcome`.
    """

    lane: Int[Array, ""]
    bar: Int[Array, ""]
    traded: Bool[Array, ""]
    holdings: Balances
    event: Rebalance
    recorded: dict

    @classmethod
    def of(cls, number: Int[Array, ""], bar: Int[Array, ""], outcome: BarOutcome) -> "Row":
        """number: of the lane."""
        return cls(number, bar, outcome.traded, Balances.of(outcome.lane.holdings), outcome.event, outcome.recorded)


@dataclass(frozen=True)
class Room:
    """What a sink has to have room for.

    block: number of bars in a block.       page: number of rows that leave a program together.
    row: makes a row of lanes that run together; called for its shapes alone.
    """

    block: int
    page: int
    row: Callable[[], Row]


class AbstractSink(eqx.Module):
    """What is kept of a run of many lanes. Where lanes were gathered into slots for a bar, `slots` says which."""

    @property
    @abc.abstractmethod
    def keeps_rows_alone(self) -> bool:
        """Whether it needs no more than what lanes did at the bars at which they traded."""

    @abc.abstractmethod
    def opened(self, lane: LaneState, room: Room) -> "AbstractSink":
        """The sink before the first bar.    lane: all lanes before it."""

    def has_room(self, num_rows: int) -> Bool[Array, ""]:
        """Whether so many rows more can be recorded."""
        return jnp.asarray(True)

    def begin(self, block: Block) -> "AbstractSink":
        """A block begins."""
        return self

    def look(
        self, view: AbstractView, is_new: Bool[Array, "bar *lanes"] | None, slots: AbstractLaneSlots | None
    ) -> "AbstractSink":
        """What lanes hold is known anew.

        view: of the lanes, or of those in the slots.       is_new: at which bars; None: at all bars of the view.
        """
        return self

    @abc.abstractmethod
    def record(self, row: Row, slots: AbstractLaneSlots | None) -> "AbstractSink":
        """Lanes have traded."""

    def finish(self, block: Block, num_bars: Int[Array, ""]) -> "AbstractSink":
        """A block is done.     num_bars: of the market."""
        return self


class RebalanceSink(AbstractSink):
    """Keeps what lanes did, until the page is full.

    rows: [row, lanes or slots...]; None until it is opened.       count: number of rows that are filled.
    """

    rows: Row | None = None
    count: Any = None

    @property
    def keeps_rows_alone(self) -> bool:
        return True

    def opened(self, lane: LaneState, room: Room) -> "RebalanceSink":
        shapes = jax.eval_shape(room.row)
        return RebalanceSink(jax.tree.map(lambda x: jnp.zeros((room.page, *x.shape), x.dtype), shapes), jnp.int32(0))

    def has_room(self, num_rows: int) -> Bool[Array, ""]:
        assert self.rows is not None
        return self.count + num_rows <= self.rows.bar.shape[0]

    def record(self, row: Row, slots: AbstractLaneSlots | None) -> "RebalanceSink":
        rows = jax.tree.map(lambda page, x: lax.dynamic_update_index_in_dim(page, x, self.count, 0), self.rows, row)
        return RebalanceSink(rows, self.count + 1)


class MetricSink(AbstractSink):
    """Keeps no more than the metrics need.

    names: of the metrics.      sums: their running sums; None until it is opened.
    benchmark: its returns, where a metric needs them, [time], or with the innermost lane axes in front.
    start: the first bar that counts, int [lane axes...] or of size one along them; None: all bars count.
    opening: value before the first bar, currency, [lane axes...]; None: of cash alone.
    values: of each lane before the block, and after each of its bars, as far as that is known; currency,
        [1 + bar, lane axes...].
    first: the first bar of the block.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    benchmark: Any = None
    start: Any = None
    opening: Any = None
    sums: RunningSums | None = None
    values: Any = None
    first: Any = None

    @property
    def keeps_rows_alone(self) -> bool:
        return False

    def opened(self, lane: LaneState, room: Room) -> "MetricSink":
        cash = lane.holdings.cash
        sums = RunningSums.start(self.names, cash.dtype, cash.shape)
        before = cash if self.opening is None else self.opening
        values = jnp.broadcast_to(before, (1 + room.block, *cash.shape))
        first = jnp.broadcast_to(before, cash.shape)
        sums = replace(sums, ruin=Ruin(jnp.zeros(cash.shape, bool), first, first))
        return replace(self, sums=sums, values=values, first=jnp.int32(0))

    def begin(self, block: Block) -> "MetricSink":
        """The value after the block before is that before the first bar of this one."""
        before, first = self.values[-1], block.bars[0]
        values = lax.dynamic_update_index_in_dim(self.values, before, block.begin - first, axis=0)
        return replace(self, values=values, first=first)

    def look(
        self, view: AbstractView, is_new: Bool[Array, "bar *lanes"] | None, slots: AbstractLaneSlots | None
    ) -> "MetricSink":
        old = self.values if slots is None else slots.gather(self.values, axis=1)
        new, at = view.values(), 1 + view.bars[0] - self.first
        if is_new is not None:
            new = where(is_new, new, lax.dynamic_slice_in_dim(old, at, len(new), axis=0))
        # In place, row by row: XLA would copy a concatenation number by number.
        values = lax.dynamic_update_slice_in_dim(old, new, at, axis=0)
        return replace(self, values=values if slots is None else slots.put_back(values, self.values, axis=1))

    def record(self, row: Row, slots: AbstractLaneSlots | None) -> "MetricSink":
        assert self.sums is not None
        old = self.sums.trades
        if old is None:
            return self
        before = replace(self.sums, trades=old if slots is None else slots.gather(old))
        new = with_rebalance(before, row.event, row.traded & self._counts(row.bar, slots)).trades
        return replace(self, sums=replace(self.sums, trades=new if slots is None else slots.put_back(new, old)))

    def _counts(self, bar: Int[Array, "*lanes"], slots: AbstractLaneSlots | None) -> Bool[Array, "*lanes"] | bool:
        """Whether the bar of each lane, or of the lanes in the slots, enters the metrics."""
        if self.start is None:
            return True
        if slots is None or self.start.shape[0] == 1:
            return bar >= self.start
        return bar >= slots.gather(self.start)

    def finish(self, block: Block, num_bars: Int[Array, ""]) -> "MetricSink":
        assert self.sums is not None
        is_bar = (block.bars >= 0) & (block.bars < num_bars)
        is_new = block.by_bar(is_bar & (block.bars >= block.begin), self.values.ndim - 1)
        returns, ruin = self._until_ruin(returns_in_block(self.values), is_new, block, num_bars)
        benchmark = self.benchmark
        if self.start is not None:
            is_new &= block.by_bar(block.bars, returns.ndim - 1) >= self.start
        if benchmark is not None:
            benchmark = jnp.moveaxis(block.rows(benchmark, benchmark.ndim - 1), -1, 0)
            shape = (len(benchmark), *(1,) * (returns.ndim - benchmark.ndim), *benchmark.shape[1:])
            benchmark = benchmark.reshape(shape)
        return replace(self, sums=replace(self.sums.add(returns, is_new, benchmark), ruin=ruin))

    def _until_ruin(
        self, returns: Array, is_new: Array, block: Block, num_bars: Int[Array, ""]
    ) -> tuple[Float[Array, "bar *lanes"], Ruin]:
        """The returns of a block, 0 after the account was worth nothing; and what is known of that."""
        assert self.sums is not None and self.sums.ruin is not None
        before, size = self.sums.ruin, len(block.bars)
        row = block.by_bar(jnp.arange(size, dtype=jnp.int32), returns.ndim - 1)
        first = jnp.min(where((self.values[1:] <= 0) & is_new, row, size), axis=0)
        returns = where((row > first) | before.is_ruined, 0, returns)
        opening = before.opening
        if self.start is not None:
            place = jnp.broadcast_to(self.start, opening.shape) - block.bars[0]
            is_here = (place >= 0) & (place < size)

            def at_start() -> Array:
                value = jnp.take_along_axis(self.values, jnp.clip(place, 0, size - 1)[None], axis=0)[0]
                return where(is_here, value, opening)

            opening = lax.cond(is_here.any(), at_start, lambda: opening)
        last = jnp.clip(num_bars - block.bars[0], 0, size)
        ending = lax.dynamic_index_in_dim(self.values, last, keepdims=False)
        return returns, Ruin(before.is_ruined | (first < size), opening, ending)


def with_rebalance(sums: RunningSums, event: Rebalance, happens: Any) -> RunningSums:
    """Running sums with a rebalance, or with several side by side.

    happens: whether there was one.
    """
    fees = event.fills.fees.sum(axis=-1)
    return sums.rebalanced(happens, traded_value(event.fills), event.value, fees, event.is_decision)


class PathSink(AbstractSink):
    """Keeps what one lane holds after every bar.

    num_bars, num_assets: of the market.        keeps_events: whether the rebalances are kept as well.
    units: [time, asset].       cash: [time].       asked: bool [time], where the allocator was asked.
    totals: of every bar, [time].
    events: of every bar, zero where nothing was traded; or None.
    begin_bar: the first bar of the block that was not in the block before.
    """

    num_bars: int = eqx.field(static=True)
    num_assets: int = eqx.field(static=True)
    keeps_events: bool = eqx.field(static=True)
    units: Any = None
    cash: Any = None
    asked: Any = None
    totals: Any = None
    events: Any = None
    begin_bar: Any = None

    @property
    def keeps_rows_alone(self) -> bool:
        return False

    def opened(self, lane: LaneState, room: Room) -> "PathSink":
        def by_bar(x: Any) -> Array:
            return jnp.zeros((self.num_bars, *x.shape), x.dtype)

        events = jax.tree.map(by_bar, jax.eval_shape(lambda: room.row().event)) if self.keeps_events else None
        return replace(
            self,
            units=by_bar(lane.holdings.units),
            cash=by_bar(lane.holdings.cash),
            asked=jnp.zeros(self.num_bars, bool),
            totals=BarTotals(*(by_bar(lane.holdings.cash) for _ in range(3))),
            events=events,
            begin_bar=jnp.int32(0),
        )

    def begin(self, block: Block) -> "PathSink":
        return replace(self, begin_bar=block.begin)

    def look(
        self, view: AbstractView, is_new: Bool[Array, "bar *lanes"] | None, slots: AbstractLaneSlots | None
    ) -> "PathSink":
        known = view.bars >= self.begin_bar  # before, what was held then
        mask = known if is_new is None else known & is_new

        def put(path: Array, x: Array) -> Array:
            old = lax.dynamic_slice_in_dim(path, view.bars[0], len(view.bars), axis=0)
            new = where(mask.reshape(-1, *(1,) * x.ndim), x, old)
            return lax.dynamic_update_slice_in_dim(path, new, view.bars[0], axis=0)

        return replace(self, units=put(self.units, view.units()), cash=put(self.cash, view.cash()))

    def record(self, row: Row, slots: AbstractLaneSlots | None) -> "PathSink":
        def put(path: Array, x: Array) -> Array:
            return lax.dynamic_update_index_in_dim(path, where(row.traded, x, path[row.bar]), row.bar, 0)

        events = None if self.events is None else jax.tree.map(put, self.events, row.event)
        totals = jax.tree.map(put, self.totals, totals_of(row.event))
        return replace(self, asked=put(self.asked, row.event.is_decision), totals=totals, events=events)
