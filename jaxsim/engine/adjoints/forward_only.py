"""A simulation that is run forward by a fast schedule, and has no derivative."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxsim.engine.adjoints.adjoint import AbstractAdjoint
from jaxsim.engine.bar.lanes import LaneInputs
from jaxsim.engine.bar.simulation import BarPaths, Save
from jaxsim.engine.base.numerics import dot
from jaxsim.engine.schedules.schedule import AbstractSchedule, Cursor
from jaxsim.engine.schedules.sinks import PathSink


class ForwardOnly(AbstractAdjoint):
    """Run by a schedule; derivatives are refused."""

    schedule: AbstractSchedule

    def loop(self, inputs: LaneInputs, save: Save) -> BarPaths:
        inputs = refuse_derivatives(
            inputs,
            "schedule: js.NextEvent() runs forward only and has no derivative; leave the schedule out, or take "
            "adjoint=js.AtEvents(), which looks ahead too",
        )
        market = inputs.market
        sink = PathSink(market.num_bars, market.num_assets, save.events)
        cursor, kept = self.schedule.run(inputs, (), Cursor.start(inputs, ()), sink)
        assert isinstance(kept, PathSink)
        return BarPaths(
            value=jax.vmap(dot)(kept.cash, kept.units, market.mark),
            cash=kept.cash,
            asked=kept.asked,
            totals=kept.totals,
            units=kept.units if save.units else None,
            events=kept.events,
            recorded={},
            status=cursor.lane.status,
        )


def refuse_derivatives(tree: Any, message: str) -> Any:
    """The same, and a TypeError with this message where its numbers are differentiated."""
    numbers, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(_without_derivatives(message, jax.tree.map(jnp.asarray, numbers)), rest)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _without_derivatives(message: str, tree: Any) -> Any:
    return tree


@_without_derivatives.defjvp
def _refuse(message: str, primals: tuple, tangents: tuple) -> Any:
    raise TypeError(message)
