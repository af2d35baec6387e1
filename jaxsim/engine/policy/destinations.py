"""Destinations: how far to trade. A destination turns the target weights of an allocator into the weights that this
bar trades to. A lane remembers the targets, not these weights.

A destination with `of=` goes a part of the way to another destination: `TurnoverCap(0.1, of=ToEdge())`.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Float

from jaxsim.engine.base.arrays import Amount, Array, namespace
from jaxsim.engine.base.fields import BARS_FROM_ONE, PROBABILITY, SHARE, bounded
from jaxsim.engine.base.numerics import ABS_TOL, REL_TOL, Number, at_bar, ordered_sum, product, quotient
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.triggers import band_of, excess_of, is_about_assets
from jaxsim.engine.trading.account import is_flat

Weights = Float[Array, " asset"]


class AbstractDestination(eqx.Module):
    """A rule that says how far to trade."""

    @abc.abstractmethod
    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        """The weights to trade to, [asset]; NaN leaves an asset alone.

        target: weights of the allocator's answer; NaN leaves an asset alone.      trigger: of the policy.
        """


class ToTarget(AbstractDestination):
    """Trade all the way to the targets."""

    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        return target


def checked_destination(destination: Any) -> AbstractDestination:
    """Raises TypeError for what is no destination, or one that only a policy can have."""
    if not isinstance(destination, AbstractDestination):
        raise TypeError(f"destination: expected a destination such as js.ToEdge(), got {destination!r}")
    return destination


def _inner(destination: Any) -> AbstractDestination:
    if not isinstance(destination, AbstractDestination):
        raise TypeError(f"of: expected a destination such as js.ToEdge(), got {destination!r}")
    if isinstance(destination, SpreadOver):
        raise TypeError("of: SpreadOver stands outside the others, as in SpreadOver(3, of=js.ToEdge())")
    return destination


def _of() -> Any:
    return eqx.field(default_factory=ToTarget, converter=_inner, kw_only=True)


class ToEdge(AbstractDestination):
    """Trade to the edge of the no-trade band around each target, and no further. Among the portfolios within all bands
    whose weights have the sum of the targets, it is the one nearest to the present portfolio (Euclidean). With
    proportional costs alone, trading to the boundary of the no-trade region is optimal (Dybvig and Pezzo, Mean-Variance
    Portfolio Rebalancing with Transaction Costs, 2020).

    width: half width of the band, in weight, >= 0; a number, one per asset [asset], or [time or 1, asset or 1]; None:
        the width of the trigger, which must then look at single assets, as `Threshold` does.

    A weight at the limit is a breach, so the edge is taken a little inside: by a billionth of the width (in float32 by
    two millionths). An asset without a price of this bar is left alone, and so is its target. While nothing is held
    yet, all assets go to their targets.

    Raises ValueError for a trigger without a band if `width` is None.
    """

    width: Number | None = bounded("width", SHARE, by_bar_and_asset=True, default=None)

    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        half = band_of(trigger, obs, target) if self.width is None else at_bar(self.width, obs.step)
        if half is None:
            raise ValueError(
                "destination: ToEdge needs a trigger with a band, as js.Threshold(0.05), or a width of its own"
            )
        xp = namespace(target)
        inside = 1 - max(REL_TOL, 16 * float(xp.finfo(target.dtype).eps))
        half = product(xp.asarray(inside, target.dtype), xp.asarray(half))
        moves = ~xp.isnan(target) & obs.tradable
        moves = moves if obs.carried is None else moves & ~obs.carried
        center = xp.where(moves, target, 0.0)
        half = xp.where(moves, half, 0.0)
        present = xp.where(moves, obs.weights, 0.0)
        nearest = project_to_band(present, center - half, center + half, ordered_sum(center))
        return xp.where(is_flat(obs.units), target, xp.where(moves, nearest, xp.nan))


class Fraction(AbstractDestination):
    """Trade a fraction of the way from the present weights. Vanguard's target-date funds trade at a drift of 200 basis
    points back to 175: an eighth of the way, `Fraction(0.125)`.

    fraction: in [0, 1]; 1 goes all the way.       when_flat: whether the first purchase is cut as well.
    """

    fraction: Number = bounded("fraction", PROBABILITY)
    of: AbstractDestination = _of()
    when_flat: bool = eqx.field(static=True, default=False, kw_only=True)

    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        end = self.of(obs, target, trigger)
        part = _part_of_the_way(obs, end, self.fraction)
        return part if self.when_flat else namespace(end).where(is_flat(obs.units), end, part)


class OnlyBreached(AbstractDestination):
    """Trade only the assets that are beyond their own limit, and leave the others alone (Daryanani, Opportunistic
    Rebalancing, 2008: `OnlyBreached(of=ToEdge(width=...))` with a width of half the trigger's band).

    While nothing is held yet, all assets are traded. Where the trigger fires only because of a date, none is.
    Raises ValueError for a trigger that is not about single assets.
    """

    of: AbstractDestination = _of()

    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        if not is_about_assets(trigger):
            raise ValueError(
                "destination: OnlyBreached needs a trigger about single assets, as js.Threshold(0.05), or one beside it"
            )
        xp = namespace(target)
        is_breached = xp.asarray(excess_of(trigger, obs)) >= 0
        return xp.where(is_flat(obs.units) | is_breached, self.of(obs, target, trigger), xp.nan)


class TurnoverCap(AbstractDestination):
    """Limit the one-way turnover of a rebalance, sum(abs(change of weight)) / 2. A rebalance with a higher turnover is
    cut: every asset goes the same fraction of its way.

    turnover: in weight, >= 0.       when_flat: whether the first purchase is cut as well.
    """

    turnover: Number = bounded("turnover", SHARE)
    of: AbstractDestination = _of()
    when_flat: bool = eqx.field(static=True, default=False, kw_only=True)

    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        end, xp = self.of(obs, target, trigger), namespace(target)
        asked = ordered_sum(xp.where(xp.isnan(end), 0.0, abs(end - obs.weights))) / 2
        is_capped = asked > self.turnover
        if not self.when_flat:
            is_capped = is_capped & ~is_flat(obs.units)
        fraction = self.turnover / xp.where(is_capped, asked, 1.0)
        return xp.where(is_capped, _part_of_the_way(obs, end, fraction), end)


class SpreadOver(AbstractDestination):
    """Spread a rebalance over n bars, in equal parts; the first part trades at the bar of the rebalance. Part k of n
    goes 1 / (n - k + 1) of the way from the present weights to the weights of the rebalance.

    bars: n, a whole number >= 1.       when_flat: whether the first purchase is spread as well.

    Until the last part is done, the trigger is not asked: the weights are still off their targets, and it would fire at
    once. The later parts are no rebalances: the allocator is not asked, and only their orders are recorded. If the
    account becomes flat on the way, the remaining parts are dropped. Sizes that are no weights are traded at once.
    """

    bars: Number = bounded("bars", BARS_FROM_ONE)
    of: AbstractDestination = _of()
    when_flat: bool = eqx.field(static=True, default=False, kw_only=True)

    def __call__(self, obs: Observation, target: Weights, trigger: Callable) -> Weights:
        """The weights that the last part trades to."""
        return self.of(obs, target, trigger)

    def num_parts(self, obs: Observation) -> Array:
        """Number of bars over which a rebalance is spread, int []."""
        xp = namespace(obs.units)
        bars = xp.asarray(self.bars).astype(xp.int32)
        return bars if self.when_flat else xp.where(is_flat(obs.units), 1, bars).astype(xp.int32)


def next_part(obs: Observation, end: Weights, left: Array) -> Weights:
    """The weights to trade to at this bar, on the way to `end`. left: number of parts still to trade, this one
    included, int []."""
    part = obs.weights + quotient(end - obs.weights, left.astype(end.dtype))
    return namespace(end).where(left <= 1, end, part)


def _part_of_the_way(obs: Observation, end: Weights, fraction: Amount) -> Weights:
    return obs.weights + product(fraction, end - obs.weights)


def project_to_band(x: Weights, low: Weights, high: Weights, total: Amount) -> Weights:
    """The point nearest to `x` (Euclidean) within [low, high] whose sum is `total`. The total must lie between the sums
    of the bounds. The point is clip(x + shift, low, high) for the one shift that gives this sum. The sum grows with the
    shift, and is linear between the shifts at which an entry meets a bound, so the shift is exact."""
    xp = namespace(x)
    kinks = xp.sort(xp.concatenate([low - x, high - x]))
    sums = ordered_sum(xp.clip(x[:, None] + kinks[None, :], low[:, None], high[:, None]))
    after = xp.clip((sums < total).sum(), 1, kinks.shape[0] - 1)
    left, right = kinks[after - 1], kinks[after]
    rise = sums[after] - sums[after - 1]
    share = xp.where(rise > 0, (total - sums[after - 1]) / xp.where(rise > 0, rise, 1.0), 0.0)
    is_within = ((low <= x) & (x <= high)).all() & (abs(ordered_sum(x) - total) <= ABS_TOL)
    shifted = xp.clip(x + (left + product(share, right - left)), low, high)
    return xp.where(is_within, x, shifted)
