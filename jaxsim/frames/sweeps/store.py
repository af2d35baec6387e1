"""The finished chunks of a sweep, in memory or as Parquet files, and the checkpoint that a sweep is resumed from."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from jaxsim.engine.base.fields import shown
from jaxsim.files import written_whole
from jaxsim.frames.sweeps.chunk_metrics import ChunkedSweep, ChunkMetrics
from jaxsim.frames.system.digest import digest
from jaxsim.version import VERSION

_MANIFEST = "manifest.json"


class Parts(Protocol):
    """Finished chunks by number. A chunk is there as a whole or not at all."""

    def __contains__(self, number: int) -> bool: ...
    def put(self, number: int, part: ChunkMetrics) -> None: ...
    def get(self, number: int) -> ChunkMetrics: ...


class PartsInMemory:
    """Finished chunks in memory."""

    def __init__(self):
        self._parts: dict[int, ChunkMetrics] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._parts

    def put(self, number: int, part: ChunkMetrics) -> None:
        self._parts[number] = part

    def get(self, number: int) -> ChunkMetrics:
        return self._parts[number]


class PartsInFolder:
    """Finished chunks as files `part-000000.parquet`."""

    def __init__(self, folder: Path, columns: Sequence[str]):
        self.folder, self.columns = folder, tuple(columns)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    def __contains__(self, number: int) -> bool:
        return self._path(number).is_file()

    def put(self, number: int, part: ChunkMetrics) -> None:
        table = {name: part.values[:, i] for i, name in enumerate(self.columns)}
        write_table(table | {"status": statuses(part), "incidents": part.incidents}, self._path(number))

    def get(self, number: int) -> ChunkMetrics:
        table = parquet().read_table(self._path(number))
        values = np.stack([table[name].to_numpy() for name in self.columns], axis=1)
        status = table["status"].to_pylist()
        failures = {lane: why for lane, why in enumerate(status) if why}
        return ChunkMetrics(values, failures, table["incidents"].to_numpy())


def statuses(part: ChunkMetrics) -> np.ndarray:
    """Why each lane of a chunk failed, [lane]; empty text where it did not."""
    status = np.full(len(part.values), "", dtype=object)
    for lane, why in part.failures.items():
        status[lane] = why
    return status


class Store:
    """The place of the finished chunks while a sweep runs.

    They are kept in the checkpoint, if there is one. Without it they are kept in memory, or, for a table that is
    written to `out`, in a temporary folder beside it.
    """

    def __init__(self, sweep: ChunkedSweep, names: Sequence[str], checkpoint: Any, out: Path | None):
        self.sweep, self._temporary = sweep, None
        self.parts: Parts = PartsInMemory()
        if checkpoint is not None:
            parquet()
            folder = as_path(checkpoint, "checkpoint")
            manifest = _resume(folder, {"run": _identity(sweep, names), "combinations_per_part": sweep.size})
            self.sweep = replace(sweep, size=manifest["combinations_per_part"])  # the size of the chunks that are there
            self.parts = PartsInFolder(folder, sweep.columns)
        elif out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent)
            self.parts = PartsInFolder(Path(self._temporary), sweep.columns)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _identity(sweep: ChunkedSweep, names: Sequence[str]) -> dict[str, Any]:
    """What two runs of one sweep have in common, in pieces that a message can name."""
    arguments, job = sweep.arguments, sweep.arguments.job
    return {
        "jaxsim": VERSION,
        "lanes": arguments.num_lanes,
        "metrics": list(names),
        "prices": digest(arguments.prices),
        "groups": digest(job.layout),
        "labels": digest([axis.levels for axis in job.lanes.sweep.axes]),
        "policy": digest(job.policy),
        "costs": digest((job.prices, job.costs, job.account)),
        "start": digest(job.start),
        "benchmark": digest(arguments.benchmark),
        "key": digest((job.lanes.key, job.lanes.seeds)),
        "bars per year": sweep.ann_factor,
        "engine": "reference" if arguments.engine == "reference" else "compiled",
    }


def _resume(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a checkpoint: the one in the folder, or this new one, which is written to it.

    Two manifests with the same `run` are of the same run; the rest says how it was cut into chunks.
    Raises ValueError naming the argument if the folder holds another run.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        if any(folder.glob("part-*.parquet")):
            raise ValueError(f"checkpoint: {str(folder)!r} holds parts, but no {_MANIFEST} that says of which run")
        with written_whole(path) as draft:
            draft.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        return dict(manifest)
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name, value in manifest["run"].items() if known["run"].get(name) != value]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"checkpoint: {str(path)!r} is no manifest of a sweep") from None
    if differing:
        raise ValueError(
            f"checkpoint: {str(folder)!r} holds parts of another run, which differs in {', '.join(differing)}; name "
            "another folder, or remove this one"
        )
    return known


def write_table(columns: Mapping[str, Any], path: Path) -> None:
    """Write a Parquet file. A reader finds the whole file or none."""
    import pyarrow

    table = pyarrow.table({name: pyarrow.array(x) for name, x in columns.items()})
    with written_whole(path) as draft:
        parquet().write_table(table, draft)


def parquet(argument: str = "checkpoint") -> ModuleType:
    """pyarrow's Parquet module. Raises ImportError naming the argument and the pip command."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f'{argument}: needs pyarrow: pip install "jaxsim-portfolio[cli]"') from error
    return pyarrow.parquet


def as_path(value: Any, argument: str) -> Path:
    """The path of a folder. Raises TypeError or ValueError naming the argument."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{argument}: expected the path of a folder, got {shown(value)}"[:200])
    path = Path(value)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{argument}: {str(path)!r} is no folder")
    return path
