"""What a policy answers when it is asked for target weights."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.engine.base.arrays import Array, refuse_masked, where
from jaxsim.engine.base.fields import CALL_SEQ, DIRECTION, SIZE_TYPE, Codes
from jaxsim.engine.base.numerics import Number


class Allocation(eqx.Module):
    """The answer of an allocator: target weights, and codes or arrays beside them.

    weights: [asset], fractions of the portfolio value; the rest to one stays cash. A sum above one is allowed: the last
        buys are then cut to the cash that is left. Below zero: sold short.
    skip: bool [asset], assets to leave alone in this rebalance; their weights may be NaN.
    size_type: SizeType of `weights`, one or [asset], if they are no target weights; default: of the policy.
    direction: Direction, one or [asset]; default: of the policy.
    call_seq: CallSeq, or int [asset]: the numbers of the assets in the order in which they trade; default, or -1
        everywhere: that of the policy.
    aux: further arrays to record, by name.
    """

    weights: Number
    skip: Any = None
    aux: Mapping[str, Any] = eqx.field(default_factory=dict)
    size_type: Any = eqx.field(default=None, kw_only=True)
    direction: Any = eqx.field(default=None, kw_only=True)
    call_seq: Any = eqx.field(default=None, kw_only=True)


def refuse_labels(weights: Any, name: str) -> None:
    """Raises TypeError for a Series or DataFrame: its labels would be ignored, and its order taken for that of the
    columns."""
    if hasattr(weights, "index") and hasattr(weights, "to_numpy"):
        raise TypeError(f"allocator {name} returned labelled weights; return an array in the order of the columns")


def check_shape(field: str, shape: tuple[int, ...], num_assets: int, name: str) -> None:
    """Raises ValueError naming the allocator unless there is one entry per asset."""
    if shape != (num_assets,):
        raise ValueError(f"allocator {name} returned {field} of shape {shape}; expected one per asset, ({num_assets},)")


def not_weights(answer: Any, name: str) -> str:
    """The message about an answer that is not numeric."""
    return f"allocator {name} returned {type(answer).__name__}, not weights: one number per asset"


def as_allocation(answer: Any, num_assets: int, dtype: Any, name: str) -> Allocation:
    """An allocator's answer, bare weights or `Allocation`, with shapes checked.

    Raises ValueError naming the allocator if the weights (or the mask) are not one number per asset.
    """
    allocation = answer if isinstance(answer, Allocation) else Allocation(answer)
    refuse_labels(allocation.weights, name)
    refuse_masked(vars(allocation), f"allocator {name}")
    try:
        weights = jnp.asarray(allocation.weights, dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(not_weights(answer, name)) from error
    skip = jnp.zeros(num_assets, bool) if allocation.skip is None else jnp.asarray(allocation.skip, bool)
    for field, array in (("weights", weights), ("skip", skip)):
        check_shape(field, array.shape, num_assets, name)
    return Allocation(
        where(skip, jnp.nan, weights),
        skip,
        dict(allocation.aux),
        size_type=_codes(allocation.size_type, SIZE_TYPE, "size_type", num_assets, name),
        direction=_codes(allocation.direction, DIRECTION, "direction", num_assets, name),
        call_seq=_call_seq(allocation.call_seq, num_assets, name),
    )


def read_codes(value: Any, kind: Codes, field: str, num_assets: int, name: str) -> Array:
    """Codes, one or [asset], from a member, a name, a number, or an array of them.

    Raises TypeError or ValueError naming the allocator for what is no code, or of another shape.
    """
    if isinstance(value, jax.Array):
        codes = value
        if not jnp.issubdtype(codes.dtype, jnp.integer):
            raise TypeError(f"allocator {name} returned {field} as {codes.dtype}; codes are integers")
    else:
        try:
            codes = kind.read(value, field)
        except ValueError as error:
            raise ValueError(f"allocator {name} returned a wrong {error}") from error
    if codes.shape not in ((), (num_assets,)):
        raise ValueError(
            f"allocator {name} returned {field} of shape {codes.shape}; expected one for all, or one per asset, "
            f"({num_assets},)"
        )
    return codes


def _codes(value: Any, kind: Codes, field: str, num_assets: int, name: str) -> Any:
    """Codes [asset]; None stays None."""
    if value is None:
        return None
    codes = read_codes(value, kind, field, num_assets, name)
    return jnp.broadcast_to(jnp.asarray(codes, jnp.int32), (num_assets,))


def refuse_fractions(sequence: Any, name: str) -> None:
    """Raises TypeError naming the allocator for a call sequence that does not hold integers."""
    kind = sequence.dtype if hasattr(sequence, "dtype") else np.asarray(sequence).dtype
    if kind.kind not in "iu":
        raise TypeError(f"allocator {name} returned call_seq as {kind}; the numbers of the assets are integers")


def _call_seq(value: Any, num_assets: int, name: str) -> Any:
    """A CallSeq code, or the assets in the order in which they trade, int [asset]."""
    if value is None:
        return None
    if isinstance(value, int | str) or np.ndim(value) == 0:
        codes = _codes(value, CALL_SEQ, "call_seq", 1, name)
        return codes[0]
    refuse_fractions(value, name)
    sequence = jnp.asarray(value, jnp.int32)
    if sequence.shape != (num_assets,):
        raise ValueError(
            f"allocator {name} returned call_seq of shape {sequence.shape}; expected every asset once, ({num_assets},)"
        )
    return sequence
