"""The reference engine: one bar, in order, in plain Python floats; one lane, one bar, one asset at a time.

It is written from the semantics alone and shares no computation with `jaxsim.engine`, so that it can judge
every faster path; and as it calls allocators as ordinary Python, it is the place to debug one.
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
