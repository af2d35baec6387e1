"""Accounting identities on random orders of every kind, in both engines."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import allocators as al
import jaxsim as js
from jaxsim.engine.base.enums import SizeType
from jaxsim.engine.trading.status import OrderStatusInfo
from tests.helpers.engines import logs_by_case, markets, reference_logs, run_compiled, run_reference
from tests.helpers.markets import prices
from tests.helpers.pipelines import Pipelines, make_pipelines

SHAPE = 24, 50, 3  # cases, bars, assets
SEEDS = st.integers(0, 10**6)
few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CLOSE, OPEN = prices(0)


def pipelines(seed: int) -> Pipelines:
    return make_pipelines(np.random.default_rng(seed), *SHAPE)


def logs_of(p: Pipelines, engine: str) -> list[tuple[int, np.ndarray]]:
    """The logs of the cases that raised nothing; of a few only in the reference engine."""
    bt, faults, keys = run_compiled(p)
    if engine == "compiled":
        return [(case, log) for case, log in enumerate(logs_by_case(bt)) if case not in faults]
    runs = [(case, run_reference(p, case, markets(p)[case], keys[case])) for case in range(3) if case not in faults]
    return [(case, reference_logs(run, SHAPE[2])) for case, run in runs]


def close_to(a, b, scale) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@few
@given(SEEDS)
def test_every_order_moves_cash_by_what_it_trades_and_pays(engine, seed):
    p = pipelines(seed)
    for case, log in logs_of(p, engine):
        filled = log[log["res_status_info"] == OrderStatusInfo.NONE]
        traded = np.where(filled["res_side"] == 0, 1.0, -1.0) * filled["res_size"]
        money = np.abs(traded * filled["res_price"]).max(initial=0.0) + p.init_cash[case]
        close_to(filled["new_cash"] - filled["cash"], -traded * filled["res_price"] - filled["res_fees"], money)
        units = np.abs(np.concatenate([filled["position"], traded])).max(initial=0.0)
        close_to(filled["new_position"] - filled["position"], traded, units)
        asked = np.where(np.isnan(filled["req_slippage"]), 0.0, filled["req_slippage"])
        close_to(filled["res_price"], filled["req_price"] * (1 + np.sign(traded) * asked), 0.0)
        still = log[log["res_status_info"] != OrderStatusInfo.NONE]
        close_to(still["new_cash"], still["cash"], 1e-3)
        close_to(still["new_position"], still["position"], 1e-3)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@few
@given(SEEDS)
def test_cash_never_falls_below_zero_and_debt_is_what_shorts_owe(engine, seed):
    p = pipelines(seed)
    for case, log in logs_of(p, engine):
        assert (log["new_cash"] >= -1e-9 * p.init_cash[case]).all()
        assert (log["new_debt"] >= 0).all()
        assert (log["new_debt"][log["new_position"] >= 0] == 0).all()
        debt = np.zeros(SHAPE[2])
        owed = np.empty(len(log))
        for row, entry in enumerate(log):
            debt[entry["col"]] = entry["new_debt"]
            owed[row] = debt.sum()
        scale = p.init_cash[case] + np.abs(owed).max(initial=0.0) + np.abs(log["new_cash"]).max(initial=0.0)
        close_to(log["new_free_cash"], log["new_cash"] - 2 * owed, scale)


@few
@given(SEEDS)
def test_value_changes_by_price_moves_and_costs(seed):
    """Over each bar: holdings times the move of their marks, plus what fills are off the mark, less fees."""
    p = pipelines(seed)
    bt, faults, _ = run_compiled(p)
    value, units = bt.value.to_numpy(), bt.units.to_numpy().reshape(SHAPE[1], SHAPE[0], SHAPE[2])
    marks = np.stack([np.nan_to_num(m.mark) for m in markets(p)], axis=1)
    records = bt.records
    case, asset = np.divmod(records["col"], SHAPE[2])
    traded = np.where(records["side"] == 0, 1.0, -1.0) * records["size"]
    gained = np.zeros(value.shape)
    off_mark = traded * (marks[records["idx"], case, asset] - records["price"]) - records["fees"]
    np.add.at(gained, (records["idx"], case), off_mark)
    moved = np.zeros(value.shape)
    np.add.at(moved, (records["idx"], case), np.abs(traded * records["price"]))
    held = np.abs(units[:-1] * marks[1:]).sum(axis=2)
    change = np.diff(value, axis=0) - (units[:-1] * np.diff(marks, axis=0)).sum(axis=2)
    sound = [lane for lane in range(SHAPE[0]) if lane not in faults]
    scale = (np.abs(value[1:]) + moved[1:] + held)[:, sound]
    assert (np.abs(change - gained[1:])[:, sound] <= 1e-9 * scale).all()
    first = value[0] - p.init_cash - gained[0]
    assert (np.abs(first[sound]) <= 1e-9 * (p.init_cash + moved[0])[sound]).all()


@few
@given(SEEDS)
def test_scaling_the_currency_scales_the_money(seed):
    p = pipelines(seed)
    plain = [case for case in range(SHAPE[0]) if "tiny" not in p.label[case]]  # tolerances are absolute near zero
    is_money = (p.size_type == SizeType.VALUE) | (p.size_type == SizeType.TARGET_VALUE)
    scaled = replace(
        p,
        close=4 * p.close,
        open=None if p.open is None else 4 * p.open,
        price=4 * p.price,
        size=np.where(is_money, 4 * p.size, p.size),
        fixed_fees=4 * p.fixed_fees,
        init_cash=4 * p.init_cash,
    )
    (one, faults, _), (other, other_faults, _) = run_compiled(p), run_compiled(scaled)
    assert set(faults) == set(other_faults)
    for case in plain:
        if case in faults:
            continue
        a, b = one[case].records, other[case].records
        np.testing.assert_array_equal(a["idx"], b["idx"])
        np.testing.assert_allclose(b["size"], a["size"], rtol=1e-9)
        np.testing.assert_allclose(b["fees"], 4 * a["fees"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(other[case].value, 4 * one[case].value, rtol=1e-9)


@few
@given(SEEDS)
def test_the_future_changes_nothing_in_the_past(seed):
    p = pipelines(seed)
    rng = np.random.default_rng(seed)
    later = {}
    for name in ("close", "open", "price", "size"):
        table = getattr(p, name)
        if table is not None:
            later[name] = table.copy()
            later[name][:, 30:] *= rng.uniform(0.5, 2.0, table[:, 30:].shape)
    one, other = (run_compiled(x)[0] for x in (p, replace(p, **later)))
    a, b = (bt.records[bt.records["idx"] < 30] for bt in (one, other))
    for name in ("col", "idx", "size", "price", "fees", "side"):
        np.testing.assert_array_equal(a[name], b[name])
    np.testing.assert_array_equal(one.value[:30], other.value[:30])


@few
@given(SEEDS)
def test_records_alone_give_the_paths(seed):
    """Rules 6.2 and 6.3: cash, holdings and values from nothing but the orders."""
    p = pipelines(seed)
    bt, faults, _ = run_compiled(p)
    for case in range(SHAPE[0]):
        if case in faults:
            continue
        one, records = bt[case], bt[case].records
        traded = np.where(records["side"] == 0, 1.0, -1.0) * records["size"]
        flows = np.zeros(SHAPE[1])
        np.add.at(flows, records["idx"], -traded * records["price"] - records["fees"])
        held = np.zeros(SHAPE[1:])
        np.add.at(held, (records["idx"], records["col"]), traded)
        money = p.init_cash[case] + np.abs(traded * records["price"]).max(initial=0.0)
        units = np.abs(np.cumsum(held, axis=0))
        close_to(one.cash, p.init_cash[case] + np.cumsum(flows), money)
        close_to(one.units, np.cumsum(held, axis=0), np.abs(traded).max(initial=0.0))
        marks = np.nan_to_num(markets(p)[case].mark)
        close_to(one.value, one.cash + (one.units.to_numpy() * marks).sum(axis=1), money + (units * marks).max())


OPTIONS = {
    "fixed fees and granules": dict(fixed_fees=0.05, size_granularity=0.01, fees=0.002),
    "locked cash": dict(lock_cash=True, slippage=0.001, max_size=0.6),
    "updated value": dict(update_value=True, fees=0.001),
}


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.parametrize("name", OPTIONS)
def test_permuting_the_assets_permutes_the_results(name, engine):
    """With distinct order values, since equal ones trade as the columns stand."""
    weights = pd.Series([0.55, -0.2, 0.45], CLOSE.columns)
    order = ["C", "A", "B"]
    options = dict(trigger=js.Threshold(0.02), engine=engine, **OPTIONS[name])
    one = js.backtest(CLOSE, al.FixedWeights(weights), open=OPEN, **options)
    other = js.backtest(CLOSE[order], al.FixedWeights(weights), open=OPEN[order], **options)
    np.testing.assert_array_equal(one.rebalances, other.rebalances)
    np.testing.assert_allclose(one.units[order], other.units, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-9)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_without_costs_value_is_conserved_at_the_fill_price(engine):
    """Valued and filled at one price, long and short: a rebalance at every bar changes no value."""
    bt = js.backtest(
        CLOSE,
        al.FixedWeights([0.7, -0.4, 0.5]),
        open=CLOSE,
        trigger=js.Threshold(0.0),
        size_granularity=0.001,
        engine=engine,
    )
    ledger = bt._paths.ledgers[0]
    after = ledger.cash + (ledger.units * CLOSE.to_numpy()[ledger.bar]).sum(axis=1)
    np.testing.assert_allclose(after, ledger.value, rtol=1e-12)
    assert len(bt.orders) > 100


def test_a_lane_is_the_same_alone_and_among_others():
    p = pipelines(5)
    together, faults, _ = run_compiled(p)
    chosen = [case for case in range(SHAPE[0]) if case not in faults][:2]
    arrays = {name: value[chosen] for name, value in vars(p).items() if isinstance(value, np.ndarray)} | {
        "label": [p.label[case] for case in chosen]
    }
    alone, _, _ = run_compiled(replace(p, **arrays))
    for place, case in enumerate(chosen):
        a, b = together[case].records, alone[place].records
        for name in ("idx", "side"):
            np.testing.assert_array_equal(a[name], b[name])
        np.testing.assert_allclose(a["size"], b["size"], rtol=1e-12)
        np.testing.assert_allclose(together[case].value, alone[place].value, rtol=1e-12)
