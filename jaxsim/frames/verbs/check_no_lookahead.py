"""`check_no_lookahead`: change the prices that nobody could know yet, and see which part of a policy answers
differently."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import is_whole, shown
from jaxsim.engine.base.random import as_key
from jaxsim.engine.policy.policy import Policy, allocator_name, fault_text
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.engine.trading.market import Market
from jaxsim.engine.trading.status import LaneFault
from jaxsim.errors import AllocationError, LookAheadError
from jaxsim.frames.evaluation.changed_prices import KINDS, FrameSource, MarketSource, futures
from jaxsim.frames.evaluation.policy_probe import Witness, context_of, questions
from jaxsim.frames.inputs.groups import layout
from jaxsim.frames.inputs.parameters import LaneParameter, ParameterReader, map_parameters, resolve
from jaxsim.frames.inputs.prices import Features, Table, as_frame, read_features
from jaxsim.frames.inputs.random_keys import Key
from jaxsim.frames.inputs.sweep_axes import Sweep
from jaxsim.reference import run_lane

#: Functions of whole price frames get no missing prices, at which they may rightly fail.
_PRICED_KINDS = KINDS[:2]


def check_no_lookahead(
    policy: Policy | Callable[..., Policy],
    market: Market | Table,
    *,
    open: Table | None = None,
    price: Table | None = None,
    features: Features | Callable = None,
    bars: int | Iterable[Any] = 20,
    costs: Costs | None = None,
    account: Account | None = None,
    key: Key = 0,
) -> pd.DataFrame:
    """Find and name the parts of a policy that see the future.

    policy: a `Policy`; or a function that makes one from prices. The function is called with the changed prices as
        well, which finds prices that the policy has closed over or was fitted to.
    market: a `Market`, or a DataFrame of closes [time, asset]. Functions of prices are called with the same type.
    open, price: beside a DataFrame, as in `js.backtest`; a function gets them if it has arguments of these names.
    features: a function of prices, which is called again with the changed ones; or the rows themselves, as in
        `js.backtest`, which cannot be checked. Default: those of the `Market`.
    bars: the bars to look at, as labels (numbers for a `Market`); or their number: half of them are spread evenly, half
        are bars at which the policy trades.
    costs, account, key: of the run in which the policy is asked; see `js.simulate`.

    The policy is run once, as ordinary Python. Then, at each of `bars`, all prices that were not known at the open of
    that bar are changed (at random, mirrored, removed), and each part is asked again with the same account and the same
    state: the features of all rows up to that bar, the allocator and its `observe`, each trigger, the destination. An
    answer that differs in any bit has seen the future.

    The check cannot find a leak into finished numbers (features as an array, or prices and fitted parameters inside a
    finished `Policy`; pass the function that makes them instead), nor one that acts only at bars not looked at.

    Returns a table with a row for each part: the number of bars and of questions, and `is_checked`, which is False for
    features that were passed as numbers.

    Raises LookAheadError naming all parts that saw the future, with the table of their `leaks`; TypeError or ValueError
    naming the argument for a policy that cannot be checked, such as one whose random numbers do not come from
    `obs.key`.
    """
    source = _source(market, open, price)
    with jax.enable_x64(True):
        probe = _Probe(source, policy, features, costs, account, as_key(key))
        chosen = probe.bars(bars)
        leaks = pd.DataFrame([*probe.leaks_of_features(chosen), *probe.leaks_of_policy(chosen)], columns=_COLUMNS)
    if len(leaks):
        raise LookAheadError(_message(leaks), leaks)
    return probe.table(chosen)


_COLUMNS = ["part", "bar", "time", "change", "difference"]


def _message(leaks: pd.DataFrame) -> str:
    texts = []
    for part, rows in leaks.groupby("part", sort=False):
        bars, sizes = rows["bar"].to_numpy(), rows["difference"].to_numpy()
        bar, label, count = bars[0], str(rows["time"].iloc[0]), len(np.unique(bars))
        when = f"bar {bar}" + ("" if label == str(bar) else f", {label}")
        where = f"at {when}" if count == 1 else f"at {count} bars, the first of them {when}"
        size = "" if np.isnan(sizes).all() else f", by up to {np.nanmax(sizes):.3g}"
        texts.append(f"{part} saw the future: {where}{size}")
    return "; ".join(texts) + ". It answers otherwise there when prices not known at the open of the bar are others"


def _source(market: Market | Table, open: Table | None, price: Table | None) -> MarketSource | FrameSource:
    if isinstance(market, Market):
        for name, value in (("open", open), ("price", price)):
            if value is not None:
                raise TypeError(f"{name}: a Market has its own; pass the closes as a DataFrame to add it")
        source = MarketSource(jax.tree.map(np.asarray, market))
    elif isinstance(market, pd.DataFrame | pd.Series):
        frames = [None if x is None else as_frame(x, n) for n, x in (("open", open), ("price", price))]
        source = FrameSource(as_frame(market, "market"), *frames)
    else:
        raise TypeError(f"market: expected a Market or a DataFrame of closes, got {shown(market)}"[:200])
    if len(source.index) < 2:
        raise ValueError("market: one bar has no future")
    return source


def _call(function: Callable, arguments: tuple[tuple, dict]) -> Any:
    """The result of a function that is called with the keywords that it takes."""
    positional, keywords = arguments
    takes = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    return function(*positional, **{name: x for name, x in keywords.items() if takes_all or name in takes})


def _rows_of(features: Features, source: MarketSource | FrameSource) -> Any:
    """Features as arrays with one row per bar."""
    close = source.close if isinstance(source, FrameSource) else pd.DataFrame(index=source.index)
    rows = read_features(features, close)
    return map_parameters(lambda x: x.array, rows)


class _Probe:
    """A policy, its run through the true prices, and its parts asked again about changed prices."""

    def __init__(
        self,
        source: MarketSource | FrameSource,
        policy: Policy | Callable[..., Policy],
        features: Features | Callable,
        costs: Costs | None,
        account: Account | None,
        key: jax.Array,
    ):
        self.source, self.make, self.features = source, _maker(policy), features
        self.is_made = not isinstance(policy, Policy)
        self.policy = self.made(source.arguments())
        rows = _call(features, source.arguments()) if callable(features) else features
        if callable(features) and rows is None:
            raise TypeError("features: the function returned None; expected one row per bar")
        self.rows = _rows_of(rows, source)
        market = self.market()
        self.witness = Witness(self.policy.allocator)
        watched = replace(self.policy, allocator=self.witness)
        run = run_lane(market, watched, costs or Costs(), account or Account(), key)
        if run.fault[0] != LaneFault.NONE:
            text = fault_text(LaneFault(run.fault[0]), self.policy.allocator)
            raise AllocationError(f"policy: {text} (bar {run.fault[1]})")
        self.questions = questions(self.policy)

    def market(self) -> Market:
        (prices, *_), keywords = self.source.arguments()
        if isinstance(prices, Market):
            return prices if self.features is None else replace(prices, features=self.rows)
        market = Market.from_frames(prices, **keywords, features=self.rows)
        return jax.tree.map(np.asarray, market)

    def made(self, arguments: tuple[tuple, dict]) -> Policy:
        """The policy that is made from these prices, with its tables and dates as arrays."""
        policy = self.make(arguments)
        if not isinstance(policy, Policy):
            raise TypeError(
                f"policy: expected a js.Policy, or a function of prices that makes one; got {shown(policy)}"[:200]
            )
        if isinstance(self.source, MarketSource):
            return policy
        reader = ParameterReader(self.source.index, layout(self.source.close.columns), Sweep())
        parts = {name: reader.module(getattr(policy, name), name) for name in ("allocator", "trigger", "destination")}
        if len(reader.sweep) > 1 or reader.layout.num_groups > 1:
            raise ValueError("policy: one lane is looked at a time; nothing can be swept here")

        def of_lane(parameter: LaneParameter) -> Any:
            return resolve(parameter).of(np.array([0]), reader.layout.members, False)[0]

        return replace(policy, **map_parameters(of_lane, parts))

    # --- where to look

    def bars(self, wanted: int | Iterable[Any]) -> np.ndarray:
        """Bar numbers, ascending, at least 1. Raises ValueError for unknown labels."""
        last = len(self.source.index) - 1
        if is_whole(wanted):
            if wanted < 1:
                raise ValueError(f"bars: expected at least one bar to look at, got {wanted}")
            first = min(max(1, int(np.max(self.policy.min_history))), last)
            spread = np.linspace(first, last, max(wanted // 2, 1)).round().astype(int)
            traded = np.array([bar for bar in self.witness.asked if bar >= 1], int)
            places = np.linspace(0, len(traded) - 1, wanted - len(spread)).round().astype(int) if len(traded) else []
            return np.unique(np.concatenate([spread, traded[places] if len(traded) else []]).astype(int))
        labels = pd.Index(wanted)  # pyright: ignore[reportArgumentType, reportCallIssue]
        numbers = self.source.index.get_indexer(labels)
        if len(numbers) == 0 or (numbers < 1).any():
            wrong = labels[numbers < 1]
            raise ValueError(
                f"bars: {wrong[0]!r} is not a bar after the first" if len(wrong) else "bars: none are given"
            )
        return np.unique(numbers)

    def _row(self, part: str, bar: int, change: str, difference: float) -> list:
        return [part, bar, self.source.index[bar], change, difference]

    # --- features

    def leaks_of_features(self, bars: np.ndarray) -> list[list]:
        if not callable(self.features):
            return []
        leaks, names = [], _feature_names(self.rows)
        again = _rows_of(_call(self.features, self.source.arguments()), self.source)
        _refuse_chance("features: what the function", self.rows, again)
        for bar, kind, factor in futures(self.source.mark, bars, _PRICED_KINDS):
            rows = _rows_of(_call(self.features, self.source.arguments(factor)), self.source)
            pairs = zip(names, jax.tree.leaves(self.rows), jax.tree.leaves(rows), strict=True)
            for name, before, after in pairs:
                difference = _difference(before[: bar + 1], after[: bar + 1])
                if difference is not None:
                    leaks.append(self._row(f"feature {name}", bar, kind, difference))
        return leaks

    # --- the policy

    def leaks_of_policy(self, bars: np.ndarray) -> list[list]:
        leaks = []
        again = self.made(self.source.arguments()) if self.is_made else self.policy
        for bar, kind, factor in futures(self.source.mark, bars, KINDS):
            moment = self.witness.seen[bar]
            policy, later = self.policy, moment.with_closes(factor)
            if self.is_made and kind in _PRICED_KINDS:
                policy = self.made(self.source.arguments(factor))
            context = context_of(self.policy, moment)
            for question in self.questions:
                before = question.ask(self.policy, moment, context)
                if kind == KINDS[0]:
                    _refuse_chance(question.part, before, question.ask(again, moment, context))
                try:
                    difference = _difference(before, question.ask(policy, later, context))
                except Exception:  # because of prices that it should not know
                    difference = np.nan
                if difference is not None:
                    leaks.append(self._row(question.part, bar, kind, difference))
        return leaks

    # --- the outcome

    def table(self, bars: np.ndarray) -> pd.DataFrame:
        """The questions that were asked, for a policy without leaks."""
        rows = [(question.part, len(bars), len(bars) * len(KINDS), True) for question in self.questions]
        if self.rows is not None:
            kinds = len(_PRICED_KINDS) if callable(self.features) else 0
            checked = len(bars) if kinds else 0
            names = _feature_names(self.rows)
            rows = [(f"feature {name}", checked, checked * kinds, kinds > 0) for name in names] + rows
        return pd.DataFrame(rows, columns=["part", "bars", "questions", "is_checked"]).set_index("part")


def _maker(policy: Any) -> Callable[[tuple[tuple, dict]], Any]:
    """A function that makes the policy from prices."""
    if isinstance(policy, Policy):
        return lambda arguments: policy
    if isinstance(policy, eqx.Module) or not callable(policy):
        raise TypeError(
            "policy: expected a js.Policy, as in js.Policy(allocator, trigger), or a function that makes one from "
            f"prices, got {shown(policy)[:100]}"
        )

    def made_from(arguments: tuple[tuple, dict]) -> Any:
        try:
            return _call(policy, arguments)
        except Exception as error:
            error.add_note(
                f"while {allocator_name(policy)} made a policy from prices; an allocator is not such a function: pass "
                "js.Policy(allocator)"
            )
            raise

    return made_from


def _feature_names(rows: Any) -> list[str]:
    paths = jax.tree_util.tree_leaves_with_path(rows)
    return [jax.tree_util.keystr(path, simple=True, separator=".") or "(unnamed)" for path, _ in paths]


def _refuse_chance(part: str, before: Any, again: Any) -> None:
    if _difference(before, again) is not None:
        raise ValueError(
            f"{part} answers otherwise when it is asked the same again, so that it cannot be checked; draw from "
            "obs.key or obs.rng(), and fit with a fixed seed"
        )


def _difference(a: Any, b: Any) -> float | None:
    """The largest difference between two answers, NaN where they cannot be subtracted; None if there is none."""
    one, other = jax.tree.leaves(a), jax.tree.leaves(b)
    if jax.tree.structure(a) != jax.tree.structure(b):
        return np.nan
    largest = None
    for x, y in zip(one, other, strict=True):
        x, y = np.asarray(x), np.asarray(y)
        if x.shape != y.shape:
            return np.nan
        if np.array_equal(x, y, equal_nan=x.dtype.kind == "f"):
            continue
        differences = np.abs(x.astype(np.float64) - y.astype(np.float64))
        difference = np.nanmax(differences) if np.isfinite(differences).any() else np.nan
        largest = difference if largest is None or np.isnan(largest) else np.fmax(largest, difference)
    return None if largest is None else float(largest)
