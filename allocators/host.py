"""Plain Python functions of NumPy arrays as allocators: SciPy, scikit-learn, cvxpy, skfolio, PyPortfolioOpt."""

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, ClassVar, final

import equinox as eqx
import numpy as np
import pandas as pd

import jaxsim as js


@final
class Host(eqx.Module):
    """An allocator that calls a Python function for the lanes and bars that rebalance; made by `host`.

    function: takes an observation with NumPy arrays and the parameters by name; part of the program, not of the data.
    parameters: numbers and arrays, by name; named indexes are swept.
    aux: names and shapes of the recorded arrays in its answers.
    place: number of the function in a run that keeps functions out of the program.
    """

    function: Callable = eqx.field(static=True)
    parameters: dict[str, Any]
    aux: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True, default=())
    place: Any = None

    calls_host: ClassVar[bool] = True

    def __call__(self, obs: js.Observation) -> js.Allocation:
        return js.call_host(self.function, obs, self.parameters, dict(self.aux), self.place)


def host(function: Callable, /, *, aux: Mapping[str, int | tuple[int, ...]] | None = None, **parameters: Any) -> Host:
    """An allocator that calls `function(obs, **parameters)`, any Python function of NumPy arrays, in both engines.

    function: called once for each lane and bar that rebalances, lanes one after the other. It gets the `Observation`
        of the reference engine, with NumPy arrays and plain floats; `obs.rng()` is a seeded NumPy generator. It returns
        weights [asset], or a `js.Allocation` of weights, skip and aux. It must depend on its arguments alone; a state
        would mix all lanes.
    aux: names and shapes of the arrays in the answers' `aux`, as `{"risk": ()}`.
    parameters: numbers, arrays, Series by asset, or named indexes to sweep; a single number arrives as an int or float.

    In a backtest another function, or another value of a parameter, compiles nothing. It has no derivative: to
    `jax.grad`, its weights are constants. It is called on the CPU.

    Raises TypeError if the function is not callable or a parameter is not numeric. A backtest raises js.AllocatorError
    for an exception in the function, and TypeError, ValueError or js.AllocationError for an answer that cannot be
    traded; all name lane and bar. In `js.simulate` the weights are NaN instead, `Simulation.status` tells the bar, and
    the traceback goes to the log "jaxsim".
    """
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"function: expected a Python function of an observation, got {function!r}")
    shapes = {name: (size,) if isinstance(size, int) else tuple(size) for name, size in (aux or {}).items()}
    read = {name: _parameter(value, name) for name, value in parameters.items()}
    return Host(_by_identity(function), read, tuple(shapes.items()))


def _parameter(value: Any, name: str) -> Any:
    is_zipped = hasattr(value, "partners")
    if is_zipped or isinstance(value, pd.Index | pd.Series | pd.DataFrame) or eqx.is_array(value):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name}: expected numbers, an array or a named index to sweep, got {value!r}; bind anything else with "
            "functools.partial(fn, ...)"
        )
    return array


class _ByIdentity:
    """Wraps a callable so that it is compared by identity: if two callables compare equal, a program compiled for one
    must still not serve the other."""

    def __init__(self, function: Callable):
        self.function = function
        self.__qualname__ = type(function).__qualname__

    def __call__(self, *arguments: Any, **parameters: Any) -> Any:
        return self.function(*arguments, **parameters)


def _by_identity(function: Callable) -> Callable:
    is_by_identity = isinstance(function, MethodType) or type(function).__eq__ is object.__eq__
    return function if is_by_identity else _ByIdentity(function)
