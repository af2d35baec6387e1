"""What the world gives: prices, and the features that the user adds."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Float, Int

from jaxsim.engine.base.arrays import Array


class Market(eqx.Module):
    """Prices of one group of assets. Built from DataFrames by `Market.from_frames`, which also fills the gaps.

    close: closes as observed; NaN where there was none. What `Observation.window` looks back on.
    val_price: the price that positions are valued and orders are sized at, before the bar trades: the open, where
        there is none the last price known before it; NaN before the first price.
    price: the price that orders execute at; NaN where the asset does not trade.
    mark: the close that positions are marked at: the last one known.
    features: pytree of arrays with leading axis time; row t is known at the open of bar t.
    priced_at: when `val_price` was last known, in half bars: 2t for the open of bar t, 2t + 1 for its close. None: not
        needed, since no fill is ever newer; see `Costs.update_value`.
    """

    close: Float[Array, "time asset"]
    val_price: Float[Array, "time asset"]
    price: Float[Array, "time asset"]
    mark: Float[Array, "time asset"]
    features: Any = None
    priced_at: Int[Array, "time asset"] | None = None

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
