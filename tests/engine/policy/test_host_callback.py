"""Plain Python functions as allocators: when they are called, what they see, what becomes of their errors."""

import _thread
import functools
import logging
import os
import signal
import threading
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.policy import host_callback as host_calls
from tests.helpers.cases import assert_same_portfolio
from tests.helpers.markets import BARS, INDEX, THRESHOLDS, as_users_run_it, compilations, grouped, prices, run

CLOSE, OPEN = prices(0)
GROUPED, GROUPED_OPEN = grouped(1)
LANES = dict(close=GROUPED, open_=GROUPED_OPEN, threshold=js.grid(threshold=THRESHOLDS), fees=0.01, min_history=21)
BOTH = pytest.mark.parametrize("engine", ["compiled", "reference"])


@pytest.fixture
def seen():
    """Notes the calls of `told`."""
    CALLS.clear()
    yield CALLS
    CALLS.clear()


CALLS: list[js.Observation] = []


def told(obs):
    CALLS.append(obs)
    return np.full(obs.num_assets, 1 / obs.num_assets)


def calm(obs, length, power, tilt):
    assert isinstance(length, int)
    assert isinstance(power, float)
    CALLS.append(obs)
    inverse = tilt / obs.window(length).volatility() ** power
    mask = np.arange(obs.num_assets) == obs.step % 2
    return js.Allocation(inverse / inverse.sum(), skip=mask, aux={"level": inverse.sum(), "each": inverse[:2]})


AUX = {"level": (), "each": 2}


# --- the same portfolios, and no call too many


@pytest.mark.parametrize(
    "market",
    [dict(close=CLOSE, open_=OPEN, threshold=0.05), LANES],
    ids=["one lane", "lanes"],
)
def test_as_equal_weight_and_once_for_each_rebalance(market, seen):
    bt = run(policy=al.host(told), **market)
    assert len(seen) == bt.rebalances.to_numpy().sum()
    assert_same_portfolio(bt, run(policy=al.EqualWeight(), **market))
    assert_same_portfolio(bt, run(policy=al.host(told), engine="reference", **market))


def test_parameters_are_swept_and_arrays_recorded(seen):
    z = js.zipped(length=[5, 20], power=[1.0, 2.0])
    tilt = pd.Series([1.0, 2.0, 1.0, 1.0, 3.0], GROUPED.columns)
    allocator = al.host(calm, length=z.length, power=z.power, tilt=tilt, aux=AUX)
    bt = run(policy=allocator, **LANES)
    assert len(seen) == bt.rebalances.to_numpy().sum()
    reference = run(policy=allocator, engine="reference", **LANES)
    assert_same_portfolio(bt, reference)
    assert list(bt.lanes.names) == ["length", "power", "threshold", "sector"]
    for name in AUX:
        np.testing.assert_array_equal(bt.aux[name], reference.aux[name])
    assert bt.aux["level"].notna().any().all()
    assert bt[5].value.iloc[-1].ne(bt[20].value.iloc[-1].to_numpy()).all()


def test_an_allocator_around_that_sees_every_bar(seen):
    bt = run(CLOSE, Beside(al.host(told)), OPEN)
    assert len(seen) == bt.rebalances.to_numpy().sum()
    assert_same_portfolio(bt, run(CLOSE, al.host(told), OPEN))
    with pytest.raises(js.AllocatorError, match="broken_at_30 raised OwnError") as caught:
        run(CLOSE, Beside(al.host(broken_at_30)), OPEN, 0.0)
    assert type(caught.value.__cause__) is OwnError


class Beside(eqx.Module):
    """An allocator around another one; of its answers only the weights remain."""

    inner: al.Host

    def init(self, num_assets):
        return jnp.zeros(())

    def observe(self, obs, state):
        return state + 1

    def __call__(self, obs, state):
        return self.inner(obs).weights * 1.0, state


# --- what it sees


def test_an_observation_is_that_of_the_reference_engine(seen):
    features = {"a": CLOSE * 2, "b": (np.arange(float(BARS)), np.arange(BARS))}
    market = dict(close=CLOSE, open_=OPEN, threshold=0.0, features=features)
    run(policy=al.host(told), key=3, **market)
    compiled = {obs.step: obs for obs in seen}
    seen.clear()
    run(policy=al.host(told), engine="reference", key=3, **market)
    assert len(seen) == len(compiled) == BARS
    for obs in seen:
        other = compiled[obs.step]
        for name in ("step", "value", "cash", "free_cash", "is_asked"):
            assert type(getattr(other, name)) is type(getattr(obs, name))
        for name in ("value", "cash", "free_cash", "weights", "units", "debt", "val_price", "target", "tradable"):
            np.testing.assert_allclose(getattr(other, name), getattr(obs, name), rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(jax.random.key_data(other.key), jax.random.key_data(obs.key))
        assert other.rng().random() == obs.rng().random() == obs.rng().random()
        for own, wanted in zip(*map(jax.tree.leaves, (other.features, obs.features)), strict=True):
            assert own.dtype == wanted.dtype
            np.testing.assert_array_equal(own, wanted)
        for length in (1, 30):
            window, wanted = other.window(length).values, obs.window(length).values
            assert type(window) is np.ndarray
            assert window.dtype == np.float64
            np.testing.assert_array_equal(window, wanted)
        assert not other.closes.flags.writeable


class Chooser:
    """Equal to all others of its kind, hence without a hash."""

    def __init__(self, share):
        self.share = share

    def __eq__(self, other):
        return True

    def __call__(self, obs):
        return np.full(obs.num_assets, self.share)

    def method(self, obs):
        return [self.share] * obs.num_assets


@pytest.mark.parametrize("form", ["lambda", "closure", "partial", "method", "object"])
def test_all_that_can_be_called(form):
    chooser = Chooser(0.2)
    forms = {
        "lambda": lambda obs: np.full(obs.num_assets, 0.2),
        "closure": make_closure(0.2),
        "partial": functools.partial(by_name, share=0.2, name="text"),
        "method": chooser.method,
        "object": chooser,
    }
    bt = run(CLOSE, al.host(forms[form]), OPEN)
    np.testing.assert_array_equal(bt.allocations.targets, 0.2)


def make_closure(share):
    def closure(obs):
        return np.full(obs.num_assets, share)

    return closure


def by_name(obs, share, name):
    return (share,) * obs.num_assets


def test_what_recompiles(seen):
    """Neither other values nor other functions do; what the object of a method holds is read anew."""
    chooser = Chooser(0.3)

    def go(seed, allocator):
        close, open_ = prices(seed)
        return run(close, allocator, open_, min_history=9)

    def scaled(obs, share):
        return share * obs.tradable

    go(0, al.host(told))
    go(0, al.host(scaled, share=0.2))
    with compilations() as count:
        chooser.share = 0.1
        go(1, al.host(scaled, share=0.3))
        for function in (told, lambda obs: obs.weights / 2, chooser.method):
            bt = go(1, al.host(function))
    assert count == [0]
    np.testing.assert_array_equal(bt.allocations.targets, 0.1)
    go(1, al.host(Chooser(0.3)))
    np.testing.assert_array_equal(go(1, al.host(Chooser(0.1))).allocations.targets, 0.1)


def test_no_host_function_no_object():
    for what in (3, None, Chooser):
        with as_users_run_it(), pytest.raises(TypeError, match=r"^function: expected"):
            al.host(what)
    with pytest.raises(TypeError, match=r"^name: expected numbers.*partial"):
        al.host(by_name, share=0.1, name="text")


# --- errors


class OwnError(Exception):
    """An exception whose constructor takes more than a message."""

    def __init__(self, one, two):
        super().__init__(one, two)


def broken_at_30(obs):
    if obs.step == 30:
        raise OwnError("no", "luck")
    return np.full(obs.num_assets, 0.2)


@BOTH
def test_an_exception_is_the_cause_and_tells_lane_and_time(engine):
    market = dict(LANES, threshold=js.grid(threshold=[0.0, 0.1, 0.2]))
    with pytest.raises(js.AllocatorError) as caught:
        run(policy=al.host(broken_at_30), engine=engine, **market)
    where = f"threshold=0.0, sector='tech', bar 30, {INDEX[30]}"
    assert str(caught.value) == f"allocator broken_at_30 raised OwnError: ('no', 'luck') ({where})"
    assert caught.value.bar == 30
    cause = caught.value.__cause__
    assert type(cause) is OwnError
    frames = []
    trace = cause.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert frames[-1] == "broken_at_30"


def test_nobody_is_asked_after_an_error(seen):
    def once(obs):
        told(obs)
        raise ValueError("no")

    with pytest.raises(js.AllocatorError, match=r"threshold=0.02, .*bar 21"):
        run(policy=al.host(once), **LANES)
    assert len(seen) == 1
    assert not host_calls.HostRun._running
    assert run(policy=al.host(told), **LANES).value.notna().all().all()


ANSWERS = {
    "shape": (lambda obs: np.full(2, 0.1), ValueError, r"allocator .* returned weights of shape \(2,\); .*\(3,\)"),
    "skip": (lambda obs: js.Allocation(np.zeros(3), skip=[True]), ValueError, r"returned skip of shape \(1,\)"),
    "none": (lambda obs: None, TypeError, "returned NoneType, not weights: one number per asset"),
    "text": (lambda obs: ["0.1"] * 3, TypeError, "returned list, not weights"),
    "ragged": (lambda obs: [[1.0], 2.0, 3.0], TypeError, "returned list, not weights"),
    "labelled": (lambda obs: pd.Series([0.2] * 3), TypeError, "returned labelled weights"),
    "nan": (lambda obs: [0.1, np.nan, 0.1], js.AllocationError, "NaN weight.*asset 'B', bar 0"),
    "infinite": (lambda obs: [0.1, 0.1, np.inf], js.AllocationError, "infinite weight.*asset 'C', bar 0"),
    "size type": (lambda obs: js.Allocation(np.ones(3), size_type="amount"), TypeError, "returned a size_type; "),
    "aux unsaid": (lambda obs: js.Allocation(np.ones(3), aux={"x": 1.0}), ValueError, r"returned aux \['x'\]; "),
}


@BOTH
@pytest.mark.parametrize("case", ANSWERS)
def test_answers_that_cannot_be_traded(case, engine):
    function, kind, text = ANSWERS[case]
    with as_users_run_it(), pytest.raises(kind, match=text) as caught:
        run(CLOSE, al.host(function), OPEN, engine=engine)
    assert type(caught.value) is kind
    if engine == "compiled":
        assert f"bar 0, {INDEX[0]}" in str(caught.value)


@BOTH
def test_arrays_to_record_of_another_shape(engine):
    allocator = al.host(lambda obs: js.Allocation(np.zeros(3), aux={"x": np.ones(2)}), aux={"x": 3})
    with pytest.raises(ValueError, match=r"returned aux 'x' of shape \(2,\); expected \(3,\)"):
        run(CLOSE, allocator, OPEN, engine=engine)


def test_an_interrupt_of_its_own():
    def stop(obs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(CLOSE, al.host(stop), OPEN)


def test_ctrl_c(seen):
    def slow(obs):
        if len(seen) == 3:
            threading.Thread(target=_thread.interrupt_main).start()
        time.sleep(0.05)
        return told(obs)

    # A shell has what it runs in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(CLOSE, al.host(slow), OPEN, 0.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert 3 <= len(seen) < BARS / 2
    time.sleep(0.1)
    assert len(seen) < BARS / 2
    assert not host_calls.HostRun._running


# --- threads, and simulations inside of simulations


def test_runs_in_several_threads_keep_their_errors_apart():
    results = {}

    def work(name):
        def function(obs):
            time.sleep(0.001)
            if name % 2 and obs.step == 10 + name:
                raise ValueError(f"of {name}")
            return np.full(obs.num_assets, 0.1 * (name + 1))

        try:
            results[name] = run(CLOSE, al.host(function), OPEN, 0.0).allocations.targets
        except js.AllocatorError as error:
            results[name] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, result in results.items():
        if name % 2:
            assert f"bar {10 + name}, " in str(result)
            assert str(result.__cause__) == f"of {name}"
        else:
            np.testing.assert_allclose(result, 0.1 * (name + 1))
    assert len(results) == 4


def test_a_backtest_inside_of_a_function(seen):
    inside = run(CLOSE, al.host(told), OPEN).total_return()

    def deep(obs):
        return np.full(obs.num_assets, run(CLOSE, al.host(told), OPEN, engine=engine).total_return() / 10)

    for engine in ("reference", "compiled"):
        if engine == "compiled" and len(os.sched_getaffinity(0)) < 2:
            continue
        bt = run(CLOSE, al.host(deep), OPEN)
        np.testing.assert_allclose(bt.allocations.targets, inside / 10, rtol=1e-9)


def test_a_backtest_inside_that_would_wait_forever(monkeypatch):
    monkeypatch.setattr(host_calls, "_num_threads", lambda: 0)

    def deep(obs):
        run(CLOSE, al.EqualWeight(), OPEN)

    with pytest.raises(js.AllocatorError, match=r"deep raised RuntimeError.*no free thread.*engine=.reference"):
        run(CLOSE, al.host(deep), OPEN)


# --- the core


def test_the_core_in_jit_vmap_and_grad(seen):
    """To derivatives, weights from the host are constants, as behind a `stop_gradient`."""
    with jax.enable_x64(True):
        market = js.Market.from_frames(CLOSE, open=OPEN)

        def final(allocator, fees, share):
            policy = js.Policy(allocator(share), js.Threshold(0.05), min_history=6)
            return js.simulate(market, policy, costs=js.Costs(fees)).value[-1]

        def on_host(share):
            return al.host(inverse_volatility, share=share)

        def in_jax(share):
            return lambda obs: jax.lax.stop_gradient(weigh(obs, share))

        fees, shares = jnp.array([0.0, 0.01, 0.02]), jnp.array([0.5, 0.9, 1.0])
        both = jax.value_and_grad(final, (1, 2))
        values = [jax.jit(jax.vmap(functools.partial(both, f)))(fees, shares) for f in (on_host, in_jax)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), *values)
        assert (values[0][1][0] < 0).all()
        assert (values[0][1][1] == 0).all()


def weigh(obs, share):
    inverse = 1 / obs.window(6).volatility()
    return share * inverse / inverse.sum()


def inverse_volatility(obs, share):
    assert isinstance(obs.units, np.ndarray)
    return weigh(obs, share)


def test_the_core_counts_logs_its_errors_and_follows_its_dtype(seen, caplog):
    market = js.Market.from_frames(CLOSE, open=OPEN, dtype=np.float32)

    def lane(threshold):
        policy = js.Policy(al.host(broken_at_59), js.Threshold(threshold))
        return js.simulate(market, policy)

    with caplog.at_level(logging.ERROR, "jaxsim"):
        sim = jax.vmap(lane)(np.float32([0.0, 0.3]))
        jax.block_until_ready(sim)
    assert len(seen) == sim.rebalanced.sum()
    assert seen[0].units.dtype == seen[0].window(3).values.dtype == np.float32
    assert sim.status.fault.tolist() == [js.LaneFault.WEIGHT_NAN, js.LaneFault.NONE]
    assert sim.status.bar.tolist() == [59, -1]
    assert "OwnError" in caplog.text
    assert np.isfinite(sim.value).all()


def broken_at_59(obs):
    if obs.step == 59:
        told(obs)
        raise OwnError("no", "luck")
    return told(obs)


def test_as_a_plain_function():
    """With NumPy arrays, as a planner asks."""
    windows = CLOSE.to_numpy()
    zero = np.zeros(3)
    obs = js.Observation(5, zero, zero, 100.0, 100.0, zero, 100.0, windows[5], zero, zero == 0, None, None, windows)
    assert al.host(told)(obs).weights.tolist() == [1 / 3] * 3
    assert al.host(told).function is told
    with pytest.raises(js.AllocatorError, match=r"^allocator raising raised KeyError: 'x'$"):
        al.host(raising)(obs)


def raising(obs):
    raise KeyError("x")
