"""The terms of trading as users give them: costs, limits, and what an allocator's numbers mean."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.enums import CallSeq, Direction, SizeType
from jaxsim.engine.base.fields import CALL_SEQ, DIRECTION, SIZE_TYPE, Codes
from jaxsim.engine.trading.costs import NEUTRAL, Costs
from jaxsim.frames.inputs.groups import Layout
from jaxsim.frames.inputs.labels import Sweep, is_swept
from jaxsim.frames.inputs.parameters import LaneParameter, module_from, number, time_asset

#: Terms of the policy rather than of its costs: their kinds, and what they are when they are left out.
MEANING: Mapping[str, tuple[Codes, int]] = {
    "size_type": (SIZE_TYPE, SizeType.TARGET_PERCENT),
    "direction": (DIRECTION, Direction.BOTH),
    "call_seq": (CALL_SEQ, CallSeq.AUTO),
}


def read_costs(given: Mapping[str, Any], index: pd.Index, layout: Layout, sweep: Sweep) -> Costs:
    """`Costs` with leaves, from the arguments of `backtest` by name. What is neutral everywhere is left out, so that
    programs are compiled without it. Raises ValueError or TypeError naming the argument."""
    leaves: dict[str, LaneParameter | None] = {}
    for field in fields(Costs):
        name, kind = field.name, field.metadata["kind"]
        if _is_default(given[name], NEUTRAL.get(name)):
            leaves[name] = None
            continue
        if field.metadata["by_bar_and_asset"]:
            leaf = time_asset(given[name], name, index, layout, sweep, kind)
        else:
            leaf = number(given[name], name, sweep, kind)
        leaves[name] = None if name in NEUTRAL and _is(leaf, NEUTRAL[name]) else leaf
    return module_from(Costs, leaves)


def read_meaning(
    given: Mapping[str, Any], index: pd.Index, layout: Layout, sweep: Sweep, are_orders: bool = False
) -> dict[str, LaneParameter | None]:
    """`size_type` and `direction` (and `call_seq`, one for all) as leaves; None where they are left out, or say what is
    meant without them.

    are_orders: sizes are those of plain orders, and no weights even where they count what weights count.
    Raises ValueError or TypeError naming the argument.
    """
    leaves: dict[str, LaneParameter | None] = {}
    for name, (kind, neutral) in MEANING.items():
        value = given[name]
        if value is None:
            leaves[name] = None
            continue
        if name == "call_seq":
            if not is_swept(value) and np.ndim(value) > 0:
                raise ValueError("call_seq: expected one rule; a sequence of assets only an allocator can give")
            leaf = number(value, name, sweep, kind)
        else:
            leaf = time_asset(value, name, index, layout, sweep, kind)
        is_left_out = _is(leaf, neutral) and not (are_orders and name == "size_type")
        leaves[name] = None if is_left_out else leaf
    return leaves


def _is(leaf: LaneParameter, neutral: Any) -> bool:
    """Whether a leaf is the same neutral value everywhere."""
    if leaf.by_combination:
        return False
    array = np.asarray(leaf.array)
    return bool((np.isnan(array) if isinstance(neutral, float) and np.isnan(neutral) else array == neutral).all())


def _is_default(value: Any, neutral: Any) -> bool:
    """Whether an argument has been left as it is: a shortcut past reading it, which also holds for NaN."""
    return neutral is not None and type(value) is type(neutral) and repr(value) == repr(neutral)


def is_given(value: Any, neutral: Any) -> bool:
    """Whether a user has said something with an argument."""
    if value is None or is_swept(value) or not np.isscalar(value):
        return value is not None
    return value != neutral
