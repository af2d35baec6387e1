"""The errors that jaxsim raises on its own account. Bad arguments are plain ValueErrors and TypeErrors."""

from typing import Any


class OrderError(ValueError):
    """An order that makes no sense, or an account that no order can act on; it ends the simulation.

    bar, asset: numbers, where the order is one of a simulation; the asset is that of the price frame.
    """

    def __init__(self, message: str, bar: int | None = None, asset: int | None = None):
        super().__init__(message)
        self.bar, self.asset = bar, asset


class RejectedOrderError(OrderError):
    """An order was rejected that had asked for an error in this case (`raise_reject`)."""


class AllocatorError(RuntimeError):
    """A Python function that was asked for weights raised; its exception, with its traceback, is the `__cause__`.

    bar: number of the bar at which it was asked.
    """

    def __init__(self, message: str, bar: int | None = None):
        super().__init__(message)
        self.bar = bar


class AllocationError(ValueError):
    """An allocator returned weights that cannot be traded; the message names the lane, the asset and the bar."""


class LookAheadError(ValueError):
    """Something that a policy goes by has changed when prices that nobody could know yet were changed.

    leaks: what saw the future and where, a DataFrame; see `js.check_no_lookahead`.
    """

    def __init__(self, message: str, leaks: Any = None):
        super().__init__(message)
        self.leaks = leaks
