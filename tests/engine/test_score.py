"""`js.score`: the metrics of a sweep, inside of a user's own programs."""

import functools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import allocators as al
import jaxsim as js
from jaxsim.engine.metrics.online import NAMES, needs_benchmark
from tests.helpers.markets import THRESHOLDS, as_users_run_it, prices

CLOSE, OPEN = prices()
ANN = 365.0
FEES = [0.0, 0.002]
PLAIN = [name for name in NAMES if not needs_benchmark([name])]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def market(close=CLOSE, open_=OPEN) -> js.Market:
    return js.Market.from_frames(close, open=open_, dtype=np.float64)


def scored(threshold, fees=0.002, names=("sharpe_ratio",), allocator=None, here=None, **options):
    policy = js.Policy(allocator or al.EqualWeight(), js.Threshold(threshold))
    options = dict(costs=js.Costs(fees), ann_factor=ANN) | options
    return js.score(market() if here is None else here, policy, names, **options)


def swept(names, **options):
    options = dict(open=OPEN, trigger=js.Threshold(js.grid(threshold=THRESHOLDS)), fees=js.grid(fees=FEES)) | options
    return js.sweep(CLOSE, al.EqualWeight(), metrics=list(names), **options)


def same(one, other, **tolerance):
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), **(dict(rtol=1e-9, atol=1e-12) | tolerance))


THREE, TWO = np.asarray(THRESHOLDS), np.asarray(FEES)


def test_lanes_are_those_of_a_sweep():
    """A vmap in a vmap, in a jit: every metric of every lane."""
    by_fee = jax.vmap(lambda threshold, fees: scored(threshold, fees, PLAIN), (None, 0))
    table = jax.jit(jax.vmap(by_fee, (0, None)))(THREE, TWO)
    want = swept(PLAIN)
    for name in PLAIN:
        assert table[name].shape == (3, 2) and table[name].dtype == np.float64
        same(table[name].ravel(), want[name])


def test_metrics_against_a_benchmark():
    names = [name for name in NAMES if needs_benchmark([name])]
    growth = (CLOSE / CLOSE.iloc[0]).mean(axis=1).to_numpy()
    returns = js.metrics.returns_from_value(growth, 1.0)
    table = jax.vmap(lambda threshold: scored(threshold, names=names, benchmark=returns))(THREE)
    want = swept(names, fees=0.002)
    for name in names:
        same(table[name], want[name])


def test_one_lane_is_what_simulate_tells():
    for allocator in (al.EqualWeight(), al.RandomWeights()):
        policy = js.Policy(allocator, js.Threshold(0.05))
        sim = js.simulate(market(), policy, costs=js.Costs(0.002), key=7)
        got = js.score(
            market(), policy, ["sharpe_ratio", "num_rebalances"], ann_factor=ANN, costs=js.Costs(0.002), key=7
        )
        same(got["sharpe_ratio"], js.metrics.sharpe_ratio(sim.returns, ann_factor=ANN))
        assert got["num_rebalances"] == sim.rebalanced.sum() > 1


def test_prices_and_keys_may_be_lanes():
    several = [market(*prices(seed)) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *several)
    keys = jax.random.split(jax.random.key(1), 3)
    names = ["total_return", "turnover"]

    def one(here, key):
        return scored(0.05, names=names, allocator=al.RandomWeights(), here=here, key=key)

    together = jax.vmap(one)(stacked, keys)
    for lane, here in enumerate(several):
        alone = one(here, keys[lane])
        for name in names:
            same(together[name][lane], alone[name])
    assert len(np.unique(together["turnover"])) == 3


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(4)), st.lists(st.floats(0.01, 0.3), min_size=4, max_size=4))
def test_lanes_do_not_know_of_one_another(order, limits):
    run = _four()
    with jax.enable_x64(True):
        limits = np.asarray(limits)
        straight, shuffled = run(limits), run(limits[order])
        np.testing.assert_array_equal(shuffled["sharpe_ratio"], straight["sharpe_ratio"][np.asarray(order)])


@functools.cache  # compiled once
def _four():
    return jax.jit(jax.vmap(scored))


def test_nothing_is_traced_again_for_other_numbers():
    traced = []

    def counting(obs):
        traced.append(1)
        return jnp.full(3, 1 / 3)

    run = jax.jit(lambda here, limits: jax.vmap(lambda t: scored(t, here=here, allocator=counting))(limits))
    run(market(), THREE)
    before = len(traced)
    run(market(*prices(5)), THREE / 2)
    assert len(traced) == before > 0


def tell(run, threshold=0.05):
    # NumPy's, since JAX makes arguments of its own arrays; and so many that XLA moves them into the kernel.
    close = np.tile(CLOSE.to_numpy(), (5, 2))[:, :5]
    here, policy = js.Market(close, close, close, close), js.Policy(al.EqualWeight(), js.Threshold(threshold))
    options = dict(schedule=js.NextEvent(), costs=js.Costs(0.002), key=0)
    return run(here, policy, **options | ({"ann_factor": ANN} if run is js.score else {}))


@pytest.mark.parametrize("run", [js.score, js.simulate], ids=lambda f: f.__name__)
def test_programs_all_of_whose_numbers_are_constants(run):
    """XLA replaces parameters that are constants; in one kernel it would abort the process."""
    jax.tree.map(same, jax.jit(lambda: tell(run))(), tell(run))


WITHIN = {
    "a vmap": lambda one: jax.vmap(one)(jnp.asarray(THREE)),
    "a loop": lambda one: jax.lax.map(one, jnp.asarray(THREE)),
    "a vmap in a loop": lambda one: jax.lax.map(lambda _: jax.vmap(one)(THREE), jnp.arange(2))[0],
    "a loop in a vmap": lambda one: jax.vmap(lambda t: jax.lax.map(lambda k: one(t * k), jnp.ones(2))[0])(THREE),
    "a branch": lambda one: jnp.stack([jax.lax.cond(t > 0, one, lambda t: t, t) for t in THREE]),
    "a checkpoint": lambda one: jax.vmap(jax.checkpoint(one))(THREE),
}


@pytest.mark.parametrize("where", WITHIN)
def test_it_goes_wherever_jax_does(where):
    """With constants alone: see above."""
    got = jax.jit(lambda: WITHIN[where](lambda t: tell(js.score, t)["sharpe_ratio"]))()
    same(got, [tell(js.score, t)["sharpe_ratio"] for t in THREE])


def test_a_lane_that_fails_is_nan():
    class Broken(eqx.Module):
        at: jax.Array

        def __call__(self, obs):
            return jnp.where(obs.step >= self.at, jnp.nan, jnp.full(3, 1 / 3))

    table = jax.vmap(lambda at: scored(0.02, names=["turnover"], allocator=Broken(at)))(jnp.array([10, 10**6]))
    assert np.isnan(table["turnover"]).tolist() == [True, False]


def test_an_allocator_that_observes_every_bar():
    class Counts(eqx.Module):
        def init(self, num_assets):
            return jnp.zeros(())

        def observe(self, obs, state):
            return state + 1

        def __call__(self, obs, state):
            return js.Allocation(jnp.array([1.0, 0, 0]) * (state % 2) + jnp.array([0, 1.0, 0]) * (1 - state % 2)), state

    table = jax.vmap(lambda t: scored(t, names=["turnover"], allocator=Counts()))(THREE)
    options = dict(open=OPEN, trigger=js.Threshold(js.grid(threshold=THRESHOLDS)), fees=0.002)
    want = js.sweep(CLOSE, Counts(), metrics=["turnover"], **options)
    same(table["turnover"], want["turnover"])


def test_an_allocator_in_plain_python():
    asked = []

    def half(obs):
        asked.append(obs.step)
        return np.array([0.5, 0.25, 0.25])

    table = jax.vmap(lambda t: scored(t, names=["num_rebalances"], allocator=al.host(half)))(THREE)
    assert len(asked) == int(table["num_rebalances"].sum()) > 3


def test_single_precision():
    with jax.enable_x64(False):
        here = js.Market.from_frames(CLOSE, open=OPEN, dtype=np.float32)
        got = jax.vmap(lambda t: scored(t, here=here))(np.asarray(THRESHOLDS, np.float32))["sharpe_ratio"]
    assert got.dtype == np.float32
    same(got, swept(["sharpe_ratio"], fees=0.002)["sharpe_ratio"], rtol=1e-4)


WEIGHTS = np.full((2, 3), 1 / 3)
MISUSE = {
    "metrics: expected a list of names, as ['sharpe_ratio'], got 'sharpe_ratio'": dict(names="sharpe_ratio"),
    "metrics: there is none": dict(names=[]),
    "metrics: 'value_at_risk' cannot be told from running sums": dict(names=["value_at_risk"]),
    "metrics: 'deflated_sharpe_ratio' cannot be told": dict(names=["deflated_sharpe_ratio"]),
    "ann_factor: sharpe_ratio needs the number of bars in a year": dict(ann_factor=None),
    "ann_factor: expected a plain number > 0, got -1": dict(ann_factor=-1),
    "benchmark: some of the metrics need its returns": dict(names=["beta"]),
    "benchmark: none of the metrics needs one": dict(benchmark=np.zeros(60)),
    "benchmark: expected 60 returns, got shape (3,)": dict(names=["beta"], benchmark=np.zeros(3)),
    "market: expected a Market, got DataFrame": dict(here=CLOSE),
    "costs: expected js.Costs, got 0.1": dict(costs=0.1),
    "schedule: expected js.NextEvent() or js.Scan()": dict(schedule="fast"),
}


@pytest.mark.parametrize("message", MISUSE)
def test_misuse(message):
    with as_users_run_it(), pytest.raises((TypeError, ValueError), match=re.escape(message)):
        scored(0.05, **MISUSE[message])


def test_what_has_no_derivative_says_so():
    with pytest.raises(TypeError, match=r"js\.score runs forward only; take derivatives of js\.simulate"):
        jax.grad(lambda t: scored(t)["sharpe_ratio"])(0.05)


def test_a_gate_that_changes_values_is_refused():
    policy = js.Policy(al.EqualWeight(), js.Threshold(0.05), gate=js.Sigmoid(0.01))
    with pytest.raises(ValueError, match="Sigmoid trades a little at every bar"):
        js.score(market(), policy, ann_factor=ANN)


def test_arrays_by_lane_that_a_function_closes_over():
    with pytest.raises(ValueError, match="policy: its functions close over arrays that differ by lane"):
        jax.vmap(lambda w: scored(0.05, allocator=lambda obs: w))(WEIGHTS)


def test_an_assertion_of_the_users_is_the_users():
    def fails(obs):
        raise AssertionError("mine")

    with pytest.raises(AssertionError, match="mine"):
        scored(0.05, allocator=fails)


def test_a_benchmark_by_lane_is_refused():
    with pytest.raises(ValueError, match="benchmark: one for all lanes"):
        jax.vmap(lambda b: scored(0.05, names=["beta"], benchmark=b))(jnp.zeros((2, len(CLOSE))))
