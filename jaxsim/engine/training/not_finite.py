"""Where a number that is not finite comes from: one step of a training run, once more, and taken apart."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.bar.lane_state import LaneState
from jaxsim.engine.bar.step import BarOutcome, trade_bar
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.simulate import lane_inputs, simulate
from jaxsim.engine.trading.market import Market
from jaxsim.engine.training.gradient_ascent import Member, Problem, draw, part_of, policy_at, score_paths


class NotFinite(eqx.Module):
    """What is not finite at one step of a training run. Bars and paths are -1 where there is none.

    scores: of each path.       leaves: of each trained leaf, which numbers have a derivative that is not finite.
    value_bar: the first bar of each path after which the value is not.
    score_bar: the first bar of each path by whose value or return the derivative of the score is not.
    bar: the first bar of each path at which the derivative of what is held after it, by the trained numbers and by what
        was held before, is not.
    assets: whose target weights at that bar have such a derivative.
    missing: the assets with a NaN among their features at that bar.
    """

    scores: Float[Array, " path"]
    leaves: tuple
    value_bar: Int[Array, " path"]
    score_bar: Int[Array, " path"]
    bar: Int[Array, " path"]
    assets: Bool[Array, "path asset"]
    missing: Bool[Array, "path asset"]


@eqx.filter_jit
def find_not_finite(problem: Problem, params: Any, step: Int[Array, ""], member: Member) -> NotFinite:
    """params: trained leaves of one restart.       step: the number of the step, which draws its data.
    member: the hyper-parameters of the restart.
    """
    for_markets, for_policy = jax.random.split(jax.random.fold_in(problem.key, step))
    markets = draw(problem, for_markets)

    def policy_of(params: Any) -> Policy:
        return policy_at(problem, params, step, member)

    def total(params: Any) -> tuple[Array, Array]:
        """As the step computes it."""

        def one(params: Any) -> Float[Array, "path part"]:
            return score_paths(problem, policy_of(params), markets, for_policy)[0]

        scores = jax.vmap(one)(jax.tree.map(lambda x: x[None], params))[0, :, 0]
        return jnp.mean(scores), scores

    grads, scores = jax.grad(total, has_aux=True)(params)
    leaves = tuple(~jnp.isfinite(leaf) for leaf in jax.tree.leaves(grads))

    def of_path(part: tuple[Market, Any]) -> tuple:
        market, key = part
        return _of_path(problem, policy_of, params, market, key)

    keys = jax.random.split(for_policy, markets.close.shape[0])
    return NotFinite(scores, leaves, *lax.map(of_path, (markets, keys)))


def _of_path(problem: Problem, policy_of: Callable, params: Any, market: Market, key: Any) -> tuple:
    """The fields of `NotFinite` from `value_bar` on, of one path."""
    policy = policy_of(params)
    terms: dict[str, Any] = {"costs": problem.costs, "account": problem.account, "key": key}
    sim = simulate(market, policy, **terms)
    paths, rest = eqx.partition(sim, eqx.is_inexact_array)
    slopes = jax.grad(lambda x: problem.score(part_of(eqx.combine(x, rest), problem.counted(slice(None)))))(paths)
    of_score = _bad_rows(slopes)

    inputs = lane_inputs(market, policy, **terms)
    bars = jnp.arange(market.num_bars)

    def advance(lane: LaneState, bar: Array) -> tuple[LaneState, LaneState]:
        return trade_bar(inputs, lane, bar).lane, lane

    _, lanes = lax.scan(advance, LaneState.start(inputs), bars)

    def derivative(part: tuple[LaneState, Array]) -> Bool[Array, " asset"]:
        lane, bar = part

        def units(params: Any, holdings: Any) -> Float[Array, " asset"]:
            return outcome(params, holdings, lane, bar).lane.holdings.units

        return _bad_rows(jax.jacrev(units, (0, 1))(params, lane.holdings))

    def outcome(params: Any, holdings: Any, lane: LaneState, bar: Array) -> BarOutcome:
        own = lane_inputs(market, policy_of(params), **terms)
        return trade_bar(own, eqx.tree_at(lambda x: x.holdings, lane, holdings), bar)

    bar = _first(lax.map(derivative, (lanes, bars)).any(1))
    # In reverse mode, what is not finite at one asset is so at all that share a sum with it; not so in forward mode.
    lane = jax.tree.map(lambda x: x[bar], lanes)
    assets = _bad_rows(jax.jacfwd(lambda x: outcome(x, lane.holdings, lane, bar).event.target)(params))
    return _first(~jnp.isfinite(sim.value)), _first(of_score), bar, assets, _missing(market, bar)


def _bad_rows(derivative: Any) -> Bool[Array, " row"]:
    """The rows of any leaf [row, ...] with a number that is not finite."""
    return jnp.stack([~jnp.isfinite(x).reshape(len(x), -1).all(1) for x in jax.tree.leaves(derivative)]).any(0)


def _first(mask: Bool[Array, " time"]) -> Int[Array, ""]:
    return jnp.where(mask.any(), jnp.argmax(mask), -1)


def _missing(market: Market, bar: Array) -> Bool[Array, " asset"]:
    """The assets with a NaN among their features at a bar; of a feature of the whole market all assets."""
    missing = jnp.zeros(market.num_assets, bool)
    for x in jax.tree.leaves(market.features):
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            continue
        row = jnp.isnan(x[bar])
        if row.ndim and row.shape[0] == market.num_assets:
            missing = missing | row.reshape(market.num_assets, -1).any(1)
        else:
            missing = missing | row.any()
    return missing
