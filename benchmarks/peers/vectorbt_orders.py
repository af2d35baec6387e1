"""One order per asset and bar in vectorbt 1.2.0: `Portfolio.from_order_func` with Numba callbacks.

The judge of random order pipelines (`tests.helpers.pipelines`): a case is one group with shared cash, and follows
rules 4. Everything is compiled once for all shapes and data (and once more where T or N is 1, where
vectorbt's own arrays change type): every array is 2-dim and C-contiguous.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import vectorbt as vbt
from numba import njit
from vectorbt.portfolio import nb
from vectorbt.portfolio.enums import OrderStatus

from tests.helpers.pipelines import AUTO, REVERSED, Pipelines

#: The fields of an order, as `order_nb` takes them, and their types.
FIELDS = {
    "size": float,
    "price": float,
    "size_type": int,
    "direction": int,
    "fees": float,
    "fixed_fees": float,
    "slippage": float,
    "min_size": float,
    "max_size": float,
    "size_granularity": float,
    "reject_prob": float,
    "lock_cash": bool,
    "allow_partial": bool,
    "raise_reject": bool,
}


# Simulation callbacks


@njit
def sort_by_order_value_nb(c, size, size_type, direction):
    """The call sequence of this bar, in place, as vectorbt's own `sort_call_seq_nb` has it: ascending by order value,
    stable; NaN last, and several of them reversed."""
    cash, free_cash = c.last_cash[c.group], c.last_free_cash[c.group]
    value = nb.get_group_value_ctx_nb(c)
    order_values = np.empty(c.group_len)
    for k in range(c.group_len):
        col = c.from_col + k
        order_value = nb.approx_order_value_nb(
            size[c.i, k],
            size_type[c.i, k],
            direction[c.i, k],
            cash,
            c.last_position[col],
            free_cash,
            c.last_val_price[col],
            value,
        )
        place = k
        while place > 0 and (order_values[place - 1] > order_value or np.isnan(order_values[place - 1])):
            order_values[place] = order_values[place - 1]
            c.call_seq_now[place] = c.call_seq_now[place - 1]
            place -= 1
        order_values[place] = order_value
        c.call_seq_now[place] = k


@njit
def pre_segment_func_nb(c, open_, size, size_type, direction, call_seq):
    # vectorbt values the group anew right after this function
    if open_.shape[0] > 0:
        for k in range(c.group_len):
            if not (np.isnan(open_[c.i, k]) and c.ffill_val_price):
                c.last_val_price[c.from_col + k] = open_[c.i, k]
    if call_seq == REVERSED:
        for k in range(c.group_len):
            c.call_seq_now[k] = c.group_len - 1 - k
    elif call_seq == AUTO:
        sort_by_order_value_nb(c, size, size_type, direction)
    any_order = False
    for k in range(c.group_len):
        any_order |= not np.isnan(size[c.i, k])
    return (any_order,)


@njit
def order_func_nb(
    c,
    any_order,
    size,
    price,
    size_type,
    direction,
    fees,
    fixed_fees,
    slippage,
    min_size,
    max_size,
    size_granularity,
    reject_prob,
    lock_cash,
    allow_partial,
    raise_reject,
):
    if not any_order:
        return nb.order_nothing_nb()
    i, k = c.i, c.col - c.from_col
    return nb.order_nb(
        size=size[i, k],
        price=price[i, k],
        size_type=size_type[i, k],
        direction=direction[i, k],
        fees=fees[i, k],
        fixed_fees=fixed_fees[i, k],
        slippage=slippage[i, k],
        min_size=min_size[i, k],
        max_size=max_size[i, k],
        size_granularity=size_granularity[i, k],
        reject_prob=reject_prob[i, k],
        lock_cash=lock_cash[i, k],
        allow_partial=allow_partial[i, k],
        raise_reject=raise_reject[i, k],
        log=True,
    )


@dataclass
class PeerRun:
    """What vectorbt made of a case.

    raised: the error's class and text, and then nothing else.
    orders, logs: structured records in simulation order; logs of all assets on each bar on which any has an order.
    skip: why the case is none to compare with, if so.
    """

    raised: str | None
    orders: np.ndarray | None = None
    logs: np.ndarray | None = None
    pf: vbt.Portfolio | None = None
    skip: str | None = None


def _as_array(a, shape, dtype=np.float64):
    """A C-contiguous writable array of this shape: one Numba type per dtype."""
    return np.array(np.broadcast_to(a, shape), dtype=dtype, order="C")


def run(pipelines: Pipelines, case: int) -> PeerRun:
    """Simulate one case; pipelines.direction may also be [P, N]."""
    _, *shape = pipelines.shape
    close = _as_array(pipelines.close[case], shape)
    open_ = np.empty((0, 0)) if pipelines.open is None else _as_array(pipelines.open[case], shape)
    order = {name: _as_array(getattr(pipelines, name)[case], shape, dtype) for name, dtype in FIELDS.items()}
    if pipelines.open is not None:  # without an open, -inf is vectorbt's -inf: the previous close
        order["price"] = np.where(order["price"] == -np.inf, open_, order["price"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pf = vbt.Portfolio.from_order_func(
                pd.DataFrame(close),
                order_func_nb,
                *order.values(),
                pre_segment_func_nb=pre_segment_func_nb,
                pre_segment_args=(
                    open_,
                    order["size"],
                    order["size_type"],
                    order["direction"],
                    int(pipelines.call_seq[case]),
                ),
                init_cash=float(pipelines.init_cash[case]),
                update_value=bool(pipelines.update_value[case]),
                ffill_val_price=bool(pipelines.ffill_val_price[case]),
                cash_sharing=True,
                group_by=np.zeros(shape[1], dtype=int),
                max_orders=close.size,
                max_logs=close.size,
                freq="1h",
            )
    except Exception as error:  # vectorbt has no class of its own for what is wrong with an order
        return PeerRun(f"{type(error).__name__}: {error}")
    orders, logs = pf.orders.values, pf.logs.values
    filled = logs[logs["res_status"] == OrderStatus.Filled]
    void = filled[~(np.isfinite(filled["res_size"]) & (filled["res_size"] > 0))]
    skip = None
    if len(void):
        bar, col, size = (void[name][0] for name in ("idx", "col", "res_size"))
        skip = f"bar {bar}, asset {col}: filled with a size of {size}"
    return PeerRun(None, orders, logs, pf, skip)
