"""Hierarchical risk parity: a tree of assets, and risk divided along it."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from allocators.covariance import SampleCovariance
from allocators.history import AbstractLookback, Moments, Present

#: A distance larger than that of any two assets.
FAR = 1e6


class HierarchicalRiskParity(AbstractLookback):
    """Hierarchical risk parity. A tree of correlations orders the assets. The order is bisected until each segment is
    one asset; at each step the weight is divided between the halves in inverse proportion to their variances.

    distance: distance of two assets, from `d_ij = sqrt((1 - correlation_ij) / 2)`. "euclidean", as in the paper: the
        Euclidean distance between columns i and j of d. "correlation": d_ij itself, as in PyPortfolioOpt,
        Riskfolio-Lib and skfolio.
    covariance: covariance estimator.       lookback: closes before the bar; None: the range of `js.optimize`.

    Source: M. Lopez de Prado, Building diversified portfolios that outperform out of sample, Journal of Portfolio
    Management 42 (2016), 59-69: single linkage (section on tree clustering), quasi-diagonalisation, recursive bisection
    with inverse-variance portfolios inside each half. The order of leaves is that of `scipy.cluster.hierarchy`. The
    derivative is that of the bisection, with the order held fixed.
    """

    distance: str = eqx.field(static=True, default="euclidean")
    covariance: Callable = eqx.field(default_factory=SampleCovariance, kw_only=True)

    def __check_init__(self):
        if self.distance not in ("euclidean", "correlation"):
            raise ValueError(f"distance: expected 'euclidean' or 'correlation', got {self.distance!r}")

    def weigh(self, moments: Moments, present: Present) -> Float[Array, " asset"]:
        order = self._order(lax.stop_gradient(moments))
        sorted_ = moments.covariance[order][:, order]
        weights = _bisect(sorted_, moments.live.sum())
        return jnp.zeros_like(weights).at[order].set(weights)

    def _order(self, moments: Moments) -> Int[Array, " asset"]:
        """Numbers of the live assets in the order of the leaves of the tree, then those of the others."""
        live = moments.live
        volatility = jnp.sqrt(moments.variance)
        correlation = moments.covariance / (volatility[:, None] * volatility[None, :])
        distance = jnp.sqrt(jnp.clip((1 - correlation) / 2, 0.0, 1.0))
        distance = jnp.where(jnp.eye(len(live), dtype=bool), 0.0, distance)
        if self.distance == "euclidean":
            difference = jnp.where(live[:, None, None], distance[:, :, None] - distance[:, None, :], 0.0)
            distance = jnp.sqrt((difference**2).sum(0))
        pairs = live[:, None] & live[None, :]
        place = _leaves(jnp.where(pairs, distance, FAR))
        return jnp.argsort(jnp.where(live, place, place + len(live)))


class _Tree(eqx.Module):
    """The clusters while they are merged. Each cluster is stored in the slot of one of its assets.

    distance: between slots; infinite on the diagonal and for an empty slot.
    name: number of the cluster in a slot; merged clusters are numbered from `num_assets` in the order of merging.
    size: number of assets in a slot.       slot: slot of each asset.
    place: position of each asset among the leaves of its cluster.
    """

    distance: Float[Array, "slot slot"]
    name: Int[Array, " slot"]
    size: Int[Array, " slot"]
    slot: Int[Array, " asset"]
    place: Int[Array, " asset"]


def _leaves(distance: Float[Array, "asset asset"]) -> Int[Array, " asset"]:
    """The position of each asset among the leaves of the single-linkage tree. Of two merged clusters, the older one
    comes first."""
    count = distance.shape[0]
    numbers = jnp.arange(count, dtype=jnp.int32)
    start = _Tree(
        jnp.where(jnp.eye(count, dtype=bool), jnp.inf, distance),
        numbers,
        jnp.ones(count, jnp.int32),
        numbers,
        jnp.zeros(count, jnp.int32),
    )

    def merge(tree: _Tree, step: Int[Array, ""]) -> tuple[_Tree, None]:
        nearest = jnp.argmin(tree.distance)
        a, b = nearest // count, nearest % count
        a, b = jnp.where(tree.name[a] < tree.name[b], jnp.stack([a, b]), jnp.stack([b, a]))
        row = jnp.minimum(tree.distance[a], tree.distance[b]).at[a].set(jnp.inf).at[b].set(jnp.inf)
        merged = tree.distance.at[a].set(row).at[:, a].set(row).at[b].set(jnp.inf).at[:, b].set(jnp.inf)
        moves = tree.slot == b
        return _Tree(
            merged,
            tree.name.at[a].set(count + step),
            tree.size.at[a].add(tree.size[b]),
            jnp.where(moves, a.astype(jnp.int32), tree.slot),
            jnp.where(moves, tree.place + tree.size[a], tree.place),
        ), None

    return lax.scan(merge, start, jnp.arange(count - 1, dtype=jnp.int32))[0].place


def _bisect(covariance: Float[Array, "place place"], num_live: Int[Array, ""]) -> Float[Array, " place"]:
    """Weights of the first `num_live` assets in the order of the leaves. Each other asset is a segment of its own."""
    count = covariance.shape[0]
    place = jnp.arange(count)
    start, end = jnp.where(place < num_live, 0, place), jnp.where(place < num_live, num_live, place + 1)
    inverse = 1.0 / jnp.diagonal(covariance)
    weights = jnp.ones(count, covariance.dtype)
    for _ in range(int(np.ceil(np.log2(max(count, 1))))):
        middle = start + (end - start) // 2  # the first half is the smaller one
        is_left, is_single = place < middle, end - start == 1
        sibling = jnp.where(is_left, middle, start)
        start, end = (
            jnp.where(is_left | is_single, start, middle),
            jnp.where(is_left & ~is_single, middle, end),
        )
        own = _inverse_variance_risk(covariance, inverse, start[:, None] == start[None, :])
        other = own[jnp.clip(sibling, 0, count - 1)]
        weights = jnp.where(is_single, weights, weights * other / (own + other))
    return weights


def _inverse_variance_risk(
    covariance: Float[Array, "place place"],
    inverse: Float[Array, " place"],
    together: Bool[Array, "place place"],
) -> Float[Array, " place"]:
    """For each position: the variance of the inverse-variance portfolio of its segment."""
    total = jnp.where(together, inverse[None, :], 0.0).sum(1)
    marginal = jnp.where(together, covariance * inverse[None, :], 0.0).sum(1) * inverse
    return jnp.where(together, marginal[None, :], 0.0).sum(1) / total**2
