"""Minibatches: the part of the data for one step of training.

All functions take and return a stack of markets: a `Market` whose arrays have one more axis, [path, time, asset].
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.fields import whole_number
from jaxsim.engine.trading.market import Market


def _count(name: str) -> Any:
    return eqx.field(static=True, converter=lambda value: whole_number(value, name))


class AbstractBatch(eqx.Module):
    """A rule that chooses the markets for a step of training."""

    @abc.abstractmethod
    def draw(self, markets: Market, key: Any) -> Market:
        """A part of a stack of markets, as a stack."""


class PathBatch(AbstractBatch):
    """Paths drawn without replacement; if the market is a function, this number of draws from it.

    count: number of paths, >= 1.
    """

    count: int = _count("count")

    def draw(self, markets: Market, key: Any) -> Market:
        chosen = jax.random.choice(key, num_paths(markets), (self.count,), replace=False)
        return jax.tree.map(lambda x: x[chosen], markets)


class WindowBatch(AbstractBatch):
    """Windows of `length` bars, each beginning at a random bar of a random path, drawn with replacement.

    A window is a market of its own: the account is new at its first bar, and `Observation.window` does not show earlier
    bars. So a window should be longer than `Policy.min_history`.

    length: number of bars, >= 1.      count: number of windows, >= 1.
    """

    length: int = _count("length")
    count: int = _count("count")

    def draw(self, markets: Market, key: Any) -> Market:
        for_path, for_start = jax.random.split(key)
        paths = jax.random.randint(for_path, (self.count,), 0, num_paths(markets))
        starts = jax.random.randint(for_start, (self.count,), 0, num_bars(markets) - self.length + 1)
        return jax.vmap(lambda path, start: window(markets, path, start, self.length))(paths, starts)


def num_paths(markets: Market) -> int:
    return markets.close.shape[0]


def num_bars(markets: Market) -> int:
    return markets.close.shape[1]


def make(markets: Callable, batch: AbstractBatch | None, key: Any) -> Market:
    """A stack of markets from a function of a random key: as many draws as the batch has members, else one."""
    for_market, for_batch = jax.random.split(key)
    count = getattr(batch, "count", 1)
    made = jax.vmap(markets)(jax.random.split(for_market, count))
    if made.close.ndim == 4:  # every draw is a stack
        made = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), made)
    return made if batch is None else batch.draw(made, for_batch)


def window(markets: Market, path: Array, start: Array, length: int) -> Market:
    """The market of one path of a stack from bar `start` on, over `length` bars; both numbers may be traced."""

    def cut(x: Array) -> Array:
        rest = x.shape[2:]
        return lax.dynamic_slice(x, (path, start, *[0] * len(rest)), (1, length, *rest))[0]

    market = jax.tree.map(cut, markets)
    if market.priced_at is None:
        return market
    # Counted in half bars from the first one of the market.
    return eqx.tree_at(lambda m: m.priced_at, market, market.priced_at - 2 * jnp.asarray(start, jnp.int32))


def first_bars(markets: Market, count: int) -> Market:
    """The first bars of every path of a stack."""
    return jax.tree.map(lambda x: x[:, :count], markets)
