"""Lists of messages, as every chat format holds them in its own words, checked and turned into `Message` values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunewright.core.errors import nearest
from tunewright.data.rows import Message
from tunewright.data.shapes import RowProblem, _columns

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
KEPT = ("name", "tool_calls", "tool_call_id", "function_call", "reasoning_content", "thinking", "refusal")


def messages_of(value: Any, column: str) -> tuple[Message, ...]:
    """The messages in a column: a list of objects with `role` and `content`.

    Raises:
        RowProblem: not a list, empty, a message without role or content, an unknown role, content that is not text.
    """
    if value is None:
        raise RowProblem("null", f"'{column}' is null")
    if not isinstance(value, list):
        raise RowProblem("wrong_type", f"'{column}' must be a list of messages, it is {_columns.described(value)}")
    if not value:
        raise RowProblem("no_messages", f"'{column}' is an empty list")
    return tuple(_message(item, f"{column}[{index}]") for index, item in enumerate(value))


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, dict):
        raise RowProblem("wrong_type", f"{place} must be an object with role and content, it is {_columns.described(value)}")
    role = checked_role(value.get("role"), place)
    # Columnar files give every message every field, mostly null: only what holds something is kept.
    extra = {key: value[key] for key in KEPT if value.get(key) not in (None, [], "")}
    calls = role == "assistant" and ("tool_calls" in extra or "function_call" in extra)
    if "content" not in value and not calls:
        raise RowProblem("missing_content", f"{place} has no 'content'")
    content = _content(value.get("content"), f"{place}.content", optional=calls)
    return Message(role=role, content=content, weight=_weight(value.get("weight"), place), extra=extra)


def checked_role(role: Any, place: str, names: Mapping[str, str] | None = None) -> str:
    """A role in our words; `names` translates those of another format. Raises `RowProblem` naming the nearest known one."""
    known = dict(names) if names is not None else {name: name for name in ROLES}
    if isinstance(role, str) and role in known:
        return known[role]
    if role is None:
        raise RowProblem("unknown_role", f"{place} has no role")
    near = nearest(str(role), known)
    meant = f"; did you mean '{near}'?" if near else ""
    raise RowProblem("unknown_role", f"{place} has the unknown role '{role}'{meant} (known: {', '.join(known)})")


def _content(value: Any, place: str, optional: bool) -> str:
    if isinstance(value, str):
        return value
    if value is None and optional:
        return ""
    if value is None:
        raise RowProblem("null", f"{place} is null")
    if not isinstance(value, list):
        raise RowProblem("wrong_type", f"{place} must be text, it is {_columns.described(value)}")
    parts = []
    for part in value:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type", "an object") if isinstance(part, dict) else _columns.described(part)
            raise RowProblem("not_text", f"{place} holds a part that is not text ({kind})")
        parts.append(part["text"])
    return "\n".join(parts)


def _weight(value: Any, place: str) -> float:
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RowProblem(
            "wrong_weight", f"{place}.weight must be from 0 (only read) to 1 (learned), it is {_columns.described(value)}"
        )
    return float(value)


def learned(messages: tuple[Message, ...], column: str) -> tuple[Message, ...]:
    """`messages`, once it is sure that there is something to learn in them. Raises `RowProblem` otherwise."""
    answers = [message for message in messages if message.role == "assistant"]
    if not answers:
        raise RowProblem("no_answer", f"'{column}' has no assistant message, so there is nothing to learn")
    if not any(message.weight > 0 for message in answers):
        raise RowProblem("nothing_to_learn", f"every assistant message in '{column}' has weight 0")
    return messages


def tools_of(value: Any, column: str = "tools") -> tuple[dict[str, Any], ...]:
    """The tools of a conversation: a list of objects, or that list as JSON text (columnar files cannot hold it otherwise)."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError:
            raise RowProblem("wrong_type", f"'{column}' is text that is not JSON") from None
    if not value:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowProblem("wrong_type", f"'{column}' must be a list of objects, it is {_columns.described(value)}")
    return tuple(value)
