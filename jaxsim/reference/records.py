"""The record of a lane of the reference engine: its orders and rebalances, also as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import Any, NamedTuple

import numpy as np

from jaxsim.engine.base.enums import CallSeq, OrderSide
from jaxsim.engine.trading.status import Incident, LaneFault, OrderStatus
from jaxsim.errors import OrderError
from jaxsim.reference.orders import AccountState, NotFilled, OrderRequest, OrderResult, requested_size


@dataclass(frozen=True)
class LaneRun:
    """The result of one lane, for E rebalances, N assets and T bars.

    Per rebalance, [E] or [E, N]:
    bars: number of the bar.    value: of the account before the rebalance, at the valuation prices.
    excess: drift beyond the threshold; NaN for other triggers.
    target: target weights or sizes; NaN for an asset that was left alone.      size_type, direction: of each order.
    sequence: place of each asset in the order of execution, if the allocator chose it; else NaN.
    is_decision: whether the allocator was asked; False for a later part of a spread rebalance.
    units, cash, free_cash: after the rebalance.
    request: requested units, > 0 to buy; infinite: as many as possible; NaN if unknown.
    trade: filled units, > 0 bought.    price: with slippage; NaN without one.    fees: paid, currency.
    info: the reason why nothing was filled, an OrderStatusInfo.    rank: place in the order of execution, from 0.
    clip: the limit that cut the fill below the requested size, a Clip.
    aux: recorded arrays of the allocator's answer.

    log: the account before and after each order and the order itself, [E][N].
    fault: the first fault, its bar and its asset; LaneFault.NONE, -1, -1 without a fault.
    incidents: what befell the account.
    bar_aux: recorded arrays of `observe`, one dictionary per bar; empty if the allocator does not observe.
    value_path, cash_path, units_path: after each bar, marked at the close; [T], [T], [T, N].
    """

    bars: np.ndarray
    value: np.ndarray
    excess: np.ndarray
    target: np.ndarray
    size_type: np.ndarray
    direction: np.ndarray
    sequence: np.ndarray
    is_decision: np.ndarray
    units: np.ndarray
    cash: np.ndarray
    free_cash: np.ndarray
    request: np.ndarray
    trade: np.ndarray
    price: np.ndarray
    fees: np.ndarray
    info: np.ndarray
    rank: np.ndarray
    clip: np.ndarray
    aux: list[dict]
    log: list[list["LoggedOrder"]]
    bar_aux: list[dict]
    fault: tuple[LaneFault, int, int]
    incidents: Incident
    value_path: np.ndarray
    cash_path: np.ndarray
    units_path: np.ndarray


@dataclass(frozen=True)
class Answer:
    """An allocator's answer in plain Python. The weight of an asset that is left alone is NaN."""

    weights: list[float]
    skip: list[bool]
    size_type: list[int]
    direction: list[int]
    are_weights: bool
    call_seq: CallSeq | list[int]
    aux: dict


class LoggedOrder(NamedTuple):
    """One order of a rebalance, the account before and after it, and its place in the order of execution.

    closes: units that the order asks for where it closes an asset that has left the market; NaN: it is an order of the
        policy.
    """

    before: AccountState
    order: OrderRequest
    after: AccountState
    result: OrderResult
    rank: int
    closes: float = nan

    @property
    def request(self) -> float:
        """Requested units, > 0 to buy; NaN if unknown."""
        if not isnan(self.closes):
            return self.closes
        try:
            size, share = requested_size(self.before.snapped(), self.order)
        except (OrderError, NotFilled):
            return nan
        return size if isnan(share) else (inf if size > 0 else -inf)

    @property
    def is_filled(self) -> bool:
        return self.result.status == OrderStatus.FILLED

    @property
    def trade(self) -> float:
        """Filled units, > 0 bought."""
        size = self.result.size if self.is_filled else 0.0
        return -size if self.result.side == OrderSide.SELL else size

    @property
    def price(self) -> float:
        """The price with slippage, also if nothing was filled."""
        slippage = self.order.slippage if self.request > 0 else -self.order.slippage
        return self.order.price * (1 + slippage)

    @property
    def fees(self) -> float:
        return self.result.fees if self.is_filled else 0.0

    @property
    def info(self) -> int:
        return int(self.result.info)

    @property
    def clip(self) -> int:
        return int(self.result.clip)


@dataclass(frozen=True)
class Rebalance:
    """One row of a LaneRun's arrays; the other columns come from the logged orders."""

    bars: int
    value: float
    excess: list[float]
    target: list[float]
    size_type: list[int]
    direction: list[int]
    sequence: list[float]
    is_decision: bool
    units: list[float]
    cash: float
    free_cash: float
    aux: dict
    log: list[LoggedOrder]


def columns_of(rebalances: Sequence[Rebalance], num_assets: int) -> dict[str, Any]:
    """All rebalances as one array per field."""

    def column(rows: list, dtype: type, per_asset: bool = True) -> np.ndarray:
        return np.array(rows, dtype).reshape((-1, num_assets) if per_asset else (-1,))

    columns: dict[str, Any] = {name: [getattr(row, name) for row in rebalances] for name in ("aux", "log")}
    for name in ("excess", "target", "units", "size_type", "direction", "sequence"):
        dtype = int if name in ("size_type", "direction") else float
        columns[name] = column([getattr(row, name) for row in rebalances], dtype)
    columns["is_decision"] = column([row.is_decision for row in rebalances], bool, False)
    for name in ("bars", "value", "cash", "free_cash"):
        columns[name] = column([getattr(row, name) for row in rebalances], int if name == "bars" else float, False)
    for name in ("request", "trade", "price", "fees", "info", "rank", "clip"):
        orders = [[getattr(order, name) for order in row.log] for row in rebalances]
        columns[name] = column(orders, int if name in ("info", "rank", "clip") else float)
    return columns
