"""A derivative beside central differences: right ones agree, and every planted fault is named."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import prices

CLOSE, OPEN = prices()


@pytest.fixture(scope="module")
def market():
    with jax.enable_x64(True):
        return js.Market.from_frames(CLOSE, open=OPEN, dtype=np.float64)


def score(policy, market):
    save = js.Save(events=True)
    sim = js.simulate(market, policy, costs=js.Costs(0.002), save=save)
    return js.metrics.sharpe_ratio(sim.returns, ann_factor=252), sim


@jax.custom_jvp
def tripled_slope(x):
    return x


tripled_slope.defjvp(lambda primals, tangents: (tripled_slope(*primals), 3 * tangents[0]))


class Faulty(eqx.Module):
    """Three weights that depend on a number each, some of them in a faulty way."""

    right: np.ndarray
    stopped: np.ndarray
    rounded: np.ndarray
    wrong: np.ndarray
    not_finite: np.ndarray
    kinked: np.ndarray
    jumping: np.ndarray
    count: np.ndarray

    def __call__(self, obs):
        hidden = jnp.where(self.not_finite > 0, jnp.sqrt(self.not_finite), 0.1)  # derivative NaN at 0
        first = self.right + 0.1 * jax.lax.stop_gradient(self.stopped) + 0.1 * tripled_slope(self.wrong)
        second = 0.2 + 0.1 * jnp.abs(self.kinked) + 0.001 * (self.jumping > 0)
        third = 0.1 * hidden + 0.2 + 0.01 * jnp.round(self.rounded * 1e9) / 1e9
        return jnp.stack([first, second, third]) * self.count / 2


def faulty() -> js.Policy:
    numbers = dict(right=0.3, stopped=0.2, rounded=0.5, wrong=0.4, not_finite=0.0, kinked=0.0, jumping=0.0)
    fields = {name: np.asarray(x) for name, x in numbers.items()}
    return js.Policy(Faulty(**fields, count=np.asarray(2)), js.Threshold(0.05))


def test_each_fault_is_named(market):
    check = js.check_gradient(score, faulty(), market)
    verdicts = {name.removeprefix("allocator."): verdict for name, verdict in check.table["verdict"].items()}
    assert verdicts == {
        "right": "agrees",
        "stopped": "cut off",
        "rounded": "cut off",
        "wrong": "differs",
        "not_finite": "not finite",
        "kinked": "kink",
        "jumping": "jump",
        "trigger.threshold": "agrees",
        "count": "no derivative",
    }
    assert not check.is_right
    text = str(check)
    assert "allocator.stopped, allocator.rounded: cut off\n    the score depends on it, but the derivative is 0" in text
    assert "allocator.not_finite: not finite\n    the derivative is NaN" in text
    row = check.table.loc["allocator.wrong"]
    assert row["derivative"] == pytest.approx(3 * row["difference"], rel=1e-6)
    right = check.table.loc["allocator.right"]
    assert right["relative_error"] < 1e-7 and right["derivative"] != 0


def test_ties_and_moved_events_are_told_apart(market):
    """Equal weights tie at the first purchase; without the simulation that is a jump."""
    tied = js.Policy(al.SoftmaxWeights(3), js.Threshold(0.05))
    check = js.check_gradient(score, tied, market)
    logits = check.table.filter(like="logits", axis=0)
    assert (logits["verdict"] == "tie").all() and (logits["bar"] == 0).all() and check.is_right
    assert 'js.Policy(cut="pro_rata") cuts all alike' in str(check)
    alike = js.check_gradient(score, replace(tied, cut="pro_rata"), market)
    assert (alike.table["verdict"] == "agrees").all()
    blind = js.check_gradient(lambda policy, market: score(policy, market)[0], tied, market)
    assert (blind.table.filter(like="logits", axis=0)["verdict"] == "jump").all() and blind.is_right
    # A threshold that is just the drift of a bar: a step to one side the rebalance moves to another bar.
    weights = [0.4, 0.3, 0.2]
    with jax.enable_x64(True):
        policy = js.Policy(al.FixedWeights(weights), js.Threshold(0.05))
        sim = js.simulate(market, policy, costs=js.Costs(0.002), save=js.Save(events=True))
    bar = int(np.flatnonzero(np.asarray(sim.rebalanced))[1])
    just = float(np.asarray(sim.events.excess)[bar].max()) + 0.05
    on_edge = js.Policy(al.FixedWeights(weights), js.Threshold(just))
    check = js.check_gradient(score, on_edge, market)
    row = check.table.loc["trigger.threshold"]
    assert row["verdict"] == "event moves" and row["bar"] == bar and "first at bar" in str(check)


def test_gates_and_functions_of_the_host_are_noted(market):
    def drift(obs):
        return jnp.abs(obs.weights - obs.target).max() > 0.05

    rule = drift | js.Threshold(0.2)
    gate = js.StraightThrough(0.005)
    notes = js.check_gradient(score, js.Policy(al.FixedWeights([0.4, 0.3, 0.2]), rule, gate=gate), market).notes
    assert notes[0].startswith("gate: StraightThrough adds to the derivative what no difference of the score shows")
    assert notes[1].startswith("trigger: test_gates_and_functions_of_the_host_are_noted.<locals>.drift has no method")
    policy = js.Policy(al.FixedWeights(np.full(3, 0.3)), js.Threshold(0.05))
    check = js.check_gradient(score, policy, market, most=2, seed=3)
    assert len(check.table) == 2 and check.notes == ("2 of 4 numbers were checked; most= says how many",)


def test_a_smooth_gate_has_the_derivative_of_its_score(market):
    policy = js.Policy(al.FixedWeights([0.4, 0.3, 0.2]), js.Threshold(0.05), gate=js.Sigmoid(0.01))
    check = js.check_gradient(score, policy, market)
    assert (check.table["verdict"] == "agrees").all() and check.table.loc["trigger.threshold", "derivative"] != 0


def test_misuse(market):
    policy = js.Policy(al.SoftmaxWeights(3), js.Threshold(0.05))
    with pytest.raises(TypeError, match=r"^score: expected a function of a policy and a market, got 3"):
        js.check_gradient(3, policy, market)
    with pytest.raises(TypeError, match=r"^policy: expected a Policy"):
        js.check_gradient(score, al.EqualWeight(), market)
    with pytest.raises(TypeError, match=r"^market: expected a Market"):
        js.check_gradient(score, policy, CLOSE)
    with pytest.raises(ValueError, match=r"^market: differences need float64"):
        js.check_gradient(score, policy, js.Market.from_frames(CLOSE, dtype=np.float32))
    with pytest.raises(ValueError, match=r"^step: expected a finite number > 0"):
        js.check_gradient(score, policy, market, step=0)
    with pytest.raises(ValueError, match=r"^score: it is nan at the policy itself"):
        js.check_gradient(lambda policy, market: policy.allocator.logits.sum() * jnp.nan, policy, market)
    with pytest.raises(ValueError, match=r"^trainable: nothing to train"):
        js.check_gradient(score, js.Policy(al.EqualWeight(), js.Never()), market)
