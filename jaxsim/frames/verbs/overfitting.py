"""The share of luck in a good score: the probability of overfitting, and the deflated Sharpe ratio of trials."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd

from jaxsim import metrics
from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.engine.base.fields import is_whole, shown
from jaxsim.engine.base.numerics import ABS_TOL, REL_TOL
from jaxsim.engine.metrics.deflated import warn_of_left_out
from jaxsim.engine.metrics.nan_statistics import ratio
from jaxsim.engine.metrics.rolling import check_settings
from jaxsim.frames.results.backtest import Backtest
from jaxsim.frames.results.metric_names import Metric, metric_name, scorer

#: Trials that are scored together, so that what is computed of all their halves stays in the cache.
TRIALS_AT_A_TIME = 16


@dataclass(frozen=True, eq=False)
class Overfitting:
    """What came of choosing the best of many trials on one half of the time, over all halves of so many blocks.

    pbo: probability of backtest overfitting: the share of halves whose best trial is not above the median on the other
        half; 0.5 or more says that choosing is worth nothing.
    table: a row for each half: `trial`, the best on it; `inside` and `outside`, its scores there and on the other half;
        `rank`, its relative rank on the other half, (number of trials that do not beat it there) / (trials + 1); and
        `logit`, log(rank / (1 - rank)).
    metric: name of the score.
    """

    pbo: float
    table: pd.DataFrame
    metric: str

    def __repr__(self) -> str:
        return f"Overfitting(pbo={self.pbo:.3f}, {len(self.table)} halves, by {self.metric})"

    @property
    def logits(self) -> pd.Series:
        """The logit of each half; where it is negative or zero, the best did no better than the median."""
        return pd.Series(self.table["logit"])

    @property
    def degradation(self) -> float:
        """Slope of the score outside against that inside, over the halves where both are finite: negative where what
        looked better became worse; NaN where there is none."""
        inside, outside = self.table["inside"].to_numpy(), self.table["outside"].to_numpy()
        is_known = np.isfinite(inside) & np.isfinite(outside)
        inside, outside = inside[is_known], outside[is_known]
        if not len(inside):
            return np.nan
        spread = inside - inside.mean()
        moves = float((spread**2).sum())
        return float((spread * outside).sum() / moves) if moves > 0 else np.nan

    @property
    def probability_of_loss(self) -> float:
        """Share of halves whose best trial scores below zero on the other half."""
        return float((self.table["outside"].to_numpy() < 0).mean())

    def plot(self, **kwargs: Any) -> Any:
        """A Plotly figure: the logits, and the scores outside against those inside. Raises ImportError naming the pip
        command where Plotly is missing."""
        from jaxsim import views

        return views.overfitting(self.table, self.metric, **kwargs)


def probability_of_overfitting(
    returns: pd.DataFrame | Backtest, num_blocks: int = 16, metric: Metric = "sharpe_ratio", *, ann_factor: float = 1.0
) -> Overfitting:
    """Probability of backtest overfitting by combinatorially symmetric cross-validation (Bailey, Borwein, López de
    Prado and Zhu, The Probability of Backtest Overfitting, 2017): the time is cut into blocks; on every half of them
    the best trial is chosen, and ranked among all trials on the other half.

    returns: the run of all that was tried, or its `bt.returns`, of which the bars from the latest start of the lanes on
        count (rules 7.17); or another table [time, trial] of finite numbers.
    num_blocks: even, from 2 to 20; blocks are of equal length, and the first bars that do not fill one are left out.
        There are C(num_blocks, num_blocks / 2) halves, 12,870 of 16 blocks.
    metric: name of a metric of returns, or a function of them, [time, trial] -> [trial]; higher is better. The
        "sharpe_ratio" is worked out from sums over blocks, any other on every half, which takes longer.
    ann_factor: bars per year, for metrics that need it; it scales scores and changes no rank.

    Ties: scores that are equal by rules 1.1 are the same; the first of the best is chosen, and ranked below none of its
    equals. A trial whose score is NaN on a half is the worst there. Trials whose score over all blocks is not finite
    are left out, as the Sharpe ratio of a lane that never trades; one warning counts them.

    Raises TypeError or ValueError naming the argument.
    """
    returns = _counted(returns)
    if not isinstance(returns, pd.DataFrame):
        raise TypeError(f"returns: expected a DataFrame [time, trial], got {type(returns).__name__}")
    if not is_whole(num_blocks) or not 2 <= num_blocks <= 20:
        raise ValueError(f"num_blocks: expected an even number from 2 to 20, got {num_blocks!r}")
    if num_blocks % 2:
        raise ValueError(f"num_blocks: expected an even number, got {num_blocks}")
    values = returns.to_numpy(np.float64)
    if values.shape[1] < 2:
        raise ValueError(f"returns: one trial has not been chosen among others; got shape {values.shape}")
    if len(values) < 2 * num_blocks:
        raise ValueError(f"num_blocks: {len(values)} bars are too few for {num_blocks} blocks of at least two")
    if not np.isfinite(values).all():
        raise ValueError("returns: expected finite numbers; leave out trials and bars that have none")
    check_settings({"ann_factor": ann_factor})
    score = scorer(metric, ann_factor)
    length = len(values) // num_blocks
    values = values[len(values) - length * num_blocks :]
    has_score = np.isfinite(_scores(score, values, metric))
    if has_score.sum() < 2:
        raise ValueError(
            f"returns: {has_score.sum()} of {len(has_score)} trials have a finite {metric_name(metric)}; two are needed"
        )
    warn_of_left_out(int((~has_score).sum()), len(has_score))
    blocks, trials = values[:, has_score].reshape(num_blocks, length, -1), returns.columns[has_score]
    chosen = _halves(int(num_blocks))
    if metric == "sharpe_ratio":
        inside = _sharpe_of_halves(blocks, chosen) * ann_factor**0.5
    else:
        parts = (blocks[np.flatnonzero(half)].reshape(-1, blocks.shape[2]) for half in chosen)
        inside = np.stack([_scores(score, part, metric) for part in parts])
    inside = np.where(np.isnan(inside), -np.inf, inside)
    outside = inside[::-1]  # the other half of the first is the last, and so on
    return Overfitting(*_judged(inside, outside, trials), metric_name(metric))


def _scores(score: Callable[[Any], Any], returns: np.ndarray, metric: Metric) -> np.ndarray:
    """The score of each trial."""
    scores = np.asarray(score(returns), np.float64)
    if scores.shape != returns.shape[1:]:
        raise ValueError(f"metric: {metric_name(metric)} does not give one score per trial")
    return scores


def _counted(returns: Any) -> Any:
    """The returns of a run, or a table of returns as it stands, from the latest start of its lanes on."""
    if isinstance(returns, Backtest):
        returns = returns.returns
    start = returns.attrs.get("start") if isinstance(returns, pd.Series | pd.DataFrame) else None
    if start is None:
        return returns
    return returns.iloc[next((row for row, label in enumerate(returns.index) if str(label) == start), 0) :]


def _halves(num_blocks: int) -> np.ndarray:
    """Which blocks belong to each half, bool [half, block], in lexicographic order, so that the complement of the k-th
    is the k-th from the end."""
    is_inside = np.zeros((comb(num_blocks, num_blocks // 2), num_blocks), bool)
    for row, places in enumerate(combinations(range(num_blocks), num_blocks // 2)):
        is_inside[row, list(places)] = True
    return is_inside


def _sharpe_of_halves(blocks: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Sharpe ratios per bar of every half, [half, trial], from the mean and the squared deviations of each block.

    Deviations are from means of blocks and of halves, so that no digits are lost: what is flat on a half has a
    deviation of zero there. Nothing is summed over trials, so that equal trials have equal scores to the last bit.
    """
    num_blocks, length, num_trials = blocks.shape
    inside = chosen.astype(np.float64)[:, :, None]
    scores = np.empty((len(chosen), num_trials))
    for begin in range(0, num_trials, TRIALS_AT_A_TIME):
        part = blocks[:, :, begin : begin + TRIALS_AT_A_TIME]
        means = part[:, :1].mean(axis=1) + (part - part[:, :1]).mean(axis=1)
        squares = ((part - means[:, None]) ** 2).sum(axis=1)
        mean = means[0] + sum(inside[:, k] * (means[k] - means[0]) for k in range(num_blocks)) / (num_blocks // 2)
        total = sum(inside[:, k] * (squares[k] + length * (means[k] - mean) ** 2) for k in range(num_blocks))
        scores[:, begin : begin + TRIALS_AT_A_TIME] = ratio(mean, np.sqrt(total / (length * num_blocks // 2 - 1)))
    return scores


def _judged(inside: np.ndarray, outside: np.ndarray, trials: pd.Index) -> tuple[float, pd.DataFrame]:
    rows = np.arange(len(inside))
    highest = inside.max(axis=1, keepdims=True)
    best = ((inside == highest) | _equal(inside, highest)).argmax(axis=1)
    theirs = outside[rows, best][:, None]
    beats = (outside > theirs) & ~_equal(outside, theirs)
    rank = (~beats).sum(axis=1) / (outside.shape[1] + 1)
    columns = {
        "trial": trials.take(best).to_flat_index() if trials.nlevels > 1 else trials.take(best),
        "inside": inside[rows, best],
        "outside": theirs[:, 0],
        "rank": rank,
        "logit": np.log(rank / (1 - rank)),
    }
    return float((rank <= 0.5).mean()), pd.DataFrame(columns, pd.RangeIndex(len(best), name="half"))


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equal but for rounding (rules 1.1)."""
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= np.maximum(REL_TOL * np.maximum(np.abs(a), np.abs(b)), ABS_TOL)
    return near & np.isfinite(a) & np.isfinite(b)


def deflate_sharpe_ratio(
    returns: pd.Series | pd.DataFrame | Backtest, trials: Any, *, ann_factor: float, num_independent: int | None = None
) -> float | pd.Series:
    """Probability, in [0, 1], that the Sharpe ratio of a chosen portfolio is above the highest one to expect by luck
    among all trials (Bailey and López de Prado, The Deflated Sharpe Ratio, 2014).

    returns: of the chosen portfolio, [time], or of several, [time, lane]; fractions. Or the run itself; of it, and of
        its `bt.returns`, the bars from the latest start of the lanes on count (rules 7.17).
    trials: the annualized Sharpe ratios of all trials, the chosen ones included, as from `bt.sharpe_ratio()`. Trials
        without a finite one, as those that never trade, are left out, and one warning counts them.
    ann_factor: bars per year.
    num_independent: number of independent trials, if many of them are alike; default all of them.

    If the trials are the lanes of one backtest, `bt.deflated_sharpe_ratio()` is the same.
    Raises TypeError or ValueError that begins with the name of the argument.
    """
    returns = _counted(returns)
    if not isinstance(returns, pd.Series | pd.DataFrame):
        raise TypeError(f"returns: expected a Series [time] or a DataFrame [time, lane], got {type(returns).__name__}")
    refuse_masked(trials, "trials")
    tried = np.asarray(trials, np.float64).ravel()
    is_trial = np.isfinite(tried)
    if is_trial.sum() < 2:
        raise ValueError("trials: expected the finite Sharpe ratios of at least two trials")
    warn_of_left_out(int((~is_trial).sum()), len(tried))
    tried = tried[is_trial]
    if num_independent is not None and not 1 <= num_independent <= len(tried):
        raise ValueError(f"num_independent: expected a number from 1 to {len(tried)}, got {shown(num_independent)}")
    count = len(tried) if num_independent is None else num_independent
    probability = metrics.deflated_sharpe_ratio(
        returns.to_numpy(np.float64), ann_factor=ann_factor, var_sharpe=tried.var(ddof=1), nb_trials=count
    )
    if isinstance(returns, pd.Series):
        return float(probability)
    return pd.Series(probability, returns.columns, name="deflated_sharpe_ratio")
