"""`walk_forward`: learn on the past, trade what comes next, move on; and set both scores side by side."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.base.fields import shown
from jaxsim.engine.metrics.names import needs_ann_factor
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.policy.triggers import Never
from jaxsim.engine.trading.market import Market
from jaxsim.frames.evaluation.splits import Split, WalkForwardSplits
from jaxsim.frames.inputs.bars_per_year import BarsPerYear
from jaxsim.frames.inputs.delistings import HOLD, Departures, with_departures
from jaxsim.frames.inputs.groups import layout
from jaxsim.frames.inputs.prices import as_frame, checked_prices, is_price_table, valuation_prices
from jaxsim.frames.results.backtest import Backtest
from jaxsim.frames.results.metric_names import Metric, metric_list, metric_name, scorer
from jaxsim.frames.runs.arguments import as_allocator
from jaxsim.frames.runs.terms import TradingKeywords, terms_of
from jaxsim.frames.system.progress import progress_bar
from jaxsim.frames.verbs.backtest import backtest

Learner = Callable[[Market], Any]

#: Arguments of `backtest` that say which assets have left the market.
_DEPARTURES = ("stale", "delistings", "drift_without_price")
#: Arguments of `backtest` that `walk_forward` does not take, and the reason.
_REFUSED = {
    "size": "plain orders learn nothing",
    "size_type": "a Policy says so itself, as in js.Policy(allocator, size_type=...)",
    "groups": "one group is judged at a time",
    "by": "one group is judged at a time",
    "log": "only returns are kept",
    "benchmark": "its metrics are of returns alone; benchmarks= takes policies to compare with",
}


@dataclass(frozen=True, eq=False)
class WalkForward:
    """The result of learning on the past and trading on the bars after it, fold by fold.

    table: DataFrame, a row for each (policy, fold): `train_start` to `test_end`, the first and last labels of both
        periods, and of each metric `<metric>_in` and `<metric>_out`, in and out of sample.
    returns: DataFrame [time, policy], the out-of-sample returns of all folds, one after the other; NaN before the
        `min_history` of the policy, where it could not trade.
    policies: the `Policy` of each fold, by name.
    ann_factor: bars per year; None if no metric needed it.
    """

    table: pd.DataFrame
    returns: pd.DataFrame
    policies: dict[str, list[Policy]]
    ann_factor: float | None
    _metrics: list[Metric]

    def __repr__(self) -> str:
        folds = self.table.index.get_level_values("fold").nunique()
        return f"WalkForward({folds} folds, policies {list(self.policies)})"

    @property
    def summary(self) -> pd.DataFrame:
        """DataFrame, a row for each policy. Of each metric: `<metric>_in` and `<metric>_out`, the means over folds; and
        `<metric>_joined`, the score of `returns`. Judge by this one: folds are short, and no investor earns the mean of
        their scores."""
        columns = {}
        for metric in self._metrics:
            name, score = metric_name(metric), scorer(metric, self.ann_factor)
            for side in ("in", "out"):
                columns[f"{name}_{side}"] = self.table[f"{name}_{side}"].groupby(level="policy", sort=False).mean()
            joined = {label: _scored(score, self.returns[label].dropna().to_numpy()) for label in self.returns}
            columns[f"{name}_joined"] = pd.Series(joined)
        return pd.DataFrame(columns).loc[list(self.policies)].rename_axis("policy")

    def plot(self, metric: str | None = None, **kwargs: Any) -> Any:
        """A Plotly figure: the growth of each policy out of sample, and underneath a metric of each fold in sample
        against out of sample.

        metric: name of one of the metrics that were asked for; default the first.
        Raises ValueError for another one; ImportError naming the pip command where Plotly is missing.
        """
        from jaxsim import views

        names = [metric_name(m) for m in self._metrics]
        metric = names[0] if metric is None else metric
        if metric not in names:
            raise ValueError(f"metric: expected one of {names}, which were asked for, got {metric!r}")
        return views.walk_forward(self.returns, self.table, metric, **kwargs)


def walk_forward(
    close: pd.DataFrame | pd.Series,
    learn: Learner | Mapping[str, Learner],
    splits: WalkForwardSplits,
    *,
    benchmarks: Mapping[str, Any] | None = None,
    metrics: Metric | Iterable[Metric] = ("sharpe_ratio", "total_return", "max_drawdown"),
    open: Any = None,
    price: Any = None,
    features: Any = None,
    trigger: Any = None,
    destination: Any = None,
    min_history: int = 0,
    progress: bool = False,
    **terms: Unpack[TradingKeywords],
) -> WalkForward:
    """Learn a policy on each training stretch, trade the test stretch after it, and compare the scores.

    close: prices of one group, [time, asset].
    learn: what makes a policy of a `Market` of training bars: `learn(market) -> Policy`, or an allocator, which then
        trades as `trigger`, `destination` and `min_history` say; several by name. It is called within x64, and the
        market's bars are those of the training stretch; an asset that is listed later has no prices in it.
    splits: `js.WalkForwardSplits(train, test, gap, window)`.
    benchmarks: policies and allocators that learn nothing, by name: `{"hold": js.Policy(al.EqualWeight())}`. They are
        traded and scored on the same stretches.
    metrics: names of metrics of returns, or functions `f(returns)` or `f(returns, *, ann_factor)`.
    features: as in `backtest`; the learner gets the rows of its stretch as `market.features`.
    progress: whether to show a progress bar.
    terms: what else `backtest` takes: `fees`, `init_cash`, `freq`, `key` and so on; one lane, so no named indexes.

    On either stretch a policy starts with `init_cash` and `init_units`, and may look back on all bars before it. The
    prices after the stretch are withheld: they are NaN. So the account starts anew on every fold, and each policy, a
    benchmark as well, pays to get in each time.

    Raises TypeError or ValueError naming the argument for what cannot be judged; what `learn` raises, with a note that
    says on which fold.
    """
    _check_terms(terms, splits)
    run_terms: dict[str, Any] = dict(terms)
    closes = as_frame(close, "close")
    executed = price if is_price_table(price, close) else None
    prices = checked_prices(closes, open, None if executed is None else as_frame(executed, "price"), features)
    scored, learners = metric_list(metrics), _named(learn)
    others = _named_policies(benchmarks, set(learners))
    default = {"trigger": trigger, "destination": destination, "min_history": min_history}
    pairs = splits.pairs(closes.index)
    rules = terms_of({name: run_terms[name] for name in _DEPARTURES if name in run_terms})
    prices = with_departures(prices, layout(prices.columns).assets, rules.stale, rules.delistings)
    left, drift = prices.departures, rules.drift_without_price
    data = _Data(prices.index, closes, open, executed, prices.features, left, drift)
    if executed is None and price is not None:
        run_terms["price"] = price

    annual = BarsPerYear(prices.index).said(terms.get("freq"), terms.get("year_freq"), terms.get("bars_per_year"))
    needing = next((metric_name(metric) for metric in scored if needs_ann_factor(metric)), None)
    ann_factor = None if needing is None else annual.needed(needing)

    policies: dict[str, list[Policy]] = {name: [] for name in (*learners, *others)}
    runs: dict[str, list[tuple[Backtest, Backtest]]] = {name: [] for name in policies}
    with progress_bar(len(pairs) * len(policies), "fold", progress) as advance:
        for name in policies:
            for fold, (train, test) in enumerate(pairs):
                policy = _learnt(learners[name], data, train, name, fold) if name in learners else others[name]
                policy = _as_policy(policy, default, f"learn ({name!r})" if name in learners else "benchmarks")
                policies[name].append(policy)
                runs[name].append((data.run(policy, train, run_terms), data.run(policy, test, run_terms)))
                advance(1)
    inside, outside = (
        {
            name: [
                _from(terms.get("start"), policy, pair[side].returns.to_numpy(), split[side])
                for policy, pair, split in zip(policies[name], run_pairs, pairs, strict=True)
            ]
            for name, run_pairs in runs.items()
        }
        for side in (0, 1)
    )
    bars = np.concatenate([test for _, test in pairs])
    joined = {name: np.concatenate(parts) for name, parts in outside.items()}
    returns = pd.DataFrame(joined, data.index.take(bars)).rename_axis(columns="policy")
    table = _table(data.index, pairs, inside, outside, scored, ann_factor)
    return WalkForward(table, returns, policies, ann_factor, scored)


def _table(
    index: pd.Index,
    pairs: list[Split],
    inside: Mapping[str, list[np.ndarray]],
    outside: Mapping[str, list[np.ndarray]],
    scored: list[Metric],
    ann_factor: float | None,
) -> pd.DataFrame:
    """The scores of every policy and fold, beside the bounds of its stretches."""
    bounds = [[index[bars[place]] for bars in split for place in (0, -1)] for split in pairs]
    labels = pd.MultiIndex.from_product([list(inside), range(len(pairs))], names=["policy", "fold"])
    table = pd.DataFrame(bounds * len(inside), labels, columns=["train_start", "train_end", "test_start", "test_end"])
    for metric in scored:
        score = scorer(metric, ann_factor)
        for side, parts in (("in", inside), ("out", outside)):
            scores = [_scored(score, x[~np.isnan(x)]) for folds in parts.values() for x in folds]
            table[f"{metric_name(metric)}_{side}"] = scores
    return table


def _from(start: Any, policy: Policy, returns: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """The returns of a stretch, NaN before the first bar that counts: `start`, or the one at which the policy may
    trade."""
    return np.where(bars < int(policy.min_history if start is None else start), np.nan, returns[bars])


def _scored(score: Callable[[Any], Any], returns: np.ndarray) -> float:
    """The score of the bars that count; NaN where there are none."""
    return float(score(returns)) if len(returns) else np.nan


@dataclass(frozen=True, eq=False)
class _Data:
    """What there is to learn from and to trade on."""

    index: pd.Index
    close: pd.DataFrame
    open: Any
    price: Any
    features: Any
    departures: Departures | None
    drift_without_price: str

    def market(self, bars: np.ndarray) -> Market:
        """The market of a stretch, without any bar before or after it. Call it within x64."""
        whole = Market.from_frames(
            self.close,
            open=self.open,
            price=self.price,
            features=self.features,
            delistings=HOLD if self.departures is None else self.departures,
            drift_without_price=self.drift_without_price,
        )
        cut = jax.tree.map(lambda x: x[bars], whole)
        since = None if cut.priced_at is None else cut.priced_at - 2 * int(bars[0])  # in half bars
        return replace(cut, priced_at=since)

    def run(self, policy: Policy, bars: np.ndarray, terms: Mapping[str, Any]) -> Backtest:
        """Trade one stretch. All stretches have frames of one shape, so that they share a compiled program."""
        start, stop = int(bars[0]), int(bars[-1]) + 1
        prices = {
            name: _until(as_frame(x, name), stop)
            for name, x in (("open", self.open), ("price", self.price))
            if x is not None
        }
        close, keywords = _until(self.close, stop, last=1.0), {**terms, **prices, "features": self.features}
        keywords["delistings"] = HOLD if self.departures is None else self.departures.until(stop)
        keywords |= self._opened(start, terms)
        run = backtest(close, policy.within(start, stop), **keywords)
        if run.lanes is not None:
            raise ValueError(
                f"learn: one lane is judged at a time, but {list(run.lanes.names)} is swept; call walk_forward for each"
            )
        return run

    def _opened(self, start: int, terms: Mapping[str, Any]) -> dict[str, Any]:
        """What is held is held from bar 0 on, and untouched until the stretch: what a trigger compares with are its
        weights then."""
        units, opens = terms.get("init_units"), None if self.open is None else as_frame(self.open, "open").to_numpy()
        if not isinstance(units, pd.Series) or terms.get("init_target") is not None or start == 0:
            return {}
        prices = pd.Series(valuation_prices(self.close.to_numpy(np.float64), opens)[start], self.close.columns)
        worth = (units * prices.reindex(units.index)).fillna(0.0)
        return {"init_target": worth / (terms.get("init_cash", 100.0) + worth.sum())}


def _until(frame: pd.DataFrame, stop: int, last: float = np.nan) -> pd.DataFrame:
    """Prices up to a bar, and NaN from there on; `last` on the last bar, as no column may be without any price."""
    if stop == len(frame):
        return frame
    known = frame.astype(np.float64)
    known.iloc[stop:] = np.nan
    known.iloc[-1] = last
    return known


def _learnt(learn: Learner, data: _Data, bars: np.ndarray, name: str, fold: int) -> Any:
    """What a learner makes of a stretch; its numbers as NumPy arrays, since only those leave the x64 scope."""
    with jax.enable_x64(True):
        market = data.market(bars)
        try:
            policy = learn(market)
        except Exception as error:
            error.add_note(f"while {name!r} learnt on fold {fold}, {data.index[bars[0]]} to {data.index[bars[-1]]}")
            raise
        return jax.tree.map(lambda x: np.asarray(x) if _is_plain_array(x) else x, policy)


def _is_plain_array(x: Any) -> bool:
    return isinstance(x, jax.Array) and not jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)


def _as_policy(policy: Any, default: Mapping[str, Any], argument: str) -> Policy:
    if isinstance(policy, Policy):
        return policy
    way = {} if default["destination"] is None else {"destination": default["destination"]}
    trigger = Never() if default["trigger"] is None else default["trigger"]
    return Policy(as_allocator(policy, argument, " or a Policy"), trigger, min_history=default["min_history"], **way)


def _named(learn: Any) -> dict[str, Learner]:
    learners = dict(learn) if isinstance(learn, Mapping) else {"learned": learn}
    for name, one in learners.items():
        if isinstance(one, Policy):
            raise TypeError(f"learn: {name!r} is a Policy, which learns nothing; it goes into benchmarks=")
        if not callable(one):
            raise TypeError(f"learn: expected a function of a Market that gives a policy, got {shown(one)}"[:200])
    return {str(name): one for name, one in learners.items()}


def _named_policies(benchmarks: Any, taken: set[str]) -> dict[str, Any]:
    if benchmarks is None:
        return {}
    if not isinstance(benchmarks, Mapping):
        raise TypeError(f"benchmarks: expected policies by name, as a dict, got {shown(benchmarks)}"[:200])
    both = sorted(taken & {str(name) for name in benchmarks})
    if both:
        raise ValueError(f"benchmarks: {both[0]!r} is the name of what learns as well")
    return {str(name): policy for name, policy in benchmarks.items()}


def _check_terms(terms: Mapping[str, Any], splits: Any) -> None:
    if not isinstance(splits, WalkForwardSplits):
        raise TypeError(f"splits: expected js.WalkForwardSplits(train, test), got {shown(splits)}"[:200])
    for name, why in _REFUSED.items():
        if terms.get(name) is not None:
            raise TypeError(f"{name}: not in walk_forward: {why}")
    terms_of(terms)  # raises TypeError for an unknown name
