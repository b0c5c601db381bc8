"""ShareGPT's chat format: `conversations` with from and value, an optional `system` text, and `tools`."""

from __future__ import annotations

from typing import Any, ClassVar

from tunewright.data.rows import ChatRow, Message
from tunewright.data.shapes import RowProblem, Shape, rest, text_at
from tunewright.data.shapes._messages import ROLES, checked_role, learned, messages_of, tools_of
from tunewright.data.sources import Record

_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
    **{role: role for role in ROLES},
}


class ShareGpt(Shape):
    """Conversations in ShareGPT's words (human, gpt). Lists in OpenAI's words under the same column are read as well."""

    title: ClassVar[str] = "conversations (ShareGPT)"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = (("conversations",),)
    optional: ClassVar[tuple[str, ...]] = ("system", "tools")

    def row(self, record: Record) -> ChatRow:
        used = self.used(record)
        value = record.value["conversations"]
        translated = [_translated(item, index) for index, item in enumerate(value)] if isinstance(value, list) else value
        messages = learned(messages_of(translated, "conversations"), "conversations")
        system = text_at(record, "system", optional=True)
        if system and messages[0].role != "system":
            messages = (Message(role="system", content=system), *messages)
        return ChatRow(
            messages=messages, tools=tools_of(record.value.get("tools")), where=record.where, metadata=rest(record, used)
        )


def _translated(item: Any, index: int) -> Any:
    if not isinstance(item, dict) or "role" in item:
        return item
    place = f"conversations[{index}]"
    if "value" not in item:
        raise RowProblem("missing_content", f"{place} has no 'value'")
    return {"role": checked_role(item.get("from"), place, _ROLES), "content": item["value"], "weight": item.get("weight")}
