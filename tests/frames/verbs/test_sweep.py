"""A sweep tells what a backtest of the same lanes tells, in any chunks, from any number of attempts."""

import json
import os
import signal
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import allocators as al
import jaxsim as js
from jaxsim.engine.metrics.online import ONLINE_METRICS
from jaxsim.frames.results.metric_names import ONE_PER_LANE
from jaxsim.frames.sweeps import chunking as chunks
from jaxsim.frames.sweeps.chunk_metrics import ChunkedSweep
from tests.helpers.markets import grouped, prices, with_holes

METRICS = ["sharpe_ratio", "max_drawdown", "turnover", "num_rebalances"]
CLOSE, OPEN = prices()
THRESHOLDS, FEES = js.grid(threshold=[0.02, 0.05, 0.1, 0.15, 0.3]), js.grid(fees=[0.0, 0.002])
MANY = dict(open=OPEN, trigger=js.Threshold(THRESHOLDS), fees=FEES, key=3)


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of four lanes."""
    monkeypatch.setattr(chunks, "MOST_ONLINE", 4)
    monkeypatch.setattr(chunks, "MOST_WITH_PATHS", 4)


@pytest.fixture
def computed(monkeypatch):
    """The numbers of the chunks that are computed."""
    numbers, scored = [], ChunkedSweep.compute_chunk

    def counted(self, chunk, *rest):
        numbers.append(chunk.number)
        return scored(self, chunk, *rest)

    monkeypatch.setattr(ChunkedSweep, "compute_chunk", counted)
    return numbers


def check(table: pd.DataFrame, bt: js.Backtest, names=METRICS) -> None:
    assert list(table.columns) == [*names, "status", "incidents"]
    assert (table["status"] == "").all()
    for name in names:
        assert table[name].dtype == np.float64
        pd.testing.assert_series_equal(table[name], getattr(bt, name)(), rtol=1e-9, atol=1e-12, check_dtype=False)


def sweep(policy=None, close=CLOSE, metrics=METRICS, **options) -> pd.DataFrame:
    return js.sweep(close, policy or al.RandomWeights(), metrics=metrics, **(MANY | options))


def backtest(policy=None, close=CLOSE, **options) -> js.Backtest:
    """By the reference engine, which compiles nothing."""
    return js.backtest(close, policy or al.RandomWeights(), engine="reference", **(MANY | options))


# --- what comes out


def test_every_metric_of_groups_with_holes():
    close, open_ = with_holes(*grouped())
    options = dict(close=close, open=open_, min_history=3, trigger=js.Threshold(THRESHOLDS[:4]))
    bt, names = backtest(**options), sorted(ONE_PER_LANE)
    check(sweep(**options, metrics=names, threads=1), bt, names)
    names = [name for name in names if name in ONLINE_METRICS or name == "deflated_sharpe_ratio"]
    check(sweep(**options, metrics=names, threads=1), bt, names)


def test_chunks_and_threads_change_nothing(small_chunks, computed):
    bt = backtest()
    check(sweep(threads=2), bt)
    assert sorted(computed) == [0, 1, 2]
    check(sweep(threads=1), bt)


def test_chunks_of_a_plain_function(small_chunks):
    def recent_winners(obs):
        return jax.nn.softmax(20 * jnp.nan_to_num(obs.window(5).mean_return()))

    check(sweep(recent_winners), backtest(recent_winners))


@pytest.mark.parametrize("lanes", [1, 8])
def test_chunks_of_groups(monkeypatch, computed, lanes):
    """Prices and costs that all chunks share, or that are swept; chunks of one combination and of several."""
    monkeypatch.setattr(chunks, "MOST_ONLINE", lanes)
    close, open_ = (x.iloc[:, [0, 1, 3, 4]] for x in with_holes(*grouped()))  # of the same size, side by side
    fees = pd.Series(np.linspace(0, 0.01, len(close)), close.index)
    swept = js.grid(ffill_val_price=[True, False])
    options = dict(close=close, open=open_, trigger=js.Threshold(THRESHOLDS[:3]), fees=fees, ffill_val_price=swept)
    check(sweep(**options), backtest(**options))
    assert len(computed) > 1


def test_other_engines(small_chunks):
    check(sweep(al.EqualWeight(), engine="reference"), backtest(al.EqualWeight()))


def test_plain_orders():
    size = pd.DataFrame(np.nan, CLOSE.index, CLOSE.columns)
    size.iloc[[0, 20, 40]] = [[0.1, 0.2, 0.1], [0.1, -0.2, np.nan], [-0.1, 0.1, 0.1]]
    options = dict(size=size, fees=FEES, fixed_fees=0.01)
    check(js.sweep(CLOSE, metrics=METRICS, **options), js.backtest(CLOSE, engine="reference", **options))


def test_one_lane_and_the_default_metrics():
    table, bt = js.sweep(CLOSE, al.EqualWeight()), js.backtest(CLOSE, al.EqualWeight(), engine="reference")
    assert list(table.index) == [0]
    assert list(table) == [
        "total_return", "sharpe_ratio", "max_drawdown", "turnover", "num_rebalances", "total_fees", "status",
        "incidents",
    ]  # fmt: skip
    assert table["sharpe_ratio"][0] == pytest.approx(bt.sharpe_ratio(), rel=1e-9)
    names = list(np.array(["sharpe_ratio", "turnover"]))  # strings of NumPy's
    pd.testing.assert_frame_equal(js.sweep(CLOSE, al.EqualWeight(), metrics=names)[names], table[names])


def test_a_lane_that_fails_is_said_and_the_others_go_on():
    class Strange(eqx.Module):
        below: jax.Array

        def __call__(self, obs):
            return jnp.where(obs.step >= self.below, jnp.nan, 1.0) * jnp.full(obs.num_assets, 1 / 3)

    policy = Strange(below=js.grid(below=[1000.0, 10.0, 2000.0]))
    options = dict(trigger=js.EveryBars(5), fees=0.001)
    table = js.sweep(CLOSE, policy, metrics=METRICS, **options)
    assert table["status"][10.0].startswith("the allocator returned a NaN weight")
    assert table["status"][10.0].endswith("(asset 'A', bar 10, 2021-01-14 00:00:00)")
    assert table.loc[10.0, METRICS].isna().all()
    good = js.backtest(CLOSE, Strange(below=js.grid(below=[1000.0, 2000.0])), engine="reference", **options)
    check(table.drop(10.0), good)
    with pytest.raises(js.AllocationError):
        js.backtest(CLOSE, policy, **options)


def fails_at_ten(obs, until):
    if obs.step >= until:
        raise KeyError("nothing here")
    return np.full(obs.num_assets, 1 / 3)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_python_function_that_fails_ends_its_lanes_alone(engine):
    policy = al.host(fails_at_ten, until=js.grid(until=[1000.0, 10.0]))
    options = dict(trigger=js.EveryBars(5))
    table = js.sweep(CLOSE, policy, metrics=METRICS, engine=engine, **options)
    assert "raised KeyError: 'nothing here' (bar 10, 2021-01-14 00:00:00)" in table["status"][10.0]
    good = js.backtest(CLOSE, al.EqualWeight(), engine="reference", **options)
    assert table["sharpe_ratio"][1000.0] == pytest.approx(good.sharpe_ratio(), rel=1e-9)


# --- going on


def test_it_goes_on_from_a_checkpoint(small_chunks, computed, tmp_path):
    folder = tmp_path / "run"
    table = sweep(checkpoint=folder)
    assert sorted(computed) == [0, 1, 2]
    (folder / "part-000001.parquet").unlink()
    (folder / ".part-000001.parquet.7.tmp").write_bytes(b"half a part")
    computed.clear()
    pd.testing.assert_frame_equal(sweep(checkpoint=folder), table)
    assert computed == [1], "finished chunks are not computed again"
    computed.clear()
    assert chunks.MOST_ONLINE == 4
    pd.testing.assert_frame_equal(sweep(checkpoint=folder, max_memory=10**5, threads=1), table)
    assert computed == [], "whatever the size of chunks would be today"


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    folder = tmp_path / "run"
    sweep(checkpoint=folder)
    others = {
        "prices": dict(close=CLOSE * 1.0000001, open=OPEN),
        "labels": dict(trigger=js.Threshold(js.grid(threshold=[0.02, 0.05, 0.1, 0.15, 0.31]))),
        "policy": dict(policy=al.EqualWeight()),
        "costs": dict(slippage=0.001),
        "key": dict(key=4),
        "metrics": dict(metrics=["sharpe_ratio"]),
        "bars per year": dict(year_freq="252D"),
    }
    for what, change in others.items():
        with pytest.raises(ValueError, match=rf"^checkpoint: .* of another run, which differs in .*{what}"):
            sweep(checkpoint=folder, **change)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^checkpoint: .* is no manifest of a sweep"):
        sweep(checkpoint=folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"^checkpoint: .* holds parts, but no manifest.json"):
        sweep(checkpoint=folder)


def test_functions_are_told_apart_by_what_they_do(tmp_path):
    def tilted(by):
        return lambda obs: jnp.full(obs.num_assets, 1 / 3) + by * jnp.array([1.0, 0.0, -1.0])

    folder = tmp_path / "run"
    table = sweep(tilted(0.1), checkpoint=folder)
    pd.testing.assert_frame_equal(sweep(tilted(0.1), checkpoint=folder), table)
    with pytest.raises(ValueError, match="differs in policy"):
        sweep(tilted(0.2), checkpoint=folder)


def test_a_parquet_data_set(small_chunks, tmp_path):
    names = [*METRICS, "deflated_sharpe_ratio"]
    path = sweep(out=tmp_path / "table", metrics=names)
    assert path == tmp_path / "table" and os.listdir(tmp_path) == ["table"], "nothing else is left behind"
    table = pd.read_parquet(path)
    assert list(table) == ["threshold", "fees", *names, "status", "incidents"]
    check(table.set_index(["threshold", "fees"]), backtest(), names)
    with pytest.raises(ValueError, match=r"^out: .* exists already"):
        sweep(out=path)


KILLED = """
import logging, sys
import allocators as al, jaxsim as js
from jaxsim.frames.sweeps import chunking as chunks
from tests.helpers.markets import prices
chunks.MOST_ONLINE = 4
logging.basicConfig(filename=sys.argv[2], level=logging.INFO, format="%(message)s")
close, open_ = prices()
trigger = js.Threshold(js.grid(threshold=[i / 1000 for i in range(1, 401)]))
js.sweep(close, al.RandomWeights(), open=open_, trigger=trigger, metrics=["sharpe_ratio"], checkpoint=sys.argv[1])
"""


@pytest.mark.slow
def test_killed_in_the_middle(tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    command = [sys.executable, "-c", KILLED, str(folder), str(log)]
    first = subprocess.Popen(command)
    while first.poll() is None and len(list(folder.glob("part-*"))) < 10:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL, "it was killed, and had not finished"
    written = len(list(folder.glob("part-*")))
    assert written < 100
    subprocess.run(command, check=True)
    kept = [line for line in log.read_text().splitlines() if line.startswith("chunk")]
    assert len(kept) == len(set(kept)), "no chunk is finished twice"
    close, open_ = prices()
    trigger = js.Threshold(js.grid(threshold=[i / 1000 for i in range(1, 401)]))
    options = dict(open=open_, trigger=trigger, metrics=["sharpe_ratio"])
    whole = js.sweep(close, al.RandomWeights(), **options)
    pd.testing.assert_frame_equal(js.sweep(close, al.RandomWeights(), checkpoint=folder, **options), whole)


# --- elsewhere

ON_DEVICES = """
import jax, numpy as np
import allocators as al, jaxsim as js
from jaxsim.frames.sweeps import chunking as chunks
from jaxsim.frames.sweeps import chunk_metrics
from tests.helpers.markets import prices
chunks.MOST_ONLINE = 4
used, lane_metrics = set(), chunk_metrics.lane_metrics
def seen(*arguments):
    done = lane_metrics(*arguments)
    used.update(jax.tree.leaves(done)[0].devices())
    return done
chunk_metrics.lane_metrics = seen
close, open_ = prices()
options = dict(open=open_, trigger=js.Threshold(js.grid(threshold=np.linspace(0.01, 0.2, 20))), fees=0.001)
table = js.sweep(close, al.EqualWeight(), metrics=["sharpe_ratio"], **options)
assert used == set(jax.local_devices()) and len(used) == 3
np.testing.assert_allclose(table["sharpe_ratio"], js.backtest(close, al.EqualWeight(), **options).sharpe_ratio(), 1e-9)
"""


@pytest.mark.slow
def test_all_devices_take_part():
    environment = os.environ | {
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=3"
    }
    subprocess.run([sys.executable, "-c", ON_DEVICES], check=True, env=environment)


def dies_once(obs):
    """Takes the worker with it, the first time that it is asked about bar 30."""
    if obs.step >= 30 and not os.path.exists(os.environ["JAXSIM_TEST_MARK"]):
        with open(os.environ["JAXSIM_TEST_MARK"], "w"):
            os._exit(1)
    return np.full(obs.num_assets, 1 / obs.num_assets)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Dask's own, when a worker dies
def test_a_cluster(tmp_path, monkeypatch, small_chunks):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("JAXSIM_TEST_MARK", str(tmp_path / "died"))
    size = dict(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    with distributed.LocalCluster(**size) as cluster, distributed.Client(cluster) as client:
        folder = tmp_path / "run"
        check(sweep(al.host(dies_once), engine=client, checkpoint=folder), backtest(al.EqualWeight()))
        assert (tmp_path / "died").exists(), "a worker has died on the way"
        assert len(list(folder.glob("part-*"))) == 3
        check(sweep(engine=client, key=jax.random.key(3)), backtest())


# --- misuse


def test_misuse(tmp_path):
    for error, message, options in [
        (TypeError, "metrics: expected a list of names", dict(metrics="sharpe_ratio")),
        (ValueError, "metrics: there is none", dict(metrics=[])),
        (ValueError, "metrics: 'rolling_beta' is none that is one number per lane", dict(metrics=["rolling_beta"])),
        (ValueError, "metrics: one of them is named twice", dict(metrics=["beta", "beta"])),
        (ValueError, "max_memory: expected a size such as '2GB'", dict(max_memory="much")),
        (ValueError, "max_memory: expected a positive size", dict(max_memory=0)),
        (TypeError, "max_memory: expected bytes", dict(max_memory=True)),
        (ValueError, "max_memory: 2 threads work on one combination", dict(max_memory=100, threads=2)),
        (ValueError, "threads: expected a whole number", dict(threads=1.5)),
        (ValueError, "threads: expected a whole number >= 1", dict(threads=0)),
        (ValueError, "threads: they are those of engine", dict(threads=2, engine="reference")),
        (ValueError, "engine: expected 'compiled'", dict(engine="gpu")),
        (TypeError, "checkpoint: expected the path of a folder", dict(checkpoint=3)),
        (ValueError, "out: .* exists already", dict(out=tmp_path)),
        (ValueError, "fees: ", dict(fees=-2.0)),
        (TypeError, "progress: expected True or False", dict(progress=1)),
        (ValueError, "freq: the index does not tell", dict(close=CLOSE.reset_index(drop=True), open=None)),
    ]:
        with pytest.raises(error, match=f"^{message}"):
            sweep(**options)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for name in ("checkpoint", "out"):
        with pytest.raises(ImportError, match=rf'^{name}: needs pyarrow: pip install "jaxsim-portfolio\[cli\]"'):
            sweep(**{name: tmp_path / "x"})


def test_it_says_what_is_to_be_done(capsys, small_chunks, tmp_path):
    sweep(progress=True, checkpoint=tmp_path / "run")
    said = capsys.readouterr().err
    assert "10 lanes x 60 bars x 3 columns, in 3 chunks of 4 lanes; about " in said
    assert "kB of memory, about " in said and "10/10" in said
    (tmp_path / "run" / "part-000002.parquet").unlink()
    sweep(progress=True, checkpoint=tmp_path / "run")
    assert "in 3 chunks of 4 lanes, 2 of them done before; about " in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["run"]["lanes"] == 10
