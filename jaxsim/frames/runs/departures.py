"""The warning of assets that left the market while a lane held or wanted them."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.frames.inputs.delistings import Departures
from jaxsim.frames.results.ledger import Ledger

#: How many assets a warning names.
NAMED = 8


def warn_of_departures(
    departures: Departures | None,
    assets: pd.Index,
    index: pd.Index,
    ledgers: Sequence[Ledger] | None,
    stacklevel: int,
) -> None:
    """Warn once of the assets that left, with the times at which they were closed.

    assets: name of each column.     ledgers: of the lanes; None: any lane may have held them.
    stacklevel: of the caller's caller, as in `warnings.warn`.
    """
    if departures is None or not departures.is_announced or not len(departures.columns):
        return
    left = [
        f"{assets[column]!r} on {_shown(index[bar])}"
        for column, bar in departures.closings()
        if ledgers is None or any(_matters(ledger, column, bar) for ledger in ledgers)
    ]
    left = list(dict.fromkeys(left))
    if left:
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        warnings.warn(
            f"delistings: closed as gone from the market: {', '.join(left[:NAMED])}{more}; bt.incidents has the "
            "amounts, stale= and delistings= say otherwise",
            stacklevel=stacklevel + 1,
        )


def _shown(time: Any) -> str:
    is_date = isinstance(time, pd.Timestamp) and time == time.normalize()
    return str(time.date() if is_date else time)


def _matters(ledger: Ledger, column: int, bar: int) -> bool:
    """Whether a lane held an asset when it left, or had a target for it."""
    lane, asset = np.nonzero(ledger.columns == column)
    if ledger.opening is not None and (ledger.opening.units[lane, asset] != 0).any():
        return True
    if not len(lane) or not len(ledger.bar):
        return False
    first = np.concatenate([[0], np.cumsum(ledger.counts)])
    span = int(ledger.bar.max()) + bar + 2
    place = np.searchsorted(ledger.lane_of_event * span + ledger.bar, lane * span + bar) - 1  # the last event before
    known = place >= first[lane]
    place, asset = place[known], asset[known]
    return bool(((ledger.units[place, asset] != 0) | (np.nan_to_num(ledger.target[place, asset]) != 0)).any())
