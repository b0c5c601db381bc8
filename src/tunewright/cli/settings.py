"""The settings of a run as a flat list: the names that flags may have, what they take, their defaults and what they mean.

Nothing is written down twice: everything is read off the pydantic models of `Run`, and off the entries of the rooms of methods and
objectives.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tunewright.core.registry import Room
from tunewright.finetune import Run
from tunewright.methods import room as methods
from tunewright.objectives import room as objectives

SHORT = {
    "data": "data.train",
    "validation": "data.validation",
    "test": "data.test",
    "epochs": "training.epochs",
    "learning_rate": "training.learning_rate",
    "rank": "method.rank",
}
"""Conveniences: what is typed often, and the setting that is meant."""

ROOMS: Mapping[str, Room[Any]] = {"method": methods, "objective": objectives}
"""Settings that are entries of a room: a name, with settings of its own below it."""

Takes = Literal["text", "list", "mapping", "switch", "other"]


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted name, the shape of its value, its default as text, and one line about it."""

    name: str
    takes: Takes
    default: str
    about: str
    texts: bool = False
    """Whether the value (or each item of it) is text, so that `2024` stays a word."""


def settings(named: Mapping[str, str | None]) -> dict[str, Setting]:
    """Every setting by its dotted name.

    Args:
        named: the method and the objective that are meant; for None the settings of all entries are listed.
    """
    found = {}
    for setting in _below(Run, "", named):
        found.setdefault(setting.name, setting)
    return found


def _below(kind: type[BaseModel], prefix: str, named: Mapping[str, str | None]) -> Iterator[Setting]:
    about = _argument_lines(kind)
    for key, field in kind.model_fields.items():
        name = f"{prefix}{key}"
        inner = _models_in(field.annotation)
        if name in ROOMS:
            yield Setting(
                name, "other", _default_entry(name, field), field.description or f"one of: {', '.join(ROOMS[name].names())}"
            )
            chosen = named.get(name)
            for entry in [chosen] if chosen else ROOMS[name].names():
                yield from _below(ROOMS[name][entry], f"{name}.", {})
            yield Setting(f"{name}.name", "text", "", "the same", texts=True)
        elif inner and not inspect.isabstract(inner[0]):  # an entry of a room is a name, or a mapping as in a run file
            yield from _below(inner[0], f"{name}.", {})
        else:
            takes, texts = _shape(field.annotation)
            yield Setting(name, takes, _shown(field), _about(field, about.get(key, "")), texts)


def _about(field: FieldInfo, otherwise: str) -> str:
    text = field.description or otherwise
    choices = [
        choice for part in _parts(field.annotation) if typing.get_origin(part) is Literal for choice in typing.get_args(part)
    ]
    return f"{text}: {' | '.join(map(str, choices))}".removeprefix(": ") if choices else text


def _default_entry(name: str, field: FieldInfo) -> str:
    return "by the rows" if field.default is None else ROOMS[name].name_of(field.default)


def _shown(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None or default in ((), {}):
        return ""
    if isinstance(default, tuple):
        return ", ".join(str(item) for item in default)
    return (
        str(default).lower()
        if isinstance(default, bool)
        else f"{default:g}"
        if isinstance(default, float)
        else str(default).encode("unicode_escape").decode()
    )


def _parts(annotation: Any) -> list[Any]:
    """The alternatives of a union (None left out), without `Annotated`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _parts(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for choice in typing.get_args(annotation) for part in _parts(choice)]
    return [] if annotation is type(None) else [annotation]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    return [part for part in _parts(annotation) if inspect.isclass(part) and issubclass(part, BaseModel)]


def _shape(annotation: Any) -> tuple[Takes, bool]:
    """How a value is written, and whether it (or each item of it) is text."""
    parts = _parts(annotation)
    origins = {typing.get_origin(part) or part for part in parts}
    if origins & {list, tuple}:
        items = [item for part in parts for item in typing.get_args(part) if item is not Ellipsis]
        return "list", all(item in (str, Path) for item in items)
    if dict in origins:
        return "mapping", False
    if origins == {bool}:
        return "switch", False
    texts = bool(origins) and origins <= {str, Path, Literal}
    return ("text" if texts else "other"), texts


def _argument_lines(kind: type[BaseModel]) -> dict[str, str]:
    """What the `Args:` of a docstring say about each field, on one line each: for fields without a description of their own."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        begins = re.match(r"    (\w+): (.*)", line)
        if begins:
            key = begins[1]
            found[key] = begins[2]
        elif key:
            found[key] += f" {line.strip()}"
    return {name: re.split(r"(?<=[a-z\"`)])\. ", line)[0].rstrip(".") for name, line in found.items()}
