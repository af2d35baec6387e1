"""Metrics that are differentiable everywhere, also where returns or peaks tie: scores to learn from (rules 7.18).

They are as those of `jaxsim.engine.metrics.returns` in all else.
"""

import math
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxsim.engine.base.arrays import namespace
from jaxsim.engine.base.numerics import Number
from jaxsim.engine.metrics.nan_statistics import filled, mean
from jaxsim.engine.metrics.rolling import over_time

#: Below this share of the value before, the logarithm goes on as its tangent.
FLOOR = 0.01
#: Halvings of an interval: to the last bit of a float64.
HALVINGS = 60


@over_time
def log_growth(returns: Any, *, ann_factor: Number) -> Any:
    """ann_factor * mean(log(1 + r)), per year (rules 7.18; Kelly 1956). Where a bar loses more than 99 %, the logarithm
    goes on as its tangent, so that a lane that loses everything has a finite score and a derivative. NaN where all
    returns are NaN."""
    return ann_factor * mean(_log(returns), ~namespace(returns).isnan(returns))


@over_time
def expected_shortfall(returns: Any, *, cutoff: Number = 0.05, smoothing: Number = 1e-3) -> Any:
    """Mean of the worst share `cutoff` of the returns, a loss is negative, smoothed (rules 7.18; Rockafellar and
    Uryasev 2000).

    cutoff: in (0, 1).      smoothing: > 0, in units of returns; the result exceeds the unsmoothed one by at most
        `smoothing * H(cutoff) / cutoff` (H: entropy, 0.004 by default) and, where all returns are equal, not at all.
    First derivatives only. NaN where all returns are NaN.
    """
    xp, known = namespace(returns), ~namespace(returns).isnan(returns)
    cutoff, smoothing = (xp.asarray(setting, returns.dtype) for setting in (cutoff, smoothing))
    x = filled(returns, known, 0)
    fixed = x if xp is np else lax.stop_gradient(x)
    at = xp.log(cutoff / (1 - cutoff)) * smoothing

    def is_low(level: Any) -> Any:
        """Whether less than the share lies below a level."""
        return mean((1 + xp.tanh((level - fixed) / (2 * smoothing))) / 2, known) < cutoff

    low = xp.min(filled(fixed, known, np.inf), axis=0) + at
    high = xp.max(filled(fixed, known, -np.inf), axis=0) + at
    level = _bisected(is_low, low, high, xp)
    beyond = xp.where(known, smoothing * xp.logaddexp(0, (level - x) / smoothing), 0)
    entropy = -cutoff * xp.log(cutoff) - (1 - cutoff) * xp.log(1 - cutoff)
    return level - mean(beyond, known) / cutoff + smoothing * entropy / cutoff


@over_time
def smooth_drawdown(returns: Any, *, smoothing: Number = 1e-3) -> Any:
    """The deepest drawdown, a fraction <= 0, with running maximum and minimum smoothed (rules 7.18).

    smoothing: > 0, of log wealth; the logarithm of 1 + result is at most 2 * smoothing * log(bars + 1) below that of
        `max_drawdown` from the opening value on.
    """
    xp = namespace(returns)
    smoothing = xp.asarray(smoothing, returns.dtype)
    wealth = xp.cumsum(xp.where(xp.isnan(returns), 0, _log(returns)), axis=0)
    wealth = xp.concatenate([xp.zeros_like(wealth[:1]), wealth]) / smoothing
    if xp is np:
        peak = np.logaddexp.accumulate(wealth, axis=0)
        depth = np.logaddexp.reduce(peak - wealth, axis=0)
    else:
        peak = lax.cumlogsumexp(wealth, axis=0)
        depth = jax.nn.logsumexp(peak - wealth, axis=0)
    return xp.expm1(-smoothing * depth)


def _log(returns: Any) -> Any:
    """log(1 + r), and its tangent below the floor; 0 where a return is unknown."""
    xp = namespace(returns)
    x = xp.where(xp.isnan(returns), 0, returns)
    is_low = 1 + x < FLOOR
    return xp.where(is_low, math.log(FLOOR) + (1 + x) / FLOOR - 1, xp.log1p(xp.where(is_low, 0, x)))


def _bisected(is_low: Any, low: Any, high: Any, xp: Any) -> Any:
    """The number between `low` and `high` from which on a condition does not hold."""

    def halve(_: Any, between: tuple) -> tuple:
        low, high = between
        middle = (low + high) / 2
        below = is_low(middle)
        return xp.where(below, middle, low), xp.where(below, high, middle)

    if xp is np:
        for turn in range(HALVINGS):
            low, high = halve(turn, (low, high))
        return (low + high) / 2
    low, high = lax.fori_loop(0, HALVINGS, halve, (low, high))
    return lax.stop_gradient((low + high) / 2)
