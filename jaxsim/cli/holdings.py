"""What somebody holds, as a table of assets and units."""

from pathlib import Path
from typing import Any

import pandas as pd

from jaxsim.cli.complaint import Complaint

#: The name of the row with the cash, whatever its case.
CASH = "cash"


def read_holdings(path: Path, argument: str) -> tuple[pd.Series, float | None]:
    """Units by asset, and the cash of the row named `cash`, None without one. The file is a CSV with the columns
    `asset` and `units`; others are not used.

    Raises Complaint beginning with the argument.
    """
    try:
        table = pd.read_csv(path, dtype={"asset": str}, skipinitialspace=True)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise Complaint(f"{argument}: {path.name} cannot be read: {error}") from error
    missing = [name for name in ("asset", "units") if name not in table.columns]
    if missing:
        raise Complaint(f"{argument}: {path.name} has no column {missing[0]!r}; expected asset,units")
    units: Any = pd.to_numeric(table["units"], errors="coerce")
    bad = table["asset"].isna() | units.isna()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise Complaint(f"{argument}: row {row + 1} of {path.name} has no asset, or no number of units")
    names = table["asset"].str.strip()
    if names.duplicated().any():
        raise Complaint(f"{argument}: {names[names.duplicated()].iloc[0]!r} is in {path.name} twice")
    is_cash = names.str.lower() == CASH
    cash = float(units[is_cash].iloc[0]) if is_cash.any() else None
    return pd.Series(units[~is_cash].to_numpy(float), names[~is_cash].to_numpy()), cash
