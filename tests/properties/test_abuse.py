"""Inputs and surroundings that people come with: dtypes, indexes, tiny markets, threads, other JAX settings."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.cases import assert_same_portfolio
from tests.helpers.markets import ASSETS, BARS, INDEX, THRESHOLDS, compilations, grouped, prices, run

CLOSE, OPEN = prices(0)
GROUPED, GROUPED_OPEN = grouped(1)
EQUAL = al.EqualWeight()


@pytest.fixture(scope="module")
def plain():
    return run(CLOSE, EQUAL, OPEN, 0.05, fees=0.01)


# --- what the frames look like


@pytest.mark.parametrize("dtype", ["int64", "Int64", "Float64", "float32", "object floats", "double[pyarrow]"])
def test_prices_of_other_dtypes(dtype):
    whole = (CLOSE * 100).round()
    expected = run(whole, EQUAL, whole, 0.05).value
    if dtype == "object floats":
        with pytest.raises(TypeError, match=r"^close: .*numeric"):
            run(whole.astype(object), EQUAL, whole, 0.05)
        return
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    close = whole.astype(dtype)
    np.testing.assert_array_equal(run(close, EQUAL, close, 0.05).value, expected)


def test_missing_values_of_nullable_prices():
    holes = CLOSE.mask(np.random.default_rng(0).random(CLOSE.shape) < 0.1)
    nullable = holes.astype("Float64")
    np.testing.assert_array_equal(run(nullable, EQUAL, OPEN).value, run(holes, EQUAL, OPEN).value)


INDEXES = {
    "integers": pd.RangeIndex(BARS),
    "steps": pd.Index(np.arange(BARS) ** 2),
    "periods": pd.period_range("2021-01", periods=BARS, freq="D"),
    "aware": pd.date_range("2021-03-01", periods=BARS, freq="D", tz="Europe/Berlin"),
    "text": pd.Index(INDEX.strftime("%Y-%m-%d")),
    "dates": pd.Index(list(INDEX.date), dtype=object),
    "nanoseconds": INDEX.as_unit("ns"),
    "durations": pd.timedelta_range("0h", periods=BARS, freq="h"),
}


@pytest.mark.parametrize("name", INDEXES)
def test_time_indexes(name, plain):
    index = INDEXES[name]
    close, open_ = CLOSE.set_axis(index), OPEN.set_axis(index)
    bt = run(close, EQUAL, open_, 0.05, fees=pd.Series(0.01, index))
    np.testing.assert_array_equal(bt.value, plain.value)
    pd.testing.assert_index_equal(bt.value.index, index)
    assert list(bt.orders["timestamp"]) == list(index[plain.records["idx"]])
    pd.testing.assert_index_equal(bt.rebalance_index, index[np.asarray(plain.rebalances)])
    pd.testing.assert_index_equal(bt.allocations.weights.index, bt.rebalance_index)
    again = js.replay(bt.allocations, close, open=open_, fees=0.01)
    np.testing.assert_array_equal(again.value, plain.value)
    told = run(close, EQUAL, open_, 0.05, fees=0.01, freq="1D")
    assert told.sharpe_ratio() == pytest.approx(plain.sharpe_ratio())
    assert told.stats()["End Value"] == plain.value.iloc[-1]
    with pytest.raises(js.AllocationError, match="bar 4"):
        run(close, nan_at_four, open_, 0.0)


def nan_at_four(obs):
    return jnp.full(obs.num_assets, jnp.where(obs.step == 4, jnp.nan, 0.3))


def test_a_regular_index_tells_its_freq():
    assert run(CLOSE, EQUAL, OPEN).ann_factor == 365.0
    hours = CLOSE.set_axis(pd.date_range("2021-01-01", periods=BARS, freq="h"))
    assert run(hours, EQUAL).ann_factor == 8760.0
    assert run(hours, EQUAL, year_freq="252D").ann_factor == 252 * 24
    periods = CLOSE.set_axis(pd.period_range("2021-01-01", periods=BARS, freq="h"))
    assert run(periods, EQUAL).ann_factor == 8760.0


def test_time_and_assets_of_the_same_labels():
    """Three bars of three assets, all named 0, 1, 2: a Series cannot tell which it is by."""
    close = pd.DataFrame(CLOSE.to_numpy()[:3])
    with pytest.raises(ValueError, match=r"^fees: "):
        run(close, EQUAL, close, fees=pd.Series([0.0, 0.01, 0.02]))


COLUMNS = {
    "integers": pd.Index([10, 20, 30]),
    "positions in another order": pd.Index([2, 0, 1]),
    "tuples": pd.Index([("a", 1), ("a", 2), ("b", 1)], tupleize_cols=False),
    "mixed": pd.Index(["a", 1, 2.5], dtype=object),
    "dates": pd.date_range("2020", periods=3),
    "categories": pd.CategoricalIndex(["x", "y", "z"], name="c"),
    "words of ours": pd.Index(["asset", "id", "size"], name="fees"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_column_names(name, plain):
    columns = COLUMNS[name]
    bt = run(CLOSE.set_axis(columns, axis=1), EQUAL, OPEN.set_axis(columns, axis=1), 0.05, fees=0.01)
    np.testing.assert_array_equal(bt.value, plain.value)
    pd.testing.assert_index_equal(bt.weights.columns, columns)
    numbers = plain.records["col"]
    assert list(bt.orders["asset"]) == list(columns[numbers])
    assert list(bt.orders.columns) == list(plain.orders.columns)
    assert list(bt.allocations.weights.columns) == list(columns)
    close, open_ = CLOSE.set_axis(columns, axis=1), OPEN.set_axis(columns, axis=1)
    many = run(close, EQUAL, open_, js.grid(threshold=[0.05, 0.1]), fees=0.01, engine="reference")
    np.testing.assert_allclose(many[0.05].value, plain.value, rtol=1e-12)
    assert list(many.weights.columns.get_level_values(-1)) == list(columns) * 2
    again = js.replay(many.allocations, close, open=open_, fees=0.01, engine="reference")
    np.testing.assert_allclose(again.value, many.value, rtol=1e-12)


def test_a_series_is_one_asset():
    for name in ("gold", None, 7):
        close = CLOSE["A"].rename(name)
        bt = run(close, EQUAL, OPEN["A"].rename(name))
        assert bt.value.shape == (BARS,)
        assert list(bt.weights.columns) == ["asset" if name is None else name]
    frame = run(CLOSE[["A"]], EQUAL, OPEN[["A"]])
    np.testing.assert_array_equal(frame.value, bt.value)


def test_unnamed_levels():
    columns = pd.MultiIndex.from_tuples([("x", "A"), ("x", "B"), ("y", "A")])
    bt = run(CLOSE.set_axis(columns, axis=1), EQUAL, OPEN.set_axis(columns, axis=1), engine="reference")
    assert list(bt.lanes) == ["x", "y"]
    assert bt["x"].lanes is None
    assert len(bt.orders) == len(bt.records)


def test_the_same_asset_name_in_several_groups():
    columns = pd.MultiIndex.from_product([["x", "y", "z"], ["A"]], names=["group", "symbol"])
    bt = run(CLOSE.set_axis(columns, axis=1), EQUAL, OPEN.set_axis(columns, axis=1))
    for group, asset in zip("xyz", "ABC", strict=True):
        alone = run(CLOSE[[asset]], EQUAL, OPEN[[asset]], engine="reference")
        np.testing.assert_allclose(bt[group].value, alone.value, rtol=1e-12)
    assert list(bt.allocations.weights.columns) == ["A"]


def test_nothing_of_the_users_is_changed():
    close, open_ = GROUPED.copy(), GROUPED_OPEN.copy()
    fees, weights = pd.Series(0.01, GROUPED.columns), pd.Series(0.2, GROUPED.columns)
    features, thresholds = {"a": close * 2}, js.grid(threshold=THRESHOLDS)
    for engine in ("compiled", "reference"):
        run(close, al.FixedWeights(weights), open_, thresholds, fees=fees, features=features, engine=engine)
    pd.testing.assert_frame_equal(close, GROUPED)
    pd.testing.assert_frame_equal(open_, GROUPED_OPEN)
    assert (fees == 0.01).all()
    assert (weights == 0.2).all()
    pd.testing.assert_frame_equal(features["a"], GROUPED * 2)


def test_read_only_inputs():
    close = CLOSE.copy()
    values = close.to_numpy().copy()
    values.flags.writeable = False
    frozen = pd.DataFrame(values, INDEX, ASSETS, copy=False)
    np.testing.assert_array_equal(run(frozen, EQUAL, OPEN).value, run(CLOSE, EQUAL, OPEN).value)


# --- small and strange markets


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.parametrize("bars", [1, 2])
def test_very_short_markets(bars, engine):
    close, open_ = CLOSE.iloc[:bars], OPEN.iloc[:bars]
    for assets in (1, 3) if bars == 1 else (3,):
        bt = run(close.iloc[:, :assets], EQUAL, open_.iloc[:, :assets], engine=engine)
        assert bt.value.shape == (bars,)
        assert list(bt.rebalance_index) == [INDEX[0]]
        growth = (close / open_).iloc[0, :assets]
        assert bt.value.iloc[0] > 0
        assert np.isfinite(bt.total_return())
        assert bt.orders["side"].eq("Buy").all()
        assert bt.weights.shape == (bars, assets)
        assert growth.notna().all()
    many = run(close, EQUAL, open_, js.grid(threshold=THRESHOLDS), engine=engine)
    assert many.value.shape == (bars, 3)
    assert many.stats().shape[0] == 3 if bars > 2 else True


def test_stats_of_one_bar():
    bt = run(CLOSE.iloc[:1], EQUAL, OPEN.iloc[:1], freq="1D", engine="reference")
    assert np.isnan(bt.sharpe_ratio())
    assert bt.stats()["End Value"] == bt.value.iloc[0]
    assert isinstance(bt.returns_stats(), pd.Series)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_first_rows_without_any_price(engine):
    close, open_ = CLOSE.copy(), OPEN.copy()
    close.iloc[:5], open_.iloc[:5] = np.nan, np.nan
    bt = run(close, EQUAL, open_, 0.05, engine=engine)
    assert (bt.value.iloc[:5] == 100.0).all()
    assert bt.rebalances.iloc[:6].all()  # flat: asked at every bar until something fills
    assert list(bt.orders["timestamp"].unique()[:1]) == [INDEX[5]]
    late = run(CLOSE.iloc[5:], EQUAL, OPEN.iloc[5:], 0.05, engine=engine)
    np.testing.assert_allclose(bt.value.iloc[5:], late.value, rtol=1e-12)
    assert np.isfinite(bt.sharpe_ratio())


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_weights_of_zero(engine):
    bt = run(CLOSE, al.FixedWeights([0.0, 0.0, 0.0]), OPEN, 0.05, engine=engine)
    assert (bt.value == 100.0).all()
    assert len(bt.orders) == 0
    assert list(bt.orders.columns) == ["id", "asset", "timestamp", "size", "price", "fees", "side"]
    assert bt.num_rebalances() == BARS  # flat at every bar
    assert bt.turnover() == 0
    assert bt.total_fees() == 0
    assert bt.max_drawdown() == 0
    stats = bt.stats()
    assert stats["Total Return [%]"] == 0


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_threshold_of_zero_rebalances_at_every_bar(engine):
    assert run(CLOSE, EQUAL, OPEN, 0.0, engine=engine).rebalances.all()
    late = run(CLOSE, EQUAL, OPEN, 0.0, min_history=BARS - 1, engine=engine)
    assert list(late.rebalance_index) == [INDEX[-1]]


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_never_is_bought_once_and_held(engine):
    bt = js.backtest(CLOSE, EQUAL, open=OPEN, engine=engine)
    assert list(bt.rebalance_index) == [INDEX[0]]
    assert (bt.units == bt.units.iloc[0]).all().all()


def test_a_long_market_of_one_asset():
    close = pd.DataFrame({"A": np.exp(np.random.default_rng(0).normal(0, 0.01, 20_000).cumsum())})
    bt = run(close, al.FixedWeights([0.5]), close, 0.02, freq="1h")
    assert bt.num_rebalances() > 256  # more than a page
    assert_same_portfolio(bt, run(close, al.FixedWeights([0.5]), close, 0.02, freq="1h", engine="reference"))


def test_features_as_frame_series_array_and_dict():
    rows = np.arange(float(BARS))
    seen = {}

    def look(obs):
        seen[int(obs.step)] = obs.features
        return np.full(3, 0.3)

    for features in (pd.Series(rows, INDEX), rows, rows.astype(int)):
        run(CLOSE, look, OPEN, 0.0, features=features, engine="reference")
        assert [float(v) for v in seen.values()] == list(rows)
    nested = {"a": pd.DataFrame({"x": rows, "y": -rows}, INDEX), "b": (rows, rows > 3)}
    run(CLOSE, look, OPEN, 0.0, features=nested, engine="reference")
    np.testing.assert_array_equal(seen[7]["a"], [7, -7])
    assert seen[7]["b"][1]
    compiled = run(CLOSE, by_features, OPEN, 0.0, features=nested)
    np.testing.assert_allclose(compiled.allocations.weights["A"], rows / 1000, rtol=1e-12)


def by_features(obs):
    return jnp.full(obs.num_assets, obs.features["a"][0] / 1000)


# --- surroundings


def test_inside_and_outside_of_x64(plain):
    with jax.enable_x64(True):
        inside = run(CLOSE, EQUAL, OPEN, 0.05, fees=0.01)
    with jax.enable_x64(False):
        outside = run(CLOSE, EQUAL, OPEN, 0.05, fees=0.01)
    np.testing.assert_array_equal(inside.value, plain.value)
    np.testing.assert_array_equal(outside.value, plain.value)
    assert outside.value.dtype == np.float64
    assert not jax.config.jax_enable_x64


def test_from_a_worker_thread(plain):
    results = {}

    def work(name):
        results[name] = run(CLOSE, EQUAL, OPEN, 0.05, fees=0.01).value

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    for value in results.values():
        np.testing.assert_array_equal(value, plain.value)


@pytest.mark.slow
def test_without_jit():
    bt = run(CLOSE.iloc[:2], EQUAL, OPEN.iloc[:2], 0.01)
    with jax.disable_jit():
        slow = run(CLOSE.iloc[:2], EQUAL, OPEN.iloc[:2], 0.01)
    np.testing.assert_allclose(slow.value, bt.value, rtol=1e-12)
    assert len(slow.orders) == len(bt.orders)


def test_under_debug_nans():
    """As the docs advise, with the reference engine: NaN that is meant does not stop it."""
    with jax.debug_nans(True):
        bt = run(CLOSE, EQUAL, OPEN, 0.05, fees=0.01, engine="reference")
    assert bt.value.notna().all()


def test_values_do_not_recompile(plain):
    """Other prices, thresholds, fees, weights, cash, keys and labels run the same programs."""

    def go(seed):
        close, open_ = prices(seed)
        rng = np.random.default_rng(seed)
        fees = js.grid(fees=np.sort(rng.uniform(0, 0.01, 2)))
        thresholds = js.grid(threshold=np.sort(rng.uniform(0.01, 0.1, 3)))
        weights = al.FixedWeights(rng.dirichlet(np.ones(3)))
        run(close, weights, open_, thresholds, fees=fees, init_cash=100.0 + seed, min_history=seed % 3, key=seed)
        run(close, weights, open_, 0.01 + 0.01 * rng.random(), fees=0.01 * rng.random())
        groups = grouped(seed)
        run(groups[0], al.RandomWeights(), groups[1], thresholds, fees=rng.random(5) / 100, key=seed)

    go(1)
    with compilations() as count:
        go(2)
        go(3)
    assert count == [0]


def test_forms_of_a_number_share_a_program():
    run(CLOSE, EQUAL, OPEN, 0.05, fees=0.01)
    forms = (0.0, 0, np.float32(0.01), np.array(0.02), np.array([0.02]), jnp.float32(0.01))
    with compilations() as count:
        for fees in forms:
            run(CLOSE, EQUAL, OPEN, 0.05, fees=fees)
            run(CLOSE, EQUAL, OPEN, np.float64(0.1), fees=fees, min_history=np.int32(1), init_cash=100)
    assert count == [0]
