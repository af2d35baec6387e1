"""Training: what is maximised, what is trained, how a run stops, goes on and is kept."""

import inspect
import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import BARS, as_users_run_it, compilations, prices, with_holes

#: Runs of a few steps need not get better than their start.
pytestmark = pytest.mark.filterwarnings("ignore:steps:UserWarning")

COSTS = js.Costs(fees=0.002)
GATE = js.StraightThrough(temperature=0.02)
ADAM, LOGITS = optax.adam(0.05), lambda policy: policy.allocator.logits


def market(seed: int = 0, dtype=np.float64) -> js.Market:
    close, open_ = prices(seed)
    with jax.enable_x64(True):
        return js.Market.from_frames(close, open=open_, dtype=dtype)


MARKETS = [market(seed) for seed in range(3)]
POLICY = js.Policy(al.SoftmaxWeights(3), js.Threshold(0.05), gate=GATE)


class FreeWeights(eqx.Module):
    """Weights without any constraint of their own."""

    weights: np.ndarray

    def __call__(self, obs: js.Observation):
        return self.weights


def final_log_value(sim: js.Simulation):
    return jnp.log(sim.value[-1])


def with_weights(weights) -> js.Policy:
    return js.Policy(FreeWeights(np.asarray(weights, float)), js.Threshold(0.05))


#: Another kind of run.
FREE = {"score": final_log_value, "ann_factor": None, "validation": None}


def fit(policy=POLICY, data=MARKETS[0], **options):
    """One kind of run, so that tests share compiled programs."""
    options = {"costs": COSTS, "ann_factor": 252, "optimizer": ADAM, "steps": 20, "validation": 1 / 3} | options
    return js.fit(policy, data, **options)


def sharpe_of(policy, data, bars=slice(None), key=0):
    with jax.enable_x64(True):
        sim = js.simulate(data, policy, costs=COSTS, key=key)
        return float(js.metrics.sharpe_ratio(sim.returns[bars], ann_factor=252))


# --- what comes back


def test_scores_are_those_of_the_simulation_and_the_best_is_kept():
    split = BARS - BARS // 3
    fitted = fit()
    history = fitted.history
    assert list(history.index) == [0, 10, 20] and history.index.name == "step"
    assert list(history) == ["score", "hard", "gap", "validation", "grad_norm", "temperature"]
    assert (history["gap"] == 0).all()  # straight-through has the values of the hard gate
    assert fitted.gap == 0 and fitted.best_step == history["validation"].idxmax()
    assert isinstance(fitted.policy.gate, js.Hard) and eqx.tree_equal(fitted.trained.gate, GATE)
    start = replace(POLICY.hardened(), cut="pro_rata")
    for policy, step in ((start, 0), (fitted.policy, fitted.best_step)):
        row = history.loc[step]
        assert row["hard"] == pytest.approx(sharpe_of(policy, MARKETS[0], slice(None, split)), rel=1e-9)
        assert row["validation"] == pytest.approx(sharpe_of(policy, MARKETS[0], slice(split, None)), rel=1e-9)
    assert fitted.score == history.loc[fitted.best_step, "hard"]
    assert fitted.validation == history["validation"].max()
    assert history["score"].iloc[-1] > history["score"].iloc[0]
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(fitted.policy) if eqx.is_array(leaf))


def test_a_run_that_returns_its_start_says_so():
    with pytest.warns(UserWarning, match=r"^steps: none of 20 steps was better than the start, which is returned"):
        fitted = fit()
    assert fitted.best_step == 0


class DriftWithoutMargin(js.AbstractTrigger):
    """A rule that gates cannot differentiate."""

    threshold: np.ndarray

    def __call__(self, obs):
        return jnp.abs(obs.weights - obs.target).max() > self.threshold


def test_a_trigger_without_a_margin_is_named():
    policy = js.Policy(al.SoftmaxWeights(3), DriftWithoutMargin(np.asarray(0.05)), gate=GATE)
    with pytest.warns(
        UserWarning, match=r"^trainable: .*trigger.threshold was .* DriftWithoutMargin has no method `margin`"
    ):
        fit(policy, steps=2, validation=None)


def test_new_data_compile_nothing_and_the_process_stays_as_it_was():
    fit()
    with compilations() as count:
        one = fit(data=MARKETS[1])
        other = fit(data=MARKETS[1])
    assert count == [0]
    assert jnp.zeros(()).dtype == np.float32
    pd.testing.assert_frame_equal(one.history, other.history)


@pytest.mark.slow
def test_another_adjoint_learns_the_same():
    one, other = fit(), fit(adjoint=js.AtEvents())
    pd.testing.assert_frame_equal(one.history, other.history, rtol=1e-9)


def test_a_step_goes_up_the_gradient_and_a_run_that_breaks_down_says_so():
    """One plain gradient step is the derivative of the score; after the second nothing is a number any more."""
    policy = with_weights([0.3, 0.3, 0.3])
    sgd = optax.sgd(lambda step: jnp.where(step < 1, 0.01, jnp.nan))
    stopped = pytest.warns(UserWarning, match=r"^restart 0 stopped at step 1: .*next step of the optimizer is")
    with stopped, pytest.warns(UserWarning, match=r"^trainable: the derivative of trigger.threshold was zero"):
        fitted = fit(policy, MARKETS, optimizer=sgd, every=1, steps=9, **FREE)
    assert list(fitted.history.index) == [0, 1, 2] and "step 1" in fitted.stopped[0]
    assert fitted.best_step == 1

    def score(weights):
        trained = eqx.tree_at(lambda p: p.allocator.weights, policy, weights)
        return jax.vmap(lambda market: final_log_value(js.simulate(market, trained, costs=COSTS)))(stack).mean()

    with jax.enable_x64(True):
        stack = jax.tree.map(lambda *x: jnp.stack(x), *MARKETS)
        slope = jax.jit(jax.grad(score))(jnp.array([0.3, 0.3, 0.3]))
        np.testing.assert_allclose(fitted.history["grad_norm"][1], jnp.linalg.norm(slope), rtol=1e-9)
        np.testing.assert_allclose(fitted.policy.allocator.weights, 0.3 + 0.01 * slope, rtol=1e-9)


class Careless(eqx.Module):
    """Weights whose derivative is not finite, in a way that is named."""

    weights: np.ndarray
    way: str = eqx.field(static=True)

    def __call__(self, obs: js.Observation):
        if self.way == "where":
            x = obs.features
            return 0.3 * self.weights + jnp.where(jnp.isnan(x), 0.1, 0.01 * jnp.sqrt(x * self.weights))
        if self.way == "root":
            return self.weights / 3 + 0 * jnp.sqrt(self.weights - jnp.array([0.0, 1.0, 0.0]))
        return self.weights / 4


def with_missing_features() -> js.Market:
    close, open_ = prices(0)
    features = np.ones((BARS, 3))
    features[20:25, 1] = np.nan
    with jax.enable_x64(True):
        return js.Market.from_frames(close, open=open_, features=features)


NOT_FINITE = {
    r"the derivative of the score by allocator.weights\[1\] is not finite, first at bar 20, asset 1; a feature is NaN "
    r"there: jnp.where passes the NaN on .*nan_to_num": ("where", final_log_value),
    r"the derivative of the score by allocator.weights\[1\] is not finite, first at bar 0, asset 1; often a root": (
        "root",
        final_log_value,
    ),
    r"the derivative of the score by allocator.weights is not finite: that of the score's own function by the "
    r"simulation is not, first at bar 0; often a root": (
        "",
        lambda sim: sim.value[-1] - jnp.sqrt((0 * sim.fees).sum()),
    ),
    r"the score is nan, though the simulation is finite": ("", lambda sim: jnp.log(sim.value[-1] - 1e6)),
}


@pytest.mark.parametrize("message", NOT_FINITE)
def test_what_is_not_finite_is_said(message):
    way, score = NOT_FINITE[message]
    policy = js.Policy(Careless(np.ones(3), way), js.Always())
    with pytest.raises(ValueError, match=rf"^objective: {message}"):
        fit(policy, with_missing_features(), score=score, ann_factor=None, validation=None, steps=1)


# --- restarts, batches, gates, constraints


@pytest.mark.slow
def test_restarts_windows_annealing_and_constraints():
    soft = js.Policy(al.SoftmaxWeights(3), js.Threshold(0.05), gate=js.Sigmoid(temperature=0.5))
    fitted = fit(
        soft,
        restarts=3,
        batch=js.WindowBatch(length=25, count=2),
        anneal=optax.linear_schedule(0.02, 0.002, 20),
        constraints=[(lambda p: p.trigger.threshold, js.Box(0.04, 0.06))],
        validation=MARKETS[1],
        patience=1000,
    )
    history = fitted.history
    assert history.index.names == ["restart", "step"] and history.shape == (9, 7)
    assert np.allclose(history.loc[0, "temperature"], [0.02, 0.011, 0.002])
    assert (history["gap"] != 0).all() and np.allclose(history["gap"], history["score"] - history["hard"])
    assert history.xs(0, level="step")["hard"].nunique() == 3
    assert history.loc[(0, 0), "hard"] == pytest.approx(
        sharpe_of(replace(soft.hardened(), cut="pro_rata"), MARKETS[0]), rel=1e-9
    )
    assert fitted.scores[fitted.best_restart] == fitted.scores.max() == fitted.validation
    assert fitted.validation == pytest.approx(sharpe_of(fitted.policy, MARKETS[1]), rel=1e-9)
    for policy in fitted.candidates:
        assert 0.04 <= policy.trigger.threshold <= 0.06
    assert len({float(p.allocator.logits[0]) for p in fitted.candidates}) == 3


def adam_at(learning_rate):
    return optax.adam(learning_rate)


def cooling(step, first):
    return first / (1 + step)


def test_each_restart_has_its_own_hyperparameters(tmp_path):
    rates, firsts = [0.02, 0.3], [0.05, 0.01]
    options = {"steps": 4, "every": 2, "jitter": 0.0, "anneal": cooling}
    chosen = {"learning_rate": rates, "first": firsts}
    many = fit(optimizer=adam_at, hyperparameters=chosen, **options)
    for restart, (rate, first) in enumerate(zip(rates, firsts, strict=True)):
        alone = fit(**{**options, "optimizer": optax.adam(rate), "anneal": lambda step, at=first: cooling(step, at)})
        of_many = many.history.loc[restart]
        assert (of_many["learning_rate"] == rate).all() and (of_many["first"] == first).all()
        np.testing.assert_allclose(of_many[alone.history.columns], alone.history, rtol=1e-9)
    assert many.history.loc[0, "score"].iloc[-1] != many.history.loc[1, "score"].iloc[-1]
    fit(optimizer=adam_at, hyperparameters=chosen, checkpoint=tmp_path, **options)
    with pytest.raises(ValueError, match=r"^checkpoint: .* of another run: hyperparameters differ"):
        fit(optimizer=adam_at, hyperparameters=chosen | {"first": [0.05, 0.02]}, checkpoint=tmp_path, **options)


def walk(key) -> js.Market:
    """A geometric Brownian motion beside two, one that grows and one that shrinks."""
    moves = 0.01 * jax.random.normal(key, (BARS, 3)) + jnp.array([0.0, 0.01, -0.01])
    close = 100 * jnp.exp(jnp.cumsum(moves, axis=0))
    return js.Market(close, close, close, close)


def test_markets_from_a_function_paths_simplex_and_leaves_that_nothing_moves():
    """The default trains the threshold too, which has no derivative under the hard gate: that is said."""
    simplex = (lambda p: p.allocator, js.Simplex())
    still = pytest.warns(UserWarning, match=r"^trainable: the derivative of trigger.threshold was zero")
    with jax.enable_x64(True), still:
        fitted = fit(with_weights([0.5, 0.5, 0.4]), walk, batch=js.PathBatch(3), steps=10, constraints=simplex, **FREE)
    weights = fitted.policy.allocator.weights
    assert weights.sum() == pytest.approx(1, abs=1e-9) and weights[1] > 0.5 > weights[0] > weights[2] >= 0
    assert fitted.policy.trigger.threshold == 0.05
    assert list(fitted.history) == ["score", "hard", "gap", "batch_score", "grad_norm"]


def test_markets_with_and_without_holes_train_together_and_share_a_program():
    close, open_ = with_holes(*prices(7))
    with jax.enable_x64(True):
        holes = js.Market.from_frames(close, open=open_)
    assert jax.tree.structure(holes) == jax.tree.structure(MARKETS[0])
    run = lambda data: fit(data=data, steps=4, validation=None)  # noqa: E731
    together = run([MARKETS[0], holes])
    means = [sharpe_of(together.candidates[0], one) for one in (MARKETS[0], holes)]
    assert together.score == pytest.approx(np.mean(means), rel=1e-9)
    run([MARKETS[0], MARKETS[1]])
    with compilations() as count:
        run([holes, holes])
    assert count == [0]
    bare = js.Market(*(getattr(holes, name) for name in ("close", "val_price", "price", "mark")))
    with pytest.raises(ValueError, match=r"^market: they must be alike, but differ in the field priced_at: .*None"):
        run([holes, bare])


def test_a_run_is_not_mapped():
    stack = jax.tree.map(lambda *x: np.stack(x), *MARKETS[:2])
    with pytest.raises(TypeError, match=r"^restarts: js.fit is a loop on the host .* restarts= trains several"):
        jax.vmap(js.fit, in_axes=(None, 0))(POLICY, stack)
    with pytest.raises(TypeError, match=r"^restarts: "):
        jax.vmap(lambda key: fit(key=key).score)(jax.random.split(jax.random.key(0), 2))


def test_batches_are_parts_of_the_data():
    with jax.enable_x64(True):
        stack = jax.tree.map(lambda *x: jnp.stack(x), *MARKETS)
        stack = eqx.tree_at(
            lambda m: (m.features, m.priced_at),
            stack,
            (jnp.arange(3 * BARS).reshape(3, BARS), jnp.tile(2 * jnp.arange(BARS)[None, :, None], (3, 1, 3))),
            is_leaf=lambda x: x is None,
        )
        windows = js.WindowBatch(length=7, count=50).draw(stack, jax.random.key(1))
        paths = js.PathBatch(3).draw(stack, jax.random.key(2))
    assert windows.close.shape == (50, 7, 3) and paths.close.shape == (3, BARS, 3)
    firsts = np.asarray(windows.features[:, 0])
    assert len(set(firsts // BARS)) == 3 and (firsts % BARS <= BARS - 7).all() and len(set(firsts)) > 30
    for number, first in enumerate(firsts):
        path, start = divmod(int(first), BARS)
        np.testing.assert_array_equal(windows.close[number], stack.close[path, start : start + 7])
        np.testing.assert_array_equal(windows.priced_at[number, :, 0], 2 * np.arange(7))
    assert sorted(np.asarray(paths.features[:, 0])) == [0, BARS, 2 * BARS]  # without replacement


# --- stopping, going on


def test_a_run_stops_when_validation_does_not_get_better():
    fitted = fit(steps=200, patience=20)
    steps = fitted.history.index
    assert steps[-1] == fitted.best_step + 20 < 200
    assert fitted.validation == fitted.history["validation"].max()


def test_an_interrupted_run_goes_on_bit_by_bit(tmp_path, monkeypatch):
    whole = fit(steps=40)
    fit(steps=20, checkpoint=tmp_path / "run")

    import jaxsim.frames.verbs.fit as module

    evaluations = []

    def interrupted(*arguments):
        evaluations.append(arguments)
        if len(evaluations) == 2:
            raise KeyboardInterrupt
        return module_evaluate(*arguments)

    module_evaluate = module.evaluate
    monkeypatch.setattr(module, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(steps=40, checkpoint=tmp_path / "run")
    assert len(evaluations) == 2  # steps 0 to 20 were not done again
    monkeypatch.undo()
    resumed = fit(steps=40, checkpoint=str(tmp_path / "run"))
    pd.testing.assert_frame_equal(resumed.history, whole.history, check_exact=True)
    for one, other in zip(jax.tree.leaves(resumed.policy), jax.tree.leaves(whole.policy), strict=True):
        assert np.array_equal(one, other)
    again = fit(steps=40, checkpoint=tmp_path / "run")  # nothing left to do
    pd.testing.assert_frame_equal(again.history, whole.history, check_exact=True)


@pytest.mark.parametrize(
    ("named", "options"),
    [
        ("market", {"data": MARKETS[1]}),
        ("policy", {"policy": js.Policy(al.SoftmaxWeights(3), js.Threshold(0.06), gate=GATE)}),
        ("policy", {"policy": js.Policy(al.SoftmaxWeights(3), js.Threshold(0.05), js.StraightThrough(0.03))}),
        ("costs", {"costs": js.Costs(fees=0.003)}),
        ("optimizer", {"optimizer": optax.adam(0.06)}),
        ("objective", {"ann_factor": 250}),
        ("objective", {"objective": js.metrics.sortino_ratio}),
        ("validation", {"validation": 0.25}),
        ("key", {"key": 1}),
        ("every", {"every": 5}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path_factory, named, options):
    folder = tmp_path_factory.getbasetemp() / "another"
    if not folder.exists():
        fit(steps=10, checkpoint=folder)
    with pytest.raises(ValueError, match=rf"^checkpoint: .* is of another run: .*\b{named}\b.* differ"):
        fit(steps=10, checkpoint=folder, **options)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    file = tmp_path / "checkpoint.eqx"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"^checkpoint: .*is not a training checkpoint"):
        fit(checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"^checkpoint: .* is a file"):
        fit(checkpoint=file)
    with pytest.raises(TypeError, match=r"^checkpoint: expected the path"):
        fit(checkpoint=3)


# --- policies on disk


def test_policies_on_disk(tmp_path):
    path = tmp_path / "policy.eqx"
    policy = js.Policy(FreeWeights(np.array([0.1, 0.2, 0.7])), js.Threshold(0.07), GATE, destination=js.ToEdge())
    policy.save(path)
    like = js.Policy(FreeWeights(np.zeros(3)), js.Threshold(0.5), GATE, destination=js.ToEdge())
    found = js.Policy.load(str(path), like)
    assert eqx.tree_equal(found, policy) and type(found) is js.Policy
    assert json.loads(path.read_bytes().split(b"\n")[0])["kind"] == "policy"

    single = with_weights([0.2, 0.3, 0.3])
    single = fit(single, market(0, np.float32), steps=2, trainable=lambda p: p.allocator.weights, **FREE).policy
    assert single.allocator.weights.dtype == np.float32
    single.save(path)
    for dtype in (np.float32, np.float64):  # of the untrained policy
        untrained = js.Policy(FreeWeights(np.zeros(3, dtype)), js.Threshold(0.05))
        assert eqx.tree_equal(js.Policy.load(path, untrained), single)
    with pytest.raises(ValueError, match=r"^like: allocator.weights is int64\[3\] in it, and float32\[3\]"):
        js.Policy.load(path, js.Policy(FreeWeights(np.zeros(3, int)), js.Threshold(0.05)))
    policy.save(path)

    others = {
        "allocator.weights": js.Policy(FreeWeights(np.zeros(4)), js.Threshold(0.5), GATE, destination=js.ToEdge()),
        "allocator.weights is absent": js.Policy(
            al.SoftmaxWeights(3), js.Threshold(0.5), GATE, destination=js.ToEdge()
        ),
        "built otherwise": js.Policy(
            FreeWeights(np.zeros(3)), js.Threshold(0.5, relative=True), GATE, destination=js.ToEdge()
        ),
    }
    for text, other in others.items():
        with pytest.raises(ValueError, match=rf"^like: .*{text}"):
            js.Policy.load(path, other)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"^path: .*damaged"):
        js.Policy.load(path, like)
    path.write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"^path: .*is not a policy"):
        js.Policy.load(path, like)
    with pytest.raises(FileNotFoundError):
        js.Policy.load(tmp_path / "absent", like)
    with pytest.raises(TypeError, match=r"^like: expected a Policy"):
        js.Policy.load(path, None)


# --- the picture


def test_the_picture():
    steps = pd.Index([0, 10, 20], name="step")
    one = pd.DataFrame({"score": [1.0, 2, 3], "hard": [1.0, 1, 2], "validation": [0.0, 1, 0]}, steps)
    fig = js.views.training_history(one, best=(0, 10))
    assert [trace.name for trace in fig.data] == ["as trained", "hard gate", "validation, hard gate", "kept, 1"]
    several = pd.concat({0: one, 1: one + 1}, names=["restart"])
    fig = js.views.training_history(several, best=(1, 10))
    assert [trace.name for trace in fig.data] == ["restart 0", "restart 1", "kept, 2"]
    with pytest.raises(ValueError, match="no column 'hard'"):
        js.views.training_history(one[["score"]])


# --- misuse


def needs_key(a, b):
    return a


BAD = {
    "policy: expected a Policy": {"policy": al.SoftmaxWeights(3)},
    "market: expected a js.Market": {"data": prices(0)[0]},
    "market: an empty list": {"data": []},
    "market: they must be alike": {"data": [MARKETS[0], market(0, np.float32)]},
    "market: expected a function of one": {"data": needs_key, "validation": None},
    "market: the function returned": {"data": lambda key: key, "validation": None},
    "costs: expected js.Costs": {"costs": 0.005},
    "account: expected js.Account": {"account": 100.0},
    "objective: expected a metric": {"objective": "sharpe_ratio"},
    "objective: expected one number": {"objective": js.metrics.drawdown, "ann_factor": None},
    "ann_factor: sharpe_ratio needs": {"ann_factor": None},
    "start: expected a whole number >= 0": {"start": -1},
    "ann_factor: total_return takes none": {"objective": js.metrics.total_return},
    "ann_factor: expected a finite number > 0": {"ann_factor": -1},
    "bars_per_year: expected a finite number > 0": {"ann_factor": None, "bars_per_year": "252"},
    "bars_per_year: it is another name of ann_factor": {"bars_per_year": 252},
    "ann_factor: score= is a function": {"score": final_log_value},
    "score: it takes the place": {"score": final_log_value, "objective": js.metrics.total_return},
    "score: expected a function": {"score": 3, "ann_factor": None},
    "optimizer: expected one of optax": {"optimizer": "adam"},
    "steps: expected a whole number": {"steps": 0},
    "every: expected a whole number": {"every": 1.5},
    "restarts: expected a whole number": {"restarts": True},
    "restarts: 3, but hyperparameters= has values for 2": {
        "restarts": 3,
        "optimizer": adam_at,
        "hyperparameters": {"learning_rate": [0.1, 0.2]},
    },
    "hyperparameters: expected name -> a value": {"hyperparameters": [0.1, 0.2]},
    "hyperparameters: neither optimizer= nor anneal=": {"hyperparameters": {"learning_rate": [0.1, 0.2]}},
    "hyperparameters: learning_rate must be a list": {
        "optimizer": adam_at,
        "hyperparameters": {"learning_rate": 0.1},
    },
    "hyperparameters: each needs as many": {
        "optimizer": adam_at,
        "anneal": cooling,
        "hyperparameters": {"learning_rate": [0.1, 0.2], "first": [0.1]},
    },
    "optimizer: expected a function that makes": {
        "optimizer": lambda learning_rate: learning_rate,
        "hyperparameters": {"learning_rate": [0.1, 0.2]},
    },
    "patience: expected a whole number": {"patience": -1},
    "trainable: gate.temperature belongs to the gate": {"trainable": lambda p: p.gate.temperature},
    "trainable: min_history is a whole number": {"trainable": lambda p: p.min_history},
    "trainable: expected a function of the policy that": {"trainable": lambda p: p.allocator.weights},
    "trainable: expected a function of the policy, or": {"trainable": [True]},
    "trainable: nothing to train": {"policy": js.Policy(al.EqualWeight(), js.Never())},
    "trainable: nothing to train; the leaves of the policy are": {
        "trainable": jax.tree.map(lambda _: False, POLICY),
    },
    "constraints: expected pairs such as": {"constraints": [js.Simplex()]},
    "constraints: expected pairs": {"constraints": js.Simplex()},
    "constraints: trigger.threshold is not trained": {
        "constraints": (lambda p: p.trigger.threshold, js.Box(lower=1e-6)),
        "trainable": LOGITS,
    },
    "constraints: expected a function of the policy": {"constraints": (lambda p: p.nothing, js.Box(lower=1e-6))},
    "batch: expected js.WindowBatch": {"batch": 32},
    "batch: windows of 41 bars, of 40": {"batch": js.WindowBatch(41, 1)},
    "batch: 2 paths at a time": {"batch": js.PathBatch(2)},
    "batch: the policy counts bars": {
        "batch": js.WindowBatch(20, 1),
        "policy": js.Policy(al.SoftmaxWeights(3), js.AtBars(np.ones(BARS, bool))),
    },
    "validation: expected a fraction": {"validation": 1.5},
    "validation: a fraction is of the bars": {"data": walk, "policy": js.Policy(al.SoftmaxWeights(2))},
    "validation: float32, market": {"validation": market(0, np.float32)},
    "validation: expected a js.Market": {"validation": "2020"},
    "anneal: expected a schedule": {"anneal": 0.1},
    "anneal: the gate of the policy, Hard": {"anneal": lambda s: 0.1, "policy": js.Policy(al.SoftmaxWeights(3))},
    "init: expected a function": {"init": POLICY, "restarts": 2},
    "init: the first restart begins": {"init": lambda key: POLICY},
    "init: expected a policy built as": {"init": lambda key: js.Policy(al.SoftmaxWeights(3)), "restarts": 2},
    "init: the leaves have other shapes": {
        "init": lambda key: js.Policy(al.SoftmaxWeights(4), js.Threshold(0.05), gate=GATE),
        "restarts": 2,
    },
    "jitter: expected a finite number": {"jitter": -1.0},
    "adjoint: expected js.Checkpointed()": {"adjoint": "events"},
    "adjoint: AtEvents visits rebalances alone": {
        "policy": js.Policy(al.SoftmaxWeights(3), js.Threshold(0.05), js.Sigmoid()),
        "adjoint": js.AtEvents(),
    },
    "key: expected an int": {"key": "seed"},
    "progress: expected True": {"progress": 1},
    "threshold: expected a finite number": {"policy": js.Policy(al.SoftmaxWeights(3), js.Threshold(-1.0))},
    "policy: the allocator returned a NaN weight": {
        "policy": with_weights([np.nan, 0, 0]),
        "data": MARKETS,
        **FREE,
    },
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments(message):
    options = dict(BAD[message])
    with as_users_run_it(), pytest.raises((TypeError, ValueError)) as caught:
        fit(**options)
    assert str(caught.value).startswith(message)


def test_every_argument_is_misused_once():
    named = {message.split(":")[0] for message in BAD} | {"checkpoint"}
    assert set(inspect.signature(js.fit).parameters) <= named


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("length: expected a whole number >= 1", lambda: js.WindowBatch(0, 1)),
        ("count: expected a whole number >= 1", lambda: js.PathBatch(2.5)),
        ("total: expected a finite number > 0", lambda: js.Simplex(0)),
        ("lower: expected", lambda: js.Box(lower=np.nan)),
        ("lower: expected at most upper", lambda: js.Box(2, 1)),
    ],
)
def test_bad_batches_and_constraints(message, make):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_text_is_no_limit_and_a_number_is_no_path():
    with pytest.raises(TypeError, match=r"^lower: expected numbers, got 'a'"):
        js.Box(lower="a")
    for call in (POLICY.save, lambda path: js.Policy.load(path, like=POLICY)):
        with pytest.raises(TypeError, match=r"^path: expected the path of a file, got 3"):
            call(3)


def test_a_policy_learns_with_purchases_cut_alike(tmp_path):
    """And says so: a backtest and a file run what was trained. Where that is refused, it says the other cut once."""
    fitted = js.fit(POLICY, MARKETS[0], costs=COSTS, ann_factor=252, steps=1, every=1)
    assert fitted.policy.cut == fitted.trained.cut == "pro_rata" and POLICY.cut is None
    with jax.enable_x64(True):
        returns = js.simulate(MARKETS[0], fitted.policy, costs=COSTS).returns
        assert float(js.metrics.sharpe_ratio(returns, ann_factor=252)) == pytest.approx(fitted.score, rel=1e-12)
    fitted.policy.save(tmp_path / "policy")
    assert js.Policy.load(tmp_path / "policy", like=POLICY.hardened()).cut == "pro_rata"
    with pytest.raises(ValueError, match=r"^like: its cut is 'last'"):
        js.Policy.load(tmp_path / "policy", like=replace(POLICY.hardened(), cut="last"))
    mask = jax.tree.map(lambda x: False, POLICY)
    mask = eqx.tree_at(LOGITS, mask, True)
    kept = js.fit(replace(POLICY, cut="last"), MARKETS[0], costs=COSTS, ann_factor=252, steps=1, every=1)
    assert kept.policy.cut == "last"
    with pytest.warns(UserWarning, match='update_value .* written into the policy, with "last"'):
        terms = js.Costs(fees=0.002, update_value=True)
        fitted = js.fit(POLICY, MARKETS[0], costs=terms, ann_factor=252, steps=1, every=1, trainable=mask)
    assert fitted.policy.cut == "last"
