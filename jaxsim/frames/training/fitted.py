"""The result of a training run."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.policy.policy import Policy


@dataclass(frozen=True)
class Fitted:
    """The result of `js.fit`.

    policy: the best policy, with the gate `Hard`, for backtests, files and trading. Best by the score on the validation
        data; without any, on the training data.
    trained: the same policy with the gate of the training, to continue the training.
    history: one row per evaluation, indexed by step; with several restarts by (restart, step). `score`: on the training
        data, under the gate of the training; `hard`: under the gate `Hard`; `gap`: score - hard; `validation`: under
        `Hard` on the validation data, if there is any; `batch_score`: of the last minibatch, if there are minibatches;
        `grad_norm`: length of the last gradient; `temperature`: of the gate, if it has one; and a column for each
        hyper-parameter of the restarts.
    best_step, best_restart: the row of the history with the policy.
    scores: best score of each restart under `Hard`, on the validation data if there is any; index restart.
    candidates: the best policy of each restart.
    stopped: the reason why a restart stopped early, index restart; empty if none did.
    """

    policy: Policy
    trained: Policy
    history: pd.DataFrame
    best_step: int
    best_restart: int
    scores: pd.Series = field(repr=False)
    candidates: tuple[Policy, ...] = field(repr=False)
    stopped: pd.Series

    def _at_best(self, column: str) -> float:
        is_many = isinstance(self.history.index, pd.MultiIndex)
        values: Any = self.history[column]
        return float(values.loc[(self.best_restart, self.best_step) if is_many else self.best_step])

    @property
    def score(self) -> float:
        """Score of `policy` on the training data, under the gate `Hard`: the score that a backtest shows."""
        return self._at_best("hard")

    @property
    def soft_score(self) -> float:
        """Score of `trained` on the same data, under the gate that it was trained with."""
        return self._at_best("score")

    @property
    def gap(self) -> float:
        """`soft_score - score`: above 0, the training score promises more than the policy keeps. 0 for gates whose
        values are those of `Hard`."""
        return self._at_best("gap")

    @property
    def validation(self) -> float:
        """Score of `policy` on the validation period; NaN without one."""
        return self._at_best("validation") if "validation" in self.history else np.nan

    def __repr__(self) -> str:
        held_out = "" if np.isnan(self.validation) else f", validation={self.validation:.6g}"
        return f"Fitted(score={self.score:.6g}, gap={self.gap:.3g}{held_out}, best_step={self.best_step})"

    def plot_history(self, **kwargs: Any) -> Any:
        """The scores against the steps: under the gate of the training, under `Hard`, on the validation data. With
        several restarts, one line for each, under `Hard`.

        Raises ImportError naming the pip command where Plotly is missing.
        """
        from jaxsim import views

        kwargs.setdefault("best", (self.best_restart, self.best_step))
        return views.training_history(self.history, **kwargs)
