"""Habits of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import tomllib

from source_tree import ROOT, Source, calls, everything, imports, package

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
NAMELESS = {"utils", "util", "helpers", "helper", "common", "types", "misc"}
#: Where a poll may be: the kernel and QEMU have no event for some things, and each waits with a deadline in one place.
MAY_SLEEP = re.compile(r"src/nvlane/(apply|wire|targets|verify|lab)/")
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/*", "Makefile", ".ci/*", "*.toml")
    for path in ROOT.glob(pattern)
    if path.is_file()
]
#: The checkout's own place on the machine where the tests run, which a reader elsewhere cannot know.
FOREIGN = re.compile(re.escape(f"{ROOT}/"))


def _each(check: str, found: list[str]) -> None:
    assert not found, f"{check}:\n" + "\n".join(found)


def test_length_of_files() -> None:
    lengths = [(source.name, source.text.count("\n")) for source in everything()]
    _each("too long", [f"{name}: {length} lines" for name, length in lengths if length > LONGEST_FILE])


def test_length_of_functions() -> None:
    found = [
        f"{source.name}:{node.lineno}: {node.name} has {length} lines"
        for source in everything()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    _each("too long", found)


def test_no_two_test_modules_have_one_name() -> None:
    """pytest imports them by that name alone, and would collect only one."""
    places: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        places.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    _each("one name", [" ".join(paths) for name, paths in places.items() if len(paths) > 1 and name != "conftest.py"])


def test_no_error_is_swallowed() -> None:
    found = [
        f"{source.name}:{node.lineno}"
        for source in everything()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or all(isinstance(statement, ast.Pass) for statement in node.body))
    ]
    _each("except without a type, or except: pass", found)


def test_no_shell() -> None:
    found = [
        f"{source.name}:{call.lineno}"
        for source in everything()
        for call, _ in calls(source)
        for keyword in call.keywords
        if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    ]
    _each("shell=", found)


def test_sleeps_are_polls_with_a_deadline() -> None:
    """time.sleep only in rooms with effects, and only inside a loop that looks at a clock."""
    _each("bare sleep", [place for source in package() for place in _bare_sleeps(source)])


def _bare_sleeps(source: Source) -> list[str]:
    sleeps = [call for call, name in calls(source) if name in ("time.sleep", "sleep")]
    loops = [node for node in ast.walk(source.tree) if isinstance(node, ast.While)]
    good = {
        id(call)
        for loop in loops
        if "monotonic" in ast.unparse(loop) or "deadline" in ast.unparse(loop)
        for call in ast.walk(loop)
        if isinstance(call, ast.Call)
    }
    return [
        f"{source.name}:{call.lineno}" for call in sleeps if id(call) not in good or not MAY_SLEEP.match(source.name)
    ]


def test_names_of_modules() -> None:
    _each("says nothing", [source.name for source in everything() if source.path.stem in NAMELESS])


def test_nothing_is_left_for_later() -> None:
    marks = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)))
    texts = [(source.name, source.text) for source in everything()]
    texts += [(str(path.relative_to(ROOT)), path.read_text()) for path in DOCUMENTS]
    texts += [(str(path.relative_to(ROOT)), path.read_text()) for path in ROOT.glob("crates/**/*.rs")]
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts
        for number, line in enumerate(text.splitlines(), 1)
        if marks.search(line)
    ]
    _each("left for later", found)


def test_nothing_foreign() -> None:
    texts = [(source.name, source.text) for source in everything() if source.path.name != "test_habits.py"]
    texts += [(str(path.relative_to(ROOT)), path.read_text()) for path in DOCUMENTS]
    _each("not ours", [f"{name}: {found[0]}" for name, text in texts if (found := FOREIGN.search(text))])


def test_values_are_frozen() -> None:
    """Dataclasses have slots and take keywords; in the pure rooms, and wherever else nothing changes them, they are
    frozen. What changes lives in `apply`, `verify` and `lab`."""
    found = [
        f"{source.name}:{decorator.lineno}: {words}"
        for source in package()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
        for decorator in node.decorator_list
        if (words := ast.unparse(decorator)).startswith("dataclass")
        and not ("slots=True" in words and ("frozen=True" in words or source.room in ("apply", "verify", "lab")))
    ]
    _each("not frozen", found)


def test_modules_say_what_they_are() -> None:
    _each("no docstring", [source.name for source in package() if source.text and not ast.get_docstring(source.tree)])


def test_rich_is_imported_late() -> None:
    """`nvlane --help` has 0.2 s, and a pipe needs no rich."""
    found = [
        f"{source.name}:{node.lineno}"
        for source in package()
        for node in source.tree.body
        if isinstance(node, ast.Import | ast.ImportFrom) and "rich" in ast.unparse(node).split()[1].split(".")[0]
    ]
    _each("imports rich at the top", found)


def test_runtime_dependencies_are_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[^a-zA-Z0-9_]", dependency)[0] for dependency in project["dependencies"]}
    assert wanted <= {name.split(".")[0] for source in package() for _, name in imports(source)}
