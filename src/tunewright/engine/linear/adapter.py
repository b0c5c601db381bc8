"""One low-rank change of one linear layer: A, B and the scale. The arithmetic is in `product`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear
from transformers.pytorch_utils import Conv1D

from tunewright.models.attached import Attached


class LoRAAdapter(Attached):
    """scale * B A dropout(x), beside a layer.

    Args:
        host: the layer, nn.Linear (or what stands in for one) or GPT-2's Conv1D, whose weight is transposed.
        rank: R, the inner width of the change.
        scale: what B A x is multiplied by (alpha / rank, or alpha / sqrt(rank) when rank-stabilised).
        drop: probability of dropping an input of A while training.
        seed: A is drawn from it (Kaiming uniform, as PEFT and the paper's code do), B starts at zero.

    Raises:
        TypeError: `host` is no linear layer.
    """

    def __init__(self, host: nn.Module, rank: int, scale: float, drop: float, seed: int) -> None:
        super().__init__()
        if isinstance(host, nn.Linear):
            outputs, inputs, self.transposed = host.out_features, host.in_features, False
        elif isinstance(host, Conv1D):
            outputs, inputs, self.transposed = host.nf, host.nx, True
        else:
            raise TypeError(f"a LoRA stands on a linear layer, not on {type(host).__name__}")
        self.rank, self.scale, self.drop, self.enabled = rank, scale, drop, True
        bound = math.sqrt(6 / ((1 + 5) * inputs))  # kaiming_uniform_ with a = sqrt(5)
        generator = torch.Generator().manual_seed(seed)
        drawn_RI = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        device = next(iter(host.parameters()), drawn_RI).device
        self.A_RI = nn.Parameter(drawn_RI.to(device))
        self.B_OR = nn.Parameter(torch.zeros(outputs, rank, device=device))

    def forward(self, x_TI: Tensor) -> Tensor:
        """scale * B A dropout(x), [T, O], operation by operation: where dropout or a trained host rules out the fused product."""
        dropped_TI = dropout(x_TI, self.drop, self.training) if self.drop else x_TI
        if not torch.is_autocast_enabled(x_TI.device.type):
            dropped_TI = dropped_TI.to(self.A_RI.dtype)
        return linear(linear(dropped_TI, self.A_RI), self.B_OR) * self.scale

    @property
    def wet(self) -> bool:
        """Whether a forward pass would draw a dropout mask now."""
        return self.drop > 0 and self.training

    @torch.no_grad()
    def change(self) -> Tensor:
        """What merging adds to the host's weight, float32, in the host's own orientation."""
        change_OI = (self.B_OR @ self.A_RI) * self.scale
        return change_OI.T if self.transposed else change_OI

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LoRAAdapter:
        """Follow the network to another device, but not to fewer digits: A and B are the masters that training adds to."""
        for parameter in self.parameters():
            parameter.data = parameter.data.to(fn(parameter.data).device)
        return self
