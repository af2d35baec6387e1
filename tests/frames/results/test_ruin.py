"""An account that is worth nothing after a close: closed at the next bar, without ratios, and named."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js

DAYS = pd.date_range("2024-01-01", periods=6, freq="D")
ENGINES = ("compiled", "reference")
LEFT_OUT = "ignore:.* trials are left out:UserWarning"


def short(obs):
    return jnp.array([-1.0])


def long_short(obs):
    return jnp.array([1.5, -1.6, -0.8])


def one_asset(*close):
    return pd.DataFrame({"A": close}, DAYS[: len(close)]).astype(float)


def walks(seed, bars=120):
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=bars, freq="D")
    return pd.DataFrame(100 * np.exp(rng.normal(0.01, 0.06, (bars, 3)).cumsum(axis=0)), index, list("ABC"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_short_position_ruins_by_hand(engine):
    """One unit is sold short at 100: cash 200. At 250 the account is worth -50. At the next bar, at 160, the cash buys
    the unit back, and 40 are left; a later fall of the price does not matter."""
    close = one_asset(100, 100, 250, 160, 50, 50)
    bt = js.backtest(close, short, trigger=js.Never(), engine=engine)
    assert bt.value.tolist() == [100, 100, -50, 40, 40, 40]
    assert bt.orders["reason"].tolist() == ["", "ruined"] and bt.num_rebalances() == 2
    assert bt.incidents.values.tolist() == [[DAYS[2], "ruined", "", -50.0]]
    # At 400 the cash buys back half of it, and the rest is owed for ever.
    bt = js.backtest(one_asset(100, 100, 250, 400, 50, 50), short, trigger=js.EveryBars(1), engine=engine)
    np.testing.assert_allclose(bt.value, [100, 100, -50, -200, -25, -25])
    assert bt.cash.iloc[-1] == 0 and bt.units["A"].iloc[-1] == -0.5 and len(bt.orders) == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_metrics_of_a_ruined_lane_by_hand(engine):
    close = one_asset(100, 100, 250, 160, 50, 50)
    bt = js.backtest(close, short, trigger=js.Never(), engine=engine)
    assert bt.returns.tolist() == [0, 0, -1.5, 0, 0, 0]
    assert bt.total_return() == pytest.approx(-0.6) and bt.max_drawdown() == pytest.approx(-1.5)
    for name in ("sharpe_ratio", "calmar_ratio", "omega_ratio", "information_ratio", "beta", "tail_ratio"):
        assert np.isnan(getattr(bt, name)()), name
    assert bt.rolling_beta(window=2).iloc[2:].isna().all()
    stats = bt.stats()
    assert stats["Total Return [%]"] == pytest.approx(-60) and np.isnan(stats["Sharpe Ratio"])
    assert bt.returns_stats()["Total Return [%]"] == pytest.approx(-60)
    later = bt.between(DAYS[3], None)
    assert np.isnan([later.total_return(), later.max_drawdown(), later.sharpe_ratio()]).all() and not len(
        later.incidents
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bankruptcy_that_takes_all_is_ruin(engine):
    close = pd.DataFrame({"A": [10.0, 10, 10, np.nan, np.nan, np.nan], "B": 10.0}, DAYS)

    def all_of_a(obs):
        return jnp.array([1.0, 0.0])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = dict(trigger=js.EveryBars(1), delistings={"A": (DAYS[3], 0.0)}, engine=engine)
        bt = js.backtest(close, all_of_a, **options)
        table = js.sweep(close, all_of_a, metrics=["total_return", "sharpe_ratio"], **options)
    assert bt.value.tolist() == [100, 100, 100, 0, 0, 0] and bt.total_return() == -1
    assert bt.incidents["kind"].tolist() == ["delisted", "ruined"]
    assert table["incidents"].tolist() == ["ruined, delisted"] and np.isnan(table["sharpe_ratio"][0])


POLICIES = [
    dict(trigger=js.Threshold(0.5)),
    dict(trigger=js.Never()),
    dict(trigger=js.EveryBars(17), cut="pro_rata"),
    dict(trigger=js.Threshold(0.3), size_granularity=0.1, fixed_fees=0.2, cut="pro_rata"),
    dict(trigger=js.EveryBars(30), destination=js.SpreadOver(4)),
]


@pytest.mark.parametrize("options", POLICIES, ids=["threshold", "hold", "dates", "lots", "spread"])
def test_engines_schedules_and_replays_do_the_same(options):
    for seed in (0, 2, 5):
        close = walks(seed)
        close.iloc[100:, 1] *= 3  # which takes all from whoever has not lost it yet
        judge = js.backtest(close, long_short, fees=0.001, engine="reference", **options)
        runs = [js.backtest(close, long_short, fees=0.001, schedule=s, **options) for s in (None, js.Scan())]
        if "destination" not in options:
            terms = {name: x for name, x in options.items() if name != "trigger"}
            runs.append(js.replay(judge.allocations, close, fees=0.001, **terms))
        for bt in runs:
            np.testing.assert_allclose(bt.value, judge.value, rtol=1e-9, atol=1e-9)
            pd.testing.assert_frame_equal(pd.DataFrame(bt.orders), pd.DataFrame(judge.orders), rtol=1e-8)
            pd.testing.assert_frame_equal(bt.incidents, judge.incidents, rtol=1e-8)
        assert len(judge.incidents) == 1


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize("start", [0, 10, 60])
def test_sweeps_say_the_same_from_sums_and_from_paths(start):
    close, names = (
        walks(0),
        ["total_return", "annualized_return", "sharpe_ratio", "max_drawdown", "beta"],
    )
    options = dict(fees=0.001, start=start, trigger=js.EveryBars(pd.Index([1, 17, 60], name="every")))
    streamed = js.sweep(close, long_short, metrics=names, **options)
    kept = js.sweep(close, long_short, metrics=[*names, "value_at_risk"], **options)
    judge = js.sweep(close, long_short, metrics=[*names, "value_at_risk"], engine="reference", **options)
    pd.testing.assert_frame_equal(kept, judge, rtol=1e-8)
    pd.testing.assert_frame_equal(streamed, judge[streamed.columns], rtol=1e-8)
    is_ruined = streamed["incidents"] == "ruined"
    assert is_ruined.any() and not is_ruined.all()
    assert streamed["sharpe_ratio"].isna().tolist() == is_ruined.tolist()
    assert np.isfinite(streamed["total_return"][is_ruined]).all() == (start < 60)


def test_plain_orders_go_on():
    """Orders as in vectorbt: a short position of one unit at 250 is bought back at 50. Metrics are those of a ruin."""
    close = one_asset(100, 100, 250, 250, 50, 50)
    size = pd.DataFrame({"A": [np.nan, -1, np.nan, np.nan, 1, np.nan]}, DAYS)
    for engine in ENGINES:
        bt = js.backtest(close, size=size, engine=engine)
        assert bt.value.tolist() == [100, 100, -50, -50, 150, 150] and len(bt.orders) == 2
        assert bt.returns.tolist() == [0, 0, -1.5, 0, 0, 0] and bt.total_return() == 0.5
        assert np.isnan(bt.sharpe_ratio()) and bt.incidents["kind"].tolist() == ["ruined"]
        table = js.sweep(close, size=size, metrics=["total_return", "sharpe_ratio", "max_drawdown"], engine=engine)
        assert table["total_return"][0] == 0.5 and np.isnan(table["sharpe_ratio"][0])
        assert table["max_drawdown"][0] == -1.5 and table["incidents"][0] == "ruined"


def test_comparisons_leave_it_out():
    close = walks(0)
    bt = js.backtest(close, long_short, fees=0.001, trigger=js.EveryBars(pd.Index([1, 2, 17], name="every")))
    with pytest.warns(UserWarning, match="1 of 3 trials are left out"):
        assert bt.deflated_sharpe_ratio().isna().tolist() == [False, False, True]
    with pytest.warns(UserWarning, match="1 of 3 trials are left out"):
        assert 17 not in js.probability_of_overfitting(bt, 4).table["trial"].to_numpy()


def test_simulate_does_the_same_and_has_derivatives():
    """A ruined lane beside others, by every adjoint; the derivative of its value is that of the one closing."""
    close = walks(0)
    judge = js.backtest(close, long_short, fees=0.001, trigger=js.EveryBars(17), engine="reference")
    with jax.enable_x64(True):
        market = js.Market.from_frames(close)

        def run(weights, adjoint):
            policy = js.Policy(al.FixedWeights(weights), js.EveryBars(17))
            return js.simulate(market, policy, costs=js.Costs(0.001), adjoint=adjoint)

        weights, gradients = jnp.array([1.5, -1.6, -0.8]), []
        for adjoint in (js.Checkpointed(), js.AtEvents()):
            np.testing.assert_allclose(run(weights, adjoint).value, judge.value, rtol=1e-9, atol=1e-9)
            gradient = jax.grad(lambda w, a=adjoint: run(w, a).value[-1])(weights)
            sharpe = jax.grad(lambda w, a=adjoint: js.metrics.sharpe_ratio(run(w, a).returns, ann_factor=252))(weights)
            assert np.isfinite(gradient).all() and (gradient != 0).any() and np.isfinite(sharpe).all()
            gradients.append(gradient)
        np.testing.assert_allclose(*gradients, rtol=1e-9)
