"""`Terms`: the keyword arguments of `js.backtest` on their way from a verb to the run."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypedDict, Union

import numpy as np
import pandas as pd

from jaxsim.engine.base.enums import CallSeq, Direction, SizeType
from jaxsim.engine.base.fields import CALL_SEQ, DIRECTION, SIZE_TYPE, Codes
from jaxsim.engine.policy.destinations import AbstractDestination
from jaxsim.engine.schedules.schedule import AbstractSchedule
from jaxsim.engine.trading.costs import NEUTRAL, Costs
from jaxsim.frames.inputs.benchmark import Benchmark
from jaxsim.frames.inputs.delistings import STALE, Delistings, Stale
from jaxsim.frames.inputs.durations import Duration
from jaxsim.frames.inputs.groups import Groups
from jaxsim.frames.inputs.market import IGNORED
from jaxsim.frames.inputs.parameters import (
    CodeParameter,
    LaneParameter,
    LaneValue,
    Parameter,
    ParameterReader,
    module_from,
)
from jaxsim.frames.inputs.prices import Features, Table
from jaxsim.frames.inputs.random_keys import Key
from jaxsim.frames.inputs.sweep_axes import Swept, is_swept

if TYPE_CHECKING:
    from distributed import Client

#: The name of an engine, or a Dask client.
Engine = Union[str, "Client"]
#: Numbers by asset, by asset and group, or by label to sweep.
Holding = pd.Series | pd.DataFrame | Mapping[Hashable, pd.Series | pd.DataFrame]
#: One code for all assets of a lane: a member of an enum, its number or its name.
LaneCode = str | LaneValue


@dataclass(frozen=True, eq=False, kw_only=True)
class Terms:
    """The keyword arguments of `js.backtest`, with the same defaults, as the user gave them; see there for each.

    Verbs with arguments of their own, such as `js.replay`, leave the others at their defaults.
    """

    # plain orders, and what sizes or weights mean
    size: Parameter | None = None
    size_type: CodeParameter | None = None
    direction: CodeParameter | None = None
    call_seq: LaneCode | None = None
    cut: str | None = None
    # prices beside the closes
    open: Table | None = None
    price: Parameter | None = None
    ffill_val_price: LaneValue = True
    # assets that leave, and prices that are missing
    stale: Stale = STALE
    delistings: Delistings = None
    drift_without_price: str = IGNORED
    # when to trade, and how far
    trigger: Callable | None = None
    destination: AbstractDestination | None = None
    # costs and limits: the fields of `Costs`
    fees: Parameter = 0.0
    fixed_fees: Parameter = 0.0
    slippage: Parameter = 0.0
    min_size: Parameter = 0.0
    max_size: Parameter = np.inf
    size_granularity: Parameter = np.nan
    reject_prob: Parameter = 0.0
    lock_cash: Parameter = False
    allow_partial: Parameter = True
    raise_reject: Parameter = False
    min_value: Parameter = 0.0
    min_fee: Parameter = 0.0
    max_fee: Parameter = np.inf
    fee_per_unit: Parameter = 0.0
    update_value: LaneValue = False
    # lanes
    min_history: LaneValue = 0
    start: LaneValue | None = None
    init_cash: LaneValue = 100.0
    init_units: Holding | None = None
    init_target: Holding | str | None = None
    init_average_cost: Holding | None = None
    groups: Groups | None = None
    by: Hashable = None
    features: Features = None
    benchmark: Benchmark | None = None
    freq: Duration | None = None
    year_freq: Duration | None = None
    bars_per_year: float | None = None
    key: Key | Swept = 0
    # how to run them
    engine: Engine = "compiled"
    schedule: AbstractSchedule | None = None
    log: bool = False
    progress: bool = False


class TradingKeywords(TypedDict, total=False):
    """The fields of `Terms` for verbs that have the others as arguments of their own."""

    size_type: CodeParameter | None
    direction: CodeParameter | None
    call_seq: LaneCode | None
    cut: str | None
    ffill_val_price: LaneValue
    stale: Stale
    delistings: Delistings
    drift_without_price: str
    fees: Parameter
    fixed_fees: Parameter
    slippage: Parameter
    min_size: Parameter
    max_size: Parameter
    size_granularity: Parameter
    reject_prob: Parameter
    lock_cash: Parameter
    allow_partial: Parameter
    raise_reject: Parameter
    min_value: Parameter
    min_fee: Parameter
    max_fee: Parameter
    fee_per_unit: Parameter
    update_value: LaneValue
    start: LaneValue | None
    init_cash: LaneValue
    init_units: Holding | None
    init_target: Holding | str | None
    init_average_cost: Holding | None
    freq: Duration | None
    year_freq: Duration | None
    bars_per_year: float | None
    key: Key | Swept
    engine: Engine
    schedule: AbstractSchedule | None


def terms_of(keywords: Mapping[str, Any]) -> Terms:
    """The terms that a verb was given as keywords. Raises TypeError naming an argument that `js.backtest` has not."""
    known = [field.name for field in fields(Terms)]
    for name in keywords:
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise TypeError(
                f"{name}: js.backtest has no such argument" + (f"; did you mean {near[0]}?" if near else "")
            )
    return Terms(**keywords)


class TermsKeywords(TradingKeywords, total=False):
    """The fields of `Terms`, for verbs that pass all of them on: `**terms: Unpack[TermsKeywords]`."""

    size: Parameter | None
    open: Table | None
    price: Parameter | None
    trigger: Callable | None
    destination: AbstractDestination | None
    min_history: LaneValue
    groups: Groups | None
    by: Hashable
    features: Features
    benchmark: Benchmark | None
    log: bool
    progress: bool


@dataclass(frozen=True)
class Meaning:
    """What the numbers of an allocator or of plain orders mean, as users or a `Policy` say it; None: not said."""

    size_type: CodeParameter | None = None
    direction: CodeParameter | None = None
    call_seq: LaneCode | None = None


#: The kinds of the fields of `Meaning`, and what they are when they are not said.
MEANING: Mapping[str, tuple[Codes, int]] = {
    "size_type": (SIZE_TYPE, SizeType.TARGET_PERCENT),
    "direction": (DIRECTION, Direction.BOTH),
    "call_seq": (CALL_SEQ, CallSeq.AUTO),
}


def read_costs(terms: Terms, reader: ParameterReader) -> Costs:
    """`Costs` of `LaneParameter`. A cost that is neutral everywhere is None, so that programs are compiled without it.

    Raises ValueError or TypeError naming the argument.
    """
    costs: dict[str, LaneParameter | None] = {}
    for field in fields(Costs):
        name, kind, value = field.name, field.metadata["kind"], getattr(terms, field.name)
        if _is_default(value, NEUTRAL.get(name)):
            costs[name] = None
            continue
        read = reader.by_bar_and_asset if field.metadata["by_bar_and_asset"] else reader.per_lane
        cost = read(value, name, kind)
        costs[name] = None if name in NEUTRAL and _is_everywhere(cost, NEUTRAL[name]) else cost
    whole = module_from(Costs, costs)
    whole.check()
    return whole


def read_meaning(
    meaning: Meaning, reader: ParameterReader, are_orders: bool = False
) -> dict[str, LaneParameter | None]:
    """The fields of a `Policy` that say what its numbers mean; None where they are not said, or say the default.

    are_orders: sizes are those of plain orders. They are no weights even where they count what weights count.
    Raises ValueError or TypeError naming the argument.
    """
    codes: dict[str, LaneParameter | None] = {}
    for name, (kind, default) in MEANING.items():
        value = getattr(meaning, name)
        if value is None:
            codes[name] = None
            continue
        if name == "call_seq":
            if not is_swept(value) and np.ndim(value) > 0:
                raise ValueError("call_seq: expected one rule; a sequence of assets only an allocator can give")
            code = reader.per_lane(value, name, kind)
        else:
            code = reader.by_bar_and_asset(value, name, kind)
        is_left_out = _is_everywhere(code, default) and not (are_orders and name == "size_type")
        codes[name] = None if is_left_out else code
    return codes


def _is_everywhere(parameter: LaneParameter, neutral: float) -> bool:
    """Whether a parameter has this value in all lanes, at all bars, for all assets."""
    if parameter.by_combination:
        return False
    array = np.asarray(parameter.array)
    return bool((np.isnan(array) if isinstance(neutral, float) and np.isnan(neutral) else array == neutral).all())


def _is_default(value: object, neutral: object) -> bool:
    """Whether an argument has its default value. This saves reading it, and also holds for NaN."""
    return neutral is not None and type(value) is type(neutral) and repr(value) == repr(neutral)


def is_set(value: object, neutral: object) -> bool:
    """Whether the user has set an argument to something other than its neutral value."""
    if value is None or is_swept(value) or not np.isscalar(value):
        return value is not None
    return value != neutral
