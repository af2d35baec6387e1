"""Random order pipelines, an order per asset and bar at most, for engines to agree on: rules 2.6 to 4.

A batch has one shape, so that its cases share one compiled program. A case is mostly sane and trades through all its
bars; what is strange about it is drawn once per case, and its `label` says so.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from jaxsim.reference import Direction, SizeType

DEFAULT, REVERSED, AUTO = 0, 1, 3  # call sequences (rules 2.5)

#: What a case wants to trade, and how often. Weights of a choice.
STYLES = {
    "any order": 0.33,
    "one size type": 0.20,
    "rebalance": 0.20,
    "all in, all out": 0.10,
    "hold": 0.05,
    "ruin": 0.08,
    "phases": 0.05,
    "nothing": 0.01,
}

#: What may be unusual about a case, each by itself. Probabilities.
QUIRKS = {
    "holes": 0.30,
    "listings": 0.15,
    "copies": 0.10,
    "tiny prices": 0.05,
    "odd prices": 0.35,
    "explicit prices": 0.20,
    "nan prices": 0.10,
    "infinite and tiny sizes": 0.25,
    "fees": 0.50,
    "mixed fees": 0.15,
    "rebates": 0.10,
    "fixed fees": 0.20,
    "high fixed fees": 0.10,
    "fixed rebates": 0.08,
    "slippage": 0.35,
    "min size": 0.20,
    "max size": 0.30,
    "granules": 0.25,
    "no partial": 0.12,
    "some partial": 0.35,
    "lock cash": 0.30,
    "some lock cash": 0.30,
    "random events": 0.15,
    "update value": 0.30,
    "no ffill": 0.30,
    "percent above one": 0.02,
    "bare granules": 0.01,  # meets the fault of rules 3.5f
    "clash": 0.01,  # a direction against the position: raises
    "raise reject": 0.03,
}

#: Which directions the assets of a case take. Weights of a choice.
DIRECTIONS = {"both": 0.38, "long": 0.22, "short": 0.10, "per asset": 0.18, "long or both": 0.07, "short or both": 0.05}


@dataclass
class Pipelines:
    """P cases of T bars and N assets. Arrays are float64 [P, T, N] unless noted.

    close: NaN where unknown.    open: the same, or None for the whole batch.
    price: of execution; +inf = the close, -inf = the open, or the previous close where there is no open.
    size: as `size_type` counts, NaN = no order.    size_type, direction: codes, int64 (rules 2).
    fees, slippage, reject_prob: fractions, reject_prob 0 or 1.    fixed_fees: currency.
    min_size, max_size, size_granularity: units.    lock_cash, allow_partial, raise_reject: bool.
    init_cash: currency, [P].    update_value, ffill_val_price: bool [P].    call_seq: int64 [P], 0, 1 or 3.
    label: what is special about each case, P texts.
    """

    close: np.ndarray
    open: np.ndarray | None
    price: np.ndarray
    size: np.ndarray
    size_type: np.ndarray
    direction: np.ndarray
    fees: np.ndarray
    fixed_fees: np.ndarray
    slippage: np.ndarray
    min_size: np.ndarray
    max_size: np.ndarray
    size_granularity: np.ndarray
    reject_prob: np.ndarray
    lock_cash: np.ndarray
    allow_partial: np.ndarray
    raise_reject: np.ndarray
    init_cash: np.ndarray
    update_value: np.ndarray
    ffill_val_price: np.ndarray
    call_seq: np.ndarray
    label: list[str]

    @property
    def shape(self) -> tuple[int, int, int]:
        """P, T, N."""
        return self.close.shape

    def until(self, bar: int) -> "Pipelines":
        """The bars before this one."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: a[:, :bar] for k, a in arrays.items() if getattr(a, "ndim", 0) == 3})


def make_pipelines(
    rng: np.random.Generator, num: int, num_bars: int, num_assets: int, *, with_open: bool | None = None
) -> Pipelines:
    """`num` random cases of one shape; whether there are opens is drawn for the batch unless said."""
    with_open = bool(rng.random() < 0.6) if with_open is None else with_open
    cases = [_random_case(rng, num_bars, num_assets) for _ in range(num)]
    stacked = {name: np.array([case[name] for case in cases]) for name in cases[0]}
    if not with_open:
        stacked["open"] = None
    return Pipelines(**stacked | {"label": [case["label"] for case in cases]})


def _random_case(rng: np.random.Generator, num_bars: int, num_assets: int) -> dict:
    """The fields of one case, [T, N] or numbers."""
    shape = num_bars, num_assets
    style, directions = _choice(rng, STYLES), _choice(rng, DIRECTIONS)
    quirks = {quirk for quirk, chance in QUIRKS.items() if rng.random() < chance}
    if {"holes", "update value"} <= quirks and rng.random() < 0.6:
        quirks.add("explicit prices")  # fills that leave their price behind on a bar without a close
    cash = float(rng.choice([100.0, 100.0, 100.0, 1.0, 1e4, 1e7]))
    full, case = _prices(rng, shape, quirks, drift=0.05 if style == "ruin" else 0.0)
    unit = cash / full  # what the whole cash buys
    case |= _limits(rng, shape, quirks, unit) | _fees(rng, shape, quirks, cash)
    case["direction"] = _directions(rng, shape, directions, quirks)
    case["size"], case["size_type"] = _sizes(rng, shape, style, unit, cash)
    _keep_to_side(rng, case, directions)
    whole = _whole(case["size_type"], unit, cash)
    if "infinite and tiny sizes" in quirks and directions not in ("long or both", "short or both"):
        _strange_sizes(rng, case, whole)
    if style == "phases":
        _phases(case, full)
    _tame(rng, case, whole, quirks)
    return case | {
        "init_cash": cash,
        "update_value": "update value" in quirks,
        "ffill_val_price": "no ffill" not in quirks,
        "call_seq": int(rng.choice([DEFAULT, REVERSED, AUTO], p=[0.3, 0.15, 0.55])),
        "label": f"{style}, {directions}: {', '.join(q for q in QUIRKS if q in quirks)}",
    }


def _choice(rng: np.random.Generator, weights: dict[str, float]) -> str:
    chance = np.array(list(weights.values()))
    return str(rng.choice(list(weights), p=chance / chance.sum()))


def _prices(rng, shape, quirks, drift) -> tuple[np.ndarray, dict]:
    """Prices without holes, to size orders by; and close, open, price."""
    num_bars, num_assets = shape
    volatility = 10 ** rng.uniform(-3, -1)
    moves = volatility * (rng.normal(0, 1, (2 * num_bars, num_assets)) + rng.normal(0, 0.5, (2 * num_bars, 1)))
    level = 10 ** rng.uniform(-0.5, 2, num_assets)
    if "tiny prices" in quirks:
        level[rng.random(num_assets) < 0.6] = 1e-6
    walk = level * np.exp(np.cumsum(moves + drift / 2, axis=0))
    if "copies" in quirks:
        walk[:] = walk[:, rng.integers(0, num_assets, num_assets)]
    open, close = walk[0::2].copy(), walk[1::2].copy()
    full = close.copy()

    price = np.full(shape, np.inf)
    if "odd prices" in quirks:
        price[rng.random(shape) < rng.choice([0.3, 1.0])] = -np.inf
    if "explicit prices" in quirks:  # also where there is no close
        price = np.where(rng.random(shape) < rng.choice([0.3, 1.0]), full * np.exp(rng.normal(0, 0.02, shape)), price)
    if "nan prices" in quirks:
        price[rng.random(shape) < 0.1] = np.nan
    if "holes" in quirks:
        share = rng.choice([0.02, 0.1, 0.3])
        for a in (open, close):
            a[rng.random(shape) < share] = np.nan
            a[rng.random(num_bars) < share / 3] = np.nan
    if "listings" in quirks:
        for n in np.flatnonzero(rng.random(num_assets) < 0.6):
            first, last = sorted(rng.integers(0, num_bars + 1, 2)) if rng.random() < 0.5 else (num_bars // 4, num_bars)
            for a in (open, close):
                a[:first, n] = a[last:, n] = np.nan
    return full, {"close": close, "open": open, "price": price}


def _limits(rng, shape, quirks, unit) -> dict:
    """Sizes that may be traded and what may be done with cash; `unit` [T, N] is a size of the order of the account."""
    typical = np.median(unit, axis=0) * np.ones(shape)
    min_size, max_size, granularity = np.zeros(shape), np.full(shape, np.inf), np.full(shape, np.nan)
    reject_prob, lock_cash, partial = np.zeros(shape), np.zeros(shape, bool), np.ones(shape, bool)
    if "granules" in quirks:
        granule = np.where(rng.random(shape[1]) < 0.5, 10.0 ** rng.integers(-3, 2, shape[1]), 1.0)
        granule = np.where(granule < typical / 10, granule, typical * 10 ** rng.uniform(-4, -1, shape[1]))
        granule = 2.0 ** np.round(np.log2(granule))  # exact multiples: vectorbt rounds down what is a hair below a lot
        granularity = np.where(rng.random(shape) < rng.choice([0.3, 1.0]), granule, granularity)
        if "bare granules" not in quirks:  # so that nothing is filled with a size of 0: rules 3.5f
            min_size = np.where(np.isnan(granularity), min_size, granularity * 1e-3)
            min_size = np.where(min_size > 0, np.maximum(min_size, 1e-11), min_size)
    if "min size" in quirks:
        drawn = typical * 10 ** rng.uniform(-3, -1, shape)
        min_size = np.where(rng.random(shape) < rng.choice([0.3, 1.0]), np.maximum(drawn, min_size), min_size)
    if "max size" in quirks:
        drawn = typical * 10 ** rng.uniform(-1.5, 0, shape)
        max_size = np.where(rng.random(shape) < rng.choice([0.2, 1.0]), drawn, max_size)
    if "random events" in quirks:
        reject_prob[rng.random(shape) < 0.1] = 1.0
    if "no partial" in quirks:
        partial[:] = False
    elif "some partial" in quirks:
        partial = rng.random(shape) < 0.6
    if "lock cash" in quirks:
        lock_cash[:] = True
    elif "some lock cash" in quirks:
        lock_cash = rng.random(shape) < 0.5
    raise_reject = (rng.random(shape) < 0.01) & ("raise reject" in quirks)
    return {
        "min_size": min_size,
        "max_size": max_size,
        "size_granularity": granularity,
        "reject_prob": reject_prob,
        "lock_cash": lock_cash,
        "allow_partial": partial,
        "raise_reject": raise_reject,
    }


def _fees(rng, shape, quirks, cash) -> dict:
    fees, fixed_fees, slippage = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    if "fees" in quirks:
        fees[:] = rng.choice([0.001, 0.005, 0.02])
    if "mixed fees" in quirks:
        fees = fees + rng.choice([0.001, 0.01, 0.1]) * rng.random(shape)
    if "rebates" in quirks:
        fees = np.where(rng.random(shape) < rng.choice([0.3, 1.0]), -0.002 * rng.random(shape), fees)
    if "fixed fees" in quirks:
        fixed_fees += cash * 10 ** rng.uniform(-5, -3)
    if "high fixed fees" in quirks:
        fixed_fees[rng.random(shape) < 0.1] = cash * rng.choice([0.01, 0.01, 0.1, 1.5])
    if "fixed rebates" in quirks:
        fixed_fees[rng.random(shape) < 0.3] = -cash * 10 ** rng.uniform(-5, -2)
    if "slippage" in quirks:
        slippage += rng.choice([0.001, 0.01]) * (rng.random(shape) if rng.random() < 0.5 else 1)
    return {"fees": fees, "fixed_fees": fixed_fees, "slippage": slippage}


def _directions(rng, shape, directions, quirks) -> np.ndarray:
    long, short, both = int(Direction.LONG_ONLY), int(Direction.SHORT_ONLY), int(Direction.BOTH)
    if "clash" in quirks:
        return rng.integers(0, 3, shape)
    if directions == "per asset":
        return np.tile(rng.integers(0, 3, shape[1]), (shape[0], 1))
    first, second = {
        "both": (both, both),
        "long": (long, long),
        "short": (short, short),
        "long or both": (long, both),
        "short or both": (short, both),
    }[directions]
    return np.where(rng.random(shape) < 0.5, first, second)


def _sizes(rng, shape, style, unit, cash) -> tuple[np.ndarray, np.ndarray]:
    """Sizes as their types count, NaN where there is no order; and the types. `unit` [T, N] units cost `cash`."""
    num_bars = shape[0]
    size_type = rng.integers(0, 6, shape)
    if style == "one size type":
        size_type[:] = rng.integers(0, 6)
    elif style == "rebalance":
        size_type[:] = SizeType.TARGET_PERCENT
    elif style == "all in, all out":
        size_type[:] = SizeType.PERCENT
    share = rng.choice([-1, 1], shape) * np.exp(rng.normal(-1.2, 1, shape))
    if style == "rebalance":
        share = _rebalances(rng, shape)
    elif style == "ruin":  # short of several times the cash while prices rise
        share[: num_bars // 3] = -np.abs(share[: num_bars // 3])
        size_type[: num_bars // 3] = SizeType.VALUE
    elif style == "all in, all out":
        share = rng.choice([-1.0, -1.0, 1.0, 1.0, 0.5, -0.5], shape)
        as_amount = rng.random(shape) < 0.3
        size_type[as_amount] = SizeType.AMOUNT
        share[as_amount] = np.sign(share[as_amount]) * np.inf
    density = {"hold": 0.03, "nothing": 0.0, "all in, all out": 0.8}.get(style, rng.choice([0.2, 0.6, 1.0, 1.0]))
    if style == "rebalance":
        density = 1.0
    share = np.where(rng.random(shape) < density, share, np.nan)

    size = share * _whole(size_type, unit, cash)
    return np.where(size_type == SizeType.PERCENT, np.clip(size, -1, 1), size), size_type


def _whole(size_type, unit, cash) -> np.ndarray:
    """The size, as its type counts, of the whole account; `unit` [T, N] units cost `cash`."""
    units = np.isin(size_type, (SizeType.AMOUNT, SizeType.TARGET_AMOUNT))
    currency = np.isin(size_type, (SizeType.VALUE, SizeType.TARGET_VALUE))
    return np.where(units, unit, np.where(currency, cash, 1.0))


def _rebalances(rng, shape) -> np.ndarray:
    """Weights of whole rows, NaN on the bars between; their sum below, at or above one, some of them short."""
    num_bars, num_assets = shape
    weights = rng.dirichlet(np.full(num_assets, rng.choice([0.3, 1, 10])), num_bars)
    kind = rng.choice(["fresh", "fresh", "constant", "equal", "all in one", "short", "gaps"])
    if kind == "constant":
        weights[:] = weights[0]
    elif kind == "equal":
        weights[:] = 1 / num_assets
    elif kind == "all in one":  # held for five bars
        weights[:] = np.eye(num_assets)[rng.integers(0, num_assets, num_bars)[np.arange(num_bars) // 5]]
    elif kind == "short":
        weights *= rng.choice([-1, 1, 1], shape)
    elif kind == "gaps":
        weights[rng.random(shape) < 0.2] = np.nan
    weights *= rng.choice([0.5, 1.0, 1.0, 1.0, 1.3])
    weights[np.arange(num_bars) % rng.choice([1, 1, 1, 2, 7]) != 0] = np.nan
    return weights


def _strange_sizes(rng, case, whole) -> None:
    """Infinite, zero, tiny and huge sizes in place of some orders. `whole` [T, N]: a size of the whole account."""
    strange = rng.choice([np.inf, -np.inf, 0.0, -0.0, 1e-13, -1e-13, 1e-10, -1e-10, 1e9, -1e9, 30, -30], whole.shape)
    strange = np.where(np.abs(strange) >= 30, strange * whole, strange)
    chosen = ~np.isnan(case["size"]) & (rng.random(whole.shape) < 0.15)
    case["size"] = np.where(chosen, strange, case["size"])


def _keep_to_side(rng, case, directions) -> None:
    """Where Both alternates with another direction, targets that never lead to the other side."""
    if directions not in ("long or both", "short or both"):
        return
    both = case["direction"] == Direction.BOTH
    target = np.array([SizeType.TARGET_AMOUNT, SizeType.TARGET_VALUE, SizeType.TARGET_PERCENT])[case["size_type"] % 3]
    size = np.abs(case["size"]) * (1 if directions == "long or both" else -1)
    size = np.where(rng.random(size.shape) < 0.3, 0 * np.nan_to_num(size, posinf=0, neginf=0, nan=np.nan), size)
    case["size_type"] = np.where(both, target, case["size_type"])
    case["size"] = np.where(both, size, case["size"])


def _phases(case, full) -> None:
    """Long only, then short only, then both, and all positions closed in between at explicit prices."""
    num_bars = len(full)
    starts = num_bars // 3, 2 * num_bars // 3
    case["direction"][: starts[0]] = Direction.LONG_ONLY
    case["direction"][starts[0] : starts[1]] = Direction.SHORT_ONLY
    case["direction"][starts[1] :] = Direction.BOTH
    plain = {
        "price": full,
        "size": 0.0,
        "size_type": int(SizeType.TARGET_AMOUNT),
        "fixed_fees": 0.0,
        "min_size": 0.0,
        "max_size": np.inf,
        "size_granularity": np.nan,
        "reject_prob": 0.0,
        "allow_partial": True,
    }
    for start in starts:
        close_out = slice(max(start - 2, 0), start)
        for name, value in plain.items():
            case[name][close_out] = value[close_out] if isinstance(value, np.ndarray) else value


def _tame(rng, case, whole, quirks) -> None:
    """Takes out what vectorbt has no sensible answer to: Percent sizes of 0 where a short is allowed (rules 3.3),
    infinite sales in Percent, and more than the whole of a long position, which LongOnly turns into a short one (the
    next order raises). And bounds short sales that nothing else bounds: beside values of 1e9 times the account, there
    would be no digits left to compare."""
    size, percent = case["size"], case["size_type"] == SizeType.PERCENT
    sells = np.where(case["direction"] == Direction.SHORT_ONLY, -1, 1) * np.sign(size) < 0
    may_short = case["direction"] != Direction.LONG_ONLY
    size = np.where(percent & sells, np.clip(size, -1, 1), size)
    if "percent above one" in quirks:
        size = np.where(percent & (rng.random(size.shape) < 0.2), 1.5 * size, size)
    size = np.where(percent & (size == 0) & may_short, np.nan, size)
    unbounded = ~percent & sells & may_short & ~case["lock_cash"] & np.isfinite(size)
    case["size"] = np.where(unbounded, np.clip(size, -3 * whole, 3 * whole), size)
