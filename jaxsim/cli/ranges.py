"""Numbers as typed on the command line: `0.05`, `0.01,0.02`, `0.01:0.15:0.01`, `AAPL=0.6,IBM=0.4`."""

from decimal import Decimal, InvalidOperation

import pandas as pd

from jaxsim.cli.complaint import Complaint

MOST = 10_000
"""The largest number of values in a list, and of lanes in a run, since the command line keeps every lane's path."""


def numbers(text: str, argument: str) -> list[float]:
    """Values of a number, a comma list, or start:stop:step with stop included, computed in decimals as typed.

    Raises Complaint naming the argument for anything else, a step that does not lead from start to stop, and
    repeated values.
    """
    decimals: list[Decimal] = []
    for part in text.split(","):
        decimals += _range(part, argument) if ":" in part else [_decimal(part, argument)]
    values = [float(x) for x in decimals]
    seen: set[float] = set()
    for value in values:
        if value in seen:
            raise Complaint(f"{argument}: {value!r} is given twice in {text!r}")
        seen.add(value)
    return values


def weights(text: str, assets: pd.Index) -> pd.Series:
    """One weight per asset from `AAPL=0.6,IBM=0.4`; other assets get 0.

    Raises Complaint for a part that is no NAME=WEIGHT, for an unknown name and for a repeated name.
    """
    weight_of: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.rpartition("="))
        if not (name and equals):
            raise Complaint(f"--weights: {part!r} is not of the form NAME=WEIGHT, as in AAPL=0.6,IBM=0.4")
        if name not in assets:
            raise Complaint(f"--weights: there is no asset {name!r}; there are {', '.join(map(str, assets[:10]))}")
        if name in weight_of:
            raise Complaint(f"--weights: {name!r} is given twice")
        weight_of[name] = float(_decimal(value, "--weights"))
    return pd.Series(weight_of, dtype=float).reindex(assets, fill_value=0.0)


def _range(text: str, argument: str) -> list[Decimal]:
    parts = text.split(":")
    if len(parts) != 3:
        raise Complaint(f"{argument}: {text!r} is not of the form start:stop:step, as in 0.01:0.15:0.01")
    start, stop, step = (_decimal(part, argument) for part in parts)
    if step <= 0:
        raise Complaint(f"{argument}: the step of {text!r} is not positive")
    if stop < start:
        raise Complaint(f"{argument}: {text!r} stops before it starts")
    if (stop - start) / step >= MOST:
        raise Complaint(f"{argument}: {text!r} has more than {MOST:,} values")
    return [start + i * step for i in range(int((stop - start) / step) + 1)]


def _decimal(text: str, argument: str) -> Decimal:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise Complaint(f"{argument}: {text.strip()!r} is not a number") from None
    if not value.is_finite() or not abs(value) < Decimal("1e300"):
        raise Complaint(f"{argument}: {text.strip()!r} is not a finite number")
    return value
