"""Lots: orders matched, one after the other, with the average-cost position that they meet (rules 6.7)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from jaxsim.frames.results.paths import ratio_or_zero

#: As in rules 1.1.
REL_TOL = 1e-9
ABS_TOL = 1e-12


@dataclass(frozen=True, eq=False)
class Lots:
    """What is held of an average-cost position, one per order or per column.

    size: units, > 0; 0 while flat.     entered: units entered since it was flat, those exited since included.
    value: what is held cost, currency.             fees: what its entry cost, currency.
    begin: bar of the first entry.      direction: TradeDirection.      position: its number in the column.
    """

    size: np.ndarray
    entered: np.ndarray
    value: np.ndarray
    fees: np.ndarray
    begin: np.ndarray
    direction: np.ndarray
    position: np.ndarray

    @classmethod
    def flat(cls, count: int) -> "Lots":
        amounts, codes = np.zeros((4, count)), np.zeros((3, count), np.int64)
        codes[2] = -1  # no position yet
        return cls(*amounts, *codes)

    def fields(self) -> Iterator[np.ndarray]:
        return iter((self.size, self.entered, self.value, self.fees, self.begin, self.direction, self.position))

    def take(self, places: np.ndarray | slice) -> "Lots":
        return Lots(*(x[places] for x in self.fields()))

    def put(self, places: np.ndarray | slice, lots: "Lots") -> None:
        for mine, theirs in zip(self.fields(), lots.fields(), strict=True):
            mine[places] = theirs

    def extended(self, lots: "Lots") -> "Lots":
        return Lots(*map(np.concatenate, zip(self.fields(), lots.fields(), strict=True)))


@dataclass(frozen=True, eq=False)
class Match:
    """What every order met and did.

    orders: by column, [order].     closed, opened: units by which the order reduced and increased a position, [order].
    before: what it met, [order].   position_after: number in the column of the position that it left, [order].
    rest: what is left, [col].      num_positions, first_position: of each column, [col].     last_close: [col].
    """

    orders: np.ndarray
    closed: np.ndarray
    opened: np.ndarray
    before: Lots
    position_after: np.ndarray
    rest: Lots
    last_close: np.ndarray

    @property
    def exit_fees(self) -> np.ndarray:
        """The part of each order's fees that its exit bears, [order]; its entry bears the rest."""
        return self.orders["fees"] * ratio_or_zero(self.closed, self.closed + self.opened)

    @property
    def entry_fees(self) -> np.ndarray:
        return self.orders["fees"] * ratio_or_zero(self.opened, self.closed + self.opened)

    @property
    def num_positions(self) -> np.ndarray:
        return self.rest.position + 1

    @property
    def first_position(self) -> np.ndarray:
        return np.cumsum(self.num_positions) - self.num_positions


def match_lots(orders: np.ndarray, close: np.ndarray, columns: np.ndarray | None, by_volume: bool) -> Match:
    """Match orders with what they meet: the k-th orders of all columns at once, so that the work in Python does not
    grow with columns.

    orders, close, columns: as in `trades.exit_trades`.
    by_volume: an order closes what it matches to 1e-9 of all that was entered since the position was flat; else to
        1e-9 of what is held (rules 1.1). Entry trades and exit trades differ in this in vectorbt.
    """
    last_close = _last_close(close) if columns is None else _last_close(close)[columns]
    _check(orders, len(close), len(last_close))
    orders = orders[np.argsort(orders["col"], kind="stable")]
    counts = np.bincount(orders["col"], minlength=len(last_close))
    wide = np.argsort(-counts, kind="stable")  # columns with most orders first: those still active stand in front
    nth = np.arange(len(orders)) - (np.cumsum(counts) - counts)[orders["col"]]
    at = np.lexsort((np.argsort(wide)[orders["col"]], nth))
    active = np.searchsorted(-counts[wide], -np.arange(counts.max(initial=0)))  # columns that have a k-th order

    o = orders[at]
    side, idx, size, price, fees = (np.ascontiguousarray(o[x]) for x in ("side", "idx", "size", "price", "fees"))
    closed, opened = np.zeros((2, len(o)))
    after, before, lots = np.empty(len(o), np.int64), Lots.flat(len(o)), Lots.flat(len(counts))
    for a, b in pairwise(np.concatenate([[0], np.cumsum(active)]).tolist()):
        k, held = slice(a, b), lots.take(slice(b - a))
        before.put(k, held)
        closed[k], opened[k] = _split(held, side[k], size[k], by_volume)
        lots.put(slice(b - a), _after(held, closed[k], opened[k], side[k], idx[k], price[k], fees[k]))
        after[k] = lots.position[: b - a]
    back, home = np.argsort(at), np.argsort(wide)
    return Match(orders, closed[back], opened[back], before.take(back), after[back], lots.take(home), last_close)


def _split(held: Lots, side: np.ndarray, size: np.ndarray, by_volume: bool) -> tuple[np.ndarray, np.ndarray]:
    """By how much orders reduce and increase what is held."""
    against = (held.size > 0) & (held.direction != side)
    larger = np.maximum(size, held.size) + by_volume * (held.entered - held.size)
    is_all = np.abs(size - held.size) <= np.maximum(REL_TOL * larger, ABS_TOL)
    closed = np.where(against, np.where(is_all, held.size, np.minimum(size, held.size)), 0.0)
    return closed, np.where(against, np.where(is_all, 0.0, size - closed), size)


def _after(
    held: Lots,
    closed: np.ndarray,
    opened: np.ndarray,
    side: np.ndarray,
    idx: np.ndarray,
    price: np.ndarray,
    fees: np.ndarray,
) -> Lots:
    kept = held.size - closed
    is_new = (kept == 0) & (opened > 0)
    part = ratio_or_zero(kept, held.size)
    return Lots(
        size=kept + opened,
        entered=np.where(kept == 0, 0.0, held.entered) + opened,
        value=held.value * part + opened * price,
        fees=held.fees * part + fees * ratio_or_zero(opened, closed + opened),
        begin=np.where(is_new, idx, held.begin),
        direction=np.where(is_new, side, held.direction),
        position=held.position + is_new,
    )


def _last_close(close: np.ndarray) -> np.ndarray:
    """The last number of each column; NaN where there is none."""
    known = ~np.isnan(close)
    last = len(close) - 1 - np.argmax(known[::-1], axis=0)
    return close[last, np.arange(close.shape[1])]


def _check(orders: np.ndarray, num_bars: int, num_columns: int) -> None:
    for name, limit in (("col", num_columns), ("idx", num_bars)):
        if len(orders) and not (orders[name].min() >= 0 and orders[name].max() < limit):
            raise ValueError(f"orders: {name} must lie in [0, {limit}), the shape of close")
