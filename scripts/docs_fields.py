"""A Griffe extension for the API pages. The docstrings of this project describe fields and arguments in plain lines:

    close: prices [time, asset].
    open: valuation prices.     price: execution prices.

On the page each line becomes an item of a list, and "rules 3.5" a link to that rule.
"""

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object

_FIELD = re.compile(r"^(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)")
_BESIDE = re.compile(r" {4,}(?=[a-z_]\w*(?:, [a-z_]\w*)*: \S)")


class Fields(Extension):
    """Rewrite every docstring before it is parsed."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None and not obj.is_alias:
            obj.docstring.value = with_links(as_lists(obj.docstring.value))


def rule_anchors() -> dict[str, str]:
    """The anchor of each rule and section on its page, by number."""
    page = Path(__file__).parents[1] / "docs" / "rules.md"
    titles = re.findall(r"^#{2,3} ((\d+(?:\.\d+)?)\.? .*)$", page.read_text(encoding="utf-8"), re.M)
    return {number: re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-") for title, number in titles}


ANCHORS = rule_anchors()
_RULES = re.compile(r"\b[Rr]ules\s+(\d+(?:\.\d+)?)[a-h]?(?!\w)")


def with_links(docstring: str) -> str:
    """The docstring with each citation of a rule as a link to it."""
    return _RULES.sub(lambda match: f"[{match[0]}][{ANCHORS[match[1]]}]", docstring)


def as_lists(docstring: str) -> str:
    """The docstring with each block of field lines as a list."""
    blocks = re.split(r"\n\s*\n", docstring)
    return "\n\n".join(_as_list(block) if _FIELD.match(block) else block for block in blocks)


def _as_list(block: str) -> str:
    items: list[str] = []
    for line in block.splitlines():
        if line.startswith(" ") and items:
            items[-1] += " " + line.strip()
            continue
        for part in _BESIDE.split(line):
            if _FIELD.match(part) or not items:
                items.append(part.strip())
            else:
                items[-1] += "\n\n" + part.strip()
    return "\n".join("- " + _FIELD.sub(_named, item) for item in items)


def _named(match: re.Match) -> str:
    return ", ".join(f"**`{name}`**" for name in match["names"].split(", ")) + ": "
