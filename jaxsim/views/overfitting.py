"""Out-of-sample results of the best of many trials: the probability of overfitting as a plot."""

from __future__ import annotations

import numpy as np
import pandas as pd

from jaxsim.views._plotly import ALERT, INK, PALETTE, Figure, require_plotly, show, styled
from jaxsim.views._series import as_float

_MOST = 4_000  # points of a scatter


def overfitting(table: pd.DataFrame, metric: str = "score", title: str | None = None) -> Figure:
    """Left: a histogram of the logits of all halves, in red at zero and below. Right: the metric of the best trial
    outside its half against inside, with the least-squares line.

    table: a row for each half, with `inside`, `outside` and `logit`. Of more than 4,000 halves an even sample is drawn
    on the right.
    Raises ImportError without Plotly, TypeError for anything but a DataFrame, ValueError for a missing column or an
    empty table.
    """
    require_plotly()
    from plotly.subplots import make_subplots

    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table must be a pandas DataFrame, got {type(table).__name__}.")
    missing = [name for name in ("inside", "outside", "logit") if name not in table]
    if missing or table.empty:
        raise ValueError(f"table has no column {missing[0]!r}." if missing else "table is empty.")
    logit, inside, outside = (as_float(table[name], name) for name in ("logit", "inside", "outside"))
    share = float((logit <= 0).mean())
    fig = make_subplots(rows=1, cols=2, horizontal_spacing=0.12)
    edges = _edges(logit)
    width = edges[1] - edges[0]
    counts = np.histogram(logit, edges)[0] / len(logit)
    middle = (edges[1:] + edges[:-1]) / 2
    for below, colour, name in ((True, ALERT, "not above the median"), (False, PALETTE[9], "above the median")):
        chosen = (middle <= 0) == below
        fig.add_bar(
            x=middle[chosen],
            y=counts[chosen],
            width=width,
            marker=dict(color=colour, line=dict(color="white", width=0.5)),
            name=name,
            hovertemplate="logit about %{x:.2f}: %{y:.1%}<extra></extra>",
            row=1,
            col=1,
        )
    rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), _MOST)).astype(int))
    fig.add_scatter(
        x=inside[rows],
        y=outside[rows],
        mode="markers",
        marker=dict(size=4, color=PALETTE[0], opacity=0.35),
        showlegend=False,
        hovertemplate="inside %{x:.4~g}<br>outside %{y:.4~g}<extra></extra>",
        row=1,
        col=2,
    )
    known = np.isfinite(inside) & np.isfinite(outside)
    if known.sum() > 2 and np.ptp(inside[known]) > 0:
        slope, start = np.polyfit(inside[known], outside[known], 1)
        ends = np.array([inside[known].min(), inside[known].max()])
        fig.add_scatter(
            x=ends,
            y=start + slope * ends,
            mode="lines",
            line=dict(color=INK, width=1.5),
            name=f"least squares, slope {slope:.2f}",
            hoverinfo="skip",
            row=1,
            col=2,
        )
    styled(fig, title or f"Probability of overfitting: {share:.1%}", traces=3, legend=True, height=420)
    fig.update_layout(hovermode="closest", bargap=0, margin_b=80)
    fig.update_xaxes(title_text="logit of the rank outside", row=1, col=1)
    fig.update_yaxes(title_text="share of halves", tickformat=".0%", row=1, col=1)
    fig.update_xaxes(title_text=f"{show(metric)} inside, of the best", row=1, col=2)
    fig.update_yaxes(title_text=f"{show(metric)} outside", row=1, col=2)
    return fig


def _edges(logit: np.ndarray) -> np.ndarray:
    """Edges of bins of equal width; one bin ends at zero and includes it."""
    low, high = min(float(logit.min()), -1e-6), max(float(logit.max()), 1e-6)
    width = (high - low) / 40
    tiny = width * 1e-6
    return np.arange(np.floor(low / width) - 1, np.ceil(high / width) + 2) * width + tiny
