"""`RunArguments`: the arguments of a run, checked and resolved, before anything is simulated.

`backtest`, `sweep` and `replay` share them, and differ in what they keep of a run.
"""

import datetime
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

import equinox as eqx
import numpy as np

from jaxsim.engine.base.enums import SizeType
from jaxsim.engine.base.fields import BARS, SIZE, Bounds, shown
from jaxsim.engine.policy.destinations import AbstractDestination, ToTarget, checked_destination
from jaxsim.engine.policy.given import GivenOrders, given_orders_policy
from jaxsim.engine.policy.policy import Policy, allocator_name
from jaxsim.engine.policy.triggers import Never
from jaxsim.engine.schedules.programs import checked_schedule
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.cut import PRO_RATA, checked_cut, refusal
from jaxsim.frames.inputs.bars_per_year import BarsPerYear
from jaxsim.frames.inputs.benchmark import BenchmarkPrices, read_benchmark
from jaxsim.frames.inputs.delistings import HOLD, closes_of_holder, with_departures
from jaxsim.frames.inputs.groups import layout
from jaxsim.frames.inputs.lanes import read_lanes
from jaxsim.frames.inputs.market import read_lane_prices
from jaxsim.frames.inputs.parameters import LaneParameter, LaneValue, ParameterReader, module_from, resolve, with_fields
from jaxsim.frames.inputs.prices import PriceFrames, Table, checked_prices, is_price_table
from jaxsim.frames.inputs.sweep_axes import Sweep
from jaxsim.frames.results.paths import RunContext
from jaxsim.frames.runs.execute import checked
from jaxsim.frames.runs.job import Job
from jaxsim.frames.runs.opening import opening_values, read_account
from jaxsim.frames.runs.terms import MEANING, Engine, Meaning, Terms, is_set, read_costs, read_meaning


@dataclass(frozen=True, eq=False)
class RunArguments:
    """What is to be run, and how.

    prices: of all columns.     job: all lanes.
    annual: how many bars make a year.
    engine, progress: as the user said.     benchmark: the prices that each group is compared with; None: its assets.
    """

    prices: PriceFrames
    job: Job
    annual: BarsPerYear
    engine: Engine
    progress: bool
    benchmark: BenchmarkPrices | None = None

    @property
    def num_lanes(self) -> int:
        return len(self.job.lanes)

    @property
    def num_bars(self) -> int:
        return len(self.prices.index)

    def take(self, combinations: np.ndarray | None = None, groups: np.ndarray | None = None) -> "RunArguments":
        """The arguments of some combinations and groups; see `Job.take`."""
        given = self.benchmark if self.benchmark is None or groups is None else self.benchmark.take(groups)
        return replace(self, job=self.job.take(combinations, groups), benchmark=given)

    def context(self) -> RunContext:
        """The inputs that the paths of these lanes are worked out from."""
        prices, job = self.prices, self.job
        value, start = opening_values(job), job.starts()
        closes = closes_of_holder(prices)
        given = None if self.benchmark is None else self.benchmark.by_lane(job.num_combinations)
        return RunContext(prices.index, job.layout, closes, prices.mark, value, start, self.annual, benchmark=given)


def read_arguments(close: Table, policy: Policy | Callable | None, terms: Terms) -> RunArguments:
    """Check and resolve the arguments of `js.backtest`; see there for each.

    Raises ValueError or TypeError naming the argument.
    """
    price_table = terms.price if is_price_table(terms.price, close) else None
    prices = checked_prices(close, terms.open, price_table, terms.features)
    arrangement = layout(prices.columns, terms.groups, terms.by)
    reader = ParameterReader(prices.index, arrangement, Sweep())
    if terms.size is not None:
        _refuse_with_orders(policy, terms)
        sizes: Any = reader.by_bar_and_asset(terms.size, "size", SIZE)
        counts = SizeType.AMOUNT if terms.size_type is None else terms.size_type
        meaning = read_meaning(Meaning(counts, terms.direction, terms.call_seq), reader, are_orders=True)
        orders = given_orders_policy(sizes)
        return arguments_of(prices, terms, orders, meaning, reader)
    whole = _whole_policy(policy, terms)
    prices = with_departures(prices, arrangement.assets, terms.stale, terms.delistings)
    parts = {name: reader.module(getattr(whole, name), argument) for name, argument in _PARTS.items()}
    said = {name: getattr(whole, name) if getattr(terms, name) is None else getattr(terms, name) for name in MEANING}
    return arguments_of(prices, terms, whole, parts | read_meaning(Meaning(**said), reader), reader)


#: The parts of a `Policy`, and what messages call them.
_PARTS = {"allocator": "policy", "trigger": "trigger", "destination": "destination"}


def arguments_of(
    prices: PriceFrames,
    terms: Terms,
    policy: Policy,
    policy_fields: dict[str, Any],
    reader: ParameterReader,
    start: LaneParameter | None = None,
) -> RunArguments:
    """Check and resolve the terms beside a policy, for which `policy_fields` have been read.

    start: the first bar that metrics count, unless the user says so; None: the `min_history` of the policy.
    """
    price = None if prices.price is not None else terms.price
    moves_prices = is_set(terms.update_value, False)
    drift = None if terms.size is not None else terms.drift_without_price
    lane_prices = read_lane_prices(prices, price, terms.ffill_val_price, moves_prices, drift, reader)
    costs = read_costs(terms, reader)
    policy_fields = policy_fields | {"cut": _read_cut(policy, terms)}
    if "min_history" not in policy_fields:
        policy_fields = policy_fields | {"min_history": reader.per_lane(policy.min_history, "min_history", BARS)}  # pyright: ignore[reportArgumentType]
    start = read_start(terms.start, len(prices.index), reader) if terms.start is not None else start
    if start is None:
        start = policy_fields["min_history"]
    account = read_account(terms, reader, prices.mark[0])
    lanes = read_lanes(terms.key, reader)
    engine = checked(terms.engine)
    if terms.schedule is not None and engine == "reference":
        raise ValueError("schedule: the reference engine has one of its own, one bar after the other")
    if not isinstance(terms.log, bool | np.bool_):
        raise TypeError(f"log: expected True or False, got {shown(terms.log)}"[:200])
    job = Job(
        prices.index,
        lanes,
        lane_prices,
        prices.features,
        with_fields(policy, policy_fields),
        costs,
        account,
        bool(terms.log),
        checked_schedule(terms.schedule, policy),
        start=start,
    )
    _refuse_worthless(job)
    _warn_of_dust(job, prices)
    _refuse_cut(job)
    annual = BarsPerYear(prices.index).said(terms.freq, terms.year_freq, terms.bars_per_year)
    benchmark = read_benchmark(terms.benchmark, prices.index, reader.layout, closes_of_holder(prices))
    return RunArguments(prices, job, annual, engine, terms.progress, benchmark)


#: Less than this is too close to dust (rules 1.4): it is off by 1e-4 or more.
_LITTLE = 1e-8


def _warn_of_dust(job: Job, prices: PriceFrames) -> None:
    """Warn where what the account is worth at the opening, or the units that it buys, are close to what counts as
    zero."""
    cash, highest = opening_values(job).min(), np.fmax.reduce(prices.close, axis=0)
    column = int(np.nan_to_num(highest).argmax())
    units = cash / highest[column]
    if cash < _LITTLE:
        warnings.warn(f"init_cash: {cash:g} is little, as 1e-12 is zero; count in a smaller unit", stacklevel=4)
    elif units < _LITTLE:
        warnings.warn(
            f"init_cash: {cash:g} buys {units:.2g} of {prices.columns[column]!r} at its highest price, and up to 1e-12 "
            "is zero; count that asset in a smaller unit",
            stacklevel=4,
        )


def _refuse_worthless(job: Job) -> None:
    """Raises ValueError for an account that is opened with nothing, or with less."""
    if job.account.units is None:
        return
    least = opening_values(job).min()
    if not least > 0:
        raise ValueError(
            f"init_units: with its cash the account is worth {least:g} at the opening; expected more than 0"
        )


def _read_cut(policy: Policy, terms: Terms) -> str | None:
    return policy.cut if terms.cut is None else checked_cut(terms.cut)


def _refuse_cut(job: Job) -> None:
    """Raises ValueError naming `cut` where purchases of any lane cannot be cut alike."""
    if job.policy.cut != PRO_RATA:
        return

    def values(x: Any) -> Any:
        return None if x is None else resolve(x).array

    allocator: Any = job.policy.allocator
    size = values(allocator.size) if isinstance(allocator, GivenOrders) else None
    costs = module_from(Costs, {name: values(x) for name, x in vars(job.costs).items()})
    reason = refusal(costs, values(job.policy.size_type), size)
    if reason is not None:
        raise ValueError(reason)


def read_start(start: LaneValue, num_bars: int, reader: ParameterReader) -> LaneParameter:
    """The first bar that metrics count. Raises TypeError or ValueError naming `start` for what is no bar."""
    if isinstance(start, str | datetime.date | np.datetime64):
        raise TypeError(f"start: expected the number of a bar, got {shown(start)}; bt.between({shown(start)}) cuts")
    return reader.per_lane(start, "start", Bounds(0.0, num_bars - 1.0, is_integer=True))


def _refuse_with_orders(policy: Policy | Callable | None, terms: Terms) -> None:
    others = {
        "policy": policy,
        "trigger": terms.trigger,
        "destination": terms.destination,
        "min_history": terms.min_history,
        "init_target": terms.init_target,
    }
    for name, value in others.items():
        if is_set(value, 0 if name == "min_history" else None):
            raise ValueError(f"{name}: plain orders (size=) are traded as they stand; they take no {name}")
    if terms.delistings is not None and not (isinstance(terms.delistings, str) and terms.delistings == HOLD):
        raise ValueError("delistings: plain orders (size=) close nothing by themselves; add the order that does")


_POLICY = Policy(lambda obs: obs.weights)


def _whole_policy(policy: Policy | Callable | None, terms: Terms) -> Policy:
    """The policy, or that of an allocator and the terms. Its gate is hard: others matter for derivatives only."""
    if not isinstance(policy, Policy):
        if policy is None:
            raise TypeError(
                "policy: expected an allocator, as in js.backtest(close, al.EqualWeight()), or orders (size=)"
            )
        allocator = as_allocator(policy, "policy", " or a Policy")
        trigger, destination = rules(terms.trigger, terms.destination)
        parts = {"allocator": allocator, "trigger": trigger, "destination": destination}
        return with_fields(_POLICY, {**parts, "min_history": terms.min_history})
    if terms.trigger is not None:
        raise ValueError("trigger: the Policy has one already")
    if terms.destination is not None:
        raise ValueError("destination: the Policy has one already")
    if is_set(terms.min_history, 0):
        raise ValueError("min_history: the Policy has one already")
    for name in (*MEANING, "cut"):
        if getattr(policy, name) is not None and getattr(terms, name) is not None:
            raise ValueError(f"{name}: the Policy has one already")
    return policy.hardened()


def rules(trigger: Callable | None, destination: AbstractDestination | None) -> tuple[Callable, AbstractDestination]:
    """Trigger and destination, or their defaults. Raises TypeError naming the argument."""
    if trigger is not None and (isinstance(trigger, type) or not callable(trigger)):
        raise TypeError(f"trigger: expected a trigger such as js.Threshold(0.05), got {trigger!r}")
    destination = ToTarget() if destination is None else checked_destination(destination)
    return (Never() if trigger is None else trigger), destination


class _PythonAllocator:
    """A plain Python object as an allocator. JAX cannot see whether its attributes have changed since it was compiled:
    each call has a new wrapper, which is compiled anew."""

    def __init__(self, allocator: Callable):
        self.allocator = allocator
        self.__qualname__ = allocator_name(allocator)
        for name in ("init", "observe"):
            if hasattr(allocator, name):
                setattr(self, name, getattr(allocator, name))

    def __call__(self, *arguments: Any) -> Any:
        return self.allocator(*arguments)


def as_allocator(value: Any, argument: str, others: str = "") -> Callable:
    """An allocator, in a form that can be compiled. Raises TypeError naming the argument for a value that is none.

    others: further values that the message names as possible.
    """
    if not callable(value):
        raise TypeError(f"{argument}: expected an allocation function, an allocator{others}, got {value!r}")
    if isinstance(value, type):
        raise TypeError(f"{argument}: {value.__name__} is a class; pass an instance, {value.__name__}(...)")
    return value if _can_be_compiled(value) else _PythonAllocator(value)


def _can_be_compiled(allocator: Any) -> bool:
    """Whether JAX sees everything that an allocator depends on."""
    return isinstance(allocator, eqx.Module | FunctionType)
