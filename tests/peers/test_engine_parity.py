"""The compiled engine against the reference engine and vectorbt 1.2.0 on random long-only cases."""

import warnings

import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.cases import FORMS, assert_same_portfolio, make_batch

pytestmark = pytest.mark.filterwarnings("ignore:target weights sum to more than one")

#: Sizes of the groups of each batch; together 300 cases of eight shapes.
BATCHES = [[2] * 40, [3] * 40, [5] * 40, [8] * 40, [4] * 40, [6] * 40, [2, 5, 3, 5] * 10, [7] * 20]


@pytest.mark.parametrize("number", range(len(BATCHES)))
def test_compiled_equals_reference(number):
    rng = np.random.default_rng([2024, number])
    batch = make_batch(rng, BATCHES[number], 120, FORMS[number % len(FORMS)])
    assert_same_portfolio(batch.run(), batch.run("reference"))


def first_asset_heavy(obs):
    """Weights that are constants of the compiled program."""
    return np.array([0.6, 0.3, 0.1])


@pytest.mark.parametrize("policy", [al.EqualWeight(), first_asset_heavy], ids=["equal", "constant"])
def test_constant_weights_are_no_special_case(policy):
    """What XLA knows at compile time it may compute otherwise; it must round as if it did not know it."""
    batch = make_batch(np.random.default_rng(99), [3] * 40, 120, "asset")
    batch.threshold[:] *= np.random.default_rng(3).random(len(batch.threshold)) < 0.5
    assert_same_portfolio(batch.run(policy=policy), batch.run("reference", policy=policy))


@pytest.mark.parametrize("number", range(5))
def test_compiled_equals_vectorbt(number):
    """Twenty cases each; vectorbt takes one group of assets at a time."""
    pytest.importorskip("vectorbt")
    rng = np.random.default_rng([7, number])
    batch = make_batch(rng, [[2, 3, 5, 8, 4][number]] * 20, 120, FORMS[number % len(FORMS)])
    compare_with_vectorbt(batch, batch.run())


def compare_with_vectorbt(batch, ours) -> int:
    """Every case of a batch against vectorbt; the number of orders compared."""
    from benchmarks.peers import vectorbt_threshold as peer

    compared = 0
    for case in batch.cases:
        close = batch.close[case]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = peer.run(
                close,
                None if batch.open is None else batch.open[case],
                price=None if batch.price is None else batch.price[case],
                thresholds=[of_case(batch.threshold, case)],
                fees=[of_case(batch.fees, case)],
                weights=batch.weights[case].to_numpy(),
                init_cash=batch.init_cash,
                min_history=batch.min_history,
                freq="1D",
            )
        one = ours[case]
        np.testing.assert_array_equal(one.rebalances, theirs.rebalanced[:, 0], err_msg=f"case {case}")
        mine, records = one.records, peer.order_records(theirs, 0)
        by_column = np.lexsort((records["col"], records["idx"])), np.lexsort((mine["col"], mine["idx"]))
        records, mine = records[by_column[0]], mine[by_column[1]]
        assert len(records) == len(mine), f"case {case}"
        for name in ("idx", "col", "side"):
            np.testing.assert_array_equal(mine[name], records[name], err_msg=f"{name} of case {case}")
        for name in ("size", "price", "fees"):
            np.testing.assert_allclose(mine[name], records[name], rtol=1e-9, atol=1e-12)
        known = close.notna().cumsum().gt(0).all(axis=1).to_numpy()  # before that vectorbt's marks look ahead
        np.testing.assert_allclose(one.value[known], peer.value_path(theirs)[known, 0], rtol=1e-9)
        compared += len(mine)
    return compared


def of_case(parameter, case):
    """One case's part of a parameter that may be labelled by (case, asset) or by bar."""
    if isinstance(parameter, pd.DataFrame):
        return parameter[case].to_numpy()
    if isinstance(parameter, pd.Series):
        by_case = isinstance(parameter.index, pd.MultiIndex)
        return parameter[case].to_numpy() if by_case else parameter.to_numpy()[:, None]
    return parameter


@pytest.mark.parametrize("schedule", ["scan", "look ahead in small blocks and pages"])
def test_schedules_do_the_same(schedule, monkeypatch):
    """One bar after the other, or blocks and pages that never fit, give bit for bit what the default gives."""
    from jaxsim.engine.schedules import programs

    batch = make_batch(np.random.default_rng(5), [3] * 12, 117, "asset")
    default = batch.run()
    other = js.Scan(page=50) if schedule == "scan" else js.NextEvent(block=10, page=7)
    monkeypatch.setattr(programs, "forward_schedule", lambda policy: other)
    again = batch.run()
    np.testing.assert_array_equal(default.records, again.records)
    np.testing.assert_array_equal(default.value, again.value)
    np.testing.assert_array_equal(default.rebalances, again.rebalances)


def test_pure_core_equals_the_pandas_face():
    """`simulate` under vmap gives the values, cash, units and decisions that `backtest` gives."""
    import jax

    batch = make_batch(np.random.default_rng(11), [4], 120, "number")
    thresholds = np.linspace(0.0, 0.1, 9)
    weights = batch.weights.to_numpy()
    close = batch.close[0]
    open_, price = (None if x is None else x[0] for x in (batch.open, batch.price))
    with jax.enable_x64(True):
        market = js.Market.from_frames(close, open=open_, price=price)

        def one(threshold):
            policy = js.Policy(al.FixedWeights(weights), js.Threshold(threshold), min_history=3)
            costs, account = js.Costs(0.002), js.Account(1000.0)
            return js.simulate(market, policy, costs=costs, account=account)

        lanes = jax.vmap(one)(thresholds)
        alone = one(thresholds[4])
    bt = js.backtest(
        close,
        al.FixedWeights(weights),
        open=open_,
        price=price,
        trigger=js.Threshold(js.grid(threshold=thresholds)),
        fees=0.002,
        init_cash=1000.0,
        min_history=3,
        freq="1D",
    )
    np.testing.assert_array_equal(lanes.rebalanced.T, bt.rebalances)
    np.testing.assert_allclose(lanes.value.T, bt.value, rtol=1e-12)
    np.testing.assert_allclose(lanes.returns.T, bt.returns, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(lanes.cash.T, bt.cash, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.moveaxis(lanes.units, 0, 1).reshape(len(close), -1), bt.units, rtol=1e-12)
    np.testing.assert_allclose(alone.value, bt[thresholds[4]].value, rtol=1e-12)


def looking(obs):
    import jax.numpy as jnp

    return js.Allocation(jnp.full(obs.num_assets, 1 / 3), aux={"weights": obs.weights, "value": obs.value})


def test_what_is_observed_is_the_same_to_the_last_bit():
    """XLA may turn a division by one number into a multiplication by its inverse, which rounds otherwise."""
    batch = make_batch(np.random.default_rng(17), [3] * 20, 80, "number")
    batch.threshold = 0.0  # every bar is observed
    one, other = batch.run(policy=looking), batch.run("reference", policy=looking)
    assert len(one.aux["weights"]) > 500
    np.testing.assert_array_equal(one.aux["weights"], other.aux["weights"])
    np.testing.assert_array_equal(one.aux["value"], other.aux["value"])
