"""The values that fields of Modules may hold, for the core and for the pandas face."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, TypeGuard

import equinox as eqx
import numpy as np
from jax.core import Tracer

from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.engine.base.enums import CallSeq, Direction, SizeType
from jaxsim.engine.base.numerics import Number, as_number


@dataclass(frozen=True)
class Bounds:
    """Finite numbers from `low` to `high`.

    is_open: whether `low` itself is excluded.       is_high_open: whether `high` is.
    is_integer: whether only whole numbers are allowed.             allows: further values, NaN or infinities.
    is_share: whether a number above 1 is more likely a percentage by mistake, of which a warning says so.
    """

    low: float = -np.inf
    high: float = np.inf
    is_open: bool = False
    is_high_open: bool = False
    is_integer: bool = False
    allows: tuple[float, ...] = ()
    is_share: bool = False

    def read(self, value: Any, argument: str) -> np.ndarray:
        """A float64 array. Raises TypeError for values that are not numeric, ValueError for the first one out of
        bounds; the message begins with the name of the argument."""
        refuse_masked(value, argument)
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError(f"{argument}: expected numbers, got {type(value).__name__} {shown(value)}"[:200])
        array = array.astype(np.float64)
        self.check(array, argument)
        return array

    def check(self, values: np.ndarray, argument: str) -> None:
        """Raises ValueError naming the argument and the first bad value."""
        values = np.asarray(values, float)
        bad = ~np.isfinite(values)
        bad |= (values <= self.low) if self.is_open else (values < self.low)
        bad |= (values >= self.high) if self.is_high_open else (values > self.high)
        if self.is_integer:
            bad |= values != np.round(values)
        for also in self.allows:
            bad &= ~(np.isnan(values) if np.isnan(also) else values == also)
        if bad.any():
            raise ValueError(f"{argument}: expected {self._text}, got {values[bad].ravel()[0]:g}")

    @property
    def _text(self) -> str:
        text = "a whole number" if self.is_integer else "a finite number"
        limits = []
        if self.low != -np.inf:
            limits.append(f"{'>' if self.is_open else '>='} {self.low:g}")
        if self.high != np.inf:
            limits.append(f"{'<' if self.is_high_open else '<='} {self.high:g}")
        others = ["NaN" if np.isnan(x) else f"{x:g}" for x in self.allows]
        return " or ".join([" ".join([text, " and ".join(limits)]).strip(), *others])


@dataclass(frozen=True)
class Flags:
    """True or False."""

    def read(self, value: Any, argument: str) -> np.ndarray:
        """A bool array. Raises TypeError naming the argument for anything else than booleans."""
        refuse_masked(value, argument)
        array = np.asarray(value)
        if array.dtype == object and array.size and all(isinstance(x, bool | np.bool_) for x in array.ravel()):
            array = array.astype(bool)
        self.check(array, argument)
        return array

    def check(self, values: np.ndarray, argument: str) -> None:
        if np.asarray(values).dtype != bool:
            raise TypeError(f"{argument}: expected True or False, got {shown(values)}"[:200])


@dataclass(frozen=True)
class Codes:
    """Members of an enum, also by number or by name (`SizeType.TARGET_PERCENT`, 5, "TargetPercent").

    aliases: further names of some members.
    """

    enum: type[IntEnum]
    aliases: Mapping[str, IntEnum] | None = None

    def read(self, value: Any, argument: str) -> np.ndarray:
        """An int32 array. Raises ValueError naming the argument and the known names."""
        if isinstance(value, IntEnum) and not isinstance(value, self.enum):
            raise ValueError(f"{argument}: expected one of {self._names}, got {value!s}")
        refuse_masked(value, argument)
        array = np.asarray(value)
        if array.dtype.kind in "iu" or (array.dtype.kind == "f" and (array == np.round(array)).all()):
            codes = array.astype(np.int32)
        else:
            codes = np.array([self._code(x, argument) for x in array.ravel()], np.int32).reshape(array.shape)
        self.check(codes, argument)
        return codes

    def _code(self, value: Any, argument: str) -> int:
        if isinstance(value, str):
            names = {_plain(member.name): member for member in self.enum} | dict(self.aliases or {})
            if _plain(value) in names:
                return int(names[_plain(value)])
        elif not isinstance(value, bool | np.bool_) and isinstance(value, int | np.integer):
            return int(value)
        raise ValueError(f"{argument}: expected one of {self._names}, got {shown(value)}")

    def check(self, values: np.ndarray, argument: str) -> None:
        unknown = ~np.isin(values, [int(member) for member in self.enum])
        if unknown.any():
            raise ValueError(f"{argument}: expected one of {self._names}, got {np.asarray(values)[unknown].ravel()[0]}")

    @property
    def _names(self) -> str:
        return ", ".join(f"{member.name} ({int(member)})" for member in self.enum)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a Python or a NumPy integer. Booleans are not, nor are NumPy's durations."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


def whole_number(value: Any, name: str, least: int = 1) -> int:
    """The value as a Python int. Raises ValueError naming the argument for what is no whole number, or too small."""
    if not is_whole(value) or value < least:
        raise ValueError(f"{name}: expected a whole number >= {least}, got {shown(value)}"[:200])
    return int(value)


def shown(value: Any) -> str:
    """A value in one line, as a user would write it."""
    plain = value.item() if isinstance(value, np.generic | np.ndarray) and value.ndim == 0 else value
    return " ".join(repr(plain).split())


def _plain(name: str) -> str:
    """The name of a member, however it is written: target_percent, TargetPercent, TARGETPERCENT."""
    return name.replace("_", "").replace(" ", "").lower()


Kind = Bounds | Flags | Codes

#: Prices and cash up to this: units, values and their squares stay finite. Up to dust they are zero (rules 1.4).
LARGEST, LARGEST_FLOAT32, DUST = 1e100, 1e12, 1e-12

ANY = Bounds()
AMOUNT = Bounds(-LARGEST, LARGEST)
SIZE = Bounds(-LARGEST, LARGEST, allows=(np.nan, np.inf, -np.inf))
NUMBERS = Bounds(allows=(np.nan, np.inf, -np.inf))
THRESHOLD = Bounds(0.0, allows=(np.inf,), is_share=True)
SHARE = Bounds(0.0, is_share=True)
BARS_PER_YEAR = Bounds(0.0, is_open=True)
TEMPERATURE = Bounds(0.0, is_open=True)
FEES = Bounds(-1.0, 100.0, is_open=True)
SLIPPAGE = Bounds(0.0, 1.0, is_high_open=True)
MIN_SIZE = Bounds(0.0)
FEE = Bounds(0.0, LARGEST)
MAX_FEE = Bounds(0.0, allows=(np.inf,), is_share=True)
MAX_SIZE = Bounds(0.0, is_open=True, allows=(np.inf,))
GRANULARITY = Bounds(0.0, is_open=True, allows=(np.nan,))
PROBABILITY = Bounds(0.0, 1.0)
GAIN = Bounds(0.0, is_open=True)
LOSS = Bounds(0.0, is_open=True, is_share=True)
PRICE = Bounds(DUST, LARGEST, is_open=True, allows=(np.nan, np.inf, -np.inf))
CASH = Bounds(DUST, LARGEST, is_open=True)
BALANCE = Bounds(0.0, LARGEST)
COST = Bounds(DUST, LARGEST, is_open=True, allows=(np.nan,))
WEIGHT = Bounds(allows=(np.nan,))
BARS = Bounds(0.0, is_integer=True)
BARS_FROM_ONE = Bounds(1.0, is_integer=True)
FLAG = Flags()
SIZE_TYPE = Codes(SizeType)
DIRECTION = Codes(Direction)
CALL_SEQ = Codes(CallSeq, {"asgiven": CallSeq.DEFAULT, "byvalue": CallSeq.AUTO})


def bounded(name: str, kind: Kind, *, by_bar_and_asset: bool = False, by_asset: bool = False, **options: Any) -> Any:
    """A field of a Module for values of a kind, which `check_fields` checks. A default of None means off; programs are
    then compiled without the feature.

    by_bar_and_asset: the number may be one per asset [asset], or [time or 1, asset or 1].
    by_asset: the value is one number per asset, [asset].
    """

    def convert(value: Number) -> Number:
        if value is None and options.get("default", 0) is None:
            return None
        refuse_masked(value, name)
        if isinstance(kind, Bounds):
            if isinstance(value, bool | np.bool_):
                raise TypeError(f"{name}: expected a number, got {value!r}")
            if kind.is_share:
                _warn_of_percent(value, name)
            return as_number(value)
        return kind.read(value, name) if isinstance(value, bool | int | str | list | tuple | np.ndarray) else value

    metadata = {"kind": kind, "by_bar_and_asset": by_bar_and_asset, "by_asset": by_asset}
    return eqx.field(converter=convert, metadata=metadata, **options)


def _warn_of_percent(value: Any, name: str) -> None:
    """Warn of a fraction above 1, of an array or an index too."""
    if getattr(value, "nlevels", 1) > 1:
        value = value.get_level_values(name) if name in value.names else ()
    if isinstance(value, Tracer | str) or not np.size(value):
        return
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iuf":
        return
    above = numbers[(numbers > 1) & np.isfinite(numbers)]
    if above.size:
        most = float(above.max())
        warnings.warn(f"{name}: {most:g} is a fraction, {100 * most:g} %; 5 % is 0.05", stacklevel=5)


def check_fields(module: Any, num_bars: int, num_assets: int) -> None:
    """Check the bounded fields of a Module and of the Modules in it: shapes always, values where they are concrete.

    Raises ValueError or TypeError naming the field.
    """
    for field in fields(module):
        value = getattr(module, field.name)
        if isinstance(value, eqx.Module):
            check_fields(value, num_bars, num_assets)
        elif "kind" in field.metadata and not (value is None and field.default is None):
            _check_shape(value, field, num_bars, num_assets)
            if not isinstance(value, Tracer):
                field.metadata["kind"].check(np.asarray(value), field.name)


def _check_shape(value: Any, field: Any, num_bars: int, num_assets: int) -> None:
    if not eqx.is_array(value):
        raise TypeError(
            f"{field.name}: expected a number or an array, got {type(value).__name__}; js.backtest sweeps an index, "
            "in the core jax.vmap does"
        )
    shape = value.shape
    if field.metadata["by_asset"]:
        if shape != (num_assets,):
            raise ValueError(f"{field.name}: expected one number per asset, ({num_assets},), got shape {shape}")
        return
    if shape == () or (field.metadata["by_bar_and_asset"] and _broadcasts(shape, num_bars, num_assets)):
        return
    expected = f"[time, asset] = ({num_bars}, {num_assets})" if field.metadata["by_bar_and_asset"] else "one number"
    raise ValueError(f"{field.name}: shape {shape} does not broadcast to {expected}")


def _broadcasts(shape: tuple[int, ...], num_bars: int, num_assets: int) -> bool:
    if len(shape) == 1:
        return shape[0] in (1, num_assets)
    return len(shape) == 2 and shape[0] in (1, num_bars) and shape[1] in (1, num_assets)
