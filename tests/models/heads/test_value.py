"""The critic's head: one number a token, which knows nothing at the start."""

from __future__ import annotations

from pathlib import Path

import torch

from tunewright.models.heads import Head
from tunewright.models.heads.value import ValueHead


def test_it_begins_at_zero_and_is_linear(tmp_path: Path) -> None:
    head = ValueHead(3, ("value",), torch.Generator().manual_seed(0))
    hidden_TD, nothing = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]]), torch.tensor([], dtype=torch.long)
    assert head(hidden_TD, nothing, nothing, nothing).tolist() == [[0.0], [0.0]]
    with torch.no_grad():
        head.output.weight.copy_(torch.tensor([[1.0, 0.0, 2.0]]))
        head.output.bias.fill_(0.5)
    assert head(hidden_TD, nothing, nothing, nothing).tolist() == [[7.5], [1.5]]
    head.save(tmp_path)
    again = Head.load(tmp_path)
    assert isinstance(again, ValueHead)
    assert again(hidden_TD, nothing, nothing, nothing).tolist() == [[7.5], [1.5]]
