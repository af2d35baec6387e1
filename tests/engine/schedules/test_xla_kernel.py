"""Loops in one kernel: marked where that is possible, and what is held is the same to the last digit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs
from jaxsim.engine.schedules import xla_kernel as kernel
from jaxsim.engine.schedules.programs import running_sums

COUNT = 12


def loop(turn):
    """Seven turns on an array of numbers, and what XLA makes of them."""

    def run(x, scale, unused):
        def one(given, state):
            return state[0] + 1, turn(state[1]) * given[0], state[2]

        seven = kernel.Loop(lambda _, state: state[0] < 7, one, (scale, unused), (0, x, unused))
        return kernel.run_loop(lambda is_one_kernel: seven)[1]

    arguments = jnp.linspace(0.1, 1.0, COUNT), jnp.asarray(0.9), jnp.zeros(3)
    lowered = jax.jit(run).lower(*arguments)
    return np.asarray(lowered.compile()(*arguments)), "xla_cpu_small_call" in lowered.as_text()


def draws(x):
    return x * jax.random.normal(jax.random.fold_in(jax.random.key(0), x.sum().astype(int)), (COUNT,))


def branches(x):
    return jax.lax.cond(x.max() > 0.5, lambda x: jnp.cumsum(x) / 3, lambda x: jnp.tanh(x) + jnp.argmax(x), x)


def inner_loop(x):
    return jax.nn.softmax(jax.lax.fori_loop(0, 3, lambda _, y: jnp.sin(y), x))


def many_whole_numbers(x):
    return x + jnp.broadcast_to((100 * x).astype(int), (400, COUNT)).sum(axis=0) / 40_000


def many_numbers(x):
    return x + jnp.broadcast_to(x, (400, COUNT)).sum(axis=0) / 400


def python(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


#: What a turn does, and whether that is plain.
TURNS = {
    "draws": (draws, True),
    "branches": (branches, True),
    "inner loop": (inner_loop, True),
    "matrix": (lambda x: jnp.outer(x, x) @ x, False),
    "sorting": (jnp.sort, False),
    "scatter": (lambda x: x.at[jnp.arange(COUNT) // 2].add(1.0), False),
    "many numbers": (many_numbers, False),
    "many whole numbers": (many_whole_numbers, True),
    "Python": (python, False),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_loop_is_marked_if_its_turns_are_plain(name, monkeypatch):
    turn, is_plain = TURNS[name]
    with jax.enable_x64(True):
        x, marked = loop(turn)
        monkeypatch.setattr(kernel, "is_known", lambda: False)
        same, unmarked = loop(turn)
    assert marked == is_plain and not unmarked
    np.testing.assert_array_equal(x, same)


def scores(allocator, **options):
    """Of six thresholds."""
    rng = np.random.default_rng(5)
    close = np.exp(np.cumsum(rng.normal(0, 0.02, (300, 3)), axis=0))
    close[40:60, 1] = np.nan
    thresholds = np.linspace(0.01, 0.1, 6)
    policy = js.Policy(allocator, js.Threshold(thresholds), destination=js.Fraction(0.8))
    with jax.enable_x64(True):
        market = js.Market(close, close, close, np.nan_to_num(close, nan=1.0))
        run = LaneInputs(market, policy, js.Costs(np.float64(0.002)), js.Account(np.float64(100.0)), jax.random.key(3))
        axes = (LaneAxis.of("lane", 6, jax.tree.map(lambda x: 0 if x is thresholds else None, run)),)
        names = ("sharpe_ratio", "max_drawdown", "turnover", "num_rebalances")
        return jax.tree.map(np.asarray, running_sums(run, axes, names, schedule=js.NextEvent(**options)))


def same_to_the_last_digit(one, other):
    """What was traded and is held. Values are marked, and summed, by other instructions."""
    jax.tree.map(np.testing.assert_array_equal, (one[1], one[0].trades), (other[1], other[0].trades))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14), one[0], other[0])


@pytest.mark.parametrize("allocator", [al.EqualWeight(), al.RandomWeights()], ids=lambda x: type(x).__name__)
def test_one_kernel_changes_no_order(allocator):
    one, other = (scores(allocator, one_kernel=x, block=32, slots=2) for x in (True, False))
    same_to_the_last_digit(one, other)
    assert one[0].trades.rebalances.sum() > 100


def by_many_numbers(obs):
    return many_numbers(jnp.repeat(obs.val_price, COUNT // 3)).reshape(3, -1).sum(axis=1) * 0 + 1 / 3


def test_what_xla_cannot_make_a_kernel_of_runs_as_usual(monkeypatch):
    """Where it is not known beforehand that it cannot."""
    want = scores(by_many_numbers, one_kernel=False, block=32)
    monkeypatch.setattr(kernel, "LARGE", 10**9)
    same_to_the_last_digit(scores(by_many_numbers, block=32), want)


def test_an_allocator_that_prints_is_asked_as_often():
    """It is no plain arithmetic: the program that was to be one kernel must not run beside the one that is run."""
    calls = []

    def printing(obs):
        jax.debug.callback(lambda value: calls.append(value), obs.value)
        return jnp.full(3, 1 / 3)

    for options in ({}, {"one_kernel": False}):
        scores(printing, slots=2, **options)
        jax.effects_barrier()
        calls.append(None)
    end = calls.index(None)
    assert end == len(calls) - end - 2 > 50


def test_an_xla_that_is_not_known_is_given_no_marks(monkeypatch):
    monkeypatch.setattr(kernel, "KNOWN_XLA", {(99, 0)})
    with jax.enable_x64(True):
        assert not loop(jnp.sin)[1]
