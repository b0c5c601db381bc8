"""Hidden states on disk: found by content, read through a memory map, never trusted.

A cache folder holds one folder a key (see `key`), and in it

    header.json   the whole key; whatever says something else here is thrown away
    index.bin     36 bytes an entry: digest of the content, first row, rows, checksum of the rows, checksum of these 32 bytes
    states.bin    the rows, [rows, width], one after the other

Both files only grow. Rows are written before the entry that names them, so that a crash leaves rows that nobody names or a torn
last entry, and both are overwritten. A checksum is verified when a process reads an entry for the first time; what does not
fit empties the folder. Several processes may share a folder: one writes at a time, all read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tunewright.core.errors import StorageError
from tunewright.core.storage import read_json, write_json
from tunewright.engine.prefix.key import Key, name_of

FORMAT = 1  # of the files; another number is another key
HEADER, INDEX, STATES, IN_USE, WRITING = "header.json", "index.bin", "states.bin", "in_use.lock", "writing.lock"
_ENTRY = struct.Struct("<16sQII")
_CHECK = struct.Struct("<I")
_RECORD = _ENTRY.size + _CHECK.size
LARGEST_DEFAULT = 32 * 2**30


class _Place(NamedTuple):
    """Where the rows of one segment stand in `states.bin`, and their checksum."""

    first: int
    rows: int
    check: int


def default_budget(folder: Path) -> int:
    """Bytes for a whole cache folder that nobody set a budget for: a quarter of what is free or already its own, 32 GiB at most."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return min(LARGEST_DEFAULT, (shutil.disk_usage(existing).free + size_of(folder)) // 4)


def size_of(folder: Path) -> int:
    """Bytes of all states and entries in a cache folder; 0 when there is none. Other files that lie there do not count."""
    total = 0
    for path in (*folder.glob(f"*/{STATES}"), *folder.glob(f"*/{INDEX}")):
        with contextlib.suppress(OSError):  # another process may have removed it just now
            total += path.stat().st_size
    return total


class HiddenCache:
    """The states of one key.

    Args:
        folder: the cache folder of all keys; made when it is missing.
        key: what the states depend on; "dtype" and "width" of a row are read from it.
        budget: bytes that the whole folder may take. Where it is reached, the files of other keys that no process uses are
            removed, the one unused for longest first; after that nothing is added any more.

    Raises:
        StorageError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, key: Key, budget: int | None = None) -> None:
        self.key: Key = {**key, "format": FORMAT}
        self.path = folder / name_of(self.key)
        self.budget = default_budget(folder) if budget is None else budget
        self.dtype: torch.dtype = getattr(torch, key["dtype"])
        self.width: int = key["width"]
        self.row_bytes = self.width * self.dtype.itemsize
        self.full = False
        self.discarded = 0  # how often the files were thrown away
        self._places: dict[bytes, _Place] = {}
        self._verified: set[bytes] = set()
        self._rows, self._records = 0, 0
        self._map_RD: Tensor | None = None
        self._handles: list[int] = []
        self._closing = weakref.finalize(self, _close, self._handles)
        try:
            self._handles.append(_hold(self.path))
            with self._writing():
                pass  # checks what is there, and makes what is not
        except OSError as error:
            raise StorageError(f"the cache cannot be kept there ({error.strerror})", where=str(folder)) from error
        self._others = self._size_of_others()

    def __len__(self) -> int:
        """Segments that are kept."""
        return len(self._places)

    @property
    def bytes(self) -> int:
        """What states and entries take on disk."""
        return self._rows * self.row_bytes + self._records * _RECORD

    def close(self) -> None:
        """Let go of the files; they stay."""
        self._map_RD = None
        self._closing()

    # ---- reading ----------------------------------------------------------------------------------------------------------

    def missing(self, digests: Sequence[bytes]) -> set[bytes]:
        """Which of the segments are not kept; what other processes added is looked at too."""
        absent = {digest for digest in digests if digest not in self._places}
        if absent and self._changed():
            if not self._load_entries():
                self.discard()
            absent = {digest for digest in absent if digest not in self._places}
        return absent

    def read(self, digests: Sequence[bytes]) -> Tensor | None:
        """The states of these segments, one after the other: [T, D] in memory of its own. None when one is missing or damaged.

        Damage empties the folder, so that the states are computed and kept anew.
        """
        if self.missing(digests):
            return None
        places = [self._places[digest] for digest in digests]
        if not self._mapped(max((place.first + place.rows for place in places), default=0)):
            self.discard()
            return None
        map_RD = self._map_RD
        assert map_RD is not None
        for digest, place in zip(digests, places, strict=True):
            if digest not in self._verified:
                if zlib.crc32(_raw(map_RD[place.first : place.first + place.rows])) != place.check:
                    self.discard()
                    return None
                self._verified.add(digest)
        return torch.cat([map_RD[first:stop] for first, stop in _joined(places)])

    def _mapped(self, rows: int) -> bool:
        """Whether the memory map reaches so many rows; it is widened when the file has grown."""
        if self._map_RD is not None and len(self._map_RD) >= rows:
            return True
        try:
            if (self.path / STATES).stat().st_size < self._rows * self.row_bytes:
                return False
            count = self._rows * self.width
            # Shared, so that the system counts no memory for it: the pages are the file's own. Nothing here writes through it.
            flat = torch.from_file(str(self.path / STATES), shared=True, size=count, dtype=self.dtype)
        except (OSError, RuntimeError):
            return False
        self._map_RD = flat.view(-1, self.width)
        return len(self._map_RD) >= rows

    def _changed(self) -> bool:
        """Whether the index is not as it was read: longer, shorter, or another file."""
        try:
            found = (self.path / INDEX).stat()
        except OSError:
            return False
        return not self._same(found) or found.st_size // _RECORD != self._records

    def _same(self, found: os.stat_result) -> bool:
        # The handle is kept open, so that no new file can get the old one's number.
        return len(self._handles) == 2 and os.path.samestat(found, os.fstat(self._handles[1]))

    # ---- writing ----------------------------------------------------------------------------------------------------------

    def add(self, digests: Sequence[bytes], lengths: Sequence[int], states_TD: Tensor) -> int:
        """Keep the states of the segments that are not kept yet; returns how many were added.

        Args:
            digests, lengths: of the segments whose states stand one after the other in `states_TD` [T, D].

        A full disk or a full budget ends adding for good (`full`); it is never an error.
        """
        if self.full:
            return 0
        starts = [0]
        for length in lengths:
            starts.append(starts[-1] + length)
        wanted = self.missing(digests)
        new = {digest: (starts[at], starts[at + 1]) for at, digest in enumerate(digests) if digest in wanted}
        states_TD = states_TD.detach().to("cpu", self.dtype).contiguous()
        added = 0
        try:
            with self._writing():
                new = {digest: span for digest, span in new.items() if digest not in self._places}
                if not self._affordable(sum(stop - start for start, stop in new.values()) * self.row_bytes):
                    self.full = True
                    return 0
                added = self._append({digest: states_TD[start:stop] for digest, (start, stop) in new.items()})
        except OSError:  # no space left, or the folder is gone
            self.full = True
        return added

    def _append(self, new: dict[bytes, Tensor]) -> int:
        places, first = {}, self._rows
        with (self.path / STATES).open("r+b") as file:
            file.seek(first * self.row_bytes)
            for digest, states_LD in new.items():
                raw = _raw(states_LD)
                file.write(raw)
                places[digest] = _Place(first, len(states_LD), zlib.crc32(raw))
                first += len(states_LD)
        with (self.path / INDEX).open("r+b") as file:
            file.seek(self._records * _RECORD)
            file.write(b"".join(_record(digest, place) for digest, place in places.items()))
        self._places |= places
        self._verified |= places.keys()
        self._rows, self._records = first, self._records + len(places)
        return len(places)

    def _affordable(self, more: int) -> bool:
        """Whether the budget has room for `more` bytes, after others' unused files were removed where it had not."""
        while self.bytes + more + self._others > self.budget:
            if self.bytes + more > self.budget or not _evict_one(self.path):
                return False
            self._others = self._size_of_others()
        return True

    def _size_of_others(self) -> int:
        own = sum((self.path / name).stat().st_size for name in (INDEX, STATES))
        return max(0, size_of(self.path.parent) - own)

    def discard(self) -> None:
        """Throw away everything that is kept under this key."""
        self.discarded += 1
        with contextlib.suppress(OSError), _locked(self.path / WRITING):
            self._empty()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone among processes, on files that fit the key and with all of their entries known."""
        with _locked(self.path / WRITING):
            if not self._fits():
                self.discarded += any((self.path / name).exists() for name in (HEADER, INDEX, STATES))
                self._empty()
            elif self._changed() and not self._load_entries():
                self.discarded += 1
                self._empty()
            yield

    def _fits(self) -> bool:
        if not all((self.path / name).is_file() for name in (HEADER, INDEX, STATES)):
            return False
        try:
            return read_json(self.path / HEADER) == self.key
        except StorageError:
            return False

    def _empty(self) -> None:
        """New, empty files. Removed and not cut short: other processes may hold a map of the old ones."""
        for name in (HEADER, INDEX, STATES):
            (self.path / name).unlink(missing_ok=True)
        for name in (INDEX, STATES):
            (self.path / name).touch()
        write_json(self.path / HEADER, self.key)
        self._forget()

    def _forget(self) -> None:
        self._places, self._verified, self._rows, self._records, self._map_RD = {}, set(), 0, 0, None
        _close(self._handles, keep=1)
        self._handles.append(os.open(self.path / INDEX, os.O_RDONLY))

    def _load_entries(self) -> bool:
        """Read the entries that are new; False when they or the states' file are damaged."""
        try:
            if not self._same((self.path / INDEX).stat()):
                self._forget()  # the first look, or another process threw the files away
            if os.fstat(self._handles[1]).st_size < self._records * _RECORD:
                return False
            with (self.path / INDEX).open("rb") as file:
                file.seek(self._records * _RECORD)
                raw = file.read()
            available = (self.path / STATES).stat().st_size // self.row_bytes
        except OSError:
            return False
        for at in range(0, len(raw) - _RECORD + 1, _RECORD):  # a torn last entry is left out
            body = raw[at : at + _ENTRY.size]
            digest, *numbers = _ENTRY.unpack(body)
            place = _Place(*numbers)
            if _CHECK.unpack_from(raw, at + _ENTRY.size)[0] != zlib.crc32(body) or place.first + place.rows > available:
                return False
            self._places[digest] = place
            self._rows = max(self._rows, place.first + place.rows)
            self._records += 1
        return True


def _record(digest: bytes, place: _Place) -> bytes:
    body = _ENTRY.pack(digest, *place)
    return body + _CHECK.pack(zlib.crc32(body))


def _raw(states_LD: Tensor) -> memoryview:
    return states_LD.reshape(-1).view(torch.uint8).numpy().data


def _joined(places: Sequence[_Place]) -> list[tuple[int, int]]:
    """The spans of rows, with neighbours joined into one."""
    spans: list[tuple[int, int]] = []
    for place in places:
        if spans and spans[-1][1] == place.first:
            spans[-1] = (spans[-1][0], place.first + place.rows)
        else:
            spans.append((place.first, place.first + place.rows))
    return spans


def _close(handles: list[int], keep: int = 0) -> None:
    while len(handles) > keep:
        os.close(handles.pop())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _hold(folder: Path) -> int:
    """Mark a key's folder as used by this process for as long as the returned handle is open; made when it is missing."""
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # states come from the user's rows: nobody else reads them
        handle = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(handle, fcntl.LOCK_SH)
        if os.fstat(handle).st_nlink:
            os.utime(handle)
            return handle
        os.close(handle)  # another process removed the folder between the two calls


def _evict_one(own: Path) -> bool:
    """Remove the folder of another key that no process uses, the one unused for longest; False when there is none."""
    marks = {}
    for mark in own.parent.glob(f"*/{IN_USE}"):
        with contextlib.suppress(OSError):
            marks[mark] = mark.stat().st_mtime
    for mark in sorted(marks, key=marks.__getitem__):
        if mark.parent == own or len(mark.parent.name) != len(own.name):
            continue
        handle = os.open(mark, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(mark.parent)  # nothing of ours is stale while it stands: whoever opens it waits for the lock
            return True
        except OSError:  # in use, or gone
            continue
        finally:
            os.close(handle)
    return False
