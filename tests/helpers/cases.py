"""Random long-only cases for the engines to agree on. One batch is one set of shapes: its cases run side by side as
groups of one frame, so that values vary and programs do not."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

import allocators as al
import jaxsim as js

#: How thresholds and fees are given: the shape of each, per case.
FORMS = ("number", "asset", "bar", "bar and asset")


@dataclass
class Batch:
    """Cases that share shapes: prices of every case, and the parameters in one of the FORMS."""

    close: pd.DataFrame  # [time, (case, asset)]
    open: pd.DataFrame | None
    price: pd.DataFrame | None
    threshold: object
    fees: object
    weights: pd.Series  # by (case, asset)
    min_history: int
    init_cash: float
    form: str = field(default="number")

    @property
    def cases(self) -> list:
        return list(dict.fromkeys(self.close.columns.get_level_values("case")))

    def run(self, engine: str = "compiled", policy=None, key: int = 0) -> js.Backtest:
        policy = al.FixedWeights(self.weights) if policy is None else policy
        return js.backtest(
            self.close,
            policy,
            open=self.open,
            price=self.price,
            trigger=js.Threshold(self.threshold),
            fees=self.fees,
            min_history=self.min_history,
            start=0,
            init_cash=self.init_cash,
            freq="1D",
            year_freq="365D",
            engine=engine,
            key=key,
            delistings="hold",
            drift_without_price="counts",
        )


def make_batch(rng: np.random.Generator, sizes: list[int], num_bars: int, form: str = "number") -> Batch:
    """One case per entry of `sizes`, which is its number of assets."""
    index = pd.date_range("2020-01-01", periods=num_bars, freq="D")
    with_open, with_price = rng.random() < 0.8, rng.random() < 0.25
    frames = {case: random_prices(rng, num_bars, size) for case, size in enumerate(sizes)}
    columns = pd.MultiIndex.from_tuples(
        [(case, f"A{n}") for case, size in enumerate(sizes) for n in range(size)], names=["case", "asset"]
    )

    def frame(which: int) -> pd.DataFrame:
        return pd.DataFrame(np.concatenate([f[which] for f in frames.values()], axis=1), index, columns)

    per_case = [random_parameters(rng, num_bars, size, form) for size in sizes]
    return Batch(
        close=frame(0),
        open=frame(1) if with_open else None,
        price=frame(2) if with_price else None,
        threshold=_parameter([p[0] for p in per_case], form, index, columns),
        fees=_parameter([p[1] for p in per_case], form, index, columns),
        weights=pd.Series(np.concatenate([random_weights(rng, size) for size in sizes]), columns),
        min_history=int(rng.choice([0, 0, 1, 17])),
        init_cash=float(rng.choice([100.0, 100.0, 1e7, 1.0])),
        form=form,
    )


def random_prices(rng: np.random.Generator, num_bars: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Close, open and execution prices [time, asset]: random walks with holes, late listings, copies, odd scales."""
    volatility = 10 ** rng.uniform(-3, -0.8)
    moves = rng.normal(0, volatility, (num_bars, size)) + volatility * rng.normal(0, 0.5, (num_bars, 1))
    scale = 10.0 ** rng.choice([-6, 0, 1, 2, 4], size)
    close = scale * np.exp(np.cumsum(moves, axis=0))
    if rng.random() < 0.15:
        close[:] = close[:, :1]  # identical columns: every order value ties
    gap = np.exp(rng.normal(0, volatility * 0.3, close.shape))
    open = np.concatenate([close[:1] * gap[:1], close[:-1] * gap[1:]])
    price = (open + close) / 2
    if rng.random() < 0.4:
        for x in (close, open, price):
            x[rng.random(x.shape) < 0.05] = np.nan
    if rng.random() < 0.4:
        for n in range(size):
            listed = int(rng.integers(0, num_bars // 2)) if rng.random() < 0.4 else 0
            for x in (close, open, price):
                x[:listed, n] = np.nan
    close[-1] = np.where(np.isnan(close).all(axis=0), scale, close[-1])
    return close, open, price


def random_weights(rng: np.random.Generator, size: int) -> np.ndarray:
    """Targets that sum to one, to less, to more; one asset alone; equal; some zero."""
    kind = rng.integers(6)
    if kind == 0:
        return np.full(size, 1 / size)
    if kind == 1:
        return np.eye(size)[rng.integers(size)]
    weights = rng.dirichlet(np.ones(size))
    if kind == 2:
        weights[rng.random(size) < 0.3] = 0.0
    return weights * {3: rng.uniform(0.1, 1), 4: rng.uniform(1, 1.5)}.get(int(kind), 1.0)


def random_parameters(rng: np.random.Generator, num_bars: int, size: int, form: str) -> tuple:
    """A threshold and fees in one form; a threshold of zero rebalances at every bar. A number, or one per bar, is
    shared by all cases of a batch, so there it is never zero: that would leave nothing to vary."""
    shape = {"number": (), "asset": (size,), "bar": (num_bars, 1), "bar and asset": (num_bars, size)}[form]
    is_shared = form in ("number", "bar")
    threshold = rng.uniform(0, 0.2, shape) if is_shared or rng.random() < 0.85 else np.zeros(shape)
    fees = rng.choice([1.0] if is_shared else [0.0, 1.0, 1.0, -0.2]) * rng.uniform(0, 0.02, shape)
    return threshold, fees


def _parameter(values: list[np.ndarray], form: str, index: pd.Index, columns: pd.MultiIndex) -> object:
    """Parameters of all cases as one argument. A number or one per bar is the first case's, for all of them."""
    if form == "number":
        return float(values[0])
    if form == "asset":
        return pd.Series(np.concatenate(values), columns)
    if form == "bar":
        return pd.Series(values[0][:, 0], index)
    return pd.DataFrame(np.concatenate(values, axis=1), index, columns)


def assert_same_portfolio(a: js.Backtest, b: js.Backtest, rtol: float = 1e-9) -> None:
    """Same decisions, targets, orders and values."""
    np.testing.assert_array_equal(a.rebalances, b.rebalances)
    x, y = a.orders, b.orders
    assert len(x) == len(y), f"{len(x)} orders against {len(y)}"
    exact = [c for c in x.columns if c not in ("size", "price", "fees")]
    pd.testing.assert_frame_equal(x[exact], y[exact])
    for column in ("size", "price", "fees"):
        np.testing.assert_allclose(x[column], y[column], rtol=rtol, atol=1e-12, err_msg=column)
    np.testing.assert_allclose(a.value, b.value, rtol=rtol)
    np.testing.assert_allclose(a.allocations.targets, b.allocations.targets, rtol=rtol)
    for one, other in zip(a._paths.ledgers, b._paths.ledgers, strict=True):
        np.testing.assert_array_equal(one.info, other.info)
        np.testing.assert_allclose(one.request, other.request, rtol=rtol, atol=1e-9)
