"""Lines of a UTF-8 file, streamed, with exact line numbers and byte offsets.

Only LF, CR and CRLF end a line. Python's own text reading would do as well for these, but `str.splitlines` also cuts at U+2028,
U+2029 and U+0085, which stand inside the strings of real data; and only bytes can say at which offset an encoding breaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunewright.core.errors import DataError
from tunewright.data.sources._files import BOM

LARGEST_ROW = 10_000_000  # bytes; a longer line is a damaged file far more often than an example
BLOCK = 1 << 20


def lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Every line with its number (from 1), without its end; None stands for a line above `LARGEST_ROW` bytes.

    Raises:
        DataError: a NUL byte, or bytes that are not UTF-8, with the line and the offset in the file.
    """
    offset, number = 0, 0
    for raw in _raw_lines(path):
        number += 1
        if isinstance(raw, int):
            yield number, None
            offset += raw
            continue
        body = raw.rstrip(b"\r\n")
        if number == 1 and body.startswith(BOM):
            body = body[len(BOM) :]
            offset += len(BOM)
            raw = raw[len(BOM) :]
        yield number, _decoded(body, path, number, offset)
        offset += len(raw)


def _raw_lines(path: Path) -> Iterator[bytes | int]:
    """Lines with their ends as bytes; for one that is too long, only how many bytes it had."""
    tail, skipped = b"", 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            parts = (tail + block).splitlines(keepends=True)
            # A block may end inside a line, or between the CR and the LF of one line end.
            tail = parts.pop() if not parts[-1].endswith(b"\n") else b""
            if parts and skipped:
                yield skipped + len(parts.pop(0))
                skipped = 0
            yield from (part if len(part) <= LARGEST_ROW else len(part) for part in parts)
            if len(tail) > LARGEST_ROW:
                skipped, tail = skipped + len(tail), b""
    if skipped or tail:
        yield skipped + len(tail) if skipped else tail


def _decoded(body: bytes, path: Path, number: int, offset: int) -> str:
    where = f"{path}:{number}"
    if b"\0" in body:
        place = offset + body.index(b"\0")
        raise DataError(f"there is a NUL byte at offset {place}", where=where, hint="The file is damaged or is not text.")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = body[error.start]
        place = offset + error.start
        after = body[error.start + 1 : error.start + 2]
        # In Latin-1 and its Windows kin an accented letter is one high byte between plain ones; damage rarely looks like that.
        latin = not after or after[0] < 0x80
        hint = (
            f"It looks like Latin-1 (Windows-1252): `iconv -f WINDOWS-1252 -t UTF-8 {path}`."
            if latin
            else "Save the file as UTF-8."
        )
        raise DataError(f"byte 0x{bad:02x} at offset {place} is not UTF-8", where=where, hint=hint) from None
