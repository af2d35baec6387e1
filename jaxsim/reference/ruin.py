"""Ruin, for one lane: an account that is worth nothing after a close is closed at the next bar, and trades no more."""

from math import nan
from typing import Any

from jaxsim.engine.base.enums import SizeType
from jaxsim.engine.trading.status import Incident, LaneFault, OrderReason
from jaxsim.reference.records import Answer, Rebalance


def is_ruined_before(lane: Any, bar: int) -> bool:
    """Whether the account was worth nothing after the bar before this one, for the first time (rules 12.7)."""
    if lane.goes_on or lane.is_ruined or bar == 0 or lane.fault[0] != LaneFault.NONE:
        return False
    if not lane.worth(lane.mark[bar - 1]) <= 0:
        return False
    lane.is_ruined = True
    lane.incidents |= Incident.RUINED
    return True


def close_all(lane: Any, bar: int, value: float) -> Rebalance:
    """Close all that is held as far as it can be; returns the record of it."""
    sizes = [0.0 if units != 0 else nan for units in lane.units]
    size_type = [int(SizeType.TARGET_AMOUNT)] * lane.num_assets
    direction = [int(x) for x in lane.direction[bar]]
    answer = Answer(sizes, [size != 0 for size in sizes], size_type, direction, False, lane.call_seq, lane.aux)
    lane.terms.pop("raise_reject", None)  # what cannot be closed is no fault
    excess = lane.excess(bar, value)
    orders = lane.execute(bar, value, sizes, answer)
    orders = {n: x if sizes[n] != 0 else x._replace(rank=-OrderReason.RUINED) for n, x in orders.items()}
    orders |= lane.closed
    return Rebalance(
        bars=bar,
        value=value,
        excess=excess,
        target=list(lane.target),
        size_type=[int(x) for x in lane.size_type[bar]],
        direction=direction,
        sequence=[nan] * lane.num_assets,
        is_decision=False,
        units=list(lane.units),
        cash=lane.cash,
        free_cash=lane.free_cash,
        aux=lane.aux,
        log=[orders[n] for n in range(lane.num_assets)],
    )
