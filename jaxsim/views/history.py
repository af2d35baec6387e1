"""The objective during training."""

from __future__ import annotations

import pandas as pd

from jaxsim.views._plotly import ALERT, Figure, colours, require_plotly, styled
from jaxsim.views._series import checked_frame

LINES = {"score": "as trained", "hard": "hard gate", "validation": "validation, hard gate"}
DASHES = {"score": "dot", "hard": "solid", "validation": "dash"}


def training_history(
    history: pd.DataFrame, *, best: tuple[int, int] | None = None, title: str | None = "Training"
) -> Figure:
    """The objective by step: one line for each of the columns `score`, `hard` and `validation`. If the index has two
    levels, (restart, step): one line per restart, of `validation` if there is such a column, else of `hard`.

    best: (restart, step) to mark; the restart is ignored if there is only one.

    Raises ImportError without Plotly; TypeError or ValueError for anything but a frame of numbers with a column `hard`.
    """
    go = require_plotly()
    if isinstance(history, pd.DataFrame) and "hard" not in history:
        raise ValueError(f"history has no column 'hard', only {list(history.columns)}.")
    several = isinstance(getattr(history, "index", None), pd.MultiIndex)
    main = "validation" if "validation" in history else "hard"
    lines = {}
    if several:
        wide = checked_frame(history[main].unstack(0), "history")
        lines = {f"restart {name}": (wide[name], "solid") for name in wide.columns}
    else:
        frame = checked_frame(history, "history")
        lines = {text: (frame[name], DASHES[name]) for name, text in LINES.items() if name in frame}
    fig = go.Figure()
    for colour, (name, (series, dash)) in zip(colours(len(lines)), lines.items(), strict=True):
        line = dict(color=colour, width=2, dash=dash)
        fig.add_scatter(x=series.index, y=series, name=name, mode="lines", line=line)
    if best is not None:
        at = history[main].loc[best if several else best[1]]
        ring = dict(symbol="circle-open", size=14, color=ALERT, line=dict(width=2.5))
        fig.add_scatter(x=[best[1]], y=[at], mode="markers", marker=ring, name=f"kept, {at:.4g}", hoverinfo="skip")
    fig.update_xaxes(title_text="step")
    fig.update_yaxes(title_text=LINES[main] if several else "score")
    return styled(fig, title, traces=len(lines), legend=True)
