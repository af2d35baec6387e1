"""Work on other processes: a pool on this machine (joblib), or a Dask cluster."""

import os
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

_NAMES = ("processes", "dask")


def check_engine(engine: Any, engines: Iterable[str]) -> None:
    """Raises ValueError unless `engine` is one of `engines`, those of this process, or names other processes."""
    names = [*engines, *_NAMES]
    if not _is_client(engine) and not (isinstance(engine, str) and engine in names):
        raise ValueError(
            f"engine: expected {', '.join(map(repr, names))} or a dask.distributed.Client, got {engine!r}"[:300]
        )


def is_distributed(engine: Any) -> bool:
    """Whether `engine` names other processes, or is a `dask.distributed.Client`."""
    return engine in _NAMES if isinstance(engine, str) else _is_client(engine)


def shares(count: int, engine: Any) -> list[np.ndarray]:
    """Numbers 0 to count - 1 in consecutive parts of one size (the last may be smaller). Each worker gets a few, so
    that no worker waits long at the end."""
    size = max(1, -(-count // (2 * num_workers(engine))))
    return [np.arange(begin, min(begin + size, count)) for begin in range(0, count, size)]


def run_everywhere(function: Callable, common: Any, parts: Sequence[Any], engine: Any) -> Iterator[tuple[int, Any]]:
    """(number, function(common, part)) for each part, in the order in which they finish.

    A worker unpacks `common` once: its functions stay the same objects, so JAX compiles them once. Raises the exception
    of the function, with the traceback on the worker as a note; ImportError naming the pip command without the library.
    """
    run = _on_processes if engine == "processes" else _on_dask
    failures: dict[int, Exception] = {}
    done = set()
    for number, result in run(function, common, parts, engine):
        done.add(number)
        if isinstance(result, _Failure):
            failures[number] = result.error
        elif not failures:
            yield number, result
        # The exception is always that of the first failed part, whichever worker is faster.
        if failures and done.issuperset(range(min(failures))):
            raise failures[min(failures)]


def _on_processes(function: Callable, common: Any, parts: Sequence[Any], engine: Any) -> Iterator[tuple[int, Any]]:
    try:
        import cloudpickle
        import joblib
    except ImportError as error:
        raise ImportError('engine="processes" needs joblib: pip install "jaxsim-portfolio[processes]"') from error
    packed = cloudpickle.dumps((function, common))
    pool: Any = joblib.Parallel(n_jobs=num_workers(engine), return_as="generator_unordered")
    results = pool(joblib.delayed(_run)(packed, number, part) for number, part in enumerate(parts))
    try:
        for result in results:  # noqa: UP028, `yield from` would close them outside
            yield result
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a warning of cancelled tasks, after one has failed
            results.close()


def _on_dask(function: Callable, common: Any, parts: Sequence[Any], engine: Any) -> Iterator[tuple[int, Any]]:
    try:
        import cloudpickle
        import distributed
    except ImportError as error:
        raise ImportError('engine="dask" needs Dask: pip install "jaxsim-portfolio[dask]"') from error
    with ExitStack() as stack:
        if _is_client(engine):
            client = engine
        else:
            size: dict[str, Any] = dict(
                n_workers=num_workers(engine), threads_per_worker=1, dashboard_address=None, silence_logs=50
            )
            client = stack.enter_context(distributed.Client(stack.enter_context(distributed.LocalCluster(**size))))
        packed = client.scatter(cloudpickle.dumps((function, common)), broadcast=True, hash=False)
        futures = [client.submit(_run, packed, number, part, pure=False) for number, part in enumerate(parts)]
        try:
            for future in distributed.as_completed(futures):
                yield future.result()
        finally:
            client.cancel(futures)


@dataclass(frozen=True)
class _Failure:
    """The answer of a worker that has failed."""

    error: Exception


def _run(packed: bytes, number: int, part: Any) -> tuple[int, Any]:
    """Run one part on a worker."""
    function, common = _unpacked(packed)
    try:
        return number, function(common, part)
    except Exception as error:
        # Pickling drops the chain of exceptions, but keeps notes.
        error.add_note("On the worker:\n" + traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}\nOn the worker:\n{traceback.format_exc()}")
        return number, _Failure(error)


@lru_cache(maxsize=2)
def _unpacked(packed: bytes) -> Any:
    return pickle.loads(packed)


def num_workers(engine: Any) -> int:
    """Number of workers that `engine` has, or will have."""
    if _is_client(engine):
        return max(1, len(engine.scheduler_info(n_workers=-1)["workers"]))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_client(engine: Any) -> bool:
    return type(engine).__module__.startswith("distributed.") and hasattr(engine, "submit")
