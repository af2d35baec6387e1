"""A simulator exported ahead of time, as bytes: for a service that has neither the policy's code nor time to trace."""

import io
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import equinox as eqx
import jax
import jax.export
import numpy as np

from jaxsim.engine.bar.simulation import Save, Simulation
from jaxsim.engine.base.fields import whole_number
from jaxsim.engine.base.random import as_key
from jaxsim.engine.policy.host_callback import take_out
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.simulate import simulate
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market
from jaxsim.engine.trading.status import LaneStatus

_FORMAT = 1
_STATUS = [field.name for field in fields(LaneStatus)]


class Program:
    """A simulator of one market shape and one policy, made by `js.export`.

    Its prices, and every number of the policy, the costs and the account, are arguments: `program(market, numbers)`.
    """

    def __init__(self, exported: Any, defaults: dict[str, np.ndarray], shapes: dict[str, Any], lanes: int | None):
        self._exported, self._defaults, self._shapes, self._lanes = exported, defaults, shapes, lanes

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """What may be given, by name, as "policy.trigger.threshold" or "costs.fees", with the values exported; with
        lanes, those are in front."""
        return {name: value.copy() for name, value in self._defaults.items()}

    @property
    def lanes(self) -> int | None:
        """How many run side by side; None for one alone."""
        return self._lanes

    @property
    def platforms(self) -> tuple[str, ...]:
        """What it has been compiled for, as "cpu" or "cuda"."""
        return tuple(self._exported.platforms)

    def __call__(self, market: Market, numbers: Mapping[str, Any] | None = None, key: Any = 0) -> Simulation:
        """Simulate.

        market: of the shape that was exported, or a market of its dtype.
        numbers: what is to differ from `numbers`, by name; with lanes, of one value for all or of one for each.
        key: random key or int, one for all lanes.

        Returns the `Simulation` of one lane, or with lanes arrays that have them in front; without events and aux.
        Raises KeyError for a name that there is not, ValueError for another shape.
        """
        unknown = sorted(set(numbers or {}) - set(self._defaults))
        if unknown:
            raise KeyError(f"numbers: there is no {unknown[0]!r}; there are {sorted(self._defaults)}")
        values = dict(self._defaults)
        for name, value in (numbers or {}).items():
            values[name] = _broadcast(np.asarray(value), values[name], name)
        prices = _prices(market)
        for name, shape in self._shapes.items():
            found = None if name not in prices else np.shape(prices[name])
            if found != tuple(shape):
                raise ValueError(f"market: {name} has shape {found}; the program was exported for {tuple(shape)}")
        with jax.enable_x64(self._is_double):
            out = self._exported.call(prices, values, np.asarray(jax.random.key_data(as_key(key))))
        status = _made(LaneStatus, {name: out.pop(f"status.{name}") for name in _STATUS})
        return _made(Simulation, out | {"status": status, "events": None, "aux": None})

    @property
    def _is_double(self) -> bool:
        return any(aval.dtype == np.float64 for aval in self._exported.in_avals)

    def to_bytes(self) -> bytes:
        """For a file or a service. Raises ImportError naming the pip command without flatbuffers."""
        _require_flatbuffers()
        parts: dict[str, Any] = {f"number:{name}": value for name, value in self._defaults.items()}
        parts |= {f"shape:{name}": np.asarray(shape, np.int64) for name, shape in self._shapes.items()}
        parts["program"] = np.frombuffer(self._exported.serialize(), np.uint8)
        parts["lanes"] = np.int64(-1 if self._lanes is None else self._lanes)
        parts["format"] = np.int64(_FORMAT)
        buffer = io.BytesIO()
        np.savez(buffer, **parts)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Program":
        """What `to_bytes` wrote. Raises ValueError for anything else, ImportError as `to_bytes`."""
        _require_flatbuffers()
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                parts = dict(file)
            if parts.pop("format") != _FORMAT:
                raise ValueError("of another version")
            exported = jax.export.deserialize(bytearray(parts.pop("program").tobytes()))
        except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
            raise ValueError(f"data: no program that js.export has made: {error}") from error
        lanes = int(parts.pop("lanes"))
        by_kind: dict[str, dict[str, Any]] = {"number": {}, "shape": {}}
        for name, value in parts.items():
            kind, _, rest = name.partition(":")
            by_kind[kind][rest] = value if kind == "number" else tuple(value.tolist())
        return cls(exported, by_kind["number"], by_kind["shape"], None if lanes < 0 else lanes)


def export(
    market: Market,
    policy: Policy,
    *,
    costs: Costs | None = None,
    account: Account | None = None,
    units: bool = False,
    lanes: int | None = None,
    platforms: tuple[str, ...] | None = None,
) -> Program:
    """Compile `js.simulate` ahead of time for markets of one shape.

    market: of that shape, [time, asset]; its prices do not matter, only which fields it has.
    policy, costs, account: their numbers become arguments with these values as defaults; all else becomes code.
    units: whether the units after each bar are kept.
    lanes: how many combinations of numbers run side by side; None: one.
    platforms: to compile for, as ("cpu", "cuda"); default this machine's.

    Raises TypeError or ValueError as `simulate`, and ValueError for a policy that calls Python functions.
    """
    if take_out(policy)[1]:
        raise ValueError("policy: it calls Python functions, which cannot be exported")
    lanes = None if lanes is None else whole_number(lanes, "lanes")
    if not isinstance(market, Market):
        raise TypeError(f"market: expected a Market, got {type(market).__name__}; see Market.from_frames")
    costs, account = Costs() if costs is None else costs, Account() if account is None else account
    parts = {"policy": policy, "costs": costs, "account": account}
    arrays, code = eqx.partition(parts, _is_array)
    leaves, structure = jax.tree_util.tree_flatten_with_path(arrays)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    dtype = np.dtype(market.dtype)
    defaults = {name: _in_dtype(np.asarray(x), dtype) for name, (_, x) in zip(names, leaves, strict=True)}
    if lanes is not None:
        defaults = {name: np.broadcast_to(x, (lanes, *x.shape)).copy() for name, x in defaults.items()}
    prices, market_structure, save = _prices(market), jax.tree.structure(market), Save(units=units)

    def simulate_arrays(given_prices: dict[str, Any], numbers: dict[str, Any], key: Any) -> dict[str, Any]:
        whole = jax.tree.unflatten(market_structure, [given_prices[name] for name in prices])

        def one_lane(numbers: dict[str, Any]) -> dict[str, Any]:
            given = jax.tree.unflatten(structure, [numbers[name] for name in names])
            here: Any = eqx.combine(given, code)
            sim = simulate(whole, **here, key=jax.random.wrap_key_data(key), save=save)
            kept = {name: getattr(sim, name) for name in _PATHS}
            return kept | {f"status.{name}": x for name, x in vars(sim.status).items()}

        return one_lane(numbers) if lanes is None else jax.vmap(one_lane)(numbers)

    with jax.enable_x64(dtype == np.float64):
        key = np.asarray(jax.random.key_data(jax.random.key(0)))
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), (prices, defaults, key))
        exported = jax.export.export(jax.jit(simulate_arrays), platforms=platforms)(*shapes)
    return Program(exported, defaults, {name: np.shape(x) for name, x in prices.items()}, lanes)


#: The fields of a `Simulation` that an exported program hands out.
_PATHS = ("value", "returns", "cash", "rebalanced", "fees", "traded", "turnover", "units")


def _require_flatbuffers() -> None:
    try:
        import flatbuffers  # type: ignore[import-not-found]  # noqa: F401  that JAX writes programs with
    except ImportError as error:
        raise ImportError('to_bytes, from_bytes: need flatbuffers: pip install "jaxsim-portfolio[export]"') from error


def _prices(market: Market) -> dict[str, Any]:
    """The arrays of a market by name."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(market)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}


def _made(kind: Any, parts: dict[str, Any]) -> Any:
    """A module of arrays that may have lanes in front, which its constructor would not take."""
    made = object.__new__(kind)
    for name, value in parts.items():
        object.__setattr__(made, name, value)
    return made


def _is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic | jax.Array)


def _in_dtype(x: np.ndarray, dtype: Any) -> np.ndarray:
    return x.astype(dtype) if np.issubdtype(x.dtype, np.inexact) else x


def _broadcast(value: np.ndarray, like: np.ndarray, name: str) -> np.ndarray:
    try:
        extra = like.ndim - value.ndim
        if value.ndim == 1 and like.ndim > 1 and len(value) == len(like) != like.shape[-1]:
            value = value.reshape(-1, *(1,) * extra)  # one for each lane
        return np.broadcast_to(value.astype(like.dtype), like.shape)
    except ValueError:
        raise ValueError(f"numbers: {name} has shape {value.shape}; expected {like.shape}") from None
