"""Sensitivities against differences of whole backtests in plain NumPy, and what is said about kinks and jumps."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from tests.helpers.markets import ASSETS, INDEX, prices, with_holes

CLOSE, OPEN = prices(3)
YEAR = dict(freq="1D", year_freq="252D")
TERMS = dict(open=OPEN, slippage=0.001, fixed_fees=0.02, **YEAR)
WEIGHTS = np.array([0.4, 0.3, 0.2])


def worst_bar(returns):
    return returns.min(axis=0)


METRICS = ["sharpe_ratio", "total_return", worst_bar]  # the same everywhere: one program


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Two lanes that leave cash over, in one that is cut short by cash; at a fee of zero the cut is just not there."""
    return js.sensitivities(
        CLOSE,
        al.FixedWeights(WEIGHTS),
        trigger=js.Threshold(js.grid(threshold=[0.03, 0.06])),
        fees=js.grid(fees=[0.0, 0.01]),
        metrics=METRICS,
        **TERMS,
    )


def test_derivatives_are_the_differences(table):
    assert table.index.names == ["threshold", "fees", "metric", "parameter"] and len(table) == 4 * 3 * 7
    assert list(table.loc[(0.03, 0.01, "worst_bar")].index)[-3:] == ["weights[A]", "weights[B]", "weights[C]"]
    assert not table["events_differ"].any()
    assert table["relative_error"].max() < 1e-6
    assert (table.xs("threshold", level="parameter")["derivative"] == 0).all()
    assert (table.drop(index="threshold", level="parameter")["derivative"] != 0).all()


def test_they_are_differences_of_backtests(table):
    """Each parameter of one lane moved by hand, in the reference engine."""
    here = table.loc[(0.06, 0.01)]

    def total(fees=0.01, slippage=0.001, fixed_fees=0.02, weights=WEIGHTS) -> float:
        return js.backtest(
            CLOSE,
            al.FixedWeights(weights),
            trigger=js.Threshold(0.06),
            engine="reference",
            **TERMS | dict(fees=fees, slippage=slippage, fixed_fees=fixed_fees),
        ).total_return()

    assert here.loc[("total_return", "fees"), "value"] == pytest.approx(total(), rel=1e-12)
    h = 1e-6
    for name in ("fees", "slippage", "fixed_fees"):
        now = {"fees": 0.01, "slippage": 0.001, "fixed_fees": 0.02}[name]
        by_hand = (total(**{name: now + h}) - total(**{name: now - h})) / (2 * h)
        assert here.loc[("total_return", name), "derivative"] == pytest.approx(by_hand, abs=1e-8)
    for n, asset in enumerate(ASSETS):
        unit = np.eye(3)[n] * h
        by_hand = (total(weights=WEIGHTS + unit) - total(weights=WEIGHTS - unit)) / (2 * h)
        assert here.loc[("total_return", f"weights[{asset}]"), "derivative"] == pytest.approx(by_hand, abs=1e-8)


def test_a_kink_is_reported():
    """Weights that sum to one without costs are filled exactly; a little more, and the last buy is cut."""
    at_open = dict(open=OPEN, price=-np.inf, **YEAR)  # orders are sized and filled at one price
    found = js.sensitivities(
        CLOSE, al.FixedWeights([0.5, 0.25, 0.25]), trigger=js.Threshold(0.9), metrics=METRICS, **at_open
    )
    assert found.index.names == ["metric", "parameter"]
    weights = found.loc["total_return"].filter(like="weights", axis=0)
    assert weights["events_differ"].all() and (weights["relative_error"] > 1e-3).any()


def test_a_jump_is_reported():
    """A threshold that is just reached: a little more, and there is no rebalance."""
    bought = js.backtest(CLOSE, al.FixedWeights(WEIGHTS), open=OPEN, engine="reference", **YEAR)
    value = bought.cash + (bought.units * OPEN).sum(axis=1)
    drift = (bought.units * OPEN).div(value, axis=0).iloc[1:].sub(WEIGHTS).abs().max(axis=1)
    reached = float(drift.cummax().iloc[30])
    found = js.sensitivities(
        CLOSE, al.FixedWeights(WEIGHTS), open=OPEN, trigger=js.Threshold(reached), metrics=METRICS, **YEAR
    ).loc[("total_return", "threshold")]
    assert found["events_differ"] and found["derivative"] == 0 and abs(found["difference"]) > 1


class Trend(eqx.Module):
    """A state that observes every bar: more of what has risen since the start."""

    strength: np.ndarray

    def init(self, num_assets):
        return jnp.zeros(num_assets)

    def observe(self, obs, state):
        return jnp.where(state == 0, jnp.nan_to_num(obs.val_price), state)

    def __call__(self, obs, state):
        tilt = self.strength * jnp.nan_to_num(
            jnp.where(state == 0, 0.0, obs.val_price / jnp.where(state == 0, 1.0, state) - 1)
        )
        return js.Allocation(0.2 + jnp.clip(tilt, -0.1, 0.1)), state


def test_groups_states_and_holes():
    pairs = [("tech", "A"), ("tech", "B"), ("bank", "B"), ("bank", "D")]  # of one size: one program
    close, open_ = with_holes(*prices(4, pd.MultiIndex.from_tuples(pairs, names=["sector", "symbol"])))
    trigger = js.Threshold(0.05) & js.EveryBars(2) | js.EveryBars(11)
    found = js.sensitivities(
        close,
        js.Policy(Trend(np.asarray(0.1)), trigger, destination=js.ToEdge(), min_history=3),
        open=open_,
        fees=pd.Series([0.001, 0.002, 0.003, 0.004], close.columns),
        freq="1D",
        wrt=["weights", "fees"],
    )
    assert found.index.names == ["sector", "metric", "parameter"]
    assert list(found.loc["bank"].index.get_level_values("parameter")) == ["fees", "weights[B]", "weights[D]"]
    smooth = found[~found["events_differ"]]
    assert len(smooth) >= 4 and smooth["relative_error"].max() < 1e-5
    alone = js.backtest(
        close, js.Policy(Trend(np.asarray(0.1)), trigger, destination=js.ToEdge(), min_history=3), open=open_,
        fees=pd.Series([0.001, 0.002, 0.003, 0.004], close.columns), freq="1D", engine="reference",
    )  # fmt: skip
    np.testing.assert_allclose(found["value"].groupby(level="sector").first(), alone.sharpe_ratio().sort_index())


def test_a_gate_has_a_column_of_its_own():
    found = js.sensitivities(
        CLOSE,
        al.FixedWeights(WEIGHTS),
        open=OPEN,
        trigger=js.Threshold(0.04),
        metrics=METRICS,
        **YEAR,
        gate=js.StraightThrough(0.01),
    )
    threshold = found.loc[("total_return", "threshold")]
    assert threshold["derivative"] == 0 and threshold["surrogate"] != 0
    costs = found.loc["total_return"].loc[["fees", "slippage"]]
    assert (costs["surrogate"] < 0).all()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (dict(metrics="beta"), ValueError, r"metrics: there is no metric 'beta' of returns alone"),
        (
            dict(wrt=["fee"]),
            ValueError,
            r"wrt: expected some of \['fees', 'fixed_fees', 'slippage', 'threshold', 'weights'\]",
        ),
        (dict(wrt=["threshold"]), ValueError, r"wrt: there is no threshold to vary: the trigger has no threshold"),
        (dict(step=0.0), ValueError, r"step: expected a finite number > 0, got 0"),
        (dict(step=[1e-6, 1e-5]), ValueError, r"step: expected one number"),
        (dict(size=1.0), TypeError, r"size: plain orders have no weights"),
        (dict(policy=5), TypeError, r"policy: expected an allocation function, an allocator or a Policy, got 5"),
        (
            dict(policy=js.Policy(al.EqualWeight()), trigger=js.Always()),
            ValueError,
            r"trigger: the Policy has one already",
        ),
        (dict(fees=-2.0), ValueError, r"fees: expected a finite number > -1"),
        (dict(feed=0.1), TypeError, r"feed: js.backtest has no such argument; did you mean fees\?"),
    ],
)
def test_misuse(given, error, message):
    with pytest.raises(error, match=message):
        js.sensitivities(**(dict(close=CLOSE, policy=al.EqualWeight()) | given))


def test_needs_to_know_the_year():
    bars = pd.RangeIndex(len(INDEX))
    with pytest.raises(ValueError, match=r"freq: .* which sharpe_ratio needs; pass freq=.*bars_per_year="):
        js.sensitivities(CLOSE.set_axis(bars), al.EqualWeight())


def test_a_wrong_answer_names_its_lane():
    with pytest.raises(js.AllocationError, match=r"the allocator returned a NaN weight.*\(threshold=0.04, bar 0\)"):
        js.sensitivities(
            CLOSE,
            al.FixedWeights([np.nan, 0.5, 0.5]),
            open=OPEN,
            trigger=js.Threshold(js.grid(threshold=[0.04])),
            metrics=METRICS,
            **YEAR,
        )
