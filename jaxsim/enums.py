"""The codes that users hand in and the codes that arrays of records hold, as `js.enums.TradeStatus.OPEN`. Their numbers
are those of vectorbt."""

from jaxsim.engine.base.enums import CallSeq, Direction, OrderSide, SizeType
from jaxsim.engine.trading.status import Clip, Incident, LaneFault, OrderReason, OrderStatus, OrderStatusInfo
from jaxsim.frames.results.records.drawdowns import DrawdownStatus
from jaxsim.frames.results.records.trades import TradeDirection, TradeStatus

__all__ = [
    "CallSeq",
    "Clip",
    "Direction",
    "DrawdownStatus",
    "Incident",
    "LaneFault",
    "OrderReason",
    "OrderSide",
    "OrderStatus",
    "OrderStatusInfo",
    "SizeType",
    "TradeDirection",
    "TradeStatus",
]
