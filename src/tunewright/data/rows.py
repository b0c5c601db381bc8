"""The rows: what a user's file holds, validated. Every row knows the file and line it came from."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a chat.

    `weight` 0 keeps an assistant message in the context without training on it (OpenAI's field); `extra` keeps what templates
    may use (`tool_calls`, `tool_call_id`, `name`) untouched.
    """

    role: str
    content: str
    weight: float = 1.0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row(ABC):
    """The abstract row; use a subclass.

    Args:
        where: "file:line" (or "file:row n" for tables), for messages and the ledger.
        group: the value of the grouping key; rows of one group stay on one side of a split.
        weight: how much the row counts in the loss.
        metadata: columns that were kept but are not trained on.
    """

    where: str = ""
    group: str | None = None
    weight: float = 1.0
    metadata: dict[str, Any] = field(default_factory=dict)
    shape: ClassVar[str] = "row"

    def content(self) -> dict[str, Any]:
        """The row without its origin: what makes two rows the same row."""
        origin = ("where", "group", "metadata")
        return {name: value for name, value in asdict(self).items() if name not in origin}

    def key(self) -> str:
        """A hash of the content, stable across files, machines and versions."""
        text = json.dumps({"shape": self.shape, **self.content()}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @abstractmethod
    def input_text(self) -> str:
        """What the model is given, as text; the part that must not appear on both sides of a split."""

    def target_text(self) -> str:
        """What the model should answer, as text; empty where the row has no answer."""
        return ""


@dataclass(frozen=True, kw_only=True)
class PromptRow(Row):
    """A prompt and the completion to learn."""

    prompt: str
    completion: str
    shape: ClassVar[str] = "prompt_completion"

    def input_text(self) -> str:
        return self.prompt

    def target_text(self) -> str:
        return self.completion


@dataclass(frozen=True, kw_only=True)
class ChatRow(Row):
    """A conversation; assistant messages with a weight above 0 are learned. `tools` are kept for the chat template."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    shape: ClassVar[str] = "chat"

    def input_text(self) -> str:
        last = max((i for i, message in enumerate(self.messages) if message.role == "assistant"), default=len(self.messages))
        return "\n".join(f"{message.role}: {message.content}" for message in self.messages[:last])

    def target_text(self) -> str:
        return next((message.content for message in reversed(self.messages) if message.role == "assistant"), "")


@dataclass(frozen=True, kw_only=True)
class LabelRow(Row):
    """A text (or a pair of texts) and its label. Labels stay strings, as the file holds them."""

    text: str
    label: str
    second_text: str = ""
    shape: ClassVar[str] = "text_label"

    def input_text(self) -> str:
        return f"{self.text}\n{self.second_text}" if self.second_text else self.text

    def target_text(self) -> str:
        return self.label


@dataclass(frozen=True, kw_only=True)
class TextRow(Row):
    """Plain text, every token of which is learned (continued pre-training)."""

    text: str
    shape: ClassVar[str] = "text"

    def input_text(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class PreferenceRow(Row):
    """A conversation so far with a preferred and a rejected answer. `tools` are kept for the chat template."""

    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    tools: tuple[dict[str, Any], ...] = ()
    shape: ClassVar[str] = "preference"

    def input_text(self) -> str:
        return "\n".join(f"{message.role}: {message.content}" for message in self.messages)

    def target_text(self) -> str:
        return self.chosen
