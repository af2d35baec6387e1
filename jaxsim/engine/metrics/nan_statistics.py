"""Statistics along time that skip NaN, one code for NumPy and JAX. The metrics are written in them.

The first axis is time. `known` marks the bars that count, bool, with the shape of the series. Masked values are
replaced *before* a product, a division or a root: gradients pass through both sides of a `where`, and zero times NaN is
NaN.
"""

from types import ModuleType
from typing import Any

import numpy as np
from jax import lax

from jaxsim.engine.base.arrays import namespace


def as_float(x: Any, xp: ModuleType) -> Any:
    """`x` as an array of `xp` that keeps its floating dtype; integers and lists take the default one."""
    x = xp.asarray(x)
    return x if xp.issubdtype(x.dtype, xp.inexact) else x.astype(float)


def divide(a: Any, b: Any, otherwise: Any) -> Any:
    """a / b, and `otherwise` where b is zero; NaN where a or b is NaN. The derivative there is zero."""
    xp, zero = namespace(a, b), b == 0
    fine = ~(zero | xp.isnan(a) | xp.isnan(b))
    ratio = xp.where(fine, a, 0) / xp.where(fine, b, 1)
    return xp.where(zero, otherwise, xp.where(fine, ratio, np.nan))


#: A figure below this many units in the last place of one is what rounding left.
ULPS = 64


def is_zero(x: Any) -> Any:
    """Whether a fraction is no more than what rounding leaves: abs(x) < 64 eps of its dtype (rules 7)."""
    xp = namespace(x)
    return xp.abs(x) < ULPS * xp.finfo(x.dtype).eps


def ratio(a: Any, b: Any, has_none: Any = None) -> Any:
    """a / b of two fractions (rules 7). Where b is zero but for rounding: NaN if a is too, else infinite with the sign
    of a. The derivative there is zero.

    has_none: where a and b count as zero, if not by `is_zero`; two arrays of bool.
    """
    xp = namespace(a, b)
    no_a, no_b = (is_zero(a), is_zero(b)) if has_none is None else has_none
    fine = ~(no_b | xp.isnan(a) | xp.isnan(b))
    plain = xp.where(fine, a, 0) / xp.where(fine, b, 1)
    limit = xp.where(no_a | xp.isnan(a), np.nan, xp.where(a > 0, np.inf, -np.inf))
    return xp.where(no_b, limit.astype(plain.dtype), xp.where(fine, plain, np.nan))


def over_pain(gain: Any, pain: Any) -> Any:
    """gain / pain; NaN where there is no pain but rounding."""
    return divide(gain, namespace(pain).where(is_zero(pain), 0, pain), np.nan)


def root(x: Any) -> Any:
    """Square root; NaN below zero. The derivative at zero is zero; the true one is infinite."""
    xp, positive = namespace(x), x > 0
    return xp.where(x == 0, 0, xp.where(positive, xp.sqrt(xp.where(positive, x, 1)), np.nan))


def power(base: Any, exponent: Any) -> Any:
    """base**exponent, exponent > 0, with derivative zero at zero; NaN below zero, where two years would make a gain of
    what lost more than everything."""
    xp, grows = namespace(base, exponent), base > 0
    return xp.where(base == 0, 0, xp.where(grows, xp.where(grows, base, 1) ** exponent, np.nan))


def filled(x: Any, known: Any, value: Any) -> Any:
    """x, and `value` where x is unknown."""
    xp = namespace(x, known)
    return x if xp is np and known.all() else xp.where(known, x, value)


def count(known: Any, dtype: Any) -> Any:
    """Number of known bars, in the series' own dtype: an integer would promote float32 to float64."""
    if namespace(known) is np:
        return np.asarray(np.count_nonzero(known, axis=0), dtype)
    return namespace(known).sum(known, axis=0, dtype=dtype)


def total(x: Any, known: Any) -> Any:
    """Sum over the known bars; 0 where there is none."""
    return namespace(x).sum(filled(x, known, 0), axis=0)


def mean(x: Any, known: Any) -> Any:
    """Mean over the known bars; NaN where there is none."""
    return divide(total(x, known), count(known, x.dtype), np.nan)


def deviation(x: Any, known: Any) -> Any:
    """x minus its mean; 0 at unknown bars, and exactly 0 everywhere in a constant series.

    Distances are taken from one of the values, not from zero: the mean of n equal numbers is often one ulp away from
    them, and "no risk" would become a risk of 1e-17.
    """
    xp = namespace(x)
    pivot = xp.max(filled(x, known, -np.inf), axis=0)
    pivot = pivot if xp is np else lax.stop_gradient(pivot)
    offset = filled(x - pivot, known, 0)
    return filled(offset - mean(offset, known), known, 0)


def std(x: Any, known: Any, ddof: int) -> Any:
    """Standard deviation over m known bars, divisor m - ddof; NaN if m <= ddof."""
    xp, spread = namespace(x), deviation(x, known)
    free = count(known, x.dtype) - ddof
    return root(divide(xp.sum(spread**2, axis=0), xp.where(free > 0, free, np.nan), np.nan))


def standardized_moment(x: Any, known: Any, order: int) -> Any:
    """Mean of ((x - mean) / std)**order, biased (ddof 0); NaN where there is no spread but rounding."""
    xp, scale = namespace(x), std(x, known, ddof=0)
    varies = ~(is_zero(scale) | xp.isnan(scale))
    spread = deviation(x, known) / xp.where(varies, scale, 1)
    return xp.where(varies, mean(spread**order, known), np.nan)


def ascending(x: Any, known: Any) -> Any:
    """Sorted along time, the unknown bars last."""
    xp = namespace(x)
    return xp.sort(xp.where(known, x, np.inf), axis=0)


def quantile(x: Any, known: Any, q: float) -> Any:
    """Quantile, q in [0, 1], interpolated linearly between the known bars; NaN where there is none."""
    xp, ranked, m = namespace(x), ascending(x, known), count(known, x.dtype)
    last = xp.maximum(m - 1, 0)
    low = xp.floor(q * last)

    def at(position):
        return xp.take_along_axis(ranked, position[None].astype(int), axis=0)[0]

    below, above = at(low), at(xp.minimum(low + 1, last))
    return xp.where(m > 0, below + (above - below) * (q * last - low), np.nan)


def running_max(x: Any) -> Any:
    """Maximum of all bars so far."""
    return np.maximum.accumulate(x, axis=0) if namespace(x) is np else lax.cummax(x, axis=0)


def running_min(x: Any) -> Any:
    """Minimum of all bars so far."""
    return np.minimum.accumulate(x, axis=0) if namespace(x) is np else lax.cummin(x, axis=0)
