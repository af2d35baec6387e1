"""The data of a training run: one market, several, a stack of them, or a function that makes them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.engine.base.fields import shown
from jaxsim.engine.trading.market import Market
from jaxsim.engine.training.minibatches import first_bars, num_bars


@dataclass(frozen=True)
class Data:
    """Stacks of markets, [path, time, asset].

    training: the training data, or a function of a random key that makes them.
    held_out: the validation data, None without any.     split: first bar of `held_out` that counts.
    num_bars, num_assets, dtype: of the user's markets.
    """

    training: Market | Callable
    held_out: Market | None
    split: int
    num_bars: int
    num_assets: int
    dtype: Any

    @property
    def is_x64(self) -> bool:
        """Whether the computation needs x64. A function that makes markets runs with the setting of the process."""
        return self.dtype == np.float64

    @property
    def num_training_bars(self) -> int:
        return self.num_bars if callable(self.training) else num_bars(self.training)


def read_markets(market: Any, validation: Any) -> Data:
    """Raises TypeError or ValueError that begins with `market` or `validation` for data that cannot be used."""
    if callable(market) and not isinstance(market, Market):
        try:
            shape = jax.eval_shape(market, jax.random.key(0))
        except TypeError as error:
            raise TypeError(f"market: expected a function of one random key; it failed with {error}"[:300]) from error
        if not isinstance(shape, Market):
            raise TypeError(f"market: the function returned {type(shape).__name__}, not a Market")
        stack, bars, assets, dtype = market, *shape.close.shape[-2:], np.dtype(shape.dtype)
    else:
        stack = stacked(market, "market")
        bars, assets, dtype = *stack.close.shape[1:], np.dtype(stack.dtype)
    if validation is None:
        return Data(stack, None, 0, bars, assets, dtype)
    if isinstance(validation, float | int | np.number) and not isinstance(validation, bool):
        if callable(stack):
            raise ValueError("validation: a fraction is of the bars of a market; this one is a function; give a Market")
        split = round(bars * (1 - float(validation))) if 0 < validation < 1 else 0
        if not 1 <= split < bars:
            raise ValueError(
                f"validation: expected a fraction in (0, 1) that leaves bars on both sides of {bars}, got {validation}"
            )
        return Data(first_bars(stack, split), stack, split, bars, assets, dtype)
    held_out = stacked(validation, "validation")
    if held_out.close.shape[2] != assets:
        raise ValueError(f"validation: {held_out.close.shape[2]} assets, market has {assets}")
    if np.dtype(held_out.dtype) != dtype:
        raise ValueError(f"validation: {held_out.dtype}, market is {dtype}")
    return Data(stack, held_out, 0, bars, assets, dtype)


def stacked(market: Any, name: str) -> Market:
    """One market, or several, as a stack. Raises TypeError or ValueError that begins with `name`."""
    if isinstance(market, Market):
        if market.close.ndim not in (2, 3):
            raise ValueError(
                f"{name}: expected arrays [time, asset] or [path, time, asset], got shape {market.close.shape}"
            )
        return _expanded(market) if market.close.ndim == 2 else market
    if not isinstance(market, list | tuple) or not all(isinstance(one, Market) for one in market):
        raise TypeError(
            f"{name}: expected a js.Market or a list of them, got {type(market).__name__} "
            f"{shown(market) if np.ndim(market) == 0 else ''}".rstrip()[:200]
            + "; see js.Market.from_frames"
        )
    if not market:
        raise ValueError(f"{name}: an empty list")
    first = market[0]
    for one in market[1:]:
        _check_alike(first, one, name)
    if first.close.ndim != 2:
        raise ValueError(f"{name}: a list of markets [time, asset], or one stack [path, time, asset]")
    with jax.enable_x64(np.dtype(first.dtype) == np.float64):
        return jax.tree.map(lambda *x: jnp.stack(x), *market)


def _check_alike(first: Market, one: Market, name: str) -> None:
    """Raises ValueError that begins with `name` and says in what two markets differ."""
    if one.close.shape != first.close.shape or one.dtype != first.dtype:
        raise ValueError(
            f"{name}: they must be alike, but one is {first.dtype}{list(first.close.shape)}, another "
            f"{one.dtype}{list(one.close.shape)}; js.WindowBatch cuts equal parts of one market"
        )
    for field in vars(first):
        kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), getattr(market, field)) for market in (first, one)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"{name}: they must be alike, but differ in the field {field}: {shown(kinds[0])}, {shown(kinds[1])}; "
                "js.Market.from_frames gives the same fields for the same arguments"
            )


def _expanded(market: Market) -> Market:
    with jax.enable_x64(np.dtype(market.dtype) == np.float64):
        return jax.tree.map(lambda x: x[None], market)
