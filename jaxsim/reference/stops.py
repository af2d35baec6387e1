"""Stops between the dates of a replay, for one lane, one asset at a time."""

from math import isnan, nan
from typing import Any

import numpy as np

from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.stops import Entries, StopRules


class Positions:
    """The entry prices of a lane's positions, and which positions a stop has closed."""

    def __init__(self, stops: StopRules, num_assets: int):
        self.stops = stops
        self.price = [nan] * num_assets  # average entry price of each position
        self.value = nan  # of the account at the last recorded date
        self.is_out = [False] * num_assets
        self.closing = [False] * num_assets  # at this bar

    def is_due(self, obs: Observation) -> bool:
        return bool(self.stops.due.mask[obs.step])

    def breached(self, obs: Observation) -> list[bool]:
        """Whether a stop closes each position at this bar."""
        entries: Any = Entries(np.array(self.price), float(self.value), np.array(self.is_out))
        answers = [np.broadcast_to(rule(obs, entries), obs.units.shape) for rule in self.stops.rules]
        return [bool(units != 0 and any(a[n] for a in answers)) for n, units in enumerate(obs.units)]

    def asked(self, obs: Observation, weights: list[float], is_rebalance: bool) -> list[float]:
        """The target weights after stops; NaN leaves an asset alone."""
        if self.is_due(obs):
            self.value = obs.value
            self.is_out = [False] * len(weights)
            self.closing = [False] * len(weights)
            return weights
        self.closing = self.breached(obs)
        self.is_out = [a or b for a, b in zip(self.is_out, self.closing, strict=True)]
        if is_rebalance:
            return [0.0 if out else weight for out, weight in zip(self.is_out, weights, strict=True)]
        return [0.0 if closes else nan for closes in self.closing]

    def filled(self, n: int, before: float, after: float, price: float) -> None:
        """Update the average entry price of asset `n` after a fill at `price`; before, after: its positions, units."""
        if after == 0:
            self.price[n] = nan
        elif before == 0 or (before > 0) != (after > 0):
            self.price[n] = price
        elif abs(after) > abs(before):
            known = 0.0 if isnan(self.price[n]) else self.price[n]
            added = abs(after - before)
            self.price[n] = (abs(before) * known + added * price) / (abs(before) + added)
