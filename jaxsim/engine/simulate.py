"""The pure simulator: a scan of `step` over the bars of a market."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Bool

from jaxsim.engine.adjoints.at_events import Held, find_events, scan_events
from jaxsim.engine.adjoints.checkpointed import AbstractAdjoint, AtEvents, Checkpointed, checked_adjoint, scan_in_chunks
from jaxsim.engine.adjoints.near_misses import find_misses
from jaxsim.engine.bar.lanes import LaneInputs
from jaxsim.engine.bar.simulation import Save, Simulation
from jaxsim.engine.bar.step import LaneState, Rebalance, at_bar_row, step
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.fields import check_fields
from jaxsim.engine.base.numerics import cast_inexact, dot
from jaxsim.engine.base.random_keys import as_key
from jaxsim.engine.metrics.returns import returns_from_value
from jaxsim.engine.policy.gates import AbstractGate, Hard
from jaxsim.engine.policy.host_callback import refuse_deadlock
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.policy.triggers import AtBars
from jaxsim.engine.schedules.forward_run import simulate_ahead
from jaxsim.engine.schedules.next_event import NextEvent
from jaxsim.engine.schedules.schedule import Scan, checked_schedule
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market
from jaxsim.engine.trading.status import LaneFault


def simulate(
    market: Market,
    policy: Policy,
    *,
    costs: Costs | None = None,
    account: Account | None = None,
    key: Any = None,
    save: Save | None = None,
    adjoint: AbstractAdjoint | None = None,
    schedule: Scan | NextEvent | None = None,
    lane_axis: str | Sequence[str] | None = None,
) -> Simulation:
    """Run one policy through one market; pure, so that it goes under `jit`, `vmap` and `grad`.

    market: prices of one group, [time, asset]. Its dtype is the dtype of everything.
    policy: allocator and trigger.
    costs: default no fees.     account: default a cash of 100.     key: random key or int, default 0.
    save: which arrays to keep.
    adjoint: how derivatives are computed, `js.Checkpointed()` unless said otherwise; changes no value.
    schedule: how the bars are run; default `js.Scan()`, bar by bar, which has derivatives. `js.NextEvent()` runs
        forward only: it simulates none but the bars at which something may be traded. Many lanes are fastest in
        `js.backtest` and `js.sweep`, which look ahead for all of them together.
    lane_axis: the `axis_name` of the caller's own `vmap`, if there is one, or those of several: with it a bar on which
        no lane trades costs no allocation, as it does in the pandas face; without it the result is the same, only
        slower.

    Nothing is raised for what goes wrong inside (a NaN weight, say): `Simulation.status` tells.
    Raises TypeError or ValueError for arguments of the wrong kind or shape.
    """
    run = run_of(market, policy, costs, account, key)
    save = of_kind(Save, save, "save")
    if isinstance(checked_schedule(schedule, policy), NextEvent):
        if adjoint is not None:
            raise ValueError("adjoint: js.NextEvent() runs forward only; leave the schedule out for derivatives")
        run = replace(run, policy=exact(policy))
    adjoint = checked_adjoint(adjoint)
    if isinstance(adjoint, AtEvents):
        adjoint.check(policy)
    refuse_deadlock()
    axes = () if lane_axis is None else (lane_axis,) if isinstance(lane_axis, str) else tuple(lane_axis)
    return _simulate(run.market, run.policy, run.costs, run.account, run.key, save, axes, adjoint, schedule)


def run_of(market: Any, policy: Any, costs: Any, account: Any, key: Any) -> LaneInputs:
    """The arguments of `simulate`, with what holds without them. Raises TypeError or ValueError naming one of them."""
    if not isinstance(market, Market):
        raise TypeError(f"market: expected a Market, got {type(market).__name__}; see Market.from_frames")
    if not isinstance(policy, Policy):
        raise TypeError(f"policy: expected a Policy, got {type(policy).__name__}; see js.Policy(allocator, trigger)")
    costs, account = of_kind(Costs, costs, "costs"), of_kind(Account, account, "account")
    for module in (policy, costs, account):
        check_fields(module, market.num_bars, market.num_assets)
    for mask in jax.tree.leaves(policy, is_leaf=_is_mask):
        if _is_mask(mask):
            mask.check(market.num_bars)
    return LaneInputs(market, policy, costs, account, as_key(0 if key is None else key))


def _is_mask(x: Any) -> bool:
    return isinstance(x, AtBars)


def exact(policy: Policy) -> Policy:
    """A policy without gates, which are about derivatives. Raises ValueError for one whose gate changes values."""
    if not policy.gate.is_exact:
        raise ValueError(f"schedule: {type(policy.gate).__name__} trades a little at every bar; it takes js.Scan()")
    return policy.hardened()


T = TypeVar("T")


def of_kind(kind: type[T], given: T | None, name: str) -> T:
    """What was given, or the default of its kind. Raises TypeError naming the argument for anything else."""
    if given is not None and not isinstance(given, kind):
        raise TypeError(f"{name}: expected js.{kind.__name__}, got {given!r}")
    return kind() if given is None else given


def event_if(traded: Bool[Array, ""], event: Rebalance, gate: AbstractGate) -> Rebalance:
    """The event of a lane that has traded, else zeros: beside lanes that trade, one that does not has an event too.
    Gates that are not hard have seen to it."""
    if not isinstance(gate, Hard):
        return event
    return jax.tree.map(lambda x: jnp.where(traded, x, jnp.zeros_like(x)), event)


@eqx.filter_jit
def _simulate(
    market: Market,
    policy: Policy,
    costs: Costs,
    account: Account,
    key: Any,
    save: Save,
    axes: tuple[str, ...],
    adjoint: AbstractAdjoint,
    schedule: Scan | NextEvent | None,
) -> Simulation:
    market, policy, costs, account = cast_inexact((market, policy, costs, account), market.dtype)

    start = LaneState.start(market, policy, costs, account)
    if isinstance(schedule, NextEvent):
        return simulate_ahead(schedule, LaneInputs(market, policy, costs, account, key), start, save)
    if isinstance(adjoint, AtEvents):
        return _at_events(adjoint, market, policy, costs, start, key, save, axes)
    assert isinstance(adjoint, Checkpointed)

    def one_bar(lane: LaneState, bar):
        lane, traded, event, aux = step(policy, market, costs, lane, bar, key, axes)
        value = lane.holdings.value(at_bar_row(market.mark, bar))
        asked = traded if event.is_decision is None else traded & event.is_decision
        kept = (value, lane.holdings.cash, asked, lane.holdings.units if save.units else None)
        return lane, (*kept, event_if(traded, event, policy.gate) if save.events else None, aux)

    chunks = adjoint.chunks_of(market.num_bars)
    end, (value, cash, rebalanced, units, events, aux) = scan_in_chunks(one_bar, start, market.num_bars, chunks)
    returns = returns_from_value(value, start.holdings.cash)
    return Simulation(value, returns, cash, rebalanced, end.status, units, events, aux)


def _at_events(
    adjoint: AtEvents,
    market: Market,
    policy: Policy,
    costs: Costs,
    start: LaneState,
    key: Any,
    save: Save,
    axes: tuple[str, ...],
) -> Simulation:
    """The simulation by way of its rebalances alone."""

    def keep(lane: LaneState, event: Rebalance, trades: Array):
        asked = trades if event.is_decision is None else trades & event.is_decision
        return lane.holdings.units, lane.holdings.cash, asked, event if save.events else None

    run = (policy, market, costs, start, key, axes)
    agenda = find_events(adjoint, *run)
    held = Held.of(agenda, market.num_bars)
    misses = None if agenda.lane is None else find_misses(adjoint, agenda, held, *run, save.events)
    more = None if misses is None else misses.before(agenda)
    end, (units, cash, asked, events) = scan_events(agenda, *run, keep, more)
    overflows = agenda.num_rows > adjoint.capacity_of(market.num_bars)
    events = jax.tree.map(held.events, events)
    if misses is None:
        cash, units = held.path(start.holdings.cash, cash), held.path(start.holdings.units, units)
    else:
        overflows |= misses.count > adjoint.capacity_of(market.num_bars)
        cash = misses.path(held, start.holdings.cash, cash, misses.holdings.cash)
        units = misses.path(held, start.holdings.units, units, misses.holdings.units)
        events = None if events is None else misses.added_to(events)
    cash = jnp.where(overflows, jnp.nan, cash)
    value = jax.vmap(dot)(cash, units, market.mark)
    fault = jnp.full(market.num_assets, LaneFault.EVENTS_OVERFLOW, jnp.int32)
    status = end.status.first(jnp.where(overflows, fault, LaneFault.NONE), jnp.max(agenda.bar))
    return Simulation(
        value=value,
        returns=returns_from_value(value, start.holdings.cash),
        cash=cash,
        rebalanced=held.events(asked),
        status=status,
        units=units if save.units else None,
        events=events,
        aux={},
    )
