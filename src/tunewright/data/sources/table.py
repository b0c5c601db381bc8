"""Tables as text: CSV and TSV, strictly read. Every value stays the string it is: '007', 'NA' and 'true' are not guessed at."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Protocol

from tunewright.core.errors import ConfigurationError, DataError
from tunewright.core.units import bytes_text
from tunewright.data.sources import Note, Problem, Record, Source
from tunewright.data.sources._files import check_text
from tunewright.data.sources._lines import LARGEST_ROW, lines

_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


class _Lines(Protocol):
    """What `csv.reader` returns; its type has no public name."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


class Table(Source):
    """CSV (commas) and TSV (tabs) with a header row.

    Args:
        delimiter: what separates columns; empty for what the suffix says.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")

    def __init__(self, delimiter: str = "") -> None:
        self.delimiter = delimiter

    def separated_by(self, delimiter: str) -> Source:
        delimiter = "\t" if delimiter == "\\t" else delimiter
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise ConfigurationError(f"a delimiter is one character, not '{delimiter}'", where="data.delimiter", hint="Try ';'.")
        return Table(delimiter)

    def records(self, path: Path) -> Iterator[Record | Problem | Note]:
        if check_text(path):
            yield Note(str(path), "begins with a byte order mark (removed)")
        delimiter = self.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
        # The limit is one number for the whole process; raising it to what a row may have harms nobody.
        csv.field_size_limit(max(csv.field_size_limit(), LARGEST_ROW))
        reader = csv.reader(_text(path), delimiter=delimiter, strict=True)
        header, line = _header(reader, path)
        _check_header(header, delimiter, f"{path}:{line}")
        if "" in header:
            yield Note(str(path), "has a column without a name (an index?); it is not read")
        empty = True
        for item in _rows(reader, header, path):
            empty = False
            yield item
        if empty:
            raise DataError("has a header but no rows", where=str(path), hint="Is it the right file?")


def _text(path: Path) -> Iterator[str]:
    for number, line in lines(path):
        if line is None:
            raise DataError(f"a line is longer than {bytes_text(LARGEST_ROW)}", where=f"{path}:{number}")
        yield line + "\n"


def _header(reader: _Lines, path: Path) -> tuple[list[str], int]:
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                return [field.strip() for field in fields], reader.line_num
    except csv.Error as error:
        raise DataError(f"the header cannot be read: {error}", where=f"{path}:{reader.line_num}") from None
    raise DataError("holds only blank lines", where=str(path), hint="Is it the right file?")


def _check_header(header: list[str], delimiter: str, where: str) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        shown = f"the column '{twice[0]}'" if twice[0] else "a column without a name"
        raise DataError(f"{shown} stands in the header twice", where=where, hint="Give each column its own name.")
    other = max((mark for mark in _NAMES if mark != delimiter), key=header[0].count)
    if len(header) == 1 and header[0].count(other):
        # Settings are read as YAML, where a bare bar begins a block of text.
        said = {"\t": "'\\t'", "|": "'\"|\"'"}.get(other, f"'{other}'")
        raise DataError(
            f"there is one column only, '{header[0]}': the delimiter is not {_NAMES.get(delimiter, repr(delimiter))}",
            where=where,
            hint=f"It looks like {_NAMES[other]}: say `--data.delimiter {said}`.",
        )


def _rows(reader: _Lines, header: list[str], path: Path) -> Iterator[Record | Problem]:
    named = [(place, name) for place, name in enumerate(header) if name]
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise DataError(
                    "a quote is opened here and never closed", where=where, hint='Write a quote in a text as "".'
                ) from None
            yield Problem(where, "bad_quotes", f"quotes are misplaced ({error}); a quote inside a text is written twice")
            continue
        if len(fields) == len(header):
            yield Record({name: fields[place] for place, name in named}, where)
        elif any(field.strip() for field in fields):
            yield Problem(where, "ragged", f"has {len(fields)} fields, the header has {len(header)}")
