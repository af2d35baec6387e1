"""Drift triggers: they compare the weights with the targets of the last rebalance.

The drift of an asset without a price, of one whose price is carried from an earlier bar, or of one that was left alone,
counts as zero.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxsim.engine.base.arrays import Answer, Array, namespace
from jaxsim.engine.base.fields import BARS_PER_YEAR, THRESHOLD, bounded, whole_number
from jaxsim.engine.base.numerics import Number, at_bar, ordered_sum, product
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.screening import Screening
from jaxsim.engine.policy.triggers import AbstractTrigger


def drift(obs: Observation) -> Float[Array, " asset"]:
    """Present weight - target, [asset]; NaN where there is no price of this bar or no target.

    `obs.weights` would not do: it is 0 without a price, and 0 may be a breach where NaN is not.
    """
    price = obs.val_price
    if obs.carried is not None:
        xp = namespace(price)
        price = xp.where(obs.carried, xp.nan, price)
    with np.errstate(divide="ignore", invalid="ignore"):  # of an account that is worth nothing
        return obs.units * price / obs.value - obs.target


def _smooth_drift(obs: Observation) -> tuple[Float[Array, " asset"], Bool[Array, " asset"]]:
    """The drift, 0 where it is unknown, and a mask of the known ones: no NaN must reach a derivative."""
    known = ~jnp.isnan(obs.val_price) & ~jnp.isnan(obs.target)
    known = known if obs.carried is None else known & ~obs.carried
    is_worth = obs.value != 0
    weights = obs.units * jnp.where(known, obs.val_price, 0.0) / jnp.where(is_worth, obs.value, 1.0)
    return jnp.where(known, weights - jnp.where(known, obs.target, 0.0), 0.0), known & is_worth


class Threshold(AbstractTrigger):
    """Rebalance the whole group when any asset has drifted from its target by the threshold or more:
    `abs(weight - target) >= threshold`, with the target of the last rebalance (rules 5.1).

    threshold: in weight (0.05 is five percentage points; above 1 warns), >= 0, infinite for never; a number, one per
        asset [asset], or [time or 1, asset or 1]; in the pandas face also a Series, a DataFrame or a named index to
        sweep.
    relative: measure the drift as a fraction of the target: `abs(weight / target - 1) >= threshold`. At a target of
        zero the drift of any position is infinite, and that of no position is zero. (The tolerance bands of Kwanti and
        bt.)
    """

    threshold: Number = bounded("threshold", THRESHOLD, by_bar_and_asset=True)
    relative: bool = eqx.field(static=True, default=False, kw_only=True)

    def __call__(self, obs: Observation) -> Answer:
        return (self._drift(obs) >= at_bar(self.threshold, obs.step)).any()

    def excess(self, obs: Observation) -> Float[Array, " asset"]:
        """Drift - threshold."""
        return self._drift(obs) - at_bar(self.threshold, obs.step)

    def margin(self, obs: Observation) -> Float[Array, ""]:
        """The largest excess of any asset."""
        distances, known = _smooth_drift(obs)
        distance = jnp.abs(distances)
        if self.relative:
            size = jnp.abs(obs.target)
            has_size = known & (size > 0)
            at_zero = jnp.where(distance > 0, jnp.inf, 0.0)
            distance = jnp.where(has_size, distance / jnp.where(has_size, size, 1.0), at_zero)
        return jnp.max(jnp.where(known, distance - at_bar(self.threshold, obs.step), -jnp.inf))

    def band(self, obs: Observation, target: Float[Array, " asset"]) -> Float[Array, "*asset"]:
        width = at_bar(self.threshold, obs.step)
        return width * abs(target) if self.relative else width

    def may_fire(self, screening: Screening) -> Answer:
        widths = at_bar(self.threshold, screening.step)
        if widths.size == 1 and not self.relative:
            return screening.max_assets(screening.distance) >= screening.at_most(widths.reshape(()))

        def is_beyond(worth: Array, target: Array, width: Array) -> Any:
            if not self.relative:
                return screening.distance(worth, target) >= screening.at_most(width)
            is_far = screening.distance(worth, target) >= screening.at_most(width * jnp.abs(target))
            # No position at a target of zero is a drift of zero, which reaches a threshold of zero.
            return is_far & ((target != 0) | (worth != 0) | (width <= 0))

        return screening.any_asset(is_beyond, widths)

    def _drift(self, obs: Observation) -> Float[Array, " asset"]:
        distance = abs(drift(obs))
        if not self.relative:
            return distance
        xp, size = namespace(distance), abs(obs.target)
        at_zero = xp.where(distance > 0, xp.inf, distance)
        return xp.where(size == 0, at_zero, distance / xp.where(size == 0, 1.0, size))


class HalfL1Drift(AbstractTrigger):
    """Rebalance when half the sum of all drifts reaches the threshold. This is the one-way turnover that would remove
    them: `sum(abs(weight - target)) / 2 >= threshold` (Betterment's portfolio drift).

    threshold: in weight, >= 0; a number, one per bar, or a named index to sweep.
    """

    threshold: Number = bounded("threshold", THRESHOLD, by_bar_and_asset=True)

    def __call__(self, obs: Observation) -> Answer:
        return ordered_sum(_known(abs(drift(obs)))) / 2 >= _one_number(self.threshold, obs)

    def margin(self, obs: Observation) -> Float[Array, ""]:
        """Half the sum of the drifts - the threshold."""
        return ordered_sum(jnp.abs(_smooth_drift(obs)[0])) / 2 - _one_number(self.threshold, obs)

    def may_fire(self, screening: Screening) -> Answer:
        return screening.sum_assets(screening.distance) >= screening.at_most(2 * _one_number(self.threshold, screening))


class L2Drift(AbstractTrigger):
    """Rebalance when the distance between weights and targets reaches the threshold:
    `sqrt(sum((weight - target)**2)) >= threshold` (cvxportfolio's AdaptiveRebalance).

    threshold: in weight, >= 0; a number, one per bar, or a named index to sweep.
    """

    threshold: Number = bounded("threshold", THRESHOLD, by_bar_and_asset=True)

    def __call__(self, obs: Observation) -> Answer:
        # Squared, since the root has no derivative at zero.
        drifts = _known(drift(obs))
        return ordered_sum(product(drifts, drifts)) >= _one_number(self.threshold, obs) ** 2

    def margin(self, obs: Observation) -> Float[Array, ""]:
        """The distance - the threshold."""
        return _root(ordered_sum(_smooth_drift(obs)[0] ** 2)) - _one_number(self.threshold, obs)

    def may_fire(self, screening: Screening) -> Answer:
        drifts = screening.sum_assets(lambda worth, target: screening.distance(worth, target) ** 2)
        return drifts >= jnp.maximum(screening.at_most(_one_number(self.threshold, screening)), 0) ** 2


def _num_closes() -> Any:
    return eqx.field(static=True, converter=lambda value: whole_number(value, "lookback", 3))


class TrackingError(AbstractTrigger):
    """Rebalance when the volatility of the difference between the portfolio and its targets reaches the threshold:
    `sqrt(d' C d) >= threshold`, d = weight - target, C the sample covariance of the simple returns of the last closes
    (bt's PTE_Rebalance).

    threshold: per bar, or per year if `ann_factor` says how many bars that is; >= 0; a number, one per bar, or a named
        index to sweep.
    lookback: number of closes before the bar, >= 3; a shape, which cannot be swept.
    ann_factor: bars per year; 1: the threshold is per bar.

    A covariance that is still unknown counts as zero.
    """

    threshold: Number = bounded("threshold", THRESHOLD, by_bar_and_asset=True)
    lookback: int = _num_closes()
    ann_factor: Number = bounded("ann_factor", BARS_PER_YEAR, default=1.0)

    def __call__(self, obs: Observation) -> Answer:
        drifts = _known(drift(obs))
        covariance = _known(obs.window(self.lookback).covariance())
        variance = drifts @ covariance @ drifts * self.ann_factor
        return variance >= _one_number(self.threshold, obs) ** 2

    def margin(self, obs: Observation) -> Float[Array, ""]:
        """The tracking error - the threshold."""
        drifts, covariance = _smooth_drift(obs)[0], _known(obs.window(self.lookback).covariance())
        return _root(drifts @ covariance @ drifts * self.ann_factor) - _one_number(self.threshold, obs)


def _root(x: Array) -> Array:
    """The square root; 0 with the derivative 0 where x <= 0."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


def _known(x: Array) -> Array:
    xp = namespace(x)
    return xp.where(xp.isnan(x), 0.0, x)


def _one_number(threshold: Number, obs: Observation | Screening) -> Array:
    """The threshold of a bar. Raises ValueError if there is one for each asset."""
    row = at_bar(threshold, obs.step)
    if row.size != 1:
        raise ValueError("threshold: this trigger is about the whole portfolio, and takes one number or one per bar")
    return row.reshape(())
