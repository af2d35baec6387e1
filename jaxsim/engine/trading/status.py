"""Codes: the status of an order, and the fault of a lane (rules 2.2 to 2.4)."""

from enum import IntEnum, IntFlag

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Bool, Int

from jaxsim.engine.base.arrays import Array, Step, where


class OrderStatus(IntEnum):
    """The status of an order."""

    FILLED = 0
    IGNORED = 1  # no effect intended
    REJECTED = 2  # a limit forbids it


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
    MIN_VALUE_NOT_REACHED = 14  # vectorbt has no such limit

    @property
    def label(self) -> str:
        """The name as vectorbt writes it; empty where the order was filled."""
        return "" if self == OrderStatusInfo.NONE else self.name.title().replace("_", "").replace("Nan", "NaN")

    @property
    def text(self) -> str:
        """The reason in words."""
        return _INFO_TEXTS[self]


_INFO_TEXTS = {
    OrderStatusInfo.NONE: "",
    OrderStatusInfo.SIZE_NAN: "no size: the asset was left alone",
    OrderStatusInfo.PRICE_NAN: "no price to trade at",
    OrderStatusInfo.VAL_PRICE_NAN: "no price to work the size out from",
    OrderStatusInfo.VALUE_NAN: "the value of the group is unknown, since a held asset has no price",
    OrderStatusInfo.VALUE_ZERO_NEG: "the group is worth nothing, or less",
    OrderStatusInfo.SIZE_ZERO: "nothing to trade",
    OrderStatusInfo.NO_CASH_SHORT: "no free cash to sell short on",
    OrderStatusInfo.NO_CASH_LONG: "no cash to buy with",
    OrderStatusInfo.NO_OPEN_POSITION: "no position to reduce, and the direction forbids to open one",
    OrderStatusInfo.MAX_SIZE_EXCEEDED: "larger than max_size, and allow_partial is off",
    OrderStatusInfo.RANDOM_EVENT: "rejected at random (reject_prob)",
    OrderStatusInfo.CANT_COVER_FEES: "the cash, or the proceeds, do not cover the fees",
    OrderStatusInfo.MIN_SIZE_NOT_REACHED: "smaller than min_size",
    OrderStatusInfo.MIN_VALUE_NOT_REACHED: "worth less than min_value",
    OrderStatusInfo.PARTIAL_FILL: "it would fill in part, and allow_partial is off",
}


class OrderReason(IntEnum):
    """Who sent an order."""

    POLICY = 0  # the policy, or the user
    DELISTED = 1  # the asset has left the market
    RUINED = 2  # the account was worth nothing

    @property
    def text(self) -> str:
        """The reason in words; empty for orders of the policy."""
        return "" if self == OrderReason.POLICY else self.name.lower()


class Incident(IntFlag):
    """What befell an account without being a fault. The incidents of a lane are a set of bits."""

    DEPLETED = 1
    MARGIN_CALL = 2
    RUINED = 4
    DELISTED = 8
    LOTS_MERGED = 16

    @property
    def text(self) -> str:
        """The kinds in words, as "ruined, delisted"; empty for none."""
        return ", ".join(str(kind.name).lower().replace("_", " ") for kind in Incident if kind in self)


class Clip(IntEnum):
    """The limit that cut a filled order."""

    NONE = 0
    CASH = 1
    POSITION = 2
    MAX_SIZE = 3
    GRANULARITY = 4

    @property
    def text(self) -> str:
        """The reason in words."""
        return {
            Clip.NONE: "",
            Clip.CASH: "cut to the cash there was",
            Clip.POSITION: "cut to the position there was",
            Clip.MAX_SIZE: "cut to max_size",
            Clip.GRANULARITY: "rounded down to size_granularity",
        }[self]


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
    OrderStatusInfo.MIN_VALUE_NOT_REACHED,
)


class LaneFault(IntEnum):
    """An error in a lane during a run; the text is the message to the user."""

    NONE = 0
    WEIGHT_NAN = 1
    WEIGHT_INFINITE = 2
    CALL_SEQ = 3
    ORDER_ACCOUNT = 4
    ORDER_PRICE = 5
    ORDER_DIRECTION = 6
    ORDER_VAL_PRICE = 7
    ORDER_INFINITE = 8
    ORDER_DIVISION = 9
    ORDER_REJECTED = 10  # `LaneStatus.reason` says why
    CODE = 11
    EVENTS_OVERFLOW = 12
    CUT = 13

    @property
    def text(self) -> str:
        return _FAULT_TEXTS[self]

    @property
    def is_of_order(self) -> bool:
        """Whether an order was at fault, and not the answer of the allocator."""
        return LaneFault.ORDER_ACCOUNT <= self <= LaneFault.ORDER_REJECTED


_FAULT_TEXTS = {
    LaneFault.NONE: "all went well",
    LaneFault.WEIGHT_NAN: "the allocator returned a NaN weight; to leave an asset alone, return "
    "Allocation(weights, skip=mask)",
    LaneFault.WEIGHT_INFINITE: "the allocator returned an infinite weight",
    LaneFault.CALL_SEQ: "the allocator returned a call_seq that does not name every asset once",
    LaneFault.ORDER_ACCOUNT: "an order met an account that it cannot act on: its cash, position or debt is not finite",
    LaneFault.ORDER_PRICE: "an order needs a price that is finite and > 0",
    LaneFault.ORDER_DIRECTION: "an order was long-only while the position was short, or short-only while it was long",
    LaneFault.ORDER_VAL_PRICE: "an order of this size_type needs a valuation price that is finite and > 0",
    LaneFault.ORDER_INFINITE: "an order would trade infinitely many units",
    LaneFault.ORDER_DIVISION: "covering a short position with locked cash divides by zero: at twice the price that it "
    "was sold for, no number of units is within free cash",
    LaneFault.CODE: "the allocator returned a size_type, direction or call_seq that does not exist",
    LaneFault.EVENTS_OVERFLOW: "there were more rebalances, or near misses, than adjoint=js.AtEvents(capacity=...) "
    "has room for",
    LaneFault.CUT: 'the allocator returned an infinite size or one in percent, which cut="pro_rata" cannot scale',
    LaneFault.ORDER_REJECTED: "an order was rejected, and raise_reject is set",
}


class LaneStatus(eqx.Module):
    """The first fault in a lane. From then on the lane keeps its positions and trades no more.

    fault: LaneFault.     bar, asset: where.    reason: OrderStatusInfo of a rejected order, else NONE.
    """

    fault: Int[Array, ""]
    bar: Int[Array, ""]
    asset: Int[Array, ""]
    reason: Int[Array, ""]

    @classmethod
    def ok(cls) -> "LaneStatus":
        return cls(jnp.int32(LaneFault.NONE), jnp.int32(-1), jnp.int32(-1), jnp.int32(OrderStatusInfo.NONE))

    @property
    def is_ok(self) -> Bool[Array, ""]:
        return self.fault == LaneFault.NONE

    def first(
        self,
        faults: Int[Array, " asset"],
        bar: Step,
        rank: Int[Array, " asset"] | None = None,
        reasons: Int[Array, " asset"] | None = None,
    ) -> "LaneStatus":
        """This status, or, if it is ok, the first of `faults` (a LaneFault per asset) at `bar`.

        rank: place of each asset in the order of execution; default as the assets stand.
        reasons: OrderStatusInfo of each asset.
        """
        count = faults.shape[0]
        place = jnp.arange(count) if rank is None else rank
        is_first = place == jnp.min(where(faults != LaneFault.NONE, place, count))

        def there(codes: Array) -> Array:
            return jnp.sum(where(is_first, codes, 0)).astype(jnp.int32)

        fault = there(faults)
        is_new = self.is_ok & (fault != LaneFault.NONE)
        reason = self.reason if reasons is None else there(reasons)
        return LaneStatus(
            where(is_new, fault, self.fault),
            where(is_new, jnp.asarray(bar, jnp.int32), self.bar),
            where(is_new, there(jnp.arange(count)), self.asset),
            where(is_new & (fault == LaneFault.ORDER_REJECTED), reason, self.reason),
        )
