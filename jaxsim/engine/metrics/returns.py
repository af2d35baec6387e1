"""Metrics of a whole path of returns (rules 7).

Every metric is a pure function of simple returns per bar, fractions, [time, ...]. The first axis is time, the others
are lanes; the result has the shape of the lanes (0-d for one path). NaN returns are left out. The benchmark's returns
are fractions per bar too. `risk_free` and `required_return` are fractions per year, above -1 and at most 1; they are
brought to one bar by (1 + x)**(1 / ann_factor) - 1. `ann_factor` is the number of bars in a year, such as 252 or 8760.
It has no default, because nothing in the result would show a wrong one.

NumPy arrays, lists and pandas objects give NumPy; JAX arrays give JAX, under `jit`, `vmap` and `grad`. Where the value
is finite, the gradient is finite. The dtype is that of the returns. A denominator below 64 eps of the dtype is zero
(rules 7): a lane that never trades has a ratio of NaN, one that gains without risk one of infinity, one that loses so
one of minus infinity; the gradient there is zero.

All raise TypeError for missing arguments and ValueError for a path without bars or of another length, and for a setting
that makes no sense.
"""

from typing import Any

import numpy as np

from jaxsim.engine.base.arrays import namespace, refuse_masked
from jaxsim.engine.base.numerics import Number
from jaxsim.engine.metrics import nan_statistics as nanstats
from jaxsim.engine.metrics.nan_statistics import as_float, divide, is_zero, mean, over_pain, power, ratio, root
from jaxsim.engine.metrics.rolling import of_solvent, over_time, rolling


def returns_from_value(value: Any, init: Any) -> Any:
    """Simple returns of a value path, bar 0 against `init`, so that entry costs are in it (rules 6.4).

    value: currency after each bar, [time] or [time, lane].
    init: currency before the first bar, a number or [lane].

    Returns fractions per bar, shaped like `value`. A path that is worth nothing, or less, has lost everything: the
    return of that bar is -1 or less, and later ones are 0 (rules 7.19).
    """
    refuse_masked(value, "value")
    refuse_masked(init, "init")
    xp = namespace(value, init)
    value = as_float(value, xp)
    first = xp.broadcast_to(xp.asarray(init, value.dtype), value.shape[1:])[None]
    if xp is np and first.min(initial=np.inf) > 0 and value.min(initial=np.inf) > 0 and value.max(initial=0) < np.inf:
        return _returns_above_zero(value, first)
    before = xp.concatenate([first, value[:-1]])
    with np.errstate(all="ignore"):
        known = ~xp.isnan(value - before)
        is_solvent = ~is_over(before)
        fine = known & is_solvent
        change = xp.where(fine, value - before, 0) / xp.where(fine, before, 1)
        return xp.where(is_solvent & ~known, np.nan, change)


def is_over(before: Any) -> Any:
    """Whether a path of values has been worth nothing at a bar or before it, bool [time, ...] (rules 7.19)."""
    xp, is_worthless = namespace(before), before <= 0
    bars = xp.arange(len(before)).reshape(-1, *(1,) * (before.ndim - 1))
    first = xp.where(is_worthless, bars, len(before)).min(axis=0)
    return bars >= first


def _returns_above_zero(value: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The same numbers in a fraction of the time: nothing but the result is written."""
    returns = np.empty_like(value)
    for rows, before in ((slice(0, 1), first), (slice(1, None), value[:-1])):
        np.subtract(value[rows], before, out=returns[rows])
        returns[rows] /= before
    return returns


# --- growth


@over_time
def total_return(returns: Any) -> Any:
    """prod(1 + r) - 1, a fraction (rules 7.1); 0 where all returns are NaN."""
    return _final(returns) - 1


@over_time
def annualized_return(returns: Any, *, ann_factor: Number) -> Any:
    """(1 + total_return)**(ann_factor / bars) - 1, a fraction per year (rules 7.1).

    Bars without a return count as time. NaN where a path loses more than all.
    """
    return _annualized(_final(returns), len(returns), ann_factor)


@over_time
def drawdown(returns: Any) -> Any:
    """The fraction lost since the highest value so far, <= 0, [time, ...] (rules 7.4).

    The value after the first bar is the first peak, so a loss on the first bar is no drawdown. NaN after a first return
    of -1 or less.
    """
    xp, growth = namespace(returns), _growth(returns)
    wealth = xp.cumprod(growth, axis=0)
    peak = nanstats.running_max(wealth)
    below = divide(wealth, xp.where(peak > 0, peak, np.nan), np.nan) - 1
    # A parallel product is not monotone to the last bit, but no drawdown may come before the first loss.
    return xp.where(nanstats.running_min(growth) < 1, below, 0)


@over_time
def max_drawdown(returns: Any) -> Any:
    """The lowest drawdown, a fraction <= 0; 0 without one (rules 7.4)."""
    return namespace(returns).min(drawdown(returns), axis=0)


@of_solvent
def calmar_ratio(returns: Any, *, ann_factor: Number) -> Any:
    """annualized_return / abs(max_drawdown), per year (rules 7.5; Young 1991); NaN without a drawdown."""
    return over_pain(annualized_return(returns, ann_factor=ann_factor), -max_drawdown(returns))


@over_time
def ulcer_index(returns: Any) -> Any:
    """sqrt(mean(drawdown**2)), a fraction (rules 7.12; Martin and McCann 1989)."""
    return root(namespace(returns).mean(drawdown(returns) ** 2, axis=0))


@of_solvent
def martin_ratio(returns: Any, *, ann_factor: Number, risk_free: Number = 0.0) -> Any:
    """(annualized_return - risk_free) / ulcer_index (rules 7.12; Martin and McCann 1989).

    risk_free: per year.     NaN without a drawdown.
    """
    return over_pain(annualized_return(returns, ann_factor=ann_factor) - risk_free, ulcer_index(returns))


# --- reward for risk


@over_time
def annualized_volatility(returns: Any, *, ann_factor: Number, levy_alpha: Number = 2.0, ddof: int = 1) -> Any:
    """std(r) * ann_factor**(1 / levy_alpha), per year (rules 7.2).

    levy_alpha: stability of the returns, 2 for normal ones.     NaN below two bars or `ddof + 1` returns.
    """
    return _from_two_bars(returns, _std(returns, ddof) * ann_factor ** (1 / levy_alpha))


@of_solvent
def sharpe_ratio(returns: Any, *, ann_factor: Number, risk_free: Number = 0.0, ddof: int = 1) -> Any:
    """mean(r - risk_free) / std(r - risk_free) * sqrt(ann_factor), with `risk_free` brought to one bar (rules 7.3;
    Sharpe 1994).

    risk_free: per year. Where all returns are equal: infinite with the sign of the mean, NaN for a mean of zero. NaN
    below two bars.
    """
    excess = returns - rate_per_bar(risk_free, ann_factor, returns)
    known = _known(excess)
    per_bar = ratio(mean(excess, known), nanstats.std(excess, known, ddof))
    return _from_two_bars(returns, per_bar * ann_factor**0.5)


@over_time
def downside_risk(returns: Any, *, ann_factor: Number, required_return: Number = 0.0) -> Any:
    """sqrt(mean(min(r - required_return, 0)**2) * ann_factor), per year, over all bars, with `required_return` brought
    to one bar (rules 7.7).

    required_return: per year.
    """
    return _downside(returns - rate_per_bar(required_return, ann_factor, returns)) * ann_factor**0.5


@of_solvent
def sortino_ratio(returns: Any, *, ann_factor: Number, required_return: Number = 0.0) -> Any:
    """mean(r - required_return) * ann_factor / downside_risk, with `required_return` brought to one bar (rules 7.7;
    Sortino and Price 1994).

    required_return: per year. Where no return falls short: infinite, NaN for a mean of zero. NaN below two bars.
    """
    excess = returns - rate_per_bar(required_return, ann_factor, returns)
    return _from_two_bars(returns, ratio(_mean(excess), _downside(excess)) * ann_factor**0.5)


@of_solvent
def omega_ratio(returns: Any, *, ann_factor: Number, risk_free: Number = 0.0, required_return: Number = 0.0) -> Any:
    """Gains over losses, both summed against a threshold (rules 7.6; Keating and Shadwick 2002).

    risk_free, required_return: per year; the threshold is the sum of both, each brought to one bar.
    Without losses: infinite, NaN without gains either.
    """
    rates = (rate_per_bar(rate, ann_factor, returns) for rate in (risk_free, required_return))
    excess, known, xp = _zero_unknown(returns - sum(rates)), _known(returns), namespace(returns)
    return ratio(*(mean(xp.maximum(side, 0), known) for side in (excess, -excess)))


# --- against a benchmark


@of_solvent
def information_ratio(returns: Any, benchmark: Any, *, ddof: int = 1) -> Any:
    """mean(r - b) / std(r - b), per bar, not annualized (rules 7.8).

    Where the difference is constant: infinite with its sign, NaN where it is zero. NaN below two bars.
    """
    active = returns - benchmark
    return _from_two_bars(returns, ratio(_mean(active), _std(active, ddof)))


@of_solvent
def beta(returns: Any, benchmark: Any) -> Any:
    """Covariance with the benchmark / variance of the benchmark (rules 7.9), over the bars that have both.

    NaN below two bars, and where the benchmark does not vary.
    """
    xp, known = namespace(returns), _known(returns) & _known(benchmark)
    spread = nanstats.deviation(benchmark, known)
    variance, covariance = mean(spread**2, known), mean(spread * _zero_unknown(returns), known)
    moves = ~is_zero(root(variance))
    slope = xp.where(moves, covariance, 0) / xp.where(moves, variance, 1)
    return _from_two_bars(returns, xp.where(moves, slope, np.nan))


@of_solvent
def alpha(returns: Any, benchmark: Any, *, ann_factor: Number, risk_free: Number = 0.0) -> Any:
    """(1 + mean((r - risk_free) - beta * (b - risk_free)))**ann_factor - 1, with `risk_free` brought to one bar (rules
    7.9; Jensen 1968).

    risk_free: per year.     A fraction per year; NaN where `beta` is.
    """
    risk_free = rate_per_bar(risk_free, ann_factor, returns)
    xp, known = namespace(returns), _known(returns) & _known(benchmark)
    slope = beta(returns, benchmark)
    explained = xp.where(xp.isnan(slope), 0, slope) * (_zero_unknown(benchmark) - risk_free)
    growth = 1 + mean(_zero_unknown(returns) - risk_free - explained, known)
    return xp.where(xp.isnan(slope), np.nan, power(growth, ann_factor) - 1)


@of_solvent
def capture(returns: Any, benchmark: Any, *, ann_factor: Number) -> Any:
    """annualized_return over that of the benchmark (rules 7.11). Where the latter is zero: infinite with the sign of
    the former, NaN where that is zero too."""
    return capture_of(_final(returns) - 1, _final(benchmark) - 1, len(returns), ann_factor)


def capture_of(ours: Any, theirs: Any, bars: Any, ann_factor: Any) -> Any:
    """`capture` from the total returns over so many bars. A total return of zero is one of zero per year as well: over
    a few bars the power would blow up what rounding left."""
    a, b = (_annualized(1 + total, bars, ann_factor) for total in (ours, theirs))
    return ratio(a, b, tuple(is_zero(total) | is_zero(x) for total, x in ((ours, a), (theirs, b))))


@of_solvent
def up_capture(returns: Any, benchmark: Any, *, ann_factor: Number | None = None) -> Any:
    """Geometric mean return per bar over that of the benchmark, on the bars on which the benchmark rises (rules 7.11;
    Morningstar, Upside and Downside Capture Ratios).

    ann_factor: does not change a ratio of returns per bar; taken so that all capture ratios are called alike.
    NaN where the benchmark never rises, and where a return is below -1.
    """
    return _capture_on(benchmark > 0, returns, benchmark)


@of_solvent
def down_capture(returns: Any, benchmark: Any, *, ann_factor: Number | None = None) -> Any:
    """As `up_capture`, on the bars on which the benchmark falls (rules 7.11)."""
    return _capture_on(benchmark < 0, returns, benchmark)


# --- the shape of the distribution


@over_time
def value_at_risk(returns: Any, *, cutoff: Number = 0.05) -> Any:
    """The `cutoff` quantile of the returns, interpolated linearly; a loss is negative (rules 7.10)."""
    return nanstats.quantile(returns, _known(returns), cutoff)


@over_time
def cond_value_at_risk(returns: Any, *, cutoff: Number = 0.05) -> Any:
    """Mean of the int((m - 1) * cutoff) + 1 smallest of m returns; a loss is negative (rules 7.10)."""
    xp, known = namespace(returns), _known(returns)
    m = nanstats.count(known, returns.dtype)
    rank = xp.arange(len(returns)).reshape(-1, *(1,) * (returns.ndim - 1))
    worst = (rank <= xp.floor((m - 1) * cutoff)) & (rank < m)
    return mean(nanstats.ascending(returns, known), worst)


@of_solvent
def tail_ratio(returns: Any) -> Any:
    """abs(95th percentile) / abs(5th percentile) (rules 7.10); where the latter is zero: infinite, NaN where the former
    is zero too."""
    return ratio(_tail(returns, 0.95), _tail(returns, 0.05))


@of_solvent
def common_sense_ratio(returns: Any, *, ann_factor: Number) -> Any:
    """tail_ratio * (1 + annualized_return) (rules 7.10); where the left tail is zero as `tail_ratio`."""
    growth = power(namespace(returns).maximum(_final(returns), 0), ann_factor / len(returns))
    return ratio(_tail(returns, 0.95) * growth, _tail(returns, 0.05))


@over_time
def skew(returns: Any) -> Any:
    """Skewness corrected for bias, as pandas has it (rules 7.12; Joanes and Gill 1998, G1).

    NaN below three returns and where all are equal.
    """
    known = _known(returns)
    xp, count = namespace(returns), nanstats.count(known, returns.dtype)
    m = xp.maximum(count, 3)
    corrected = root(m * (m - 1)) / (m - 2) * nanstats.standardized_moment(returns, known, 3)
    return xp.where(count > 2, corrected, np.nan)


@over_time
def kurtosis(returns: Any) -> Any:
    """Excess kurtosis corrected for bias, as pandas has it (rules 7.12; Joanes and Gill 1998, G2).

    NaN below four returns and where all are equal.
    """
    known = _known(returns)
    xp, count = namespace(returns), nanstats.count(known, returns.dtype)
    m = xp.maximum(count, 4)
    moment = nanstats.standardized_moment(returns, known, 4)
    corrected = (m - 1) / ((m - 2) * (m - 3)) * ((m + 1) * moment - 3 * (m - 1))
    return xp.where(count > 3, corrected, np.nan)


# --- metrics of trades


def turnover(traded: Any, value: Any) -> Any:
    """One-way turnover: sum over bars of traded / (2 * value), a fraction; a bar at which the value is 0 adds 0 (rules
    7.15).

    traded: sum over assets of abs(traded value) at each bar, currency, [time, ...].
    value: of the account before the trades, currency, [time, ...].
    """
    return turnover_two_way(traded, value) / 2


def turnover_two_way(traded: Any, value: Any) -> Any:
    """Sum over bars of traded / value: twice `turnover` (rules 7.15)."""
    xp = namespace(traded, value)
    return divide(xp.asarray(traded), xp.asarray(value), 0.0).sum(axis=0)


def num_rebalances(rebalanced: Any) -> Any:
    """Number of bars on which the allocator was asked, filled or not (rules 5.3). rebalanced: bool, [time, ...]."""
    return namespace(rebalanced).asarray(rebalanced).sum(axis=0)


def total_fees(fees: Any) -> Any:
    """Sum of all fees paid, currency (rules 8.1). fees: paid at each bar, [time, ...]."""
    return namespace(fees).asarray(fees).sum(axis=0)


rolling_total_return = rolling(total_return)
rolling_annualized_return = rolling(annualized_return)
rolling_annualized_volatility = rolling(annualized_volatility)
rolling_sharpe_ratio = rolling(sharpe_ratio)
rolling_sortino_ratio = rolling(sortino_ratio)
rolling_calmar_ratio = rolling(calmar_ratio)
rolling_omega_ratio = rolling(omega_ratio)
rolling_information_ratio = rolling(information_ratio)
rolling_max_drawdown = rolling(max_drawdown)
rolling_downside_risk = rolling(downside_risk)
rolling_alpha = rolling(alpha)
rolling_beta = rolling(beta)
rolling_tail_ratio = rolling(tail_ratio)
rolling_common_sense_ratio = rolling(common_sense_ratio)
rolling_value_at_risk = rolling(value_at_risk)
rolling_cond_value_at_risk = rolling(cond_value_at_risk)
rolling_capture = rolling(capture)
rolling_up_capture = rolling(up_capture)
rolling_down_capture = rolling(down_capture)
rolling_ulcer_index = rolling(ulcer_index)
rolling_martin_ratio = rolling(martin_ratio)


# --- pieces of the formulas


def _known(x: Any) -> Any:
    return ~namespace(x).isnan(x)


def _zero_unknown(x: Any) -> Any:
    return namespace(x).where(_known(x), x, 0)


def _mean(x: Any) -> Any:
    return mean(x, _known(x))


def _std(x: Any, ddof: int) -> Any:
    return nanstats.std(x, _known(x), ddof)


def rate_per_bar(rate: Any, ann_factor: Any, returns: Any) -> Any:
    """A rate per year as one per bar, (1 + rate)**(1 / ann_factor) - 1, in the dtype of the returns (rules 7)."""
    xp = namespace(rate, ann_factor, returns)
    return xp.asarray(xp.expm1(xp.log1p(rate) / ann_factor), returns.dtype)


def _downside(excess: Any) -> Any:
    """Root of the mean squared shortfall per bar, over all known bars."""
    return root(mean(namespace(excess).minimum(_zero_unknown(excess), 0) ** 2, _known(excess)))


def _tail(returns: Any, q: float) -> Any:
    return abs(nanstats.quantile(returns, _known(returns), q))


def _from_two_bars(returns: Any, value: Any) -> Any:
    """NaN for a path of one bar, which has no spread."""
    return value if len(returns) > 1 else namespace(returns).full_like(value, np.nan)


def _growth(returns: Any) -> Any:
    return 1 + _zero_unknown(returns)


def _final(returns: Any, known: Any = True) -> Any:
    """The final value of one unit of money over the `known` bars."""
    xp = namespace(returns)
    return xp.prod(xp.where(known, _growth(returns), 1), axis=0)


def _annualized(final: Any, bars: Any, ann_factor: Any) -> Any:
    return power(final, ann_factor / bars) - 1


def _capture_on(bars: Any, returns: Any, benchmark: Any) -> Any:
    bars = bars & _known(returns) & _known(benchmark)
    return ratio(*(_geometric_mean(x, bars) for x in (returns, benchmark)))


def _geometric_mean(returns: Any, bars: Any) -> Any:
    """prod(1 + r)**(1 / bars) - 1 over some bars; NaN where there is none, or a return below -1. Logarithms, since a
    product over a year of minutes would leave the range of numbers."""
    xp, growth = namespace(returns), nanstats.filled(1 + _zero_unknown(returns), bars, 1)
    grows = growth > 0
    mean_log = mean(xp.where(grows, xp.log1p(xp.where(grows & bars, returns, 0)), 0), bars)
    worst = growth.min(axis=0)
    return xp.where(worst > 0, xp.expm1(mean_log), xp.where(worst == 0, mean_log * 0 - 1, np.nan))
