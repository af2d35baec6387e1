"""A market as an environment for reinforcement learning: `reset` and `step` as in gymnax, pure functions of arrays."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxsim.engine.bar.lane_state import LaneState, at_bar_row
from jaxsim.engine.bar.lanes import LaneInputs
from jaxsim.engine.bar.step import observe, trade_bar
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.fields import shown, whole_number
from jaxsim.engine.base.random import as_key
from jaxsim.engine.metrics.returns import returns_from_value
from jaxsim.engine.policy.allocation import Allocation
from jaxsim.engine.policy.destinations import AbstractDestination, ToTarget
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.policy.triggers import Always
from jaxsim.engine.simulate import lane_inputs
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market

#: The reward of a bar that loses everything is the logarithm of this.
LEAST_GROWTH = 1e-6
#: Bars whose returns are observed where the market has no features.
PAST = 10


class Action(eqx.Module):
    """An allocator that answers with an action.    weights: target weights; NaN leaves the asset alone."""

    weights: Float[Array, " asset"]

    def __call__(self, obs: Observation) -> Allocation:
        return Allocation(self.weights, skip=jnp.isnan(self.weights))


class EnvironmentState(eqx.Module):
    """An episode on its way.

    lane: the account and what else goes from bar to bar.       bar: the next to be traded.
    end: the first bar that is not traded.      value: of the account after the bar before, currency.
    key: of the lane, for its random rejections.
    """

    lane: LaneState
    bar: Int[Array, ""]
    end: Int[Array, ""]
    value: Float[Array, ""]
    key: Any


@dataclass(frozen=True)
class Space:
    """The arrays that an action or an observation can be.

    low, high: limits of each number.   shape, dtype: of the array.
    """

    low: float
    high: float
    shape: tuple[int, ...]
    dtype: Any

    def sample(self, key: Any) -> Array:
        """Uniform numbers; standard normal ones where there is no limit."""
        if np.isinf(self.low) or np.isinf(self.high):
            return jax.random.normal(key, self.shape, self.dtype)
        return jax.random.uniform(key, self.shape, self.dtype, self.low, self.high)

    def contains(self, x: Array) -> Bool[Array, ""]:
        return jnp.all((x >= self.low) & (x <= self.high))


@dataclass(frozen=True, eq=False)
class Environment:
    """What `js.environment` makes: the interface of gymnax's environments.

    default_params: the arrays that an episode runs on, as a `LaneInputs`. Hand them to `reset` and `step` as an
        argument of the compiled program; left out, they are compiled into it as constants. Markets of one shape are
        further such arguments, and may be mapped: `eqx.tree_at(lambda p: p.market, env.default_params, other)`.
    num_actions: number of assets.      name: of the environment.
    """

    default_params: LaneInputs
    num_actions: int
    _rest: LaneInputs
    _start: int
    _length: int | None
    _observation: Callable
    _reward: Callable
    name: str = "jaxsim"

    def reset(self, key: Any, params: LaneInputs | None = None) -> tuple[Any, EnvironmentState]:
        """A new account at the first bar of an episode: what is observed there, and the state.

        key: of the episode: it draws the first bar where episodes have a length, and is the key of the lane.
        """
        inputs = self._inputs(params, as_key(key))
        num_bars, bar = inputs.market.num_bars, jnp.int32(self._start)
        end = jnp.int32(num_bars)
        if self._length is not None:
            last = num_bars - self._length
            bar = jax.random.randint(inputs.key, (), self._start, last + 1).astype(jnp.int32)
            end = bar + self._length
        lane = LaneState.start(inputs)
        state = EnvironmentState(lane, bar, end, lane.holdings.cash, inputs.key)
        return self._observed(inputs, state), state

    def step(
        self, key: Any, state: EnvironmentState, action: Float[Array, " asset"], params: LaneInputs | None = None
    ) -> tuple[Any, EnvironmentState, Float[Array, ""], Bool[Array, ""], dict[str, Array]]:
        """Trade one bar, and begin anew where the episode is over.

        key: of the next episode.       action: target weights; NaN leaves an asset alone.

        Returns what is observed at the next bar, the state, the reward, whether the episode is over, and of the bar:
        `value` (after it, at the close), `return`, `fees`, `traded`, `turnover` as in `Simulation`, `rebalanced`,
        `bar`, and `fault`, a LaneFault. Where the episode is over, observation and state are those of a new one; then
        `final_obs` is what its end showed, and `truncated` says that only its bars ran out: what the account would
        earn from there on is not 0, and `final_obs` is what to estimate it by.
        """
        obs, after, reward, done, info = self.step_env(key, state, action, params)
        new_obs, new = self.reset(key, params)
        select = lambda x, y: lax.select(done, x, y)  # noqa: E731
        info["final_obs"] = obs
        return jax.tree.map(select, new_obs, obs), jax.tree.map(select, new, after), reward, done, info

    def step_env(
        self, key: Any, state: EnvironmentState, action: Float[Array, " asset"], params: LaneInputs | None = None
    ) -> tuple[Any, EnvironmentState, Float[Array, ""], Bool[Array, ""], dict[str, Array]]:
        """`step` without beginning anew, so that what is observed is `final_obs`; after the last bar of the market that
        bar is observed once more."""
        inputs = self._inputs(params, state.key)
        weights = jnp.asarray(action, inputs.market.dtype)
        if weights.shape != (self.num_actions,):
            raise ValueError(f"action: expected {self.num_actions} weights, got shape {weights.shape}")
        inputs = replace(inputs, policy=eqx.tree_at(lambda p: p.allocator.weights, inputs.policy, weights))
        outcome = trade_bar(inputs, state.lane, state.bar)
        value = outcome.lane.holdings.value(at_bar_row(inputs.market.mark, state.bar))
        totals, status = outcome.totals, outcome.lane.status
        info = {
            "value": value,
            "return": returns_from_value(value[None], state.value)[0],
            "fees": totals.fees,
            "traded": totals.traded,
            "turnover": totals.turnover,
            "rebalanced": outcome.event.is_decision & outcome.trades,
            "bar": state.bar,
            "fault": status.fault,
        }
        reward = jnp.asarray(self._reward(info), inputs.market.dtype)
        after = EnvironmentState(outcome.lane, state.bar + 1, state.end, value, state.key)
        lost = ~status.is_ok | ~(value > 0)
        done = (after.bar >= state.end) | lost
        info["truncated"] = done & ~lost
        return self._observed(inputs, after), after, reward, done, info

    def action_space(self, params: LaneInputs | None = None) -> Space:
        """Weights from 0 to 1. Weights below 0 are traded too: short positions; what exceeds a sum of 1 is cut."""
        return Space(0.0, 1.0, (self.num_actions,), self.default_params.market.dtype)

    def observation_space(self, params: LaneInputs | None = None) -> Space:
        shape = jax.eval_shape(lambda: self.reset(jax.random.key(0), params)[0])
        return Space(-np.inf, np.inf, shape.shape, shape.dtype)

    def _inputs(self, params: LaneInputs | None, key: Any) -> LaneInputs:
        inputs = eqx.combine(self.default_params if params is None else params, self._rest)
        return replace(inputs, key=key)

    def _observed(self, inputs: LaneInputs, state: EnvironmentState) -> Any:
        bar = jnp.minimum(state.bar, inputs.market.num_bars - 1)
        return self._observation(observe(inputs, state.lane, bar))


def environment(
    market: Market,
    *,
    costs: Costs | None = None,
    account: Account | None = None,
    observation: Callable | None = None,
    reward: str | Callable = "log_return",
    start: int = 0,
    length: int | None = None,
    trigger: Callable | None = None,
    destination: AbstractDestination | None = None,
) -> Environment:
    """A market as an environment for reinforcement learning, with the interface of gymnax, which it does not need.

    `obs, state = env.reset(key, params)` opens an account, and `obs, state, reward, done, info = env.step(key, state,
    action, params)` trades one bar. Both are pure and go under `jit`, `vmap`, `grad` and `lax.scan`. The bar is that
    of `js.simulate`: the same actions give the same values to the last bit.

    market: prices [time, asset], and features. Its dtype is that of all numbers.
    costs, account: as in `js.simulate`.
    observation: function of the `Observation` at the open of a bar that returns an array; default the present weights,
        then the features of the bar in the order of the pytree, without features the last 10 returns of each asset; NaN
        is 0.
    reward: "log_return", log(1 + r) of the return r after costs, never below log(1e-6); "return", r; or a function of
        the `info` of a step (see `Environment.step`) that returns a number.
    start: the first bar that may be traded.
    length: number of bars of an episode, which begins at a random one; default all bars from `start` on.
    trigger: whether an action is traded at a bar; default `js.Always()`.
    destination: how far towards it; default `js.ToTarget()`.

    An episode ends with its last bar, with a fault (an infinite weight), and where nothing is left of the account.

    Raises TypeError or ValueError that begins with the name of the argument.
    """
    if not isinstance(market, Market):
        raise TypeError(f"market: expected a Market, got {type(market).__name__}; see Market.from_frames")
    if market.close.ndim != 2:
        raise ValueError("market: expected one market [time, asset]; map `step` over the params of several")
    start = whole_number(start, "start", 0)
    if start >= market.num_bars:
        raise ValueError(f"start: {start} bars leave none of the {market.num_bars} bars of the market")
    if length is not None:
        length = whole_number(length, "length")
        if length > market.num_bars - start:
            raise ValueError(f"length: episodes of {length} bars, of {market.num_bars - start} that may be traded")
    if observation is not None and not callable(observation):
        raise TypeError(f"observation: expected a function of an Observation, got {shown(observation)}"[:200])
    if not callable(reward) and (not isinstance(reward, str) or reward not in REWARDS):
        raise ValueError(f"reward: expected 'log_return', 'return' or a function of info, got {shown(reward)}"[:200])
    policy = Policy(
        Action(jnp.zeros(market.num_assets, market.dtype)),
        Always() if trigger is None else trigger,
        destination=ToTarget() if destination is None else destination,
    )
    inputs = lane_inputs(market, policy, costs=costs, account=account)
    params, rest = eqx.partition(replace(inputs, key=None), eqx.is_array)
    made: Any = REWARDS[reward] if isinstance(reward, str) else reward
    return Environment(params, market.num_assets, rest, start, length, observation or default_observation, made)


def default_observation(obs: Observation) -> Float[Array, " number"]:
    """Weights, then features or past returns, in one row; NaN is 0."""
    parts = jax.tree.leaves(obs.features)
    if not parts:
        parts = [obs.window(PAST + 1).returns()]
    flat = [jnp.ravel(x).astype(obs.weights.dtype) for x in (obs.weights, *parts)]
    return jnp.nan_to_num(jnp.concatenate(flat), nan=0.0)


def log_return(info: dict[str, Array]) -> Float[Array, ""]:
    return jnp.log(jnp.maximum(1 + info["return"], LEAST_GROWTH))


REWARDS: dict[str, Callable] = {"log_return": log_return, "return": lambda info: info["return"]}
