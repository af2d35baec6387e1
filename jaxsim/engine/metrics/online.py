"""Metrics without paths: what a lane carries along so that its scores can be told at the end.

A `RunningSums` holds running sums of one lane, and takes a block of bars at a time, [block]; with fields [lane] it
holds the sums of many and takes blocks [block, lane]. It has only the parts that the metrics asked for need.

Sums of powers are taken about one of the lane's first returns, not about zero (Chan, Golub and LeVeque 1983, "shifted
data"): they are plain sums, and they are stable. Since the shift is one of the n values, its squared distance from
their mean is at most n times their variance, so that the variance has a relative error of about n times 1e-16 at worst:
1e-9 after ten million bars. Equal returns have a variance of exactly zero, as in `jaxsim.metrics`.

An infinite return, as from a value of zero, leaves neither beta nor alpha. Percentiles need all returns at once:
`streamed.STREAMED` are the metrics that do not.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float

from jaxsim.engine.base.arrays import Array, namespace, where
from jaxsim.engine.metrics import returns as metrics
from jaxsim.engine.metrics.nan_statistics import divide, is_zero, over_pain, power, ratio, root

#: One number per lane, and one per bar of a block.
Numbers = Float[Array, "*lanes"]
Block = Float[Array, "block *lanes"]
Flags = Bool[Array, "block *lanes"]


def returns_in_block(values: Float[Array, "rows *lanes"]) -> Block:
    """`metrics.returns_from_value` where nothing is differentiated, and up to a value of zero, which takes fewer steps.

    values: currency before the block and after each of its bars, [1 + block, *lanes].
    """
    before, after = values[:-1], values[1:]
    return (after - before) / before


def _sums(*terms: Block) -> tuple[Numbers, ...]:
    """The sum of each over the block, all in one pass."""

    def add(a: tuple, b: tuple) -> tuple:
        return tuple(x + y for x, y in zip(a, b, strict=True))

    return tuple(lax.reduce(terms, tuple(np.zeros((), x.dtype) for x in terms), add, (0,)))


def _highest(x: Block, counts: Flags) -> tuple[Numbers, Bool[Array, "*lanes"]]:
    """The highest of the block, and whether any counts."""

    def both(a: tuple, b: tuple) -> tuple:
        return jnp.maximum(a[0], b[0]), a[1] | b[1]

    highest, is_there = lax.reduce((x, counts), (np.full((), -np.inf, x.dtype), np.zeros((), bool)), both, (0,))
    return highest, is_there


class Moments(eqx.Module):
    """Sums of powers of a series about one of its first known values; NaN values are left out.

    shift: that value; 0 before there is one.     count: number of known values.
    sums: of (x - shift)**k, k = 1, 2, ... up to the order that is needed.
    """

    shift: Numbers
    count: Numbers
    sums: tuple[Numbers, ...]

    @classmethod
    def start(cls, order: int, zero: Numbers) -> "Moments":
        return cls(zero, zero, (zero,) * order)

    def add(self, x: Block, counts: Flags) -> "Moments":
        known = counts & ~jnp.isnan(x)

        def from_block() -> Numbers:
            finite = known & (jnp.abs(x) < jnp.inf)
            highest, is_there = _highest(where(finite, x, -jnp.inf), finite)
            return where((self.count == 0) & is_there, highest, self.shift)

        shift = lax.cond((self.count == 0).any(), from_block, lambda: self.shift)
        offset = where(known, x - shift, 0)
        powers = [offset]
        while len(powers) < len(self.sums):
            powers.append(powers[-1] * offset)
        count, *sums = _sums(known.astype(x.dtype), *powers)
        return Moments(shift, self.count + count, tuple(old + new for old, new in zip(self.sums, sums, strict=True)))

    @property
    def mean(self) -> Any:
        return self.shift + divide(self.sums[0], self.count, np.nan)

    def central(self, order: int) -> Any:
        """Mean of (x - mean)**order, order 2 to 4; NaN without values."""
        n = self.count
        d, *raw = (divide(total, n, np.nan) for total in self.sums)
        if order == 2:
            moment = raw[0] - d**2
        elif order == 3:
            moment = raw[1] - 3 * d * raw[0] + 2 * d**3
        else:
            moment = raw[2] - 4 * d * raw[1] + 6 * d**2 * raw[0] - 3 * d**4
        # Rounding must not make a negative variance of a series with a spread of one unit in the last place.
        return namespace(moment).maximum(moment, 0) if order != 3 else moment

    def std(self, ddof: int) -> Any:
        """As `nanstats.std`."""
        xp, free = namespace(self.count), self.count - ddof
        return root(divide(self.central(2) * self.count, xp.where(free > 0, free, np.nan), np.nan))

    def standardized(self, order: int) -> Any:
        """As `nanstats.standardized_moment`."""
        xp, scale = namespace(self.count), self.std(0)
        varies = ~(is_zero(scale) | xp.isnan(scale))
        return xp.where(varies, self.central(order) / xp.where(varies, scale, 1) ** order, np.nan)


class Depth(eqx.Module):
    """Drawdowns (rules 7.4).

    peak: highest wealth so far.    has_lost: whether there was any loss.    deepest: drawdown, <= 0.
    squares: sum of squared drawdowns.
    """

    peak: Numbers
    has_lost: Bool[Array, "*lanes"]
    deepest: Numbers
    squares: Numbers

    @classmethod
    def start(cls, zero: Numbers) -> "Depth":
        return cls(zero - jnp.inf, zero != 0, zero, zero)

    def add(self, growth: Block, wealth: Numbers, counts: Flags) -> "tuple[Depth, Numbers]":
        """growth: 1 + returns.    wealth: product of all before the block.    Returns it after the block, too."""

        def one(before: tuple, bar: tuple) -> tuple[tuple, None]:
            (depth, wealth), (growth, counts) = before, bar
            wealth = wealth * growth
            peak = where(counts, jnp.maximum(depth.peak, wealth), depth.peak)
            has_lost = depth.has_lost | (counts & (growth < 1))
            below = where(counts & has_lost, where(peak > 0, wealth / peak, jnp.nan) - 1, 0)
            after = Depth(peak, has_lost, jnp.minimum(depth.deepest, below), depth.squares + below**2)
            return (after, wealth), None

        counts = jnp.broadcast_to(counts, growth.shape)
        # Longer strides of the loop are no faster, and take long to compile.
        return lax.scan(one, (self, wealth), (growth, counts), unroll=4)[0]


class Sides(eqx.Module):
    """Gains and losses apart: sums of max(r, 0) and max(-r, 0), and of the squares of the latter."""

    gains: Numbers
    losses: Numbers
    squares: Numbers

    def add(self, r: Block, counts: Flags) -> "Sides":
        known = where(counts & ~jnp.isnan(r), r, 0)
        gain, loss = jnp.maximum(known, 0), jnp.maximum(-known, 0)
        gained, lost, squares = _sums(gain, loss, loss**2)
        return Sides(self.gains + gained, self.losses + lost, self.squares + squares)


class Pair(eqx.Module):
    """Sums over the bars on which both the lane and its benchmark have a return, about the first of each.

    ours, theirs: moments of orders 1 and 2.     product: sum of the products of the offsets.
    """

    ours: Moments
    theirs: Moments
    product: Numbers

    @classmethod
    def start(cls, zero: Numbers) -> "Pair":
        return cls(Moments.start(1, zero), Moments.start(2, zero), zero)

    def add(self, r: Block, b: Block, counts: Flags) -> "Pair":
        known = counts & ~(jnp.isnan(r) | jnp.isnan(b))
        ours, theirs = self.ours.add(r, known), self.theirs.add(b, known)
        product = where(known, (r - ours.shift) * (b - theirs.shift), 0)
        return Pair(ours, theirs, self.product + product.sum(axis=0))

    def beta(self) -> Any:
        xp, n, variance = namespace(self.product), self.ours.count, self.theirs.central(2)
        means = divide(self.ours.sums[0], n, np.nan) * divide(self.theirs.sums[0], n, np.nan)
        moves = ~(is_zero(root(variance)) | xp.isnan(variance))
        slope = xp.where(moves, divide(self.product, n, np.nan) - means, 0) / xp.where(moves, variance, 1)
        return xp.where(moves, slope, np.nan)


class Captured(eqx.Module):
    """What one unit of money becomes, ours and the benchmark's, over all bars."""

    ours: Numbers
    theirs: Numbers
    bars: Numbers

    @classmethod
    def start(cls, zero: Numbers) -> "Captured":
        return cls(zero + 1, zero + 1, zero)

    def add(self, r: Block, b: Block, counts: Flags) -> "Captured":
        ours, theirs = (jnp.prod(_growth(x, counts), axis=0) for x in (r, b))
        return Captured(self.ours * ours, self.theirs * theirs, self.bars + counts.sum(axis=0))

    def ratio(self, ann_factor: Any) -> Any:
        return metrics.capture_of(self.ours - 1, self.theirs - 1, self.bars, ann_factor)


class CapturedPerBar(eqx.Module):
    """Sums of log(1 + return), ours and the benchmark's, over the bars that have both, and the number of those bars."""

    ours: Numbers
    theirs: Numbers
    bars: Numbers

    @classmethod
    def start(cls, zero: Numbers) -> "CapturedPerBar":
        return cls(zero, zero, zero)

    def add(self, r: Block, b: Block, counts: Flags) -> "CapturedPerBar":
        counts = counts & ~(jnp.isnan(r) | jnp.isnan(b))
        ours, theirs, bars = _sums(*(jnp.log1p(where(counts, x, 0)) for x in (r, b)), counts.astype(r.dtype))
        return CapturedPerBar(self.ours + ours, self.theirs + theirs, self.bars + bars)

    def ratio(self, ann_factor: Any) -> Any:
        """The geometric means over one another; a log of zero is minus infinity, and the mean then -1."""
        xp = namespace(self.bars)
        return ratio(*(xp.expm1(divide(total, self.bars, np.nan)) for total in (self.ours, self.theirs)))


class TradeSums(eqx.Module):
    """What rebalancing came to.

    turnover: sum of traded value / value before.   fees: currency.   rebalances: bars on which the allocator was asked.
    """

    turnover: Numbers
    fees: Numbers
    rebalances: Numbers


class Ruin(eqx.Module):
    """What became of accounts that were worth nothing (rules 7.19).

    is_ruined: whether the account was worth nothing after any bar so far, also before those that count.
    opening, ending: value before the first bar that counts, and after the last; currency.
    """

    is_ruined: Bool[Array, "*lanes"]
    opening: Numbers
    ending: Numbers

    @property
    def total(self) -> Any:
        """What one unit of money has become."""
        return divide(self.ending, namespace(self.opening).maximum(self.opening, 0), np.nan)


class RunningSums(eqx.Module):
    """The running sums of a lane; a part that no metric needs is None.

    bars: number of bars so far, those without a return among them.    wealth: product of 1 + r.
    ruin: None where only returns are known, all above -1.
    """

    bars: Numbers
    wealth: Numbers | None
    moments: Moments | None
    depth: Depth | None
    sides: Sides | None
    active: Moments | None
    pair: Pair | None
    captures: dict[str, Captured | CapturedPerBar]
    trades: TradeSums | None
    ruin: Ruin | None = None

    @classmethod
    def start(cls, names: Iterable[str], dtype: Any, shape: tuple[int, ...] = ()) -> "RunningSums":
        """Before the first bar.

        names: metrics, of `ONLINE_METRICS`.      shape: () for one lane, [lane] for many at once.
        """
        needs, zero = {part for name in names for part in ONLINE_METRICS[name].parts}, jnp.zeros(shape, dtype)
        order = max((int(part[-1]) for part in needs if part.startswith("moments")), default=0)
        captures = {"all": Captured, "up": CapturedPerBar, "down": CapturedPerBar}
        return cls(
            zero,
            zero + 1 if {"wealth", "depth"} & needs else None,
            Moments.start(order, zero) if order else None,
            Depth.start(zero) if "depth" in needs else None,
            Sides(zero, zero, zero) if "sides" in needs else None,
            Moments.start(2, zero) if "active" in needs else None,
            Pair.start(zero) if "pair" in needs else None,
            {name: kind.start(zero) for name, kind in captures.items() if name in needs},
            TradeSums(zero, zero, zero) if "trades" in needs else None,
        )

    def add(self, r: Block, counts: Any, benchmark: Any = None) -> "RunningSums":
        """Some more bars in a row.

        r: simple returns, [block, *lanes], NaN where unknown.       counts: which of them are to be added, bool, of a
        shape that broadcasts to theirs.      benchmark: its returns, likewise, where `needs_benchmark`.
        """
        counts = jnp.asarray(counts) if jnp.ndim(counts) == r.ndim else jnp.broadcast_to(counts, r.shape)
        num_bars = counts.sum(axis=0, dtype=r.dtype)
        counts = jnp.broadcast_to(counts, r.shape)
        wealth, depth, active, pair, captures = self.wealth, self.depth, self.active, self.pair, self.captures
        if wealth is not None and depth is not None:
            depth, wealth = depth.add(_growth(r, counts), wealth, counts)
        elif wealth is not None:
            wealth = wealth * jnp.prod(_growth(r, counts), axis=0)
        if benchmark is not None:
            b = jnp.broadcast_to(benchmark, r.shape)
            chosen = {"all": counts, "up": counts & (b > 0), "down": counts & (b < 0)}
            active = None if active is None else active.add(r - b, counts)
            pair = None if pair is None else pair.add(r, b, counts)
            captures = {name: x.add(r, b, chosen[name]) for name, x in captures.items()}
        return replace(
            self,
            bars=self.bars + num_bars,
            wealth=wealth,
            moments=None if self.moments is None else self.moments.add(r, counts),
            depth=depth,
            sides=None if self.sides is None else self.sides.add(r, counts),
            active=active,
            pair=pair,
            captures=captures,
        )

    def rebalanced(self, happens: Any, traded: Numbers, value: Any, fees: Numbers, asked: Any = True) -> "RunningSums":
        """What happened at the end of a rebalance.

        happens: whether there was one.     traded: sum of abs(units * price) of all fills, currency.
        value: of the account before it, currency.      fees: paid, currency.
        asked: whether the allocator was asked, or only a further part of the rebalance before was traded.
        """
        if self.trades is None:
            return self
        share = where(happens, divide(traded, jnp.abs(value), 0.0), 0)
        turnover, fees = self.trades.turnover + share, self.trades.fees + where(happens, fees, 0)
        return replace(self, trades=TradeSums(turnover, fees, self.trades.rebalances + (happens & asked)))

    def finish(self, names: Iterable[str], ann_factor: Any = None) -> dict[str, Any]:
        """The metrics by name, one number per lane: those of `jaxsim.metrics` with their default options.

        ann_factor: bars per year, for the metrics that need it.
        Metrics of returns are NaN before the first bar. NumPy where the fields are NumPy. `deflated_sharpe_ratio` is
        one of many trials: here are its `PIECES`.
        """
        with np.errstate(all="ignore"):
            return {name: self._finished(name, ann_factor) for name in names}

    def _finished(self, name: str, ann_factor: Any) -> Any:
        metric = ONLINE_METRICS[name]
        value = metric.of(self, ann_factor)
        if metric.parts == ("trades",):
            return value
        xp, is_known = namespace(value), self.bars > 0
        if self.ruin is not None:
            is_known &= self.ruin.opening > 0
            if name == "total_return":
                value = xp.where(self.ruin.is_ruined, self.ruin.total - 1, value)
            if getattr(getattr(metrics, name, None), "is_ratio", False):
                is_known &= ~self.ruin.is_ruined
        return xp.where(is_known, value, np.nan)


def _growth(r: Block, counts: Flags) -> Block:
    return where(counts & ~jnp.isnan(r), 1 + r, 1)


# --- The metrics, from the sums


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
    return _from_two_bars(t, ratio(t.moments.mean, t.moments.std(1)) * a**0.5)


def _downside(t: Any) -> Any:
    return root(divide(t.sides.squares, t.moments.count, np.nan))


def _sortino_ratio(t: Any, a: Any) -> Any:
    return _from_two_bars(t, ratio(t.moments.mean, _downside(t)) * a**0.5)


def _omega_ratio(t: Any, a: Any) -> Any:
    return ratio(*(divide(side, t.moments.count, np.nan) for side in (t.sides.gains, t.sides.losses)))


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
    "downside_risk": OnlineMetric(("moments1", "sides"), lambda t, a: _downside(t) * a**0.5),
    "omega_ratio": OnlineMetric(("moments1", "sides"), _omega_ratio),
    "max_drawdown": OnlineMetric(("depth",), lambda t, a: t.depth.deepest),
    "calmar_ratio": OnlineMetric(("depth",), lambda t, a: over_pain(_annualized_return(t, a), -t.depth.deepest)),
    "ulcer_index": OnlineMetric(("depth",), _ulcer_index),
    "martin_ratio": OnlineMetric(("depth",), lambda t, a: over_pain(_annualized_return(t, a), _ulcer_index(t, a))),
    "skew": OnlineMetric(("moments3",), _skew),
    "kurtosis": OnlineMetric(("moments4",), _kurtosis),
    "information_ratio": OnlineMetric(
        ("active",), lambda t, a: _from_two_bars(t, ratio(t.active.mean, t.active.std(1)))
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
