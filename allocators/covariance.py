"""Covariance of simple returns per bar: functions of a `Window`, chosen by the field `covariance` of an allocator.

An asset with fewer than two returns in the window is NaN. Where prices are missing, each asset is taken about its own
mean, a missing return counts as its mean, and a pair is divided by the geometric mean of what its two variances are
divided by. That is a Gram matrix, hence positive semidefinite, which pairwise-complete covariances need not be; without
gaps it is the usual formula. Rows of NaN before the first price change nothing.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

import jaxsim as js
from allocators.history import History
from allocators.numbers import number


class SampleCovariance(eqx.Module):
    """The sample covariance, ddof 1: `numpy.cov`, `pandas.DataFrame.cov`."""

    def __call__(self, window: js.Window) -> Float[Array, "asset asset"]:
        history = History.of(window)
        return _gram(history, jnp.ones(len(history.returns), history.returns.dtype))


class ExponentialCovariance(eqx.Module):
    """Exponentially weighted: a return counts 0.5 ** (age / halflife), the last one has age 0; mean and covariance with
    the same weights, and the covariance corrected for bias by 1 - sum(p^2), p the weights normalised to one.

    halflife: in bars, > 0; may be swept. A decay factor d per bar (RiskMetrics: 0.94) has halflife log(0.5) / log(d).

    Source: `pandas.DataFrame.ewm(halflife=...).cov()`, the last of its matrices; J.P. Morgan/Reuters, RiskMetrics
    Technical Document (1996), section 5.2, for the weights.
    """

    halflife: Any = number("halflife", low=0.0, is_open=True)

    def __call__(self, window: js.Window) -> Float[Array, "asset asset"]:
        history = History.of(window)
        dtype = history.returns.dtype
        age = jnp.arange(len(history.returns), dtype=dtype)[::-1]
        return _gram(history, jnp.asarray(0.5 ** (age / self.halflife), dtype))


class LedoitWolf(eqx.Module):
    """The covariance (ddof 0) shrunk towards a multiple of the identity, `(1 - s) S + s m I`, m the mean variance and s
    the intensity that minimises the expected squared error.

    Source: O. Ledoit and M. Wolf, A well-conditioned estimator for large-dimensional covariance matrices, Journal of
    Multivariate Analysis 88 (2004), 365-411, as `sklearn.covariance.LedoitWolf` computes it. Assets without two returns
    and bars without any are not counted.
    """

    def __call__(self, window: js.Window) -> Float[Array, "asset asset"]:
        history = History.of(window)
        enough = history.count >= 2
        known = history.known & enough
        num_bars = jnp.maximum(known.any(1).sum(), 1).astype(history.returns.dtype)
        num_assets = jnp.maximum(enough.sum(), 1).astype(history.returns.dtype)
        share = jnp.sqrt(num_bars / jnp.maximum(history.count, 1))
        x = jnp.where(known, (history.returns - history.mean()) * share, 0.0)
        sample = x.T @ x / num_bars
        mean_variance = jnp.trace(sample) / num_assets
        squares = (sample**2).sum()
        spread = squares - num_assets * mean_variance**2  # |S - m I|^2
        noise = ((x**2).sum(1) ** 2).sum() / num_bars**2 - squares / num_bars  # sum |x x' - S|^2 / n^2
        is_spread = spread > 0
        intensity = jnp.where(is_spread, jnp.minimum(noise, spread) / jnp.where(is_spread, spread, 1.0), 0.0)
        target = mean_variance * jnp.eye(len(enough), dtype=x.dtype)
        shrunk = (1 - intensity) * sample + intensity * target
        return jnp.where(enough[:, None] & enough[None, :], shrunk, jnp.nan)


def _gram(history: History, weights: Float[Array, " time"]) -> Float[Array, "asset asset"]:
    """Weighted covariance without bias. Equal weights give ddof 1."""
    known, column = history.known, weights[:, None]
    total = jnp.where(known, column, 0.0).sum(0)
    safe = jnp.where(total > 0, total, 1.0)
    mean = jnp.where(known, column * history.returns, 0.0).sum(0) / safe
    x = jnp.where(known, jnp.sqrt(column) * (history.returns - mean), 0.0)
    freedom = total - jnp.where(known, column**2, 0.0).sum(0) / safe
    enough = (history.count >= 2) & (freedom > 0)
    root = jnp.sqrt(jnp.where(enough, freedom, 1.0))
    return jnp.where(enough[:, None] & enough[None, :], x.T @ x / (root[:, None] * root[None, :]), jnp.nan)
