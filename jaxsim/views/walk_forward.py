"""Walk-forward: the role of each bar in each split, and metrics in sample against out of sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jaxsim.views._plotly import CASH, INK, PALETTE, Figure, colours, require_plotly, show, styled
from jaxsim.views._series import axis_name, checked_frame, drawable, envelope, point_budget

_ROLES = {"train": PALETTE[9], "test": PALETTE[3], "": CASH}


def splits(table: pd.DataFrame, title: str | None = "Splits") -> Figure:
    """One horizontal line for each split, coloured by train, test and left-out periods.

    table: [time, split], each entry "train", "test" or empty.
    Raises ImportError without Plotly; TypeError for anything but a DataFrame, ValueError for other entries.
    """
    go = require_plotly()
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table must be a pandas DataFrame, got {type(table).__name__}.")
    unknown = sorted(set(np.unique(table.to_numpy().astype(str))) - set(_ROLES))
    if unknown or table.empty:
        raise ValueError(f"table must say 'train', 'test' or '' at every bar, got {unknown or 'none'}.")
    x, named = drawable(table.index), {"train": "train", "test": "test", "": "left out"}
    fig = go.Figure()
    seen = set()
    for number, label in enumerate(table.columns):
        roles = table[label].to_numpy()
        starts = np.flatnonzero(np.r_[True, roles[1:] != roles[:-1]])
        for start, stop in zip(starts, np.r_[starts[1:], len(roles)], strict=True):
            role = roles[start]
            fig.add_scatter(
                x=[x[start], x[stop - 1]],
                y=[number, number],
                mode="lines",
                line=dict(color=_ROLES[role], width=max(3, min(16, 260 // len(table.columns)))),
                name=named[role],
                legendgroup=role,
                showlegend=role not in seen,
                hovertemplate=f"split {show(label)}: {named[role]}<br>%{{x}}<extra></extra>",
            )
            seen.add(role)
    styled(fig, title, traces=1, legend=True, height=160 + min(20 * len(table.columns), 480))
    few = len(table.columns) <= 30
    ticks = dict(tickvals=list(range(len(table.columns))), ticktext=[show(label) for label in table.columns])
    fig.update_yaxes(title_text="split", autorange="reversed", showgrid=False, **(ticks if few else {}))
    x_name = axis_name(table.index)
    fig.update_xaxes(title_text=x_name and show(x_name))
    return fig.update_layout(hovermode="closest", margin_b=64)


def walk_forward(returns: pd.DataFrame, table: pd.DataFrame, metric: str, title: str | None = None) -> Figure:
    """Above: the growth of 1 unit of money out of sample. Below: a metric for each fold, in sample (hollow) and out of
    sample (full), joined by a line.

    returns: [time, policy], simple returns.
    table: indexed by (policy, fold), with `test_start`, `test_end`, `<metric>_in` and `<metric>_out`.
    Raises ImportError without Plotly, TypeError for anything but DataFrames, ValueError for an unknown metric.
    """
    require_plotly()
    from plotly.subplots import make_subplots

    frame = checked_frame(returns, "returns")
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table must be a pandas DataFrame, got {type(table).__name__}.")
    if f"{metric}_out" not in table:
        raise ValueError(f"table has no column {metric}_out.")
    x, growth, palette = drawable(frame.index), (1 + frame.fillna(0)).cumprod(), colours(frame.shape[1])
    fig = make_subplots(rows=2, cols=1, row_heights=[0.55, 0.45], vertical_spacing=0.16)
    budget, folds = point_budget(frame.shape[1]), table.index.unique("fold")
    for number, policy in enumerate(frame.columns):
        name, path, colour = show(policy), growth[policy].to_numpy(), palette[number]
        rows = envelope(path, budget)
        fig.add_scatter(
            x=x[rows],
            y=path[rows],
            name=name,
            legendgroup=name,
            mode="lines",
            line=dict(width=1.6, color=colour),
            hovertemplate=f"%{{x}}<br>%{{y:.4~f}}<extra>{name}</extra>",
            row=1,
            col=1,
        )
        mine = table.xs(policy, level="policy")
        # Shift the policies side by side within a fold.
        at = np.arange(len(folds)) + (number - (frame.shape[1] - 1) / 2) * 0.6 / max(frame.shape[1], 1)
        inside, outside = (mine[f"{metric}_{side}"].to_numpy(float) for side in ("in", "out"))
        gaps = np.column_stack([inside, outside, np.full(len(at), np.nan)]).ravel()
        common = dict(legendgroup=name, showlegend=False, row=2, col=1)
        fig.add_scatter(
            x=np.repeat(at, 3), y=gaps, mode="lines", line=dict(color=colour, width=1), hoverinfo="skip", **common
        )
        for side, values, symbol in (("in", inside, "circle-open"), ("out of", outside, "circle")):
            fig.add_scatter(
                x=at,
                y=values,
                mode="markers",
                marker=dict(color=colour, size=8, symbol=symbol, line=dict(width=1.6, color=colour)),
                hovertemplate=f"{side} sample: %{{y:.4~g}}<extra>{name}</extra>",
                **common,
            )
    starts = table["test_start"].groupby(level="fold", sort=False).first()
    above: Any = dict(row=1, col=1)
    for fold in folds[1:]:
        place = drawable(frame.index[frame.index.get_indexer([starts[fold]])])[0]
        fig.add_vline(x=place, line=dict(color=INK, width=0.6, dash="dot"), **above)
    styled(fig, title or "Walk-forward, out of sample", traces=frame.shape[1], legend=True, height=560)
    fig.update_layout(hovermode="closest", margin_b=72)
    x_name = axis_name(frame.index)
    fig.update_xaxes(title_text=x_name and show(x_name), row=1, col=1)
    fig.update_yaxes(title_text="growth of 1", row=1, col=1)
    ticks = [show(starts[fold]) for fold in folds]
    fig.update_xaxes(
        title_text="fold, by the start of its test (○ in sample, ● out of sample)",
        tickvals=list(range(len(folds))),
        ticktext=ticks,
        row=2,
        col=1,
    )
    fig.update_yaxes(title_text=metric, row=2, col=1)
    return fig
