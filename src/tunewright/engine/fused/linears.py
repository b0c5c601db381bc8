"""Plain linear layers on the faster product (see `engine.products`): trained ones, and frozen ones that carry nothing."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from tunewright.engine.products import linear


def linear_forward(module: nn.Module) -> Callable[[nn.Module, Tensor], Tensor] | None:
    """The forward for `module` where it is an ordinary linear layer, else None."""
    return _forward if type(module) is nn.Linear else None


def _forward(self: nn.Module, x: Tensor) -> Tensor:
    return linear(x, self.weight, self.bias)  # pyright: ignore[reportArgumentType]


def runs_ours(module: nn.Module) -> bool:
    """Whether the module's own forward is the one above."""
    return getattr(module.__dict__.get("forward"), "__func__", None) is _forward
