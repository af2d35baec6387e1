"""Covariance of simple returns per bar: functions of a `Window`, chosen by the field `covariance` of an allocator.

An asset with fewer than two returns in the window is NaN. If all assets have the same bars, the estimates are the usual
formulas. If prices are missing, the covariance of a pair is computed over its common bars, with the means on those bars
(`Window.covariance`); a pair with fewer than two common bars has covariance 0. Such a matrix need not be positive
semidefinite, as solvers require. So the correlations are projected to the nearest positive semidefinite matrix (in the
Frobenius norm) and scaled back to a diagonal of one. The variances stay those of the known returns. A matrix that is
positive semidefinite already does not change. Rows of NaN before the first price change nothing.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

import jaxsim as js
from allocators.history import History
from allocators.numbers import number
from allocators.spectral import excess, in_any_lane


class SampleCovariance(eqx.Module):
    """The sample covariance with ddof 1, as `numpy.cov`; with missing prices, `pandas.DataFrame.cov`, projected."""

    def __call__(self, window: js.Window) -> Float[Array, "asset asset"]:
        return _positive(jnp.asarray(window.covariance()), History.of(window))


class ExponentialCovariance(eqx.Module):
    """Exponentially weighted: a return counts 0.5 ** (age / halflife), the last one has age 0; mean and covariance with
    the same weights, and the covariance corrected for bias by 1 - sum(p^2), p the weights normalised to one. Where
    prices are missing, that is done for each pair over the bars that both have, a return keeping the age of its bar,
    and the matrix is projected.

    halflife: in bars, > 0; may be swept. A decay factor d per bar (RiskMetrics: 0.94) is halflife log(0.5) / log(d).

    Source: `pandas.DataFrame.ewm(halflife=...).cov()`, the last of its matrices; J.P. Morgan/Reuters, RiskMetrics
    Technical Document (1996), section 5.2, for the weights.
    """

    halflife: Any = number("halflife", low=0.0, is_open=True)

    def __call__(self, window: js.Window) -> Float[Array, "asset asset"]:
        history = History.of(window)
        dtype = history.returns.dtype
        age = jnp.arange(len(history.returns), dtype=dtype)[::-1]
        weights = jnp.asarray(0.5 ** (age / self.halflife), dtype)
        return _positive(jnp.asarray(window.covariance(weights=weights)), history)


class LedoitWolf(eqx.Module):
    """The covariance S (ddof 0) shrunk towards a multiple of the identity, `(1 - s) S + s m I`, where m is the mean
    variance and s the intensity that minimises the expected squared error.

    Source: O. Ledoit and M. Wolf, A well-conditioned estimator for large-dimensional covariance matrices, Journal of
    Multivariate Analysis 88 (2004), 365-411, as computed by `sklearn.covariance.LedoitWolf`. With missing prices, S is
    the projected covariance of pairs. The sampling error of each entry, from which the intensity follows, is then
    `sum_t (x_ti x_tj - S_ij)^2 / n_ij^2` over the n_ij common bars. Assets with fewer than two returns and bars without
    any return are left out.
    """

    def __call__(self, window: js.Window) -> Float[Array, "asset asset"]:
        history = History.of(window)
        enough = history.count >= 2
        live = enough[:, None] & enough[None, :]
        pairwise = jnp.asarray(window.covariance(ddof=0))
        sample = jnp.where(live, _positive(pairwise, history), 0.0)
        num_assets = jnp.maximum(enough.sum(), 1).astype(sample.dtype)
        mean_variance = jnp.trace(sample) / num_assets
        squares = (sample**2).sum()
        spread = squares - num_assets * mean_variance**2  # |S - m I|^2
        noise = jnp.where(live, _sampling_error(history, pairwise), 0.0).sum()
        is_spread = spread > 0
        intensity = jnp.where(is_spread, jnp.minimum(noise, spread) / jnp.where(is_spread, spread, 1.0), 0.0)
        target = mean_variance * jnp.eye(len(enough), dtype=sample.dtype)
        return jnp.where(live, (1 - intensity) * sample + intensity * target, jnp.nan)


def _sampling_error(history: History, covariance: Float[Array, "asset asset"]) -> Float[Array, "asset asset"]:
    """The sampling error of each entry of a pairwise covariance (ddof 0): `sum (x_i x_j - S_ij)^2 / n_ij^2` over the
    common bars, where x are the deviations from the means on those bars; 0 with fewer than two common bars."""
    known = history.known.astype(history.returns.dtype)
    count = known.T @ known
    is_known = count >= 2
    safe = jnp.where(is_known, count, 1.0)
    x = jnp.where(history.known, history.returns - history.mean(), 0.0)
    mean = x.T @ known / safe
    x, known = x.T, known.T
    product = (x[:, None, :] - mean[:, :, None]) * (x[None, :, :] - mean.T[:, :, None])
    error = known[:, None, :] * known[None, :, :] * (product - jnp.where(is_known, covariance, 0.0)[:, :, None])
    return jnp.where(is_known, (error**2).sum(-1) / safe**2, 0.0)


def _positive(covariance: Float[Array, "asset asset"], history: History) -> Float[Array, "asset asset"]:
    """A pairwise covariance, made positive semidefinite. It is unchanged if all assets with two returns have the same
    bars."""
    enough = history.count >= 2
    live = enough[:, None] & enough[None, :]
    is_ragged = (history.known.any(1, where=enough) & ~history.known.all(1, where=enough)).any()
    pairs = jnp.where(live, covariance, 0.0)
    pairs = jnp.where(jnp.isnan(pairs), 0.0, pairs)
    projected = lax.cond(in_any_lane(is_ragged), _projected, lambda pairs, is_ragged: pairs, pairs, is_ragged)
    return jnp.where(live, projected, jnp.nan)


def _projected(pairs: Float[Array, "asset asset"], is_ragged: Bool[Array, ""]) -> Float[Array, "asset asset"]:
    variance = jnp.diagonal(pairs)
    scale = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 1.0)
    correlation = pairs / (scale[:, None] * scale[None, :])
    lack = excess(correlation)
    grown = jnp.sqrt(1 + jnp.where(variance > 0, jnp.diagonal(lack), 0.0))
    positive = (correlation + lack) / (grown[:, None] * grown[None, :])
    return jnp.where(is_ragged, positive * (scale[:, None] * scale[None, :]), pairs)
