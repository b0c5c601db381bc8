"""The folder is the registry: names without imports, one class a module, third parties through entry points."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunewright.core import registry
from tunewright.core.configuration import Strict
from tunewright.core.errors import ConfigurationError, UnknownNameError
from tunewright.core.registry import Room

INIT = """
from abc import abstractmethod
from tunewright.core.configuration import Strict

class Shape(Strict):
    @abstractmethod
    def area(self): ...
"""
SQUARE = """
from shapes_room import Shape

class _Rounded(Shape):
    "Still abstract."

class Square(Shape):
    side: float = 1.0

    def area(self):
        return self.side ** 2
"""
TWO = SQUARE + "\nclass Second(Square):\n    pass\n"
BORROWED = "from shapes_room.square import Square\n"


@pytest.fixture
def room(tmp_path: Path, monkeypatch) -> Iterator[Room]:
    folder = tmp_path / "shapes_room"
    folder.mkdir()
    texts = {"__init__": INIT, "square": SQUARE, "two": TWO, "borrowed": BORROWED, "broken": "raise RuntimeError", "_private": TWO}
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "notes.txt").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield Room("shapes_room", __import__("shapes_room").Shape, "shape")
    for name in [name for name in sys.modules if name.partition(".")[0] == "shapes_room"]:
        del sys.modules[name]


class Foreign(Strict):
    """An entry of another package, in a module of another name."""

    sides: int = 3

    def area(self) -> float:
        return 0.0


@pytest.fixture
def third_party(room, monkeypatch) -> Room:
    point = SimpleNamespace(name="triangle", group="tunewright.shapes_room", load=lambda: Foreign)
    monkeypatch.setattr(registry, "_registered", lambda: (point,))
    return Room("shapes_room", Strict, "shape")


def test_names_are_the_public_modules_and_nothing_is_imported_to_answer(room):
    assert room.names() == ["borrowed", "broken", "square", "two"]
    assert [name for name in sys.modules if name.startswith("shapes_room.")] == []


def test_asking_for_one_imports_that_one_alone(room):
    assert room["square"].__name__ == "Square"
    assert [name for name in sys.modules if name.startswith("shapes_room.")] == ["shapes_room.square"]


@pytest.mark.parametrize("name", ["sqare", "Square", "SQUARE"])
def test_a_misspelt_name_is_answered_with_the_nearest(room, name):
    with pytest.raises(UnknownNameError) as caught:
        room[name]
    said = f"there is no shape '{name}'. Did you mean 'square'? Allowed: borrowed, broken, square, two."
    assert str(caught.value) == said
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["_private", "__init__", "square.Square", "../square", ""])
def test_what_is_not_public_cannot_be_asked_for(room, name):
    with pytest.raises(UnknownNameError):
        room[name]


@pytest.mark.parametrize(("name", "count"), [("two", 2), ("borrowed", 0)])
def test_a_module_holds_exactly_one_concrete_class_of_its_own(room, name, count):
    with pytest.raises(TypeError, match=f"exactly one concrete Shape, it defines {count}"):
        room[name]


def test_an_entry_is_made_from_a_name_a_mapping_or_itself(room):
    assert room.make("square").side == 1.0
    settings = {"name": "square", "side": 3}
    made = room.make(settings)
    assert made.area() == 9.0
    assert settings == {"name": "square", "side": 3}
    assert room.make(made) is made


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "a shape is a name or a mapping with 'name', not int"),
        (None, "not NoneType"),
        (["square"], "not list"),
        ({"side": 2}, "which shape\\? The key 'name' is missing"),
        ({"name": None}, "The key 'name' is missing"),
        ({"name": 3}, "there is no shape '3'"),
        ({"name": "square", "sied": 2}, "sied: unknown key 'sied'. Did you mean 'side'"),
        ({"name": "square", "side": "long"}, "side: should be a valid number"),
        (Foreign(), "not Foreign"),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(room, value, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        room.make(value)
    assert caught.value.allowed or "valid number" in said


def test_what_is_dumped_makes_the_same_entry(room):
    entry = room.make({"name": "square", "side": 3})
    assert room.dump(entry) == {"name": "square", "side": 3.0}
    assert room.make(room.dump(entry)) == entry


def test_a_third_party_stands_beside_our_own(third_party):
    assert third_party.names() == ["borrowed", "broken", "square", "triangle", "two"]
    assert third_party["triangle"] is Foreign
    assert third_party.make({"name": "triangle", "sides": 4}).sides == 4
    with pytest.raises(UnknownNameError, match="Did you mean 'triangle'"):
        third_party["triangel"]


def test_a_third_partys_entry_is_known_by_its_entry_point_and_not_its_module(third_party):
    entry = Foreign(sides=5)
    assert third_party.dump(entry) == {"name": "triangle", "sides": 5}
    assert third_party.make(third_party.dump(entry)) == entry


def test_another_rooms_entry_points_do_not_come_in(third_party):
    assert "triangle" not in Room("tunewright.metrics", object, "metric").names()


def test_settings_for_an_entry_that_takes_none_are_not_swallowed(room, tmp_path):
    class Plain(ABC):
        @abstractmethod
        def act(self): ...

    (tmp_path / "shapes_room" / "plain.py").write_text(
        "from shapes_room import Plain\nclass Real(Plain):\n    def act(self): ...\n"
    )
    sys.modules["shapes_room"].Plain = Plain
    plain = Room("shapes_room", Plain, "thing")
    assert isinstance(plain.make("plain"), Plain)
    with pytest.raises(ConfigurationError, match="size: the thing 'plain' has no settings"):
        plain.make({"name": "plain", "size": 3})


@pytest.fixture
def installed(monkeypatch) -> Iterator[list[str]]:
    """What is installed, with entries for this room, for another one and for somebody else; how often it was asked for."""
    groups = {"triangle": "tunewright.shapes_room", "circle": "tunewright.other_room", "command": "console_scripts"}
    points = EntryPoints(EntryPoint(name, f"{__name__}:Foreign", group) for name, group in groups.items())
    asked = []
    monkeypatch.setattr(registry, "entry_points", lambda: asked.append("asked") or points)
    registry._registered.cache_clear()
    yield asked
    registry._registered.cache_clear()


def test_an_installed_package_brings_its_entries_into_their_room(room, installed):
    assert room.names() == ["borrowed", "broken", "square", "triangle", "two"]
    assert room["triangle"].__name__ == "Foreign"


def test_what_is_installed_is_asked_for_once(room, installed):
    for _ in range(3):
        room.names()
        Room("shapes_room", room.kind, "shape")["square"]
    assert installed == ["asked"]
