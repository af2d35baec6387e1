"""Fees, traded value and turnover of each bar, for any score: values, and derivatives through every adjoint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import INDEX, prices, run, with_holes

#: That the asset leaves is the point here.
pytestmark = pytest.mark.filterwarnings("ignore:delistings:UserWarning")

COSTS = js.Costs(fees=0.003, slippage=0.002)
WEIGHTS, THRESHOLD = np.array([0.2, 0.3, 0.4]), 0.05


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def frames_with_a_departure():
    close, open_ = with_holes(*prices(3))
    close.iloc[30:, 0] = open_.iloc[30:, 0] = np.nan  # held, and closed ten bars later
    return close, open_


FRAMES = frames_with_a_departure()


def market() -> js.Market:
    return js.Market.from_frames(FRAMES[0], open=FRAMES[1])


def policy(weights, threshold, gate=None) -> js.Policy:
    return js.Policy(al.FixedWeights(weights), js.Threshold(threshold), gate or js.Hard())


@pytest.mark.parametrize(
    "way",
    [{}, {"adjoint": js.AtEvents()}, {"schedule": js.NextEvent()}],
    ids=["bar by bar", "at events", "next event"],
)
def test_totals_are_those_of_a_backtest(way):
    sim = js.simulate(market(), policy(WEIGHTS, THRESHOLD), costs=COSTS, save=js.Save(units=False), **way)
    bt = run(FRAMES[0], al.FixedWeights(WEIGHTS), FRAMES[1], THRESHOLD, fees=0.003, slippage=0.002, engine="reference")
    orders = bt.orders
    assert (orders["reason"] == "delisted").any()
    by_bar = orders.assign(traded=orders["size"] * orders["price"]).groupby("timestamp")[["fees", "traded"]].sum()
    by_bar = by_bar.reindex(INDEX, fill_value=0.0)
    np.testing.assert_allclose(sim.fees, by_bar["fees"], rtol=1e-9)
    np.testing.assert_allclose(sim.traded, by_bar["traded"], rtol=1e-9)
    np.testing.assert_allclose(sim.turnover.sum(), bt.turnover(), rtol=1e-9)
    np.testing.assert_allclose(sim.fees.sum(), bt.total_fees(), rtol=1e-9)
    assert (np.asarray(sim.turnover > 0) == (by_bar["traded"] > 0)).all()


def penalised(sim: js.Simulation):
    return jnp.log(sim.value[-1]) - 0.3 * sim.turnover.sum() - 0.02 * sim.fees.sum() - 1e-4 * (sim.traded**2).sum()


def slopes(adjoint, gate=None):
    def score(weights, threshold, fees):
        costs = js.Costs(fees=fees, slippage=0.002)
        return penalised(js.simulate(market(), policy(weights, threshold, gate), costs=costs, adjoint=adjoint))

    return score, jax.jit(jax.grad(score, (0, 1, 2)))(WEIGHTS, THRESHOLD, 0.003)


@pytest.mark.parametrize("adjoint", [js.Checkpointed(), js.AtEvents()], ids=["bar by bar", "at events"])
def test_penalties_have_derivatives(adjoint):
    score, (by_weights, _, by_fees) = slopes(adjoint)
    score = jax.jit(score)
    for n in range(3):
        step = 1e-6 * np.eye(3)[n]
        slope = (score(WEIGHTS + step, THRESHOLD, 0.003) - score(WEIGHTS - step, THRESHOLD, 0.003)) / 2e-6
        np.testing.assert_allclose(by_weights[n], slope, rtol=1e-6)
    slope = (score(WEIGHTS, THRESHOLD, 0.003 + 1e-7) - score(WEIGHTS, THRESHOLD, 0.003 - 1e-7)) / 2e-7
    np.testing.assert_allclose(by_fees, slope, rtol=1e-6)


def test_a_gate_passes_a_derivative_of_what_is_traded():
    """A near miss would have been traded: a higher threshold saves fees and turnover, which the surrogate says."""
    gate = js.StraightThrough(temperature=0.03)
    _, by_bar = slopes(js.Checkpointed(), gate)
    _, at_events = slopes(js.AtEvents(), gate)
    for one, other in zip(by_bar, at_events, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)

    def total(threshold, name):
        sim = js.simulate(market(), policy(WEIGHTS, threshold, gate), costs=COSTS)
        return getattr(sim, name).sum()

    for name in ("fees", "traded", "turnover"):
        assert jax.grad(total)(THRESHOLD, name) < 0
        exact = js.simulate(market(), policy(WEIGHTS, THRESHOLD), costs=COSTS)
        assert total(THRESHOLD, name) == pytest.approx(float(getattr(exact, name).sum()), rel=1e-12)


def test_training_with_a_penalty_trades_less():
    def turnover(weight):
        fitted = js.fit(
            js.Policy(al.FixedWeights(WEIGHTS), js.Threshold(THRESHOLD), js.StraightThrough(0.03)),
            market(),
            costs=COSTS,
            score=lambda sim: sim.returns.sum() - weight * sim.turnover.sum(),
            trainable=lambda p: p.trigger.threshold,
            steps=20,
        )
        sim = js.simulate(market(), fitted.policy, costs=COSTS)
        return float(sim.turnover.sum())

    assert turnover(10.0) < turnover(0.0)
