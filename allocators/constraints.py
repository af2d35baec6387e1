"""Constraints of the weights: bounds, groups, budget, turnover."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

import jaxsim as js
from allocators.history import Moments, Present
from allocators.numbers import number, refuse_masked
from allocators.programs import Polytope

#: If the bounds of an asset are closer than this, its weight is fixed at the lower one.
SAME = 1e-9


#: The meaning of NaN and infinite weights under constraints.
FAULTS = {
    js.LaneFault.WEIGHT_NAN: "no weights keep to all limits of the constraints (or the covariance has a NaN): widen "
    "the limits, or start later (min_history=), when more assets are listed",
    js.LaneFault.WEIGHT_INFINITE: "the problem is unbounded: within the limits of the constraints there always are "
    "better weights; set lower and upper, or max_gross",
}


class Constraints(eqx.Module):
    """Limits of the weights; by default long only and fully invested.

    lower, upper: bounds of each weight, as a fraction of the portfolio; a number, or one per asset; infinite: no
        bound. Negative bounds allow short positions.
    budget: sum of the weights, >= 0; the rest to one stays cash. With 0, long and short positions have the same size.
    groups: the groups of assets, in one of these forms. A mapping from the name of a group to its assets by name or
        number ({"tech": ["AAPL", "GOOG"]}, {"tech": [0, 2]}), or to a Series of coefficients by asset name (an exposure
        such as a beta). A mapping or a Series from the name of an asset to the name of its group. A matrix [group,
        asset] of coefficients, as a DataFrame by name or an array. Names are those of the price columns; in the core,
        which has no names, use numbers. A list of integers always means numbers; if column names are integers, use a
        Series.
    group_lower, group_upper: bounds of the sum of weights (times coefficients) of each group; a number, one per group,
        or a mapping from the name of a group; None: no bound.
    max_gross: limit on the gross exposure `sum(abs(weights))`, > 0; infinite or None: no limit.
    max_turnover: limit on the one-way turnover `sum(abs(weights - present weights)) / 2`, > 0; infinite or None: no
        limit. It does not apply while nothing is held, since the first purchase is all turnover. So it never applies in
        `js.optimize`, whose account holds only cash.

    All numbers may be swept. An asset that is not usable gets weight 0, whatever its bounds. If no weights satisfy all
    constraints, the weights are NaN: widen the limits, or trade later (`min_history=`), when more assets are listed. If
    the objective is unbounded within the constraints, the weights are infinite: add limits. `js.backtest` raises an
    error for both, which names lane and date.

    Raises ValueError or TypeError naming the field.
    """

    lower: Any = number("lower", is_finite=False, per_asset=True, default=0.0)
    upper: Any = number("upper", is_finite=False, per_asset=True, default=1.0)
    budget: Any = number("budget", low=0.0, default=1.0)
    groups: Any = None
    group_lower: Any = number("group_lower", is_finite=False, per_asset=True, default=None)
    group_upper: Any = number("group_upper", is_finite=False, per_asset=True, default=None)
    max_gross: Any = number("max_gross", low=0.0, is_open=True, is_finite=False, default=None)
    max_turnover: Any = number("max_turnover", low=0.0, is_open=True, is_finite=False, default=None)
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
        max_gross: Any = None,
        max_turnover: Any = None,
    ):
        self.lower, self.upper, self.budget = lower, upper, budget
        self.max_gross, self.max_turnover = max_gross, max_turnover
        if groups is None and (group_lower is not None or group_upper is not None):
            raise ValueError("groups: group_lower and group_upper need groups")
        if groups is not None and group_lower is None and group_upper is None:
            raise ValueError("groups: give group_lower, group_upper, or both")
        names, self.members, self.groups = _read_groups(groups)
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
        caps = []
        if self.max_gross is not None:
            caps.append((jnp.zeros(count, dtype), jnp.asarray(self.max_gross, dtype)))
        if self.max_turnover is not None:
            cap = jnp.where(present.is_flat, jnp.inf, 2 * jnp.asarray(self.max_turnover, dtype))
            caps.append((present.weights, cap))
        for center, cap in caps:
            G, h = _within_distance(G, h, center, cap)
        is_fixed = jnp.concatenate([is_fixed, *(jnp.broadcast_to(jnp.isinf(cap), (count,)) for _, cap in caps)])
        return Polytope.of(lower, upper, is_fixed, fixed, jnp.asarray(self.budget, dtype), G, h)

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
        if isinstance(self.groups, js.ByAsset):
            raise ValueError(
                "groups: names of assets are found among the columns of prices, by js.backtest and its like; here, "
                "where assets have no names, give their numbers"
            )
        if self.groups.shape[1] != count:
            raise ValueError(f"groups: expected a matrix [group, asset] for {count} assets, got {self.groups.shape}")
        return jnp.asarray(self.groups, dtype)


def _within_distance(G: Array, h: Array, center: Array, cap: Array) -> tuple[Array, Array]:
    """Rows for `sum(abs(w - center)) <= cap`; an infinite cap adds no limit. New variables d are the distances:
    w - center <= d, center - w <= d, sum(d) <= cap."""
    count, width = len(center), G.shape[1]
    identity, dtype = jnp.eye(count, dtype=h.dtype), h.dtype
    weights = jnp.pad(identity, ((0, 0), (0, width - count)))
    total = jnp.concatenate([jnp.zeros(width, dtype), jnp.ones(count, dtype)])[None, :]
    above, below = jnp.concatenate([weights, -identity], 1), jnp.concatenate([-weights, -identity], 1)
    none = jnp.isinf(cap)
    G = jnp.concatenate([jnp.pad(G, ((0, 0), (0, count))), above, below, total])
    return G, jnp.concatenate([h, jnp.where(none, jnp.inf, center), jnp.where(none, jnp.inf, -center), cap[None]])


def _read_groups(groups: Any) -> tuple[list, tuple[tuple[int, ...], ...] | None, Any]:
    """Names of the groups, if there are any; their members, if they are numbers; else their coefficients, as a matrix
    or rows by asset name. Raises TypeError or ValueError naming the field."""
    if groups is None:
        return [], None, None
    if isinstance(groups, pd.DataFrame):
        groups = {name: row for name, row in groups.iterrows()}  # by its rows
    is_by_asset = isinstance(groups, pd.Series) or (
        isinstance(groups, Mapping) and len(groups) > 0 and all(isinstance(x, str) for x in groups.values())
    )
    if is_by_asset:  # asset -> group
        by_group: dict[Any, list] = {}
        for asset, name in groups.items():
            if not pd.isna(name):
                by_group.setdefault(name, []).append(asset)
        return list(by_group), None, _by_asset([[(x, 1.0) for x in assets] for assets in by_group.values()])
    if isinstance(groups, Mapping):
        names, members = list(groups), [groups[name] for name in groups]
        if any(_has_names(x) for x in members):
            return names, None, _by_asset([_named(name, x) for name, x in groups.items()])
        return names, tuple(_numbers(name, x) for name, x in groups.items()), None
    refuse_masked(groups, "groups")
    if not isinstance(groups, np.ndarray) and not hasattr(groups, "dtype"):
        groups = np.asarray(groups, np.float64)
    if groups.ndim != 2:
        raise ValueError(f"groups: expected a mapping or a matrix [group, asset], got shape {groups.shape}")
    return [], None, groups.astype(np.float64) if isinstance(groups, np.ndarray) else groups


def _by_asset(rows: list) -> js.ByAsset:
    return js.ByAsset("groups", tuple(tuple(row) for row in rows))


def _has_names(members: Any) -> bool:
    if isinstance(members, pd.Series):
        return True
    return not isinstance(members, str) and np.ndim(members) == 1 and any(isinstance(x, str) for x in members)


def _named(name: Any, members: Any) -> list[tuple[Any, float]]:
    """The assets of a group and their coefficients."""
    if isinstance(members, pd.Series):
        pairs = [(asset, float(number)) for asset, number in members.items()]
        if not np.isfinite([number for _, number in pairs]).all():
            raise ValueError(f"groups: expected finite coefficients for {name!r}, got {members.tolist()}")
        return pairs
    if not _has_names(members) or not all(isinstance(x, str) for x in members):
        raise TypeError(f"groups: expected the names of assets for {name!r}, as for others, got {members!r}")
    return [(asset, 1.0) for asset in members]


def _numbers(name: Any, assets: Any) -> tuple[int, ...]:
    numbers = np.atleast_1d(np.asarray(assets))
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or (numbers < 0).any():
        raise TypeError(f"groups: expected the names of assets, or their numbers from 0, for {name!r}, got {assets!r}")
    return tuple(int(x) for x in numbers)


def _by_name(bound: Any, names: list, argument: str, default: float) -> Any:
    """Bounds in the order of the groups."""
    if not isinstance(bound, Mapping):
        return bound
    unknown = [name for name in bound if name not in names]
    if unknown:
        raise ValueError(f"{argument}: there is no group {unknown[0]!r} in groups={names}")
    return [bound.get(name, default) for name in names]
