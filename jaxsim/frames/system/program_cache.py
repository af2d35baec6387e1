"""Compiled programs kept on disk."""

import os
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxsim.datasets.archive import CACHE_VARIABLE


def cache_programs(path: Any = None, *, min_seconds: float = 0.1) -> Path:
    """Keep compiled programs on disk for the next process, in JAX's persistent compilation cache.

    Call it once, before the first program is compiled; without it, nothing is kept. It sets options of JAX for the
    whole process, also for programs of other libraries.

    path: a folder; default `programs` in the folder of the environment variable JAXSIM_CACHE, else in the cache folder
        of the user.
    min_seconds: programs that compile in less time are not kept.

    Returns the folder. Raises TypeError or ValueError that begins with `path` if there can be no such folder.
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
    compilation_cache.reset_cache()  # JAX may have opened a cache already, or decided for none
    return folder


def _default() -> Path:
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]) / "programs"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxsim-portfolio" / "programs"
