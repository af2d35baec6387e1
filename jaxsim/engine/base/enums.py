"""What an order may ask for, as the codes that vectorbt uses (rules 2.1, 2.2, 2.5)."""

from enum import IntEnum


class SizeType(IntEnum):
    """What the size of an order counts."""

    AMOUNT = 0  # units
    VALUE = 1  # currency
    PERCENT = 2  # fraction of what can be bought or sold
    TARGET_AMOUNT = 3
    TARGET_VALUE = 4
    TARGET_PERCENT = 5  # fraction of the group's value


class Direction(IntEnum):
    """Which positions an order may lead to."""

    LONG_ONLY = 0
    SHORT_ONLY = 1  # turns the sign of sizes: a positive size opens or enlarges a short position
    BOTH = 2


class CallSeq(IntEnum):
    """In which order the assets of a group trade at one bar."""

    DEFAULT = 0  # as the columns stand
    REVERSED = 1
    AUTO = 3  # ascending order value: the largest sale first, the largest purchase last


class OrderSide(IntEnum):
    """Which way an order trades."""

    BUY = 0
    SELL = 1
