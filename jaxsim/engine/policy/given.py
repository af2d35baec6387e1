"""Policies whose answers are known before the run: targets that were recorded, and orders that a user gives."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.numerics import Number, at_bar
from jaxsim.engine.policy.allocation import Allocation
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.policy.stops import AbstractStop, StopRules
from jaxsim.engine.policy.triggers import AbstractDated, AbstractTrigger, AtBars


class RecordedTargets(eqx.Module):
    """An allocator that answers with recorded targets: those of the last recorded bar up to the present one. NaN
    leaves an asset alone.

    bars: int [allocation], bar number of each, ascending; padded with the number of bars in the market.
    weights: [allocation, asset], the target weights of each.
    size_type, direction: int [allocation, asset], if they were recorded.
    sequence: [allocation, asset], place of each asset in the order of execution, if that was chosen; else NaN.
    """

    bars: Number
    weights: Number
    size_type: Any = None
    direction: Any = None
    sequence: Any = None

    def __call__(self, obs: Observation) -> Allocation:
        return self.at(jnp.maximum(jnp.searchsorted(self.bars, obs.step, side="right") - 1, 0))

    def at(self, row: Array) -> Allocation:
        """The allocation of this number."""
        weights, codes = self.weights[row], (self.size_type, self.direction)
        size_type, direction = (None if x is None else x[row] for x in codes)
        call_seq = None
        if self.sequence is not None:
            places = self.sequence[row]
            call_seq = jnp.where(jnp.isnan(places).all(), -1, jnp.argsort(places, stable=True))
        skip = jnp.isnan(weights)
        return Allocation(weights, skip=skip, size_type=size_type, direction=direction, call_seq=call_seq)


class AtRecorded(AbstractDated):
    """Trade at the recorded bars.

    bars: as in `RecordedTargets`.
    """

    bars: Number

    def fires_at(self, step: Any, xp: Any) -> Any:
        return (xp.asarray(step)[..., None] == xp.asarray(self.bars)).any(-1)

    def dates(self, num_bars: int) -> Array:
        return jnp.zeros(num_bars, bool).at[jnp.asarray(self.bars)].set(True, mode="drop")


def replay_policy(
    mask: Number | None, targets: RecordedTargets, trigger: Callable | None = None, stops: tuple[AbstractStop, ...] = ()
) -> Policy:
    """The policy that trades to the recorded targets at the recorded bars.

    mask: bool [time], true at the recorded bars; needed only beside a trigger or stops.
    trigger: when to go back to the last recorded targets between the recorded bars.
    stops: the rules that close positions in between.
    """
    if trigger is None and not stops:
        return Policy(targets, AtRecorded(targets.bars), trades_when_flat=False)
    recorded = AtBars(mask)  # pyright: ignore[reportArgumentType]
    when = recorded if trigger is None else recorded | trigger
    return Policy(targets, when, trades_when_flat=False, stops=StopRules(recorded, stops) if stops else None)


class GivenOrders(eqx.Module):
    """An allocator that answers with orders that were given before the run.

    size: one number, one per asset, or [time or 1, asset or 1]; NaN: no order. Its unit and direction are those of the
        policy, `Policy.size_type` and `Policy.direction`.
    """

    size: Number

    def at(self, obs: Observation) -> Any:
        return jnp.broadcast_to(at_bar(self.size, obs.step), obs.units.shape)

    def __call__(self, obs: Observation) -> Allocation:
        size = self.at(obs)
        return Allocation(size, skip=jnp.isnan(size))


class HasGivenOrders(AbstractTrigger):
    """Trade at the bars that have an order."""

    book: GivenOrders

    def __call__(self, obs: Observation) -> Any:
        return jnp.any(~jnp.isnan(self.book.at(obs)))

    def dates(self, num_bars: int) -> Array:
        size = jnp.asarray(self.book.size)
        has_any = jnp.atleast_1d(~jnp.isnan(size) if size.ndim == 0 else jnp.any(~jnp.isnan(size), axis=-1))
        return has_any[jnp.minimum(jnp.arange(num_bars), len(has_any) - 1)]  # a market may be filled up with bars


def given_orders_policy(size: Number, **terms: Any) -> Policy:
    """The policy that sends given orders. size: as `GivenOrders`.      terms: further fields of `Policy`."""
    book = GivenOrders(size)
    return Policy(book, HasGivenOrders(book), trades_when_flat=False, **terms)
