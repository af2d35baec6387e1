"""The probability of overfitting against its definition, the deflated Sharpe ratio against its paper."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import prices

RNG = np.random.default_rng(0)
NOISE = pd.DataFrame(RNG.normal(0, 0.01, (203, 9)), columns=pd.Index(range(9), name="trial"))


def test_by_the_definition():
    """Every half of four blocks, with the words of the paper: rank from 1 (worst), relative rank, logit."""
    found = js.probability_of_overfitting(NOISE, 4, ann_factor=252)
    blocks = np.split(NOISE.to_numpy()[3:], 4)
    logits = []
    for half, row in zip(combinations(range(4), 2), found.table.itertuples(), strict=True):
        J = np.concatenate([blocks[b] for b in half])
        other = np.concatenate([blocks[b] for b in range(4) if b not in half])
        R, beyond = (x.mean(axis=0) / x.std(axis=0, ddof=1) * np.sqrt(252) for x in (J, other))
        best = int(np.argmax(R))
        rank = 1 + sum(beyond[best] > beyond[n] for n in range(9) if n != best)
        omega = rank / 10
        logits.append(np.log(omega / (1 - omega)))
        assert row.trial == best
        np.testing.assert_allclose([row.inside, row.outside, row.rank], [R[best], beyond[best], omega], rtol=1e-10)
    np.testing.assert_allclose(found.logits, logits)
    assert found.pbo == np.mean(np.array(logits) <= 0)
    slope = np.polyfit(found.table["inside"], found.table["outside"], 1)[0]
    assert (
        found.degradation == pytest.approx(slope) and found.probability_of_loss == (found.table["outside"] < 0).mean()
    )


def test_sums_over_blocks_are_the_scores_of_halves():
    def sharpe(returns):
        return js.metrics.sharpe_ratio(returns, ann_factor=252)

    fast = js.probability_of_overfitting(NOISE + 5.0, 8, ann_factor=252)
    slow = js.probability_of_overfitting(NOISE + 5.0, 8, sharpe)
    pd.testing.assert_frame_equal(fast.table, slow.table, rtol=1e-8)
    assert len(fast.table) == 70 and slow.metric == "sharpe"


def test_what_is_good_throughout_is_not_overfitted():
    skilled = NOISE.copy()
    skilled[4] += 0.01
    assert js.probability_of_overfitting(skilled, 10).pbo == 0
    assert js.probability_of_overfitting(skilled, 10, "total_return").pbo == 0


def test_what_must_come_back_is_overfitted():
    """Trials that are worth nothing over all the time: what is ahead in one half is behind in the other."""
    nothing = NOISE.iloc[3:] - NOISE.iloc[3:].mean()
    found = js.probability_of_overfitting(nothing, 10)
    assert found.pbo > 0.95 and found.degradation < -0.8
    assert repr(found).startswith("Overfitting(pbo=")


def test_lanes_of_a_backtest_are_trials():
    close, open_ = prices(2)
    thresholds = js.grid(threshold=[0.02, 0.05, 0.1])
    bt = js.backtest(close, al.EqualWeight(), open=open_, trigger=js.Threshold(thresholds), fees=0.01, freq="1D")
    found = js.probability_of_overfitting(bt.returns, 6)
    assert set(found.table["trial"]) <= {0.02, 0.05, 0.1} and len(found.table) == 20
    whole = bt.deflated_sharpe_ratio()
    alone = js.deflate_sharpe_ratio(bt.returns, bt.sharpe_ratio(), ann_factor=bt.ann_factor)
    pd.testing.assert_series_equal(alone, whole, rtol=1e-12)
    assert js.deflate_sharpe_ratio(bt.returns[0.05], bt.sharpe_ratio(), ann_factor=365) == pytest.approx(whole[0.05])


def test_idle_trials_are_left_out():
    """With one warning and their number; what is flat on a half alone stays, and is the worst there."""
    nothing = NOISE.iloc[3:] - NOISE.iloc[3:].mean()
    without = js.probability_of_overfitting(nothing, 10)
    idle = nothing.assign(flat=0.0, rounding=np.r_[0.0, -1.4e-16, np.zeros(198)], gains=1e-4)[["flat", *nothing]]
    idle["gains"] = 1e-4
    with pytest.warns(UserWarning, match=r"^2 of 11 trials are left out: they have no finite score") as warned:
        ours = js.probability_of_overfitting(idle, 10)
    assert len(warned) == 1 and ours.pbo == without.pbo > 0.9
    pd.testing.assert_frame_equal(ours.table.astype({"trial": int}), without.table)
    half = nothing.assign(late=np.where(np.arange(200) < 100, 0.001, nothing[0]))
    table = js.probability_of_overfitting(half, 2).table
    assert table["inside"][0] == np.inf and table["trial"][0] == "late"
    with pytest.raises(ValueError, match="returns: 1 of 2 trials have a finite sharpe_ratio; two are needed"):
        js.probability_of_overfitting(nothing[[0]].assign(flat=0.0), 10)
    ratios = pd.Series([0.5, 1.0, np.nan, np.inf, -0.5])
    with pytest.warns(UserWarning, match="^2 of 5 trials are left out"):
        ours = js.deflate_sharpe_ratio(NOISE[0], ratios, ann_factor=252)
    assert ours == js.deflate_sharpe_ratio(NOISE[0], ratios[[0, 1, 4]], ann_factor=252)


def test_ties_rank_below_none_of_their_equals():
    """Copies, also ones that trade twice as much and whose ratio differs in the last bit, tie: the first is chosen, and
    none beats it."""
    r = NOISE[[0]].to_numpy()
    same = pd.DataFrame(r * np.array([1.0, 1.0, 2.0, 3.0, 1 / 3, 1.0, 0.1]), columns=pd.Index(list("abcdefg")))
    for metric in ("sharpe_ratio", "sortino_ratio"):
        found = js.probability_of_overfitting(same, 6, metric, ann_factor=252)
        assert (found.table["trial"] == "a").all() and (found.table["rank"] == 7 / 8).all() and found.pbo == 0


@pytest.mark.parametrize(("trials", "published"), [(100, 0.9004), (46, 0.9505)])
def test_deflated_sharpe_ratio_of_the_paper(trials, published):
    """Bailey and López de Prado 2014, "A numerical example": an annual Sharpe ratio of 2.5 over 1,250 days, skewness
    -3, kurtosis 10 (which only two different returns have), a variance of 1/2 among the trials."""
    low = 105  # of 1,250 days: skewness -3 to three digits
    returns = np.where(np.arange(1250) < low, -1.0, 0.0)
    spread = (returns - returns.mean()) / returns.std(ddof=1)
    returns = pd.Series((spread + 2.5 / np.sqrt(250)) * 0.01)
    assert (spread**3).mean() == pytest.approx(-3, abs=0.01) and (spread**4).mean() == pytest.approx(10, abs=0.05)
    tried = np.resize([-1.0, 1.0], trials) * np.sqrt(0.5 * (trials - 1) / trials)
    assert tried.var(ddof=1) == pytest.approx(0.5)
    assert js.deflate_sharpe_ratio(returns, tried, ann_factor=250) == pytest.approx(published, abs=5e-4)
    many = np.resize([-1.0, 1.0], 200) * np.sqrt(0.5 * 199 / 200)
    fewer = js.deflate_sharpe_ratio(returns, many, ann_factor=250, num_independent=trials)
    assert fewer == pytest.approx(published, abs=5e-4)


def test_picture():
    found = js.probability_of_overfitting(NOISE, 8)
    figure = found.plot()
    assert figure.layout.title.text.startswith(f"Probability of overfitting: {found.pbo:.1%}")
    below = next(trace for trace in figure.data if trace.name == "not above the median")
    assert sum(below.y) == pytest.approx(found.pbo)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (dict(returns=NOISE.to_numpy()), TypeError, r"returns: expected a DataFrame \[time, trial\], got ndarray"),
        (dict(returns=NOISE[[0]]), ValueError, r"returns: one trial has not been chosen among others"),
        (dict(returns=NOISE.mask(NOISE > 0.02)), ValueError, r"returns: expected finite numbers"),
        (dict(num_blocks=5), ValueError, r"num_blocks: expected an even number, got 5"),
        (dict(num_blocks=30), ValueError, r"num_blocks: expected an even number from 2 to 20, got 30"),
        (dict(returns=NOISE.iloc[:20]), ValueError, r"num_blocks: 20 bars are too few for 16 blocks"),
        (dict(ann_factor=np.nan), ValueError, r"ann_factor: expected a finite number > 0, got nan"),
        (dict(ann_factor="252"), TypeError, r"ann_factor: expected numbers, got str '252'"),
        (dict(metric="best"), ValueError, r"metric: there is no metric 'best' of returns alone"),
        (dict(metric=5), TypeError, r"metric: expected the name of a metric or a function of returns"),
        (dict(metric=lambda returns: returns.mean(), num_blocks=2), ValueError, r"metric: <lambda> does not give one"),
    ],
)
def test_misuse(given, error, message):
    with pytest.raises(error, match=message):
        js.probability_of_overfitting(**(dict(returns=NOISE) | given))


def test_misuse_of_the_deflated_sharpe_ratio():
    with pytest.raises(ValueError, match="trials: expected the finite Sharpe ratios of at least two trials"):
        js.deflate_sharpe_ratio(NOISE[0], [1.0], ann_factor=252)
    with pytest.raises(ValueError, match="num_independent: expected a number from 1 to 2, got 3"):
        js.deflate_sharpe_ratio(NOISE[0], [1.0, 2.0], ann_factor=252, num_independent=3)
    with pytest.raises(TypeError, match="returns: expected a Series"):
        js.deflate_sharpe_ratio([0.1], [1.0, 2.0], ann_factor=252)
