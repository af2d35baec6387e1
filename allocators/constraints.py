"""Constraints of the weights: bounds, groups, budget, turnover."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allocators.history import Moments, Present
from allocators.numbers import number
from allocators.programs import Polytope

#: If the bounds of an asset are closer than this, its weight is fixed at the lower one.
SAME = 1e-9
#: A limit on the sum of trades that never binds.
UNCAPPED = 100.0


class Constraints(eqx.Module):
    """Limits of the weights; by default long only and fully invested.

    lower, upper: bounds of each weight, as a fraction of the portfolio; a number, or one per asset; infinite: no
        bound. Negative bounds allow short positions.
    budget: sum of the weights; the rest to one stays cash.
    groups: which assets form a group: a mapping from the name of a group to the numbers of its assets
        ({"tech": [0, 2]}), or a matrix [group, asset] of coefficients (0 and 1, or an exposure such as a beta).
    group_lower, group_upper: bounds of the sum of weights (times coefficients) of each group; a number, one per group,
        or a mapping from the name of a group; None: no bound.
    max_turnover: limit on the one-way turnover `sum(abs(weights - present weights)) / 2`, > 0. It does not apply while
        nothing is held, since the first purchase is all turnover. So it never applies in `js.optimize`, whose account
        holds only cash.

    All numbers may be swept. An asset that is not usable gets weight 0, whatever its bounds. If no weights satisfy all
    constraints, the weights are NaN, and `js.backtest` raises an error that names lane and date: widen the limits, or
    trade later (`min_history=`), when more assets are listed.

    Raises ValueError or TypeError naming the field.
    """

    lower: Any = number("lower", is_finite=False, per_asset=True, default=0.0)
    upper: Any = number("upper", is_finite=False, per_asset=True, default=1.0)
    budget: Any = number("budget", low=0.0, is_open=True, default=1.0)
    groups: Any = None
    group_lower: Any = number("group_lower", is_finite=False, per_asset=True, default=None)
    group_upper: Any = number("group_upper", is_finite=False, per_asset=True, default=None)
    max_turnover: Any = number("max_turnover", low=0.0, is_open=True, default=None)
    members: tuple[tuple[int, ...], ...] | None = eqx.field(static=True, default=None)  # of groups given by a mapping

    def __init__(
        self,
        lower: Any = 0.0,
        upper: Any = 1.0,
        *,
        budget: Any = 1.0,
        groups: Any = None,
        group_lower: Any = None,
        group_upper: Any = None,
        max_turnover: Any = None,
    ):
        self.lower, self.upper, self.budget, self.max_turnover = lower, upper, budget, max_turnover
        if groups is None and (group_lower is not None or group_upper is not None):
            raise ValueError("groups: group_lower and group_upper need groups")
        if groups is not None and group_lower is None and group_upper is None:
            raise ValueError("groups: give group_lower, group_upper, or both")
        self.members = None
        names: list = []
        if isinstance(groups, Mapping):
            names = list(groups)
            self.members = tuple(_numbers(name, groups[name]) for name in names)
            groups = None
        elif groups is not None and not isinstance(groups, np.ndarray) and not hasattr(groups, "dtype"):
            groups = np.asarray(groups, np.float64)
        if groups is not None and groups.ndim != 2:
            raise ValueError(f"groups: expected a mapping or a matrix [group, asset], got shape {groups.shape}")
        self.groups = groups.astype(np.float64) if isinstance(groups, np.ndarray) else groups
        self.group_lower = _by_name(group_lower, names, "group_lower", -np.inf)
        self.group_upper = _by_name(group_upper, names, "group_upper", np.inf)

    def __check_init__(self):
        for low, high in (("lower", "upper"), ("group_lower", "group_upper")):
            a, b = getattr(self, low), getattr(self, high)
            if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype != object and np.any(a > b):
                raise ValueError(f"{low}: {a[()]} is above {high}, {b[()]}")

    def polytope(self, moments: Moments, present: Present) -> Polytope:
        """The set of weights that satisfy all constraints.

        Raises ValueError naming the field for an array whose length is not the number of assets or groups.
        """
        count, dtype = moments.num_assets, moments.mean.dtype
        lower, upper = (self._row(name, count, dtype) for name in ("lower", "upper"))
        is_fixed = ~moments.live | (upper - lower <= SAME)
        fixed = jnp.where(moments.live & is_fixed, lower, 0.0)
        lower, upper = jnp.where(is_fixed, fixed, lower), jnp.where(is_fixed, fixed, upper)
        identity = jnp.eye(count, dtype=dtype)
        free = ~is_fixed
        rows = [-identity * free[:, None], identity * free[:, None]]
        limits = [jnp.where(free, -lower, jnp.inf), jnp.where(free, upper, jnp.inf)]
        matrix = self._matrix(count, dtype)
        if matrix is not None:
            for sign, name in ((-1.0, "group_lower"), (1.0, "group_upper")):
                if getattr(self, name) is not None:
                    rows.append(sign * matrix)
                    limits.append(sign * self._row(name, matrix.shape[0], dtype))
        G, h = jnp.concatenate(rows), jnp.concatenate(limits)
        trades = 0
        if self.max_turnover is not None:
            # More variables, the absolute trades: w - now <= trade, now - w <= trade, sum(trade) <= 2 max_turnover.
            trades, now = count, present.weights
            cap = jnp.where(present.is_flat, UNCAPPED, 2 * jnp.asarray(self.max_turnover, dtype))
            G = jnp.concatenate([G, jnp.zeros((len(h), count), dtype)], axis=1)
            buys, sells = jnp.concatenate([identity, -identity], 1), jnp.concatenate([-identity, -identity], 1)
            total = jnp.concatenate([jnp.zeros(count, dtype), jnp.ones(count, dtype)])[None, :]
            G, h = jnp.concatenate([G, buys, sells, total]), jnp.concatenate([h, now, -now, cap[None]])
        budget = jnp.asarray(self.budget, dtype)
        return Polytope.of(lower, upper, is_fixed, fixed, budget, G, h, trades)

    def _row(self, name: str, count: int, dtype: Any) -> Float[Array, " row"]:
        value = jnp.asarray(getattr(self, name), dtype)
        if value.shape not in ((), (count,)):
            axis = "group" if name.startswith("group") else "asset"
            raise ValueError(f"{name}: expected one number per {axis}, {count}, got shape {value.shape}")
        return jnp.broadcast_to(value, (count,))

    def _matrix(self, count: int, dtype: Any) -> Float[Array, "group asset"] | None:
        if self.members is not None:
            matrix = np.zeros((len(self.members), count))
            for row, assets in zip(matrix, self.members, strict=True):
                if max(assets) >= count:
                    raise ValueError(f"groups: there is no asset {max(assets)} among {count}, numbered from 0")
                row[list(assets)] = 1.0
            return jnp.asarray(matrix, dtype)
        if self.groups is None:
            return None
        if self.groups.shape[1] != count:
            raise ValueError(f"groups: expected a matrix [group, asset] for {count} assets, got {self.groups.shape}")
        return jnp.asarray(self.groups, dtype)


def _numbers(name: Any, assets: Any) -> tuple[int, ...]:
    numbers = np.atleast_1d(np.asarray(assets))
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or (numbers < 0).any():
        raise TypeError(f"groups: expected the numbers of assets, from 0, for {name!r}, got {assets!r}")
    return tuple(int(x) for x in numbers)


def _by_name(bound: Any, names: list, argument: str, default: float) -> Any:
    """Bounds in the order of the groups."""
    if not isinstance(bound, Mapping):
        return bound
    unknown = [name for name in bound if name not in names]
    if unknown:
        raise ValueError(f"{argument}: there is no group {unknown[0]!r} in groups={names}")
    return [bound.get(name, default) for name in names]
