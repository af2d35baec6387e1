"""Price files: CSV and Parquet, one column per asset ("wide") or one row per asset and time ("long")."""

import re
import warnings
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from jaxsim.cli.complaint import Complaint
from jaxsim.datasets import Prices

_TIMES = ("time", "date", "timestamp", "datetime")
_ASSETS = ("symbol", "asset", "ticker")
# Before pandas 3.1 the default float parser may miss the nearest double by one bit.
_OLD = tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1)
_EXACT: dict[str, Any] = {"float_precision": "round_trip"} if _OLD else {}
_DAY_OR_MONTH_FIRST = re.compile(r"\s*\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b")


def read_closes(path: Path, long: bool | None) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Closing prices [time, asset], and opening prices if a long file has them, else None.

    long: whether there is one row per asset and time; None: detect it from the column names.
    Raises Complaint beginning with FILE.
    """
    table = _read(path, "FILE")
    if not _is_long(table, "close", long, "FILE"):
        return _wide(table, "FILE"), None
    opens = _pivot(table, "open", "FILE") if _find(table, ("open",), "FILE") is not None else None
    return _pivot(table, "close", "FILE"), opens


def read_opens(path: Path, long: bool | None) -> pd.DataFrame:
    """Opening prices [time, asset]: a wide file, or the column `open` of a long one. Raises Complaint."""
    table = _read(path, "--open")
    return _pivot(table, "open", "--open") if _is_long(table, "open", long, "--open") else _wide(table, "--open")


def write_tables(data: Prices, folder: Path, form: str) -> dict[str, Path]:
    """Write one wide table per field, which `read_closes` and `read_opens` can read; returns the paths.

    form: "csv" or "parquet".
    """
    paths = {}
    for field in fields(data):
        paths[field.name] = path = folder / f"{field.name}.{form}"
        table: pd.DataFrame = getattr(data, field.name)
        table.to_csv(path) if form == "csv" else table.to_parquet(path)
    return paths


def _read(path: Path, argument: str) -> pd.DataFrame:
    """The file as a table; an index with times becomes the first column."""
    name = path.name.lower()
    if not name.endswith((".csv", ".csv.gz", ".parquet", ".pq")):
        raise Complaint(f"{argument}: {str(path)!r} is neither .csv, .csv.gz nor .parquet")
    if not path.is_file():
        raise Complaint(f"{argument}: there is no file {str(path)!r}")
    try:
        table = _parquet(path) if name.endswith((".parquet", ".pq")) else _csv(path, argument)
    except (OSError, ValueError, EOFError, zlib.error, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        raise Complaint(f"{argument}: {str(path)!r} cannot be read: {reason}") from error
    if table.columns.nlevels > 1:
        raise Complaint(f"{argument}: {str(path)!r} has several header levels; expected one")
    if len(table) == 0:
        raise Complaint(f"{argument}: {str(path)!r} has no rows")
    if table.shape[1] < 2:
        raise Complaint(f"{argument}: {str(path)!r} has one column only; expected times, then prices, between commas")
    return table


def _csv(path: Path, argument: str) -> pd.DataFrame:
    header = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0]
    twice = header[header.duplicated() & header.notna()]
    if len(twice):  # pandas would call the second one IBM.1
        raise Complaint(f"{argument}: {str(path)!r} has two columns {twice.iloc[0]!r}")
    texts = {name: str for name in header if str(name).strip().lower() in _ASSETS}  # 000001 is a name, not a number
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # for rows longer than the header, which would be cut
        table = pd.read_csv(path, index_col=False, low_memory=False, dtype=texts, **_EXACT)
    return table.rename(columns={c: "" for c in table.columns[:1] if str(c).startswith("Unnamed: ")})


def _parquet(path: Path) -> pd.DataFrame:
    table = pd.read_parquet(path)
    names = [name for name in table.index.names if name is not None]
    if table.columns.nlevels == 1 and (names or isinstance(table.index, pd.DatetimeIndex)):
        table = table.reset_index() if names else table.rename_axis("").reset_index()
    return table


def _find(table: pd.DataFrame, names: tuple[str, ...], argument: str) -> str | None:
    """The column with one of these names, in upper or lower case; None if there is none."""
    matches = [c for c in table.columns if str(c).strip().lower() in names]
    if len(matches) > 1:
        raise Complaint(f"{argument}: both {matches[0]!r} and {matches[1]!r} could be the {names[0]}; keep one")
    return matches[0] if matches else None


def _is_long(table: pd.DataFrame, price: str, long: bool | None, argument: str) -> bool:
    if long is None:
        lower = {str(c).strip().lower() for c in table.columns}
        return price in lower and not lower.isdisjoint(_TIMES) and not lower.isdisjoint(_ASSETS)
    return long


def _wide(table: pd.DataFrame, argument: str) -> pd.DataFrame:
    times, prices = table.iloc[:, 0], table.iloc[:, 1:]
    frame = prices.set_axis(_times(times, argument), axis=0)
    return frame.apply(lambda column: _as_numbers(column, str(column.name), argument))


def _pivot(table: pd.DataFrame, price: str, argument: str) -> pd.DataFrame:
    needed = {"a time": _TIMES, "an asset": _ASSETS, f"the {price} price": (price,)}
    columns = []
    for meaning, names in needed.items():
        column = _find(table, names, argument)
        if column is None:
            raise Complaint(f"{argument}: a long table needs a column for {meaning}, called {' or '.join(names)}")
        columns.append(table[column])
    times, assets, values = columns
    index = _times(times, argument)
    if assets.isna().any() or index.hasnans:
        row = int((assets.isna().to_numpy() | index.isna()).argmax()) + 1
        raise Complaint(f"{argument}: row {row} lacks a time or an asset")
    numeric = _as_numbers(values.set_axis(index), str(values.name), argument)
    long = pd.DataFrame({"time": index, "asset": assets.astype(str).to_numpy(), "price": numeric.to_numpy()})
    twice = long.duplicated(["time", "asset"])
    if twice.any():
        row = long[twice].iloc[0]
        raise Complaint(f"{argument}: {row['asset']!r} has two rows at {row['time']}")
    frame = long.pivot(index="time", columns="asset", values="price")[long["asset"].unique().tolist()]
    frame.index.name, frame.columns.name = index.name, str(assets.name)
    return pd.DataFrame(frame)


def _times(column: pd.Series, argument: str) -> pd.Index:
    """Times as a DatetimeIndex, with their UTC offset (UTC if offsets differ); integers stay integers."""
    name = str(column.name) if column.name else None
    if pd.api.types.is_datetime64_any_dtype(column):
        return pd.DatetimeIndex(column, name=name)
    if pd.api.types.is_integer_dtype(column):
        return pd.Index(column, name=name)
    if pd.api.types.is_numeric_dtype(column):
        first = column.iloc[0]
        raise Complaint(f"{argument}: the first column must be times, as 2020-12-31; {column.name!r} holds {first}")
    try:
        return _parse(column, name, argument)
    except (ValueError, TypeError, OverflowError):
        is_time = pd.Series(pd.to_datetime(column, errors="coerce", format="mixed", utc=True)).notna().to_numpy()
        first = column.iloc[is_time.argmin()]  # the first entry that is no time; if all are, the first entry
        raise Complaint(f"{argument}: the column {name or ''!r} holds {first!r}, which is not a time") from None


def _parse(column: pd.Series, name: str | None, argument: str) -> pd.Index:
    stamps = pd.Series(column.astype(str).where(column.notna()))
    try:
        return pd.DatetimeIndex(pd.to_datetime(stamps, format="ISO8601"), name=name)
    except ValueError as error:
        if "ixed timezones" in str(error) or "utc=True" in str(error):
            return pd.DatetimeIndex(pd.to_datetime(stamps, format="ISO8601", utc=True), name=name)
    unclear = stamps.str.match(_DAY_OR_MONTH_FIRST, na=False).to_numpy(bool)
    if unclear.any():
        text = stamps.iloc[unclear.argmax()]
        raise Complaint(f"{argument}: {text!r} may be day or month first; write times as in 2020-12-31")
    if not stamps.str.contains(r"\d{4}", na=True).all():
        raise ValueError("without a year, pandas takes 09:00 as a time of today")
    return pd.DatetimeIndex(pd.to_datetime(stamps, format="mixed"), name=name)


def _as_numbers(column: pd.Series, name: str, argument: str) -> pd.Series:
    """Texts as numbers; other types stay, and jaxsim checks them later."""
    if not (pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column)):
        return column
    numbers = pd.Series(pd.to_numeric(column, errors="coerce"))
    wrong = (numbers.isna() & column.notna()).to_numpy()
    if wrong.any():
        text, time = column.iloc[wrong.argmax()], column.index[int(wrong.argmax())]
        raise Complaint(f"{argument}: the column {name!r} holds {text!r} at {time}, which is not a number")
    return numbers
