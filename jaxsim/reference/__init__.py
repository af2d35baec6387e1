"""The reference engine: one bar, in order, in plain Python floats; one lane, one bar, one asset at a time.

It is written from the rules alone (docs/rules.md). How orders fill, and what they do to an account, is computed here
a second time, so that it can judge every faster path; triggers, destinations and gates are those of `jaxsim.engine`.
It calls allocators as ordinary Python, so it is also the place to debug one.
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
