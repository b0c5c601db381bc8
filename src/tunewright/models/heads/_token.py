"""Heads that answer for single tokens: a linear layer on each hidden state.

Letters: T tokens of the packed row, D width, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor, nn

from tunewright.models.heads._head import Head, check_dropout, drawn


class TokenHead(Head):
    """The abstract head on every token: `outputs_TC = output(dropout(hidden))`.

    Cost: D * C + C parameters; nothing beside the body's pass.
    Raises: `ConfigurationError` for a dropout outside [0, 1).
    """

    def __init__(self, width: int, labels: Sequence[str], generator: Generator, *, dropout: float = 0.0) -> None:
        super().__init__()
        check_dropout(dropout)
        self.width, self.labels, self.dropout = width, tuple(labels), dropout
        self.output = nn.Linear(width, len(labels))
        drawn((self.output,), generator)

    def forward(
        self, hidden_TD: Tensor, segment_T: Tensor, first_S: Tensor, last_S: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Outputs `[T, C]`, in fp32; see `Head.forward`."""
        return self.output(self.dropped(hidden_TD.to(self.output.weight.dtype), generator))
