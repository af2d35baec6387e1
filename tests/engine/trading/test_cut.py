"""Purchases that are cut alike (rules 3.11)."""

from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import prices
from tools.fuzz_cut import fuzz_orders, fuzz_policies

ENGINES = ("compiled", "reference")
TENS = pd.DataFrame(10.0, index=range(2), columns=["A", "B"])
TERMS = {"open": TENS, "fees": 0.25, "cut": "pro_rata"}


def bought(engine: str, size=(8.0, 6.0), **terms) -> list[float]:
    """Units that plain orders buy with a cash of 100, at 10 each and fees of a quarter."""
    orders = pd.DataFrame([size, (np.nan, np.nan)], columns=TENS.columns)
    bt = js.backtest(TENS, size=orders, engine=engine, **TERMS | terms)
    return bt.orders.groupby("asset")["size"].sum().reindex(["A", "B"], fill_value=0.0).to_list()


def tied(cut: str, **costs):
    """Final wealth by the weights of three assets, which are rebalanced at once and at drifts of 5 %."""
    with jax.enable_x64(True):
        close, open_ = prices(0)
        market = js.Market.from_frames(close, open=open_)
    policy = js.Policy(lambda obs: obs.weights, js.Threshold(0.05), cut=cut)

    def wealth(weights, **how):
        own = replace(policy, allocator=lambda obs: weights)
        return js.simulate(market, own, costs=js.Costs(fees=0.005, **costs), **how).value[-1]

    return wealth


@pytest.mark.parametrize("engine", ENGINES)
def test_by_hand(engine):
    part = 100 / (14 * 10 * 1.25)
    assert bought(engine) == pytest.approx([8 * part, 6 * part])
    assert bought(engine, call_seq="reversed") == pytest.approx([8 * part, 6 * part])
    assert bought(engine, size=(3.0, 4.0)) == [3.0, 4.0]
    # Fixed fees are paid whole, max_size comes before, lots and min_size after: what they leave over is not spent.
    assert bought(engine, fixed_fees=5.0) == pytest.approx([8 * 90 / 175, 6 * 90 / 175])
    assert bought(engine, fixed_fees=50.0) == [0.0, 0.0]
    assert bought(engine, max_size=4.0) == pytest.approx([4.0, 4.0])
    assert bought(engine, size_granularity=1.0) == [4.0, 3.0]
    assert bought(engine, min_size=4.0) == pytest.approx([8 * part, 0.0])


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_are_cut_alike_and_say_so(engine):
    with pytest.warns(UserWarning, match="all buys are scaled to the cash there is"):
        bt = js.backtest(TENS, al.FixedWeights([0.8, 0.6]), engine=engine, **TERMS)
    assert bt.orders.sort_values("asset")["size"].to_list() == pytest.approx([8 * 100 / 175, 6 * 100 / 175])
    assert bt.cash.iloc[-1] == 0


def test_sales_come_first_whatever_the_sequence():
    """B is bought with what the sale of A brings in, though its column is first."""
    close = pd.DataFrame(10.0, index=range(3), columns=["B", "A"])
    size = pd.DataFrame([[np.nan, 10.0], [9.0, -10.0], [np.nan, np.nan]], columns=close.columns)
    for engine in ENGINES:
        for cut, units in (("last", 0.0), ("pro_rata", 9.0)):
            bt = js.backtest(close, size=size, open=close, call_seq="default", cut=cut, engine=engine)
            assert bt.orders.query("asset == 'B'")["size"].sum() == units


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("call_seq", ["auto", "reversed"])
@pytest.mark.parametrize("fee", [0.0, 0.1])
def test_what_a_stop_buys_back_is_not_cut(engine, call_seq, fee):
    """D, sold for 21.6, pays for the cover of A, 12; what is left is shared by B and C, which ask for 14 and 8.4."""
    days = pd.RangeIndex(3)
    close = pd.DataFrame({"A": [10.0, 12, 12], "B": 10.0, "C": 10.0, "D": [10.0, 20, 20]}, days)
    plan = js.Allocations.from_weights(pd.DataFrame([[-0.1, 0.5, 0.3, 0.3]], days[:1], close.columns), days)
    costs = {"fixed_fees": np.array([0.0, 0, 0, fee])}  # order by order, if there are any
    terms = {"open": close, "call_seq": call_seq, "cut": "pro_rata", "engine": engine, **(costs if fee else {})}
    with pytest.warns(UserWarning, match="all buys are scaled to the cash there is"):
        bt = js.replay(plan, close, trigger=js.Always(), stops=js.StopLoss(0.1), **terms)
    # D is bought as a purchase like the others on the first day; its fee comes off the cash and the value.
    part = 1 - fee / 110
    held = 10 * np.array([0.5, 0.3, 0.3]) * part
    worth = held @ [10, 10, 20] - 12
    asked = np.array([0.5, 0.3, 0.3]) * worth - held * [10, 10, 20]
    left = -asked[2] - fee - 12
    bought = asked[:2] * left / asked[:2].sum()
    held = np.append(held[:2] + bought / 10, 0.3 * worth / 20)
    assert left < asked[:2].sum()
    assert bt.units.iloc[1].to_list() == pytest.approx([0.0, *held], rel=1e-12)
    assert bt.cash.iloc[1] == pytest.approx(0.0, abs=1e-9)


def test_a_sale_that_only_rounding_tells_from_nothing_keeps_its_place():
    """A is told to buy a hundred-billionth of the account, B to sell as much, C is bought."""

    def answer(obs):
        return jnp.where(obs.step == 0, jnp.full(3, 0.3), jnp.array([0.3 + 2e-11, 0.3 - 2e-11, 0.35]))

    close = pd.DataFrame(10.0, index=range(3), columns=list("ABC"))
    ranks = [
        js.backtest(
            close, answer, open=close, trigger=js.Always(), destination=js.Fraction(0.5), cut="pro_rata", engine=engine
        )
        ._paths.ledgers[0]
        .rank.tolist()
        for engine in ENGINES
    ]
    assert ranks[0] == ranks[1]
    assert ranks[0][1] == [0, 1, 2]


def test_the_engines_agree():
    """And both cuts are the same to the last bit before the first bar at which cash is short."""
    tally = Counter()
    wrong = fuzz_policies(np.random.default_rng(3), 1, 6, 40, tally)
    wrong += fuzz_orders(np.random.default_rng(4), 6, tally)
    assert not wrong
    assert tally["compared"] == 12 and tally["short"] and tally["same"]


def test_a_tie_moves_no_wealth_by_a_jump():
    moved = {}
    with jax.enable_x64(True):
        weights = jnp.full(3, 1 / 3)
        for cut in ("last", "pro_rata"):
            wealth = jax.jit(tied(cut))
            moved[cut] = max(
                abs(float(wealth(weights.at[n].add(side * 1e-9)) / wealth(weights) - 1))
                for n in range(3)
                for side in (-1, 1)
            )
    assert moved["last"] > 1e-4 and moved["pro_rata"] < 1e-8


@pytest.mark.parametrize("costs", [{}, {"fixed_fees": 0.01, "slippage": 0.002}])
def test_derivatives_are_those_of_differences_with_every_adjoint(costs):
    """In the closed form and order by order, at a tie and with all of the cash invested."""
    with jax.enable_x64(True):
        wealth, weights = tied("pro_rata", **costs), jnp.full(3, 0.35)
        value = jax.jit(wealth)
        steps = 1e-6 * jnp.eye(3)
        differences = [float(value(weights + x) - value(weights - x)) / 2e-6 for x in steps]
        for adjoint in (js.Checkpointed(), js.AtEvents(64)):
            slope = jax.jit(jax.grad(lambda w, a=adjoint: wealth(w, adjoint=a)))(weights)
            np.testing.assert_allclose(slope, differences, rtol=1e-6)
        assert float(jax.jit(lambda w: wealth(w, schedule=js.NextEvent()))(weights)) == pytest.approx(
            float(value(weights)), rel=1e-12
        )


REFUSED = {
    "allow_partial": {"allow_partial": False},
    "update_value": {"update_value": True},
    "reject_prob": {"reject_prob": 0.1},
    "percent": {"size_type": "percent"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_with_it_is_refused(name):
    pattern = rf'^cut: "pro_rata" scales purchases of known sizes; .*{name}'
    with pytest.raises(ValueError, match=pattern):
        js.backtest(TENS, al.EqualWeight(), cut="pro_rata", **REFUSED[name])
    with jax.enable_x64(True):
        market = js.Market.from_frames(TENS)
    terms = {key: value for key, value in REFUSED[name].items() if key != "size_type"}
    policy = js.Policy(al.EqualWeight(), cut="pro_rata", size_type=REFUSED[name].get("size_type"))
    with pytest.raises(ValueError, match=pattern):
        js.simulate(market, policy, costs=js.Costs(**terms))


def test_infinite_sizes_are_refused_or_a_fault():
    size = pd.DataFrame([[np.inf, 1.0], [np.nan, np.nan]], columns=TENS.columns)
    with pytest.raises(ValueError, match=r'^cut: "pro_rata" .* an infinite size takes all of the cash'):
        js.backtest(TENS, size=size, cut="pro_rata")

    def everything(obs):
        return js.Allocation(jnp.array([jnp.inf, 1.0]), size_type="amount")

    for engine in ENGINES:
        with pytest.raises(js.AllocationError, match="an infinite size"):
            js.backtest(TENS, everything, open=TENS, cut="pro_rata", engine=engine)


def test_other_values_are_refused():
    for wrong, kind in (("first", ValueError), (pd.Index(["last"]), TypeError), (True, TypeError)):
        with pytest.raises(kind, match=r'^cut: expected "last" or "pro_rata", one for all lanes'):
            js.backtest(TENS, al.EqualWeight(), cut=wrong)
    with pytest.raises(ValueError, match=r"^cut: the Policy has one already"):
        js.backtest(TENS, js.Policy(al.EqualWeight(), cut="last"), cut="pro_rata")
