"""The decision to trade is a step: what its derivative means is said here, and nowhere else.

A gate is asked at every bar with the margin of the decision: by how much the trigger is beyond its limit, >= 0 where
it fires (`AbstractTrigger.margin`). `Hard` ignores it. The others let derivatives through that a step does not have,
and `docs/gradients.md` says how far each can be trusted.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.base.fields import TEMPERATURE, bounded
from jaxsim.engine.base.numerics import Number

#: Beyond so many temperatures a logistic function is 0 or 1 to within the last digit of a float64.
LOGISTIC_REACH = 40.0


class Passage(eqx.Module):
    """How much of a rebalance passes a gate.

    trades: whether the trigger has fired.      share: in [0, 1]; what it means is the gate's affair.
    is_near: whether there is more to it than all or nothing.
    """

    trades: Bool[Array, ""]
    share: Float[Array, ""]
    is_near: Bool[Array, ""]

    @property
    def acts(self) -> Bool[Array, ""]:
        """Whether the rebalance has to be worked out at all."""
        return self.trades | self.is_near


class AbstractGate(eqx.Module):
    """What the derivative of the decision to trade means."""

    @property
    @abc.abstractmethod
    def is_exact(self) -> bool:
        """Whether a simulation has the values of the hard decision."""

    @property
    def sees_state(self) -> bool:
        """Whether derivatives pass from the account into the decision."""
        return True

    @abc.abstractmethod
    def passage(self, trades: Bool[Array, ""], margin: Float[Array, ""]) -> Passage | None:
        """How much passes; None: all or nothing.

        margin: of the decision, in units of the trigger; infinite where nothing is near.
        """

    @abc.abstractmethod
    def money(self, passage: Passage, after: Any, before: Any) -> Any:
        """The holdings, from those after the rebalance and those before it."""

    @abc.abstractmethod
    def memory(self, passage: Passage, after: Any, before: Any) -> Any:
        """What else a lane remembers: targets, the allocator's state."""


class Hard(AbstractGate):
    """All or nothing. Derivatives are exact with the rebalances held in place; moving a threshold, which changes
    nothing until a rebalance jumps to another bar, has the derivative zero."""

    @property
    def is_exact(self) -> bool:
        return True

    def passage(self, trades: Bool[Array, ""], margin: Float[Array, ""]) -> None:
        return None

    def money(self, passage: Passage, after: Any, before: Any) -> Any:
        return _switch(passage.trades, after, before)

    def memory(self, passage: Passage, after: Any, before: Any) -> Any:
        return _switch(passage.trades, after, before)


class StraightThrough(AbstractGate):
    """Bit for bit the simulation under `Hard`; only its derivatives are others (Bengio, Leonard and Courville,
    Estimating or Propagating Gradients Through Stochastic Neurons, 2013). Where a decision is near its limit, the
    derivative of the account after the bar gains

        k(margin / temperature) / temperature * d margin * (account if rebalanced - account if not)

    with the biweight kernel k(u) = 15/16 (1 - u^2)^2 on [-1, 1], so that decisions further off than one temperature
    cost nothing, neither time nor bias.

    temperature: > 0, in units of the trigger's margin: of `js.Threshold`, weight.
    through_state: whether the margin's derivative includes that of the account and of the remembered targets. Each near
        miss then multiplies the derivatives of all that follows, which explode over long paths; without it (the
        default) they grow at most in proportion to the number of bars.
    """

    temperature: Number = bounded("temperature", TEMPERATURE, default=0.002)
    through_state: bool = eqx.field(static=True, default=False)

    @property
    def is_exact(self) -> bool:
        return True

    @property
    def sees_state(self) -> bool:
        return self.through_state

    def passage(self, trades: Bool[Array, ""], margin: Float[Array, ""]) -> Passage:
        # What the values do not depend on has no derivative.
        u, is_near = _scaled(margin, jax.lax.stop_gradient(self.temperature), 1.0)
        share = where(is_near, 0.5 + 15 / 16 * (u - 2 / 3 * u**3 + u**5 / 5), trades.astype(margin.dtype))
        return Passage(trades, share, is_near)

    def money(self, passage: Passage, after: Any, before: Any) -> Any:
        return jax.tree.map(lambda new, old: _straight(passage.share, passage.trades, new, old), after, before)

    def memory(self, passage: Passage, after: Any, before: Any) -> Any:
        return _switch(passage.trades, after, before)


class Sigmoid(AbstractGate):
    """A share of the rebalance, logistic(margin / temperature), happens at every bar: part of the account is
    rebalanced, and the rest held. Smooth, and its derivatives are those of its own value, which is biased: the account
    trades a little long before the limit, and pays for it. As the temperature falls it becomes that of `Hard`.

    Targets and the real numbers of an allocator's state are mixed likewise; whole numbers switch where the share passes
    one half.

    temperature: > 0, in units of the trigger's margin: of `js.Threshold`, weight.
    """

    temperature: Number = bounded("temperature", TEMPERATURE, default=0.002)

    @property
    def is_exact(self) -> bool:
        return False

    def passage(self, trades: Bool[Array, ""], margin: Float[Array, ""]) -> Passage:
        u, is_near = _scaled(margin, self.temperature, LOGISTIC_REACH)
        share = where(is_near, jax.nn.sigmoid(u), (margin > 0).astype(margin.dtype))
        return Passage(trades, share, share > 0)

    def money(self, passage: Passage, after: Any, before: Any) -> Any:
        return jax.tree.map(lambda new, old: _mixed(passage.share, new, old), after, before)

    def memory(self, passage: Passage, after: Any, before: Any) -> Any:
        def mix(new: Any, old: Any) -> Any:
            if not jnp.issubdtype(new.dtype, jnp.inexact):
                return where(passage.trades, new, old)
            both = ~jnp.isnan(new) & ~jnp.isnan(old)
            mixed = _mixed(passage.share, where(both, new, 0.0), where(both, old, 0.0))
            return where(both, mixed, where(passage.trades, new, old))

        return jax.tree.map(mix, after, before)


def checked_gate(gate: Any) -> AbstractGate:
    """Raises TypeError for what is no gate."""
    if not isinstance(gate, AbstractGate):
        raise TypeError(f"gate: expected a gate such as js.Hard() or js.StraightThrough(), got {gate!r}")
    return gate


def _scaled(margin: Array, temperature: Number, reach: float) -> tuple[Array, Array]:
    """The margin in temperatures where it is within reach of its limit, else 0; and whether it is."""
    is_near = jnp.abs(margin) < reach * temperature
    return where(is_near, margin, 0.0) / temperature, is_near


def _switch(trades: Array, after: Any, before: Any) -> Any:
    return jax.tree.map(lambda new, old: where(trades, new, old), after, before)


def _mixed(share: Array, new: Array, old: Array) -> Array:
    """Exactly one of the two at a share of zero or one."""
    inside = (share > 0) & (share < 1)
    part = where(inside, old + where(inside, share, 0.0) * (new - old), old)
    return where(share >= 1, new, part)


@jax.custom_jvp
def _straight(share: Array, trades: Array, new: Array, old: Array) -> Array:
    """One of the two, and the derivative of their mixture. Not `old + g * (new - old)`, which rounds otherwise."""
    return where(trades, new, old)


@_straight.defjvp
def _straight_jvp(primals, tangents):
    share, trades, new, old = primals
    d_share, _, d_new, d_old = tangents
    return _straight(share, trades, new, old), where(trades, d_new, d_old) + (new - old) * d_share
