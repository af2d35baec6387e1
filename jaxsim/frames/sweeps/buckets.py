"""Shapes that differ little as one shape, so that they share a program."""

from dataclasses import fields
from typing import Any

import jax
import numpy as np

from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs
from jaxsim.engine.trading.costs import Costs
from jaxsim.frames.inputs.parameters import module_of


def with_room(run: LaneInputs, axes: tuple[LaneAxis, ...], num_bars: int) -> LaneInputs:
    """A run, or a part of one with None elsewhere, whose market has room for a longer history than its `num_bars`.

    Bars after the last one repeat it; whoever runs the run stops before them. What has one row per bar and is neither
    a price, nor a feature, nor a cost stays as it is: no bar without a row is ever looked up.
    """
    market = run.market
    room = roomy(num_bars) - num_bars
    if room == 0:
        return run
    known: dict[tuple[int, int], np.ndarray] = {}  # closes are often marks, and what orders execute at, too

    def longer(x: Any, axis: int) -> Any:
        if (id(x), axis) not in known:
            array = np.asarray(x)
            known[id(x), axis] = np.concatenate([array, np.repeat(np.take(array, [-1], axis), room, axis)], axis)
        return known[id(x), axis]

    def at_end(x: Any) -> Any:
        return None if x is None else longer(x, x.ndim - 2)

    def cost(name: str) -> Any:
        x = getattr(run.costs, name)
        if np.ndim(x) < 2:
            return x
        lanes = sum(getattr(axis.in_axes.costs, name) == 0 for axis in axes)
        is_by_bar = np.ndim(x) == lanes + 2 and np.shape(x)[lanes] == num_bars and num_bars > 1
        return at_end(x) if is_by_bar else x

    prices = {name: at_end(getattr(market, name)) for name in ("close", "val_price", "price", "mark", "priced_at")}
    features = jax.tree.map(lambda x: longer(x, 0), market.features)
    costs = module_of(run.costs, {field.name: cost(field.name) for field in fields(Costs)})
    roomier: Any = module_of(run, {"market": module_of(market, prices | {"features": features}), "costs": costs})
    return roomier


def roomy(num_bars: int) -> int:
    """The next multiple of an eighth of the next lower power of two, and of 64: at most an eighth more."""
    step = max(64, (1 << (num_bars.bit_length() - 1)) // 8)
    return -(-num_bars // step) * step
