"""Rules 1 to 3, clause by clause: one order on one account, worked out by hand, in both engines.

All cases are lanes of one compiled program. Unless a case says otherwise the account has 100 in cash and no position,
the asset is valued and traded at 10, and the order is an amount in both directions without costs or limits.
"""

from math import inf, nan
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxsim import enums
from jaxsim.engine.trading.status import LaneFault
from jaxsim.engine.trading.status import OrderStatusInfo as Info
from jaxsim.errors import OrderError, RejectedOrderError
from jaxsim.reference import AccountState, Direction, OrderRequest, SizeType, process_order
from jaxsim.reference.orders import OrderResult
from tests.helpers.single_orders import FIELDS, fill_all

LONG, SHORT = Direction.LONG_ONLY, Direction.SHORT_ONLY
PERCENT, VALUE = SizeType.PERCENT, SizeType.VALUE
TO_AMOUNT, TO_VALUE, TO_PERCENT = SizeType.TARGET_AMOUNT, SizeType.TARGET_VALUE, SizeType.TARGET_PERCENT

#: Short of 5 units that were sold at 10: cash 150, of which 50 are owed and 50 pledged.
OWING = dict(cash=150.0, position=-5.0, debt=50.0, free_cash=50.0)
ERROR, REJECTED = "error", "rejected error"


def case(expected, order=(), account=(), draw=nan, update_value=False):
    """`expected`: ERROR, REJECTED, an Info, or the signed size and what the account or the result must hold."""
    account = dict(dict(cash=100.0, position=0.0, debt=0.0, free_cash=100.0, val_price=10.0), **dict(account))
    account.setdefault("value", account["cash"] + account["position"] * account["val_price"])
    order = OrderRequest(**dict(dict(size=1.0, price=10.0), **dict(order)))
    return SimpleNamespace(
        expected=expected, order=order, account=AccountState(**account), draw=draw, update_value=update_value
    )


CASES = {
    # rules 1
    "1.2 a purchase for a little more than the cash fits": case(
        dict(size=10 + 4e-9, cash=0.0, fees=0.0), dict(size=10 + 4e-9)
    ),
    "1.2 a limit holds up to rounding": case(dict(size=4.0), dict(size=4.0, min_size=4 + 1e-9)),
    "1.3 what cancels leaves nothing": case(
        dict(size=-5.0, position=0.0, cash=150.0), dict(size=-5.0), dict(position=5 + 1e-9)
    ),
    "1.5 ten tenths are one": case(dict(size=1.0, cash=90.0), dict(size=1.0, size_granularity=0.1)),
    "1.5 a lot that is not whole is left": case(dict(size=9 * 0.1), dict(size=0.99999, size_granularity=0.1)),
    "1.5 a hair below is a lot": case(dict(size=10.0), dict(size=10 - 5e-9, size_granularity=10.0)),
    "1.5 more than a hair below is none": case(Info.SIZE_ZERO, dict(size=10 - 5e-8, size_granularity=10.0)),
    "1.5 many lots, four units in the last place": case(
        dict(size=-3e7 * 0.1), dict(size=-3e6 + 1e-9, size_granularity=0.1), dict(position=1e7)
    ),
    "1.5 three tenths for all the cash": case(
        dict(size=3 * 0.1, cash=0.0), dict(size=5.0, size_granularity=0.1), dict(cash=3.0, free_cash=3.0)
    ),
    "1.5 a lot that passes the cash by a hair is not bought": case(
        Info.SIZE_ZERO, dict(size=10 - 5e-9, size_granularity=10.0), dict(cash=100 - 5e-8, free_cash=100 - 5e-8)
    ),
    "1.5 nor as the part that the cash pays for": case(
        Info.SIZE_ZERO, dict(size=20.0, size_granularity=10.0), dict(cash=100 - 5e-8, free_cash=100 - 5e-8)
    ),
    "1.5 a lot that passes the position by a hair is not sold": case(
        Info.SIZE_ZERO,
        dict(size=0.0, size_type=TO_AMOUNT, size_granularity=10.0),
        dict(position=10 - 5e-9),
    ),
    "1.5 nor bought back": case(
        Info.SIZE_ZERO,
        dict(size=0.0, size_type=TO_AMOUNT, size_granularity=5.0),
        dict(OWING, position=-5 + 2e-9),
    ),
    "1.5 seven tenths leave nothing": case(
        dict(size=-7 * 0.1, position=0.0), dict(size=-0.7, direction=LONG, size_granularity=0.1), dict(position=0.7)
    ),
    # rules 3.1, 3.2
    "3.1 dust goes, without a fill": case(
        Info.SIZE_NAN,
        dict(size=nan),
        dict(cash=1e-13, position=-1e-13, debt=1e-13, free_cash=-1e-13, value=0.0),
    ),
    "3.2 no size comes before no price": case(Info.SIZE_NAN, dict(size=nan, price=nan)),
    "3.2 no price comes before a bad account": case(Info.PRICE_NAN, dict(price=nan), dict(cash=-1.0)),
    "3.2 unknown cash": case(ERROR, (), dict(cash=nan)),
    "3.2 from cash below zero nothing is bought": case(Info.NO_CASH_LONG, (), dict(cash=-1.0)),
    "3.2 nor is a short position covered": case(Info.NO_CASH_LONG, dict(size=5.0), dict(OWING, cash=-1.0)),
    "3.2 and a sale fills": case(dict(size=-5.0, cash=20.0), dict(size=-5.0), dict(cash=-30.0, position=5.0)),
    "3.2 an infinite position": case(ERROR, (), dict(position=inf, value=100.0)),
    "3.2 negative debt": case(ERROR, (), dict(debt=-1.0)),
    "3.2 unknown free cash": case(ERROR, (), dict(free_cash=nan)),
    "3.2 a price of zero": case(ERROR, dict(price=0.0)),
    "3.2 long only while short": case(ERROR, dict(direction=LONG), OWING),
    "3.2 short only while long": case(ERROR, dict(direction=SHORT), dict(position=1.0)),
    # rules 3.3
    "3.3 percent of an unknown value": case(Info.VALUE_NAN, dict(size=0.5, size_type=TO_PERCENT), dict(value=nan)),
    "3.3 percent of nothing": case(Info.VALUE_ZERO_NEG, dict(size=0.5, size_type=TO_PERCENT), dict(value=0.0)),
    "3.3 value without a valuation price": case(
        Info.VAL_PRICE_NAN, dict(size=50.0, size_type=VALUE), dict(val_price=nan, value=100.0)
    ),
    "3.3 value at a valuation price of zero": case(
        ERROR, dict(size=50.0, size_type=VALUE), dict(val_price=0.0, value=100.0)
    ),
    "3.3 value": case(dict(size=5.0), dict(size=50.0, size_type=VALUE)),
    "3.3 target amount": case(dict(size=-2.0), dict(size=3.0, size_type=TO_AMOUNT), dict(position=5.0)),
    "3.3 target value": case(dict(size=-2.0), dict(size=30.0, size_type=TO_VALUE), dict(position=5.0)),
    "3.3 target percent, valued at 10 and filled at 8": case(
        dict(size=2.5, cash=80.0, price=8.0),
        dict(size=0.5, size_type=TO_PERCENT, price=8.0),
        dict(position=5.0, value=150.0),
    ),
    "3.3 percent": case(dict(size=2.5), dict(size=0.25, size_type=PERCENT)),
    "3.3 percent of zero": case(Info.SIZE_ZERO, dict(size=0.0, size_type=PERCENT)),
    "3.3 short only turns the sign": case(
        dict(size=-2.0, position=-2.0, debt=20.0, cash=120.0, free_cash=80.0), dict(size=2.0, direction=SHORT)
    ),
    "3.3 a sale without end": case(
        dict(size=-15.0, position=-10.0), dict(size=-inf), dict(position=5.0, cash=50.0, free_cash=50.0)
    ),
    "3.4 a size of zero is a sale": case(Info.NO_OPEN_POSITION, dict(size=0.0, direction=LONG)),
    # rules 3.5
    "3.5 slippage and fees of a purchase": case(
        dict(size=4.0, price=11.0, fees=5.4, cash=50.6), dict(size=4.0, slippage=0.1, fees=0.1, fixed_fees=1.0)
    ),
    "3.5a free cash limits": case(dict(size=6.0), dict(size=20.0, lock_cash=True), dict(free_cash=60.0)),
    "3.5a covering leaves something over": case(dict(size=15.0, cash=0.0), dict(size=20.0, lock_cash=True), OWING),
    "3.5a covering in part": case(
        dict(size=2.5, position=-2.5, cash=50.0, debt=25.0, free_cash=0.0),
        dict(size=20.0, price=40.0, lock_cash=True),
        OWING,
    ),
    "3.5a covering in full leaves nothing over": case(
        dict(size=5.0, position=0.0, cash=0.0, debt=0.0, free_cash=0.0),
        dict(size=20.0, price=30.0, lock_cash=True),
        OWING,
    ),
    "3.5a nothing released per unit": case(ERROR, dict(size=20.0, price=20.0, fixed_fees=60.0, lock_cash=True), OWING),
    "3.5b no cash": case(Info.NO_CASH_LONG, (), dict(cash=0.0, free_cash=0.0)),
    "3.5b nothing to buy back": case(Info.NO_OPEN_POSITION, dict(size=-1.0, direction=SHORT)),
    "3.5c no more is bought back than is owed": case(
        dict(size=5.0, position=0.0, cash=100.0, debt=0.0, free_cash=100.0), dict(size=-9.0, direction=SHORT), OWING
    ),
    "3.5d cut to the maximum": case(dict(size=5.0), dict(size=7.0, max_size=5.0)),
    "3.5d the maximum and no parts": case(Info.MAX_SIZE_EXCEEDED, dict(size=7.0, max_size=5.0, allow_partial=False)),
    "3.5e whole granules": case(dict(size=2.5), dict(size=2.7, size_granularity=0.5)),
    "3.5f a part, fees included": case(dict(size=8.0, fees=20.0, cash=0.0), dict(size=20.0, fees=0.25)),
    "3.5f a part in granules": case(
        dict(size=9.0, fees=0.9, cash=9.1), dict(size=20.0, size_granularity=1.0, fees=0.01)
    ),
    "3.5f fees take all": case(Info.CANT_COVER_FEES, dict(size=20.0, fixed_fees=100.0)),
    "3.5f a part of no granule": case(Info.SIZE_ZERO, dict(size=200.0, size_granularity=50.0, fixed_fees=1.0)),
    "3.5g dust is no order": case(Info.SIZE_ZERO, dict(size=1e-13)),
    "3.5g too small": case(Info.MIN_SIZE_NOT_REACHED, dict(size=4.0, min_size=5.0)),
    "3.5g a part where none is allowed": case(Info.PARTIAL_FILL, dict(size=20.0, allow_partial=False)),
    "3.5g as much as possible is never a part": case(dict(size=10.0), dict(size=inf, allow_partial=False)),
    "3.5h bought back in part": case(
        dict(size=2.0, position=-3.0, cash=130.0, debt=30.0, free_cash=70.0), dict(size=2.0), OWING
    ),
    "3.5h through zero": case(dict(size=8.0, position=3.0, cash=70.0, debt=0.0, free_cash=70.0), dict(size=8.0), OWING),
    # rules 3.6
    "3.6 slippage and fees of a sale": case(
        dict(size=-4.0, price=9.0, fees=4.6, cash=131.4),
        dict(size=-4.0, slippage=0.1, fees=0.1, fixed_fees=1.0),
        dict(position=4.0),
    ),
    "3.6a long only sells what there is": case(
        dict(size=-3.0, position=0.0), dict(size=-5.0, direction=LONG), dict(position=3.0)
    ),
    "3.6a free cash limits a short sale": case(
        dict(size=-6.0, debt=60.0, cash=160.0), dict(size=-20.0, lock_cash=True), dict(free_cash=60.0)
    ),
    "3.6a no free cash to sell short on": case(
        Info.NO_CASH_SHORT, dict(lock_cash=True, size=-1.0), dict(free_cash=0.0)
    ),
    "3.6a without free cash the position may be sold": case(
        dict(size=-2.0, position=0.0), dict(size=-9.0, lock_cash=True), dict(position=2.0, free_cash=-50.0)
    ),
    "3.6a fees take the free cash": case(
        Info.CANT_COVER_FEES, dict(size=-1.0, lock_cash=True, fixed_fees=50.0), dict(free_cash=1.0)
    ),
    "3.6b a share of what can be sold": case(
        dict(size=-7.5, position=-2.5, cash=125.0, debt=25.0, free_cash=75.0),
        dict(size=-0.5, size_type=PERCENT),
        dict(position=5.0, cash=50.0, free_cash=50.0),
    ),
    "3.6b a share of the position": case(
        dict(size=-2.5), dict(size=-0.5, size_type=PERCENT, direction=LONG), dict(position=5.0)
    ),
    "3.6c cut to the maximum": case(dict(size=-5.0), dict(size=-7.0, max_size=5.0)),
    "3.6d a share without end": case(ERROR, dict(size=-inf, size_type=PERCENT)),
    "3.6d no position comes before no size": case(Info.NO_OPEN_POSITION, dict(size=-1e-13, direction=LONG)),
    "3.6e whole granules": case(dict(size=-1.0), dict(size=-1.2, size_granularity=0.5)),
    "3.6e too small": case(Info.MIN_SIZE_NOT_REACHED, dict(size=-4.0, min_size=5.0)),
    "3.6e a part where none is allowed": case(
        Info.PARTIAL_FILL, dict(size=-5.0, direction=LONG, allow_partial=False), dict(position=3.0)
    ),
    "3.6f fees above the proceeds": case(Info.CANT_COVER_FEES, dict(size=-1.0, fixed_fees=20.0)),
    "3.6g through zero": case(
        dict(size=-5.0, position=-3.0, cash=150.0, debt=30.0, free_cash=90.0), dict(size=-5.0), dict(position=2.0)
    ),
    "3.6g shorter still": case(
        dict(size=-2.0, position=-7.0, cash=170.0, debt=70.0, free_cash=30.0), dict(size=-2.0), OWING
    ),
    # rules 3.7 to 3.10
    "3.7 a draw below the probability": case(Info.RANDOM_EVENT, dict(reject_prob=0.5), draw=0.49),
    "3.7 a draw at the probability": case(dict(size=1.0), dict(reject_prob=0.5), draw=0.5),
    "3.7 before other troubles": case(Info.RANDOM_EVENT, dict(size=-1.0, direction=LONG, reject_prob=0.5), draw=0.0),
    "3.7 not without a size": case(Info.SIZE_NAN, dict(size=nan, reject_prob=1.0), draw=0.0),
    "3.7 not without a value": case(
        Info.VALUE_NAN, dict(size=0.5, size_type=TO_PERCENT, reject_prob=1.0), dict(value=nan), draw=0.0
    ),
    "3.8 a rejection that raises": case(REJECTED, dict(size=20.0, allow_partial=False, raise_reject=True)),
    "3.8 what is ignored raises nothing": case(Info.SIZE_ZERO, dict(size=0.0, raise_reject=True)),
    "3.9 short sales have no limit": case(
        dict(size=-1000.0, cash=10100.0, debt=10000.0, free_cash=-9900.0), dict(size=-1000.0)
    ),
    "3.9 purchases spend borrowed cash": case(
        dict(size=15.0, position=15.0, cash=0.0),
        dict(size=15.0),
        dict(cash=150.0, free_cash=-50.0),
    ),
    "3.10 value and valuation price stay": case(
        dict(size=-2.0, val_price=10.0, value=150.0), dict(size=-2.0, price=20.0), dict(position=5.0)
    ),
    "3.10 a fill moves them": case(
        dict(size=-2.0, val_price=20.0, value=200.0),
        dict(size=-2.0, price=20.0),
        dict(position=5.0),
        update_value=True,
    ),
    "3.10 what is not filled moves nothing": case(
        Info.NO_CASH_LONG, dict(price=20.0), dict(cash=0.0, free_cash=0.0, position=5.0), update_value=True
    ),
}


def reference(name: str) -> tuple[str | Info, dict]:
    """What became of a case in the reference engine: an error or a code, and all numbers."""
    c = CASES[name]
    try:
        after, result = process_order(c.account, c.order, draw=c.draw, update_value=c.update_value)
    except OrderError as error:
        return (REJECTED if isinstance(error, RejectedOrderError) else ERROR), {}
    return result.info, {**vars(after), "size": signed(result), "price": result.price, "fees": result.fees}


def signed(result: OrderResult) -> float:
    return nan if result.side is None else (-result.size if result.side else result.size)


@pytest.fixture(scope="module")
def compiled():
    """The same, of all cases at once in the compiled engine."""
    cases = list(CASES.values())
    states = np.array([list(vars(c.account).values()) for c in cases])
    orders = {name: np.array([float(getattr(c.order, name)) for c in cases]) for name in FIELDS}
    draws, updates = (np.array([getattr(c, name) for c in cases]) for name in ("draw", "update_value"))
    with jax.enable_x64(True):
        pool, out = jax.tree.map(np.asarray, fill_all(states, orders, draws, updates))
    numbers = dict(vars(pool), position=out.units, debt=out.debt, val_price=out.val_price, size=out.trade)
    numbers |= dict(price=out.price, fees=out.fees)

    def of(name: str) -> tuple[str | Info, dict]:
        k = list(CASES).index(name)
        fault = LaneFault(out.fault[k])
        if fault != LaneFault.NONE:
            return (REJECTED if fault == LaneFault.ORDER_REJECTED else ERROR), {}
        return Info(out.info[k]), {field: float(x[k]) for field, x in numbers.items()}

    return of


@pytest.mark.parametrize("name", CASES)
def test_a_clause_by_hand(name, compiled):
    expected, before = CASES[name].expected, CASES[name].account
    for info, numbers in (reference(name), compiled(name)):
        if isinstance(expected, dict):
            assert info == Info.NONE
            for field, number in expected.items():
                assert numbers[field] == pytest.approx(number, rel=1e-12, abs=0), field
            continue
        assert info == expected
        if numbers:  # not filled: the account as it was, without dust
            for field, x in vars(before).items():
                kept = 0.0 if abs(x) <= 1e-12 and field not in ("val_price", "value") else x
                assert numbers[field] == pytest.approx(kept, rel=1e-15, abs=0, nan_ok=True), field


def test_codes_and_defaults_are_those_of_vectorbt():
    """Rules 2: the numbers behind the names, and an order that says nothing."""
    codes = {
        enums.SizeType: ["AMOUNT", "VALUE", "PERCENT", "TARGET_AMOUNT", "TARGET_VALUE", "TARGET_PERCENT"],
        enums.Direction: ["LONG_ONLY", "SHORT_ONLY", "BOTH"],
        enums.OrderSide: ["BUY", "SELL"],
        enums.OrderStatus: ["FILLED", "IGNORED", "REJECTED"],
        enums.TradeDirection: ["LONG", "SHORT"],
        enums.TradeStatus: ["OPEN", "CLOSED"],
        enums.DrawdownStatus: ["ACTIVE", "RECOVERED"],
    }
    for kind, names in codes.items():
        assert [member.name for member in kind] == names and [int(member) for member in kind] == list(range(len(names)))
    assert {member.name: int(member) for member in enums.CallSeq} == {"DEFAULT": 0, "REVERSED": 1, "AUTO": 3}
    assert [int(info) for info in Info] == list(range(-1, 15))

    vectorbt = pytest.importorskip("vectorbt.portfolio.enums")
    from vectorbt.generic.enums import DrawdownStatus
    from vectorbt.portfolio.nb import order_nb

    others = {enums.DrawdownStatus: DrawdownStatus, enums.CallSeq: vectorbt.CallSeqType}
    for kind in (*codes, enums.CallSeq):
        theirs = others.get(kind) or getattr(vectorbt, kind.__name__)
        for member in kind:
            assert getattr(theirs, member.name.title().replace("_", "")) == member
    for info in Info:
        if info not in (Info.NONE, Info.MIN_VALUE_NOT_REACHED):  # vectorbt has no such limit
            assert getattr(vectorbt.OrderStatusInfo, info.label) == info
    ours, theirs = OrderRequest(), order_nb.py_func()
    for name in FIELDS:
        np.testing.assert_equal(float(getattr(ours, name)), float(getattr(theirs, name)), err_msg=name)
