"""Gradient ascent on a score of the simulated portfolio: arrays in, arrays out, one compiled loop of many steps.

Restarts are one axis, the markets of a batch another. No allocator runs at a bar at which no lane trades.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.adjoints.adjoint import AbstractAdjoint
from jaxsim.engine.bar.simulation import Simulation
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.kept_programs import kept_program
from jaxsim.engine.base.numerics import Number
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.simulate import simulate
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market
from jaxsim.engine.trading.status import LaneStatus
from jaxsim.engine.training.constraints import AbstractConstraint
from jaxsim.engine.training.hyperparameters import Member, called_for
from jaxsim.engine.training.minibatches import AbstractBatch, make


class Score(eqx.Module):
    """The number to maximise.

    function: of the returns [time], with `ann_factor` by keyword if there is one; or of the whole `Simulation`.
    ann_factor: bars per year.
    """

    function: Callable
    ann_factor: Number | None = None
    of_simulation: bool = eqx.field(static=True, default=False)

    def __call__(self, sim: Simulation) -> Float[Array, ""]:
        if self.of_simulation:
            score = self.function(sim)
        elif self.ann_factor is None:
            score = self.function(sim.returns)
        else:
            score = self.function(sim.returns, ann_factor=self.ann_factor)
        if jnp.shape(score) != ():
            name = "score" if self.of_simulation else "objective"
            raise ValueError(f"{name}: expected one number, got shape {jnp.shape(score)}")
        return jnp.asarray(score, sim.returns.dtype)


class Problem(eqx.Module):
    """The constants of a training run.

    fixed: the policy, None in place of its trained leaves.
    optimizer: an optax gradient transformation, or a function of hyper-parameters that makes one.
    constraints: one for each trained leaf, None for none.
    markets: a stack [path, time, asset], or a function of a random key that makes one market or a stack.
    batch: the rule that chooses the markets of a step; None: all.
    anneal: temperature of the gate as a function of the step, and maybe of hyper-parameters; None: as it is.
    members: the hyper-parameters, each [restart].
    adjoint: as in `simulate`.      start: the first bar of each market that scores count.
    """

    fixed: Policy
    score: Score
    costs: Costs
    account: Account
    optimizer: Any
    constraints: tuple[AbstractConstraint | None, ...]
    markets: Any
    batch: AbstractBatch | None
    anneal: Callable | None
    key: Any
    adjoint: AbstractAdjoint | None = None
    start: int = eqx.field(static=True, default=0)
    members: Member = eqx.field(default_factory=dict)

    def optimizer_of(self, member: Member) -> Any:
        """The gradient transformation of one restart."""
        return self.optimizer if hasattr(self.optimizer, "update") else called_for(member, self.optimizer)

    def counted(self, bars: slice) -> slice:
        """Those of some bars that scores count."""
        return slice(max(bars.start or 0, self.start) or None, bars.stop)


class TrainingFailure(eqx.Module):
    """The first step at which a restart failed, -1 for none, and the fault of the simulation, if it had one. From then
    on the parameters of the restart stay the same."""

    step: Int[Array, "*restart"]
    fault: Int[Array, "*restart"]
    bar: Int[Array, "*restart"]
    asset: Int[Array, "*restart"]

    @classmethod
    def none(cls, count: int) -> "TrainingFailure":
        minus_one = jnp.full(count, -1, jnp.int32)
        return cls(minus_one, jnp.zeros(count, jnp.int32), minus_one, minus_one)

    @property
    def is_ok(self) -> Bool[Array, "*restart"]:
        return self.step < 0


class TrainState(eqx.Module):
    """The state of a training run between two steps.

    params: the policy, None in place of leaves that are not trained; leading axis restart, as in all other fields.
    memory: of the optimiser.      step: number of steps taken, int [].
    score: of the batch of the last step.      grad_norm: length of its gradient.
    has_moved: for each trained leaf, whether its derivative has ever been different from zero.
    """

    params: Any
    memory: Any
    step: Int[Array, ""]
    failure: TrainingFailure
    score: Float[Array, " restart"]
    grad_norm: Float[Array, " restart"]
    has_moved: tuple

    @classmethod
    def start(cls, problem: Problem, params: Any) -> "TrainState":
        """The state before the first step. params: stacked over restarts."""
        params = jax.vmap(lambda one: project(problem.constraints, one))(params)
        leaves = jax.tree.leaves(params)
        count, dtype = leaves[0].shape[0], leaves[0].dtype
        memory = jax.vmap(lambda one, member: problem.optimizer_of(member).init(one))(params, problem.members)
        unknown, still = jnp.full(count, jnp.nan, dtype), jnp.zeros(count, bool)
        has_moved = tuple(still for _ in leaves)
        return cls(params, memory, jnp.int32(0), TrainingFailure.none(count), unknown, unknown, has_moved)


def project(constraints: tuple[AbstractConstraint | None, ...], params: Any) -> Any:
    """The trained leaves, each moved to the nearest point that satisfies its constraint."""
    leaves, structure = jax.tree.flatten(params)
    pairs = zip(constraints, leaves, strict=True)
    return jax.tree.unflatten(structure, [leaf if rule is None else rule.project(leaf) for rule, leaf in pairs])


def draw(problem: Problem, key: Any) -> Market:
    """The stack of markets for a step."""
    if not callable(problem.markets):
        return problem.markets if problem.batch is None else problem.batch.draw(problem.markets, key)
    return make(problem.markets, problem.batch, key)


def policy_at(problem: Problem, params: Any, step: Array, member: Member) -> Policy:
    """The policy with these parameters, and its gate with the temperature of this step.

    member: the hyper-parameters of the restart.
    """
    policy: Policy = eqx.combine(params, problem.fixed)
    if problem.anneal is None:
        return policy
    temperature = jnp.asarray(called_for(member, problem.anneal, step), jnp.result_type(float))
    return eqx.tree_at(lambda p: p.gate.temperature, policy, temperature)


def score_paths(
    problem: Problem, policy: Policy, markets: Market, key: Any, parts: tuple[slice, ...] = (slice(None),)
) -> tuple[Float[Array, "path part"], LaneStatus]:
    """The score of one policy in each market of a stack, NaN where the simulation failed, and the status of each. To be
    called inside a `vmap` over restarts.

    parts: slices of bars; there is one score for each, of those of its bars that count.
    """

    def one(market: Market, key: Any) -> tuple[Float[Array, " part"], LaneStatus]:
        sim = simulate(
            market,
            policy,
            costs=problem.costs,
            account=problem.account,
            key=key,
            adjoint=problem.adjoint,
        )
        scores = jnp.stack([problem.score(part_of(sim, problem.counted(part))) for part in parts])
        return jnp.where(sim.status.is_ok, scores, jnp.nan), sim.status

    return jax.vmap(one)(markets, jax.random.split(key, markets.close.shape[0]))


def part_of(sim: Simulation, bars: slice) -> Simulation:
    """A simulation cut to some bars."""
    if bars == slice(None):
        return sim
    paths = jax.tree.map(lambda x: x[bars], eqx.tree_at(lambda s: s.status, sim, None))
    return eqx.tree_at(lambda s: s.status, paths, sim.status, is_leaf=lambda x: x is None)


def one_step(problem: Problem, state: TrainState) -> TrainState:
    """One step of the optimiser for every restart."""
    for_markets, for_policy = jax.random.split(jax.random.fold_in(problem.key, state.step))
    markets = draw(problem, for_markets)

    def loss(params: Any, member: Member) -> tuple[Float[Array, ""], tuple]:
        scores, status = score_paths(problem, policy_at(problem, params, state.step, member), markets, for_policy)
        return -jnp.mean(scores), (scores[:, 0], status)

    def total(params: Any) -> tuple[Float[Array, ""], tuple]:
        losses, rest = jax.vmap(loss)(params, problem.members)
        return jnp.sum(losses), (losses, *rest)  # the restarts are independent: this has all gradients

    def update(params, grads, memory, value, member):
        from optax import apply_updates, with_extra_args_support

        optimizer = with_extra_args_support(problem.optimizer_of(member))
        updates, memory = optimizer.update(
            grads, memory, params, value=value, grad=grads, value_fn=lambda p: loss(p, member)[0]
        )
        return project(problem.constraints, apply_updates(params, updates)), memory

    (_, (losses, scores, status)), grads = jax.value_and_grad(total, has_aux=True)(state.params)
    new = jax.vmap(update)(state.params, grads, state.memory, losses, problem.members)
    slopes = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(grads)]
    norm = jnp.sqrt(sum(jnp.sum(slope**2, axis=1) for slope in slopes))
    is_ok = jnp.isfinite(norm) & jnp.isfinite(losses)
    for leaf in jax.tree.leaves(new[0]):
        is_ok &= jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(axis=1)
    failure = first_failure(state.failure, is_ok, scores, status, state.step)

    def kept(new, old):
        goes_on = failure.is_ok.reshape(-1, *[1] * (new.ndim - 1))
        return jnp.where(goes_on, new, old)

    params, memory = jax.tree.map(kept, new, (state.params, state.memory))
    pairs = zip(state.has_moved, slopes, strict=True)
    has_moved = tuple(before | jnp.any(slope != 0, axis=1) for before, slope in pairs)
    return TrainState(params, memory, state.step + 1, failure, -losses, norm, has_moved)


def first_failure(
    before: TrainingFailure,
    is_ok: Bool[Array, " restart"],
    scores: Float[Array, "restart path"],
    status: LaneStatus,
    step: Array,
) -> TrainingFailure:
    """The earlier failure, or else the one of this step: that of the first path that failed."""
    path = jnp.argmax(~jnp.isfinite(scores), axis=1)

    def there(codes: Array) -> Array:
        return jnp.take_along_axis(codes, path[:, None], axis=1)[:, 0]

    step_of_path = jnp.broadcast_to(jnp.asarray(step, jnp.int32), path.shape)
    now = TrainingFailure(step_of_path, there(status.fault), there(status.bar), there(status.asset))
    return jax.tree.map(lambda old, new: jnp.where(is_ok | ~before.is_ok, old, new), before, now)


@kept_program
def advance(problem: Problem, state: TrainState, until: Int[Array, ""]) -> TrainState:
    """The state after steps up to number `until`, an argument of the compiled program."""
    return lax.while_loop(lambda now: now.step < until, lambda now: one_step(problem, now), state)


class Evaluation(eqx.Module):
    """The scores of parameters on all of the data, at one step.

    score: under the gate of the training, mean over the paths.     hard: under the gate `Hard`.
    validation: under the gate `Hard`, on the validation data; None without any.
    """

    score: Float[Array, " restart"]
    hard: Float[Array, " restart"]
    validation: Float[Array, " restart"] | None
    failure: TrainingFailure


@kept_program
def evaluate(
    problem: Problem, params: Any, step: Int[Array, ""], markets: Market, held_out: Market | None, split: int
) -> Evaluation:
    """The scores of parameters, stacked over restarts.

    markets: stack that the score is taken on.      held_out: stack for the validation, from bar `split` on.
    """
    failure = TrainingFailure.none(jax.tree.leaves(params)[0].shape[0])

    def means(markets: Market, is_hard: bool, parts: tuple[slice, ...] = (slice(None),)) -> list[Any]:
        """The mean score of each part of the bars."""
        nonlocal failure

        def one(params: Any, member: Member) -> tuple[Float[Array, "path part"], LaneStatus]:
            policy = policy_at(problem, params, step, member)
            return score_paths(problem, policy.hardened() if is_hard else policy, markets, problem.key, parts)

        scores, status = jax.vmap(one)(params, problem.members)
        mean_scores = jnp.mean(scores, axis=1)
        failure = first_failure(failure, jnp.isfinite(mean_scores).all(axis=1), scores.sum(axis=2), status, step)
        return list(mean_scores.T)

    validation = None
    if held_out is not None and split > 0:
        hard, validation = means(held_out, True, (slice(None, split), slice(split, None)))
    else:
        (hard,) = means(markets, True)
        if held_out is not None:
            (validation,) = means(held_out, True)
    score = hard if problem.fixed.gate.is_exact else means(markets, False)[0]
    return Evaluation(score, hard, validation, failure)
