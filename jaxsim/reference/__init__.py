"""The reference engine: one bar, in order, in plain Python floats; one lane, one bar, one asset at a time.

The compiled engine is tested against it. How orders fill, and what they do to an account, is computed here a second
time, from the rules alone (docs/rules.md). Triggers, destinations, stops and random draws are those of
`jaxsim.engine`. Allocators are called as ordinary Python, so a debugger can follow them.
"""

from jaxsim.engine.base.enums import Direction, SizeType
from jaxsim.reference.lane import run_lane
from jaxsim.reference.orders import (
    AccountState,
    OrderRequest,
    OrderResult,
    approx_order_value,
    bought,
    process_order,
    sold,
)
from jaxsim.reference.records import LaneRun

__all__ = [
    "AccountState",
    "Direction",
    "LaneRun",
    "OrderRequest",
    "OrderResult",
    "SizeType",
    "approx_order_value",
    "bought",
    "process_order",
    "run_lane",
    "sold",
]
