"""Single random orders on random accounts, nonsense among them: the compiled order function against vectorbt's."""

import jax
import numpy as np

from jaxsim.engine.base.enums import SizeType
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.order import Order, Pool, fill
from jaxsim.engine.trading.status import LaneFault, OrderStatus, OrderStatusInfo
from tests.helpers.engines import is_one_lot_more

FIELDS = [
    "size", "price", "size_type", "direction", "fees", "fixed_fees", "slippage", "min_size", "max_size",
    "size_granularity", "reject_prob", "lock_cash", "allow_partial", "raise_reject",
]  # fmt: skip


@jax.jit
def fill_all(states, orders, draws, update_value):
    """Every order against its account; `states` [num, 6], `orders` by name [num]."""

    def one(state, order, draw, update_value):
        flags = {name: order[name] != 0 for name in ("lock_cash", "allow_partial", "raise_reject")}
        numbers = {name: order[name] for name in FIELDS[4:11]}
        costs = Costs(**numbers, **flags, update_value=update_value)
        kinds = (order[name].astype(np.int32) for name in ("size_type", "direction"))
        request = Order(order["size"], *kinds, order["price"], state[1], state[2], state[4], costs, draw)
        return fill(Pool(state[0], state[3], state[5]), request)

    return jax.vmap(one)(states, orders, draws, update_value)


def differing_orders(num: int, seed: int) -> tuple[int, dict, int, list[str], list[str]]:
    """Compare `num` orders; those whose costs `Costs` refuses at the door are drawn again.

    Returns how many were compared, a count of their status infos, how many raised in both, the skipped and the
    mismatches, as texts.
    """
    from tests.reference.test_reference import random_orders, vectorbt_orders

    states, orders, update_value = random_orders(np.random.default_rng(seed), 2 * num)
    sound = np.flatnonzero(_is_admitted(states, orders))[:num]
    assert len(sound) == num
    states, orders, update_value = states[sound], orders[sound], update_value[sound]
    answers, draws, raised = vectorbt_orders(states, orders, update_value, np.arange(num))
    by_name = dict(zip(FIELDS, orders.T, strict=True))
    with jax.enable_x64(True):
        pool, out = jax.tree.map(np.asarray, fill_all(states, by_name, draws, update_value))
    after = np.stack([pool.cash, out.units, out.debt, pool.free_cash, out.val_price, pool.value], axis=1)
    infos, skips, wrong, both = {}, [], [], 0
    for k in range(num):
        case = f"order {k}: {dict(zip(FIELDS, orders[k].tolist(), strict=True))} on {states[k].tolist()}"
        status, info = answers[k, 10:12]
        is_filled = not raised[k] and status == OrderStatus.FILLED
        if is_filled and not (np.isfinite(answers[k, 6]) and answers[k, 6] > 0):
            fault = "Percent of size 0" if np.isnan(answers[k, 6]) else "granules round the part to 0"
            skips.append(f"order {k}: vectorbt filled a size of {answers[k, 6]} ({fault}), ours is SIZE_ZERO")
            if out.info[k] != OrderStatusInfo.SIZE_ZERO:
                wrong.append(f"{case}: expected SIZE_ZERO, ours {out.info[k]}")
            continue
        if raised[k] or out.fault[k]:
            both += bool(raised[k] and out.fault[k])
            if not raised[k] or not out.fault[k]:
                wrong.append(f"{case}: vectorbt raised: {bool(raised[k])}; ours {LaneFault(out.fault[k]).name}")
            continue
        filled, less = np.nan_to_num([abs(out.trade[k]), answers[k, 6]])
        if is_one_lot_more(filled, less, orders[k, FIELDS.index("size_granularity")]):
            skips.append(f"order {k}: vectorbt rounds down what is a hair below a lot")
            continue
        infos[int(info)] = infos.get(int(info), 0) + 1
        got = [*after[k], abs(out.trade[k]), out.price[k], out.fees[k]] if is_filled else after[k]
        expected = answers[k, :9] if is_filled else answers[k, :6]
        if out.info[k] != info or not np.allclose(got, expected, rtol=1e-9, atol=1e-12, equal_nan=True):
            wrong.append(f"{case}: {OrderStatusInfo(int(info)).name} {expected}, ours {out.info[k]} {got}")
    return num - len(skips), infos, both, skips, wrong


def _is_admitted(states: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Costs within their bounds, and accounts that a simulation of vectorbt can come to: it raises below no cash."""
    o = dict(zip(FIELDS, orders.T, strict=True))
    is_finite = np.isfinite(np.stack([o[name] for name in ("fees", "fixed_fees", "slippage", "min_size")])).all(axis=0)
    within = (o["fees"] > -1) & (o["slippage"] >= 0) & (o["slippage"] < 1) & (o["min_size"] >= 0) & (o["max_size"] > 0)
    granular = np.isnan(o["size_granularity"]) | ((o["size_granularity"] > 0) & np.isfinite(o["size_granularity"]))
    codes = np.isin(o["size_type"], range(6)) & np.isin(o["direction"], range(3))
    chance = (o["reject_prob"] >= 0) & (o["reject_prob"] <= 1)
    endless = (o["size_type"] == SizeType.PERCENT) & np.isinf(o["size"])
    reachable = np.isfinite(states[:, 0]) & (states[:, 0] >= 0) & ~np.isinf(states[:, 3]) & ~np.isinf(states[:, 5])
    return is_finite & within & granular & codes & chance & reachable & ~endless
