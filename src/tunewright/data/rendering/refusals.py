"""Rows that cannot be rendered: each with a kind that is counted and a sentence that says what would help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunewright.core.errors import DataError

REASONS = {
    "too_long": "the row is longer than max_tokens and truncate is 'refuse'",
    "answer_too_long": "the answer alone does not fit into max_tokens",
    "nothing_trained": "no token of the row would be learned",
    "empty_answer": "the answer is empty",
    "no_assistant": "the conversation has no assistant message to learn",
    "doubled_bos": "the row begins with two beginning-of-sequence tokens",
    "template": "the chat template refused the conversation",
    "mask": "the assistant's part of the rendered conversation cannot be told from the rest",
    "equal_answers": "two of the answers are the same",
    "tie": "two of the answers have the same rating (pairs can be made of the others: `data.pairs`)",
    "shape": "rows of this shape cannot be rendered for this kind of base",
}


@dataclass(frozen=True)
class Refusal:
    """A row that was not rendered.

    Args:
        reason: a key of `REASONS`.
        message: the whole sentence, with the numbers.
        where: file and line of the row.
        row: its index in the list that was rendered.
        prompt_tokens: how long its prompt is, where that was the trouble.
        answer_tokens: how long its answer is, end token included, where that was the trouble.
    """

    reason: str
    message: str
    where: str = ""
    row: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0


class RowRefused(DataError):
    """One row cannot be rendered; `refusal` says which and why. The bulk path returns the refusal and does not raise it."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message, where=refusal.where)

    @property
    def reason(self) -> str:
        """The kind of the refusal, a key of `REASONS`."""
        return self.refusal.reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (RowRefused, (self.refusal,))
