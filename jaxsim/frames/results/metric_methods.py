"""The functions of `jaxsim.metrics` as methods of a result."""

import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxsim.engine.metrics.names import needs_ann_factor
from jaxsim.frames.inputs.bars_per_year import BarsPerYear


@runtime_checkable
class Scored(Protocol):
    """A result whose returns can be scored."""

    def _annual(self, freq: Any, year_freq: Any, bars_per_year: Any) -> BarsPerYear:
        """How many bars make a year."""
        ...

    def _benchmark(self, benchmark: Any) -> np.ndarray:
        """Returns of the benchmark, [time, lane]; None stands for the benchmark of the result."""
        ...

    def _score(self, function: Callable, name: str, options: dict[str, Any]) -> Any:
        """The metric of the returns, with labels."""
        ...


def metric_method(function: Callable[..., Any]) -> Callable[..., Any]:
    """A metric of returns as a method, with the name and the docstring of the function.

    The method hands in the returns of the portfolio, the returns of the benchmark (`benchmark=` replaces them) and the
    number of bars per year: that of the run, or what `freq=`, `year_freq=`, `bars_per_year=` or, as the functions call
    it, `ann_factor=` says. It takes the settings of the function by keyword: numbers, arrays, or Series and DataFrames,
    which are aligned by label.
    """
    name = function.__name__
    parameters = inspect.signature(function).parameters
    has_benchmark, is_annual = "benchmark" in parameters, needs_ann_factor(function)

    def method(
        self: Scored,
        *,
        benchmark: Any = None,
        freq: Any = None,
        year_freq: Any = None,
        bars_per_year: Any = None,
        **options: Any,
    ) -> Any:
        if is_annual and options.get("ann_factor") is None:
            options["ann_factor"] = self._annual(freq, year_freq, bars_per_year).needed(name)
        if has_benchmark:
            options["benchmark"] = self._benchmark(benchmark)
        elif benchmark is not None:
            raise TypeError(f"{name}() takes no benchmark")
        return self._score(function, name, options)

    own = ["benchmark"] * has_benchmark + ["freq", "year_freq", "bars_per_year", "ann_factor"] * is_annual
    settings = [p for p in parameters.values() if p.name not in ("returns", "benchmark", *own)]
    keyword = inspect.Parameter.KEYWORD_ONLY
    shown = [inspect.Parameter(x, keyword, default=None) for x in own] + [p.replace(kind=keyword) for p in settings]
    receiver = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__signature__ = inspect.Signature([receiver, *shown])  # pyright: ignore[reportFunctionMemberAccess]
    method.__name__, method.__qualname__, method.__doc__ = name, f"Backtest.{name}", function.__doc__
    return method
