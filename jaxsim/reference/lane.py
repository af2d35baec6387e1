"""One lane, bar after bar: rules 0 as a plain Python loop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isinf, isnan, nan
from typing import Any

import jax
import numpy as np

from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.engine.base.enums import CallSeq, Direction, SizeType
from jaxsim.engine.base.fields import CALL_SEQ, DIRECTION, SIZE_TYPE, Codes
from jaxsim.engine.base.numerics import coarse
from jaxsim.engine.base.random import reject_draws
from jaxsim.engine.policy.allocation import Allocation, read_codes, refuse_fractions, refuse_labels
from jaxsim.engine.policy.destinations import SpreadOver, ToTarget
from jaxsim.engine.policy.drift_triggers import Threshold
from jaxsim.engine.policy.given import GivenOrders
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import Policy, allocator_name, initial_state, keeps_state, observes
from jaxsim.engine.policy.triggers import AtBars, Never, as_answer, excess_of
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.cut import PRO_RATA
from jaxsim.engine.trading.market import Market
from jaxsim.engine.trading.status import Incident, LaneFault
from jaxsim.errors import OrderError
from jaxsim.reference.cut import cut_alike
from jaxsim.reference.delisting import close_what_leaves, closing_row
from jaxsim.reference.opening import open_account
from jaxsim.reference.orders import (
    AccountState,
    OrderRequest,
    approx_order_value,
    call_sequence,
    process_order,
    snap,
)
from jaxsim.reference.records import Answer, LaneRun, LoggedOrder, Rebalance, columns_of
from jaxsim.reference.ruin import close_all, is_ruined_before
from jaxsim.reference.stops import Positions

_key_at = jax.jit(jax.random.fold_in)  # for speed: without jit a key takes ten times as long


@dataclass(frozen=True)
class _Plan:
    """The rest of a rebalance that is spread over several bars.

    end: weights after the last part.       parts: number of parts left.
    """

    answer: Answer
    end: list[float]
    parts: int


def run_lane(market: Market, policy: Policy, costs: Costs, account: Account, key: Any = None) -> LaneRun:
    """Simulate one group of assets under one combination of parameters, over all bars.

    market: with NumPy arrays [time, asset].    key: the lane's random key, or an int (default 0).

    Allocators and triggers are called as ordinary Python, in the order of the bars, with NumPy arrays; nothing is
    traced. Raises ValueError if the allocator does not answer with one weight per asset, OrderError for an invalid
    order, RejectedOrderError if an order with `raise_reject` is rejected. A weight that is NaN or infinite raises
    nothing: it is recorded as the `fault`, and the lane trades no more.
    """
    return _Lane(market, policy, costs, account, key).run()


class _Lane:
    """The state of a running lane: plain lists of floats, one entry per asset."""

    def __init__(self, market: Market, policy: Policy, costs: Costs, account: Account, key: Any):
        shape = market.num_bars, market.num_assets
        self.num_bars, self.num_assets = shape
        self.policy = policy
        self.min_history = float(policy.min_history)
        self.key = jax.random.key(key or 0) if key is None or isinstance(key, int) else key
        self.val_price = _rows(market.val_price, shape)
        self.price = _rows(market.price, shape)
        self.mark = _rows(market.mark, shape)
        self.priced_at = None if market.priced_at is None else np.asarray(market.priced_at).tolist()
        self.gone = None if market.gone is None else _rows(market.gone, shape)
        self.carried = None if market.carried is None else _rows(market.carried, shape)
        terms = {name: value for name, value in vars(costs).items() if value is not None and name != "update_value"}
        self.terms = {name: np.broadcast_to(np.asarray(value), shape).tolist() for name, value in terms.items()}
        self.update_value = costs.update_value is not None and bool(costs.update_value)
        size_type, direction = policy.size_type, policy.direction
        self.size_type = _rows(SizeType.TARGET_PERCENT if size_type is None else size_type, shape)
        self.direction = _rows(Direction.BOTH if direction is None else direction, shape)
        self.are_weights = size_type is None
        self.call_seq = CallSeq.AUTO if policy.call_seq is None else CallSeq(int(policy.call_seq))
        self.threshold = _rows(policy.trigger.threshold, shape) if is_plain_threshold(policy.trigger) else []
        self.features = jax.tree.map(np.asarray, market.features)
        self.closes = np.asarray(market.close, float).view()
        self.closes.flags.writeable = False

        self.cash = float(account.cash)
        self.units = [0.0] * self.num_assets
        self.free_cash = self.cash
        self.debt = [0.0] * self.num_assets
        self.is_unasked = False  # the first bar that may trade is a rebalance
        self.last_fill = [(nan, 0)] * self.num_assets  # price and bar; used if fills move valuation prices
        self.target = [nan] * self.num_assets
        self.state = initial_state(policy.allocator, self.num_assets)
        self.closed: dict[int, LoggedOrder] = {}  # at this bar, of assets that have left the market
        self.is_emptied = False  # nothing is held, since all of it has left the market
        self.incidents = Incident(0)
        self.goes_on = isinstance(policy.allocator, GivenOrders)  # plain orders do, whatever the account is worth
        self.is_ruined = False
        self.aux: dict = {}  # of the last answer
        self.fault = (LaneFault.NONE, -1, -1)
        self.plan: _Plan | None = None
        self.positions = None if policy.stops is None else Positions(policy.stops, self.num_assets)
        if account.units is not None:
            open_account(self, account)
        self.rebalances: list[Rebalance] = []
        self.bar_aux: list[dict] = []
        self.seen: Observation | None = None

    def run(self) -> LaneRun:
        value_path, cash_path = np.empty(self.num_bars), np.empty(self.num_bars)
        units_path = np.empty((self.num_bars, self.num_assets))
        for bar in range(self.num_bars):
            self.step(bar)
            value_path[bar] = self.worth(self.mark[bar])  # 7. mark
            cash_path[bar] = self.cash
            units_path[bar] = self.units
        return LaneRun(
            **columns_of(self.rebalances, self.num_assets),
            bar_aux=self.bar_aux,
            fault=self.fault,
            incidents=self.incidents,
            value_path=value_path,
            cash_path=cash_path,
            units_path=units_path,
        )

    def step(self, bar: int) -> None:
        """Steps 1 to 6 of a bar."""
        falls = is_ruined_before(self, bar)
        self.closed = close_what_leaves(self, bar)  # 1. close
        self.val_price_now = self.valuation(bar)
        value = self.worth(self.val_price_now)  # 2. value
        self.seen = None  # 3. observe; the observation is built when it is first used
        if observes(self.policy.allocator):
            self.watch(self.observation(bar, value))
        if falls and any(units != 0 for units in self.units):
            self.rebalances.append(close_all(self, bar, value))
            return
        if not self.wants_to_trade(bar, value):  # 4. decide
            if self.closed:
                self.rebalances.append(closing_row(self, bar, value))
            # The account is snapped at every bar, also without a trade (rules 3.1).
            self.cash, self.free_cash = snap(self.cash), snap(self.free_cash)
            self.units, self.debt = ([snap(x) for x in balance] for balance in (self.units, self.debt))
            return
        if self.plan is not None:
            self.trade_to(bar, value, self.plan.answer, is_decision=False)
            return
        answer = self.ask(self.observation(bar, value))  # 5. allocate
        if self.positions is None:
            self.rebalance(bar, value, answer)  # 6. order
        else:
            self.rebalance_with_stops(bar, value, answer, self.positions)

    def valuation(self, bar: int) -> list[float]:
        """The market's valuation prices, or the prices of later fills (rules 3.10, 4.3)."""
        prices = self.val_price[bar]
        if not self.update_value or self.priced_at is None:
            return prices
        return [
            price if isnan(last) or 2 * when < priced_at else last
            for price, (last, when), priced_at in zip(prices, self.last_fill, self.priced_at[bar], strict=True)
        ]

    def worth(self, prices: Sequence[float]) -> float:
        """cash + sum(units * price), added from left to right; an asset that is not held needs no price."""
        value = self.cash
        for units, price in zip(self.units, prices, strict=True):
            if units != 0:
                value += units * price
        return value

    def observation(self, bar: int, value: float) -> Observation:
        """The observation of this bar; built once and shared by trigger, allocator, destination and stops."""
        if self.seen is not None:
            return self.seen
        val_price = np.array(self.val_price_now)
        units = np.array(self.units)
        known = ~np.isnan(val_price)
        holding = np.where(known, units * val_price, 0.0)
        known_now: dict[str, Any] = dict(  # plain NumPy, where the compiled engine has JAX arrays
            step=bar,
            weights=holding / value if value != 0 else np.zeros(self.num_assets),
            units=units,
            value=value,
            cash=self.cash,
            debt=np.array(self.debt),
            free_cash=self.free_cash,
            val_price=val_price,
            target=np.array(self.target),
            tradable=known,
            key=_key_at(self.key, bar),
            features=jax.tree.map(lambda x: x[bar], self.features),
            closes=self.closes,
            carried=None if self.carried is None else np.array(self.carried[bar]),
            is_emptied=self.is_emptied,
        )
        self.seen = Observation(**known_now)
        return self.seen

    def watch(self, obs: Observation) -> None:
        """Call the allocator's `observe` and record its arrays."""
        answer = self.policy.allocator.observe(obs, self.state)
        aux: dict = {}
        if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict):
            answer, aux = answer
        self.state = answer
        self.bar_aux.append(_copied(aux))

    def wants_to_trade(self, bar: int, value: float) -> bool:
        """Whether the allocator is asked at this bar (rules 5.1), or a spread rebalance continues."""
        if self.fault[0] != LaneFault.NONE or self.is_ruined or bar < self.min_history:
            return False
        if self.plan is not None:
            return True
        if self.is_unasked:
            return True
        if self.policy.trades_when_flat and not self.is_emptied and all(units == 0 for units in self.units):
            return True
        if self.is_triggered(bar, value):
            return True
        return self.positions is not None and any(self.positions.breached(self.observation(bar, value)))

    def is_triggered(self, bar: int, value: float) -> bool:
        """Whether the trigger fires."""
        trigger = self.policy.trigger
        if is_plain_threshold(trigger):
            return self.has_drifted(bar, value)
        if type(trigger) is Never:
            return False
        if type(trigger) is AtBars:
            return bool(trigger.mask[bar])
        return bool(as_answer(trigger(self.observation(bar, value))))

    def has_drifted(self, bar: int, value: float) -> bool:
        """Whether any weight is off its last target by the threshold or more. NaN compares false: it is the weight of
        an asset without a price of this bar, and the target of an asset that was left alone."""
        drift, threshold = self.drift(bar, value), self.threshold[bar]
        return any(drift[n] >= threshold[n] for n in range(self.num_assets))

    def drift(self, bar: int, value: float) -> list[float]:
        """The distance of each present weight from its last target; NaN where the price is of an earlier bar."""
        holdings = [units * price for units, price in zip(self.units, self.val_price_now, strict=True)]
        carried = [False] * self.num_assets if self.carried is None else self.carried[bar]
        terms = zip(holdings, self.target, carried, strict=True)
        return [nan if old else abs(_ratio(x, value) - target) for x, target, old in terms]

    def ask(self, obs: Observation) -> Answer:
        """Ask the allocator, and check that it returns one weight per asset."""
        allocator = self.policy.allocator
        if keeps_state(allocator):
            answer, self.state = allocator(obs, self.state)
        else:
            answer = allocator(obs)
        if not isinstance(answer, Allocation):
            answer = Allocation(answer)
        refuse_labels(answer.weights, allocator_name(self.policy.allocator))
        refuse_masked(vars(answer), f"allocator {allocator_name(allocator)}")
        weights = np.array(answer.weights, float)
        skip = np.zeros(self.num_assets, bool) if answer.skip is None else np.array(answer.skip, bool)
        for name, array in (("weights", weights), ("skip", skip)):
            if array.shape != (self.num_assets,):
                raise ValueError(
                    f"allocator {allocator_name(allocator)} returned {name} of shape {array.shape}; "
                    f"expected one per asset, ({self.num_assets},)"
                )
        bar = int(obs.step)
        size_type, direction, call_seq = answer.size_type, answer.direction, answer.call_seq
        return Answer(
            np.where(skip, nan, weights).tolist(),
            skip.tolist(),
            self.size_type[bar] if size_type is None else self.codes(SIZE_TYPE, size_type, "size_type"),
            self.direction[bar] if direction is None else self.codes(DIRECTION, direction, "direction"),
            self.are_weights and size_type is None,
            self.call_seq if call_seq is None else self.sequence(call_seq),
            _copied(answer.aux),
        )

    def codes(self, kind: Codes, answer: Any, name: str) -> list[int]:
        """One code per asset."""
        codes = np.asarray(read_codes(answer, kind, name, self.num_assets, allocator_name(self.policy.allocator)))
        return np.broadcast_to(kind.read(codes, name), (self.num_assets,)).tolist()

    def sequence(self, answer: Any) -> CallSeq | list[int]:
        """A call sequence rule, or the assets in the order of their execution."""
        if np.ndim(answer) == 0:
            return CallSeq(int(CALL_SEQ.read(answer, "call_seq")))
        refuse_fractions(answer, allocator_name(self.policy.allocator))
        order = np.asarray(answer).tolist()
        return self.call_seq if all(n == -1 for n in order) else order

    def rebalance(self, bar: int, value: float, answer: Answer) -> None:
        """Store the target weights and trade towards them, unless one of them is a fault."""
        excess = self.excess(bar, value)
        self.target, self.is_unasked = answer.weights, False
        self.note_faults(bar, answer)
        if answer.are_weights and isinstance(self.policy.destination, SpreadOver):
            is_at_once = not self.policy.destination.when_flat and all(units == 0 for units in self.units)
            parts = 1 if is_at_once else int(self.policy.destination.bars)
            self.plan = _Plan(answer, self.destination(bar, value, answer), parts)
        self.trade_to(bar, value, answer, excess)

    def rebalance_with_stops(self, bar: int, value: float, answer: Answer, positions: Positions) -> None:
        """Rebalance, or close positions by stops, or both."""
        obs, remembered = self.observation(bar, value), self.target
        asked = positions.asked(obs, answer.weights, self.is_triggered(bar, value))
        self.rebalance(bar, value, replace(answer, weights=asked, skip=[isnan(x) for x in asked]))
        if not positions.is_due(obs):
            # Assets that stops leave alone keep their targets, with which a threshold compares weights.
            self.target = [old if isnan(new) else new for old, new in zip(remembered, self.target, strict=True)]

    def excess(self, bar: int, value: float) -> list[float]:
        """The distance of each asset beyond the limit of the trigger."""
        if self.threshold:
            return [x - limit for x, limit in zip(self.drift(bar, value), self.threshold[bar], strict=True)]
        return np.array(excess_of(self.policy.trigger, self.observation(bar, value)), float).tolist()

    def trade_to(
        self, bar: int, value: float, answer: Answer, excess: list[float] | None = None, is_decision: bool = True
    ) -> None:
        """Trade a rebalance, or the next part of it."""
        excess = self.excess(bar, value) if excess is None else excess
        if self.fault[0] != LaneFault.NONE:
            sizes = [nan] * self.num_assets  # orders without a size are ignored
        elif self.plan is not None:
            sizes = self.next_part(bar, value, self.plan)
        else:
            sizes = self.destination(bar, value, answer)
            if self.positions is not None:  # a stop closes the whole position, whatever the destination
                sizes = [0.0 if x else size for x, size in zip(self.positions.closing, sizes, strict=True)]
        log = self.execute(bar, value, sizes, answer) | self.closed
        self.is_emptied = self.is_emptied and all(units == 0 for units in self.units)
        self.aux = answer.aux
        row = Rebalance(
            bars=bar,
            value=value,
            excess=excess,
            target=self.target,
            size_type=answer.size_type,
            direction=answer.direction,
            sequence=self.chosen_sequence(answer),
            is_decision=is_decision,
            units=list(self.units),
            cash=self.cash,
            free_cash=self.free_cash,
            aux=answer.aux,
            log=[log[n] for n in range(self.num_assets)],
        )
        self.rebalances.append(row)
        if self.plan is not None:
            is_done = self.plan.parts == 1 or all(units == 0 for units in self.units)
            self.plan = None if is_done else replace(self.plan, parts=self.plan.parts - 1)

    def next_part(self, bar: int, value: float, plan: _Plan) -> list[float]:
        """Weights after this part: an equal share of the rest of the way; the last part reaches the end."""
        if plan.parts == 1:
            return plan.end
        present = self.observation(bar, value).weights.tolist()
        ways = [-1.0 if way == Direction.SHORT_ONLY else 1.0 for way in plan.answer.direction]
        ends = zip(present, plan.end, ways, strict=True)
        return [way * (start + (way * end - start) / plan.parts) for start, end, way in ends]

    def chosen_sequence(self, answer: Answer) -> list[float]:
        """The place of each asset in the order of execution; NaN unless the allocator chose it."""
        if self.fault[0] != LaneFault.NONE or not isinstance(answer.call_seq, list):
            return [nan] * self.num_assets
        return [float(answer.call_seq.index(n)) for n in range(self.num_assets)]

    def destination(self, bar: int, value: float, answer: Answer) -> list[float]:
        """The sizes to trade to: the targets, or for weights the point that the policy's destination sets."""
        if not answer.are_weights or type(self.policy.destination) is ToTarget:
            return self.target
        obs = self.observation(bar, value)
        way = np.where(np.array(answer.direction) == Direction.SHORT_ONLY, -1.0, 1.0)
        return (way * np.array(self.policy.destination(obs, way * self.target, self.policy.trigger), float)).tolist()

    def note_faults(self, bar: int, answer: Answer) -> None:
        """Record the first fault of an answer, if there is one."""
        for n in range(self.num_assets):
            fault = _weight_fault(self.target[n], answer)
            if fault == LaneFault.NONE and self.policy.cut == PRO_RATA and not answer.are_weights:
                is_share = answer.size_type[n] == SizeType.PERCENT
                fault = LaneFault.CUT if is_share or isinf(self.target[n]) else fault
            if fault != LaneFault.NONE and not answer.skip[n]:
                self.fault = (fault, bar, n)
                return
        if isinstance(answer.call_seq, list) and sorted(answer.call_seq) != list(range(self.num_assets)):
            self.fault = (LaneFault.CALL_SEQ, bar, 0)

    def execute(self, bar: int, value: float, sizes: list[float], answer: Answer) -> dict[int, LoggedOrder]:
        """Execute one order for each asset, one after the other; returns them by asset."""
        log, draws = {}, [nan] * self.num_assets
        if "reject_prob" in self.terms:
            draws = reject_draws(_key_at(self.key, bar), self.num_assets).tolist()
        orders, sequence = self.orders(bar, sizes, answer), self.execution(sizes, value, answer)
        if self.policy.cut == PRO_RATA:
            accounts = [self.account_of(n, value) for n in range(self.num_assets)]
            closing = [self.is_ruined] * self.num_assets  # which closes all that it trades
            if self.positions is not None and not self.is_ruined:
                closing = self.positions.closing
            is_by_value = not isinstance(answer.call_seq, list) and answer.call_seq == CallSeq.AUTO
            worths = self.worths(sizes, value, answer) if is_by_value else None
            orders, sequence = cut_alike(accounts, orders, sequence, closing, worths)
        for rank, n in enumerate(sequence):
            order, before = orders[n], self.account_of(n, value)
            try:
                after, result = process_order(before, order, draw=draws[n], update_value=self.update_value)
            except OrderError as error:
                raise type(error)(str(error), bar, n) from error
            log[n] = LoggedOrder(before, order, after, result, rank)
            self.cash, self.free_cash, value = after.cash, after.free_cash, after.value
            if self.positions is not None and log[n].is_filled:
                self.positions.filled(n, before.position, after.position, log[n].price)
            self.units[n], self.debt[n] = after.position, after.debt
            if self.update_value and log[n].is_filled:
                self.last_fill[n] = (after.val_price, bar)
        return log

    def orders(self, bar: int, sizes: list[float], answer: Answer) -> list[OrderRequest]:
        """The orders by asset."""
        kinds = [SizeType(x) for x in answer.size_type]
        if self.positions is not None:  # a stop closes whatever the account is worth
            both = zip(kinds, self.positions.closing, strict=True)
            kinds = [SizeType.TARGET_AMOUNT if closes else kind for kind, closes in both]
        terms = [{name: rows[bar][n] for name, rows in self.terms.items()} for n in range(self.num_assets)]
        return [
            OrderRequest(sizes[n], self.price[bar][n], kinds[n], Direction(answer.direction[n]), **terms[n])
            for n in range(self.num_assets)
        ]

    def account_of(self, n: int, value: float) -> AccountState:
        """The account before an order for asset `n`."""
        return AccountState(self.cash, self.units[n], self.debt[n], self.free_cash, self.val_price_now[n], value)

    def execution(self, sizes: list[float], value: float, answer: Answer) -> list[int]:
        """The assets in their order of execution."""
        if isinstance(answer.call_seq, list):
            return answer.call_seq if self.fault[0] == LaneFault.NONE else list(range(self.num_assets))
        if answer.call_seq != CallSeq.AUTO:
            forward = range(self.num_assets)
            return list(forward if answer.call_seq == CallSeq.DEFAULT else reversed(forward))
        return call_sequence(self.worths(sizes, value, answer))

    def worths(self, sizes: list[float], value: float, answer: Answer) -> list[float]:
        """The order values that decide the order of execution; those that only rounding tells apart are equal."""
        worths = [
            approx_order_value(self.account_of(n, value), sizes[n], SizeType(size_type), Direction(direction))
            for n, (size_type, direction) in enumerate(zip(answer.size_type, answer.direction, strict=True))
        ]
        has_ties = not isinstance(self.policy.destination, ToTarget)
        return [float(coarse(x, value)) for x in worths] if has_ties else worths


def is_plain_threshold(trigger: Any) -> bool:
    return type(trigger) is Threshold and not trigger.relative


def _weight_fault(weight: float, answer: Answer) -> LaneFault:
    if isnan(weight):
        return LaneFault.WEIGHT_NAN
    return LaneFault.WEIGHT_INFINITE if answer.are_weights and isinf(weight) else LaneFault.NONE


def _rows(x: Any, shape: tuple[int, int]) -> list[list]:
    """A number, [asset], or [time or 1, asset or 1] as one list per bar."""
    return np.broadcast_to(np.asarray(x), shape).tolist()


def _ratio(a: float, b: float) -> float:
    """a / b with IEEE division by zero: in an account of value zero, any position is infinitely far from its target."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(a, b)) if b == 0 else a / b


def _copied(aux: Any) -> dict:
    """Copies of recorded arrays, since an allocator may overwrite its own."""
    return {name: np.array(array) for name, array in aux.items()}
