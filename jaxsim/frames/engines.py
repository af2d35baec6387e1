"""From resolved parameters to a ledger: the compiled engine, and the reference engine lane by lane."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from jaxsim.engine.market import Market
from jaxsim.engine.schedule import LaneAxis, Run, pages
from jaxsim.engine.status import LaneFault
from jaxsim.errors import AllocationError
from jaxsim.frames.broadcast import Leaf, settle
from jaxsim.frames.groups import Layout
from jaxsim.frames.inputs import Prices
from jaxsim.frames.ledger import Ledger, ledger_from_pages, ledger_from_runs
from jaxsim.reference import run_lane


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a run of many lanes is made from. Lanes are combinations x groups, groups innermost.

    policy, costs, account: pytrees whose leaves are `Leaf`.
    keys: [lane].       name_lane: the label of a lane, for messages.
    """

    prices: Prices
    layout: Layout
    num_combinations: int
    policy: Any
    costs: Any
    account: Any
    keys: Any
    name_lane: Callable[[int], str]

    def lanes_of(self, groups: np.ndarray) -> np.ndarray:
        """Lane numbers of a batch of groups, [combination, group]."""
        return np.arange(self.num_combinations)[:, None] * self.layout.num_groups + groups[None, :]

    def market(self, group: int) -> Market:
        """The market of one group, as NumPy arrays."""
        p, members = self.prices, self.layout.members[group]
        close, val_price, price, mark = (x[:, members] for x in (p.close, p.val_price, p.price, p.mark))
        return Market(close, val_price, price, mark, p.features)


def run_compiled(job: Job) -> list[Ledger]:
    """All lanes side by side in compiled programs, one for each group size."""
    with jax.enable_x64(True):
        batches = [_run_batch(job, groups) for groups in job.layout.batches()]
    faults = [fault for _, faults in batches for fault in faults]
    if faults:
        raise_fault(job, *min(faults, key=lambda fault: fault.lane))
    return [ledger for ledger, _ in batches]


class Fault(NamedTuple):
    """What went wrong in a lane: at a bar, with one of its assets (a price-frame column)."""

    lane: int
    column: int
    kind: LaneFault
    bar: int


def _run_batch(job: Job, groups: np.ndarray) -> tuple[Ledger, list[Fault]]:
    combinations, is_grouped = job.num_combinations, len(groups) > 1
    # XLA drops an axis of size one and then rounds differently: a single lane runs beside a copy of itself.
    width = max(combinations, 1 if is_grouped else 2)
    has_combinations = width > 1
    lanes = job.lanes_of(groups)

    def fit(array: Any) -> Any:
        """[combination, ...] -> [width, ...], or without that axis if all lanes are groups."""
        return array[0] if not has_combinations else array if combinations == width else array[np.zeros(width, int)]

    keys = job.keys if len(job.keys) == lanes.size else job.keys[lanes.ravel()]
    keys = fit(keys.reshape(lanes.shape) if is_grouped else keys)
    leaves, structure = jax.tree.flatten((job.policy, job.costs, job.account), is_leaf=lambda x: isinstance(x, Leaf))
    arrays, has = zip(*(settle(x).of(groups, job.layout.members, is_grouped) for x in leaves), strict=True)
    arrays = [fit(array) if by_combination else array for array, (by_combination, _) in zip(arrays, has, strict=True)]
    markets = [job.market(g) for g in groups]
    market = markets[0]
    if is_grouped:  # side by side, but for the features, which all groups share
        stacked = jax.tree.map(lambda *x: np.stack(x), *(replace(m, features=None) for m in markets))
        market = _with_features(stacked, market.features)
    policy, costs, account = jax.tree.unflatten(structure, arrays)
    run = Run(market, policy, costs, account, keys)

    def in_axes(which: int) -> Run:
        axis_here = has_combinations if which == 0 else is_grouped
        policy, costs, account = jax.tree.unflatten(structure, [0 if h[which] and axis_here else None for h in has])
        prices = jax.tree.map(lambda _: 0 if which == 1 else None, _with_features(market, None))
        features = jax.tree.map(lambda _: None, market.features)
        return Run(_with_features(prices, features), policy, costs, account, 0)

    axes = ()
    if has_combinations:
        axes += (LaneAxis("combination", width, in_axes(0)),)
    if is_grouped:
        axes += (LaneAxis("group", len(groups), in_axes(1)),)
    rows, lanes_after = [], None
    for page, lanes_after in pages(run, axes):  # noqa: B007
        rows.append(page)
    assert lanes_after is not None
    columns = np.stack([job.layout.members[g] for g in groups])[np.tile(np.arange(len(groups)), combinations)]
    num_bars = len(job.prices.index)
    ledger = ledger_from_pages(rows, tuple(a.size for a in axes), lanes.ravel(), columns, num_bars)
    status = jax.tree.map(lambda x: np.asarray(x).ravel()[: lanes.size], lanes_after.status)
    faults = []
    for at in np.flatnonzero(status.fault != LaneFault.NONE):
        column = int(columns[at, status.asset[at]])
        faults.append(Fault(int(lanes.ravel()[at]), column, LaneFault(int(status.fault[at])), int(status.bar[at])))
    return ledger, faults


def _with_features(market: Market, features: Any) -> Market:
    """A batched market with features; its constructor is for one group."""
    return eqx.tree_at(lambda m: m.features, market, features, is_leaf=lambda x: x is None)


def run_reference(job: Job) -> list[Ledger]:
    """One lane after the other in lane order, in plain NumPy."""
    batches = job.layout.batches()
    batch_of = {int(g): b for b, groups in enumerate(batches) for g in groups}
    markets = {g: job.market(g) for g in range(job.layout.num_groups)}
    parts = (job.policy, job.costs, job.account)
    leaves, structure = jax.tree.flatten(parts, is_leaf=lambda x: isinstance(x, Leaf))
    leaves = [settle(x) for x in leaves]
    runs: list[list] = [[] for _ in batches]
    with jax.enable_x64(True):
        for combination in range(job.num_combinations):
            for group in range(job.layout.num_groups):
                here = [_one(x, combination, group, job.layout) for x in leaves]
                policy, costs, account = jax.tree.unflatten(structure, here)
                lane = combination * job.layout.num_groups + group
                run = run_lane(markets[group], policy, costs, account, job.keys[lane])
                if run.fault[0] != LaneFault.NONE:
                    kind, bar, asset = run.fault
                    raise_fault(job, lane, int(job.layout.members[group][asset]), kind, bar)
                runs[batch_of[group]].append(run)
    ledgers = []
    for batch, groups in enumerate(batches):
        lanes = job.lanes_of(groups).ravel()
        columns = np.stack([job.layout.members[g] for g in groups])[np.arange(len(lanes)) % len(groups)]
        ledgers.append(ledger_from_runs(runs[batch], lanes, columns))
    return ledgers


def _one(leaf: Leaf, combination: int, group: int, layout: Layout) -> Any:
    array, (by_combination, _) = leaf.of(np.array([group]), layout.members, False)
    return array[combination] if by_combination else array


def raise_fault(job: Job, lane: int, column: int, kind: LaneFault, bar: int) -> None:
    """Raise what went wrong inside a lane, with its labels."""
    where = job.name_lane(lane)
    raise AllocationError(
        f"{kind.text} ({where}{', ' if where else ''}asset {job.layout.assets[column]!r}, "
        f"bar {bar}, {job.prices.index[bar]})"
    )


ENGINES = {"compiled": run_compiled, "reference": run_reference}
