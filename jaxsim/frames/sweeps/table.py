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

from jaxsim.frames.sweeps.chunk_metrics import DEFLATED, Scoring, Trials, finish
from jaxsim.frames.sweeps.store_parts import Parts, statuses, write_table


@dataclass(frozen=True, eq=False)
class Table:
    """What comes out: the finished parts, with labels."""

    scoring: Scoring
    names: tuple[str, ...]
    parts: Parts

    def frame(self) -> pd.DataFrame:
        """In memory."""
        scoring = self.scoring
        parts = [self.parts.get(number) for number in range(scoring.num_chunks)]
        columns = np.concatenate([part.scores for part in parts])
        status = np.concatenate([statuses(part) for part in parts])
        scores = finish(self.names, scoring.columns, columns, self._trials(), scoring.ann_factor)
        lanes = scoring.reading.lanes()
        lanes = pd.RangeIndex(1) if lanes is None else lanes
        columns = dict(zip(self.names, scores.T, strict=True))
        return pd.DataFrame(columns | {"status": status}, lanes, copy=False)

    def write(self, folder: Path) -> Path:
        """As a Parquet data set, there as a whole or not at all."""
        scoring, trials = self.scoring, self._trials()
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for number in range(scoring.num_chunks):
                part = self.parts.get(number)
                scores = finish(self.names, scoring.columns, part.scores, trials, scoring.ann_factor)
                table: Mapping[str, Any] = dict(zip(self.names, scores.T, strict=True)) | {"status": statuses(part)}
                write_table(self._labels(number) | table, beside / f"part-{number:06d}.parquet")
            os.replace(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return folder

    def _labels(self, number: int) -> dict[str, Any]:
        lanes = self.scoring.reading.lanes(self.scoring.combinations(number))
        if lanes is None:
            return {}
        return {str(name): pd.array(lanes.get_level_values(i)) for i, name in enumerate(lanes.names)}

    def _trials(self) -> Trials | None:
        """Of all lanes, a part at a time; None where no metric compares them."""
        if DEFLATED not in self.names:
            return None
        at, sharpe = self.scoring.columns.index("sharpe_ratio"), []
        for number in range(self.scoring.num_chunks):
            part = self.parts.get(number)
            sharpe.append(np.delete(part.scores[:, at], list(part.failures)))
        return Trials(np.concatenate(sharpe))
