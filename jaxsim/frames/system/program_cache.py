"""Programs kept on disk."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxsim.datasets.archive import CACHE_VARIABLE
from jaxsim.engine.base.kept_programs import keep_programs_with
from jaxsim.frames.system.program_files import ProgramFiles


def cache_programs(path: Any = None, *, min_seconds: float = 0.1) -> Path:
    """Keep programs on disk for the next process, which then neither traces nor compiles them.

    Compiled programs go to JAX's persistent compilation cache. Traced ones go beside them, where flatbuffers is
    installed (`pip install "jaxsim-portfolio[export]"`): those of `js.backtest`, `js.sweep`, `js.replay`, `js.fit` and
    the other functions that compile by themselves, as long as allocator, trigger, objective and all else that a program
    is made of belong to the library. A job with your own functions or classes is traced anew, and so is `js.simulate`
    within your own `jit`. Another version of the library, of JAX or of Python uses other files.

    Call it once, before the first program is compiled; without it, nothing is kept. It sets options of JAX for the
    whole process, also for programs of other libraries. Use a folder that only people whom you trust can write to: its
    programs are run.

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
    keep_programs_with(ProgramFiles(folder).program if find_spec("flatbuffers") else None)
    compilation_cache.reset_cache()  # JAX may have opened a cache already, or decided for none
    return folder


def _default() -> Path:
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]) / "programs"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxsim-portfolio" / "programs"
