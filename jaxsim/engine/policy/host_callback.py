"""Plain Python functions inside the compiled loop.

At a bar at which at least one lane rebalances, the compiled program calls Python once. It hands over the observations
of all lanes, and a mask of the lanes that ask; Python skips the others. The call stands inside the condition of
`rebalance_if` that all lanes share, so there is no call at other bars.

Of JAX's callbacks, only `buffer_callback` works here. JAX refuses `io_callback` in a condition under `vmap`.
`pure_callback` copies its arguments to the device: for larger arrays it needs a thread of a pool whose threads may all
be waiting for callbacks, and then it never returns; and float64 becomes float32 on threads that have not enabled x64. A
buffer is handed over as it lies in memory. XLA may run a call without side effects twice, or not at all. It can do
neither with this one: its inputs change at every turn of the loop, and its outputs are traded.
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

from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.engine.policy.allocation import Allocation, check_shape, not_weights, refuse_labels
from jaxsim.engine.policy.observation import Observation
from jaxsim.errors import AllocatorError

#: The fields of an observation that are arrays [asset] of one lane and bar.
_ARRAYS = ("weights", "units", "debt", "val_price", "target", "tradable")
_AMOUNTS = ("value", "cash", "free_cash")

Shapes = Mapping[str, tuple[int, ...]]


def call_host(
    function: Callable, obs: Observation, parameters: Mapping[str, Any], aux: Shapes, place: Any = None
) -> Allocation:
    """The answer of a Python function of NumPy arrays: `function(obs, **parameters)`, weights or an `Allocation` with
    weights, skip and aux.

    function: called at once where `obs` holds NumPy arrays; in a compiled program, whenever the program runs and
        `obs.is_asked` is true. It has no derivative: its weights are constants.
    parameters: numbers and arrays; a single number arrives as a float, an int or a bool.
    aux: the shape of each array that the answer records, by name.
    place: number of the function among those of the run, int32, if `take_out` has taken it out of the program.

    With NumPy arrays, raises as `ask_function`. A compiled program raises nothing: the weights are NaN, and the error
    goes to the `HostRun` of the lane, or, without one, to the logger "jaxsim".
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
    """Call the function: weights [asset], skip [asset], and the arrays to record by name.

    Raises AllocatorError from any exception of the function; TypeError or ValueError naming the function if its answer
    is not one number per asset, or if it records other arrays than announced.
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
    refuse_masked((weights, skip, dict(extra)), f"allocator {name}")
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
    """The name of a function in messages."""
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
    """A single number as a Python number, everything else as a new NumPy array."""
    return np.asarray(x).item() if np.ndim(x) == 0 else np.array(x)


class HostFailure(NamedTuple):
    """An error of a function on the host: in which lane, at which bar."""

    lane: int
    bar: int
    error: BaseException


class HostRun:
    """One run of many lanes on the host: a context in which its lanes may ask, and the failures so far. A lane that has
    failed gets NaN. After the first failure all lanes get NaN, unless the run `goes_on`.

    A lane is known by its ticket, int32 [2]: the number of its run and its own number. Runs may overlap, in several
    threads or one inside the other.
    """

    _running: dict[int, "HostRun"] = {}  # noqa: RUF012
    _numbers = itertools.count()

    def __init__(
        self, closes: np.ndarray, shape: tuple[int, int], functions: Sequence[Callable] = (), goes_on: bool = False
    ):
        """closes: [combination or 1, group or 1, time, asset].     shape: number of combinations and of groups.
        functions: the functions that were taken out of the policy.
        goes_on: whether an Exception ends a lane and not the run."""
        self.number = next(self._numbers) % 2**31
        self.closes, self.shape, self.functions = closes, shape, functions
        self.thread = 0  # the thread that runs the program
        self.goes_on = goes_on
        self.failures: dict[int, HostFailure] = {}

    @property
    def failure(self) -> "HostFailure | None":
        """The first failure; None without one."""
        return next(iter(self.failures.values()), None)

    @property
    def is_over(self) -> bool:
        """Whether no lane is asked any more."""
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
    """The part of one lane in an array with all lane axes, some of them of size one."""
    return x[tuple(i if size > 1 else 0 for i, size in zip(at, x.shape, strict=False))]


def _parameters(lane_view: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(x) for name, x in lane_view["parameters"].items()}


def _observation(lane_view: dict[str, Any], closes: np.ndarray, key_kind: Any) -> Observation:
    """The observation of one lane, as the reference engine makes it, out of copies: the buffers do not outlive the
    call."""
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
    """Counts that this thread runs a user's function, and whether it is a thread of XLA."""
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
    """Raises RuntimeError where a compiled simulation inside a host function would wait forever, because all threads
    that could run it wait for host functions."""
    if getattr(_of_thread, "depth", 0) and len(_waiting_threads) >= _num_threads():
        raise RuntimeError(
            "a simulation inside a host function finds no free thread to run on, and would wait forever: use "
            'engine="reference" inside of the function, or run fewer simulations at a time'
        )


def interruptibly(host: HostRun, work: Callable[[], Any]) -> Any:
    """The result of `work()`, which runs the compiled programs of a run. On the main thread they would delay signals,
    and Ctrl-C would wait for many calls to Python; so they run on another thread."""
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
        while not wait([future], timeout=0.1).done:  # a wait without a timeout would delay signals as well
            pass
        return future.result()
    finally:
        beside.shutdown(wait=False)


def _num_threads() -> int:
    """Number of threads in XLA's pool: the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def take_out(policy: Any) -> tuple[Any, list[Callable]]:
    """A policy without its Python functions, and the functions: one program then serves all functions.

    They are the fields `function` of Modules with `calls_host = True`; the field `place` becomes their number.
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
