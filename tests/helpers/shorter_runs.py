"""Random markets whose assets come late, lack prices, leave and return, under policies of many kinds: a run on their
first bars equals the first bars of the run on all of them."""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import allocators as al
import jaxsim as js

#: Policies by name: the number of bars -> arguments of `js.backtest`.
POLICIES: dict[str, Callable[[int], dict[str, Any]]] = {
    "equal": lambda n: {"policy": al.EqualWeight(over="tradable"), "trigger": js.Threshold(0.04)},
    "equal over all": lambda n: {"policy": al.EqualWeight(), "trigger": js.HalfL1Drift(0.05) | js.EveryBars(23)},
    "short": lambda n: {"policy": al.FixedWeights([-0.3, 0.6, 0.5]), "trigger": js.Threshold(0.3, relative=True)},
    "edge": lambda n: {
        "policy": al.FixedWeights([0.2, 0.3, 0.5]),
        "trigger": js.Threshold(0.03),
        "destination": js.SpreadOver(3, of=js.ToEdge()),
    },
    "inverse volatility": lambda n: {"policy": al.InverseVolatility(lookback=12), "trigger": js.EveryBars(5)},
    "minimum variance": lambda n: {
        "policy": al.MinimumVariance(lookback=15),
        "trigger": js.L2Drift(0.1) & js.EveryBars(2),
    },
    "momentum": lambda n: {
        "policy": al.Momentum(lookback=9, temperature=0.5),
        "trigger": js.AtBars(np.arange(n) % 21 == 4),
        "destination": js.TurnoverCap(0.4),
    },
    "gradient": lambda n: {"policy": al.ExponentiatedGradient(0.5), "trigger": js.EveryBars(3), "min_history": 4},
}
NUM_ASSETS = 3
PATHS = ("value", "cash", "units", "rebalances", "gross_exposure")
TABLES = ("orders", "incidents", "decisions")


@dataclass
class Markets:
    """Cases side by side: prices [time, (case, asset)], and the assets that leave at a date that is known."""

    close: pd.DataFrame
    open: pd.DataFrame | None
    delistings: dict
    stale: Any
    drift_without_price: str

    def stops(self, rng: np.random.Generator, count: int) -> list[int]:
        """Numbers of bars, at which each asset has been listed: a table of an asset without any price is refused."""
        listed = int(self.close.notna().to_numpy().argmax(axis=0).max())
        return [int(x) for x in rng.integers(listed + 1, len(self.close), count)]

    def run(self, policy: str, stop: int, engine: str) -> js.Backtest:
        """The first `stop` bars of all cases."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return js.backtest(
                self.close.iloc[:stop],
                open=None if self.open is None else self.open.iloc[:stop],
                stale=self.stale,
                delistings=self.delistings,
                drift_without_price=self.drift_without_price,
                fees=0.002,
                engine=engine,
                **POLICIES[policy](len(self.close.iloc[:stop])),
            )


def make_markets(rng: np.random.Generator, num_cases: int, num_bars: int) -> Markets:
    """An index of days, business days, hours, days with gaps, or numbers; each asset is listed late, holed, gone for
    good, gone for a while, or whole."""
    index = _index(rng, num_bars)
    columns = pd.MultiIndex.from_product([range(num_cases), list("ABC")], names=["case", "asset"])
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.03, (num_bars, len(columns))), axis=0))
    open_ = close * np.exp(rng.normal(0, 0.01, close.shape))
    delistings = {}
    for column, label in enumerate(columns):
        whole = (slice(0, num_bars), column)
        if rng.random() < 0.3:
            whole = (slice(int(rng.integers(1, num_bars // 3)), num_bars), column)
            close[: whole[0].start, column] = open_[: whole[0].start, column] = np.nan
        for _ in range(rng.integers(0, 4)):
            begin, length = whole[0].start + int(rng.integers(1, num_bars)), int(rng.choice([1, 3, 9, 10, 11, 12, 30]))
            close[begin : begin + length, column] = np.nan
            if rng.random() < 0.8:
                open_[begin : begin + length, column] = np.nan
        if rng.random() < 0.25:
            begin = whole[0].start + int(rng.integers(1, num_bars))
            close[begin:, column] = open_[begin:, column] = np.nan
        if rng.random() < 0.25:
            date = index[int(rng.integers(0, num_bars))]
            delistings[label] = date if rng.random() < 0.5 else (date, float(rng.choice([0.0, 10.0, 200.0])))
    return Markets(
        pd.DataFrame(close, index, columns),
        pd.DataFrame(open_, index, columns) if rng.random() < 0.6 else None,
        delistings,
        [(10, "7D"), 3, None, "5D"][rng.choice(4, p=[0.6, 0.2, 0.1, 0.1])] if index.dtype.kind == "M" else 10,
        "ignored" if rng.random() < 0.8 else "counts",
    )


def _index(rng: np.random.Generator, num_bars: int) -> pd.Index:
    kind = rng.integers(5)
    if kind == 0:
        return pd.RangeIndex(num_bars)
    if kind == 1:
        days = pd.date_range("2021-01-01", periods=2 * num_bars)
        return days[np.sort(rng.choice(2 * num_bars, num_bars, replace=False))]
    return pd.date_range("2021-01-01", periods=num_bars, freq=["D", "B", "17h"][kind - 2])


def differing_beginnings(m: Markets, policy: str, stops: dict[str, list[int]], tally: Counter) -> list[str]:
    """Where runs of the first bars differ from the beginning of the run of all bars by the same engine, in more than
    the last digits, or by the reference engine, by more than 1e-9.

    stops: by engine the numbers of bars.
    """
    wrong, whole = [], {engine: m.run(policy, len(m.close), engine) for engine in ("reference", *stops)}
    tally["delisted"] += len(whole["reference"].incidents)
    tally["orders"] += len(whole["reference"].orders)
    for engine, numbers in stops.items():
        for stop in [*numbers, len(m.close)]:
            part = whole[engine] if stop == len(m.close) else m.run(policy, stop, engine)
            tally["compared"] += m.close.columns.get_level_values("case").nunique()
            for of in {"reference", engine}:
                text = _difference(part, whole[of], m.close.index[:stop], 1e-12 if of == engine else 1e-9)
                wrong += [f"{policy}, {engine}, {stop} bars, against all of {of}: {text}"] if text else []
    return wrong


def _difference(part: js.Backtest, whole: js.Backtest, index: pd.Index, rtol: float) -> str | None:
    for name in PATHS:
        a, b = (pd.DataFrame(getattr(x, name)).iloc[: len(index)].to_numpy(float) for x in (part, whole))
        floor = 0.0 if name == "rebalances" else rtol * 100
        same = np.isclose(a, b, rtol=rtol, atol=floor, equal_nan=True)
        if not same.all():
            bar, column = map(int, np.argwhere(~same)[0])
            return f"{name} of column {column} at {index[bar]}: {a[bar, column]!r} against {b[bar, column]!r}"
    for name in TABLES:
        a, b = (pd.DataFrame(getattr(x, name)) for x in (part, whole))
        b = b[b["timestamp"].isin(index)] if "timestamp" in b else b
        a, b = (x[sorted(set(a) & set(b))].reset_index(drop=True) for x in (a, b))
        try:
            pd.testing.assert_frame_equal(a, b, rtol=rtol, atol=100 * rtol, check_dtype=False)
        except AssertionError as error:
            return f"{name}: {error}"
    return None
