"""What a family of models asks of attention besides who sees whom."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Options(NamedTuple):
    """What a family asks of attention.

    Args:
        causal: rows see what stands before them, not behind.
        scale: scores are multiplied by it.
        window: positions that a row sees, itself included; None for all.
        softcap: scores s become softcap * tanh(s / softcap); None for s.
        dropout: the share of the weights that is dropped.
    """

    causal: bool
    scale: float
    window: int | None = None
    softcap: float | None = None
    dropout: float = 0.0


def compute_dtype(value: Tensor) -> torch.dtype:
    """What attention is computed in: autocast's dtype where that is on (queries often arrive in float32), else the values' own."""
    device = value.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
