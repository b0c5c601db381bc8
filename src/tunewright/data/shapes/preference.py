"""Preference pairs as TRL has them: prompt, chosen and rejected, as texts or as lists of messages; the prompt may stand inside."""

from __future__ import annotations

from typing import ClassVar

from tunewright.data.rows import Message, PreferenceRow
from tunewright.data.shapes import RowProblem, Shape, rest, text_at
from tunewright.data.shapes._messages import messages_of, tools_of
from tunewright.data.shapes._pairs import answer_of, conversation, different, prompt_of, shared_messages, shared_transcript
from tunewright.data.sources import Record


class Preference(Shape):
    """A prompt with a preferred and a rejected answer.

    A prompt that is text becomes one user message; a transcript ("Human: ... Assistant: ...") becomes its messages. Without a
    `prompt`, what both answers begin with is the prompt: the same messages, the same turns, or the same whole lines.

    Source: https://huggingface.co/docs/trl/dataset_formats#preference
    """

    title: ClassVar[str] = "preference pairs (TRL)"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
    optional: ClassVar[tuple[str, ...]] = ("tools",)

    def row(self, record: Record) -> PreferenceRow:
        used = self.used(record)
        value = record.value
        if isinstance(value["chosen"], list) != isinstance(value["rejected"], list):
            raise RowProblem("wrong_type", "of 'chosen' and 'rejected' one is a list of messages and the other is not")
        if "prompt" in used:
            messages = prompt_of(value["prompt"])
            chosen, rejected = (_answer(record, key, messages) for key in ("chosen", "rejected"))
        elif isinstance(value["chosen"], list):
            messages, chosen, rejected = shared_messages(value["chosen"], value["rejected"])
        else:
            prompt, chosen, rejected = shared_transcript(text_at(record, "chosen"), text_at(record, "rejected"))
            messages = conversation(prompt)
        different(chosen, rejected)
        return PreferenceRow(
            messages=messages,
            chosen=chosen,
            rejected=rejected,
            tools=tools_of(value.get("tools")),
            where=record.where,
            metadata=rest(record, used),
        )


def _answer(record: Record, key: str, prompt: tuple[Message, ...]) -> str:
    value = record.value[key]
    if not isinstance(value, list):
        return text_at(record, key)
    messages = messages_of(value, key)
    # Some files repeat the conversation in front of each answer.
    spoken = [(message.role, message.content) for message in messages[:-1] if message.role != "system"]
    if spoken and spoken != [(message.role, message.content) for message in prompt if message.role != "system"]:
        raise RowProblem("different_prompts", f"'{key}' begins with another conversation than 'prompt'")
    return answer_of(messages[-1:], key)
