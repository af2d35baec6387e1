"""Markets from tables of prices: `Market.from_frames` for the core, and the prices of all lanes for a run."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxsim.engine.base.fields import FLAG, LARGEST_FLOAT32, PRICE, shown
from jaxsim.engine.trading.market import Market
from jaxsim.frames.inputs.delistings import STALE, Delistings, Stale, carried_prices, prices_by_listing, with_departures
from jaxsim.frames.inputs.groups import layout
from jaxsim.frames.inputs.parameters import (
    LaneParameter,
    LaneValue,
    Parameter,
    ParameterReader,
    Unresolved,
    map_parameters,
    resolve,
)
from jaxsim.frames.inputs.prices import (
    Features,
    PriceFrames,
    checked_prices,
    execution_prices,
    priced_at,
    valuation_prices,
)

#: What becomes of the drift of an unpriced asset: it is left out, or it counts at the last price there was.
IGNORED, COUNTS = "ignored", "counts"

# --- one group, for the core


def from_frames(
    close: pd.DataFrame,
    *,
    open: pd.DataFrame | None = None,
    price: pd.DataFrame | None = None,
    features: Features = None,
    dtype: npt.DTypeLike | None = None,
    ffill_val_price: bool = True,
    stale: Stale = STALE,
    delistings: Delistings = None,
    drift_without_price: str = IGNORED,
) -> Market:
    """The market of one group of assets, from DataFrames [time, asset] with the same labels.

    close: NaN where there is none.     open: valuation prices; without it, the previous close.
    price: execution prices, +inf for the close, -inf for the open; without it, the close.
    features: frames or arrays with one row per bar.
    ffill_val_price: whether a valuation price outlives a bar without one.
    stale, delistings, drift_without_price: as in `js.backtest`.
    dtype: of all arrays; default float64 under x64, else float32, with a warning.

    Raises ValueError or TypeError naming the argument for bad prices; ValueError for float64 without x64.
    """
    if not isinstance(ffill_val_price, bool | np.bool_):
        raise TypeError(f"ffill_val_price: expected True or False, got {shown(ffill_val_price)}"[:200])
    prices = checked_prices(close, open, price, features)
    arrangement = layout(prices.columns)
    if arrangement.num_groups > 1:
        raise ValueError("close: the columns are of several groups; a Market is one group: select it, as in close['A']")
    dtype = _default_dtype() if dtype is None else dtype
    if dtype not in (np.float32, np.float64, "float32", "float64"):
        raise ValueError(f"dtype: expected float32 or float64, got {dtype!r}")
    dtype = np.dtype(dtype)
    if dtype == np.float64 and not _is_x64():
        raise ValueError("dtype: float64 needs x64; wrap the program in `with jax.enable_x64(True):`")
    if dtype == np.float32:
        for name in ("close", "open", "price"):
            _refuse_beyond_float32(getattr(prices, name), name)
    prices = with_departures(prices, arrangement.assets, stale, delistings)
    closes, opens = prices.close, prices.open
    arrays = (
        closes,
        prices_by_listing(prices, lambda close, open: valuation_prices(close, open, ffill_val_price), np.nan),
        execution_prices(prices.price, closes, opens),
        prices.mark,
    )
    rows = map_parameters(lambda x: x.array, prices.features)
    rows = jax.tree.map(lambda x: jnp.array(x, dtype if x.dtype.kind == "f" else None), rows)  # a copy
    # Also where nothing is missing: markets with and without holes have the same fields, and run in one program.
    known = jnp.asarray(priced_at(closes, opens, ffill_val_price))
    gone = None if prices.departures is None else jnp.asarray(prices.departures.gone)
    carried = jnp.asarray(carried_prices(closes, opens)) if _leaves_drift_out(drift_without_price) else None
    tables = [jnp.asarray(x, dtype) for x in arrays]
    return Market(*tables, features=rows, priced_at=known, gone=gone, carried=carried)


def _refuse_beyond_float32(prices: np.ndarray | None, argument: str) -> None:
    if prices is None:
        return
    is_far = np.isfinite(prices) & (prices > LARGEST_FLOAT32)
    if is_far.any():
        raise ValueError(f"{argument}: in float32 prices go up to {LARGEST_FLOAT32:g}, got {prices[is_far][0]:g}")


def _leaves_drift_out(drift_without_price: Any) -> bool:
    if drift_without_price not in (IGNORED, COUNTS):
        raise ValueError(f"drift_without_price: expected 'ignored' or 'counts', got {shown(drift_without_price)}"[:200])
    return drift_without_price == IGNORED


def _is_x64() -> bool:
    return jnp.zeros(()).dtype == np.float64


def _default_dtype() -> npt.DTypeLike:
    if _is_x64():
        return np.float64
    warnings.warn(
        "prices become float32; for float64 wrap the program in `with jax.enable_x64(True):`, or say dtype=jnp.float32",
        stacklevel=3,
    )
    return np.float32


#: The core knows no pandas, so that the constructor is attached here.
Market.from_frames = staticmethod(from_frames)


# --- all lanes, for a run


class LanePrices(NamedTuple):
    """The price fields of `Market` for all lanes."""

    close: LaneParameter
    val_price: LaneParameter
    price: LaneParameter
    mark: LaneParameter
    priced_at: LaneParameter | None
    gone: LaneParameter | None = None
    carried: LaneParameter | None = None


def read_lane_prices(
    prices: PriceFrames,
    price: Parameter | None,
    ffill_val_price: LaneValue,
    moves_prices: bool,
    drift_without_price: str | None,
    reader: ParameterReader,
) -> LanePrices:
    """Valuation and execution prices, with lane axes where the conventions about prices are swept.

    price: numbers or an index to sweep; None if `prices` has a table of them, or if orders execute at the close.
    ffill_val_price: bool, or an index to sweep.     moves_prices: whether fills may move valuation prices.
    drift_without_price: "ignored" or "counts"; None: nothing asks for a drift.
    """
    close, open = prices.close, prices.open
    raw_price = None if price is None else reader.by_bar_and_asset(price, "price", PRICE)
    fills = reader.per_lane(ffill_val_price, "ffill_val_price", FLAG)

    gone = None if prices.departures is None else prices.departures.gone

    def by_price(raw: Any) -> np.ndarray:
        executed = execution_prices(np.broadcast_to(raw, close.shape), close, open)
        return executed if gone is None or not gone.any() else np.where(gone, np.nan, executed)

    def values(ffill: Any) -> np.ndarray:
        return prices_by_listing(prices, lambda close, open: valuation_prices(close, open, bool(ffill)), np.nan)

    leaves_out = drift_without_price is not None and _leaves_drift_out(drift_without_price)

    if raw_price is None:
        executed = LaneParameter(execution_prices(prices.price, close, open), columns=1)
    else:
        executed = _table_of(raw_price, by_price)
    return LanePrices(
        LaneParameter(close, columns=1),
        _table_of(fills, values),
        executed,
        LaneParameter(prices.mark, columns=1),
        _table_of(fills, lambda ffill: priced_at(close, open, bool(ffill))) if moves_prices else None,
        None if gone is None else LaneParameter(gone, columns=1),
        LaneParameter(carried_prices(close, open), columns=1) if leaves_out else None,
    )


def _table_of(parameter: LaneParameter, table: Callable[[Any], np.ndarray]) -> LaneParameter:
    """The table [time, column] that belongs to each value of a parameter."""
    if parameter.by_combination:

        def tables(combinations: np.ndarray | None) -> np.ndarray:
            return np.stack([table(x) for x in resolve(parameter, combinations).array])

        return LaneParameter(Unresolved(tables), by_combination=True, columns=2)
    return LaneParameter(table(parameter.array), columns=1)


def market_of(prices: LanePrices, features: Any) -> Market:
    """A market whose fields are those of `prices`, whatever they are: arrays with lane axes, or the numbers of those
    axes. The constructor of `Market` takes one group only."""
    return jax.tree.unflatten(_market_structure(), [*prices[:4], features, *prices[4:]])


@functools.cache
def _market_structure() -> Any:
    blank = np.zeros((1, 1))
    flags = blank.astype(bool)
    return jax.tree.structure(Market(blank, blank, blank, blank, 0.0, blank.astype(np.int32), flags, flags))
