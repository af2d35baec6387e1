"""The probe names planted leaks, and acquits what is honest."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import prices

CLOSE, OPEN = prices(7)
with jax.enable_x64(True):
    MARKET = js.Market.from_frames(CLOSE, open=OPEN)
EQUAL = js.Policy(al.EqualWeight(), js.Threshold(0.05))


def check(policy=EQUAL, market=CLOSE, **given) -> pd.DataFrame:
    return js.check_no_lookahead(policy, market, **(dict(bars=6) | given))


def leaks(*parts: str, policy=EQUAL, market=CLOSE, **given) -> pd.DataFrame:
    """The probe names these parts and no others."""
    with pytest.raises(js.LookAheadError) as caught:
        check(policy, market, **given)
    found = caught.value.leaks
    assert sorted(found["part"].unique()) == sorted(parts), found["part"].unique()
    for part in parts:
        assert f"{part} saw the future: at " in str(caught.value)
    return found


# --- features


def test_leaks_in_features():
    def features(close):
        moves = close.pct_change()
        return {
            "lagged": moves.shift(1),
            "of_this_bar": moves,
            "next": moves.shift(-1),
            "centred": close.rolling(5, center=True).mean().shift(1),
            "scaled": ((close - close.mean()) / close.std()).shift(1),
            "rank": close.shift(1).rank(pct=True),
            "filled_back": close.where(close.shift(-3) > close).bfill().shift(1),
        }

    leaky = ["of_this_bar", "next", "centred", "scaled", "rank", "filled_back"]
    found = leaks(*(f"feature {name}" for name in leaky), features=features, bars=15)
    assert (found["time"] == CLOSE.index[found["bar"]]).all()


def test_honest_features():
    def features(close, open):
        gap = open / close.shift(1) - 1  # known at the open
        return {"gap": gap, "trend": [close.shift(1).rolling(n).mean() for n in (3, 8)]}

    table = check(features=features, open=OPEN)
    assert {"feature gap", "feature trend.0", "feature trend.1"} < set(table.index)
    assert table["is_checked"].all() and (table.loc["feature gap", "questions"] == 2 * table["bars"]).all()
    given = check(features=features(CLOSE, OPEN), open=OPEN)
    assert not given.loc["feature gap", "is_checked"] and given.loc["allocator EqualWeight", "is_checked"]


def test_features_of_a_market():
    leaks("feature (unnamed)", market=MARKET, features=lambda market: np.asarray(market.mark))
    check(market=MARKET, features=lambda market: np.asarray(market.val_price))


# --- allocators


def this_close(obs):
    return jax.nn.softmax(obs.closes[obs.step] / 100)


def last_close(obs):
    return jax.nn.softmax(jnp.asarray(obs.closes[-1]) / 100)


def whole_mean(obs):
    return obs.closes.mean(axis=0) / obs.closes.mean(axis=0).sum()


def winner_in_ten_bars(obs):
    later = obs.closes[min(int(obs.step) + 10, len(obs.closes) - 1)]
    return np.eye(3)[np.argmax(later / obs.val_price)]


@pytest.mark.parametrize("allocator", [this_close, last_close, whole_mean, winner_in_ten_bars])
def test_leaks_in_an_allocator(allocator):
    for market in (CLOSE, MARKET):
        leaks(f"allocator {allocator.__name__}", policy=js.Policy(allocator, js.Threshold(0.05)), market=market)


def test_leak_in_a_function_on_the_host():
    found = leaks("allocator Host(whole_mean)", policy=js.Policy(al.host(whole_mean)))
    assert found["difference"].max() > 0.001


class Watching(eqx.Module):
    """Remembers a price of each bar: the open, or one that is not known yet."""

    ahead: int = eqx.field(static=True)

    def init(self, num_assets):
        return np.ones(num_assets)

    def observe(self, obs, state):
        return obs.val_price if self.ahead < 0 else obs.closes[min(int(obs.step) + self.ahead, len(obs.closes) - 1)]

    def __call__(self, obs, state):
        return js.Allocation(state / state.sum()), state


def test_leak_in_what_is_observed():
    leaks("allocator Watching.observe", policy=js.Policy(Watching(0), js.Always()))
    check(js.Policy(Watching(-1), js.Always()), open=OPEN)


def test_leaks_that_a_policy_closes_over():
    """Only the function that makes the policy from prices can be seen through."""

    def peeking(close):
        future = close.shift(-1).ffill().to_numpy()
        return js.Policy(al.host(lambda obs: future[int(obs.step)] / future[int(obs.step)].sum()), js.Always())

    check(peeking(CLOSE))
    with pytest.raises(
        js.LookAheadError, match=r"^allocator Host\(.*lambda>\) saw the future: at \d+ bars, the first of"
    ):
        check(peeking)


def test_weights_fitted_to_the_whole_sample():
    def fitted(close):
        return js.Policy(al.FixedWeights((close.iloc[-1] / close.iloc[0]).rank() / 6))

    def fitted_before(close):
        return js.Policy(al.FixedWeights((close.iloc[19] / close.iloc[0]).rank() / 6), min_history=20)

    leaks("allocator FixedWeights", policy=fitted)
    check(fitted_before)

    def of_market(market):
        weights = market.close[-1] / market.close[-1].sum()
        return js.Policy(al.FixedWeights(weights), js.Threshold(0.05))

    leaks("allocator FixedWeights", policy=of_market, market=MARKET)


# --- triggers and destinations


def about_to_fall(obs):
    return (obs.closes[obs.step] < obs.val_price).all()


def test_leaks_in_a_trigger():
    leaks("trigger about_to_fall", policy=js.Policy(al.EqualWeight(), about_to_fall), open=OPEN, bars=20)
    composed = js.Every("W") & about_to_fall | js.Threshold(0.1)
    leaks("trigger about_to_fall", policy=js.Policy(al.EqualWeight(), composed), open=OPEN, bars=20)


def test_a_threshold_fitted_to_the_whole_sample():
    def fitted(close):
        return js.Policy(al.EqualWeight(), js.Threshold(close.pct_change().std().mean()))

    leaks("trigger Threshold", policy=fitted)


class AfterTheClose(js.AbstractDestination):
    """Trades only what will rise."""

    def __call__(self, obs, target, trigger):
        return np.where(obs.closes[obs.step] > obs.val_price, target, np.nan)


def test_leak_in_a_destination():
    policy = js.Policy(al.EqualWeight(), js.Threshold(0.05), destination=AfterTheClose())
    leaks("destination AfterTheClose", policy=policy, open=OPEN)


def test_a_destination_is_not_blamed_for_its_trigger():
    class Peeking(js.AbstractTrigger):
        def __call__(self, obs):
            return np.asarray(True)

        def band(self, obs, target):
            return abs(obs.closes[obs.step] / obs.closes[obs.step].sum() - target)

    policy = js.Policy(al.EqualWeight(), Peeking(), destination=js.ToEdge())
    name = "trigger test_a_destination_is_not_blamed_for_its_trigger.<locals>.Peeking"
    leaks(name, policy=policy, open=OPEN)


# --- the honest


def momentum(obs):
    return jax.nn.softmax(10 * obs.window(5).mean_return())


@pytest.mark.parametrize(
    "policy",
    [
        js.Policy(momentum, js.Threshold(0.05), destination=js.ToEdge(), min_history=5),
        js.Policy(al.RandomWeights(), js.Every("W") | js.TrackingError(0.05, 10), destination=js.SpreadOver(3)),
        js.Policy(al.InverseVolatility(lookback=10), js.EveryBars(7), min_history=11),
        js.Policy(al.host(lambda obs: obs.rng().dirichlet(np.ones(3))), js.Always()),
        js.Policy(al.FixedWeights(pd.Series([0.2, 0.3, 0.5], CLOSE.columns)), js.L2Drift(0.05)),
    ],
    ids=["momentum", "random", "volatility", "host", "fixed"],
)
def test_the_honest_pass(policy):
    table = check(policy, open=OPEN, costs=js.Costs(fees=0.001))
    assert table["is_checked"].all() and (table["questions"] == 3 * table["bars"]).all()


def test_bars_by_label():
    found = leaks("allocator last_close", policy=js.Policy(last_close), bars=[CLOSE.index[4], CLOSE.index[9]])
    assert sorted(found["bar"].unique()) == [4, 9]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (dict(policy=al.EqualWeight()), TypeError, r"policy: expected a js.Policy, as in js.Policy\(allocator"),
        (
            dict(policy=lambda close: al.EqualWeight()),
            TypeError,
            r"policy: expected a js.Policy, or a function of prices",
        ),
        (dict(market=5), TypeError, r"market: expected a Market or a DataFrame of closes, got 5"),
        (dict(market=CLOSE.iloc[:1]), ValueError, r"market: one bar has no future"),
        (dict(market=MARKET, open=OPEN), TypeError, r"open: a Market has its own"),
        (dict(bars=0), ValueError, r"bars: expected at least one bar to look at"),
        (dict(bars=[CLOSE.index[0]]), ValueError, r"bars: Timestamp\('2021-01-04 00:00:00'\) is not a bar after the"),
        (dict(bars=[]), ValueError, r"bars: none are given"),
        (dict(features=lambda close: None), TypeError, r"features: the function returned None"),
        (dict(features=np.ones(3)), ValueError, r"features: expected one row per bar, 60"),
        (
            dict(policy=js.Policy(al.EqualWeight(), js.Threshold(js.grid(threshold=[0.1, 0.2])))),
            ValueError,
            r"policy: one lane is looked at a time",
        ),
        (
            dict(policy=js.Policy(lambda obs: [np.nan] * 3)),
            js.AllocationError,
            r"policy: the allocator returned a N",
        ),
        (
            dict(policy=js.Policy(al.host(lambda obs: np.random.default_rng().dirichlet(np.ones(3))))),
            ValueError,
            r"answers otherwise when it is asked the same again",
        ),
        (
            dict(features=lambda close: close * np.random.default_rng().normal()),
            ValueError,
            r"features: what the function answers otherwise",
        ),
    ],
)
def test_misuse(given, error, message):
    with pytest.raises(error, match=message):
        check(**given)


def test_an_allocator_in_place_of_a_function_of_prices():
    with pytest.raises(AttributeError) as caught:
        check(momentum)
    assert "an allocator is not such a function: pass js.Policy(allocator)" in caught.value.__notes__[0]
