"""Walk-forward: each fold is an ordinary backtest, learnt from and traded without a look ahead."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import BARS, prices

CLOSE, OPEN = prices(3)
SPLITS = js.WalkForwardSplits(20, 10, gap=2)
TERMS = dict(fees=0.01, init_cash=50.0, freq="1D", year_freq="252D")


def learn(market: js.Market):
    """All in what has gone up most."""
    growth = market.close[-1] / market.close[0]
    return al.FixedWeights((growth == growth.max()) * 1.0)


@pytest.fixture(scope="module")
def found() -> js.WalkForward:
    return js.walk_forward(
        CLOSE,
        learn,
        SPLITS,
        open=OPEN,
        trigger=js.Threshold(0.05),
        benchmarks={"hold": js.Policy(al.FixedWeights([0.4, 0.3, 0.3]))},
        metrics=["sharpe_ratio", "total_return"],
        **TERMS,
    )


def test_folds_are_backtests(found):
    """Those of the prices up to the end of the fold, which trade from its start on."""
    for name in ("learned", "hold"):
        for fold, (train, test) in enumerate(SPLITS.split(CLOSE)):
            policy = found.policies[name][fold]
            for side, bars in (("in", train), ("out", test)):
                alone = js.backtest(
                    CLOSE.iloc[: bars[-1] + 1],
                    replace(policy, min_history=int(bars[0])),
                    open=OPEN.iloc[: bars[-1] + 1],
                    engine="reference",
                    **TERMS,
                ).returns.iloc[bars]
                total = found.table.loc[(name, fold), f"total_return_{side}"]
                np.testing.assert_allclose(total, js.metrics.total_return(alone.to_numpy()), rtol=1e-12)
                sharpe = js.metrics.sharpe_ratio(alone.to_numpy(), ann_factor=252)
                np.testing.assert_allclose(found.table.loc[(name, fold), f"sharpe_ratio_{side}"], sharpe, rtol=1e-10)
                if side == "out":
                    np.testing.assert_allclose(found.returns.loc[alone.index, name], alone, rtol=1e-12, atol=1e-15)


def test_learnt_from_the_training_stretch_alone(found):
    for fold, (train, _) in enumerate(SPLITS.split(CLOSE)):
        best = (CLOSE.iloc[train[-1]] / CLOSE.iloc[train[0]]).argmax()
        assert np.argmax(found.policies["learned"][fold].allocator.weights) == best
        assert isinstance(found.policies["learned"][fold].allocator.weights, np.ndarray)


def test_later_prices_do_not_matter():
    """A policy that looks at the last price of all finds nothing there."""
    seen = []

    def learn(market: js.Market):
        seen.append(np.asarray(market.close))
        return al.host(lambda obs: seen.append(np.array(obs.closes)) or np.full(3, 1 / 3))

    js.walk_forward(CLOSE, learn, js.WalkForwardSplits(30, 15), open=OPEN, engine="reference", metrics="total_return")
    lengths = [int((~np.isnan(closes)).all(axis=1).sum()) for closes in seen]
    # Learnt from; then seen while trading in, and out of sample. One row at the end stands in for the prices withheld.
    assert lengths == [30, 30 + 1, 45 + 1, 45, 45 + 1, 60]
    assert all((closes[-1] == 1).all() for closes in (seen[1], seen[2], seen[4]))


def test_tables(found):
    table = found.table
    assert list(table.index.names) == ["policy", "fold"] and len(table) == 6
    first = table.loc[("learned", 0)]
    assert first["train_end"] == CLOSE.index[19] and first["test_start"] == CLOSE.index[22]
    assert first["test_end"] == CLOSE.index[31]
    assert found.returns.shape == (30, 2) and found.returns.index.equals(CLOSE.index[22:52])
    joined = (1 + found.returns["hold"]).prod() - 1
    assert found.summary.loc["hold", "total_return_joined"] == pytest.approx(joined, rel=1e-12)
    assert found.summary.loc["hold", "sharpe_ratio_in"] == pytest.approx(table.loc["hold", "sharpe_ratio_in"].mean())
    assert repr(found) == "WalkForward(3 folds, policies ['learned', 'hold'])"


def test_picture(found):
    figure = found.plot("total_return")
    names = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert names == ["learned", "hold"]
    with pytest.raises(ValueError, match=r"metric: expected one of \['sharpe_ratio', 'total_return'\]"):
        found.plot("calmar_ratio")


def test_an_asset_that_is_listed_later():
    close = CLOSE.copy()
    close.iloc[:35, 2] = np.nan

    def learn(market: js.Market):
        assert market.close.shape[1] == 3
        return al.EqualWeight(over="tradable")

    found = js.walk_forward(
        close, learn, js.WalkForwardSplits(20, 10), open=OPEN.mask(close.isna()), metrics="skew", engine="reference"
    )
    assert found.table["skew_out"].notna().all() and found.ann_factor is None


def bad(**given):
    arguments = dict(close=CLOSE, learn=learn, splits=SPLITS, engine="reference") | given
    js.walk_forward(**arguments)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (dict(splits=5), TypeError, r"splits: expected js.WalkForwardSplits"),
        (dict(splits=js.WalkForwardSplits(BARS, 1)), ValueError, r"train: 60 \+ 0"),
        (dict(learn=5), TypeError, r"learn: expected a function of a Market"),
        (dict(learn=js.Policy(al.EqualWeight())), TypeError, r"learn: 'learned' is a Policy, which learns nothing"),
        (dict(learn=lambda market: 5), TypeError, r"learn \('learned'\): expected an allocation function"),
        (dict(benchmarks=[al.EqualWeight()]), TypeError, r"benchmarks: expected policies by name"),
        (
            dict(benchmarks={"learned": al.EqualWeight()}),
            ValueError,
            r"benchmarks: 'learned' is the name",
        ),
        (dict(metrics="beta"), ValueError, r"metrics: there is no metric 'beta' of returns alone"),
        (dict(metrics=[]), ValueError, r"metrics: expected at least one"),
        (dict(metrics=["skew", "skew"]), ValueError, r"metrics: 'skew' comes twice"),
        (dict(size=1.0), TypeError, r"size: not in walk_forward: plain orders learn nothing"),
        (
            dict(fees=js.grid(fees=[0.0, 0.1])),
            ValueError,
            r"learn: one lane is judged at a time",
        ),
        (dict(progress=1), TypeError, r"progress: expected True or False"),
    ],
)
def test_misuse(given, error, message):
    with pytest.raises(error, match=message):
        bad(**given)


def test_what_a_learner_raises_says_on_which_fold():
    def learn(market):
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck") as caught:
        bad(learn={"mine": learn})
    assert "while 'mine' learnt on fold 0, 2021-01-04" in caught.value.__notes__[0]


def test_metrics_of_ones_own():
    def best(returns):
        return returns.max(axis=0)

    found = js.walk_forward(CLOSE, learn, SPLITS, open=OPEN, metrics=[best], engine="reference")
    assert found.table.loc[("learned", 2), "best_out"] == pytest.approx(found.returns["learned"].iloc[-10:].max())


def test_needs_to_know_the_year():
    index = pd.RangeIndex(BARS)
    with pytest.raises(ValueError, match="freq: the index does not tell"):
        bad(close=CLOSE.set_axis(index), open=OPEN.set_axis(index))
