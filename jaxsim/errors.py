"""The errors that a run raises. Bad arguments are plain ValueErrors and TypeErrors."""

from typing import Any


class JaxsimError(Exception):
    """Something went wrong during a run: an order, an allocator, its answer, or a policy that knows the future. The
    base class of all errors that jaxsim defines."""


class OrderError(JaxsimError, ValueError):
    """An order that cannot exist, or an account that no order can act on. It ends the simulation.

    bar, asset: numbers of the bar and of the asset's column in the price frame; None outside a simulation.
    """

    def __init__(self, message: str, bar: int | None = None, asset: int | None = None):
        super().__init__(message)
        self.bar, self.asset = bar, asset


class RejectedOrderError(OrderError):
    """An order was rejected while `raise_reject` was set."""


class AllocatorError(JaxsimError, RuntimeError):
    """A Python function that was asked for weights has raised. Its exception, with the traceback, is the `__cause__`.

    bar: number of the bar at which it was asked; None if unknown.
    """

    def __init__(self, message: str, bar: int | None = None):
        super().__init__(message)
        self.bar = bar


class AllocationError(JaxsimError, ValueError):
    """An allocator returned weights that cannot be traded; the message names the lane, the asset and the bar."""


class LookAheadError(JaxsimError, ValueError):
    """A policy knows the future: prices that nobody could know yet were changed, and what it saw or did changed too.

    leaks: a DataFrame, one row for each place where the future was seen; see `js.check_no_lookahead`.
    """

    def __init__(self, message: str, leaks: Any = None):
        super().__init__(message)
        self.leaks = leaks
