"""Returns of a look-back window, and the weights for assets with too little history; one rule for all allocators."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

import jaxsim as js

#: Returns count as constant if their standard deviation is below this many machine epsilons.
STILL = 16


class History(eqx.Module):
    """Simple returns of a window. Missing returns are marked in `known` instead of NaN, so that gradients stay finite.

    returns: of consecutive closes; 0 where a close is missing.      known: whether both closes are known.
    """

    returns: Float[Array, "time asset"]
    known: Bool[Array, "time asset"]

    @classmethod
    def of(cls, window: js.Window) -> "History":
        values = jnp.asarray(window.values)
        priced = ~jnp.isnan(values)
        values = jnp.where(priced, values, 1.0)
        known = priced[1:] & priced[:-1]
        return cls(jnp.where(known, values[1:] / values[:-1] - 1, 0.0), known)

    @property
    def count(self) -> Float[Array, " asset"]:
        """Number of returns of each asset."""
        return self.known.sum(0).astype(self.returns.dtype)

    @property
    def usable(self) -> Bool[Array, " asset"]:
        """The assets with at least two returns that are not all the same, so that their variance is positive."""
        deviation = jnp.where(self.known, self.returns - self.mean(), 0.0)
        still = STILL * jnp.finfo(self.returns.dtype).eps
        return (self.count >= 2) & ((deviation**2).sum(0) > still**2 * self.count)

    def mean(self) -> Float[Array, " asset"]:
        """Mean return per bar; 0 for an asset without returns."""
        return self.returns.sum(0) / jnp.maximum(self.count, 1)

    def total(self) -> Float[Array, " asset"]:
        """Total return over the known bars."""
        return jnp.prod(1 + self.returns, axis=0) - 1


class Moments(eqx.Module):
    """Moments of the returns in the window, the input of an allocator.

    mean: of the returns per bar; 0 for an asset that is not usable.
    total: total return over the known bars; 0 for an asset that is not usable.
    covariance: of the returns per bar; an asset that is not usable has variance 1 and covariances 0.
    live: the usable assets; all assets if none is usable, so that the numbers stay finite until they are dropped.
    """

    mean: Float[Array, " asset"]
    total: Float[Array, " asset"]
    covariance: Float[Array, "asset asset"]
    live: Bool[Array, " asset"]

    @property
    def num_assets(self) -> int:
        return self.live.shape[0]

    @property
    def variance(self) -> Float[Array, " asset"]:
        return jnp.diagonal(self.covariance)


class Present(eqx.Module):
    """The fields of the observation that an allocator uses besides the window.

    is_flat: whether no asset is held.
    """

    weights: Float[Array, " asset"]
    is_flat: Bool[Array, ""]
    tradable: Bool[Array, " asset"]
    key: Any


class AbstractLookback(eqx.Module):
    """An allocator that uses the returns of a window of closes.

    lookback: number of closes before the bar, at least 3; None: the look-back range of `js.optimize`.

    An asset is usable if it has at least two returns in the window and they are not all the same. Other assets get
    weight 0. If no asset is usable, the assets that have had a price by now get equal weights; if there are no such
    assets, all are left alone. So weights are always finite, unless constraints cannot be met: then they are NaN, and
    `js.backtest` raises an error that names lane and date. Raises ValueError naming `lookback`.
    """

    lookback: int | None = eqx.field(static=True, default=None, kw_only=True)

    def __check_init__(self):
        lookback = self.lookback
        if lookback is None:
            return
        if isinstance(lookback, bool) or not isinstance(lookback, int | np.integer) or lookback < 3:
            raise ValueError(f"lookback: expected a whole number of closes, at least 3, or None, got {lookback!r}")

    @property
    def estimator(self) -> Callable[[js.Window], Float[Array, "asset asset"]]:
        """The covariance estimator."""
        return self.covariance  # pyright: ignore[reportAttributeAccessIssue]

    @abc.abstractmethod
    def weigh(self, moments: Moments, present: Present) -> Float[Array, " asset"]:
        """Weights [asset] of the live assets; the weights of other assets are dropped."""

    def __call__(self, obs: js.Observation) -> js.Allocation:
        window = js.Window(jnp.asarray(obs.window(self.lookback).values))
        is_flat = ~jnp.any(jnp.asarray(obs.units) != 0)
        dtype = window.values.dtype
        present = Present(jnp.asarray(obs.weights, dtype), is_flat, jnp.asarray(obs.tradable), obs.key)
        return _answer(self, window, present)


@eqx.filter_jit  # for speed in the reference engine, which calls it as ordinary Python
def _answer(allocator: AbstractLookback, window: js.Window, present: Present) -> js.Allocation:
    history = History.of(window)
    usable = history.usable
    live = usable | ~usable.any()
    pairs = usable[:, None] & usable[None, :]
    neutral = jnp.eye(len(usable), dtype=window.values.dtype)
    covariance = jnp.where(pairs, allocator.estimator(window), neutral)
    moments = Moments(jnp.where(usable, history.mean(), 0.0), jnp.where(usable, history.total(), 0.0), covariance, live)
    weights = jnp.where(usable, allocator.weigh(moments, present), 0.0)
    tradable = present.tradable
    equal = jnp.where(tradable, 1.0 / jnp.maximum(tradable.sum(), 1), 0.0).astype(weights.dtype)
    nothing = ~(usable.any() | tradable.any())
    return js.Allocation(jnp.where(usable.any(), weights, equal), skip=jnp.broadcast_to(nothing, weights.shape))
