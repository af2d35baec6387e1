"""Splits by hand, against skfolio and scikit-learn, and inside of scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from skfolio.model_selection import CombinatorialPurgedCV, WalkForward
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, TimeSeriesSplit

import jaxsim as js

X = np.zeros((103, 2))


def same(ours, theirs) -> None:
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    for (a, b), (c, d) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, np.concatenate(d) if isinstance(d, list) else d)


@pytest.mark.parametrize("window", ["expanding", "rolling"])
@pytest.mark.parametrize("gap", [0, 4])
def test_walk_forward_as_skfolio(window, gap):
    theirs = WalkForward(test_size=10, train_size=30, expand_train=window == "expanding", purged_size=gap)
    same(js.WalkForwardSplits(30, 10, gap, window).split(X), theirs.split(X))


def test_expanding_as_scikit_learn():
    folds = js.WalkForwardSplits(23, 20, window="expanding")
    same(folds.split(X), TimeSeriesSplit(4, test_size=20).split(X))
    assert folds.get_n_splits(X) == 4


def test_without_a_horizon_k_fold():
    same(js.PurgedSplits(5).split(X), KFold(5).split(X))


@pytest.mark.parametrize(("horizon", "embargo"), [(0, 0), (1, 0), (3, 0), (3, 2), (0, 5)])
def test_purged_bars_by_the_definition(horizon, embargo):
    """A label rests on the prices of bars t to t + horizon: none of the training set shares one with the test set."""
    bars = np.arange(len(X))
    for splits in (js.PurgedSplits(5, horizon, embargo), js.CombinatorialSplits(5, 2, horizon, embargo)):
        for train, test in splits.split(X):
            covers = {int(t): set(range(t, t + horizon + 1)) for t in bars}
            tested = set().union(*(covers[int(t)] for t in test))
            ends = [int(t) for t in test if t + 1 not in test]
            # Between two bars of a test lies another fold's test or nothing, so that only ends have an embargo.
            after = {t + horizon + 1 + k for t in ends for k in range(embargo)}
            kept = [t for t in bars if t not in set(test) and not covers[int(t)] & tested and int(t) not in after]
            np.testing.assert_array_equal(train, kept)


@pytest.mark.parametrize("horizon", [0, 1, 3, 5])
@pytest.mark.parametrize("embargo", [0, 2])
def test_combinatorial_as_skfolio(horizon, embargo):
    ours = js.CombinatorialSplits(6, 2, horizon, embargo)
    theirs = CombinatorialPurgedCV(n_folds=6, n_test_folds=2, purged_size=horizon, embargo_size=embargo)
    whole = np.zeros((102, 2))  # where the folds are of one length in both
    same(ours.split(whole), theirs.split(whole))
    assert ours.get_n_splits() == 15 and ours.num_paths == 5 and ours.paths.shape == (5, 6)


@pytest.mark.parametrize("horizon", [0, 1, 3, 5])
def test_so_many_bars_are_purged_on_either_side(horizon):
    """By hand: of 20 bars in 4 folds, the test of bars 5 to 9."""
    train, test = js.PurgedSplits(4, horizon, embargo=1).pairs(20)[1]
    assert test.tolist() == [5, 6, 7, 8, 9]
    assert train.tolist() == [*range(5 - horizon), *range(10 + horizon + 1, 20)]


def test_paths_are_whole_histories():
    """Figure 12.1 of Lopez de Prado: of 6 folds by 2, the 5 paths test every fold once, and use every split twice."""
    splits = js.CombinatorialSplits(6, 2)
    pairs, folds = list(splits.split(X)), splits.test_folds(len(X))
    for path in splits.paths:
        for fold, number in enumerate(path):
            assert np.isin(folds[fold], pairs[number][1]).all()
    used = {(int(number), fold) for path in splits.paths for fold, number in enumerate(path)}
    assert len(used) == 30
    assert splits.paths[0].tolist() == [0, 0, 1, 2, 3, 4] and splits.paths[4].tolist() == [4, 8, 11, 13, 14, 14]


def test_they_go_into_a_grid_search():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    for splits in (js.WalkForwardSplits(30, 10, gap=2), js.PurgedSplits(4, 3, 2), js.CombinatorialSplits(4, 2, 2)):
        search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=splits).fit(X, y)
        assert search.n_splits_ == splits.get_n_splits(X)


def test_labels_and_table():
    index = pd.date_range("2021-01-01", periods=12, name="time")
    splits = js.WalkForwardSplits(4, 3, gap=1)
    (train, test), _ = splits.labels(index)
    assert list(train) == list(index[:4]) and list(test) == list(index[5:8])
    table = splits.table(index)
    assert list(table[0]) == ["train"] * 4 + [""] + ["test"] * 3 + [""] * 4
    assert table.columns.name == "split" and table.shape == (12, 2)
    assert len(splits.plot(index).data) == 8  # stretches


def ends(splits, index):
    """First and last label of train and test, split by split."""
    return [[str(x) for x in (train[0], train[-1], test[0], test[-1])] for train, test in splits.labels(index)]


def test_calendar_years():
    index = pd.bdate_range("2012-01-03", "2021-12-31")
    splits = ends(js.WalkForwardSplits("3YS", "YS", gap="MS", window="rolling"), index)
    assert len(splits) == 7
    for year, (first, cut, start, end) in zip(range(2015, 2022), splits, strict=True):
        whole = index[(index.year >= year - 3) & (index < f"{year - 1}-12-01")], index[index.year == year]
        assert [first, cut, start, end] == [str(x) for part in whole for x in (part[0], part[-1])]
    assert ends(js.WalkForwardSplits("3YS", "YS"), index[:-1])[-1][3].startswith("2020-12-31")  # 2021 is not over


def test_days_and_bars():
    """Durations of one length count from the first bar; a count of bars beside one counts bars."""
    index = pd.date_range("2021-03-26 12:00", periods=24 * 7, freq="h", tz="Europe/Berlin")  # clocks change on the 28th
    by_time, by_count = js.WalkForwardSplits("48h", "24h", "2h"), js.WalkForwardSplits(48, 24, 2)
    assert ends(by_time, index) == ends(by_count, index) == ends(js.WalkForwardSplits(48, "1D", "120min"), index)
    train, test = by_time.labels(index.delete(np.arange(50, 90)))[0]  # the test of hours 50 to 73 has no bars
    assert list(train) == list(index[:50]) and list(test) == list(index[90:98])
    train, _ = next(js.WalkForwardSplits("48h", "24h").split(pd.DataFrame(index=index)))
    assert train.tolist() == list(range(48))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: js.WalkForwardSplits(0, 5), ValueError, r"train: expected a whole number >= 1, got 0"),
        (
            lambda: js.WalkForwardSplits("1 Y", 5),
            ValueError,
            r"train: '1 Y' is no duration such as '365D' or '3YS', or a number of bars",
        ),
        (lambda: js.WalkForwardSplits(2.5, 5), ValueError, r"train: expected a duration .*, got the number 2.5"),
        (lambda: js.WalkForwardSplits(5, "-1MS"), ValueError, r"test: expected a positive duration"),
        (lambda: js.WalkForwardSplits("1YS", 5).pairs(100), TypeError, r"train: '1YS' needs .*; only their number"),
        (
            lambda: js.WalkForwardSplits(5, "1YS").pairs(pd.RangeIndex(9)),
            TypeError,
            r"test: '1YS' needs bars with a DatetimeIndex; they have RangeIndex",
        ),
        (lambda: js.WalkForwardSplits(5, 5, -1), ValueError, r"gap: expected a whole number >= 0"),
        (
            lambda: js.WalkForwardSplits(5, 5, window="sliding"),
            ValueError,
            r"window: expected 'expanding' or",
        ),
        (
            lambda: js.WalkForwardSplits(100, 5).get_n_splits(X),
            ValueError,
            r"train: 100 \+ 0 \(gap\) \+ 5",
        ),
        (lambda: js.WalkForwardSplits(5, 5).get_n_splits(), ValueError, r"X: the number of these splits depends"),
        (lambda: js.PurgedSplits(1), ValueError, r"num_folds: expected a whole number >= 2"),
        (lambda: list(js.PurgedSplits(5).split(3)), ValueError, r"num_folds: 3 bars do not make 5 folds"),
        (
            lambda: list(js.PurgedSplits(2, 80).split(X)),
            ValueError,
            r"horizon: with an embargo of 0, 80 bars",
        ),
        (lambda: js.CombinatorialSplits(4, 4), ValueError, r"num_test_folds: expected fewer than the 4 folds, got 4"),
    ],
)
def test_misuse(make, error, message):
    with pytest.raises(error, match=message):
        make()
