"""Which adjoint a simulation has if nobody chooses one."""

from typing import Any

from jaxsim.engine.adjoints.adjoint import AbstractAdjoint
from jaxsim.engine.adjoints.at_events import AtEvents
from jaxsim.engine.adjoints.checkpointed import Checkpointed
from jaxsim.engine.policy.host_callback import calls_python
from jaxsim.engine.policy.policy import Policy

#: Markets of fewer bars are differentiated bar by bar.
LONG = 2048


def adjoint_for(policy: Policy, num_bars: int, adjoint: Any = None) -> AbstractAdjoint:
    """The adjoint, checked. For None `js.AtEvents()` where it suits the policy, else `js.Checkpointed()`.

    `AtEvents` has a program of two passes, which takes half as long again to trace and to compile. Few bars do not pay
    that back. Functions of the host are called once for each rebalance, which two passes would not do.

    Raises TypeError for what is no adjoint, and ValueError for one that does not suit the policy.
    """
    if adjoint is None:
        at_events = AtEvents()
        suits = num_bars >= LONG and at_events.objection(policy) is None and not calls_python(policy)
        return at_events if suits else Checkpointed()
    if not isinstance(adjoint, AbstractAdjoint):
        raise TypeError(f"adjoint: expected js.Checkpointed() or js.AtEvents(), got {adjoint!r}")
    adjoint.check(policy)
    return adjoint
