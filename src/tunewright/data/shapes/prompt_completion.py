"""A prompt and its completion, under the names that files give them."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from tunewright.data.rows import ChatRow, PromptRow, Row
from tunewright.data.shapes import RowProblem, Shape, rest, text_at
from tunewright.data.shapes._messages import learned, messages_of, tools_of
from tunewright.data.sources import Record


class PromptCompletion(Shape):
    """Prompt and completion as texts, or both as lists of messages (TRL): only the completion's are learned then."""

    title: ClassVar[str] = "prompt and completion"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("prompt", "completion"),
        ("prompt", "response"),
        ("question", "answer"),
        ("input", "output"),
    )

    def row(self, record: Record) -> Row:
        used = self.used(record)
        prompt, completion = used[:2]
        if isinstance(record.value[prompt], list):
            return _conversation(record, used)
        return PromptRow(
            prompt=text_at(record, prompt),
            completion=text_at(record, completion),
            where=record.where,
            metadata=rest(record, used),
        )


def _conversation(record: Record, used: tuple[str, ...]) -> ChatRow:
    before = tuple(replace(message, weight=0.0) for message in messages_of(record.value[used[0]], used[0]))
    answer = learned(messages_of(record.value[used[1]], used[1]), used[1])
    if any(message.role in ("system", "developer") for message in answer):
        raise RowProblem("unknown_role", f"'{used[1]}' holds a system message; it belongs into '{used[0]}'")
    return ChatRow(
        messages=before + answer, tools=tools_of(record.value.get("tools")), where=record.where, metadata=rest(record, used)
    )
