"""An allocation made from a look-back range, apart from any portfolio: what a plan is made of."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsim.engine.bar.lane_state import at_bar_row
from jaxsim.engine.bar.request import allocation_faults, request_of
from jaxsim.engine.base.arrays import Amount, Array
from jaxsim.engine.base.random import fold_in
from jaxsim.engine.policy.allocation import Allocation
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import Policy, ask, initial_state


class History(eqx.Module):
    """What an allocator may look back on, of one group of assets.

    close: closes as observed.     val_price: at which the account is valued when a bar begins.
    features: rows known at the open of each bar.
    """

    close: Float[Array, "time asset"]
    val_price: Float[Array, "time asset"]
    features: Any


class Range(eqx.Module):
    """Where an allocation is due, and what it looks back on: bars [start, end), acted upon at bar `end`.

    key: of the lane.
    """

    start: Int[Array, ""] | int
    end: Int[Array, ""] | int
    key: Any


class Planned(eqx.Module):
    """What an allocator answered for a range; and the LaneFault of each weight."""

    weights: Float[Array, " asset"]
    skip: Bool[Array, " asset"]
    size_type: Int[Array, " asset"] | None
    direction: Int[Array, " asset"] | None
    sequence: Float[Array, " asset"] | None
    fault: Int[Array, " asset"]
    aux: dict


def look_back(history: History, range: Range, cash: Amount, longest: int) -> Observation:
    """What is known at the open of bar `range.end` to somebody who holds nothing but cash.

    longest: number of rows of `Observation.window()`, of which those before the range are NaN.
    """
    xp = np if isinstance(history.close, np.ndarray) else jnp
    num_assets, dtype = history.close.shape[-1], history.close.dtype
    nothing = xp.zeros(num_assets, dtype)
    val_price = at_bar_row(history.val_price, range.end) if xp is jnp else history.val_price[range.end]
    row = (lambda x: at_bar_row(x, range.end)) if xp is jnp else (lambda x: x[range.end])
    return Observation(
        step=range.end,
        weights=nothing,
        units=nothing,
        value=cash,
        cash=cash,
        debt=nothing,
        free_cash=cash,
        val_price=val_price,
        target=xp.full(num_assets, xp.nan, dtype),
        tradable=~xp.isnan(val_price),
        key=fold_in(range.key, range.end),
        features=jax.tree.map(row, history.features),
        closes=history.close,
        range_start=range.start,
        longest=longest,
    )


def allocate(allocator: Callable, history: History, range: Range, cash: Amount, longest: int) -> Planned:
    """Ask an allocator once. It must not keep a state, for there is no loop that carries one."""
    obs = look_back(history, range, cash, longest)
    dtype = history.close.dtype
    allocation, _ = ask(allocator, obs, initial_state(allocator, obs.num_assets), dtype)
    return planned(allocation, obs)


def planned(allocation: Allocation, obs: Observation) -> Planned:
    """A checked answer as part of a plan."""
    request = request_of(Policy(lambda obs: obs.weights), allocation, obs)
    return Planned(
        allocation.weights,
        jnp.asarray(allocation.skip),
        request.size_type,
        request.direction,
        None if request.sequence is None else jnp.where(request.sequence < 0, jnp.nan, request.sequence),
        allocation_faults(allocation, request),
        dict(allocation.aux),
    )
