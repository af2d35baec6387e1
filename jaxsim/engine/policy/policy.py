"""What to do: an allocator asked for weights, and a trigger that says when."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.engine.base.arrays import Array
from jaxsim.engine.base.fields import BARS, CALL_SEQ, DIRECTION, SIZE_TYPE, bounded
from jaxsim.engine.base.numerics import Number, at_bar
from jaxsim.engine.policy.allocation import Allocation, as_allocation
from jaxsim.engine.policy.destinations import AbstractDestination, ToTarget, checked_destination
from jaxsim.engine.policy.gates import AbstractGate, Hard, checked_gate
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.stops import StopRules
from jaxsim.engine.policy.triggers import AbstractDated, AbstractTrigger, AtBars, Between, Never, WhenFlat


class Policy(eqx.Module):
    """An allocator and the rule that says when to ask it.

    allocator: pure function of an `Observation` that returns weights [asset] or an `Allocation`; or a callable with
        a state: `init(num_assets) -> state`, `__call__(obs, state) -> (Allocation, state)` and optionally
        `observe(obs, state) -> state` or `(state, aux)`, which sees every bar.
    trigger: callable of an `Observation` that says whether to rebalance.
    gate: what the derivative of the decision to trade means.
    destination: how far towards the targets to trade.
    min_history: number of bars before the first trade.
    size_type: SizeType: what the allocator's numbers count unless it says so itself; None: target weights.
    direction: Direction: which positions its orders may lead to unless it says so itself; None: both.
    call_seq: CallSeq: in which order the assets trade unless the allocator says so itself; None: by order value.
    trades_when_flat: trade also without the trigger while no position is held; off in a replay.
    guard: checks that close positions between the dates of a replay.

    `size_type` and `direction` are one code, one per asset, or [time or 1, asset or 1].
    """

    allocator: Callable
    trigger: Callable = eqx.field(default_factory=Never)
    gate: AbstractGate = eqx.field(default_factory=Hard, converter=checked_gate)
    destination: AbstractDestination = eqx.field(default_factory=ToTarget, converter=checked_destination, kw_only=True)
    min_history: Number = bounded("min_history", BARS, default=0, kw_only=True)
    size_type: Any = bounded("size_type", SIZE_TYPE, by_bar_and_asset=True, default=None, kw_only=True)
    direction: Any = bounded("direction", DIRECTION, by_bar_and_asset=True, default=None, kw_only=True)
    call_seq: Any = bounded("call_seq", CALL_SEQ, default=None, kw_only=True)
    trades_when_flat: bool = eqx.field(static=True, default=True, kw_only=True)
    guard: StopRules | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        for name in ("allocator", "trigger"):
            value = getattr(self, name)
            if isinstance(value, type):
                raise TypeError(f"{name}: {value.__name__} is a class; pass an instance, {value.__name__}(...)")
            if not callable(value):
                raise TypeError(f"{name}: expected a callable, got {value!r}")

    def hardened(self) -> "Policy":
        """This policy with the gate `Hard`: what it does when it is run rather than trained."""
        if isinstance(self.gate, Hard):
            return self
        return eqx.tree_at(lambda policy: policy.gate, self, Hard(), is_leaf=lambda x: isinstance(x, AbstractGate))

    def within(self, start: int, stop: int) -> "Policy":
        """This policy with nothing but the bars from `start` on, less than `stop`, to trade at. It sees the bars before
        them. What it holds at `stop`, it keeps. Its own `min_history` holds as well."""
        trigger = WhenFlat() | self.trigger if self.trades_when_flat else self.trigger
        first = np.maximum(np.asarray(self.min_history, np.float64), start)
        return replace(self, trigger=Between(first, stop) & trigger, min_history=0, trades_when_flat=False)


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
            "it observes): use jax.numpy and jnp.where, or have it run as ordinary Python, by allocators.host or with "
            'engine="reference"'
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
    """An allocator that hands out the recorded targets that hold at a bar: those of the last recorded bar up to it.
    NaN marks an asset that was left alone.

    bars: int [allocation], bar number of each, ascending; padded with the number of bars in the market.
    weights: [allocation, asset], the weights asked for at each.
    size_type, direction: int [allocation, asset], if they were recorded.
    sequence: [allocation, asset], place of each asset in the order of execution, if that was chosen; else NaN.
    """

    bars: Number
    weights: Number
    size_type: Any = None
    direction: Any = None
    sequence: Any = None

    def __call__(self, obs: Observation) -> Allocation:
        return self.at(jnp.maximum(jnp.searchsorted(self.bars, obs.step, side="right") - 1, 0))

    def at(self, row: Array) -> Allocation:
        """The allocation of this number."""
        weights, codes = self.weights[row], (self.size_type, self.direction)
        size_type, direction = (None if x is None else x[row] for x in codes)
        call_seq = None
        if self.sequence is not None:
            places = self.sequence[row]
            call_seq = jnp.where(jnp.isnan(places).all(), -1, jnp.argsort(places, stable=True))
        skip = jnp.isnan(weights)
        return Allocation(weights, skip=skip, size_type=size_type, direction=direction, call_seq=call_seq)


class AtRecorded(AbstractDated):
    """Trade at the recorded bars.

    bars: as in `RecordedTargets`.
    """

    bars: Number

    def fires_at(self, step: Any, xp: Any) -> Any:
        return (xp.asarray(step)[..., None] == xp.asarray(self.bars)).any(-1)

    def dates(self, num_bars: int) -> Array:
        return jnp.zeros(num_bars, bool).at[jnp.asarray(self.bars)].set(True, mode="drop")


def replay_policy(
    mask: Number | None, targets: RecordedTargets, trigger: Callable | None = None, checks: tuple = ()
) -> Policy:
    """The policy that acts at the recorded bars and asks for what was asked for then.

    mask: bool [time], true at the recorded bars; needed only beside a trigger or checks.
    trigger: when else to go back to the targets that hold.
    checks: what closes positions in between.
    """
    if trigger is None and not checks:
        return Policy(targets, AtRecorded(targets.bars), trades_when_flat=False)
    recorded = AtBars(mask)  # pyright: ignore[reportArgumentType]
    when = recorded if trigger is None else recorded | trigger
    return Policy(targets, when, trades_when_flat=False, guard=StopRules(recorded, checks) if checks else None)


class GivenOrders(eqx.Module):
    """An allocator that hands out given orders.

    size: one number, one per asset, or [time or 1, asset or 1]; NaN: no order. What it counts, and in which direction,
        the policy says.
    """

    size: Number

    def at(self, obs: Observation) -> Any:
        return jnp.broadcast_to(at_bar(self.size, obs.step), obs.units.shape)

    def __call__(self, obs: Observation) -> Allocation:
        size = self.at(obs)
        return Allocation(size, skip=jnp.isnan(size))


class HasGivenOrders(AbstractTrigger):
    """Trade at the bars for which an order book has an order."""

    book: GivenOrders

    def __call__(self, obs: Observation) -> Any:
        return jnp.any(~jnp.isnan(self.book.at(obs)))

    def dates(self, num_bars: int) -> Array:
        size = jnp.asarray(self.book.size)
        has_any = jnp.atleast_1d(~jnp.isnan(size) if size.ndim == 0 else jnp.any(~jnp.isnan(size), axis=-1))
        return has_any[jnp.minimum(jnp.arange(num_bars), len(has_any) - 1)]  # a market may be filled up with bars


def given_orders_policy(size: Number, **terms: Any) -> Policy:
    """The policy that sends given orders. size: as `GivenOrders`.      terms: further fields of `Policy`."""
    book = GivenOrders(size)
    return Policy(book, HasGivenOrders(book), trades_when_flat=False, **terms)
