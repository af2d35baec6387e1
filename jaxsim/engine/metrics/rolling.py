"""From a formula to a metric: checked arguments, NumPy or JAX, the whole path or trailing windows."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxsim.engine.base.arrays import namespace, refuse_masked
from jaxsim.engine.base.fields import Bounds, shown, whole_number
from jaxsim.engine.metrics.nan_statistics import as_float

#: Numbers that a rolling metric computes with at a time; this limits its memory for any window.
CHUNK = 1 << 20
#: Numbers of one series that NumPy computes with at a time. Intermediate results then stay in the cache, and malloc
#: keeps their memory: new memory would cost more time than the arithmetic.
BLOCK = 1 << 16

RATE = Bounds(-1.0, 1.0, is_open=True)
#: What the settings of metrics may be.
SETTINGS = {
    "ann_factor": Bounds(0.0, is_open=True),
    "risk_free": RATE,
    "required_return": RATE,
    "cutoff": Bounds(0.0, 1.0, is_open=True, is_high_open=True),
    "smoothing": Bounds(0.0, is_open=True),
    "levy_alpha": Bounds(0.0, is_open=True),
    "ddof": Bounds(0.0, is_integer=True),
    "nb_trials": Bounds(1.0, is_integer=True),
    "var_sharpe": Bounds(0.0, allows=(np.nan,)),
}


def over_time(formula: Callable) -> Callable:
    """Decorates a formula on arrays: its positional arguments are series [time, ...], its keywords settings.

    NumPy arrays, lists and pandas objects give NumPy; a JAX array or tracer among them gives JAX. A series with fewer
    axes serves all lanes, and no lane depends on another. Zero and NaN raise no warnings.
    """
    return _metric(formula, by_lane=True)


def of_solvent(formula: Callable) -> Callable:
    """As `over_time`, for a ratio: NaN for a path of returns with one of -1 or less, which has lost everything (rules
    7.19), so that no search for the best one finds it."""

    @functools.wraps(formula)
    def solvent(*series: Any, **settings: Any) -> Any:
        xp, out = namespace(*series), formula(*series, **settings)
        return xp.where((series[0] <= -1).any(axis=0), np.nan, out)

    metric = over_time(solvent)
    metric.is_ratio = True  # pyright: ignore[reportFunctionMemberAccess]
    return metric


def over_lanes_too(formula: Callable) -> Callable:
    """As `over_time`, for a formula whose result for a lane depends on the other lanes."""
    return _metric(formula, by_lane=False)


def _metric(formula: Callable, by_lane: bool) -> Callable:
    names = _series_names(formula)

    @functools.wraps(formula)
    def metric(*args: Any, **settings: Any) -> Any:
        series, settings = _checked(names, args, settings)
        if namespace(*series) is not np:
            arrays = {name: x for name, x in settings.items() if isinstance(x, jax.Array)}
            options = tuple(sorted((name, x) for name, x in settings.items() if name not in arrays))
            return _program(formula, series, arrays, options)
        blocks = _blocks(series, settings) if by_lane else [series]
        with np.errstate(all="ignore"):
            parts = [formula(*block, **settings) for block in blocks]
        out = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        return out[()]

    return metric


@functools.partial(jax.jit, static_argnums=(0, 3))
def _program(formula: Callable, series: list, arrays: dict, options: tuple[tuple[str, Any], ...]) -> Any:
    """A formula as one program: outside of `jax.jit`, each of its operations would be a program of its own."""
    with np.errstate(all="ignore"):
        return formula(*series, **arrays, **dict(options))


def _blocks(series: list, settings: dict) -> list[list]:
    """The series, cut into blocks of lanes."""
    is_table = namespace(*series) is np and series[0].ndim == 2
    if not is_table or series[0].size <= BLOCK or any(np.ndim(x) for x in settings.values()):
        return [series]
    num_bars, num_lanes = series[0].shape
    lanes = max(1, BLOCK // num_bars)
    return [[x[:, begin : begin + lanes] for x in series] for begin in range(0, num_lanes, lanes)]


def rolling(metric: Callable) -> Callable:
    """The metric on trailing windows: [time, ...] in, [time, ...] out."""
    names = _series_names(metric)

    def rolled(*args: Any, window: int = 10, minp: int | None = None, **settings: Any) -> Any:
        window = whole_number(window, "window")
        minp = window if minp is None else whole_number(minp, "minp", 0)
        if minp > window:
            raise ValueError(f"minp: expected 0 to window={window}, got {minp}")
        series, settings = _checked(names, args, settings)
        xp, bars = namespace(*series), len(series[0])
        # The first windows are short; they are needed only if minp is small.
        short = min(window - 1, bars)
        heads = [metric(*(x[: i + 1] for x in series), **settings) for i in range(short) if i + 1 >= minp]
        blank = xp.full((short - len(heads), *series[0].shape[1:]), np.nan, series[0].dtype)
        parts = [blank, *(xp.asarray(head)[None] for head in heads)]
        if bars >= window:
            parts.append(_full_windows(metric, series, window, settings))
        return xp.where(_known_in_window(series[0], window) >= minp, xp.concatenate(parts), np.nan)

    about = f"""`{metric.__name__}` on trailing windows of `window` bars, [time, ...] (rules 7.14).

    NaN where a window holds fewer than `minp` returns that are not NaN; None, the default, asks for all of
    them. With a smaller `minp` the first windows are short. Under JAX, compile it (`jax.jit`): a loop runs
    inside.

    Raises ValueError for `window` below 1 or `minp` outside 0 to `window`, and as `{metric.__name__}` does.
    """
    rolled.__name__ = rolled.__qualname__ = f"rolling_{metric.__name__}"
    rolled.__module__, rolled.__doc__ = metric.__module__, about
    rolled.__signature__ = _with_window(inspect.signature(metric))  # pyright: ignore
    return rolled


def _full_windows(metric: Callable, series: list, window: int, settings: dict) -> Any:
    """The metric of every full window: [time - window + 1, ...]."""
    starts = np.arange(len(series[0]) - window + 1)
    batch = int(np.clip(CHUNK // (window * max(1, series[0][0].size)), 1, len(starts)))
    if namespace(*series) is not np:

        def one(start):
            return metric(*(lax.dynamic_slice_in_dim(x, start, window) for x in series), **settings)

        return lax.map(one, starts, batch_size=batch)
    # Windows become lanes: [window, start, ...], a view without a copy.
    views = [np.moveaxis(np.lib.stride_tricks.sliding_window_view(x, window, axis=0), -1, 0) for x in series]
    chunks = [slice(start, start + batch) for start in starts[::batch]]
    return np.concatenate([metric(*(view[:, chunk] for view in views), **settings) for chunk in chunks])


def _known_in_window(x: Any, window: int) -> Any:
    """How many of the last `window` bars are not NaN: int [time, ...]."""
    xp = namespace(x)
    known = xp.cumsum(~xp.isnan(x), axis=0)
    before = xp.concatenate([xp.zeros_like(known[:1]).repeat(min(window, len(x)), axis=0), known[:-window]])
    return known - before


def check_settings(settings: dict[str, Any]) -> None:
    """Raises TypeError or ValueError naming the first setting that makes no sense."""
    for name, value in settings.items():
        kind = SETTINGS.get(name)
        if kind is None or (value is None and name != "ann_factor") or isinstance(value, Tracer):
            continue
        try:
            kind.read(value, name)
        except ValueError:
            if kind is not RATE:
                raise
            raise ValueError(
                f"{name}: expected a rate per year above -1 and at most 1, as 0.03 for 3 %, got {shown(value)}"[:200]
            ) from None


def _series_names(formula: Callable) -> list[str]:
    parameters = inspect.signature(formula).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]


def _with_window(signature: inspect.Signature) -> inspect.Signature:
    def keyword(name: str, default: int | None, kind: Any) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)

    extra = [keyword("window", 10, int), keyword("minp", None, int | None)]
    return signature.replace(parameters=[*signature.parameters.values(), *extra])


def _refuse_other_labels(series: dict[str, Any]) -> None:
    """Raises ValueError naming the first label of a pandas series that is not that of the first one at this place."""
    (first, reference), *others = series.items()
    theirs: Any = getattr(reference, "index", None)
    for name, x in others:
        index: Any = getattr(x, "index", None)
        if not hasattr(index, "equals") or not hasattr(theirs, "equals") or index.equals(theirs):
            continue
        pairs = zip(index, theirs, strict=False)
        strange = next((label for label, other in pairs if label != other), None)
        if strange is not None:
            raise ValueError(f"{name}: it has {strange} where {first} has another label; {name}.reindex({first}.index)")


def _checked(names: list[str], args: tuple, settings: dict) -> tuple[list, dict]:
    """The series, of one namespace, dtype and shape, and the settings in that dtype."""
    named = dict(zip(names, args, strict=False))
    named |= {name: settings[name] for name in names if name in settings}
    settings = {k: v for k, v in settings.items() if k not in names}
    if len(args) > len(names) or len(named) < len(names):
        received = [*named, *("another" for _ in args[len(names) :])]
        raise TypeError(f"expected the series {', '.join(names)} and then keywords, got {', '.join(received)}")
    _refuse_other_labels(named)
    for name, x in named.items():
        refuse_masked(x, name)
    check_settings(settings)
    xp = namespace(*named.values(), *settings.values())
    series = [as_float(x, xp) for x in named.values()]
    for name, x in zip(names, series, strict=True):
        if x.ndim == 0 or len(x) == 0:
            raise ValueError(f"{name}: expected at least one bar along the leading axis, got shape {x.shape}")
        if len(x) != len(series[0]):
            raise ValueError(f"{name}: {len(x)} bars, but {names[0]} has {len(series[0])}")
    ndim = max(x.ndim for x in series)
    series = [x.reshape(x.shape + (1,) * (ndim - x.ndim)) for x in series]
    # A float64 setting must not promote a float32 series.
    dtype = series[0].dtype
    settings = {k: xp.asarray(v, dtype) if hasattr(v, "dtype") else v for k, v in settings.items()}
    return series if len(series) == 1 else list(xp.broadcast_arrays(*series)), settings
