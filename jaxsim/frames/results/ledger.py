"""The ledger: every rebalance of every lane, as plain arrays. All paths and tables are computed from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import numpy as np

from jaxsim.engine.base.enums import Direction, SizeType
from jaxsim.engine.schedules.programs import Page
from jaxsim.engine.trading.costs import NEUTRAL
from jaxsim.engine.trading.rebalance import OrderLog
from jaxsim.engine.trading.status import OrderStatusInfo


@dataclass(frozen=True, eq=False)
class Opening:
    """What lanes hold before their first bar.

    cash, free_cash: currency, [lane].      units: [lane, asset].
    price: that they were entered at, [lane, asset]: what they are worth then, unless the user says an average cost.
    target: weights of the last rebalance before, [lane, asset], NaN where there is none.
    """

    cash: np.ndarray
    free_cash: np.ndarray
    units: np.ndarray
    price: np.ndarray
    target: np.ndarray

    def take(self, lanes: np.ndarray) -> "Opening":
        return Opening(**{name: x[lanes] for name, x in vars(self).items()})


@dataclass(frozen=True, eq=False)
class Ledger:
    """The rebalances ("events") of lanes whose groups have the same number of assets, lane by lane. A rebalance that is
    spread over several bars is one event on each of them.

    lanes: number of each lane among all lanes of the result, [lane].
    columns: price-frame columns of each lane's assets, [lane, asset].
    counts: number of events of each lane, [lane].
    bar, value, cash, free_cash: [event]; value before the event, cash after it, currency.
    excess, target, units: [event, asset]; drift beyond the threshold, target weights or other sizes (NaN: left alone),
        units after the event.
    request, trade, price, fees, info, rank: [event, asset], as `Fills`.
    size_type, direction: int [event, asset], codes of `target`; None: target weights in both directions.
    sequence: [event, asset], place of each asset in the order of execution, if the allocator chose it; else NaN or
    None. clip: int [event, asset], Clip of each filled order; None: only cash can cut orders. val_price: [event,
    asset], valuation prices for the sizes. is_decision: bool [event], whether the allocator was asked; False for a
    later part of a spread rebalance; None: always. log: the account around each order, by name [event, asset], if the
    run kept it (`LOG_FIELDS`). aux: recorded arrays by name, [event, ...].       bar_aux: arrays that `observe`
    recorded, [lane, time, ...].
    opening: what was held before the first bar; None: cash alone.
    """

    lanes: np.ndarray
    columns: np.ndarray
    counts: np.ndarray
    bar: np.ndarray
    value: np.ndarray
    cash: np.ndarray
    free_cash: np.ndarray
    excess: np.ndarray
    target: np.ndarray
    units: np.ndarray
    request: np.ndarray
    trade: np.ndarray
    price: np.ndarray
    fees: np.ndarray
    info: np.ndarray
    rank: np.ndarray
    aux: dict[str, np.ndarray]
    bar_aux: dict[str, np.ndarray]
    size_type: np.ndarray | None = None
    direction: np.ndarray | None = None
    sequence: np.ndarray | None = None
    clip: np.ndarray | None = None
    val_price: np.ndarray | None = None
    is_decision: np.ndarray | None = None
    log: dict[str, np.ndarray] | None = None
    opening: Opening | None = None

    @property
    def lane_of_event(self) -> np.ndarray:
        """Position within this ledger of the lane of each event, [event]."""
        return np.repeat(np.arange(len(self.lanes)), self.counts)

    @property
    def decided(self) -> np.ndarray:
        """The events at which the allocator was asked, by number."""
        return np.arange(len(self.bar)) if self.is_decision is None else np.flatnonzero(self.is_decision)

    @property
    def target_weights(self) -> np.ndarray:
        """Target weights, [event, asset]; NaN where the target is another size."""
        if self.size_type is None:
            return self.target
        return np.where(self.size_type == SizeType.TARGET_PERCENT, self.target, np.nan)

    @property
    def filled(self) -> np.ndarray:
        """Which orders were filled, [event, asset]."""
        return self.info == -1

    @property
    def reason(self) -> np.ndarray:
        """The OrderReason of each order, [event, asset]."""
        return np.where(self.rank < 0, -self.rank, 0)

    @property
    def is_idle(self) -> np.ndarray:
        """The assets of an event that got no order, since nothing happened there but that others left the market,
        [event, asset]."""
        closes = (self.rank < 0).any(axis=1)
        if not closes.any():
            return np.zeros(self.info.shape, bool)
        asked = np.isin(np.arange(len(self.bar)), self.decided)
        others = (self.rank >= 0) & (self.info != OrderStatusInfo.SIZE_NAN)
        return (self.rank >= 0) & (closes & ~asked & ~others.any(axis=1))[:, None]

    def take(self, wanted: np.ndarray, numbers: np.ndarray) -> "Ledger":
        """The lanes at positions `wanted`, renumbered."""
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        events = np.concatenate([np.arange(0), *(np.arange(*starts[i : i + 2].tolist()) for i in wanted)])
        return replace(
            self._of_events(events),
            lanes=numbers,
            columns=self.columns[wanted],
            counts=self.counts[wanted],
            bar_aux={name: x[wanted] for name, x in self.bar_aux.items()},
            opening=None if self.opening is None else self.opening.take(wanted),
        )

    def cut(self, begin: int, end: int, init_cash: np.ndarray, marks: np.ndarray) -> "Ledger":
        """The bars from `begin` to `end` - 1.

        init_cash: cash of each lane before the first bar, [lane].       marks: at the bar before `begin`, [column].
        """
        events = np.flatnonzero((self.bar >= begin) & (self.bar < end))
        kept = self._of_events(events)
        return replace(
            kept,
            counts=np.bincount(self.lane_of_event[events], minlength=len(self.lanes)),
            bar=kept.bar - begin,
            bar_aux={name: x[:, begin:end] for name, x in self.bar_aux.items()},
            opening=self.opening if begin == 0 else self._held_before(begin, init_cash, marks),
        )

    def _of_events(self, events: np.ndarray) -> "Ledger":
        """With some of the events, by number; lanes and counts are still those of all."""
        return replace(
            self,
            aux={name: x[events] for name, x in self.aux.items()},
            log=None if self.log is None else {name: x[events] for name, x in self.log.items()},
            **{name: getattr(self, name)[events] for name in _PER_EVENT},
            **{name: None if x is None else x[events] for name, x in self._optional.items()},
        )

    def _held_before(self, bar: int, init_cash: np.ndarray, marks: np.ndarray) -> Opening:
        """What lanes hold before a bar."""
        lane_of_event, num_lanes = self.lane_of_event, len(self.lanes)
        so_far = np.bincount(lane_of_event[self.bar < bar], minlength=num_lanes)
        has_traded = np.flatnonzero(so_far)
        last = (np.cumsum(self.counts) - self.counts + so_far - 1)[has_traded]
        if self.opening is None:
            cash, free_cash = (np.array(init_cash, np.float64) for _ in range(2))
            units, target = np.zeros(self.columns.shape), np.full(self.columns.shape, np.nan)
        else:
            names = ("cash", "free_cash", "units", "target")
            cash, free_cash, units, target = (getattr(self.opening, name).copy() for name in names)
        befores, afters = (cash, free_cash, units, target), (self.cash, self.free_cash, self.units, self.target_weights)
        for before, after in zip(befores, afters, strict=True):
            before[has_traded] = after[last]
        return Opening(cash, free_cash, units, marks[self.columns], target)

    @property
    def _optional(self) -> dict[str, np.ndarray | None]:
        names = ("size_type", "direction", "sequence", "clip", "val_price", "is_decision")
        return {name: getattr(self, name) for name in names}

    # --- paths

    def cash_path(self, init_cash: np.ndarray, num_bars: int) -> np.ndarray:
        """Cash after each bar, [lane, time], currency."""
        spans = Spans.between(self.counts, self.bar, num_bars)
        return spans.path(spans.states(init_cash if self.opening is None else self.opening.cash, self.cash))

    def free_cash_path(self, init_cash: np.ndarray, num_bars: int) -> np.ndarray:
        """Free cash after each bar, [lane, time], currency."""
        spans = Spans.between(self.counts, self.bar, num_bars)
        return spans.path(spans.states(init_cash if self.opening is None else self.opening.free_cash, self.free_cash))

    def units_path(self, num_bars: int) -> np.ndarray:
        """Units after each bar, [lane, asset, time]."""
        spans = Spans.between(self.counts, self.bar, num_bars)
        return np.stack([spans.path(states) for states in self._unit_states(spans)], axis=1)

    def _unit_states(self, spans: "Spans") -> "list[np.ndarray]":
        """The units of each asset in each state of `spans`."""
        opening = [0.0] * self.columns.shape[1] if self.opening is None else list(self.opening.units.T)
        return [spans.states(before, after) for before, after in zip(opening, self.units.T, strict=True)]

    def value_path(self, init_cash: np.ndarray, mark: np.ndarray) -> np.ndarray:
        """Value after each bar, [lane, time], currency: cash plus assets at their marks, left to right.

        mark: [time, column].
        """
        spans = Spans.between(self.counts, self.bar, len(mark))
        cash = spans.states(init_cash if self.opening is None else self.opening.cash, self.cash)
        units = self._unit_states(spans)
        same_columns = (self.columns == self.columns[0]).all()
        prices = np.where(np.isnan(mark), 0.0, mark).T  # not held before its first price
        value = np.empty((len(self.lanes), len(mark)))
        for lanes in spans.blocks():
            block = value[lanes]
            block[:] = spans.path(cash, lanes)
            for n, states in enumerate(units):
                worth = spans.path(states, lanes)
                worth *= prices[self.columns[0, n]] if same_columns else prices[self.columns[lanes, n]]
                block += worth
        return value


_PER_EVENT = (
    *("bar", "value", "cash", "free_cash", "excess", "target", "units"),
    *("request", "trade", "price", "fees", "info", "rank"),
)
assert set(_PER_EVENT) < {field.name for field in fields(Ledger)}


def ledger_from_pages(pages: Sequence[Page], lanes: np.ndarray, columns: np.ndarray) -> Ledger:
    """The ledger of a compiled run, from its pages. Their rows belong to the first `len(lanes)` lanes; further lanes
    only pad the shape."""
    num_lanes = len(lanes)
    rows = _rows_of(pages)
    holdings, event = rows.holdings, rows.event
    bar_aux = {}
    if pages[0].recorded:
        bar_aux = jax.tree.map(lambda *x: np.concatenate(x, axis=1)[:num_lanes], *(_flat_lanes(p) for p in pages))
    fills = event.fills
    return Ledger(
        lanes=lanes,
        columns=columns,
        counts=np.bincount(rows.lane, minlength=num_lanes),
        bar=rows.bar.astype(np.int64),
        value=event.value,
        cash=holdings.cash,
        free_cash=holdings.free_cash,
        excess=event.excess,
        target=event.target,
        units=holdings.units,
        request=fills.request,
        trade=fills.trade,
        price=fills.price,
        fees=fills.fees,
        info=fills.info.astype(np.int64),
        rank=fills.rank.astype(np.int64),
        aux=dict(event.aux),
        bar_aux=dict(bar_aux),
        size_type=event.size_type,
        direction=event.direction,
        sequence=None
        if event.sequence is None
        else _sequences_if_any(np.where(event.sequence < 0, np.nan, event.sequence)),
        clip=fills.clip,
        is_decision=None if event.is_decision.all() else event.is_decision,
        log=None if fills.log is None else log_of_orders(fills.log),
    )


def _rows_of(pages: Sequence[Page]) -> Any:
    """The rows of all pages, lane by lane; a `Row` of NumPy arrays."""
    if len(pages) == 1:
        return pages[0].rows
    rows = jax.tree.map(lambda *x: np.concatenate(x), *(page.rows for page in pages))
    order = np.argsort(rows.lane, kind="stable")
    return jax.tree.map(lambda x: x[order], rows)


def _flat_lanes(page: Page) -> dict:
    """The arrays that `observe` recorded, [lane, bar, ...]."""
    num_axes = page.lane.status.fault.ndim
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[num_axes:]), page.recorded)


def ledger_from_runs(
    runs: list[Any], lanes: np.ndarray, columns: np.ndarray, *, keep_log: bool = False, are_orders: bool = False
) -> Ledger:
    """The ledger of the lane runs of the reference engine.

    are_orders: whether the targets are plain orders, so that their size types are kept even if they are weights.
    """

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(run, name) for run in runs])

    def stacked(records: list[dict]) -> dict[str, np.ndarray]:
        return {name: np.stack([np.asarray(r[name]) for r in records]) for name in (records[0] if records else {})}

    per_event: dict[str, Any] = {name: joined(name) for name in _PER_EVENT if name != "bar"}
    per_lane = [stacked(run.bar_aux) for run in runs]
    return Ledger(
        lanes=lanes,
        columns=columns,
        counts=np.array([len(run.bars) for run in runs]),
        bar=joined("bars"),
        aux=stacked([record for run in runs for record in run.aux]),
        bar_aux={name: np.stack([lane[name] for lane in per_lane]) for name in per_lane[0]},
        size_type=joined("size_type") if are_orders else _codes_if_needed(joined("size_type"), SizeType.TARGET_PERCENT),
        direction=_codes_if_needed(joined("direction"), Direction.BOTH),
        sequence=_sequences_if_any(joined("sequence")),
        clip=joined("clip"),
        is_decision=None if joined("is_decision").all() else joined("is_decision"),
        log=log_of_runs(runs, columns.shape[1]) if keep_log else None,
        **per_event,
    )


def _sequences_if_any(sequences: np.ndarray) -> np.ndarray | None:
    return None if np.isnan(sequences).all() else sequences


def _codes_if_needed(codes: np.ndarray, neutral: int) -> np.ndarray | None:
    return None if (codes == neutral).all() else codes


# --- the log of orders

_ACCOUNT = ("cash", "position", "debt", "free_cash", "val_price", "value")
_TERMS = ("fees", "fixed_fees", "slippage", "min_size", "max_size", "size_granularity", "reject_prob")
_FLAGS = ("lock_cash", "allow_partial", "raise_reject")

#: The fields of the log, [event, asset]: the account before each order, the order, the account after it.
LOG_FIELDS = (
    *_ACCOUNT,
    *("req_size", "req_price", "req_size_type", "req_direction"),
    *(f"req_{name}" for name in (*_TERMS, *_FLAGS)),
    *(f"new_{name}" for name in _ACCOUNT),
)


def log_dtype(name: str) -> type:
    if name in ("req_size_type", "req_direction", "res_side", "res_status", "res_status_info", "order_id"):
        return np.int64
    return np.bool_ if name.removeprefix("req_") in (*_FLAGS, "log") else np.float64


def log_of_orders(log: OrderLog) -> dict[str, np.ndarray]:
    """The fields of a compiled run's log, [event, asset]."""
    order, outcome, shape = log.order, log.outcome, log.order.size.shape

    def filled(x: Any, otherwise: Any) -> np.ndarray:
        return np.full(shape, otherwise) if x is None else np.broadcast_to(x, shape)

    columns = {
        "cash": log.before.cash,
        "position": order.units,
        "debt": order.debt,
        "free_cash": log.before.free_cash,
        "val_price": order.val_price,
        "value": log.before.value,
        "req_size": order.size,
        "req_price": order.price,
        "req_size_type": filled(order.size_type, int(SizeType.TARGET_PERCENT)),
        "req_direction": filled(order.direction, int(Direction.BOTH)),
        "req_fees": order.costs.fees,
        **{f"req_{name}": filled(getattr(order.costs, name), NEUTRAL[name]) for name in (*_TERMS[1:], *_FLAGS)},
        "new_cash": log.after.cash,
        "new_position": outcome.units,
        "new_debt": outcome.debt,
        "new_free_cash": log.after.free_cash,
        "new_val_price": outcome.val_price,
        "new_value": log.after.value,
    }
    return {name: np.asarray(columns[name], log_dtype(name)) for name in LOG_FIELDS}


def log_of_runs(runs: Sequence[Any], num_assets: int) -> dict[str, np.ndarray]:
    """The fields of the reference engine's logs, [event, asset]."""
    logged = [order for run in runs for event in run.log for order in event]

    def values(name: str) -> list:
        if name.startswith("req_"):
            return [getattr(x.order, name.removeprefix("req_")) for x in logged]
        if name.startswith("new_"):
            return [getattr(x.after, name.removeprefix("new_")) for x in logged]
        return [getattr(x.before, name) for x in logged]

    return {name: np.array(values(name), log_dtype(name)).reshape(-1, num_assets) for name in LOG_FIELDS}


# --- from events to bars

#: Numbers of one path that are computed at a time, so that intermediate results stay in the cache.
BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class Spans:
    """The number of bars that each state of each lane lasts. States are ordered by lane; the first one of a lane is its
    opening.

    openings: place of the first state of each lane, [lane].       events: place of the state after each event, [event].
    lasts: number of bars that each state lasts, [state].
    """

    openings: np.ndarray
    events: np.ndarray
    lasts: np.ndarray
    num_bars: int

    @classmethod
    def between(cls, counts: np.ndarray, bar: np.ndarray, num_bars: int) -> "Spans":
        """Spans between the events of each lane.

        counts: number of events of each lane, [lane].       bar: of each event, ascending within a lane, [event].
        """
        lanes = np.arange(len(counts))
        openings = np.concatenate([[0], np.cumsum(counts)[:-1]]) + lanes
        events = np.arange(len(bar)) + np.repeat(lanes, counts) + 1
        begins = np.zeros(len(openings) + len(events), np.int64)
        begins[events] = bar
        ends = np.append(begins[1:], num_bars)
        ends[np.append(openings[1:] - 1, len(begins) - 1)] = num_bars
        return cls(openings, events, ends - begins, num_bars)

    def states(self, opening: Any, after: np.ndarray) -> np.ndarray:
        """The values of all states, from those at the opening, [lane] or one number, and those after each event,
        [event]."""
        states = np.empty(len(self.lasts), np.float64)
        states[self.openings], states[self.events] = opening, after
        return states

    def path(self, states: np.ndarray, lanes: slice = slice(None)) -> np.ndarray:
        """The value after each bar, [lane, time]."""
        begins = np.append(self.openings, len(states))
        begin, end = begins[:-1][lanes], begins[1:][lanes]
        states_of_lanes = slice(begin[0], end[-1])
        return np.repeat(states[states_of_lanes], self.lasts[states_of_lanes]).reshape(len(begin), self.num_bars)

    def blocks(self) -> Iterator[slice]:
        """Slices that together cover all lanes."""
        size = max(1, BLOCK // self.num_bars)
        yield from (slice(begin, begin + size) for begin in range(0, len(self.openings), size))
