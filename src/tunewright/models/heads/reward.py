"""One number for an answer: how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Generator

from tunewright.models.heads._head import check_labels
from tunewright.models.heads._pooled import PooledHead, Pooling


class RewardHead(PooledHead):
    """The reward of an answer from the hidden state of its last token; only differences of rewards to one prompt mean anything.

    Raises: `ConfigurationError` for anything but one label. See `PooledHead`.
    """

    kept: ClassVar[dict[str, Any]] = {"labels": list, "pooling": str, "hidden": int, "dropout": (int, float)}

    def __init__(
        self,
        width: int,
        labels: Sequence[str] = ("reward",),
        generator: Generator | None = None,
        *,
        pooling: Pooling = "last",
        hidden: int = 0,
        dropout: float = 0.0,
    ) -> None:
        check_labels(labels, 1, "a reward")
        super().__init__(width, labels[:1], generator or Generator(), pooling=pooling, hidden=hidden, dropout=dropout)
