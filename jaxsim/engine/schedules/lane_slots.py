"""Some lanes out of many, gathered into a few slots to be worked on together, and put back."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Int

from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs
from jaxsim.engine.base.arrays import Array, Step


class AbstractLaneSlots(eqx.Module):
    """Which lanes of the outermost axis the slots hold.

    number: int [slot], of the lane.     is_used: bool [slot].
    """

    number: eqx.AbstractVar[Int[Array, " slot"]]
    is_used: eqx.AbstractVar[Bool[Array, " slot"]]

    @abc.abstractmethod
    def put_back(self, new: Any, old: Any, axis: int = 0) -> Any:
        """[slot, ...] into [lane, ...]"""

    def gather(self, tree: Any, axis: int = 0) -> Any:
        """[lane, ...] -> [slot, ...]; lanes may be another axis."""
        return jax.tree.map(lambda x: jnp.take(x, self.number, axis=axis, mode="clip"), tree)

    def gather_run(self, run: LaneInputs, axis: LaneAxis) -> LaneInputs:
        """The leaves that have the outermost axis, gathered."""
        return jax.tree.map(
            lambda place, leaves: leaves if place is None else self.gather(leaves),
            axis.in_axes,
            run,
            is_leaf=lambda x: x is None,
        )


class SlotsAtOnce(AbstractLaneSlots):
    """All lanes are found and written together: few operations over all lanes, where an operation costs more than
    what it does.

    slot: int [lane], where each lane is.       is_here: bool [lane], whether it is anywhere.
    """

    number: Int[Array, " slot"]
    is_used: Bool[Array, " slot"]
    slot: Int[Array, " lane"]
    is_here: Bool[Array, " lane"]

    @classmethod
    def first_of(cls, wanted: Bool[Array, " lane"], num_slots: int) -> "SlotsAtOnce":
        """The first lanes that are wanted."""
        rank = jnp.cumsum(wanted, dtype=jnp.int32) - 1
        is_here = wanted & (rank < num_slots)
        lanes = jnp.arange(wanted.shape[0], dtype=jnp.int32)
        holds = is_here[None, :] & (rank[None, :] == jnp.arange(num_slots, dtype=jnp.int32)[:, None])
        number = jnp.max(jnp.where(holds, lanes[None, :], -1), axis=1)
        return cls(jnp.maximum(number, 0), number >= 0, jnp.clip(rank, 0, num_slots - 1), is_here)

    def put_back(self, new: Any, old: Any, axis: int = 0) -> Any:
        def one(new: Array, old: Array) -> Array:
            here = self.is_here.reshape(-1, *(1,) * (old.ndim - 1 - axis))
            return jnp.where(here, jnp.take(new, self.slot, axis=axis, mode="clip"), old)

        return jax.tree.map(one, new, old)


class SlotsInTurn(AbstractLaneSlots):
    """Lanes are found and written one slot after the other, and all else stays where it is: what one kernel does best
    (`jaxsim.engine.schedules.xla_kernel`)."""

    number: Int[Array, " slot"]
    is_used: Bool[Array, " slot"]

    @classmethod
    def first_of(cls, wanted: Bool[Array, " lane"], num_slots: int) -> "SlotsInTurn":
        """The first lanes that are wanted."""
        count = wanted.shape[0]
        lanes = jnp.arange(count, dtype=jnp.int32)

        def next_one(before: Array, _: None) -> tuple[Array, Array]:
            lane = jnp.min(jnp.where(wanted & (lanes > before), lanes, count))
            return lane, lane

        _, number = lax.scan(next_one, jnp.int32(-1), length=num_slots)
        return cls(jnp.minimum(number, count - 1), number < count)

    def put_back(self, new: Any, old: Any, axis: int = 0) -> Any:
        def put(slot: Step, tree: Any) -> Any:
            lane, is_used = self.number[slot], self.is_used[slot]

            def one(new: Array, old: Array) -> Array:
                row, before = (lax.dynamic_index_in_dim(x, at, axis) for x, at in ((new, slot), (old, lane)))
                return lax.dynamic_update_slice_in_dim(old, jnp.where(is_used, row, before), lane, axis)

            return jax.tree.map(one, new, tree)

        return lax.fori_loop(0, self.number.shape[0], put, old)
