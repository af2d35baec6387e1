"""Small markets of one shape, so that tests share compiled programs, and a count of what is compiled."""

from contextlib import contextmanager

import jax
import jaxtyping
import numpy as np
import pandas as pd

import jaxsim as js

BARS = 60
INDEX = pd.date_range("2021-01-04", periods=BARS, freq="D", name="time")
ASSETS = pd.Index(list("ABC"), name="symbol")
THRESHOLDS = [0.02, 0.05, 0.1]
#: For programs that run once and whose last bits do not matter: they are not worth optimising.
AS_IT_STANDS = {"xla_backend_optimization_level": 0}


def prices(seed: int = 0, columns: pd.Index = ASSETS) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Close and open, without holes, with enough movement to cross thresholds of a few percent."""
    rng = np.random.default_rng(seed)
    shape = (BARS, len(columns))
    close = 100 * np.exp(rng.normal(0, 0.04, shape).cumsum(axis=0))
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(rng.normal(0, 0.005, shape))
    return pd.DataFrame(close, INDEX, columns), pd.DataFrame(open_, INDEX, columns)


def grouped(seed: int = 0, names: tuple = ("sector", "symbol")) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two groups of three and of two assets."""
    pairs = [("tech", "A"), ("tech", "B"), ("tech", "C"), ("bank", "B"), ("bank", "D")]
    return prices(seed, pd.MultiIndex.from_tuples(pairs, names=names))


def with_holes(close: pd.DataFrame, open_: pd.DataFrame, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Holes all over, and a last column that is listed at bar 20."""
    rng = np.random.default_rng(seed)
    close, open_ = close.mask(rng.random(close.shape) < 0.08), open_.mask(rng.random(close.shape) < 0.08)
    close.iloc[:20, -1], open_.iloc[:20, -1] = np.nan, np.nan
    return close, open_


def run(close, policy, open_=None, threshold=0.05, **options) -> js.Backtest:
    return js.backtest(close, policy, open=open_, trigger=js.Threshold(threshold), **options)


def look(weights, target=None, tradable=None, value: float = 200.0, xp=np) -> js.Observation:
    """What a policy sees of an account with these weights, at prices of 10."""
    weights = xp.asarray(weights, float)
    nothing = xp.zeros_like(weights)
    return js.Observation(
        step=1,
        weights=weights,
        units=weights * value / 10,
        value=value,
        cash=float((1 - weights.sum()) * value),
        debt=nothing,
        free_cash=float((1 - weights.sum()) * value),
        val_price=nothing + 10.0,
        target=nothing * xp.nan if target is None else xp.asarray(target, float),
        tradable=nothing == 0 if tradable is None else xp.asarray(tradable),
        key=None,
        features=None,
        closes=nothing[None],
    )


_compiled = [0]


def _listen(event: str, duration: float, **_) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled[0] += 1


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextmanager
def compilations():
    """A list that says, after the block, how many programs were compiled in it."""
    count, before = [], _compiled[0]
    yield count
    count.append(_compiled[0] - before)


@contextmanager
def as_users_run_it():
    """Without the import hook of the tests, whose type checks would speak before our own messages do."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def simulated(num_bars: int, num_assets: int = 5, *, seed: int = 0, holes: bool = False) -> js.Market:
    """Hourly prices of a random walk in NumPy's float64, on their own for the core; with holes and a late listing."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.0001, 0.008, (2 * num_bars, num_assets))
    path = 10 * np.exp(np.cumsum(steps, axis=0))
    open_, close = path[0::2], path[1::2]
    if holes:
        close = np.where(rng.random(close.shape) < 0.05, np.nan, close)
        open_ = np.where(rng.random(open_.shape) < 0.05, np.nan, open_)
        close[: num_bars // 5, 1] = open_[: num_bars // 5, 1] = np.nan
    return js.Market.from_frames(pd.DataFrame(close), open=pd.DataFrame(open_))


def on_host(tree):
    """With NumPy arrays."""
    return jax.tree.map(np.asarray, tree)
