"""A trained factor for each number of a hidden state.

Shape suffixes: T tokens, D width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunewright.engine.changes.change import HiddenChange, Tokens


class Scale(HiddenChange):
    """l * h, element by element; l starts at one.

    Args:
        width: D.
    """

    names: ClassVar[dict[str, str]] = {"ia3_l": "factor_D"}

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor_D = nn.Parameter(torch.ones(width))

    def forward(self, hidden_TD: Tensor, tokens: Tokens, read_TD: Tensor) -> Tensor:
        """See the class; `tokens` do not matter."""
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return _scaled(hidden_TD, self.factor_D)
        return _Scaled.apply(hidden_TD, self.factor_D)  # pyright: ignore[reportReturnType]

    def resize(self, factor: float) -> None:
        self.factor_D.sub_(1).mul_(factor).add_(1)


def _scaled(hidden_TD: Tensor, factor_D: Tensor) -> Tensor:
    return (hidden_TD * factor_D).to(hidden_TD.dtype)  # factors near one would be but a few numbers in bfloat16


class _Scaled(torch.autograd.Function):
    """The product, whose backward pass makes one tensor of the state's size where autograd makes two: those are what it costs."""

    @staticmethod
    def forward(context: Any, hidden_TD: Tensor, factor_D: Tensor) -> Tensor:
        context.save_for_backward(hidden_TD, factor_D)
        return _scaled(hidden_TD, factor_D)

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad_TD: Tensor) -> tuple[Tensor | None, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden_TD, factor_D = context.saved_tensors
        made_TD = grad_TD * hidden_TD
        factor_grad_D = made_TD.sum(0, dtype=factor_D.dtype)
        return torch.mul(grad_TD, factor_D, out=made_TD) if context.needs_input_grad[0] else None, factor_grad_D
