"""The rows: what a user's file holds, validated. Every row knows the file and line it came from."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

ORIGIN = frozenset(("where", "group", "metadata"))  # fields that say where a row came from, not what it is


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
        return {name: value for name, value in asdict(self).items() if name not in ORIGIN}

    def key(self) -> str:
        """A hash of the content, stable across files, machines and versions."""
        # As `content()`, but only what is itself a dataclass is copied: this runs for every row.
        content = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ORIGIN}
        text = json.dumps({"shape": self.shape, **content}, sort_keys=True, ensure_ascii=False, default=asdict)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @abstractmethod
    def input_text(self) -> str:
        """What the model is given, as text; the part that must not appear on both sides of a split."""

    def target_text(self) -> str:
        """What the model should answer, as text; empty where the row has no answer."""
        return ""

    def has_answer(self) -> bool:
        """Whether there is something to compare an answer with; an answer may be empty and yet be the right one."""
        return bool(self.target_text().strip())

    def accepted(self) -> tuple[str, ...]:
        """Every answer that counts as right, the first one being `target_text`."""
        return (self.target_text(),)

    def classes(self) -> tuple[str, ...]:
        """The labels that the row holds, one for each time: they are counted, and learned before they are measured."""
        return ()


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

    def classes(self) -> tuple[str, ...]:
        return (self.label,)


@dataclass(frozen=True, kw_only=True)
class SoftLabelRow(LabelRow):
    """A labelled text that is not certain of its label: `distribution` says how probable each one is, `label` is the likeliest."""

    distribution: dict[str, float]
    shape: ClassVar[str] = "soft_label"


@dataclass(frozen=True, kw_only=True)
class LabelsRow(Row):
    """A text (or a pair of texts) and all the labels that hold for it; there may be none. Their order means nothing."""

    text: str
    labels: tuple[str, ...]
    second_text: str = ""
    shape: ClassVar[str] = "text_labels"

    def input_text(self) -> str:
        return f"{self.text}\n{self.second_text}" if self.second_text else self.text

    def target_text(self) -> str:
        return labels_text(self.labels)

    def classes(self) -> tuple[str, ...]:
        return self.labels


@dataclass(frozen=True, kw_only=True)
class NumberRow(Row):
    """A text (or a pair of texts) and the number, or numbers, to predict; `names` where the file names them."""

    text: str
    values: tuple[float, ...]
    names: tuple[str, ...] = ()
    second_text: str = ""
    shape: ClassVar[str] = "text_score"

    def input_text(self) -> str:
        return f"{self.text}\n{self.second_text}" if self.second_text else self.text

    def target_text(self) -> str:
        return numbers_text(self.values)


@dataclass(frozen=True, kw_only=True)
class TagsRow(Row):
    """Words and one tag for each. No tag holds white space, so tags joined by spaces can be taken apart again."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    shape: ClassVar[str] = "tokens_tags"

    def input_text(self) -> str:
        return " ".join(self.tokens)

    def target_text(self) -> str:
        return " ".join(self.tags)

    def classes(self) -> tuple[str, ...]:
        return self.tags


@dataclass(frozen=True, kw_only=True)
class QuestionRow(Row):
    """A question, the text that holds its answer, every accepted answer and where it begins; none: the text does not answer it."""

    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]
    shape: ClassVar[str] = "question_context"

    def input_text(self) -> str:
        return f"{self.question}\n{self.context}"

    def target_text(self) -> str:
        return self.answers[0] if self.answers else ""

    def has_answer(self) -> bool:
        return True

    def accepted(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.answers)) or ("",)


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
        return _spoken(self.messages)

    def target_text(self) -> str:
        return self.chosen


@dataclass(frozen=True, kw_only=True)
class JudgedRow(Row):
    """A conversation so far with one answer, and whether somebody found it desirable (`label`)."""

    messages: tuple[Message, ...]
    completion: str
    label: bool
    tools: tuple[dict[str, Any], ...] = ()
    shape: ClassVar[str] = "unpaired_preference"

    def input_text(self) -> str:
        return _spoken(self.messages)

    def target_text(self) -> str:
        return judged_text(self.completion, self.label)

    def has_answer(self) -> bool:
        return bool(self.completion.strip())


@dataclass(frozen=True, kw_only=True)
class RankingRow(Row):
    """A conversation so far with several answers, the best one first."""

    messages: tuple[Message, ...]
    answers: tuple[str, ...]
    tools: tuple[dict[str, Any], ...] = ()
    shape: ClassVar[str] = "ranking"

    def input_text(self) -> str:
        return _spoken(self.messages)

    def target_text(self) -> str:
        return order_text(self.answers)


@dataclass(frozen=True, kw_only=True)
class RatingRow(RankingRow):
    """A ranking whose answers were given numbers: `scores`, falling, one for each answer. Some of them may be equal, not all."""

    scores: tuple[float, ...]
    shape: ClassVar[str] = "rating"


def _spoken(messages: Iterable[Message]) -> str:
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def judged_text(completion: str, label: bool) -> str:
    """What somebody found an answer, as text: "desirable: ..." or "undesirable: ..."."""
    return f"{'desirable' if label else 'undesirable'}: {completion}"


def order_text(answers: Iterable[str]) -> str:
    """Answers in an order, the best one first, as text that can be taken apart again: a JSON list."""
    return json.dumps(list(answers), ensure_ascii=False)


def labels_of(row: Row) -> tuple[str, ...]:
    """The labels that a row teaches something of, if only that they are improbable."""
    return tuple(row.distribution) if isinstance(row, SoftLabelRow) else row.classes()


def labels_text(labels: Iterable[str]) -> str:
    """A set of labels as text that can be taken apart again: a JSON list, sorted."""
    return json.dumps(sorted(labels), ensure_ascii=False)


def numbers_text(values: Iterable[float]) -> str:
    """Numbers as text, separated by spaces; the shortest form from which the same number is read again."""
    return " ".join(str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value)) for value in values)
