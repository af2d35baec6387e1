"""Plain Python functions inside the compiled loop.

At a bar on which some lane rebalances, the compiled program hands what all lanes observe over to Python, in one call,
with the mask of those that ask; Python skips the others. The call stands inside the collective condition of
`rebalance_if`, so that there is none at other bars.

Of JAX's callbacks, only `buffer_callback` serves. `io_callback` is refused in a condition under `vmap`. What
`pure_callback` hands over is put on the device anew: larger arrays by a thread of the pool that the waiting callbacks
may occupy to the last one, which then never ends; and float64 becomes float32 wherever the callback runs on a thread
that has not enabled x64. A buffer is handed over as it lies in memory. XLA may run a call without side effects twice,
or never; here it can do neither, since its inputs change with every turn of the loop, and its outputs are traded.
"""

import itertools
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.buffer_callback import buffer_callback

from jaxsim.engine.policy.allocation import Allocation, check_shape, not_weights, refuse_labels
from jaxsim.engine.policy.observation import Observation
from jaxsim.errors import AllocatorError

#: What of an observation are arrays of its lane and bar alone.
_ARRAYS = ("weights", "units", "debt", "val_price", "target", "tradable")
_AMOUNTS = ("value", "cash", "free_cash")

Shapes = Mapping[str, tuple[int, ...]]


def call_host(
    function: Callable, obs: Observation, parameters: Mapping[str, Any], aux: Shapes, place: Any = None
) -> Allocation:
    """What a Python function of NumPy arrays answers: `function(obs, **parameters)`, weights or an `Allocation` with
    weights, skip and aux.

    function: is called at once where `obs` holds NumPy arrays; in a compiled program, whenever that runs and
        `obs.is_asked`. No derivative goes through it: its weights are constants.
    parameters: numbers and arrays; a single number arrives as a float, an int or a bool.
    aux: the shape of each array that the answer records, by name.
    place: of the function among those of the run, int32, if it has been taken out of the program: see `take_out`.

    What is raised at once: as `ask_function`. In a compiled program nothing is: the weights are NaN, and the error
    goes to the `HostRun` by which the lane is known, or else to the log of the name "jaxsim".
    """
    if isinstance(obs.units, np.ndarray):
        return Allocation(*ask_function(function, obs, {name: _plain(x) for name, x in parameters.items()}, aux))
    seen = {name: getattr(obs, name) for name in ("step", "features", *_ARRAYS, *_AMOUNTS, "is_asked")}
    seen |= {"parameters": dict(parameters), "ticket": obs.ticket, "place": place}
    if obs.ticket is None:
        seen["closes"] = obs.closes
    if jax.default_backend() != "cpu" and getattr(jax.config, "jax_default_device", None) is None:
        raise RuntimeError(
            "Python functions are called on the CPU: run them inside of "
            "`with jax.default_device(jax.devices('cpu')[0]):`, or set JAX_PLATFORMS=cpu"
        )
    key_kind = None
    if obs.key is not None:
        seen["key"], key_kind = jax.random.key_data(obs.key), jax.random.key_impl(obs.key)

    def answer(_context: Any, out: Any, seen: Any) -> None:
        out, seen = jax.tree.map(np.asarray, (out, seen))
        _answer_lanes(function, aux, key_kind, out, seen)

    dtype = obs.units.dtype
    weights = jax.ShapeDtypeStruct(obs.units.shape, dtype)
    skip = jax.ShapeDtypeStruct(obs.units.shape, bool)
    results = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in aux.items()}
    ask = buffer_callback(answer, (weights, skip, results), vmap_method="expand_dims")
    return Allocation(*ask(jax.tree.map(lambda x: lax.stop_gradient(jnp.asarray(x)), seen)))


def ask_function(
    function: Callable, obs: Observation, parameters: Mapping[str, Any], aux: Shapes
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Ask now: weights, skip and what is to be recorded.

    Raises AllocatorError from what the function raises; TypeError or ValueError naming the function if it does not
    answer with one number per asset, or with other arrays than it was said to record.
    """
    name = function_name(function)
    try:
        answer = function(obs, **parameters)
    except Exception as error:
        raise AllocatorError(f"allocator {name} raised {type(error).__name__}: {error}", int(obs.step)) from error
    weights, skip, extra = answer, None, {}
    if isinstance(answer, Allocation):
        weights, skip, extra = answer.weights, answer.skip, answer.aux
        for field in ("size_type", "direction", "call_seq"):
            if getattr(answer, field) is not None:
                raise TypeError(
                    f"allocator {name} returned a {field}; on the host, {field} is an argument of the backtest"
                )
    refuse_labels(weights, name)
    weights = _numbers(weights, lambda: not_weights(answer, name))
    skip = np.zeros(obs.num_assets, bool) if skip is None else np.asarray(skip, bool)
    check_shape("weights", weights.shape, obs.num_assets, name)
    check_shape("skip", skip.shape, obs.num_assets, name)
    return weights, skip, _recorded(extra, aux, name)


def _recorded(extra: Mapping[str, Any], aux: Shapes, name: str) -> dict[str, np.ndarray]:
    if set(extra) != set(aux):
        raise ValueError(
            f"allocator {name} returned aux {sorted(extra)}; expected {sorted(aux)}: what is to be recorded "
            "is said beforehand, as in al.host(fn, aux={'risk': ()})"
        )
    recorded = {}
    for key, shape in aux.items():
        array = _numbers(extra[key], lambda key=key: f"allocator {name} returned aux {key!r} that is no numbers")
        if array.shape != shape:
            raise ValueError(
                f"allocator {name} returned aux {key!r} of shape {array.shape}; expected {shape}, as al.host was told"
            )
        recorded[key] = array
    return recorded


def function_name(function: Any) -> str:
    """How messages call a function."""
    inner = getattr(function, "func", function)  # of a functools.partial
    return getattr(inner, "__qualname__", None) or type(inner).__qualname__


def _numbers(value: Any, complaint: Callable[[], str]) -> np.ndarray:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"of dtype {array.dtype}")
        if array.dtype.kind == "O":  # where NumPy would take None for NaN
            array = np.array([float(x) for x in array.ravel()]).reshape(array.shape)
        return array.astype(float)
    except (TypeError, ValueError) as error:
        raise TypeError(complaint()) from error


def _plain(x: Any) -> Any:
    """A single number as Python's, all else as a NumPy array of its own."""
    return np.asarray(x).item() if np.ndim(x) == 0 else np.array(x)


class HostFailure(NamedTuple):
    """What ended a run on the host: in which lane, at which bar."""

    lane: int
    bar: int
    error: BaseException


class HostRun:
    """One run of many lanes as the host knows it: a context in which its lanes may ask, and what went wrong. A lane for
    which something did is answered NaN; from the first time on so is every lane, unless the run `goes_on`.

    Lanes show a ticket, int32 [2]: the number of their run and their own. Runs may overlap, in several threads or one
    inside the other.
    """

    _running: dict[int, "HostRun"] = {}  # noqa: RUF012
    _numbers = itertools.count()

    def __init__(
        self, closes: np.ndarray, shape: tuple[int, int], functions: Sequence[Callable] = (), goes_on: bool = False
    ):
        """closes: [combination or 1, group or 1, time, asset].     shape: number of combinations and of groups.
        functions: those that have been taken out of the policy.
        goes_on: whether an Exception ends a lane and not the run."""
        self.number = next(self._numbers) % 2**31
        self.closes, self.shape, self.functions = closes, shape, functions
        self.thread = 0  # that runs the program
        self.goes_on = goes_on
        self.failures: dict[int, HostFailure] = {}

    @property
    def failure(self) -> "HostFailure | None":
        """The first that there was."""
        return next(iter(self.failures.values()), None)

    @property
    def is_over(self) -> bool:
        """Whether nobody is asked any more."""
        ends = (not self.goes_on or not isinstance(x.error, Exception) for x in list(self.failures.values()))
        return any(ends)

    def __enter__(self) -> "HostRun":
        self._running[self.number] = self
        return self

    def __exit__(self, *_: Any) -> None:
        del self._running[self.number]

    @classmethod
    def of(cls, ticket: np.ndarray) -> "HostRun | None":
        """The run of a ticket; None if it is over, as after an interrupt."""
        return cls._running.get(int(ticket[0]))

    def tickets(self) -> np.ndarray:
        """[combination, group, 2]"""
        lanes = np.arange(self.shape[0] * self.shape[1], dtype=np.int32)
        return np.stack([np.full_like(lanes, self.number), lanes], axis=-1).reshape(*self.shape, 2)

    def closes_of(self, lane: int) -> np.ndarray:
        """Read-only [time, asset]."""
        combination, group = divmod(lane, self.shape[1])
        num_combinations, num_groups = self.closes.shape[:2]
        closes = self.closes[min(combination, num_combinations - 1), min(group, num_groups - 1)].view()
        closes.flags.writeable = False
        return closes


def _answer_lanes(function: Callable, aux: Shapes, key_kind: Any, out: Any, seen: dict[str, Any]) -> None:
    """Fill in the answers [lane axes..., asset] to the lanes that ask, and NaN for all others. Axes that an observed
    array does not have are of size one."""
    weights, skip, recorded = out
    weights[...], skip[...] = np.nan, False
    for array in recorded.values():
        array[...] = np.nan
    tickets, places, closes = seen.pop("ticket"), seen.pop("place"), seen.pop("closes", None)
    asked = np.broadcast_to(seen.pop("is_asked"), weights.shape[:-1])
    done: dict[Any, tuple] = {}
    for at in map(tuple, np.argwhere(asked).tolist()):
        ticket = None if tickets is None else _row(tickets, at)
        run = None if ticket is None else HostRun.of(ticket)
        if ticket is not None and (run is None or run.is_over):
            return
        lane: Any = at if ticket is None else int(ticket[1])
        if lane in done:  # a single lane runs beside a copy of itself
            weights[at], skip[at] = weights[done[lane]], skip[done[lane]]
            continue
        done[lane] = at
        bar = int(_row(seen["step"], at))
        try:
            own = np.array(_row(closes, at)) if run is None else run.closes_of(lane)  # buffers do not outlive the call
            lane_view = jax.tree.map(lambda x, at=at: _row(x, at), seen)
            if run is not None and places is not None:
                function = run.functions[int(_row(places, at))]
            with _counted_as_waiting(run):
                obs = _observation(lane_view, own, key_kind)
                weights[at], skip[at], arrays = ask_function(function, obs, _parameters(lane_view), aux)
            for name, array in arrays.items():
                recorded[name][at] = array
        except BaseException as error:
            if run is not None:
                run.failures.setdefault(lane, HostFailure(lane, bar, error))
            elif isinstance(error, Exception):
                logging.getLogger("jaxsim").exception("at bar %d", bar)
            else:
                raise


def _row(x: np.ndarray, at: tuple[int, ...]) -> Any:
    """What a lane sees of an array with all lane axes, some of them of size one."""
    return x[tuple(i if size > 1 else 0 for i, size in zip(at, x.shape, strict=False))]


def _parameters(lane_view: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(x) for name, x in lane_view["parameters"].items()}


def _observation(lane_view: dict[str, Any], closes: np.ndarray, key_kind: Any) -> Observation:
    """One lane's observation, as the reference engine makes it; of copies, for the buffers do not outlive the call."""
    known: dict[str, Any] = {name: np.array(lane_view[name]) for name in _ARRAYS}
    known |= {name: float(lane_view[name]) for name in _AMOUNTS}
    known |= {"step": int(lane_view["step"]), "features": jax.tree.map(lambda x: x.copy(), lane_view["features"])}
    data: Any = lane_view.get("key")
    known["key"] = None if key_kind is None else jax.random.wrap_key_data(data.copy(), impl=key_kind)
    return Observation(closes=closes, **known)


_of_thread = threading.local()
_waiting_threads: list[None] = []  # one entry for each of XLA's threads that waits for Python


@contextmanager
def _counted_as_waiting(run: HostRun | None):
    """Notes that this thread runs a user's function, and whether it is one of XLA's."""
    of_pool = run is None or run.thread != threading.get_ident()
    _of_thread.depth = getattr(_of_thread, "depth", 0) + 1
    if of_pool:
        _waiting_threads.append(None)
    try:
        yield
    finally:
        _of_thread.depth -= 1
        if of_pool:
            _waiting_threads.pop()


def refuse_deadlock() -> None:
    """Raises RuntimeError where a compiled simulation inside a host function would wait forever: all threads that could
    run it wait for such functions themselves."""
    if getattr(_of_thread, "depth", 0) and len(_waiting_threads) >= _num_threads():
        raise RuntimeError(
            "a simulation inside a host function finds no free thread to run on, and would wait forever: use "
            'engine="reference" inside of the function, or run fewer simulations at a time'
        )


def interruptibly(host: HostRun, work: Callable[[], Any]) -> Any:
    """What `work()` returns, which runs the compiled programs of a run. On the main thread they would keep signals
    waiting, and Ctrl-C have to wait for a page of calls to Python: they run beside it."""
    refuse_deadlock()

    def begin() -> Any:
        host.thread = threading.get_ident()
        with jax.enable_x64(True):
            return work()

    if threading.current_thread() is not threading.main_thread():
        return begin()
    beside = ThreadPoolExecutor(1)
    try:
        future = beside.submit(begin)
        while not wait([future], timeout=0.1).done:  # an endless wait would keep some signals waiting as well
            pass
        return future.result()
    finally:
        beside.shutdown(wait=False)


def _num_threads() -> int:
    """Of XLA's pool: as many as there are CPUs to run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def take_out(policy: Any) -> tuple[Any, list[Callable]]:
    """A policy without the Python functions in it, and the functions: so that a program serves any function.

    They are the fields `function` of Modules that say `calls_host = True`, whose field `place` becomes their number.
    """
    functions: list[Callable] = []

    def without(x: Any) -> Any:
        if not _says_so(x):
            return x
        functions.append(x.function)
        return replace(x, function=_taken_out, place=np.int32(len(functions) - 1))

    return jax.tree.map(without, policy, is_leaf=_says_so), functions


def _taken_out(*_: Any, **__: Any) -> Any:
    raise RuntimeError("this function is called by its place in a run")


def calls_python(policy: Any) -> bool:
    """Whether there is any Python function in a policy."""
    return any(_says_so(x) for x in jax.tree.leaves(policy, is_leaf=_says_so))


def _says_so(x: Any) -> bool:
    return getattr(x, "calls_host", False) is True
