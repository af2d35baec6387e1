"""The market: prices, and the features that the user adds."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxsim.engine.base.arrays import Array, where


class Market(eqx.Module):
    """Prices of one group of assets, currency per unit. `Market.from_frames` builds it from DataFrames, and fills gaps.
    Which fields it has follows from the arguments, never from the prices: markets with and without gaps stack, and run
    in one program.

    close: closes as observed; NaN where there is none. `Observation.window` shows them.
    val_price: price for valuation and for the size of orders, before the bar trades: the open, or, where there is none,
        the last known price before it; NaN before the first price.
    price: execution price of orders; NaN where the asset does not trade.
    mark: the last known close, at which positions are valued after the bar.
    features: pytree of arrays with leading axis time; row t is known at the open of bar t.
    priced_at: time of `val_price` in half bars: 2t for the open of bar t, 2t + 1 for its close. None: no fill
        is newer than the prices; see `Costs.update_value`.
    gone: the bars from which on an asset is out of the market, until its prices return. At the first of them what is
        held of it is closed at its mark (rules 12.5). Both prices are NaN there. None: nothing is ever closed.
    carried: where an asset is unpriced: it has neither an open of this bar nor a close of the bar before, so that
        `val_price` is older. Its drift does not count (rules 12.6). None: it counts.
    """

    close: Float[Array, "time asset"]
    val_price: Float[Array, "time asset"]
    price: Float[Array, "time asset"]
    mark: Float[Array, "time asset"]
    features: Any = None
    priced_at: Int[Array, "time asset"] | None = None
    gone: Bool[Array, "time asset"] | None = None
    carried: Bool[Array, "time asset"] | None = None

    from_frames: ClassVar[Callable[..., "Market"]]  # defined in jaxsim.frames.inputs.market, which knows pandas

    @property
    def num_bars(self) -> int:
        return self.close.shape[0]

    @property
    def num_assets(self) -> int:
        return self.close.shape[1]

    @property
    def dtype(self):
        return self.close.dtype

    @property
    def opening_price(self) -> Float[Array, " asset"]:
        """What is held at the opening is worth: the first valuation price, or where there is none the first mark."""
        return where(jnp.isnan(self.val_price[0]), self.mark[0], self.val_price[0])
