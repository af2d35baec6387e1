"""The README and the docs run: every ```python block, top to bottom, one namespace per page.

A block after `<!-- not run -->` is skipped. What a block prints must be the ```text block that follows it, where one
does; blanks at line ends aside.
"""

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.marks import some_slow

ROOT = Path(__file__).parents[2]
#: Pages with many policies, each a program of its own.
SLOW = {"allocators", "judging", "lanes-and-labels", "learned-allocators", "pipelines", "plans"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w+-]*).*?\n(?P<body>.*?)^(?P=indent)```\s*?$", re.M | re.S)
NOT_RUN = "<!-- not run -->"


@dataclass
class Block:
    """One fenced block: its language, its text, the line of the page at which the text begins, and what precedes it
    since the block before."""

    language: str
    body: str
    line: int
    before: str


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page."""
    found, end = [], 0
    for match in FENCE.finditer(text):
        indent = match["indent"]
        lines = [line.removeprefix(indent) for line in match["body"].splitlines()]
        line = text.count("\n", 0, match.start("body")) + 1
        found.append(Block(match["language"], "\n".join(lines), line, text[end : match.start()]))
        end = match.end()
    return found


def run_page(page: Path) -> int:
    """Execute the blocks of a page; returns how many there were."""
    found = blocks(page.read_text(encoding="utf-8"))
    namespace: dict = {"__name__": "docs"}
    count = 0
    for block, after in zip(found, [*found, None][1:], strict=True):
        if block.language != "python" or block.before.rstrip().endswith(NOT_RUN):
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (block.line - 1) + block.body, page, "exec"), namespace)
        count += 1
        if after is not None and after.language == "text" and not after.before.strip():
            assert tidy(printed.getvalue()) == tidy(after.body), (
                f"{page.name}:{block.line} prints\n{printed.getvalue()}"
            )
    return count


def tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


@pytest.mark.parametrize("page", some_slow(PAGES, [x for x in PAGES if x.stem in SLOW], lambda page: page.stem))
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # for what the examples write
    run_page(page)


def test_blocks_are_found_and_compared(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n```python\nx = 1\nprint(x)\n```\n\n```text\n1\n```\n<!-- not run -->\n```python\n1 / 0\n```\n")
    assert run_page(page) == 1
    page.write_text("a\n```python\nprint(2)\n```\n```text\n1\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:3 prints\s+2"):
        run_page(page)


def test_links_between_files_exist() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken
