"""How far to trade. A destination turns the target weights that an allocator has asked for into the weights that are
traded to at this bar; the targets are what is remembered.

Destinations that take `of=` start from where another one leads: `TurnoverCap(0.1, of=ToEdge())`.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float

from jaxsim.engine.arrays import Array
from jaxsim.engine.bounds import PROBABILITY, THRESHOLD, bounded
from jaxsim.engine.numerics import ABS_TOL, Number, at_bar, ordered_sum, product
from jaxsim.engine.observation import Observation
from jaxsim.engine.triggers import band_of, excess_of

Weights = Float[Array, " asset"]


class AbstractDestination(eqx.Module):
    """A rule that says how far to trade."""

    @abc.abstractmethod
    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        """The weights to trade to; NaN leaves an asset alone.

        target: asked for by the allocator; NaN where an asset is left alone.      trigger: of the policy.
        """


class ToTarget(AbstractDestination):
    """All the way."""

    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        return target


class ToEdge(AbstractDestination):
    """No further than the edge of the no-trade band around each target: to the portfolio nearest to the present one
    (Euclidean) of those within all bands whose weights sum to what the targets sum to. With proportional costs alone,
    trading to the boundary of the no-trade region is optimal (Dybvig and Pezzo, Mean-Variance Portfolio Rebalancing
    with Transaction Costs, 2020).

    width: half width of the band, in weight, >= 0; a number, one per asset [asset], or [time or 1, asset or 1]; None:
        that of the trigger, which must then be about single assets, as `Threshold` is.

    An asset without a price is left alone, and so it is with its target. While nothing is held yet, all go to their
    targets.
    """

    width: Number | None = bounded("width", THRESHOLD, by_bar_and_asset=True, default=None)

    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        half = band_of(trigger, obs, target) if self.width is None else at_bar(self.width, obs.step)
        if half is None:
            raise ValueError(
                "destination: ToEdge needs a trigger with a band, as js.Threshold(0.05), or a width of its own"
            )
        moves = ~jnp.isnan(target) & jnp.asarray(obs.tradable)
        center = jnp.where(moves, target, 0.0)
        half = jnp.where(moves, jnp.broadcast_to(half, center.shape), 0.0)
        present = jnp.where(moves, jnp.asarray(obs.weights), 0.0)
        nearest = project_to_band(present, center - half, center + half, ordered_sum(center))
        is_flat = ~jnp.any(jnp.asarray(obs.units) != 0)
        return jnp.where(is_flat, target, jnp.where(moves, nearest, jnp.nan))


class Fraction(AbstractDestination):
    """A fraction of the way from the present weights. Vanguard's target-date funds trade at a drift of 200 basis points
    back to 175: an eighth of the way, `Fraction(0.125)`.

    fraction: in [0, 1]; 1 goes all the way.
    """

    fraction: Number = bounded("fraction", PROBABILITY)
    of: AbstractDestination = eqx.field(default_factory=ToTarget, kw_only=True)

    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        return _part_of_the_way(obs, self.of(obs, target, trigger), jnp.asarray(self.fraction))


class OnlyBreached(AbstractDestination):
    """Trade only the assets that are beyond their own limit, and leave the others alone (Daryanani, Opportunistic
    Rebalancing, 2008: `OnlyBreached(of=ToEdge(width=...))` with a width of half the trigger's band).

    While nothing is held yet, all are traded.
    """

    of: AbstractDestination = eqx.field(default_factory=ToTarget, kw_only=True)

    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        is_flat = ~jnp.any(jnp.asarray(obs.units) != 0)
        is_breached = jnp.asarray(excess_of(trigger, obs)) >= 0
        return jnp.where(is_flat | is_breached, self.of(obs, target, trigger), jnp.nan)


class TurnoverCap(AbstractDestination):
    """At most so much one-way turnover per rebalance, sum(abs(change of weight)) / 2: where more is asked for, every
    asset goes the same fraction of its way.

    turnover: >= 0.       when_flat: whether the first purchase is capped as well.
    """

    turnover: Number = bounded("turnover", THRESHOLD)
    of: AbstractDestination = eqx.field(default_factory=ToTarget, kw_only=True)
    when_flat: bool = eqx.field(static=True, default=False, kw_only=True)

    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        end, present = self.of(obs, target, trigger), jnp.asarray(obs.weights)
        asked = ordered_sum(jnp.where(jnp.isnan(end), 0.0, jnp.abs(end - present))) / 2
        is_capped = asked > self.turnover
        if not self.when_flat:
            is_capped &= jnp.any(jnp.asarray(obs.units) != 0)
        fraction = self.turnover / jnp.where(is_capped, asked, 1.0)
        return jnp.where(is_capped, _part_of_the_way(obs, end, fraction), end)


def _part_of_the_way(obs: Observation, end: Weights, fraction: Float[Array, ""]) -> Weights:
    present = jnp.asarray(obs.weights)
    return present + product(fraction, end - present)


def project_to_band(x: Weights, low: Weights, high: Weights, total: Float[Array, ""]) -> Weights:
    """The point nearest to `x` (Euclidean) within [low, high] whose sum is `total`, which must lie between the sums of
    the bounds: clip(x + shift, low, high) for the one shift that gives that sum. The sum grows with the shift, linearly
    between the points where an entry meets a bound, so that the shift is found among those exactly."""
    kinks = jnp.sort(jnp.concatenate([low - x, high - x]))
    sums = ordered_sum(jnp.clip(x[:, None] + kinks[None, :], low[:, None], high[:, None]))
    after = jnp.clip(jnp.sum(sums < total), 1, kinks.shape[0] - 1)
    left, right = kinks[after - 1], kinks[after]
    rise = sums[after] - sums[after - 1]
    share = jnp.where(rise > 0, (total - sums[after - 1]) / jnp.where(rise > 0, rise, 1.0), 0.0)
    is_within = jnp.all((low <= x) & (x <= high)) & (jnp.abs(ordered_sum(x) - total) <= ABS_TOL)
    shifted = jnp.clip(x + (left + product(share, right - left)), low, high)
    return jnp.where(is_within, x, shifted)
