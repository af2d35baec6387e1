"""One lane, bar after bar: DESIGN section 3 as a plain Python loop."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from math import isinf, isnan, nan
from typing import Any

import jax
import numpy as np

from jaxsim.engine.account import Account
from jaxsim.engine.allocation import Allocation, refuse_labels
from jaxsim.engine.costs import Costs
from jaxsim.engine.market import Market
from jaxsim.engine.observation import Observation
from jaxsim.engine.policy import Policy, allocator_name, initial_state, keeps_state, observes
from jaxsim.engine.status import LaneFault, OrderSide, OrderStatus, OrderStatusInfo
from jaxsim.engine.triggers import AtBars, Never, Threshold
from jaxsim.errors import OrderError
from jaxsim.reference.orders import (
    AccountState,
    Direction,
    OrderRequest,
    SizeType,
    approx_order_value,
    call_sequence,
    process_order,
    snap,
)

#: A weight above this is no negative weight but rounding, and counts as 0.
NEGATIVE_WEIGHT = -1e-12

_key_at = jax.jit(jax.random.fold_in)  # only for speed: uncompiled, a key takes ten times as long


@dataclass(frozen=True)
class LaneRun:
    """What came out of one lane. E rebalances, N assets, T bars.

    Per rebalance, [E] or [E, N]:
    bars: number of the bar.    value: of the account before the rebalance, at the valuation prices.
    target: weights asked for, NaN where the asset was left alone.
    units, cash: after it.
    request: units that the target asks for, > 0 to buy; NaN without a valuation price.
    trade: units traded, > 0 bought.    price: the bar's execution price.    fees: paid, currency.
    info: why nothing was filled, an OrderStatusInfo.    rank: place in the order of execution, from 0.
    aux: the arrays that the allocator handed out.

    fault: the first thing that went wrong, its bar and its asset; LaneFault.NONE, -1, -1 if nothing did.
    bar_aux: what `observe` handed out, one per bar; empty if the allocator does not observe.
    value_path, cash_path, units_path: after each bar, marked at the close; [T], [T], [T, N].
    """

    bars: np.ndarray
    value: np.ndarray
    target: np.ndarray
    units: np.ndarray
    cash: np.ndarray
    request: np.ndarray
    trade: np.ndarray
    price: np.ndarray
    fees: np.ndarray
    info: np.ndarray
    rank: np.ndarray
    aux: list[dict]
    bar_aux: list[dict]
    fault: tuple[LaneFault, int, int]
    value_path: np.ndarray
    cash_path: np.ndarray
    units_path: np.ndarray


@dataclass(frozen=True)
class _Answer:
    """An allocator's answer in plain Python; NaN for the weight of an asset that is left alone."""

    weights: list[float]
    skip: list[bool]
    aux: dict


@dataclass(frozen=True)
class _Rebalance:
    """One row of a LaneRun's arrays per rebalance."""

    bars: int
    value: float
    target: list[float]
    units: list[float]
    cash: float
    request: list[float]
    trade: list[float]
    price: list[float]
    fees: list[float]
    info: list[int]
    rank: list[int]
    aux: dict


def run_lane(market: Market, policy: Policy, costs: Costs, account: Account, key: Any = None) -> LaneRun:
    """One group of assets under one combination of parameters, all bars.

    market: with NumPy arrays [time, asset].    key: the lane's random key, or an int (default 0).

    Allocators and triggers are called as ordinary Python, in the order of the bars, and see NumPy arrays;
    nothing is traced. Raises ValueError if the allocator does not answer with one weight per asset, and
    OrderError if a price or a cost makes no sense. A weight that is NaN, infinite or negative raises nothing:
    it is the `fault`, and ends the lane's trading.
    """
    return _Lane(market, policy, costs, account, key).run()


class _Lane:
    """The lane while it runs: plain lists of floats, one entry per asset."""

    def __init__(self, market: Market, policy: Policy, costs: Costs, account: Account, key: Any):
        shape = market.num_bars, market.num_assets
        self.num_bars, self.num_assets = shape
        self.policy = policy
        self.min_history = float(policy.min_history)
        self.key = jax.random.key(key or 0) if key is None or isinstance(key, int) else key
        self.val_price = _rows(market.val_price, shape)
        self.price = _rows(market.price, shape)
        self.mark = _rows(market.mark, shape)
        self.fees = _rows(costs.fees, shape)
        self.threshold = _rows(policy.trigger.threshold, shape) if type(policy.trigger) is Threshold else []
        self.features = jax.tree.map(np.asarray, market.features)
        self.closes = np.asarray(market.close, float).view()
        self.closes.flags.writeable = False

        self.cash = float(account.cash)
        self.units = [0.0] * self.num_assets
        self.target = [nan] * self.num_assets
        self.state = initial_state(policy.allocator, self.num_assets)
        self.fault = (LaneFault.NONE, -1, -1)
        self.rebalances: list[_Rebalance] = []
        self.bar_aux: list[dict] = []
        self.seen: Observation | None = None

    def run(self) -> LaneRun:
        value_path, cash_path = np.empty(self.num_bars), np.empty(self.num_bars)
        units_path = np.empty((self.num_bars, self.num_assets))
        for bar in range(self.num_bars):
            self.step(bar)
            value_path[bar] = self.worth(self.mark[bar])  # 6. mark
            cash_path[bar] = self.cash
            units_path[bar] = self.units
        return LaneRun(
            **_columns(self.rebalances, self.num_assets),
            bar_aux=self.bar_aux,
            fault=self.fault,
            value_path=value_path,
            cash_path=cash_path,
            units_path=units_path,
        )

    def step(self, bar: int) -> None:
        """Events 1 to 5 of a bar."""
        value = self.worth(self.val_price[bar])  # 1. value
        self.seen = None  # 2. observe; the observation is built when somebody looks
        if observes(self.policy.allocator):
            self.watch(self.observation(bar, value))
        if not self.wants_to_trade(bar, value):  # 3. decide
            self.cash = snap(self.cash)  # an account is snapped at every bar, traded or not (SEMANTICS 3.1)
            self.units = [snap(units) for units in self.units]
            return
        answer = self.ask(self.observation(bar, value))  # 4. allocate
        self.rebalance(bar, value, answer)  # 5. order

    def worth(self, prices: Sequence[float]) -> float:
        """cash + sum(units * price), left to right; an asset that is not held needs no price."""
        value = self.cash
        for units, price in zip(self.units, prices, strict=True):
            if units != 0:
                value += units * price
        return value

    def observation(self, bar: int, value: float) -> Observation:
        """What is known now; one and the same for all that look at this bar."""
        if self.seen is not None:
            return self.seen
        val_price = np.array(self.val_price[bar])
        units = np.array(self.units)
        known = ~np.isnan(val_price)
        holding = np.where(known, units * val_price, 0.0)
        known_now: dict[str, Any] = dict(  # plain NumPy, where the compiled engine has JAX arrays
            step=bar,
            weights=holding / value if value != 0 else np.zeros(self.num_assets),
            units=units,
            value=value,
            cash=self.cash,
            debt=np.zeros(self.num_assets),
            free_cash=self.cash,
            val_price=val_price,
            target=np.array(self.target),
            tradable=known,
            key=_key_at(self.key, bar),
            features=jax.tree.map(lambda x: x[bar], self.features),
            closes=self.closes,
        )
        self.seen = Observation(**known_now)
        return self.seen

    def watch(self, obs: Observation) -> None:
        """Show the bar to an allocator that observes."""
        answer = self.policy.allocator.observe(obs, self.state)
        aux: dict = {}
        if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict):
            answer, aux = answer
        self.state = answer
        self.bar_aux.append(_copied(aux))

    def wants_to_trade(self, bar: int, value: float) -> bool:
        """Whether the allocator is asked at this bar (SEMANTICS 5.1)."""
        if self.fault[0] != LaneFault.NONE or bar < self.min_history:
            return False
        if self.policy.trades_when_flat and all(units == 0 for units in self.units):
            return True
        trigger = self.policy.trigger
        if type(trigger) is Threshold:
            return self.has_drifted(bar, value)
        if type(trigger) is Never:
            return False
        if type(trigger) is AtBars:
            return bool(trigger.mask[bar])
        return bool(trigger(self.observation(bar, value)))

    def has_drifted(self, bar: int, value: float) -> bool:
        """Whether any asset is off its last target by the threshold or more. What is NaN compares false: the
        weight of an asset without a price, the target of one that was left alone."""
        val_price, threshold = self.val_price[bar], self.threshold[bar]
        for n in range(self.num_assets):
            if abs(self.units[n] * val_price[n] / value - self.target[n]) >= threshold[n]:
                return True
        return False

    def ask(self, obs: Observation) -> _Answer:
        """Ask the allocator, and check that it answers with one weight per asset."""
        allocator = self.policy.allocator
        if keeps_state(allocator):
            answer, self.state = allocator(obs, self.state)
        else:
            answer = allocator(obs)
        if not isinstance(answer, Allocation):
            answer = Allocation(answer)
        refuse_labels(answer.weights, allocator_name(self.policy.allocator))
        weights = np.array(answer.weights, float)
        skip = np.zeros(self.num_assets, bool) if answer.skip is None else np.array(answer.skip, bool)
        for name, array in (("weights", weights), ("skip", skip)):
            if array.shape != (self.num_assets,):
                raise ValueError(
                    f"allocator {allocator_name(allocator)} returned {name} of shape {array.shape}; "
                    f"expected one per asset, ({self.num_assets},)"
                )
        return _Answer(np.where(skip, nan, weights).tolist(), skip.tolist(), _copied(answer.aux))

    def rebalance(self, bar: int, value: float, answer: _Answer) -> None:
        """Remember the target weights and trade towards them, unless one of them is at fault."""
        self.target = answer.weights
        for n in range(self.num_assets):
            fault = _weight_fault(self.target[n], answer.skip[n])
            if fault != LaneFault.NONE:
                self.fault = (fault, bar, n)
                break
        if self.fault[0] == LaneFault.NONE:
            self.target = [0.0 if weight < 0 else weight for weight in self.target]
            sizes = self.target
        else:
            sizes = [nan] * self.num_assets  # orders of no size are ignored

        price, val_price = self.price[bar], self.val_price[bar]
        before = [
            AccountState(self.cash, self.units[n], 0.0, self.cash, val_price[n], value) for n in range(self.num_assets)
        ]
        order_values = [
            approx_order_value(state, size, SizeType.TARGET_PERCENT, Direction.BOTH)
            for state, size in zip(before, sizes, strict=True)
        ]
        request = [size * value / state.val_price - state.position for state, size in zip(before, sizes, strict=True)]
        trade, paid = [0.0] * self.num_assets, [0.0] * self.num_assets
        info, rank = [int(OrderStatusInfo.NONE)] * self.num_assets, [0] * self.num_assets
        for place, n in enumerate(call_sequence(order_values)):
            order = OrderRequest(sizes[n], price[n], SizeType.TARGET_PERCENT, fees=self.fees[bar][n])
            state = AccountState(self.cash, self.units[n], 0.0, self.cash, val_price[n], value)
            try:
                state, result = process_order(state, order)
            except OrderError as error:
                raise type(error)(f"bar {bar}, asset {n}: {error}") from error
            if result.status == OrderStatus.FILLED:
                trade[n] = result.size if result.side == OrderSide.BUY else -result.size
                paid[n] = result.fees
            self.cash, self.units[n] = state.cash, state.position
            info[n], rank[n] = int(result.info), place
        self.rebalances.append(
            _Rebalance(
                bars=bar,
                value=value,
                target=self.target,
                units=list(self.units),
                cash=self.cash,
                request=request,
                trade=trade,
                price=price,
                fees=paid,
                info=info,
                rank=rank,
                aux=answer.aux,
            )
        )


def _weight_fault(weight: float, skip: bool) -> LaneFault:
    if skip:
        return LaneFault.NONE
    if isnan(weight):
        return LaneFault.WEIGHT_NAN
    if isinf(weight):
        return LaneFault.WEIGHT_INFINITE
    return LaneFault.WEIGHT_NEGATIVE if weight < NEGATIVE_WEIGHT else LaneFault.NONE


def _rows(x: Any, shape: tuple[int, int]) -> list[list[float]]:
    """A number, [asset], or [time or 1, asset or 1] as one list of floats per bar."""
    return np.broadcast_to(np.asarray(x, float), shape).tolist()


def _copied(aux: Any) -> dict:
    """Recorded arrays, safe from an allocator that goes on writing into them."""
    return {name: np.array(array) for name, array in aux.items()}


def _columns(rebalances: Iterable[_Rebalance], num_assets: int) -> dict[str, Any]:
    """The rows of all rebalances as one array per field."""
    rebalances = list(rebalances)
    columns: dict[str, Any] = {}
    for field in fields(_Rebalance):
        rows = [getattr(row, field.name) for row in rebalances]
        if field.name == "aux":
            columns[field.name] = rows
            continue
        dtype = int if field.name in ("bars", "info", "rank") else float
        per_asset = field.name not in ("bars", "value", "cash")
        columns[field.name] = np.array(rows, dtype).reshape((-1, num_assets) if per_asset else (-1,))
    return columns
