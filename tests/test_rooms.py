"""The rooms: every public module of an entry room is one entry, says what must be known to choose it, and is tested in its place.

A package is an entry room when its `__init__` makes a `Room`. Nothing is listed here: a new room, and a new file in one, are found.
"""

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tunewright.core.configuration import Strict
from tunewright.core.registry import Room

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "tunewright"
CARD = ("Source:", "Cost:", "Use when", "Avoid when", "Raises")
PARTS = {"tunewright.methods": CARD, "tunewright.objectives": CARD, "tunewright.metrics": ("Use (when|for)",)}


def found_rooms() -> dict[str, Room[object]]:
    """Every entry room by the dotted name of its package."""
    found = {}
    for path in sorted(PACKAGE.rglob("__init__.py")):
        if re.search(r"^room\b.*= Room\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            package = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
            found[package] = import_module(package).room
    return found


ROOMS = found_rooms()
ENTRIES = [(package, name) for package, room in ROOMS.items() for name in room.names()]


def lacking(text: str, parts: tuple[str, ...]) -> list[str]:
    """The parts of a card (regular expressions) that a docstring does not have; `Use when ...; avoid when ...` may share one."""
    return [part for part in parts if not re.search(rf"\b{part}", text, re.IGNORECASE)]


def test_the_rooms_are_found() -> None:
    assert {"tunewright.methods", "tunewright.objectives", "tunewright.metrics", "tunewright.data.shapes"} <= set(ROOMS)


@pytest.mark.parametrize(("package", "name"), ENTRIES)
def test_one_file_is_one_entry(package: str, name: str) -> None:
    entry = ROOMS[package][name]  # raises where a file defines none or several
    assert not inspect.isabstract(entry)
    assert inspect.getdoc(entry), f"{package}.{name} does not say what it is"


@pytest.mark.parametrize(("package", "name"), [(package, name) for package, name in ENTRIES if package in PARTS])
def test_an_entry_says_what_must_be_known_to_choose_it(package: str, name: str) -> None:
    assert lacking(inspect.getdoc(ROOMS[package][name]) or "", PARTS[package]) == []


@pytest.mark.parametrize(("package", "name"), ENTRIES)
def test_every_setting_of_an_entry_is_described(package: str, name: str) -> None:
    entry = ROOMS[package][name]
    if issubclass(entry, Strict):
        silent = [field for field, facts in entry.model_fields.items() if not facts.description]
        assert silent == []


@pytest.mark.parametrize(("package", "name"), ENTRIES)
def test_an_entry_is_tested_in_its_place(package: str, name: str) -> None:
    folder = ROOT / "tests" / Path(*package.split(".")[1:])
    word = re.compile(rf"(?<![a-z0-9])({name}|{ROOMS[package][name].__name__})(?![a-z0-9])")
    texts = [f"{path.stem.removeprefix('test_')}\n{path.read_text(encoding='utf-8')}" for path in folder.glob("test_*.py")]
    assert any(map(word.search, texts)), f"no test in {folder.relative_to(ROOT)} names '{name}'"


@pytest.mark.parametrize("package", ["tunewright.methods", "tunewright.objectives", "tunewright.metrics"])
def test_reading_settings_loads_nothing_heavy(package: str) -> None:
    code = (
        "import sys\nfrom importlib import import_module\n"
        f"room = import_module('{package}').room\n"
        "for name in room.names():\n"
        "    room[name]\n"
        "    assert not {'torch', 'transformers', 'sklearn'} & set(sys.modules), name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_card_without_its_parts_is_found() -> None:
    assert lacking("Does it.\n\nSource: a paper.\nUse when: always. Avoid when: never.", CARD) == ["Cost:", "Raises"]
