"""What allocators see and what becomes of their answers: in both engines, one lane and many."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.cases import assert_same_portfolio
from tests.helpers.markets import ASSETS, BARS, INDEX, THRESHOLDS, as_users_run_it, grouped, prices, run, with_holes

CLOSE, OPEN = prices(0)
HOLES, HOLES_OPEN = with_holes(CLOSE, OPEN)
GROUPED, GROUPED_OPEN = grouped(1)
LISTED = 20
ENGINES = ["compiled", "reference"]


@pytest.fixture
def untyped():
    """For answers that are legal though no arrays: lists, NumPy scalars."""
    with as_users_run_it():
        yield


# --- naive ones


def flat_prices() -> pd.DataFrame:
    """Prices that never move; C is listed at bar 20."""
    close = pd.DataFrame(10.0, INDEX, ASSETS)
    close.iloc[:LISTED, 2] = np.nan
    return close


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("with_open", "bar"), [(True, LISTED), (False, LISTED + 1)])
def test_equal_weight_over_all_buys_what_gets_listed(engine, with_open, bar):
    """Its present weight is 0 from its first price, which is 1/3 off its target; the valuation price of the bar of
    its first close is that bar's open, where there is one."""
    close = flat_prices()
    bt = run(close, al.EqualWeight(), close if with_open else None, 0.3, engine=engine)
    # without an open nothing can be valued at bar 0: the first orders fill at bar 1
    first = [0] if with_open else [0, 1]
    assert list(bt.rebalance_index) == list(INDEX[[*first, bar]])
    np.testing.assert_allclose(bt.allocations.weights, 1 / 3)
    np.testing.assert_allclose(bt.weights.iloc[bar - 1], [1 / 3, 1 / 3, 0], atol=1e-12)
    np.testing.assert_allclose(bt.weights.iloc[bar], [1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_listing_below_the_threshold_triggers_nothing(engine):
    close = flat_prices()
    bt = run(close, al.EqualWeight(), close, 0.34, engine=engine)
    assert list(bt.rebalance_index) == [INDEX[0]]
    exactly = run(close, al.EqualWeight(), close, 1 / 3, engine=engine)
    assert list(exactly.rebalance_index) == list(INDEX[[0, LISTED]])


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_weight_over_tradable_remembers_zero(engine):
    close = flat_prices()
    bt = run(close, al.EqualWeight(over="tradable"), close, 0.01, engine=engine)
    assert list(bt.rebalance_index) == [INDEX[0]]
    np.testing.assert_allclose(bt.allocations.weights, [[0.5, 0.5, 0.0]])
    np.testing.assert_allclose(bt.weights, np.tile([0.5, 0.5, 0], (BARS, 1)), atol=1e-12)


def test_equal_weight_refuses():
    with pytest.raises(ValueError, match=r"^over: "):
        al.EqualWeight(over="some")


@pytest.mark.parametrize("engine", ENGINES)
def test_fixed_weights_in_every_form(engine):
    w = [0.5, 0.2, 0.1]
    series = pd.Series(w, list("ABC"))
    forms = [w, tuple(w), np.array(w), series, series[["C", "A", "B"]], jnp.asarray(w, jnp.float32)]
    first, *rest = (run(CLOSE, al.FixedWeights(x), OPEN, 0.05, engine=engine) for x in forms)
    np.testing.assert_allclose(first.allocations.weights, np.tile(w, (len(first.allocations), 1)), rtol=1e-15)
    for bt in rest[:-1]:
        np.testing.assert_array_equal(bt.value, first.value)
    np.testing.assert_allclose(rest[-1].value, first.value, rtol=1e-5)
    whole = run(CLOSE, al.FixedWeights([0, 1, 0]), OPEN, 0.05, engine=engine)
    assert set(whole.orders["asset"]) == {"B"}


def test_fixed_weights_by_group_and_asset():
    weights = pd.Series([0.1, 0.2, 0.3, 0.4, 0.6], GROUPED.columns)
    bt = run(GROUPED, al.FixedWeights(weights.sample(frac=1, random_state=1)), GROUPED_OPEN)
    np.testing.assert_allclose(bt.allocations["tech"].weights.iloc[0], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(bt.allocations["bank"].weights.iloc[0], [0.4, 0.6])


@pytest.mark.parametrize("engine", ENGINES)
def test_random_weights_are_the_documented_draws(engine):
    bt = run(CLOSE, al.RandomWeights(), OPEN, 0.02, key=5, engine=engine)
    assert bt.num_rebalances() > 3
    for bar, target in zip(bt.allocations.bar, bt.allocations.targets, strict=True):
        u = jax.random.uniform(jax.random.fold_in(jax.random.key(5), int(bar)), (3,), jnp.float32)
        u = np.asarray(u, np.float64)
        np.testing.assert_allclose(target, u / u.sum(), rtol=1e-12)


def test_random_weights_draw_alike_in_the_core():
    """An unlabelled lane has the key itself; float32 and float64 see the same draws."""
    bt = run(CLOSE, al.RandomWeights(), OPEN, np.inf, key=5)
    policy = js.Policy(al.RandomWeights(), js.Threshold(np.inf))
    save = js.Save(events=True)
    with jax.enable_x64(True):
        sim = js.simulate(js.Market.from_frames(CLOSE, open=OPEN), policy, key=5, save=save)
        np.testing.assert_allclose(sim.events.target[0], bt.allocations.targets[0], rtol=1e-12)
        np.testing.assert_allclose(sim.value, bt.value, rtol=1e-12)
    market = js.Market.from_frames(CLOSE, open=OPEN, dtype=np.float32)
    single = js.simulate(market, policy, key=jax.random.key(5), save=save)
    assert single.value.dtype == jnp.float32
    np.testing.assert_allclose(single.events.target[0], bt.allocations.targets[0], rtol=1e-6)


# --- functions and Modules


def momentum(obs):
    mean = obs.window(10).mean_return()
    return jax.nn.softmax(20.0 * jnp.nan_to_num(mean))


class Momentum(eqx.Module):
    sharpness: Any

    def __call__(self, obs):
        return jax.nn.softmax(self.sharpness * jnp.nan_to_num(obs.window(10).mean_return()))


class Tilted(eqx.Module):
    """The first asset is given `tilt`, the others share the rest."""

    tilt: Any

    def __call__(self, obs):
        rest = (1 - self.tilt) / (obs.num_assets - 1)
        return jnp.where(jnp.arange(obs.num_assets) == 0, self.tilt, rest)


def test_a_module_with_a_swept_parameter():
    bt = run(CLOSE, Momentum(js.grid(sharpness=[0.0, 20.0])), OPEN, js.grid(threshold=THRESHOLDS))
    assert bt.lanes.names == ["sharpness", "threshold"]
    np.testing.assert_allclose(bt[0.0].allocations.weights, 1 / 3, rtol=1e-12)
    plain = run(CLOSE, momentum, OPEN, js.grid(threshold=THRESHOLDS))
    np.testing.assert_allclose(bt[20.0].value, plain.value, rtol=1e-12)
    np.testing.assert_array_equal(bt[20.0].rebalances, plain.rebalances)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("policy", [Tilted(0.37), momentum], ids=["tilted", "momentum"])
def test_engines_agree_on_traced_weights(policy, lanes):
    """Weights that are computed inside the program, so that XLA may fuse them with the orders."""
    threshold = 0.02 if lanes == 1 else js.grid(threshold=THRESHOLDS)
    for seed in range(4):
        close, open_ = prices(seed)
        bt = run(close, policy, open_, threshold, fees=0.01)
        assert_same_portfolio(bt, run(close, policy, open_, threshold, fees=0.01, engine="reference"))


# --- state and recorded arrays


class Memory(eqx.Module):
    """Counts its calls and the bars that it sees, and records what it can."""

    def init(self, num_assets):
        return {"asked": np.zeros(()), "seen": np.zeros(()), "opens": np.zeros(num_assets)}

    def __call__(self, obs, state):
        state = state | {"asked": state["asked"] + 1}
        weights = jnp.full(obs.num_assets, 1 / obs.num_assets)
        aux = {"asked": state["asked"], "seen": state["seen"], "opens": state["opens"], "two": jnp.ones(2)}
        return js.Allocation(weights, aux=aux), state

    def observe(self, obs, state):
        state = state | {"seen": state["seen"] + 1, "opens": obs.val_price}
        return state, {"count": state["seen"], "open": obs.val_price, "calls": state["asked"]}


class Silent(eqx.Module):
    """Keeps a state and observes, but records nothing."""

    def init(self, num_assets):
        return np.zeros(())

    def __call__(self, obs, state):
        weights = jnp.full(obs.num_assets, 1 / obs.num_assets) * (1 - 0.01 * state)
        return js.Allocation(weights), state

    def observe(self, obs, state):
        return state + 0.1


class Counter(eqx.Module):
    """A state without `observe`."""

    def init(self, num_assets):
        return np.zeros((), np.int32)

    def __call__(self, obs, state):
        aux = {"calls": state}
        return js.Allocation(jnp.full(obs.num_assets, 1 / obs.num_assets), aux=aux), state + 1


@pytest.mark.parametrize("engine", ENGINES)
def test_state_is_updated_at_rebalances_and_by_observe_at_every_bar(engine, untyped):
    bt = run(CLOSE, Memory(), OPEN, 0.05, engine=engine)
    aux, bars = bt.aux, np.flatnonzero(bt.rebalances)
    assert 3 < len(bars) < BARS
    assert set(aux) == {"asked", "seen", "opens", "two", "count", "open", "calls"}
    pd.testing.assert_index_equal(aux["asked"].index, bt.allocations.weights.index)
    np.testing.assert_array_equal(aux["asked"], np.arange(1, len(bars) + 1))
    np.testing.assert_array_equal(aux["seen"], bars + 1)  # of the same bar: observe comes first
    pd.testing.assert_index_equal(aux["opens"].columns, ASSETS)
    np.testing.assert_allclose(aux["opens"], OPEN.iloc[bars], rtol=1e-15)  # the open is all that observe sees
    assert aux["two"].shape == (len(bars), 2)
    assert isinstance(aux["count"], pd.Series)
    pd.testing.assert_index_equal(aux["count"].index, INDEX)
    np.testing.assert_array_equal(aux["count"], np.arange(1, BARS + 1))
    pd.testing.assert_index_equal(aux["open"].columns, ASSETS)
    np.testing.assert_allclose(aux["open"], OPEN, rtol=1e-15)
    # at a bar that trades, observe has not heard of it yet
    np.testing.assert_array_equal(aux["calls"], np.cumsum(bt.rebalances) - bt.rebalances)


@pytest.mark.parametrize("engine", ENGINES)
def test_recorded_arrays_of_many_lanes(engine, untyped):
    bt = run(CLOSE, Memory(), OPEN, js.grid(threshold=THRESHOLDS), engine=engine)
    aux = bt.aux
    pd.testing.assert_index_equal(aux["asked"].index, bt.allocations.weights.index)
    for threshold in THRESHOLDS:
        asked = aux["asked"].loc[threshold]
        np.testing.assert_array_equal(asked, np.arange(1, len(asked) + 1))
    assert list(aux["opens"].columns) == list("ABC")
    pd.testing.assert_index_equal(aux["count"].columns, bt.lanes)
    expected = pd.MultiIndex.from_product([THRESHOLDS, ASSETS], names=["threshold", "symbol"])
    pd.testing.assert_index_equal(aux["open"].columns, expected)
    np.testing.assert_allclose(aux["open"][0.05], OPEN, rtol=1e-15)
    one = bt[0.05]
    pd.testing.assert_series_equal(one.aux["asked"], run(CLOSE, Memory(), OPEN, 0.05, engine=engine).aux["asked"])


@pytest.mark.parametrize("engine", ENGINES)
def test_recorded_arrays_of_groups_of_different_sizes(engine, untyped):
    """Numbers come back as they do otherwise; arrays by asset as `allocations.weights` does."""
    bt = run(GROUPED, Memory(), GROUPED_OPEN, 0.05, engine=engine)
    np.testing.assert_array_equal(bt["bank"].aux["open"], GROUPED_OPEN["bank"])
    aux = bt.aux
    pd.testing.assert_index_equal(aux["asked"].index, bt.allocations.weights.index)
    assert aux["count"].shape == (BARS, 2)
    assert list(aux["opens"].columns) == list("ABCD")
    assert aux["opens"].loc["tech"]["D"].isna().all()
    np.testing.assert_allclose(aux["open"]["bank"], GROUPED_OPEN["bank"])


def test_recorded_arrays_follow_the_assets_of_their_group():
    """Two groups of one size whose assets stand in another order: labels, not positions."""
    columns = pd.MultiIndex.from_tuples([("x", "A"), ("x", "B"), ("y", "B"), ("y", "A")], names=["group", "symbol"])
    close, open_ = prices(6, columns)
    bt = run(close, Memory(), open_, 0.05)
    for group in "xy":
        opens = bt.aux["opens"].loc[group]
        for asset in "AB":
            expected = open_[group, asset].loc[opens.index]
            np.testing.assert_allclose(opens[asset], expected, rtol=1e-12, err_msg=f"{group} {asset}")
            np.testing.assert_allclose(bt.aux["open"][group][asset], open_[group, asset], rtol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_states_without_records(engine, untyped):
    silent = run(CLOSE, Silent(), OPEN, 0.05, engine=engine)
    assert silent.aux == {}
    bars = np.flatnonzero(silent.rebalances)
    expected = (1 - 0.001 * (bars + 1)) / 3
    np.testing.assert_allclose(silent.allocations.weights["A"], expected, rtol=1e-12)
    counter = run(CLOSE, Counter(), OPEN, 0.05, engine=engine)
    np.testing.assert_array_equal(counter.aux["calls"], np.arange(counter.num_rebalances()))


def test_a_recorded_array_without_any_rebalance():
    bt = run(CLOSE, Counter(), OPEN, 0.05, min_history=1000)  # the reference engine has not seen its name
    assert len(bt.aux["calls"]) == 0


# --- assets that are left alone


def leaves_the_first(obs):
    mask = jnp.arange(obs.num_assets) == 0
    return js.Allocation(jnp.where(mask, jnp.nan, 0.3), skip=mask)


def skips_once_held(obs):
    """Buys all, then leaves A alone for ever."""
    mask = (jnp.arange(obs.num_assets) == 0) & (obs.step > 0)
    return js.Allocation(jnp.full(obs.num_assets, 0.3), skip=mask)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_skipped_asset_is_left_alone(engine):
    bt = run(CLOSE, leaves_the_first, OPEN, 0.02, engine=engine)
    assert bt.allocations.weights["A"].isna().all()
    assert "A" not in set(bt.orders["asset"])
    assert (bt.units["A"] == 0).all()
    held = run(CLOSE, skips_once_held, OPEN, 0.02, engine=engine)
    assert held.num_rebalances() > 2
    assert (held.units["A"] == held.units["A"].iloc[0]).all()
    assert held.orders.query("asset == 'A'")["timestamp"].tolist() == [INDEX[0]]
    np.testing.assert_array_equal(held.allocations.weights["A"].isna(), np.arange(held.num_rebalances()) > 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_skipped_asset_breaches_nothing(engine):
    """Only A moves, and A was left alone: once its target is NaN it moves nobody."""
    close = pd.DataFrame(10.0, INDEX, ASSETS)
    close["A"] = np.linspace(10, 11, BARS)
    bt = run(close, leaves_the_first, close, 0.05, engine=engine)
    assert bt.num_rebalances() == 1


# --- what is seen


class Witness(eqx.Module):
    """Records everything that it may see, at every bar."""

    def __call__(self, obs):
        names = ("step", "weights", "units", "value", "cash", "debt", "free_cash", "val_price", "target", "tradable")
        aux = {name: jnp.asarray(getattr(obs, name)) for name in names}
        aux |= {"window": jnp.asarray(obs.window(5).values).ravel(), "feature": jnp.asarray(obs.features["x"])}
        return js.Allocation(jnp.array([0.5, 0.3, 0.1]), aux=aux)


@pytest.mark.parametrize("engine", ENGINES)
def test_observation(engine):
    features = {"x": pd.DataFrame(np.arange(2.0 * BARS).reshape(BARS, 2), INDEX)}
    bt = run(HOLES, Witness(), HOLES_OPEN, 0.0, features=features, fees=0.002, engine=engine)
    aux = bt.aux
    bars = aux["step"].to_numpy()
    assert bt.rebalances.iloc[1:].all()
    np.testing.assert_array_equal(bars, np.flatnonzero(bt.rebalances))
    both = pd.concat([HOLES_OPEN, HOLES], keys=[0, 1]).swaplevel().sort_index().ffill()  # open, close, open, ...
    val_price = both.xs(0, level=1).to_numpy()[bars]
    units = bt.units.shift(1, fill_value=0.0).to_numpy()[bars]
    cash = bt.cash.shift(1, fill_value=100.0).to_numpy()[bars]
    held = np.where(np.isnan(val_price), 0, units * val_price)
    value = cash + held.sum(axis=1)
    np.testing.assert_allclose(aux["val_price"], val_price, rtol=1e-15)
    np.testing.assert_array_equal(aux["tradable"], ~np.isnan(val_price))
    np.testing.assert_allclose(aux["units"], units, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(aux["cash"], cash, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(aux["free_cash"], cash, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(aux["debt"], np.zeros((len(bars), 3)))
    np.testing.assert_allclose(aux["value"], value, rtol=1e-12)
    np.testing.assert_allclose(aux["weights"], held / value[:, None], rtol=1e-12, atol=1e-12)
    assert not np.isnan(aux["weights"].to_numpy()).any()
    target = aux["target"].to_numpy()
    assert np.isnan(target[0]).all()
    np.testing.assert_allclose(target[1:], np.tile([0.5, 0.3, 0.1], (len(bars) - 1, 1)), rtol=1e-15)
    np.testing.assert_array_equal(aux["feature"], features["x"].iloc[bars])
    padded = np.concatenate([np.full((5, 3), np.nan), HOLES.to_numpy()])
    windows = np.stack([padded[b : b + 5].ravel() for b in bars])
    np.testing.assert_array_equal(aux["window"], windows)


def test_the_lane_key_is_folded_with_the_bar():
    seen = []

    def look(obs):
        seen.append((int(obs.step), np.asarray(jax.random.key_data(obs.key))))
        return np.full(3, 0.3)

    run(CLOSE, look, OPEN, 0.05, key=jax.random.key(7), engine="reference")
    assert len(seen) > 2
    for step, data in seen:
        np.testing.assert_array_equal(data, jax.random.key_data(jax.random.fold_in(jax.random.key(7), step)))


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_window_statistics_are_those_of_pandas(kind):
    rng = np.random.default_rng(2)
    values = 100 * np.exp(rng.normal(0, 0.02, (30, 4)).cumsum(axis=0))
    values[rng.random(values.shape) < 0.15] = np.nan
    values[:, 2] = np.nan  # nothing at all
    values[3:, 3] = np.nan
    values[:3, 3] = [1.0, 2.0, 3.0]  # two returns
    returns = pd.DataFrame(values).pct_change(fill_method=None).iloc[1:]
    with jax.enable_x64(True):
        window = js.Window(kind(values))
        np.testing.assert_allclose(window.returns(), returns, rtol=1e-12)
        np.testing.assert_allclose(window.mean_return(), returns.mean(), rtol=1e-12)
        for ddof in (0, 1):
            np.testing.assert_allclose(window.volatility(ddof=ddof), returns.std(ddof=ddof), rtol=1e-12)
        np.testing.assert_allclose(window.volatility(), returns.std(), rtol=1e-12)
        np.testing.assert_allclose(window.covariance(), returns.cov(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("length", [0, -1, 2.5, True])
def test_window_length(length, untyped):
    def look(obs):
        obs.window(length)
        return np.full(3, 0.3)

    with pytest.raises(ValueError, match="window"):
        run(CLOSE, look, OPEN, engine="reference")


def test_a_window_may_be_longer_than_the_market():
    def look(obs):
        values = obs.window(2 * BARS).values
        assert values.shape == (2 * BARS, 3)
        assert np.isnan(values[: 2 * BARS - int(obs.step)]).all()
        np.testing.assert_array_equal(values[2 * BARS - int(obs.step) :], CLOSE.iloc[: int(obs.step)])
        return np.full(3, 0.3)

    run(CLOSE, look, OPEN, 0.0, engine="reference")


# --- the reference engine takes any Python


def minimum_variance(obs):
    from scipy.optimize import minimize

    cov = obs.window(12).covariance()
    assert isinstance(cov, np.ndarray)
    n = obs.num_assets
    out = minimize(
        lambda w: 1e4 * w @ cov @ w,
        np.full(n, 1 / n),
        method="SLSQP",
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )
    return np.clip(out.x, 0, 1)


def test_scipy_in_the_reference_engine():
    bt = run(CLOSE, minimum_variance, OPEN, js.grid(threshold=THRESHOLDS), min_history=13, engine="reference")
    assert bt.rebalances.iloc[:13].to_numpy().sum() == 0
    weights = bt.allocations.weights
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    cov = CLOSE.iloc[1:13].pct_change(fill_method=None).cov().to_numpy()
    first = weights.xs(INDEX[13], level="time").to_numpy()[0]
    assert first @ cov @ first <= min(np.diag(cov)) + 1e-12
    again = js.replay(bt.allocations, CLOSE, open=OPEN)
    assert_same_portfolio(bt, again)


def test_a_random_state_in_the_reference_engine_runs_lane_after_lane():
    rng, twin = np.random.RandomState(42), np.random.RandomState(42)

    def draw(obs):
        u = rng.uniform(0, 1, obs.num_assets)
        return u / u.sum()

    bt = run(CLOSE, draw, OPEN, js.grid(threshold=THRESHOLDS), engine="reference")
    for row in bt.allocations.targets:
        u = twin.uniform(0, 1, 3)
        np.testing.assert_array_equal(row, u / u.sum())


@pytest.mark.parametrize(
    "policy",
    [al.EqualWeight(), al.EqualWeight(over="tradable"), al.RandomWeights(), momentum, skips_once_held, Silent()],
    ids=["equal", "tradable", "random", "momentum", "skip", "state"],
)
def test_engines_agree(policy):
    threshold = js.grid(threshold=THRESHOLDS)
    compiled = run(HOLES, policy, HOLES_OPEN, threshold, fees=0.005)
    assert_same_portfolio(compiled, run(HOLES, policy, HOLES_OPEN, threshold, fees=0.005, engine="reference"))


def test_weights_in_other_types(untyped):
    """A list, a tuple and integers are weights too."""
    for answer in ([0.2, 0.3, 0.1], np.array([0, 1, 0]), (0.2, 0.3, 0.1)):
        for engine in ENGINES:
            bt = run(CLOSE, lambda obs, answer=answer: js.Allocation(answer), OPEN, engine=engine)
            np.testing.assert_allclose(bt.allocations.targets[0], answer)


def test_equal_weight_over_tradable_is_fully_invested():
    close = CLOSE.copy()
    close.loc[: INDEX[9], "C"] = np.nan
    bt = js.backtest(close, al.EqualWeight("tradable"), open=close, trigger=js.Threshold(0.0))
    expected = np.where(np.arange(BARS)[:, None] < 10, [1 / 2, 1 / 2, 0], np.full(3, 1 / 3))
    np.testing.assert_allclose(bt.allocations.targets, expected, rtol=1e-12)


def test_a_window_is_nan_before_the_first_bar():
    seen = []

    def allocate(obs):
        seen.append(obs.window(3).values)
        return np.full(3, 1 / 3)

    js.backtest(CLOSE, allocate, trigger=js.Threshold(0.0), engine="reference")
    padded = np.concatenate([np.full((3, 3), np.nan), CLOSE])
    for bar, window in enumerate(seen):
        np.testing.assert_array_equal(window, padded[bar : bar + 3])
