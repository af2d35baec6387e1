"""Stationary block bootstrap: new markets out of blocks of bars of one market, and how long the blocks should be."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int

from jaxsim.engine.base.arrays import Array, refuse_masked
from jaxsim.engine.base.fields import Bounds, whole_number
from jaxsim.engine.base.kept_programs import kept_program
from jaxsim.engine.base.random import as_key
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
    """Stationary block bootstrap of a market (Politis and Romano, The Stationary Bootstrap, 1994): paths of blocks of
    consecutive bars. A block begins at any bar; its length is geometrically distributed.

    market: of one group; every asset must have a price at bar 0.
    key: random key or int.     num_paths: number of paths.
    mean_block: mean length of the blocks, in bars, >= 1; 1 draws single bars. `js.optimal_block_length` proposes one.
    num_bars: of each path; default those of the market.
    features: pure function of a `Market` that computes the features of a path from its prices. Without it, the rows of
        the market's features move with their bars, and describe prices that the path has never had.

    Returns a Market whose arrays have a leading path axis: `jax.vmap(lambda m: js.simulate(m, policy))(paths)`.

    All assets draw the same bars, so that their common moves stay together. The valuation price (the open), the
    execution price and the close of a bar keep their ratios to the close before. Bar 0 of each path is bar 0 of the
    market. The last bar is followed by bar 1. Where an asset has no price at a bar, the path has none either.

    Raises TypeError or ValueError naming the argument; ValueError for an asset without a price at bar 0.
    """
    if not isinstance(market, Market):
        raise TypeError(f"market: expected a Market, got {type(market).__name__}; see Market.from_frames")
    refuse_masked(market, "market")
    num_bars = market.num_bars if num_bars is None else num_bars
    num_paths, num_bars = whole_number(num_paths, "num_paths"), whole_number(num_bars, "num_bars", 2)
    if market.num_bars < 2:
        raise ValueError("market: one bar has no return to draw from")
    if not isinstance(mean_block, Tracer) and Bounds(1.0).read(mean_block, "mean_block").ndim > 0:
        raise ValueError(f"mean_block: expected one number, got shape {np.shape(mean_block)}")
    if not isinstance(market.mark, Tracer) and np.isnan(np.asarray(market.mark[0])).any():
        raise ValueError("market: some asset has no price at bar 0; begin the market where all have one")
    return _bootstrap(market, as_key(key), mean_block, num_paths, num_bars, features)


@kept_program
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
    """Numbers 0 to num_source - 1, int [time]: each is the one after the last, with 0 after the end, or, with
    probability 1 / mean_block, a random one. Drawn in float32, so that all dtypes have the same numbers."""
    restart_key, place_key = jax.random.split(key)
    begins = jax.random.uniform(restart_key, (length,), jnp.float32) < 1 / jnp.asarray(mean_block, jnp.float32)
    begins = begins.at[0].set(True)
    anywhere = jax.random.randint(place_key, (length,), 0, num_source, jnp.int32)
    now = jnp.arange(length, dtype=jnp.int32)
    began = jax.lax.cummax(jnp.where(begins, now, 0))
    return (anywhere[began] + now - began) % num_source


def rebuilt(market: Market, bars: Int[Array, " time"]) -> Market:
    """A market with bar 0 of `market`, whose later bars repeat the moves of the bars `bars` (>= 1)."""
    before, keeps_level, paid = market.mark[:-1], None, None
    if market.gone is not None:
        # What leaves keeps the level of its path, whatever is paid for it; what returns begins there.
        was_gone, is_gone = market.gone[:-1], market.gone[1:]
        keeps_level = was_gone | is_gone
        paid = jnp.where(is_gone & ~was_gone, market.mark[1:] / before, 1.0)[bars - 1]
        before = jnp.where(was_gone, market.mark[1:], before)

    def ratio(prices: Float[Array, "time asset"]) -> Float[Array, "drawn asset"]:
        return (prices[1:] / before)[bars - 1]

    start, moves = market.mark[:1], ratio(market.mark)
    if keeps_level is not None:
        moves = jnp.where(keeps_level[bars - 1], 1.0, moves)
    mark = jnp.concatenate([start, start * jnp.cumprod(moves, axis=0)])

    def path(prices: Float[Array, "time asset"]) -> Float[Array, "drawn asset"]:
        return jnp.concatenate([prices[:1], mark[:-1] * ratio(prices)])

    source = jnp.concatenate([jnp.zeros(1, bars.dtype), bars])
    close = jnp.where(jnp.isnan(market.close[source]), jnp.nan, mark)
    features = jax.tree.map(lambda x: jnp.asarray(x)[source], market.features)
    known = None if market.priced_at is None else _priced_at(market.priced_at, close, source)
    val_price, price = path(market.val_price), path(market.price)
    gone, carried = (None if x is None else jnp.asarray(x)[source] for x in (market.gone, market.carried))
    if paid is not None:
        mark = jnp.concatenate([mark[:1], mark[1:] * paid])
    return Market(close, val_price, price, mark, features, known, gone, carried)


def _priced_at(
    priced_at: Int[Array, "time asset"], close: Float[Array, "drawn asset"], source: Int[Array, " drawn"]
) -> Int[Array, "drawn asset"]:
    """The times of the valuation prices of a path, in half bars; see `Market.priced_at`."""
    half = 2 * jnp.arange(len(source), dtype=priced_at.dtype)[:, None]
    has_open = priced_at[source] == 2 * source[:, None]
    closed_before = jnp.where(jnp.isnan(close), -1, half + 1)
    closed_before = jnp.concatenate([jnp.full_like(closed_before[:1], -1), closed_before[:-1]])
    return jax.lax.cummax(jnp.maximum(jnp.where(has_open, half, -1), closed_before), axis=0)


def optimal_block_length(returns: Any) -> np.ndarray:
    """The mean block length of the stationary bootstrap that estimates the variance of a mean best (Politis and White,
    Automatic Block-Length Selection for the Dependent Bootstrap, 2004, section 3.2, with the correction of Patton,
    Politis and White, 2009, equation 5): (2 G**2 / D)**(1/3) * T**(1/3).

    returns: [time] or [time, series], without NaN; at least 10 bars.

    Returns one length, in bars, for each series, float64, 0-d or [series]; at least 1, at most min(3 sqrt(T), T / 3)
    rounded up. A market of several assets needs one length: take the mean or the largest. What is hardly correlated in
    time has a length near 1; squared returns, whose clusters matter to volatility, have far longer ones.

    Raises ValueError naming the argument for too few or unknown returns, or a series that never changes.
    """
    refuse_masked(returns, "returns")
    values = np.asarray(returns, np.float64)
    if values.ndim not in (1, 2) or len(values) < 10:
        raise ValueError(f"returns: expected [time] or [time, series] with at least 10 bars, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("returns: expected finite numbers; drop bars without a return first")
    columns = values.reshape(len(values), -1)
    if (np.ptp(columns, axis=0) == 0).any():
        raise ValueError("returns: a series that never changes has no block length")
    return np.array([_length(column) for column in columns.T]).reshape(values.shape[1:])


def _length(x: np.ndarray) -> float:
    count = len(x)
    in_a_row = max(5, int(np.ceil(np.sqrt(np.log10(count)))))
    most_lags = min(int(np.ceil(np.sqrt(count))) + in_a_row, count - 1)
    spread = x - x.mean()
    covariance = np.array([spread[lag:] @ spread[: count - lag] for lag in range(most_lags + 1)]) / count
    # The last lag after which so many in a row are insignificant.
    bound = 2 * np.sqrt(np.log10(count) / count)
    is_small = np.abs(covariance[1:] / covariance[0]) < bound
    runs = np.lib.stride_tricks.sliding_window_view(is_small, min(in_a_row, len(is_small))).all(axis=1)
    if runs.any():
        last = int(np.argmax(runs))
    else:  # none: the last that is significant at all
        significant = np.flatnonzero(~is_small)
        last = int(significant[-1]) + 1
    bandwidth = min(2 * max(last, 1), most_lags)
    lags = np.arange(1, bandwidth + 1)
    flat_top = np.clip(2 * (1 - lags / bandwidth), 0, 1)  # 1 up to half of the bandwidth, then down to 0
    weighted = flat_top * covariance[1 : bandwidth + 1]
    g = 2 * (lags * weighted).sum()
    d = 2 * (covariance[0] + 2 * weighted.sum()) ** 2
    most = np.ceil(min(3 * np.sqrt(count), count / 3))
    length = (2 * g**2 / d) ** (1 / 3) * count ** (1 / 3) if d > 0 else most
    return float(np.clip(length, 1, most))
