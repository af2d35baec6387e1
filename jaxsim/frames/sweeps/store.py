"""Where the finished chunks of a sweep are kept, and by what a checkpoint knows the run that it is of."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxsim.engine.base.fields import shown
from jaxsim.frames.sweeps.chunk_metrics import Scoring
from jaxsim.frames.sweeps.store_parts import InFolder, InMemory, parquet, resumed
from jaxsim.frames.system.digest import digest
from jaxsim.version import VERSION


def as_path(value: Any, argument: str) -> Path:
    """Raises TypeError or ValueError naming the argument."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{argument}: expected the path of a folder, got {shown(value)}"[:200])
    path = Path(value)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{argument}: {str(path)!r} is no folder")
    return path


class Store:
    """Where the parts of a sweep are kept while it runs: in the checkpoint; else in memory, or, where there may be more
    of them than memory should hold, in a folder of its own that is removed in the end."""

    def __init__(self, scoring: Scoring, names: Sequence[str], checkpoint: Any, out: Path | None):
        self.scoring, self._own = scoring, None
        self.parts: Any = InMemory()
        if checkpoint is not None:
            parquet()
            folder = as_path(checkpoint, "checkpoint")
            found = resumed(folder, {"run": _identity(scoring, names), "combinations_per_part": scoring.size})
            # Parts that are there already have been cut to this size.
            self.scoring = replace(scoring, size=found["combinations_per_part"])
            self.parts = InFolder(folder, scoring.columns)
        elif out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._own = tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent)
            self.parts = InFolder(Path(self._own), scoring.columns)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)


def _identity(scoring: Scoring, names: Sequence[str]) -> dict[str, Any]:
    """What makes two sweeps the same, in pieces that can be named where they differ."""
    reading, prices = scoring.reading, scoring.reading.prices
    return {
        "jaxsim": VERSION,
        "lanes": reading.num_lanes,
        "metrics": list(names),
        "prices": digest(prices),
        "groups": digest(reading.layout),
        "labels": digest([axis.levels for axis in reading.sweep.axes]),
        "policy": digest(reading.policy),
        "costs": digest((reading.quotes, reading.costs, reading.cash)),
        "key": digest((reading.key, reading.seeds)),
        "bars per year": scoring.ann_factor,
        "engine": "reference" if reading.engine == "reference" else "compiled",
    }
