"""OpenAI's preference format: `input` (messages and tools), `preferred_output`, `non_preferred_output`."""

from __future__ import annotations

from typing import ClassVar

from tunewright.data.rows import PreferenceRow
from tunewright.data.shapes import RowProblem, Shape, _columns, rest
from tunewright.data.shapes._messages import messages_of, tools_of
from tunewright.data.shapes._pairs import answer_of, different
from tunewright.data.sources import Record


class OpenAiPreference(Shape):
    """A conversation with a preferred and a rejected assistant message.

    Source: https://platform.openai.com/docs/guides/direct-preference-optimization
    """

    title: ClassVar[str] = "preference pairs (OpenAI)"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = (("input", "preferred_output", "non_preferred_output"),)

    def row(self, record: Record) -> PreferenceRow:
        used = self.used(record)
        given = record.value["input"]
        if not isinstance(given, dict) or "messages" not in given:
            raise RowProblem("wrong_type", f"'input' must be an object with 'messages', it is {_columns.described(given)}")
        chosen, rejected = (answer_of(messages_of(record.value[key], key), key) for key in used[1:])
        different(chosen, rejected)
        return PreferenceRow(
            messages=messages_of(given["messages"], "input.messages"),
            chosen=chosen,
            rejected=rejected,
            tools=tools_of(given.get("tools"), "input.tools"),
            where=record.where,
            metadata=rest(record, used),
        )
