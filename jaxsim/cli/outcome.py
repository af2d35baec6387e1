"""The files of a run in its folder, from which its table and report can be made again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from jaxsim.cli.complaint import Complaint

_SETTINGS = "settings.json"
_TABLES = ("metrics", "values", "weights", "targets")


@dataclass(frozen=True, eq=False)
class Outcome:
    """The tables of a run.

    settings: the arguments of the run, ready for JSON; `best` is the number of the best lane.
    metrics: [lane, metric].       values: value of each lane after each bar, [time, lane], currency.
    weights: realised weights of the best lane, [time, asset].
    targets: target weights of the best lane, [rebalance, asset].
    """

    settings: dict[str, Any]
    metrics: pd.DataFrame
    values: pd.DataFrame
    weights: pd.DataFrame
    targets: pd.DataFrame

    @property
    def best(self) -> Any:
        """Label of the best lane."""
        return self.metrics.index[self.settings["best"]]

    def save(self, folder: Path) -> None:
        """Write the settings as JSON and the tables as Parquet; metrics and targets as CSV too."""
        values = self.values.set_axis([lane_name(self.metrics.index, x) for x in self.metrics.index], axis=1)
        tables = {"metrics": self.metrics, "values": values, "weights": self.weights, "targets": self.targets}
        for name, table in tables.items():
            table.to_parquet(folder / f"{name}.parquet")
        self.metrics.to_csv(folder / "metrics.csv")
        self.targets.to_csv(folder / "rebalances.csv")
        (folder / _SETTINGS).write_text(json.dumps(self.settings, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> Outcome:
    """Read the files of `Outcome.save`. Raises Complaint, naming DIR, for a missing or broken file."""
    if not (folder / _SETTINGS).is_file():
        raise Complaint(f"DIR: {str(folder)!r} holds no run of `jaxsim demo` or `jaxsim sweep`")
    try:
        settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        metrics, values, weights, targets = (pd.read_parquet(folder / f"{name}.parquet") for name in _TABLES)
        outcome = Outcome(settings, metrics, values.set_axis(metrics.index, axis=1), weights, targets)
        assert outcome.best is not None
        return outcome
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise Complaint(f"DIR: the run in {str(folder)!r} cannot be read: {reason}") from error


def lane_name(lanes: pd.Index, label: Any) -> str:
    """The name of a lane: `threshold 0.05, fees 0.001`."""
    labels = label if isinstance(label, tuple) else (label,)
    return ", ".join(f"{name} {value:.10g}" for name, value in zip(lanes.names, labels, strict=True))
