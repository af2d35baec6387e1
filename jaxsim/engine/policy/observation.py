"""What a policy may see: all that is known at the open of a bar, and nothing later."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsim.engine.base.arrays import Amount, Array, Step, namespace, refuse_masked
from jaxsim.engine.base.fields import whole_number


class Window(eqx.Module):
    """The closes of the bars before this one, oldest first; its statistics skip NaN and are NaN where nothing is.

    values: closes, NaN before the first bar and where an asset had no price.
    """

    values: Float[Array, "time asset"]

    def returns(self) -> Float[Array, "time_1 asset"]:
        """Simple returns of consecutive closes, one row fewer than `values`."""
        returns, known, _ = self._known_returns()
        xp = namespace(returns)
        return xp.where(known > 0, returns, xp.nan)

    def mean_return(self) -> Float[Array, " asset"]:
        """Mean simple return per bar."""
        returns, known, count = self._known_returns()
        xp = namespace(returns)
        return xp.where(count > 0, (returns * known).sum(0) / xp.maximum(count, 1), xp.nan)

    def volatility(self, ddof: int = 1) -> Float[Array, " asset"]:
        """Standard deviation of the simple returns per bar (not annualised)."""
        returns, known, count = self._known_returns()
        xp = namespace(returns)
        mean = (returns * known).sum(0) / xp.maximum(count, 1)
        variance = (known * (returns - mean) ** 2).sum(0) / xp.maximum(count - ddof, 1)
        positive = variance > 0  # the root has no derivative at zero
        root = xp.where(positive, xp.sqrt(xp.where(positive, variance, 1.0)), 0.0)
        return xp.where(count > ddof, root, xp.nan)

    def covariance(self, ddof: int = 1, weights: Float[Array, " time_1"] | None = None) -> Float[Array, "asset asset"]:
        """Covariance of the simple returns per bar, each pair of assets over the bars that both have (pairwise
        complete, as `pandas.DataFrame.cov`). Where prices are missing it need not be positive semidefinite.

        ddof: the sum over n bars is divided by n - ddof. A pair with no more than `ddof` common bars is NaN.
        weights: of the returns, [time - 1], >= 0. Means are weighted alike, and W, the sum of the weights of the common
            bars, takes the place of n: the divisor is W - ddof * (sum of their squares) / W. With ddof 1 it is
            `pandas.DataFrame.ewm(...).cov()`. None: each return counts once.
        """
        returns, known, _ = self._known_returns()
        xp = namespace(returns)
        refuse_masked(weights, "weights")
        if weights is not None and np.shape(weights) != (len(returns),):
            raise ValueError(f"weights: expected one for each of {len(returns)} returns, got shape {np.shape(weights)}")
        weight: Any = xp.ones(len(returns), returns.dtype) if weights is None else xp.asarray(weights, returns.dtype)
        # Measured from one of its returns, a constant series has no variance at all, whatever its mean is rounded to.
        pivot = xp.where(known > 0, returns, -xp.inf).max(0, initial=-xp.inf)
        pivot = jax.lax.stop_gradient(pivot) if xp is jnp else pivot
        x = xp.where(known > 0, returns - xp.where(xp.isinf(pivot), 0.0, pivot), 0.0)
        total = (known * weight[:, None]).T @ known
        squares = (known * weight[:, None] ** 2).T @ known
        safe = xp.where(total > 0, total, 1.0)
        divisor = total - ddof * squares / safe
        is_known = (known.T @ known > ddof) & (divisor > 0)
        moment = _pairwise_moment(xp, x, known, weight, safe)
        return xp.where(is_known, moment / xp.where(is_known, divisor, 1.0), xp.nan)

    def _known_returns(self) -> tuple[Array, Array, Array]:
        """Returns [time - 1, asset], 0 where unknown; 1.0 where known, else 0.0; number of known ones, [asset]."""
        refuse_masked(self.values, "values")
        before, after = self.values[:-1], self.values[1:]
        xp = namespace(before)
        known = ~xp.isnan(before) & ~xp.isnan(after)
        # Divided only where both are known, so that no NaN reaches a gradient.
        returns = xp.where(known, after, 1.0) / xp.where(known, before, 1.0) - 1
        return returns, known.astype(returns.dtype), known.sum(0).astype(returns.dtype)


def _pairwise_moment(xp, x, known, weights, total) -> Float[Array, "asset asset"]:
    """The weighted sum of `(x_i - mean_ij)(x_j - mean_ji)` over the bars that assets i and j both have, mean_ij being
    the mean of x_i over these bars.

    x: [time, asset], 0 where unknown.    known: 1.0 where known, else 0.0.    weights: [time].
    total: of the weights over the common bars, [asset, asset], > 0.
    """
    if xp is jnp:
        return _moment_in_jax(x, known, weights, total)
    mean = _pairwise_mean(x, known, weights, total)
    rows = [
        (weights[:, None] * known[:, i, None] * known * (x[:, i, None] - mean[i]) * (x - mean[:, i])).sum(0)
        for i in range(x.shape[1])
    ]
    return np.stack(rows) if rows else np.zeros((0, 0), x.dtype)


def _pairwise_mean(x, known, weights, total) -> Float[Array, "asset asset"]:
    """Entry [i, j]: the mean of x_i over the bars that i and j both have."""
    return (weights[:, None] * x).T @ known / total


@jax.custom_jvp
def _moment_in_jax(x, known, weights, total):
    """Products of deviations: a difference of two sums of products would lose a deviation much smaller than a mean."""
    mean = _pairwise_mean(x, known, weights, total)
    x, known = x.T, known.T
    deviation = x[:, None, :] - mean[:, :, None]
    common = known[:, None, :] * known[None, :, :] * weights
    return (common * deviation * (x[None, :, :] - mean.T[:, :, None])).sum(-1)


@_moment_in_jax.defjvp
def _moment_derivative(primals, tangents):
    """A deviation sums to zero, so that the means add nothing. Products of matrices: what is summed along time here, a
    derivative of the function above would keep for each pair of assets."""
    x, known, weights, total = primals
    dx, _, dweights, _ = tangents
    mean = _pairwise_mean(x, known, weights, total)
    weighted = weights[:, None] * known * dx
    one_side = weighted.T @ (known * x) - (weighted.T @ known) * mean.T
    change = one_side + one_side.T
    # By the weights: sum of dw_t (x_i - mean_ij)(x_j - mean_ji), multiplied out.
    own = dweights[:, None] * known
    cross = (own * x).T @ (known * x)
    slope = (own * x).T @ known * mean.T
    change += cross - slope - slope.T + (own.T @ known) * mean * mean.T
    return _moment_in_jax(x, known, weights, total), change


class Observation(eqx.Module):
    """What is known at the open of bar `step`, before anything is traded.

    step: number of the bar, from 0 (a plain int in the reference engine and on the host, where money is plain floats).
    weights: present weight of each asset at the valuation price; 0 for an asset without a price.
    units: units held.
    value: value of the account at the valuation price, currency.
    cash, free_cash: currency; free cash is what is neither owed nor pledged for short positions.
    debt: what each short position was sold for, currency; 0 where nothing is sold short.
    val_price: the open of this bar; where there is none, the last price known before it; NaN before the first.
    target: weights asked for at the last rebalance; NaN before the first.
    tradable: the assets that have had a price by now, and have not left the market since.
    key: random key of this lane and bar.
    features: the rows of the user's features for this bar.
    is_asked: whether an answer is asked for. A compiled allocator also runs for lanes that do not rebalance at this
        bar, beside others that do; what it answers for them is thrown away.
    ticket: by which Python functions know the lane, int32 [2]; see `jaxsim.engine.policy.host_callback`.
    carried: the assets whose `val_price` is older than the close of the bar before: their drift counts in no trigger
        and in no band. None: it counts.
    is_emptied: whether nothing is held because all that was held has left the market.
    """

    step: Step
    weights: Float[Array, " asset"]
    units: Float[Array, " asset"]
    value: Amount
    cash: Amount
    debt: Float[Array, " asset"]
    free_cash: Amount
    val_price: Float[Array, " asset"]
    target: Float[Array, " asset"]
    tradable: Bool[Array, " asset"]
    key: Any
    features: Any
    closes: Float[Array, "all_time asset"] = eqx.field(repr=False)  # the market's; `window` is the way to them
    range_start: Step | None = eqx.field(default=None, repr=False)  # in a plan: where the look-back range begins
    longest: int | None = eqx.field(default=None, static=True, repr=False)  # and the rows that its window has
    is_asked: Bool[Array, ""] | bool = True
    ticket: Int[Array, "2"] | None = eqx.field(default=None, repr=False)
    carried: Bool[Array, " asset"] | None = eqx.field(default=None, repr=False)
    is_emptied: Bool[Array, ""] | bool = eqx.field(default=False, repr=False)

    @property
    def num_assets(self) -> int:
        return self.units.shape[-1]

    def rng(self) -> np.random.Generator:
        """A NumPy generator seeded by `key`, the same at every call, where observations hold NumPy arrays: in
        `allocators.host` and in the reference engine."""
        return np.random.default_rng(np.asarray(jax.random.key_data(self.key)))

    def window(self, length: int | None = None) -> Window:
        """The `length` closes before this bar, [length, asset], oldest first; rows before the first bar are NaN.

        In `js.optimize`, without a length, the closes of the look-back range; the compiled engine puts NaN rows before
        them, so that ranges of about one length share a program.

        Raises ValueError unless `length` is a positive Python integer (it is a shape, so it cannot be traced), or if it
        is left out where there is no range.
        """
        xp = namespace(self.closes)
        if length is None:
            if self.longest is None:
                raise ValueError(
                    "obs.window(length): there is no look-back range here (js.optimize has them): say how many closes, "
                    "as in obs.window(60), or lookback=60 for an allocator that has that field"
                )
            length, start = self.longest, self.range_start
        else:
            length, start = whole_number(length, "obs.window(length)"), 0
        bars = self.step - length + xp.arange(length)
        rows = self.closes[xp.clip(bars, 0, self.closes.shape[0] - 1)]
        return Window(xp.where((bars >= start)[:, None], rows, xp.nan))
