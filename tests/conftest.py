"""Shapes and dtypes are checked in all tests where arrays are annotated, by jaxtyping's import hook with beartype."""

import gc
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook(["jaxsim.engine", "allocators"], "beartype.beartype")

#: Every compiled program holds memory maps, of which Linux gives a process 65,530; XLA crashes where there are no more.
MANY_MAPS = 25_000


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Forgets compiled programs after a file of tests, when there are many."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > MANY_MAPS:
        import jax

        jax.clear_caches()
        gc.collect()
