"""Plans and backtests on other processes are those of this one."""

import os
import sys

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js

BARS = 60
INDEX = pd.date_range("2021-01-01", periods=BARS, freq="D")
CLOSE = pd.DataFrame(
    100 * np.exp(np.random.default_rng(0).normal(0, 0.02, (BARS, 3)).cumsum(axis=0)), INDEX, list("ABC")
)


def calm(obs):
    weights = 1 / np.nanstd(np.diff(np.log(obs.window().values), axis=0), axis=0)
    return weights / weights.sum()


def fails_late(obs):
    if obs.step >= 40:
        raise KeyError("nothing for this date")
    return calm(obs)


def dies_once(obs):
    """Takes the worker with it, the first time that it is asked about bar 30."""
    if obs.step == 30 and not os.path.exists(os.environ["JAXSIM_TEST_MARK"]):
        with open(os.environ["JAXSIM_TEST_MARK"], "w"):
            os._exit(1)
    return calm(obs)


def waves(obs):
    weights = 2 + jnp.sin(0.3 * obs.step + jnp.arange(obs.num_assets))
    return weights / weights.sum()


def plan(function, **options):
    return js.optimize(CLOSE, al.host(function), every=js.grid(every=[10, 15]), **options)


def sweep(policy=waves, **options):
    trigger = js.Threshold(js.grid(threshold=[0.01, 0.03, 0.05]))
    return js.backtest(CLOSE, policy, trigger=trigger, fees=0.001, key=4, **options)


@pytest.mark.slow
def test_processes():
    np.testing.assert_array_equal(plan(calm, engine="processes", progress=True).targets, plan(calm).targets)
    with pytest.raises(js.AllocatorError, match=r"allocator fails_late raised KeyError.*bar 40, 2021-02-10"):
        plan(fails_late, engine="processes")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Dask's own, when a worker dies
def test_a_cluster(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("JAXSIM_TEST_MARK", str(tmp_path / "died"))
    size = dict(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    with distributed.LocalCluster(**size) as cluster, distributed.Client(cluster) as client:
        np.testing.assert_array_equal(plan(dies_once, engine=client).targets, plan(calm).targets)
        assert (tmp_path / "died").exists(), "a worker has died on the way"
        one, other = sweep(), sweep(engine=client)
        pd.testing.assert_frame_equal(other.value, one.value, rtol=1e-12)
        pd.testing.assert_frame_equal(other.orders, one.orders)
        pd.testing.assert_frame_equal(other.allocations.weights, one.allocations.weights)
        with pytest.raises(js.AllocationError, match=r"NaN weight.*threshold=0.01, asset 'A', bar 0") as info:
            sweep(lambda obs: obs.weights + jnp.nan, engine=client)
        assert any("On the worker" in note for note in info.value.__notes__)


@pytest.mark.parametrize("engine", ["processes", "dask"])
def test_a_missing_library_is_named(engine, monkeypatch):
    for name in ("joblib", "distributed"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'^engine="{engine}" needs .*pip install "jaxsim-portfolio\[{engine}\]"'):
        plan(calm, engine=engine)
    with pytest.raises(ImportError, match=rf'^engine="{engine}" needs'):
        sweep(engine=engine)


def test_misuse():
    for run in (lambda engine: plan(calm, engine=engine), lambda engine: sweep(engine=engine)):
        for engine in ("gpu", 3, None):
            with pytest.raises(ValueError, match=r"^engine: expected 'compiled', 'reference', 'proc"):
                run(engine)


def test_progress_is_shown(capsys):
    js.optimize(CLOSE, al.host(calm), every=10, progress=True)
    assert "5/5" in capsys.readouterr().err
    with pytest.raises(TypeError, match=r"^progress: expected True or False"):
        sweep(progress=1)
