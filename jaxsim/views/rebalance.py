"""One rebalance as a plot: weights before and after, targets, and why an asset missed its target."""

from __future__ import annotations

import numpy as np
import pandas as pd

from jaxsim.views._plotly import ALERT, CASH, INK, Figure, require_plotly, show, styled

_BUY, _SELL, _STILL = "#117733", "#CC6677", "#8a9099"
_NEEDED = (
    "asset",
    "weight",
    "last_target",
    "drift",
    "excess",
    "breached",
    "target",
    "filled",
    "weight_after",
    "reason",
)


def rebalance(decisions: pd.DataFrame, title: str | None = None) -> Figure:
    """One line per asset, in the order of execution, from its weight before (ring) to its weight after (dot), both at
    the valuation price. A diamond is the target, if it is a weight. A band is the threshold around the last target, in
    red if it was breached. An order that was not filled in full shows its reason.

    decisions: the rows of one rebalance of `Backtest.decisions`.
    Raises ImportError without Plotly, TypeError for anything but a DataFrame, ValueError if a column is missing or
    there are no rows.
    """
    go = require_plotly()
    if not isinstance(decisions, pd.DataFrame):
        raise TypeError(f"decisions: expected a DataFrame, got {type(decisions).__name__}")
    missing = [name for name in _NEEDED if name not in decisions.columns]
    if missing or decisions.empty:
        raise ValueError(f"decisions: {f'there is no column {missing[0]!r}' if missing else 'there are no rows'}")
    rows = decisions.reset_index(drop=True)
    place = np.arange(len(rows))
    fig = go.Figure()
    _bands(fig, rows, place)
    _moves(fig, rows, place)
    marks = {
        "before": (rows["weight"], dict(symbol="circle-open", size=11, color=INK, line=dict(width=2))),
        "after": (rows["weight_after"], dict(symbol="circle", size=9, color=[_colour(x) for x in rows["filled"]])),
        "target": (_target_weights(rows), dict(symbol="diamond-open", size=12, color=INK)),
    }
    for name, (values, marker) in marks.items():
        fig.add_scatter(
            x=values,
            y=place,
            mode="markers",
            name=name,
            marker=marker,
            hovertemplate=f"{name} %{{x:.2%}}<extra></extra>",
        )
    for at, reason in zip(place, rows["reason"], strict=True):
        if reason:
            text = dict(text=show(reason), showarrow=False, font=dict(size=11, color=ALERT))
            fig.add_annotation(x=1, xref="paper", xanchor="right", y=at - 0.32, **text)
    styled(fig, title, traces=len(rows), legend=True, height=140 + 64 * len(rows))
    fig.update_layout(hovermode="closest")
    fig.update_xaxes(tickformat=".0%", title_text="weight at the valuation price")
    fig.update_yaxes(
        tickmode="array",
        tickvals=place,
        ticktext=[show(asset) for asset in rows["asset"]],
        range=[len(rows) - 0.4, -0.6],
        showgrid=False,
        zeroline=False,
    )
    return fig


def _bands(fig: Figure, rows: pd.DataFrame, place: np.ndarray) -> None:
    """The threshold around each last target."""
    middle = rows["last_target"].to_numpy(float)
    half = np.abs(rows["drift"].to_numpy(float)) - rows["excess"].to_numpy(float)
    is_breached = rows["breached"].to_numpy(bool)
    for breached, colour in ((False, CASH), (True, "#f3d6d0")):
        chosen = (is_breached == breached) & ~np.isnan(half)
        if chosen.any():
            fig.add_bar(
                x=2 * half[chosen],
                base=middle[chosen] - half[chosen],
                y=place[chosen],
                orientation="h",
                width=0.5,
                marker=dict(color=colour),
                name="threshold, breached" if breached else "threshold",
                hovertemplate="last target %{customdata[0]:.2%} ± %{customdata[1]:.2%}<extra></extra>",
                customdata=np.stack([middle[chosen], half[chosen]], axis=1),
            )


def _moves(fig: Figure, rows: pd.DataFrame, place: np.ndarray) -> None:
    """A line from the weight before to the weight after."""
    ends = rows[["weight", "weight_after"]].to_numpy(float)
    for at, filled in zip(place, rows["filled"], strict=True):
        fig.add_scatter(
            x=ends[at],
            y=[at, at],
            mode="lines",
            line=dict(width=4, color=_colour(filled)),
            showlegend=False,
            hoverinfo="skip",
        )


def _target_weights(rows: pd.DataFrame) -> np.ndarray:
    """Targets that are weights; NaN for other size types, which are no weights."""
    targets = rows["target"].to_numpy(float)
    if "size_type" not in rows.columns:
        return targets
    return np.where(rows["size_type"].to_numpy() == "TargetPercent", targets, np.nan)


def _colour(filled: float) -> str:
    return _BUY if filled > 0 else _SELL if filled < 0 else _STILL
