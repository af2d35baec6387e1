"""Other markets that might have been: blocks of bars put together anew, prices rebuilt from them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int

from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.fields import Bounds, whole_number
from jaxsim.engine.base.random_keys import as_key
from jaxsim.engine.trading.market import Market


def bootstrap(
    market: Market,
    key: Any,
    num_paths: int,
    mean_block: Any,
    *,
    num_bars: int | None = None,
    features: Callable[[Market], Any] | None = None,
) -> Market:
    """Stationary block bootstrap of a market (Politis and Romano, The Stationary Bootstrap, 1994): paths made of blocks
    of consecutive bars that begin anywhere and have geometrically distributed lengths.

    market: of one group; every asset must have a price at bar 0.
    key: random key or int.     num_paths: number of paths.
    mean_block: mean length of the blocks, in bars, >= 1; 1 draws single bars. `js.optimal_block_length` proposes one.
    num_bars: of each path; default those of the market.
    features: what computes the features of a path from its prices, a pure function of a `Market`; without it the rows
        of the given features travel with their bars, and remember prices that the path has never had.

    Returns a Market whose arrays have a leading path axis: `jax.vmap(lambda m: js.simulate(m, policy))(paths)`.

    All assets draw the same bars, so that what happens at one time stays together; of each bar, the valuation price
    (the open), the execution price and the close keep their ratios to the close before. Bar 0 of each path is that of
    the market. After the last bar follows bar 1. A bar on which an asset has no price is one in the path too.

    Raises TypeError or ValueError naming the argument; ValueError for an asset without a price at bar 0.
    """
    if not isinstance(market, Market):
        raise TypeError(f"market: expected a Market, got {type(market).__name__}; see Market.from_frames")
    num_bars = market.num_bars if num_bars is None else num_bars
    num_paths, num_bars = whole_number(num_paths, "num_paths"), whole_number(num_bars, "num_bars", 2)
    if market.num_bars < 2:
        raise ValueError("market: one bar has no return to draw from")
    if not isinstance(mean_block, Tracer) and Bounds(1.0).read(mean_block, "mean_block").ndim > 0:
        raise ValueError(f"mean_block: expected one number, got shape {np.shape(mean_block)}")
    if not isinstance(market.mark, Tracer) and np.isnan(np.asarray(market.mark[0])).any():
        raise ValueError("market: some asset has no price at bar 0; begin the market where all have one")
    return _bootstrap(market, as_key(key), mean_block, num_paths, num_bars, features)


@eqx.filter_jit
def _bootstrap(
    market: Market, key: Any, mean_block: Any, num_paths: int, num_bars: int, features: Callable | None
) -> Market:
    keys = jax.random.split(key, num_paths)

    def one_path(key: Any) -> Market:
        bars = 1 + stationary_blocks(key, num_bars - 1, market.num_bars - 1, mean_block)
        path = rebuilt(market, bars)
        return path if features is None else replace(path, features=features(path))

    return jax.vmap(one_path)(keys)


def stationary_blocks(key: Any, length: int, num_source: int, mean_block: Any) -> Int[Array, " time"]:
    """Places 0 to num_source - 1 to draw from: each the one after the last, wrapping around at the end, or with
    probability 1 / mean_block any at all. Drawn in float32, and so the same in every dtype."""
    restart_key, place_key = jax.random.split(key)
    begins = jax.random.uniform(restart_key, (length,), jnp.float32) < 1 / jnp.asarray(mean_block, jnp.float32)
    begins = begins.at[0].set(True)
    anywhere = jax.random.randint(place_key, (length,), 0, num_source, jnp.int32)
    now = jnp.arange(length, dtype=jnp.int32)
    began = jax.lax.cummax(jnp.where(begins, now, 0))
    return (anywhere[began] + now - began) % num_source


def rebuilt(market: Market, bars: Int[Array, " time"]) -> Market:
    """The market whose bar 0 is that of `market`, and whose further bars move as its bars `bars` (>= 1) did."""
    before = market.mark[:-1]

    def ratio(prices: Float[Array, "time asset"]) -> Float[Array, "drawn asset"]:
        return (prices[1:] / before)[bars - 1]

    start = market.mark[:1]
    mark = jnp.concatenate([start, start * jnp.cumprod(ratio(market.mark), axis=0)])

    def path(prices: Float[Array, "time asset"]) -> Float[Array, "drawn asset"]:
        return jnp.concatenate([prices[:1], mark[:-1] * ratio(prices)])

    source = jnp.concatenate([jnp.zeros(1, bars.dtype), bars])
    close = jnp.where(jnp.isnan(market.close[source]), jnp.nan, mark)
    features = jax.tree.map(lambda x: jnp.asarray(x)[source], market.features)
    known = None if market.priced_at is None else _priced_at(market.priced_at, close, source)
    return Market(close, path(market.val_price), path(market.price), mark, features, known)


def _priced_at(
    priced_at: Int[Array, "time asset"], close: Float[Array, "drawn asset"], source: Int[Array, " drawn"]
) -> Int[Array, "drawn asset"]:
    """When the valuation prices of a path were last known, in half bars; see `Market.priced_at`."""
    half = 2 * jnp.arange(len(source), dtype=priced_at.dtype)[:, None]
    has_open = priced_at[source] == 2 * source[:, None]
    closed_before = jnp.where(jnp.isnan(close), -1, half + 1)
    closed_before = jnp.concatenate([jnp.full_like(closed_before[:1], -1), closed_before[:-1]])
    return jax.lax.cummax(jnp.maximum(jnp.where(has_open, half, -1), closed_before), axis=0)
