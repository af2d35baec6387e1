"""The import of Plotly, and the style of all figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
else:  # annotations must resolve at run time (beartype) without importing Plotly
    Figure = Any

# Paul Tol's "muted" scheme and one of his blues: ten colours that colour-blind readers can distinguish too.
PALETTE = (
    "#332288",
    "#DDCC77",
    "#44AA99",
    "#CC6677",
    "#88CCEE",
    "#117733",
    "#AA4499",
    "#999933",
    "#882255",
    "#6699CC",
)
CASH, INK, GRID, ALERT = "#e9ebee", "#24292f", "#e6e8eb", "#b3412c"
MANY = 12  # with more traces than this, a unified hover box would cover the plot


def require_plotly() -> Any:
    """The module `plotly.graph_objects`. Raises ImportError with the pip command if Plotly is missing."""
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise ImportError(
            "Drawing needs Plotly, which is not installed: pip install 'jaxsim-portfolio[plot]'"
        ) from error
    return go


def colours(count: int) -> Sequence[str]:
    """`count` colours: of the categorical palette if it has enough, else an even sample of a perceptual scale."""
    if count <= len(PALETTE):
        return PALETTE[:count]
    from plotly.colors import sample_colorscale

    return [str(colour) for colour in sample_colorscale("Viridis", np.linspace(0, 1, count))]


def show(label: object) -> str:
    """A label as text for a figure: tuples are joined by ` / `, and `<` is escaped, since Plotly reads markup."""
    if isinstance(label, tuple):
        return " / ".join(show(part) for part in label)
    text = f"{label:.10g}" if isinstance(label, float) else str(label).removesuffix(" 00:00:00")
    return text.replace("<", "&lt;")


def styled(fig: Figure, title: str | None, *, traces: int, legend: bool, height: int = 420) -> Figure:
    """Apply the shared style: white, light grid, small margins, and a scrolling legend below."""
    go = require_plotly()
    axis = dict(gridcolor=GRID, linecolor=GRID, zerolinecolor="#c9cdd2", automargin=True)
    fig.update_layout(
        template=go.layout.Template(layout=dict(xaxis=axis, yaxis=axis)),
        title=dict(text=title and show(title), x=0, xref="container", xanchor="left", pad=dict(l=12)),
        font=dict(family="system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size=12, color=INK),
        paper_bgcolor="white",
        plot_bgcolor="white",
        height=height,
        margin=dict(l=8, r=12, t=48 if title else 16, b=8),
        hovermode="closest" if traces > MANY else "x unified",
        showlegend=legend,
        legend=dict(orientation="h", yref="container", y=0, yanchor="bottom", x=0, maxheight=0.3),
    )
    return fig
