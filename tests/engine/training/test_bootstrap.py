"""The stationary bootstrap against its definition, its known variance, and the market that it is drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.training.bootstrap import rebuilt, stationary_blocks
from tests.helpers.markets import BARS, prices, with_holes

CLOSE, OPEN = prices(5)
T, KEYS = 40, jax.random.split(jax.random.key(1), 20_000)
DRAW = jax.jit(jax.vmap(lambda key, mean_block: stationary_blocks(key, T, T, mean_block), in_axes=(0, None)))


def market(close=CLOSE, open_=OPEN, **options) -> js.Market:
    with jax.enable_x64(True):
        return js.Market.from_frames(close, open=open_, **options)


@pytest.fixture(scope="module", autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def test_bars_in_their_own_order_give_the_market_back():
    close, open_ = with_holes(CLOSE, OPEN)
    close.iloc[:20, -1], open_.iloc[:20, -1] = CLOSE.iloc[:20, -1], OPEN.iloc[:20, -1]
    close.iloc[0] = CLOSE.iloc[0]
    one = market(close, open_, price=(CLOSE + OPEN) / 2, features={"row": np.arange(float(BARS))})
    assert one.priced_at is not None
    again = rebuilt(one, jnp.arange(1, BARS))
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_ratios_of_a_bar_stay_together():
    """In the drawn path as in its source: open, execution price and close over the close before, for all assets."""
    one = market(price=CLOSE * 1.01, features=np.arange(float(BARS)))
    paths = js.bootstrap(one, 3, num_paths=4, mean_block=5.0, num_bars=BARS)
    assert paths.close.shape == (4, BARS, 3) and paths.features.shape == (4, BARS)
    for p in range(4):
        source = np.asarray(paths.features[p], int)
        assert source[0] == 0 and (source[1:] > 0).all()
        before, was = paths.mark[p, :-1], one.mark[source[1:] - 1]
        for name in ("val_price", "price", "mark", "close"):
            drawn, given = getattr(paths, name)[p, 1:] / before, getattr(one, name)[source[1:]] / was
            np.testing.assert_allclose(drawn, given, rtol=1e-12)
        goes_on = np.diff(source[1:]) == 1
        assert 0.5 < goes_on.mean() < 1


def test_variance_of_the_mean_is_the_known_one():
    """Politis and Romano 1994, lemma 1: with circular autocovariances c, the variance of the mean of a resample is
    (c(0) + 2 sum((1 - i / T) (1 - p)**i c(i))) / T."""
    rng = np.random.default_rng(0)
    x = np.convolve(rng.normal(size=49), np.ones(10) / 10, "valid")  # 40 numbers that remember
    p, num = 1 / 6.0, len(KEYS)
    circular = [np.mean((x - x.mean()) * (np.roll(x, -i) - x.mean())) for i in range(T)]
    known = (circular[0] + 2 * sum((1 - i / T) * (1 - p) ** i * circular[i] for i in range(1, T))) / T
    means = x[np.asarray(DRAW(KEYS, 1 / p))].mean(axis=1)
    found, error = means.var(), np.sqrt(((means - means.mean()) ** 2).var() / num)
    assert abs(found - known) < 3 * error
    independent = circular[0] / T
    assert abs(found - independent) > 20 * error  # as it would be without blocks
    assert abs(means.mean() - x.mean()) < 3 * np.sqrt(known / num)


def test_blocks_of_one_bar_and_of_all():
    single = np.asarray(DRAW(KEYS, 1.0))
    assert np.bincount(single.ravel(), minlength=T).std() < 0.01 * single.size / T * np.sqrt(T)
    assert abs((np.diff(single) % T == 1).mean() - 1 / T) < 0.001
    whole = np.asarray(DRAW(KEYS, 1e9))
    assert (np.diff(whole) % T == 1).all() and len(set(whole[:, 0])) == T


def test_runs_as_lanes_and_recomputes_features():
    def lagged_return(market: js.Market):
        return jnp.concatenate([jnp.zeros((2, 3)), market.mark[1:-1] / market.mark[:-2] - 1])

    paths = js.bootstrap(market(), 0, num_paths=3, mean_block=4, features=lagged_return)
    np.testing.assert_allclose(paths.features[1, 2:], paths.mark[1, 1:-1] / paths.mark[1, :-2] - 1, rtol=1e-12)
    policy = js.Policy(al.EqualWeight(), js.Threshold(0.05))
    value = jax.vmap(lambda m: js.simulate(m, policy).value)(paths)
    frame = pd.DataFrame(np.asarray(paths.close[2]), CLOSE.index, CLOSE.columns)
    opens = pd.DataFrame(np.asarray(paths.val_price[2]), CLOSE.index, CLOSE.columns)
    alone = js.backtest(frame, policy, open=opens, engine="reference").value
    np.testing.assert_allclose(value[2], alone, rtol=1e-12)


def test_block_length_of_a_known_process():
    """For an autoregression, G and g(0) are known in closed form, and with them the best length: (2 a / (1 - a**2))**
    (2/3) T**(1/3). Estimates scatter around it, the less the longer the series."""
    rng, T = np.random.default_rng(0), 10_000
    for a in (0.3, 0.6):
        noise, x = rng.normal(size=(T, 20)), np.zeros((T, 20))
        for t in range(1, T):
            x[t] = a * x[t - 1] + noise[t]
        best = (2 * a / (1 - a**2)) ** (2 / 3) * T ** (1 / 3)
        lengths = js.optimal_block_length(x)
        assert lengths.shape == (20,) and abs(lengths.mean() / best - 1) < 0.1
    assert js.optimal_block_length(rng.normal(size=2000)) < 8  # nothing to remember
    assert js.optimal_block_length(np.arange(50.0)) <= np.ceil(50 / 3)  # nothing but


def test_block_length_by_hand():
    """The steps of the paper, one by one, on a short series."""
    x = np.convolve(np.random.default_rng(4).normal(size=69), np.ones(10), "valid")  # 60 that remember ten
    T, x = len(x), x - x.mean()
    R = [sum(x[t] * x[t + k] for t in range(T - k)) / T for k in range(T)]
    bound = 2 * np.sqrt(np.log10(T) / T)
    m = next(m for m in range(T) if all(abs(R[m + k] / R[0]) < bound for k in range(1, 6)))
    M = 2 * max(m, 1)
    window = [1.0 if k <= M / 2 else 2 * (1 - k / M) for k in range(M + 1)]
    G = 2 * sum(window[k] * k * R[k] for k in range(1, M + 1))
    g = R[0] + 2 * sum(window[k] * R[k] for k in range(1, M + 1))
    assert m > 0
    np.testing.assert_allclose(js.optimal_block_length(x), (2 * G**2 / (2 * g**2)) ** (1 / 3) * T ** (1 / 3))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (dict(market=CLOSE), TypeError, r"market"),
        (dict(num_paths=0), ValueError, r"num_paths: expected a whole number >= 1, got 0"),
        (dict(num_bars=1), ValueError, r"num_bars: expected a whole number >= 2"),
        (dict(mean_block=0.5), ValueError, r"mean_block: expected a finite number >= 1, got 0.5"),
        (dict(mean_block="long"), TypeError, r"mean_block: expected numbers"),
        (dict(mean_block=[2.0, 3.0]), ValueError, r"mean_block: expected one number, got shape \(2,\)"),
        (dict(key=-1), ValueError, r"key: expected an int from 0"),
    ],
)
def test_misuse(given, error, message):
    arguments = dict(market=market(), key=0, num_paths=2, mean_block=5.0) | given
    with pytest.raises(error, match=message):
        js.bootstrap(**arguments)


def test_an_asset_that_is_listed_later_is_refused():
    late = CLOSE.copy()
    late.iloc[:5, 0] = np.nan
    with pytest.raises(ValueError, match="market: some asset has no price at bar 0"):
        js.bootstrap(market(late, None), 0, num_paths=2, mean_block=5.0)


def test_misuse_of_the_block_length():
    with pytest.raises(ValueError, match=r"returns: expected \[time\] or \[time, series\] with at least 10 bars"):
        js.optimal_block_length(np.ones(5))
    with pytest.raises(ValueError, match="returns: expected finite numbers"):
        js.optimal_block_length(np.full(50, np.nan))
    with pytest.raises(ValueError, match="returns: a series that never changes"):
        js.optimal_block_length(np.ones(50))
