"""What an allocator's answer asks to be traded at one bar, and what can be wrong with the answer."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxsim.engine.base.arrays import Array, where
from jaxsim.engine.base.enums import CallSeq, Direction, SizeType
from jaxsim.engine.base.numerics import at_bar
from jaxsim.engine.policy.allocation import Allocation
from jaxsim.engine.policy.destinations import ToTarget
from jaxsim.engine.policy.observation import Observation
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.trading.cut import PRO_RATA
from jaxsim.engine.trading.order import first_of
from jaxsim.engine.trading.rebalance import Request
from jaxsim.engine.trading.status import LaneFault


def request_of(policy: Policy, allocation: Allocation, obs: Observation) -> Request:
    """What an allocation asks to be traded. The policy fills in what the allocation leaves open. Weights are traded as
    far as the policy's destination goes, other sizes as they are."""

    def chosen(own: Any, default: Any) -> Any:
        if own is None and default is not None:
            return jnp.broadcast_to(at_bar(default, obs.step), obs.units.shape)
        return own

    order, sequence = allocation.call_seq, None
    if order is not None and order.ndim:
        sequence = where((order == -1).all(), -1, jnp.argsort(order, stable=True)).astype(jnp.int32)
    if order is None or order.ndim:
        order = policy.call_seq
    size, size_type = allocation.weights, chosen(allocation.size_type, policy.size_type)
    direction = chosen(allocation.direction, policy.direction)
    if size_type is None and not isinstance(policy.destination, ToTarget):
        size = facing(direction, policy.destination(obs, facing(direction, size), policy.trigger))
    has_ties, cuts_alike = not isinstance(policy.destination, ToTarget), policy.cut == PRO_RATA
    return Request(size, size_type, direction, order, sequence, has_ties, cuts_alike=cuts_alike)


def facing(direction: Int[Array, " asset"] | None, weights: Float[Array, " asset"]) -> Float[Array, " asset"]:
    """Weights as sizes, or sizes as weights: where only short positions are allowed, one is the other's negative."""
    return weights if direction is None else where(direction == Direction.SHORT_ONLY, -weights, weights)


def allocation_faults(allocation: Allocation, request: Request) -> Int[Array, " asset"]:
    """The LaneFault of each number that an allocator answered. Sizes that are no weights may be infinite, which stands
    for as much as can be traded."""
    weights = allocation.weights
    cases = [(jnp.isnan(weights), LaneFault.WEIGHT_NAN)]
    if request.size_type is None:
        cases.append((jnp.isinf(weights), LaneFault.WEIGHT_INFINITE))
    if request.cuts_alike and request.size_type is not None:
        cases.append((jnp.isinf(weights) | (request.size_type == SizeType.PERCENT), LaneFault.CUT))
    fault = where(allocation.skip, LaneFault.NONE, first_of(cases, LaneFault.NONE))
    for codes, kind in ((request.size_type, SizeType), (request.direction, Direction), (request.call_seq, CallSeq)):
        if codes is not None:
            is_known = jnp.isin(codes, jnp.array([int(member) for member in kind]))
            fault = where(is_known | (fault != LaneFault.NONE), fault, LaneFault.CODE)
    if request.sequence is not None:
        order = allocation.call_seq
        is_order = (jnp.sort(order) == jnp.arange(weights.shape[0])).all() | (order == -1).all()
        fault = where(is_order | (fault != LaneFault.NONE), fault, LaneFault.CALL_SEQ)
    return fault.astype(jnp.int32)
