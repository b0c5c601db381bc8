"""What a policy expects to be rewarded with from a token on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Generator, nn

from tunewright.models.heads._token import TokenHead


class ValueHead(TokenHead):
    """One number a token, 0 everywhere at the start: the critic of `ppo`. See `TokenHead`.

    Raises: `ConfigurationError` for a dropout outside [0, 1).
    """

    kept: ClassVar[dict[str, Any]] = {"labels": list, "dropout": (int, float)}

    def __init__(self, width: int, labels: Sequence[str], generator: Generator, *, dropout: float = 0.0) -> None:
        super().__init__(width, labels, generator, dropout=dropout)
        nn.init.zeros_(self.output.weight)  # a guess that is drawn would be noise in the first advantages
