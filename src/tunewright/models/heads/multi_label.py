"""Any number of labels for a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Generator

from tunewright.core.errors import ConfigurationError
from tunewright.models.heads._head import check_labels
from tunewright.models.heads._pooled import PooledHead, Pooling


class MultiLabelHead(PooledHead):
    """One logit a label and segment; p(label) is its sigmoid, and the label is given from its `threshold` on. See `PooledHead`.

    Raises: `ConfigurationError` for no label, a label given twice, a threshold outside [0, 1] or not one for each label.
    """

    kept: ClassVar[dict[str, Any]] = {
        "labels": list,
        "pooling": str,
        "hidden": int,
        "dropout": (int, float),
        "thresholds": list,
    }
    later: ClassVar[tuple[str, ...]] = ("thresholds",)

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
        check_labels(labels, 1, "a multi-label classification")
        super().__init__(width, labels, generator, pooling=pooling, hidden=hidden, dropout=dropout)
        self.thresholds: tuple[float, ...] = (0.5,) * len(labels)

    def settle(self, values: Mapping[str, Any]) -> None:
        """Set the `thresholds`, one for each label. Raises `ConfigurationError` for others."""
        self.thresholds = tuple(values["thresholds"])
        if len(self.thresholds) != len(self.labels) or not all(0 <= one <= 1 for one in self.thresholds):
            raise ConfigurationError("there must be one threshold from 0 to 1 for each label", where="thresholds")
