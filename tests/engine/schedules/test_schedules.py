"""Every way of running many lanes forward does what the plain scan does: the same decisions, orders and draws, and the
same values. The plain scan (`js.simulate`) is the judge."""

from dataclasses import replace
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs
from jaxsim.engine.base.random import as_key
from jaxsim.engine.policy.given import given_orders_policy
from jaxsim.engine.policy.screening import Screening
from jaxsim.engine.schedules.next_event import NextEvent
from jaxsim.engine.schedules.programs import pages, running_sums
from jaxsim.frames.inputs.prices import mark_prices, priced_at, valuation_prices
from tests.helpers.markets import on_host
from tests.helpers.marks import some_slow

LANES, BARS, ASSETS = 11, 90, 3
METRICS = ("sharpe_ratio", "total_return", "max_drawdown", "turnover", "total_fees", "num_rebalances")
SMALL = NextEvent(block=7, slots=4, page=5)  # blocks, slots and pages that never fit


def every_other_time(obs):
    """A user's own trigger: there is no quick answer."""
    return (abs(obs.weights - obs.target).max() >= 0.03) & (obs.step % 2 == 0)


def markets(rng: np.random.Generator, count: int) -> js.Market:
    """Wild prices with holes and a late listing, [case, time, asset]; known half bars, for fills that are newer."""
    made = []
    for _ in range(count):
        close = np.exp(np.cumsum(rng.normal(0, 0.03, (BARS, ASSETS)), axis=0))
        open_ = np.roll(close, 1, axis=0) * np.exp(rng.normal(0, 0.01, close.shape))
        close[rng.random(close.shape) < 0.03] = np.nan
        open_[rng.random(close.shape) < 0.03] = np.nan
        close[:9, 2], open_[:10, 2] = np.nan, np.nan
        arrays = valuation_prices(close, open_, True), close, mark_prices(close, open_)
        made.append(js.Market(close, *arrays, priced_at=priced_at(close, open_, True)))
    return jax.tree.map(lambda *x: np.stack(x), *made)


def thresholds(rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([[0.0, 0.0], rng.uniform(0.005, 0.12, LANES - 2)])


@cache
def case(name: str) -> tuple[LaneInputs, tuple[LaneAxis, ...]]:
    """What lanes are simulated from; those leaves differ by lane that have an axis for it."""
    rng = np.random.default_rng(sum(map(ord, name)))
    market = jax.tree.map(lambda x: x[0], markets(rng, 1))
    costs, account = js.Costs(np.full(LANES, 0.002)), js.Account(np.float64(100))
    by_lane = ["costs.fees", "policy.trigger.threshold"]
    if name == "drawn weights":
        policy = js.Policy(al.RandomWeights(), js.Threshold(thresholds(rng)), min_history=np.int32(3))
    elif name == "spread, order by order":
        when = js.Threshold(thresholds(rng) * 5, relative=True) | js.EveryBars(np.int32(17))
        policy = js.Policy(al.EqualWeight(), when, destination=js.SpreadOver(np.int32(3)))
        costs, by_lane[1] = js.Costs(costs.fees, fixed_fees=np.float64(0.01)), "policy.trigger.left.threshold"
    elif name == "sums of drifts":
        when = js.HalfL1Drift(thresholds(rng)) & js.L2Drift(thresholds(rng)[::-1].copy())
        policy = js.Policy(al.RandomWeights(), when)
        by_lane += ["policy.trigger.left.threshold", "policy.trigger.right.threshold"]
        by_lane.remove("policy.trigger.threshold")
    elif name == "a user's trigger, moving prices":
        policy = js.Policy(al.RandomWeights(), every_other_time)
        costs, by_lane = js.Costs(costs.fees, update_value=np.asarray(True)), by_lane[:1]
    else:
        market = markets(rng, LANES)
        size = np.where(rng.random((LANES, BARS, ASSETS)) < 0.1, rng.normal(0, 2, (LANES, BARS, ASSETS)), np.nan)
        policy = given_orders_policy(size, size_type=np.int32(0))
        by_lane = ["costs.fees", "policy.allocator.size", "policy.trigger.book.size"]
    run = LaneInputs(market, policy, costs, account, jax.random.split(as_key(7), LANES))
    nothing = jax.tree.map(lambda x: None, run)
    marked = eqx.tree_at(lambda r: r.key, nothing, 0, is_leaf=lambda x: x is None)
    for path in by_lane:
        marked = eqx.tree_at(lambda r, p=path: _at(r, p), marked, 0, is_leaf=lambda x: x is None)
    if market.close.ndim == 3:
        marked = eqx.tree_at(lambda r: r.market, marked, jax.tree.map(lambda x: 0, market), is_leaf=lambda x: x is None)
    return run, (LaneAxis.of("combination", LANES, marked),)


def _at(tree, path: str):
    for name in path.split("."):
        tree = getattr(tree, name)
    return tree


@cache
def plain(name: str) -> js.Simulation:
    """All lanes of a case by the scan, bar after bar."""
    run, axes = case(name)

    def one(run: LaneInputs) -> js.Simulation:
        save = js.Save(units=True, events=True)
        how = dict(costs=run.costs, account=run.account, key=run.key, save=save)
        return js.simulate(run.market, run.policy, **how)

    mapped = jax.vmap(one, in_axes=(axes[0].in_axes,), axis_size=LANES)
    return jax.tree.map(np.asarray, eqx.filter_jit(mapped)(run))


def metrics_of(sim: js.Simulation) -> dict:
    """The METRICS of each lane, of its whole paths."""
    fills, metrics = sim.events.fills, js.metrics
    with jax.enable_x64(True):
        returns = sim.returns.T
        traded = np.abs(np.where(fills.trade != 0, fills.trade * fills.price, 0)).sum(axis=2).T
        return {
            "sharpe_ratio": metrics.sharpe_ratio(returns, ann_factor=8760.0),
            "total_return": sim.value[:, -1] / 100 - 1,
            "max_drawdown": metrics.max_drawdown(returns),
            "turnover": metrics.turnover(traded, sim.events.value.T),
            "total_fees": fills.fees.sum(axis=(1, 2)),
            "num_rebalances": sim.rebalanced.sum(axis=1),
        }


CASES = ["drawn weights", "spread, order by order", "sums of drifts", "a user's trigger, moving prices", "order books"]


@pytest.mark.parametrize("name", some_slow(CASES, CASES[2:4]))
def test_looking_ahead_equals_the_scan(name):
    equals_the_scan(name, SMALL)


def test_looking_ahead_in_many_kernels_equals_the_scan():
    """As on other devices, and with other versions of XLA."""
    equals_the_scan(CASES[0], replace(SMALL, one_kernel=False))


def equals_the_scan(name, schedule):
    with jax.enable_x64(True):
        run, axes = case(name)
        judge = plain(name)
        done = list(pages(run, axes, schedule))
        tally, lane = running_sums(run, axes, METRICS, schedule=schedule)
        tallies = [tally]
        if name in CASES[:2]:
            tallies.append(running_sums(run, axes, METRICS, schedule=js.Scan())[0])
    rows = jax.tree.map(lambda *x: np.concatenate(x), *(page.rows for page in done))
    assert len(done) > 1
    order = np.lexsort((rows.bar, rows.lane))
    where = rows.lane[order], rows.bar[order]
    events, asked = judge.events, rows.event.is_decision[order]
    np.testing.assert_array_equal(np.argwhere(judge.rebalanced), np.stack(where, axis=1)[asked])
    assert judge.rebalanced.sum() > 30
    moves = np.diff(judge.units, axis=1, prepend=0).any(axis=2)
    assert moves.sum() == moves[where].sum()  # nothing was traded elsewhere
    fills, others = rows.event.fills, events.fills
    exactly = (fills.info, others.info), (fills.rank, others.rank), (np.sign(fills.trade), np.sign(others.trade))
    for ours, theirs in exactly:
        np.testing.assert_array_equal(ours[order], theirs[where])
    for ours, theirs in ((rows.event.target, events.target), (fills.trade, others.trade), (fills.fees, others.fees)):
        np.testing.assert_allclose(ours[order], theirs[where], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(rows.holdings.units[order], judge.units[where], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(rows.event.value[order], events.value[where], rtol=1e-12)
    np.testing.assert_allclose(lane.holdings.units, judge.units[:, -1], rtol=1e-12, atol=1e-12)
    expected = metrics_of(judge)
    for ours in (on_host(x).finish(METRICS, 8760.0) for x in tallies):
        for metric in METRICS:
            np.testing.assert_allclose(ours[metric], expected[metric], rtol=1e-9, atol=1e-12, err_msg=metric)


@pytest.mark.parametrize("name", some_slow(CASES[:2], CASES[1:2]))
def test_a_simulation_that_looks_ahead(name):
    """One lane after the other by `js.simulate`, its paths and events."""
    with jax.enable_x64(True):
        run, axes = case(name)
        judge = plain(name)

        def one(run: LaneInputs) -> js.Simulation:
            how = dict(costs=run.costs, account=run.account, key=run.key, save=js.Save(events=True))
            return js.simulate(run.market, run.policy, **how, schedule=SMALL)

        found = eqx.filter_jit(jax.vmap(one, in_axes=(axes[0].in_axes,), axis_size=LANES))(run)
    np.testing.assert_array_equal(found.rebalanced, judge.rebalanced)
    np.testing.assert_array_equal(found.events.fills.info, judge.events.fills.info)
    for name in ("value", "returns", "cash", "units"):
        np.testing.assert_allclose(getattr(found, name), getattr(judge, name), rtol=1e-12, atol=1e-11, err_msg=name)
    np.testing.assert_allclose(found.events.target, judge.events.target, rtol=1e-11)


def test_a_forward_schedule_has_no_derivative():
    prices = np.exp(np.random.default_rng(0).normal(0, 0.02, (9, 2)).cumsum(0), dtype=np.float32)
    market = js.Market(*[prices] * 4)

    def end(fees, **how):
        policy = how.pop("policy", js.Policy(al.EqualWeight(), js.Threshold(0.05)))
        return js.simulate(market, policy, costs=js.Costs(fees), schedule=js.NextEvent(), **how).value[-1]

    for derivative in (jax.grad, jax.jacfwd):
        with pytest.raises(TypeError, match=r"^schedule: js.NextEvent\(\) runs forward only"):
            derivative(end)(0.01)
    with pytest.raises(ValueError, match=r"^adjoint: js.NextEvent\(\) runs"):
        end(0.01, adjoint=js.Checkpointed())
    soft = js.Policy(al.EqualWeight(), js.Threshold(0.05), js.Sigmoid(0.01))
    with pytest.raises(ValueError, match=r"^schedule: Sigmoid trades a little at every bar"):
        end(0.01, policy=soft)


@pytest.mark.parametrize("num_assets", [3, 20])  # written out, and in a loop
def test_screening_misses_nothing(num_assets):
    """Where a trigger fires, screening says that it may; and it seldom says so elsewhere. Portfolios long and short, at
    all distances from the limit, most of them within rounding of it."""
    rng = np.random.default_rng(3)
    triggers = [js.Threshold(0.05), js.Threshold(0.3, relative=True), js.HalfL1Drift(0.1), js.L2Drift(0.1)]

    def ask(units, cash, price, target):
        value = cash + jnp.sum(units * price)
        obs = js.Observation(
            *(jnp.int32(0), units, units, value, cash, units, cash, price, target, price > 0, None, None, price[None])
        )
        columns = (tuple(x) if num_assets <= 16 else x for x in (units, price, target))
        screening = Screening(jnp.int32(0), *columns, value)
        return [jnp.stack([trigger(obs), trigger.may_fire(screening)]) for trigger in triggers]

    with jax.enable_x64(True):
        num = 4000
        price = np.exp(rng.normal(0, 3, (num, num_assets)))
        target = rng.dirichlet(np.ones(num_assets), num) * rng.choice([1, -1, 3], (num, 1), p=[0.8, 0.1, 0.1])
        target[rng.random(target.shape) < 0.1] = 0
        apart = np.zeros_like(target)
        apart[:, 0] = rng.choice([0.05, -0.05, 0.1, 0.02], num) + rng.choice([0, 1e-16, -1e-16, 1e-7, -1e-7], num)
        apart[:, 1] = -apart[:, 0]
        value = np.exp(rng.normal(3, 3, num))
        units = np.where(target + apart != 0, (target + apart) * value[:, None] / price, 0)
        answers = jax.jit(jax.vmap(ask))(units, value - (units * price).sum(1), price, target)
    for trigger, answer in zip(triggers, answers, strict=True):
        fires, may = np.asarray(answer).T
        assert not (fires & ~may).any(), trigger
        assert fires.any() and not fires.all()
        assert (may & ~fires).sum() <= num // 2, trigger


class SmallDrift(js.Threshold):
    """A trigger of the user's, made from another one: only drifts that are small."""

    def __call__(self, obs):
        return ~super().__call__(obs)


class OneMoreDate(js.EveryBars):
    def __call__(self, obs):
        return super().__call__(obs) | (obs.step == 7)


@pytest.mark.parametrize(
    "trigger",
    [js.Threshold([0.0, 0.9, 0.9], relative=True), SmallDrift(0.04), OneMoreDate(3)],
    ids=["no position at a target of zero", "redefined", "redefined dates"],
)
def test_triggers_whose_quick_answer_is_not_the_obvious_one(trigger):
    close = pd.DataFrame(markets(np.random.default_rng(2), 1).close[0][10:40]).ffill().bfill()
    ahead, judge = (
        js.backtest(close, al.FixedWeights([0.0, 0.5, 0.5]), trigger=trigger, **how).rebalances.to_numpy()
        for how in (dict(schedule=js.NextEvent()), dict(engine="reference"))
    )
    np.testing.assert_array_equal(ahead, judge)


class KeptKey(eqx.Module):
    """Remembers a random key, and splits it at every rebalance."""

    def init(self, num_assets):
        return jax.random.key(3)

    def __call__(self, obs, state):
        key, used = jax.random.split(state)
        weights = jax.random.uniform(used, (obs.num_assets,))
        return js.Allocation(weights / weights.sum()), key


def test_a_key_that_an_allocator_remembers_moves_on():
    close = pd.DataFrame(markets(np.random.default_rng(1), 1).close[0][10:40]).ffill().bfill()
    options = dict(trigger=js.EveryBars(4), fees=js.grid(fees=[0.0, 0.001]))
    ahead, scan = (js.backtest(close, KeptKey(), schedule=x, **options) for x in (js.NextEvent(), js.Scan()))
    np.testing.assert_allclose(ahead.value, scan.value, rtol=1e-12)
    weights = ahead.allocations.weights
    assert len(weights.drop_duplicates()) == len(weights) // 2 > 5  # two lanes, the same draws
    pd.testing.assert_frame_equal(weights, scan.allocations.weights)


class Watching(eqx.Module):
    def init(self, num_assets):
        return jnp.zeros(())

    def observe(self, obs, state):
        return state

    def __call__(self, obs, state):
        return js.Allocation(jnp.full(obs.num_assets, 1 / obs.num_assets)), state


@pytest.mark.parametrize(
    "options, error, message",
    [
        (dict(schedule="scan"), TypeError, r"^schedule: expected js.NextEvent\(\) or js.Scan\(\), got 'scan'"),
        (
            dict(schedule=js.Scan(), engine="reference"),
            ValueError,
            "^schedule: the reference engine has one of its own",
        ),
        (dict(schedule=js.NextEvent(), policy=Watching()), ValueError, "^schedule: Watching observes every bar"),
    ],
)
def test_what_is_no_schedule(options, error, message):
    close = pd.DataFrame(np.ones((4, 2)), pd.date_range("2024", periods=4, freq="D"))
    with pytest.raises(error, match=message):
        js.backtest(close, **{"policy": al.EqualWeight()} | options)


@pytest.mark.parametrize(
    "schedule, name", [(js.NextEvent, "block"), (js.NextEvent, "slots"), (js.NextEvent, "page"), (js.Scan, "page")]
)
def test_what_is_no_size_of_a_schedule(schedule, name):
    for value in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=f"^{name}: expected a whole number >= 1, got {value}"):
            schedule(**{name: value})
    assert schedule(**{name: np.int64(3)}) == schedule(**{name: 3})


@pytest.mark.parametrize("zone", ["America/Santiago", "Africa/Cairo", "America/Havana", "Europe/Berlin"])
@pytest.mark.parametrize("every", ["D", "W", "B", "MS"])
def test_days_without_a_midnight(zone, every):
    """The first bar of each day, week or month on the wall, also where the clock changes at midnight."""
    index = pd.date_range("2024-02-20", periods=6500, freq="1h", tz=zone)
    dates = pd.date_range("2024-02-20", index[-1].tz_localize(None), freq=every).date
    wall = index.tz_localize(None)
    expected = [int(np.flatnonzero(wall.date >= date)[0]) for date in dates]
    np.testing.assert_array_equal(js.index_points(index, every=every), expected)


@pytest.mark.parametrize("every", ["-1D", "0D", pd.Timedelta(0)])
def test_frequencies_that_lead_nowhere(every):
    with pytest.raises(ValueError, match="every: expected a positive duration"):
        js.index_points(pd.date_range("2024-01-01", periods=9), every=every)


def test_dates_of_a_series_and_numbers_that_are_none():
    index = pd.date_range("2024-01-01", periods=9)
    np.testing.assert_array_equal(js.index_points(index, on=pd.Series(index[[3, 5]])), [3, 5])
    with pytest.raises(ValueError, match=r"on: expected dates, got \[3, 5\]"):
        js.index_points(index, on=[3, 5])


@pytest.mark.parametrize("schedule", [js.NextEvent(), js.Scan()])
def test_an_allocator_may_hand_out_an_array_of_nothing(schedule):
    close = pd.DataFrame(markets(np.random.default_rng(1), 1).close[0][10:40]).ffill().bfill()

    def allocator(obs):
        return js.Allocation(jnp.full(3, 1 / 3), aux={"nothing": jnp.zeros(0)})

    bt = js.backtest(close, allocator, trigger=js.Threshold(0.02), schedule=schedule)
    assert bt.aux["nothing"].shape == (len(bt.allocations.bar), 0)
