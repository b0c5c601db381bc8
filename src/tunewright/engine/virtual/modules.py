"""What the vectors of virtual tokens come from: themselves, or a small network that makes them while training.

Shape suffixes: P virtual tokens, D width of the embedding.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tunewright.engine.virtual.entrance import Virtual

Encoder = Literal["mlp", "lstm"]


class Vectors(Virtual):
    """One trained vector a virtual token.

    Args:
        vectors_PD: what they begin as.
    """

    def __init__(self, vectors_PD: Tensor) -> None:
        super().__init__(len(vectors_PD))
        self.vectors_PD = nn.Parameter(vectors_PD.float().clone())

    def vectors(self) -> Tensor:
        """The parameter itself."""
        return self.vectors_PD


class Encoded(Virtual):
    """Vectors made by a small network from an embedding of its own: P-tuning's prompt encoder.

    `mlp`: D -> H -> H -> D with ReLU. `lstm`: a bidirectional LSTM of H units, then 2H -> 2H -> D with ReLU, so that each vector
    knows its neighbours. Shapes, names and initial distributions are those of PEFT's `PromptEncoder`.

    Args:
        shape: P, D and H.
        kind: of the encoder.
        layers: of the LSTM.
        dropout: between them.
        seed: everything is drawn from it.
    """

    def __init__(self, shape: tuple[int, int, int], kind: Encoder, layers: int, dropout: float, seed: int) -> None:
        count, width, hidden = shape
        super().__init__(count)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(count, width)
            if kind == "lstm":
                self.lstm_head = nn.LSTM(width, hidden, layers, dropout=dropout, bidirectional=True, batch_first=True)
                self.mlp_head = nn.Sequential(nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, width))
            else:
                inner = (nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width))
                self.lstm_head, self.mlp_head = None, nn.Sequential(*inner)

    def vectors(self) -> Tensor:
        """The encoder's output, [P, D]."""
        states_1PD = self.embedding.weight[None]
        if self.lstm_head is not None:
            states_1PD = self.lstm_head(states_1PD)[0]
        return self.mlp_head(states_1PD)[0]
