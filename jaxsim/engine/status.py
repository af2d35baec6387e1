"""The codes of what happened: to an order, and to a lane (SEMANTICS 2.2 to 2.4)."""

from enum import IntEnum

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Bool, Int

from jaxsim.engine.arrays import Array, Step


class OrderSide(IntEnum):
    """Which way an order trades."""

    BUY = 0
    SELL = 1


class OrderStatus(IntEnum):
    """What became of an order."""

    FILLED = 0
    IGNORED = 1  # no effect intended
    REJECTED = 2  # a limit stood in its way


class OrderStatusInfo(IntEnum):
    """Why an order was not filled; NONE when it was."""

    NONE = -1
    SIZE_NAN = 0
    PRICE_NAN = 1
    VAL_PRICE_NAN = 2
    VALUE_NAN = 3
    VALUE_ZERO_NEG = 4
    SIZE_ZERO = 5
    NO_CASH_SHORT = 6
    NO_CASH_LONG = 7
    NO_OPEN_POSITION = 8
    MAX_SIZE_EXCEEDED = 9
    RANDOM_EVENT = 10
    CANT_COVER_FEES = 11
    MIN_SIZE_NOT_REACHED = 12
    PARTIAL_FILL = 13


#: The reasons that make an order rejected; all others make it ignored.
REJECTIONS = (
    OrderStatusInfo.VALUE_ZERO_NEG,
    OrderStatusInfo.NO_CASH_SHORT,
    OrderStatusInfo.NO_CASH_LONG,
    OrderStatusInfo.NO_OPEN_POSITION,
    OrderStatusInfo.MAX_SIZE_EXCEEDED,
    OrderStatusInfo.RANDOM_EVENT,
    OrderStatusInfo.CANT_COVER_FEES,
    OrderStatusInfo.MIN_SIZE_NOT_REACHED,
    OrderStatusInfo.PARTIAL_FILL,
)


class LaneFault(IntEnum):
    """What can go wrong in a lane while it runs; the text says it to the user."""

    NONE = 0
    WEIGHT_NAN = 1
    WEIGHT_INFINITE = 2
    WEIGHT_NEGATIVE = 3

    @property
    def text(self) -> str:
        return {
            LaneFault.NONE: "all went well",
            LaneFault.WEIGHT_NAN: "the allocator returned a NaN weight; to leave an asset alone, return "
            "Allocation(weights, skip=mask)",
            LaneFault.WEIGHT_INFINITE: "the allocator returned an infinite weight",
            LaneFault.WEIGHT_NEGATIVE: "the allocator returned a negative weight; short positions are not supported",
        }[self]


class LaneStatus(eqx.Module):
    """The first thing that went wrong in a lane. From then on the lane holds what it has and trades no more."""

    fault: Int[Array, ""]  # LaneFault
    bar: Int[Array, ""]
    asset: Int[Array, ""]

    @classmethod
    def ok(cls) -> "LaneStatus":
        return cls(jnp.int32(LaneFault.NONE), jnp.int32(-1), jnp.int32(-1))

    @property
    def is_ok(self) -> Bool[Array, ""]:
        return self.fault == LaneFault.NONE

    def first(self, faults: Int[Array, " asset"], bar: Step) -> "LaneStatus":
        """This status, or the first of `faults` (a LaneFault per asset) met at `bar` if all was well so far."""
        asset = jnp.argmax(faults != LaneFault.NONE).astype(jnp.int32)
        fault = jnp.max(jnp.where(jnp.arange(faults.shape[0]) == asset, faults, LaneFault.NONE)).astype(jnp.int32)
        is_new = self.is_ok & (fault != LaneFault.NONE)
        return LaneStatus(
            jnp.where(is_new, fault, self.fault),
            jnp.where(is_new, jnp.asarray(bar, jnp.int32), self.bar),
            jnp.where(is_new, asset, self.asset),
        )
