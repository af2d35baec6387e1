"""The look-ahead probe: change the prices that nobody could know yet, and see who answers differently."""

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
from jaxsim.frames.inputs.prices import as_frame, read_features
from jaxsim.frames.inputs.sweep_axes import Sweep
from jaxsim.reference import run_lane

#: Functions that compute on whole price frames are spared missing prices, on which they may rightly fail.
_PRICED_KINDS = KINDS[:2]


def check_no_lookahead(
    policy: Policy | Callable[..., Policy],
    market: Market | pd.DataFrame,
    *,
    open: pd.DataFrame | None = None,
    price: pd.DataFrame | None = None,
    features: Any = None,
    bars: int | Iterable[Any] = 20,
    costs: Costs | None = None,
    account: Account | None = None,
    key: Any = 0,
) -> pd.DataFrame:
    """Look for something in a policy that sees the future, and name it.

    policy: a `Policy`; or a function that makes one from prices. That is called with the changed prices as well, which
        finds what the policy has closed over or was fitted to.
    market: a `Market`, or a DataFrame of closes [time, asset]; functions are called with whichever it is.
    open, price: beside a DataFrame, as in `js.backtest`; a function is given them if it has arguments of these names.
    features: a function of prices, computed anew from the changed ones; or the rows themselves, as in `js.backtest`,
        which are then believed. Without it, those of the `Market`.
    bars: the bars to look at, as labels (numbers for a `Market`); or how many: half of them spread evenly, half where
        the policy trades.
    costs, account, key: of the run that the policy is asked in; see `js.simulate`.

    The policy is run once, as ordinary Python. Then, at each of `bars`, all prices that were not known at the open of
    that bar are changed (at random, mirrored, taken away), and each part is asked again for the same account and the
    same state: the features of all rows up to that bar, the allocator and what it makes of bars it observes, each
    trigger, the destination. An answer that differs in any bit has seen the future.

    What it cannot see: a leak into numbers that were handed over finished (features as an array, prices or fitted
    parameters inside of a `Policy` that stands there ready made; hand over the function that makes them instead), and
    one that acts only at bars which were not looked at.

    Returns a table of what was asked: a row for each part, with the number of bars and of questions; `is_checked` is
    False for features that were given as numbers.

    Raises LookAheadError naming all parts that saw the future, with the table of their `leaks`; TypeError or ValueError
    naming the argument for what cannot be checked, a policy that draws at random other than from `obs.key` among that.
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


def _source(market: Any, open: Any, price: Any) -> Any:
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
    """Call with those keywords that a function takes."""
    positional, keywords = arguments
    takes = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    return function(*positional, **{name: x for name, x in keywords.items() if takes_all or name in takes})


def _rows_of(features: Any, source: Any) -> Any:
    """Features as arrays with one row per bar."""
    close = source.close if isinstance(source, FrameSource) else pd.DataFrame(index=source.index)
    rows = read_features(features, close)
    return map_parameters(lambda x: x.array, rows)


class _Probe:
    """A policy, its run through the prices as they are, and the same parts asked about other prices."""

    def __init__(self, source: Any, policy: Any, features: Any, costs: Any, account: Any, key: Any):
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
        """The policy that there would be with such prices, its tables and dates as arrays."""
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

    def bars(self, given: Any) -> np.ndarray:
        """Bar numbers, ascending, at least 1. Raises ValueError for labels that are not there."""
        last = len(self.source.index) - 1
        if is_whole(given):
            if given < 1:
                raise ValueError(f"bars: expected at least one bar to look at, got {given}")
            first = min(max(1, int(np.max(self.policy.min_history))), last)
            spread = np.linspace(first, last, max(given // 2, 1)).round().astype(int)
            traded = np.array([bar for bar in self.witness.asked if bar >= 1], int)
            places = np.linspace(0, len(traded) - 1, given - len(spread)).round().astype(int) if len(traded) else []
            return np.unique(np.concatenate([spread, traded[places] if len(traded) else []]).astype(int))
        labels = pd.Index(given)
        found = self.source.index.get_indexer(labels)
        if len(found) == 0 or (found < 1).any():
            wrong = labels[found < 1]
            raise ValueError(
                f"bars: {wrong[0]!r} is not a bar after the first" if len(wrong) else "bars: none are given"
            )
        return np.unique(found)

    def _row(self, part: str, bar: int, change: str, difference: float) -> list:
        return [part, bar, self.source.index[bar], change, difference]

    # --- features

    def leaks_of_features(self, bars: np.ndarray) -> list[list]:
        if not callable(self.features):
            return []
        found, names = [], _feature_names(self.rows)
        again = _rows_of(_call(self.features, self.source.arguments()), self.source)
        _refuse_chance("features: what the function", self.rows, again)
        for bar, kind, factor in futures(self.source.mark, bars, _PRICED_KINDS):
            rows = _rows_of(_call(self.features, self.source.arguments(factor)), self.source)
            pairs = zip(names, jax.tree.leaves(self.rows), jax.tree.leaves(rows), strict=True)
            for name, before, after in pairs:
                difference = _difference(before[: bar + 1], after[: bar + 1])
                if difference is not None:
                    found.append(self._row(f"feature {name}", bar, kind, difference))
        return found

    # --- the policy

    def leaks_of_policy(self, bars: np.ndarray) -> list[list]:
        found = []
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
                except Exception:  # on prices of which it should know nothing
                    difference = np.nan
                if difference is not None:
                    found.append(self._row(question.part, bar, kind, difference))
        return found

    # --- the outcome

    def table(self, bars: np.ndarray) -> pd.DataFrame:
        """What has been asked, where nothing has leaked."""
        rows = [(question.part, len(bars), len(bars) * len(KINDS), True) for question in self.questions]
        if self.rows is not None:
            kinds = len(_PRICED_KINDS) if callable(self.features) else 0
            checked = len(bars) if kinds else 0
            names = _feature_names(self.rows)
            rows = [(f"feature {name}", checked, checked * kinds, kinds > 0) for name in names] + rows
        return pd.DataFrame(rows, columns=["part", "bars", "questions", "is_checked"]).set_index("part")


def _maker(policy: Any) -> Callable[[tuple[tuple, dict]], Any]:
    """What gives the policy for given prices."""
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
            f"{part} answers otherwise when it is asked the same again, so that nothing can be told; draw from "
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
        apart = np.abs(x.astype(np.float64) - y.astype(np.float64))
        apart = np.nanmax(apart) if np.isfinite(apart).any() else np.nan
        largest = apart if largest is None or np.isnan(largest) else np.fmax(largest, apart)
    return None if largest is None else float(largest)
