"""What a training run has found."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.engine.policy.policy import Policy


@dataclass(frozen=True)
class Fitted:
    """The result of `js.fit`.

    policy: the best policy found, with the hard gate: to be backtested, saved, traded. Best by the score on the
        validation period; without one, on the data that it was trained on.
    trained: the same with the gate it was trained under, to go on training from.
    history: one row per evaluation, indexed by step; with several restarts by (restart, step). `score`: on the training
        data, under the gate trained with; `hard`: the same policy under the hard gate; `gap`: score - hard;
        `validation`: under the hard gate, where there is any; `batch_score`: of the last minibatch, where there are
        some; `grad_norm`: length of the last gradient; `temperature`: of the gate, if it has one.
    best_step, best_restart: where in the history the policy is from.
    scores: best score of each restart, on the validation period if there is one; under the hard gate; index restart.
    candidates: the best policy of each restart.
    stopped: why a restart did not run to the end, index restart; empty where all did.
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
        """The scores against the steps: as trained, under the hard gate, on the validation period. With several
        restarts, those under the hard gate, one line each.

        Raises ImportError naming the pip command where Plotly is missing.
        """
        from jaxsim import views

        kwargs.setdefault("best", (self.best_restart, self.best_step))
        return views.training_history(self.history, **kwargs)
