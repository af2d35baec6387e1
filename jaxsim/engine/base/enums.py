"""The codes of orders, with the numbers of vectorbt (rules 2.1, 2.2, 2.5)."""

from enum import IntEnum


class SizeType(IntEnum):
    """The unit of the size of an order."""

    AMOUNT = 0  # units
    VALUE = 1  # currency
    PERCENT = 2  # fraction of the largest possible purchase or sale
    TARGET_AMOUNT = 3
    TARGET_VALUE = 4
    TARGET_PERCENT = 5  # fraction of the group's value


class Direction(IntEnum):
    """The positions that an order may lead to."""

    LONG_ONLY = 0
    SHORT_ONLY = 1  # turns the sign of sizes: a positive size opens or enlarges a short position
    BOTH = 2


class CallSeq(IntEnum):
    """The order in which the assets of a group trade at one bar."""

    DEFAULT = 0  # the order of the columns
    REVERSED = 1
    AUTO = 3  # ascending order value: the largest sale first, the largest purchase last


class OrderSide(IntEnum):
    """Whether an order buys or sells."""

    BUY = 0
    SELL = 1
