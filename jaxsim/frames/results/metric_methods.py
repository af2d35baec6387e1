"""The metrics as methods, labelled: a float for one lane, a Series over lanes named after the metric otherwise."""

import abc
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from jaxsim import metrics


class Metric:
    """A function of `jaxsim.metrics` as a method of `MetricMethods`.

    It is called with the returns of the portfolio, the benchmark's where it takes one (override by `benchmark=`), and
    `ann_factor` where it needs one (override by `freq=`, `year_freq=` or `ann_factor=`); all other keywords are the
    function's own.
    """

    def __init__(self, function: Callable):
        self.function = function
        self.__doc__ = function.__doc__
        parameters = inspect.signature(function).parameters
        self._needs_ann_factor = "ann_factor" in parameters
        self._needs_benchmark = "benchmark" in parameters

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, scores: "MetricMethods | None", owner: type) -> Callable[..., Any]:
        if scores is None:
            return self.function
        return functools.partial(self._score, scores)

    def _score(
        self, scores: "MetricMethods", *, benchmark: Any = None, freq: Any = None, year_freq: Any = None, **options: Any
    ) -> Any:
        if self._needs_ann_factor and "ann_factor" not in options:
            options["ann_factor"] = scores._ann_factor(freq, year_freq)
        if self._needs_benchmark:
            options["benchmark"] = scores._benchmark(benchmark)
        elif benchmark is not None:
            raise TypeError(f"{self.name}() takes no benchmark")
        score = np.asarray(self.function(scores._returns(), **options))
        return scores._label(score, self.name) if score.ndim == 1 else scores._label_path(score, self.name)


class MetricMethods(abc.ABC):
    """Every function of `jaxsim.metrics` on returns, as a method."""

    @abc.abstractmethod
    def _returns(self) -> np.ndarray:
        """[time, lane]"""

    @abc.abstractmethod
    def _benchmark(self, benchmark: Any) -> np.ndarray:
        """Returns of the benchmark, the default one for None, [time, lane]"""

    @abc.abstractmethod
    def _label(self, scores: np.ndarray, name: str) -> Any:
        """[lane] -> float or Series"""

    @abc.abstractmethod
    def _label_path(self, path: np.ndarray, name: str | None = None) -> pd.Series | pd.DataFrame:
        """[time, lane] -> Series or DataFrame"""

    @abc.abstractmethod
    def _ann_factor(self, freq: Any, year_freq: Any) -> float:
        """Bars per year; None for what the result knows itself."""

    total_return = Metric(metrics.total_return)
    annualized_return = Metric(metrics.annualized_return)
    annualized_volatility = Metric(metrics.annualized_volatility)
    sharpe_ratio = Metric(metrics.sharpe_ratio)
    sortino_ratio = Metric(metrics.sortino_ratio)
    calmar_ratio = Metric(metrics.calmar_ratio)
    omega_ratio = Metric(metrics.omega_ratio)
    information_ratio = Metric(metrics.information_ratio)
    drawdown = Metric(metrics.drawdown)
    max_drawdown = Metric(metrics.max_drawdown)
    downside_risk = Metric(metrics.downside_risk)
    alpha = Metric(metrics.alpha)
    beta = Metric(metrics.beta)
    tail_ratio = Metric(metrics.tail_ratio)
    common_sense_ratio = Metric(metrics.common_sense_ratio)
    value_at_risk = Metric(metrics.value_at_risk)
    cond_value_at_risk = Metric(metrics.cond_value_at_risk)
    capture = Metric(metrics.capture)
    up_capture = Metric(metrics.up_capture)
    down_capture = Metric(metrics.down_capture)
    skew = Metric(metrics.skew)
    kurtosis = Metric(metrics.kurtosis)
    ulcer_index = Metric(metrics.ulcer_index)
    martin_ratio = Metric(metrics.martin_ratio)
    deflated_sharpe_ratio = Metric(metrics.deflated_sharpe_ratio)

    rolling_total_return = Metric(metrics.rolling_total_return)
    rolling_annualized_return = Metric(metrics.rolling_annualized_return)
    rolling_annualized_volatility = Metric(metrics.rolling_annualized_volatility)
    rolling_sharpe_ratio = Metric(metrics.rolling_sharpe_ratio)
    rolling_sortino_ratio = Metric(metrics.rolling_sortino_ratio)
    rolling_calmar_ratio = Metric(metrics.rolling_calmar_ratio)
    rolling_omega_ratio = Metric(metrics.rolling_omega_ratio)
    rolling_information_ratio = Metric(metrics.rolling_information_ratio)
    rolling_max_drawdown = Metric(metrics.rolling_max_drawdown)
    rolling_downside_risk = Metric(metrics.rolling_downside_risk)
    rolling_alpha = Metric(metrics.rolling_alpha)
    rolling_beta = Metric(metrics.rolling_beta)
    rolling_tail_ratio = Metric(metrics.rolling_tail_ratio)
    rolling_common_sense_ratio = Metric(metrics.rolling_common_sense_ratio)
    rolling_value_at_risk = Metric(metrics.rolling_value_at_risk)
    rolling_cond_value_at_risk = Metric(metrics.rolling_cond_value_at_risk)
    rolling_capture = Metric(metrics.rolling_capture)
    rolling_up_capture = Metric(metrics.rolling_up_capture)
    rolling_down_capture = Metric(metrics.rolling_down_capture)
    rolling_ulcer_index = Metric(metrics.rolling_ulcer_index)
    rolling_martin_ratio = Metric(metrics.rolling_martin_ratio)


#: The metrics that are one number per lane, those of `Backtest` itself among them.
ONE_PER_LANE = {name for name in metrics.__all__ if not name.startswith("rolling_")}
ONE_PER_LANE -= {"drawdown", "returns_from_value", "portfolio_stats", "returns_stats"}
