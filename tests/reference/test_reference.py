"""The reference engine against the published tables and vectorbt 1.2.0, order by order and run by run."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxsim.engine.policy.allocation import Allocation
from jaxsim.engine.policy.drift_triggers import Threshold
from jaxsim.engine.policy.given import RecordedTargets, replay_policy
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.policy.triggers import AbstractTrigger
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market
from jaxsim.engine.trading.status import LaneFault, OrderStatus, OrderStatusInfo
from jaxsim.errors import OrderError, RejectedOrderError
from jaxsim.frames.inputs.prices import mark_prices, valuation_prices
from jaxsim.reference import AccountState, OrderRequest, SizeType, process_order, run_lane
from tests.helpers.engines import is_one_lot_more
from tools.outside_data import OutsideDataError, golden_file, load_binance

THRESHOLDS = np.arange(1, 16) / 100


def market_of(close, open=None, features=None) -> Market:
    return Market(close, valuation_prices(close, open), close, mark_prices(close, open), features)


def random_market(rng, num_bars, num_assets, *, holes=0.0) -> tuple[np.ndarray, np.ndarray]:
    """(close, open); with holes, at least one bar of both lacks a price, and some assets are listed late."""
    walk = np.exp(np.cumsum(rng.normal(0, 0.05, (2 * num_bars, num_assets)), axis=0)) * rng.uniform(1, 50, num_assets)
    open, close = walk[0::2].copy(), walk[1::2].copy()
    if holes:
        open[rng.random(open.shape) < holes] = np.nan
        close[rng.random(close.shape) < holes] = np.nan
        for asset in range(1, num_assets, 2):
            start = rng.integers(0, num_bars // 2)
            open[:start, asset] = close[:start, asset] = np.nan
    return close, open


def sharpe(run, cash=100.0) -> float:
    """As the tables were published: rules 7.3, with a year of 8760 hours."""
    value = np.concatenate([[cash], run.value_path])
    returns = value[1:] / value[:-1] - 1
    return returns.mean() / returns.std(ddof=1) * np.sqrt(8760)


# --- The published tables


@pytest.fixture(scope="module")
def binance():
    try:
        open, close = load_binance()
    except OutsideDataError as error:
        pytest.skip(str(error))
    return market_of(close.to_numpy(), open.to_numpy()), close


@pytest.fixture(scope="module")
def golden():
    def read(name: str) -> pd.DataFrame:
        try:
            return pd.read_csv(golden_file(name), index_col=0)
        except OutsideDataError as error:
            pytest.skip(str(error))

    return read


def test_golden_uniform(binance, golden):
    market, close = binance
    expected = golden("uniform_sharpe.csv")["sharpe_ratio"].to_numpy()
    for threshold, row in ((0.05, 4), (0.12, 11)):
        run = run_lane(
            market,
            Policy(lambda obs: np.full(5, 1 / 5), Threshold(threshold)),
            Costs(fees=0.005),
            Account(100.0),
        )
        assert round(sharpe(run), 6) == expected[row]
        if threshold == 0.05:
            bars = pd.to_datetime(golden("uniform_rebalances_0.05.csv").index, utc=True)
            assert list(close.index[run.bars]) == list(bars)


def test_golden_random(binance, golden):
    market, close = binance
    rng = np.random.RandomState(42)  # one for all lanes, in lane order

    def allocator(obs):
        draws = rng.uniform(0, 1, 5)
        return draws / draws.sum()

    runs = [run_lane(market, Policy(allocator, Threshold(t)), Costs(fees=0.005), Account(100.0)) for t in THRESHOLDS]
    expected = golden("random_sharpe.csv")["sharpe_ratio"].to_numpy()
    assert np.array_equal(np.round([sharpe(run) for run in runs], 6), expected)
    described = pd.DataFrame(runs[9].target, columns=close.columns).describe()
    table = golden("random_allocations_0.10_describe.csv")
    assert list(table.columns) == list(described.columns)
    assert np.array_equal(described.round(6).loc[table.index], table)


# --- One order against vectorbt's

FIELDS = [
    "size", "price", "size_type", "direction", "fees", "fixed_fees", "slippage", "min_size", "max_size",
    "size_granularity", "reject_prob", "lock_cash", "allow_partial", "raise_reject",
]  # fmt: skip


def random_orders(rng, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Account states [num, 6], orders [num, 14], and whether to update the value; round numbers meet often,
    and here and there a field makes no sense."""

    def pick(values, chance=None):
        return rng.choice(np.array(values, float), num, p=chance)

    def sometimes(probability, values, otherwise):
        return np.where(rng.random(num) < probability, values, otherwise)

    uniform = rng.uniform
    cash = sometimes(0.7, uniform(0, 200, num), pick([0.0, 100.0, 1e-13, 1e7, np.inf]))
    position = sometimes(0.6, uniform(-20, 20, num), pick([0.0, 0.0, 5.0, -5.0, 1e-13, -1e-13]))
    price = sometimes(0.7, uniform(0.5, 20, num), pick([1.0, 10.0, 2.5]))
    val_price = sometimes(0.5, price, uniform(0.5, 20, num))
    debt = np.where(position < 0, -position * uniform(0.5, 20, num), 0.0)
    free_cash = np.where(position < 0, cash - 2 * debt, cash)
    free_cash = sometimes(0.15, uniform(-100, 200, num), free_cash)
    value = cash + position * val_price
    size_type = rng.integers(0, 6, num)
    direction = sometimes(0.5, 2, np.where(position > 0, 0, np.where(position < 0, 1, rng.integers(0, 2, num))))
    scale = np.array([10.0, 100.0, 1.0, 10.0, 100.0, 1.0])[size_type]
    size = sometimes(0.8, uniform(-1.2, 1.2, num) * scale, pick([0.0, 1.0, -1.0, 0.5, 5.0, 10.0]))
    size = sometimes(0.12, pick([np.inf, -np.inf, 1e-13, 1e13, -1e13, np.nan]), size)
    fees = pick([0.0, 0.005, 0.1, -0.01, 1.5], [0.3, 0.4, 0.2, 0.05, 0.05])
    fixed_fees = pick([0.0, 1.0, -0.5, 50.0], [0.6, 0.25, 0.05, 0.1])
    slippage = pick([0.0, 0.01, 0.3], [0.5, 0.4, 0.1])
    min_size = pick([0.0, 1e-8, 1.0, 5.0], [0.5, 0.2, 0.2, 0.1])
    max_size = pick([np.inf, 1.0, 5.0], [0.7, 0.1, 0.2])
    # Powers of two, with exact multiples: vectorbt rounds down what is a hair below a lot.
    granularity = pick([np.nan, 0.125, 1.0, 8.0], [0.6, 0.2, 0.15, 0.05])
    reject_prob = pick([0.0, 0.5, 1.0], [0.8, 0.15, 0.05])
    flags = [rng.random(num) < p for p in (0.4, 0.7, 0.1)]
    states = np.stack([cash, position, debt, free_cash, val_price, value], axis=1)
    orders = np.stack(
        [size, price, size_type, direction, fees, fixed_fees, slippage, min_size, max_size, granularity,
         reject_prob, *flags], axis=1,
    )  # fmt: skip
    for array, columns in ((states, 6), (orders, 11)):  # the nonsense
        rows = np.flatnonzero(rng.random(num) < 0.12)
        array[rows, rng.integers(0, columns, rows.size)] = rng.choice([np.nan, np.inf, -np.inf, -1.0, 0.0], rows.size)
    orders[:, 2:4] = np.where(np.isfinite(orders[:, 2:4]), orders[:, 2:4], 9)
    return states, orders, rng.random(num) < 0.3


def vectorbt_orders(states, orders, update_value, seeds):
    """vectorbt's answers: [num, 12] = state after (6), size, price, fees, side, status, info; the draws of
    its random generator; and whether it raised."""
    from numba import njit
    from vectorbt.portfolio import enums, nb

    @njit
    def run(states, orders, update_value, seeds, order_records, log_records):
        num = len(states)
        answers, draws, raised = np.full((num, 12), np.nan), np.empty(num), np.zeros(num, np.bool_)
        for k in range(num):
            s, o = states[k], orders[k]
            np.random.seed(seeds[k])
            draws[k] = np.random.uniform(0, 1)
            np.random.seed(seeds[k])
            state = enums.ProcessOrderState(s[0], s[1], s[2], s[3], s[4], s[5], 0, 0)
            order = nb.order_nb(
                o[0], o[1], int(o[2]), int(o[3]), o[4], o[5], o[6], o[7], o[8], o[9], o[10],
                o[11] != 0, o[12] != 0, o[13] != 0, False,
            )  # fmt: skip
            try:
                result, after = nb.process_order_nb(0, 0, 0, state, update_value[k], order, order_records, log_records)
                answers[k, 0], answers[k, 1], answers[k, 2] = after.cash, after.position, after.debt
                answers[k, 3], answers[k, 4], answers[k, 5] = after.free_cash, after.val_price, after.value
                answers[k, 6], answers[k, 7], answers[k, 8] = result.size, result.price, result.fees
                answers[k, 9], answers[k, 10], answers[k, 11] = result.side, result.status, result.status_info
            except Exception:
                raised[k] = True
        return answers, draws, raised

    records = np.empty(1, enums.order_dt), np.empty(1, enums.log_dt)
    return run(states, orders, update_value, seeds, *records)


@pytest.mark.slow
def test_orders_equal_vectorbt():
    pytest.importorskip("vectorbt")
    num = 5000
    rng = np.random.default_rng(1)
    states, orders, update_value = random_orders(rng, num)
    answers, draws, raised = vectorbt_orders(states, orders, update_value, np.arange(num))
    met, bugs, hairs = Counter(), 0, 0
    for k in range(num):
        before = AccountState(*states[k].tolist())
        order = OrderRequest(**dict(zip(FIELDS, orders[k].tolist(), strict=True)))
        case = f"case {k}: {order} on {before}, draw {draws[k]}, vectorbt: {answers[k].tolist()}"
        if before.cash < 0:  # an account may owe money, see tests.peers.differences
            met["debt"] += 1
            continue
        try:
            after, result = process_order(before, order, draw=draws[k], update_value=update_value[k])
        except OrderError as error:
            if not np.isinf(orders[k, 0]) or order.size_type != SizeType.PERCENT:
                assert raised[k], f"{error!r}, {case}"
            met["rejected error" if isinstance(error, RejectedOrderError) else "error"] += 1
            continue
        expected = answers[k]
        if result.info == OrderStatusInfo.SIZE_ZERO and expected[10] == OrderStatus.FILLED:
            assert np.isnan(expected[6]) or expected[6] == 0, case  # the two faults that are not ours
            bugs += 1
            continue
        if is_one_lot_more(np.nan_to_num(result.size), np.nan_to_num(expected[6]), order.size_granularity):
            hairs += 1
            continue
        assert not raised[k], f"no error, {result}, {case}"
        assert (result.status, result.info) == (expected[10], expected[11]), f"{result}, {case}"
        assert (-1 if result.side is None else result.side) == expected[9], case
        got = [after.cash, after.position, after.debt, after.free_cash, after.val_price, after.value]
        got += [result.size, result.price, result.fees]
        assert np.array_equal(got, expected[:9], equal_nan=True), f"{got}, {case}"
        met[result.info] += 1
    ours_alone = OrderStatusInfo.MIN_VALUE_NOT_REACHED
    assert {*OrderStatusInfo, "error", "rejected error", "debt"} - {ours_alone} <= set(met), met
    assert bugs > 0 and hairs < 0.01 * len(orders)


# --- Whole runs against vectorbt's


def orders_of(run) -> np.ndarray:
    """[order, 6]: bar, asset, side, size, price, fees, in the order of execution."""
    rows = []
    for e, bar in enumerate(run.bars):
        for n in np.argsort(run.rank[e]):
            trade = run.trade[e, n]
            if run.info[e, n] == OrderStatusInfo.NONE:
                rows.append((bar, n, float(trade < 0), abs(trade), run.price[e, n], run.fees[e, n]))
    return np.array(rows).reshape(-1, 6)


@pytest.mark.slow
def test_runs_equal_vectorbt():
    pytest.importorskip("vectorbt")
    from benchmarks.peers import vectorbt_threshold as peer

    rng = np.random.default_rng(5)
    num_bars, num_assets = 120, 4
    num_orders, infos = 0, Counter()
    for case in range(12):
        close, open = random_market(rng, num_bars, num_assets, holes=0.0 if case == 0 else 0.15)
        if case == 1:
            close[:, 1], open[:, 1] = close[:, 0], open[:, 0]
        if case == 2:
            close, open = close * 1e-6, open * 1e-6
        shapes = [(), (num_assets,), (1, num_assets), (num_bars, 1), (num_bars, num_assets)]
        thresholds = [rng.uniform(0.0, 0.15, shape) for shape in shapes]
        fees = [rng.choice([0.0, 0.005, 0.02]) * rng.uniform(0.5, 1, shape) for shape in reversed(shapes)]
        weights = rng.dirichlet(np.ones(num_assets), len(shapes)) * rng.choice([0.7, 1.0, 1.3])
        if case == 3:
            thresholds, weights[:] = [np.zeros(shape) for shape in shapes], [0, 1, 0, 0]
        cash = 1e7 if case == 4 else 100.0
        min_history = int(rng.integers(0, 10))
        with_open = case % 4 != 3
        price = (close + open) / 2 if case % 3 == 1 else None
        frames = [None if a is None else pd.DataFrame(a) for a in (close, open if with_open else None, price)]
        result = peer.run(
            frames[0], frames[1], price=frames[2], thresholds=thresholds, weights=weights, fees=fees,
            init_cash=cash, min_history=min_history,
        )  # fmt: skip
        market = market_of(close, open if with_open else None)
        if price is not None:
            market = Market(market.close, market.val_price, price, market.mark)
        for lane in range(len(shapes)):

            def allocator(obs, weights=weights[lane]):
                return weights

            policy = Policy(allocator, Threshold(thresholds[lane]), min_history=min_history)
            run = run_lane(market, policy, Costs(fees=fees[lane]), Account(cash))
            assert np.array_equal(run.bars, peer.rebalance_bars(result, lane)), (case, lane)
            assert np.array_equal(run.target, result.targets[lane])
            records = peer.order_records(result, lane)
            expected = np.stack([records[f] for f in ("idx", "col", "side", "size", "price", "fees")], axis=1)
            got = orders_of(run)
            assert got.shape == expected.shape, (case, lane)
            assert np.array_equal(got[:, :3], expected[:, :3]), (case, lane)
            assert np.allclose(got[:, 3:], expected[:, 3:], rtol=1e-9, atol=1e-12 * cash), (case, lane)
            value = peer.value_path(result)[:, lane]
            assert np.allclose(run.value_path, value, rtol=1e-9, atol=0), (case, lane)
            num_orders += len(got)
            infos.update(run.info.ravel().tolist())
    assert num_orders > 4000
    reasons = (OrderStatusInfo.PRICE_NAN, OrderStatusInfo.VAL_PRICE_NAN, OrderStatusInfo.NO_CASH_LONG)
    assert all(infos[reason] > 0 for reason in reasons), infos


# --- What vectorbt cannot say


@pytest.fixture
def market():
    close, open = random_market(np.random.default_rng(0), 60, 3)
    return market_of(close, open, features={"bar": np.arange(60)})


def equal(obs):
    return np.full(obs.num_assets, 1 / obs.num_assets)


FREE = Costs(), Account(100.0)


def test_paths_and_events_agree(market):
    run = run_lane(market, Policy(equal, Threshold(0.02)), Costs(fees=0.01), Account(100.0))
    assert 5 < len(run.bars) < 60
    assert run.fault == (LaneFault.NONE, -1, -1)
    assert np.array_equal(run.units, run.units_path[run.bars])
    assert np.array_equal(run.cash, run.cash_path[run.bars])
    before = np.vstack([np.zeros((1, 3)), run.units[:-1]])
    assert np.allclose(run.trade, run.units - before, rtol=1e-12, atol=1e-12)
    assert np.allclose(run.request, run.target * run.value[:, None] / market.val_price[run.bars] - before)
    assert np.allclose(run.value_path, run.cash_path + (run.units_path * market.mark).sum(1))
    assert np.allclose(run.cash[0], 100 - (run.trade[0] * run.price[0] + run.fees[0]).sum(), atol=1e-9)
    value = np.take_along_axis(run.request * market.val_price[run.bars], np.argsort(run.rank), axis=1)
    assert (np.diff(value, axis=1) >= -1e-9).all()  # sells before buys


def test_observation(market):
    seen = []

    def allocator(obs):
        seen.append(obs)
        return equal(obs)

    key = jax.random.key(7)
    run = run_lane(market, Policy(allocator, Threshold(0.05), min_history=4), *FREE, key)
    assert [obs.step for obs in seen] == run.bars.tolist() and seen[0].step == 4
    assert np.isnan(seen[0].target).all() and np.array_equal(seen[1].target, run.target[0])
    for obs in seen:
        assert isinstance(obs.units, np.ndarray) and isinstance(obs.value, float)
        assert obs.features["bar"] == obs.step
        assert np.array_equal(obs.window(4).values, market.close[obs.step - 4 : obs.step])
        assert obs.key == jax.random.fold_in(key, obs.step)
        assert np.allclose(obs.weights, obs.units * obs.val_price / obs.value)
        assert obs.free_cash == obs.cash and not obs.debt.any() and obs.tradable.all()
        with pytest.raises(ValueError):
            obs.closes[0, 0] = 1.0


def test_late_asset_has_no_weight_and_breaches_when_listed():
    close, open = random_market(np.random.default_rng(3), 30, 2)
    close[:10, 1] = open[:10, 1] = np.nan
    seen = []

    def allocator(obs):
        seen.append(obs)
        return equal(obs)

    run = run_lane(market_of(close, open), Policy(allocator, Threshold(0.5)), *FREE)
    assert run.bars[:2].tolist() == [0, 10]
    assert seen[0].tradable.tolist() == [True, False] and seen[0].weights.tolist() == [0, 0]
    assert run.info[0].tolist() == [-1, OrderStatusInfo.PRICE_NAN] and np.isnan(run.request[0, 1])
    assert run.units[1, 1] > 0


@pytest.mark.parametrize(
    ("weight", "fault"),
    [
        (np.nan, LaneFault.WEIGHT_NAN),
        (-np.inf, LaneFault.WEIGHT_INFINITE),
    ],
)
def test_fault_ends_trading(market, weight, fault):
    answers = iter([[0.5, 0.2, 0.1], [0.9, weight, weight]])
    run = run_lane(market, Policy(lambda obs: np.array(next(answers)), lambda obs: obs.step >= 5), *FREE)
    assert run.fault == (fault, 5, 1)
    assert run.bars.tolist() == [0, 5]
    assert np.array_equal(run.target[1], [0.9, weight, weight], equal_nan=True)
    assert not run.trade[1].any() and (run.units_path == run.units[0]).all()


def test_negative_weights_sell_short(market):
    run = run_lane(market, Policy(lambda obs: np.array([0.5, -0.2, 0.1])), *FREE)
    assert run.fault[0] == LaneFault.NONE and run.units[0, 1] < 0
    assert run.free_cash[0] == pytest.approx(run.cash[0] - 2 * 20 * market.price[0, 1] / market.val_price[0, 1])


def test_skip_leaves_alone(market):
    def allocator(obs):
        skip = np.array([False, obs.step > 0, False])
        return Allocation(np.where(skip, np.nan, 0.3), skip=skip, aux={"step": obs.step})

    run = run_lane(market, Policy(allocator, lambda obs: obs.step in (7, 9)), Costs(fees=0.001), Account(100.0))
    assert run.fault[0] == LaneFault.NONE and run.bars.tolist() == [0, 7, 9]
    assert (run.units[:, 1] == run.units[0, 1]).all()
    assert np.isnan(run.target[1:, 1]).all() and (run.info[1:, 1] == OrderStatusInfo.SIZE_NAN).all()
    assert [aux["step"] for aux in run.aux] == [0, 7, 9]


class Counting:
    """Counts the bars it has seen and the questions it was asked, in an array that it overwrites."""

    def init(self, num_assets):
        return np.zeros(2)

    def observe(self, obs, state):
        state[0] += 1
        return state, {"seen": state}

    def __call__(self, obs, state):
        state[1] += 1
        return Allocation(equal(obs), aux={"asked": state}), state


def test_stateful_allocator(market):
    run = run_lane(market, Policy(Counting(), Threshold(0.05), min_history=3), *FREE)
    assert len(run.bar_aux) == 60
    assert [aux["seen"][0] for aux in run.bar_aux] == list(range(1, 61))
    assert [aux["asked"].tolist() for aux in run.aux] == [[bar + 1, e + 1] for e, bar in enumerate(run.bars)]


class Every(AbstractTrigger):
    period: int

    def __call__(self, obs):
        return jnp.asarray(obs.step % self.period == 0)


def test_other_triggers_and_replay(market):
    run = run_lane(market, Policy(equal, Every(7)), Costs(fees=0.01), Account(100.0))
    assert run.bars.tolist() == list(range(0, 60, 7))
    held = run_lane(market, Policy(equal), Costs(fees=0.01), Account(100.0))
    assert held.bars.tolist() == [0] and held.bar_aux == []
    mask = np.isin(np.arange(60), run.bars)
    with jax.enable_x64(True):
        again = run_lane(
            market, replay_policy(mask, RecordedTargets(run.bars, run.target)), Costs(fees=0.01), Account(100.0)
        )
    for field in ("bars", "target", "trade", "fees", "rank", "value_path"):
        assert np.array_equal(getattr(again, field), getattr(run, field)), field


def test_no_rebalance_at_all(market):
    run = run_lane(market, Policy(equal, min_history=60), *FREE)
    assert run.bars.shape == (0,) and run.target.shape == run.info.shape == (0, 3)
    assert (run.value_path == 100).all()


def test_flat_portfolio_is_asked_again(market):
    run = run_lane(market, Policy(lambda obs: np.zeros(3)), *FREE)
    assert run.bars.tolist() == list(range(60))
    assert (run.info == OrderStatusInfo.SIZE_ZERO).all()


def test_wrong_shape_names_the_allocator(market):
    def too_few(obs):
        return np.ones(2) / 2

    with pytest.raises(ValueError, match=r"too_few returned weights of shape \(2,\); expected one per asset, \(3,\)"):
        run_lane(market, Policy(too_few), *FREE)
    with pytest.raises(ValueError, match=r"returned skip of shape \(1,\)"):
        run_lane(market, Policy(lambda obs: Allocation(equal(obs), skip=np.array([True]))), *FREE)


def test_bad_price_raises_with_bar_and_asset(market):
    price = market.price.copy()
    price[4, 2] = -1.0
    bad = Market(market.close, market.val_price, price, market.mark)
    with pytest.raises(OrderError, match="price must be finite and > 0") as caught:
        run_lane(bad, Policy(equal, min_history=4), *FREE)
    assert (caught.value.bar, caught.value.asset) == (4, 2)
