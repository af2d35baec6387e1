"""Ruin: an account that is worth nothing after a close. What it holds is closed at the next bar, and it never trades
again (rules 12.7)."""

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Int

from jaxsim.engine.bar.lane_state import LaneState, at_bar_row
from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs, over_lanes
from jaxsim.engine.base.arrays import Array, Step, where
from jaxsim.engine.base.numerics import dot
from jaxsim.engine.trading.account import Holdings
from jaxsim.engine.trading.market import Market
from jaxsim.engine.trading.status import Incident


def note_ruin(market: Market, lane: LaneState, bar: Step, is_due: Bool[Array, ""] | bool = True) -> LaneState:
    """The lane before a bar, which knows whether the account was worth nothing after the bar before."""
    if lane.ruined_at is None:
        return lane
    assert lane.incidents is not None
    falls = is_ruined_before(market, lane, bar) & is_due
    return replace(
        lane,
        ruined_at=where(falls, jnp.asarray(bar, jnp.int32), lane.ruined_at),
        incidents=lane.incidents | where(falls, jnp.int32(Incident.RUINED), jnp.int32(0)),
    )


def is_ruined_before(market: Market, lane: LaneState, bar: Step) -> Bool[Array, ""]:
    """Whether the account as it is now is worth nothing after the bar before this one, for the first time."""
    assert lane.ruined_at is not None
    held = lane.holdings
    value = lax.stop_gradient(dot(held.cash, held.units, at_bar_row(market.mark, jnp.maximum(bar - 1, 0))))
    return (bar > 0) & (value <= 0) & (lane.ruined_at < 0) & lane.status.is_ok


def has_worthless_mark(market: Market) -> Bool[Array, ""]:
    """Whether any asset is ever marked at nothing, so that an account without short positions may be ruined."""
    return jnp.any(market.mark <= 0)


def may_be_ruined(held: Holdings) -> Bool[Array, ""]:
    """Whether prices above zero can make the account worth nothing: it owes an asset, or has nothing at all."""
    return (held.units < 0).any() | ((held.cash <= 0) & (held.units == 0).all())


def first_ruin(
    inputs: LaneInputs,
    axes: Sequence[LaneAxis],
    lane: LaneState,
    begin: Int[Array, "*lanes"],
    end: Int[Array, "*lanes"],
) -> Int[Array, "*lanes"]:
    """The first bar from `begin` to `end` - 1 before which the account of each lane, as it is now, is worth nothing;
    `end` if there is none. Bar after bar, as far as is needed."""

    def is_ruined(inputs: LaneInputs, lane: LaneState, bar: Array) -> Array:
        return is_ruined_before(inputs.market, lane, bar)

    def goes_on(state: tuple[Array, Array]) -> Array:
        bar, is_found = state
        return jnp.any((bar < end) & ~is_found)

    def advance(state: tuple[Array, Array]) -> tuple[Array, Array]:
        bar, is_found = state
        is_found = is_found | (over_lanes(is_ruined, axes, (0, 0), 0)(inputs, lane, bar) & (bar < end))
        return jnp.where(is_found | (bar >= end), bar, bar + 1), is_found

    begin = jnp.minimum(begin, end)
    return lax.while_loop(goes_on, advance, (begin, jnp.zeros(begin.shape, bool)))[0]
