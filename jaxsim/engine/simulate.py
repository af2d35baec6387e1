"""The pure simulator: one policy in one market, as a function of arrays."""

from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxsim.engine.adjoints.adjoint import AbstractAdjoint
from jaxsim.engine.adjoints.choice import adjoint_for
from jaxsim.engine.adjoints.forward_only import ForwardOnly
from jaxsim.engine.bar.lanes import LaneInputs, prepared
from jaxsim.engine.bar.simulation import Save, Simulation
from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.engine.base.fields import LARGEST_FLOAT32, check_fields
from jaxsim.engine.base.kept_programs import kept_program
from jaxsim.engine.base.random import key_or_words
from jaxsim.engine.metrics.returns import returns_from_value
from jaxsim.engine.policy.host_callback import refuse_deadlock
from jaxsim.engine.policy.policy import Policy, check_cut
from jaxsim.engine.policy.triggers import AtBars
from jaxsim.engine.schedules.programs import checked_schedule
from jaxsim.engine.schedules.schedule import AbstractSchedule
from jaxsim.engine.trading.account import Account, opening_value
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market


def simulate(
    market: Market,
    policy: Policy,
    *,
    costs: Costs | None = None,
    account: Account | None = None,
    key: Any = None,
    save: Save | None = None,
    adjoint: AbstractAdjoint | None = None,
    schedule: AbstractSchedule | None = None,
) -> Simulation:
    """Run one policy through one market; pure, so that it goes under `jit`, `vmap` and `grad`.

    market: prices of one group, [time, asset]. Its dtype is the dtype of everything.
    policy: allocator and trigger.
    costs: default no fees.     account: default a cash of 100 and nothing held.     key: random key or int, default 0.
    save: which arrays to keep.
    adjoint: how derivatives are computed; changes no value. Default `js.AtEvents()` from 2,048 bars on where it
        suits the policy, else `js.Checkpointed()`; see docs/gradients.md.
    schedule: how the bars are run; default `js.Scan()`, bar by bar, which has derivatives. `js.NextEvent()` runs
        forward only: it simulates no bars but those at which something may be traded. Many lanes are fastest in
        `js.backtest` and `js.sweep`, which search for the next event of all of them together.

    Under `vmap`, a bar at which no lane trades costs no allocation, as in `js.backtest`.
    Nothing is raised for what goes wrong inside (a NaN weight, for instance): `Simulation.status` tells.
    Raises TypeError or ValueError for arguments of the wrong kind or shape.
    """
    inputs, save = inputs_of(market, policy, costs, account, key), of_kind(Save, save, "save")
    schedule = checked_schedule(schedule, policy)
    if schedule is None or schedule.sees_every_bar:
        adjoint = adjoint_for(policy, market.num_bars, adjoint)
    elif adjoint is not None:
        raise ValueError("adjoint: js.NextEvent() runs forward only; leave the schedule out for derivatives")
    else:
        inputs, adjoint = replace(inputs, policy=exact(policy)), ForwardOnly(schedule)
    refuse_deadlock()
    return _simulate(inputs, save, adjoint)


@kept_program
def _simulate(inputs: LaneInputs, save: Save, adjoint: AbstractAdjoint) -> Simulation:
    inputs = prepared(inputs)
    paths = adjoint.loop(inputs, save)
    assert paths.status is not None
    return Simulation(
        value=paths.value,
        returns=returns_from_value(paths.value, opening_value(inputs.account, inputs.market)),
        cash=paths.cash,
        rebalanced=paths.asked,
        fees=paths.totals.fees,
        traded=paths.totals.traded,
        turnover=paths.totals.turnover,
        status=paths.status,
        units=paths.units,
        events=paths.events,
        aux=paths.recorded,
    )


def lane_inputs(
    market: Market,
    policy: Policy,
    *,
    costs: Costs | None = None,
    account: Account | None = None,
    key: Any = None,
) -> LaneInputs:
    """All that one lane is simulated from, for a loop of your own over `LaneState.start`, `js.observe` and
    `js.trade_bar`. Pure, as `js.simulate`.

    market, policy, costs, account, key: as in `js.simulate`. Every number is in the dtype of the market.

    Raises TypeError or ValueError for arguments of the wrong kind or shape.
    """
    return prepared(inputs_of(market, policy, costs, account, key))


def inputs_of(market: Any, policy: Any, costs: Any, account: Any, key: Any) -> LaneInputs:
    """The arguments of `simulate`, with defaults filled in. Raises TypeError or ValueError naming a wrong one."""
    if not isinstance(market, Market):
        raise TypeError(f"market: expected a Market, got {type(market).__name__}; see Market.from_frames")
    if not isinstance(policy, Policy):
        raise TypeError(f"policy: expected a Policy, got {type(policy).__name__}; see js.Policy(allocator, trigger)")
    costs, account = of_kind(Costs, costs, "costs"), of_kind(Account, account, "account")
    refuse_masked(market, "market")
    for name, module in (("policy", policy), ("costs", costs), ("account", account)):
        refuse_masked(module, name)
        check_fields(module, market.num_bars, market.num_assets)
    account.check(market)
    costs.check()
    cash = account.cash
    if market.dtype == jnp.float32 and not isinstance(cash, Tracer) and cash > LARGEST_FLOAT32:
        raise ValueError(f"cash: in float32 expected at most {LARGEST_FLOAT32:g}, got {float(cash):g}")
    check_cut(policy, costs)
    for mask in jax.tree.leaves(policy, is_leaf=_is_mask):
        if _is_mask(mask):
            mask.check(market.num_bars)
    return LaneInputs(market, policy, costs, account, key_or_words(0 if key is None else key))


def _is_mask(x: Any) -> bool:
    return isinstance(x, AtBars)


def exact(policy: Policy) -> Policy:
    """A policy without gates, which are about derivatives. Raises ValueError for one whose gate changes values."""
    if not policy.gate.is_exact:
        raise ValueError(f"schedule: {type(policy.gate).__name__} trades a little at every bar; it takes js.Scan()")
    return policy.hardened()


T = TypeVar("T")


def of_kind(kind: type[T], value: T | None, name: str) -> T:
    """The argument, or the default of its kind for None. Raises TypeError naming the argument for anything else."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name}: expected js.{kind.__name__}, got {value!r}")
    return kind() if value is None else value
