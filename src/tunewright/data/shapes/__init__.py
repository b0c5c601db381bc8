"""What a record means: records to rows, one shape a file.

An entry is a `Shape`. It says which columns it reads, recognises a record by them, and turns it into a `Row` or raises a
`RowProblem` with the reason. `detect` finds the shape of a file from its first records.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from tunewright.core.errors import DataError
from tunewright.core.registry import Room
from tunewright.data.rows import Row
from tunewright.data.shapes import _columns
from tunewright.data.sources import Record


class RowProblem(Exception):
    """A row that cannot be used. Caught where rows are read, counted and put into the ledger; never reaches the user.

    Args:
        kind: the reason as a word that can be counted.
        message: the reason as a sentence.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


class Shape(ABC):
    """A layout of columns.

    `keys` are alternatives, tried in their order: the columns that must all be there. `optional` columns are read where they
    stand. A `weak` shape gives way to any other that also fits. One that is not `suggested` reads columns that are no texts, so
    that from texts with other names it is never guessed.
    """

    title: ClassVar[str]
    keys: ClassVar[tuple[tuple[str, ...], ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    weak: ClassVar[bool] = False
    suggested: ClassVar[bool] = True

    def uses(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        """The columns of `record` that this shape reads, required ones first; empty when it is not of this shape."""
        for needed in self.keys:
            if all(key in record for key in needed):
                return needed + tuple(key for key in self.optional if key in record and key not in needed)
        return ()

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether `record` has the columns of this shape."""
        return bool(self.uses(record))

    @abstractmethod
    def row(self, record: Record) -> Row:
        """The row that `record` means; columns that are not used become its metadata.

        Raises:
            RowProblem: a value is missing, null, of the wrong type, or breaks the rules of the shape.
        """

    def used(self, record: Record) -> tuple[str, ...]:
        """`uses`, or a `RowProblem` that says which columns are missing."""
        found = self.uses(record.value)
        if not found:
            closest = min(self.keys, key=lambda needed: sum(key not in record.value for key in needed))
            missing = [f"'{key}'" for key in closest if key not in record.value]
            subject = f"the column {missing[0]} is" if len(missing) == 1 else f"the columns {', '.join(missing)} are"
            raise RowProblem("missing_column", f"{subject} missing (it has {', '.join(record.value) or 'none'})")
        return found


class Detected(NamedTuple):
    """A shape and why it was taken: `why` is a sentence, `also` names other shapes that fit as well."""

    shape: Shape
    name: str
    why: str
    also: tuple[str, ...] = ()


room: Room[Shape] = Room("tunewright.data.shapes", Shape, "shape")  # type: ignore[type-abstract]


def text_at(record: Record, key: str, *, optional: bool = False) -> str:
    """The text in a column. Raises `RowProblem` for null and for what is not text; an `optional` null is empty."""
    value = record.value.get(key)
    if isinstance(value, str):
        return value
    if value is None and optional:
        return ""
    if value is None:
        raise RowProblem("null", f"'{key}' is null")
    raise RowProblem("wrong_type", f"'{key}' must be text, it is {_columns.described(value)}")


def rest(record: Record, used: Sequence[str]) -> dict[str, Any]:
    """The columns of a record that are not used."""
    return {key: value for key, value in record.value.items() if key not in used}


def detect(records: Iterable[Record]) -> Detected:
    """The shape of the given records (the first hundred good ones of a file are enough).

    The shape that reads most columns wins. Records that fit no shape are left to be counted as bad rows, unless all are.

    Raises:
        DataError: nothing fits (with the columns found and what each shape needs), shapes fit equally well, or are mixed.
    """
    shapes = {name: room[name]() for name in room.names()}
    records = list(records)
    found: dict[str, list[Record]] = {}
    also: dict[str, None] = {}
    for record in records:
        fitting = {name: len(shape.uses(record.value)) for name, shape in shapes.items() if shape.matches(record.value)}
        strong = {name: count for name, count in fitting.items() if not shapes[name].weak} or fitting
        if strong:
            best = max(strong.values())
            winners = [name for name, count in strong.items() if count == best]
            found.setdefault(winners[0] if len(winners) == 1 else " or ".join(winners), []).append(record)
            also.update(dict.fromkeys(strong))
    strong_found = {name: members for name, members in found.items() if name not in shapes or not shapes[name].weak}
    found = strong_found or found
    if not found:
        raise _nothing_fits(records, shapes)
    if len(found) > 1:
        parts = ", ".join(f"{name} ({len(members)} rows, first at {members[0].where})" for name, members in found.items())
        hint = "Split it into one file a shape, or name the shape to keep with `--data.shape`; other rows then count as bad."
        raise DataError(f"rows of several shapes are mixed: {parts}", where=_file_of(records), hint=hint)
    name, members = next(iter(found.items()))
    if name not in shapes:
        hint = "Say which one is meant with `--data.shape`."
        raise DataError(
            "the columns fit several shapes equally well", where=_file_of(records), allowed=name.split(" or "), hint=hint
        )
    columns = ", ".join(shapes[name].uses(members[0].value))
    why = f"the columns {columns} are those of {shapes[name].title}"
    return Detected(shapes[name], name, why, tuple(other for other in also if other != name))


def _nothing_fits(records: Sequence[Record], shapes: Mapping[str, Shape]) -> DataError:
    columns = _columns.found(record.value for record in records)
    needs = [f"{name} ({' + '.join(min(shape.keys, key=len))})" for name, shape in shapes.items()]
    shown = ", ".join(f"{name} ({kind})" if kind != "text" else name for name, kind in columns.items()) or "none"
    hint = _columns.hint(columns, [needed for shape in shapes.values() if shape.suggested for needed in shape.keys])
    return DataError(f"the columns fit no known shape; found: {shown}", where=_file_of(records), allowed=needs, hint=hint)


def _file_of(records: Sequence[Record]) -> str:
    return records[0].where.rsplit(":", 1)[0] if records else ""
