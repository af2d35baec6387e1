"""Where the parts of a sweep are kept: in memory, or as Parquet files in a folder from which it can be resumed."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxsim.frames.sweeps.chunk_metrics import ChunkMetrics

_MANIFEST = "manifest.json"


class Parts(Protocol):
    """Parts by number. A part is there as a whole or not at all."""

    def __contains__(self, number: int) -> bool: ...
    def put(self, number: int, part: ChunkMetrics) -> None: ...
    def get(self, number: int) -> ChunkMetrics: ...


class InMemory(dict):
    """Parts that nobody needs to find again."""

    def put(self, number: int, part: ChunkMetrics) -> None:
        self[number] = part

    def get(self, number: int) -> ChunkMetrics:  # type: ignore[override]
        return self[number]


class InFolder:
    """Parts as files `part-000000.parquet`, each written beside its place and then moved there."""

    def __init__(self, folder: Path, columns: Sequence[str]):
        self.folder, self.columns = folder, tuple(columns)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    def __contains__(self, number: int) -> bool:
        return self._path(number).is_file()

    def put(self, number: int, part: ChunkMetrics) -> None:
        table = {name: part.scores[:, i] for i, name in enumerate(self.columns)}
        write_table(table | {"status": statuses(part)}, self._path(number))

    def get(self, number: int) -> ChunkMetrics:
        table = parquet().read_table(self._path(number))
        scores = np.stack([table[name].to_numpy() for name in self.columns], axis=1)
        status = table["status"].to_pylist()
        return ChunkMetrics(scores, {lane: why for lane, why in enumerate(status) if why})


def statuses(part: ChunkMetrics) -> np.ndarray:
    """Why each lane of a part failed, [lane]; empty where all went well."""
    status = np.full(len(part.scores), "", dtype=object)
    for lane, why in part.failures.items():
        status[lane] = why
    return status


def resumed(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a folder of parts: the one that is there, if it is about the same run, or this new one.

    What has the same `run` is the same run; the rest of a manifest says how the parts were cut.
    Raises ValueError naming the argument where another run is there.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("part-*.parquet")):
            raise ValueError(f"checkpoint: {str(folder)!r} holds parts, but no {_MANIFEST} that says of which run")
        atomically(path, lambda at: at.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8"))
        return dict(manifest)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name, value in manifest["run"].items() if found["run"].get(name) != value]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"checkpoint: {str(path)!r} is no manifest of a sweep") from None
    if differing:
        raise ValueError(
            f"checkpoint: {str(folder)!r} holds parts of another run, which differs in {', '.join(differing)}; name "
            "another folder, or remove this one"
        )
    return found


def write_table(columns: Mapping[str, Any], path: Path) -> None:
    """A Parquet file, there as a whole or not at all."""
    import pyarrow

    table = pyarrow.table({name: pyarrow.array(x) for name, x in columns.items()})
    atomically(path, lambda at: parquet().write_table(table, at))


def atomically(path: Path, write: Any) -> None:
    """Write a file beside its place, see it to the disk, and move it there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def parquet(argument: str = "checkpoint") -> Any:
    """pyarrow's Parquet module. Raises ImportError naming the pip command."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f'{argument}: needs pyarrow: pip install "jaxsim-portfolio[cli]"') from error
    return pyarrow.parquet
