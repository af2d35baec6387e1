"""Gates: how derivatives pass through the decision to trade, which is a step function.

At every bar a gate gets the margin of the decision: by how much the trigger is beyond its limit, >= 0 where it fires
(`AbstractTrigger.margin`). `Hard` ignores it. The others give the step a derivative that it does not have;
`docs/gradients.md` says how far each of them can be trusted.
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

#: Beyond this many temperatures a logistic function is 0 or 1 to within the last digit of a float64.
LOGISTIC_REACH = 40.0


class Passage(eqx.Module):
    """How much of a rebalance passes a gate.

    trades: whether the trigger has fired.      share: in [0, 1]; each gate defines what it is a share of.
    is_near: whether the decision is near its limit, so that the share matters.
    """

    trades: Bool[Array, ""]
    share: Float[Array, ""]
    is_near: Bool[Array, ""]

    @property
    def acts(self) -> Bool[Array, ""]:
        """Whether the rebalance has to be computed."""
        return self.trades | self.is_near


class AbstractGate(eqx.Module):
    """How derivatives pass through the decision to trade."""

    @property
    @abc.abstractmethod
    def is_exact(self) -> bool:
        """Whether a simulation under this gate has the values of one under `Hard`."""

    @property
    def sees_state(self) -> bool:
        """Whether derivatives pass from the account into the decision."""
        return True

    @abc.abstractmethod
    def passage(self, trades: Bool[Array, ""], margin: Float[Array, ""]) -> Passage | None:
        """How much of the rebalance passes; None: all or nothing.

        trades: whether the trigger has fired.      margin: of the decision, in the unit of the trigger; infinite where
            there is no distance to measure.
        """

    @abc.abstractmethod
    def money(self, passage: Passage, after: Any, before: Any) -> Any:
        """The holdings after the gate, from those after the rebalance and those before it."""

    @abc.abstractmethod
    def memory(self, passage: Passage, after: Any, before: Any) -> Any:
        """The rest of the lane's state (targets, the state of the allocator), in the same way."""


class Hard(AbstractGate):
    """All or nothing. Derivatives are exact for rebalances that stay at their bars. The derivative by a threshold is
    zero: moving it changes nothing until a rebalance jumps to another bar."""

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
    """The values of `Hard`, bit for bit, with other derivatives (Bengio, Leonard and Courville, Estimating or
    Propagating Gradients Through Stochastic Neurons, 2013). Where a decision is near its limit, this term is added to
    the derivative of the account after the bar:

        k(margin / temperature) / temperature * d margin * (account if rebalanced - account if not)

    with the biweight kernel k(u) = 15/16 (1 - u^2)^2 on [-1, 1]. Decisions that are further from their limit than one
    temperature add no term, and take no time.

    temperature: > 0, in units of the trigger's margin: of `js.Threshold`, weight.
    through_state: whether the derivative of the margin includes those of the account and of the remembered targets.
        Each near miss then multiplies the derivatives of all later bars, and they explode over long paths. If False
        (the default), they grow at most in proportion to the number of bars.
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
        # The values do not depend on the temperature, so it gets no derivative.
        u, is_near = _scaled(margin, jax.lax.stop_gradient(self.temperature), 1.0)
        share = where(is_near, 0.5 + 15 / 16 * (u - 2 / 3 * u**3 + u**5 / 5), trades.astype(margin.dtype))
        return Passage(trades, share, is_near)

    def money(self, passage: Passage, after: Any, before: Any) -> Any:
        return jax.tree.map(lambda new, old: _straight(passage.share, passage.trades, new, old), after, before)

    def memory(self, passage: Passage, after: Any, before: Any) -> Any:
        return _switch(passage.trades, after, before)


class Sigmoid(AbstractGate):
    """At every bar a share of the account, logistic(margin / temperature), is rebalanced, and the rest is held. The
    values are smooth, and the derivatives are exact for them. But the values are biased: the account trades small
    shares long before the limit, and pays for them. As the temperature falls, they approach those of `Hard`.

    Targets and the real numbers of an allocator's state are mixed in the same way; whole numbers switch where the share
    passes one half.

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
    """The margin in units of the temperature, 0 beyond the reach; and whether it is within the reach."""
    is_near = jnp.abs(margin) < reach * temperature
    return where(is_near, margin, 0.0) / temperature, is_near


def _switch(trades: Array, after: Any, before: Any) -> Any:
    return jax.tree.map(lambda new, old: where(trades, new, old), after, before)


def _mixed(share: Array, new: Array, old: Array) -> Array:
    """share * new + (1 - share) * old; at a share of 0 or 1 exactly one of the two."""
    inside = (share > 0) & (share < 1)
    part = where(inside, old + where(inside, share, 0.0) * (new - old), old)
    return where(share >= 1, new, part)


@jax.custom_jvp
def _straight(share: Array, trades: Array, new: Array, old: Array) -> Array:
    """The value of one of the two, with the derivative of their mixture. `old + g * (new - old)` would round in another
    way."""
    return where(trades, new, old)


@_straight.defjvp
def _straight_jvp(primals, tangents):
    share, trades, new, old = primals
    d_share, _, d_new, d_old = tangents
    return _straight(share, trades, new, old), where(trades, d_new, d_old) + (new - old) * d_share
