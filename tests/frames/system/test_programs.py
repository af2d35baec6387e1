"""Programs are compiled for shapes, not for numbers; they can be kept on disk, and exported for a service."""

import os
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.frames.sweeps import chunking as chunks
from tests.helpers.markets import as_users_run_it, compilations, prices

CLOSE, OPEN = prices()


def numbers(seed: int, lanes: int = 5) -> dict:
    """Thresholds, fees, weights and prices that no call before has had."""
    rng = np.random.default_rng(seed)
    close, open_ = prices(seed)
    trigger = js.Threshold(js.grid(threshold=np.sort(rng.uniform(0.01, 0.2, lanes))))
    fees = float(rng.uniform(1e-4, 1e-2))
    return dict(close=close, policy=al.FixedWeights(rng.dirichlet(np.ones(3))), open=open_, trigger=trigger, fees=fees)


def test_other_numbers_compile_nothing():
    for run in (js.backtest, js.sweep):
        run(**numbers(0))
        with compilations() as count:
            for seed in range(1, 51):
                run(**numbers(seed))
        assert count[0] == 0, run


def test_a_program_at_most_for_each_doubling_of_lanes(monkeypatch):
    for run in (js.backtest, js.sweep):
        run(**numbers(0, 16))
        with compilations() as count:
            for lanes in (9, 11, 15, 16):
                run(**numbers(lanes, lanes))
        assert count[0] == 0, run
        with compilations() as count:
            for lanes in (17, 24, 31, 32):
                run(**numbers(lanes, lanes))
        assert count[0] > 0, "the count counts"
    monkeypatch.setattr(chunks, "MOST_ONLINE", 16)
    js.sweep(**numbers(0, 16), threads=1)
    with compilations() as count:
        js.sweep(**numbers(1, 100), threads=1)
    assert count[0] == 0, "chunks are of one shape, however many there are"


def test_a_longer_history_compiles_no_sweep():
    def run(num_bars):
        return js.sweep(**{**numbers(3), "close": CLOSE.iloc[:num_bars], "open": OPEN.iloc[:num_bars]})

    run(50)
    with compilations() as count:
        table = run(60)
    assert count[0] == 0
    bt = js.backtest(**{**numbers(3), "close": CLOSE, "open": OPEN}, engine="reference")
    np.testing.assert_allclose(
        table["total_return"], bt.total_return(), rtol=1e-9, err_msg="the filling does not count"
    )
    fees = pd.Series(np.linspace(0, 0.01, 60), CLOSE.index)
    options = {**numbers(3), "close": CLOSE, "open": OPEN, "fees": fees}
    table, bt = js.sweep(**options), js.backtest(**options, engine="reference")
    np.testing.assert_allclose(table["total_fees"], bt.total_fees(), rtol=1e-9)


KEPT = """
import sys, time, jax, jaxsim as js, allocators as al
from tests.helpers.markets import prices
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
assert str(js.cache_programs(sys.argv[1], min_seconds=0)) == sys.argv[1]
js.backtest(prices()[0], al.EqualWeight())
print(sum(event.endswith("compilation_cache/cache_hits") for event in hits))
"""


@pytest.mark.slow
def test_programs_are_kept(tmp_path):
    hits = [
        int(subprocess.run([sys.executable, "-c", KEPT, str(tmp_path)], check=True, capture_output=True).stdout)
        for _ in range(2)
    ]
    assert hits[0] == 0 and hits[1] > 0 and os.listdir(tmp_path)


def test_nothing_is_kept_unasked():
    assert jax.config.jax_compilation_cache_dir == os.environ.get("JAX_COMPILATION_CACHE_DIR")
    with pytest.raises(TypeError, match=r"^path: expected the path of a folder"):
        js.cache_programs(3)


@pytest.fixture
def market():
    with jax.enable_x64(True):
        return js.Market.from_frames(CLOSE, open=OPEN, dtype=np.float64)


def test_an_exported_simulator_is_the_simulator(market):
    pytest.importorskip("flatbuffers")
    policy = js.Policy(al.RandomWeights(), js.Threshold(0.05))
    data = js.export(market, policy, costs=js.Costs(fees=0.001), units=True).to_bytes()
    program = js.Program.from_bytes(data)
    assert program.lanes is None and "cpu" in program.platforms
    assert program.numbers["costs.fees"] == 0.001 and program.numbers["policy.trigger.threshold"] == 0.05
    got = program(market, {"policy.trigger.threshold": 0.02, "account.cash": 7.0}, key=5)
    with jax.enable_x64(True):
        other = js.Policy(al.RandomWeights(), js.Threshold(0.02))
        want = js.simulate(market, other, costs=js.Costs(fees=0.001), account=js.Account(7.0), key=5)
    for name in ("value", "returns", "cash", "rebalanced", "units"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
    assert got.value.dtype == np.float64 and got.status.fault == 0 and got.rebalanced.sum() > 1


def test_exported_lanes(market):
    policy = js.Policy(al.EqualWeight(), js.Threshold(0.05))
    program = js.export(market, policy, lanes=3)
    got = program(market, {"policy.trigger.threshold": [0.02, 0.05, 0.1], "costs.fees": 0.002})
    options = dict(open=OPEN, trigger=js.Threshold(js.grid(t=[0.02, 0.05, 0.1])), fees=0.002)
    bt = js.backtest(CLOSE, al.EqualWeight(), engine="reference", **options)
    np.testing.assert_allclose(got.value.T, bt.value, rtol=1e-12)
    assert program.numbers["costs.fees"].shape == (3,)


def test_misuse_of_programs(market):
    policy = js.Policy(al.EqualWeight(), js.Threshold(0.05))
    program = js.export(market, policy)
    with pytest.raises(KeyError, match=r"numbers: there is no 'costs.fee'; there are"):
        program(market, {"costs.fee": 0.1})
    with pytest.raises(ValueError, match=r"^numbers: costs.fees has shape \(2,\); expected \(\)"):
        program(market, {"costs.fees": [0.1, 0.2]})
    with jax.enable_x64(True):
        shorter = js.Market.from_frames(CLOSE.iloc[1:], open=OPEN.iloc[1:], dtype=np.float64)
    with pytest.raises(ValueError, match=r"^market: close has shape \(59, 3\); the program was exported for \(60, 3\)"):
        program(shorter)
    with pytest.raises(ValueError, match=r"^policy: it calls Python functions"):
        js.export(market, js.Policy(al.host(lambda obs: obs.weights)))
    with pytest.raises(ValueError, match=r"^lanes: expected a whole number"):
        js.export(market, policy, lanes=0)
    with as_users_run_it(), pytest.raises(TypeError, match=r"^market: expected a Market"):
        js.export(CLOSE, policy)


def test_bytes_that_are_no_program(monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ImportError, match=r'need flatbuffers: pip install "jaxsim-portfolio\[export\]"'):
        js.Program.from_bytes(b"")
    monkeypatch.setitem(sys.modules, "flatbuffers", os)
    with pytest.raises(ValueError, match=r"^data: no program that js.export has made"):
        js.Program.from_bytes(b"nothing")


# --- single precision


def test_single_precision_is_compared():
    options = dict(open=OPEN, trigger=js.Threshold(js.grid(threshold=[0.02, 0.05, 0.1])), fees=0.001)
    table = js.check_float32(CLOSE, al.EqualWeight(), **options)
    assert list(table.index) == [0.02, 0.05, 0.1] and (table["differing"] == 0).all() and table["first"].isna().all()
    judge = js.backtest(CLOSE, al.EqualWeight(), engine="reference", **options)
    pd.testing.assert_series_equal(table["decisions"], judge.num_rebalances(), check_names=False)
    assert (table["drift"] > 0).all() and (table["drift"] < 1e-5).all(), "it was another precision"
    assert len(js.check_float32(CLOSE, al.EqualWeight(), sample=2, **options)) == 2


def test_decisions_that_differ_are_warned_of():
    def by_the_last_digits(obs):
        return jax.nn.softmax(jax.numpy.sin(1e9 * obs.value + jax.numpy.arange(3.0)))

    with pytest.warns(UserWarning, match="float32 decides differently from float64 in 1 of 1 lanes"):
        js.check_float32(CLOSE, by_the_last_digits, open=OPEN, trigger=js.Threshold(0.05))


def test_misuse_of_the_check():
    with pytest.raises(ValueError, match=r"^sample: expected a whole number"):
        js.check_float32(CLOSE, al.EqualWeight(), sample=0)
    with pytest.raises(ValueError, match=r"^policy: it calls Python functions"):
        js.check_float32(CLOSE, al.host(lambda obs: obs.weights))
    with pytest.raises(TypeError, match=r"^fee: js\.backtest has no such argument"):
        js.check_float32(CLOSE, al.EqualWeight(), fee=0.1)


# --- more than fits


def test_a_backtest_that_would_not_fit_names_the_sweep(monkeypatch):
    monkeypatch.setattr("jaxsim.frames.verbs.backtest.available", lambda: 1000)
    monkeypatch.setattr("jaxsim.frames.verbs.backtest.ALWAYS_FITS", 0)
    message = r"^5 lanes x 60 bars: one path of each, .* takes 2 kB, and 1 kB are free; js.sweep keeps metrics alone"
    with pytest.raises(MemoryError, match=message):
        js.backtest(**numbers(0))
