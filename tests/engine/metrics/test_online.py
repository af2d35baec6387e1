"""Metrics told from running sums are those of whole paths."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsim import metrics
from jaxsim.engine.metrics.deflated import deflated
from jaxsim.engine.metrics.online import ONLINE_METRICS, PIECES, RunningSums, needs_benchmark
from jaxsim.frames.results.metric_names import ONE_PER_LANE
from tests.helpers.markets import on_host

BARS, LANES = 300, 24
TRADED = ("turnover", "turnover_two_way", "num_rebalances", "total_fees")
OF_RETURNS = [name for name in ONLINE_METRICS if name in ONE_PER_LANE and name not in TRADED]


def nasty() -> tuple[np.ndarray, np.ndarray]:
    """Returns of lanes, and of their benchmarks, among which everything is that formulas stumble over."""
    rng = np.random.default_rng(0)
    r, b = rng.normal(1e-4, 0.01, (2, BARS, LANES))
    r[:, 1], r[:, 2] = 0.001, 0  # no risk
    r[rng.random(BARS) < 0.1, 3] = np.nan
    r[:, 4] = np.nan
    r[0, 5], r[1:, 5] = -0.9, 1e-9 * r[1:, 5]  # a first return far from all others
    r[0, 6], r[50, 7], r[50, 8] = -1, -1, -1.5  # ruined, and worse
    r[:, 9], r[:, 10] = np.abs(r[:, 9]), -np.abs(r[:, 10])
    r[:, 11] *= 1e-12
    r[:, 12] = b[:, 12]
    b[:, 13], b[5, 14] = 0, np.nan
    r[0, 15], r[1:, 16] = 1e6, np.nan
    r[:, 17] = 1e-3 * (1 + 1e-13 * rng.normal(size=BARS))
    r[:100, 18], b[:, 19] = np.nan, -np.abs(b[:, 19])
    r[7, 20], r[:, 21] = np.inf, np.where(np.arange(BARS) % 2, 0.01, -0.01)
    return r, b


def told(r, b, blocks, names=OF_RETURNS) -> dict[str, np.ndarray]:
    """The metrics of returns [time, lane] that are added in blocks of this length, the last one filled up."""
    room = -len(r) % blocks

    @jax.jit
    def run(r, b, num_bars):
        def one(tally, block):
            bars, r, b = block
            return tally.add(r, (bars < num_bars)[:, None], b), None

        parts = [x.reshape(-1, blocks, *x.shape[1:]) for x in (jnp.arange(len(r)), r, b)]
        return jax.lax.scan(one, RunningSums.start(names, r.dtype, r.shape[1:]), tuple(parts))[0]

    with jax.enable_x64(True):
        padded = (np.pad(x, ((0, room), (0, 0)), constant_values=7.0) for x in (r, b))
        return on_host(run(*padded, len(r))).finish(names, ann_factor=252.0)


def whole(name, r, b) -> np.ndarray:
    function = getattr(metrics, name)
    known = {"ann_factor": 252.0, "benchmark": b}
    with np.errstate(all="ignore"):
        return function(r, **{k: v for k, v in known.items() if k in inspect.signature(function).parameters})


@pytest.mark.parametrize(("num_bars", "blocks"), [(BARS, 64), (1, 64), (3, 64)])
def test_every_metric_is_that_of_the_path(num_bars, blocks):
    r, b = (x[:num_bars] for x in nasty())
    got = told(r, b, blocks)
    for name in OF_RETURNS:
        # Of an infinite return, beta is infinite too, or nothing: there is no telling from sums.
        there = np.isfinite(r).all(axis=0) | np.isnan(r).any(axis=0) | (name not in ("beta", "alpha"))
        if getattr(getattr(metrics, name), "is_ratio", False):
            there &= ~(r <= -1).any(axis=0)  # of ruin the values tell, which are not there
        want = whole(name, r, b)[there]
        np.testing.assert_allclose(got[name][there], want, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_tally_of_one_lane_and_of_a_part_of_the_metrics():
    r, b = nasty()
    with jax.enable_x64(True):
        for name in ("sharpe_ratio", "max_drawdown", "beta"):
            tally = jax.jit(lambda r, b, name=name: RunningSums.start([name], r.dtype).add(r, True, b))(
                r[:, 0], b[:, 0]
            )
            got = on_host(tally).finish([name], ann_factor=252.0)[name]
            np.testing.assert_allclose(got, whole(name, r, b)[0], rtol=1e-9)
            assert (tally.pair is None) == (name != "beta"), "no part that no metric needs"


def test_pieces_of_the_deflated_ratio():
    r, b = nasty()
    r = r[:, [0, 3, 9, 14, 18, 22, 23]]
    got = told(r, b[:, :7], 64, PIECES)
    ratio = deflated(*(got[name] for name in PIECES), ann_factor=252.0)
    np.testing.assert_allclose(ratio, metrics.deflated_sharpe_ratio(r, ann_factor=252.0), rtol=1e-9)


def test_rebalances_add_up():
    rng = np.random.default_rng(1)
    traded, value, fees = rng.uniform(0, 50, (3, 20))
    value[4] = 0
    happens, asked = rng.random((2, 20)) < 0.6
    with jax.enable_x64(True):
        tally = RunningSums.start(TRADED, jnp.float64)
        for row in zip(happens, traded, value, fees, asked, strict=True):
            tally = tally.rebalanced(*map(np.asarray, row))
        got = on_host(tally).finish(TRADED)
    want = metrics.turnover(traded[happens], value[happens])
    np.testing.assert_allclose(got["turnover"], want, rtol=1e-12)
    np.testing.assert_allclose(got["turnover_two_way"], 2 * want, rtol=1e-12)
    np.testing.assert_allclose(got["total_fees"], fees[happens].sum(), rtol=1e-12)
    assert got["num_rebalances"] == (happens & asked).sum()


def test_what_is_streamed():
    by_order = {"value_at_risk", "cond_value_at_risk", "tail_ratio", "common_sense_ratio"}
    smooth = {"log_growth", "expected_shortfall", "smooth_drawdown"}
    assert ONE_PER_LANE - set(ONLINE_METRICS) == by_order | smooth | {"deflated_sharpe_ratio"}
    assert needs_benchmark(["sharpe_ratio", "alpha"]) and not needs_benchmark(["sharpe_ratio"])
