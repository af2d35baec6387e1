"""The share of luck in a good score: the probability of overfitting, and the deflated Sharpe ratio of trials."""

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd

from jaxsim import metrics
from jaxsim.engine.base.fields import is_whole, shown
from jaxsim.frames.results.backtest import Backtest
from jaxsim.frames.results.metric_names import Metric, metric_name, scorer


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
        """Slope of the score outside against that inside, over halves: negative where what looked better became
        worse."""
        inside, outside = self.table["inside"].to_numpy(), self.table["outside"].to_numpy()
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

    Ties: the first of the best is chosen, and ranked below none of its equals. A trial whose score is NaN on a half is
    the worst there.

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
    score = scorer(metric, ann_factor)
    length = len(values) // num_blocks
    blocks = values[len(values) - length * num_blocks :].reshape(num_blocks, length, -1)
    chosen = _halves(int(num_blocks))
    if metric == "sharpe_ratio":
        inside = _sharpe_of_blocks(blocks, chosen, ann_factor)
    else:
        inside = np.stack(
            [np.asarray(score(blocks[np.flatnonzero(half)].reshape(-1, blocks.shape[2]))) for half in chosen]
        )
        if inside.shape != (len(chosen), blocks.shape[2]):
            raise ValueError(f"metric: {metric_name(metric)} does not give one score per trial")
    inside = np.where(np.isnan(inside), -np.inf, inside)
    outside = inside[::-1]  # the other half of the first is the last, and so on
    return Overfitting(*_judged(inside, outside, returns.columns), metric_name(metric))


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


def _sharpe_of_blocks(blocks: np.ndarray, chosen: np.ndarray, ann_factor: float) -> np.ndarray:
    """Sharpe ratios of every half, [half, trial], from the sums of each block. Deviations are from the mean of all
    bars, so that no digits are lost where means are large."""
    center = blocks.mean(axis=(0, 1))
    first, second = (blocks - center).sum(axis=1), ((blocks - center) ** 2).sum(axis=1)
    count = blocks.shape[1] * chosen.shape[1] // 2
    total, squares = chosen @ first, chosen @ second
    variance = (squares - total**2 / count) / (count - 1)
    flat = variance <= 1e-24 * np.maximum(center**2, 1e-300)
    spread = np.sqrt(np.where(flat, 1.0, variance))
    return np.where(flat, np.inf, (center + total / count) / spread) * ann_factor**0.5


def _judged(inside: np.ndarray, outside: np.ndarray, trials: pd.Index) -> tuple[float, pd.DataFrame]:
    best = inside.argmax(axis=1)
    rows = np.arange(len(best))
    theirs = outside[rows, best]
    rank = (outside <= theirs[:, None]).sum(axis=1) / (outside.shape[1] + 1)
    columns = {
        "trial": trials.take(best).to_flat_index() if trials.nlevels > 1 else trials.take(best),
        "inside": inside[rows, best],
        "outside": theirs,
        "rank": rank,
        "logit": np.log(rank / (1 - rank)),
    }
    return float((rank <= 0.5).mean()), pd.DataFrame(columns, pd.RangeIndex(len(best), name="half"))


def deflate_sharpe_ratio(
    returns: pd.Series | pd.DataFrame | Backtest, trials: Any, *, ann_factor: float, num_independent: int | None = None
) -> float | pd.Series:
    """Probability, in [0, 1], that the Sharpe ratio of a chosen portfolio is above the highest one to expect by luck
    among all trials (Bailey and López de Prado, The Deflated Sharpe Ratio, 2014).

    returns: of the chosen portfolio, [time], or of several, [time, lane]; fractions. Or the run itself; of it, and of
        its `bt.returns`, the bars from the latest start of the lanes on count (rules 7.17).
    trials: the annualized Sharpe ratios of all trials, the chosen ones included, as from `bt.sharpe_ratio()`. Trials
        without one (NaN) do not count.
    ann_factor: bars per year.
    num_independent: number of independent trials, if many of them are alike; default all of them.

    If the trials are the lanes of one backtest, `bt.deflated_sharpe_ratio()` is the same.
    Raises TypeError or ValueError that begins with the name of the argument.
    """
    returns = _counted(returns)
    if not isinstance(returns, pd.Series | pd.DataFrame):
        raise TypeError(f"returns: expected a Series [time] or a DataFrame [time, lane], got {type(returns).__name__}")
    tried = np.asarray(trials, np.float64).ravel()
    tried = tried[~np.isnan(tried)]
    if len(tried) < 2 or not np.isfinite(tried).all():
        raise ValueError("trials: expected the finite Sharpe ratios of at least two trials")
    if num_independent is not None and not 1 <= num_independent <= len(tried):
        raise ValueError(f"num_independent: expected a number from 1 to {len(tried)}, got {shown(num_independent)}")
    count = len(tried) if num_independent is None else num_independent
    probability = metrics.deflated_sharpe_ratio(
        returns.to_numpy(np.float64), ann_factor=ann_factor, var_sharpe=tried.var(ddof=1), nb_trials=count
    )
    if isinstance(returns, pd.Series):
        return float(probability)
    return pd.Series(probability, returns.columns, name="deflated_sharpe_ratio")
