"""The errors that jaxsim raises on its own account. Bad arguments are plain ValueErrors and TypeErrors."""


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
