"""How far to trade: every destination against figures by hand, its defining property, and the other engine."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.policy.destinations import project_to_band
from tests.helpers.cases import assert_same_portfolio
from tests.helpers.markets import BARS, INDEX, as_users_run_it, look, prices
from tests.helpers.policies import DESTINATIONS, OUTER, TRIGGERS, Structure, compare, make_cases, make_structure

CLOSE, OPEN = prices(0)
POLICY = al.FixedWeights(np.array([0.5, 0.3, 0.2]))
FIVE = js.Threshold(0.05)


def end(destination, trigger=FIVE, weights=(0.56, 0.26, 0.18), target=(0.5, 0.3, 0.2), xp=np, **seen) -> np.ndarray:
    obs = look(weights, target, xp=xp, **seen)
    return np.asarray(destination(obs, xp.asarray(target, float), trigger))


# Present weights 0.56, 0.26 and 0.18, targets 0.5, 0.3 and 0.2: off by 0.06, -0.04 and -0.02.
BY_HAND = {
    "target": (js.ToTarget(), FIVE, [0.5, 0.3, 0.2]),
    "edge": (js.ToEdge(), FIVE, [0.55, 0.265, 0.185]),
    "edge of its own width": (js.ToEdge(0.02), FIVE, [0.52, 0.28, 0.2]),
    "edge of a relative band": (js.ToEdge(), js.Threshold(0.1, relative=True), [0.55, 0.27, 0.18]),
    "edge by asset": (js.ToEdge(np.array([0.01, 0.2, 0.02])), FIVE, [0.51, 0.285, 0.205]),
    "edge of two bands": (js.ToEdge(), js.Threshold(0.05) & js.Threshold(0.02), [0.52, 0.28, 0.2]),
    "edge beside a date": (js.ToEdge(), js.Always() | js.Threshold(0.02), [0.52, 0.28, 0.2]),
    "a quarter": (js.Fraction(0.25), FIVE, [0.545, 0.27, 0.185]),
    "all": (js.Fraction(1.0), FIVE, [0.5, 0.3, 0.2]),
    "nothing": (js.Fraction(0.0), FIVE, [0.56, 0.26, 0.18]),
    "breached": (js.OnlyBreached(), FIVE, [0.5, np.nan, np.nan]),
    "breached, to half the band": (js.OnlyBreached(of=js.ToEdge(0.025)), FIVE, [0.525, np.nan, np.nan]),
    "breached by one of two": (js.OnlyBreached(), FIVE | js.Threshold(0.03), [0.5, 0.3, np.nan]),
    "half the turnover": (js.TurnoverCap(0.03), FIVE, [0.53, 0.28, 0.19]),
    "turnover enough": (js.TurnoverCap(0.06), FIVE, [0.5, 0.3, 0.2]),
    "no turnover": (js.TurnoverCap(0.0), FIVE, [0.56, 0.26, 0.18]),
    "half of a cap": (js.Fraction(0.5, of=js.TurnoverCap(0.03)), FIVE, [0.545, 0.27, 0.185]),
    "cap of a half": (js.TurnoverCap(0.03, of=js.Fraction(0.5)), FIVE, [0.53, 0.28, 0.19]),
    "cap of what is breached": (js.TurnoverCap(0.02, of=js.OnlyBreached()), FIVE, [0.52, np.nan, np.nan]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_figures_by_hand(name):
    destination, trigger, expected = BY_HAND[name]
    np.testing.assert_allclose(end(destination, trigger), expected, rtol=1e-9)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(end(destination, trigger, xp=jnp), end(destination, trigger))


def test_vanguard_trades_from_200_to_175_basis_points():
    assert end(js.Fraction(0.125), js.Threshold(0.02), [0.62, 0.38], [0.6, 0.4])[0] == pytest.approx(0.6175)


@pytest.mark.parametrize("flag", [False, True])
def test_the_first_purchase(flag):
    """It goes all the way, unless it is said to count as well."""
    for destination, part in ((js.Fraction(0.2, when_flat=flag), 0.2), (js.TurnoverCap(0.1, when_flat=flag), 0.2)):
        expected = np.array([0.5, 0.3, 0.2]) * (part if flag else 1.0)
        np.testing.assert_allclose(end(destination, weights=[0, 0, 0]), expected)
    for destination in (js.ToEdge(), js.OnlyBreached()):
        np.testing.assert_array_equal(end(destination, weights=[0, 0, 0]), [0.5, 0.3, 0.2])


def test_an_asset_without_a_price_or_a_target_is_left_alone():
    tradable = [True, True, False]
    np.testing.assert_allclose(end(js.ToEdge(), weights=[0.6, 0.2, 0.0], tradable=tradable), [0.55, 0.25, np.nan])
    alone = end(js.ToEdge(), target=(0.5, 0.3, np.nan))
    assert np.isnan(alone[2]) and alone[:2].sum() == pytest.approx(0.8)


# --- the edge


def nearest(x, low, high, total):
    """The same by bisection of the shift."""
    a, b = (low - x).min(), (high - x).max()
    for _ in range(200):
        middle = (a + b) / 2
        a, b = (middle, b) if np.clip(x + middle, low, high).sum() < total else (a, middle)
    return np.clip(x + b, low, high)


def random_band(rng):
    size = int(rng.integers(2, 9))
    center, half = rng.normal(0.2, 0.3, size), rng.uniform(0, 0.2, size) * (rng.random(size) < 0.9)
    return center + rng.normal(0, 0.2, size), center - half, center + half, center.sum()


def test_the_edge_is_the_nearest_point_of_the_band():
    rng = np.random.default_rng(0)
    for _ in range(500):
        x, low, high, total = random_band(rng)
        ours = project_to_band(x, low, high, total)
        assert ((low <= ours) & (ours <= high)).all() and ours.sum() == pytest.approx(total, abs=1e-12)
        np.testing.assert_allclose(ours, nearest(x, low, high, total), atol=1e-12)


def test_the_nearest_point_by_a_solver():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(1)
    for _ in range(25):
        x, low, high, total = random_band(rng)
        sums = {"type": "eq", "fun": lambda w, total=total: w.sum() - total}
        options = dict(bounds=list(zip(low, high, strict=True)), constraints=sums, method="SLSQP", tol=1e-14)
        solved = optimize.minimize(lambda w, x=x: ((w - x) ** 2).sum(), (low + high) / 2, **options)
        np.testing.assert_allclose(project_to_band(x, low, high, total), solved.x, atol=1e-6)


def test_after_trading_to_the_edge_nothing_is_outside_its_band():
    """Without fees, at the price that weights are measured by; random weights, whose sum is below one."""
    width = js.grid(w=[0.0, 0.01, 0.04, 0.1])
    options = dict(trigger=js.Threshold(width), destination=js.ToEdge(), engine="reference")
    bt = js.backtest(CLOSE, al.RandomWeights(), open=CLOSE, **options)
    table = bt.decisions
    assert len(table) > 200 and (bt.num_rebalances() > 3).all()
    assert ((table["weight_after"] - table["target"]).abs() <= table["w"] + 1e-9).all()
    traded = table[(table["rebalance"] > 0) & (table["filled"] != 0) & (table["w"] > 0)]
    at_edge = np.isclose((traded["weight_after"] - traded["target"]).abs(), traded["w"], atol=1e-6)
    assert 0.2 < at_edge.mean() < 1  # some went to the edge, others made room for them


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_an_asset_at_its_edge_does_not_set_it_off_again(engine):
    """Reaching a limit is a breach, so that prices at rest would mean a rebalance at every bar."""
    rng = np.random.default_rng(5)
    close = CLOSE.copy()
    close.iloc[1] = close.iloc[0] * [1.3, 0.9, 1.0]
    close.iloc[2:] = close.iloc[1].to_numpy()
    for _ in range(20 if engine == "reference" else 1):
        weights = al.FixedWeights(rng.dirichlet(np.ones(3) * 20))
        trigger = js.Threshold(js.grid(w=np.round(rng.uniform(0.001, 0.03, 4), 6)))
        options = dict(open=close, trigger=trigger, destination=js.ToEdge(), engine=engine, init_cash=1e6)
        assert (js.backtest(close, weights, **options).num_rebalances() == 2).all()


# --- whole runs


def run(destination, trigger=FIVE, engine="reference", policy=POLICY, **options) -> js.Backtest:
    return js.backtest(CLOSE, policy, open=OPEN, trigger=trigger, destination=destination, engine=engine, **options)


def test_all_and_nothing_of_the_way():
    np.testing.assert_allclose(run(js.Fraction(1.0), fees=0.002).value, run(js.ToTarget(), fees=0.002).value)
    still = run(js.Fraction(0.0))
    assert len(still.orders) == 3 and still.num_rebalances() > 3


def test_only_what_is_breached_is_traded():
    table = run(js.OnlyBreached()).decisions
    later = table[table["rebalance"] > 0]
    assert later["breached"].any() and not later["breached"].all()
    assert (later.loc[~later["breached"], "filled"] == 0).all()
    assert later.loc[~later["breached"], "requested"].isna().all()


def test_no_rebalance_turns_over_more_than_the_cap():
    bt = js.backtest(
        *(CLOSE, POLICY), open=CLOSE, trigger=FIVE, destination=js.TurnoverCap(0.01), engine="reference", init_cash=1e4
    )
    table = bt.decisions[len(CLOSE.columns) :]
    share = (table["weight_after"] - table["weight"]).abs().groupby(table["rebalance"]).sum() / 2
    assert len(share) > 5 and share.max() == pytest.approx(0.01, abs=1e-12)


SWEPT = {
    ("bars", "turnover"): ([1, 3], [0.01, 0.04], lambda n, x: js.SpreadOver(n, of=js.TurnoverCap(x))),
    ("fraction", "width"): ([0.4, 0.9], [0.0, 0.03], lambda x, w: js.OnlyBreached(of=js.Fraction(x, of=js.ToEdge(w)))),
}


@pytest.mark.parametrize("names", SWEPT, ids="-".join)
def test_numbers_are_swept(names):
    one, other, build = SWEPT[names]
    indexes = (js.grid(**{name: values}) for name, values in zip(names, (one, other), strict=True))
    swept = run(build(*indexes), engine="compiled", fees=0.001)
    assert set(swept.lanes.names) == set(names)
    for x in one:
        for y in other:
            label = (x, y) if tuple(swept.lanes.names) == names else (y, x)
            assert_same_portfolio(swept[label], run(build(x, y), fees=0.001))


def test_widths_by_asset_and_by_bar():
    by_asset = pd.Series([0.04, 0.01, 0.02], CLOSE.columns)
    per_bar = pd.Series(np.linspace(0.0, 0.04, BARS), INDEX)
    for width in (by_asset, per_bar, pd.DataFrame(np.outer(per_bar, [1, 2, 3]), INDEX, CLOSE.columns)):
        table = run(js.ToEdge(width)).decisions
        table = table[table["rebalance"] > 0]
        if width is by_asset:
            limits = table["asset"].map(by_asset)
        else:
            frame = width if isinstance(width, pd.DataFrame) else pd.DataFrame({a: width for a in CLOSE})
            limits = pd.Series([frame.at[t, a] for t, a in zip(table["timestamp"], table["asset"], strict=True)])
        asked = np.abs(table["requested"].to_numpy() * 1.0)
        assert len(table) > 9 and np.isfinite(asked).all() and (limits.to_numpy() >= 0).all()
        after = (table["weight_after"] - table["target"]).abs().to_numpy()
        assert (after <= limits.to_numpy() + 0.01).all()  # filled at the close, weighed at the open


def test_short_only_weights_are_told_by_their_sign():
    """Where orders are short only, a weight of 0.3 is a short position: a part of the way leads towards that."""
    options = dict(policy=al.FixedWeights([0.3, 0.2, 0.1]), trigger=js.EveryBars(5), direction="short_only", min_size=0)
    half, whole = (run(js.Fraction(x), **options) for x in (0.5, 1.0))
    at = slice(6, None)
    assert (half.units.iloc[at] < 0).all().all()
    assert (half.weights.iloc[at] + [0.3, 0.2, 0.1]).abs().max().max() < 0.15
    assert len(half.orders) == len(whole.orders)


# --- over several bars


def test_equal_parts_by_hand():
    """Prices at rest, the weights move by the shift of the target alone: a third of the way, half of the rest, all."""
    close = pd.DataFrame(1.0, INDEX, CLOSE.columns)
    targets = [np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])]

    def turns(obs):
        return targets[int(obs.step >= 10)]

    options = dict(trigger=js.EveryBars(10), destination=js.SpreadOver(3), engine="reference")
    bt = js.backtest(close, turns, open=close, **options)
    np.testing.assert_allclose(bt.weights["A"].iloc[9:14], [0.5, 0.4, 0.3, 0.2, 0.2])
    assert list(bt.rebalance_index[:3]) == [INDEX[0], INDEX[10], INDEX[20]] and bt.num_rebalances() == 6
    assert sorted(set(bt.orders["timestamp"])) == [INDEX[0], INDEX[10], INDEX[11], INDEX[12]]
    np.testing.assert_array_equal(bt.allocations.bar, [0, 10, 20, 30, 40, 50])
    table = bt.decisions.query("rebalance == 1 and asset == 'A'")
    assert list(table["part"]) == [0, 1, 2] and list(table["timestamp"]) == list(INDEX[10:13])
    np.testing.assert_allclose(table["filled"], [-10, -10, -10])
    first = js.backtest(close, turns, open=close, **options | {"destination": js.SpreadOver(4, when_flat=True)})
    np.testing.assert_allclose(first.weights["A"].iloc[:5], [0.125, 0.25, 0.375, 0.5, 0.5])


def test_nothing_sets_it_off_while_it_is_on_its_way():
    """And the last part arrives: where prices do not move between sizing and filling, at the targets themselves."""
    options = dict(trigger=js.Threshold(0.03), destination=js.SpreadOver(3), engine="reference")
    bt = js.backtest(CLOSE, POLICY, open=CLOSE, **options)
    bars = np.flatnonzero(bt.rebalances)
    assert len(bars) > 5 and (np.diff(bars[1:]) >= 3).all()
    ends = bars[1:][bars[1:] + 2 < BARS] + 2
    np.testing.assert_allclose(bt.weights.iloc[ends], np.tile([0.5, 0.3, 0.2], (len(ends), 1)), rtol=1e-9)
    assert set(np.unique(bt.records["idx"])) <= {0} | {b + k for b in bars[1:] for k in range(3)}


def test_spread_rebalances_are_replayed():
    way = js.SpreadOver(js.grid(n=[1, 3]))
    bt = run(way, fees=0.002)
    assert len(bt.allocations) == bt.num_rebalances().sum() < len(bt.decisions) / 3
    again = js.replay(bt.allocations, CLOSE, open=OPEN, fees=0.002, destination=way)
    assert_same_portfolio(again, bt)
    assert_same_portfolio(bt[1], run(js.ToTarget(), fees=0.002))


def test_arrays_of_the_allocator_are_those_of_the_decisions():
    asked = []

    def counted(obs):
        asked.append(obs.step)
        return js.Allocation(np.array([0.5, 0.3, 0.2]), aux={"step": np.float64(obs.step)})

    bt = run(js.SpreadOver(4), policy=counted)
    np.testing.assert_array_equal(bt.aux["step"], asked)
    np.testing.assert_array_equal(np.flatnonzero(bt.rebalances), asked)
    market = js.Market.from_frames(CLOSE, open=OPEN, dtype="float32")
    sim = js.simulate(market, js.Policy(POLICY, FIVE, destination=js.SpreadOver(4)))
    np.testing.assert_array_equal(sim.rebalanced, bt.rebalances)


def test_an_account_that_goes_flat_on_its_way_is_done():
    bt = run(js.SpreadOver(3, when_flat=True), policy=al.FixedWeights([0.0, 0.0, 0.0]))
    assert bt.rebalances.all() and len(bt.orders) == 0


def test_the_size_of_units_is_traded_at_once():
    options = dict(policy=al.FixedWeights([0.1, 0.1, 0.1]), trigger=js.EveryBars(7), size_type="target_amount")
    one, other = (run(d, **options) for d in (js.SpreadOver(5), js.ToTarget()))
    np.testing.assert_array_equal(one.value, other.value)


# --- derivatives


def test_derivatives():
    """With respect to the numbers of three destinations in one another, against central differences."""
    with jax.enable_x64(True):
        market = js.Market.from_frames(CLOSE, open=OPEN)

        @jax.jit
        @jax.value_and_grad
        def final(x):
            way = js.Fraction(x[0], of=js.TurnoverCap(x[1], of=js.ToEdge(x[2])))
            return js.simulate(market, js.Policy(POLICY, FIVE, destination=way), costs=js.Costs(fees=0.003)).value[-1]

        x = jnp.array([0.8, 0.031, 0.021])
        slopes = [(final(x.at[k].add(1e-6))[0] - final(x.at[k].add(-1e-6))[0]) / 2e-6 for k in range(3)]
        assert min(abs(slope) for slope in slopes) > 1e-2
        np.testing.assert_allclose(final(x)[1], slopes, rtol=1e-5)


# --- what must hold of any


PROPERTIES = {
    "edge": js.ToEdge(),
    "spread": js.SpreadOver(3, of=js.TurnoverCap(0.02, of=js.OnlyBreached(of=js.Fraction(0.7)))),
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_no_lookahead_no_favourite_asset_no_favourite_currency_no_neighbours(name):
    way, rng = PROPERTIES[name], np.random.default_rng(3)
    weights = pd.Series([0.45, 0.27, 0.18], CLOSE.columns)  # where cash binds, ties are cut by the order of columns

    def backtest(close, open_, **options):
        options = {"trigger": js.Threshold(js.grid(t=[0.03, 0.04])), "fees": 0.002} | options
        return js.backtest(close, al.FixedWeights(weights), open=open_, destination=way, **options)

    bt = backtest(CLOSE, OPEN)
    late, late_open = CLOSE.copy(), OPEN.copy()
    late.iloc[31:] *= rng.uniform(0.7, 1.4, (BARS - 31, 3))
    late_open.iloc[31:] *= rng.uniform(0.7, 1.4, (BARS - 31, 3))
    past = backtest(late, late_open)
    np.testing.assert_array_equal(past.rebalances[:31], bt.rebalances[:31])
    np.testing.assert_array_equal(past.value[:31], bt.value[:31])
    turned = backtest(CLOSE[["C", "A", "B"]], OPEN[["C", "A", "B"]])
    np.testing.assert_allclose(turned.value, bt.value, rtol=1e-9)
    np.testing.assert_array_equal(turned.rebalances, bt.rebalances)
    dear = backtest(CLOSE * 1024, OPEN * 1024, init_cash=102_400.0)
    np.testing.assert_allclose(dear.value, bt.value * 1024, rtol=1e-12)
    alone = backtest(CLOSE, OPEN, trigger=js.Threshold(0.03), engine="reference")
    assert_same_portfolio(bt[0.03], alone)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_engines_agree_on_random_policies():
    number = 31
    rng = np.random.default_rng([7, number])
    tally: Counter = Counter()
    assert compare(make_cases(rng, make_structure(rng, number), 40, 80), tally) == []
    assert tally["compared"] == 40 and tally["orders"] > 200


def test_the_fuzzer_tells_engines_apart(monkeypatch):
    """A reference engine that forgets the last part is found out."""
    from jaxsim.reference import lane

    rng = np.random.default_rng(3)
    structure = Structure(["Threshold"], [], [OUTER[0]], "Fixed", 3, [])
    assert set(structure.triggers) <= set(TRIGGERS) and set(structure.destinations) <= set(DESTINATIONS)
    cases = make_cases(rng, structure, 5, 60)
    assert compare(cases, Counter()) == []
    whole = lane._Lane.next_part
    monkeypatch.setattr(lane._Lane, "next_part", lambda self, *x: [0.999 * w for w in whole(self, *x)])
    assert len(compare(cases, Counter())) >= 3


# --- misuse

MISUSE = {
    "no destination": (lambda: run(0.5), TypeError, "destination: expected a destination such as"),
    "a class": (lambda: run(js.ToEdge), TypeError, "destination: expected a destination such as"),
    "a function": (lambda: js.Policy(POLICY, destination=abs), TypeError, "destination: expected a destination"),
    "of what is none": (lambda: js.Fraction(0.5, of=0.3), TypeError, "of: expected a destination such as"),
    "spread inside": (lambda: js.Fraction(0.5, of=js.SpreadOver(3)), TypeError, "of: SpreadOver stands outside"),
    "no band": (lambda: run(js.ToEdge(), js.Always()), ValueError, "destination: ToEdge needs a trigger with a band"),
    "no assets": (lambda: run(js.OnlyBreached(), js.HalfL1Drift(0.1)), ValueError, "destination: OnlyBreached needs"),
    "no band in a replay": (
        lambda: js.replay(run(js.ToTarget()).allocations, CLOSE, destination=js.ToEdge(), engine="reference"),
        ValueError,
        "destination: ToEdge needs a trigger",
    ),
    "a negative width": (lambda: run(js.ToEdge(-0.1)), ValueError, "width: expected a finite number >= 0"),
    "widths of other assets": (lambda: run(js.ToEdge(np.array([0.1, 0.2]))), ValueError, "width: an array of 2"),
    "more than all": (lambda: run(js.Fraction(1.5)), ValueError, "fraction: .*<= 1, got 1.5"),
    "less than nothing": (lambda: run(js.Fraction(js.grid(f=[-0.1]))), ValueError, "fraction: .*>= 0"),
    "a fraction by asset": (lambda: run(js.Fraction(np.array([0.1, 0.2, 0.3]))), ValueError, "fraction: expected one"),
    "a negative cap": (lambda: run(js.TurnoverCap(-1)), ValueError, "turnover: expected a finite number >= 0"),
    "no bars": (lambda: run(js.SpreadOver(0)), ValueError, "bars: expected a whole number >= 1"),
    "half a bar": (lambda: run(js.SpreadOver(2.5)), ValueError, "bars: expected a whole number >= 1"),
    "plain orders": (
        lambda: js.backtest(CLOSE, size=1.0, destination=js.ToTarget()),
        ValueError,
        "destination: plain orders",
    ),
    "twice": (
        lambda: js.backtest(CLOSE, js.Policy(POLICY), destination=js.ToTarget()),
        ValueError,
        "destination: the Policy has one",
    ),
    "in the core": (
        lambda: js.simulate(
            js.Market.from_frames(CLOSE, dtype="float32"), js.Policy(POLICY, FIVE, destination=js.TurnoverCap(-1))
        ),
        ValueError,
        "turnover: ",
    ),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse(case):
    call, error, message = MISUSE[case]
    with as_users_run_it(), pytest.raises(error, match=f"^{message}"):
        call()
