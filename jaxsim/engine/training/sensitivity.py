"""Derivatives of metrics with respect to costs, threshold and weights, and the finite differences that they should
equal."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsim.engine.bar.simulation import Save, Simulation
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.kept_programs import kept_program
from jaxsim.engine.policy.allocation import Allocation
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import Policy, ask, initial_state, keeps_state, observes, watch
from jaxsim.engine.policy.triggers import AllOf, AnyOf
from jaxsim.engine.simulate import simulate
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market

COSTS = ("fees", "fixed_fees", "slippage")


class AbstractShifted(eqx.Module):
    """An allocator whose weights are shifted, each asset by its own amount."""

    allocator: eqx.AbstractVar[Any]
    by: eqx.AbstractVar[Float[Array, " asset"]]

    def moved(self, obs: Observation, state: Any) -> tuple[Allocation, Any]:
        answer, state = ask(self.allocator, obs, state, obs.units.dtype)
        return replace(answer, weights=answer.weights + self.by), state


class Shifted(AbstractShifted):
    """One without a state."""

    allocator: Any
    by: Float[Array, " asset"]

    def __call__(self, obs: Observation) -> Allocation:
        return self.moved(obs, None)[0]


class ShiftedWithState(AbstractShifted):
    """One with a state."""

    allocator: Any
    by: Float[Array, " asset"]

    def init(self, num_assets: int) -> Any:
        return initial_state(self.allocator, num_assets)

    def __call__(self, obs: Observation, state: Any) -> tuple[Allocation, Any]:
        return self.moved(obs, state)


class ShiftedObserver(AbstractShifted):
    """One that observes every bar."""

    allocator: Any
    by: Float[Array, " asset"]

    def init(self, num_assets: int) -> Any:
        return initial_state(self.allocator, num_assets)

    def observe(self, obs: Observation, state: Any) -> tuple[Any, dict]:
        return watch(self.allocator, obs, state)

    def __call__(self, obs: Observation, state: Any) -> tuple[Allocation, Any]:
        return self.moved(obs, state)


def shifted(allocator: Any, by: Float[Array, " asset"]) -> AbstractShifted:
    kind = ShiftedObserver if observes(allocator) else ShiftedWithState if keeps_state(allocator) else Shifted
    return kind(allocator, by)


def has_threshold(trigger: Any) -> bool:
    """Whether a trigger, or a part of it, has a threshold."""
    if isinstance(trigger, AllOf | AnyOf):
        return has_threshold(trigger.left) or has_threshold(trigger.right)
    return getattr(trigger, "threshold", None) is not None


def _moved_threshold(trigger: Any, by: Any) -> Any:
    if isinstance(trigger, AllOf | AnyOf):
        return type(trigger)(_moved_threshold(trigger.left, by), _moved_threshold(trigger.right, by))
    if not has_threshold(trigger):
        return trigger
    return eqx.tree_at(lambda rule: rule.threshold, trigger, jnp.asarray(trigger.threshold) + by)


def moved(policy: Policy, costs: Costs, parameters: Sequence[str], by: Float[Array, " parameter"]) -> tuple:
    """A policy and its costs with each parameter shifted: a cost or a threshold by one amount for all assets and bars,
    a weight for one asset.

    parameters: names of COSTS, "threshold", and one "weights" for each asset, which come last.
    """
    changes = {}
    for place, name in enumerate(parameters):
        if name in COSTS:
            now = getattr(costs, name)
            changes[name] = by[place] + (0.0 if now is None else jnp.asarray(now))
        elif name == "threshold":
            policy = replace(policy, trigger=_moved_threshold(policy.trigger, by[place]))
    if "weights" in parameters:
        first = list(parameters).index("weights")
        policy = replace(policy, allocator=shifted(policy.allocator, by[first:]))
    return policy, replace(costs, **changes)


class Slopes(eqx.Module):
    """Scores, their derivatives, their central differences, and signs that the two may differ.

    events_differ: whether the orders that fill are others a step to one side: there the score has a kink or a jump, and
        derivative and difference need not agree.
    """

    score: Float[Array, " metric"]
    derivative: Float[Array, "metric parameter"]
    difference: Float[Array, "metric parameter"]
    events_differ: Bool[Array, " parameter"]
    fault: Int[Array, ""]
    fault_bar: Int[Array, ""]


@kept_program
def slopes(
    market: Market,
    policy: Policy,
    costs: Costs,
    account: Account,
    key: Any,
    parameters: tuple[str, ...],
    scores: tuple[Callable[[Any], Any], ...],
    steps: Float[Array, " parameter"],
    start: int = 0,
) -> Slopes:
    """Forward derivatives of each score with respect to each parameter of `moved`, and differences over +-`steps`.

    start: the first bar that scores count.
    """

    def run(by: Float[Array, " parameter"]) -> tuple[Float[Array, " metric"], Simulation]:
        other, terms = moved(policy, costs, parameters, by)
        save = Save(units=False, events=True)
        sim = simulate(market, other, costs=terms, account=account, key=key, save=save)
        return jnp.stack([jnp.asarray(score(sim.returns[start:])) for score in scores]), sim

    # One program for all: the unchanged policy once for each direction, then a step up and a step down.
    num, directions = len(parameters), jnp.eye(len(parameters), dtype=market.dtype)
    aside = directions * jnp.asarray(steps, market.dtype)
    starts = jnp.concatenate([jnp.zeros_like(aside), aside, -aside])
    tangents = jnp.concatenate([directions, jnp.zeros_like(aside), jnp.zeros_like(aside)])
    values, slope, sims = jax.vmap(lambda by, along: jax.jvp(run, (by,), (along,), has_aux=True))(starts, tangents)
    unmoved, up, down = values[:num], values[num : 2 * num], values[2 * num :]
    events = event_codes(sims)
    differs = (events != events[:1]).reshape(3, num, -1).any(axis=(0, 2))
    status, difference = sims.status, (up - down) / (2 * jnp.asarray(steps, market.dtype)[:, None])
    return Slopes(unmoved[0], slope[:num].T, difference.T, differs, status.fault[0], status.bar[0])


def event_codes(sims: Simulation) -> Int[Array, "*run time code"]:
    """The events as codes: direction of each trade, reason of each unfilled order, whether a fill was cut."""
    assert sims.events is not None
    fills, asked = sims.events.fills, sims.rebalanced[..., None]
    cut = jnp.abs(fills.trade) < jnp.abs(fills.request) * (1 - 1e-9)
    codes = [jnp.sign(fills.trade), fills.info, cut, *([] if fills.clip is None else [fills.clip])]
    return jnp.concatenate([asked, *(jnp.where(asked, x.astype(jnp.int32), 0) for x in codes)], axis=-1).astype(
        jnp.int32
    )


def default_steps(parameters: Sequence[str], cash: float, step: float) -> np.ndarray:
    """The shift of each parameter: `step`; for parameters in currency, this fraction of the account."""
    return np.array([step * cash if name == "fixed_fees" else step for name in parameters], np.float64)
