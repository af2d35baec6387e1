"""An `Outcome` on the terminal and as an HTML report."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxsim import views
from jaxsim.cli.job import show_time
from jaxsim.cli.outcome import Outcome, lane_name

REPORT = "report.html"
_DRAWN = 6  # lanes in one figure; more would hide each other, and their legend would hide the plot on a phone
_FORMATS = {"turnover": "{:,.2f}", "num_rebalances": "{:,.0f}", "total_fees": "{:,.2f}"}


def summary(outcome: Outcome) -> str:
    """The table of metrics and the best lane's rebalances, as text."""
    settings = outcome.settings
    return "\n".join(
        [
            settings["title"],
            f"{settings['source']}: {len(settings['assets'])} assets, {settings['bars']:,} bars, "
            f"{settings['first']} to {settings['last']}",
            "",
            _table(outcome),
            "",
            f"Best Sharpe ratio: {_best(outcome)}.",
            _rebalances(outcome.targets.index),
        ]
    )


def write(outcome: Outcome, folder: Path) -> Path:
    """Draw the report of a run into its folder; returns its path."""
    settings, best = outcome.settings, _best_name(outcome)
    return views.write_report(
        folder / REPORT,
        title=settings["title"],
        subtitle=f"{settings['source']}, {settings['first']} to {settings['last']}",
        notes=_notes(outcome),
        figures=_figures(outcome),
        tables={
            "Metrics": outcome.metrics.rename(columns=lambda name: name.replace("_", " ")),
            f"Rebalances and targets, {best}": outcome.targets,
        },
    )


def _figures(outcome: Outcome) -> dict[str, Any]:
    """The figures by heading; figures without data are left out."""
    best, count = _best_name(outcome), outcome.values.shape[1]
    sharpe, figures = pd.Series(outcome.metrics["sharpe_ratio"]), {}
    fixed = [name for name in sharpe.index.names if sharpe.index.get_level_values(name).nunique() == 1]
    swept = [name for name in sharpe.index.names if name not in fixed]
    if swept and np.isfinite(sharpe).any():
        heading = f"Sharpe ratio against {' and '.join(swept)}"
        figures[heading] = views.metric_against(pd.Series(sharpe.droplevel(fixed)), title="")
    figures[f"Value and drawdown, {best}"] = views.value_with_drawdown(outcome.values[outcome.best])
    if count > 1:
        sample = _sample(outcome)
        title = f"{sample.shape[1]} of {count:,} lanes"
        figures["The best beside others"] = views.value_with_drawdown(sample, title)
    figures[f"Realised weights, {best}"] = views.stacked_weights(outcome.weights)
    if len(outcome.targets):
        figures[f"Target weights and their dates, {best}"] = views.stacked_targets(
            outcome.targets, end=outcome.weights.index[-1]
        )
    return figures


def _notes(outcome: Outcome) -> list[str]:
    s = outcome.settings
    late = ", ".join(f"{asset} from {first}" for asset, first in s["listed_late"].items())
    if s["weights"] is not None:
        target = "fixed weights " + ", ".join(f"{k} {v:.10g}" for k, v in s["weights"].items())
    else:
        target = "equal weight over the assets " + ("listed so far" if s["over"] == "tradable" else "of the table")
    fees = ", ".join(f"{x:.10g}" for x in s["fees"])
    return [
        f"Prices of {_few(s['assets'])}; {s['bars']:,} bars" + (f"; listed late: {late}." if late else "."),
        f"Target: {target}; rebalanced when a weight is off its target by the threshold or more.",
        f"Fees {fees} of the traded value; valued at the {s['valued_at']}, traded at the close; opening cash "
        f"{s['init_cash']:,.10g}{_held(s)}; {s['bars_per_year']:.10g} bars a year.",
        f"Highest Sharpe ratio: {_best(outcome)}. It is the best in hindsight, on the same prices.",
        _rebalances(outcome.targets.index),
    ]


def _held(settings: dict[str, Any]) -> str:
    units = settings.get("init_units")
    return "" if not units else " and units " + ", ".join(f"{k} {v:,.10g}" for k, v in units.items())


def _best(outcome: Outcome) -> str:
    sharpe = outcome.metrics["sharpe_ratio"].iloc[outcome.settings["best"]]
    return f"{sharpe:.4f} at {_best_name(outcome)}"


def _best_name(outcome: Outcome) -> str:
    return lane_name(outcome.metrics.index, outcome.best)


def _rebalances(times: pd.Index) -> str:
    shown = [show_time(time) for time in times]
    dates = ", ".join(shown if len(shown) <= 6 else [*shown[:3], "...", *shown[-3:]])
    return f"{len(shown)} rebalance{'s' if len(shown) != 1 else ''}" + (f": {dates}" if shown else "")


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 10 else f"{', '.join(names[:10])} and {len(names) - 10} more"


def _sample(outcome: Outcome) -> pd.DataFrame:
    """The value paths to draw: all if they are few, else the best lane and evenly spaced others."""
    count, best = outcome.values.shape[1], outcome.settings["best"]
    chosen = np.linspace(0, count - 1, min(count, _DRAWN)).round().astype(int)
    chosen[np.abs(chosen - best).argmin()] = best
    return outcome.values.iloc[:, np.unique(chosen)]


def _table(outcome: Outcome) -> str:
    """One row per lane, with headings of two lines and the best lane marked."""
    metrics = outcome.metrics
    columns = [
        [*_heading(str(name)), *(f"{x:.10g}" for x in metrics.index.get_level_values(i))]
        for i, name in enumerate(metrics.index.names)
    ]
    for name in metrics.columns:
        form = _FORMATS.get(name, "{:.4f}")
        columns.append([*_heading(name), *("-" if pd.isna(x) else form.format(x) for x in metrics[name])])
    widths = [max(map(len, column)) for column in columns]
    rows = ["  ".join(map(str.rjust, row, widths)) for row in zip(*columns, strict=True)]
    rows[2 + outcome.settings["best"]] += "  best"
    return "\n".join(rows)


def _heading(name: str) -> tuple[str, str]:
    first, _, second = name.partition("_")
    return (first, second) if second else ("", first)
