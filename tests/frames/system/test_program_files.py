"""Traced programs on disk give the same numbers, to the last bit, and only those of the library are kept."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.base import kept_programs
from jaxsim.frames.system import program_files
from jaxsim.frames.system.program_files import ProgramFiles
from tests.helpers.markets import THRESHOLDS, prices

pytest.importorskip("flatbuffers")
CLOSE, OPEN = prices()
OPTIONS = dict(open=OPEN, trigger=js.Threshold(js.grid(threshold=THRESHOLDS)), fees=0.001)


@pytest.fixture
def another_process(tmp_path):
    """A function after which programs are found on disk alone."""
    yield lambda: kept_programs.keep_programs_with(ProgramFiles(tmp_path).program)
    kept_programs.keep_programs_with(None)


@pytest.fixture
def nothing_is_traced(monkeypatch):
    def refuse():
        def traced(call):
            raise AssertionError(f"{call.function.__name__} was traced")

        monkeypatch.setattr(program_files, "traced", traced)

    return refuse


def results() -> list:
    bt = js.backtest(CLOSE, al.RandomWeights(), **OPTIONS)
    fitted = js.replay(bt.allocations, CLOSE, open=OPEN, fees=0.001)
    table = js.sweep(CLOSE, al.EqualWeight(), **OPTIONS)
    return [bt.value, bt.orders, bt.allocations.weights, fitted.value, table]


def test_kept_programs_give_the_same_numbers(another_process, nothing_is_traced, tmp_path):
    plain = results()
    another_process()
    first = results()
    assert len(list(tmp_path.glob("*.traced"))) >= 4
    another_process()
    nothing_is_traced()
    for one, two, three in zip(plain, first, results(), strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)
        pd.testing.assert_frame_equal(one, three, check_exact=True)


@pytest.mark.slow
def test_training_goes_on_with_kept_programs(another_process, nothing_is_traced):
    """A policy comes back whole: functions, settings and numbers."""
    with jax.enable_x64(True):
        features = np.random.default_rng(0).normal(size=(*CLOSE.shape, 2))
        market = js.Market.from_frames(CLOSE, open=OPEN, features=features)

    def fit():
        policy = js.Policy(al.MLP(2, key=1), js.Threshold(0.05))
        return js.fit(policy, market, costs=js.Costs(0.001), ann_factor=252, steps=2, trainable=lambda p: p.allocator)

    plain = fit()
    another_process()
    fit()
    another_process()
    nothing_is_traced()
    kept = fit()
    assert jax.tree.structure(kept.policy) == jax.tree.structure(plain.policy)
    for one, two in zip(jax.tree.leaves(plain.policy), jax.tree.leaves(kept.policy), strict=True):
        np.testing.assert_array_equal(one, two) if eqx.is_array(one) else None
    pd.testing.assert_frame_equal(plain.history, kept.history, check_exact=True)


class Own(eqx.Module):
    tilt: np.ndarray

    def __call__(self, obs):
        return jax.nn.softmax(jnp.asarray(self.tilt))


class OwnEqualWeight(al.EqualWeight):
    def __call__(self, obs):
        return super().__call__(obs) * 0.5


@pytest.mark.parametrize("allocator", [Own(np.arange(3.0)), OwnEqualWeight(), lambda obs: jnp.full(3, 0.2)])
def test_what_belongs_to_the_user_is_traced_anew(allocator, another_process, tmp_path):
    plain = js.sweep(CLOSE, allocator, **OPTIONS)
    another_process()
    pd.testing.assert_frame_equal(js.sweep(CLOSE, allocator, **OPTIONS), plain, check_exact=True)
    assert not list(tmp_path.glob("*.traced"))


def test_a_damaged_file_is_written_again(another_process, tmp_path, caplog):
    plain = js.sweep(CLOSE, al.EqualWeight(), **OPTIONS)
    another_process()
    js.sweep(CLOSE, al.EqualWeight(), **OPTIONS)
    (file,) = tmp_path.glob("*.traced")
    for damage in (lambda whole: whole[:-1], lambda whole: b"{}\n", lambda whole: whole.replace(b"engine", b"lost99")):
        file.write_bytes(damage(file.read_bytes()))
        another_process()
        pd.testing.assert_frame_equal(js.sweep(CLOSE, al.EqualWeight(), **OPTIONS), plain, check_exact=True)
        assert caplog.text.count("a damaged program is traced anew") == 1
        another_process()
        js.sweep(CLOSE, al.EqualWeight(), **OPTIONS)
        assert caplog.text.count("a damaged program is traced anew") == 1, "it was written again"
        caplog.clear()


def test_other_sources_and_settings_are_other_programs(another_process, tmp_path, monkeypatch):
    another_process()
    for count, (policy, source) in enumerate(
        [(al.EqualWeight(), "a"), (al.EqualWeight(over="tradable"), "a"), (al.EqualWeight(), "b")], start=1
    ):
        monkeypatch.setattr(program_files, "source_digest", lambda: source)  # noqa: B023  called in this turn
        another_process()
        js.sweep(CLOSE, policy, **OPTIONS)
        assert len(list(tmp_path.glob("*.traced"))) == count


def test_a_program_that_is_looked_into_is_traced(another_process, tmp_path):
    another_process()
    with jax.debug_nans(True):
        js.sweep(CLOSE, al.EqualWeight(), **OPTIONS)
    assert not list(tmp_path.glob("*.traced"))


def test_a_file_calls_nothing():
    """A file that somebody has made names classes; it cannot name a function to be called."""
    for crafted in (
        {"named": "builtins:eval", "of": ["1/0"]},
        {"class": "builtins:eval", "of": {}},
        {"enum": "builtins:eval", "of": "x"},
        {"named": "os:system", "of": ["false"]},
        {"name": "subprocess:run"},
    ):
        with pytest.raises(program_files.NotKept):
            program_files.retold(crafted)
