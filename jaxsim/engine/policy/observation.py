"""What a policy may see: all that is known at the open of a bar, and nothing later."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsim.engine.base.arrays import Amount, Array, Step, namespace


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

    def covariance(self, ddof: int = 1) -> Float[Array, "asset asset"]:
        """Covariance of the simple returns per bar, over the bars that both assets of a pair have (pairwise complete,
        as `pandas.DataFrame.cov`)."""
        returns, known, _ = self._known_returns()
        xp = namespace(returns)
        pairs = known.T @ known
        count = xp.maximum(pairs, 1)
        x = returns * known
        mean = (x.T @ known) / count  # mean of asset i over the bars where j is known as well
        moment = x.T @ x - count * mean * mean.T
        return xp.where(pairs > ddof, moment / xp.maximum(pairs - ddof, 1), xp.nan)

    def _known_returns(self):
        before, after = self.values[:-1], self.values[1:]
        xp = namespace(before)
        known = ~xp.isnan(before) & ~xp.isnan(after)
        # Divided only where both are known, so that no NaN reaches a gradient.
        returns = xp.where(known, after, 1.0) / xp.where(known, before, 1.0) - 1
        return returns, known.astype(returns.dtype), known.sum(0).astype(returns.dtype)


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
    tradable: the assets that have had a price by now.
    key: random key of this lane and bar.
    features: the rows of the user's features for this bar.
    is_asked: whether an answer is asked for. A compiled allocator also runs for lanes that do not rebalance at this
        bar, beside others that do; what it answers for them is thrown away.
    ticket: by which Python functions know the lane, int32 [2]; see `jaxsim.engine.policy.host_callback`.
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
        elif isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 1:
            raise ValueError(f"obs.window(length): length must be a positive integer, got {length!r}")
        else:
            start = 0
        bars = self.step - length + xp.arange(length)
        rows = self.closes[xp.clip(bars, 0, self.closes.shape[0] - 1)]
        return Window(xp.where((bars >= start)[:, None], rows, xp.nan))
