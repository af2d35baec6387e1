"""When to trade. A trigger is a function of an `Observation` that says whether to rebalance at this bar; before the
first position is taken, and whenever the portfolio is flat, the policy trades without asking it."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxsim.engine.arrays import Array
from jaxsim.engine.bounds import THRESHOLD, bounded
from jaxsim.engine.numerics import Number, at_bar
from jaxsim.engine.observation import Observation


class AbstractTrigger(eqx.Module):
    """A rule that says when to rebalance."""

    @abc.abstractmethod
    def __call__(self, obs: Observation) -> Bool[Array, ""]:
        """Whether to rebalance at this bar."""

    def excess(self, obs: Observation) -> Float[Array, " asset"]:
        """By how much each asset is beyond the limit that makes it trade, >= 0 where it breaches; NaN if the rule is
        not one about single assets."""
        return jnp.full_like(obs.units, jnp.nan)


class Never(AbstractTrigger):
    """Buy once, then hold."""

    def __call__(self, obs: Observation) -> Bool[Array, ""]:
        return jnp.zeros_like(obs.step, dtype=bool)


class Threshold(AbstractTrigger):
    """Rebalance the whole group when any asset has drifted from its target by the threshold or more:
    `abs(weight - target) >= threshold`, with the target of the last rebalance (SEMANTICS 5.1).

    threshold: in weight (0.05 is five percentage points), >= 0; a number, one per asset [asset], or
        [time or 1, asset or 1]; in the pandas face also a Series, a DataFrame or a named index to sweep.

    An asset without a price, or one that was left alone, breaches nothing.
    """

    threshold: Number = bounded("threshold", THRESHOLD, by_bar_and_asset=True)

    def __call__(self, obs: Observation) -> Bool[Array, ""]:
        return jnp.any(self._drift(obs) >= at_bar(self.threshold, obs.step))

    def excess(self, obs: Observation) -> Float[Array, " asset"]:
        """Drift less threshold, in weight."""
        return self._drift(obs) - at_bar(self.threshold, obs.step)

    def _drift(self, obs: Observation) -> Float[Array, " asset"]:
        # Not `obs.weights`, which is 0 without a price: here such an asset is NaN, and NaN compares false.
        return jnp.abs(obs.units * obs.val_price / obs.value - obs.target)


class AtBars(AbstractTrigger):
    """Rebalance at given bars.

    mask: bool [time].
    """

    mask: Number

    def __call__(self, obs: Observation) -> Bool[Array, ""]:
        return self.mask[obs.step]
