"""Where rows come from: bytes to records, one format a file.

An entry is a `Source`. It yields a `Record` for every row that could be read, a `Problem` for every row that could not, and a
`Note` for what was accepted but should be known. What spoils the whole file (its encoding, its header) raises `DataError`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tunewright.core.errors import ConfigurationError, DataError
from tunewright.core.registry import Room
from tunewright.data.sources import _files


class Record(NamedTuple):
    """One row as the file holds it, and where it stands ("file:line")."""

    value: dict[str, Any]
    where: str


class Problem(NamedTuple):
    """One row that cannot be used: where it stands, the reason as a word that can be counted, and as a sentence."""

    where: str
    kind: str
    message: str


class Note(NamedTuple):
    """Something about a file that was accepted but that its owner should know."""

    where: str
    message: str


class Source(ABC):
    """A format of files. `suffixes` are those it reads; `records` streams, so that a large file never stands in memory whole."""

    suffixes: ClassVar[tuple[str, ...]] = ()

    def accepts(self, path: Path) -> bool:
        """Whether `path` is something that this source reads."""
        return path.suffix.lower() in self.suffixes and path.is_file()

    @abstractmethod
    def records(self, path: Path) -> Iterator[Record | Problem | Note]:
        """Every row of the file in its order.

        Raises:
            DataError: the file as a whole cannot be read.
        """

    def splits(self, path: Path) -> dict[str, list[Path]]:
        """The files of each split (`train`, `validation`, `test`), where `path` is a folder or a dataset that has splits."""
        return {}

    def separated_by(self, delimiter: str) -> Source:
        """The same source with columns separated by `delimiter`; only tables know what that means."""
        raise ConfigurationError(
            f"a delimiter ('{delimiter}') means something for .csv and .tsv files only", where="data.delimiter"
        )


room: Room[Source] = Room("tunewright.data.sources", Source, "source")  # type: ignore[type-abstract]


def source_for(place: Path | str) -> tuple[Source, Path]:
    """The source that reads `place`, and `place` as a path.

    Raises:
        DataError: there is no such file, it is not a regular one, it is packed, or nothing reads files of its suffix.
    """
    path = Path(place)
    sources = [room[name]() for name in room.names()]
    if not os.path.lexists(path) and not str(place).startswith("."):
        remote = next((source for source in sources if source.accepts(path)), None)
        if remote is not None:
            return remote, path
    _files.check(path)
    for source in sources:
        if source.accepts(path):
            return source, path
    known = sorted(suffix for source in sources for suffix in source.suffixes)
    problem = (
        f"files ending in '{path.suffix}' are not read" if path.suffix else "the file has no suffix, so its format is not known"
    )
    raise DataError(problem, where=str(path), allowed=known, given=path.suffix, hint="Rename or convert it, or name another file.")


def records(place: Path | str, delimiter: str | None = None) -> Iterator[Record | Problem | Note]:
    """Every row at `place`, whatever its format.

    Args:
        place: a file, a folder, or the name of a data set on the hub ("owner/name").
        delimiter: what separates columns, for tables that use neither commas (.csv) nor tabs (.tsv).

    Raises:
        DataError: the file cannot be read, holds no rows, or changed while it was being read.
    """
    source, path = source_for(place)
    if delimiter is not None:
        source = source.separated_by(delimiter)
    before = _files.fingerprint(path)
    count = 0
    for item in source.records(path):
        count += not isinstance(item, Note)
        yield item
    if not count:
        raise DataError("holds no rows", where=str(path), hint="Is it the right file?")
    if _files.fingerprint(path) != before:
        raise DataError("changed while it was being read", where=str(path), hint="Let what writes it finish, then start again.")
