"""What a person compares: prompts with two or more answers each, from a file, from a run (base against tuned) or from two runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tunewright.core.errors import DataError, RunFolderError
from tunewright.core.runs import RunFolder
from tunewright.data.rows import ChatRow, Message, PreferenceRow, Row
from tunewright.data.shapes import RowProblem, _columns
from tunewright.data.shapes._messages import messages_of, tools_of
from tunewright.data.sources import Note, Problem, Record, records
from tunewright.data.stored import read_rows

LISTS = ("responses", "answers", "completions")
BESIDE = (("base", "tuned"),)
ALONE = ("tuned", "answer", "response", "completion", "output")
TEXTS = ("text", "response", "answer", "content")  # of an answer that is an object
NAMES = ("source", "model")

Prompt = str | list[dict[str, Any]]
"""As files hold it: a text, or a conversation so far."""


class Answer(NamedTuple):
    """One answer, and who gave it."""

    text: str
    source: str


class Asked(NamedTuple):
    """A prompt with its answers; `tools` where a chat template needs them."""

    prompt: Prompt
    answers: tuple[Answer, ...]
    tools: tuple[dict[str, Any], ...] = ()


class Candidates(NamedTuple):
    """What there is to compare, and what should be known of it, as sentences."""

    asked: tuple[Asked, ...]
    notes: tuple[str, ...] = ()


class _Place(NamedTuple):
    """One file or run: how it is called, the file that is read, and, of a run, the rows as it kept them."""

    name: str
    file: Path
    rows: Sequence[Row]


def read_candidates(first: Path, second: Path | None = None, columns: Sequence[str] = ()) -> Candidates:
    """The answers at one place, or those of two places to the same prompts.

    Args:
        first: a file whose rows have a prompt (`prompt` or `messages`) and several answers, or a run: its base against itself.
        second: another run or file of predictions; of both, the answers to the same prompts are compared.
        columns: those that hold the answers. Of one place: two or more, or one with lists. Of two: one for both, or one for each.
            Where none is given: a list (`responses`, `answers` or `completions`), or `base` and `tuned`; of two places `tuned`,
            `answer`, `response`, `completion` or `output`.

    Raises:
        DataError: a file cannot be read, has no such columns, or two places answer no prompt in common.
        RunFolderError: a run has no predictions.
    """
    if second is None:
        place = _place(first)
        there, bad = _rows(place, tuple(columns))
        return Candidates(tuple(there), _bad_note(bad))
    places = (_place(first), _place(second))
    names = _names(places, (first, second))
    given = [(columns[min(index, len(columns) - 1)],) if columns else () for index in range(2)]
    if len(columns) > 2:
        raise DataError(f"{len(columns)} columns of answers for two places", where="--answers", hint="Name one, or one for each.")
    found, notes = [], []
    for place, name, column in zip(places, names, given, strict=True):
        there, bad = _rows(place, column, alone=name)
        found.append(_by_prompt(there))
        notes += _bad_note(bad)
    both = [key for key in found[0] if key in found[1]]
    if not both:
        hint = "Compare runs that were tested on the same rows."
        raise DataError("answers no prompt that the first one answers", where=str(second), hint=hint)
    for name, rows in zip(names, found, strict=True):
        if len(rows) > len(both):
            notes.append(f"{len(rows) - len(both):,} of {len(rows):,} prompts are answered by {name} only and left out")
    return Candidates(tuple(_together(found[0][key], found[1][key]) for key in both), tuple(notes))


def _together(one: Asked, other: Asked) -> Asked:
    """Both answers, under the prompt that is a conversation where one of them is: files of predictions hold it as a text."""
    told = one if isinstance(other.prompt, str) else other
    return told._replace(answers=one.answers + other.answers)


def prompt_text(prompt: Prompt) -> str:
    """A prompt as one text, the turns of a conversation with their roles."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{one['role']}: {one['content']}" for one in prompt)


def _place(path: Path) -> _Place:
    folder = RunFolder(path)
    if not folder.is_run:
        if path.is_dir():
            hint = "Name a run, or a file with prompts and answers."
            raise RunFolderError("is not a run folder (it has no run.yaml)", where=str(path), hint=hint)
        return _Place(path.stem, path, ())
    file = folder.predictions / "test.jsonl"
    if not file.is_file():
        hint = f"Let it go through first: tunewright resume {path}"
        raise RunFolderError("the run has no predictions to compare", where=str(path), hint=hint)
    kept = folder.data / "test.jsonl"
    return _Place(path.resolve().name, file, read_rows(kept) if kept.is_file() else ())


def _names(places: Sequence[_Place], paths: Sequence[Path]) -> list[str]:
    names = [place.name for place in places]
    if names[0] != names[1]:
        return names
    return [str(path) for path in paths] if paths[0] != paths[1] else [f"{paths[0]} (first)", f"{paths[1]} (second)"]


def _rows(place: _Place, columns: tuple[str, ...], alone: str = "") -> tuple[list[Asked], list[Problem]]:
    """The rows of a place, and those that cannot be used. `alone` names the one source, where each row has one answer."""
    found, bad = [], []
    used = columns
    for number, item in enumerate(one for one in records(place.file) if not isinstance(one, Note)):
        if isinstance(item, Problem):
            bad.append(item)
            continue
        used = used or _detected(item, bool(alone))
        kept = place.rows[number] if number < len(place.rows) else None
        try:
            prompt, tools = _prompt(item, kept)
            answers = tuple(_answers(item.value, used, alone))
        except RowProblem as error:
            bad.append(Problem(item.where, error.kind, str(error)))
            continue
        found.append(Asked(prompt, answers, tools))
    if not found:
        raise DataError(f"has no row that can be compared: {bad[0].message}", where=bad[0].where)
    return found, bad


def _detected(record: Record, alone: bool) -> tuple[str, ...]:
    value = record.value
    ways = [(name,) for name in ALONE] if alone else [(name,) for name in LISTS if isinstance(value.get(name), list)]
    ways += [] if alone else list(BESIDE)
    for way in ways:
        if all(name in value for name in way):
            return way
    shown = ", ".join(value) or "none"
    wanted = ALONE if alone else (*LISTS, *(" + ".join(way) for way in BESIDE))
    hint = "Name the columns that hold the answers: --answers COLUMN" + ("" if alone else " --answers OTHER")
    raise DataError(f"no column holds answers that can be compared; found: {shown}", where=record.where, allowed=wanted, hint=hint)


def _prompt(record: Record, kept: Row | None) -> tuple[Prompt, tuple[dict[str, Any], ...]]:
    value = record.value
    if kept is not None and kept.where == value.get("where"):
        if isinstance(kept, ChatRow | PreferenceRow):
            return [_message(one) for one in _before_the_answer(kept)], kept.tools
        return kept.input_text(), ()
    prompt = value.get("prompt", value.get("messages"))
    if isinstance(prompt, str):
        return prompt, tools_of(value.get("tools"))
    if isinstance(prompt, list):
        return [_message(one) for one in messages_of(prompt, "prompt" if "prompt" in value else "messages")], tools_of(
            value.get("tools")
        )
    if prompt is None:
        raise RowProblem("no_prompt", f"there is no 'prompt' and no 'messages' (it has {', '.join(value) or 'none'})")
    raise RowProblem("wrong_type", f"'prompt' must be text or a list of messages, it is {_columns.described(prompt)}")


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": message.content, **message.extra}


def _before_the_answer(row: ChatRow | PreferenceRow) -> Sequence[Message]:
    if isinstance(row, PreferenceRow):
        return row.messages
    last = max((place for place, one in enumerate(row.messages) if one.role == "assistant"), default=len(row.messages))
    return row.messages[:last]


def _answers(value: Mapping[str, Any], columns: Sequence[str], alone: str) -> Iterator[Answer]:
    missing = [name for name in columns if name not in value]
    if missing:
        raise RowProblem("missing_column", f"the column '{missing[0]}' is missing (it has {', '.join(value) or 'none'})")
    if alone:
        yield _answer(value[columns[0]], columns[0], alone)
    elif len(columns) == 1:
        many = value[columns[0]]
        if not isinstance(many, list) or len(many) < 2:
            what = f"a list of {len(many)}" if isinstance(many, list) else _columns.described(many)
            raise RowProblem("one_answer", f"'{columns[0]}' must be a list of two answers or more, it is {what}")
        for place, one in enumerate(many):
            yield _answer(one, f"{columns[0]}[{place}]", f"answer {place + 1}")
    else:
        yield from (_answer(value[name], name, name) for name in columns)


def _answer(value: Any, place: str, source: str) -> Answer:
    if isinstance(value, dict):
        source = next((value[name] for name in NAMES if isinstance(value.get(name), str)), source)
        value = next((value[name] for name in TEXTS if name in value), None)
    if not isinstance(value, str):
        kind = "null" if value is None else "not_text"
        raise RowProblem(kind, f"'{place}' must be text, it is {_columns.described(value)}")
    return Answer(value, source)


def _by_prompt(rows: Sequence[Asked]) -> dict[tuple[str, int], Asked]:
    """Rows by their prompt; one that stands several times is counted through, as it is on the other side."""
    seen: Counter[str] = Counter()
    found = {}
    for row in rows:
        text = prompt_text(row.prompt)
        found[text, seen[text]] = row
        seen[text] += 1
    return found


def _bad_note(bad: Sequence[Problem]) -> tuple[str, ...]:
    if not bad:
        return ()
    return (f"{len(bad):,} rows cannot be compared and are left out; the first, {bad[0].where}: {bad[0].message}",)
