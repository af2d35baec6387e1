"""The pure core at its door: shapes, keys, states, answers; and that no bar is run that does not exist."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import BARS, INDEX, as_users_run_it, grouped, prices, run

CLOSE, OPEN = prices(0)
MARKET = js.Market.from_frames(CLOSE, open=OPEN, dtype=np.float32)
EQUAL = al.EqualWeight()


@pytest.mark.parametrize("shape", [(5,), (5, 3), (BARS, 2), (BARS, 3, 1)])
def test_arrays_that_do_not_broadcast_are_refused(shape):
    """JAX clamps an index that is out of range; a table that is too short would be read as if it went on."""
    with pytest.raises(ValueError, match=r"^fees: shape"):
        js.simulate(MARKET, js.Policy(EQUAL), costs=js.Costs(np.zeros(shape)))
    with pytest.raises(ValueError, match=r"^threshold: shape"):
        js.simulate(MARKET, js.Policy(EQUAL, js.Threshold(np.zeros(shape))))
    with pytest.raises(ValueError, match=r"^fees: shape"):
        jax.jit(lambda fees: js.simulate(MARKET, js.Policy(EQUAL), costs=js.Costs(fees)).value)(np.zeros(shape))


def test_an_index_is_swept_by_the_pandas_face_only():
    with pytest.raises(TypeError, match=r"^threshold: .*js\.backtest"):
        js.simulate(MARKET, js.Policy(EQUAL, js.Threshold(js.grid(threshold=[0.1, 0.2]))))


@pytest.mark.parametrize("key", [-7, 2**40])
def test_keys_that_the_core_and_the_face_would_draw_differently_from(key):
    for simulate in (
        lambda: js.simulate(MARKET, js.Policy(al.RandomWeights()), key=key),
        lambda: run(CLOSE, al.RandomWeights(), OPEN, key=key),
    ):
        with pytest.raises(ValueError, match=r"^key: "):
            simulate()


def labelled(obs):
    return pd.Series([0.2, 0.3, 0.5], index=list("CBA"))


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_labelled_weights_are_refused(engine):
    """Their labels would be ignored and their positions believed."""
    with as_users_run_it(), pytest.raises(TypeError, match="labelled returned labelled weights"):
        run(CLOSE, labelled, OPEN, engine=engine)


def nothing(obs):
    return None


def test_an_answer_that_is_no_weights():
    with as_users_run_it(), pytest.raises(TypeError, match="allocator nothing returned NoneType"):
        run(CLOSE, nothing, OPEN)


class Plain:
    """An allocator that is neither a function nor a Module, and that changes between two runs."""

    def __init__(self, weights):
        self.weights = np.asarray(weights)

    def __call__(self, obs):
        return jnp.asarray(self.weights)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_plain_object_is_not_remembered(engine):
    allocator = Plain([0.2, 0.3, 0.5])
    run(CLOSE, allocator, OPEN, engine=engine)
    allocator.weights = np.array([0.5, 0.3, 0.2])
    again = run(CLOSE, allocator, OPEN, engine=engine)
    np.testing.assert_allclose(again.allocations.targets[0], [0.5, 0.3, 0.2])


def every_asset(obs):
    return obs.weights > 0.5


def test_a_trigger_gives_one_answer():
    with pytest.raises(ValueError, match=r"^trigger: expected one boolean"):
        js.backtest(CLOSE, EQUAL, open=OPEN, trigger=every_asset)


class Growing:
    """A state that does not keep its kind."""

    def init(self, num_assets):
        return jnp.zeros((), jnp.int32)

    def __call__(self, obs, state):
        return jnp.full(obs.num_assets, 0.3), state + 0.5


def test_a_state_keeps_its_kind():
    with pytest.raises(TypeError, match="allocator Growing: the state was int32"):
        run(CLOSE, Growing(), OPEN)


SEEN = []


class Watching:
    """Notes the bars that it is shown."""

    def init(self, num_assets):
        return jnp.zeros((), jnp.int32)

    def __call__(self, obs, state):
        return jnp.full(obs.num_assets, 0.3), state

    def observe(self, obs, state):
        jax.debug.callback(lambda step: SEEN.append(int(step)), obs.step)
        return state + 1


def test_no_bar_is_shown_that_does_not_exist(monkeypatch):
    from jaxsim.engine.schedules import programs

    monkeypatch.setattr(programs, "forward_schedule", lambda policy: js.Scan(page=25))
    run(CLOSE, Watching(), OPEN)
    jax.effects_barrier()
    assert sorted(set(SEEN)) == list(range(BARS))


def test_zipped_levels_do_not_fall_apart():
    z = js.zipped(a=[0.01, 0.02], b=[50.0, 100.0])
    with pytest.raises(ValueError, match="zipped"):
        run(CLOSE, EQUAL, OPEN, js.grid(a=[0.01, 0.02]), fees=z.a, init_cash=z.b)


def test_a_market_is_one_group():
    close, _ = grouped(1)
    with pytest.raises(ValueError, match=r"^close: .*several groups"):
        js.Market.from_frames(close, dtype=np.float32)
    with pytest.raises(ValueError, match=r"^close: .*twice"):
        js.Market.from_frames(CLOSE[["A", "A"]], dtype=np.float32)


def test_float32_simulates_like_float64():
    """The core follows the dtype of the market; on a short market decisions agree and values to single precision."""
    policy = js.Policy(al.FixedWeights([0.2, 0.3, 0.5]), js.Threshold(0.05))
    single = js.simulate(MARKET, policy, costs=js.Costs(0.002))
    assert single.value.dtype == jnp.float32
    with jax.enable_x64(True):
        double = js.simulate(js.Market.from_frames(CLOSE, open=OPEN), policy, costs=js.Costs(0.002))
    assert double.value.dtype == np.float64
    np.testing.assert_array_equal(single.rebalanced, double.rebalanced)
    np.testing.assert_allclose(single.value, double.value, rtol=1e-5)


def test_events_that_are_saved_are_those_of_the_face():
    policy = js.Policy(al.FixedWeights([0.2, 0.3, 0.5]), js.Threshold(0.05))
    with jax.enable_x64(True):
        market = js.Market.from_frames(CLOSE, open=OPEN)
        sim = js.simulate(market, policy, costs=js.Costs(0.01), save=js.Save(units=False, events=True))
    assert sim.units is None
    bt = run(CLOSE, policy.allocator, OPEN, 0.05, fees=0.01)
    at = np.flatnonzero(sim.rebalanced)
    assert list(INDEX[at]) == list(bt.rebalance_index)
    np.testing.assert_allclose(np.asarray(sim.events.target)[at], bt.allocations.targets)
    np.testing.assert_allclose(np.asarray(sim.events.fills.fees).sum(), bt.total_fees())


def test_gradients_flow_through_fees_and_weights():
    """Hard decisions, exact derivative between them; finite differences at a step that crosses no event."""
    with jax.enable_x64(True):
        market = js.Market.from_frames(CLOSE, open=OPEN)

        def score(logits, fees):
            policy = js.Policy(al.FixedWeights(jax.nn.softmax(logits)), js.Threshold(0.05))
            sim = js.simulate(market, policy, costs=js.Costs(fees))
            return js.metrics.sharpe_ratio(sim.returns, ann_factor=252)

        logits = jnp.array([0.3, -0.2, 0.1])
        by_logits, by_fees = jax.grad(score, (0, 1))(logits, 0.003)
        for n in range(3):
            step = 1e-6 * jnp.eye(3)[n]
            slope = (score(logits + step, 0.003) - score(logits - step, 0.003)) / 2e-6
            np.testing.assert_allclose(by_logits[n], slope, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(by_fees, (score(logits, 0.003001) - score(logits, 0.002999)) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("assets", [1, 3])
def test_a_result_does_not_change_with_the_frame_it_came_from(assets):
    """Paths are worked out when they are asked for."""
    close, open_ = (frame.iloc[:, :assets].copy() for frame in prices())
    close, open_ = (pd.DataFrame(np.array(x, order="C"), x.index, x.columns, copy=False) for x in (close, open_))
    want = js.backtest(close.copy(), al.EqualWeight(), open=open_.copy(), fees=0.01).value
    bt = js.backtest(close, al.EqualWeight(), open=open_, fees=0.01)
    close.iloc[-1] = open_.iloc[-1] = 1e6
    pd.testing.assert_series_equal(bt.value, want)


@pytest.mark.parametrize("threshold", [0.05, js.grid(threshold=[0.02, 0.05])], ids=["one lane", "two lanes"])
def test_what_a_user_writes_into_a_path_stays_with_the_user(threshold):
    bt = run(CLOSE, EQUAL, OPEN, threshold, fees=0.01)
    for name in ("value", "returns", "cash", "gross_exposure", "benchmark_value", "weights"):
        path, want = getattr(bt, name), getattr(run(CLOSE, EQUAL, OPEN, threshold, fees=0.01), name)
        path.iloc[:] = -1.0
        assert (path == -1.0).all(axis=None)
        assert getattr(bt, name).equals(want)
