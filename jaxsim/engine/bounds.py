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


def bounded(name: str, bounds: Bounds, **options: Any) -> Any:
    """A Module field for a number within bounds; `check_bounds` looks at the value where it is concrete."""

    def convert(value: Number) -> Number:
        if isinstance(value, bool | np.bool_):
            raise TypeError(f"{name}: expected a number, got {value!r}")
        return as_number(value)

    return eqx.field(converter=convert, metadata={"bounds": bounds}, **options)


def check_bounds(module: Any) -> None:
    """Check the bounded fields of a Module and of the Modules in it; tracers pass.

    Raises ValueError naming the field.
    """
    for field in fields(module):
        value = getattr(module, field.name)
        if isinstance(value, eqx.Module):
            check_bounds(value)
        elif "bounds" in field.metadata and eqx.is_array(value) and not isinstance(value, Tracer):
            field.metadata["bounds"].check(np.asarray(value), field.name)
