"""CoNLL text: a word and its tags a line, a blank line between sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tunewright.core.units import bytes_text
from tunewright.data.sources import Note, Problem, Record, Source
from tunewright.data.sources._files import check_text
from tunewright.data.sources._lines import LARGEST_ROW, lines

_DOCUMENT = "-DOCSTART-"
_FORM, _UPOS = 1, 3  # of the ten columns of CoNLL-U


class Conll(Source):
    """CoNLL 2000 to 2003: the word stands in the first column and its tag in the last; lines of `-DOCSTART-` are passed over.

    CoNLL-U: the word is FORM and its tag UPOS; comments, multiword ranges and empty nodes are passed over. Columns stand apart by
    tabs, or by white space where a line has no tab.

    Source: Tjong Kim Sang and De Meulder 2003, arXiv cs/0306050; https://universaldependencies.org/format.html
    """

    suffixes: ClassVar[tuple[str, ...]] = (".conll", ".conllu", ".bio", ".iob", ".iob2")

    def records(self, path: Path) -> Iterator[Record | Problem | Note]:
        if check_text(path):
            yield Note(str(path), "begins with a byte order mark (removed)")
        universal = path.suffix.lower() == ".conllu"
        word, tag = ("FORM", "UPOS") if universal else ("the first column", "the last one")
        yield Note(str(path), f"{word} is read as the word, {tag} as its tag")
        pending: list[tuple[str, str]] = []
        problem, start = "", 1
        for number, line in lines(path):
            if line is None:
                problem = f"line {number} is longer than {bytes_text(LARGEST_ROW)}"
            elif line.strip():
                start = start if pending or problem else number
                found = _parts(line, universal)
                if isinstance(found, str):
                    problem = problem or f"line {number} {found}"
                elif found is not None:
                    pending.append(found)
            else:
                yield from _sentence(pending, problem, f"{path}:{start}")
                pending, problem = [], ""
        yield from _sentence(pending, problem, f"{path}:{start}")


def _sentence(pending: list[tuple[str, str]], problem: str, where: str) -> Iterator[Record | Problem]:
    """One sentence, whole or not at all: without one of its words it would be another."""
    if problem:
        yield Problem(where, "bad_line", problem)
    elif pending:
        yield Record({"tokens": [word for word, _ in pending], "tags": [tag for _, tag in pending]}, where)


def _parts(line: str, universal: bool) -> tuple[str, str] | str | None:
    """Word and tag of a line; what is wrong with it; or None for one that holds no word."""
    columns = line.split("\t") if "\t" in line else line.split()
    columns = [column.strip() for column in columns]
    if universal:
        if line.startswith("#") or not columns[0].isdecimal():
            return None
        return (columns[_FORM], columns[_UPOS]) if len(columns) == 10 else f"has {len(columns)} columns, CoNLL-U has 10"
    if columns[0] == _DOCUMENT:
        return None
    return (columns[0], columns[-1]) if len(columns) > 1 and columns[-1] else "has a word without a tag"
