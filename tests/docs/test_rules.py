"""docs/rules.md: every rule names tests that exist, and every rule that is cited is there."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docs" / "rules.md"
#: Where rules may be cited.
FOLDERS = ["jaxsim", "allocators", "tests", "tools", "benchmarks", "scripts", "docs", "notebooks"]
HEADING = re.compile(r"^#{2,3} (?P<number>\d+(?:\.\d+)?)\.? .*$", re.M)
TEST = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<name>\w+)`")
#: "rules 3.5", "Rules 3.1 to 3.7 and 4", across a line break in a comment or not.
CITATION = re.compile(
    r"\b[Rr]ules(?:\s|#)+(?P<list>\d+(?:\.\d+)?[a-h]?(?:(?:,|\s+and|\s+to)\s+\d+(?:\.\d+)?[a-h]?)*)(?!\w|\s*%)"
)


def rules() -> dict[str, str]:
    """The text of each section and rule, by its number."""
    text = RULES.read_text(encoding="utf-8")
    headings = list(HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return {heading["number"]: text[heading.end() : end] for heading, end in zip(headings, ends, strict=True)}


@cache
def names_of_tests(path: Path) -> set[str]:
    """The tests in a file; none where there is no such file."""
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def citations(text: str) -> Iterator[str]:
    """The numbers of the rules that a text cites, with the letter of a clause."""
    for match in CITATION.finditer(text):
        yield from re.findall(r"\d+(?:\.\d+)?[a-h]?", match["list"])


def is_there(number: str, known: dict[str, str]) -> bool:
    """Whether there is such a rule, and such a clause of it."""
    plain = number.rstrip("abcdefgh")
    return plain in known and (plain == number or f"- **{number[-1]}. " in known[plain])


def files() -> list[Path]:
    """All texts of the project that may cite a rule."""
    found = [
        path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".ipynb")
    ]
    return [*found, *ROOT.glob("*.md"), ROOT / "pyproject.toml"]


def anchors(text: str) -> set[str]:
    """Those of the headings, as Python-Markdown and GitHub make them."""
    titles = re.findall(r"^#{1,6} (.*)$", text, re.M)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_sections_and_rules_are_in_order():
    numbers = [tuple(map(int, number.split("."))) for number in rules()]
    assert numbers == sorted(set(numbers))
    assert {number[0] for number in numbers} == set(range(max(numbers)[0] + 1))


@pytest.mark.parametrize("number", [number for number in rules() if "." in number])
def test_a_rule_names_tests_that_exist(number):
    named = [(match["file"], match["name"]) for match in TEST.finditer(rules()[number])]
    assert named, "no test holds this rule"
    missing = [f"{file}::{name}" for file, name in named if name not in names_of_tests(ROOT / file)]
    assert not missing


def test_cited_rules_are_there():
    known = rules()
    cited = {(path.relative_to(ROOT).as_posix(), number) for path in files() for number in citations(path.read_text())}
    assert len(cited) > 100
    assert not sorted((path, number) for path, number in cited if not is_there(number, known))


def test_links_to_rules_have_anchors():
    known = anchors(RULES.read_text(encoding="utf-8"))
    linked = {
        (path.relative_to(ROOT).as_posix(), anchor)
        for path in files()
        for anchor in re.findall(r"\]\((?:docs/|\.\./docs/)?rules\.md#([^)]*)\)", path.read_text())
    }
    assert linked
    assert not sorted((path, anchor) for path, anchor in linked if anchor not in known)


def test_the_readers_of_this_file_find_what_they_look_for():
    text = "(Rules 3.5h and 3.6g: ...) rules 6.1 to 6.7, rules 3.5,\n# rules 4. Three rules 20 % of which"
    assert list(citations(text)) == ["3.5h", "3.6g", "6.1", "6.7", "3.5", "4"]
    assert anchors("## 3. One order\n### 8.1 `stats()`\n") == {"3-one-order", "81-stats"}
    assert is_there("3.5h", rules()) and not is_there("3.4a", rules()) and not is_there("3.99", rules())
