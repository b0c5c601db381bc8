"""Writes the reference tables in the documentation from the code: `make docs`.

A page holds pairs of markers, `<!-- generated: NAME -->` and `<!-- end -->`; what stands between them is made here, from the
pydantic models of a run and from the docstrings of the rooms' entries. Everything else in a page is left alone.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tunewright.core.registry import Room
from tunewright.data.cleaning import room as filters
from tunewright.data.shapes import room as shapes
from tunewright.data.sources import room as sources
from tunewright.finetune import Run
from tunewright.graders import room as graders
from tunewright.methods import room as methods
from tunewright.metrics import room as metrics
from tunewright.models.sources import room as bases
from tunewright.objectives import room as objectives

DOCS = Path(__file__).parent
PAIR = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
PARTS = re.compile(r"^(Source|Cost|Use when|Avoid when|Raises|Use for)\b", re.IGNORECASE)
KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path", type(None): ""}
BOUNDS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}


def updated(text: str) -> str:
    """A page with everything between its markers made anew."""
    return PAIR.sub(lambda found: f"{found[1]}\n{TABLES[found['name']]()}\n\n{found[3]}", text)


def pages() -> list[Path]:
    """The pages that have generated parts."""
    return [path for path in sorted(DOCS.glob("*.md")) if PAIR.search(path.read_text(encoding="utf-8"))]


# ---- settings -----------------------------------------------------------------------------------------------------------------


def settings_table() -> str:
    """Every setting of a run but those of methods and objectives, which have tables of their own."""
    return _table(("Setting", "Value", "Default", "Meaning"), _settings(Run, ""))


def _settings(kind: type[BaseModel], prefix: str) -> Iterator[tuple[str, ...]]:
    told = arguments(kind)
    for name, field in kind.model_fields.items():
        about = field.description or told.get(name, "")
        inner = _model_in(field.annotation)
        if prefix == "" and name in ENTRIES:
            default = "by the rows" if field.default is None else f"`{ENTRIES[name].name_of(field.default)}`"
            yield f"`{name}`", "a name, or a mapping with `name`", default, about or f"see [{name}s](#{name}s)"
        elif inner is not None and inspect.isabstract(inner):  # an entry of a room, or several by names
            yield f"`{prefix}{name}`", _named(field), _default(field), about
        elif inner is not None:
            yield from _settings(inner, f"{prefix}{name}.")
        else:
            yield f"`{prefix}{name}`", value_of(field), _default(field), about


def _named(field: FieldInfo) -> str:
    one = "a name, or a mapping with `name`"
    return f"a mapping: for each key {one}" if typing.get_origin(field.annotation) is dict else one


def arguments(kind: type) -> dict[str, str]:
    """What the `Args:` of a docstring says about each name; `one, other: text` is about both."""
    found: dict[str, str] = {}
    inside, current = False, ()
    for line in (inspect.getdoc(kind) or "").splitlines():
        if line.strip() == "Args:":
            inside = True
        elif inside and (start := re.match(r"^    (\w+(?:, \w+)*): (.*)", line)):
            current = tuple(start[1].split(", "))
            found |= dict.fromkeys(current, start[2])
        elif inside and line.startswith("        "):
            found |= {name: f"{found[name]} {line.strip()}" for name in current}
        elif line.strip():
            inside = False
    return found


def value_of(field: FieldInfo) -> str:
    """What a setting takes, in words."""
    words = _words(field.annotation)
    limits = [
        f"{sign} {_number(getattr(one, key))}"
        for one in field.metadata
        for kind, (key, sign) in BOUNDS.items()
        if isinstance(one, kind)
    ]
    return f"{words}, {' and '.join(limits)}" if limits else words


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _words(annotation: Any) -> str:
    if annotation in KINDS:
        return KINDS[annotation]
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inside)
    if origin is typing.Annotated:
        return _words(inside[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(filter(None, map(_words, inside))))
    if origin in (tuple, list):
        return f"list of {_words(inside[0])}"
    if origin is dict:
        return f"mapping of {_words(inside[0])} to {_words(inside[1])}"
    return str(getattr(annotation, "__name__", annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    text = _number(value) if isinstance(value, float) else str(value)
    return f"`{text!r}`" if text != text.strip() else f"`{text}`"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, typing.get_args(annotation))), None)


# ---- entries of rooms ---------------------------------------------------------------------------------------------------------


def cards(room: Room[Any]) -> str:
    """Every entry of a room as a section: what it does, what is to be known to choose it, its settings."""
    return "\n\n".join(_card(name, room[name]) for name in room.names())


def _card(name: str, entry: type[BaseModel]) -> str:
    text, parts = card_of(entry)
    lines = [f"### `{name}`", "", text, "", *(f"- {part}" for part in parts)]
    if rows := list(_settings(entry, "")):
        lines += ["", _table(("Setting", "Value", "Default", "Meaning"), rows)]
    return "\n".join(lines)


def card_of(entry: type) -> tuple[str, list[str]]:
    """The text of an entry's docstring, and its parts (`Source: ...`, `Cost: ...`), each as one line."""
    text: list[str] = []
    parts: list[str] = []
    for line in (inspect.getdoc(entry) or "").splitlines():
        if PARTS.match(line):
            parts.append(line)
        elif parts and line.strip():
            parts[-1] += f" {line.strip()}"
        elif not parts:
            text.append(line)
    split = [piece for part in parts for piece in re.split(r"(?<=\.) (?=Avoid when)", part)]
    return "\n".join(text).strip(), [re.sub(r"^([A-Z][\w ]*?):", r"**\1:**", piece) for piece in split]


def first_sentence(entry: type) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(entry) or "").split("\n\n")[0].split())


MEASURED = {
    **{"label": "labels", "text": "written answers", "labels": "sets of labels", "numbers": "numbers", "tags": "tags of words"},
    "probabilities": "probabilities",
}


def metrics_table() -> str:
    """Every metric."""
    rows = [(f"`{name}`", MEASURED[metrics[name].task], first_sentence(metrics[name])) for name in metrics.names()]
    return _table(("Metric", "Measures", "What it is"), rows)


def shapes_table() -> str:
    """Every shape of rows and the columns by which it is known."""
    rows = []
    for name in shapes.names():
        keys = sorted(shapes[name].keys, key=lambda needed: (needed[0] not in ("prompt", "text"), len(needed)))
        shown = " or ".join(" + ".join(f"`{key}`" for key in needed) for needed in keys[:3]) + (
            " or similar" if len(keys) > 3 else ""
        )
        rows.append((f"`{name}`", shown, ", ".join(f"`{key}`" for key in shapes[name].optional), first_sentence(shapes[name])))
    return _table(("Shape", "Columns", "Also read", "What it is"), rows)


def sources_table() -> str:
    """Every kind of file that is read."""
    rows = [
        (f"`{name}`", ", ".join(f"`{one}`" for one in sources[name].suffixes), first_sentence(sources[name]))
        for name in sources.names()
    ]
    return _table(("Source", "Files", "What it is"), rows)


def filters_table() -> str:
    """Every filter and what it does unless told otherwise."""
    order = sorted(filters.names(), key=lambda name: filters[name].order)
    return _table(
        ("Filter", "Default", "What it looks for"),
        [(f"`{n}`", f"`{filters[n].action}`", first_sentence(filters[n])) for n in order],
    )


def bases_table() -> str:
    """Every place that bases come from, in the order in which they are asked."""
    order = sorted(bases.names(), key=lambda name: bases[name].order)
    return _table(
        ("Source", "Written as", "What it is"), [(f"`{n}`", ", ".join(bases[n].names), first_sentence(bases[n])) for n in order]
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    filled = [tuple(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in rows]
    used = [place for place in range(len(head)) if any(row[place] for row in filled)]
    lines = [head, tuple("---" for _ in head), *filled]
    return "\n".join("| " + " | ".join(line[place] for place in used) + " |" for line in lines)


ENTRIES: dict[str, Room[Any]] = {"method": methods, "objective": objectives}
TABLES: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "methods": lambda: cards(methods),
    "objectives": lambda: cards(objectives),
    "metrics": metrics_table,
    "graders": lambda: cards(graders),
    "shapes": shapes_table,
    "sources": sources_table,
    "filters": filters_table,
    "bases": bases_table,
}


if __name__ == "__main__":
    for page in pages():
        before = page.read_text(encoding="utf-8")
        page.write_text(after := updated(before), encoding="utf-8")
        sys.stdout.write(f"{page.name}: {'as it was' if after == before else 'written anew'}\n")
