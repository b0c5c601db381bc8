"""The floors: a module imports its own room and lower floors only, and no modules import each other in a circle.

The rule is strict and has no exceptions: it holds for every import that stands in the source, at the top of a file, inside a
function or under `if TYPE_CHECKING`. (An annotation couples two rooms as surely as a call does.) Circles are looked for among the
imports that run when a module is loaded.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[1] / "src"
FLOORS = {
    0: ("core", "examples"),
    1: ("data", "models", "metrics"),
    2: ("engine", "graders"),
    3: ("methods", "objectives", "retrieval"),
    4: ("training", "evaluation", "explain"),
    5: ("run",),
    6: ("compare", "adapt", "compress", "search", "federated", "serve", "monitor"),
    7: ("testing",),
    8: ("cli",),
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
# `finetune.py` is the front page of the room `run`: the story, whose chapters are the room's modules. The package itself names what
# is public and loads it on first use, so it stands on the ground floor; `__main__` is another door to the command line.
ROOM_OF_FILE = {"finetune": "run", "__init__": "core", "__main__": "cli"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted((SOURCES / "tunewright").rglob("*.py")):
        parts = path.relative_to(SOURCES).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    """The room that a dotted module name belongs to."""
    _, *inside = module.split(".")
    first = inside[0] if inside else "__init__"
    return ROOM_OF_FILE.get(first, first)


def is_type_checking(node: ast.AST) -> bool:
    """Whether this is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def at_load_time(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is loaded: not the bodies of functions, not what is there for type checkers only."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if is_type_checking(child):
            yield from (found for other in child.orelse for found in [other, *at_load_time(other)])
            continue
        yield child
        yield from at_load_time(child)


def imported(nodes: Iterator[ast.AST], known: set[str], package: str) -> set[str]:
    """The package's own modules that import statements among `nodes` name; `package` is where relative imports start."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = {f"{base}.{alias.name}" for alias in node.names}
            found |= inner & known
            if inner - known:  # a name from the module itself
                found.add(base)
    return {name for name in found if name.split(".")[0] == "tunewright"}


def package_of(module: str, path: Path) -> str:
    """The package that relative imports of a module start from."""
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def all_imports() -> dict[str, set[str]]:
    """For every module, all modules of ours that it imports anywhere."""
    known = modules()
    return {
        name: imported(ast.walk(ast.parse(path.read_text(encoding="utf-8"))), set(known), package_of(name, path))
        for name, path in known.items()
    }


def wrong_way(imports: dict[str, set[str]]) -> list[str]:
    """Imports that go sideways or up, as sentences."""
    found = []
    for module, targets in imports.items():
        for target in sorted(targets):
            here, there = room_of(module), room_of(target)
            if here != there and FLOOR_OF[there] >= FLOOR_OF[here]:
                found.append(f"{module} (floor {FLOOR_OF[here]}) imports {target} (floor {FLOOR_OF[there]})")
    return found


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, empty where there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_room_has_a_floor() -> None:
    assert {room_of(name) for name in modules()} <= set(FLOOR_OF)


def test_imports_go_down() -> None:
    assert not (found := wrong_way(all_imports())), "\n".join(found)


def test_no_circles() -> None:
    known = modules()
    loaded = {
        name: imported(at_load_time(ast.parse(path.read_text(encoding="utf-8"))), set(known), package_of(name, path)) - {name}
        for name, path in known.items()
    }
    assert not (found := circle(loaded)), " -> ".join(found)


@pytest.mark.parametrize("module", ["tunewright", "tunewright.finetune", "tunewright.cli"])
def test_what_answers_first_loads_no_torch(module: str) -> None:
    heavy = "torch transformers datasets peft sklearn scipy pandas"
    code = f"import sys, {module}; print(*(set('{heavy}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "source",
    [
        "from tunewright.engine.engine import Engine",
        "def late():\n    import tunewright.engine.engine",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tunewright.engine.engine import Engine",
        "from ..engine import engine",
        "from tunewright.models import Model",
    ],
)
def test_an_import_that_goes_sideways_or_up_is_found(source: str) -> None:
    found = imported(ast.walk(ast.parse(source)), set(modules()), "tunewright.data")
    assert wrong_way({"tunewright.data.rows": found})


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_late_imports_make_no_circle() -> None:
    source = (
        "import tunewright.core\nif TYPE_CHECKING:\n    import tunewright.data\nelse:\n    import tunewright.run\n"
        "class A:\n    import tunewright.models\n    def f(self):\n        import tunewright.cli"
    )
    found = imported(at_load_time(ast.parse(source)), set(), "tunewright")
    assert found == {"tunewright.core", "tunewright.run", "tunewright.models"}
