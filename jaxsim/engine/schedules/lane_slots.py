"""A few lanes out of many, gathered into slots to be worked on together, and put back where they were."""

import abc
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Int

from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs
from jaxsim.engine.base.arrays import Array, Step, where


class AbstractLaneSlots(eqx.Module):
    """Which lanes of the outermost axis the slots hold.

    number: int [slot], of the lane.     is_used: bool [slot], whether the slot holds a lane at all.
    """

    number: eqx.AbstractVar[Int[Array, " slot"]]
    is_used: eqx.AbstractVar[Bool[Array, " slot"]]

    @abc.abstractmethod
    def put_back(self, new: Any, old: Any, axis: int = 0) -> Any:
        """`old` [lane, ...] with the lanes that the slots hold from `new` [slot, ...]; lanes may be another axis."""

    def gather(self, tree: Any, axis: int = 0) -> Any:
        """[lane, ...] -> [slot, ...]; lanes may be another axis."""
        return jax.tree.map(lambda x: jnp.take(x, self.number, axis=axis, mode="clip"), tree)

    def gather_inputs(self, inputs: LaneInputs, axis: LaneAxis) -> LaneInputs:
        """The inputs with the leaves gathered that have the outermost axis."""
        return jax.tree.map(
            lambda place, leaves: leaves if place is None else self.gather(leaves),
            axis.in_axes,
            inputs,
            is_leaf=lambda x: x is None,
        )


class SlotsAtOnce(AbstractLaneSlots):
    """All lanes are found and written together, by few operations over all lanes. This is best where starting an
    operation costs more than its arithmetic.

    slot: int [lane], the slot of each lane.       is_held: bool [lane], whether a slot holds the lane.
    """

    number: Int[Array, " slot"]
    is_used: Bool[Array, " slot"]
    slot: Int[Array, " lane"]
    is_held: Bool[Array, " lane"]

    @classmethod
    def first_of(cls, wanted: Bool[Array, " lane"], num_slots: int) -> "SlotsAtOnce":
        """The first lanes that are wanted, as many as there are slots."""
        rank = jnp.cumsum(wanted, dtype=jnp.int32) - 1
        is_held = wanted & (rank < num_slots)
        lanes = jnp.arange(wanted.shape[0], dtype=jnp.int32)
        holds = is_held[None, :] & (rank[None, :] == jnp.arange(num_slots, dtype=jnp.int32)[:, None])
        number = jnp.max(where(holds, lanes[None, :], -1), axis=1)
        return cls(jnp.maximum(number, 0), number >= 0, jnp.clip(rank, 0, num_slots - 1), is_held)

    def put_back(self, new: Any, old: Any, axis: int = 0) -> Any:
        def one(new: Array, old: Array) -> Array:
            is_held = self.is_held.reshape(-1, *(1,) * (old.ndim - 1 - axis))
            return where(is_held, jnp.take(new, self.slot, axis=axis, mode="clip"), old)

        return jax.tree.map(one, new, old)


class SlotsInTurn(AbstractLaneSlots):
    """Lanes are found and written one slot after the other, and lanes in no slot are not touched. This is best in one
    kernel (`jaxsim.engine.schedules.xla_kernel`)."""

    number: Int[Array, " slot"]
    is_used: Bool[Array, " slot"]

    @classmethod
    def first_of(cls, wanted: Bool[Array, " lane"], num_slots: int) -> "SlotsInTurn":
        """The first lanes that are wanted, as many as there are slots."""
        count = wanted.shape[0]
        lanes = jnp.arange(count, dtype=jnp.int32)

        def next_one(before: Array, _: None) -> tuple[Array, Array]:
            lane = jnp.min(where(wanted & (lanes > before), lanes, count))
            return lane, lane

        _, number = lax.scan(next_one, jnp.int32(-1), length=num_slots)
        return cls(jnp.minimum(number, count - 1), number < count)

    def put_back(self, new: Any, old: Any, axis: int = 0) -> Any:
        def put(slot: Step, tree: Any) -> Any:
            lane, is_used = self.number[slot], self.is_used[slot]

            def one(new: Array, old: Array) -> Array:
                row, before = (lax.dynamic_index_in_dim(x, at, axis) for x, at in ((new, slot), (old, lane)))
                return lax.dynamic_update_slice_in_dim(old, where(is_used, row, before), lane, axis)

            return jax.tree.map(one, new, tree)

        return lax.fori_loop(0, self.number.shape[0], put, old)


#: A lane with more numbers of its own than this (prices, for instance) is not gathered: it would be copied at every
#: rebalance.
LARGEST_GATHERED = 2048


def can_gather(inputs: LaneInputs, axes: Sequence[LaneAxis], largest: int = LARGEST_GATHERED) -> bool:
    """Whether lanes of the outermost axis are cheap to gather: none has more numbers of its own than `largest`."""
    sizes = jax.tree.map(
        lambda place, leaves: 0 if place is None else sum(jnp.size(x) for x in jax.tree.leaves(leaves)),
        axes[0].in_axes,
        inputs,
        is_leaf=lambda x: x is None,
    )
    return sum(jax.tree.leaves(sizes)) <= largest * axes[0].size
