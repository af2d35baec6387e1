"""One sweep, from prices to an `Outcome`."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

import allocators as al
import jaxsim as js
from jaxsim.cli.complaint import Complaint, as_complaint
from jaxsim.cli.outcome import Outcome
from jaxsim.cli.ranges import MOST
from jaxsim.frames.inputs.bars_per_year import BarsPerYear
from jaxsim.frames.inputs.prices import checked_prices

METRICS = (
    "total_return",
    "annualized_return",
    "annualized_volatility",
    "sharpe_ratio",
    "max_drawdown",
    "turnover",
    "num_rebalances",
    "total_fees",
)


@dataclass(frozen=True, eq=False)
class Job:
    """The arguments of a run.

    title, source: for the report.        close, open: prices [time, asset].
    thresholds, fees: values to sweep; fees are a level of the lanes only if there are several.
    weights: fixed targets by asset; None: equal weight over `over`, "all" or "tradable".
    names: names of the arguments on the command line, for complaints.

    The other fields are arguments of `js.backtest`.
    """

    title: str
    source: str
    close: pd.DataFrame
    open: pd.DataFrame | None
    thresholds: list[float]
    fees: list[float]
    weights: pd.Series | None = None
    over: str = "all"
    freq: str | None = None
    year_freq: str | None = None
    bars_per_year: float | None = None
    init_cash: float = 100.0
    init_units: pd.Series | None = None
    min_history: int = 0
    start: int | None = None
    engine: str = "compiled"
    names: dict[str, str] = field(default_factory=dict)

    @property
    def num_lanes(self) -> int:
        return len(self.thresholds) * len(self.fees)

    def simulate(self) -> js.Backtest:
        """Run all lanes.

        Raises Complaint for arguments that js.backtest refuses, too many lanes, and an unknown number of bars per year.
        """
        self._check()
        many = len(self.fees) > 1
        with as_complaint(self.names):
            return js.backtest(
                self.close,
                al.EqualWeight(over=self.over) if self.weights is None else al.FixedWeights(self.weights),
                open=self.open,
                trigger=js.Threshold(js.grid(threshold=self.thresholds)),
                fees=js.grid(fees=self.fees) if many else self.fees[0],
                min_history=self.min_history,
                start=self.start,
                init_cash=self.init_cash,
                init_units=self.init_units,
                freq=self.freq,
                year_freq=self.year_freq,
                bars_per_year=self.bars_per_year,
                engine=self.engine,
            )

    def _check(self) -> None:
        if self.num_lanes > MOST:
            raise Complaint(
                f"--threshold: {self.num_lanes:,} combinations with --fees; the command line runs at most {MOST:,}, "
                "js.sweep any number"
            )
        with as_complaint(self.names):
            checked_prices(self.close, self.open)
            annual = BarsPerYear(self.close.index).said(self.freq, self.year_freq, self.bars_per_year)
        if annual.known is None:
            raise Complaint(
                "--bars-per-year: the times do not tell how many bars make a year; say so, as in --bars-per-year 252, "
                "or how long a bar is, as in --freq 1h"
            )

    def outcome(self, bt: js.Backtest) -> Outcome:
        """The tables of a finished run; the best lane is the one with the highest Sharpe ratio."""
        metrics = pd.concat([getattr(bt, name)() for name in METRICS], axis=1)
        sharpe = metrics["sharpe_ratio"].to_numpy()
        best = int(np.where(np.isfinite(sharpe), sharpe, -np.inf).argmax())  # idle lanes have no ratio
        one = bt[metrics.index[best]]
        return Outcome(
            {**self._settings(bt), "best": best},
            metrics,
            pd.DataFrame(bt.value),
            one.weights,
            one.allocations.weights,
        )

    def _settings(self, bt: js.Backtest) -> dict[str, Any]:
        listed = self.close.notna().to_numpy().argmax(axis=0)
        return {
            "title": self.title,
            "source": self.source,
            "jaxsim": js.__version__,
            "assets": [str(asset) for asset in self.close.columns],
            "bars": len(self.close),
            "first": show_time(self.close.index[0]),
            "last": show_time(self.close.index[-1]),
            "listed_late": {
                str(self.close.columns[i]): show_time(self.close.index[k]) for i, k in enumerate(listed) if k > 0
            },
            "valued_at": "previous close" if self.open is None else "open",
            "thresholds": self.thresholds,
            "fees": self.fees,
            "weights": None if self.weights is None else {str(k): float(v) for k, v in self.weights.items()},
            "over": self.over,
            "bars_per_year": float(bt.ann_factor),
            "init_cash": self.init_cash,
            "init_units": None if self.init_units is None else {str(k): float(v) for k, v in self.init_units.items()},
            "min_history": self.min_history,
            "start": self.min_history if self.start is None else self.start,
            "engine": self.engine,
        }


def show_time(label: Any) -> str:
    """A short time label, without midnight and without zero seconds."""
    return re.sub(r"(\d\d:\d\d):00(?=$|[+-])", r"\1", str(label)).removesuffix(" 00:00")
