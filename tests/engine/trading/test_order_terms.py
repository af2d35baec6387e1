"""The terms of orders in every form that they may be given in: they mean the same in all of them, in both engines, in
the pure core and under `grad`; and what is given wrongly is named."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.policy.given import given_orders_policy
from tests.helpers.cases import assert_same_portfolio
from tests.helpers.markets import AS_IT_STANDS, prices

BARS, ASSETS = 24, list("ABCD")
SHUFFLED = list("CADB")
CLOSE, OPEN = (frame.iloc[:BARS] for frame in prices(3, pd.Index(ASSETS, name="symbol")))
INDEX = CLOSE.index
EQUAL = al.EqualWeight()
RNG = np.random.default_rng(8)
#: Units, worth about half of the cash; on two thirds of all bars.
BOOK = pd.DataFrame(RNG.normal(0, 0.5, CLOSE.shape), INDEX, ASSETS).mask(RNG.random(CLOSE.shape) < 0.33)
#: Two values of each term that all show in what is traded.
TERMS: dict[str, tuple] = {
    "size": (0.05, -0.02),
    "size_type": ("value", "TargetAmount"),
    "direction": ("long_only", "short_only"),
    "price": (101.0, -np.inf),
    "fees": (0.001, 0.02),
    "fixed_fees": (0.05, -0.01),
    "slippage": (0.0005, 0.02),
    "min_size": (0.1, 0.3),
    "max_size": (0.05, 0.2),
    "size_granularity": (0.01, 0.07),
    "reject_prob": (0.2, 0.7),
    "lock_cash": (True, False),
    "allow_partial": (False, True),
}
#: Terms that are one for all assets and bars.
WHOLE: dict[str, tuple] = {
    "update_value": (True, False),
    "ffill_val_price": (False, True),
    "call_seq": ("default", "Reversed"),
    "init_cash": (50.0, 500.0),
}
HOLES, OPEN_HOLES = (frame.mask(RNG.random(CLOSE.shape) < 0.15) for frame in (CLOSE, OPEN))
#: What else it takes for a term to show.
CONTEXT: dict[str, dict] = {
    "allow_partial": dict(max_size=0.6),
    "update_value": dict(size_type="target_percent"),
    "ffill_val_price": dict(size_type="target_percent", close=HOLES, open=OPEN_HOLES),
    "call_seq": dict(size_type="target_percent"),
}


def run(engine: str = "reference", close: pd.DataFrame = CLOSE, **terms) -> js.Backtest:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "target weights sum to more than one")
        return js.backtest(close, **(dict(size=BOOK, open=OPEN, engine=engine, fees=0.001, key=5) | terms))


def run_with(name: str, value: Any) -> js.Backtest:
    """One term in the context in which it shows."""
    return run(**CONTEXT.get(name, {}) | {name: value})


def reads_differently(a: js.Backtest, b: js.Backtest) -> bool:
    return not np.allclose(a.value, b.value, rtol=1e-12) or len(a.orders) != len(b.orders)


# --- forms


def constant(value: Any) -> dict[str, Any]:
    """One value for all bars and assets in every form."""
    array = np.full(CLOSE.shape, value)
    return {
        "zero-dimensional": np.array(value),
        "per asset": array[0],
        "list": list(array[0]),
        "Series of assets": pd.Series(value, SHUFFLED),
        "Series of bars": pd.Series(value, INDEX),
        "per bar": array[:, :1],
        "one row": array[:1],
        "per bar and asset": array,
        "frame": pd.DataFrame(array, INDEX, ASSETS)[SHUFFLED],
    }


@pytest.mark.parametrize("name", TERMS)
def test_one_value_in_every_form(name):
    value, other = TERMS[name]
    expected = run_with(name, value)
    assert reads_differently(expected, run_with(name, other)), "the values differ in what they do"
    for form, given in constant(value).items():
        assert_same_portfolio(run_with(name, given), expected, rtol=1e-15)
        np.testing.assert_array_equal(run_with(name, given).records, expected.records, err_msg=form)


@pytest.mark.parametrize("name", TERMS)
def test_a_value_of_each_asset_bar_or_both(name):
    """Labels are what counts, not positions; where they do not, the array says the same as the table."""
    pair, rng = np.array(TERMS[name]), np.random.default_rng(len(name))
    by_asset, by_bar = pair[[0, 1, 1, 0]], pair[np.arange(BARS) % 2]
    by_both = pair[rng.integers(0, 2, CLOSE.shape)]
    if name == "direction":
        by_bar, by_both = np.where(np.arange(BARS) < 12, "long_only", "both"), by_both
        by_both = np.where(np.arange(4) % 2, by_bar[:, None], by_asset)
    per_asset = [by_asset, pd.Series(by_asset, ASSETS)[SHUFFLED], np.tile(by_asset, (BARS, 1))]
    per_bar = [by_bar[:, None], pd.Series(by_bar, INDEX), np.tile(by_bar[:, None], (1, 4))]
    per_both = [by_both, pd.DataFrame(by_both, INDEX, ASSETS)[SHUFFLED]]
    seen = [run_with(name, value) for value in TERMS[name]]
    for forms in (per_asset, per_bar, per_both):
        first, *others = (run_with(name, form) for form in forms)
        for bt in others:
            assert_same_portfolio(bt, first, rtol=1e-15)
        assert all(reads_differently(first, bt) for bt in seen), "each form is another portfolio"
        seen.append(first)


@pytest.mark.parametrize("name", [*TERMS, *WHOLE])
def test_a_swept_lane_as_a_single_run(name):
    """The key of a lane is made of its labels, so random rejections are drawn for one lane too."""
    values = (TERMS | WHOLE)[name]
    swept = run_with(name, pd.Index(values, name=name))
    assert swept.lanes.tolist() == list(values) and swept.lanes.name == name
    for value in values:
        one = pd.Index([value], name=name) if name == "reject_prob" else value
        single = run_with(name, one)
        assert_same_portfolio(swept[value], single[value] if name == "reject_prob" else single, rtol=1e-15)
    assert reads_differently(*(swept[value] for value in values))


def test_raise_reject_in_every_form():
    """Of two units each, A takes all the cash at bar 0 and B is rejected: it raises where the flag is set there."""
    options = dict(size=2.0, call_seq="default", size_type="amount")
    there, elsewhere = np.zeros(CLOSE.shape, bool), np.zeros(CLOSE.shape, bool)
    there[0, 1] = elsewhere[0, 0] = True
    raises = [True, there, pd.DataFrame(there, INDEX, ASSETS)[SHUFFLED], there[0], pd.Series(there[0], ASSETS)]
    raises += [pd.Series(there[:, 1], INDEX), there[:, 1:2], pd.Index([False, True], name="strict")]
    for given in raises:
        with pytest.raises(js.errors.RejectedOrderError, match="'B', bar 0"):
            run(raise_reject=given, **options)
    once = pd.DataFrame(np.nan, INDEX, ASSETS)
    once.iloc[0] = 2.0
    for given in (False, elsewhere, pd.DataFrame(elsewhere, INDEX, ASSETS)[SHUFFLED], elsewhere[0]):
        assert len(run(raise_reject=given, **(options | dict(size=once))).orders) == 1


#: Terms in other forms each, and once more the other way round, for the compiled engine.
MIXTURES = [
    dict(
        direction=pd.Series(["both", "long_only", "both", "long_only"], ASSETS),
        fees=0.002,
        fixed_fees=np.array([0.01, 0.02, 0.0, 0.05]),
        slippage=pd.Series(np.linspace(0, 0.01, BARS), INDEX),
        min_size=pd.DataFrame(0.02, INDEX, ASSETS),
        max_size=js.grid(max_size=[0.2, 0.5, np.inf]),
        reject_prob=0.1,
        lock_cash=np.array([True, False, True, False]),
        allow_partial=pd.Series(np.arange(BARS) % 3 > 0, INDEX),
        update_value=True,
        call_seq="default",
    ),
    dict(
        size=BOOK.to_numpy() * 100,
        size_type=pd.Series(["value", "target_value"] * 12, INDEX),
        price=pd.DataFrame(np.where(RNG.random(CLOSE.shape) < 0.5, np.inf, -np.inf), INDEX, SHUFFLED),
        fees=pd.DataFrame(RNG.uniform(0, 0.01, CLOSE.shape), INDEX, SHUFFLED),
        fixed_fees=pd.Series(np.linspace(0, 0.05, BARS), INDEX),
        slippage=np.array([0.001, 0.0, 0.002, 0.0]),
        min_size=0.01,
        max_size=np.array([0.5, 0.2, 0.5, 1.0]),
        size_granularity=pd.Series(np.where(np.arange(BARS) % 2, 0.01, np.nan), INDEX),
        lock_cash=js.grid(lock_cash=[False, True]),
        ffill_val_price=js.grid(ffill_val_price=[True, False]),
        call_seq=js.grid(call_seq=["auto", "reversed"]),
    ),
]


def test_all_forms_at_once_in_both_engines():
    assert_same_portfolio(*(run(engine, HOLES, **MIXTURES[1]) for engine in ("compiled", "reference")))


GROUPS = {"A": "x", "B": "y", "C": "y", "D": "x"}


def test_all_forms_at_once_with_groups_in_both_engines():
    both = [run(engine, HOLES, groups=GROUPS, **MIXTURES[0]) for engine in ("compiled", "reference")]
    assert both[0].lanes.names == ["max_size", "group"]
    assert_same_portfolio(*both)


@pytest.mark.parametrize("group", ["x", "y"])
def test_a_group_alone_as_beside_another(group):
    """The terms of a column go with it."""
    terms = MIXTURES[0] | dict(reject_prob=0.0)  # draws depend on the labels of the group
    members = [asset for asset, its_group in GROUPS.items() if its_group == group]
    places = [ASSETS.index(member) for member in members]
    own = {
        name: x[places] if isinstance(x, np.ndarray) else x[members] if name in ("direction", "min_size") else x
        for name, x in terms.items()
    }
    alone = run(close=CLOSE[members], open=OPEN[members], size=BOOK[members], **own)
    assert_same_portfolio(run(groups=GROUPS, **terms).xs(group, level="group"), alone, rtol=1e-15)


# --- enums


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("size_type", [js.SizeType.TARGET_PERCENT, 5, "TargetPercent", "target_percent", "TARGETPERCENT", 5.0]),
        ("direction", [js.Direction.LONG_ONLY, 0, "LongOnly", "long_only", "longonly", 0.0]),
        ("call_seq", [js.CallSeq.REVERSED, 1, "Reversed", "reversed", np.int32(1)]),
    ],
)
def test_members_codes_and_names_say_the_same(name, same):
    first, *others = (run_with(name, x) for x in same)
    assert reads_differently(first, run(**CONTEXT.get(name, {})))
    for bt in others:
        np.testing.assert_array_equal(bt.records, first.records)
    swept = run_with(name, pd.Index(same[:1], name="x"))
    np.testing.assert_array_equal(swept[same[0]].records, first.records)
    if name != "call_seq":
        for several in ([same[0]] * 4, np.array(same[2:4] * 2), pd.Series([*same[:4]], ASSETS)):
            np.testing.assert_array_equal(run_with(name, several).records, first.records)
    policy = js.backtest(CLOSE, js.Policy(EQUAL, **{name: same[2]}), open=OPEN, engine="reference")
    beside = js.backtest(CLOSE, EQUAL, open=OPEN, engine="reference", **{name: same[1]})
    np.testing.assert_array_equal(policy.records, beside.records)


# --- the core


class Swinging(eqx.Module):
    """Targets that go long and short."""

    scale: Any

    def __call__(self, obs):
        return self.scale * jnp.sin(0.9 * obs.step + 1.3 * jnp.arange(obs.num_assets))


with jax.enable_x64(True):
    MARKET, NINES = js.Market.from_frames(CLOSE, open=OPEN), jnp.full(4, 9.0)


def test_the_core_as_the_face():
    """`simulate` under jit and vmap, with terms in every form, against `backtest`."""
    terms = dict(
        fixed_fees=np.array([0.01, 0.02, 0.0, 0.05]),
        slippage=np.linspace(0, 0.01, BARS)[:, None],
        min_size=np.full(CLOSE.shape, 0.02),
        max_size=0.4,
        allow_partial=np.arange(4) % 2 > 0,
    )
    asked = dict(size_type="value", direction=["both", "long_only", "both", "both"], call_seq="reversed")
    fees, lock = np.array([0.0, 0.01, 0.003]), np.array([True, False, True])
    with jax.enable_x64(True):

        def simulate(fees, lock_cash):
            policy = js.Policy(Swinging(30.0), js.Threshold(0.0), **asked)
            costs = js.Costs(fees=fees, lock_cash=lock_cash, **terms)
            return js.simulate(MARKET, policy, costs=costs)

        sim = jax.jit(jax.vmap(simulate), compiler_options=AS_IT_STANDS)(fees, lock)
        assert (sim.status.fault == js.LaneFault.NONE).all()
    z = js.zipped(fees=fees, lock_cash=lock)
    options = dict(open=OPEN, trigger=js.Threshold(0.0), engine="reference", **terms, **asked)
    bt = js.backtest(CLOSE, Swinging(30.0), fees=z.fees, lock_cash=z.lock_cash, **options)
    assert (bt.units.to_numpy() < 0).any()
    np.testing.assert_allclose(sim.value.T, bt.value, rtol=1e-12)
    np.testing.assert_allclose(sim.cash.T, bt.cash, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(sim.rebalanced.T, bt.rebalances)
    np.testing.assert_allclose(np.moveaxis(sim.units, 0, 1).reshape(BARS, -1), bt.units, rtol=1e-12, atol=1e-12)


def test_gradients_equal_differences():
    """Of the final value with respect to costs, prices, weights and amounts; through short positions, partial fills and
    locked cash."""
    sizes = np.nan_to_num(BOOK) * np.array([1, 1, 2, 2])
    kinds = ["target_percent", "target_percent", "amount", "amount"]

    def final_value(x, lock_cash):
        scale, fees, fixed_fees, slippage, price = x
        book = jnp.where(np.isnan(BOOK.to_numpy()), jnp.nan, scale * sizes)
        costs = js.Costs(fees=fees, fixed_fees=fixed_fees, slippage=slippage, lock_cash=lock_cash)
        policy = given_orders_policy(book, size_type=kinds)
        at = eqx.tree_at(lambda m: m.price, MARKET, MARKET.price * price)
        sim = js.simulate(at, policy, costs=costs)
        return sim.value[-1], (sim.units, sim.status.is_ok)

    step = 1e-6
    x = np.array([1.0, 0.002, 0.03, 0.001, 1.0])
    with jax.enable_x64(True):
        grad = jax.jit(jax.vmap(jax.value_and_grad(final_value, has_aux=True)), compiler_options=AS_IT_STANDS)
        moved = np.concatenate([x[None], x + step * np.eye(5), x - step * np.eye(5)])
        points, flags = np.tile(moved, (2, 1)), np.repeat([False, True], 11)
        (value, (units, is_ok)), slope = jax.tree.map(np.asarray, grad(points, flags))
    assert is_ok.all()
    for lock, at in ((False, 0), (True, 11)):
        assert (units[at] < 0).any(), lock
        differences = (value[at + 1 : at + 6] - value[at + 6 : at + 11]) / (2 * step)
        assert np.isfinite(slope[at]).all() and (slope[at] != 0).all()
        np.testing.assert_allclose(slope[at], differences, rtol=1e-6, atol=1e-6)
    assert value[0] != value[11]
