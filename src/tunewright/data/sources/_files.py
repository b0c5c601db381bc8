"""What a path is, and what the first bytes of a file say, before anything reads it.

Most "broken JSON" in the wild is a download page, a Git LFS pointer, a gzip archive or UTF-16: named here as what it is.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tunewright.core.errors import DataError, nearest

HEAD = 4096  # bytes looked at
BOM = b"\xef\xbb\xbf"

_PACKED = {
    b"\x1f\x8b": ("a gzip archive", "gunzip"),
    b"PK\x03\x04": ("a zip archive", "unzip"),
    b"BZh": ("a bzip2 archive", "bunzip2"),
    b"\xfd7zXZ\x00": ("an xz archive", "unxz"),
    b"\x28\xb5\x2f\xfd": ("a zstd archive", "unzstd"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-zip archive", "7z x"),
}
_BINARY = {
    b"PAR1": "a Parquet file: name it .parquet",
    b"ARROW1": "an Arrow file: name it .arrow",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x7fELF": "a program",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old Office document: export it as CSV",
}
_WIDE = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_SPECIAL = {
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check(path: Path) -> None:
    """Refuse what is not a readable, unpacked, regular file or a folder. Never opens a pipe, which would hang.

    Raises:
        DataError: naming what stands at `path` instead.
    """
    where = str(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _absent(path, error) from None
    special = _SPECIAL.get(stat.S_IFMT(mode))
    if special:
        raise DataError(f"is {special}, not a file", where=where, hint="Write the rows to a regular file first.")
    if not os.access(path, os.R_OK):
        raise DataError("cannot be read: permission denied", where=where, hint=f"Try `chmod u+r {path}`.")
    if path.is_dir():
        return
    if path.stat().st_size == 0:
        raise DataError("is empty (0 bytes)", where=where, hint="Is it the right file?")
    start = head(path)
    for magic, (what, tool) in _PACKED.items():
        if start.startswith(magic):
            raise DataError(f"is {what}; packed files are not read", where=where, hint=f"Unpack it first: `{tool} {path}`.")


def _absent(path: Path, error: OSError) -> DataError:
    if os.path.islink(path):
        return DataError(f"is a link to '{os.readlink(path)}', which does not exist", where=str(path), hint="Mend the link.")
    if isinstance(error, PermissionError):
        return DataError("cannot be reached: permission denied", where=str(path))
    if path.parent.is_dir():
        near = nearest(path.name, sorted(item.name for item in path.parent.iterdir()))
        hint = f"Did you mean '{path.parent / near}'?" if near else "Check the path."
    else:
        hint = f"There is no folder '{path.parent}' either; check the path."
    return DataError("there is no such file", where=str(path), hint=hint)


def head(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD)


def fingerprint(path: Path) -> tuple[int, int] | None:
    """Size and time of change, to notice a file that is written while it is read; None for what is not a file."""
    if not path.is_file():
        return None
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def check_text(path: Path) -> bool:
    """Refuse a file whose first bytes say that it is not UTF-8 text; True when it begins with a byte order mark.

    Raises:
        DataError: UTF-16, an HTML page, a Git LFS pointer, a picture, any other binary file.
    """
    start, where = head(path), str(path)
    for magic, name in _WIDE.items():
        if start.startswith(magic):
            raise _wide(name, where)
    for magic, what in _BINARY.items():
        if start.startswith(magic):
            raise DataError(f"is {what}", where=where, hint="Rows of text are expected.")
    if len(start) >= 8 and start.count(0) > len(start) // 4:
        zeros_at = [sum(byte == 0 for byte in start[side::2]) for side in (0, 1)]
        if max(zeros_at) > len(start) // 3 and min(zeros_at) <= len(start) // 50:
            raise _wide("UTF-16", where)
    controls = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in start)
    if controls > max(2, len(start) // 20):
        raise DataError("is a binary file, not text", where=where, hint="Rows of text are expected.")
    text = start.removeprefix(BOM).lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        raise DataError("looks like an HTML page", where=where, hint="A download probably failed: open it and see what it says.")
    if text.startswith(b"<?xml"):
        raise DataError("looks like XML", where=where, hint="Convert it to JSONL or CSV.")
    if text.startswith(b"version https://git-lfs.github.com/"):
        raise DataError("is a Git LFS pointer, not the data", where=where, hint="Run `git lfs pull` in its repository.")
    return start.startswith(BOM)


def _wide(name: str, where: str) -> DataError:
    return DataError(f"is {name} text; UTF-8 is expected", where=where, hint=f"Convert it: `iconv -f {name} -t UTF-8 {where}`.")
