"""The table of a sweep: its finished chunks side by side, with the labels of their lanes."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.trading.status import Incident
from jaxsim.frames.inputs.labels import is_of_several_types, labels_as_text, text_of
from jaxsim.frames.inputs.lanes import Lanes
from jaxsim.frames.sweeps.chunk_metrics import ChunkedSweep
from jaxsim.frames.sweeps.columns import DEFLATED, Trials, metrics_from_columns, piece
from jaxsim.frames.sweeps.store import Parts, statuses, write_table


@dataclass(frozen=True, eq=False)
class SweepTable:
    """The table of a sweep whose chunks are finished.

    names: of the metrics, in the order of the columns.     parts: the chunks.
    texts: levels whose labels are text in files.
    """

    sweep: ChunkedSweep
    names: tuple[str, ...]
    parts: Parts
    texts: frozenset[str] = frozenset()

    def frame(self) -> pd.DataFrame:
        """The table in memory."""
        sweep = self.sweep
        parts = [self.parts.get(number) for number in range(sweep.num_chunks)]
        values = np.concatenate([part.values for part in parts])
        status = np.concatenate([statuses(part) for part in parts])
        bits, place = np.unique(np.concatenate([part.incidents for part in parts]), return_inverse=True)
        incidents = np.array([Incident(int(x)).text for x in bits], object)[place]
        metrics = metrics_from_columns(self.names, sweep.columns, values, self._trials(), sweep.ann_factor)
        lanes = sweep.arguments.job.lanes.labels
        lanes = pd.RangeIndex(1) if lanes is None else lanes
        columns = dict(zip(self.names, metrics.T, strict=True))
        return pd.DataFrame(columns | {"status": status, "incidents": incidents}, lanes, copy=False)

    def write(self, folder: Path) -> Path:
        """The table as a Parquet data set. A reader finds the whole data set or none."""
        sweep, trials = self.sweep, self._trials()
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for number in range(sweep.num_chunks):
                part = self.parts.get(number)
                metrics = metrics_from_columns(self.names, sweep.columns, part.values, trials, sweep.ann_factor)
                beside = {"status": statuses(part), "incidents": part.incidents}
                table: Mapping[str, Any] = dict(zip(self.names, metrics.T, strict=True)) | beside
                write_table(self._labels(number) | table, draft / f"part-{number:06d}.parquet")
            os.replace(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder

    def _labels(self, number: int) -> dict[str, Any]:
        """The labels of the lanes of a chunk, by level."""
        all_lanes = self.sweep.arguments.job.lanes
        lanes = all_lanes.take(self.sweep.combinations(number), all_lanes.layout).labels
        if lanes is None:
            return {}
        levels = {str(name): lanes.get_level_values(i) for i, name in enumerate(lanes.names)}
        return {name: pd.array(text_of(x) if name in self.texts else x) for name, x in levels.items()}

    def _trials(self) -> Trials | None:
        """All lanes that did not fail; None where no metric compares lanes."""
        if DEFLATED not in self.names:
            return None
        column, sharpe = piece(self.sweep.columns, "sharpe_ratio"), []
        for number in range(self.sweep.num_chunks):
            part = self.parts.get(number)
            sharpe.append(np.delete(part.values[:, column], list(part.failures)))
        return Trials(np.concatenate(sharpe))


def levels_of_text(lanes: Lanes) -> frozenset[str]:
    """The levels whose labels are of several types, so that a file has their text; each with a warning.

    Raises ValueError naming `out` where two labels of a level have the same text.
    """
    axes = [level for axis in lanes.sweep.axes for level in axis.levels.items()]
    levels = {str(name): labels for name, labels in [*axes, *lanes.layout.levels.items()]}
    mixed = {name: labels for name, labels in levels.items() if is_of_several_types(labels)}
    for name, labels in mixed.items():
        labels_as_text(labels, "out", name)
    return frozenset(mixed)
