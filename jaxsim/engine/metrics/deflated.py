"""The deflated Sharpe ratio: what is left of the best Sharpe ratio of many trials once luck is taken off.

Arguments and results are as in `jaxsim.engine.metrics.returns`.
"""

import math
import warnings
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxsim.engine.base.arrays import namespace
from jaxsim.engine.base.numerics import Number
from jaxsim.engine.metrics import nan_statistics as nanstats
from jaxsim.engine.metrics.nan_statistics import divide, root
from jaxsim.engine.metrics.returns import sharpe_ratio
from jaxsim.engine.metrics.rolling import over_lanes_too


@over_lanes_too
def deflated_sharpe_ratio(
    returns: Any,
    *,
    ann_factor: Number,
    risk_free: Number = 0.0,
    ddof: int = 1,
    var_sharpe: Any = None,
    nb_trials: int | None = None,
) -> Any:
    """Probability, in [0, 1], that the Sharpe ratio is above the highest one to expect by luck among all trials
    (rules 7.13; Bailey and Lopez de Prado 2014).

    var_sharpe: variance over the trials of the annualized Sharpe ratio.
    nb_trials: number of trials.

    By default the lanes are the trials. Lanes without a finite Sharpe ratio, as those that never trade, are no trials:
    they are NaN, and a warning counts them (for NumPy arrays). A single path is NaN without both.
    """
    annual = sharpe_ratio(returns, ann_factor=ann_factor, risk_free=risk_free, ddof=ddof)
    known = ~namespace(returns).isnan(returns)
    skewness, kurt = (nanstats.standardized_moment(returns, known, order) for order in (3, 4))
    count = nanstats.count(known, returns.dtype)
    return deflated(
        annual, skewness, kurt, count, ann_factor=ann_factor, ddof=ddof, var_sharpe=var_sharpe, nb_trials=nb_trials
    )


def deflated(
    annual: Any,
    skewness: Any,
    kurt: Any,
    count: Any,
    *,
    ann_factor: Number,
    ddof: int = 1,
    var_sharpe: Any = None,
    nb_trials: int | None = None,
) -> Any:
    """`deflated_sharpe_ratio` from the annualized Sharpe ratio of each trial, the third and fourth standardized moment
    of its returns, both biased, and their number."""
    xp, sharpe = namespace(annual), annual / ann_factor**0.5
    if var_sharpe is None or nb_trials is None:
        is_trial = xp.isfinite(annual)
        if xp is np and annual.size > 1:
            warn_of_left_out(int((~is_trial).sum()), annual.size)
        spread = nanstats.std(xp.where(is_trial, annual, 0).ravel(), is_trial.ravel(), ddof)
        var_sharpe = spread**2 if var_sharpe is None else var_sharpe
        nb_trials = nanstats.count(is_trial.ravel(), annual.dtype) if nb_trials is None else nb_trials
    best_by_luck = root(var_sharpe / ann_factor) * _expected_maximum(nb_trials)
    # Zero first, NaN last: an infinite Sharpe ratio has no moments either.
    defined = xp.isfinite(sharpe) & ~xp.isnan(skewness) & ~xp.isnan(best_by_luck)
    sharpe, skewness, kurt = (xp.where(defined, x, 0) for x in (sharpe, skewness, kurt))
    spread = root(1 - skewness * sharpe + (kurt - 1) / 4 * sharpe**2)
    free = count - 1
    lead = (sharpe - xp.where(defined, best_by_luck, 0)) * root(free)
    return xp.where(defined, _normal_cdf(divide(lead, spread, np.nan)), np.nan)


def warn_of_left_out(count: int, trials: int) -> None:
    """One warning of trials that are none, since they have no finite score."""
    if count:
        message = f"{count} of {trials} trials are left out: they have no finite score, as a lane that never trades"
        warnings.warn(message, stacklevel=3)


def _expected_maximum(trials: Any) -> Any:
    """Expected maximum of `trials` standard normal numbers, by the approximation of the deflated Sharpe ratio."""
    g = np.euler_gamma
    if isinstance(trials, jax.Array):
        several = jnp.maximum(trials, 2)
        best = -(1 - g) * ndtri(1 / several) - g * ndtri(1 / (several * math.e))
        return jnp.where(trials > 1, best, -np.inf)
    if trials <= 1:
        return -np.inf
    quantile = NormalDist().inv_cdf
    return float((1 - g) * quantile(1 - 1 / trials) + g * quantile(1 - 1 / (trials * math.e)))


def _normal_cdf(z: Any) -> Any:
    if isinstance(z, jax.Array):
        return ndtr(z)
    return np.vectorize(math.erfc, otypes=[z.dtype])(-z / math.sqrt(2)) / 2
