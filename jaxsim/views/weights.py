"""Portfolio weights as stacked areas: realised weights and target weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jaxsim.views._plotly import CASH, INK, MANY, Figure, colours, require_plotly, show, styled
from jaxsim.views._series import axis_name, checked_frame, drawable, jump_rows, point_budget

_VISIBLE = 1e-6  # of the portfolio; less cash than this is a rounding error


def stacked_weights(weights: pd.DataFrame, title: str | None = None) -> Figure:
    """Realised weights over time as stacked areas, with the rest to one as a light `cash` band.

    weights: [time, asset], fractions of the portfolio's value; NaN counts as 0. The index has dates (with or without
        time zone) or bar numbers.

    Cash is drawn if it ever exceeds 1e-6 in size. Short positions and negative cash are below zero. More than 4,000
    rows (fewer from 16 assets on) are thinned to evenly spaced rows and the rows around the largest changes. All areas
    share these rows, so each row sums to one.

    Raises ImportError without Plotly, TypeError for anything but a DataFrame, ValueError if it is empty, not numeric or
    has several lanes.
    """
    frame = checked_frame(weights, "weights")
    stack, cash = _with_cash(frame.fillna(0.0), "cash")
    rows = jump_rows(stack.to_numpy(), point_budget(stack.shape[1]))
    return _areas(stack.iloc[rows], cash, drawable(frame.index)[rows], axis_name(frame.index), title, "linear")


def stacked_targets(weights: pd.DataFrame, end: Any = None, title: str | None = None) -> Figure:
    """Target allocations as stacked steps, each held until the next; ticks along the top mark their dates.

    weights: [allocation time, asset], fractions of the portfolio's value, ascending in time.
    end: label at which the last step ends, at or after the last allocation. None: the last step gets the median length
        of the others (a single one: one day, or one bar), so that it is visible.

    The rest to one is the `cash` band; if a target is NaN ("leave this asset alone") the name of the band says so. More
    than 4,000 allocations (fewer from 16 assets on) are thinned as in `stacked_weights`, with their ticks.

    Raises ImportError without Plotly, TypeError for anything but a DataFrame, ValueError if it is empty, not numeric,
    not ascending or has several lanes, or if `end` is before the last allocation.
    """
    go = require_plotly()
    frame = checked_frame(weights, "weights")
    if not frame.index.is_monotonic_increasing:
        raise ValueError("weights must be ascending in time: each allocation is drawn until the next one.")
    rest = "cash, or left alone" if frame.isna().any(axis=None) else "cash"
    stack, cash = _with_cash(frame.fillna(0.0), rest)
    times = _closed(frame.index, end)  # one longer than the frame: where the last step ends
    axis = drawable(times)
    rows = jump_rows(stack.to_numpy(), point_budget(stack.shape[1]))
    held = stack.iloc[np.append(rows, rows[-1])]
    fig = _areas(held, cash, axis[np.append(rows, len(axis) - 1)], axis_name(times), title, "hv")
    top = held.clip(lower=0).sum(axis=1).max()
    fig.add_trace(
        go.Scatter(
            x=axis[rows],
            y=np.full(len(rows), 1.02 * top),
            mode="markers",
            name="allocation",
            marker=dict(symbol="line-ns", size=7, line=dict(width=1, color=INK)),
            hovertemplate="allocation at %{x}<extra></extra>",
            cliponaxis=False,
        )
    )
    return fig


def _closed(index: pd.Index, end: Any) -> pd.Index:
    """The index, followed by the label at which its last step ends."""
    if end is None:
        steps = index[1:] - index[:-1]
        one = pd.Timedelta(days=1) if isinstance(index, pd.DatetimeIndex) else 1
        end = index[-1] + (steps.sort_values()[len(steps) // 2] if len(steps) else one)
    elif isinstance(index, pd.DatetimeIndex):
        end = pd.Timestamp(end)
        if (end.tz is None) != (index.tz is None):
            raise ValueError("end and the index of weights must both have a time zone or both have none.")
        end = end if end.tz is None else end.tz_convert(index.tz)
    if end < index[-1]:
        raise ValueError(f"end ({end}) lies before the last allocation ({index[-1]}).")
    return index.append(pd.Index([end])).rename(index.name)


def _with_cash(frame: pd.DataFrame, name: str) -> tuple[pd.DataFrame, bool]:
    """The frame with the rest to one as its last column, if that is visible; and whether it is."""
    rest = (1.0 - frame.sum(axis=1)).rename(name)
    visible = bool((rest.abs() > _VISIBLE).any())
    stack = frame.set_axis([show(label) for label in frame.columns], axis=1)
    return (pd.concat([stack, rest], axis=1) if visible else stack), visible


def _areas(stack: pd.DataFrame, cash: bool, x: np.ndarray, x_name: str | None, title: str | None, shape: str) -> Figure:
    """One filled area per column, the first at the bottom, cash last; negative weights are stacked below zero."""
    go = require_plotly()
    count = stack.shape[1]
    palette = [*colours(count - cash), CASH]
    # A light line separates neighbouring areas; with many rows the lines would hide the areas.
    seam = 0.5 if len(stack) <= 400 else 0
    fig = go.Figure()
    for i, name in enumerate(stack.columns):
        hover = "%{y:.1%}" if count <= MANY else f"{name}<br>%{{x}}<br>%{{y:.2%}}<extra></extra>"
        values = stack.iloc[:, i].to_numpy()
        for side, part in (("long", values.clip(min=0)), ("short", values.clip(max=0))):
            if side == "short" and part.min() > -_VISIBLE:
                continue
            fig.add_scatter(
                x=x,
                y=part,
                name=name,
                mode="lines",
                line=dict(width=seam, color="white", shape=shape),
                fillcolor=palette[i],
                stackgroup=side,
                legendgroup=str(i),
                showlegend=side == "long",
                hovertemplate=hover,
            )
    styled(fig, title, traces=count, legend=True)
    fig.update_yaxes(tickformat=".0%", rangemode="tozero")
    fig.update_xaxes(title_text=x_name and show(x_name), showgrid=False, range=[x[0], x[-1]])
    return fig
