"""The metrics that can be told from the running sums of a `streaming.Tally`; each as the function of its name in
`jaxsim.engine.metrics.returns`. They ask the tally for its parts alone, NumPy or JAX."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import numpy as np

from jaxsim.engine.base.arrays import namespace
from jaxsim.engine.metrics import returns as metrics
from jaxsim.engine.metrics.nan_statistics import divide, power, root


class OnlineMetric(eqx.Module):
    """A metric of a tally. parts: what it needs of it.     of: (tally, ann_factor) -> number per lane."""

    parts: tuple[str, ...]
    of: Callable[[Any, Any], Any]

    @property
    def needs_benchmark(self) -> bool:
        return bool(set(self.parts) & {"active", "pair", "all", "up", "down"})


def _from_two_bars(tally: Any, value: Any) -> Any:
    return namespace(value).where(tally.bars > 1, value, np.nan)


def _annualized_return(t: Any, a: Any) -> Any:
    return power(t.wealth, a / t.bars) - 1


def _sharpe_ratio(t: Any, a: Any) -> Any:
    return _from_two_bars(t, divide(t.moments.mean, t.moments.std(1), np.inf) * a**0.5)


def _downside_risk(t: Any, a: Any) -> Any:
    return root(divide(t.sides.squares, t.moments.count, np.nan)) * a**0.5


def _sortino_ratio(t: Any, a: Any) -> Any:
    return _from_two_bars(t, divide(t.moments.mean * a, _downside_risk(t, a), np.inf))


def _omega_ratio(t: Any, a: Any) -> Any:
    ratio = divide(t.sides.gains, t.sides.losses, np.inf)
    return namespace(ratio).where((a != 1) & (a <= -1), np.nan, ratio)


def _ulcer_index(t: Any, a: Any) -> Any:
    return root(divide(t.depth.squares, t.bars, np.nan))


def _skew(t: Any, a: Any) -> Any:
    xp, m = namespace(t.moments.count), namespace(t.moments.count).maximum(t.moments.count, 3)
    corrected = root(m * (m - 1)) / (m - 2) * t.moments.standardized(3)
    return xp.where(t.moments.count > 2, corrected, np.nan)


def _kurtosis(t: Any, a: Any) -> Any:
    xp, m = namespace(t.moments.count), namespace(t.moments.count).maximum(t.moments.count, 4)
    corrected = (m - 1) / ((m - 2) * (m - 3)) * ((m + 1) * t.moments.standardized(4) - 3 * (m - 1))
    return xp.where(t.moments.count > 3, corrected, np.nan)


def _alpha(t: Any, a: Any) -> Any:
    slope = _from_two_bars(t, t.pair.beta())
    return power(1 + t.pair.ours.mean - slope * t.pair.theirs.mean, a) - 1


#: Everything that can be told from sums, by the name of the metric.
ONLINE_METRICS = {
    "total_return": OnlineMetric(("wealth",), lambda t, a: t.wealth - 1),
    "annualized_return": OnlineMetric(("wealth",), _annualized_return),
    "annualized_volatility": OnlineMetric(("moments2",), lambda t, a: _from_two_bars(t, t.moments.std(1) * a**0.5)),
    "sharpe_ratio": OnlineMetric(("moments2",), _sharpe_ratio),
    "sortino_ratio": OnlineMetric(("moments1", "sides"), _sortino_ratio),
    "downside_risk": OnlineMetric(("moments1", "sides"), _downside_risk),
    "omega_ratio": OnlineMetric(("sides",), _omega_ratio),
    "max_drawdown": OnlineMetric(("depth",), lambda t, a: t.depth.deepest),
    "calmar_ratio": OnlineMetric(("depth",), lambda t, a: divide(_annualized_return(t, a), -t.depth.deepest, np.nan)),
    "ulcer_index": OnlineMetric(("depth",), _ulcer_index),
    "martin_ratio": OnlineMetric(("depth",), lambda t, a: divide(_annualized_return(t, a), _ulcer_index(t, a), np.nan)),
    "skew": OnlineMetric(("moments3",), _skew),
    "kurtosis": OnlineMetric(("moments4",), _kurtosis),
    "information_ratio": OnlineMetric(
        ("active",), lambda t, a: _from_two_bars(t, divide(t.active.mean, t.active.std(1), np.inf))
    ),
    "beta": OnlineMetric(("pair",), lambda t, a: _from_two_bars(t, t.pair.beta())),
    "alpha": OnlineMetric(("pair",), _alpha),
    "capture": OnlineMetric(("all",), lambda t, a: t.captures["all"].ratio(a)),
    "up_capture": OnlineMetric(("up",), lambda t, a: t.captures["up"].ratio(a)),
    "down_capture": OnlineMetric(("down",), lambda t, a: t.captures["down"].ratio(a)),
    "turnover": OnlineMetric(("trades",), lambda t, a: t.trades.turnover / 2),
    "turnover_two_way": OnlineMetric(("trades",), lambda t, a: t.trades.turnover),
    "num_rebalances": OnlineMetric(("trades",), lambda t, a: t.trades.rebalances),
    "total_fees": OnlineMetric(("trades",), lambda t, a: t.trades.fees),
    # What `deflated_sharpe_ratio` is made of, once the Sharpe ratios of all trials are known.
    "skew_biased": OnlineMetric(("moments3",), lambda t, a: t.moments.standardized(3)),
    "kurtosis_biased": OnlineMetric(("moments4",), lambda t, a: t.moments.standardized(4)),
    "num_returns": OnlineMetric(("moments1",), lambda t, a: t.moments.count),
}

#: The streamed numbers from which `metrics.deflated` tells that ratio.
PIECES = ("sharpe_ratio", "skew_biased", "kurtosis_biased", "num_returns")

#: The metrics of `jaxsim.metrics` that can be told so.
NAMES = tuple(name for name in ONLINE_METRICS if hasattr(metrics, name))


def needs_benchmark(names: Iterable[str]) -> bool:
    """Whether any of the metrics compares with a benchmark."""
    return any(ONLINE_METRICS[name].needs_benchmark for name in names)


def needs_ann_factor(name: str) -> bool:
    """Whether a metric is one of a year."""
    return "ann_factor" in inspect.signature(getattr(metrics, name)).parameters
