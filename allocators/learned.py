"""Allocators with trainable parameters. All of them start at equal weight."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jaxsim as js
from allocators.scores import Inputs, allocation, dense_layers, in_float64, last_layer, positive, random_key, softmax


class SoftmaxWeights(eqx.Module):
    """Constant weights softmax(logits): positive for any logits, with sum one (cash included).

    logits: [asset], or [asset + 1] if cash has a share, its logit last; zero at the start, which is equal weight.
    over: "all": every column of the group; the share of an unlisted asset stays cash. "tradable": only assets that have
        had a price by now. As in `EqualWeight`.
    """

    logits: Any
    cash: bool = eqx.field(static=True)
    over: str = eqx.field(static=True)

    def __init__(self, num_assets: int, *, cash: bool = False, over: str = "all"):
        """num_assets: number of assets, positive.      cash: whether cash has a share. Raises ValueError otherwise."""
        if over not in ("all", "tradable"):
            raise ValueError(f"over: expected 'all' or 'tradable', got {over!r}")
        self.logits = np.zeros(positive(num_assets, "num_assets") + bool(cash))
        self.cash, self.over = bool(cash), over

    def __call__(self, obs: js.Observation) -> Float[Array, " asset"]:
        logits, num_assets = jnp.asarray(self.logits), obs.num_assets
        if logits.shape != (num_assets + self.cash,):
            count = len(logits) - self.cash
            raise ValueError(f"num_assets: SoftmaxWeights is made for {count} assets, the group has {num_assets}")
        live = jnp.asarray(obs.tradable) if self.over == "tradable" else jnp.full(num_assets, True)
        cash = logits[-1] if self.cash else jnp.asarray(-jnp.inf, logits.dtype)
        shares, _ = softmax(logits[:num_assets], live | ~live.any(), cash)
        return jnp.where(live, shares, 0.0)


class AbstractScored(eqx.Module):
    """An allocator that computes a score of each asset from its features, with the same parameters for all assets. It
    takes any number of assets, and exchanging two assets exchanges their weights. Weights are softmax(scores).

    num_features: number of features of each asset in `obs.features` (see `js.features.stack`).
    cash: whether cash has a share. The last layer then has a second output; its mean over the usable assets is the
        score of cash. At the start cash has the share of one asset.
    sees_weights: whether the present weight of an asset is one more feature, so that a policy can learn to avoid
        trades.
    head: the last layer, zero at the start.

    An asset is usable if it has had a price by now and none of its features is NaN at this bar. Other assets get weight
    0. If no asset is usable, the assets that have had a price by now get equal weights; if there are no such assets,
    all are left alone.
    """

    head: eqx.nn.Linear
    num_features: int = eqx.field(static=True)
    cash: bool = eqx.field(static=True)
    sees_weights: bool = eqx.field(static=True)

    def __init__(self, num_features: int, cash: bool, sees_weights: bool, width: int | None = None):
        """width: number of inputs of the last layer; None: the features themselves."""
        self.num_features = positive(num_features, "num_features")
        self.cash, self.sees_weights = bool(cash), bool(sees_weights)
        self.head = last_layer(self.num_inputs if width is None else positive(width, "width"), self.cash)

    @property
    def num_inputs(self) -> int:
        """Number of features of each asset, including the present weight with `sees_weights`."""
        return self.num_features + self.sees_weights

    @abc.abstractmethod
    def describe(self, inputs: Inputs) -> Float[Array, "asset hidden"]:
        """The inputs of the last layer, for each asset."""

    def __call__(self, obs: js.Observation) -> js.Allocation:
        return _answer(self, Inputs.of(obs, self.num_features, self.sees_weights))


@eqx.filter_jit  # for speed in the reference engine, which calls it as ordinary Python
def _answer(allocator: AbstractScored, inputs: Inputs) -> js.Allocation:
    return allocation(jax.vmap(allocator.head)(allocator.describe(inputs)), inputs)


class Linear(AbstractScored):
    """Scores that are linear in the features: weights are `softmax(features @ coefficients)`.

    Source: M. W. Brandt, P. Santa-Clara and R. Valkanov, Parametric portfolio policies, Review of Financial Studies 22
    (2009), 3411-3447, for weights from a few coefficients shared by all assets; their weights tilt a benchmark and may
    be negative.
    """

    def __init__(self, num_features: int, *, cash: bool = False, sees_weights: bool = False):
        super().__init__(num_features, cash, sees_weights)

    @property
    def coefficients(self) -> Float[Array | np.ndarray, " feature"]:
        """The change of an asset's score per unit of each feature."""
        return self.head.weight[0]

    def describe(self, inputs: Inputs) -> Float[Array, "asset hidden"]:
        return inputs.values


class MLP(AbstractScored):
    """Scores by a multilayer perceptron of the features of one asset.

    width: width of the hidden layers.      depth: number of hidden layers.      key: JAX key or int to draw them from.

    Source: the shared evaluators of Z. Jiang, D. Xu and J. Liang, A deep reinforcement learning framework for the
    financial portfolio management problem, arXiv:1706.10059 (2017), section 5.1.
    """

    layers: tuple[eqx.nn.Linear, ...]

    def __init__(
        self,
        num_features: int,
        *,
        width: int = 16,
        depth: int = 2,
        cash: bool = False,
        sees_weights: bool = False,
        key: Any = 0,
    ):
        super().__init__(num_features, cash, sees_weights, width)
        keys = jax.random.split(random_key(key), positive(depth, "depth"))
        sizes = [self.num_inputs] + [width] * (depth - 1)
        self.layers = dense_layers([(size, width) for size in sizes], keys)

    def describe(self, inputs: Inputs) -> Float[Array, "asset hidden"]:
        x = inputs.values
        for layer in self.layers:
            x = jax.nn.silu(jax.vmap(layer)(x))
        return x


class Attention(AbstractScored):
    """Scores by one transformer block over the assets: each asset attends to all usable assets. There are no positions,
    so it takes any number of assets, and exchanging two assets exchanges their weights.

    width: width of the hidden layers, a multiple of `num_heads`.       num_heads: number of attention heads.
    query_layer, key_layer, value_layer: of the attention.      output_layer: after the heads are joined.
    key: JAX key or int to draw the layers from.

    Source: A. Vaswani et al., Attention is all you need, NeurIPS 2017, without positions; for the equivariance,
    J. Lee et al., Set transformer, ICML 2019.
    """

    embed: eqx.nn.Linear
    query_layer: eqx.nn.Linear
    key_layer: eqx.nn.Linear
    value_layer: eqx.nn.Linear
    output_layer: eqx.nn.Linear
    hidden_layer: eqx.nn.Linear
    num_heads: int = eqx.field(static=True)

    def __init__(
        self,
        num_features: int,
        *,
        width: int = 16,
        num_heads: int = 2,
        cash: bool = False,
        sees_weights: bool = False,
        key: Any = 0,
    ):
        super().__init__(num_features, cash, sees_weights, width)
        if positive(width, "width") % positive(num_heads, "num_heads"):
            raise ValueError(f"width: expected a multiple of num_heads={num_heads}, got {width}")
        sizes, self.num_heads = [(self.num_inputs, width)] + [(width, width)] * 5, num_heads
        self.embed, *layers = dense_layers(sizes, jax.random.split(random_key(key), 6))
        self.query_layer, self.key_layer, self.value_layer, self.output_layer, self.hidden_layer = layers

    def describe(self, inputs: Inputs) -> Float[Array, "asset hidden"]:
        x = jax.vmap(self.embed)(inputs.values)
        num_assets = len(x)
        query, key, value = (
            jax.vmap(layer)(x).reshape(num_assets, self.num_heads, -1)
            for layer in (self.query_layer, self.key_layer, self.value_layer)
        )
        # Not jax.nn.dot_product_attention: its softmax is always in float32.
        heat = jnp.einsum("ahd,bhd->hab", query, key) / np.sqrt(query.shape[-1])
        shares = jax.nn.softmax(jnp.where(inputs.live, heat, -jnp.inf), axis=-1)
        attended = jnp.einsum("hab,bhd->ahd", shares, value).reshape(x.shape)
        x = x + jax.vmap(self.output_layer)(attended)
        return x + jax.nn.silu(jax.vmap(self.hidden_layer)(x))


class Recurrent(eqx.Module):
    """Scores by a gated recurrent unit over the features of an asset, bar after bar. All assets share one unit; each
    has its own state. The state is updated at every bar, also at bars without a trade.

    num_features, cash, sees_weights, head: as in `Linear`, `MLP` and `Attention`, and so are usable assets.
    width: size of the state of each asset.     key: JAX key or int to draw the unit from.

    The state is [asset, width], zero at the start. An asset without features at a bar, or not listed yet, keeps its
    state. Scores take any number of assets, and exchanging two of them exchanges their weights.

    Source: K. Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014.
    """

    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear
    num_features: int = eqx.field(static=True)
    cash: bool = eqx.field(static=True)
    sees_weights: bool = eqx.field(static=True)

    def __init__(
        self, num_features: int, *, width: int = 8, cash: bool = False, sees_weights: bool = False, key: Any = 0
    ):
        self.num_features = positive(num_features, "num_features")
        self.cash, self.sees_weights = bool(cash), bool(sees_weights)
        num_inputs, width = self.num_features + self.sees_weights, positive(width, "width")
        self.cell = in_float64(_recurrent_unit(num_inputs, width, random_key(key)))
        self.head = last_layer(width, self.cash)

    def init(self, num_assets: int) -> np.ndarray:
        return np.zeros((num_assets, self.cell.hidden_size))

    def observe(self, obs: js.Observation, state: Any) -> Float[Array, "asset width"]:
        return _update(self.cell, Inputs.of(obs, self.num_features, self.sees_weights), jnp.asarray(state))

    def __call__(self, obs: js.Observation, state: Any) -> tuple[js.Allocation, Any]:
        inputs = Inputs.of(obs, self.num_features, self.sees_weights)
        return _allocate(self.head, inputs, jnp.asarray(state)), state


@eqx.filter_jit
def _recurrent_unit(num_inputs: int, width: int, key: Any) -> eqx.nn.GRUCell:
    return eqx.nn.GRUCell(num_inputs, width, dtype=jnp.float32, key=key)


@eqx.filter_jit
def _update(cell: eqx.nn.GRUCell, inputs: Inputs, state: Float[Array, "asset width"]) -> Float[Array, "asset width"]:
    return jnp.where(inputs.usable[:, None], jax.vmap(cell)(inputs.values, state), state)


@eqx.filter_jit
def _allocate(head: eqx.nn.Linear, inputs: Inputs, state: Float[Array, "asset width"]) -> js.Allocation:
    return allocation(jax.vmap(head)(state), inputs)
