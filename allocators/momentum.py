"""Weights from past returns."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jaxsim as js
from allocators.covariance import SampleCovariance
from allocators.history import AbstractLookback, Moments, Present
from allocators.numbers import number


class Momentum(AbstractLookback):
    """Weights by total return in the window: the `top` assets in equal parts, or a softmax of the returns.

    top: number of assets to hold, those of the highest total return; if fewer are usable, all usable assets.
    temperature: > 0; weights are in proportion to `exp(total return / temperature)`. A lower temperature gives more to
        the best asset. Give `top` or `temperature`, not both (ValueError); both may be swept.
    lookback: number of closes before the bar; None: the range of `js.optimize`.

    Source: N. Jegadeesh and S. Titman, Returns to buying winners and selling losers, Journal of Finance 48 (1993),
    65-91: winners in equal parts. Of two assets with the same return, the first column is taken.
    """

    top: Any = number("top", low=1.0, is_whole=True, default=None, kw_only=True)
    temperature: Any = number("temperature", low=0.0, is_open=True, default=None, kw_only=True)

    def __check_init__(self):
        if (self.top is None) == (self.temperature is None):
            raise ValueError("top: give either top= or temperature=, and not both")

    @property
    def estimator(self) -> Any:
        return SampleCovariance()  # not used

    def weigh(self, moments: Moments, present: Present) -> Float[Array, " asset"]:
        live, total = moments.live, moments.total
        score = jnp.where(live, total, -jnp.inf)
        if self.top is None:
            best = jax.lax.stop_gradient(score.max())  # against overflow; it cancels
            heat = jnp.where(live, (total - best) / self.temperature, 0.0)
            part = jnp.where(live, jnp.exp(heat), 0.0)
            return part / part.sum()
        place = jnp.arange(len(score))
        is_ahead = (score[None, :] > score[:, None]) | (
            (score[None, :] == score[:, None]) & (place[None, :] < place[:, None])
        )
        chosen = live & (is_ahead.sum(1) < jnp.asarray(self.top))
        return chosen.astype(total.dtype) / jnp.maximum(chosen.sum(), 1)


class _Track(eqx.Module):
    """The state of `ExponentiatedGradient`.

    log_weights: logarithms of the weights over all assets, up to a constant; the largest is 0.
    price: last valuation price of each asset; NaN before the first.
    """

    log_weights: Any
    price: Any


class ExponentiatedGradient(eqx.Module):
    """Weights updated by relative prices at every bar: `w_i exp(eta x_i / (w . x)) / Z`, where x is the valuation price
    of an asset divided by its price at the previous bar, and Z the sum. Equal weights at the start.

    eta: learning rate, >= 0; 0 stays at equal weights; may be swept.

    Source: D. P. Helmbold, R. E. Schapire, Y. Singer and M. K. Warmuth, On-line portfolio selection using
    multiplicative updates, Mathematical Finance 8 (1998), 325-347, equation 3.5 and its EG(eta)-update. The
    weights are updated at every bar, also at bars without a trade. An asset without a price has x = 1. An asset that is
    not tradable yet gets weight 0, and the other weights are scaled to sum to one; if no asset is tradable, all are
    left alone. The state has logarithms of weights, so that a weight that underflows to 0 can grow again.
    """

    eta: Any = number("eta", low=0.0, default=0.05)

    def init(self, num_assets: int) -> _Track:
        return _Track(np.zeros(num_assets), np.full(num_assets, np.nan))

    def observe(self, obs: js.Observation, state: _Track) -> _Track:
        price, last = jnp.asarray(obs.val_price), jnp.asarray(state.price)
        is_moving = ~jnp.isnan(price) & ~jnp.isnan(last)
        relative = jnp.where(is_moving, jnp.where(is_moving, price, 1.0) / jnp.where(is_moving, last, 1.0), 1.0)
        log_weights = jnp.asarray(state.log_weights)
        grown = log_weights + jnp.asarray(self.eta) * relative / (jax.nn.softmax(log_weights) @ relative)
        return _Track(grown - grown.max(), jnp.where(jnp.isnan(price), last, price))

    def __call__(self, obs: js.Observation, state: _Track) -> tuple[js.Allocation, _Track]:
        tradable = jnp.asarray(obs.tradable)
        nothing = ~tradable.any()
        weights = jax.nn.softmax(jnp.asarray(state.log_weights), where=tradable | nothing)
        weights = jnp.where(tradable, weights, 0.0)
        return js.Allocation(weights, skip=jnp.broadcast_to(nothing, tradable.shape)), state
