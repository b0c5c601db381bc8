"""What a person answered, on the disk at once: a log of every answer, and beside it the pairs that a tuning reads.

The log says what holds; the file of pairs follows from it. An answer is written to the log first, so that a crash between the two
leaves a pair to be added, and opening the files again does that.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunewright.core.errors import ConfigurationError, RunFolderError, StorageError
from tunewright.core.storage import write_text
from tunewright.data.shapes._pairs import conversation
from tunewright.run.ranking import AGAIN, MIRRORED, Question, Ranking

UNDO = "undo"


class Journal:
    """The two files of a ranking; made by `opened`.

    Args:
        output: the pairs (.jsonl): prompt, chosen, rejected, where these come from and which one stood on the left.
        answers: what stands in the log, by id and in order.
        texts: whether prompts and answers are written as texts, else as messages; a file holds one kind only.
    """

    def __init__(self, output: Path, answers: Mapping[str, str], texts: bool) -> None:
        self.output, self.log = output, log_of(output)
        self.before, self.texts = dict(answers), texts

    def keep(self, question: Question, choice: str) -> None:
        """Write an answer, and, where one side is preferred, the pair.

        Raises:
            StorageError: it could not be written; what was written before stands.
        """
        line: dict[str, Any] = {"id": question.id, "answer": choice, "prompt": question.prompt}
        line |= {"tools": question.tools} if question.tools else {}
        line |= {side: getattr(question, side)._asdict() for side in ("left", "right")}
        _append(self.log, line)
        pair = _pair(line, self.texts)
        if pair is not None:
            _append(self.output, pair)

    def forget(self, question: Question) -> None:
        """Write that the answer to a question is taken back, and remove its pair. Raises `StorageError`."""
        _append(self.log, {"id": question.id, "answer": UNDO})
        _remove(self.output, question.id)

    def pairs(self) -> int:
        """How many pairs stand in the file, those of others too."""
        return len(_lines(self.output))


class Sitting:
    """A person at work: what is answered is written first, and stands then."""

    def __init__(self, ranking: Ranking, journal: Journal, notes: tuple[str, ...] = ()) -> None:
        self.ranking, self.journal, self.notes = ranking, journal, notes

    def give(self, name: str, choice: str) -> bool:
        """Answer the question that waits; False when `name` is the id of another one, which was answered before."""
        question = self.ranking.current
        if question is None or question.id != name:
            return False
        self.journal.keep(question, choice)
        self.ranking.give(choice)
        return True

    def take_back(self) -> bool:
        """Take the last answer back; False when there is none."""
        question = self.ranking.last()
        if question is not None:
            self.journal.forget(question)
            self.ranking.take_back()
        return question is not None


def log_of(output: Path) -> Path:
    """Where the log of a file of pairs stands."""
    return output.with_suffix(".log.jsonl")


@contextmanager
def opened(output: Path, questions: Sequence[Question]) -> Iterator[Journal]:
    """The journal of a file of pairs, new or with what stands in it, held for this process.

    Args:
        output: the file; what stands in it stays.
        questions: what is asked.

    Raises:
        ConfigurationError: not .jsonl, no such folder, or a file that holds something else than pairs, or pairs of texts while
            conversations are asked about.
        RunFolderError: another process writes to it.
        StorageError: it cannot be written or read, or the log is damaged.
    """
    if output.suffix != ".jsonl":
        raise ConfigurationError("pairs are written as JSON Lines", where=str(output), allowed=(".jsonl",))
    if not output.parent.is_dir():
        raise ConfigurationError("there is no such folder", where=str(output.parent), hint="Make it first.")
    log = log_of(output)
    _require_pairs(output, mended=log.is_file())
    texts = _as_texts(output, questions)
    began = not log.exists()
    try:
        handle = os.open(log, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(f"could not be written ({error.strerror})", where=str(log), hint="Choose another --output.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "Close it first, or choose another --output."
            raise RunFolderError("another ranking writes to it", where=str(output), hint=hint) from None
        yield Journal(output, _restored(output, log, texts), texts)
    finally:
        if began and not log.stat().st_size:
            log.unlink()  # nothing was answered
        os.close(handle)


def _require_pairs(output: Path, mended: bool) -> None:
    """Refuse to append to what is no file of pairs; a last line that a crash of ours has cut is mended later."""
    lines = _lines(output)
    for number, line in enumerate(lines, start=1):
        value = _parsed(line)
        cut = mended and number == len(lines) and value is None
        if not cut and not {"chosen", "rejected"} <= set(value or ()):
            problem = "holds rows that are no pairs, and nothing is added to it"
            raise ConfigurationError(problem, where=f"{output}:{number}", hint="Choose another --output.")


def _as_texts(output: Path, questions: Sequence[Question]) -> bool:
    """Whether pairs are texts: as those in the file are, or, in a new one, where no prompt is a conversation."""
    plain = all(isinstance(one.prompt, str) for one in questions)
    first = next((value for line in _lines(output) if (value := _parsed(line)) is not None), None)
    if first is None:
        return plain
    texts = isinstance(first["chosen"], str)
    if texts and not plain:
        problem = "holds pairs of texts, and these prompts are conversations; a file holds one kind only"
        raise ConfigurationError(problem, where=str(output), hint="Choose another --output.")
    return texts


def _restored(output: Path, log: Path, texts: bool) -> dict[str, str]:
    """What the log says, after a crash between or within two writes is mended."""
    events = [_parsed(line) for line in _mended(log)]
    answers: dict[str, str] = {}
    for number, event in enumerate(events, start=1):
        if event is None or not {"id", "answer"} <= set(event):
            hint = "Remove the line, or choose another --output."
            raise StorageError("is damaged: it is no answer", where=f"{log}:{number}", hint=hint)
        answers.pop(event["id"], None)
        if event["answer"] != UNDO:
            answers[event["id"]] = event["answer"]
    there = [_parsed(line) for line in _mended(output)]
    last = next(reversed(events), None)
    if last is not None and last["answer"] == UNDO:
        _remove(output, last["id"])
    elif (
        last is not None and (pair := _pair(last, texts)) is not None and all((one or {}).get("id") != last["id"] for one in there)
    ):
        _append(output, pair)
    return answers


def _pair(line: Mapping[str, Any], texts: bool) -> dict[str, Any] | None:
    """The pair of a line of the log: none of a tie, of what was skipped, or of a repetition."""
    if line["answer"] not in MIRRORED or line["id"].endswith(AGAIN):
        return None
    chosen, rejected = line[line["answer"]], line[MIRRORED[line["answer"]]]
    told: dict[str, Any] = {"prompt": line["prompt"], "chosen": chosen["text"], "rejected": rejected["text"]}
    if not texts:
        told |= {side: [{"role": "assistant", "content": told[side]}] for side in ("chosen", "rejected")}
    if not texts and isinstance(told["prompt"], str):
        told["prompt"] = [{"role": one.role, "content": one.content} for one in conversation(told["prompt"])]
    told |= {"tools": line["tools"]} if "tools" in line else {}
    told |= {"chosen_source": chosen["source"], "rejected_source": rejected["source"]}
    return told | {"left": "chosen" if line["answer"] == "left" else "rejected", "id": line["id"]}


def _lines(path: Path) -> list[str]:
    """The lines of a file that are not empty; none where there is no file."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StorageError(f"could not be read ({reason})", where=str(path)) from error
    return [line for line in text.split("\n") if line.strip()]


def _mended(path: Path) -> list[str]:
    """The lines of a file of ours, after a last one that was cut has been taken off."""
    lines = _lines(path)
    if not lines or _parsed(lines[-1]) is not None:
        return lines
    # In place: a log that is exchanged for another would leave this process with a lock on the old one.
    os.truncate(path, path.read_bytes().rstrip().rfind(b"\n") + 1)
    return lines[:-1]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _append(path: Path, value: Mapping[str, Any]) -> None:
    """Add a line, and see that it is on the disk."""
    try:
        with path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
            glue = b"" if not end or file.read(1) == b"\n" else b"\n"
            file.write(glue + json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        hint = "Free space; everything answered before is kept."
        raise StorageError(f"could not be written ({error.strerror})", where=str(path), hint=hint) from error


def _remove(path: Path, name: str) -> None:
    lines = _lines(path)
    kept = [line for line in lines if (_parsed(line) or {}).get("id") != name]
    if len(kept) < len(lines):
        write_text(path, "".join(f"{line}\n" for line in kept))
