"""Shapes and dtypes are checked in all tests where arrays are annotated, by jaxtyping's import hook with beartype."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jaxtyping
import pytest

jaxtyping.install_import_hook(["jaxsim.engine", "allocators"], "beartype.beartype")

#: A third of the time to compile. What must be exact is tested once more as users compile it, by `.ci/run`.
QUICK = (
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 --xla_backend_optimization_level=0"
)
#: Files of tests by how long they take; others take less.
LONGEST = [
    *("docs", "gradients", "optimizers", "schedules", "orders", "sweep", "fit", "replay", "optimize", "gates"),
    *("programs", "learned", "cli", "workers", "destinations", "walk_forward", "host_callback", "order_terms"),
    *("decisions", "golden", "lanes"),
]
#: Files of tests whose programs are made of what others check the shapes of: there it would only take time.
WITHOUT_SHAPES = {
    *("test_docs", "test_orders", "test_sweep", "test_programs", "test_fit", "test_workers", "test_gradients"),
    *("test_trades", "test_lanes", "test_replay", "test_abuse", "test_stats", "test_identities", "test_accounting"),
    *("test_schedules", "test_optimize", "test_host_callback", "test_check_no_lookahead", "test_cli", "test_decisions"),
    *("test_walk_forward", "test_sensitivities", "test_from_records"),
}
#: Bars at which the reference engine, which is Python bar by bar, has its shapes checked; they stay what they are.
CHECKED_BARS = 8
#: Every compiled program holds memory maps, of which Linux gives a process 65,530; XLA crashes where there are no more.
MANY_MAPS = 40_000
#: Where compiled programs are kept meanwhile.
PROGRAMS = pytest.StashKey[str]()


def pytest_configure(config):
    """Before the first program, and for the workers: they inherit the environment. XLA aborts at flags that it does not
    know, so another process tries them first. Whoever sets XLA_FLAGS, be it to nothing, has tests as users run."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    if "XLA_FLAGS" not in os.environ:
        start = [sys.executable, "-c", "from jaxlib import xla_client; xla_client.make_cpu_client()"]
        tried = subprocess.run(start, env=os.environ | {"XLA_FLAGS": QUICK}, capture_output=True)
        os.environ["XLA_FLAGS"] = QUICK if tried.returncode == 0 else ""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # Programs that one process has compiled are there for the others, as long as the tests run.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = config.stash[PROGRAMS] = tempfile.mkdtemp(prefix="jaxsim-programs-")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"


def pytest_unconfigure(config):
    if PROGRAMS in config.stash:
        shutil.rmtree(config.stash[PROGRAMS], ignore_errors=True)


def pytest_collection_modifyitems(config, items):
    """What takes long comes first where there are several workers, who then end at about the same time."""
    if hasattr(config, "workerinput"):
        first = {f"test_{name}": i for i, name in enumerate(LONGEST)}
        items.sort(key=lambda item: first.get(item.path.stem, len(first)))


def pytest_collection_finish():
    _check_first_bars()
    # Tracing makes many small objects, all the more to be looked through for rubbish that is not there.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _check_first_bars():
    from jaxsim.reference.lane import _Lane

    step = _Lane.step

    def first_bars_checked(self, bar):
        before = jaxtyping.config.jaxtyping_disable
        jaxtyping.config.update("jaxtyping_disable", before or bar >= CHECKED_BARS)
        try:
            return step(self, bar)
        finally:
            jaxtyping.config.update("jaxtyping_disable", before)

    _Lane.step = first_bars_checked


@pytest.fixture(autouse=True, scope="module")
def shapes(request):
    """Whether this file of tests has shapes checked."""
    jaxtyping.config.update("jaxtyping_disable", request.path.stem in WITHOUT_SHAPES)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Forgets compiled programs after a file of tests, when there are many."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > MANY_MAPS:
        import jax

        jax.clear_caches()
        gc.collect()
