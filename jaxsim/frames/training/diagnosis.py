"""The reason, in words, why a number of a training run is not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.engine.training.gradient_ascent import Problem, TrainState
from jaxsim.engine.training.not_finite import NotFinite, find_not_finite
from jaxsim.engine.training.trainable import leaf_names

WHERE = (
    "jnp.where passes the NaN on from the branch that it does not take; replace what is missing before it is used, as "
    "in x = jnp.nan_to_num(obs.features)"
)
AT_ZERO = (
    "often a root, a logarithm or a division at 0, or jnp.where around one: change what goes in, not what comes out"
)


def why_not_finite(problem: Problem, state: TrainState, restart: int, step: int) -> str:
    """What was not finite in the step at which a restart failed: the step is computed once more."""
    params = jax.tree.map(lambda x: x[restart], state.params)
    member = jax.tree.map(lambda x: x[restart], problem.members)
    found = find_not_finite(problem, params, jnp.int32(step), member)
    return in_words(jax.device_get(found), leaf_names(params))


def in_words(found: NotFinite, names: list[str]) -> str:
    """names: of the trained leaves."""
    path = _first_path(~np.isfinite(found.scores))
    if path is not None:
        bar, value = int(found.value_bar[path]), float(found.scores[path])
        what = f"the score is {value:g}{_of(found, path)}"
        if bar >= 0:
            return f"{what}: the value of the account is not finite from bar {bar} on"
        return f"{what}, though the simulation is finite: the function of the score makes it so"
    numbers = [name for name, bad in zip(names, found.leaves, strict=True) for name in _numbers(name, bad)]
    if not numbers:
        return (
            "the score and its derivative are finite, but the next step of the optimizer is not a finite number, or "
            "the score on all of the data: try smaller steps"
        )
    more = ", ..." if len(numbers) > 3 else ""
    what = f"the derivative of the score by {', '.join(numbers[:3])}{more} is not finite"
    path = _first_path(found.score_bar >= 0)
    if path is not None:
        return (
            f"{what}: that of the score's own function by the simulation is not, first at bar "
            f"{int(found.score_bar[path])}{_of(found, path)}; {AT_ZERO}"
        )
    path = _first_path(found.bar >= 0)
    if path is None:
        return f"{what}; js.check_gradient compares it with differences, number by number"
    missing, bad = found.missing[path], found.assets[path]
    asset = int(np.argmax(missing if missing.any() else bad))
    known = missing.any() or bad.any()
    place = f"bar {int(found.bar[path])}" + (f", asset {asset}" if known else "") + _of(found, path)
    hint = f"a feature is NaN there: {WHERE}" if missing.any() else AT_ZERO
    return f"{what}, first at {place}; {hint}"


def _first_path(mask: Any) -> int | None:
    return int(np.argmax(mask)) if np.any(mask) else None


def _of(found: NotFinite, path: int) -> str:
    return f" of market {path}" if len(found.scores) > 1 else ""


def _numbers(name: str, bad: np.ndarray) -> list[str]:
    """The numbers of a leaf that are bad; the leaf alone where all are."""
    if bad.ndim == 0 or bad.all():
        return [name] if bad.any() else []
    return [f"{name}[{', '.join(str(int(i)) for i in place)}]" for place in np.argwhere(bad)]
