"""Random pipelines whose gradients are compared with central differences. A structure is one compiled program; its
cases differ in all their numbers and run as its lanes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

import jaxsim as js
from tests.helpers.markets import AS_IT_STANDS

BARS, ASSETS = 60, 4

#: By how much a parameter is moved, either way.
STEP = 1e-6


class Leaning(eqx.Module):
    """Weights that lean on past returns and on what the portfolio has become, and leave an asset alone now and then."""

    weights: Any
    skips: bool = eqx.field(static=True, default=False)

    def __call__(self, obs):
        past = jnp.nan_to_num(obs.window(5).mean_return())
        lean = self.weights + past + 0.02 * (obs.weights - self.weights) + 0.001 * jnp.log(obs.value / 100)
        is_left = (obs.step % 3 == 1) & (jnp.arange(obs.num_assets) == 1) & self.skips
        return js.Allocation(lean, skip=is_left)


class Constant(eqx.Module):
    """The same weights at every rebalance."""

    weights: Any

    def __call__(self, obs):
        return self.weights


@dataclass(frozen=True)
class Structure:
    """What cases of one compiled program have in common.

    costs: names of the fields of `Costs` beside fees.      terms: further fields of `Policy`.
    """

    name: str
    allocator: Callable = Constant
    trigger: Callable = js.Threshold
    destination: Callable = field(default=lambda width: js.ToTarget())
    costs: tuple[str, ...] = ()
    short: bool = False
    terms: dict = field(default_factory=dict)


STRUCTURES = [
    Structure("long, all the way"),
    Structure("short, slippage", short=True, costs=("slippage",)),
    Structure("fixed fees, limits", Leaning, costs=("slippage", "fixed_fees", "min_size", "max_size")),
    Structure("to the edge", Leaning, destination=lambda width: js.ToEdge()),
    Structure(
        "part of the way to an edge of its own",
        trigger=lambda x: js.HalfL1Drift(x),
        destination=lambda width: js.Fraction(0.7, of=js.ToEdge(width)),
    ),
    Structure(
        "only what has breached",
        lambda w: Leaning(w, True),
        trigger=lambda x: js.Threshold(4 * x, relative=True) | js.EveryBars(17),
        destination=lambda width: js.OnlyBreached(),
        costs=("slippage",),
    ),
    Structure("capped", short=True, destination=lambda width: js.TurnoverCap(0.5 * width, when_flat=False)),
    Structure(
        "spread out",
        Leaning,
        trigger=lambda x: js.L2Drift(x),
        destination=lambda width: js.SpreadOver(3, of=js.ToEdge(width)),
        costs=("fixed_fees",),
    ),
    Structure(
        "locked cash, moving values",
        short=True,
        costs=("fixed_fees", "lock_cash", "update_value"),
        terms={"call_seq": js.CallSeq.REVERSED},
    ),
    Structure("long only, skipping", lambda w: Leaning(w, True), terms={"direction": js.Direction.LONG_ONLY}),
]


class Case(eqx.Module):
    """The numbers of one pipeline.

    prices: opens and closes in turn, [2 time, asset], currency.       closed: which closes there are.
    val_row, mark_row: where valuation and closing prices are found in it; -1: nowhere.
    directions: which prices move together, [direction, 2 time, asset].
    temperature: of a straight-through gate; None: a hard one.
    """

    weights: Any
    threshold: Any
    cash: Any
    costs: dict
    prices: Any
    closed: Any
    val_row: Any
    mark_row: Any
    directions: Any
    temperature: Any = None

    def zero(self) -> dict:
        """A parameter for everything that is differentiated, all zero."""
        numbers = {name: jnp.zeros(()) for name in ("threshold", "cash", *DIFFERENTIATED) if name in self._names}
        return numbers | {"weights": jnp.zeros(ASSETS), "prices": jnp.zeros(self.directions.shape[0])}

    @property
    def _names(self) -> tuple:
        return ("threshold", "cash", *self.costs)


#: Costs that are continuous; the others are limits and switches.
DIFFERENTIATED = ("fees", "fixed_fees", "slippage")


def last_known(known: np.ndarray) -> np.ndarray:
    """The number of the last row up to each with a price; -1: none."""
    rows = np.where(known, np.arange(len(known))[:, None], -1)
    return np.maximum.accumulate(rows, axis=0)


def make_case(rng: np.random.Generator, structure: Structure) -> Case:
    steps = rng.normal(0, 0.02, (2 * BARS, ASSETS))
    prices = 10 ** rng.uniform(0, 2) * np.exp(np.cumsum(steps, axis=0))
    known = rng.random(prices.shape) > rng.choice([0.0, 0.05])
    if rng.random() < 0.3:
        known[: 2 * int(rng.integers(1, BARS // 2)), -1] = False
    closes = known[1::2]
    rows = last_known(known)
    weights = rng.dirichlet(np.ones(ASSETS)) * rng.choice([1.0, 1.0, rng.uniform(0.5, 1.2)])
    if structure.short:
        weights = np.where(np.arange(ASSETS) == rng.integers(ASSETS), -0.5 * weights, weights)
    costs: dict = {"fees": rng.uniform(0, 0.01)}
    choices = {
        "slippage": rng.uniform(0, 0.005),
        "fixed_fees": rng.uniform(0, 0.05),
        "min_size": 0.02 / prices.mean(),
        "max_size": 60.0 / prices.mean(),
        "lock_cash": bool(rng.random() < 0.5),
        "update_value": bool(rng.random() < 0.5),
    }
    costs |= {name: choices[name] for name in structure.costs}
    return Case(
        weights=weights,
        threshold=np.asarray(rng.uniform(0.01, 0.08)),
        cash=np.asarray(100.0),
        costs={name: np.asarray(x) for name, x in costs.items()},
        prices=np.where(known, prices, 1.0),
        closed=closes,
        val_row=rows[0::2],
        mark_row=2 * last_known(closes) + 1,
        directions=(rng.random((6, *prices.shape)) < 0.3) * rng.normal(1, 0.5, (6, *prices.shape)),
    )


def run(structure: Structure, case: Case, move: dict, save: js.Save, adjoint: Any = None) -> js.Simulation:
    """The pipeline with its parameters moved: prices and cash by parts of themselves, all else by so much."""
    prices = case.prices * jnp.exp(jnp.tensordot(move["prices"], case.directions, 1))
    columns = jnp.arange(ASSETS)

    def there(row):
        return jnp.where(row >= 0, prices[jnp.maximum(row, 0), columns], jnp.nan)

    close = jnp.where(case.closed, prices[1::2], jnp.nan)
    priced_at = jnp.asarray(case.val_row, jnp.int32) if "update_value" in case.costs else None
    market = js.Market(close, there(case.val_row), close, there(jnp.where(case.mark_row > 0, case.mark_row, -1)))
    market = eqx.tree_at(lambda m: m.priced_at, market, priced_at, is_leaf=lambda x: x is None)
    costs = {name: x + move[name] if name in move else x for name, x in case.costs.items()}
    threshold = case.threshold + move["threshold"]
    gate = js.Hard() if case.temperature is None else js.StraightThrough(case.temperature)
    policy = js.Policy(
        structure.allocator(case.weights + move["weights"]),
        structure.trigger(threshold),
        gate,
        destination=structure.destination(0.6 * threshold),
        **structure.terms,
    )
    account = js.Account(case.cash * jnp.exp(move["cash"]))
    costs = js.Costs(**costs)
    return js.simulate(market, policy, costs=costs, account=account, save=save, adjoint=adjoint)


def score(sim: js.Simulation) -> Any:
    return js.metrics.sharpe_ratio(sim.returns, ann_factor=252) + js.metrics.total_return(sim.returns)


@dataclass(frozen=True)
class Comparison:
    """Of the cases of one structure, [case, parameter].

    exact: by differentiation.      differences: central.
    same: whether the events at both ends and in between are the same.      infos: OrderStatusInfo of every order.
    cuts: how many orders filled in part.
    """

    names: list[str]
    exact: np.ndarray
    differences: np.ndarray
    same: np.ndarray
    infos: np.ndarray
    cuts: int

    def errors(self) -> np.ndarray:
        """Apart by how much, in parts of the largest component of each pipeline; NaN for other events."""
        largest = np.abs(self.exact).max(axis=1, keepdims=True)
        return np.where(self.same, np.abs(self.exact - self.differences) / largest, np.nan)


def exact_gradients(structure: Structure, cases: list[Case], adjoint: Any = None) -> Any:
    """By differentiation, [case, parameter]."""
    stacked = jax.tree.map(lambda *x: np.stack(x), *cases)
    flat, unravel = jax.flatten_util.ravel_pytree(cases[0].zero())

    def value(flat, case):
        return score(run(structure, case, unravel(flat), js.Save(units=False), adjoint))

    @partial(jax.jit, compiler_options=AS_IT_STANDS)
    def exact(stacked):
        return jax.vmap(lambda case: jax.grad(value)(jnp.zeros_like(flat), case))(stacked)

    return np.asarray(exact(stacked))


def compare(structure: Structure, cases: list[Case], adjoint: Any = None) -> Comparison:
    stacked = jax.tree.map(lambda *x: np.stack(x), *cases)
    zero = cases[0].zero()
    names = [name for name, x in sorted(zero.items()) for _ in range(x.size)]
    flat, unravel = jax.flatten_util.ravel_pytree(zero)
    size = flat.size

    def value_and_events(flat, case):
        sim = run(structure, case, unravel(flat), js.Save(units=False, events=True))
        fills = sim.events.fills
        is_filled = fills.trade != 0
        cut = fills.clip != 0 if fills.clip is not None else abs(fills.trade) < abs(fills.request) * (1 - 1e-9)
        # The order of execution matters by what cash cuts, which is among the events; and where fills move values.
        rank = fills.rank * is_filled if "update_value" in structure.costs else jnp.zeros(())
        codes = (sim.rebalanced, jnp.sign(fills.trade), cut & is_filled, rank)
        events = jnp.concatenate([x.astype(jnp.int32).ravel() for x in codes])
        return score(sim), events, jnp.where(sim.rebalanced[:, None], fills.info, -1), (cut & is_filled).sum()

    @partial(jax.jit, compiler_options=AS_IT_STANDS)
    def ends(stacked, moves):
        many = jax.tree.map(lambda x: jnp.repeat(x, len(moves), axis=0), stacked)
        tiled = jnp.tile(moves, (stacked.threshold.shape[0], 1))
        return jax.vmap(value_and_events)(tiled, many)

    moves = STEP * np.concatenate([np.eye(size), -np.eye(size), np.zeros((size, size))])
    values, events, infos, cuts = ends(stacked, moves)
    values = np.asarray(values).reshape(len(cases), 3, size)
    events = np.asarray(events).reshape(len(cases), 3, size, -1)
    same = ((events[:, 0] == events[:, 1]) & (events[:, 0] == events[:, 2])).all(-1)

    def still(x):
        """Of each case, where nothing is moved."""
        return np.asarray(x).reshape(len(cases), 3, size, *x.shape[1:])[:, 2, 0]

    differences = (values[:, 0] - values[:, 1]) / (2 * STEP)
    exact = exact_gradients(structure, cases, adjoint)
    return Comparison(names, exact, differences, same, still(infos), int(still(cuts).sum()))
