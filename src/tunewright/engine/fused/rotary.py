"""Rotary position embeddings by halves: no concatenations, and a backward pass that turns back.

H heads, T tokens, d rotated width. With x = (a, b): y = (a c1 - b s1, b c2 + a s2); back, (u c1 + v s2, v c2 - u s1).
Families call a function of their module by the global name `apply_rotary_pos_emb` inside an attention's forward. An attention
gets that same code with the one name meaning ours; the family's module and class are not touched.

Source: Su et al., "RoFormer", arXiv 2104.09864.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from tunewright.engine.fused.agreement import agree

_NAME = "apply_rotary_pos_emb"
_PARAMETERS = ["q", "k", "cos", "sin", "unsqueeze_dim"]
Rotation = Callable[..., tuple[Tensor, Tensor]]


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(cos, sin)
        # Heads are views of what a linear layer gave: a gradient in the same order goes back to it without a copy.
        ctx.orders = (_order(query), _order(key))  # pyright: ignore[reportAttributeAccessIssue]
        return _turned(query, cos, sin), _turned(key, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dquery: Tensor, dkey: Tensor) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        cos, sin = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        orders: tuple[tuple[int, ...], tuple[int, ...]] = ctx.orders  # pyright: ignore[reportAttributeAccessIssue]
        return _turned_back(dquery, cos, sin, orders[0]), _turned_back(dkey, cos, sin, orders[1]), None, None


def _order(x: Tensor) -> tuple[int, ...]:
    """The dimensions from the outermost in memory to the innermost."""
    return tuple(sorted(range(x.dim()), key=x.stride, reverse=True))


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x turned, computed in the type of the angles and rounded once to the type of x."""
    wide = x.to(cos.dtype)
    y = wide * cos
    (x1, x2), (y1, y2), (s1, s2) = wide.chunk(2, -1), y.chunk(2, -1), sin.chunk(2, -1)
    y1.addcmul_(x2, s1, value=-1)
    y2.addcmul_(x1, s2)
    return y.to(x.dtype)


def _turned_back(gradient: Tensor, cos: Tensor, sin: Tensor, order: tuple[int, ...]) -> Tensor:
    wide = gradient.to(cos.dtype)
    x = torch.empty_permuted(wide.shape, order, dtype=wide.dtype, device=wide.device)
    torch.mul(wide, cos, out=x)
    (u, v), (x1, x2), (s1, s2) = wide.chunk(2, -1), x.chunk(2, -1), sin.chunk(2, -1)
    x1.addcmul_(v, s2)
    x2.addcmul_(u, s1, value=-1)
    return x.to(gradient.dtype)


def _replacing(original: Rotation) -> Rotation:
    """Ours where it computes what `original` does, else `original` (partly rotated heads, angles that are trained)."""

    def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        whole = cos.shape[-1] == q.shape[-1] == k.shape[-1]
        # Without autocast a wider angle widens the heads; under it, the product that reads them narrows them again at once.
        typed = q.dtype == k.dtype and (q.dtype == cos.dtype or torch.is_autocast_enabled(q.device.type))
        if not whole or not typed or cos.requires_grad:
            return original(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
        return _Rotary.apply(q, k, cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim))  # pyright: ignore[reportReturnType]

    return rotate


def rotary_forward(module: nn.Module) -> Callable[..., object] | None:
    """The forward for `module` where its code rotates by a global function that ours agrees with, else None."""
    forward = type(module).forward
    if not inspect.isfunction(forward) or _NAME not in forward.__code__.co_names:
        return None
    original = forward.__globals__.get(_NAME)
    if not inspect.isfunction(original) or list(inspect.signature(original).parameters) != _PARAMETERS:
        return None
    ours = _replacing(original)
    if not _same(original, ours):
        return None
    names = {**forward.__globals__, _NAME: ours}
    replaced = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    replaced.__kwdefaults__ = forward.__kwdefaults__
    replaced.__annotations__ = forward.__annotations__
    return replaced


def _same(original: Rotation, ours: Rotation) -> bool:
    """Both places of the heads, with angles whose halves differ: a family that pairs neighbours or repeats angles shows."""
    draw = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    cos, sin = drawn(1, 3, 8), drawn(1, 3, 8)
    return all(
        agree(
            lambda q, k, place=place: original(q, k, cos, sin, unsqueeze_dim=place),
            lambda q, k, place=place: ours(q, k, cos, sin, unsqueeze_dim=place),
            (drawn(1, *heads), drawn(1, *fewer)),
        )
        for place, heads, fewer in ((1, (4, 3, 8), (2, 3, 8)), (2, (3, 4, 8), (3, 2, 8)))
    )
