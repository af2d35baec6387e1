"""`check_gradient`: the derivative of a score beside the differences that it should equal."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.tree_util import keystr, tree_flatten_with_path

from jaxsim.engine.base.fields import Bounds, shown, whole_number
from jaxsim.engine.base.numerics import cast_inexact
from jaxsim.engine.policy.gates import Hard
from jaxsim.engine.policy.host_callback import calls_python
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.policy.triggers import without_margin
from jaxsim.engine.trading.market import Market
from jaxsim.engine.training.gradient_check import compare
from jaxsim.engine.training.trainable import trainable_spec
from jaxsim.frames.training.gradient_check import NONE, GradientCheck, rows_of


def check_gradient(
    score: Callable,
    policy: Policy,
    market: Market,
    *,
    trainable: Any = None,
    step: float = 1e-5,
    most: int = 64,
    seed: int = 0,
) -> GradientCheck:
    """The derivative of a score by the numbers of a policy, number by number beside central differences, with the
    reason where the two differ.

    score: a function `score(policy, market)`, as one that goes under `jax.grad`, of JAX operations alone. It returns
        one number; or that and the `js.Simulation` that it is told from, `(number, simulation)`, in which case the
        events of the moved runs are compared too (of orders with `save=js.Save(events=True)`).
    policy: the point. Under `js.StraightThrough`, whose derivative is no derivative of the score, `js.Hard()` is
        checked, and a note says so.
    market: in float64.
    trainable: which numbers, as in `js.fit`; default all floating-point arrays of allocator, trigger and destination.
    step: by how much a number is moved to either side, in units of its size, of 1 for numbers below 1. Moves of a tenth
        and of ten times as much are tried too, and the one that agrees best counts.
    most: if there are more numbers, so many are drawn, by `seed`.

    Returns a `GradientCheck`. Its `table` has the columns

    - `derivative`, in reverse mode; `difference`, (score(+) - score(-)) / (2 move); `relative_error` of the two;
    - `verdict`: "agrees"; reasons that lie in the score: "event moves", "tie" (of order values, so that another
      purchase is cut), "orders differ" (an order is just cut), "jump", "kink"; mistakes: "cut off" (the derivative is
      0, the difference is not), "not finite", "differs"; and "no derivative" for whole numbers and functions;
    - `bar`: at which the first event differs.

    Its `notes` name what gates and functions of the host leave out. `is_right` says whether there is no mistake.

    Raises TypeError or ValueError that begins with the name of the argument.
    """
    if not callable(score):
        raise TypeError(f"score: expected a function of a policy and a market, got {shown(score)}"[:200])
    if not isinstance(policy, Policy):
        raise TypeError(f"policy: expected a Policy, got {type(policy).__name__}; see js.Policy(allocator, trigger)")
    if not isinstance(market, Market):
        raise TypeError(f"market: expected a Market, got {type(market).__name__}; see Market.from_frames")
    if market.dtype != np.float64:
        raise ValueError("market: differences need float64; make it within `with jax.enable_x64(True):`")
    if Bounds(0.0, is_open=True).read(step, "step").ndim > 0:
        raise ValueError(f"step: expected one number, got {shown(step)}")
    whole_number(most, "most")
    whole_number(seed, "seed", 0)
    checked = policy.hardened() if policy.gate.is_exact else policy
    spec = trainable_spec(checked, trainable)
    with jax.enable_x64(True):
        trained, fixed = eqx.partition(cast_inexact(checked, market.dtype), spec)
        names = [name for path, leaf in tree_flatten_with_path(trained)[0] for name in _names(path, leaf)]
        places = np.arange(len(names))
        if len(places) > most:
            places = np.sort(np.random.default_rng(seed).choice(places, most, replace=False))
        numbers = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(trained)])[places].astype(float)
        steps = float(step) * np.maximum(np.abs(numbers), 1.0)
        try:
            found = compare(score, trained, fixed, market, jnp.asarray(places), jnp.asarray(steps))
        except (TypeError, ValueError) as error:
            error.add_note("while js.check_gradient differentiated score(policy, market)")
            raise
    value = float(found.score)
    if not np.isfinite(value):
        raise ValueError(f"score: it is {value} at the policy itself; a derivative needs a finite score")
    table = rows_of(found, [names[i] for i in places], steps)
    others = _without_derivative(checked, spec) if trainable is None else []
    if others:
        table = pd.concat([table, _blank(others, table)])
    return GradientCheck(table, tuple(_notes(policy, len(places), len(names))), value)


def _names(path: Any, leaf: Any) -> list[str]:
    """The names of the numbers of a leaf: `allocator.logits[0]`."""
    name = keystr(path).lstrip(".")
    if np.ndim(leaf) == 0:
        return [name]
    return [f"{name}[{', '.join(map(str, at))}]" for at in np.ndindex(np.shape(leaf))]


def _without_derivative(policy: Policy, spec: Any) -> list[str]:
    """Leaves of the allocator, the trigger and the destination that hold whole numbers or bools."""
    flags, (leaves, _) = jax.tree.leaves(spec), tree_flatten_with_path(policy)
    return [
        keystr(path).lstrip(".")
        for (path, leaf), is_trained in zip(leaves, flags, strict=True)
        if not is_trained
        and keystr(path[:1]) in (".allocator", ".trigger", ".destination")
        and (eqx.is_array(leaf) or isinstance(leaf, int | bool))
    ]


def _blank(names: list[str], like: pd.DataFrame) -> pd.DataFrame:
    """Rows of leaves without a derivative."""
    nothing = {name: np.nan for name in ("derivative", "difference", "relative_error")}
    rows = pd.DataFrame([nothing | {"verdict": NONE, "bar": pd.NA}] * len(names), index=pd.Index(names, name="number"))
    return rows.astype(like.dtypes.to_dict())


def _notes(policy: Policy, num_checked: int, num_numbers: int) -> list[str]:
    notes = []
    if num_checked < num_numbers:
        notes.append(f"{num_checked} of {num_numbers} numbers were checked; most= says how many")
    gate = policy.gate
    if policy.gate.is_exact and not isinstance(gate, Hard):
        notes.append(
            f"gate: {type(gate).__name__} adds to the derivative what no difference of the score shows; js.Hard() was "
            "checked"
        )
    if not isinstance(gate, Hard):
        for name in without_margin(policy.trigger):
            notes.append(
                f"trigger: {name} has no method `margin`, so that the gate {type(gate).__name__} passes no derivative "
                "through its decisions"
            )
    if calls_python(policy):
        notes.append("allocator: it calls a Python function on the host (al.host), whose weights are constants")
    return notes
