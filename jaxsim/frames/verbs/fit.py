"""`fit`: learn a policy by gradient ascent on the score of the portfolio that it leads to."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsim.engine.adjoints.adjoint import AbstractAdjoint
from jaxsim.engine.adjoints.choice import adjoint_for
from jaxsim.engine.base.fields import check_fields, whole_number
from jaxsim.engine.base.numerics import Number, cast_inexact
from jaxsim.engine.base.random import as_key
from jaxsim.engine.policy.gates import Hard
from jaxsim.engine.policy.policy import Policy, check_cut
from jaxsim.engine.policy.triggers import without_margin
from jaxsim.engine.simulate import of_kind
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.cut import LAST, PRO_RATA, refusal
from jaxsim.engine.trading.market import Market
from jaxsim.engine.training.gradient_ascent import Problem, TrainState, advance, evaluate
from jaxsim.engine.training.minibatches import AbstractBatch, make
from jaxsim.engine.training.trainable import leaf_constraints, leaf_names, trainable_spec
from jaxsim.frames.inputs.parameters import with_fields
from jaxsim.frames.system.progress import progress_bar
from jaxsim.frames.training.arguments import (
    check_anneal,
    check_batch,
    check_restarts,
    read_bars_per_year,
    read_first_bar,
    read_hyperparameters,
    read_optimizer,
    read_score,
)
from jaxsim.frames.training.checkpoint import Checkpoint
from jaxsim.frames.training.data import Data, read_markets
from jaxsim.frames.training.fitted import Fitted
from jaxsim.frames.training.log import TrainingLog


def fit(
    policy: Policy,
    market: Any,
    *,
    costs: Costs | None = None,
    account: Account | None = None,
    objective: Callable | None = None,
    ann_factor: Number | None = None,
    bars_per_year: Number | None = None,
    score: Callable | None = None,
    optimizer: Any = None,
    steps: int = 300,
    trainable: Any = None,
    constraints: Any = (),
    batch: AbstractBatch | None = None,
    start: int | None = None,
    validation: Any = None,
    patience: int | None = None,
    anneal: Callable | None = None,
    restarts: int = 1,
    hyperparameters: Mapping[str, Any] | None = None,
    init: Callable | None = None,
    jitter: float = 0.1,
    adjoint: AbstractAdjoint | None = None,
    key: Any = 0,
    every: int = 10,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> Fitted:
    """Learn the numbers of a policy: gradient ascent on a score of the simulated portfolio, after costs.

    policy: the start; its gate says how derivatives pass through the decision to trade. Where it does not say which
        purchases are cut if the cash is short, its `cut` becomes "pro_rata", which is continuous in the weights, also
        in the result; "last", with a warning, where the costs or the size type refuse that.
    market: a `Market`; several of the same shape, in a list or stacked along a leading axis [path, time, asset]; or a
        function of a random key that makes one, drawn anew at every step. Scores are means over the paths. Its dtype is
        that of the computation, float64 whatever the process's setting.
    costs: default no fees.     account: default a cash of 100.
    objective: the metric to maximise, a function of the returns [time], called with `ann_factor=` if that is given;
        default `js.metrics.sharpe_ratio`.
    ann_factor, bars_per_year: bars per year, by the name that metrics of arrays or that of `js.backtest`; one of them.
    score: instead of an objective, a function of the `Simulation`, from the first bar that counts on, that returns one
        number.
    optimizer: an optax gradient transformation; default `optax.adam(1e-2)`. Also one that asks for the value
        (`optax.lbfgs()`).
    steps: number of steps.
    trainable: which leaves are trained: a function of the policy, `lambda p: p.allocator.logits` or several in a tuple;
        or a pytree of bools. Default: all floating-point arrays of allocator, trigger and destination.
    constraints: pairs (where, constraint), as `(lambda p: p.allocator.weights, js.Simplex())`; after every step the
        leaf goes to the nearest point that satisfies it. Fields with bounds (a threshold is >= 0) keep them anyway.
    batch: the data of one step: `js.WindowBatch(length, count)` or `js.PathBatch(count)`; default all of the data.
    start: the first bar of each market, or of each window of a batch, that scores count; default `min_history` of the
        policy (rules 7.17).
    validation: data that choose the best step: a fraction in (0, 1), the last part of the bars, which is then left out
        of the training (account and history continue from the part before it); or a market, or several.
    patience: stop after this number of steps without a better score on the validation data, or, without any, on the
        training data.
    anneal: temperature of the gate as a function of the step, as optax schedules are.
    restarts: number of runs side by side; the best one is kept.
    hyperparameters: numbers of the training itself of which each restart has its own, name -> values [restart], as
        `{"learning_rate": [0.001, 0.01, 0.1]}`. `optimizer` and `anneal` are called with those that they take by
        keyword: `optimizer=lambda learning_rate: optax.adam(learning_rate)`. There are as many restarts as values.
    init: function of a random key that makes the start of each restart but the first.
    jitter: without `init`, the standard deviation of the noise on the trained leaves of all restarts but the first, in
        units of the leaf's root mean square (of 1 where the leaf is zero).
    adjoint: how derivatives are computed, as in `js.simulate`.
    key: random key or int, for batches, restarts and the policy's own randomness.
    every: number of steps between two evaluations. Each evaluation is a row of the history and a candidate for the
        best.
    checkpoint: directory to keep the state of the run in, after every evaluation; a run with the same arguments
        (`steps` and `patience` aside) goes on from there and ends, bit for bit, where it would have without the break.
    progress: whether to show a progress bar, with the score and the gap.

    The steps between two evaluations are one compiled loop. It is compiled anew for another shape, or another function:
    hand in the same optimizer, objective and schedule objects to avoid it.

    A restart whose score, derivative or next step is not finite stops and keeps its best parameters; `Fitted.stopped`
    has the reason: score or derivative, the leaf, the first bar and asset, for which the step is computed once more. If
    all restarts fail at their first step, raises AllocationError or ValueError.

    Warns of trained leaves whose derivative was zero at every step, and if no step was better than the start. Raises
    TypeError or ValueError that begins with the name of the argument.
    """
    if not isinstance(policy, Policy):
        raise TypeError(f"policy: expected a Policy, got {type(policy).__name__}; see js.Policy(allocator, trigger)")
    costs, account = of_kind(Costs, costs, "costs"), of_kind(Account, account, "account")
    for name, value in {"steps": steps, "every": every, "restarts": restarts}.items():
        whole_number(value, name)
    if patience is not None:
        whole_number(patience, "patience")
    ann_factor = read_bars_per_year(ann_factor, bars_per_year)
    _refuse_vmap(policy, market, validation, costs, account, ann_factor, key)
    data = read_markets(market, validation)
    for module in (policy, costs, account):
        check_fields(module, data.num_bars, data.num_assets)
    check_cut(policy, costs)
    cut = _resolved_cut(policy, costs)
    policy, trainable = _with_cut(policy, cut), _with_cut(trainable, cut)
    first = read_first_bar(start, policy, batch, data)
    check_batch(batch, policy, data)
    goal = read_score(objective, ann_factor, score)
    members = read_hyperparameters(hyperparameters, restarts, optimizer, anneal)
    restarts = len(next(iter(members.values()))) if members else restarts
    optimizer = read_optimizer(optimizer, members)
    check_anneal(anneal, policy)
    adjoint_for(policy, data.num_bars, adjoint)
    spec = trainable_spec(policy, trainable)
    rules = leaf_constraints(policy, spec, constraints)
    check_restarts(restarts, init, jitter)

    with jax.enable_x64(data.is_x64):
        for_run, for_starts = jax.random.split(as_key(key))
        trained, _ = eqx.partition(cast_inexact(policy, data.dtype), spec)
        _, fixed = eqx.partition(policy, spec)
        params = _starts(trained, policy, spec, restarts, init, float(jitter), for_starts, data.dtype)
        problem = Problem(
            fixed,
            goal,
            costs,
            account,
            optimizer,
            rules,
            data.training,
            batch,
            anneal,
            for_run,
            adjoint,
            first,
            members,
        )
        log = _train(problem, params, data, steps, every, patience, checkpoint, progress)
    best = [_policy(policy, log.best_params, restart) for restart in range(restarts)]
    _warn_of_still(log, trained, policy)
    return log.result(best)


def _refuse_vmap(*arguments: Any) -> None:
    """Raises TypeError for arguments that a transformation of JAX has made abstract."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments)):
        raise TypeError(
            "restarts: js.fit is a loop on the host and takes numbers, so that it does not go under jax.vmap or "
            "jax.jit; restarts= trains several policies side by side as one program, a list of markets trains one "
            "policy on all of them"
        )


def _resolved_cut(policy: Policy, costs: Costs) -> str:
    """What the policy says of its `cut`, or the continuous one, unless that is refused."""
    if policy.cut is not None:
        return policy.cut
    reason = refusal(costs, policy.size_type)
    if reason is not None:
        warnings.warn(f'{reason}; it is trained, and written into the policy, with "{LAST}"', stacklevel=3)
    return PRO_RATA if reason is None else LAST


def _with_cut(tree: Any, cut: str | None) -> Any:
    """A policy, or a tree built like one, with this `cut` unless it has one; other values as they are."""
    return with_fields(tree, {"cut": cut}) if isinstance(tree, Policy) and tree.cut is None else tree


def _train(
    problem: Problem,
    params: Any,
    data: Data,
    steps: int,
    every: int,
    patience: int | None,
    checkpoint: str | Path | None,
    progress: bool,
) -> TrainingLog:
    """The loop on the host: a chunk of steps, an evaluation, a row."""
    state = TrainState.start(problem, params)
    log = TrainingLog.blank(jax.device_get(state.params))
    saved = None if checkpoint is None else Checkpoint.of_run(checkpoint, problem, state, data, every)
    if saved is not None:
        state, log = saved.read(state, log)
    examples = data.training
    if not isinstance(examples, Market):
        examples = eqx.filter_jit(make)(examples, problem.batch, problem.key)
    judged = replace(
        problem, optimizer=None, constraints=(), markets=None, batch=None
    )  # for another of them no new program

    def look(state: TrainState) -> None:
        log.add(problem, state, evaluate(judged, state.params, state.step, examples, data.held_out, data.split))
        log.raise_if_hopeless()

    with progress_bar(steps, "step", progress) as report:
        report(int(state.step))
        if not log.rows:
            look(state)
        while int(state.step) < steps and not log.is_over(patience):
            before = int(state.step)
            state = advance(problem, state, jnp.int32(min(before + every, steps)))
            look(state)
            if saved is not None:
                saved.write(state, log)
            report(int(state.step) - before, **log.figures)
    return log


def _starts(
    trained: Any, policy: Policy, spec: Any, restarts: int, init: Callable | None, jitter: float, key: Any, dtype: Any
) -> Any:
    """Trained leaves of all restarts, stacked; the first is the policy's own."""
    starts = [trained]
    for restart in range(1, restarts):
        own = jax.random.fold_in(key, restart)
        if init is None:
            leaves, structure = jax.tree.flatten(trained)
            keys = jax.random.split(own, len(leaves))
            starts.append(structure.unflatten([_jittered(*pair, jitter) for pair in zip(leaves, keys, strict=True)]))
            continue
        made = init(own)
        made = _with_cut(made, policy.cut)
        if jax.tree.structure(made) != jax.tree.structure(policy):
            raise ValueError(f"init: expected a policy built as {policy!r}, got {made!r}"[:400])
        starts.append(eqx.partition(cast_inexact(made, dtype), spec)[0])
    try:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    except (TypeError, ValueError) as error:
        raise ValueError(f"init: the leaves have other shapes than those of the policy; {error}"[:400]) from error


def _jittered(leaf: Any, key: Any, jitter: float) -> Any:
    size = jnp.sqrt(jnp.mean(leaf**2))
    noise = jax.random.normal(key, leaf.shape, leaf.dtype)
    return leaf + jitter * jnp.where(size > 0, size, 1.0) * noise


def _policy(policy: Policy, params: Any, restart: int) -> Policy:
    """The policy with the trained leaves of one restart."""
    return eqx.combine(jax.tree.map(lambda leaf: np.asarray(leaf[restart]), params), policy)


def _warn_of_still(log: TrainingLog, trained: Any, policy: Policy) -> None:
    """Warns of leaves that could not move, and of a run that did not get better than its start."""
    names = leaf_names(trained)
    still = [name for name, has_moved in zip(names, log.has_moved, strict=True) if not has_moved.any()]
    if log.last_step == 0:
        return
    if still:
        rules = [] if isinstance(policy.gate, Hard) else without_margin(policy.trigger)
        why = (
            f"the trigger {rules[0]} has no method `margin`, through which a gate passes derivatives"
            if rules
            else "under the gate js.Hard() a threshold has none, see js.StraightThrough"
        )
        warnings.warn(
            f"trainable: the derivative of {', '.join(still)} was zero at every step, and nothing was learned there; "
            f"{why}",
            stacklevel=3,
        )
    elif log.best_step.max() == 0:
        warnings.warn(
            f"steps: none of {log.last_step} steps was better than the start, which is returned; try an optimizer with "
            "smaller steps, or ask js.check_gradient",
            stacklevel=3,
        )
