"""Shapes and dtypes are checked in all tests where arrays are annotated, by jaxtyping's import hook with beartype."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook(["jaxsim.engine", "allocators"], "beartype.beartype")

#: Half the time to compile. The same numbers to the last bit, but for what derivatives round.
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
#: Files of tests by how long they take; others take less.
LONGEST = [
    *("docs", "optimizers", "gradients", "sweep", "schedules", "programs", "gates", "lanes", "plans", "fit", "orders"),
    *("learned", "cli", "workers", "destinations", "walk_forward", "host", "order_terms", "decisions", "golden"),
]
#: Every compiled program holds memory maps, of which Linux gives a process 65,530; XLA crashes where there are no more.
MANY_MAPS = 25_000


def pytest_configure():
    """Before the first program, and for the workers: they inherit the environment. XLA aborts at flags that it does not
    know, so another process tries them first. Whoever sets XLA_FLAGS, be it to nothing, has tests as users run."""
    if "XLA_FLAGS" not in os.environ:
        start = [sys.executable, "-c", "from jaxlib import xla_client; xla_client.make_cpu_client()"]
        tried = subprocess.run(start, env=os.environ | {"XLA_FLAGS": QUICK}, capture_output=True)
        os.environ["XLA_FLAGS"] = QUICK if tried.returncode == 0 else ""


def pytest_collection_modifyitems(config, items):
    """What takes long comes first where there are several workers, who then end at about the same time."""
    if hasattr(config, "workerinput"):
        first = {f"test_{name}": i for i, name in enumerate(LONGEST)}
        items.sort(key=lambda item: first.get(item.path.stem, len(first)))


def pytest_collection_finish():
    """Tracing makes many small objects, all the more to be looked through for rubbish that is not there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Forgets compiled programs after a file of tests, when there are many."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > MANY_MAPS:
        import jax

        jax.clear_caches()
        gc.collect()
