"""Triggers: when to trade. A trigger is a function of an `Observation` that returns whether to rebalance at this bar.
While the portfolio is flat, the policy trades without asking it.

Triggers compose: `Threshold(0.05) & Every("W")` looks once a week, `Threshold(0.05) | Every("QS")` trades at least
quarterly. Any function of an `Observation` may stand on either side.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxsim.engine.base.arrays import Answer, Array, namespace, refuse_masked
from jaxsim.engine.base.fields import BARS, BARS_FROM_ONE, bounded, shown
from jaxsim.engine.base.numerics import Number
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.screening import Screening
from jaxsim.engine.trading.account import is_flat


class AbstractTrigger(eqx.Module):
    """A rule that says when to rebalance. A subclass needs `__call__`; the other methods have answers that are always
    right, and better ones make gates, destinations and next-event runs work with it."""

    @abc.abstractmethod
    def __call__(self, obs: Observation) -> Answer:
        """Whether to rebalance at this bar."""

    def excess(self, obs: Observation) -> Float[Array, " asset"]:
        """By how much each asset is beyond its limit, >= 0 where it breaches; NaN if the rule does not look at single
        assets."""
        return _unknown(obs)

    def margin(self, obs: Observation) -> Float[Array, ""]:
        """By how much the rule is beyond its limit, >= 0 where it fires. Gates differentiate it. Infinite, with the
        sign of the answer, for a rule without a limit: a date, or a user's function."""
        return _all_or_nothing(self, obs)

    def band(self, obs: Observation, target: Float[Array, " asset"]) -> Float[Array, "*asset"] | float | None:
        """Half the width of the no-trade band around each target, in weight; None if the rule does not look at single
        assets."""
        return None

    def may_fire(self, screening: Screening) -> Answer | None:
        """Whether it might fire: true wherever it fires, and rarely elsewhere. A next-event run asks this at every bar
        of every lane, and asks the trigger itself only where the answer is true. None: there is no quick answer."""
        return None

    def dates(self, num_bars: int) -> Bool[Array, " time"] | None:
        """The bars at which it fires, if they do not depend on the portfolio; else None."""
        return None

    def __and__(self, other: Callable) -> "AllOf":
        return AllOf(self, other)

    def __rand__(self, other: Callable) -> "AllOf":
        return AllOf(other, self)

    def __or__(self, other: Callable) -> "AnyOf":
        return AnyOf(self, other)

    def __ror__(self, other: Callable) -> "AnyOf":
        return AnyOf(other, self)


def _checked(trigger: Any) -> Callable:
    if isinstance(trigger, type) or not callable(trigger):
        raise TypeError(f"trigger: expected a trigger such as js.Threshold(0.05) beside & or |, got {trigger!r}")
    return trigger


def as_answer(answer: Any) -> Any:
    """The answer of a trigger, one boolean of shape (). Raises TypeError or ValueError for anything else: NaN, a number
    and a text would all count as yes."""
    refuse_masked(answer, "trigger")
    is_array = hasattr(answer, "dtype") and hasattr(answer, "shape")
    kind = answer.dtype if is_array else np.asarray(answer).dtype
    if kind.kind != "b":
        got = f"{kind} of shape {answer.shape}" if is_array else f"{type(answer).__name__} {shown(answer)}"
        raise TypeError(f"trigger: expected one boolean, as obs.weights.max() > 0.4 is, got {got}"[:200])
    if np.shape(answer) != ():
        shape = np.shape(answer)
        raise ValueError(f"trigger: expected one boolean, got booleans of shape {shape}; .any() makes one of many")
    return answer


def excess_of(trigger: Callable, obs: Observation) -> Float[Array, " asset"]:
    """`AbstractTrigger.excess` of any trigger; NaN for a plain function."""
    return trigger.excess(obs) if isinstance(trigger, AbstractTrigger) else _unknown(obs)


def margin_of(trigger: Callable, obs: Observation) -> Float[Array, ""]:
    """`AbstractTrigger.margin` of any trigger; infinite for a plain function."""
    return trigger.margin(obs) if isinstance(trigger, AbstractTrigger) else _all_or_nothing(trigger, obs)


def without_margin(trigger: Callable) -> list[str]:
    """The names of the rules within a trigger that know no margin though they look at the account: functions, and
    classes that have left `AbstractTrigger.margin` as it is and have no `dates`."""
    if isinstance(trigger, AllOf | AnyOf):
        return [*without_margin(trigger.left), *without_margin(trigger.right)]
    kind = type(trigger)
    if not isinstance(trigger, AbstractTrigger):
        return [getattr(trigger, "__qualname__", kind.__qualname__)]
    has_one = kind.margin is not AbstractTrigger.margin or kind.dates is not AbstractTrigger.dates
    return [] if has_one else [kind.__name__]


def _all_or_nothing(trigger: Callable, obs: Observation) -> Float[Array, ""]:
    return jnp.where(as_answer(trigger(obs)), jnp.inf, -jnp.inf).astype(obs.units.dtype)


def _unknown(obs: Observation) -> Float[Array, " asset"]:
    return namespace(obs.units).full_like(obs.units, float("nan"))


def band_of(
    trigger: Callable, obs: Observation, target: Float[Array, " asset"]
) -> Float[Array, "*asset"] | float | None:
    """`AbstractTrigger.band` of any trigger; None for a plain function."""
    return trigger.band(obs, target) if isinstance(trigger, AbstractTrigger) else None


def may_fire(trigger: Callable, screening: Screening) -> Answer | None:
    """`AbstractTrigger.may_fire` of any trigger; None for a plain function."""
    return trigger.may_fire(screening) if _still_holds(trigger, "may_fire") else None


def dates_of(trigger: Callable, num_bars: int) -> Bool[Array, " time"] | None:
    """`AbstractTrigger.dates` of any trigger; None for a plain function."""
    return trigger.dates(num_bars) if _still_holds(trigger, "dates") else None


def _still_holds(trigger: Callable, name: str) -> bool:
    """Whether a method of a trigger agrees with its `__call__`: False where a subclass has redefined only
    `__call__`."""
    if not isinstance(trigger, AbstractTrigger):
        return False
    return name in next(vars(kind) for kind in type(trigger).__mro__ if {name, "__call__"} & vars(kind).keys())


def is_about_assets(trigger: Callable) -> bool:
    """Whether a trigger, or a part of it, looks at single assets."""
    if isinstance(trigger, _Pair):
        return is_about_assets(trigger.left) or is_about_assets(trigger.right)
    return isinstance(trigger, AbstractTrigger) and type(trigger).excess is not AbstractTrigger.excess


class _Pair(AbstractTrigger):
    """Two triggers."""

    left: Callable = eqx.field(converter=_checked)
    right: Callable = eqx.field(converter=_checked)

    def _answers(self, obs: Observation) -> tuple[Answer, Answer]:
        xp = namespace(obs.units)
        return xp.asarray(as_answer(self.left(obs))), xp.asarray(as_answer(self.right(obs)))

    def band(self, obs: Observation, target: Float[Array, " asset"]) -> Float[Array, "*asset"] | float | None:
        """The narrower of the two bands, or the only one."""
        left, right = (band_of(x, obs, target) for x in (self.left, self.right))
        if left is None or right is None:
            return right if left is None else left
        return namespace(obs.units).minimum(left, right)

    def _excesses(self, obs: Observation) -> tuple[Array, Array]:
        """The excesses of both; where one does not look at single assets, that of the other takes its place."""
        xp = namespace(obs.units)
        left, right = (xp.asarray(excess_of(x, obs)) for x in (self.left, self.right))
        return xp.where(xp.isnan(left), right, left), xp.where(xp.isnan(right), left, right)

    def _dates(self, num_bars: int) -> tuple[Any, Any]:
        return dates_of(self.left, num_bars), dates_of(self.right, num_bars)


class AllOf(_Pair):
    """Trade when both triggers say so: `left & right`."""

    def __call__(self, obs: Observation) -> Answer:
        left, right = self._answers(obs)
        return left & right

    def excess(self, obs: Observation) -> Float[Array, " asset"]:
        left, right = self._excesses(obs)
        return namespace(left).minimum(left, right)

    def margin(self, obs: Observation) -> Float[Array, ""]:
        """The smaller of the two margins; beside a date, finite only on the dates."""
        return jnp.minimum(margin_of(self.left, obs), margin_of(self.right, obs))

    def may_fire(self, screening: Screening) -> Answer | None:
        left, right = may_fire(self.left, screening), may_fire(self.right, screening)
        if left is None or right is None:
            return right if left is None else left
        return left & right

    def dates(self, num_bars: int) -> Bool[Array, " time"] | None:
        left, right = self._dates(num_bars)
        return None if left is None or right is None else left & right


class AnyOf(_Pair):
    """Trade when either trigger says so: `left | right`."""

    def __call__(self, obs: Observation) -> Answer:
        left, right = self._answers(obs)
        return left | right

    def excess(self, obs: Observation) -> Float[Array, " asset"]:
        left, right = self._excesses(obs)
        return namespace(left).maximum(left, right)

    def margin(self, obs: Observation) -> Float[Array, ""]:
        """The larger of the two margins; beside a date, finite only off the dates."""
        return jnp.maximum(margin_of(self.left, obs), margin_of(self.right, obs))

    def may_fire(self, screening: Screening) -> Answer | None:
        left, right = may_fire(self.left, screening), may_fire(self.right, screening)
        return None if left is None or right is None else left | right

    def dates(self, num_bars: int) -> Bool[Array, " time"] | None:
        left, right = self._dates(num_bars)
        return None if left is None or right is None else left | right


class AbstractDated(AbstractTrigger):
    """A trigger that does not look at the portfolio."""

    @abc.abstractmethod
    def fires_at(self, step: Any, xp: Any) -> Any:
        """Whether it fires at a bar, or at each of several bars.

        step: int, number of the bar or bars.      xp: `numpy` or `jax.numpy`.
        """

    def __call__(self, obs: Observation) -> Answer:
        return self.fires_at(obs.step, namespace(obs.units))

    def may_fire(self, screening: Screening) -> Answer:
        return self.fires_at(screening.step, jnp)

    def dates(self, num_bars: int) -> Bool[Array, " time"]:
        return jnp.broadcast_to(self.fires_at(jnp.arange(num_bars, dtype=jnp.int32), jnp), (num_bars,))


class Never(AbstractDated):
    """Buy once, then hold."""

    def fires_at(self, step: Any, xp: Any) -> Any:
        return xp.asarray(False)


class Always(AbstractDated):
    """Rebalance at every bar."""

    def fires_at(self, step: Any, xp: Any) -> Any:
        return xp.asarray(True)


class EveryBars(AbstractDated):
    """Rebalance every n bars: at bars `start`, start + n, start + 2 n, ...

    bars: n, a whole number >= 1.       start: the first of them.
    """

    bars: Number = bounded("bars", BARS_FROM_ONE)
    start: Number = bounded("start", BARS, default=0)

    def fires_at(self, step: Any, xp: Any) -> Any:
        since = step - xp.asarray(self.start).astype(xp.int32)
        return (since >= 0) & (since % xp.asarray(self.bars).astype(xp.int32) == 0)


class AtBars(AbstractDated):
    """Rebalance at given bars.

    mask: bool [time], one for each bar of the market; see `js.index_points` for numbers of bars.

    Raises TypeError for what is not boolean. A mask of another length is a ValueError where it meets the market.
    """

    mask: Number

    def __check_init__(self):
        dtype = getattr(self.mask, "dtype", None)
        if isinstance(self.mask, list | tuple):
            dtype = np.asarray(self.mask).dtype
        if dtype is not None and getattr(dtype, "kind", "b") != "b":
            raise TypeError(f"mask: expected booleans, one for each bar, got {dtype}; numbers of bars make none")

    def check(self, num_bars: int) -> None:
        """Raises ValueError for a mask of another length: JAX would repeat its last entry for later bars."""
        if np.shape(self.mask) != (num_bars,):
            shape = np.shape(self.mask)
            raise ValueError(f"trigger: js.AtBars needs one entry for each of {num_bars} bars, got shape {shape}")

    def fires_at(self, step: Any, xp: Any) -> Any:
        return xp.asarray(self.mask)[step]


class Between(AbstractTrigger):
    """Trade at bars `start` <= t < `stop` only."""

    start: Number = bounded("start", BARS)
    stop: Number = bounded("stop", BARS)

    def __call__(self, obs: Observation) -> Answer:
        return (obs.step >= self.start) & (obs.step < self.stop)


class WhenFlat(AbstractTrigger):
    """Trade whenever no asset is held."""

    def __call__(self, obs: Observation) -> Answer:
        return is_flat(obs.units) & ~namespace(obs.units).asarray(obs.is_emptied)


class AbstractCalendar(AbstractTrigger):
    """A rule about dates. `js.backtest` knows the dates of the bars, and turns it into `AtBars`."""

    def __call__(self, obs: Observation) -> Answer:
        raise TypeError(
            f"trigger: {type(self).__name__} needs the dates of the bars, which js.backtest knows; in the core use "
            "js.AtBars(mask), with a mask made from js.index_points(index, ...)"
        )


def _static(duration: Any) -> Any:
    """A duration of NumPy as text: Equinox takes a scalar of NumPy for an array, which a static field must not be."""
    if not isinstance(duration, np.timedelta64) or np.isnat(duration):
        return duration
    unit, count = np.datetime_data(duration.dtype)
    if unit == "W":
        unit, count = "D", 7 * count
    is_of_one_length = unit in ("D", "h", "m", "s", "ms", "us", "ns")
    return f"{int(duration.astype(np.int64)) * count}{unit}" if is_of_one_length else duration


class Every(AbstractCalendar):
    """Rebalance at the first bar at or after each date of a frequency (rules 10.5), or at the last bar not
    after it.

    every: "D", "W", "W-FRI", "MS", "ME", "8h", a Timedelta or an offset; or a number of bars.
    at_time: time of day, as "09:30".       offset: duration that is added to the dates.
    snap: "after", or "before": `Every("ME", snap="before")` is the last bar of each month; see `js.index_points`.

    Each may be a named index to sweep.
    """

    every: Any = eqx.field(static=True, converter=_static)
    at_time: Any = eqx.field(static=True, default=None, kw_only=True)
    offset: Any = eqx.field(static=True, converter=_static, default=None, kw_only=True)
    snap: Any = eqx.field(static=True, default="after", kw_only=True)


class On(AbstractCalendar):
    """Rebalance at the first bar at or after each of these dates, or at the last bar not after it.

    dates: timestamps, strings, or a DatetimeIndex without a name.
    snap: "after" or "before", as in `Every`.
    """

    dates: Any = eqx.field(static=True)
    snap: Any = eqx.field(static=True, default="after", kw_only=True)
