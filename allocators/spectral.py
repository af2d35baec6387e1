"""Functions of the eigenvalues of a symmetric matrix, with derivatives that stay finite for equal eigenvalues.

For F(A) = V f(L) V', A = V L V', the derivative is `V (D * (V' dA V)) V'`, where D holds the divided differences
`(f(l_i) - f(l_j)) / (l_i - l_j)`, and `f'(l_i)` on the diagonal and between equal eigenvalues (Daleckii and Krein 1965;
N. Higham, Functions of Matrices, 2008, theorem 3.11). The derivative of the eigenvectors, which divides by
`l_i - l_j`, is not used. The divided differences below are written without a division by the difference of two
eigenvalues of the same kind.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float

#: An eigenvalue counts as zero below this many machine epsilons per row of the matrix, times the matrix norm.
RANK = 64


def floor(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """The size below which an eigenvalue of this matrix counts as zero; the rank tolerance of all allocators."""
    count = matrix.shape[0]
    return RANK * count * jnp.finfo(matrix.dtype).eps * jnp.abs(matrix).sum(1).max()


def excess(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """`V max(-L, 0) V'`: added to the matrix, it gives the nearest positive semidefinite matrix (in the Frobenius
    norm). Exactly zero if no eigenvalue is negative."""
    return _spectral("excess", matrix, jnp.zeros((), matrix.dtype))


def null_projector(matrix: Float[Array, "n n"], tolerance: Float[Array, ""]) -> Float[Array, "n n"]:
    """The orthogonal projection on the null space of a positive semidefinite matrix: on the eigenvectors whose
    eigenvalue is at most the tolerance. Exactly zero if there are none. The derivative assumes a constant rank."""
    return _spectral("null", matrix, tolerance)


def pseudo_inverse(matrix: Float[Array, "n n"], tolerance: Float[Array, ""]) -> Float[Array, "n n"]:
    """The Moore-Penrose inverse of a positive semidefinite matrix, eigenvalues up to the tolerance counting as zero.
    The derivative is that at constant rank."""
    return _spectral("inverse", matrix, tolerance)


def _values(kind: str, value: Float[Array, " n"], tolerance: Float[Array, ""]) -> Float[Array, " n"]:
    if kind == "excess":
        return jnp.maximum(-value, 0.0)
    is_null = value <= tolerance
    return is_null.astype(value.dtype) if kind == "null" else jnp.where(is_null, 0.0, 1 / jnp.where(is_null, 1, value))


def _differences(kind: str, value: Float[Array, " n"], tolerance: Float[Array, ""]) -> Float[Array, "n n"]:
    """The divided differences of all pairs of eigenvalues."""
    a, b = value[:, None], value[None, :]
    if kind == "excess":
        span = jnp.abs(a) + jnp.abs(b)  # the difference of two eigenvalues of different sign
        mixed = jnp.where(span > 0, -(jnp.maximum(-a, 0.0) + jnp.maximum(-b, 0.0)) / jnp.where(span > 0, span, 1), 0.0)
        return jnp.where((a < 0) & (b < 0), -1.0, jnp.where((a >= 0) & (b >= 0), 0.0, mixed))
    is_null = value <= tolerance
    are_mixed = is_null[:, None] != is_null[None, :]
    larger = jnp.where(are_mixed, jnp.maximum(a, b), 1.0)
    if kind == "null":  # one of the two counts as zero
        return jnp.where(are_mixed, -1 / larger, 0.0)
    both = ~is_null[:, None] & ~is_null[None, :]
    return jnp.where(both, -1 / jnp.where(both, a * b, 1.0), jnp.where(are_mixed, 1 / larger**2, 0.0))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _spectral(kind: str, matrix: Float[Array, "n n"], tolerance: Float[Array, ""]) -> Float[Array, "n n"]:
    value, vectors = jnp.linalg.eigh(matrix)
    return (vectors * _values(kind, value, tolerance)) @ vectors.T


@_spectral.defjvp
def _spectral_derivative(kind: str, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (matrix, tolerance), (change, _) = primals, tangents
    value, vectors = jnp.linalg.eigh(matrix)
    out = (vectors * _values(kind, value, tolerance)) @ vectors.T
    inner = vectors.T @ ((change + change.T) / 2) @ vectors
    return out, vectors @ (_differences(kind, value, tolerance) * inner) @ vectors.T


def in_any_lane(flag: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether a flag is set in this lane or in any lane of the same `vmap`. The answer is the same for all lanes, so
    that a `lax.cond` on it stays a branch, and is skipped if no lane needs it."""
    return _any(jax.lax.stop_gradient(flag))


@custom_vmap
def _any(flag: Any) -> Any:
    return flag


@_any.def_vmap
def _any_of_lanes(num_lanes: int, has_lanes: Any, flag: Any) -> tuple[Any, bool]:
    return _any(flag.any(0) if has_lanes[0] else flag), False
