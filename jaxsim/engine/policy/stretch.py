"""A policy that acts on a stretch of bars only."""

from dataclasses import replace

import numpy as np

from jaxsim.engine.base.arrays import Answer, namespace
from jaxsim.engine.base.fields import BARS, bounded
from jaxsim.engine.base.numerics import Number
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.policy.triggers import AbstractTrigger


class Between(AbstractTrigger):
    """Trade at bars `start` <= t < `stop` only."""

    start: Number = bounded("start", BARS)
    stop: Number = bounded("stop", BARS)

    def __call__(self, obs: Observation) -> Answer:
        return (obs.step >= self.start) & (obs.step < self.stop)


class WhenFlat(AbstractTrigger):
    """Trade whenever nothing is held."""

    def __call__(self, obs: Observation) -> Answer:
        return namespace(obs.units).asarray(~(obs.units != 0).any())


def within(policy: Policy, start: int, stop: int) -> Policy:
    """The policy as it would be if there were only the bars from `start` on, less than `stop`, to trade at. It sees the
    bars before them; what it holds at `stop`, it keeps. Its own `min_history` holds as well."""
    trigger = WhenFlat() | policy.trigger if policy.trades_when_flat else policy.trigger
    first = np.maximum(np.asarray(policy.min_history, np.float64), start)
    return replace(policy, trigger=Between(first, stop) & trigger, min_history=0, trades_when_flat=False)
