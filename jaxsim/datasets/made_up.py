"""Prices that were never paid, for what is nowhere free: drawn from a seed, and labelled as made up."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from jaxsim.datasets.prices import Prices

#: What the labels of the assets are called, so that every table and picture of these prices says so.
LABEL = "made up"
#: Trading days of a year and minutes of a trading day, by which yearly figures are brought to one bar.
DAYS, MINUTES = 252, 390


def made_up(kind: str, seed: int = 0) -> Prices:
    """Made-up prices of one of three kinds. Their columns are named "made up", so that tables and pictures show it.

    kind: `"stock and bond"`: STOCK and BOND, each day of 2005 to 2024 that is no weekend and no holiday.
        `"leaver"`: five stocks, A to E, each such day of 2015 to 2024; E falls, and has no price from a day in 2019 on.
        `"minutes"`: three stocks, A to C, each minute from 9:30 to 15:59 in New York on each such day of 2023.
    seed: of the draws, a whole number >= 0. A seed gives the same prices as long as NumPy's generator PCG64 draws the
        same normal numbers.

    Returns are normal times a volatility that rises after large moves and dies away, with a common factor. They have no
    pattern that a strategy could find. Highs and lows contain opens and closes. Prices are those of total return.

    Returns open, high, low, close, volume; float64, NaN where there is no price.
    Raises ValueError that begins with `kind` or `seed`.
    """
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"kind: expected {', '.join(map(repr, _KINDS))}, got {kind!r}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed: expected a whole number >= 0, got {seed!r}")
    return _KINDS[kind](np.random.Generator(np.random.PCG64(seed)))


def _stock_and_bond(rng: np.random.Generator) -> Prices:
    index = _trading_days("2005", "2024")
    correlation = np.array([[1.0, -0.2], [-0.2, 1.0]])
    close = _walk(rng, len(index), np.array([0.08, 0.035]), np.array([0.17, 0.06]), correlation, DAYS)
    return _panel(rng, index, ["STOCK", "BOND"], close, gap=0.3)


def _leaver(rng: np.random.Generator) -> Prices:
    index = _trading_days("2015", "2024")
    mean, volatility = np.array([0.10, 0.08, 0.06, 0.05, 0.04]), np.array([0.25, 0.20, 0.30, 0.22, 0.28])
    close = _walk(rng, len(index), mean, volatility, np.full((5, 5), 0.4) + 0.6 * np.eye(5), DAYS)
    days_of_2019 = np.flatnonzero(index.year == 2019)
    last = int(rng.choice(days_of_2019[20:-20]))
    fall = np.linspace(0.0, np.log(0.2), 120)  # four fifths in its last 120 days
    close[last - 119 : last + 1, -1] *= np.exp(fall)
    prices = _panel(rng, index, list("ABCDE"), close, gap=0.3)
    for frame in (prices.open, prices.high, prices.low, prices.close, prices.volume):
        frame.iloc[last + 1 :, -1] = np.nan
    return prices


def _minutes(rng: np.random.Generator) -> Prices:
    days = _trading_days("2023", "2023")
    minutes = pd.to_timedelta(np.arange(MINUTES) + 9 * 60 + 30, unit="min")
    index = pd.DatetimeIndex(np.add.outer(days.to_numpy(), minutes.to_numpy()).ravel()).tz_localize("America/New_York")
    mean, volatility = np.array([0.08, 0.06, 0.10]), np.array([0.18, 0.22, 0.30])
    close = _walk(rng, len(index), mean, volatility, np.full((3, 3), 0.5) + 0.5 * np.eye(3), DAYS * MINUTES)
    return _panel(rng, index.rename("time"), list("ABC"), close, gap=0.1)


_KINDS: dict[str, Callable[[np.random.Generator], Prices]] = {
    "stock and bond": _stock_and_bond,
    "leaver": _leaver,
    "minutes": _minutes,
}


def _trading_days(first: str, last: str) -> pd.DatetimeIndex:
    """Weekdays without New Year's Day, Independence Day and Christmas Day."""
    days = pd.bdate_range(f"{first}-01-01", f"{last}-12-31", name="date")
    return days[~days.strftime("%m-%d").isin(["01-01", "07-04", "12-25"])]


def _walk(
    rng: np.random.Generator,
    num_bars: int,
    mean: np.ndarray,
    volatility: np.ndarray,
    correlation: np.ndarray,
    per_year: int,
) -> np.ndarray:
    """Closes [bar, asset]. mean, volatility: of log returns, per year.     per_year: bars per year."""
    shocks = rng.standard_normal((num_bars, len(mean))) @ np.linalg.cholesky(correlation).T
    size = np.abs(shocks).mean(axis=1)
    # The log of the common volatility: the sizes before it, in which an old one counts half after 20 days.
    alpha = 1 - 0.5 ** (DAYS / per_year / 20)
    before = np.concatenate([[0.0], (size - size.mean())[:-1]])
    level = pd.Series(before).ewm(alpha=alpha, adjust=False).mean().to_numpy()
    common = np.exp(0.4 * level / (size.std() * np.sqrt(alpha / (2 - alpha))))
    common /= np.sqrt(np.mean(common**2))
    returns = mean / per_year + volatility / np.sqrt(per_year) * common[:, None] * shocks
    return 100.0 * np.exp(returns.cumsum(axis=0))


def _panel(
    rng: np.random.Generator, index: pd.DatetimeIndex, assets: list[str], close: np.ndarray, gap: float
) -> Prices:
    """All five fields around closes. gap: of each open from the close before, as a fraction of the bar's move."""
    moves = np.diff(np.log(close), axis=0, prepend=np.log(100.0))
    typical = moves.std(axis=0)
    open_ = close * np.exp(-moves + gap * typical * rng.standard_normal(close.shape))
    above, below = (np.exp(0.3 * typical * np.abs(rng.standard_normal(close.shape))) for _ in range(2))
    volume = np.round(1e6 * np.exp(0.3 * rng.standard_normal(close.shape) + 0.5 * np.abs(moves) / typical))
    columns = pd.Index(assets, name=LABEL)

    def frame(values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, index.copy(), columns.copy())

    high, low = np.maximum(open_, close) * above, np.minimum(open_, close) / below
    return Prices(open=frame(open_), high=frame(high), low=frame(low), close=frame(close), volume=frame(volume))
