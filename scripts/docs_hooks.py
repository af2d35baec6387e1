"""MkDocs hooks: figures of notebooks in the built pages, without any request to another host.

A notebook keeps its Plotly figures as JSON, which is small; Jupyter and VS Code draw it themselves. For the built pages
these hooks turn figures into HTML. One copy of plotly.js, from the installed package, draws them; only pages with
figures load it. To execute a notebook in place and keep it small:

    PLOTLY_RENDERER=plotly_mimetype python -m nbconvert --to notebook --execute --inplace notebooks/thresholds.ipynb
"""

import json
import re
import tempfile
from pathlib import Path

import plotly.graph_objects as go
from mkdocs.plugins import event_priority
from plotly.offline import get_plotlyjs

MIME = "application/vnd.plotly.v1+json"
SCRIPT = "assets/javascripts/plotly.min.js"

_scratch: list[tempfile.TemporaryDirectory] = []


@event_priority(100)  # before mkdocs-jupyter
def on_pre_page(page, config, files):
    """Build a notebook's page from a copy in which figures are HTML."""
    source = Path(page.file.abs_src_path or "")
    if source.suffix == ".ipynb":
        notebook = json.loads(source.read_text(encoding="utf-8"))
        for number, output in enumerate(_outputs(notebook)):
            output["data"]["text/html"] = _html(output["data"].pop(MIME), f"figure-{number}")
        if not _scratch:
            _scratch.append(tempfile.TemporaryDirectory())
        copy = Path(_scratch[0].name, source.name)
        copy.write_text(json.dumps(notebook), encoding="utf-8")
        page.file.abs_src_path = str(copy)
    return page


def on_post_page(output, page, config):
    """Load plotly.js before the figures, and remove the scripts that the notebook template loads from other hosts."""
    if not (page.file.src_uri or "").endswith(".ipynb"):
        return output
    output = re.sub(r'<script[^>]*\bsrc="(https?://[^"]*)?"[^>]*>\s*</script>', "", output)
    if "Plotly.newPlot" in output:
        steps = page.url.count("/")
        script = f'<script src="{"../" * steps}{SCRIPT}"></script>'
        output = output.replace("</head>", f"{script}</head>", 1)
    return output


def on_post_build(config):
    """Write plotly.js into the site."""
    path = Path(config["site_dir"], SCRIPT)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(get_plotlyjs(), encoding="utf-8")
    while _scratch:
        _scratch.pop().cleanup()


def _outputs(notebook: dict) -> list[dict]:
    """The outputs with a figure."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return [output for output in outputs if MIME in output.get("data", {})]


def _html(figure: dict, name: str) -> str:
    drawn = go.Figure({key: figure[key] for key in ("data", "layout") if key in figure})
    drawn.update_layout(autosize=True, width=None)
    return drawn.to_html(full_html=False, include_plotlyjs=False, div_id=name, config={"responsive": True})
