"""A metric against swept parameters: a line over one parameter, a heatmap over two."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from jaxsim.views._plotly import ALERT, PALETTE, Figure, require_plotly, show, styled
from jaxsim.views._series import as_float, drawable, envelope, point_budget


def metric_against(
    series: pd.Series, *, best: Literal["max", "min"] | None = "max", title: str | None = None
) -> Figure:
    """A metric against one swept level (a line with markers) or two (a heatmap), with the best value marked.

    series: the metric in its own unit [lane]. Its name and the names of its index levels name the axes. With two levels
        the first gives the rows, the second the columns; numbers and dates are ascending. Missing pairs are blank.
    best: "max" or "min" marks the highest or lowest value; None marks none.

    A line of more than 4,000 points is thinned to the lowest and highest point of each short interval; the best value
    is always drawn.

    Raises ImportError without Plotly, TypeError for anything but a Series, ValueError if it is empty, not numeric, has
    duplicate labels or more than two levels (select with `.xs` first), or for another `best`.
    """
    require_plotly()
    if not isinstance(series, pd.Series):
        raise TypeError(f"series must be a pandas Series, one metric over lanes, got {type(series).__name__}.")
    if series.empty:
        raise ValueError("series is empty: there is nothing to draw.")
    if best not in ("max", "min", None):
        raise ValueError(f"best must be 'max', 'min' or None, got {best!r}.")
    names = [_level(name) for name in series.index.names]
    if len(names) > 2:
        label = series.index.get_level_values(0).tolist()[0]
        raise ValueError(
            f"series has {len(names)} levels ({', '.join(names)}), and a picture shows at most two: select "
            f"one value of each other level first, for example series.xs({label!r}, level={names[0]!r})."
        )
    if series.index.has_duplicates:
        twice = series.index[series.index.duplicated()].tolist()[0]
        raise ValueError(f"series has more than one value for {twice!r}.")
    index = series.index.get_level_values(0) if len(names) == 1 else series.index
    metric = pd.Series(as_float(series, "series"), index=index)
    name = "metric" if series.name is None else show(series.name)
    fig = _line(metric, name, names[0], best) if len(names) == 1 else _heatmap(metric, name, names, best)
    if title is None:
        title = f"{name} against {' and '.join(names)}"
    styled(fig, title, traces=1, legend=False)
    # The top margin has room for the text of the best value.
    return fig.update_layout(hovermode="closest", margin_t=64)


def _line(metric: pd.Series, name: str, level: str, best: str | None) -> Figure:
    go = require_plotly()
    ordered = not _is_text(metric.index)  # text labels get no line between them
    if ordered:
        metric = metric.sort_index()
    y = metric.to_numpy()
    rows = envelope(y, point_budget(1))
    mode = "markers" if not ordered else "lines+markers" if len(rows) <= 200 else "lines"
    x = drawable(metric.index) if ordered else np.array([show(label) for label in metric.index])
    fig = go.Figure(
        go.Scatter(
            x=x[rows],
            y=y[rows],
            mode=mode,
            line=dict(color=PALETTE[0], width=2),
            marker=dict(color=PALETTE[0], size=7),
            name=name,
            hovertemplate=f"{level} %{{x}}<br>{name} %{{y:.6~g}}<extra></extra>",
        )
    )
    fig.update_xaxes(title_text=level, type=None if ordered else "category")
    fig.update_yaxes(title_text=name)
    if (at := _best(y, best)) is not None:
        _annotate(fig, x[at], y[at], best, f"{y[at]:.4g} at {level} {show(metric.index[at])}")
    return fig


def _heatmap(metric: pd.Series, name: str, levels: list[str], best: str | None) -> Figure:
    go = require_plotly()
    rows, columns = (_labels(metric.index.get_level_values(i)) for i in (0, 1))
    grid = metric.unstack().reindex(index=rows, columns=columns)
    y, x = (np.array([show(label) for label in labels], dtype=object) for labels in (rows, columns))
    fig = go.Figure(
        go.Heatmap(
            z=grid.to_numpy(),
            x=x,
            y=y,
            colorscale="Viridis",
            colorbar=dict(title=dict(text=name, side="right"), thickness=12, len=1, outlinewidth=0),
            hoverongaps=False,
            hovertemplate=f"{levels[0]} %{{y}}<br>{levels[1]} %{{x}}<br>{name} %{{z:.6~g}}<extra></extra>",
        )
    )
    fig.update_xaxes(title_text=levels[1], type="category", showgrid=False)
    fig.update_yaxes(title_text=levels[0], type="category", showgrid=False)
    if (at := _best(grid.to_numpy().ravel(), best)) is not None:
        i, j = divmod(at, len(columns))
        where = f"{levels[0]} {y[i]}, {levels[1]} {x[j]}"
        _annotate(fig, x[j], y[i], best, f"{grid.iloc[i, j]:.4g} at {where}")
    return fig


def _level(name: object) -> str:
    return "parameter" if name is None else show(name)


def _is_text(labels: pd.Index) -> bool:
    number = pd.api.types.is_numeric_dtype(labels) and not pd.api.types.is_bool_dtype(labels)
    return not number and not isinstance(labels, pd.DatetimeIndex)


def _labels(values: pd.Index) -> pd.Index:
    """The labels of one level: numbers and dates ascending, texts in the order in which they first appear."""
    unique = values.unique()
    return unique if _is_text(unique) else unique.sort_values()


def _best(values: np.ndarray, best: str | None) -> int | None:
    """The position of the highest or lowest value; None if there is no value."""
    if best is None or np.isnan(values).all():
        return None
    return int(np.nanargmax(values) if best == "max" else np.nanargmin(values))


def _annotate(fig: Figure, x: object, y: object, best: str | None, text: str) -> None:
    """Mark the best point with a ring, and write its value and label above the plot."""
    fig.add_scatter(
        x=[x],
        y=[y],
        mode="markers",
        marker=dict(symbol="circle-open", size=15, color=ALERT, line=dict(width=2.5)),
        hoverinfo="skip",
        showlegend=False,
    )
    fig.add_annotation(
        text=f"{'highest' if best == 'max' else 'lowest'} {text}",
        xref="paper",
        yref="paper",
        x=0,
        y=1,
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        font=dict(color=ALERT, size=13),
    )
