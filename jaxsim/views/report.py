"""Tables and figures as one self-contained HTML file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape, unescape
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxsim.views._plotly import Figure, require_plotly

MAX_ROWS = 1_000  # per table, so that a browser still scrolls it smoothly
_NOTHING = "\N{EN DASH}"  # shown for NaN, NaT and None


def write_report(
    path: str | Path,
    *,
    title: str,
    subtitle: str = "",
    tables: Mapping[str, pd.DataFrame | pd.Series] | None = None,
    figures: Mapping[str, Figure] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write one self-contained HTML file, readable from 400 pixels up, and return its path.

    Title, subtitle and notes come first, then figures, then tables, in the order of the arguments; the key of a table
    or figure is its heading. All strings are escaped. Plotly's script is included once (4.8 MB), only if there are
    figures. A content security policy forbids the page to load anything. A figure's own title becomes a caption, which
    wraps on a phone. Each number column has the fewest decimals that keep five significant digits of its largest value.
    A table shows at most 1,000 rows and says so if there are more. Missing folders are created; an existing file is
    replaced.

    Raises ImportError without Plotly (only if there are figures), TypeError for a table or figure of another type,
    ValueError if there is neither a table nor a figure.
    """
    tables, figures = dict(tables or {}), dict(figures or {})
    if not (tables or figures):
        raise ValueError("Nothing to report: give at least one of tables and figures.")
    if isinstance(notes, str):
        raise TypeError("notes must be a list of strings, got one string.")
    plotly = ""
    if figures:
        require_plotly()
        from plotly.offline import get_plotlyjs

        plotly = f"<script>{get_plotlyjs()}</script>"
    cards = [_figure_card(number, *item) for number, item in enumerate(figures.items())]
    cards += [_table_card(*item) for item in tables.items()]
    page = _PAGE.format(
        title=escape(title),
        subtitle=f"<p class='subtitle'>{escape(subtitle)}</p>" if subtitle else "",
        notes="<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>" if notes else "",
        style=_STYLE,
        plotly=plotly,
        cards="\n".join(cards),
        script=_SCRIPT if figures else "",
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _figure_card(number: int, heading: str, figure: Figure) -> str:
    go = require_plotly()
    if not isinstance(figure, go.Figure):
        raise TypeError(f"figures[{heading!r}] must be a Plotly Figure, got {type(figure).__name__}.")
    copy = go.Figure(figure)  # so that the caller's figure keeps its title
    caption = unescape(re.sub(r"<[^>]*>", " ", copy.layout.title.text or ""))
    height, top = copy.layout.height or 420, copy.layout.margin.t or 48
    copy.update_layout(title=None, width=None, autosize=True)
    if caption:
        copy.update_layout(margin_t=max(top - 16, 32))  # without the title, but with room for the tool bar
    body = copy.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"figure-{number}",
        default_height=f"{height}px",
        config=_CONFIG,
    )
    text = f"<p class='caption'>{escape(caption)}</p>" if caption and caption != heading else ""
    return f"<section class='figure'><h2>{escape(heading)}</h2>{text}{body}</section>"


def _table_card(heading: str, table: pd.DataFrame | pd.Series) -> str:
    if isinstance(table, pd.Series):
        table = table.to_frame("" if table.name is None else table.name)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"tables[{heading!r}] must be a pandas DataFrame or Series, got {type(table).__name__}.")
    shown = table.iloc[:MAX_ROWS]
    more = f"<p class='caption'>The first {len(shown):,} of {len(table):,} rows.</p>" if len(table) > MAX_ROWS else ""
    return f"<section><h2>{escape(heading)}</h2>{more}<div class='scroll'>{_table(shown)}</div></section>"


def _table(table: pd.DataFrame) -> str:
    """The table as HTML: index levels as row headings (an unnamed RangeIndex is left out), one header row."""
    heads: list[tuple[str, str, list[tuple[str, bool]]]] = []  # tag, heading, cells: (text, is a number)
    if not (isinstance(table.index, pd.RangeIndex) and table.index.name is None):
        for i, name in enumerate(table.index.names):
            cells = _cells(table.index.get_level_values(i).to_series())
            heads.append(("th", "" if name is None else str(name), cells))
    for i, label in enumerate(table.columns):
        name = " / ".join(map(str, label)) if isinstance(label, tuple) else str(label)
        heads.append(("td", name, _cells(table.iloc[:, i])))

    def cell(tag: str, text: str, number: bool) -> str:
        return f"<{tag}{' class=n' if number else ''}>{escape(text)}</{tag}>"

    top = "".join(cell("th", name, any(number for _, number in cells)) for _, name, cells in heads)
    columns = [[cell(tag, *one) for one in cells] for tag, _, cells in heads]
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in zip(*columns, strict=True))
    return f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _cells(column: pd.Series) -> list[tuple[str, bool]]:
    """Each value as text, and whether it is a number (aligned right). All values of a float column have the same
    number of decimals."""
    if pd.api.types.is_float_dtype(column):
        form = _form(column.to_numpy(dtype=float, na_value=np.nan))
        return [(_NOTHING if pd.isna(v) else format(v, form), True) for v in column]
    return [_cell(v) for v in column]


def _form(values: np.ndarray) -> str:
    """A format with five significant digits of the largest value, without decimals that are all zero."""
    finite = values[np.isfinite(values)]
    largest = np.abs(finite).max(initial=0.0)
    if largest and not 1e-4 <= largest < 1e15:
        return ".4g"
    most = 4 - int(np.floor(np.log10(largest))) if largest else 0
    for decimals in range(max(most, 2)):
        if np.allclose(np.round(finite, decimals), finite, rtol=0, atol=1e-9 * largest):
            return f",.{decimals}f"
    return f",.{max(most, 2)}f"


def _cell(value: Any) -> tuple[str, bool]:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return _NOTHING, False
    if isinstance(value, bool | np.bool_) or not isinstance(value, Number):
        return str(value).removesuffix(" 00:00:00"), False
    return (f"{value:,.6g}" if isinstance(value, float | np.floating) else f"{value:,}"), True


# Plotly 7 offers to share charts in its cloud. It is off, so that no click can upload a portfolio.
_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["select2d", "lasso2d"],
}

# On touch screens, scrolling over a figure must not zoom into it.
_SCRIPT = """if (matchMedia("(pointer: coarse)").matches)
  document.querySelectorAll(".plotly-graph-div").forEach(div => Plotly.relayout(div, {dragmode: false}));"""

_STYLE = """
:root { color-scheme: light dark;
        --page: #f6f7f8; --card: #fff; --ink: #24292f; --soft: #59636e; --line: #dfe3e8; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171b; --card: #1d2127; --ink: #e4e7eb; --soft: #9aa4af; --line: #343a42; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: clamp(12px, 3vw, 32px); overflow-wrap: break-word; }
h1 { font-size: clamp(1.4rem, 4vw, 2rem); line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 0 0 .5rem; }
ul { padding-left: 1.2rem; }
.subtitle, .caption { color: var(--soft); margin: 0 0 .5rem; }
.caption { font-size: .875rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
          padding: clamp(10px, 2vw, 20px); margin: 16px 0; }
section.figure { background: #fff; color: #24292f; color-scheme: light; }
section.figure .caption { color: #59636e; }
.scroll { overflow: auto; max-height: 40rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums;
        white-space: nowrap; }
th, td { padding: .3rem .75rem; text-align: left; border-bottom: 1px solid var(--line); }
tbody th { font-weight: 500; }
thead th { position: sticky; top: 0; background: var(--card); color: var(--soft); font-weight: 600;
           white-space: normal; vertical-align: bottom; }
.n { text-align: right; }
@media print { .scroll { max-height: none; } section { break-inside: avoid; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
 script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline';
 img-src data: blob:; font-src data:; worker-src blob:">
<title>{title}</title>
<style>{style}</style>
{plotly}
</head>
<body>
<main>
<header><h1>{title}</h1>{subtitle}{notes}</header>
{cards}
</main>
<script>{script}</script>
</body>
</html>
"""
