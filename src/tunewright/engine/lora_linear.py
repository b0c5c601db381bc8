"""A frozen linear layer with a low-rank change beside it: y = W x + b + scale * B A dropout(x)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear
from transformers.pytorch_utils import Conv1D


class LoRALinear(nn.Module):
    """Stands where `host` stood and computes host(x) plus the low-rank change.

    Args:
        host: nn.Linear or GPT-2's Conv1D (whose weight is transposed).
        rank: R, the inner width of the change.
        scale: what B A x is multiplied by (alpha / rank, or alpha / sqrt(rank) when rank-stabilised).
        drop: probability of dropping an input of A while training.
        seed: A is drawn from it (Kaiming uniform, as PEFT and the paper's code do), B starts at zero.
    """

    def __init__(self, host: nn.Module, rank: int, scale: float, drop: float, seed: int) -> None:
        super().__init__()
        if not isinstance(host, nn.Linear | Conv1D):
            raise TypeError(f"a LoRA stands on a linear layer, not on {type(host).__name__}")
        self.host, self.rank, self.scale, self.drop = host, rank, scale, drop
        self.transposed = isinstance(host, Conv1D)
        outputs, inputs = reversed(host.weight.shape) if self.transposed else host.weight.shape
        bound = math.sqrt(6 / ((1 + 5) * inputs))  # kaiming_uniform_ with a = sqrt(5)
        generator = torch.Generator().manual_seed(seed)
        drawn_RI = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        self.A_RI = nn.Parameter(drawn_RI.to(host.weight.device))
        self.B_OR = nn.Parameter(torch.zeros(outputs, rank, device=host.weight.device))
        self.enabled = True

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        y = self.host(x)
        if not self.enabled:
            return y
        dropped = dropout(x, self.drop, self.training) if self.drop else x
        low = linear(dropped.to(self.A_RI.dtype) if not torch.is_autocast_enabled(x.device.type) else dropped, self.A_RI)
        return torch.add(y, linear(low, self.B_OR), alpha=self.scale)

    @property
    def weight(self) -> Tensor:
        """The host's weight: some families look at its dtype before they call the layer."""
        return self.host.get_parameter("weight")

    @property
    def bias(self) -> Tensor | None:
        """The host's bias, for the same reason."""
        return self.host._parameters.get("bias")

    @torch.no_grad()
    def change(self) -> Tensor:
        """What merging adds to the host's weight, in the host's own orientation."""
        change_OI = (self.B_OR @ self.A_RI) * self.scale
        return (change_OI.T if self.transposed else change_OI).to(self.host.weight.dtype)


def replace_module(network: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` where `path` stands in `network`."""
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)
