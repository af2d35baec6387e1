"""The best of many random portfolios."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

import jaxsim as js
from allocators.covariance import SampleCovariance
from allocators.history import AbstractLookback, Moments, Present
from allocators.numbers import number

#: Candidates that are drawn and scored together.
BLOCK = 32
#: Sums over at most this many assets are written out: XLA computes small products of matrices number by number.
FEW = 16


class RandomSearchSharpe(AbstractLookback):
    """The first best, by Sharpe ratio in the window, of `num_tests` random portfolios w = u / sum(u), u uniform on
    [0, 1) per asset; the score is `(mean . w) A / (sqrt(w' C w) sqrt(A))`, A the annualisation factor (SEMANTICS 10.2;
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
        num_tests = jnp.asarray(num_tests)
        dtype = moments.mean.dtype
        gain = jnp.asarray(ann_factor, dtype) / jnp.sqrt(jnp.asarray(ann_factor, dtype))

        def better(best: "_Best") -> "_Best":
            u = js.random.uniform(js.random.fold_in(present.key, best.block), (BLOCK, moments.num_assets)).astype(dtype)
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
        drawn = lax.while_loop(lambda best: best.block * BLOCK < num_tests, better, start).drawn
        return drawn / drawn.sum()


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
