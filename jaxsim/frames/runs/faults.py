"""What goes wrong in a lane, and the error that says so with the labels of the lane."""

from typing import NamedTuple, NoReturn

from jaxsim.engine.policy.policy import fault_text
from jaxsim.engine.trading.status import LaneFault, OrderStatusInfo
from jaxsim.errors import AllocationError, AllocatorError, OrderError, RejectedOrderError
from jaxsim.frames.runs.job import Job


class Fault(NamedTuple):
    """A fault of a lane at a bar.

    lane: its number in the job.        column: of the asset, in the price frame.
    reason: why the order was rejected, if it was.
    """

    lane: int
    column: int
    kind: LaneFault
    bar: int
    reason: int = OrderStatusInfo.NONE


def fault_message(job: Job, fault: Fault) -> str:
    """The fault in words, with its place in the run."""
    text = fault_text(fault.kind, job.policy.allocator)
    if fault.kind == LaneFault.ORDER_REJECTED:
        text += f": {OrderStatusInfo(fault.reason).name}"
    return f"{text} ({job.place(fault.lane, fault.column, fault.bar)})"


def raise_fault(job: Job, fault: Fault) -> NoReturn:
    """Raises RejectedOrderError, OrderError or AllocationError, as the fault is."""
    message = fault_message(job, fault)
    if fault.kind == LaneFault.ORDER_REJECTED:
        raise RejectedOrderError(message, fault.bar, fault.column)
    if fault.kind.is_of_order:
        raise OrderError(message, fault.bar, fault.column)
    raise AllocationError(message)


def failure_message(job: Job, lane: int, bar: int, error: BaseException) -> str:
    """The error that a Python function raised when it was asked for weights, with its place in the run."""
    return f"{error} ({job.place(lane, None, bar)})"


def raise_failure(job: Job, lane: int, bar: int, error: BaseException) -> NoReturn:
    """Raises an AllocatorError, TypeError or ValueError for what a Python function raised, with its place in the run.

    The user's error is the cause. One that is no Exception, such as a KeyboardInterrupt, is raised as it is.
    """
    if not isinstance(error, Exception):
        raise error
    message = failure_message(job, lane, bar, error)
    if isinstance(error, AllocatorError):
        raise AllocatorError(message, bar) from error.__cause__
    if type(error) in (TypeError, ValueError):
        raise type(error)(message) from error
    raise AllocatorError(message, bar) from error
