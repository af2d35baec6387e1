"""Gradients through the simulator: against central differences, in every order of transformations, by every adjoint,
and smoothed."""

import inspect
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.adjoints.choice import LONG, adjoint_for
from jaxsim.engine.policy.stops import StopRules
from tests.helpers.gradient_cases import STRUCTURES, compare, exact_gradients, make_case
from tests.helpers.markets import AS_IT_STANDS, as_users_run_it, simulated
from tests.helpers.policies import Fixed, make_cases, make_structure

COSTS = js.Costs(0.005)
WEIGHTS = np.array([0.15, 0.25, 0.22, 0.08, 0.3])
THRESHOLDS = np.array([0.01, 0.03, 0.1])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("number", [2, 3, 8], ids=lambda k: STRUCTURES[k].name)
def test_gradients_equal_central_differences(number):
    """By weights, fees, fixed fees, slippage, cash, prices and thresholds; partial fills and holes among them. What
    `python -m tools.fuzz_gradients` does for ten structures and 200 pipelines."""
    rng = np.random.default_rng([1, number])
    result = compare(STRUCTURES[number], [make_case(rng, STRUCTURES[number]) for _ in range(8)])
    assert np.isfinite(result.exact).all()
    assert np.nanmax(result.errors()) < 1e-6
    assert (~result.same).mean() < 0.05
    assert result.cuts > 0
    assert np.abs(result.exact).max(axis=1).min() > 0.1


def score(weights, threshold, market, adjoint=None, gate=None):
    policy = js.Policy(Fixed(weights), js.Threshold(threshold), gate or js.Hard())
    sim = js.simulate(market, policy, costs=COSTS, adjoint=adjoint, save=js.Save(units=False))
    return js.metrics.sharpe_ratio(sim.returns, ann_factor=8760)


@pytest.fixture(scope="module")
def one_by_one():
    """The gradient by the weights at each threshold, without lanes."""
    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(score), compiler_options=AS_IT_STANDS)
        return jnp.stack([slope(WEIGHTS, x, simulated(60)) for x in THRESHOLDS])


def test_transformations_in_any_order(one_by_one):
    """The gradient of lanes side by side, the gradient of their sum, and its forward derivative."""
    tangent = np.eye(5)[0]
    one = partial(score, market=simulated(60), adjoint=js.AtEvents())

    def total(weights):
        return jax.vmap(one, (None, 0))(weights, THRESHOLDS).sum()

    def mapped(weights):
        return jax.vmap(jax.grad(one), (None, 0))(weights, THRESHOLDS)

    def forward(weights):
        return jax.jvp(total, (weights,), (tangent,))[1]

    ours = [jax.jit(x, compiler_options=AS_IT_STANDS)(WEIGHTS) for x in (mapped, jax.grad(total), forward)]
    theirs = one_by_one, one_by_one.sum(0), one_by_one.sum(0)[0]
    for derivative, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(derivative, expected, rtol=1e-10)


ADJOINTS = [
    pytest.param(js.Checkpointed(1), id="one chunk", marks=pytest.mark.slow),
    pytest.param(js.Checkpointed(7), id="seven chunks", marks=pytest.mark.slow),
    pytest.param(js.AtEvents(), id="at events"),
    pytest.param(js.AtEvents(capacity=64, block=16), id="of some capacity", marks=pytest.mark.slow),
]


@partial(jax.jit, static_argnums=0)
def through(adjoint, market, gate):
    """Scores that fees and trades enter by themselves, the simulations, and derivatives by weights and threshold."""

    def run(weights, threshold):
        policy = js.Policy(Fixed(weights), js.Threshold(threshold), gate, destination=js.SpreadOver(2))
        save = js.Save(events=True)
        sim = js.simulate(market, policy, costs=COSTS, save=save, adjoint=adjoint)
        fills = sim.events.fills
        extra = 1e-3 * fills.fees.sum() + 1e-4 * (jnp.abs(fills.trade) * jnp.nan_to_num(market.close)).sum()
        return js.metrics.sharpe_ratio(sim.returns, ann_factor=8760) + extra, sim

    one = jax.value_and_grad(run, (0, 1), has_aux=True)
    (value, sim), slopes = jax.vmap(one, (None, 0))(WEIGHTS, THRESHOLDS)
    return value, sim, slopes


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_adjoints_change_nothing_but_memory_and_time(adjoint):
    """Values to the last bit, gradients to rounding; a length that chunks do not divide, holes, and several lanes."""
    value, sim, slopes = through(adjoint, simulated(251, holes=True), js.Hard())
    expected, plain, exact = through(js.Checkpointed(), simulated(251, holes=True), js.Hard())
    for ours, theirs in zip(jax.tree.leaves(sim), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for ours, theirs in zip(slopes, exact, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert plain.rebalanced.any(1).all() and (plain.status.fault == 0).all()


@pytest.mark.parametrize("temperature", [0.002, 0.02, 0.2])
def test_near_misses_side_by_side(temperature):
    """At events, a straight-through gradient is that of the plain scan, and the values are those of the hard gate."""
    for seed in (0, 1):
        market, gate = simulated(251, holes=True, seed=seed), js.StraightThrough(temperature)
        _, sim, slopes = through(js.AtEvents(), market, gate)
        _, plain, exact = through(js.Checkpointed(), market, gate)
        for ours, theirs in zip(jax.tree.leaves(sim), jax.tree.leaves(plain), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(slopes, exact, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * np.abs(theirs).max())
        assert (exact[1] != 0).sum() >= 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 5, 8], ids=lambda k: STRUCTURES[k].name)
def test_near_misses_of_all_kinds_of_pipelines(number):
    """Fixed fees and limits; relative thresholds, dates beside them, assets left alone; shorts, locked cash, moving
    values: at events as in the plain scan, by everything that there is to differentiate."""
    rng = np.random.default_rng([2, number])
    structure = STRUCTURES[number]
    cases = [make_case(rng, structure) for _ in range(6)]
    soft, hard = ([replace(case, temperature=np.asarray(x)) for case in cases] for x in (0.03, 1e-12))
    plain, hard = np.split(exact_gradients(structure, soft + hard, js.Checkpointed()), 2)
    at_events = exact_gradients(structure, soft, js.AtEvents())
    scale = np.abs(plain).max(axis=1, keepdims=True)
    assert np.isfinite(plain).all() and (np.abs(plain - hard) > 1e-3 * scale).any(axis=1).sum() >= 4
    np.testing.assert_allclose(at_events / scale, plain / scale, rtol=0, atol=1e-9)


class Observing(Fixed):
    """An allocator that looks at every bar."""

    weights: jax.Array = eqx.field(default_factory=lambda: np.full(3, 0.3))

    def init(self, num_assets):
        return np.zeros(())

    def observe(self, obs, state):
        return state

    def __call__(self, obs, state):
        return self.weights, state


#: Numbers of random structures: spread out and stateful, to an edge, a part of the way, stateful with a cap.
RANDOM_PIPELINES = [pytest.param(9), *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 8, 10, 11, 20))]


@pytest.mark.parametrize("number", RANDOM_PIPELINES)
def test_the_default_has_the_gradients_of_the_plain_scan(number):
    """Lanes of random pipelines, holes, shorts, allocators with a state and assets that leave among them: values to the
    last bit, derivatives by weights, prices, fees and cash."""
    rng = np.random.default_rng([3, number])
    cases = make_cases(rng, make_structure(rng, number), 4, 70)
    gone = [np.arange(70)[:, None] >= rng.integers(20, 140, m.num_assets) for m in cases.markets]
    markets = [replace(m, gone=x, close=np.where(x, np.nan, m.close)) for m, x in zip(cases.markets, gone, strict=True)]
    markets = [
        replace(m, val_price=np.where(m.gone, np.nan, m.val_price), price=np.where(m.gone, np.nan, m.price))
        for m in markets
    ]
    policies = cases.policies
    if number == 1:
        due = js.AtBars(np.arange(70) % 9 == 0)
        policies = [replace(p, stops=StopRules(due, (js.StopLoss(0.02),))) for p in policies]
    lanes = list(zip(markets, policies, cases.costs, cases.cash, strict=True))
    numbers, code = eqx.partition(jax.tree.map(lambda *x: np.stack(x), *lanes), eqx.is_inexact_array)

    def run(numbers, code, adjoint):
        market, policy, costs, cash = eqx.combine(numbers, code)
        sim = js.simulate(market, policy, costs=costs, account=js.Account(cash), adjoint=adjoint)
        return jnp.nan_to_num(sim.returns).sum() + jnp.nan_to_num(sim.returns[30:]).var(), sim

    @partial(jax.jit, static_argnums=0)
    def slopes(adjoint):
        one = jax.value_and_grad(partial(run, adjoint=adjoint), has_aux=True)
        return eqx.filter_vmap(one)(numbers, code)

    (_, sim), ours = slopes(js.AtEvents())
    (_, plain), theirs = slopes(js.Checkpointed())
    for x, y in zip(jax.tree.leaves(sim), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(x, y)
    assert plain.rebalanced.sum() > 8
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=max(1e-10 * np.abs(y).max(), 1e-15))


def test_second_derivatives():
    """At events as bar by bar: the derivative of a gradient, forward over reverse."""
    at, along = np.array([0.15, 0.25, 0.22, 0.08, 0.28]), np.eye(5)[0]

    def one(weights, adjoint):
        policy = js.Policy(Fixed(weights), js.Threshold(0.03), destination=js.ToEdge())
        sim = js.simulate(simulated(60), policy, costs=COSTS, adjoint=adjoint)
        return js.metrics.sharpe_ratio(sim.returns, ann_factor=8760)

    @partial(jax.jit, static_argnums=0)
    def bend(adjoint):
        return jax.jvp(jax.grad(partial(one, adjoint=adjoint)), (at,), (along,))[1]

    np.testing.assert_allclose(bend(js.AtEvents()), bend(js.Checkpointed()), rtol=1e-9)


@pytest.mark.parametrize(
    ("gate", "allocator", "adjoint"),
    [
        (js.Hard(), al.EqualWeight(), js.AtEvents()),
        (js.StraightThrough(), al.EqualWeight(), js.AtEvents()),
        (js.StraightThrough(through_state=True), al.EqualWeight(), js.Checkpointed()),
        (js.Sigmoid(), al.EqualWeight(), js.Checkpointed()),
        (js.Hard(), al.host(np.ones_like), js.Checkpointed()),
        (js.Hard(), Observing(), js.Checkpointed()),
    ],
)
def test_the_adjoint_that_suits_a_policy(gate, allocator, adjoint):
    policy = js.Policy(allocator, js.Threshold(0.05), gate)
    assert adjoint_for(policy, LONG) == adjoint
    assert adjoint_for(policy, LONG - 1) == js.Checkpointed()
    assert adjoint_for(policy, LONG, js.Checkpointed(3)) == js.Checkpointed(3)


def all_metrics(numbers, market):
    """Every metric that is one number, of one simulation that buys at fees to the edge of its band."""
    weights, threshold, fees, cash = numbers[:5], numbers[5], numbers[6], numbers[7]
    policy = js.Policy(Fixed(weights), js.Threshold(threshold), destination=js.ToEdge())
    sim = js.simulate(market, policy, costs=js.Costs(fees), account=js.Account(cash), save=js.Save(events=True))
    fills, close = sim.events.fills, market.close
    benchmark = (close[1:] / close[:-1] - 1).mean(axis=1)
    settings = {"ann_factor": 120, "benchmark": jnp.concatenate([jnp.zeros(1), benchmark]), "var_sharpe": 1e-4}
    found = {}
    for name in ONE_NUMBER:
        function = getattr(js.metrics, name)
        taken = {key: x for key, x in settings.items() if key in inspect.signature(function).parameters}
        nb_trials = {"nb_trials": 10} if name == "deflated_sharpe_ratio" else {}
        found[name] = function(sim.returns, **taken, **nb_trials)
    traded = (jnp.abs(fills.trade) * fills.price).sum(axis=1)
    found |= {name: getattr(js.metrics, name)(traded, sim.value) for name in ("turnover", "turnover_two_way")}
    return found | {"total_fees": js.metrics.total_fees(fills.fees.sum(axis=1))}, sim.rebalanced


OF_ORDERS = {"turnover", "turnover_two_way", "num_rebalances", "total_fees"}
NO_SCORE = {"drawdown", "returns_from_value", "returns_stats", "portfolio_stats"}
ONE_NUMBER = [
    name for name in js.metrics.__all__ if not name.startswith("rolling_") and name not in OF_ORDERS | NO_SCORE
]


def test_every_metric_through_the_simulation():
    """By weights, threshold (the band's edge), fees and cash: forward derivatives beside central differences. Weights
    of one in all would be where cash is just about to cut an order."""
    market, at = simulated(120), np.array([0.15, 0.25, 0.22, 0.08, 0.28, 0.03, 0.005, 100.0])
    exact, rebalanced = jax.jit(jax.jacfwd(partial(all_metrics, market=market), has_aux=True))(at)
    steps = 1e-6 * np.maximum(1.0, np.abs(at))
    moved = np.concatenate([at + np.diag(steps), at - np.diag(steps)])
    values, events = jax.jit(jax.vmap(partial(all_metrics, market=market)))(moved)
    assert (events == rebalanced).all() and rebalanced.sum() > 3
    assert len(exact) >= 25
    for name, value in values.items():
        differences = (value[:8] - value[8:]) / (2 * steps)
        np.testing.assert_allclose(
            exact[name], differences, rtol=0, atol=1e-6 * np.abs(differences).max(), err_msg=name
        )
        assert np.abs(differences[:7]).min() > 0, name


def test_more_rebalances_than_there_is_room_for():
    """A fault and NaN, never a wrong number."""
    market = simulated(251)
    policy = js.Policy(al.EqualWeight(), js.Threshold(0.01))
    needed = int(js.simulate(market, policy, costs=COSTS).rebalanced.sum())
    short, enough = (js.simulate(market, policy, costs=COSTS, adjoint=js.AtEvents(n)) for n in (needed - 1, needed))
    assert short.status.fault == js.LaneFault.EVENTS_OVERFLOW
    assert "capacity" in js.LaneFault(int(short.status.fault)).text
    assert np.isnan(short.value).all() and np.isnan(short.returns).any()
    assert enough.status.fault == js.LaneFault.NONE and enough.rebalanced.sum() == needed


def test_what_cannot_be_differentiated_at_events():
    market = simulated(60)
    for gate in (js.StraightThrough(through_state=True), js.Sigmoid()):
        with pytest.raises(ValueError, match=rf"^adjoint: AtEvents .* {type(gate).__name__}"):
            js.simulate(market, js.Policy(al.EqualWeight(), js.Never(), gate), adjoint=js.AtEvents())
    with as_users_run_it(), pytest.raises(TypeError, match=r"^adjoint: expected js\.Checkpointed\(\)"):
        js.simulate(market, js.Policy(al.EqualWeight()), adjoint="events")  # pyright: ignore
    for bad in (0, -1, 2.5, True):
        with as_users_run_it(), pytest.raises(ValueError, match=r"^chunks: expected a whole number >= 1"):
            js.Checkpointed(bad)  # pyright: ignore
        with as_users_run_it(), pytest.raises(ValueError, match=r"^capacity: expected a whole number >= 1"):
            js.AtEvents(bad)  # pyright: ignore


class ByThreshold(eqx.Module):
    threshold: jax.Array
    tilt: jax.Array


def in_steps(tree):
    """A step function of the threshold, smooth in the tilt."""
    return jnp.floor(40 * tree.threshold) * tree.tilt + jnp.sin(tree.tilt)


def test_the_smoothed_derivative_is_that_of_the_smoothed_score():
    """The score of a real pipeline; its smoothed derivative by brute force, on a fine grid of thresholds."""
    market, scale, at = simulated(250), 0.01, 0.03
    noise = np.linspace(-5, 5, 801)
    scores = jax.jit(jax.vmap(partial(score, WEIGHTS, market=market)))
    density = np.exp(-(noise**2) / 2)
    density /= density.sum()
    exact = (density * noise * scores(at + scale * noise)).sum() / scale

    def of_policy(policy):
        sim = js.simulate(market, policy, costs=COSTS)
        return js.metrics.sharpe_ratio(sim.returns, ann_factor=8760)

    @jax.jit
    def estimate(key):
        mean = js.smoothed(of_policy, key=key, scale=scale, num_samples=16)
        policy = js.Policy(Fixed(WEIGHTS), js.Threshold(jnp.asarray(at)))
        return eqx.filter_grad(mean)(policy).trigger.threshold

    estimates = jax.lax.map(estimate, jax.random.split(jax.random.key(0), 48))
    error = estimates.std(ddof=1) / np.sqrt(estimates.size)
    assert abs(estimates.mean() - exact) < 3 * error
    assert error < 0.5 * abs(exact)  # or nothing is shown


def test_smoothing_takes_the_rest_as_it_is():
    """Parameters that are not shaken have the mean of their own derivatives; jvp and grad agree."""
    tree = ByThreshold(jnp.asarray(0.3), jnp.asarray(0.5))
    mean = js.smoothed(in_steps, key=3, scale=0.02, num_samples=2000)
    value, slope = jax.value_and_grad(mean)(tree)
    # Floors of a number that is shaken widely are half a step below it on average; 0.3 is where a step begins.
    assert float(value) == pytest.approx(float(in_steps(tree)) - 0.25, abs=0.05)
    assert float(slope.threshold) == pytest.approx(40 * 0.5, rel=0.1)
    tangent = ByThreshold(jnp.asarray(0.0), jnp.asarray(1.0))
    assert float(jax.jvp(mean, (tree,), (tangent,))[1]) == pytest.approx(float(slope.tilt), rel=1e-12)
    assert mean(tree) == mean(tree)


@pytest.mark.parametrize("number", [0, 1, 7, 2.0, True])
def test_samples_come_in_pairs(number):
    with as_users_run_it(), pytest.raises(ValueError, match=r"^num_samples: expected an even number >= 2"):
        js.smoothed(in_steps, key=0, scale=0.1, num_samples=number)


def test_nothing_to_smooth():
    with pytest.raises(ValueError, match=r"^where: there is nothing to shake"):
        js.smoothed(lambda tree: tree, key=0, scale=0.1)(jnp.zeros(3))
