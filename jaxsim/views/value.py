"""The value of a portfolio, and its drawdown underneath."""

from __future__ import annotations

import pandas as pd

from jaxsim.views._plotly import ALERT, INK, PALETTE, Figure, colours, require_plotly, show, styled
from jaxsim.views._series import axis_name, checked_frame, drawable, envelope, point_budget

_LEGEND = 15  # more lanes than this are named on hover only


def drawdown(value: pd.Series | pd.DataFrame) -> pd.Series | pd.DataFrame:
    """Drawdowns of `value` [time] or [time, lane]: value / highest value so far - 1, a fraction, zero or negative.

    The first value is the first peak, so an earlier loss does not count. NaN stays NaN.
    """
    return value / value.cummax() - 1.0


def value_with_drawdown(
    value: pd.Series | pd.DataFrame, title: str | None = None, *, benchmark: pd.Series | None = None
) -> Figure:
    """Value above, drawdown underneath, on one time axis.

    value: a Series [time] or a DataFrame [time, lane] in currency; lane labels may have several levels.
    benchmark: a Series [time], currency, drawn as a dashed line beside the value.

    One lane is a line above a filled drawdown. Several lanes are thin lines, named on hover; up to 15 lanes have a
    legend, where a click hides both lines of a lane. Lines of more than 4,000 points (fewer per lane from 16 lanes on)
    are thinned to the lowest and highest point of each short interval. Drawdowns are computed before thinning.

    Raises ImportError without Plotly, TypeError for anything but a Series or DataFrame, ValueError if it is empty or
    not numeric.
    """
    require_plotly()
    from plotly.subplots import make_subplots

    if not isinstance(value, pd.Series | pd.DataFrame):
        raise TypeError(f"value must be a pandas Series or DataFrame, got {type(value).__name__}.")
    if isinstance(value, pd.Series):
        value = value.to_frame("value" if value.name is None else value.name)
    frame = checked_frame(value, "value")
    below, x, lanes = drawdown(frame), drawable(frame.index), frame.shape[1]
    budget, palette = point_budget(lanes), colours(lanes)
    fig = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.05)
    for i, label in enumerate(frame.columns):
        name = show(label)
        for row, data in enumerate((frame, below), start=1):
            path = data.iloc[:, i].to_numpy()
            rows = envelope(path, budget)
            alone = dict(line=dict(width=1.5, color=(PALETTE[0], ALERT)[row - 1]))
            alone |= dict(fill="tozeroy", fillcolor="rgba(179,65,44,0.2)") if row == 2 else {}
            among = dict(line=dict(width=1, color=palette[i]), opacity=0.85 if lanes <= _LEGEND else 0.45)
            figures = "%{y:,.6~g}" if row == 1 else "%{y:.1%}"
            fig.add_scatter(
                x=x[rows],
                y=path[rows],
                name=("value", "drawdown")[row - 1] if lanes == 1 else name,
                mode="lines",
                legendgroup=name,
                showlegend=row == 1,
                hovertemplate=f"%{{x}}<br>{figures}<extra>{name}</extra>" if lanes > 1 else figures,
                row=row,
                col=1,
                **(alone if lanes == 1 else among),
            )
    if benchmark is not None:
        line = checked_frame(benchmark.to_frame("benchmark"), "benchmark").iloc[:, 0]
        rows, path = envelope(line.to_numpy(), budget), line.to_numpy()
        fig.add_scatter(
            x=drawable(line.index)[rows],
            y=path[rows],
            name="benchmark",
            mode="lines",
            line=dict(width=1.2, color=INK, dash="dash"),
            hovertemplate="%{y:,.6~g}<extra>benchmark</extra>",
            row=1,
            col=1,
        )
    # Each lane is thinned on its own rows, so lanes seldom share an x for a unified hover box.
    styled(fig, title, traces=lanes, legend=1 < lanes <= _LEGEND, height=480)
    fig.update_layout(hovermode="x unified" if lanes == 1 else "closest")
    names = [level for level in frame.columns.names if level is not None]
    if lanes > 1 and names:
        fig.update_layout(legend_title_text=show(tuple(names)))
    fig.update_yaxes(title_text="value", row=1, col=1)
    fig.update_yaxes(title_text="drawdown", tickformat=".0%", rangemode="tozero", row=2, col=1)
    x_name = axis_name(frame.index)
    fig.update_xaxes(title_text=x_name and show(x_name), row=2, col=1)
    return fig
