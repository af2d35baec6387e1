"""What must hold of any portfolio: lanes are independent, nothing looks ahead, money is conserved."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import allocators as al
import jaxsim as js
from tests.helpers.cases import make_batch, random_prices, random_weights

BARS, ASSETS = 90, 4
INDEX = pd.date_range("2021-01-01", periods=BARS, freq="h")
SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, deadline=None, derandomize=True)

pytestmark = pytest.mark.filterwarnings("ignore:target weights sum to more than one")


def prices(seed):
    close, open_, _ = random_prices(np.random.default_rng(seed), BARS, ASSETS)
    columns = list("ABCD")
    return pd.DataFrame(close, INDEX, columns), pd.DataFrame(open_, INDEX, columns)


def momentum(obs):
    """An allocator that looks at everything it may."""
    mean = jnp.nan_to_num(obs.window(6).mean_return())
    noise = jax.random.uniform(obs.key, (obs.num_assets,), jnp.float32)
    return jax.nn.softmax(5.0 * mean + 0.1 * noise + obs.weights)


def run(close, open_, policy=momentum, threshold=0.03, **options):
    options = {"freq": "1h", "fees": 0.003} | options
    return js.backtest(close, policy, open=open_, trigger=js.Threshold(threshold), **options)


@pytest.mark.parametrize(
    "policy", [momentum, al.RandomWeights(), al.EqualWeight()], ids=["momentum", "random", "equal"]
)
def test_a_lane_is_the_same_alone_and_in_company(policy):
    close, open_ = prices(3)
    crowd = np.round(np.linspace(0.001, 0.2, 200), 6)
    label = crowd[77]
    with_crowd = run(close, open_, policy, js.grid(threshold=crowd))[label]
    alone = run(close, open_, policy, js.grid(threshold=[label]))[label]
    np.testing.assert_array_equal(alone.rebalances, with_crowd.rebalances)
    np.testing.assert_array_equal(alone.allocations.targets, with_crowd.allocations.targets)
    pd.testing.assert_frame_equal(
        alone.orders[["asset", "timestamp", "side"]], with_crowd.orders[["asset", "timestamp", "side"]]
    )
    np.testing.assert_allclose(alone.value, with_crowd.value, rtol=1e-12)


def test_a_lane_is_bit_equal_in_any_company_of_one_width():
    close, open_ = prices(4)
    rng = np.random.default_rng(0)
    crowds = [np.unique(np.append(rng.uniform(0.001, 0.2, 30), 0.04))[:31] for _ in range(2)]
    one, other = (run(close, open_, momentum, js.grid(threshold=c))[0.04] for c in crowds)
    np.testing.assert_array_equal(one.value, other.value)
    np.testing.assert_array_equal(
        one.records[["idx", "size", "price", "fees", "side"]],
        other.records[["idx", "size", "price", "fees", "side"]],
    )


def test_random_draws_depend_on_labels_not_on_position():
    """The order of the labels, another chunk of them, another level before them: each lane draws the same."""
    close, open_ = prices(5)
    labels = [0.02, 0.05, 0.09]
    forward = run(close, open_, al.RandomWeights(), js.grid(threshold=labels))
    backward = run(close, open_, al.RandomWeights(), js.grid(threshold=labels[::-1]))
    for label in labels:
        np.testing.assert_array_equal(forward[label].allocations.targets, backward[label].allocations.targets)
    assert not np.array_equal(forward[0.02].allocations.targets[0], forward[0.05].allocations.targets[0])
    other_key = run(close, open_, al.RandomWeights(), js.grid(threshold=labels), key=1)
    assert not np.array_equal(forward.allocations.targets[0], other_key.allocations.targets[0])


def test_the_lane_key_is_the_documented_hash():
    """fold_in(fold_in(key, sha256("threshold=0.05")[:4]), bar), drawn in float32."""
    import hashlib

    close, open_ = prices(6)
    bt = run(close, open_, al.RandomWeights(), js.grid(threshold=[0.05, 0.1]), key=7)[0.05]
    number = int.from_bytes(hashlib.sha256(b"threshold=0.05").digest()[:4], "big")
    lane_key = jax.random.fold_in(jax.random.key(7), np.uint32(number))
    for bar, target in zip(bt.allocations.bar, bt.allocations.targets, strict=True):
        draws = jax.random.uniform(jax.random.fold_in(lane_key, int(bar)), (ASSETS,), jnp.float32)
        draws = np.asarray(draws, np.float64)
        np.testing.assert_allclose(target, draws / draws.sum(), rtol=1e-12)


def test_several_levels_hash_sorted_by_name():
    import hashlib

    close, open_ = prices(6)
    bt = run(close, open_, al.RandomWeights(), js.grid(threshold=[0.05]), fees=js.grid(fees=[0.001, 0.002]), key=0)
    number = int.from_bytes(hashlib.sha256(b"fees=0.002|threshold=0.05").digest()[:4], "big")
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), np.uint32(number)), 0)
    draws = np.asarray(jax.random.uniform(key, (ASSETS,), jnp.float32), np.float64)
    np.testing.assert_allclose(bt[0.05, 0.002].allocations.targets[0], draws / draws.sum(), rtol=1e-12)


@few
@given(SEEDS, st.integers(1, BARS - 2))
def test_the_future_changes_nothing_in_the_past(seed, bar):
    close, open_ = prices(seed)
    rng = np.random.default_rng(seed + 1)
    changed, changed_open = close.copy(), open_.copy()
    changed.iloc[bar + 1 :] *= rng.uniform(0.5, 2.0, (BARS - bar - 1, ASSETS))
    changed_open.iloc[bar + 1 :] *= rng.uniform(0.5, 2.0, (BARS - bar - 1, ASSETS))
    before, after = run(close, open_), run(changed, changed_open)
    past = close.index[: bar + 1]
    pd.testing.assert_series_equal(before.value[past], after.value[past], check_exact=True)
    np.testing.assert_array_equal(before.rebalances[past], after.rebalances[past])
    mine, theirs = (x.records[x.records["idx"] <= bar] for x in (before, after))
    np.testing.assert_array_equal(mine, theirs)


@few
@given(SEEDS, st.integers(1, BARS - 2))
def test_a_bar_does_not_see_its_own_close(seed, bar):
    """The close of a bar changes no decision, target or requested size of that bar; only fills and marks."""
    close, open_ = prices(seed)
    changed = close.copy()
    changed.iloc[bar:] *= np.random.default_rng(seed).uniform(0.5, 2.0, ASSETS)
    before, after = run(close, open_), run(changed, open_)
    assert before.rebalances.iloc[bar] == after.rebalances.iloc[bar]
    if before.rebalances.iloc[bar]:
        one, other = (x._paths.ledgers[0] for x in (before, after))
        at, there = (int(np.flatnonzero(x.bar == bar)[0]) for x in (one, other))
        np.testing.assert_array_equal(one.target[at], other.target[there])
        np.testing.assert_array_equal(one.request[at], other.request[there])
        assert one.value[at] == other.value[there]


@few
@given(SEEDS)
def test_money_is_conserved(seed):
    """Cash after every bar is the opening cash less what the orders paid; value is cash plus what is held."""
    close, open_ = prices(seed)
    bt = run(close, open_, al.FixedWeights(random_weights(np.random.default_rng(seed), ASSETS)))
    records = bt.records
    sign = np.where(records["side"] == 0, 1.0, -1.0)
    flow = np.bincount(records["idx"], -sign * records["size"] * records["price"] - records["fees"], BARS)
    np.testing.assert_allclose(bt.cash, 100.0 + np.cumsum(flow), rtol=1e-9, atol=1e-9)
    held = np.zeros((BARS, ASSETS))
    np.add.at(held, (records["idx"], records["col"]), sign * records["size"])
    np.testing.assert_allclose(bt.units, np.cumsum(held, axis=0), rtol=1e-9, atol=1e-9 * np.abs(held).max())
    np.testing.assert_allclose(bt.value, bt.cash + bt.asset_value.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(bt.weights.sum(axis=1) + bt.cash / bt.value, 1.0, rtol=1e-12)
    assert (bt.cash >= 0).all()
    assert (bt.units >= 0).all().all()
    assert bt.total_fees() == pytest.approx(records["fees"].sum())


@few
@given(SEEDS)
def test_scaling_the_currency_scales_the_money(seed):
    close, open_ = prices(seed)
    weights = al.FixedWeights(np.random.default_rng(seed).dirichlet(np.ones(ASSETS)))
    one = run(close, open_, weights)
    other = run(close * 4.0, open_ * 4.0, weights, init_cash=400.0)  # a power of two scales without rounding
    np.testing.assert_array_equal(one.rebalances, other.rebalances)
    np.testing.assert_array_equal(one.value * 4.0, other.value)
    np.testing.assert_array_equal(one.records["size"], other.records["size"])


@few
@given(SEEDS)
def test_permuting_the_assets_permutes_the_results(seed):
    rng = np.random.default_rng(seed)
    close = pd.DataFrame(np.exp(rng.normal(0, 0.03, (BARS, ASSETS)).cumsum(axis=0)), INDEX, list("ABCD"))
    open_ = close.shift(1).fillna(1.0) * np.exp(rng.normal(0, 0.01, (BARS, ASSETS)))
    weights = pd.Series(rng.dirichlet(np.ones(ASSETS)), close.columns)
    order = list(rng.permutation(close.columns))
    one = run(close, open_, al.FixedWeights(weights))
    other = run(close[order], open_[order], al.FixedWeights(weights))
    np.testing.assert_array_equal(one.rebalances, other.rebalances)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-9)
    np.testing.assert_allclose(one.units[order], other.units, rtol=1e-9, atol=1e-12)


def test_zero_costs_conserve_value_at_the_fill_price():
    close, _ = prices(8)
    close = close.ffill().bfill()
    bt = run(close, close, al.FixedWeights([0.1, 0.2, 0.3, 0.4]), 0.0, fees=0.0)
    ledger = bt._paths.ledgers[0]
    after = ledger.cash + (ledger.units * close.to_numpy()[ledger.bar]).sum(axis=1)
    np.testing.assert_allclose(after, ledger.value, rtol=1e-12)


def test_a_costly_allocator_costs_nothing_where_no_lane_trades():
    """The allocator runs inside a branch of the compiled program, not at every bar for every lane."""
    calls = []

    def counted(obs):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.full(obs.num_assets, 0.25)

    close, open_ = prices(9)
    bt = run(close, open_, counted, js.grid(threshold=[0.05, 0.1, 0.15]))
    jax.effects_barrier()
    bars = bt.rebalances.any(axis=1).sum()
    assert 0 < len(calls) <= 3 * bars


def test_results_do_not_depend_on_the_group_beside():
    """Groups of other sizes and prices, simulated in one call, change nothing."""
    batch = make_batch(np.random.default_rng(12), [3, 2, 3], 80, "asset")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = batch.run()
        for case in batch.cases:
            alone = js.backtest(
                batch.close[[case]],
                al.FixedWeights(batch.weights[[case]]),
                open=None if batch.open is None else batch.open[[case]],
                price=None if batch.price is None else batch.price[[case]],
                trigger=js.Threshold(batch.threshold[[case]]),
                fees=batch.fees[[case]],
                min_history=batch.min_history,
                init_cash=batch.init_cash,
                delistings="hold",
                drift_without_price="counts",
            )
            np.testing.assert_array_equal(alone[case].rebalances, together[case].rebalances)
            np.testing.assert_allclose(alone[case].value, together[case].value, rtol=1e-12)
