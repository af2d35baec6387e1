"""The log of a training run: the rows of its history, the best parameters, the reasons why restarts stopped."""

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxsim.engine.policy.policy import Policy
from jaxsim.engine.trading.status import LaneFault
from jaxsim.engine.training.gradient_ascent import Evaluation, Problem, TrainingFailure, TrainState
from jaxsim.engine.training.hyperparameters import called_for
from jaxsim.errors import AllocationError
from jaxsim.frames.training.diagnosis import why_not_finite
from jaxsim.frames.training.fitted import Fitted


@dataclass(frozen=True)
class Stop:
    """The reason why a restart stopped: the step, the fault of the simulation, if it had one, and else what was not
    finite."""

    step: int
    fault: LaneFault
    bar: int
    asset: int
    detail: str = ""

    @classmethod
    def of(cls, failure: TrainingFailure, restart: int) -> "Stop":
        step, fault, bar, asset = (int(x[restart]) for x in (failure.step, failure.fault, failure.bar, failure.asset))
        return cls(step, LaneFault(fault), bar, asset)

    @property
    def reason(self) -> str:
        if self.fault == LaneFault.NONE:
            return self.detail
        return f"{self.fault.text} (bar {self.bar}, asset {self.asset})"


def _temperatures(problem: Problem, step: Any, count: int) -> np.ndarray:
    """That of the gate at a step, [restart]."""
    gate: Any = problem.fixed.gate
    anneal = problem.anneal
    if anneal is None:
        return np.broadcast_to(np.asarray(gate.temperature), count)
    members = ({name: x[restart] for name, x in problem.members.items()} for restart in range(count))
    return np.array([called_for(member, anneal, step) for member in members])


@dataclass
class TrainingLog:
    """rows: of the history, [evaluation][restart].
    best_params: of each restart, stacked; best_score, best_step: [restart].
    stopped: reason of each stopped restart, by number.      has_moved: [leaf][restart].
    """

    best_params: Any
    best_score: np.ndarray
    best_step: np.ndarray
    rows: list[list[dict[str, float]]] = field(default_factory=list)
    stopped: dict[int, Stop] = field(default_factory=dict)
    has_moved: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def blank(cls, params: Any) -> "TrainingLog":
        count = jax.tree.leaves(params)[0].shape[0]
        return cls(params, np.full(count, -np.inf), np.zeros(count, int))

    def add(self, problem: Problem, state: TrainState, evaluation: Evaluation) -> None:
        """Add an evaluation, and keep the parameters of each restart that has a new best score."""
        progress, judgement = jax.device_get((state, evaluation))
        judged = judgement.hard if judgement.validation is None else judgement.validation
        for failure in (progress.failure, judgement.failure):
            for restart in np.flatnonzero(failure.step >= 0):
                if int(restart) not in self.stopped:
                    stop = Stop.of(failure, int(restart))
                    if stop.fault == LaneFault.NONE:
                        stop = replace(stop, detail=why_not_finite(problem, state, int(restart), stop.step))
                    self.stopped[int(restart)] = stop
        running = np.array([restart not in self.stopped for restart in range(len(judged))])
        better = running & (judged > self.best_score)
        self.best_score = np.where(better, judged, self.best_score)
        self.best_step = np.where(better, int(progress.step), self.best_step)

        def kept(new: np.ndarray, old: np.ndarray) -> np.ndarray:
            return np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        self.best_params = jax.tree.map(kept, progress.params, self.best_params)
        self.has_moved = list(progress.has_moved)
        columns = {"score": judgement.score, "hard": judgement.hard, "gap": judgement.score - judgement.hard}
        if judgement.validation is not None:
            columns["validation"] = judgement.validation
        if problem.batch is not None or callable(problem.markets):
            columns["batch_score"] = progress.score
        columns["grad_norm"] = progress.grad_norm
        if hasattr(problem.fixed.gate, "temperature"):
            columns["temperature"] = _temperatures(problem, state.step, len(judged))
        columns.update(problem.members)
        self.rows.append(
            [
                {"step": int(progress.step), **{name: float(x[restart]) for name, x in columns.items()}}
                for restart in range(len(judged))
            ]
        )

    @property
    def last_step(self) -> int:
        return int(self.rows[-1][0]["step"]) if self.rows else 0

    @property
    def figures(self) -> dict[str, str]:
        """Figures of the best restart for the progress bar."""
        row = self.rows[-1][int(np.argmax(self.best_score))]
        names = [name for name in ("score", "gap", "validation") if name in row]
        return {name: f"{row[name]:.4g}" for name in names}

    def is_over(self, patience: int | None) -> bool:
        """Whether all restarts have stopped, or no score has improved for `patience` steps."""
        if len(self.stopped) == len(self.best_score):
            return True
        return patience is not None and self.last_step - int(self.best_step.max()) >= patience

    def raise_if_hopeless(self) -> None:
        """Raises AllocationError or ValueError if all restarts have failed at their first step."""
        if len(self.stopped) < len(self.best_score) or self.best_step.max() > 0:
            return
        first = self.stopped[0]
        if first.step == 0:
            is_policy = first.fault != LaneFault.NONE
            raise AllocationError(f"policy: {first.reason}") if is_policy else ValueError(f"objective: {first.reason}")

    def result(self, candidates: list[Policy]) -> Fitted:
        """The result, with a warning if restarts have stopped."""
        reasons = {restart: f"step {stop.step}: {stop.reason}" for restart, stop in sorted(self.stopped.items())}
        for restart, reason in reasons.items():
            warnings.warn(f"restart {restart} stopped at {reason}", stacklevel=3)
        best = int(np.argmax(self.best_score))
        rows = [{"restart": r, **row} for rows in self.rows for r, row in enumerate(rows)]
        history = pd.DataFrame(rows).sort_values(["restart", "step"], kind="stable")
        if len(self.best_score) == 1:
            history = history.drop(columns="restart").set_index("step")
        else:
            history = history.set_index(["restart", "step"])
        number = pd.RangeIndex(len(self.best_score), name="restart")
        stopped = pd.Series(reasons, dtype=object, name="stopped").rename_axis("restart")
        return Fitted(
            policy=candidates[best].hardened(),
            trained=candidates[best],
            history=history,
            best_step=int(self.best_step[best]),
            best_restart=best,
            scores=pd.Series(self.best_score, number, name="score"),
            candidates=tuple(policy.hardened() for policy in candidates),
            stopped=stopped,
        )
