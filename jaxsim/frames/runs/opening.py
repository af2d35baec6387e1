"""Accounts that hold something before the first bar: as users say it, and what that is worth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import BALANCE, CASH, COST, NUMBERS, WEIGHT, Bounds, shown
from jaxsim.engine.trading.account import Account, ByAllocator
from jaxsim.frames.inputs.groups import GroupLayout
from jaxsim.frames.inputs.parameters import LaneParameter, ParameterReader, Unresolved, module_from, resolve
from jaxsim.frames.results.ledger import Opening
from jaxsim.frames.runs.job import Job
from jaxsim.frames.runs.terms import Terms

#: The level of a sweep over holdings.
LEVEL = "init_units"


def read_account(terms: Terms, reader: ParameterReader, mark: np.ndarray) -> Account:
    """`Account` of `LaneParameter`.     mark: of the first bar, [column].

    Raises ValueError or TypeError naming the argument.
    """
    others = {"init_target": terms.init_target, "init_average_cost": terms.init_average_cost}
    if terms.init_units is None:
        for name, value in others.items():
            if value is not None:
                raise ValueError(f"{name}: of what is held at the opening; it needs init_units")
        return module_from(Account, _fields(reader.per_lane(terms.init_cash, "init_cash", CASH)))
    cash = reader.per_lane(terms.init_cash, "init_cash", BALANCE)
    units = _by_asset(terms.init_units, "init_units", NUMBERS, 0.0, reader, mark)
    target: Any = terms.init_target
    if isinstance(target, str):
        if target != "allocator":
            raise ValueError(f"init_target: expected weights by asset or 'allocator', got {shown(target)}"[:200])
        target = ByAllocator()
    elif target is not None:
        target = _by_asset(target, "init_target", WEIGHT, 0.0, reader)
    cost = terms.init_average_cost
    if cost is not None:
        cost = _by_asset(cost, "init_average_cost", COST, np.nan, reader)
    return module_from(Account, _fields(cash, units, target, cost))


def _fields(cash: LaneParameter, units: Any = None, target: Any = None, average_cost: Any = None) -> dict[str, Any]:
    return {"cash": cash, "units": units, "target": target, "average_cost": average_cost}


def _by_asset(
    value: Any, argument: str, kind: Bounds, missing: float, reader: ParameterReader, mark: np.ndarray | None = None
) -> LaneParameter:
    """Numbers by asset of all lanes.     missing: of assets that are not named.      mark: as in `read_account`."""

    def read(value: Any) -> np.ndarray:
        array = _aligned(value, argument, missing, reader.layout)
        kind.check(array, argument)
        if kind is NUMBERS and not np.isfinite(array).all():
            raise ValueError(f"{argument}: expected finite numbers, got {array[~np.isfinite(array)][0]:g}")
        lost = np.zeros(array.shape, bool) if mark is None else (array != 0) & np.isnan(mark)
        if lost.any():
            raise ValueError(
                f"{argument}: {reader.layout.columns[np.argmax(lost)]!r} is held, but has no price at the first bar"
            )
        return array

    if not isinstance(value, Mapping):
        return LaneParameter(read(value), columns=0)
    tables = {label: read(one) for label, one in value.items()}
    if not tables:
        raise ValueError(f"{argument}: the mapping is empty; expected label -> Series by asset")
    sweep = reader.sweep
    number = sweep.add(pd.Index(list(tables), name=LEVEL), argument, numbers=False)
    return LaneParameter(
        Unresolved(lambda combinations: np.stack([tables[x] for x in sweep.values(number, combinations)])),
        by_combination=True,
        columns=1,
    )


def _aligned(value: Any, argument: str, missing: float, layout: GroupLayout) -> np.ndarray:
    """A Series by asset, or a DataFrame by asset and group, as numbers by column of the price frame."""
    if isinstance(value, pd.DataFrame):
        groups = _group_labels(layout, argument)
        _refuse_unknown(value.columns, groups, argument, "group")
        _refuse_unknown(value.index, layout.assets, argument, "column for")
        table = value.reindex(index=layout.assets.unique(), columns=groups)
        array = np.full(len(layout.columns), np.nan)
        for group, columns in enumerate(layout.members):
            array[columns] = _numbers(table.iloc[:, group], argument).reindex(layout.assets[columns]).to_numpy()
        return np.where(np.isnan(array), missing, array)
    if not isinstance(value, pd.Series):
        raise TypeError(
            f"{argument}: expected a Series by asset, as pd.Series({{'AAPL': 10}}), got {shown(value)}"[:200]
        )
    if value.index.has_duplicates:
        raise ValueError(f"{argument}: {value.index[value.index.duplicated()][0]!r} appears twice")
    labels = layout.columns if value.index.nlevels == layout.columns.nlevels > 1 else layout.assets
    _refuse_unknown(value.index, labels, argument, "column for")
    if value.isna().any() and not np.isnan(missing) and argument != "init_target":
        raise ValueError(f"{argument}: {value.index[value.isna().to_numpy()][0]!r} is NaN")
    numbers, named = _numbers(value, argument), labels.isin(value.index)
    array = np.full(len(labels), missing)
    array[named] = numbers.reindex(labels[named]).to_numpy()
    return array


def _numbers(value: pd.Series, argument: str) -> pd.Series:
    if value.dtype == bool or not pd.api.types.is_numeric_dtype(value.dtype):
        raise TypeError(f"{argument}: expected numbers, got {value.dtype}")
    return value.astype(np.float64)


def _group_labels(layout: GroupLayout, argument: str) -> pd.Index:
    levels = list(layout.levels.values())
    if not levels:
        raise TypeError(
            f"{argument}: a DataFrame is by asset and group, and close has no groups; pass a Series by asset"
        )
    return levels[0] if len(levels) == 1 else pd.MultiIndex.from_arrays(levels)


def _refuse_unknown(labels: pd.Index, known: pd.Index, argument: str, what: str) -> None:
    unknown = labels[~labels.isin(known)]
    if len(unknown):
        raise ValueError(f"{argument}: close has no {what} {unknown[0]!r}")


# --- what lanes begin with


def opening_of(job: Job, groups: np.ndarray) -> Opening | None:
    """What the lanes of some groups of one size hold before the first bar, [combination, group] in one axis; None: cash
    alone."""
    return None if job.account.units is None else _opened(job, groups)[0]


def opening_values(job: Job) -> np.ndarray:
    """The value of each lane before the first bar, currency, [lane]."""
    values = np.empty(len(job.lanes))
    for groups in job.layout.batches():
        lanes = job.lanes.of(groups)
        if job.account.units is None:
            values[lanes] = _spread(job, job.account.cash, groups, ())
        else:
            values[lanes.ravel()] = _opened(job, groups)[1]
    return values


def _opened(job: Job, groups: np.ndarray) -> tuple[Opening, np.ndarray]:
    """What lanes hold before the first bar, and its value."""
    account, size = job.account, len(job.layout.members[groups[0]])

    def table(parameter: Any, shape: tuple[int, ...] = (size,)) -> np.ndarray:
        return _spread(job, parameter, groups, shape).reshape(-1, *shape)

    cash, units = table(account.cash, ()), table(account.units)
    first, mark = (table(_FirstRow(x), (size,)) for x in (job.prices.val_price, job.prices.mark))
    first = np.where(np.isnan(first), mark, first)
    worth = np.where(units != 0, units * np.where(units != 0, first, 0.0), 0.0)
    value = cash.copy()
    for one in worth.T:
        value += one
    price = first
    if account.average_cost is not None:
        said = table(account.average_cost)
        price = np.where(np.isnan(said), first, said)
    debt = np.where(units < 0, -units * price, 0.0).sum(axis=1)
    if account.target is None or isinstance(account.target, ByAllocator):
        weights = worth / np.where(value != 0, value, 1.0)[:, None]
        target = np.where((units != 0).any(axis=1)[:, None], weights, np.nan)
    else:
        target = table(account.target)
    return Opening(cash, cash - 2 * debt, units, price, target), value


class _FirstRow:
    """The first row of a table of prices [..., time, asset]."""

    def __init__(self, table: Any):
        self.table = resolve(table)

    def of(self, groups: np.ndarray, members: list[np.ndarray], is_grouped: bool) -> tuple[Any, tuple[bool, bool]]:
        array, has = self.table.of(groups, members, is_grouped)
        return array[..., 0, :], has


def _spread(job: Job, parameter: Any, groups: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter as [combination, group, ...]."""
    parameter = parameter if isinstance(parameter, _FirstRow) else resolve(parameter)
    array, (by_combination, by_group) = parameter.of(groups, job.layout.members, True)
    array = np.asarray(array, np.float64)
    array = array if by_combination else array[None]
    array = array if by_group else array[:, None]
    return np.broadcast_to(array, (job.num_combinations, len(groups), *shape))
