"""Heads that answer for a whole segment: pooling over its hidden states, and a linear layer.

Letters: T tokens of the packed row, S segments, D width, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from tunewright.core.errors import ConfigurationError
from tunewright.models.heads._head import Head, check_dropout, drawn

Pooling = Literal["first", "mean", "last"]


class PooledHead(Head):
    """The abstract head on pooled hidden states: `outputs_SC = output(dropout(tanh(dense(pool(hidden)))))`.

    The dense layer is there only where `hidden` is not 0. `first` suits encoders with a leading special token, `last` decoders
    (only the last token has seen all), `mean` any; the mean is over the segment's own tokens.

    Cost: D * C + C parameters, and D * hidden + hidden before them with a dense layer; nothing beside the body's pass.
    Raises: `ConfigurationError` for an unknown pooling or a dropout outside [0, 1).
    """

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
        super().__init__()
        if pooling not in get_args(Pooling):
            raise ConfigurationError(f"there is no pooling '{pooling}'", where="pooling", allowed=get_args(Pooling), given=pooling)
        check_dropout(dropout, hidden)
        self.width, self.labels, self.pooling, self.hidden, self.dropout = width, tuple(labels), pooling, hidden, dropout
        self.dense = nn.Linear(width, hidden) if hidden else None
        self.output = nn.Linear(hidden or width, len(labels))
        drawn((self.dense, self.output), generator)

    def forward(
        self, hidden_TD: Tensor, segment_T: Tensor, first_S: Tensor, last_S: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Outputs `[S, C]`, in fp32; see `Head.forward`."""
        pooled_SD = self._pool(hidden_TD, segment_T, first_S, last_S).to(self.output.weight.dtype)
        if self.dense is not None:
            pooled_SD = torch.tanh(self.dense(pooled_SD))
        return self.output(self.dropped(pooled_SD, generator))

    def _pool(self, hidden_TD: Tensor, segment_T: Tensor, first_S: Tensor, last_S: Tensor) -> Tensor:
        if self.pooling == "first":
            return hidden_TD[first_S]
        if self.pooling == "last":
            return hidden_TD[last_S]
        count = first_S.shape[0]
        # Padding is summed into a row of its own, which is then dropped: no data-dependent shapes.
        place_T = segment_T.clamp(max=count)
        sums = hidden_TD.new_zeros((count + 1, hidden_TD.shape[1]), dtype=torch.float32).index_add(0, place_T, hidden_TD.float())
        sizes = torch.zeros(count + 1, device=hidden_TD.device).index_add(0, place_T, torch.ones_like(place_T, dtype=torch.float32))
        return sums[:count] / sizes[:count, None]
