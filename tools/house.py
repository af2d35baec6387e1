"""Is the house in order? Checks the shape of the project and prints one line for each breach.

    python -m tools.house [--verbose]

- A folder of `jaxsim/` has at most 14 modules (`verbs/` apart) and an `__init__` with a docstring.
- A module of `jaxsim/` has at most 500 lines, a function at most 80 (`--verbose` lists those over 60).
- The modules of `jaxsim/` import each other in no circle. An import inside a function counts, one under
  `if TYPE_CHECKING` does not.
- No class is defined twice in `jaxsim/`, and no name that `jaxsim` exports. `reference/`, `views/` and `cli/` mirror
  names of the rest and are left out.
- Nothing in `jaxsim/` calls `locals()`.
- No text refers to a page outside the project, and one module alone knows where data outside the project lie.

Exit status 1 if there is a breach. `CONTRIBUTING.md` says why the rules are what they are.
"""

import argparse
import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
MODULES_IN_FOLDER = 14
LINES_IN_MODULE = 500
LINES_IN_FUNCTION = 80
LONG_FUNCTION = 60  # worth a look, no breach

ANY_SIZE = ("jaxsim/frames/verbs",)  # one verb, one file
MIRRORS = ("jaxsim/reference/", "jaxsim/views/", "jaxsim/cli/")
NOT_OURS = {".git", ".venv", "__pycache__", "build", "dist", "site", "runs"}

# The brackets keep these patterns from matching themselves.
PAGES_OUTSIDE = re.compile(r"\b(?:SEMANTIC[S]|DESIG[N]|HOUS[E]|ACCOUN[T]\.md)\b|\bshare[d]/[\w/-]*\.md\b")
DATA_OUTSIDE = re.compile(r"JAXSIM_DAT[A]|^share[d]$|\bshare[d]/")
DATA_WORD = re.compile(r"JAXSIM_DAT[A]|\bshare[d]\b")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Project:
    """The files of a project, read and parsed once.

    root: its folder. In a git checkout the tracked files count, elsewhere all files.
    """

    def __init__(self, root: Path):
        self.root = root

    @cached_property
    def texts(self) -> dict[str, str]:
        """Every text file: its path from the root, with slashes, and what it says."""
        texts = {}
        for path in self._paths():
            try:
                texts[path] = (self.root / path).read_text(encoding="utf-8")
            except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
                continue  # a picture; deleted but not yet committed; a link to a folder
        return texts

    def _paths(self) -> list[str]:
        if (self.root / ".git").exists():
            command = ["git", "-C", str(self.root), "ls-files", "-z"]
            listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            return sorted(path for path in listing.split("\0") if path)
        paths = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in paths if not NOT_OURS.intersection(path.parts))

    @cached_property
    def scripts(self) -> dict[str, str]:
        """The Python files among `texts`."""
        return {path: text for path, text in self.texts.items() if path.endswith(".py")}

    @cached_property
    def package(self) -> dict[str, ast.Module]:
        """The syntax trees of the files of `jaxsim/`."""
        return {path: ast.parse(text) for path, text in self.scripts.items() if path.startswith("jaxsim/")}

    @cached_property
    def originals(self) -> dict[str, ast.Module]:
        """`package` without the folders that mirror names."""
        return {path: tree for path, tree in self.package.items() if not path.startswith(MIRRORS)}


def folders(project: Project) -> Iterator[str]:
    """Folders with too many modules, and folders that do not say what is in them."""
    modules = defaultdict(list)
    for path in project.package:
        modules[PurePosixPath(path).parent.as_posix()].append(PurePosixPath(path).stem)
    for folder, names in sorted(modules.items()):
        count = len(set(names) - {"__init__"})
        if count > MODULES_IN_FOLDER and folder not in ANY_SIZE:
            yield f"{folder}: {count} modules, at most {MODULES_IN_FOLDER}"
        tree = project.package.get(f"{folder}/__init__.py")
        if tree is None or not ast.get_docstring(tree):
            yield f"{folder}: no __init__.py with a docstring that says what is in the folder"


def module_lengths(project: Project) -> Iterator[str]:
    for path in project.package:
        count = len(project.texts[path].splitlines())
        if count > LINES_IN_MODULE:
            yield f"{path}: {count} lines, at most {LINES_IN_MODULE}"


def body_lines(function: Definition) -> int:
    """Lines of the body of a function, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def long_functions(project: Project, limit: int) -> Iterator[str]:
    for path, tree in project.package.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (count := body_lines(node)) > limit:
                yield f"{path}:{node.lineno}: {node.name} has {count} lines, at most {limit}"


def function_lengths(project: Project) -> Iterator[str]:
    yield from long_functions(project, LINES_IN_FUNCTION)


def module_name(path: str) -> str:
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from runtime_nodes(other)
            continue
        yield node
        yield from runtime_nodes(node)


def imported(path: str, tree: ast.Module, modules: set[str]) -> set[str]:
    """The modules of the package that a module imports by name.

    `from package import name` is an import of the module `package.name` where there is one, else of `package`. That
    Python runs the `__init__` of each folder above is left out: `jaxsim/__init__` imports everything.
    """
    own = module_name(path)
    above = own.split(".") if path.endswith("__init__.py") else own.split(".")[:-1]
    names: set[str] = set()
    for node in runtime_nodes(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(above[: len(above) + 1 - node.level]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            inner = {f"{source}.{alias.name}" for alias in node.names}
            names |= (inner & modules) | ({source} if inner - modules else set())
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            names.update([node.args[0].value] if isinstance(node.args[0], ast.Constant) else [])
    return (names & modules) - {own}


def circles(project: Project) -> Iterator[str]:
    """One circle of imports through each module that is in one, each printed once."""
    modules = {module_name(path) for path in project.package}
    graph = {module_name(path): sorted(imported(path, tree, modules)) for path, tree in project.package.items()}
    seen: set[frozenset[str]] = set()
    for start in sorted(graph):
        way = way_back(graph, start)
        if way and frozenset(way) not in seen:
            seen.add(frozenset(way))
            yield "imports in a circle: " + " > ".join([*way, way[0]])


def way_back(graph: dict[str, list[str]], start: str) -> list[str]:
    """The shortest way along imports from a module to itself; empty if there is none."""
    ways = [[start]]
    reached: set[str] = set()
    while ways:
        longer = []
        for way in ways:
            for target in graph[way[-1]]:
                if target == start:
                    return way
                if target not in reached:
                    reached.add(target)
                    longer.append([*way, target])
        ways = longer
    return []


def repeated_classes(project: Project) -> Iterator[str]:
    places = defaultdict(list)
    for path, tree in project.originals.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path}:{node.lineno}")
    for name, where in sorted(places.items()):
        if len(where) > 1:
            yield f"class {name} is defined {len(where)} times: {', '.join(where)}"


def exported_names(tree: ast.Module) -> set[str]:
    """The public names that a module imports or defines."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    names.update(node.name for node in tree.body if isinstance(node, Definition))
    return {name for name in names if not name.startswith("_")}


def repeated_exports(project: Project) -> Iterator[str]:
    """Functions that share a name with something that `jaxsim` exports. `repeated_classes` has the classes."""
    names = exported_names(project.package.get("jaxsim/__init__.py", ast.Module([], [])))
    places = defaultdict(list)
    for path, tree in project.originals.items():
        found = {node.name: node for node in tree.body if isinstance(node, Definition) and node.name in names}
        for name, node in found.items():  # of overloads the last one
            places[name].append((f"{path}:{node.lineno}", isinstance(node, ast.ClassDef)))
    for name, definitions in sorted(places.items()):
        if len(definitions) > 1 and not all(is_class for _, is_class in definitions):
            where = ", ".join(place for place, _ in definitions)
            yield f"jaxsim exports {name}, which is defined {len(definitions)} times: {where}"


def calls_of_locals(project: Project) -> Iterator[str]:
    for path, tree in project.package.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "locals":
                yield f"{path}:{node.lineno}: locals() hands on arguments that nobody can search for"


def pages_outside(project: Project) -> Iterator[str]:
    for path, text in project.texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            for match in PAGES_OUTSIDE.finditer(line):
                yield f"{path}:{number}: refers to {match[0]}, which is not in the project"


def strings(tree: ast.Module) -> Iterator[ast.Constant]:
    """The strings of a module, docstrings apart."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr):
            docstrings.add(node.body[0].value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node


def data_locators(project: Project) -> Iterator[str]:
    """All but one of the modules that say where data outside the project lie."""
    places = {}
    for path, text in project.scripts.items():
        if not DATA_WORD.search(text):
            continue  # parsing is what takes time
        lines = [node.lineno for node in strings(ast.parse(text)) if DATA_OUTSIDE.search(node.value)]
        if lines:
            places[path] = min(lines)
    if len(places) > 1:
        where = ", ".join(f"{path}:{line}" for path, line in places.items())
        yield f"{len(places)} modules know where data outside the project lie, and one should: {where}"


CHECKS: tuple[Callable[[Project], Iterator[str]], ...] = (
    folders,
    module_lengths,
    function_lengths,
    circles,
    repeated_classes,
    repeated_exports,
    calls_of_locals,
    pages_outside,
    data_locators,
)


def breaches(root: Path) -> list[str]:
    """One line for each breach in the project in a folder."""
    project = Project(root)
    return [line for check in CHECKS for line in check(project)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbose", action="store_true", help="list the functions that are worth a look, too")
    options = parser.parse_args()
    lines = breaches(ROOT)
    for line in lines:
        print(line)
    if options.verbose:
        print(f"\nfunctions of more than {LONG_FUNCTION} lines:")
        for line in long_functions(Project(ROOT), LONG_FUNCTION):
            print(f"  {line}")
    print(f"{len(lines)} breaches" if lines else "the house is in order")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
