"""Down to a few numbers a token, through a non-linearity, up again, and added.

Shape suffixes: T tokens, D width of the hidden states, W width of the bottleneck.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunewright.engine.changes.change import HiddenChange, Tokens

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "swish": functional.silu,
    "tanh": torch.tanh,
}


class Bottleneck(HiddenChange):
    """h + scale * (U f(D n(x) + d) + u), with n a layer norm or nothing.

    Args:
        widths: of the hidden states (D) and of the bottleneck (W).
        activation: f, one of `ACTIVATIONS`.
        scale: what the change is multiplied by.
        seed: the down-projection is drawn from it (Kaiming uniform); the up-projection starts at zero, and so does the change.
        norm: whether n is a layer norm with weights of its own.
    """

    names: ClassVar[dict[str, str]] = {
        **{"down.weight": "down_WD", "down.bias": "down_W", "up.weight": "up_DW", "up.bias": "up_D"},
        **{"norm.weight": "norm_D", "norm.bias": "norm_bias_D"},
    }

    def __init__(self, widths: tuple[int, int], activation: str, scale: float, seed: int, *, norm: bool = False) -> None:
        super().__init__()
        width, inner = widths
        self.scale, self._activation = scale, ACTIVATIONS[activation]
        bound = 1 / math.sqrt(width)  # kaiming_uniform_ with a = sqrt(5), as torch's own linear layers and LoRA's A begin
        generator = torch.Generator().manual_seed(seed)
        self.down_WD = nn.Parameter(torch.empty(inner, width).uniform_(-bound, bound, generator=generator))
        self.down_W = nn.Parameter(torch.zeros(inner))
        self.up_DW = nn.Parameter(torch.zeros(width, inner))
        self.up_D = nn.Parameter(torch.zeros(width))
        self._norm = norm
        if norm:
            self.norm_D = nn.Parameter(torch.ones(width))
            self.norm_bias_D = nn.Parameter(torch.zeros(width))

    def forward(self, hidden_TD: Tensor, tokens: Tokens, read_TD: Tensor) -> Tensor:
        """See the class; `tokens` do not matter."""
        if not torch.is_autocast_enabled(read_TD.device.type):
            read_TD = read_TD.to(self.down_WD.dtype)
        if self._norm:
            read_TD = functional.layer_norm(read_TD, read_TD.shape[-1:], self.norm_D, self.norm_bias_D)
        inner_TW = self._activation(functional.linear(read_TD, self.down_WD, self.down_W))
        change_TD = functional.linear(inner_TW, self.up_DW, self.up_D)
        return torch.add(hidden_TD, change_TD.to(hidden_TD.dtype), alpha=self.scale)

    def resize(self, factor: float) -> None:
        self.up_DW.mul_(factor)
        self.up_D.mul_(factor)
