"""Commissions between a least and a most, fees per unit, and orders that are too small to send (rules 3.12)."""

from typing import Any

import jax
import numpy as np
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.base.enums import Direction, SizeType
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.order import Order, Pool, fill
from jaxsim.engine.trading.status import OrderStatus, OrderStatusInfo
from jaxsim.reference import AccountState, OrderRequest, process_order
from tests.helpers.markets import THRESHOLDS, prices

CLOSE, OPEN = prices(0)
NAMES = ("fees", "fixed_fees", "slippage", "min_size", "size_granularity", "min_value", "min_fee", "max_fee")
NAMES += ("fee_per_unit",)
BROKER: dict[str, Any] = dict(fee_per_unit=0.005, min_fee=1.0, max_fee=0.01)

CASES: dict[str, tuple[dict[str, Any], float, float, float]] = {
    # order, cash; units, fees, cash after it
    "the least": (dict(size=100.0, **BROKER), 5000.0, 100.0, 1.0, 5000 - 1000 - 1),
    "per unit": (dict(size=400.0, **BROKER), 5000.0, 400.0, 2.0, 5000 - 4000 - 2),
    "the most passes over the least": (dict(size=5.0, **BROKER), 5000.0, 5.0, 0.5, 5000 - 50 - 0.5),
    "a sale": (dict(size=-5.0, **BROKER), 5000.0, -5.0, 0.5, 5000 + 50 - 0.5),
    "beside a fixed fee and a fraction": (
        dict(size=400.0, fees=0.001, fixed_fees=3.0, **BROKER), 5000.0, 400.0, 9.0, 5000 - 4000 - 9,
    ),
    "cut where fees per unit count": (dict(size=1e4, fee_per_unit=0.5, min_fee=1.0), 1050.0, 100.0, 50.0, 0.0),
    "cut where the least counts": (dict(size=1e4, fee_per_unit=0.005, min_fee=2.0), 1002.0, 100.0, 2.0, 0.0),
    "cut where the most counts": (dict(size=1e4, min_fee=50.0, max_fee=0.01), 1010.0, 100.0, 10.0, 0.0),
    "cut to lots": (dict(size=1e4, min_fee=2.0, size_granularity=30.0), 1002.0, 90.0, 2.0, 100.0),
}  # fmt: skip


def compiled(states, orders):
    """Every order against its account; `states` [num, 6]."""

    def one(state, order):
        costs = Costs(**{name: order[name] for name in NAMES})
        kinds = (order[name].astype(np.int32) for name in ("size_type", "direction"))
        request = Order(order["size"], *kinds, order["price"], state[1], state[2], state[4], costs, None)
        return fill(Pool(state[0], state[3], state[5]), request)

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(states, orders))


def table(orders: list[OrderRequest]) -> dict[str, np.ndarray]:
    names = ("size", "price", "size_type", "direction", *NAMES)
    return {name: np.array([float(getattr(order, name)) for order in orders]) for name in names}


def test_a_bill_by_hand():
    """Ten is the price of a unit. The bills of both engines, to the last digit of a hand calculation."""
    cases = list(CASES.values())
    orders = [OrderRequest(price=10.0, **order) for order, *_ in cases]
    states = [AccountState(cash, 5.0 if o.size < 0 else 0.0, 0.0, cash, 10.0, 1e5) for o, (_, cash, *_) in
              zip(orders, cases, strict=True)]  # fmt: skip
    pool, out = compiled(np.array([list(vars(x).values()) for x in states]), table(orders))
    for k, (state, order, (_, _, units, fees, cash)) in enumerate(zip(states, orders, cases, strict=True)):
        after, result = process_order(state, order)
        np.testing.assert_allclose([abs(units), fees, cash], [result.size, result.fees, after.cash], atol=1e-9)
        np.testing.assert_allclose([units, fees, cash], [out.trade[k], out.fees[k], pool.cash[k]], atol=1e-9)


def test_orders_as_the_reference_engine():
    rng, num = np.random.default_rng(7), 3000
    pick = lambda *x: rng.choice(np.array(x), num)  # noqa: E731
    kinds = rng.choice([SizeType.AMOUNT, SizeType.VALUE, SizeType.TARGET_PERCENT, SizeType.TARGET_AMOUNT], num)
    numbers = dict(
        size=rng.normal(0, 3, num), price=rng.uniform(1, 20, num), fees=pick(0.0, 0.01, -0.001),
        fixed_fees=pick(0.0, 1.0), slippage=pick(0.0, 0.01), min_size=pick(0.0, 0.5),
        size_granularity=pick(np.nan, 0.1), min_value=pick(0.0, 5.0, 20.0), min_fee=pick(0.0, 1.0, 5.0),
        max_fee=pick(np.inf, 0.02, 0.1), fee_per_unit=pick(0.0, 0.05, 1.0),
    )  # fmt: skip
    orders = [
        OrderRequest(
            size_type=SizeType(int(kinds[k])),
            direction=Direction.BOTH,
            **{name: float(x[k]) for name, x in numbers.items()},
        )
        for k in range(num)
    ]
    units, cash = rng.normal(0, 5, num) * (rng.random(num) < 0.6), rng.uniform(0, 60, num)
    debt = np.where(units < 0, -units * 10, 0.0)
    states = np.stack([cash, units, debt, cash - 2 * debt, np.full(num, 10.0), cash + 10 * np.abs(units)], axis=1)
    pool, out = compiled(states, table(orders))
    seen = set()
    for k, order in enumerate(orders):
        after, result = process_order(AccountState(*states[k].tolist()), order)
        assert result.info == out.info[k], (order, states[k], result, out.info[k])
        seen.add(int(result.info))
        np.testing.assert_allclose(
            [pool.cash[k], out.units[k], out.debt[k], pool.free_cash[k]],
            [after.cash, after.position, after.debt, after.free_cash],
            rtol=1e-9,
            atol=1e-9,
        )
        assert after.cash >= 0
        if result.status == OrderStatus.FILLED:
            assert out.fees[k] == pytest.approx(result.fees, rel=1e-9, abs=1e-9)
    wanted = {"NONE", "CANT_COVER_FEES", "MIN_VALUE_NOT_REACHED", "MIN_SIZE_NOT_REACHED", "SIZE_ZERO"}
    assert {int(OrderStatusInfo[name]) for name in wanted} <= seen


def test_backtests_as_the_reference_engine():
    """Three thresholds, two least fees and two smallest values side by side."""
    options: dict[str, Any] = dict(
        open=OPEN, trigger=js.Threshold(js.grid(threshold=THRESHOLDS)), init_cash=1000.0, max_fee=0.02,
        fee_per_unit=0.01, min_fee=js.grid(min_fee=[0.0, 0.5]), min_value=js.grid(min_value=[0.0, 8.0]),
    )  # fmt: skip
    bt = js.backtest(CLOSE, al.EqualWeight(), **options)
    judge = js.backtest(CLOSE, al.EqualWeight(), engine="reference", **options)
    np.testing.assert_allclose(bt.value, judge.value, rtol=1e-9)
    assert len(bt.orders) == len(judge.orders)
    np.testing.assert_allclose(bt.orders["fees"], judge.orders["fees"], rtol=1e-9, atol=1e-12)
    traded = bt.orders["size"] * bt.orders["price"]
    assert (traded[bt.orders["min_value"] == 8] >= 8 - 1e-9).all() and (traded[bt.orders["min_value"] == 0] < 8).any()
    assert (bt.orders["fees"] <= 0.02 * traded + 1e-9).all()
    assert "worth less than min_value" in set(bt.decisions["reason"])
    table = js.sweep(CLOSE, al.EqualWeight(), metrics=["total_fees"], **options)
    np.testing.assert_allclose(table["total_fees"], judge.total_fees(), rtol=1e-9)


def test_without_them_programs_are_what_they_were():
    with jax.enable_x64(True):
        market = js.Market.from_frames(CLOSE)
        policy = js.Policy(al.EqualWeight(), js.Threshold(0.05))

        def program(costs):
            return str(jax.make_jaxpr(lambda: js.simulate(market, policy, costs=costs).value)())

        plain = program(js.Costs(0.001, fixed_fees=1.0))
        assert plain == program(js.Costs(0.001, fixed_fees=1.0, min_fee=None, max_fee=None, min_value=None))
        assert plain != program(js.Costs(0.001, fixed_fees=1.0, min_fee=1.0))
    read = js.backtest(CLOSE, al.EqualWeight(), min_fee=0.0, max_fee=np.inf, engine="reference", fees=0.001)
    np.testing.assert_array_equal(
        read.value, js.backtest(CLOSE, al.EqualWeight(), engine="reference", fees=0.001).value
    )


@pytest.mark.parametrize(
    ("message", "terms"),
    [
        ("min_fee: expected a finite number >= 0", dict(min_fee=-1.0)),
        ("max_fee: expected a finite number >= 0", dict(max_fee=-0.1)),
        ("fee_per_unit: expected a finite number >= 0", dict(fee_per_unit=np.nan)),
        ("min_value: expected a finite number >= 0", dict(min_value=-1.0)),
        ("min_fee: not beside lock_cash", dict(min_fee=1.0, lock_cash=True)),
        ("cut: ", dict(min_fee=1.0, cut="pro_rata")),
    ],
)
def test_misuse(message, terms):
    with pytest.raises(ValueError, match=f"^{message}"):
        js.backtest(CLOSE, al.EqualWeight(), engine="reference", **terms)
