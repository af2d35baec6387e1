"""A policy as a scikit-learn estimator: `fit`, `predict`, `score`, for grid searches and cross-validation.

Needs scikit-learn; reached as `js.PortfolioEstimator`, which imports this file when it is first asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pandas as pd

from jaxsim.engine.bar.simulation import Simulation
from jaxsim.engine.base.arrays import refuse_masked
from jaxsim.engine.base.fields import shown, whole_number
from jaxsim.engine.base.numerics import Number, as_number
from jaxsim.engine.metrics.names import refuse_prices
from jaxsim.engine.metrics.returns import sharpe_ratio
from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.simulate import simulate
from jaxsim.engine.trading.account import Account
from jaxsim.engine.trading.costs import Costs
from jaxsim.frames.inputs.market import from_frames
from jaxsim.frames.inputs.parameters import with_fields
from jaxsim.frames.verbs.fit import fit

try:
    from sklearn.base import BaseEstimator
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ImportError('PortfolioEstimator needs scikit-learn: pip install "jaxsim-portfolio[sklearn]"') from error


class PortfolioEstimator(BaseEstimator):
    """Learns a policy on returns, and predicts the returns of its portfolio, after costs.

    policy: the start; see `js.fit`. Its numbers are parameters by their path, as `policy__trigger__threshold`,
        for `set_params` and grid searches.
    features: function of the closes, a DataFrame [time, asset], that returns `obs.features` of the policy. Build it
    from
        `js.features`, whose rows use no later closes.
    history: number of rows at the end of the training data that are kept, so that a prediction that continues there has
        features from its first row: as many as the longest window.
    costs: `js.Costs`; default none.
    objective, ann_factor: the score, a metric of the returns (default `js.metrics.sharpe_ratio`), and bars per year.
    optimizer, steps, trainable, key: as in `js.fit`. `steps=0`: the policy is not changed.
    options: further arguments of `js.fit`, by name.

    X are simple returns per bar, [time, asset], as in scikit-learn's and skfolio's portfolio tools: a DataFrame, or an
    array. NaN: no price. The portfolio is bought at the close before the first row, so there is one predicted return
    for each row of X; the first one includes the costs of entry.

    Fitted attributes: `policy_`; `fitted_`, the result of `js.fit`, None without steps; `weights_`, held at the end of
    the training data; `n_features_in_`, and `feature_names_in_` if the columns have names.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        features: Callable[[pd.DataFrame], Any] | None = None,
        history: int = 0,
        costs: Costs | None = None,
        objective: Callable | None = None,
        ann_factor: Number | None = None,
        optimizer: Any = None,
        steps: int = 300,
        trainable: Any = None,
        options: Mapping[str, Any] | None = None,
        key: Any = 0,
    ):
        self.policy = policy
        self.features = features
        self.history = history
        self.costs = costs
        self.objective = objective
        self.ann_factor = ann_factor
        self.optimizer = optimizer
        self.steps = steps
        self.trainable = trainable
        self.options = options
        self.key = key

    # --- parameters by path

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments by name; with `deep` also the numbers of the policy, by path."""
        own = super().get_params(deep=False)
        return own | (_numbers(self.policy, "policy") if deep and isinstance(self.policy, eqx.Module) else {})

    def set_params(self, **params: Any) -> "PortfolioEstimator":
        """Set arguments, or numbers of the policy by path. Raises ValueError for a name that there is not."""
        own = {name: value for name, value in params.items() if "__" not in name}
        if own:
            super().set_params(**own)
        known = _numbers(self.policy, "policy") if isinstance(self.policy, eqx.Module) else {}
        for path, value in params.items():
            if path in own:
                continue
            if path not in known:
                raise ValueError(
                    f"{path}: the estimator has no such parameter; of the policy there are {sorted(known)}"
                )
            self.policy = _with_number(self.policy, path.split("__")[1:], value)
        return self

    # --- learning and predicting

    def fit(self, X: Any, y: Any = None) -> "PortfolioEstimator":
        """Learn the policy on returns; `y` is not looked at. Raises what `js.fit` raises, and ValueError or TypeError
        beginning with X for returns that cannot be traded."""
        if not isinstance(self.policy, Policy):
            raise TypeError(f"policy: expected a js.Policy, got {shown(self.policy)}"[:200])
        for name in ("steps", "history"):
            whole_number(getattr(self, name), name, 0)
        returns = _read(X)
        self.n_features_in_ = returns.shape[1]
        if all(isinstance(name, str) for name in returns.columns):
            self.feature_names_in_ = np.asarray(returns.columns, object)
        self.fitted_, self.policy_ = None, self.policy
        if self.steps:
            with jax.enable_x64(True):
                market = self._market(returns)
            self.fitted_ = fit(
                self.policy,
                market,
                costs=self.costs,
                objective=self.objective,
                ann_factor=self.ann_factor,
                optimizer=self.optimizer,
                steps=self.steps,
                trainable=self.trainable,
                key=self.key,
                **(self.options or {}),
            )
            self.policy_ = self.fitted_.policy
        end, closes = self._simulate(returns, 0)
        assert end.units is not None
        self.weights_ = np.nan_to_num(np.asarray(end.units)[-1] * closes.ffill().iloc[-1]) / np.asarray(end.value)[-1]
        self._past = returns.iloc[max(0, len(returns) - self.history) :]
        return self

    def predict(self, X: Any) -> Any:
        """Returns of the portfolio per row of X, after costs; a Series."""
        return self._returns(X)

    def _returns(self, X: Any) -> pd.Series:
        check_is_fitted(self)
        returns = self._read_alike(X)
        past = self._past if self._goes_on(returns) else returns.iloc[:0]
        simulation, _ = self._simulate(pd.concat([past, returns]) if len(past) else returns, len(past))
        value = np.asarray(simulation.value)[len(past) :]
        before = np.concatenate([[_CASH], value[1:-1]])  # the costs of entry are those of the first row
        return pd.Series(value[1:] / before - 1, returns.index, name="returns")

    def score(self, X: Any, y: Any = None) -> float:
        """The objective of the predicted returns, from the first row on at which the policy may trade."""
        returns = self._returns(X).to_numpy()
        idle = max(int(self.policy_.min_history) - 1 - self._num_past(X), 0)  # row k is bar k + 1 of the closes
        returns = returns[idle:]
        if not len(returns):
            raise ValueError(f"X: min_history of {int(self.policy_.min_history)} leaves no row to score")
        objective = sharpe_ratio if self.objective is None else self.objective
        return float(objective(returns) if self.ann_factor is None else objective(returns, ann_factor=self.ann_factor))

    # --- prices of returns

    def _num_past(self, X: Any) -> int:
        """Number of rows of the training data that come before these."""
        return len(self._past) if self._goes_on(self._read_alike(X)) else 0

    def _read_alike(self, X: Any) -> pd.DataFrame:
        """Returns with the columns of the training data, aligned by name where both have names. Raises ValueError that
        begins with X for other assets."""
        returns = _read(X)
        if returns.shape[1] != self.n_features_in_:
            raise ValueError(f"X: {returns.shape[1]} assets, but {self.n_features_in_} were trained on")
        names = getattr(self, "feature_names_in_", None)
        if names is None or not isinstance(X, pd.DataFrame) or list(returns.columns) == list(names):
            return returns
        missing = [name for name in names if name not in returns.columns]
        if missing:
            raise ValueError(f"X: it has no column {missing[0]!r}, which was trained on")
        return returns.loc[:, list(names)]

    def _goes_on(self, returns: pd.DataFrame) -> bool:
        """Whether these rows are later than the training data, so that what is remembered of it is their past."""
        if not len(self._past) or not returns.columns.equals(self._past.columns):
            return False
        return not isinstance(returns.index, pd.RangeIndex) and bool(returns.index[0] > self._past.index[-1])

    def _market(self, returns: pd.DataFrame) -> Any:
        closes = _closes(returns)
        return from_frames(closes, features=None if self.features is None else self.features(closes))

    def _simulate(self, returns: pd.DataFrame, first: int) -> tuple[Simulation, pd.DataFrame]:
        """The fitted policy on these returns, which trades from the bar `first` on."""
        policy: Any = self.policy_
        least = np.maximum(np.asarray(policy.min_history, np.float64), float(first))
        late: Any = with_fields(policy, {"min_history": least})
        with jax.enable_x64(True):
            simulation = simulate(
                self._market(returns),
                late,
                costs=self.costs,
                account=Account(cash=np.asarray(_CASH)),
                key=self.key,
            )
            simulation = jax.tree.map(np.asarray, simulation)
        return simulation, _closes(returns)


_CASH = 100.0


def _read(X: Any) -> pd.DataFrame:
    """Returns as a float64 DataFrame [time, asset]. Raises TypeError or ValueError beginning with X."""
    refuse_masked(X, "X")
    table = X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X)) if np.ndim(X) == 2 else None
    if table is None or not all(getattr(dtype, "kind", "O") in "iuf" for dtype in table.dtypes):
        raise TypeError(f"X: expected returns [time, asset], got {type(X).__name__} of shape {np.shape(X)}")
    if table.shape[0] < 2 or table.shape[1] == 0:
        raise ValueError(f"X: expected at least two rows and one asset, got shape {table.shape}")
    values = table.to_numpy(np.float64)
    if (values <= -1).any() or np.isinf(values).any():
        raise ValueError("X: expected simple returns, finite and greater than -1; these may be prices or logarithms")
    refuse_prices(values, "X", "prices.pct_change().iloc[1:]")
    return table.astype(np.float64)


def _closes(returns: pd.DataFrame) -> pd.DataFrame:
    """Closes with these returns. The first close of each asset is 1, at the bar before its first return. So there is
    one more bar than returns; its label is one step before the first one."""
    grown = (1 + returns).cumprod()
    index = returns.index
    before = index[:1] - (index[1] - index[0])
    start = pd.DataFrame(np.nan, before, returns.columns)
    closes = pd.concat([start, grown])
    known = closes.notna().to_numpy()
    first = np.maximum(known.argmax(axis=0) - 1, 0)
    values = closes.to_numpy(copy=True)
    known_columns = np.flatnonzero(known.any(axis=0))
    values[first[known_columns], known_columns] = 1.0
    return pd.DataFrame(values, closes.index, closes.columns)


def _numbers(module: Any, path: str) -> dict[str, Any]:
    """The numeric fields of a Module and of the Modules in it, by path."""
    parameters = {}
    for field in fields(module):
        value = getattr(module, field.name)
        if isinstance(value, eqx.Module):
            parameters |= _numbers(value, f"{path}__{field.name}")
        elif eqx.is_array(value):
            parameters[f"{path}__{field.name}"] = value
    return parameters


def _with_number(module: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    changed = _with_number(getattr(module, name), rest, value) if rest else as_number(value)
    return with_fields(module, {name: changed})
