"""The leaves of a policy that are trained, their names in messages, and their constraints."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import equinox as eqx
import jax
from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path

from jaxsim.engine.base.fields import Bounds
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.training.constraints import AbstractConstraint, Box

#: The parts of a policy that are trained by default.
TRAINED = ("allocator", "trigger", "destination")

#: How far inside an open limit a trained leaf stays.
MARGIN = 1e-6


def leaf_names(tree: Any) -> list[str]:
    """The names of the leaves of a policy in messages: `allocator.logits`."""
    return [keystr(path).lstrip(".") for path, _ in tree_flatten_with_path(tree)[0]]


def declared_bounds(policy: Any, path: Sequence[Any]) -> Bounds | None:
    """The bounds of a field, as its class declares them; None without any."""
    node, last = policy, None
    for key in path:
        last = node
        if not isinstance(key, GetAttrKey):
            return None
        node = getattr(node, key.name)
    if last is None or not isinstance(last, eqx.Module):
        return None
    kind = {field.name: field.metadata.get("kind") for field in fields(last)}[path[-1].name]
    return kind if isinstance(kind, Bounds) else None


def trainable_spec(policy: Policy, trainable: Any = None) -> Any:
    """Which leaves are trained: a pytree of bools with the structure of `policy`.

    trainable: None for all floating-point arrays of allocator, trigger and destination that are no whole numbers; a
        function of the policy that returns leaves or parts of it, as `lambda p: (p.allocator, p.trigger.threshold)`;
        or a pytree of bools with the structure of the policy or of the top of it.

    Raises TypeError or ValueError that begins with `trainable` for anything else, for a leaf that cannot be trained,
    and if nothing is left to train.
    """
    leaves, structure = tree_flatten_with_path(policy)
    may = [_may_be_trained(policy, path, leaf) for path, leaf in leaves]
    if trainable is None:
        wanted = [reason is None for reason in may]
    else:
        wanted = _selected(policy, trainable)
        for (path, _), reason, is_wanted in zip(leaves, may, wanted, strict=True):
            if is_wanted and reason is not None:
                raise ValueError(f"trainable: {keystr(path).lstrip('.')} {reason}")
    if not any(wanted):
        names = ", ".join(leaf_names(policy)) or "none"
        raise ValueError(
            f"trainable: nothing to train; the leaves of the policy are {names}, of which floating-point arrays can be "
            "trained"
        )
    return jax.tree.unflatten(structure, wanted)


def _may_be_trained(policy: Policy, path: Sequence[Any], leaf: Any) -> str | None:
    """Why a leaf cannot be trained; None if it can."""
    part = path[0].name if isinstance(path[0], GetAttrKey) else None
    if part == "gate":
        return "belongs to the gate, which says what a derivative means: see anneal="
    if not eqx.is_inexact_array(leaf):
        return f"is {type(leaf).__name__}, not an array of floating-point numbers"
    bounds = declared_bounds(policy, path)
    if part not in TRAINED or (bounds is not None and bounds.is_integer):
        return "is a whole number, or a setting that has no derivative"
    return None


def _selected(policy: Policy, trainable: Any) -> list[bool]:
    nothing = jax.tree.map(lambda _: False, policy)
    if callable(trainable) and not isinstance(trainable, Policy):
        try:
            spec = eqx.tree_at(trainable, nothing, replace_fn=lambda part: jax.tree.map(lambda _: True, part))
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"trainable: expected a function of the policy that returns leaves of it, as lambda p: "
                f"p.allocator.logits; it failed with {type(error).__name__}: {error}"[:300]
            ) from error
        return jax.tree.leaves(spec)
    try:
        spec = jax.tree.map(lambda flag, part: jax.tree.map(lambda _: flag, part), trainable, policy)
    except ValueError as error:
        raise ValueError(
            f"trainable: expected a function of the policy, or a pytree of bools with its structure; {error}"[:300]
        ) from error
    flags = jax.tree.leaves(spec)
    if len(flags) != len(jax.tree.leaves(policy)) or not all(isinstance(flag, bool) for flag in flags):
        raise TypeError("trainable: expected a function of the policy, or a pytree of bools with its structure")
    return flags


Where = Callable[[Policy], Any]


def leaf_constraints(policy: Policy, spec: Any, constraints: Any) -> tuple[AbstractConstraint | None, ...]:
    """The constraint of each trained leaf, in their order: the user's, else the bounds of its field, else None.

    constraints: pairs (where, constraint), `where` a function of the policy that returns a leaf or several.

    Raises TypeError or ValueError that begins with `constraints`.
    """
    chosen: list[AbstractConstraint | None] = []
    for path, _ in tree_flatten_with_path(policy)[0]:
        bounds = declared_bounds(policy, path)
        margin = MARGIN if bounds is not None and bounds.is_open else 0.0
        high_margin = MARGIN if bounds is not None and bounds.is_high_open else 0.0
        chosen.append(None if bounds is None else Box(bounds.low + margin, bounds.high - high_margin))
    names, flags = leaf_names(policy), jax.tree.leaves(spec)
    for where, constraint in _pairs(constraints):
        try:
            is_chosen = _selected(policy, where)
        except ValueError as error:
            raise ValueError(str(error).replace("trainable:", "constraints:", 1)) from error
        for place, is_meant in enumerate(is_chosen):
            if is_meant and not flags[place]:
                raise ValueError(f"constraints: {names[place]} is not trained")
            if is_meant:
                chosen[place] = constraint
    return tuple(constraint for constraint, flag in zip(chosen, flags, strict=True) if flag)


def _pairs(constraints: Any) -> list[tuple[Where, AbstractConstraint]]:
    expected = "constraints: expected pairs such as (lambda p: p.allocator.weights, js.Simplex())"
    if not isinstance(constraints, list | tuple):
        raise TypeError(f"{expected}, got {type(constraints).__name__}")
    pairs = list(constraints)
    if len(pairs) == 2 and callable(pairs[0]) and isinstance(pairs[1], AbstractConstraint):
        pairs = [tuple(pairs)]
    for pair in pairs:
        is_pair = isinstance(pair, tuple) and len(pair) == 2 and callable(pair[0])
        if not is_pair or not isinstance(pair[1], AbstractConstraint):
            raise TypeError(f"{expected}, got {pair!r}"[:300])
    return pairs
