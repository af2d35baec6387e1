"""What to do: an allocator asked for weights, and a trigger that says when."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxsim.engine.allocation import Allocation, as_allocation
from jaxsim.engine.bounds import BARS, bounded
from jaxsim.engine.numerics import Number
from jaxsim.engine.observation import Observation
from jaxsim.engine.triggers import AtBars, Never


class Policy(eqx.Module):
    """An allocator and the rule that says when to ask it.

    allocator: pure function of an `Observation` that returns weights [asset] or an `Allocation`; or a callable with
        a state: `init(num_assets) -> state`, `__call__(obs, state) -> (Allocation, state)` and optionally
        `observe(obs, state) -> state` or `(state, aux)`, which sees every bar.
    trigger: callable of an `Observation` that says whether to rebalance.
    min_history: number of bars before the first trade.
    trades_when_flat: trade also without the trigger while no position is held; off in a replay.
    """

    allocator: Callable
    trigger: Callable = eqx.field(default_factory=Never)
    min_history: Number = bounded("min_history", BARS, default=0, kw_only=True)
    trades_when_flat: bool = eqx.field(static=True, default=True, kw_only=True)

    def __check_init__(self):
        for name in ("allocator", "trigger"):
            value = getattr(self, name)
            if isinstance(value, type):
                raise TypeError(f"{name}: {value.__name__} is a class; pass an instance, {value.__name__}(...)")
            if not callable(value):
                raise TypeError(f"{name}: expected a callable, got {value!r}")


def allocator_name(allocator: Any) -> str:
    """How messages call an allocator."""
    return getattr(allocator, "__qualname__", None) or type(allocator).__qualname__


def keeps_state(allocator: Any) -> bool:
    return hasattr(allocator, "init")


def observes(allocator: Any) -> bool:
    return hasattr(allocator, "observe")


def initial_state(allocator: Any, num_assets: int) -> Any:
    return allocator.init(num_assets) if keeps_state(allocator) else None


def ask(allocator: Any, obs: Observation, state: Any, dtype: Any) -> tuple[Allocation, Any]:
    """One question to an allocator, stateful or not: its checked `Allocation` and its next state."""
    name = allocator_name(allocator)
    try:
        answer, state = allocator(obs, state) if keeps_state(allocator) else (allocator(obs), state)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise TypeError(
            f"allocator {name} needs numbers where the compiled engine has none yet (NumPy, float() or `if` on what "
            'it observes): use jax.numpy and jnp.where, or run it as ordinary Python with engine="reference"'
        ) from error
    return as_allocation(answer, obs.num_assets, dtype, name), state


def as_state(new: Any, old: Any, name: str) -> Any:
    """A state in the dtypes of the one before it, so that a loop can carry it.

    Raises TypeError naming the allocator if its structure, a shape, or a kind of number has changed.
    """

    def fit(new: Any, old: Any) -> Any:
        new = jnp.asarray(new)
        keeps_kind = (
            new.dtype == old.dtype
            or (new.dtype.kind in "iuf" and old.dtype.kind == "f")
            or (new.dtype.kind in "iu" and old.dtype.kind in "iu")
        )
        if new.shape != old.shape or not keeps_kind:
            raise TypeError(
                f"allocator {name}: the state was {old.dtype} of shape {old.shape}, now it is {new.dtype} of shape "
                f"{new.shape}; it must stay what init(num_assets) returned"
            )
        return new.astype(old.dtype)

    if jax.tree.structure(new) != jax.tree.structure(old):
        raise TypeError(f"allocator {name}: the state must keep the structure that init(num_assets) returned")
    return jax.tree.map(fit, new, old)


def watch(allocator: Any, obs: Observation, state: Any) -> tuple[Any, dict]:
    """What an allocator with `observe` makes of a bar: its next state and the arrays to be recorded."""
    if not observes(allocator):
        return state, {}
    answer = allocator.observe(obs, state)
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict):
        return answer
    return answer, {}


class RecordedTargets(eqx.Module):
    """An allocator that hands out recorded weights; NaN marks an asset that was left alone.

    bars: int [allocation], bar number of each, ascending; padded with the number of bars in the market.
    weights: [allocation, asset], the weights asked for at each.
    """

    bars: Number
    weights: Number

    def __call__(self, obs: Observation) -> Allocation:
        row = jnp.clip(jnp.searchsorted(self.bars, obs.step), 0, self.bars.shape[0] - 1)
        weights = self.weights[row]
        return Allocation(weights, skip=jnp.isnan(weights))


def replay_policy(mask: Number, bars: Number, weights: Number) -> Policy:
    """The policy that acts at the recorded bars alone and asks for what was asked for then.

    mask: bool [time], true at the recorded bars.      bars, weights: as `RecordedTargets`.
    """
    return Policy(RecordedTargets(bars, weights), AtBars(mask), trades_when_flat=False)
