"""The inputs of a learned allocator, and weights from its scores; one rule for all learned allocators."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

import jaxsim as js


class Inputs(eqx.Module):
    """The features of each asset at the open of a bar. Missing features are 0 instead of NaN, so that gradients stay
    finite.

    values: features; 0 where one is missing.
    usable: the assets that have had a price by now and miss no feature at this bar.
    tradable: the assets that have had a price by now.
    """

    values: Float[Array, "asset feature"]
    usable: Bool[Array, " asset"]
    tradable: Bool[Array, " asset"]

    @classmethod
    def of(cls, obs: js.Observation, num_features: int, sees_weights: bool) -> "Inputs":
        """Read `obs.features`: a pytree whose leaves are [asset, feature], [asset], or one number for the whole market,
        which every asset gets. Leaves are in the order of the pytree; in a dictionary, by sorted name.

        Raises ValueError beginning with "features:" if there are no features, or for a wrong shape or number.
        """
        dtype, num_assets = obs.units.dtype, obs.num_assets
        leaves = [jnp.asarray(leaf, dtype) for leaf in jax.tree.leaves(obs.features)]
        if not leaves:
            raise ValueError("features: this allocator looks at obs.features, and there are none; pass features=")
        for x in leaves:
            if x.ndim > 2 or (x.ndim and x.shape[0] != num_assets):
                raise ValueError(
                    f"features: expected rows of shape [asset, feature], [asset] or [], of {num_assets} assets, got "
                    f"{list(x.shape)}; js.features.stack makes such rows of tables"
                )
        values = jnp.concatenate(
            [jnp.broadcast_to(x, (num_assets,))[:, None] if x.ndim < 2 else x for x in leaves], axis=1
        )
        if values.shape[1] != num_features:
            raise ValueError(
                f"features: there are {values.shape[1]} for each asset, but the allocator is made for "
                f"num_features={num_features}"
            )
        if sees_weights:
            values = jnp.concatenate([values, jnp.asarray(obs.weights, dtype)[:, None]], axis=1)
        known, tradable = ~jnp.isnan(values), jnp.asarray(obs.tradable)
        return cls(jnp.where(known, values, 0.0), tradable & known.all(1), tradable)

    @property
    def live(self) -> Bool[Array, " asset"]:
        """The usable assets; all assets if none is usable, so that numbers stay finite until they are dropped."""
        return self.usable | ~self.usable.any()


def allocation(scores: Float[Array, "asset head"], inputs: Inputs) -> js.Allocation:
    """Weights of the usable assets in proportion to `exp(score)`; 0 for other assets.

    scores: [asset, 1]; or [asset, 2] if cash has a share: its score is the mean of the second column over the usable
        assets.

    If no asset is usable, the tradable ones (and cash, if it has a share) get equal weights; if no asset is tradable,
    all are left alone.
    """
    live, tradable, any_usable = inputs.live, inputs.tradable, inputs.usable.any()
    has_cash = scores.shape[1] == 2
    cash = jnp.where(live, scores[:, -1], 0.0).sum() / live.sum() if has_cash else jnp.asarray(-jnp.inf, scores.dtype)
    shares, _ = softmax(scores[:, 0], live, cash)
    part = jnp.where(tradable, 1.0, 0.0).astype(scores.dtype)
    equal = part / jnp.maximum(part.sum() + has_cash, 1)
    nothing = ~(any_usable | tradable.any())
    weights = jnp.where(any_usable, jnp.where(inputs.usable, shares, 0.0), equal)
    return js.Allocation(weights, skip=jnp.broadcast_to(nothing, live.shape))


def softmax(
    scores: Float[Array, " asset"], live: Bool[Array, " asset"], cash: Float[Array, ""]
) -> tuple[Float[Array, " asset"], Float[Array, ""]]:
    """Shares of the live assets and of cash, in proportion to `exp(score)`; cash with score -inf has no share."""
    top = lax.stop_gradient(jnp.maximum(jnp.where(live, scores, -jnp.inf).max(), cash))  # against overflow; cancels
    parts = jnp.where(live, jnp.exp(jnp.where(live, scores - top, 0.0)), 0.0)
    rest = jnp.exp(cash - top)
    total = parts.sum() + rest
    return parts / total, rest / total


def random_key(key: Any) -> jax.Array:
    """A JAX key from a key or an int. Raises TypeError naming the argument."""
    if isinstance(key, jax.Array):
        return key
    if isinstance(key, bool) or not isinstance(key, int | np.integer):
        raise TypeError(f"key: expected a JAX key or an int, got {key!r}")
    return jax.random.key(int(key))


def positive(value: Any, name: str) -> int:
    """A positive whole number. Raises ValueError naming the argument."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: expected a positive whole number, got {value!r}")
    return int(value)


def in_float64(tree: Any) -> Any:
    """The parameters of layers as NumPy float64 arrays, so that they are the same inside and outside of
    `jax.enable_x64`; tracers stay as they are. Layers are drawn in float32 for the same reason."""

    def convert(x: Any) -> Any:
        return np.asarray(x, np.float64) if eqx.is_inexact_array(x) and not isinstance(x, Tracer) else x

    return jax.tree.map(convert, tree)


def dense_layers(sizes: Sequence[tuple[int, int]], keys: jax.Array) -> tuple[eqx.nn.Linear, ...]:
    """Layers with random weights, in float64 (see `in_float64`).

    sizes: number of inputs and of outputs of each.     keys: one for each.
    """
    return in_float64(_dense_layers(tuple(sizes), keys))


@eqx.filter_jit
def _dense_layers(sizes: tuple[tuple[int, int], ...], keys: jax.Array) -> tuple[eqx.nn.Linear, ...]:
    # One program: outside of it each of the draws would compile one of its own.
    return tuple(eqx.nn.Linear(*size, dtype=jnp.float32, key=key) for size, key in zip(sizes, keys, strict=True))


def last_layer(num_inputs: int, cash: bool) -> eqx.nn.Linear:
    """The last layer, zero at the start: equal scores, equal weights. Without cash it has no bias, which would
    cancel."""

    def layer() -> eqx.nn.Linear:
        return eqx.nn.Linear(num_inputs, 2 if cash else 1, use_bias=cash, dtype=jnp.float32, key=jax.random.key(0))

    return jax.tree.map(lambda x: np.zeros(x.shape), eqx.filter_eval_shape(layer))
