"""Free memory, and sizes in words."""

import os
import re
from pathlib import Path
from typing import Any

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def available() -> int | None:
    """Bytes that the process can still use before the machine swaps or the container is killed; None if unknown."""
    limits = [x for x in (_of_machine(), _of_container()) if x is not None]
    return min(limits, default=None)


def _of_machine() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        return int(re.search(r"MemAvailable:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]
    except (OSError, TypeError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _of_container() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        return max(0, limit - int((folder / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):  # no such files, or "max"
        return None


def read_size(value: Any, argument: str) -> int:
    """Bytes from a number of them, or from a text such as "2GB" or "512 MiB".

    Raises TypeError or ValueError naming the argument.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", value.upper())
        if match is None or match[2] not in _UNITS:
            raise ValueError(f"{argument}: expected a size such as '2GB' or '512MiB', got {value!r}")
        value = float(match[1]) * _UNITS[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{argument}: expected bytes, or a size such as '2GB', got {value!r}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{argument}: expected a positive size, got {value!r}")
    return int(value)


def show_size(size: float) -> str:
    """A size in words: 1.2 GB."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:.{0 if size >= 10 * unit else 1}f} {name}"
    return f"{max(1, round(size / 1000))} kB"
