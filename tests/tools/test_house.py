"""The house is in order, and each of its checks finds what it is there to find."""

import subprocess
from pathlib import Path

import pytest

from tools import house

# In two parts, so that this file is no breach itself.
PAGE, OTHER_PAGE = "SEMANTIC" + "S", "DESIG" + "N"
FOLDER, VARIABLE = "share" + "d", "JAXSIM_" + "DATA"

#: A project that breaks no rule: what its files say.
GOOD = {
    "jaxsim/__init__.py": '"""Top."""\nfrom jaxsim.engine.prices import Price as Price\n',
    "jaxsim/engine/__init__.py": '"""Arrays."""\n',
    "jaxsim/engine/prices.py": '"""Prices."""\n\n\nclass Price:\n    """One."""\n',
    "jaxsim/views/__init__.py": '"""Pictures."""\n\n\nclass Price:\n    """Mirrors a name."""\n',
    "docs/index.md": "The design of the house, and its semantics.\n",
    "tests/data.py": f'"""Where ${VARIABLE} is."""\nVARIABLE = "{VARIABLE}"\n',
    "tests/test_x.py": f'"""Needs ${VARIABLE}."""\nfrom tests.data import VARIABLE  # {VARIABLE}\n',
}
LONG = "def long():\n    x = 0\n" + "    x += 1\n" * 80
LATER = "import jaxsim.engine.{}"
FOR_TYPES = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from jaxsim.engine import prices\n"

#: What is added, and the words that its breach must have.
BREACHES = {
    "too many modules": ({f"jaxsim/engine/m{i}.py": "" for i in range(14)}, "jaxsim/engine: 15 modules, at most 14"),
    "a folder without __init__": ({"jaxsim/frames/x.py": ""}, "jaxsim/frames: no __init__.py with a docstring"),
    "an __init__ without docstring": ({"jaxsim/engine/__init__.py": "x = 1\n"}, "jaxsim/engine: no __init__.py with"),
    "a long module": ({"jaxsim/engine/long.py": "\n" * 501}, "jaxsim/engine/long.py: 501 lines, at most 500"),
    "a long function": ({"jaxsim/engine/f.py": LONG}, "jaxsim/engine/f.py:1: long has 81 lines, at most 80"),
    "a circle of two": (
        {"jaxsim/engine/a.py": LATER.format("b"), "jaxsim/engine/b.py": "from jaxsim.engine import a"},
        "imports in a circle: jaxsim.engine.a > jaxsim.engine.b > jaxsim.engine.a",
    ),
    "a circle through a function": (
        {
            "jaxsim/engine/a.py": f"def f():\n    {LATER.format('b')}\n",
            "jaxsim/engine/b.py": "from .c import x\n",
            "jaxsim/engine/c.py": "if True:\n    from jaxsim.engine.a import f as f\nx = 1\n",
        },
        "imports in a circle: jaxsim.engine.a > jaxsim.engine.b > jaxsim.engine.c > jaxsim.engine.a",
    ),
    "a circle through the package": (
        {"jaxsim/engine/prices.py": "import jaxsim\n\n\nclass Price:\n    x: int\n"},
        "imports in a circle: jaxsim > jaxsim.engine.prices > jaxsim",
    ),
    "a circle through import_module": (
        {"jaxsim/engine/a.py": LATER.format("b"), "jaxsim/engine/b.py": "importlib.import_module('jaxsim.engine.a')"},
        "imports in a circle: jaxsim.engine.a",
    ),
    "a class twice": (
        {"jaxsim/engine/other.py": "def f():\n    class Price:\n        pass\n"},
        "class Price is defined 2 times: jaxsim/engine/other.py:2, jaxsim/engine/prices.py:4",
    ),
    "an exported name twice": (
        {"jaxsim/engine/other.py": "def Price():\n    pass\n"},
        "jaxsim exports Price, which is defined 2 times: jaxsim/engine/other.py:1, jaxsim/engine/prices.py:4",
    ),
    "locals()": ({"jaxsim/engine/f.py": "def f(a):\n    return locals()\n"}, "jaxsim/engine/f.py:2: locals()"),
    "a page outside": ({"docs/index.md": f"See {PAGE} 3.5\n"}, f"docs/index.md:1: refers to {PAGE}"),
    "another page outside": ({"x.py": f"# {OTHER_PAGE} section 2\n"}, f"x.py:1: refers to {OTHER_PAGE}"),
    "a page in a folder outside": (
        {"x.toml": f"# ../{FOLDER}/NOTES.md\n"},
        f"x.toml:1: refers to {FOLDER}/NOTES.md",
    ),
    "a second locator": (
        {"tools/other.py": f'folder = root / "{FOLDER}" / "data"\n'},
        "2 modules know where data outside the project lie, and one should: tests/data.py:2, tools/other.py:1",
    ),
    "a second name of the variable": (
        {"tools/other.py": f'environ["{VARIABLE}"]\n'},
        "2 modules know where data outside the project lie",
    ),
}

#: What is added and breaks no rule.
ALLOWED = {
    "a function of 80 lines": {"jaxsim/engine/f.py": LONG.removesuffix("    x += 1\n")},
    "a long docstring": {"jaxsim/engine/f.py": 'def f():\n    """Long.' + "\n" * 100 + '    """\n    return 1\n'},
    "an import for types alone": {
        "jaxsim/engine/prices.py": f"{LATER.format('b')}\n\n\nclass Price:\n    x: int\n",
        "jaxsim/engine/b.py": FOR_TYPES,
    },
    "many verbs": {f"jaxsim/frames/verbs/{name}.py": "" for name in "abcdefghijklmnopq"}
    | {f"jaxsim/frames/{folder}__init__.py": '"""x"""' for folder in ("", "verbs/")},
    "a method of an exported name": {"jaxsim/engine/other.py": "class Other:\n    def Price(self):\n        pass\n"},
    "bytes": {"docs/picture.png": b"\xff\xfe" + PAGE.encode()},
    "locals elsewhere": {"tests/test_x.py": "locals()\n"},
}


def build(folder: Path, files: dict[str, str | bytes]) -> Path:
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_the_house_is_in_order():
    assert house.breaches(house.ROOT) == []


@pytest.mark.parametrize("added, words", BREACHES.values(), ids=BREACHES)
def test_a_breach_is_found(tmp_path, added, words):
    (line,) = house.breaches(build(tmp_path, GOOD | added))
    assert words in line


@pytest.mark.parametrize("added", ALLOWED.values(), ids=ALLOWED)
def test_no_breach(tmp_path, added):
    assert house.breaches(build(tmp_path, GOOD | added)) == []


def test_only_tracked_files_count_in_a_checkout(tmp_path):
    build(tmp_path, GOOD | {"scratch.md": PAGE})
    for command in (["init", "-q"], ["add", *GOOD]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    assert house.breaches(tmp_path) == []
    subprocess.run(["git", "-C", tmp_path, "add", "scratch.md"], check=True)
    assert len(house.breaches(tmp_path)) == 1
