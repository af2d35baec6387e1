"""Allocations on disk: one Parquet file with a row per allocation, which other tools can read too."""

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.files import written_whole
from jaxsim.frames.inputs.labels import is_of_several_types, labels_as_text

#: Key of the metadata that make a table of weights allocations again.
_KEY = b"jaxsim.allocations"
_CODES = ("size_type", "direction", "sequence")
_COLUMN = {"targets": "target"}


def write_allocations(path: Path, fields: dict[str, Any]) -> None:
    """Write the fields of `Allocations` to a file, one row per allocation."""
    pa, pq = _pyarrow()
    index, lanes, assets = fields["index"], fields["lanes"], fields["assets"]
    arrays: dict[str, np.ndarray] = {"lane": fields["lane"], "alloc_idx": fields["bar"]}
    if fields["range_start"] is not None:
        arrays["range_start"] = fields["range_start"]
    for name in ("targets", *_CODES):
        if fields[name] is not None:
            column = _COLUMN.get(name, name)
            arrays |= {f"{column}_{n}": fields[name][:, n] for n in range(len(assets))}
    for name, values in fields["aux"].items():
        arrays[f"aux_{name}"] = values.reshape(len(values), math.prod(values.shape[1:])) if values.ndim > 1 else values
    columns = {name: pa.array(list(x)) if x.ndim > 1 else pa.array(x) for name, x in arrays.items()}
    described = {
        "freq": getattr(index, "freqstr", None),
        "index": _packed(index.to_frame(index=False, name="time"), "index", index.name),
        "lanes": None if lanes is None else _packed(lanes.to_frame(index=False), "lanes"),
        "assets": _packed(assets.to_frame(index=False, name="asset"), "assets", assets.name),
        "is_member": fields["is_member"].tolist(),
        "num_group_levels": fields["num_group_levels"],
        "start": None if fields["start"] is None else fields["start"].tolist(),
        "aux": {name: [*x.shape[1:]] for name, x in fields["aux"].items()},
        "aux_dtypes": {name: x.dtype.str for name, x in fields["aux"].items()},
    }
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(described).encode()})
    with written_whole(path) as draft:
        pq.write_table(table, draft)


def read_allocations(path: Path) -> dict[str, Any]:
    """The fields of the `Allocations` in a file. Raises ValueError for a Parquet file of another kind."""
    pa, pq = _pyarrow()
    table = pq.read_table(path)
    described = (table.schema.metadata or {}).get(_KEY)
    if described is None:
        raise ValueError(f"path: {path} holds no allocations; Allocations.save writes such files")
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

    return {
        "index": index,
        "lanes": lanes,
        "lane": table["lane"].to_numpy(),
        "bar": table["alloc_idx"].to_numpy(),
        "targets": matrix("target"),
        "assets": assets,
        "is_member": np.array(about["is_member"], bool).reshape(-1, len(assets)),
        "num_group_levels": about["num_group_levels"],
        **{name: matrix(name) for name in _CODES},
        "range_start": table["range_start"].to_numpy() if "range_start" in table.column_names else None,
        "aux": {name: aux(name, shape) for name, shape in about["aux"].items()},
        "start": None if about["start"] is None else np.array(about["start"], np.int64),
    }


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


def _packed(frame: pd.DataFrame, what: str, name: Any = None) -> dict:
    """Labels as text, with their types. Those of several types, which a column of Parquet cannot hold, are JSON if that
    can hold them, and else their text.

    what: which labels, for messages.
    """
    frame = frame.rename(columns=str)
    units = {str(k): x.dt.unit for k, x in frame.items() if pd.api.types.is_datetime64_any_dtype(x.dtype)}
    of_json = []
    for column in frame.columns[[is_of_several_types(labels) for _, labels in frame.items()]]:
        labels = [x.item() if isinstance(x, np.generic) else x for x in frame[column]]
        if all(isinstance(x, str | int | float) for x in labels):
            frame[column] = [json.dumps(x) for x in labels]
            of_json.append(column)
        else:
            frame[column] = labels_as_text(pd.Index(frame[column]), what, column)
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    packed = {"parquet": base64.b64encode(buffer.getvalue()).decode(), "name": name}
    return packed | {"json": of_json, "units": units}


def _unpacked_frame(packed: dict) -> tuple[pd.DataFrame, Any]:
    frame = pd.read_parquet(io.BytesIO(base64.b64decode(packed["parquet"])))
    for column in packed.get("json", ()):
        frame[column] = pd.Series([json.loads(x) for x in frame[column]], frame.index, dtype=object)
    for column, unit in packed.get("units", {}).items():  # Parquet has no seconds
        frame[column] = frame[column].dt.as_unit(unit)
    return frame, packed["name"]


def _unpacked(packed: dict) -> pd.Index:
    frame, name = _unpacked_frame(packed)
    return pd.Index(frame.iloc[:, 0]).rename(name)
