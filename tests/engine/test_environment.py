"""The environment beside the simulation, and a loop of a user's own over bars."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsim as js
from tests.helpers.markets import BARS, as_users_run_it, prices, with_holes

COSTS = js.Costs(fees=0.003, slippage=0.001)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def market(seed: int = 0, features=None) -> js.Market:
    close, open_ = with_holes(*prices(seed))
    return js.Market.from_frames(close, open=open_, features=features)


class Table(eqx.Module):
    """The actions of an episode as an allocator."""

    actions: np.ndarray

    def __call__(self, obs):
        weights = jnp.asarray(self.actions)[obs.step]
        return js.Allocation(weights, skip=jnp.isnan(weights))


def some_actions(seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    actions = rng.dirichlet(np.ones(4), BARS)[:, :3]
    actions[rng.random(actions.shape) < 0.1] = np.nan
    return actions


@partial(jax.jit, static_argnums=0)
def rollout(env, key, actions, params):
    obs, state = env.reset(key, params)

    def one(state, action):
        obs, state, reward, done, info = env.step_env(key, state, action, params)
        return state, (obs, reward, done, info)

    return obs, *jax.lax.scan(one, state, actions)


def test_an_episode_is_the_simulation_of_its_actions():
    """To the last bit, holes and assets that are left alone among them; and what is observed is what a policy sees."""
    env, actions = js.environment(market(), costs=COSTS), some_actions()
    first, end, (obs, reward, done, info) = rollout(env, jax.random.key(0), actions, env.default_params)
    sim = js.simulate(market(), js.Policy(Table(actions), js.Always()), costs=COSTS)
    for name, path in {"value": sim.value, "return": sim.returns, "fees": sim.fees, "turnover": sim.turnover}.items():
        np.testing.assert_array_equal(info[name], path)
    np.testing.assert_array_equal(info["rebalanced"], sim.rebalanced)
    np.testing.assert_allclose(reward, np.log1p(sim.returns), rtol=1e-12, atol=1e-15)
    assert list(np.flatnonzero(done)) == [BARS - 1] and int(end.bar) == BARS
    assert first.shape == (3 + 30,) == env.observation_space().shape and (np.asarray(first) == 0).all()
    held = np.asarray(sim.units)[:-1] * np.asarray(market().val_price)[1:]
    weights = np.nan_to_num(held) / np.asarray(sim.cash[:-1] + np.nansum(held, axis=1))[:, None]
    np.testing.assert_allclose(obs[:-1, :3], weights, rtol=1e-12)


def test_a_trigger_decides_and_a_reward_may_be_anything():
    actions, trigger = some_actions(2), js.Threshold(0.1)
    options = {"trigger": trigger, "costs": COSTS, "reward": lambda info: info["return"] - 0.1 * info["turnover"]}
    env = js.environment(market(), **options)
    _, _, (_, reward, _, info) = rollout(env, jax.random.key(0), actions, env.default_params)
    sim = js.simulate(market(), js.Policy(Table(actions), trigger), costs=COSTS)
    np.testing.assert_array_equal(info["value"], sim.value)
    np.testing.assert_allclose(reward, sim.returns - 0.1 * sim.turnover, rtol=1e-12, atol=1e-15)
    assert 0 < sim.rebalanced.sum() < BARS


def test_episodes_side_by_side_begin_anew():
    """Random episodes of 7 bars under vmap and jit: a new account where one is over, each as it is alone."""
    features = np.arange(BARS * 3.0).reshape(BARS, 3)
    env = js.environment(market(0, features), costs=COSTS, start=5, length=7)
    keys, params = jax.random.split(jax.random.key(3), 40), env.default_params
    obs, state = jax.jit(jax.vmap(env.reset, (0, None)))(keys, params)
    starts = np.asarray(state.bar)
    assert starts.min() >= 5 and starts.max() <= BARS - 7 and len(set(starts)) > 15
    np.testing.assert_array_equal(obs[:, 3:], features[starts])  # of the first bar
    step, step_env = (jax.jit(jax.vmap(f, (0, 0, 0, None))) for f in (env.step, env.step_env))
    actions = jax.vmap(env.action_space().sample)(keys) / 3
    assert env.action_space().contains(actions[0])
    for turn in range(8):
        alone = env.step(keys[4], jax.tree.map(lambda x: x[4], state), actions[4], params)
        ahead = step_env(keys, state, actions, params)
        obs, state, reward, done, info = step(keys, state, actions, params)
        assert bool(done.all()) == (turn == 6) == bool(done.any())
        np.testing.assert_array_equal(info["truncated"], done)
        np.testing.assert_allclose(info["final_obs"], ahead[0], rtol=1e-12)
        assert (np.asarray(info["final_obs"][:, :3]).sum(1) > 0).all()  # of the account that ends, not of the new one
        np.testing.assert_allclose(reward[4], alone[2], rtol=1e-12)
        np.testing.assert_allclose(obs[4], alone[0], rtol=1e-12)
    begun = jax.vmap(env.reset, (0, None))(keys, params)[1]
    np.testing.assert_array_equal(state.bar, begun.bar + 1)
    assert not np.isnan(obs).any()


def test_another_market_is_an_argument_and_actions_have_derivatives():
    env, actions = js.environment(market(), costs=COSTS), jnp.nan_to_num(some_actions())
    other = eqx.tree_at(lambda params: params.market, env.default_params, market(7))

    def total(actions, params):
        return rollout(env, jax.random.key(0), actions, params)[2][1].sum()

    sim = js.simulate(market(7), js.Policy(Table(np.asarray(actions)), js.Always()), costs=COSTS)
    assert total(actions, other) == pytest.approx(float(jnp.log(sim.value[-1] / 100)), rel=1e-9)
    slope = float(jax.grad(total)(actions, other)[10, 1])
    up, down = (total(actions.at[10, 1].add(by), other) for by in (1e-6, -1e-6))
    assert slope == pytest.approx(float(up - down) / 2e-6, rel=1e-4) and slope != 0


def test_an_episode_ends_with_a_fault_and_with_the_account():
    env = js.environment(market(), length=20)
    _, state = env.reset(jax.random.key(0))
    *_, done, info = env.step_env(jax.random.key(0), state, jnp.array([jnp.inf, 0, 0]))
    assert done and info["fault"] == js.LaneFault.WEIGHT_INFINITE and not info["truncated"]
    rising = 10.0 ** jnp.arange(3.0)[:, None]
    env = js.environment(js.Market(rising, rising, rising, rising))
    _, state = env.reset(jax.random.key(0))
    _, state, *_ = env.step_env(jax.random.key(0), state, jnp.array([-1.0]))
    *_, reward, done, info = env.step_env(jax.random.key(0), state, jnp.array([jnp.nan]))
    assert done and not info["truncated"] and info["value"] < 0 and reward == pytest.approx(np.log(1e-6))


def test_a_loop_of_ones_own():
    policy = js.Policy(Table(some_actions()), js.Threshold(0.05))
    inputs = js.lane_inputs(market(), policy, costs=COSTS, key=3)

    @jax.jit
    def loop(inputs):
        def one_bar(lane, bar):
            obs, outcome = js.observe(inputs, lane, bar), js.trade_bar(inputs, lane, bar)
            return outcome.lane, (obs.value, outcome.totals.fees)

        return jax.lax.scan(one_bar, js.LaneState.start(inputs), jnp.arange(BARS))[1]

    values, fees = loop(inputs)
    sim = js.simulate(market(), policy, costs=COSTS, key=3)
    np.testing.assert_allclose(fees, sim.fees, rtol=1e-12)
    assert values[0] == 100 and values[5] == pytest.approx(float(sim.value[4]), rel=0.2)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("market: expected a Market", {"market": 3}),
        ("start: 60 bars leave none", {"start": 60}),
        ("length: episodes of 50 bars, of 40", {"start": 20, "length": 50}),
        ("reward: expected 'log_return'", {"reward": "sharpe"}),
        ("observation: expected a function", {"observation": "weights"}),
        ("trigger: expected a callable", {"trigger": 0.05}),
        ("costs: expected js.Costs", {"costs": 0.01}),
    ],
)
def test_misuse(message, options):
    with as_users_run_it(), pytest.raises((TypeError, ValueError)) as caught:
        js.environment(**({"market": market()} | options))
    assert str(caught.value).startswith(message)


def test_an_action_has_a_weight_for_each_asset():
    env = js.environment(market())
    with pytest.raises(ValueError, match=r"^action: expected 3 weights, got shape \(2,\)"):
        env.step(jax.random.key(0), env.reset(jax.random.key(0))[1], jnp.zeros(2))
