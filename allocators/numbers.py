"""Module fields of allocators that hold numbers, with checks of type and bounds."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer


def number(
    name: str,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    is_open: bool = False,
    is_whole: bool = False,
    is_finite: bool = True,
    per_asset: bool = False,
    **options: Any,
) -> Any:
    """A Module field for numbers from `low` to `high`. With a default of None, None is allowed too and means "off".

    is_open: `low` itself is not allowed.       is_whole: only whole numbers.       is_finite: no infinities.
    per_asset: an array is allowed too, one number for each asset (or group).

    A plain number becomes a NumPy float64 array. A named index to sweep, a Series by asset and a tracer stay as they
    are. Raises TypeError or ValueError naming the field for anything else, or for a value out of bounds.
    """
    limits = [text for bound, text in ((low, f"{'>' if is_open else '>='} {low:g}"), (high, f"<= {high:g}"))
              if np.isfinite(bound)]  # fmt: skip
    expected = " ".join(["a whole number" if is_whole else "a number", " and ".join(limits)]).strip()

    def convert(value: Any) -> Any:
        if value is None and options.get("default", 0) is None:
            return None
        if isinstance(value, Tracer):
            return value
        is_plain = isinstance(value, int | float | list | tuple | np.generic)
        array = _values(value, name)
        shapes = (0, 1) if per_asset or not isinstance(value, list | tuple | np.ndarray | jax.Array) else (0,)
        if array.ndim not in shapes:
            raise ValueError(f"{name}: expected {'one number per asset' if per_asset else 'one number'}, got shape "
                             f"{array.shape}")  # fmt: skip
        bad = np.isnan(array) | (array > high) | (array <= low if is_open else array < low)
        bad |= ~np.isfinite(array) & is_finite
        bad |= (array != np.round(array)) & is_whole
        if bad.any():
            raise ValueError(f"{name}: expected {expected}, got {array[bad].ravel()[0]:g}")
        return array if is_plain or isinstance(value, np.ndarray) else value

    return eqx.field(converter=convert, **options)


def refuse_masked(value: Any, name: str) -> None:
    """Raises ValueError naming the argument for an array with masked entries: what the mask hides would count."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name}: {np.ma.count_masked(value)} entries are masked; say what they are: x.filled(value)")


def _values(value: Any, name: str) -> np.ndarray:
    """The numbers in an array, a pandas object or an index to sweep, as float64."""
    index = getattr(value, "index", None)
    is_zipped = not hasattr(value, "to_numpy") and hasattr(index, "to_numpy")
    refuse_masked(value, name)
    array = np.asarray(index if is_zipped else value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected numbers, got {type(value).__name__} {value!r}"[:200])
    return array.astype(np.float64)
