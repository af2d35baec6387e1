"""`Job`: everything that the lanes of a run are simulated from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.schedules.schedule import AbstractSchedule
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market
from jaxsim.frames.inputs.groups import GroupLayout
from jaxsim.frames.inputs.lanes import Lanes
from jaxsim.frames.inputs.market import LanePrices, market_of
from jaxsim.frames.inputs.parameters import LaneParameter, is_parameter, map_parameters, resolve
from jaxsim.frames.results.ledger import Ledger


@dataclass(frozen=True, eq=False)
class SingleLane:
    """One lane, with the arguments of `js.simulate`.

    number: of the lane.        columns: of its assets in the price frame.      assets: their names.
    start: the first bar that its metrics count.
    """

    number: int
    columns: np.ndarray
    assets: pd.Index
    market: Market
    policy: Policy
    costs: Costs
    account: Account
    key: jax.Array
    start: int


@dataclass(frozen=True, eq=False)
class Job:
    """The lanes of a run, combinations of parameters times groups of assets, groups innermost.

    index: time labels.     lanes: labels and random keys.
    prices, policy, costs, account: pytrees whose leaves are `LaneParameter`.
    features: as `Market.features`; leaves may be `LaneParameter`.
    keep_log: whether to record the account around every order.
    schedule: None: the fastest for the policy.     names_lanes: whether messages say the labels of a lane.
    start: the first bar that metrics count, a `LaneParameter`; None: bar 0.
    """

    index: pd.Index
    lanes: Lanes
    prices: LanePrices
    features: Any
    policy: Policy
    costs: Costs
    account: Account
    keep_log: bool = False
    schedule: AbstractSchedule | None = None
    names_lanes: bool = True
    start: LaneParameter | None = None

    @property
    def layout(self) -> GroupLayout:
        return self.lanes.layout

    @property
    def num_combinations(self) -> int:
        return self.lanes.num_combinations

    @property
    def parameters(self) -> tuple[LanePrices, Policy, Costs, Account, LaneParameter | None]:
        """Everything whose leaves are `LaneParameter`."""
        return self.prices, self.policy, self.costs, self.account, self.start

    def take(self, combinations: np.ndarray | None = None, groups: np.ndarray | None = None) -> "Job":
        """The job of some combinations and groups, by their numbers in this one; None: of all of them."""
        if combinations is None and groups is None:
            return self
        parameters = map_parameters(lambda x: resolve(x, combinations), self.parameters)
        layout = self.layout
        if groups is not None:
            parameters = map_parameters(lambda x: x.of_some_groups(groups), parameters)
            layout = layout.take(groups)
        prices, policy, costs, account, start = parameters
        lanes = self.lanes.take(combinations, layout)
        return replace(self, lanes=lanes, prices=prices, policy=policy, costs=costs, account=account, start=start)

    def starts(self) -> np.ndarray:
        """The first bar of each lane that metrics count, int [lane]."""
        if self.start is None:
            return np.zeros(len(self.lanes), np.int64)
        start = resolve(self.start)
        array = np.asarray(start.array, np.float64)
        array = array if start.by_combination else array[None]
        array = array if start.by_group else array[:, None]
        return np.broadcast_to(array, (self.num_combinations, self.layout.num_groups)).astype(np.int64).ravel()

    def each_lane(self) -> Iterator[SingleLane]:
        """The lanes one after the other. Within x64, as their arrays are float64."""
        leaves, structure = jax.tree.flatten((self.parameters, self.features), is_leaf=is_parameter)
        leaves, layout, keys, starts = [resolve(x) for x in leaves], self.layout, self.lanes.keys, self.starts()
        for combination in range(self.num_combinations):
            for group, columns in enumerate(layout.members):
                arrays = [x.of_lane(combination, group, layout.members) for x in leaves]
                (prices, policy, costs, account, _), features = jax.tree.unflatten(structure, arrays)
                number, market = combination * layout.num_groups + group, market_of(prices, features)
                assets = layout.assets.take(columns)
                start = int(starts[number])
                yield SingleLane(number, columns, assets, market, policy, costs, account, keys[number], start)

    def with_val_prices(self, ledger: Ledger) -> Ledger:
        """A ledger of these lanes with the prices that its events were sized at."""
        prices = resolve(self.prices.val_price)
        if prices.columns is None:  # one table per group, as tests make them
            return ledger
        lane = ledger.lane_of_event
        bar, columns = ledger.bar[:, None], ledger.columns[lane]
        if prices.by_combination:
            combination = ledger.lanes[lane] // self.layout.num_groups
            return replace(ledger, val_price=prices.array[combination[:, None], bar, columns])
        return replace(ledger, val_price=prices.array[bar, columns])

    def name_lane(self, lane: int) -> str:
        """The labels of a lane for messages, if they are to say them."""
        return self.lanes.name(lane) if self.names_lanes else ""

    def place(self, lane: int, column: int | None, bar: int) -> str:
        """A place in the run for messages: the lane, the asset of a price-frame column, the bar and its time."""
        asset = "" if column is None else f"asset {self.layout.assets[column]!r}"
        return ", ".join(part for part in (self.name_lane(lane), asset, f"bar {bar}", str(self.index[bar])) if part)
