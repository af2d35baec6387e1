"""A policy: an allocator that answers with weights, and the rules that say when and how far to trade."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.engine.base.fields import BARS, CALL_SEQ, DIRECTION, SIZE_TYPE, bounded
from jaxsim.engine.base.numerics import Number
from jaxsim.engine.policy.allocation import Allocation, as_allocation
from jaxsim.engine.policy.destinations import AbstractDestination, ToTarget, checked_destination
from jaxsim.engine.policy.gates import AbstractGate, Hard, checked_gate
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.stops import StopRules
from jaxsim.engine.policy.triggers import Between, Never, WhenFlat
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.cut import PRO_RATA, checked_cut, refusal
from jaxsim.engine.trading.status import LaneFault


class Policy(eqx.Module):
    """An allocator and the rule that says when to ask it.

    allocator: pure function of an `Observation` that returns weights [asset] or an `Allocation`; or a callable with
        a state: `init(num_assets) -> state`, `__call__(obs, state) -> (Allocation, state)` and optionally
        `observe(obs, state) -> state` or `(state, aux)`, which sees every bar. An attribute `faults`, a mapping from
        `LaneFault` to text, says what its NaN or infinite weights mean.
    trigger: callable of an `Observation` that returns whether to rebalance, one bool.
    gate: how derivatives pass through the decision to trade.
    destination: how far towards the targets to trade.
    min_history: number of bars before the first trade.
    size_type: SizeType of the allocator's numbers, unless its answer names one; None: target weights.
    direction: Direction of its orders, unless its answer names one; None: both.
    call_seq: CallSeq, the order in which the assets trade, unless its answer names one; None: by order value.
    trades_when_flat: whether to trade without the trigger while no position is held; False in a replay.
    stops: the rules that close positions between the dates of a replay.
    cut: which purchases are cut where the cash is short (rules 3.11): "last", the last in the order of execution; or
        "pro_rata", all by the same factor, so that the fills are continuous in the weights. None: "last", in `js.fit`
        "pro_rata".

    `size_type` and `direction` are one code, one per asset, or [time or 1, asset or 1].

    Raises TypeError or ValueError that begins with the name of the field.
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
    stops: StopRules | None = eqx.field(default=None, kw_only=True)
    cut: str | None = eqx.field(static=True, default=None, converter=checked_cut, kw_only=True)

    save: ClassVar[Callable[..., None]]  # both are defined in jaxsim.frames.training.policy_file, which knows files
    load: ClassVar[Callable[..., "Policy"]]

    def __check_init__(self):
        for name in ("allocator", "trigger"):
            value = getattr(self, name)
            if isinstance(value, type):
                raise TypeError(f"{name}: {value.__name__} is a class; pass an instance, {value.__name__}(...)")
            if not callable(value):
                raise TypeError(f"{name}: expected a callable, got {value!r}")

    def hardened(self) -> "Policy":
        """This policy with the gate `Hard`, as a backtest runs it."""
        if isinstance(self.gate, Hard):
            return self
        return eqx.tree_at(lambda policy: policy.gate, self, Hard(), is_leaf=lambda x: isinstance(x, AbstractGate))

    def within(self, start: int, stop: int) -> "Policy":
        """This policy for a market that could be traded from bar `start` to bar `stop` - 1 only.

        It sees the bars before `start`, and keeps at `stop` the positions it has. Its own `min_history` still holds.
        """
        trigger = WhenFlat() | self.trigger if self.trades_when_flat else self.trigger
        first = np.maximum(np.asarray(self.min_history, np.float64), start)
        return replace(self, trigger=Between(first, stop) & trigger, min_history=first, trades_when_flat=False)


def check_cut(policy: Policy, costs: Costs) -> None:
    """Raises ValueError that begins with `cut` where a policy cuts all purchases alike and the costs forbid it."""
    reason = refusal(costs, policy.size_type) if policy.cut == PRO_RATA else None
    if reason is not None:
        raise ValueError(reason)


def allocator_name(allocator: Any) -> str:
    """The name of an allocator in messages."""
    return getattr(allocator, "__qualname__", None) or type(allocator).__qualname__


def fault_text(fault: LaneFault, allocator: Any) -> str:
    """What to say of a fault: in the words of the allocator, if it has `faults`, a mapping from LaneFault to text."""
    words = getattr(allocator, "faults", None)
    return words.get(fault, fault.text) if isinstance(words, Mapping) else fault.text


def keeps_state(allocator: Any) -> bool:
    return hasattr(allocator, "init")


def observes(allocator: Any) -> bool:
    return hasattr(allocator, "observe")


def initial_state(allocator: Any, num_assets: int) -> Any:
    return allocator.init(num_assets) if keeps_state(allocator) else None


def ask(allocator: Any, obs: Observation, state: Any, dtype: Any) -> tuple[Allocation, Any]:
    """The answer of an allocator, checked, and its next state; None as the state of one that keeps none."""
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
    """A new state in the dtypes of the old one: a loop can carry only arrays that keep their dtypes.

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
    """The next state of an allocator with `observe` after a bar, and the arrays to record by name."""
    if not observes(allocator):
        return state, {}
    answer = allocator.observe(obs, state)
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict):
        return answer
    return answer, {}
