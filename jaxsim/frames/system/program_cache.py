"""Compiled programs kept on disk."""

import os
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxsim.datasets.archive import CACHE_VARIABLE


def cache_programs(path: Any = None, *, min_seconds: float = 0.1) -> Path:
    """Keep compiled programs on disk, so that the next process finds them: JAX's persistent compilation cache.

    Nothing is kept unless this is called, once, before anything is compiled that should be. It sets options of JAX
    for the whole process, for programs of others too.

    path: a folder; default `programs` in the folder of the environment variable JAXSIM_CACHE, else in the cache folder
        of the user.
    min_seconds: what took less time to compile is not kept.

    Returns the folder. Raises TypeError or ValueError for what is none.
    """
    if path is not None and not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected the path of a folder, got {path!r}")
    folder = _default() if path is None else Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"path: the folder {str(folder)!r} cannot be made: {error.strerror}") from error
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", min_seconds)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # one that has been opened, at another place or at none
    return folder


def _default() -> Path:
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]) / "programs"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxsim-portfolio" / "programs"
