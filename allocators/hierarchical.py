"""Hierarchical risk parity: a tree of assets, and risk shared out along it."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from allocators.covariance import SampleCovariance
from allocators.history import AbstractLookback, Moments, Present

#: Farther than any two assets can be.
FAR = 1e6


class HierarchicalRiskParity(AbstractLookback):
    """Assets ordered by a tree of their correlations, the order cut in halves again and again, and the weight of each
    half divided in inverse proportion to its variance.

    distance: between two assets, from `d_ij = sqrt((1 - correlation_ij) / 2)`. "euclidean", as in the paper: the
        Euclidean distance of column i of d from column j. "correlation": d_ij itself, as PyPortfolioOpt, Riskfolio-Lib
        and skfolio have it.
    covariance: how the covariance is estimated.    lookback: closes before the bar; None: the range of `js.optimize`.

    Source: M. Lopez de Prado, Building diversified portfolios that outperform out of sample, Journal of Portfolio
    Management 42 (2016), 59-69: single linkage (section on tree clustering), quasi-diagonalisation, recursive bisection
    with inverse-variance portfolios inside each half. The order of leaves is that of `scipy.cluster.hierarchy`. The
    derivative is that of the bisection at a fixed order.
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
        """Live assets as the leaves of the tree, then the others."""
        live = moments.live
        volatility = jnp.sqrt(moments.variance)
        correlation = moments.covariance / (volatility[:, None] * volatility[None, :])
        distance = jnp.sqrt(jnp.clip((1 - correlation) / 2, 0.0, 1.0))
        distance = jnp.where(jnp.eye(len(live), dtype=bool), 0.0, distance)
        if self.distance == "euclidean":
            apart = jnp.where(live[:, None, None], distance[:, :, None] - distance[:, None, :], 0.0)
            distance = jnp.sqrt((apart**2).sum(0))
        pairs = live[:, None] & live[None, :]
        place = _leaves(jnp.where(pairs, distance, FAR))
        return jnp.argsort(jnp.where(live, place, place + len(live)))


class _Tree(eqx.Module):
    """Clusters while they are merged; each lives in the slot of one of its assets.

    distance: between slots; infinite on the diagonal and where a slot is empty.
    name: number of the cluster in a slot, from `num_assets` for merged ones, in the order of merging.
    size: assets in a slot.     slot, place: of each asset; its place among the leaves of its cluster.
    """

    distance: Float[Array, "slot slot"]
    name: Int[Array, " slot"]
    size: Int[Array, " slot"]
    slot: Int[Array, " asset"]
    place: Int[Array, " asset"]


def _leaves(distance: Float[Array, "asset asset"]) -> Int[Array, " asset"]:
    """The place of each asset among the leaves of the single-linkage tree: of two merged clusters, the one that
    was made first comes first."""
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
    """Weights of the first `num_live` assets in the order of the leaves; the others are segments of their own."""
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
    """The variance of the inverse-variance portfolio of the segment in which each place is."""
    total = jnp.where(together, inverse[None, :], 0.0).sum(1)
    marginal = jnp.where(together, covariance * inverse[None, :], 0.0).sum(1) * inverse
    return jnp.where(together, marginal[None, :], 0.0).sum(1) / total**2
