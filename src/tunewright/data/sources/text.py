"""Plain text: a row is a block between blank lines, or a line where the file has no blank lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tunewright.core.units import bytes_text
from tunewright.data.sources import Note, Problem, Record, Source
from tunewright.data.sources._files import check_text
from tunewright.data.sources._lines import LARGEST_ROW, lines


class Text(Source):
    """Plain text for continued pre-training. Line breaks inside a block are kept; CR and CRLF become LF."""

    suffixes: ClassVar[tuple[str, ...]] = (".txt",)

    def records(self, path: Path) -> Iterator[Record | Problem | Note]:
        if check_text(path):
            yield Note(str(path), "begins with a byte order mark (removed)")
        blocks = _has_blocks(path)
        yield Note(str(path), f"is read as one row for every {'block between blank lines' if blocks else 'line'}")
        yield from _rows(path, blocks)


def _rows(path: Path, blocks: bool) -> Iterator[Record | Problem]:
    pending: list[str] = []
    start = 1
    for number, line in lines(path):
        if line is None:
            yield Problem(f"{path}:{number}", "too_large", f"is longer than {bytes_text(LARGEST_ROW)}")
            continue
        if pending and not (blocks and line.strip()):
            yield Record({"text": "\n".join(pending)}, f"{path}:{start}")
            pending = []
        if line.strip():
            start = start if pending else number
            pending.append(line)
    if pending:
        yield Record({"text": "\n".join(pending)}, f"{path}:{start}")


def _has_blocks(path: Path) -> bool:
    """Whether a blank line stands between two lines of text."""
    seen_text = gap = False
    for _, line in lines(path):
        filled = line is None or bool(line.strip())
        if filled and gap:
            return True
        seen_text = seen_text or filled
        gap = seen_text and not filled
    return False
