"""Which numbers a field may hold, said once for the core and for the pandas face."""

from dataclasses import dataclass, fields
from typing import Any

import equinox as eqx
import numpy as np
from jax.core import Tracer

from jaxsim.engine.numerics import Number, as_number


@dataclass(frozen=True)
class Bounds:
    """Finite numbers from `low` on.

    is_open: `low` itself is not allowed.       is_integer: only whole numbers.
    """

    low: float = -np.inf
    is_open: bool = False
    is_integer: bool = False

    def check(self, values: np.ndarray, argument: str) -> None:
        """Raises ValueError naming the argument and the first bad value."""
        values = np.asarray(values, float)
        bad = ~np.isfinite(values) | ((values <= self.low) if self.is_open else (values < self.low))
        if self.is_integer:
            bad |= values != np.round(values)
        if bad.any():
            kind = "a whole number" if self.is_integer else "a finite number"
            limit = "" if self.low == -np.inf else f" {'>' if self.is_open else '>='} {self.low:g}"
            raise ValueError(f"{argument}: expected {kind}{limit}, got {values[bad].ravel()[0]:g}")


ANY = Bounds()
THRESHOLD = Bounds(0.0)
FEES = Bounds(-1.0, is_open=True)
CASH = Bounds(0.0, is_open=True)
BARS = Bounds(0.0, is_integer=True)


def bounded(name: str, bounds: Bounds, *, by_bar_and_asset: bool = False, **options: Any) -> Any:
    """A Module field for a number within bounds, which `check_fields` looks at.

    by_bar_and_asset: the number may be one per asset [asset], or [time or 1, asset or 1].
    """

    def convert(value: Number) -> Number:
        if isinstance(value, bool | np.bool_):
            raise TypeError(f"{name}: expected a number, got {value!r}")
        return as_number(value)

    metadata = {"bounds": bounds, "by_bar_and_asset": by_bar_and_asset}
    return eqx.field(converter=convert, metadata=metadata, **options)


def check_fields(module: Any, num_bars: int, num_assets: int) -> None:
    """Check the bounded fields of a Module and of the Modules in it: shapes always, values where they are concrete.

    Raises ValueError or TypeError naming the field.
    """
    for field in fields(module):
        value = getattr(module, field.name)
        if isinstance(value, eqx.Module):
            check_fields(value, num_bars, num_assets)
        elif "bounds" in field.metadata:
            _check_shape(value, field, num_bars, num_assets)
            if not isinstance(value, Tracer):
                field.metadata["bounds"].check(np.asarray(value), field.name)


def _check_shape(value: Any, field: Any, num_bars: int, num_assets: int) -> None:
    if not eqx.is_array(value):
        raise TypeError(
            f"{field.name}: expected a number or an array, got {type(value).__name__}; js.backtest sweeps an index, "
            "in the core jax.vmap does"
        )
    shape = value.shape
    if shape == () or (field.metadata["by_bar_and_asset"] and _broadcasts(shape, num_bars, num_assets)):
        return
    expected = f"[time, asset] = ({num_bars}, {num_assets})" if field.metadata["by_bar_and_asset"] else "one number"
    raise ValueError(f"{field.name}: shape {shape} does not broadcast to {expected}")


def _broadcasts(shape: tuple[int, ...], num_bars: int, num_assets: int) -> bool:
    if len(shape) == 1:
        return shape[0] in (1, num_assets)
    return len(shape) == 2 and shape[0] in (1, num_bars) and shape[1] in (1, num_assets)
