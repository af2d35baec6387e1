"""Allocators with parameters to be trained. All of them start at equal weight."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jaxsim as js
from allocators.scores import Inputs, allocation, dense, in_float64, last_layer, positive, random_key, softmax


class SoftmaxWeights(eqx.Module):
    """Constant weights softmax(logits), free to be trained: always positive, together (with cash) always one.

    logits: [asset], or [asset + 1] where cash has a share, its logit last; zero at the start, which is equal weight.
    over: "all", every column of the group, listed or not (what is not listed yet stays cash); or "tradable", those that
        have had a price by now, which share what the others leave. As in `EqualWeight`.
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
            held = len(logits) - self.cash
            raise ValueError(f"num_assets: SoftmaxWeights is made for {held} assets, the group has {num_assets}")
        live = jnp.asarray(obs.tradable) if self.over == "tradable" else jnp.full(num_assets, True)
        cash = logits[-1] if self.cash else jnp.asarray(-jnp.inf, logits.dtype)
        shares, _ = softmax(logits[:num_assets], live | ~live.any(), cash)
        return jnp.where(live, shares, 0.0)


class AbstractScored(eqx.Module):
    """An allocator that scores each asset by its features, with the same parameters for all: it takes any number of
    assets, and exchanging two of them exchanges their weights. Weights are softmax(scores).

    num_features: features of each asset in `obs.features` (see `js.features.stack`).
    cash: whether cash has a share; its score is the mean of what the assets say about it. At the start it gets as much
        as each of the assets.
    sees_weights: whether the present weight of an asset is one more feature, with which a rule can learn to keep what
        it holds.
    head: the last layer, zero at the start.

    An asset is usable if it has had a price by now and none of its features is NaN at this bar. Others get weight 0. If
    none is usable, the assets that have had a price by now get equal weights; if there is none of those either, all are
    left alone.
    """

    head: eqx.nn.Linear
    num_features: int = eqx.field(static=True)
    cash: bool = eqx.field(static=True)
    sees_weights: bool = eqx.field(static=True)

    def __init__(self, num_features: int, cash: bool, sees_weights: bool, width: int | None = None):
        """width: of what the last layer scores, where that is not the features themselves."""
        self.num_features = positive(num_features, "num_features")
        self.cash, self.sees_weights = bool(cash), bool(sees_weights)
        self.head = last_layer(self.num_inputs if width is None else positive(width, "width"), self.cash)

    @property
    def num_inputs(self) -> int:
        """Features of each asset, the present weight among them if it is seen."""
        return self.num_features + self.sees_weights

    @abc.abstractmethod
    def describe(self, inputs: Inputs) -> Float[Array, "asset hidden"]:
        """What the last layer scores: numbers for each asset."""

    def __call__(self, obs: js.Observation) -> js.Allocation:
        return _answer(self, Inputs.of(obs, self.num_features, self.sees_weights))


@eqx.filter_jit  # for the reference engine, which calls it as ordinary Python
def _answer(allocator: AbstractScored, inputs: Inputs) -> js.Allocation:
    return allocation(jax.vmap(allocator.head)(allocator.describe(inputs)), inputs)


class Linear(AbstractScored):
    """Scores that are linear in the features: `softmax(features @ coefficients)`.

    Source: the idea of M. W. Brandt, P. Santa-Clara and R. Valkanov, Parametric portfolio policies, Review of Financial
    Studies 22 (2009), 3411-3447, of weights by a few coefficients shared by all assets; theirs tilt a benchmark and
    may be negative.
    """

    def __init__(self, num_features: int, *, cash: bool = False, sees_weights: bool = False):
        super().__init__(num_features, cash, sees_weights)

    @property
    def coefficients(self) -> Float[Array | np.ndarray, " feature"]:
        """What one unit of each feature adds to the score of an asset."""
        return self.head.weight[0]

    def describe(self, inputs: Inputs) -> Float[Array, "asset hidden"]:
        return inputs.values


class MLP(AbstractScored):
    """Scores by a multilayer perceptron that looks at one asset at a time.

    width: of the hidden layers.        depth: number of them.      key: JAX key or int that they are drawn from.

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
        self.layers = tuple(dense(size, width, k) for size, k in zip(sizes, keys, strict=True))

    def describe(self, inputs: Inputs) -> Float[Array, "asset hidden"]:
        x = inputs.values
        for layer in self.layers:
            x = jax.nn.silu(jax.vmap(layer)(x))
        return x


class Attention(AbstractScored):
    """Scores by one block of a transformer over the assets: each looks at all others that are usable. There is no
    order among them, so that any number takes part, and exchanging two exchanges their weights.

    width: of the hidden layers, a multiple of `num_heads`.     num_heads: attention heads.
    ask, answer, tell: the layers of queries, keys and values.      blend: that of the heads together.
    key: JAX key or int that the layers are drawn from.

    Source: A. Vaswani et al., Attention is all you need, NeurIPS 2017, without positions; that this is equivariant:
    J. Lee et al., Set transformer, ICML 2019.
    """

    embed: eqx.nn.Linear
    ask: eqx.nn.Linear
    answer: eqx.nn.Linear
    tell: eqx.nn.Linear
    blend: eqx.nn.Linear
    mix: eqx.nn.Linear
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
        first, *keys = jax.random.split(random_key(key), 6)
        self.embed, self.num_heads = dense(self.num_inputs, width, first), num_heads
        self.ask, self.answer, self.tell, self.blend, self.mix = (dense(width, width, k) for k in keys)

    def describe(self, inputs: Inputs) -> Float[Array, "asset hidden"]:
        x = jax.vmap(self.embed)(inputs.values)
        num_assets = len(x)
        query, key, value = (
            jax.vmap(layer)(x).reshape(num_assets, self.num_heads, -1) for layer in (self.ask, self.answer, self.tell)
        )
        # Written out: the softmax of jax.nn.dot_product_attention is in float32, whatever it is given.
        heat = jnp.einsum("ahd,bhd->hab", query, key) / np.sqrt(query.shape[-1])
        shares = jax.nn.softmax(jnp.where(inputs.live, heat, -jnp.inf), axis=-1)
        found = jnp.einsum("hab,bhd->ahd", shares, value).reshape(x.shape)
        x = x + jax.vmap(self.blend)(found)
        return x + jax.nn.silu(jax.vmap(self.mix)(x))


class Recurrent(eqx.Module):
    """Scores by what a gated recurrent unit remembers of the features of an asset, bar after bar; one unit, with a
    state for each asset. It is updated at every bar, whether the portfolio is traded then or not.

    num_features, cash, sees_weights, head: as in `Linear`, `MLP` and `Attention`, and usable assets likewise.
    width: numbers that are remembered of each asset.       key: JAX key or int that the unit is drawn from.

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
        self.cell = in_float64(eqx.nn.GRUCell(num_inputs, width, dtype=jnp.float32, key=random_key(key)))
        self.head = last_layer(width, self.cash)

    def init(self, num_assets: int) -> np.ndarray:
        return np.zeros((num_assets, self.cell.hidden_size))

    def observe(self, obs: js.Observation, state: Any) -> Float[Array, "asset width"]:
        return _remember(self.cell, Inputs.of(obs, self.num_features, self.sees_weights), jnp.asarray(state))

    def __call__(self, obs: js.Observation, state: Any) -> tuple[js.Allocation, Any]:
        inputs = Inputs.of(obs, self.num_features, self.sees_weights)
        return _recall(self.head, inputs, jnp.asarray(state)), state


@eqx.filter_jit
def _remember(cell: eqx.nn.GRUCell, inputs: Inputs, state: Float[Array, "asset width"]) -> Float[Array, "asset width"]:
    return jnp.where(inputs.usable[:, None], jax.vmap(cell)(inputs.values, state), state)


@eqx.filter_jit
def _recall(head: eqx.nn.Linear, inputs: Inputs, state: Float[Array, "asset width"]) -> js.Allocation:
    return allocation(jax.vmap(head)(state), inputs)
