"""One tag for each word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Generator

from tunewright.models.heads._head import check_labels
from tunewright.models.heads._token import TokenHead


class TokenClassificationHead(TokenHead):
    """One logit a tag and token; p(tag) is their softmax. See `TokenHead`.

    Raises: `ConfigurationError` for fewer than two tags, a tag given twice or a dropout outside [0, 1).
    """

    kept: ClassVar[dict[str, Any]] = {"labels": list, "dropout": (int, float)}

    def __init__(self, width: int, labels: Sequence[str], generator: Generator, *, dropout: float = 0.0) -> None:
        check_labels(labels, 2, "a token classification")
        super().__init__(width, labels, generator, dropout=dropout)
