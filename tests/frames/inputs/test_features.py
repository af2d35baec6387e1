"""Features: what pandas computes, nothing of the future, labels kept, one row of each group's own assets."""

import inspect

import jax
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim import features as jf
from tests.helpers.markets import ASSETS, BARS, INDEX, as_users_run_it, grouped, prices, run, with_holes

CLOSE, OPEN = with_holes(*prices())
FULL = CLOSE.ffill()
DAILY = FULL.pct_change(fill_method=None)
MOVES = FULL.diff()

#: Every feature: what it is called with, and the same in pandas.
CASES = {
    "returns": (lambda: jf.returns(CLOSE), lambda: DAILY.shift()),
    "returns over bars": (lambda: jf.returns(CLOSE, 5), lambda: FULL.pct_change(5, fill_method=None).shift()),
    "momentum": (lambda: jf.momentum(CLOSE, 7), lambda: FULL.pct_change(7, fill_method=None).shift()),
    "momentum that skips": (lambda: jf.momentum(CLOSE, 7, 3), lambda: FULL.pct_change(7, fill_method=None).shift(4)),
    "volatility": (lambda: jf.volatility(CLOSE, 6), lambda: DAILY.rolling(6).std().shift()),
    "moving_average": (lambda: jf.moving_average(CLOSE, 6), lambda: FULL.rolling(6).mean().shift()),
    "price_to_average": (lambda: jf.price_to_average(CLOSE, 6), lambda: (FULL / FULL.rolling(6).mean() - 1).shift()),
    "average_crossover": (
        lambda: jf.average_crossover(CLOSE, 3, 9),
        lambda: (FULL.rolling(3).mean() / FULL.rolling(9).mean() - 1).shift(),
    ),
    "rsi": (
        lambda: jf.rsi(CLOSE, 5),
        lambda: (MOVES.clip(lower=0).rolling(5).sum() / MOVES.abs().rolling(5).sum()).shift(),
    ),
    "drawdown_from_high": (lambda: jf.drawdown_from_high(CLOSE, 6), lambda: (FULL / FULL.rolling(6).max() - 1).shift()),
    "gap": (lambda: jf.gap(OPEN, CLOSE), lambda: OPEN / FULL.shift() - 1),
    "lag": (lambda: jf.lag(CLOSE, 2), lambda: CLOSE.shift(2)),
    "zscore": (
        lambda: jf.zscore(CLOSE, min_periods=4),
        lambda: (CLOSE - CLOSE.expanding(4).mean()) / CLOSE.expanding(4).std(),
    ),
    "zscore of a window": (
        lambda: jf.zscore(FULL, 8),
        lambda: (FULL - FULL.rolling(8).mean()) / FULL.rolling(8).std(),
    ),
    "cross_zscore": (
        lambda: jf.cross_zscore(CLOSE),
        lambda: CLOSE.sub(CLOSE.mean(axis=1), axis=0).div(CLOSE.std(axis=1), axis=0).fillna(CLOSE * 0),
    ),
}
#: How to call each on a table or array of prices.
CALLS = {
    "returns": lambda x: jf.returns(x, 2),
    "momentum": lambda x: jf.momentum(x, 5, 2),
    "volatility": lambda x: jf.volatility(x, 4),
    "moving_average": lambda x: jf.moving_average(x, 4),
    "price_to_average": lambda x: jf.price_to_average(x, 4),
    "average_crossover": lambda x: jf.average_crossover(x, 2, 6),
    "rsi": lambda x: jf.rsi(x, 4),
    "drawdown_from_high": lambda x: jf.drawdown_from_high(x, 4),
    "gap": lambda x: jf.gap(x, x),
    "lag": lambda x: jf.lag(x),
    "zscore": lambda x: jf.zscore(x, min_periods=5),
    "zscore of a window": lambda x: jf.zscore(x, 5),
    "cross_zscore": jf.cross_zscore,
}
#: Those which may look at the row of their own bar: it is known at its open.
OF_THE_BAR = {"gap", "zscore", "zscore of a window", "cross_zscore"}


@pytest.mark.parametrize("name", CASES)
def test_as_pandas_computes_it(name):
    got, expected = (make() for make in CASES[name])
    pd.testing.assert_frame_equal(got, expected, rtol=1e-10, atol=1e-13)
    assert got.notna().any().all()


def test_every_feature_is_tested():
    public = {name for name in jf.__all__ if name != "stack"}
    assert public == {name.split()[0] for name in CALLS} == {name.split()[0] for name in CASES}
    assert all(inspect.isfunction(getattr(jf, name)) for name in jf.__all__)


@pytest.mark.parametrize("name", CALLS)
def test_the_future_changes_nothing(name):
    """Other prices from bar t on, all holes among them: rows before t (and, of closes, row t) are bit for bit the
    same, as if the series ended there. Later ones are not, or the test would say nothing."""
    before = CALLS[name](CLOSE)
    other = prices(9)[0] * 3
    is_past = {bar: np.tile(np.arange(BARS)[:, None] < bar, 3) for bar in range(BARS)}
    for bar in (0, 1, 13, 31, BARS - 1):
        known = bar + (name not in OF_THE_BAR)
        for future in (other, other * np.nan):
            after = CALLS[name](CLOSE.where(is_past[bar], future))
            pd.testing.assert_frame_equal(after.iloc[:known], before.iloc[:known], check_exact=True)
        if 1 <= bar < BARS - 8:
            changed = CALLS[name](CLOSE.where(is_past[bar], other))
            assert not changed.iloc[known:].equals(before.iloc[known:])
        cut = CALLS[name](CLOSE.iloc[: max(known, 1)]).iloc[:known]
        pd.testing.assert_frame_equal(cut, before.iloc[:known], check_exact=True, check_freq=False)


def test_arrays_and_jax():
    """NumPy as pandas; JAX to rounding, in the dtype that it is given, under jit, with finite derivatives."""
    x = CLOSE.to_numpy()
    every = {name: np.asarray(call(CLOSE)) for name, call in CALLS.items()}
    for name, call in CALLS.items():
        np.testing.assert_array_equal(call(x), every[name], err_msg=name)
        assert call(x.astype(np.float32)).dtype == np.float32, name

    def total(x):
        every = {name: call(x) for name, call in CALLS.items()}
        return sum(jax.numpy.nansum(out) for out in every.values()), every

    with jax.enable_x64(True):
        out = jax.jit(jax.value_and_grad(total, has_aux=True))(x)
    (_, compiled), slope = jax.tree.map(np.asarray, out)
    for name, out in compiled.items():
        np.testing.assert_allclose(out, every[name], rtol=1e-9, atol=1e-12, err_msg=name)
    assert np.isfinite(slope).all() and np.any(slope != 0)


def test_what_has_not_moved():
    flat = pd.DataFrame(7.3, INDEX, ASSETS)
    assert (jf.volatility(flat, 5).dropna() == 0).all(axis=None)
    assert (jf.rsi(flat, 5).dropna() == 0.5).all(axis=None)
    for z in (jf.zscore(flat, 5), jf.zscore(flat, min_periods=5), jf.cross_zscore(flat), jf.cross_zscore(flat[["A"]])):
        assert (z.dropna() == 0).all(axis=None) and z.notna().any().all()


def test_series_and_labels():
    series = jf.momentum(CLOSE["A"], 5)
    pd.testing.assert_series_equal(series, jf.momentum(CLOSE, 5)["A"])
    shuffled = jf.gap(OPEN, CLOSE[["C", "A", "B"]])
    pd.testing.assert_frame_equal(shuffled, jf.gap(OPEN, CLOSE))


# --- several of them


def test_stack():
    rate = pd.Series(np.linspace(0, 1, BARS), INDEX)
    table = jf.stack({"a": CLOSE, "b": OPEN[["B", "C", "A"]]}, rate=rate)
    assert table.columns.names == ["feature", "symbol"]
    pd.testing.assert_frame_equal(table["b"], OPEN)
    assert (table["rate"].eq(rate, axis=0)).all(axis=None)
    cube = np.stack([CLOSE, OPEN, np.tile(rate.to_numpy()[:, None], 3)], axis=-1)
    np.testing.assert_array_equal(jf.stack(a=CLOSE.to_numpy(), b=OPEN.to_numpy()), cube[..., :2])
    with jax.enable_x64(True):
        shuffled = table.reindex(columns=["C", "A", "B"], level="symbol")
        for given in (table, shuffled):
            np.testing.assert_array_equal(js.Market.from_frames(CLOSE, features={"x": given}).features["x"], cube)
    pd.testing.assert_frame_equal(jf.zscore(table, 5)["a"], jf.zscore(CLOSE, 5))


def seen(obs):
    """Weights by the features of the very assets of the group."""
    return jax.nn.softmax(obs.features[:, 0])


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_groups_see_their_own_assets(engine):
    close, open_ = grouped()
    table = jf.stack(strength=close / 100)
    both = run(close, seen, open_, 0.02, features=table, engine=engine)
    plan = js.optimize(close, seen, on=INDEX[[10, 30, 50]], features=table, engine=engine)
    for group in ("tech", "bank"):
        own = table.xs(group, axis=1, level="sector")
        alone = run(close[group], seen, open_[group], 0.02, features=own, engine="reference")
        np.testing.assert_allclose(both[group].value, alone.value, rtol=1e-12)
        strength = np.exp(close[group].iloc[[30, 50]] / 100)
        expected = strength.div(strength.sum(axis=1), axis=0)
        np.testing.assert_allclose(plan[group].weights[expected.columns], expected, rtol=1e-12)


# --- misuse

TABLE = jf.stack(a=CLOSE)
MISUSE = {
    "no window": (lambda: jf.returns(CLOSE, 0), ValueError, "window: expected a whole number >= 1, got 0"),
    "half a window": (lambda: jf.momentum(CLOSE, 2.5), ValueError, "window: .*whole number"),
    "a window of an index": (lambda: jf.rsi(CLOSE, js.grid(window=[2, 3])), ValueError, "window: "),
    "no window at all": (lambda: jf.rsi(CLOSE, None), ValueError, "window: "),
    "negative lag": (lambda: jf.lag(CLOSE, -1), ValueError, "bars: expected a whole number >= 0, got -1"),
    "negative skip": (lambda: jf.momentum(CLOSE, 3, skip=-1), ValueError, "skip: "),
    "one return has no volatility": (lambda: jf.volatility(CLOSE, 1), ValueError, "window: .*at least 2"),
    "one row has no deviation": (lambda: jf.zscore(CLOSE, 1), ValueError, "window: .*at least 2"),
    "one row so far": (lambda: jf.zscore(CLOSE, min_periods=1), ValueError, "min_periods: .*at least 2"),
    "unsorted": (lambda: jf.returns(CLOSE[::-1]), ValueError, "close: the time index is not sorted"),
    "text": (lambda: jf.returns(CLOSE.astype(str)), TypeError, "close: the column 'A' is not numeric"),
    "a list": (lambda: jf.returns([1.0, 2.0]), TypeError, "close: expected a DataFrame"),
    "one number": (lambda: jf.returns(np.float64(2)), ValueError, "close: expected"),
    "nothing": (lambda: jf.returns(CLOSE.iloc[:0]), ValueError, "close: .*empty"),
    "other times": (lambda: jf.gap(OPEN.iloc[1:], CLOSE), ValueError, "close: its time index"),
    "other assets": (lambda: jf.gap(OPEN, CLOSE[["A"]]), ValueError, "close: its columns"),
    "a table and an array": (lambda: jf.gap(OPEN, CLOSE.to_numpy()), TypeError, "close: expected a DataFrame"),
    "an array and a table": (lambda: jf.gap(OPEN.to_numpy(), CLOSE), TypeError, "close: expected"),
    "arrays of other shapes": (lambda: jf.gap(np.ones((3, 2)), np.ones((3, 1))), ValueError, "close: .*alike"),
    "an empty stack": (lambda: jf.stack(), ValueError, "features: expected one or more"),
    "unnamed features": (lambda: jf.stack({1: CLOSE}), ValueError, "features: .*by name"),
    "a stack of stacks": (lambda: jf.stack(b=TABLE), ValueError, "features: .*'feature' already"),
    "a stack of other times": (lambda: jf.stack(a=CLOSE, b=OPEN.iloc[1:]), ValueError, "b: its time index"),
    "a stack of a number": (lambda: jf.stack(a=CLOSE, b=3.0), TypeError, "b: expected a DataFrame or a Series"),
    "a stack for other assets": (
        lambda: run(CLOSE[["A", "B"]], al.Linear(1), features=TABLE),
        ValueError,
        "features: its columns .* are not those of close",
    ),
    "a stack of other bars": (
        lambda: run(CLOSE, al.Linear(1), features=TABLE.iloc[1:]),
        ValueError,
        "features: the time index is not that of close",
    ),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse(case):
    make, error, message = MISUSE[case]
    with as_users_run_it(), pytest.raises(error, match=f"^{message}"):
        make()
