"""A question, a text that holds its answer, and where the answer stands in it (SQuAD)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tunewright.data.rows import QuestionRow
from tunewright.data.shapes import RowProblem, Shape, _columns, rest, text_at
from tunewright.data.sources import Record

SHOWN = 40  # characters of an answer, in a message


class QuestionContext(Shape):
    """Extractive question answering: every answer stands in the context, letter for letter, at the offset that is given.

    Answers as SQuAD's files have them (`[{"text": ..., "answer_start": ...}]`), as `datasets` has them (`{"text": [...],
    "answer_start": [...]}`), or flat (`answer` or `answers` beside `answer_start`). No answer at all: the context does not answer
    the question. An answer that does not stand at its offset makes the row unusable, with the reason.

    Source: Rajpurkar et al. 2016, "SQuAD", arXiv 1606.05250; Rajpurkar et al. 2018, arXiv 1806.03822 (unanswerable questions).
    """

    title: ClassVar[str] = "question, context and answers"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("question", "context", "answers", "answer_start"),
        ("question", "context", "answer", "answer_start"),
        ("question", "context", "answers"),
    )

    def matches(self, record: Mapping[str, Any]) -> bool:
        # Answers as bare texts, without a place, are something to write and not to find.
        found = self.uses(record)
        return len(found) == 4 or (bool(found) and _with_places(record["answers"]))

    def row(self, record: Record) -> QuestionRow:
        used = self.used(record)
        context = text_at(record, "context")
        answers, starts = _given(record, used)
        for answer, start in zip(answers, starts, strict=True):
            _stands_there(context, answer, start)
        return QuestionRow(
            question=text_at(record, "question"),
            context=context,
            answers=tuple(answers),
            starts=tuple(starts),
            where=record.where,
            metadata=rest(record, used),
        )


def _with_places(value: Any) -> bool:
    if isinstance(value, dict):
        return "text" in value and "answer_start" in value
    return isinstance(value, list) and all(isinstance(one, dict) and {"text", "answer_start"} <= set(one) for one in value)


def _given(record: Record, used: tuple[str, ...]) -> tuple[list[str], list[int]]:
    value = record.value[used[2]]
    if value is None:
        raise RowProblem("null", f"'{used[2]}' is null; a question without an answer has an empty list")
    if len(used) == 3 and not _with_places(value):
        hint = "texts with their places in the context (`text`, `answer_start`)"
        raise RowProblem("wrong_type", f"'{used[2]}' must hold {hint}, it is {_columns.described(value)}")
    if len(used) == 4:
        texts, starts = _as_list(value), _whole(_as_list(record.value["answer_start"]))
    elif isinstance(value, dict):
        texts, starts = _as_list(value["text"]), _as_list(value["answer_start"])
    else:
        texts, starts = [one["text"] for one in value], [one["answer_start"] for one in value]
    if len(texts) != len(starts):
        raise RowProblem("uneven", f"there are {len(texts)} answers and {len(starts)} places for them")
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or isinstance(start, bool) or not isinstance(start, int):
            wrong = _columns.described(start if isinstance(text, str) else text)
            raise RowProblem("wrong_type", f"an answer must be a text with a whole number for its place, one is {wrong}")
    return texts, starts


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _whole(starts: list[Any]) -> list[Any]:
    """Places as numbers; a table holds them as text."""
    return [int(one) if isinstance(one, str) and one.strip().isdecimal() else one for one in starts]


def _stands_there(context: str, answer: str, start: int) -> None:
    if not answer.strip():
        raise RowProblem("empty_answer", "an answer is empty; a question without an answer has an empty list")
    if start >= 0 and context.startswith(answer, start):
        return
    shown = answer if len(answer) <= SHOWN else f"{answer[: SHOWN - 1]}…"
    found = context[start : start + len(shown)] if 0 <= start < len(context) else ""
    there = f"'{found}' does" if found else "the context ends before it"
    places = [place for place in range(len(context)) if context.startswith(answer, place)][:1]
    hint = f"; it stands at {places[0]}" if places else "; it stands nowhere in the context"
    raise RowProblem("answer_not_there", f"the answer '{shown}' does not stand at {start} of the context, {there}{hint}")
