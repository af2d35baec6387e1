"""Gates: what they leave alone, what their derivatives are, and how far those can grow."""

from functools import cache, partial, reduce
from operator import or_

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.policy.triggers import margin_of
from tests.helpers.markets import AS_IT_STANDS, as_users_run_it, simulated
from tests.helpers.policies import Fixed

COSTS = js.Costs(0.005)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def sharpe(returns):
    return js.metrics.sharpe_ratio(returns, ann_factor=8760)


def score_of(market, threshold, weights, gate):
    policy = js.Policy(Fixed(weights), js.Threshold(threshold), gate)
    return sharpe(js.simulate(market, policy, costs=COSTS).returns)


@partial(jax.jit, compiler_options=AS_IT_STANDS)
def slopes(market, thresholds, weights, gate):
    """Scores [lane], and their derivatives by threshold [lane] and weights [lane, asset]."""
    one = jax.value_and_grad(partial(score_of, market), (0, 1))
    value, (by_threshold, by_weights) = jax.vmap(partial(one, gate=gate))(thresholds, weights)
    return value, by_threshold, by_weights


# Unequal weights: where order values tie, moving a weight changes the order of execution, which is no derivative.
LANES = np.arange(1, 16) / 100, np.tile([0.15, 0.25, 0.22, 0.08, 0.3], (15, 1))


def on_odd_bars(obs):
    return obs.step % 2 == 1


COMPOSED = [
    js.Threshold(0.03),
    js.Threshold(0.1, relative=True) & js.EveryBars(3),
    js.HalfL1Drift(0.04) | js.EveryBars(50),
    js.L2Drift(0.02) & on_odd_bars,
    js.TrackingError(0.002, 12) | js.Threshold(np.linspace(0.02, 0.1, 5)),
]


class Watching:
    """Equal weights, and a record of what triggers say beside their margins."""

    def init(self, num_assets):
        return np.zeros(())

    def observe(self, obs, state):
        fires = [jnp.asarray(trigger(obs)) for trigger in COMPOSED]
        return state, {"fires": jnp.stack(fires), "margin": jnp.stack([margin_of(x, obs) for x in COMPOSED])}

    def __call__(self, obs, state):
        return js.Allocation(jnp.full(obs.num_assets, 1 / obs.num_assets)), state


def test_the_margin_is_positive_where_the_trigger_fires():
    """Holes and a late listing among the prices; before the first purchase nothing is known, and nothing near."""
    sim = js.simulate(simulated(300, holes=True), js.Policy(Watching(), COMPOSED[0]), costs=COSTS)
    assert sim.aux is not None
    fires, margin = np.asarray(sim.aux["fires"]), np.asarray(sim.aux["margin"])
    np.testing.assert_array_equal(fires, margin >= 0)
    assert fires.any(0).all() and not fires.all(0).any() and not np.isnan(margin).any()


class Only(eqx.Module):
    """Fires in the lanes in which it is one."""

    chosen: jax.Array

    def __call__(self, obs):
        return self.chosen != 0


def test_straight_through_is_bit_for_bit_hard():
    """A trigger in each lane."""
    market = simulated(300, holes=True)

    @jax.jit
    def run(chosen, gate):
        trigger = reduce(or_, (one & Only(is_on) for one, is_on in zip(COMPOSED, chosen, strict=True)))
        policy = js.Policy(al.EqualWeight(), trigger, gate)
        return js.simulate(market, policy, costs=COSTS, save=js.Save(events=True))

    gates = js.Hard(), js.StraightThrough(0.02), js.StraightThrough(0.02, through_state=True)
    hard, *runs = (jax.vmap(partial(run, gate=gate))(np.eye(len(COMPOSED))) for gate in gates)
    for other in runs:
        for ours, theirs in zip(jax.tree.leaves(other), jax.tree.leaves(hard), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len({tuple(lane) for lane in np.asarray(hard.rebalanced)}) == len(COMPOSED)


@cache
def largest(num_bars, temperature):
    """The longest gradient of the lanes."""
    _, by_threshold, by_weights = slopes(simulated(num_bars), *LANES, js.StraightThrough(temperature))
    norms = jnp.sqrt(by_threshold**2 + (by_weights**2).sum(1))
    assert np.isfinite(norms).all()
    return float(norms.max())


@pytest.mark.parametrize("short, long", [(250, 1000), pytest.param(1000, 8767, marks=pytest.mark.slow)])
def test_a_straight_through_gradient_grows_at_most_with_the_number_of_bars(short, long):
    for temperature in (0.001, 0.003, 0.01):
        assert largest(long, temperature) / long <= largest(short, temperature) / short


def test_straight_through_the_state_gradients_explode():
    """Hence the default; whose values are those of the hard gate."""
    market = simulated(1000)
    np.testing.assert_array_equal(slopes(market, *LANES, js.StraightThrough(0.01))[0], at(market, *LANES))
    exploded = slopes(market, *LANES, js.StraightThrough(0.01, through_state=True))[1]
    assert np.abs(exploded).max() > 1e6 * largest(1000, 0.01)


@partial(jax.jit, compiler_options=AS_IT_STANDS)
def at(market, thresholds, weights, gate=js.Hard()):  # noqa: B008
    return jax.vmap(partial(score_of, market, gate=gate))(thresholds, weights)


def test_the_surrogate_is_the_kernel_times_what_the_rebalance_changes():
    """One near miss, worked out by hand: two assets, no costs, bought in equal parts, a margin of -0.002."""
    close = jnp.array([[1.0, 1.0], [1.5, 1.0], [1.2, 1.0]])
    val_price = jnp.array([[1.0, 1.0], [1.1, 1.0], [1.5, 1.0]])
    market = js.Market(close, val_price, close, close)

    def final(threshold, gate):
        policy = js.Policy(al.EqualWeight(), js.Threshold(threshold), gate)
        return js.simulate(market, policy).value[1]

    drift = 55 / 105 - 0.5
    threshold = drift + 0.002
    slope = jax.grad(final)(threshold, js.StraightThrough(0.008))
    u = -0.25
    kernel = 15 / 16 * (1 - u**2) ** 2 / 0.008
    # Rebalancing sells (55 - 52.5) / 1.1 units of the first at 1.5, and buys 2.5 of the second at 1; then the bar is
    # marked at these prices, so that its value does not change; nothing to gain.
    assert float(slope) == pytest.approx(0.0, abs=1e-12)

    def later(threshold, gate):
        policy = js.Policy(al.EqualWeight(), js.Threshold(threshold) & js.EveryBars(3, start=1), gate)
        return js.simulate(market, policy).value[2]

    sold = 2.5 / 1.1
    gain = sold * 1.5 - sold * 1.2  # the proceeds, partly spent on an asset that does not move, less what was given up
    slope = jax.grad(later)(threshold, js.StraightThrough(0.008))
    assert float(slope) == pytest.approx(-kernel * gain, rel=1e-9)
    forward = jax.jvp(lambda x: later(x, js.StraightThrough(0.008)), (threshold,), (1.0,))[1]
    assert float(forward) == pytest.approx(float(slope), rel=1e-12)


def test_far_from_the_limit_there_is_no_surrogate():
    market = simulated(250)
    gates = js.Hard(), js.StraightThrough(1e-9)
    for one, other in zip(*(slopes(market, *LANES, gate) for gate in gates), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_sigmoid_differentiates_its_own_value():
    # A larger step meets bars on which the order of execution changes.
    market, gate, step = simulated(250), js.Sigmoid(0.004), 1e-8
    _, by_threshold, by_weights = slopes(market, *LANES, gate)
    by_differences = (at(market, LANES[0] + step, LANES[1], gate) - at(market, LANES[0] - step, LANES[1], gate)) / step
    scale = np.abs(by_threshold).max()
    np.testing.assert_allclose(by_threshold, by_differences / 2, rtol=0, atol=1e-6 * scale)
    assert scale > 0.1
    tilt = np.eye(5)[2] * step
    by_differences = (at(market, LANES[0], LANES[1] + tilt, gate) - at(market, LANES[0], LANES[1] - tilt, gate)) / step
    scale = np.abs(by_weights).max()
    np.testing.assert_allclose(by_weights[:, 2], by_differences / 2, rtol=0, atol=1e-6 * scale)


def test_sigmoid_becomes_hard_as_it_cools():
    market = simulated(250)
    hard = slopes(market, *LANES, js.Hard())[0]
    apart = [np.abs(at(market, *LANES, js.Sigmoid(t)) - hard).max() for t in (3e-3, 1e-5, 1e-9)]
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] == 0


@pytest.mark.parametrize("gate", [js.StraightThrough(0.6), js.Sigmoid(0.6)])
def test_faults_that_are_only_imagined(gate):
    """A near miss asks the allocator, whose NaN must neither fault a lane that does not trade nor reach a gradient. At
    this temperature every bar is one; under `Sigmoid` a part of it trades."""
    market = simulated(60)

    def weights(obs):
        return jnp.where(obs.step == 0, 0.2, jnp.nan) * jnp.ones(5)

    def final(threshold):
        sim = js.simulate(market, js.Policy(weights, js.Threshold(threshold), gate), costs=COSTS)
        return sim.value[-1], sim.status.fault

    (value, fault), slope = jax.value_and_grad(final, has_aux=True)(0.5)
    assert np.isfinite(value) and np.isfinite(slope)
    assert (int(fault) == js.LaneFault.NONE) == gate.is_exact


def test_a_backtest_runs_hard():
    market = js.datasets.stocks()
    close = market.close.iloc[-300:, :3]
    policies = [js.Policy(al.EqualWeight(), js.Threshold(0.02), gate) for gate in (js.Hard(), js.Sigmoid(0.05))]
    one, other = (js.backtest(close, policy) for policy in policies)
    np.testing.assert_array_equal(one.value, other.value)


def test_the_gap():
    """A gate that is exact scores as `Hard` does; one that is not, otherwise; and `fit` gives both scores."""
    market = simulated(250)

    def fitted_with(gate):
        policy = js.Policy(al.EqualWeight(), js.Threshold(0.03), gate)
        return js.fit(policy, market, objective=sharpe, costs=COSTS, steps=1, every=1)

    soft = fitted_with(js.Sigmoid(0.01))
    assert isinstance(soft.policy.gate, js.Hard) and isinstance(soft.trained.gate, js.Sigmoid)
    hard_score = sharpe(js.simulate(market, soft.trained.hardened(), costs=COSTS).returns)
    soft_score = sharpe(js.simulate(market, soft.trained, costs=COSTS).returns)
    np.testing.assert_allclose([soft.score, soft.soft_score], [hard_score, soft_score], rtol=1e-12)
    assert soft.gap == soft.soft_score - soft.score != 0
    assert fitted_with(js.StraightThrough()).gap == 0


@pytest.mark.parametrize("temperature", [0.0, -0.1, np.nan, np.inf])
def test_bad_temperatures(temperature):
    policy = js.Policy(al.EqualWeight(), js.Threshold(0.05), js.Sigmoid(temperature))
    with pytest.raises(ValueError, match=r"^temperature: expected a finite number > 0"):
        js.simulate(simulated(60), policy)


@pytest.mark.parametrize("gate", [js.Hard, None, 0.01, "hard"])
def test_what_is_no_gate(gate):
    with as_users_run_it(), pytest.raises(TypeError, match=r"^gate: expected a gate such as js\.Hard"):
        js.Policy(al.EqualWeight(), js.Never(), gate)
