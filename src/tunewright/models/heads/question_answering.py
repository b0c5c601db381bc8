"""The first and the last token of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Generator

from tunewright.core.errors import ConfigurationError
from tunewright.models.heads._token import TokenHead

ENDS = ("start", "end")


class QuestionAnsweringHead(TokenHead):
    """Two logits a token: that the answer starts with it, and that it ends with it; each a softmax over tokens. See `TokenHead`.

    Raises: `ConfigurationError` for outputs that are not `start` and `end`, or a dropout outside [0, 1).
    """

    kept: ClassVar[dict[str, Any]] = {"labels": list, "dropout": (int, float)}

    def __init__(self, width: int, labels: Sequence[str], generator: Generator, *, dropout: float = 0.0) -> None:
        if tuple(labels or ENDS) != ENDS:
            raise ConfigurationError("a span has a start and an end, and nothing else", where="labels", allowed=ENDS)
        super().__init__(width, ENDS, generator, dropout=dropout)
