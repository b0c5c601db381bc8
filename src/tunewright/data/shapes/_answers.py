"""What rankings and ratings share: where the prompt stands, and a list of answers that each say nothing about the others.

An answer is a text, a list of one assistant message, or an object with its text and, where it has one, its place or its number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tunewright.data.rows import Message
from tunewright.data.shapes import RowProblem, _columns
from tunewright.data.shapes._messages import messages_of
from tunewright.data.shapes._pairs import answer_of, prompt_of
from tunewright.data.sources import Record
from tunewright.data.sources._json import BadJson, parse

PROMPTS = ("prompt", "messages")
ASKED = (*PROMPTS, "question", "instruction")  # a question beside a bare list of answers has accepted answers, and no ranking
ANSWERS = ("answers", "responses", "completions")
_TEXTS = ("text", "answer", "response", "completion", "content")


class Given(NamedTuple):
    """The answers of a record, in its order.

    Args:
        texts: the answers.
        numbers: their places or numbers as the record holds them; None where each answer stands alone.
        column: the column of the numbers, for messages.
    """

    texts: tuple[str, ...]
    numbers: tuple[Any, ...] | None
    column: str


def keys_of(numbers: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The alternatives of a shape: every column of a prompt, of answers and of what is said about them."""
    return tuple((prompt, answers, column) for column in numbers for answers in ANSWERS for prompt in ASKED)


def listed(value: Any) -> bool:
    """Whether a column could hold several answers: a list, or one as JSON text (a table)."""
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip()[:1] == "[")


def inside(value: Any, names: Sequence[str]) -> bool:
    """Whether a column holds a list of objects that each say one of `names` of their answer."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and _named(one, names) for one in value)


def prompt_at(record: Record, key: str) -> tuple[Message, ...]:
    """The conversation up to and without the answers."""
    if record.value[key] is None:
        raise RowProblem("null", f"'{key}' is null")
    messages = prompt_of(record.value[key], key)
    if messages[-1].role == "assistant":
        raise RowProblem("answered", f"'{key}' ends with an answer; the answers to compare stand beside it")
    return messages


def answers_at(record: Record, used: Sequence[str], names: Sequence[str]) -> Given:
    """The answers of a record and what is said about each, in its own column or inside the answers.

    Args:
        used: the columns of prompt, answers and, where there is one, of what is said.
        names: what this is called where it stands inside.

    Raises:
        RowProblem: no list, not two answers, an answer that is empty or no text, two that are the same, not one number for each.
    """
    column = used[1]
    value = _list(record.value[column], column)
    texts = tuple(_text(one, f"{column}[{place}]") for place, one in enumerate(value))
    if len(texts) < 2:
        held = "no answer" if not texts else "one answer"
        raise RowProblem("one_answer", f"'{column}' holds {held}; at least two can be compared")
    _all_different(texts, column)
    said = used[2] if len(used) > 2 else None
    if said is None:
        found = [_named(one, names) if isinstance(one, dict) else None for one in value]
        return Given(texts, tuple(one[name] for one, name in zip(value, found, strict=True) if name) or None, column)
    numbers = _list(record.value[said], said)
    if len(numbers) != len(texts):
        raise RowProblem("uneven", f"'{column}' holds {len(texts)} answers and '{said}' {len(numbers)} numbers for them")
    return Given(texts, tuple(numbers), said)


def number(value: Any, column: str) -> float:
    """A finite number. Raises `RowProblem` for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise RowProblem("wrong_type", f"'{column}' must hold numbers, one is the text '{value[:40]}'") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowProblem("wrong_type", f"'{column}' must hold numbers, one is {_columns.described(value)}")
    if not math.isfinite(value):
        raise RowProblem("non_finite_number", f"'{column}' holds {value}, not a finite number")
    return float(value)


def _list(value: Any, column: str) -> list[Any]:
    if value is None:
        raise RowProblem("null", f"'{column}' is null")
    if isinstance(value, str):
        try:
            value = parse(value)
        except BadJson:
            raise RowProblem("wrong_type", f"'{column}' must be a list, it is text that is no JSON list") from None
    if not isinstance(value, list):
        raise RowProblem("wrong_type", f"'{column}' must be a list, it is {_columns.described(value)}")
    return value


def _text(value: Any, place: str) -> str:
    if isinstance(value, list):
        value = answer_of(messages_of(value, place), place)
    elif isinstance(value, dict):
        name = _named(value, _TEXTS)
        value = value[name] if name else value
    if value is None:
        raise RowProblem("null", f"{place} is null")
    if not isinstance(value, str):
        raise RowProblem("wrong_type", f"{place} must be text, it is {_columns.described(value)}")
    if not value.strip():
        raise RowProblem("empty_answer", f"{place} is empty")
    return value


def _named(value: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if name in value), "")


def _all_different(texts: Sequence[str], column: str) -> None:
    first: dict[str, int] = {}
    for place, text in enumerate(texts):
        before = first.setdefault(text.strip(), place)
        if before != place:
            raise RowProblem("same_answers", f"{column}[{before}] and {column}[{place}] are the same answer")
