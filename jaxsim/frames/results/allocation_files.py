"""Allocations on disk: one parquet file, a row per allocation, which other tools can read too."""

import base64
import io
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.frames.results.allocations import Allocations

#: Key of the metadata that make a table of weights allocations again.
_KEY = b"jaxsim.allocations"
_CODES = ("size_type", "direction", "sequence")


def save(allocations: Allocations, path: str | os.PathLike) -> None:
    """See `Allocations.save`."""
    pa, pq = _pyarrow()
    arrays: dict[str, np.ndarray] = {"lane": allocations.lane, "alloc_idx": allocations.bar}
    if allocations.range_start is not None:
        arrays["range_start"] = allocations.range_start
    arrays |= {f"target_{n}": allocations.targets[:, n] for n in range(len(allocations.assets))}
    for name in _CODES:
        codes = getattr(allocations, name)
        if codes is not None:
            arrays |= {f"{name}_{n}": codes[:, n] for n in range(len(allocations.assets))}
    for name, values in allocations.aux.items():
        arrays[f"aux_{name}"] = values.reshape(len(values), math.prod(values.shape[1:])) if values.ndim > 1 else values
    columns = {name: pa.array(list(x)) if x.ndim > 1 else pa.array(x) for name, x in arrays.items()}
    described = {
        "freq": getattr(allocations.index, "freqstr", None),
        "index": _packed(allocations.index.to_frame(index=False, name="time"), allocations.index.name),
        "lanes": None if allocations.lanes is None else _packed(allocations.lanes.to_frame(index=False), None),
        "assets": _packed(allocations.assets.to_frame(index=False, name="asset"), allocations.assets.name),
        "is_member": allocations.is_member.tolist(),
        "num_group_levels": allocations.num_group_levels,
        "aux": {name: [*x.shape[1:]] for name, x in allocations.aux.items()},
        "aux_dtypes": {name: x.dtype.str for name, x in allocations.aux.items()},
    }
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(described).encode()})
    target = Path(path)
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        pq.write_table(table, part)
        os.replace(part, target)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike) -> Allocations:
    """See `Allocations.load`."""
    pa, pq = _pyarrow()
    table = pq.read_table(path)
    described = (table.schema.metadata or {}).get(_KEY)
    if described is None:
        raise ValueError(f"path: {os.fspath(path)} holds no allocations; Allocations.save writes such files")
    about = json.loads(described)
    index, assets = (_unpacked(about[name]) for name in ("index", "assets"))
    if about["freq"] is not None and isinstance(index, pd.DatetimeIndex):
        index = _with_freq(index, about["freq"])
    lanes = None
    if about["lanes"] is not None:
        frame = _unpacked_frame(about["lanes"])[0]
        lanes = pd.Index(frame.iloc[:, 0]) if frame.shape[1] == 1 else pd.MultiIndex.from_frame(frame)

    def matrix(name: str) -> np.ndarray | None:
        if f"{name}_0" not in table.column_names:
            return None
        return np.stack([table[f"{name}_{n}"].to_numpy() for n in range(len(assets))], axis=1)

    def aux(name: str, shape: list[int]) -> np.ndarray:
        column = table[f"aux_{name}"]
        values = np.array(column.to_pylist()) if shape or pa.types.is_list(column.type) else column.to_numpy()
        return values.astype(about.get("aux_dtypes", {}).get(name, values.dtype)).reshape(len(column), *shape)

    targets = matrix("target")
    assert targets is not None
    return Allocations(
        index,
        lanes,
        table["lane"].to_numpy(),
        table["alloc_idx"].to_numpy(),
        targets,
        assets,
        np.array(about["is_member"], bool).reshape(-1, len(assets)),
        about["num_group_levels"],
        **{name: matrix(name) for name in _CODES},
        range_start=table["range_start"].to_numpy() if "range_start" in table.column_names else None,
        aux={name: aux(name, shape) for name, shape in about["aux"].items()},
    )


def _with_freq(index: pd.DatetimeIndex, freq: str) -> pd.DatetimeIndex:
    """With the frequency that it had, unless its name does not say all of it, as with holidays of one's own."""
    try:
        return pd.DatetimeIndex(index, freq=freq)
    except ValueError:
        return index


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('parquet files need pyarrow: pip install "jaxsim-portfolio[cli]"') from error
    return pyarrow, pyarrow.parquet


def _packed(frame: pd.DataFrame, name: Any) -> dict:
    """Labels as text, with their types."""
    buffer = io.BytesIO()
    frame.rename(columns=str).to_parquet(buffer)
    return {"parquet": base64.b64encode(buffer.getvalue()).decode(), "name": name}


def _unpacked_frame(packed: dict) -> tuple[pd.DataFrame, Any]:
    return pd.read_parquet(io.BytesIO(base64.b64decode(packed["parquet"]))), packed["name"]


def _unpacked(packed: dict) -> pd.Index:
    frame, name = _unpacked_frame(packed)
    return pd.Index(frame.iloc[:, 0]).rename(name)
