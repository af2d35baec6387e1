"""The market of all lanes: price leaves, with lane axes where the conventions about prices are swept."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import FLAG, PRICE
from jaxsim.engine.trading.market import Market
from jaxsim.frames.inputs.groups import Layout
from jaxsim.frames.inputs.labels import Sweep
from jaxsim.frames.inputs.parameters import LaneParameter, Unresolved, number, resolve, time_asset
from jaxsim.frames.inputs.price_arrays import execution_prices, priced_at, valuation_prices
from jaxsim.frames.inputs.prices import PriceFrames


class LanePrices(NamedTuple):
    """The fields of `Market` as leaves."""

    close: LaneParameter
    val_price: LaneParameter
    price: LaneParameter
    mark: LaneParameter
    priced_at: LaneParameter | None


def read_lane_prices(
    prices: PriceFrames, price: Any, ffill_val_price: Any, moves_prices: bool, layout: Layout, sweep: Sweep
) -> LanePrices:
    """Work out valuation and execution prices.

    price: numbers or an index to sweep, if it is not among `prices` as a frame.
    ffill_val_price: bool, or an index to sweep.     moves_prices: whether fills may move valuation prices.
    """
    close, open = prices.close, prices.open
    given = None if price is None else time_asset(price, "price", prices.index, layout, sweep, PRICE)
    fills = number(ffill_val_price, "ffill_val_price", sweep, FLAG)

    def by_price(raw: Any) -> np.ndarray:
        return execution_prices(np.broadcast_to(raw, close.shape), close, open)

    if given is None:
        executed = LaneParameter(execution_prices(prices.price, close, open), columns=1)
    else:
        executed = _of(given, by_price)
    return LanePrices(
        LaneParameter(close, columns=1),
        _of(fills, lambda ffill: valuation_prices(close, open, bool(ffill))),
        executed,
        LaneParameter(prices.mark, columns=1),
        _of(fills, lambda ffill: priced_at(close, open, bool(ffill)))
        if moves_prices and np.isnan(close).any()
        else None,
    )


def _of(leaf: LaneParameter, table: Any) -> LaneParameter:
    """`table` of each value of a leaf, [time, column]."""
    if leaf.by_combination:

        def tables(some: np.ndarray | None) -> np.ndarray:
            return np.stack([table(x) for x in resolve(leaf, some).array])

        return LaneParameter(Unresolved(tables), by_combination=True, columns=2)
    return LaneParameter(table(leaf.array), columns=1)


def market_tree(quotes: LanePrices, features: Any) -> Market:
    """A market whose fields are whatever stands in `quotes`: arrays with lane axes, or the numbers of those axes. Its
    constructor is for one group."""
    return jax.tree.unflatten(_market_structure(), [*quotes[:4], features, quotes.priced_at])


@functools.cache
def _market_structure() -> Any:
    blank = np.zeros((1, 1))
    return jax.tree.structure(Market(blank, blank, blank, blank, 0.0, np.zeros((1, 1), np.int32)))


def is_frame_of_prices(price: Any, close: Any) -> bool:
    """Whether `price` has one entry per bar and asset, with the labels of `close`."""
    return isinstance(price, pd.DataFrame) or (isinstance(price, pd.Series) and isinstance(close, pd.Series))
