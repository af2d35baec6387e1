"""What every way to differentiate a simulation has in common."""

import abc
from typing import Any

import equinox as eqx

from jaxsim.engine.bar.lanes import LaneInputs
from jaxsim.engine.bar.simulation import BarPaths, Save
from jaxsim.engine.base.fields import whole_number
from jaxsim.engine.policy.policy import Policy


class AbstractAdjoint(eqx.Module):
    """A way to differentiate a simulation: which loop runs the bars, and what of it is kept for derivatives."""

    @abc.abstractmethod
    def loop(self, inputs: LaneInputs, save: Save) -> BarPaths:
        """Run one lane through all bars."""

    def check(self, policy: Policy) -> None:
        """Raises ValueError for a policy that cannot be differentiated so."""
        return


def check_count(value: Any, name: str) -> None:
    """Raises ValueError naming a field that is neither a whole number >= 1 nor None."""
    if value is not None:
        whole_number(value, name)
