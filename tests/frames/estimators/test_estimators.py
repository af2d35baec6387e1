"""A policy as an estimator: what it predicts is what a backtest says; grid searches; skfolio's model selection."""

import sys

import jax
import numpy as np
import pandas as pd
import pytest
from skfolio.model_selection import WalkForward, cross_val_predict
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import allocators as al
import jaxsim as js
from tests.allocators.test_learned import shaken
from tests.helpers.markets import as_users_run_it, prices

X = prices(3)[0].pct_change().iloc[1:]
FOLDS = [(np.arange(20), np.arange(20, 39)), (np.arange(19, 39), np.arange(39, 58))]  # of one shape


def features(close):
    return js.features.stack(
        momentum=js.features.cross_zscore(js.features.momentum(close, 4)), risk=js.features.volatility(close, 5)
    )


POLICY = js.Policy(shaken(al.Linear(2), 1), js.Threshold(0.03))


def estimator(kind=None, **options):
    costs = js.Costs(fees=0.002)
    return (kind or js.PortfolioEstimator)(POLICY, **(dict(features=features, costs=costs, ann_factor=252) | options))


def by_backtest(returns, bought=0, policy=POLICY):
    """Returns of the same portfolio from the closes of these returns, bought at the bar of that number."""
    first = pd.DataFrame(1.0, returns.index[:1] - pd.Timedelta("1D"), returns.columns)
    close = pd.concat([first, (1 + returns).cumprod()])
    options = dict(trigger=policy.trigger, min_history=bought, fees=0.002, features=features(close))
    value = js.backtest(close, policy.allocator, engine="reference", **options).value.iloc[bought:]
    return value.iloc[1:].to_numpy() / np.array([100.0, *value.iloc[1:-1]]) - 1


def test_predicts_what_a_backtest_says():
    taken = estimator(steps=0, history=6).fit(X[:20])
    np.testing.assert_allclose(taken.predict(X[:20]), by_backtest(X[:20]), rtol=1e-9, atol=1e-14)
    later = taken.predict(X[20:39])  # goes on from the last rows of the training data
    assert later.index.equals(X.index[20:39]) and later.name == "returns"
    np.testing.assert_allclose(later, by_backtest(X[14:39], 6), rtol=1e-9, atol=1e-14)
    forgetful = estimator(steps=0).fit(X[:20]).predict(X[20:39])
    np.testing.assert_allclose(forgetful, by_backtest(X[20:39]), rtol=1e-9, atol=1e-14)
    assert not np.allclose(later, forgetful)
    expected = js.metrics.sharpe_ratio(later.to_numpy(), ann_factor=252)
    assert taken.score(X[20:39]) == pytest.approx(expected, rel=1e-12)
    assert taken.fitted_ is None and taken.weights_.shape == (3,) and 0.9 < taken.weights_.sum() < 1 + 1e-9
    assert taken.n_features_in_ == 3 and list(taken.feature_names_in_) == list("ABC")


def test_columns_are_aligned_by_name_and_scores_count_from_min_history_on():
    policy = js.Policy(al.FixedWeights([0.6, 0.3, 0.1]), js.Threshold(0.03), min_history=8)
    taken = js.PortfolioEstimator(policy, costs=js.Costs(fees=0.002), ann_factor=252, steps=0).fit(X[:20])
    whole = taken.predict(X[:20])
    np.testing.assert_array_equal(taken.predict(X[:20][["C", "A", "B"]]), whole)
    with pytest.raises(ValueError, match="X: it has no column 'B', which was trained on"):
        taken.predict(X[:20].rename(columns={"B": "D"}))
    assert (whole[:7] == 0).all() and whole.iloc[7] != 0  # bar 8 of the closes is row 7
    assert taken.score(X[:20]) == pytest.approx(
        js.metrics.sharpe_ratio(whole[7:].to_numpy(), ann_factor=252), rel=1e-12
    )
    with pytest.raises(ValueError, match="X: min_history of 8 leaves no row to score"):
        taken.score(X[:7])


def test_learns():
    """As `js.fit` on the same market; the allocator given is left as it is."""
    before = np.array(POLICY.allocator.coefficients)
    options = dict(trainable=lambda p: p.allocator, steps=3)
    learned = estimator(**options).fit(X[:20].to_numpy())
    assert learned.fitted_.score >= learned.fitted_.history["hard"].iloc[0]
    assert not np.allclose(learned.policy_.allocator.coefficients, before)
    np.testing.assert_array_equal(POLICY.allocator.coefficients, before)
    assert learned.predict(X[:20].to_numpy()).index.equals(pd.RangeIndex(20))


def test_parameters_and_copies():
    own = estimator()
    params = own.get_params()
    assert {"steps", "policy__trigger__threshold", "policy__allocator__head__weight"} <= set(params)
    assert "policy__trigger__threshold" not in own.get_params(deep=False)
    own.set_params(steps=7, policy__trigger__threshold=0.2, policy__allocator__head__weight=np.ones((1, 2)))
    assert own.steps == 7 and float(own.policy.trigger.threshold) == 0.2
    np.testing.assert_array_equal(own.policy.allocator.coefficients, 1)
    assert float(POLICY.trigger.threshold) == 0.03
    copy = clone(own)
    assert float(copy.policy.trigger.threshold) == 0.2 and copy.steps == 7 and not hasattr(copy, "policy_")


def test_grid_search():
    thresholds = [0.01, 0.3]
    search = GridSearchCV(estimator(steps=0), {"policy__trigger__threshold": thresholds}, cv=FOLDS).fit(X)
    for threshold, mean in zip(thresholds, search.cv_results_["mean_test_score"], strict=True):
        policy = js.Policy(POLICY.allocator, js.Threshold(threshold))
        returns = [by_backtest(X.iloc[test], policy=policy) for _, test in FOLDS]
        expected = np.mean([js.metrics.sharpe_ratio(r, ann_factor=252) for r in returns])
        assert mean == pytest.approx(expected, rel=1e-9)
    assert search.best_params_["policy__trigger__threshold"] in thresholds


def test_model_selection_of_skfolio():
    model = estimator(js.SkfolioEstimator, steps=0, portfolio_params={"name": "learned"})
    path = cross_val_predict(model, X, cv=WalkForward(train_size=20, test_size=19))
    expected = np.concatenate([by_backtest(X.iloc[20:39]), by_backtest(X.iloc[39:58])])
    np.testing.assert_allclose(path.returns, expected, rtol=1e-9, atol=1e-14)
    assert path.portfolios[0].name == "learned"
    assert clone(model).get_params()["portfolio_params"] == {"name": "learned"}


def test_without_the_libraries(monkeypatch):
    for name, missing in (("PortfolioEstimator", "sklearn.base"), ("SkfolioEstimator", "skfolio")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            for module in ("jaxsim.frames.estimators.scikit_learn", "jaxsim.frames.estimators.skfolio"):
                patch.delitem(sys.modules, module)
            with pytest.raises(ImportError, match=rf'{name} needs .*pip install "jaxsim-portfolio\[sklearn\]"'):
                getattr(js, name)
    with pytest.raises(AttributeError, match="no attribute 'Estimator'"):
        js.Estimator  # noqa: B018


MISUSE = {
    "an allocator": (lambda: js.PortfolioEstimator(al.EqualWeight()).fit(X), TypeError, "policy: expected a js.Policy"),
    "negative steps": (lambda: estimator(steps=-1).fit(X), ValueError, "steps: expected a whole number >= 0, got -1"),
    "half a history": (lambda: estimator(history=2.5).fit(X), ValueError, "history: .*whole"),
    "unknown path": (
        lambda: estimator().set_params(policy__trigger__x=1),
        ValueError,
        "policy__trigger__x: .*threshold",
    ),
    "unknown name": (lambda: estimator().set_params(fees=1), ValueError, "Invalid parameter 'fees'"),
    "prices": (lambda: estimator().fit(-100 * X.abs()), ValueError, "X: expected simple returns"),
    "one row": (lambda: estimator().fit(X[:1]), ValueError, "X: expected at least two rows"),
    "one series": (lambda: estimator().fit(X["A"]), TypeError, r"X: expected returns \[time, asset\]"),
    "text": (lambda: estimator().fit(X.astype(str)), TypeError, "X: expected returns"),
    "not fitted": (lambda: estimator().predict(X), ValueError, ".*not fitted"),
    "other assets": (lambda: estimator(steps=0).fit(X[:20]).predict(X[:20][["A"]]), ValueError, "X: 1 assets, but 3"),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse(case):
    make, error, message = MISUSE[case]
    with as_users_run_it(), pytest.raises(error, match=f"^{message}"):
        make()


def test_holes_and_listings():
    """NaN returns: no price. An asset begins at 1 at the bar before its first return."""
    holed = X[:20].copy()
    holed.iloc[:7, 2], holed.iloc[12, 0] = np.nan, np.nan
    policy = js.Policy(al.EqualWeight(over="tradable"), js.Always())
    model = js.PortfolioEstimator(policy, steps=0).fit(holed)
    assert np.isfinite(model.predict(holed)).all()
    assert model.weights_[2] > 0.2
    unknown = holed.assign(C=np.nan)
    with jax.enable_x64(False), pytest.raises(ValueError, match="close: the column 'C' has no price"):
        model.predict(unknown)
