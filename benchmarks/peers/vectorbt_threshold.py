"""Threshold rebalancing in vectorbt 1.2.0: `Portfolio.from_order_func` with Numba callbacks.

The parity tests and the benchmarks compare jaxsim with it. K lanes (of thresholds and other parameters) are K groups of
N columns with shared cash. Every callback is compiled once and gets its data as arguments, in 2-dim C-contiguous
arrays, so new data compiles nothing. Another allocation function compiles again, and so does K = N = 1, where
vectorbt's own arrays change type.

Check and timing: `python -m benchmarks.peers.vectorbt_threshold`.
"""

import warnings
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import pandas as pd
import vectorbt as vbt
from numba import njit
from vectorbt.portfolio import nb
from vectorbt.portfolio.enums import Direction, SizeType

MOMENTUM_WINDOW = 24
MOMENTUM_SCALE = 10.0


# Allocation functions: (c: SegmentContext, target_alloc_out: [N], *args) -> None


@njit
def constant_allocate_nb(c, target_alloc_out, weights):
    """Fixed weights, [K, N], one row per lane."""
    target_alloc_out[:] = weights[c.group]


@njit
def random_allocate_nb(c, target_alloc_out):
    """Uniform random weights that sum to 1, drawn lane after lane (group-major)."""
    draws = np.random.uniform(0, 1, c.group_len)
    target_alloc_out[:] = draws / draws.sum()


@njit
def momentum_allocate_nb(c, target_alloc_out):
    """softmax(10 * mean simple return over the 24 closes before this bar); equal weights before that.

    Every asset counts: a NaN close in the window makes all weights NaN, and the orders are ignored.
    """
    if c.i < MOMENTUM_WINDOW:
        target_alloc_out[:] = 1 / c.group_len
        return
    for k in range(c.group_len):
        col = c.from_col + k
        total = 0.0
        for i in range(c.i - MOMENTUM_WINDOW + 1, c.i):
            total += (c.close[i, col] - c.close[i - 1, col]) / c.close[i - 1, col]
        target_alloc_out[k] = MOMENTUM_SCALE * total / (MOMENTUM_WINDOW - 1)
    target_alloc_out[:] = np.exp(target_alloc_out - target_alloc_out.max())
    target_alloc_out /= target_alloc_out.sum()


# Simulation callbacks


@njit
def pre_group_func_nb(c):
    target_alloc = np.full(c.group_len, np.nan)
    size_type = np.full(c.group_len, SizeType.TargetPercent)
    direction = np.full(c.group_len, Direction.Both)
    order_value_out = np.full(c.group_len, np.nan)
    return target_alloc, size_type, direction, order_value_out


@njit
def pre_segment_func_nb(
    c,
    target_alloc,
    size_type,
    direction,
    order_value_out,
    min_history,
    open_,
    thresholds,
    points,
    allocations,
    counter,
    allocate_func_nb,
    *allocate_args,
):
    # Value at the open (the last known price where it is NaN); without opens at the previous close
    if open_.shape[0] > 0:
        for k in range(c.group_len):
            if not np.isnan(open_[c.i, k]):
                c.last_val_price[c.from_col + k] = open_[c.i, k]

    should_rebalance = False
    if c.i >= min_history:
        in_position = False
        value = c.last_cash[c.group]
        for col in range(c.from_col, c.to_col):
            if c.last_position[col] != 0:
                in_position = True
                value += c.last_position[col] * c.last_val_price[col]
        if not in_position:
            should_rebalance = True
        else:
            for k in range(c.group_len):
                col = c.from_col + k
                alloc = c.last_position[col] * c.last_val_price[col] / value
                if abs(alloc - target_alloc[k]) >= nb.get_col_elem_nb(c, col, thresholds):
                    should_rebalance = True
                    break

    if should_rebalance:
        allocate_func_nb(c, target_alloc, *allocate_args)
        # ctx_select=False: the arrays have the length of the group. The default would index them by the global column,
        # out of bounds from the second lane on, without an error.
        nb.sort_call_seq_nb(c, target_alloc, size_type, direction, order_value_out, False)
        points[counter[0], 0] = c.group
        points[counter[0], 1] = c.i
        allocations[counter[0]] = target_alloc
        counter[0] += 1
    return target_alloc, should_rebalance


@njit
def order_func_nb(c, target_alloc, should_rebalance, price, fees):
    if not should_rebalance:
        return nb.order_nothing_nb()
    k = c.col - c.from_col
    return nb.order_nb(
        size=target_alloc[k],
        price=price[c.i, k],
        size_type=SizeType.TargetPercent,
        direction=Direction.Both,
        fees=nb.get_elem_nb(c, fees),
    )


@dataclass
class Result:
    """A simulated portfolio with its rebalances: `targets[k]` has one row per True in `rebalanced[:, k]`."""

    pf: vbt.Portfolio
    rebalanced: np.ndarray
    targets: list[np.ndarray]
    seconds: float  # of `from_order_func` alone, without the preparation of its inputs


def _as_array(a):
    """A 2-dim C-contiguous writable float array: one Numba type for all inputs."""
    return np.require(np.array(a, dtype=np.float64, ndmin=2), requirements=["C", "W"])


def _tile(specs, n_rows, n_cols, name):
    """Per-lane arguments ([], [N], [1, N], [T, 1] or [T, N] each) side by side: [1 or T, K * N]."""
    arrays = [_as_array(spec) for spec in specs]
    for a in arrays:
        if a.ndim != 2 or a.shape[0] not in (1, n_rows) or a.shape[1] not in (1, n_cols):
            raise ValueError(f"{name} of shape {a.shape} does not broadcast to {(n_rows, n_cols)}")
    rows = max(a.shape[0] for a in arrays)
    return _as_array(np.concatenate([np.broadcast_to(a, (rows, n_cols)) for a in arrays], axis=1))


def run(
    close,
    open=None,
    *,
    thresholds,
    weights=None,
    fees=0.0,
    init_cash=100.0,
    min_history=0,
    price=None,
    freq="1h",
    allocate_func_nb=None,
    allocate_args=(),
    seed=None,
    **kwargs,
) -> Result:
    """Simulate K lanes of threshold rebalancing over one group of N assets.

    `close`, `open` (valuation) and `price` (execution; default: the close) are DataFrames [T, N].
    `thresholds` is a list of K specs, each a float, [N], [T, 1] or [T, N]; `fees` is one such spec or a list
    of K of them; `weights` is [N] or [K, N]. Instead of weights there may be `allocate_func_nb`, a compiled
    function `(c, target_alloc_out, *allocate_args)`, and a `seed`. Further arguments go to
    `Portfolio.from_order_func` (such as `max_orders` to save memory).
    """
    n_rows, n_cols = close.shape
    n_lanes = len(thresholds)
    for name, frame in (("open", open), ("price", price)):
        if frame is not None and frame.shape != close.shape:
            raise ValueError(f"{name} of shape {frame.shape} does not match close of shape {close.shape}")
    if isinstance(fees, list):
        if len(fees) != n_lanes:
            raise ValueError(f"{len(fees)} fees for {n_lanes} thresholds")
    else:
        fees = [fees] * n_lanes
    if (weights is None) == (allocate_func_nb is None):
        raise ValueError("Pass either weights or allocate_func_nb")
    if weights is not None:
        allocate_func_nb = constant_allocate_nb
        allocate_args = (_as_array(np.broadcast_to(np.asarray(weights, float), (n_lanes, n_cols))),)

    columns = pd.MultiIndex.from_arrays(
        [np.repeat(np.arange(n_lanes), n_cols), np.tile(np.asarray(close.columns), n_lanes)],
        names=["lane", "symbol"],
    )
    close_arr = _as_array(close)
    tiled_close = pd.DataFrame(np.tile(close_arr, (1, n_lanes)), index=close.index, columns=columns)
    open_arr = np.empty((0, 0)) if open is None else _as_array(open)
    price_arr = close_arr if price is None else _as_array(price)

    # Room for a rebalance on each bar of each lane; untouched pages cost nothing
    points = np.empty((n_rows * n_lanes, 2), dtype=np.int64)
    allocations = np.empty((n_rows * n_lanes, n_cols))
    counter = np.zeros(1, dtype=np.int64)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = perf_counter()
        pf = vbt.Portfolio.from_order_func(
            tiled_close,
            order_func_nb,
            price_arr,
            _tile(fees, n_rows, n_cols, "fees"),
            pre_group_func_nb=pre_group_func_nb,
            pre_segment_func_nb=pre_segment_func_nb,
            pre_segment_args=(
                int(min_history),
                open_arr,
                _tile(thresholds, n_rows, n_cols, "threshold"),
                points,
                allocations,
                counter,
                allocate_func_nb,
                *allocate_args,
            ),
            init_cash=np.full(n_lanes, float(init_cash)),
            cash_sharing=True,
            group_by="lane",
            seed=seed,
            freq=freq,
            **kwargs,
        )
        seconds = perf_counter() - start

    points, allocations = points[: counter[0]], allocations[: counter[0]]
    rebalanced = np.zeros((n_rows, n_lanes), dtype=bool)
    rebalanced[points[:, 1], points[:, 0]] = True
    return Result(pf, rebalanced, [allocations[points[:, 0] == k] for k in range(n_lanes)], seconds)


def rebalance_bars(result, k):
    """Row numbers of the bars on which lane k rebalanced."""
    return np.flatnonzero(result.rebalanced[:, k])


def order_records(result, k=None):
    """Order records (id, col, idx, size, price, fees, side); with `k` only those of lane k, with columns from 0."""
    records = result.pf.orders.values
    if k is None:
        return records
    n_cols = result.targets[k].shape[1]
    records = records[records["col"] // n_cols == k].copy()
    records["col"] %= n_cols
    return records


def value_path(result):
    """Portfolio value at the close, [T, K]."""
    return np.asarray(result.pf.value()).reshape(result.rebalanced.shape)


def sharpe_ratios(result):
    """Annualised Sharpe ratio per lane, [K]."""
    return np.atleast_1d(np.asarray(result.pf.sharpe_ratio()))


def _check():
    from tools.outside_data import golden_file, load_binance

    open_, close = load_binance()
    thresholds = [i / 100 for i in range(1, 16)]
    job = {"thresholds": thresholds, "fees": 0.005}
    equal = np.full(5, 1 / 5)

    def same(name, result):
        expected = pd.read_csv(golden_file(name))["sharpe_ratio"].to_numpy()
        hits = int((np.round(sharpe_ratios(result), 6) == expected).sum())
        print(f"{name}: {hits}/{len(expected)} to 6 decimals")
        assert hits == len(expected)

    for label in ("first", "warm", "warm"):
        start = perf_counter()
        uniform = run(close, open_, weights=equal, **job)
        simulated = perf_counter()
        uniform.pf.value(), uniform.pf.orders.records_readable
        stop = perf_counter()
        print(f"{label} call, 8767x5x15: {simulated - start:.3f} s + value, records {stop - simulated:.3f} s")

    same("uniform_sharpe.csv", uniform)
    expected = pd.to_datetime(pd.read_csv(golden_file("uniform_rebalances_0.05.csv"))["timestamp"], utc=True)
    assert list(close.index[rebalance_bars(uniform, 4)]) == list(expected)
    print(f"uniform_rebalances_0.05.csv: {len(expected)} bars")

    drawn = run(close, open_, allocate_func_nb=random_allocate_nb, seed=42, **job)
    same("random_sharpe.csv", drawn)
    table = pd.read_csv(golden_file("random_allocations_0.10_describe.csv"), index_col=0)
    described = pd.DataFrame(drawn.targets[9], columns=close.columns).describe()
    assert np.allclose(described, table, rtol=0, atol=5.1e-7)
    print("random_allocations_0.10_describe.csv: all figures")

    momentum = run(close, open_, allocate_func_nb=momentum_allocate_nb, **job)
    print("momentum, Sharpe:", sharpe_ratios(momentum).round(6))

    # Gaps, a late listing, thresholds and fees of every shape: nothing new is compiled
    compiled = len(nb.simulate_nb.signatures)
    rng = np.random.default_rng(0)
    hole = rng.random(close.shape) < 0.05
    late = np.zeros(close.shape, dtype=bool)
    late[:500, 2] = True
    shapes = [(), (5,), (1, 5), (8767, 1), (8767, 5)]
    specs = [0.05 + 0.05 * rng.random(shape) for shape in shapes]
    for c, o in (
        (close, open_.mask(hole)),
        (close.mask(hole), open_),
        (close.mask(late), open_.mask(late)),
        (close, None),
    ):
        per_lane = run(c, o, thresholds=specs, weights=rng.dirichlet(np.ones(5), 5), fees=[s / 20 for s in specs])
        assert per_lane.rebalanced.any(axis=0).all() and (np.diff(order_records(per_lane)["id"]) == 1).all()
    for k, spec in enumerate(specs):
        one = run(c, o, thresholds=[spec], weights=per_lane.targets[k][0], fees=spec / 20, min_history=0)
        assert np.array_equal(value_path(one)[:, 0], value_path(per_lane)[:, k])
    assert len(nb.simulate_nb.signatures) == compiled
    print("holes, late listing, broadcast shapes: done, nothing compiled anew")


if __name__ == "__main__":
    _check()
