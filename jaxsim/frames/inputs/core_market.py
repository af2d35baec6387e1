"""`Market.from_frames`: prices for the pure core. The core knows no pandas, so the constructor lives here."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import shown
from jaxsim.engine.trading.market import Market
from jaxsim.frames.inputs.groups import layout
from jaxsim.frames.inputs.parameters import LaneParameter, resolve
from jaxsim.frames.inputs.price_arrays import execution_prices, priced_at, valuation_prices
from jaxsim.frames.inputs.prices import checked_prices


def from_frames(
    close: pd.DataFrame,
    *,
    open: pd.DataFrame | None = None,
    price: pd.DataFrame | None = None,
    features: Any = None,
    dtype: Any = None,
    ffill_val_price: bool = True,
) -> Market:
    """The market of one group of assets, from DataFrames [time, asset] with the same labels.

    close: NaN where there is none.     open: valuation prices; without it, the previous close.
    price: execution prices, +inf for the close, -inf for the open; without it, the close.
    features: frames or arrays with one row per bar.
    ffill_val_price: whether a valuation price outlives a bar without one.
    dtype: of all arrays; default float64 under x64, else float32, with a warning.

    Raises ValueError or TypeError naming the argument for bad prices; ValueError for float64 without x64.
    """
    if not isinstance(ffill_val_price, bool | np.bool_):
        raise TypeError(f"ffill_val_price: expected True or False, got {shown(ffill_val_price)}"[:200])
    prices = checked_prices(close, open, price, features)
    if layout(prices.columns).num_groups > 1:
        raise ValueError("close: the columns are of several groups; a Market is one group: select it, as in close['A']")
    dtype = _default_dtype() if dtype is None else dtype
    if dtype not in (np.float32, np.float64, "float32", "float64"):
        raise ValueError(f"dtype: expected float32 or float64, got {dtype!r}")
    dtype = np.dtype(dtype)
    if dtype == np.float64 and not _is_x64():
        raise ValueError("dtype: float64 needs x64; wrap the program in `with jax.enable_x64(True):`")
    closes, opens = prices.close, prices.open
    arrays = (
        closes,
        valuation_prices(closes, opens, ffill_val_price),
        execution_prices(prices.price, closes, opens),
        prices.mark,
    )
    rows = jax.tree.map(lambda x: resolve(x).array, prices.features, is_leaf=lambda x: isinstance(x, LaneParameter))
    rows = jax.tree.map(lambda x: jnp.array(x, dtype if x.dtype.kind == "f" else None), rows)  # a copy
    known = jnp.asarray(priced_at(closes, opens, ffill_val_price)) if np.isnan(closes).any() else None
    return Market(*[jnp.asarray(x, dtype) for x in arrays], features=rows, priced_at=known)


def _is_x64() -> bool:
    return jnp.zeros(()).dtype == np.float64


def _default_dtype() -> Any:
    if _is_x64():
        return np.float64
    warnings.warn(
        "prices become float32; for float64 wrap the program in `with jax.enable_x64(True):`, or say dtype=jnp.float32",
        stacklevel=3,
    )
    return np.float32


Market.from_frames = staticmethod(from_frames)
