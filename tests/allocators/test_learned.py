"""Learned allocators: equal weight at the start, their formulas in plain NumPy, derivatives, holes, misuse."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import ASSETS, BARS, INDEX, as_users_run_it, look, prices, run, with_holes

CLOSE, OPEN = with_holes(*prices())
CLOSE.iloc[:3], OPEN.iloc[:3] = np.nan, np.nan
RNG = np.random.default_rng(5)
#: Two features of three assets; the last asset has none before it is listed, nobody has any for five bars.
FEATURES = RNG.normal(size=(BARS, 3, 2))
FEATURES[:5], FEATURES[:20, -1] = np.nan, np.nan

SCORED = {
    "linear": al.Linear(2, cash=True),
    "mlp": al.MLP(2, width=4, sees_weights=True),
    "attention": al.Attention(2, width=4, cash=True),
    "recurrent": al.Recurrent(2, width=3, cash=True, sees_weights=True),
}
ALL = SCORED | {"softmax": al.SoftmaxWeights(3, cash=True, over="tradable")}


def shaken(allocator, seed=0, scale=0.7):
    """The allocator as it may be after training: away from equal weight."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + rng.normal(0, scale, x.shape) if eqx.is_inexact_array(x) else x, allocator)


def weights_of(allocator, features, *, weights=None, tradable=None, times=1):
    """What an allocator says to a row of features, after it has observed it so many times."""
    obs = replace(
        look(np.full(len(features), 0.1) if weights is None else weights, tradable=tradable), features=features
    )
    with jax.enable_x64(True):
        if not hasattr(allocator, "init"):
            answer = allocator(obs)
        else:
            state = allocator.init(len(features))
            for _ in range(times):
                state = allocator.observe(obs, state)
            answer = allocator(obs, state)[0]
    return np.asarray(getattr(answer, "weights", answer))


# --- the start


@pytest.mark.parametrize("name", ALL)
def test_starts_at_equal_weight_of_what_is_listed(name):
    allocator = ALL[name]
    numbers = [x for x in jax.tree.leaves(allocator) if eqx.is_inexact_array(x)]
    assert numbers and all(isinstance(x, np.ndarray) and x.dtype == np.float64 for x in numbers)
    bt = run(CLOSE, allocator, OPEN, 0.02, features=FEATURES, engine="reference")
    asked = bt.allocations.weights
    listed = CLOSE.notna().cumsum().gt(0) | OPEN.notna()
    listed = listed.cummax().loc[asked.index]
    expected = listed.div((listed.sum(axis=1) + allocator.cash).clip(1), axis=0)
    np.testing.assert_allclose(asked.fillna(0), expected, rtol=1e-15)  # NaN: nothing is listed, left alone
    assert not listed.all().all() and len(asked) > 5
    assert bt.orders["timestamp"].min() == INDEX[3]


# --- the formulas, written again in NumPy


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def shares(scores, cash):
    parts = np.exp(np.append(scores[:, 0], scores[:, 1].mean()) if cash else scores[:, 0])
    return (parts / parts.sum())[: len(scores)]


def dense(layer, x):
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def by_hand(allocator, x, times):
    if isinstance(allocator, al.MLP):
        for layer in allocator.layers:
            x = dense(layer, x) * sigmoid(dense(layer, x))
    if isinstance(allocator, al.Attention):
        x, parts = dense(allocator.embed, x), []
        q, k, v = (
            dense(p, x).reshape(len(x), 2, -1)
            for p in (allocator.query_layer, allocator.key_layer, allocator.value_layer)
        )
        for head in range(2):
            heat = np.exp(q[:, head] @ k[:, head].T / np.sqrt(q.shape[-1]))
            parts.append(heat / heat.sum(axis=1, keepdims=True) @ v[:, head])
        x = x + dense(allocator.output_layer, np.concatenate(parts, axis=1))
        x = x + dense(allocator.hidden_layer, x) * sigmoid(dense(allocator.hidden_layer, x))
    if isinstance(allocator, al.Recurrent):
        unit, state = allocator.cell, np.zeros((len(x), allocator.cell.hidden_size))
        for _ in range(times):
            a = np.split(x @ unit.weight_ih.T + unit.bias, 3, axis=1)
            b = np.split(state @ unit.weight_hh.T, 3, axis=1)
            reset, keep = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
            new = np.tanh(a[2] + reset * (b[2] + unit.bias_n))
            state = new + keep * (state - new)
        x = state
    return shares(dense(allocator.head, x), allocator.cash)


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("count", [3, 5])
def test_formula_and_exchanged_assets(name, count):
    """The numbers of plain NumPy, for any number of assets; and who stands where makes no difference."""
    allocator, rng = shaken(SCORED[name]), np.random.default_rng(count)
    features, weights = rng.normal(size=(count, 2)), rng.dirichlet(np.ones(count + 1))[:count]
    inputs = np.column_stack([features, weights]) if allocator.sees_weights else features
    got = weights_of(allocator, features, weights=weights, times=3)
    np.testing.assert_allclose(got, by_hand(allocator, inputs, 3), rtol=1e-12)
    assert np.ptp(got) > 0.01
    order = rng.permutation(count)
    exchanged = weights_of(allocator, features[order], weights=weights[order], times=3)
    np.testing.assert_allclose(exchanged, got[order], rtol=1e-12)


def test_softmax_weights():
    logits = np.array([0.3, -1.0, 2.0, 0.5])
    with_cash = eqx.tree_at(lambda a: a.logits, al.SoftmaxWeights(3, cash=True), logits)
    without = eqx.tree_at(lambda a: a.logits, al.SoftmaxWeights(4), logits)
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(weights_of(with_cash, np.zeros((3, 1))), expected[:3], rtol=1e-15)
    np.testing.assert_allclose(weights_of(without, np.zeros((4, 1))), expected, rtol=1e-15)
    listed = np.array([True, False, True, True])
    some = eqx.tree_at(lambda a: a.logits, al.SoftmaxWeights(4, over="tradable"), logits)
    expected = np.where(listed, expected, 0) / expected[listed].sum()
    np.testing.assert_allclose(weights_of(some, np.zeros((4, 1)), tradable=listed), expected, rtol=1e-15)
    np.testing.assert_array_equal(weights_of(some, np.zeros((4, 1)), tradable=listed & False), 0)


# --- what is missing


@pytest.mark.parametrize("name", SCORED)
def test_what_is_missing_gets_nothing_and_says_nothing(name):
    allocator, rng = shaken(SCORED[name]), np.random.default_rng(1)
    features, present = rng.normal(size=(4, 2)), np.array([0.1, 0.2, 0.3, 0.0])
    alone = weights_of(allocator, features[:3], weights=present[:3], times=2)
    for missing, tradable in ((np.nan, [True] * 4), (7.0, [True] * 3 + [False])):
        features[3, 1] = missing
        got = weights_of(allocator, features, weights=present, tradable=tradable, times=2)
        np.testing.assert_allclose(got, [*alone, 0], rtol=1e-12)
    features[:, 0] = np.nan
    got = weights_of(allocator, features, weights=present, tradable=[True, False, True, False])
    np.testing.assert_allclose(got, np.array([1, 0, 1, 0]) / (2 + allocator.cash), rtol=1e-15)


# --- everywhere it runs


@pytest.mark.parametrize("name", ALL)
def test_pandas_face_core_and_reference_agree_and_derivatives_are_right(name):
    """Trained parameters, holes, fees, trades when weights have drifted: the values of the three, and the derivative in
    a random direction against central differences."""
    allocator = shaken(ALL[name], 3, 0.3)
    bt, judge = (
        run(CLOSE, allocator, OPEN, 0.02, features=FEATURES, fees=0.002, engine=engine)
        for engine in ("compiled", "reference")
    )
    np.testing.assert_allclose(bt.value, judge.value, rtol=1e-12)
    assert bt.rebalances.equals(judge.rebalances) and 5 < bt.num_rebalances() < BARS
    with jax.enable_x64(True):
        market = js.Market.from_frames(CLOSE, open=OPEN, features=FEATURES)
        params, static = eqx.partition(allocator, eqx.is_inexact_array)

        @jax.jit
        @jax.value_and_grad
        def score(params):
            policy = js.Policy(eqx.combine(params, static), js.Threshold(0.02))
            sim = js.simulate(market, policy, costs=js.Costs(fees=0.002))
            return jnp.log(sim.value[-1])

        value, grads = score(params)
        assert float(value) == pytest.approx(np.log(bt.value.iloc[-1]), rel=1e-12)
        assert all(jnp.isfinite(g).all() and jnp.any(g != 0) for g in jax.tree.leaves(grads))
        way = shaken(jax.tree.map(np.zeros_like, params), 4)
        up, down = (score(jax.tree.map(lambda x, d, h=h: x + h * d, params, way))[0] for h in (1e-6, -1e-6))
        slope = sum(float((g * d).sum()) for g, d in zip(*map(jax.tree.leaves, (grads, way)), strict=True))
        assert (up - down) / 2e-6 == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_plans():
    allocator, bars = shaken(al.Attention(2, width=4)), [40, 55]
    plan = js.optimize(CLOSE, allocator, on=INDEX[[25, *bars]], features=FEATURES)
    expected = [weights_of(allocator, FEATURES[bar], weights=np.zeros(3)) for bar in bars]
    np.testing.assert_allclose(plan.weights, expected, rtol=1e-12)


def test_many_seeds_at_once():
    """Constructed under vmap, as one would for restarts: the layers are those of each seed."""
    keys = jax.random.split(jax.random.key(0), 2)

    def layers(allocator):
        return [x for x in jax.tree.leaves(allocator) if eqx.is_inexact_array(x)]

    together = layers(eqx.filter_vmap(lambda key: al.MLP(2, depth=1, key=key))(keys))
    for i, key in enumerate(keys):
        for many, one in zip(together, layers(al.MLP(2, depth=1, key=key)), strict=True):
            np.testing.assert_array_equal(many[i], one)
    one, other = al.MLP(2, depth=1, key=jax.random.key(3)), al.MLP(2, depth=1, key=3)
    np.testing.assert_array_equal(one.layers[0].weight, other.layers[0].weight)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(al.MLP(2, depth=1, key=3).layers[0].weight, other.layers[0].weight)


# --- what features may look like


def test_shapes_of_features():
    """By asset, several by asset, of the market as a whole; in the order of the pytree."""
    linear = shaken(al.Linear(4))
    by_asset, pair, market = RNG.normal(size=3), RNG.normal(size=(3, 2)), 0.3
    expected = weights_of(linear, np.column_stack([by_asset, pair, np.full(3, market)]))

    class Given(eqx.Module):
        def __call__(self, obs):
            return linear(replace(obs, features={"a": by_asset, "b": pair, "c": np.asarray(market)}))

    np.testing.assert_array_equal(weights_of(Given(), np.zeros((3, 1))), expected)


def test_by_label_and_by_number():
    frame = pd.DataFrame(FEATURES[:, :, 0], INDEX, ASSETS)
    allocator = shaken(al.Linear(2))
    series = pd.Series(np.linspace(-1, 1, BARS), INDEX)
    options = dict(threshold=0.02, engine="reference")
    labelled = run(CLOSE, allocator, OPEN, features={"x": frame, "y": series}, **options)
    array = np.stack([frame.to_numpy(), np.tile(series.to_numpy()[:, None], 3)], axis=2)
    np.testing.assert_array_equal(labelled.value, run(CLOSE, allocator, OPEN, features=array, **options).value)


# --- misuse

MISUSE = {
    "no assets": (lambda: al.SoftmaxWeights(0), ValueError, "num_assets: .*positive"),
    "half an asset": (lambda: al.SoftmaxWeights(2.5), ValueError, "num_assets: .*whole"),
    "unknown over": (lambda: al.SoftmaxWeights(2, over="any"), ValueError, "over: "),
    "no features": (lambda: al.Linear(0), ValueError, "num_features: "),
    "true features": (lambda: al.Recurrent(True), ValueError, "num_features: .*True"),
    "no width": (lambda: al.MLP(2, width=0), ValueError, "width: "),
    "no depth": (lambda: al.MLP(2, depth=0), ValueError, "depth: "),
    "no heads": (lambda: al.Attention(2, num_heads=0), ValueError, "num_heads: "),
    "odd heads": (lambda: al.Attention(2, width=4, num_heads=3), ValueError, "width: .*num_heads=3"),
    "text as key": (lambda: al.MLP(2, key="a"), TypeError, "key: "),
    "fractional key": (lambda: al.Recurrent(2, key=0.5), TypeError, "key: "),
    "other assets": (lambda: run(CLOSE, al.SoftmaxWeights(4), OPEN), ValueError, "num_assets: .*4 assets.*has 3"),
    "features not given": (lambda: run(CLOSE, al.Linear(2), OPEN), ValueError, "features: .*none"),
    "features not given to a state": (lambda: run(CLOSE, al.Recurrent(2), OPEN), ValueError, "features: .*none"),
    "too few features": (
        lambda: run(CLOSE, al.MLP(3), OPEN, features=FEATURES),
        ValueError,
        "features: there are 2 .*num_features=3",
    ),
    "features of other assets": (
        lambda: run(CLOSE, al.MLP(2), OPEN, features=FEATURES[:, :2]),
        ValueError,
        r"features: .*3 assets, got \[2, 2\]; js.features.stack",
    ),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse(case):
    make, error, message = MISUSE[case]
    with as_users_run_it(), pytest.raises(error, match=f"^{message}"):
        make()
