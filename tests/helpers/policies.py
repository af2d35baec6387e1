"""Random policies, for both engines to agree on: triggers of every kind alone and composed, destinations likewise,
allocators with a mind of their own, on prices with holes. A structure is one compiled program; its cases differ in all
their numbers and run as its lanes."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import jaxsim as js
from jaxsim.engine.base.numerics import product
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market
from jaxsim.errors import OrderError
from jaxsim.frames.inputs.groups import layout
from jaxsim.frames.inputs.lanes import Lanes
from jaxsim.frames.inputs.market import LanePrices
from jaxsim.frames.inputs.parameters import LaneParameter
from jaxsim.frames.inputs.prices import execution_prices, mark_prices, valuation_prices
from jaxsim.frames.inputs.random_keys import RandomKey
from jaxsim.frames.inputs.sweep_axes import Sweep
from jaxsim.frames.results.ledger import ledger_from_runs
from jaxsim.frames.runs.compiled import run_batch
from jaxsim.frames.runs.job import Job
from jaxsim.reference import run_lane
from tests.helpers.cases import random_prices, random_weights

FREQUENCIES = ["D", "3D", "W", "W-WED", "MS", "8h", "36h"]


class Fixed(eqx.Module):
    """The same weights at every rebalance, some of them negative."""

    weights: Any

    def __call__(self, obs):
        return self.weights


class Tilted(eqx.Module):
    """Weights that lean on features and on what the portfolio has become, and leave an asset alone now and then."""

    weights: Any
    tilt: Any
    left_alone: Any

    def __call__(self, obs):
        lean = self.weights + product(self.tilt, obs.features[: obs.num_assets])
        is_odd = obs.step % 2 == 1
        skip = jnp.asarray(self.left_alone).astype(bool) & is_odd
        return js.Allocation(jnp.asarray(lean), skip=skip)


class Restless(eqx.Module):
    """New weights at every rebalance, counted by a state."""

    weights: Any

    def init(self, num_assets):
        return np.zeros((), np.int32)

    def __call__(self, obs, state):
        return js.Allocation(jnp.roll(jnp.asarray(self.weights), state)), state + 1


def too_much_of_one(obs):
    """A user's own trigger."""
    return (obs.weights.max() >= 0.6) & (obs.step % 4 != 1)


def limit(rng: np.random.Generator, shape: tuple = (), relative: bool = False) -> np.ndarray:
    """Thresholds; now and then zero, which is reached at every bar."""
    zero = rng.random() < 0.06
    return np.zeros(shape) if zero else np.asarray(rng.uniform(0.005, 0.5 if relative else 0.15, shape))


def dates(rng: np.random.Generator, index: pd.DatetimeIndex) -> js.AtBars:
    when: dict = {"every": rng.choice(FREQUENCIES)}
    if rng.random() < 0.3:
        when = {"on": index[rng.choice(len(index), 8)] - pd.Timedelta("20min")}
    if rng.random() < 0.3:
        when["at_time"] = "14:30"
    mask = np.zeros(len(index), bool)
    mask[js.index_points(index, **when)] = True
    return js.AtBars(mask)


#: Triggers by name: (random generator, index, number of assets) -> trigger.
TRIGGERS = {
    "Threshold": lambda r, i, n: js.Threshold(limit(r)),
    "Threshold by asset": lambda r, i, n: js.Threshold(limit(r, (n,))),
    "Threshold by bar and asset": lambda r, i, n: js.Threshold(limit(r, (len(i), n))),
    "Threshold relative": lambda r, i, n: js.Threshold(limit(r, (), True), relative=True),
    "Threshold relative by asset": lambda r, i, n: js.Threshold(limit(r, (n,), True), relative=True),
    "HalfL1Drift": lambda r, i, n: js.HalfL1Drift(limit(r)),
    "HalfL1Drift by bar": lambda r, i, n: js.HalfL1Drift(limit(r, (len(i), 1))),
    "L2Drift": lambda r, i, n: js.L2Drift(limit(r)),
    "TrackingError": lambda r, i, n: js.TrackingError(r.uniform(0.001, 0.3), 12, ann_factor=r.choice([1.0, 252.0])),
    "dates": lambda r, i, n: dates(r, i),
    "EveryN": lambda r, i, n: js.EveryBars(int(r.integers(1, 12)), start=int(r.integers(0, 5))),
    "Always": lambda r, i, n: js.Always(),
    "Never": lambda r, i, n: js.Never(),
    "a function": lambda r, i, n: too_much_of_one,
}
ABOUT_ASSETS = [name for name in TRIGGERS if name.startswith("Threshold")]


def width(rng: np.random.Generator, shape: tuple = ()) -> np.ndarray:
    return np.asarray(rng.uniform(0.0, 0.08, shape))


#: Destinations by name: (random generator, index, number of assets, the one that it starts from) -> destination.
DESTINATIONS = {
    "ToTarget": lambda r, i, n, of: js.ToTarget(),
    "ToEdge": lambda r, i, n, of: js.ToEdge(),
    "ToEdge of a width": lambda r, i, n, of: js.ToEdge(width(r)),
    "ToEdge of a width by asset": lambda r, i, n, of: js.ToEdge(width(r, (n,))),
    "Fraction": lambda r, i, n, of: js.Fraction(r.choice([0.0, 1.0, r.uniform()]), of=of),
    "Fraction when flat": lambda r, i, n, of: js.Fraction(r.uniform(0.2, 1.0), of=of, when_flat=True),
    "OnlyBreached": lambda r, i, n, of: js.OnlyBreached(of=of),
    "TurnoverCap": lambda r, i, n, of: js.TurnoverCap(r.uniform(0.0, 0.1), of=of),
    "TurnoverCap when flat": lambda r, i, n, of: js.TurnoverCap(r.uniform(0.05, 0.4), of=of, when_flat=True),
    "SpreadOver": lambda r, i, n, of: js.SpreadOver(int(r.integers(1, 6)), of=of),
    "SpreadOver when flat": lambda r, i, n, of: js.SpreadOver(int(r.integers(1, 6)), of=of, when_flat=True),
}
OUTER = [name for name in DESTINATIONS if name.startswith("Spread")]
NEEDS_ASSETS = {"ToEdge", "OnlyBreached"}


@dataclass(frozen=True)
class Structure:
    """What cases of one compiled program have in common.

    triggers: names, joined by `joints` ("&" or "|") from left to right.
    destinations: names, from the innermost to the outermost.
    """

    triggers: list[str]
    joints: list[str]
    destinations: list[str]
    allocator: str
    num_assets: int
    terms: list[str]

    def __str__(self) -> str:
        rule = self.triggers[0] + "".join(f" {j} {t}" for j, t in zip(self.joints, self.triggers[1:], strict=True))
        return f"{rule} / {' < '.join(self.destinations)} / {self.allocator} of {self.num_assets} {self.terms}"


def make_structure(rng: np.random.Generator, number: int) -> Structure:
    """Number by number every trigger and every destination has its turn; the rest is chance."""
    names, ways = list(TRIGGERS), list(DESTINATIONS)
    first, last = names[number % len(names)], ways[number % len(ways)]
    inner = [str(x) for x in rng.choice([x for x in ways if x not in OUTER], rng.choice([0, 0, 1, 2]))]
    inner = [x for k, x in enumerate(inner) if k == 0 or not x.startswith("To")]
    destinations = [*inner, last] if not last.startswith("To") else [last]
    triggers = [first, *map(str, rng.choice(names, rng.choice([0, 1, 2])))]
    if NEEDS_ASSETS & set(destinations) and not set(ABOUT_ASSETS) & set(triggers):
        triggers.append(str(rng.choice(ABOUT_ASSETS)))
    return Structure(
        triggers,
        [str(x) for x in rng.choice(["&", "|"], len(triggers) - 1)],
        destinations,
        ["Fixed", "Tilted", "Restless"][number % 3],
        int(rng.integers(2, 6)),
        [x for x in ("fixed_fees", "slippage", "min_size") if rng.random() < 0.15],
    )


def make_policy(rng: np.random.Generator, s: Structure, index: pd.DatetimeIndex) -> js.Policy:
    """One case."""
    n = s.num_assets
    trigger = TRIGGERS[s.triggers[0]](rng, index, n)
    for joint, name in zip(s.joints, s.triggers[1:], strict=True):
        other = TRIGGERS[name](rng, index, n)
        if not isinstance(trigger, js.AbstractTrigger) and not isinstance(other, js.AbstractTrigger):
            other = js.Always() if joint == "&" else js.Never()
        trigger = trigger & other if joint == "&" else trigger | other
    destination: Any = js.ToTarget()
    for name in s.destinations:
        destination = DESTINATIONS[name](rng, index, n, destination)
    weights = random_weights(rng, n)
    if rng.random() < 0.25:
        weights = np.where(rng.random(n) < 0.4, -0.5 * weights, weights)
    allocator = {
        "Fixed": lambda: Fixed(weights),
        "Tilted": lambda: Tilted(weights, np.asarray(rng.uniform(0, 0.1)), (rng.random(n) < 0.2).astype(float)),
        "Restless": lambda: Restless(weights),
    }[s.allocator]()
    return js.Policy(allocator, trigger, destination=destination, min_history=int(rng.choice([0, 0, 3, 17])))


@dataclass
class Cases:
    """The cases of a structure: what each engine needs."""

    structure: Structure
    index: pd.DatetimeIndex
    markets: list[Market]
    policies: list[js.Policy]
    costs: list[Costs]
    cash: np.ndarray


def make_cases(rng: np.random.Generator, structure: Structure, num: int, num_bars: int) -> Cases:
    s, index = structure, pd.date_range("2021-01-03 05:00", periods=3 * num_bars, freq="7h")
    index = index[np.sort(rng.choice(len(index), num_bars, replace=False))]  # irregular
    features = rng.normal(0, 1, (num_bars, s.num_assets))
    markets, policies, costs = [], [], []
    for _ in range(num):
        close, open_, price = random_prices(rng, num_bars, s.num_assets)
        if rng.random() < 0.08:
            close[20:50], open_[20:50] = close[20], close[20]  # nothing moves
        open_ = open_ if rng.random() < 0.8 else None
        executed = execution_prices(price if rng.random() < 0.3 else np.inf, close, open_)
        marks = mark_prices(close, open_)
        markets.append(Market(close, valuation_prices(close, open_, True), executed, marks, features))
        policies.append(make_policy(rng, s, index))
        terms = {"fees": rng.choice([0.0, 0.0, 0.001, 0.01])} | {
            name: {"fixed_fees": 0.01, "slippage": 0.002, "min_size": 0.001}[name] * rng.choice([0.0, 1.0])
            for name in s.terms
        }
        costs.append(Costs(**terms))
    return Cases(s, index, markets, policies, costs, rng.choice([100.0, 1e6], num))


def run_compiled(c: Cases) -> tuple[Any, dict, Any]:
    """All cases side by side: the ledger, the Fault of each case that met one, and the keys of the lanes."""
    num = len(c.policies)

    def stacked(trees: list) -> Any:
        return jax.tree.map(
            lambda *x: LaneParameter(np.stack(x), by_group=True) if eqx.is_array_like(x[0]) else x[0], *trees
        )

    markets = stacked([(m.close, m.val_price, m.price, m.mark) for m in c.markets])
    columns = pd.MultiIndex.from_product([range(num), [f"A{n}" for n in range(c.structure.num_assets)]])
    columns.names = ["case", "asset"]
    with jax.enable_x64(True):
        lanes = Lanes(Sweep(), layout(columns), RandomKey.of(0))
        job = Job(
            c.index,
            lanes,
            LanePrices(*markets, None),
            c.markets[0].features,
            stacked(c.policies),
            stacked(c.costs),
            Account(LaneParameter(c.cash, by_group=True)),
        )
        ledger, faults = run_batch(job, np.arange(num))
    return ledger, {fault.lane: fault for fault in faults}, lanes.keys


def run_reference(c: Cases, case: int, key: Any) -> Any:
    """One case by the reference engine: its LaneRun, or the error that it raised."""
    try:
        with jax.enable_x64(True):
            return run_lane(c.markets[case], c.policies[case], c.costs[case], Account(c.cash[case]), key)
    except OrderError as error:
        return error


EXACT = ("bar", "info", "rank")
CLOSE = ("value", "cash", "free_cash", "excess", "target", "units", "request", "trade", "price", "fees")


def difference(ledger: Any, case: int, run: Any, cash: float) -> str | None:
    """Where the two engines differ; None if they agree."""
    ours = ledger.take(np.array([case]), np.array([0]))
    theirs = ledger_from_runs([run], np.arange(1), ours.columns)
    if len(ours.bar) != len(theirs.bar) or (ours.bar != theirs.bar).any():
        both = zip(ours.bar, theirs.bar, strict=False)
        first = next((f"{a} against {b}" for a, b in both if a != b), "the end")
        return f"{len(ours.bar)} rebalances against {len(theirs.bar)}; first difference at bar {first}"
    if not np.array_equal(ours.decided, theirs.decided):
        return "other decisions"
    for name in (*EXACT, *CLOSE):
        a, b = getattr(ours, name), getattr(theirs, name)
        if name == "price":  # of an order that is not filled nobody asks it
            a, b = (np.where(x.filled, getattr(x, name), 0.0) for x in (ours, theirs))
        scale = cash if name in ("value", "cash", "free_cash", "fees") else max(1.0, np.nanmax(np.abs(b), initial=0))
        with np.errstate(invalid="ignore"):
            same = a == b if name in EXACT else np.isclose(a, b, rtol=1e-9, atol=1e-11 * scale, equal_nan=True)
        if not same.all():
            place = np.unravel_index(int(np.argmin(same)), same.shape)
            return f"bar {ours.bar[place[0]]}: {name} {a[place]!r} against {b[place]!r}"
    return None


def compare(c: Cases, tally: Counter) -> list[str]:
    """Every case of a structure: what differs."""
    ledger, faults, keys = run_compiled(c)
    wrong = []
    for case in range(len(c.policies)):
        run, fault = run_reference(c, case, keys[case]), faults.get(case)
        tally["compared"] += 1
        if isinstance(run, Exception) or fault is not None:
            tally["gone wrong in both"] += 1
            fails = isinstance(run, Exception) or int(run.fault[0])
            if not fails or fault is None:
                wrong.append(f"case {case}: reference {run}, compiled {fault}"[:300])
            continue
        tally["events"] += len(run.bars)
        tally["orders"] += int((run.info == -1).sum())
        text = difference(ledger, case, run, float(c.cash[case]))
        if text is not None:
            wrong.append(f"case {case}: {text}")
    return wrong
