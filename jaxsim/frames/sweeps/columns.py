"""The columns of a sweep: the numbers that are computed of each lane, and the metrics that are made from them.

Most metrics are a column themselves. `deflated_sharpe_ratio` compares a lane with all others, so that it is made from
several columns when all lanes are known.
"""

from collections.abc import Sequence

import numpy as np

from jaxsim.engine.metrics import nan_statistics
from jaxsim.engine.metrics.deflated import deflated, warn_of_left_out
from jaxsim.engine.metrics.online import ONLINE_METRICS, PIECES

DEFLATED = "deflated_sharpe_ratio"


#: What the names of columns begin with that count the bars from the latest start of all lanes on.
_LATEST = "latest "


def columns_of(names: Sequence[str], share_start: bool = True) -> tuple[str, ...]:
    """The columns that these metrics are made from.

    share_start: whether all lanes count the same bars; else comparisons count the bars from the latest start on.
    """
    pieces = () if DEFLATED not in names else PIECES if share_start else tuple(_LATEST + name for name in PIECES)
    return tuple(dict.fromkeys([*(name for name in names if name != DEFLATED), *pieces]))


def counts_from_latest(column: str) -> bool:
    """Whether a column counts the bars from the latest start of all lanes on."""
    return column.startswith(_LATEST)


def number_of(column: str) -> str:
    """The name of the number in a column."""
    return column.removeprefix(_LATEST)


def are_online(columns: Sequence[str]) -> bool:
    """Whether running sums give all columns, so that no paths are kept."""
    return all(number_of(name) in ONLINE_METRICS for name in columns)


def piece(columns: Sequence[str], name: str) -> int:
    """The place of a piece of the deflated Sharpe ratio among the columns."""
    latest = _LATEST + name
    return columns.index(latest if latest in columns else name)


class Trials:
    """The lanes of a sweep as trials of one another: their number, and the variance of their Sharpe ratios. Lanes
    without a finite one are left out, and a warning counts them."""

    def __init__(self, sharpe: np.ndarray):
        is_trial = np.isfinite(sharpe)
        self.count = int(is_trial.sum())
        self.variance = nan_statistics.std(np.where(is_trial, sharpe, 0), is_trial, 1) ** 2
        if len(sharpe) > 1:
            warn_of_left_out(len(sharpe) - self.count, len(sharpe))


def metrics_from_columns(
    names: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    trials: Trials | None,
    ann_factor: float | None,
) -> np.ndarray:
    """The metrics [lane, metric] from the columns [lane, column] of some lanes.

    trials: all lanes that did not fail; needed for `deflated_sharpe_ratio`.
    """
    known = {name: values[:, i] for i, name in enumerate(columns)}
    if DEFLATED in names:
        assert trials is not None
        with np.errstate(all="ignore"):
            pieces = (values[:, piece(columns, name)] for name in PIECES)
            ratio = deflated(*pieces, ann_factor=ann_factor, var_sharpe=trials.variance, nb_trials=trials.count)
        known[DEFLATED] = ratio
    return np.stack([known[name] for name in names], axis=1)
