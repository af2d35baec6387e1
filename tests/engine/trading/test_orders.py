"""Orders of every kind: the compiled engine, the reference engine and vectorbt agree; and small cases by hand."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.base.random import reject_draws
from jaxsim.engine.trading.order import Order, Pool, fill
from jaxsim.errors import OrderError, RejectedOrderError
from tests.helpers.cases import FORMS, Batch, assert_same_portfolio, make_batch
from tests.helpers.engines import differing_logs
from tests.helpers.markets import ASSETS, BARS, INDEX, grouped, prices, with_holes
from tests.helpers.pipelines import make_pipelines
from tests.helpers.single_orders import differing_orders
from tools.fuzz_orders import Tally, compare_with_reference, compare_with_vectorbt

ENGINES = ["compiled", "reference"]
Info = js.OrderStatusInfo
THEIR_REASONS = {int(info) for info in Info} - {Info.MIN_VALUE_NOT_REACHED}
CLOSE, OPEN = prices(0)
DIRECTIONS = ["both", "long_only", "short_only"]

pytestmark = pytest.mark.filterwarnings("ignore:target weights sum to more than one")


# --- against vectorbt and the reference engine


def test_single_orders_as_vectorbt():
    pytest.importorskip("vectorbt")
    compared, infos, raised, skips, wrong = differing_orders(3000, 1)
    assert not wrong, wrong[0]
    assert compared + len(skips) == 3000
    assert len(skips) < 30
    assert raised > 20
    assert set(infos) == THEIR_REASONS
    rare = {Info.PRICE_NAN, Info.VAL_PRICE_NAN, Info.VALUE_NAN}  # pipelines meet what lacks a price
    assert min(count for info, count in infos.items() if info not in rare) >= 20


@pytest.fixture(scope="module")
def pipelines():
    """Of three shapes, with and without opens; the first two have several cases that raise."""
    shapes = {1: (40, 60, 2), 12: (40, 60, 2), 3: (60, 40, 4), 4: (60, 30, 6)}
    return [make_pipelines(np.random.default_rng([seed, *s]), *s, with_open=seed != 3) for seed, s in shapes.items()]


def test_pipelines_as_the_reference_engine(pipelines):
    tally = Tally()
    for p in pipelines:
        compare_with_reference(p, tally, str(p.shape))
    assert not tally.mismatches
    assert tally.counts["reference"] == 200
    assert tally.counts["raised in both"] >= 5


@pytest.mark.filterwarnings("ignore::RuntimeWarning:vectorbt")
def test_pipelines_as_vectorbt(pipelines):
    pytest.importorskip("vectorbt")
    tally = Tally()
    for p in pipelines:
        compare_with_vectorbt(p, tally, str(p.shape))
    assert not tally.mismatches
    assert len(tally.skips) <= 2
    assert tally.counts["vectorbt"] > 190
    assert tally.counts["raised in both"] >= 5
    assert set(tally.infos) == THEIR_REASONS
    assert min(tally.infos.values()) >= 20


# --- two ways to fill target weights


def run_short(batch: Batch, seed: int, **options) -> js.Backtest:
    """Target weights of which some are short, under fees and slippage in one form."""
    sign = np.random.default_rng(seed).choice([-1.0, 1.0, 1.0], len(batch.weights))
    return js.backtest(
        batch.close,
        al.FixedWeights(batch.weights * sign),
        open=batch.open,
        price=batch.price,
        trigger=js.Threshold(batch.threshold),
        fees=batch.fees,
        slippage=abs(batch.fees) / 2,
        min_history=batch.min_history,
        init_cash=batch.init_cash,
        **options,
    )


def assert_same_fills(a: js.Backtest, b: js.Backtest) -> None:
    assert_same_portfolio(a, b, rtol=1e-12)
    np.testing.assert_allclose(a.gross_exposure, b.gross_exposure, rtol=1e-9, atol=1e-12)
    for one, other in zip(a._paths.ledgers, b._paths.ledgers, strict=True):
        np.testing.assert_array_equal(one.rank, other.rank)
        scale = np.abs(one.cash).max()
        np.testing.assert_allclose(one.free_cash, other.free_cash, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("form", FORMS)
def test_the_short_way_as_the_reference_engine(form):
    batch = make_batch(np.random.default_rng([1, FORMS.index(form)]), [3] * 10, 60, form)
    bt = run_short(batch, 2)
    assert (bt.units.to_numpy() < 0).any()
    assert (bt._paths.ledgers[0].info != Info.NONE).any()
    assert_same_fills(bt, run_short(batch, 2, engine="reference"))


def test_the_short_way_as_order_by_order():
    """A limit that never binds sends the same orders the long way; with more assets than are compared in pairs to find
    the order of execution."""
    batch = make_batch(np.random.default_rng(9), [20, 20, 20], 40, "bar and asset")
    bt = run_short(batch, 3)
    assert (bt.units.to_numpy() < 0).any()
    assert_same_fills(bt, run_short(batch, 3, max_size=1e15))
    assert_same_fills(bt, run_short(batch, 3, engine="reference"))


# --- plain orders against vectorbt's from_orders


def random_book(rng: np.random.Generator, size_type: str) -> pd.DataFrame:
    """Orders of the size of the account, on two thirds of all bars."""
    share = rng.normal(0, 0.5, CLOSE.shape)
    if size_type == "percent":
        share = np.clip(share, -1, 1)
    per_unit = CLOSE if "amount" in size_type else 1.0
    whole = 1.0 if "percent" in size_type else 100.0
    return pd.DataFrame(share * whole / per_unit, INDEX, ASSETS).mask(rng.random(CLOSE.shape) < 0.33)


@pytest.mark.parametrize("size_type", [kind.name.lower() for kind in js.SizeType])
def test_plain_orders_as_vectorbt(size_type):
    vbt = pytest.importorskip("vectorbt")
    close, _ = with_holes(CLOSE, OPEN)
    book = random_book(np.random.default_rng(len(size_type)), size_type)
    costs = dict(fees=0.002, fixed_fees=0.01, slippage=0.001)
    bt = js.backtest(close, size=book, size_type=size_type, direction=js.grid(direction=DIRECTIONS), log=True, **costs)
    for direction in DIRECTIONS:
        pf = vbt.Portfolio.from_orders(
            close,
            book,
            size_type=size_type.replace("_", ""),
            direction=direction.replace("_", ""),
            val_price=close.shift(1),
            call_seq="auto",
            cash_sharing=True,
            group_by=True,
            min_size=0,
            init_cash=100,
            log=True,
            **costs,
        )
        ours, theirs = bt[direction].logs.records, pf.logs.values
        theirs = theirs[np.isin(theirs["idx"], ours["idx"])]  # ours are those of bars with any order
        assert differing_logs(ours, theirs, 100.0) is None
        assert len(bt[direction].orders) == len(pf.orders.values) > 20
        np.testing.assert_allclose(bt[direction].cash, pf.cash(), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(bt[direction].value, pf.value(), rtol=1e-9, atol=1e-9)


# --- replay


def mixed(obs):
    """Another size type and direction for each asset, in an order of its own."""
    wave = jnp.sin(0.7 * obs.step + jnp.arange(obs.num_assets))
    kinds = jnp.array([js.SizeType.TARGET_PERCENT, js.SizeType.VALUE, js.SizeType.TARGET_AMOUNT])
    directions = jnp.array([js.Direction.BOTH, js.Direction.LONG_ONLY, js.Direction.SHORT_ONLY])
    scale = jnp.array([0.5, 30.0, 0.5])
    return js.Allocation(
        jnp.where(kinds == js.SizeType.TARGET_AMOUNT, jnp.abs(wave), wave) * scale,
        skip=(jnp.arange(obs.num_assets) == 0) & (obs.step % 3 == 0),
        size_type=kinds,
        direction=directions,
        call_seq=jnp.array([2, 0, 1]),
    )


def by_rule(obs):
    return js.Allocation(0.8 * jnp.sin(obs.step + jnp.arange(obs.num_assets)), call_seq="reversed")


def test_what_an_allocator_chose_is_replayed():
    costs = dict(open=OPEN, fees=0.003, fixed_fees=0.01)
    bt = js.backtest(CLOSE, mixed, trigger=js.Threshold(0.02), engine="reference", **costs)
    assert (bt.units.to_numpy() < 0).any()
    assert bt.allocations.size_type[0].tolist() == [5, 1, 3]
    assert bt.allocations.direction[0].tolist() == [2, 0, 1]
    assert_same_portfolio(bt, js.backtest(CLOSE, mixed, trigger=js.Threshold(0.02), **costs))
    for engine in ENGINES:
        again = js.replay(bt.allocations, CLOSE, engine=engine, **costs)
        assert_same_portfolio(bt, again)
        np.testing.assert_array_equal(again.allocations.size_type, bt.allocations.size_type)
        np.testing.assert_array_equal(again.allocations.direction, bt.allocations.direction)


def test_the_rule_of_execution_is_said_again_in_a_replay():
    options = dict(open=OPEN, fees=0.003, engine="reference")
    bt = js.backtest(CLOSE, by_rule, trigger=js.Threshold(0.02), **options)
    assert_same_portfolio(bt, js.replay(bt.allocations, CLOSE, call_seq="reversed", **options))
    by_value = js.replay(bt.allocations, CLOSE, **options)
    assert not np.allclose(by_value.value, bt.value), "the order of execution matters here"


# --- random rejections

BOOK = random_book(np.random.default_rng(5), "amount")
CHANCES = js.grid(p=np.round(np.linspace(0.05, 0.95, 19), 2))


def rejected(bt: js.Backtest) -> np.ndarray:
    """[event, asset] of one lane."""
    return bt._paths.ledgers[0].info == Info.RANDOM_EVENT


def test_random_rejections_are_the_documented_draws():
    """One uniform number per asset from the key of the bar, in a stream of its own; the same in both engines, and
    whatever other lanes there are."""
    crowd = js.backtest(CLOSE, size=BOOK, reject_prob=CHANCES, key=7)
    for label in CHANCES:
        digest = hashlib.sha256(f"{CHANCES.name}={float(label)!r}".encode()).digest()
        key = jax.random.fold_in(jax.random.key(7), int.from_bytes(digest[:4], "big"))  # rules 14.1
        ledger = crowd[label]._paths.ledgers[0]
        draws = np.stack([reject_draws(jax.random.fold_in(key, int(bar)), 3) for bar in ledger.bar])
        is_posed = ~np.isnan(ledger.request)
        np.testing.assert_array_equal(rejected(crowd[label]), (draws < label) & is_posed)
        share, num = rejected(crowd[label]).sum() / is_posed.sum(), is_posed.sum()
        assert abs(share - label) < 4 * np.sqrt(label * (1 - label) / num)
    for label in CHANCES[[5, 11]]:
        alone = js.backtest(CLOSE, size=BOOK, reject_prob=js.grid(p=[label]), key=7, engine="reference")
        assert_same_portfolio(crowd[label], alone[label])
    other_key = js.backtest(CLOSE, size=BOOK, reject_prob=CHANCES, key=8)
    assert not np.array_equal(rejected(other_key[0.5]), rejected(crowd[0.5]))


def test_random_rejections_leave_the_draws_of_allocators_alone():
    runs = [
        js.backtest(CLOSE, al.RandomWeights(), open=OPEN, reject_prob=p, key=3, engine="reference")
        for p in (0.0, 0.5, 1.0)
    ]
    for bt in runs:
        np.testing.assert_array_equal(bt.allocations.targets[0], runs[0].allocations.targets[0])
    assert not rejected(runs[0]).any()
    assert rejected(runs[1]).any()
    assert rejected(runs[2]).all()
    assert len(runs[2].orders) == 0


# --- what goes wrong


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rejection_that_is_to_raise(engine):
    """80 of the 100 in cash for each of three assets: the third order has no cash left."""
    long = pd.Series("long_only", INDEX)
    options = dict(size_type="value", direction=long, call_seq="default", engine=engine)
    with pytest.raises(RejectedOrderError) as caught:
        js.backtest(CLOSE, size=js.grid(size=[0.5, 80.0]), raise_reject=True, **options)
    for part in ("NO_CASH_LONG", "size=80.0", "'C'", "bar 1", "2021-01-05"):
        assert part in str(caught.value)
    assert "size=0.5" not in str(caught.value)
    assert (caught.value.bar, caught.value.asset) == (1, 2)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_order_that_makes_no_sense(engine):
    """Long-only from bar 3 on, where one of the lanes is short by then."""
    direction = pd.Series(["both"] * 3 + ["long_only"] * (BARS - 3), INDEX)
    options = dict(size_type="amount", direction=direction, call_seq="default", engine=engine)
    with pytest.raises(OrderError) as caught:
        js.backtest(CLOSE, size=js.grid(size=[0.001, -0.001]), raise_reject=True, **options)
    assert not isinstance(caught.value, RejectedOrderError)
    for part in ("size=-0.001", "'A'", "bar 3", "2021-01-07"):
        assert part in str(caught.value)
    assert "size=0.001" not in str(caught.value)
    assert (caught.value.bar, caught.value.asset) == (3, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_order_error_names_group_and_column(engine):
    """The fault is that of the second asset of the second group, the fourth column."""
    close = grouped(1)[0].drop(columns=[("tech", "C")])
    size = pd.DataFrame(np.nan, INDEX, close.columns)
    size.iloc[2, 3] = -np.inf  # as a fraction of what can be sold short
    with pytest.raises(OrderError, match=r"sector='bank', asset 'D', bar 2, 2021-01-06") as caught:
        js.backtest(close, size=size, size_type="percent", engine=engine)
    assert (caught.value.bar, caught.value.asset) == (2, 3)


# --- by hand: 1000 in cash, fees of 1 %, weights of 0.5 and 0.3 at the first bar, of 0.2 and 0.6 at the third

HAND_INDEX = pd.date_range("2024-01-01", periods=3, freq="D")
HAND_OPEN = pd.DataFrame({"A": [10.0, 12, 16], "B": [30.0, 50, np.nan]}, HAND_INDEX)
HAND_CLOSE = pd.DataFrame({"A": [8.0, 20, 20], "B": [40.0, np.nan, 25]}, HAND_INDEX)
HAND_SIZE = pd.DataFrame({"A": [0.5, np.nan, 0.2], "B": [0.3, np.nan, 0.6]}, HAND_INDEX)


@pytest.fixture(scope="module", params=ENGINES)
def by_hand(request):
    """All conventions at once: a function of one of each that gives its lane."""
    bt = js.backtest(
        HAND_CLOSE,
        size=HAND_SIZE,
        size_type="target_percent",
        open=HAND_OPEN,
        call_seq=js.grid(call_seq=["default", "reversed", "auto"]),
        price=js.grid(price=[np.inf, -np.inf, 16.0]),
        ffill_val_price=js.grid(ffill_val_price=[True, False]),
        update_value=js.grid(update_value=[False, True]),
        fees=0.01,
        init_cash=1000.0,
        engine=request.param,
    )
    assert len(bt.lanes) == 36

    def lane(**chosen) -> js.Backtest:
        chosen = dict(call_seq="default", price=np.inf, ffill_val_price=True, update_value=False) | chosen
        return bt[tuple(chosen[name] for name in bt.lanes.names)]

    return lane


def traded(bt: js.Backtest, bar: int) -> dict[str, float]:
    """Units by asset, in order of execution; > 0 bought."""
    orders = bt.records[bt.records["idx"] == bar]
    return {"AB"[r["col"]]: float(r["size"] if r["side"] == 0 else -r["size"]) for r in orders}


def infos(bt: js.Backtest, event: int) -> list[Info]:
    return [Info(x) for x in bt._paths.ledgers[0].info[event]]


def assert_trades(bt: js.Backtest, bar: int, expected: dict[str, float], cash: float) -> None:
    assert list(traded(bt, bar)) == list(expected)
    assert traded(bt, bar) == pytest.approx(expected, rel=1e-12)
    assert bt.cash.iloc[bar] == pytest.approx(cash, rel=1e-12)


def test_sized_at_the_open_filled_at_the_close_by_hand(by_hand):
    bt = by_hand()
    # value 1000: 500 / 10 at 8, 300 / 30 at 40
    assert_trades(bt, 0, {"A": 50.0, "B": 10.0}, 1000 - 404 - 404)
    # B has no price at this open; its last one is the open before. 192 + 50 * 16 + 10 * 50 = 1492:
    # 0.2 * 1492 / 16 = 18.65 and 0.6 * 1492 / 50 = 17.904
    assert_trades(bt, 2, {"A": -31.35, "B": 7.904}, 192 + 627 * 0.99 - 197.6 * 1.01)
    assert bt.value.tolist() == pytest.approx([192 + 400 + 400, 192 + 1000 + 400, 613.154 + 18.65 * 20 + 17.904 * 25])


def test_call_sequences_by_hand(by_hand):
    # bar 0 by value: 500 and 300, so B comes first; there is cash for both in any order
    assert_trades(by_hand(call_seq="auto"), 0, {"B": 10.0, "A": 50.0}, 192)
    assert_trades(by_hand(call_seq="reversed"), 0, {"B": 10.0, "A": 50.0}, 192)
    # bar 2 by value: A is sold first. Reversed: B has to do with the cash of 192, which buys 192 / 1.01 / 25
    assert_trades(by_hand(call_seq="auto"), 2, {"A": -31.35, "B": 7.904}, 613.154)
    assert_trades(by_hand(call_seq="reversed"), 2, {"B": 192 / 1.01 / 25, "A": -31.35}, 627 * 0.99)


def test_execution_prices_by_hand(by_hand):
    # at the open: 50 at 10, 10 at 30; later B has no open to trade at
    bt = by_hand(price=-np.inf)
    assert_trades(bt, 0, {"A": 50.0, "B": 10.0}, 1000 - 505 - 303)
    assert_trades(bt, 2, {"A": -31.35}, 192 + 31.35 * 16 * 0.99)
    assert infos(bt, 1) == [Info.NONE, Info.PRICE_NAN]
    # at a number, even where there is no close
    bt = by_hand(price=16.0)
    assert_trades(bt, 0, {"A": 50.0, "B": 10.0}, 1000 - 808 - 161.6)
    # 30.4 + 800 + 500 = 1330.4: A 16.63, B 15.9648
    assert_trades(bt, 2, {"A": -33.37, "B": 5.9648}, 30.4 + 33.37 * 16 * 0.99 - 5.9648 * 16 * 1.01)


def test_ffill_val_price_by_hand(by_hand):
    """Without it, B has no valuation price at bar 2, so that the value of the account is unknown."""
    bt = by_hand(ffill_val_price=False)
    assert_trades(bt, 0, {"A": 50.0, "B": 10.0}, 192)
    assert traded(bt, 2) == {}
    assert infos(bt, 1) == [Info.VALUE_NAN, Info.VALUE_NAN]
    assert bt.units.iloc[2].tolist() == [50.0, 10.0]


def test_update_value_by_hand(by_hand):
    bt = by_hand(update_value=True)
    # after A: 1000 - 404 + 50 * 8 = 996, of which B gets 0.3
    b = 0.3 * 996 / 30
    assert_trades(bt, 0, {"A": 50.0, "B": b}, 596 - b * 40 * 1.01)
    cash = 596 - b * 40 * 1.01
    value = cash + 50 * 16 + b * 50
    kept = 0.2 * value / 16
    earned = (50 - kept) * 20 * 0.99
    value += earned + kept * 20 - 50 * 16
    more = 0.6 * value / 50 - b
    assert_trades(bt, 2, {"A": kept - 50, "B": more}, cash + earned - more * 25 * 1.01)
    # the other way round, A gets its share of 1000 - 404 + 400 = 996
    bt = by_hand(update_value=True, call_seq="reversed")
    assert_trades(bt, 0, {"B": 10.0, "A": 0.5 * 996 / 10}, 596 - 0.5 * 996 / 10 * 8 * 1.01)


def test_a_fill_moves_the_valuation_price_until_there_is_a_newer_one():
    """B is bought at 60 at bar 0, after which no price of B is known: at bar 2 it is valued at 60, not at its last
    open of 30."""
    close, open_ = HAND_CLOSE.assign(B=[np.nan, np.nan, 25]), HAND_OPEN.assign(B=[30.0, np.nan, np.nan])
    size = HAND_SIZE.assign(A=np.nan)
    options = dict(size=size, size_type="target_percent", open=open_, init_cash=1000.0, engine="reference")
    bt = js.backtest(close, price=60.0, update_value=js.grid(update_value=[False, True]), **options)
    # 0.3 * 1000 / 30 = 10 for 600; then 400 + 10 * 30 = 700, of which 0.6 are 14 units of 30
    assert [traded(bt[False], bar) for bar in (0, 2)] == [{"B": 10.0}, {"B": pytest.approx(4.0)}]
    # 400 + 10 * 60 = 1000, of which 0.6 are 10 units of 60
    assert [traded(bt[True], bar) for bar in (0, 2)] == [{"B": 10.0}, {}]


def test_lots_have_the_derivative_of_the_size():
    """As if nothing were rounded: in lots of 1, an order of 2.5 fills 2, and one more wished is one more filled; a
    purchase that the cash cuts has the derivative of cash / price."""

    def filled(size, cash, lot):
        nothing, ten = 0 * size, 10.0 + 0 * size
        kind, direction = jnp.int32(js.SizeType.AMOUNT), jnp.int32(js.Direction.BOTH)
        costs = js.Costs(fees=nothing, size_granularity=lot)
        order = Order(size, kind, direction, ten, nothing, nothing, ten, costs, None)
        return fill(Pool(cash, cash, cash), order)[1].trade

    with jax.enable_x64(True):
        by = jax.jit(jax.value_and_grad(filled, (0, 1)))
        for size, trade, slopes in ((2.5, 2.0, (1.0, 0.0)), (-2.5, -2.0, (1.0, 0.0)), (20.0, 9.0, (0.0, 0.1))):
            value, slope = by(jnp.float64(size), jnp.float64(95.0), jnp.float64(1.0))
            assert value == trade
            np.testing.assert_allclose(slope, slopes, rtol=1e-12)
