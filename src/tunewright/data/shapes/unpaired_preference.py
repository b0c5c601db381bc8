"""Single answers that somebody found desirable or not, as TRL has them: prompt, completion, label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tunewright.data.rows import JudgedRow
from tunewright.data.shapes import RowProblem, Shape, _columns, rest, text_at
from tunewright.data.shapes._messages import messages_of, tools_of
from tunewright.data.shapes._pairs import answer_of, prompt_of
from tunewright.data.sources import Record

_PROMPTS = ("prompt", "question", "instruction")
_COMPLETIONS = ("completion", "response", "answer", "output")
_LABELS = ("label", "desirable", "thumbs_up", "kto_tag")
_WORDS = {"true": True, "false": False}
_DIGITS = {"1": True, "0": False}


class UnpairedPreference(Shape):
    """A prompt, one answer, and true or false: thumbs up or down.

    The prompt is a text or a list of messages; `messages` may also hold the conversation with its last answer. A label is a
    truth value, or the word "true" or "false" as tables have it; 1 and 0 are taken where the shape was asked for.

    Source: https://huggingface.co/docs/trl/dataset_formats#unpaired-preference
    """

    title: ClassVar[str] = "judged answers (TRL's unpaired preference)"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = (
        *((prompt, answer, label) for label in _LABELS for answer in _COMPLETIONS for prompt in (*_PROMPTS, "messages")),
        *(("messages", label) for label in _LABELS),
    )
    optional: ClassVar[tuple[str, ...]] = ("tools",)
    suggested: ClassVar[bool] = False

    def matches(self, record: Mapping[str, Any]) -> bool:
        # A column "label" may as well name a class of the example; only what is true or false judges it.
        found = self.uses(record)
        return any(_judges(record[name]) for name in found if name in _LABELS)

    def row(self, record: Record) -> JudgedRow:
        used = self.used(record)
        label = next(name for name in used if name in _LABELS)
        if used[1] in _COMPLETIONS:
            if record.value[used[0]] is None:
                raise RowProblem("null", f"'{used[0]}' is null")
            messages, completion = prompt_of(record.value[used[0]], used[0]), _answer(record, used[1])
        else:
            spoken = messages_of(record.value["messages"], "messages")
            messages, completion = spoken[:-1], answer_of(spoken[-1:], "messages")
            if not messages:
                raise RowProblem("no_prompt", "'messages' holds an answer only")
        return JudgedRow(
            messages=messages,
            completion=completion,
            label=_truth(record.value[label], label),
            tools=tools_of(record.value.get("tools")),
            where=record.where,
            metadata=rest(record, used),
        )


def _answer(record: Record, key: str) -> str:
    value = record.value[key]
    return answer_of(messages_of(value, key), key) if isinstance(value, list) else text_at(record, key)


def _judges(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _WORDS)


def _truth(value: Any, key: str) -> bool:
    if isinstance(value, bool):
        return value
    if value is None:
        raise RowProblem("null", f"'{key}' is null")
    found = (_WORDS | _DIGITS).get(str(value).strip().lower()) if isinstance(value, str | int) else None
    if found is None:
        shown = f"the text '{value[:40]}'" if isinstance(value, str) else _columns.described(value)
        raise RowProblem("wrong_type", f"'{key}' must be true or false, it is {shown}")
    return found
