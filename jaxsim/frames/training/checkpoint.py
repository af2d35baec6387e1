"""The state of a training run on disk."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.engine.trading.status import LaneFault
from jaxsim.engine.training.gradient_ascent import Problem, TrainState
from jaxsim.engine.training.hyperparameters import called_for
from jaxsim.frames.system.digest import digest
from jaxsim.frames.system.files import describe, read_header, read_tree, structure_of, without_addresses, write_tree
from jaxsim.frames.training.data import Data
from jaxsim.frames.training.log import Stop, TrainingLog

KIND, FILE = "training checkpoint", "checkpoint.eqx"


@dataclass(frozen=True)
class Checkpoint:
    """The file of one run.

    marks: a digest of each argument of the run. A run continues only from a file with equal digests.
    """

    path: Path
    marks: dict[str, str]

    @classmethod
    def of_run(cls, folder: Any, problem: Problem, state: TrainState, data: Data, every: int) -> "Checkpoint":
        """Raises TypeError or ValueError that begins with `checkpoint` if `folder` is no directory."""
        if not isinstance(folder, str | Path):
            raise TypeError(f"checkpoint: expected the path of a directory, got {folder!r}"[:200])
        if Path(folder).is_file():
            raise ValueError(f"checkpoint: {folder} is a file, not a directory")
        return cls(Path(folder) / FILE, marks_of(problem, state, data, every))

    def write(self, state: TrainState, log: TrainingLog) -> None:
        header = {
            "marks": self.marks,
            "rows": log.rows,
            "best_score": log.best_score.tolist(),
            "best_step": log.best_step.tolist(),
            "stopped": {restart: asdict(stop) for restart, stop in log.stopped.items()},
        }
        write_tree(self.path, KIND, (state, log.best_params), **header)

    def read(self, state: TrainState, log: TrainingLog) -> tuple[TrainState, TrainingLog]:
        """The state and the log in the file; the arguments themselves if there is no file.

        Raises ValueError that begins with `checkpoint` if the file is of another run, naming the arguments that differ.
        """
        if not self.path.exists():
            return state, log
        try:
            saved_marks = read_header(self.path, KIND)["marks"]
            differ = [name for name, mark in self.marks.items() if saved_marks.get(name) != mark]
            if differ:
                raise ValueError(
                    f"checkpoint: {self.path.parent} is of another run: {', '.join(differ)} differ; name another "
                    "directory, or delete this one to begin anew"
                )
            header, (saved_state, best) = read_tree(self.path, KIND, (state, log.best_params))
        except ValueError as error:
            if str(error).startswith("checkpoint:"):
                raise
            raise ValueError(f"checkpoint: {error}") from error
        stopped = {int(r): Stop(**{**s, "fault": LaneFault(s["fault"])}) for r, s in header["stopped"].items()}
        score, step = np.array(header["best_score"]), np.array(header["best_step"])
        moved = list(saved_state.has_moved)
        return jax.tree.map(jnp.asarray, saved_state), TrainingLog(best, score, step, header["rows"], stopped, moved)


def marks_of(problem: Problem, state: TrainState, data: Data, every: int) -> dict[str, str]:
    """A digest of each argument that changes the course of a run. Functions that can be traced before the run count by
    their programs, other functions by their names."""
    returns = jax.ShapeDtypeStruct((8,), data.dtype)
    score = problem.score
    one = jax.tree.map(lambda x: x[0], state.params)
    parts = {
        "policy": (problem.fixed, state.params),
        "market": data.training,
        "validation": (data.held_out, data.split),
        "costs": problem.costs,
        "account": problem.account,
        "constraints": problem.constraints,
        "batch": problem.batch,
        "key": jax.random.key_data(problem.key),
        "every": every,
        "start": problem.start,
        "hyperparameters": problem.members,
    }
    member = {name: values[0] for name, values in problem.members.items()}
    marks = {name: _digest(part) for name, part in parts.items()}
    memory = jax.tree.map(lambda x: x[0], state.memory)
    marks["optimizer"] = _program(lambda g, m, p: _updated(problem.optimizer_of(member), g, m, p), one, memory, one)
    if score.of_simulation:
        marks["score"] = _digest(score)
    else:
        settings = {} if score.ann_factor is None else {"ann_factor": score.ann_factor}
        marks["objective"] = _program(lambda x: score.function(x, **settings), returns)
    if problem.anneal is not None:
        anneal = problem.anneal
        marks["anneal"] = _program(lambda step: called_for(member, anneal, step), jax.ShapeDtypeStruct((), np.int32))
    return marks


def _updated(optimizer: Any, grads: Any, memory: Any, params: Any) -> Any:
    from optax import with_extra_args_support

    value = jnp.sum(jax.tree.leaves(params)[0])
    return with_extra_args_support(optimizer).update(
        grads, memory, params, value=value, grad=grads, value_fn=lambda p: value
    )


def _digest(tree: Any) -> str:
    """A digest of the structure and the numbers of a pytree; functions count by their names."""
    leaves = [
        leaf if isinstance(leaf, np.ndarray | np.generic | jax.Array) else None if callable(leaf) else repr(leaf)
        for leaf in jax.tree.leaves(tree)
    ]
    return digest((structure_of(tree), describe(tree), leaves))


def _program(function: Any, *arguments: Any) -> str:
    """A digest of the program of a function, including its constants."""
    program = jax.make_jaxpr(function)(*arguments)
    return digest((without_addresses(str(program)), [np.asarray(constant) for constant in program.consts]))
