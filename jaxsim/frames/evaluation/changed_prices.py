"""Changed prices: the same up to the open of a bar, different ones from there on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from jaxsim.engine.trading.market import Market
from jaxsim.frames.inputs.prices import forward_fill

#: The kinds of change: random factors; rises turned into falls; missing prices.
KINDS = ("noise", "mirrored", "missing")


def factors(mark: np.ndarray, cut: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """The factors on the closes, [time, asset]: 1 before bar `cut`.

    mark: the last closes known, [time, asset].     kind: one of KINDS.
    """
    factors = np.ones(mark.shape)
    later = mark[cut:]
    if kind == "noise":
        factors[cut:] = np.exp(rng.normal(0, 0.2, later.shape))
    elif kind == "mirrored":
        mirrored = (mark[cut - 1] / later) ** 2
        factors[cut:] = np.where(np.isnan(mirrored), np.exp(rng.normal(0, 0.2, later.shape)), mirrored)
    else:
        factors[cut:] = np.nan
    return factors


def one_bar_later(factor: np.ndarray) -> np.ndarray:
    """The factors on opens: those of the close before, so that prices do not jump from close to open."""
    return np.concatenate([np.ones((1, factor.shape[1])), factor[:-1]])


@dataclass(frozen=True, eq=False)
class MarketSource:
    """A market of the core, for functions of a `Market`."""

    market: Market

    @property
    def index(self) -> pd.Index:
        return pd.RangeIndex(self.market.num_bars)

    @property
    def mark(self) -> np.ndarray:
        return forward_fill(np.asarray(self.market.close, np.float64))

    def arguments(self, factor: np.ndarray | None = None) -> tuple[tuple, dict]:
        """The arguments for a function, positional and by keyword; with `factor`, of changed prices."""
        if factor is None:
            return (self.market,), {}
        m, opens = self.market, one_bar_later(factor)
        changed = {name: np.asarray(getattr(m, name)) * factor for name in ("close", "price", "mark")}
        changed["val_price"] = np.asarray(m.val_price) * opens
        as_before = {name: x.astype(m.dtype) for name, x in changed.items()}
        return (replace(m, **as_before),), {}


@dataclass(frozen=True, eq=False)
class FrameSource:
    """Prices as DataFrames, for functions of `close` that may also take `open=` and `price=`."""

    close: pd.DataFrame
    open: pd.DataFrame | None
    price: pd.DataFrame | None

    @property
    def index(self) -> pd.Index:
        return self.close.index

    @property
    def mark(self) -> np.ndarray:
        return forward_fill(self.close.to_numpy(np.float64))

    def arguments(self, factor: np.ndarray | None = None) -> tuple[tuple, dict]:
        other_prices = {name: x for name, x in (("open", self.open), ("price", self.price)) if x is not None}
        if factor is None:
            return (self.close,), other_prices
        opens = one_bar_later(factor)
        return (self.close * factor,), {n: x * (opens if n == "open" else factor) for n, x in other_prices.items()}


def futures(
    mark: np.ndarray, bars: np.ndarray, kinds: tuple[str, ...], seed: int = 0
) -> Iterator[tuple[int, str, np.ndarray]]:
    """(bar, kind, factors) of every bar and kind of change."""
    rng = np.random.default_rng(seed)
    for bar in bars:
        for kind in kinds:
            yield int(bar), kind, factors(mark, int(bar), kind, rng)
