"""One label for a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Generator

from tunewright.models.heads._head import check_labels
from tunewright.models.heads._pooled import PooledHead, Pooling


class ClassificationHead(PooledHead):
    """One logit a label and segment; p(label) is their softmax. See `PooledHead`.

    Raises: `ConfigurationError` for fewer than two labels, a label given twice, an unknown pooling or a dropout outside [0, 1).
    """

    kept: ClassVar[dict[str, Any]] = {"labels": list, "pooling": str, "hidden": int, "dropout": (int, float)}

    def __init__(
        self,
        width: int,
        labels: Sequence[str],
        generator: Generator,
        *,
        pooling: Pooling = "first",
        hidden: int = 0,
        dropout: float = 0.0,
    ) -> None:
        check_labels(labels, 2)
        super().__init__(width, labels, generator, pooling=pooling, hidden=hidden, dropout=dropout)
