"""The best of many random portfolios."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

import jaxsim as js
from allocators.covariance import SampleCovariance
from allocators.history import AbstractLookback, Moments, Present
from allocators.numbers import number

#: Candidates that are drawn and scored together.
BLOCK = 32
#: Sums over at most this many assets are written out: XLA computes small products of matrices number by number.
FEW = 16
#: At most so many searches are made one after the other.
FEW_LANES = 8


class RandomSearchSharpe(AbstractLookback):
    """The first best, by Sharpe ratio in the window, of `num_tests` random portfolios w = u / sum(u), u uniform on
    [0, 1) per asset; the score is `(mean . w) A / (sqrt(w' C w) sqrt(A))`, A the annualisation factor (rules 10.2;
    vectorbt's tutorial on dynamic rebalancing, `sharpe_optimize_func_nb`).

    num_tests: number of portfolios, a whole number >= 1; may be swept.
    ann_factor: bars per year, > 0. It scales all scores alike, so it changes the answer in no way but by rounding; it
        is there because the tutorial has it.
    covariance: how C is estimated from the window.
    lookback: number of closes before the bar; None: the range of `js.optimize`.

    Candidate i is row i % 32 of `jax.random.uniform(jax.random.fold_in(obs.key, i // 32), (32, num_assets), float32)`,
    cast to the dtype of the closes. So 30 tests are the first 30 of 100, and a lane draws the same beside any others.
    Of an asset that is not usable (see `lookback`) u counts as 0. The weights are drawn, not computed, so their
    derivative is zero. If no candidate has a score, the usable assets get equal weights.
    """

    num_tests: Any = number("num_tests", low=1.0, is_whole=True)
    ann_factor: Any = number("ann_factor", low=0.0, is_open=True, default=1.0)
    covariance: Callable = eqx.field(default_factory=SampleCovariance, kw_only=True)

    def weigh(self, moments: Moments, present: Present) -> Float[Array, " asset"]:
        # Nothing here has a derivative, and a loop of unknown length may not be asked for one.
        moments, num_tests, ann_factor = lax.stop_gradient((moments, self.num_tests, self.ann_factor))
        dtype = moments.mean.dtype
        gain = jnp.asarray(ann_factor, dtype) / jnp.sqrt(jnp.asarray(ann_factor, dtype))
        drawn = _one_by_one(_search)(moments, present.key, jnp.asarray(num_tests), gain)
        return drawn / drawn.sum()


def _search(moments: Moments, key: Any, num_tests: Array, gain: Array) -> Float[Array, " asset"]:
    """The best candidate, as it was drawn."""
    dtype = moments.mean.dtype

    def better(best: "_Best") -> "_Best":
        u = js.random.uniform(js.random.fold_in(key, best.block), (BLOCK, moments.num_assets)).astype(dtype)
        u = jnp.where(moments.live, u, 0.0).T
        mean, variance = _mean_and_variance(u, moments)
        score = mean / jnp.sqrt(variance) * gain
        is_candidate = (best.block * BLOCK + jnp.arange(BLOCK) < num_tests) & ~jnp.isnan(score)
        score = jnp.where(is_candidate, score, -jnp.inf)
        first = jnp.argmax(score)
        is_better = score[first] > best.score
        return _Best(
            best.block + 1,
            jnp.where(is_better, score[first], best.score),
            jnp.where(is_better, u[:, first], best.drawn),
        )

    start = _Best(jnp.int32(0), jnp.asarray(-jnp.inf, dtype), moments.live.astype(dtype))
    return lax.while_loop(lambda best: best.block * BLOCK < num_tests, better, start).drawn


def _one_by_one(search: Callable) -> Callable:
    """A search whose lanes are searched one after the other where they differ in the number of tests, but not in what
    they look back on, as in `js.optimize`: side by side, each would take as long as the longest."""
    searched = custom_vmap(search)

    @searched.def_vmap
    def _(num_lanes: int, has_lanes: Any, moments: Moments, key: Any, num_tests: Array, gain: Array) -> tuple:
        given, (of_moments, _, of_tests, _) = (moments, key, num_tests, gain), has_lanes
        if of_tests and num_lanes <= FEW_LANES and not any(jax.tree.leaves(of_moments)):
            by_lane, shared = eqx.partition(given, tuple(has_lanes))
            return lax.map(lambda lane: _one_by_one(search)(*eqx.combine(lane, shared)), by_lane), True
        axes = jax.tree.map(lambda has: 0 if has else None, tuple(has_lanes))
        return _one_by_one(jax.vmap(search, axes))(*given), True

    return searched


def _mean_and_variance(weights: Float[Array, "asset candidate"], moments: Moments) -> tuple[Array, Array]:
    """Of the return of each candidate, [candidate], whatever its weights sum to."""
    if len(weights) > FEW:
        rows = weights.T
        return rows @ moments.mean, ((rows @ moments.covariance) * rows).sum(1)
    along = [sum(w * c for w, c in zip(weights, row, strict=True)) for row in moments.covariance]
    mean = sum(w * m for w, m in zip(weights, moments.mean, strict=True))
    return jnp.asarray(mean), jnp.asarray(sum(w * c for w, c in zip(weights, along, strict=True)))


class _Best(eqx.Module):
    """The best candidate of the blocks so far, as it was drawn: a score does not depend on the sum of the weights.
    Until there is one, all live assets alike."""

    block: Any
    score: Float[Array, ""]
    drawn: Float[Array, " asset"]
