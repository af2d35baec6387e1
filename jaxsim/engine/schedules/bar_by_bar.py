"""One bar after the other."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Int

from jaxsim.engine.bar.lane_state import LaneState, at_bar_row
from jaxsim.engine.bar.lanes import LaneAxis, LaneInputs, over_lanes
from jaxsim.engine.bar.step import trade_bar
from jaxsim.engine.base.arrays import Array
from jaxsim.engine.schedules.schedule import AbstractSchedule, Cursor, count_of
from jaxsim.engine.schedules.sinks import AbstractSink, AbstractView, Block, Room, Row

#: Bars whose values are kept until they are added to running sums together.
BLOCK = 64


class _Bar(AbstractView):
    """What lanes hold after one bar."""

    inputs: LaneInputs
    axes: tuple[LaneAxis, ...] = eqx.field(static=True)
    lane: LaneState
    bar: Int[Array, ""]

    @property
    def bars(self) -> Int[Array, " bar"]:
        return self.bar[None]

    def values(self) -> Float[Array, "bar *lanes"]:
        def value(inputs: LaneInputs, lane: LaneState) -> Array:
            return lane.holdings.value(at_bar_row(inputs.market.mark, self.bar))

        return over_lanes(value, self.axes, (0,), 0)(self.inputs, self.lane)[None]

    def units(self) -> Float[Array, "*lanes_and_asset"]:
        return self.lane.holdings.units

    def cash(self) -> Float[Array, "*lanes"]:
        return self.lane.holdings.cash


class Scan(AbstractSchedule):
    """One bar after the other; a row for every bar.

    page: bars per page, where rows are kept.
    """

    page: int = count_of("page", 1024)

    @property
    def sees_every_bar(self) -> bool:
        return True

    def run(
        self, inputs: LaneInputs, axes: tuple[LaneAxis, ...], cursor: Cursor, sink: AbstractSink, num_bars: Any = None
    ) -> tuple[Cursor, AbstractSink]:
        length = inputs.market.close.shape[-2]
        end = jnp.asarray(length if num_bars is None else num_bars, jnp.int32)
        page = min(self.page, length)
        size = min(BLOCK, page)
        number = jnp.arange(cursor.seen.size, dtype=jnp.int32).reshape(cursor.seen.shape)

        def trade(lane: LaneState, bar: Int[Array, ""]) -> tuple[LaneState, Row]:
            def one_lane(inputs: LaneInputs, lane: LaneState, number: Array) -> tuple[LaneState, Row]:
                outcome = trade_bar(inputs, lane, bar)
                return outcome.lane, Row.of(number, bar, outcome)

            return over_lanes(one_lane, axes, (0, 0), 0)(inputs, lane, number)

        def one_bar(bar: Int[Array, ""], state: tuple[LaneState, AbstractSink]) -> tuple[LaneState, AbstractSink]:
            lane, sink = state
            lane, row = trade(lane, bar)
            return lane, sink.record(row, None).look(_Bar(inputs, axes, lane, bar), None, None)

        def one_block(state: tuple[Cursor, AbstractSink]) -> tuple[Cursor, AbstractSink]:
            cursor, sink = state
            block, after = Block.at(cursor.bar, size, length), jnp.minimum(cursor.bar + size, end)
            lane, sink = lax.fori_loop(cursor.bar, after, one_bar, (cursor.lane, sink.begin(block)))
            return Cursor(lane, cursor.seen, after), sink.finish(block, end)

        def goes_on(state: tuple[Cursor, AbstractSink]) -> Array:
            cursor, sink = state
            return (cursor.bar < end) & sink.has_room(size)

        opened = sink.opened(cursor.lane, Room(size, page, lambda: trade(cursor.lane, cursor.bar)[1]))
        return lax.while_loop(goes_on, one_block, (cursor, opened))
