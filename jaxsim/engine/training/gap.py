"""The hard-soft gap: what a policy scores when it is run, beside what was trained."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Float

from jaxsim.engine.base.arrays import Array
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.simulate import simulate
from jaxsim.engine.trading.market import Market


class Gap(eqx.Module):
    """A score twice. hard: under the gate `Hard`, which is what a backtest shows.     soft: under the policy's own."""

    hard: Float[Array, ""]
    soft: Float[Array, ""]

    @property
    def gap(self) -> Float[Array, ""]:
        """soft - hard: by how much the trained score flatters (> 0) the one that can be had; 0 for gates that keep the
        hard values."""
        return self.soft - self.hard


def gap(score: Callable, market: Market, policy: Policy, **options: Any) -> Gap:
    """The score of a policy under its own gate and under `Hard`.

    score: function of the returns [time], `lambda r: js.metrics.sharpe_ratio(r, ann_factor=252)`.
    options: further arguments of `js.simulate`.

    Raises as `js.simulate` does.
    """
    hard = score(simulate(market, policy.hardened(), **options).returns)
    soft = hard if policy.gate.is_exact else score(simulate(market, policy, **options).returns)
    return Gap(hard, soft)
