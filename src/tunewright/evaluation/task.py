"""An approach is whatever answers rows: prompting, retrieval and tuning all are, so that all are measured alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright.data.rows import Row


@dataclass(frozen=True)
class Answer:
    """What an approach answered to one row.

    Args:
        text: the label or the text; None where this row was only scored.
        loss: mean negative log-likelihood of the reference, per token (or of the right label); None where there is no model.
        tokens: reference tokens that `loss` is the mean of.
        confidence: probability of the chosen label.
        details: what a task head says beside it (probabilities of labels, places of an answer), as plain data.
        scores: what the objective itself says of the answer, by name (its reward); more is better.
    """

    text: str | None
    loss: float | None = None
    tokens: int = 0
    confidence: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)


class Approach(ABC):
    """Something that answers rows."""

    name: str

    @abstractmethod
    def answer(self, rows: Sequence[Row], written: int) -> list[Answer]:
        """An answer for every row, in order.

        Args:
            rows: what is asked.
            written: for how many of the first rows text is written; the rest are scored only (writing is the slow part).
        """


class Always(Approach):
    """The baseline that no model is needed for: one and the same answer, or what a rule says to a row.

    Args:
        text: the answer, or the rule.
    """

    def __init__(self, text: str | Callable[[Row], str], name: str) -> None:
        self.text, self.name = text, name

    def answer(self, rows: Sequence[Row], written: int) -> list[Answer]:
        return [Answer(self.text if isinstance(self.text, str) else self.text(row)) for row in rows]
