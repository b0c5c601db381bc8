"""OpenAI's chat format: `messages` with role, content and an optional weight, and `tools`."""

from __future__ import annotations

from typing import ClassVar

from tunewright.data.rows import ChatRow
from tunewright.data.shapes import Shape, rest
from tunewright.data.shapes._messages import learned, messages_of, tools_of
from tunewright.data.sources import Record


class Chat(Shape):
    """Conversations whose assistant messages are learned (those with weight 0 are only read).

    Source: https://platform.openai.com/docs/guides/supervised-fine-tuning
    """

    title: ClassVar[str] = "chat messages (OpenAI)"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = (("messages",),)
    optional: ClassVar[tuple[str, ...]] = ("tools",)

    def row(self, record: Record) -> ChatRow:
        used = self.used(record)
        messages = learned(messages_of(record.value["messages"], "messages"), "messages")
        return ChatRow(
            messages=messages, tools=tools_of(record.value.get("tools")), where=record.where, metadata=rest(record, used)
        )
