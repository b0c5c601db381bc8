"""Numbers for a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from tunewright.core.errors import ConfigurationError
from tunewright.models.heads._head import check_labels
from tunewright.models.heads._pooled import PooledHead, Pooling


class RegressionHead(PooledHead):
    """One standardised number a target and segment; `labels` name the targets. See `PooledHead`.

    What it learns is (y - mean) / deviation of the training targets, so that its first guess, about 0, is their mean, and one
    learning rate serves targets of any unit. `numbers` turns outputs back.

    Raises: `ConfigurationError` for no target, or not one mean and one deviation above 0 for each.
    """

    kept: ClassVar[dict[str, Any]] = {
        "labels": list,
        "pooling": str,
        "hidden": int,
        "dropout": (int, float),
        "means": list,
        "deviations": list,
    }
    later: ClassVar[tuple[str, ...]] = ("means", "deviations")

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
        check_labels(labels, 1, "a regression")
        super().__init__(width, labels, generator, pooling=pooling, hidden=hidden, dropout=dropout)
        self.means: tuple[float, ...] = (0.0,) * len(labels)
        self.deviations: tuple[float, ...] = (1.0,) * len(labels)

    def settle(self, values: Mapping[str, Any]) -> None:
        """Set `means` and `deviations`, one of each for each target. Raises `ConfigurationError` for others."""
        self.means, self.deviations = tuple(values["means"]), tuple(values["deviations"])
        if not len(self.means) == len(self.deviations) == len(self.labels) or not all(one > 0 for one in self.deviations):
            raise ConfigurationError("there must be a mean and a deviation above 0 for each target", where="deviations")

    def standardised(self, values_SC: Tensor) -> Tensor:
        """Numbers in their own unit as the head learns them, `[S, C]`."""
        means_C, deviations_C = (torch.tensor(one, device=values_SC.device) for one in (self.means, self.deviations))
        return (values_SC - means_C) / deviations_C

    def numbers(self, outputs_SC: Tensor) -> Tensor:
        """Outputs in the unit of the targets, `[S, C]`."""
        means_C, deviations_C = (torch.tensor(one, device=outputs_SC.device) for one in (self.means, self.deviations))
        return outputs_SC * deviations_C + means_C
