"""What leaves a simulation."""

from typing import Any

import equinox as eqx
from jaxtyping import Bool, Float

from jaxsim.engine.bar.step import Rebalance
from jaxsim.engine.bar.totals import BarTotals
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.trading.status import LaneStatus


class Save(eqx.Module):
    """Which arrays `simulate` keeps beside the value path.

    units: units held after each bar, [time, asset].
    events: the orders, targets and recorded arrays of every bar; those of bars without a rebalance are zero.
    """

    units: bool = eqx.field(static=True, default=True)
    events: bool = eqx.field(static=True, default=False)


class BarPaths(eqx.Module):
    """What a loop over the bars of one lane hands out; inside of the loop, what one bar adds.

    value, cash: currency.      asked: the bars on which the allocator was asked.
    totals: of each bar.
    units, events: None unless they are saved.      recorded: what `observe` recorded at every bar.
    status: of the lane at the end; None inside of the loop.
    """

    value: Float[Array, "*time"]
    cash: Float[Array, "*time"]
    asked: Bool[Array, "*time"]
    totals: BarTotals
    units: Float[Array, "*time asset"] | None
    events: Rebalance | None
    recorded: dict[str, Any]
    status: LaneStatus | None = None


class Simulation(eqx.Module):
    """What came out of one lane. All paths are after the bar, marked at its close.

    value, cash: currency.      returns: simple, bar 0 against the opening value, so that entry costs are in it.
    rebalanced: the bars on which the allocator was asked, filled or not.
    fees: paid at each bar, currency.       traded: sum over assets of abs(units * price) of its fills, currency.
    turnover: one-way, traded / (2 * value before the orders), a fraction; its sum is that of `Backtest.turnover`. The
        three have derivatives as the value has.
    status: what went wrong, if anything; nothing is raised.
    units: as `Save.units`.     events, aux: as `Save.events`; `aux` is what `observe` recorded at every bar.
    """

    value: Float[Array, " time"]
    returns: Float[Array, " time"]
    cash: Float[Array, " time"]
    rebalanced: Bool[Array, " time"]
    fees: Float[Array, " time"]
    traded: Float[Array, " time"]
    turnover: Float[Array, " time"]
    status: LaneStatus
    units: Float[Array, "time asset"] | None
    events: Rebalance | None
    aux: dict[str, Any] | None
