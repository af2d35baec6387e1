"""Random order pipelines (`tests.helpers.pipelines`) run by both engines, each case as a lane, and compared with
a peer."""

from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.policy.given import given_orders_policy
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market
from jaxsim.engine.trading.status import OrderStatusInfo
from jaxsim.errors import OrderError, RejectedOrderError
from jaxsim.frames.inputs.bars_per_year import BarsPerYear
from jaxsim.frames.inputs.groups import layout
from jaxsim.frames.inputs.lanes import Lanes
from jaxsim.frames.inputs.market import LanePrices
from jaxsim.frames.inputs.parameters import LaneParameter
from jaxsim.frames.inputs.prices import execution_prices, mark_prices, priced_at, valuation_prices
from jaxsim.frames.inputs.random_keys import RandomKey
from jaxsim.frames.inputs.sweep_axes import Sweep
from jaxsim.frames.results.backtest import Backtest
from jaxsim.frames.results.ledger import ledger_from_runs
from jaxsim.frames.results.paths import Paths, RunContext
from jaxsim.frames.results.records.logs import log_records
from jaxsim.frames.runs.compiled import run_batch
from jaxsim.frames.runs.job import Job
from jaxsim.reference import run_lane
from tests.helpers.pipelines import Pipelines

COSTS = (
    *("fees", "fixed_fees", "slippage", "min_size", "max_size", "size_granularity", "reject_prob"),
    *("lock_cash", "allow_partial", "raise_reject"),
)


def markets(p: Pipelines) -> list[Market]:
    """The market of each case."""
    out = []
    for case in range(p.shape[0]):
        close, open_ = p.close[case], None if p.open is None else p.open[case]
        ffill = bool(p.ffill_val_price[case])
        price = execution_prices(p.price[case], close, open_)
        out.append(
            Market(
                close,
                valuation_prices(close, open_, ffill),
                price,
                mark_prices(close, open_),
                priced_at=priced_at(close, open_, ffill),
            )
        )
    return out


def labels(p: Pipelines) -> tuple[pd.Index, pd.Index]:
    """Times, and columns by (case, asset)."""
    num, num_bars, num_assets = p.shape
    columns = pd.MultiIndex.from_product([range(num), [f"A{n}" for n in range(num_assets)]], names=["case", "asset"])
    return pd.date_range("2020-01-01", periods=num_bars, freq="h"), columns


def backtest_of(p: Pipelines, ledger) -> Backtest:
    """The labelled result; one lane for each case."""
    index, columns = labels(p)
    arrangement = layout(columns)
    close = np.concatenate(list(p.close), axis=1)
    mark = np.concatenate([m.mark for m in markets(p)], axis=1)
    context = RunContext(
        index,
        arrangement,
        close,
        mark,
        p.init_cash.astype(float),
        np.zeros(p.shape[0], int),
        BarsPerYear(index),
    )
    return Backtest(Paths(context, [ledger]), pd.Index(range(p.shape[0]), name="case"))


def run_compiled(p: Pipelines, cut: str | None = None) -> tuple[Backtest, dict, Any]:
    """All cases side by side; the Fault of each case that met one; and the keys of the lanes."""
    index, columns = labels(p)

    def leaf(array) -> LaneParameter:
        return LaneParameter(np.asarray(array), by_group=True)

    stacked = jax.tree.map(lambda *x: leaf(np.stack(x)), *markets(p))
    prices = LanePrices(stacked.close, stacked.val_price, stacked.price, stacked.mark, stacked.priced_at)
    policy = given_orders_policy(
        leaf(p.size),
        size_type=leaf(p.size_type.astype(np.int32)),
        direction=leaf(np.broadcast_to(p.direction, p.shape).astype(np.int32)),
        call_seq=leaf(p.call_seq.astype(np.int32)),
        cut=cut,
    )
    costs = Costs(**{name: leaf(getattr(p, name)) for name in COSTS}, update_value=leaf(p.update_value))
    lanes = Lanes(Sweep(), layout(columns), RandomKey.of(0))
    with jax.enable_x64(True):
        job = Job(index, lanes, prices, None, policy, costs, Account(leaf(p.init_cash)), keep_log=True)
        ledger, faults = run_batch(job, np.arange(p.shape[0]))
    return backtest_of(p, ledger), {fault.lane: fault for fault in faults}, lanes.keys


def run_reference(p: Pipelines, case: int, market: Market, key, cut: str | None = None):
    """One case by the reference engine: its LaneRun, or the error that it raised."""
    policy = given_orders_policy(
        p.size[case],
        size_type=p.size_type[case],
        direction=np.broadcast_to(p.direction, p.shape)[case],
        call_seq=np.asarray(p.call_seq[case]),
        cut=cut,
    )
    costs = Costs(**{name: getattr(p, name)[case] for name in COSTS}, update_value=np.asarray(p.update_value[case]))
    try:
        with jax.enable_x64(True):
            return run_lane(market, policy, costs, Account(float(p.init_cash[case])), key)
    except OrderError as error:
        return error


EXACT = ("idx", "res_side", "res_status", "res_status_info", "req_size_type", "req_direction", "order_id")


def before_a_hair(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two logs up to the first order for which vectorbt rounds down what is a hair below a lot (rules 1.5)."""
    both = min(len(ours), len(theirs))
    filled, less = (np.nan_to_num(log["res_size"][:both]) for log in (ours, theirs))
    lot, reason = theirs["req_size_granularity"][:both], theirs["res_status_info"][:both]
    is_hair = is_one_lot_more(filled, less, lot)
    is_hair |= (filled > 0) & (reason == OrderStatusInfo.PARTIAL_FILL) & ~np.isnan(lot)  # less is not allowed
    end = int(is_hair.argmax()) if is_hair.any() else None
    return ours[:end], theirs[:end]


def is_one_lot_more(filled: np.ndarray, less: np.ndarray, lot: np.ndarray) -> np.ndarray:
    """Where a fill is one lot larger than another; False without lots."""
    return np.abs(filled - less - lot) <= 1e-9 * np.maximum(filled, lot)


def differing_logs(ours: np.ndarray, theirs: np.ndarray, scale: float, rtol: float = 1e-9) -> str | None:
    """The first record in which two logs differ, `col` apart from where it begins; None if they agree.

    scale: of money: differences below 1e-12 of it are rounding.
    """
    if len(ours) != len(theirs):
        return f"{len(ours)} log records against {len(theirs)}"
    for name in ours.dtype.names:
        if name in ("id", "group", "req_price", "col"):
            continue
        a, b = ours[name], theirs[name]
        if name in EXACT or a.dtype.kind == "b":
            same = a == b
        else:
            same = np.isclose(a, b, rtol=rtol, atol=1e-12 * scale, equal_nan=True)
        if not same.all():
            k = int(np.argmin(same))
            return f"record {k}, bar {ours['idx'][k]}, column {ours['col'][k]}: {name} {a[k]!r} against {b[k]!r}"
    columns = ours["col"] - (ours["col"].min() if len(ours) else 0), theirs["col"]
    return None if np.array_equal(columns[0] % _width(theirs), columns[1] % _width(theirs)) else "other columns"


def _width(records: np.ndarray) -> int:
    return int(records["col"].max()) + 1 if len(records) else 1


def logs_by_case(bt: Backtest) -> list[np.ndarray]:
    """The log records of each lane."""
    records, lane, _ = log_records(bt._paths.ledgers, bt._paths.first_column)
    ends = np.searchsorted(lane, np.arange(bt._num_lanes + 1))
    out = []
    for case in range(bt._num_lanes):
        part = records[ends[case] : ends[case + 1]].copy()
        part["col"] -= bt._paths.first_column[case]
        filled = part["order_id"] >= 0
        part["order_id"] = np.where(filled, np.cumsum(filled) - 1, -1)
        out.append(part)
    return out


def reference_logs(run, num_assets: int) -> np.ndarray:
    """The log records of a LaneRun."""
    ledger = ledger_from_runs([run], np.arange(1), np.arange(num_assets)[None], keep_log=True)
    return log_records([ledger], np.array([0, num_assets]))[0]


def is_rejection(error: Exception) -> bool:
    return isinstance(error, RejectedOrderError)
