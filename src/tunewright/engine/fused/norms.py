"""Root-mean-square norms in few passes.

T rows (leading dimensions), D width. y = x r (w + shift) with r = 1 / sqrt(mean(x^2) + eps); with t = g (w + shift),
dx = r t - x r^3 mean(t x), and dw = sum over rows of g x r. Only x and r are kept for the backward pass.

Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv 1910.07467; Gemma keeps w - 1 (`shift` 1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import rms_norm

from tunewright.engine.fused.agreement import agree, stand_in

_EPSILONS = ("variance_epsilon", "eps", "epsilon")


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, epsilon: float, shift: float, dtype: torch.dtype) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        y, scale = _forward(x, weight, epsilon, shift, dtype)
        ctx.save_for_backward(x, scale, weight)
        ctx.shift = shift  # pyright: ignore[reportAttributeAccessIssue]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, scale, weight = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        wants_x, wants_weight = ctx.needs_input_grad[:2]  # pyright: ignore[reportAttributeAccessIssue]
        shift: float = ctx.shift  # pyright: ignore[reportAttributeAccessIssue]
        dw = dx = None
        if wants_weight:
            dw = (gradient * x).mul_(scale).flatten(0, -2).sum(0, dtype=torch.float32).to(weight.dtype)
        if wants_x:
            t = (gradient * (weight.float() + shift if shift else weight.float())).mul_(scale)
            mean = (t * x).sum(-1, keepdim=True).mul_(scale).mul_(scale)
            dx = t.addcmul_(x.float(), mean, value=-1 / x.shape[-1]).to(x.dtype)
        return dx, dw, None, None, None


def _forward(x: Tensor, weight: Tensor, epsilon: float, shift: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    wide = x.float()
    # The norm, not the mean of squares: one pass without a temporary of x's size.
    scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    y = (wide * scale).mul_(weight.float() + shift if shift else weight)
    return y.to(dtype), scale


def normalize(x: Tensor, weight: Tensor, epsilon: float, shift: float, dtype: torch.dtype) -> Tensor:
    """x r (w + shift), computed in float32 and rounded once to `dtype`; x is [..., D], weight [D]."""
    if x.device.type != "cpu":  # torch's own kernel is one pass there, and its backward another
        return rms_norm(x.float(), weight.shape, weight.float() + shift if shift else weight.float(), epsilon).to(dtype)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _RMSNorm.apply(x, weight, epsilon, shift, dtype)  # pyright: ignore[reportReturnType]
    return _forward(x, weight, epsilon, shift, dtype)[0]


def norm_forward(module: nn.Module, *, lowers: bool) -> Callable[[nn.Module, Tensor], Tensor] | None:
    """The forward for `module` where it is a root-mean-square norm with one weight vector, else None.

    Args:
        lowers: under autocast, hand out the type that products run in.
    """
    if module._modules or module._buffers or list(module._parameters) != ["weight"] or module._parameters["weight"] is None:
        return None
    epsilon = next((module.__dict__[name] for name in _EPSILONS if isinstance(module.__dict__.get(name), float)), None)
    if epsilon is None or module._parameters["weight"].dim() != 1:
        return None
    for shift in (0.0, 1.0):
        forward = _made(epsilon, shift, lowers)
        if _same(module, forward):
            return forward
    return None


def _made(epsilon: float, shift: float, lowers: bool) -> Callable[[nn.Module, Tensor], Tensor]:
    def forward(self: nn.Module, hidden_states: Tensor) -> Tensor:
        weight: Tensor = self.weight  # pyright: ignore[reportAssignmentType]
        device = hidden_states.device.type
        if lowers and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        else:  # as the families do: Gemma returns the type that came, the others let the weight widen it
            dtype = hidden_states.dtype if shift else torch.promote_types(hidden_states.dtype, weight.dtype)
        return normalize(hidden_states, weight, epsilon, shift, dtype)

    return forward


def _same(module: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor]) -> bool:
    """Forward, and the gradients of input and weight; small rows show epsilon, large ones a forgotten upcast."""
    weight = module.get_parameter("weight").detach().float().cpu()
    x = torch.randn((3, 2, weight.shape[0]), generator=torch.Generator().manual_seed(0))
    x *= torch.tensor([1.0, 1e-3, 30.0])[:, None, None]

    def through(run: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, weight: run(stand_in(module, {"weight": weight}, {}), x)

    return agree(through(type(module).forward), through(forward), (x, weight))
