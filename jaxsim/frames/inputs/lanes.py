"""The lanes of a run: combinations of parameters times groups of assets, groups innermost."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import BARS
from jaxsim.frames.inputs.groups import GroupLayout
from jaxsim.frames.inputs.labels import Level, index_of_levels, name_lane
from jaxsim.frames.inputs.parameters import LaneParameter, ParameterReader, resolve
from jaxsim.frames.inputs.random_keys import Key, LaneKeys, RandomKey, lane_keys
from jaxsim.frames.inputs.sweep_axes import Sweep, Swept


@dataclass(frozen=True, eq=False)
class Lanes:
    """Labels and random keys of lanes, worked out when they are needed: a long sweep asks for a chunk at a time.

    sweep: all combinations.        layout: the groups of these lanes.
    key: of all lanes.      seeds: a seed by combination, where the user sweeps the key.
    combinations: their numbers in the sweep; None: all of them.
    """

    sweep: Sweep
    layout: GroupLayout
    key: RandomKey
    seeds: LaneParameter | None = None
    combinations: np.ndarray | None = None

    @cached_property
    def num_combinations(self) -> int:
        return len(self.sweep) if self.combinations is None else len(self.combinations)

    def __len__(self) -> int:
        return self.num_combinations * self.layout.num_groups

    def of(self, groups: np.ndarray) -> np.ndarray:
        """The numbers of the lanes of some groups, [combination, group]."""
        return np.arange(self.num_combinations)[:, None] * self.layout.num_groups + groups[None, :]

    @cached_property
    def labels(self) -> pd.Index | None:
        """The label of each lane; None for one unlabelled lane."""
        check_levels(self.sweep, self.layout)
        groups, combinations = self.layout.num_groups, self.num_combinations
        levels = {
            name: Level(level.labels, level.places.repeat(groups))
            for name, level in self.sweep.levels(self.combinations).items()
        }
        for name, labels in self.layout.levels.items():
            levels[name] = Level(labels, np.tile(np.arange(groups), combinations))
        return index_of_levels(levels)

    @cached_property
    def keys(self) -> LaneKeys:
        """The random key of each lane."""
        seeds = self.seeds
        if seeds is not None:
            seeds = np.repeat(resolve(seeds, self.combinations).array, self.layout.num_groups)
        return lane_keys(self.key, self.labels, seeds)

    def name(self, lane: int) -> str:
        """The labels of a lane for messages, as in `threshold=0.05, group='tech'`."""
        return name_lane(self.labels, lane)

    def take(self, combinations: np.ndarray | None, layout: GroupLayout) -> "Lanes":
        """The lanes of some combinations (None: of all), by their numbers here, and of the groups in `layout`."""
        if combinations is None:
            combinations = self.combinations
        elif self.combinations is not None:
            combinations = self.combinations[combinations]
        return Lanes(self.sweep, layout, self.key, self.seeds, combinations)


def read_lanes(key: Key | Swept, reader: ParameterReader) -> Lanes:
    """The lanes of a run whose other parameters have been read.

    Raises ValueError or TypeError naming `key`, ValueError naming a level that occurs twice.
    """
    seeds = reader.per_lane(key, "key", BARS) if isinstance(key, Swept) else None
    check_levels(reader.sweep, reader.layout)
    return Lanes(reader.sweep, reader.layout, RandomKey.of(0 if isinstance(key, Swept) else key), seeds)


def check_levels(sweep: Sweep, layout: GroupLayout) -> None:
    """Raises ValueError where a swept parameter and a level of the columns have the same name."""
    for axis in sweep.axes:
        for name in axis.levels:
            if name in layout.levels:
                raise ValueError(f"{name}: a swept parameter and a level of the columns have the same name")
