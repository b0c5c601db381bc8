"""JSON Lines: one object a line. A JSON array of objects and a file of SQuAD are read as well, under either suffix."""

from __future__ import annotations

import json.decoder
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tunewright.core.errors import DataError
from tunewright.core.units import bytes_text
from tunewright.data.sources import Note, Problem, Record, Source, _squad
from tunewright.data.sources._files import check_text
from tunewright.data.sources._json import BadJson, check, element, parse
from tunewright.data.sources._lines import LARGEST_ROW, lines

LARGEST_ARRAY = 500_000_000  # bytes; an array stands in memory whole, lines do not


class Jsonl(Source):
    """JSON Lines, JSON arrays and SQuAD's nested files, strictly read: no NaN, no duplicate keys, no lone surrogates."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson", ".json")

    def records(self, path: Path) -> Iterator[Record | Problem | Note]:
        if check_text(path):
            yield Note(str(path), "begins with a byte order mark (removed)")
        if _squad.holds(path):
            yield from _squad.records(path)
            return
        layout = _layout(path)
        yield from _array(path) if layout == "array" else _by_line(path)


def _by_line(path: Path) -> Iterator[Record | Problem]:
    for number, line in lines(path):
        where = f"{path}:{number}"
        if line is None:
            yield Problem(where, "too_large", f"is longer than {bytes_text(LARGEST_ROW)}")
        elif line.strip():
            yield _record(line, where)


def _record(text: str, where: str) -> Record | Problem:
    try:
        return _object(parse(text), where)
    except BadJson as error:
        return Problem(where, error.kind, error.message)


def _object(value: Any, where: str) -> Record | Problem:
    if isinstance(value, dict):
        return Record(value, where)
    kinds = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "true or false", type(None): "null"}
    return Problem(where, "not_an_object", f"is {kinds[type(value)]}, not an object with named fields")


def _layout(path: Path) -> str:
    """Whether the file is "lines" or one "array", told from its first lines."""
    filled = ((number, line) for number, line in lines(path) if line is None or line.strip())
    number, first = next(filled, (0, ""))
    start = (first or "").strip()
    if start == "{":
        raise DataError(
            "the first row is spread over several lines; one object a line is expected",
            where=f"{path}:{number}",
            hint=f"Join each one: `jq -c . {path} > rows.jsonl` (add `.data[]` where a key holds the rows).",
        )
    if not start.startswith("["):
        return "lines"
    try:
        parse(start)
    except BadJson:
        return "array"
    # A whole array on the first line is the whole file, or else one of many lines that are arrays.
    return "lines" if next(filled, None) else "array"


def _array(path: Path) -> Iterator[Record | Problem]:
    if path.stat().st_size > LARGEST_ARRAY:
        hint = f"`jq -c .[] {path} > rows.jsonl` makes lines of it."
        raise DataError(
            f"is a JSON array above {bytes_text(LARGEST_ARRAY)}; large data is read as lines", where=str(path), hint=hint
        )
    text = "\n".join(line or "" for _, line in lines(path))
    place, line, counted = _after_space(text, text.index("[") + 1), 1, 0
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        where = f"{path}:{line}"
        try:
            value, end = element(text, place)
            check(value, text[place:end])
            yield _object(value, where)
        except BadJson as error:
            if error.kind != "broken_json":
                yield Problem(where, error.kind, error.message)
                end = _lenient_end(text, place)
            else:
                raise DataError(f"the array cannot be read from here on: {error.message}", where=where) from None
        place = _after_space(text, end)
        separator = text[place : place + 1]
        if separator not in (",", "]"):
            here = f"{path}:{1 + text.count(chr(10), 0, place)}"
            raise DataError("the array is cut off: ',' or ']' is missing", where=here)
        place = _after_space(text, place + 1) if separator == "," else place
    place = _after_space(text, place + 1)
    if place < len(text):
        raise DataError("there is more text after the end of the array", where=f"{path}:{1 + text.count(chr(10), 0, place)}")


def _after_space(text: str, place: int) -> int:
    return json.decoder.WHITESPACE.match(text, place).end()  # type: ignore[attr-defined]


def _lenient_end(text: str, place: int) -> int:
    # Well-formed JSON that strictness refused (NaN, a key given twice): the plain decoder knows where it ends.
    return json.JSONDecoder().raw_decode(text, place)[1]
