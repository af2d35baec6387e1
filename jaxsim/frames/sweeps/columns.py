"""The columns of a sweep: the numbers that are computed of each lane, and the metrics that are made from them.

Most metrics are a column themselves. `deflated_sharpe_ratio` compares a lane with all others, so that it is made from
several columns when all lanes are known.
"""

from collections.abc import Sequence

import numpy as np

from jaxsim.engine.metrics import nan_statistics
from jaxsim.engine.metrics.online import ONLINE_METRICS, PIECES
from jaxsim.engine.metrics.returns import deflated

DEFLATED = "deflated_sharpe_ratio"


def columns_of(names: Sequence[str]) -> tuple[str, ...]:
    """The columns that these metrics are made from."""
    pieces = PIECES if DEFLATED in names else ()
    return tuple(dict.fromkeys([*(name for name in names if name != DEFLATED), *pieces]))


def are_online(columns: Sequence[str]) -> bool:
    """Whether running sums give all columns, so that no paths are kept."""
    return all(name in ONLINE_METRICS for name in columns)


class Trials:
    """The lanes of a sweep as trials of one another: their number, and the variance of their Sharpe ratios, NaN where
    one of them is not finite."""

    def __init__(self, sharpe: np.ndarray):
        self.count = len(sharpe)
        is_finite = len(sharpe) > 1 and np.isfinite(sharpe).all()
        self.variance = nan_statistics.std(sharpe, np.isfinite(sharpe), 1) ** 2 if is_finite else np.nan


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
            pieces = (known[name] for name in PIECES)
            ratio = deflated(*pieces, ann_factor=ann_factor, var_sharpe=trials.variance, nb_trials=trials.count)
        known[DEFLATED] = ratio
    return np.stack([known[name] for name in names], axis=1)
