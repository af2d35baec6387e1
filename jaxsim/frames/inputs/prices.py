"""Prices: tables are checked and aligned, and their gaps filled (rules 4.3 and 6.2), before anything is compiled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.engine.base.fields import PRICE
from jaxsim.frames.inputs.labels import first_misfit
from jaxsim.frames.inputs.parameters import LaneParameter

#: A table of prices or features as users give it.
Table = pd.DataFrame | pd.Series
#: Features: tables and arrays with one row per bar, alone or in a pytree.
Features = Table | np.ndarray | jax.Array | Mapping[str, Any] | Sequence[Any] | None

#: Name of the outer column level of a table of several features.
FEATURE = "feature"


@dataclass(frozen=True, eq=False)
class PriceFrames:
    """Checked prices, [time, column], NaN where there is none.

    open, price: None if not given; `price` may be infinite (see `execution_prices`).
    mark: the prices that positions are valued at after a bar.      features: as `Market.features`.
    departures: which assets are out of the market (`jaxsim.frames.inputs.delistings.Departures`), and so have no prices
        here; None: nothing ever leaves.
    """

    index: pd.Index
    columns: pd.Index
    close: np.ndarray
    open: np.ndarray | None
    price: np.ndarray | None
    mark: np.ndarray
    features: Any
    departures: Any = None


def checked_prices(
    close: Table, open: Table | None = None, price: Table | None = None, features: Features = None
) -> PriceFrames:
    """Check and align tables of prices.

    Raises TypeError for a value that is no table of numbers; ValueError for an empty table, an unsorted or repeated
    index, labels that are not those of `close`, prices that are infinite or not positive, or a column without
    any price. The message begins with the argument's name.
    """
    frame = as_frame(close, "close")
    check_index(frame.index, "close")
    closes = _positive(frame, "close")
    empty = np.isnan(closes[0])
    if empty.any() and (empty := np.isnan(closes).all(axis=0)).any():
        raise ValueError(f"close: the column {frame.columns[np.argmax(empty)]!r} has no price at all")
    opens = None if open is None else _positive(_aligned(open, frame, "open"), "open")
    prices = None if price is None else _positive(_aligned(price, frame, "price"), "price", may_be_infinite=True)
    return PriceFrames(
        frame.index,
        frame.columns,
        closes,
        opens,
        prices,
        mark_prices(closes, opens),
        read_features(features, frame),
    )


def is_price_table(price: Any, close: Table) -> TypeGuard[Table]:
    """Whether `price` has one entry per bar and asset, with the labels of `close`."""
    return isinstance(price, pd.DataFrame) or (isinstance(price, pd.Series) and isinstance(close, pd.Series))


def as_frame(value: Any, argument: str) -> pd.DataFrame:
    """A DataFrame, also from a Series (one asset). Raises TypeError naming the argument, ValueError if it is empty."""
    if isinstance(value, pd.Series):
        value = value.to_frame("asset" if value.name is None else value.name)
    if not isinstance(value, pd.DataFrame):
        raise TypeError(f"{argument}: expected a DataFrame [time, asset], got {type(value).__name__}")
    if value.shape[0] == 0 or value.shape[1] == 0:
        raise ValueError(f"{argument}: the frame is empty, shape {value.shape}")
    return value


def read_features(features: Features, close: pd.DataFrame) -> Any:
    """Features as a pytree of arrays with leading axis time, DataFrames and Series aligned by label.

    A table of `js.features.stack` becomes a `LaneParameter` [time, column, feature] whose columns are those of close:
    each group sees its own assets.

    Raises ValueError if a leaf does not have one row per bar, or a stack does not have the columns of close.
    """

    def read(leaf: Any) -> Any:
        if isinstance(leaf, pd.DataFrame | pd.Series) and not leaf.index.equals(close.index):
            raise ValueError(f"features: the time index is not that of close{first_misfit(leaf.index, close.index)}")
        if isinstance(leaf, pd.DataFrame) and _are_in_other_order(leaf.columns, close.columns):
            leaf = leaf[close.columns]
        array = np.asarray(leaf)
        if array.ndim == 0 or len(array) != len(close):
            raise ValueError(f"features: expected one row per bar, {len(close)}, got shape {array.shape}")
        if array.dtype.kind not in "biuf":
            raise TypeError(f"features: expected numbers, got {array.dtype}")
        if isinstance(leaf, pd.DataFrame) and leaf.columns.nlevels > 1 and leaf.columns.names[0] == FEATURE:
            return _stacked(leaf, close)
        return array

    if features is None:
        return None
    refuse_masked(features, "features")
    return jax.tree.map(read, features, is_leaf=lambda x: isinstance(x, pd.DataFrame | pd.Series))


def _are_in_other_order(labels: pd.Index, columns: pd.Index) -> bool:
    """Whether labels are those of close, but in another order."""
    same = labels.nlevels == columns.nlevels and len(labels) == len(columns) and labels.is_unique and columns.is_unique
    return same and not labels.equals(columns) and bool(labels.isin(columns).all())


def _stacked(table: pd.DataFrame, close: pd.DataFrame) -> LaneParameter:
    """A table with columns (feature, those of close) as [time, column, feature]."""
    parts = [as_frame(table[name], "features") for name in table.columns.unique(0)]
    arrays = [align(part, close, "features", "close").to_numpy(np.float64) for part in parts]
    return LaneParameter(np.stack(arrays, axis=-1), columns=1)


def check_index(index: pd.Index, argument: str) -> None:
    """Raises ValueError naming the argument for an index that is not one row per bar, in order."""
    if isinstance(index, pd.MultiIndex):
        raise ValueError(f"{argument}: the time index has several levels; expected one row per bar")
    if index.hasnans:
        raise ValueError(f"{argument}: the time index has missing labels")
    if index.has_duplicates:
        raise ValueError(f"{argument}: the time index repeats {index[index.duplicated()][0]!r}")
    if not index.is_monotonic_increasing:
        raise ValueError(f"{argument}: the time index is not sorted; {argument}.sort_index() sorts it")


def _aligned(value: Table, close: pd.DataFrame, argument: str) -> pd.DataFrame:
    """A frame with the labels of close, in its order."""
    if np.isscalar(value) or isinstance(value, np.ndarray):
        raise TypeError(f"{argument}: expected a DataFrame with the labels of close, got {type(value).__name__}")
    return align(as_frame(value, argument), close, argument, "close")


def align(frame: pd.DataFrame, other: pd.DataFrame, argument: str, of: str = "the first table") -> pd.DataFrame:
    """A frame with the labels of another, in its order. Raises ValueError naming the argument for other labels."""
    if not frame.index.equals(other.index):
        raise ValueError(f"{argument}: its time index is not that of {of}{first_misfit(frame.index, other.index, of)}")
    if frame.columns.equals(other.columns):
        return frame
    if len(frame.columns) != len(other.columns) or not other.columns.isin(frame.columns).all():
        raise ValueError(
            f"{argument}: its columns {list(frame.columns)[:5]} are not those of {of} {list(other.columns)[:5]}"
        )
    return frame.loc[:, other.columns]


def _positive(frame: pd.DataFrame, argument: str, *, may_be_infinite: bool = False) -> np.ndarray:
    values = frame.to_numpy()
    if values.dtype.kind not in "iuf":
        for column, dtype in frame.dtypes.items():
            if getattr(dtype, "kind", "O") not in "iuf":
                raise TypeError(f"{argument}: the column {column!r} is not numeric")
        values = frame.to_numpy(np.float64, na_value=np.nan)
    values = values.astype(np.float64, order="C")  # a copy: results must not change when the user changes the frame
    fine = (values > PRICE.low) & (values <= PRICE.high)
    if not fine.all():
        fine |= np.isnan(values) | (np.isinf(values) if may_be_infinite else False)
    if not fine.all():
        row, column = np.argwhere(~fine)[0]
        where = f"{frame.columns[column]!r} at {frame.index[row]}"
        price = values[row, column]
        expected = f"above {PRICE.low:g} and up to {PRICE.high:g}" if 0 < price < np.inf else "positive and finite"
        raise ValueError(f"{argument}: prices must be {expected}; {where} is {price:g}")
    return values


# --- the arrays of a `Market`


def valuation_prices(close: np.ndarray, open: np.ndarray | None, ffill: bool = True) -> np.ndarray:
    """The price that each asset is valued at when a bar begins: its open, or else the last price known before.

    close, open: [time, asset].
    ffill: whether a price outlives a bar without one. Otherwise the price is this bar's open, or without opens the
        close of the bar before.

    Returns [time, asset], NaN before the first price.
    """
    if not ffill:
        return previous_close(close) if open is None else open
    if open is not None and not np.isnan(open).any():
        return open
    if open is None and not np.isnan(close).any():
        return previous_close(close)
    return forward_fill(_half_bars(close, open))[0::2]


def priced_at(close: np.ndarray, open: np.ndarray | None, ffill: bool = True) -> np.ndarray:
    """When each valuation price was known, in half bars: 2t for the open of bar t, 2t + 1 for its close; int32."""
    half_bars = np.arange(2 * len(close), dtype=np.int32)[:, None]
    if not ffill:
        return np.broadcast_to(half_bars[0::2], close.shape).copy()
    known = np.where(np.isnan(_half_bars(close, open)), -1, half_bars)
    return np.maximum.accumulate(known, axis=0)[0::2]


def execution_prices(price: np.ndarray | None, close: np.ndarray, open: np.ndarray | None) -> np.ndarray:
    """The price that orders execute at: +inf means the close, -inf the open, or without opens the close of the bar
    before (rules 4.3).

    price: broadcasts to [time, asset]; None: the close.
    """
    if price is None:
        return close
    price = np.where(price == np.inf, close, price)
    if (price == -np.inf).any():
        price = np.where(price == -np.inf, previous_close(close) if open is None else open, price)
    return price


def mark_prices(close: np.ndarray, open: np.ndarray | None) -> np.ndarray:
    """The price that each asset is marked at when a bar ends: the last close known.

    An asset that has had an open but no close yet is marked at that open. A later close would let values see the
    future.
    """
    mark = forward_fill(close)
    if np.isnan(mark[0]).any():
        mark = np.where(np.isnan(mark), valuation_prices(close, open), mark)
    return mark


def forward_fill(x: np.ndarray) -> np.ndarray:
    """Each NaN along the first axis becomes the last number before it."""
    if not np.isnan(x).any():
        return x
    rows = np.arange(len(x))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(x), 0, rows), axis=0)
    return np.take_along_axis(x, last, axis=0)


def previous_close(close: np.ndarray) -> np.ndarray:
    """The close of the bar before; NaN at the first bar."""
    return np.concatenate([np.full((1, close.shape[1]), np.nan), close[:-1]])


def _half_bars(close: np.ndarray, open: np.ndarray | None) -> np.ndarray:
    """Opens and closes in the order in which they become known, [2 time, asset]."""
    known = np.empty((2 * len(close), close.shape[1]))
    known[0::2] = np.nan if open is None else open
    known[1::2] = close
    return known
