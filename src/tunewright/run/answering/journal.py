"""A file of answers while it is being written: each is on the disk before the next one counts, and nothing is asked twice."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tunewright.core.errors import ConfigurationError, StorageError

Place = tuple[int, int]
"""The number of a question in its file, and which of its answers."""


class Said(NamedTuple):
    """What a teacher said to one question.

    Args:
        text: the answer, or the likeliest label.
        finished: it ended by itself, and not because it grew too long.
        distribution: the probability of each label, where labels were asked for.
        why: why there is no answer, as a word that can be counted and a sentence; else None.
    """

    text: str = ""
    finished: bool = True
    distribution: Mapping[str, float] | None = None
    why: tuple[str, str] | None = None


class Journal:
    """The answers so far, in a file beside the one that is to be: its first line says what was asked, each other is an answer.

    Answers that failed are not kept: whoever goes on asks for them again.

    Args:
        out: the file that is to be.
        asked: everything that the answers depend on, as plain values.

    Raises:
        ConfigurationError: the file was begun with another request; it is left as it is.
        StorageError: it cannot be read or written.
    """

    def __init__(self, out: Path, asked: Mapping[str, Any]) -> None:
        self.path = out.with_name(out.name + ".part")
        self.done: dict[Place, Said] = {}
        asked = json.loads(json.dumps(asked))
        try:
            end = self._read(asked) if self.path.is_file() else 0
            self._file = self.path.open("r+b" if end else "wb")
            self._file.seek(end)
            self._file.truncate()  # a line that was cut off
            if not end:
                self._write({"asked": asked})
        except OSError as error:
            raise _failed(self.path, error) from None
        self.resumed = len(self.done)

    def _read(self, asked: Mapping[str, Any]) -> int:
        """Take over what is there; returns where it ends."""
        end, before = 0, dict(asked)
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1]):
            try:
                value = json.loads(line)
                if number:
                    place, text, finished, distribution = value
                    self.done[place[0], place[1]] = Said(text, finished, distribution)
                else:
                    before = dict(value["asked"])
            except (ValueError, TypeError, KeyError, IndexError):
                problem = f"line {number + 1} is damaged"
                raise ConfigurationError(problem, where=str(self.path), hint="Remove the file to begin anew.") from None
            end += len(line) + 1
        self._require_same(before, asked)
        return end

    def _require_same(self, before: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        for name in asked.keys() | before.keys():
            if before.get(name) != asked.get(name):
                problem = (
                    f"was begun with another request ({name} was {_short(before.get(name))}, now it is {_short(asked.get(name))})"
                )
                hint = "Ask for the same to go on, remove the file to begin anew, or write elsewhere."
                raise ConfigurationError(problem, where=str(self.path), hint=hint)

    def add(self, place: Place, said: Said) -> None:
        """Keep an answer; one that failed is not kept.

        Raises:
            StorageError: the disk is full.
        """
        if said.why is None and place not in self.done:
            self._write([place, said.text, said.finished, said.distribution])
            self.done[place] = said

    def _write(self, value: Any) -> None:
        try:
            self._file.write(json.dumps(value, ensure_ascii=True).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _failed(self.path, error) from None

    def close(self, *, finished: bool) -> None:
        """Let go of the file; what is `finished` stands elsewhere by now, and the journal goes."""
        with suppress(OSError):
            self._file.close()
        if finished:
            self.path.unlink(missing_ok=True)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else text[:57] + "..."


def _failed(path: Path, error: OSError) -> StorageError:
    return StorageError(f"could not be written ({error.strerror})", where=str(path), hint="Free space or choose another place.")
